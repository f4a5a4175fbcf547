"""The README is true: its generated blocks are current and its commands work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.readme_blocks import BLOCK, BLOCKS, README, ROOT, modules, run

TEXT = README.read_text(encoding="utf-8")
SHOWN = {match[2]: match[3] for match in BLOCK.finditer(TEXT)}
WRITTEN = BLOCK.sub("", TEXT)
"""What people wrote."""


def fences(language: str) -> list[str]:
    """The contents of the hand-written blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", WRITTEN, re.DOTALL | re.MULTILINE)


def test_every_block_has_its_place() -> None:
    """README.md has every generated block once, and no other."""
    names = re.findall(r"<!-- (begin|end) generated: (\w+) -->", TEXT)
    assert sorted(names) == sorted((edge, name) for name in BLOCKS for edge in ("begin", "end"))


@pytest.mark.parametrize("name", BLOCKS)
def test_block_is_current(name: str) -> None:
    """A generated block is what its maker makes today; if not: python -m tests.readme_blocks --write."""
    assert SHOWN[name] == BLOCKS[name]()


def test_file_map_names_every_module_and_no_other() -> None:
    """The file map has one line for each module and folder of the package, and everything it names is there."""
    lines = SHOWN["files"].splitlines()[1:-1]
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


def test_commands_work(tmp_path: Path) -> None:
    """Every command in a hand-written console block, run in turn in one folder, ends well."""
    for block in fences("yaml"):
        (tmp_path / block.split()[1]).write_text(block, encoding="utf-8")  # the first line is: # NAME
    commands = [line.removeprefix("$ ") for block in fences("console") for line in block.splitlines()]
    assert commands
    for command in commands:
        done = run(command.split("  #")[0], tmp_path)
        assert done.returncode == 0, f"{command}: {done.stdout}"


def test_links_lead_somewhere() -> None:
    """Every relative link is a file of the checkout."""
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("https://") or (ROOT / target).exists(), target
