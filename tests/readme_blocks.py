"""The generated parts of README.md: `python -m tests.readme_blocks --write` renews them.

A block stands between `<!-- begin generated: NAME -->` and `<!-- end generated: NAME -->`; `BLOCKS` says what makes it.
`tests/test_readme.py` fails where a block is not what it should be.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- begin generated: (\w+) -->\n)(.*?)(<!-- end generated: \2 -->)", re.DOTALL)

SESSION = "moeplan recommend --flops 1e22 --memory 80GB"
REFUSALS = (
    "moeplan recommend --flops -1e22 --memory 80GB",
    "moeplan laws zhao2024",
    "moeplan recommend --flops 1e22 --memory 100MB",
    "moeplan recommend --flops 1e22 --memory 80GB --fix d_expert=1000",
)
"""Commands that cannot be met, for the table of exit codes."""

PYTHON = """\
from moeplan import Architecture, Budget, load_law, recommend
plan = recommend(Budget("1e22", "80GB", fix={"granularity": 8}))
plan.architecture.num_experts, plan.architecture.d_expert, f"{plan.design.tokens:.3g} tokens"
[f"{x:.2f}" for x in (plan.leverage.low, plan.leverage.efficiency_leverage, plan.leverage.high)]
{opinion.law: f"{opinion.efficiency:.0%}" for opinion in plan.laws if opinion.efficiency}
leverage = load_law("tian2025").predicting("efficiency_leverage")
leverage.variables, f"{leverage(0.031, 12, 1e22):.2f}"
sizes = dict(d_model=2048, num_layers=24, vocab_size=65536, num_heads=16, num_kv_heads=4, head_dim=128, d_ff=6144)
dense = Architecture(**sizes)
dense.total_params(), dense.active_params("non_embedding"), dense.flops_per_token(4096)
recommend(Budget("1e22", "100MB"))
"""
"""A session in Python, a statement a line."""

TOP = {
    "laws/": "one YAML file per published law: citation, digits with grades, conventions, domain, its own checks",
    "moeplan/": "the package",
    "tests/": "test_<what>.py by module; this list is made by readme_blocks.py; tests/benchmarks/ holds the timings",
    ".ci/run": "what continuous integration runs",
    "constraints.txt": "the versions it tests with",
}
"""What stands at the top of the checkout, for the file map."""


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a `moeplan` command line, stderr with stdout, as on a terminal of 100 columns without colour."""
    program, *arguments = shlex.split(command)
    assert program == "moeplan", command
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MOEPLAN_", "_MOEPLAN"))}
    environment |= {"COLUMNS": "100", "NO_COLOR": "1", "PYTHONUTF8": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "moeplan", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )


def _output(command: str, *, fails: bool = False) -> str:
    with tempfile.TemporaryDirectory() as folder:
        done = run(command, Path(folder))
    assert bool(done.returncode) == fails, f"{command} ended with {done.returncode}: {done.stdout}"
    return done.stdout + (f"# exit code {done.returncode}\n" if fails else "")


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```\n"


def _session() -> str:
    return _fenced("console", f"$ {SESSION}\n{_output(SESSION)}")


def _refusals() -> str:
    return _fenced("console", "\n".join(f"$ {command}\n{_output(command, fails=True)}" for command in REFUSALS))


def _laws() -> str:
    from moeplan.laws import law_names, load_law
    from moeplan.laws.law import GRADES

    rows = ["| law | what it says | grade | searches | knows dense | arXiv |", "| --- | --- | --- | --- | --- | --- |"]
    for law in map(load_law, law_names()):
        arxiv = law.citation.arxiv
        link = f"[{arxiv}](https://arxiv.org/abs/{arxiv})" if arxiv else ""
        marks = " | ".join("yes" if mark else "" for mark in (law.can_search, law.has_dense))
        rows.append(f"| [{law.name}](laws/{law.name}.yaml) | {law.title} | {law.grade} | {marks} | {link} |")
    return "\n".join([*rows, "", *(f"- **{grade}**: {meaning}" for grade, meaning in GRADES.items())]) + "\n"


def _backtest() -> str:
    from moeplan.report.backtest import score_table
    from moeplan.report.blocks import Section
    from moeplan.report.markdown import markdown_text
    from moeplan.studies.backtest import backtest

    return markdown_text([Section("", (score_table(backtest()),))])


def _rankings() -> str:
    from moeplan.report.backtest_measured import ranking_table
    from moeplan.report.blocks import Section
    from moeplan.report.markdown import markdown_text
    from moeplan.studies.backtest import backtest

    return markdown_text([Section("", (ranking_table(backtest()),))])


def _help() -> str:
    from moeplan.cli import cli

    names = ["moeplan", *(f"moeplan {name}" for name in cli.commands)]
    return "\n".join(_fenced("console", f"$ {name} --help\n{_output(f'{name} --help')}") for name in names)


def _python() -> str:
    from moeplan.errors import MoeplanError

    namespace: dict[str, object] = {}
    shown = []
    for line in PYTHON.splitlines():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            try:
                exec(compile(line, "README.md", "single"), namespace)
            except MoeplanError as error:
                print(f"{type(error).__module__}.{type(error).__name__}: {error}")
        shown.append(f">>> {line}\n{printed.getvalue()}")
    return _fenced("pycon", "".join(shown))


def _conventions() -> str:
    from moeplan.architecture.conventions import CONVENTIONS

    rows = ["| variable | convention | what is counted |", "| --- | --- | --- |"]
    for variable, conventions in CONVENTIONS.items():
        if variable != "train_flops":  # counted as FLOPs per token are
            rows += [f"| {variable} | {name} | {meaning} |" for name, meaning in conventions.items()]
    return "\n".join(rows).replace(" * ", " \\* ") + "\n"


def _variables() -> str:
    from moeplan.plan.search.variables import DESIGN_VARIABLES

    rows = ["| variable | what it is | fixed |", "| --- | --- | --- |"]
    for variable in DESIGN_VARIABLES.values():
        rows.append(f"| {variable.name} | {variable.meaning} | {'exactly' if variable.integer else 'within 2 %'} |")
    return "\n".join(rows) + "\n"


def modules() -> Iterator[Path]:
    """Every module of the package, those of one folder after its own."""
    yield from sorted((ROOT / "moeplan").rglob("*.py"), key=lambda path: (path.parent.parts, path.name))


def _summary(path: Path) -> str:
    """The first sentence of a module's docstring."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert doc, f"{path} has no docstring"
    return " ".join(doc.split("\n\n")[0].split())


def _files() -> str:
    lines = []
    for name, meaning in TOP.items():
        lines.append((name, meaning))
        if name == "moeplan/":
            for path in modules():
                place = path.relative_to(ROOT / "moeplan")
                indent = "  " * len(place.parts)
                if path.name != "__init__.py":
                    lines.append((indent + path.name, _summary(path)))
                elif place.parent.parts:
                    lines.append((indent[2:] + place.parent.name + "/", _summary(path)))
    width = max(len(name) for name, _ in lines) + 2
    return _fenced("", "\n".join(f"{name:{width}}{meaning}" for name, meaning in lines))


BLOCKS: dict[str, Callable[[], str]] = {
    "session": _session,
    "python": _python,
    "refusals": _refusals,
    "variables": _variables,
    "laws": _laws,
    "backtest": _backtest,
    "rankings": _rankings,
    "conventions": _conventions,
    "files": _files,
    "help": _help,
}
"""What makes each block."""


def main() -> None:
    """Renew the blocks with --write; say which are stale without."""
    text = README.read_text(encoding="utf-8")
    renewed = BLOCK.sub(lambda match: match[1] + BLOCKS[match[2]]() + match[4], text)
    if sys.argv[1:] == ["--write"]:
        README.write_text(renewed, encoding="utf-8", newline="\n")
    elif renewed != text:
        sys.exit("README.md is stale; renew it with: python -m tests.readme_blocks --write")


if __name__ == "__main__":
    main()
