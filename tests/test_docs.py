"""What people read is true: generated text is current, commands work, links lead somewhere, examples run."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from moeplan import __version__
from moeplan.cli import cli
from tests.generated import BLOCK, BLOCKS, ROOT, TREE, files, modules, pages, renewed, run
from tests.verify_cases import text_file

PAGES = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in pages()}
"""Every page's text by its path."""
FILES = {str(path.relative_to(ROOT)): make for path, make in files().items()}
"""What makes each file that is generated whole."""
SHOWN = {(page, found[2]): found[3] for page, text in PAGES.items() for found in BLOCK.finditer(text)}
WRITTEN = {page: BLOCK.sub("", text) for page, text in PAGES.items() if page not in FILES}
"""What people wrote."""


def fences(page: str, language: str) -> list[str]:
    """The contents of a page's hand-written blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", WRITTEN[page], re.DOTALL | re.MULTILINE)


def test_every_block_has_its_place() -> None:
    """Every marker that begins a generated block has the one that ends it, and every kind of block is shown."""
    for page, text in PAGES.items():
        edges = re.findall(r"<!-- (begin|end) generated: (\w+) -->", text)
        assert [edge for edge, _ in edges] == ["begin", "end"] * (len(edges) // 2), page
        assert [name for _, name in edges[::2]] == [name for _, name in edges[1::2]], page
    assert {name for _, name in SHOWN} == set(BLOCKS)


@pytest.mark.parametrize("name", FILES)
def test_generated_file_is_current(name: str) -> None:
    """A file that is generated whole is what its maker makes today; if not: python -m tests.generated --write."""
    assert (ROOT / name).read_text(encoding="utf-8") == FILES[name]()


@pytest.mark.parametrize("name", [page for page in WRITTEN if BLOCK.search(PAGES[page])])
def test_block_is_current(name: str) -> None:
    """A page's generated blocks are what they should be today; if not: python -m tests.generated --write."""
    assert PAGES[name] == renewed(ROOT / name)


def test_nothing_generated_is_left_over() -> None:
    """Every page of a command or a law belongs to one that there is."""
    found = {
        str(path.relative_to(ROOT)) for folder in ("commands", "laws") for path in (ROOT / "docs" / folder).iterdir()
    }
    assert found == {name for name in FILES if name.startswith("docs/")}


def test_file_map_names_every_module_and_no_other() -> None:
    """The file map has one line for each module and folder of the package, and everything it names is there."""
    lines = SHOWN["docs/files.md", "files"].splitlines()[1:-1]
    folders: list[str] = []
    named = set()
    for line in lines:
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders[depth:] = [name]
        named.add("".join(folders))
    assert all((ROOT / name).exists() for name in named)
    package = ROOT / "moeplan"
    wanted = {"moeplan/" + path.relative_to(package).as_posix().removesuffix("__init__.py") for path in modules()}
    assert {name for name in named if name.startswith("moeplan/")} == wanted


def console(page: str) -> list[str]:
    """The commands of a page's hand-written console blocks."""
    lines = [line for block in fences(page, "console") for line in block.splitlines()]
    assert all(line.startswith("$ moeplan ") for line in lines), page
    return [line.removeprefix("$ ") for line in lines]


MINUTES = ("docs/jobs.md", "docs/serving.md")
"""Pages with commands that search days on GPUs for a target."""


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page in MINUTES else ())
        for page in WRITTEN
        if fences(page, "console")
    ],
)
def test_commands_work(tmp_path: Path, page: str) -> None:
    """Every command in a page's hand-written console blocks, run in turn in one folder, ends well."""
    for block in fences(page, "yaml"):
        (tmp_path / block.split()[1]).write_text(block, encoding="utf-8")  # the first line is: # NAME
    if any("runs.csv" in command for command in console(page)):
        example(tmp_path, "own_law.py")
    with contextlib.chdir(tmp_path):
        for command in console(page):
            done = run(command)
            assert done.exit_code == 0, f"{command}: {done.output}"


def shell(page: str) -> list[str]:
    """The `moeplan` command lines of a page's hand-written shell blocks."""
    lines = [line for block in fences(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("moeplan ")]


def trains(command: str) -> bool:
    """Whether a command trains, measures the machine or serves: what only a user starts."""
    trains = command.startswith("moeplan verify") and "--dry-run" not in command
    return trains or command.startswith("moeplan planner") or "--measure " in command


@pytest.mark.verify
@pytest.mark.parametrize("page", [page for page in WRITTEN if any(not trains(line) for line in shell(page))])
def test_shell_commands_work(tmp_path: Path, page: str) -> None:
    """Every command in a page's shell blocks but those that train, measure or serve, run in turn, ends well."""
    example(tmp_path, "own_law.py")  # runs.csv
    shutil.copy(ROOT / "examples" / "h200.yaml", tmp_path / "my_node.yaml")
    (tmp_path / "my" / "corpus").mkdir(parents=True)
    text_file(tmp_path / "my" / "corpus")
    with contextlib.chdir(tmp_path):
        run("moeplan recommend --flops 1e22 --memory 80GB --output plan.json")
        for command in shell(page):
            if not trains(command):
                done = run(command.split("  #")[0])
                assert done.exit_code == 0, f"{command}: {done.output}"


@pytest.mark.parametrize("page", [page for page in WRITTEN if shell(page)])
def test_commands_that_take_long_are_understood(page: str) -> None:
    """Every command of a page's shell blocks is one that the command line reads: its options and values exist."""
    for command in shell(page):
        name, *arguments = shlex.split(command, comments=True)[1:]
        cli.commands[name].make_context(f"moeplan {name}", arguments, obj=command)


def test_links_lead_somewhere() -> None:
    """Every link into the checkout is a file of it; README has none that a package index cannot follow."""
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if target.startswith(TREE):
                assert (ROOT / target.removeprefix(f"{TREE}/")).exists(), (page, target)
            elif not target.startswith("https://"):
                assert page != "README.md", target
                assert ((ROOT / page).parent / target).exists(), (page, target)


def test_readme_is_short() -> None:
    """README.md is read in a few minutes: at most 12 kB."""
    assert len((ROOT / "README.md").read_bytes()) <= 12_000


def example(folder: Path, name: str) -> str:
    """What an example prints."""
    command = [sys.executable, str(ROOT / "examples" / name), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_examples_run(tmp_path: Path, name: str) -> None:
    """Every script in examples/ runs as its docstring says, prints something and leaves files."""
    assert example(tmp_path, name)
    assert list(tmp_path.iterdir())


def test_citation_and_links_of_the_project() -> None:
    """CITATION.cff is of this version and license, and the project's URLs are of one repository."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["version"], citation["license"]) == (__version__, project["license"])
    assert all(url.startswith(citation["repository-code"]) for url in project["urls"].values())
