"""All generated text: `python -m tests.generated --write` renews it; without --write it says which file is stale.

A block of a Markdown file stands between `<!-- begin generated: NAME -->` and `<!-- end generated: NAME -->`; `BLOCKS`
says what makes it. Blocks named `output` and `python` hold their own commands: what follows each is renewed. Some files
are generated whole; `files` says what makes them.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from click.testing import CliRunner, Result

from moeplan.architecture.attention.recurrent import Recurrent

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- begin generated: (\w+) -->\n)(.*?)(<!-- end generated: \2 -->)", re.DOTALL)

TREE = "https://github.com/moeplan/moeplan/blob/main"
"""Where the files of the checkout are to be seen."""
TOP = {
    "laws/": "one YAML file per published law: citation, digits with grades, conventions, domain, its own checks",
    "moeplan/": "the package",
    "tests/": "test_<what>.py by module; generated.py makes this list; benchmarks/ holds timings, gpu/ runs on a GPU",
    "docs/": "these pages",
    "examples/": "scripts, run by the tests; devices: h100.yaml and h200.yaml measured, atlas-800t-a2.yaml is no GPU",
    ".ci/run": "what continuous integration runs",
    "constraints.txt": "the versions it tests with",
}
"""What stands at the top of the checkout, for the file map."""


def pages() -> list[Path]:
    """README.md and every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def run(command: str) -> Result:
    """A `moeplan` command line run in this process and folder, as on a terminal of 100 columns without colour.

    `| head -n N` after it keeps the first N lines, as in a shell.
    """
    from moeplan.cli import cli

    line, _, cut = command.partition(" | head -n ")
    program, *arguments = shlex.split(line, comments=True)
    assert program == "moeplan", command
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MOEPLAN_", "_MOEPLAN"))}
    with mock.patch.dict(os.environ, kept | {"COLUMNS": "100", "NO_COLOR": "1"}, clear=True):
        result = CliRunner().invoke(cli, arguments, prog_name="moeplan")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if cut:
        result.output_bytes = b"".join(result.output_bytes.splitlines(keepends=True)[: int(cut)])
    return result


def fenced(language: str, text: str) -> str:
    """Text as a fenced block of Markdown."""
    return f"```{language}\n{text.rstrip()}\n```\n"


def _output(old: str) -> str:
    shown = []
    for command in re.findall(r"^\$ (.*)$", old, re.MULTILINE):
        done = run(command)
        code = f"# exit code {done.exit_code}\n" if done.exit_code else ""
        shown.append(f"$ {command}\n{done.output.rstrip()}\n{code}")
    return fenced("console", "\n".join(shown))


def _python(old: str) -> str:
    from moeplan.errors import MoeplanError

    namespace: dict[str, object] = {}
    shown = []
    for line in re.findall(r"^>>> (.*)$", old, re.MULTILINE):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            try:
                exec(compile(line, "session", "single"), namespace)
            except MoeplanError as error:
                print(f"{type(error).__module__}.{type(error).__name__}: {error}")
        shown.append(f">>> {line}\n{printed.getvalue()}")
    return fenced("pycon", "".join(shown))


def _words(_: str) -> str:
    from moeplan.report.words import words

    return (
        "\n".join(f"- **{word}**: {' '.join(says.split())}".replace("*)", "\\*)") for word, says in words().items())
        + "\n"
    )


def _laws(_: str) -> str:
    from moeplan.laws import law_names, load_law
    from moeplan.laws.law import GRADES

    rows = ["| law | what it says | grade | searches | knows dense | arXiv |", "| --- | --- | --- | --- | --- | --- |"]
    for law in map(load_law, law_names()):
        arxiv = law.citation.arxiv
        link = f"[{arxiv}](https://arxiv.org/abs/{arxiv})" if arxiv else ""
        marks = " | ".join("yes" if mark else "" for mark in (law.can_search, law.has_dense))
        rows.append(f"| [{law.name}](laws/{law.name}.md) | {law.title} | {law.grade} | {marks} | {link} |")
    return "\n".join([*rows, "", *(f"- **{grade}**: {meaning}" for grade, meaning in GRADES.items())]) + "\n"


def _targets(_: str) -> str:
    from moeplan.plan.export import TARGETS, takes_layout

    rows = ["| --to | what is written | a layout has a place |", "| --- | --- | --- |"]
    rows += [f"| `{name}` | {what} | {'yes' if takes_layout(name) else ''} |" for name, what in TARGETS.items()]
    return "\n".join(rows) + "\n"


def _kinds(_: str) -> str:
    from moeplan.architecture.attention import KINDS

    rows = ["| kind | what it is | grows with the sequence |", "|---|---|---|"]
    for name, kind in sorted(KINDS.items()):
        label, said = kind.label, (kind.__doc__ or "").split("\n\n")[0].split(". ")[0].rstrip(".")
        grows = "no: a state" if issubclass(kind, Recurrent) else "yes: a cache"
        rows.append(f"| `{name}` | {label}: {' '.join(said.split())} | {grows} |")
    return "\n".join(rows) + "\n"


def _recipe(_: str) -> str:
    from moeplan.plan.export.recipe import items

    targets = ("megatron", "torchtitan", "maxtext", "deepspeed")
    rows = [
        f"| item | public recipes | written | {' | '.join(targets)} |",
        f"| {' | '.join(['---'] * (3 + len(targets)))} |",
    ]
    for name, item in items().items():
        written = item.written if item.value is None else f"{item.value:g}"
        names = " | ".join(f"`{item.names[target]}`" if target in item.names else "" for target in targets)
        rows.append(f"| {name} | {item.public} | {written} | {names} |")
    return "\n".join(rows) + "\n"


def _backtest(_: str) -> str:
    from moeplan.report.backtest import score_table
    from moeplan.report.blocks import Section
    from moeplan.report.markdown import markdown_text
    from moeplan.studies.backtest.run import backtest

    return markdown_text([Section("", (score_table(backtest()),))])


def _rankings(_: str) -> str:
    from moeplan.report.backtest_measured import ranking_table
    from moeplan.report.blocks import Section
    from moeplan.report.markdown import markdown_text
    from moeplan.report.view import View
    from moeplan.studies.backtest.run import backtest

    return markdown_text([Section("", (ranking_table(View(backtest())),))])


def _intervals(_: str) -> str:
    from moeplan.report.backtest_intervals import interval_table
    from moeplan.report.blocks import Section
    from moeplan.report.markdown import markdown_text
    from moeplan.report.view import View
    from moeplan.studies.backtest.run import backtest

    return markdown_text([Section("", (interval_table(View(backtest())),))])


def _labs(_: str) -> str:
    from moeplan.report.blocks import Section
    from moeplan.report.labs import labs_table
    from moeplan.report.markdown import markdown_text
    from moeplan.studies.labs import HOURS, labs

    return markdown_text([Section("", (labs_table(labs(demands=(0.0, 3.0), hours=HOURS), 3.0),))])


def _conventions(_: str) -> str:
    from moeplan.architecture.conventions import CONVENTIONS

    rows = ["| variable | convention | what is counted |", "| --- | --- | --- |"]
    for variable, conventions in CONVENTIONS.items():
        if variable != "train_flops":  # counted as FLOPs per token are
            rows += [f"| {variable} | {name} | {meaning} |" for name, meaning in conventions.items()]
    return "\n".join(rows).replace(" * ", " \\* ") + "\n"


def _variables(_: str) -> str:
    from moeplan.plan.search.variables import DESIGN_VARIABLES

    rows = ["| variable | what it is | fixed |", "| --- | --- | --- |"]
    for variable in DESIGN_VARIABLES.values():
        meaning = variable.meaning.replace("*", " \\* ")
        rows.append(f"| {variable.name} | {meaning} | {'exactly' if variable.integer else 'within 2 %'} |")
    return "\n".join(rows) + "\n"


def _patterns(_: str) -> str:
    """What hybrid attention and latent experts buy at one budget, beside plain grouped-query attention."""
    from moeplan.cost.inference_memory import InferenceSettings
    from moeplan.plan.budget import Budget
    from moeplan.plan.planner import recommend
    from moeplan.quantities import quantity
    from moeplan.studies.long_sequences import long_sequences
    from moeplan.units import format_decimal_bytes

    asked = {"gqa": {}, "gdn-3:1": {}, "kda-3:1": {}, "mamba2-3:1": {}, "gqa, `--latent 4`": {"latent": 4}}
    rows = ["| attention | params | tokens | V | cache at 128k | tokens/s there | rows sent to experts |"]
    rows.append("| --- " * 7 + "|")
    for name, more in asked.items():
        plan = recommend(Budget(1e22, "80GB", attention=name.split(",")[0], **more))
        long = long_sequences(plan.architecture, InferenceSettings())
        total, active = (quantity(x, getattr(plan.design, x)) for x in ("total_params", "active_params"))
        held, sent = (format_decimal_bytes(x) for x in (long.sequences[1].cache_bytes, long.expert_row_bytes))
        cells = (
            name,
            f"{total}-A{active}",
            quantity("tokens", plan.design.tokens),
            quantity("value_ratio", plan.value_ratio),
            held,
        )
        rows.append(f"| {' | '.join(cells)} | {long.sequences[1].tokens_per_second:.0f} | {sent} |")
    return "\n".join(rows) + "\n"


def modules() -> Iterator[Path]:
    """Every module of the package, those of one folder after its own."""
    yield from sorted((ROOT / "moeplan").rglob("*.py"), key=lambda path: (path.parent.parts, path.name))


def _summary(path: Path) -> str:
    """The first sentence of a module's docstring."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert doc, f"{path} has no docstring"
    return " ".join(doc.split("\n\n")[0].split())


def _files(_: str) -> str:
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
    return fenced("", "\n".join(f"{name:{width}}{meaning}" for name, meaning in lines))


def _names(_: str) -> str:
    """The names at the top of the package, each with the first paragraph of its docstring."""
    import inspect

    import moeplan

    rows = ["| name | from | what it is |", "| --- | --- | --- |"]
    for name, home in sorted(moeplan._HOMES.items()):
        doc = " ".join((inspect.getdoc(getattr(moeplan, name)) or "").split("\n\n")[0].split())
        rows.append(f"| {name} | moeplan.{home} | {doc} |".replace("*", "\\*"))
    return "\n".join(rows) + "\n"


def _section(lines: list[str]) -> str:
    """A section of a docstring whose entries are `name : type` with text below, as a list."""
    entries: list[str] = []
    for line in lines:
        if line.startswith(" "):
            entries[-1] += ("" if entries[-1].endswith(" ") else " ") + line.strip()
        elif line.strip():
            name, _, kind = line.partition(" : ")
            entries.append(f"- `{name}`{f' ({kind})' if kind else ''}: ")
    return "\n".join(entries)


def _prose(doc: str) -> str:
    """A docstring as Markdown: paragraphs as they are, sections under bold titles."""
    parts = re.split(r"^([A-Z][a-z]+)\n-+$\n", doc, flags=re.MULTILINE)
    shown = [parts[0].strip()]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        shown.append(f"**{title}**\n\n{_section(body.strip().splitlines())}")
    return "\n\n".join(shown)


def _api(_: str) -> str:
    """Every name at the top of the package: how it is called, its docstring, its fields."""
    import dataclasses
    import inspect

    import moeplan
    from moeplan.records import field_docs

    parts = []
    for name in sorted(moeplan._HOMES, key=lambda name: (name[0].isupper(), name)):
        what = getattr(moeplan, name)
        parts.append(f"### {name}\n")
        if inspect.isfunction(what):
            parameters = [p.replace(annotation=p.empty) for p in inspect.signature(what).parameters.values()]
            call = str(inspect.Signature(parameters))
            parts.append(fenced("python", f"{name}{call}"))
        parts.append(_prose(inspect.getdoc(what) or "") + "\n")
        if dataclasses.is_dataclass(what):
            docs = field_docs(what)
            rows = [f"| `{f.name}` | {docs.get(f.name, '')} |".replace("*", "\\*") for f in dataclasses.fields(what)]
            parts.append("\n".join(["| field | what it is |", "| --- | --- |", *rows]) + "\n")
        methods = [
            (each, inspect.getdoc(getattr(what, each)) or "")
            for each in ("candidates", "to_frame", "plot", "to_json", "to_text")
            if inspect.isclass(what) and hasattr(what, each)
        ]
        if methods:
            listed = "\n".join(f"- `{each}()`: {' '.join(doc.split())}" for each, doc in methods)
            parts.append(f"**Methods**\n\n{listed}\n")
    return "\n".join(parts)


BLOCKS: dict[str, Callable[[str], str]] = {
    "output": _output,
    "python": _python,
    "names": _names,
    "api": _api,
    "patterns": _patterns,
    "variables": _variables,
    "words": _words,
    "laws": _laws,
    "backtest": _backtest,
    "rankings": _rankings,
    "intervals": _intervals,
    "targets": _targets,
    "kinds": _kinds,
    "recipe": _recipe,
    "conventions": _conventions,
    "labs": _labs,
    "files": _files,
}
"""What makes each block from what stood there before."""
SLOW = ("labs",)
"""The blocks that take minutes: --slow renews them too, and a slow test holds them."""


def _help(name: str) -> Callable[[], str]:
    def page() -> str:
        command = f"moeplan {name} --help"
        with mock.patch("shutil.get_terminal_size", return_value=os.terminal_size((100, 24))):
            done = run(command)
        return f"# moeplan {name}\n\n{fenced('console', f'$ {command}{chr(10)}{done.output}')}"

    return page


def _law(name: str) -> Callable[[], str]:
    def page() -> str:
        done = run(f"moeplan laws {name} --markdown")
        link = f"| file | [laws/{name}.yaml]({TREE}/laws/{name}.yaml) |"
        text = re.sub(r"^\| file \| .*$", link, done.output, flags=re.MULTILINE)
        return f"# {name}\n\n{text.strip()}\n"

    return page


def _stub() -> str:
    """Where type checkers find the names that moeplan loads when first used."""
    import moeplan

    lines = [f"from moeplan.{home} import {name} as {name}" for name, home in moeplan._HOMES.items()]
    lines.sort(key=lambda line: line.split()[1:])
    return "\n".join(
        ["# Generated; renew it with: python -m tests.generated --write", *lines, "", "__version__: str", ""]
    )


def files() -> dict[Path, Callable[[], str]]:
    """What makes each file that is generated whole."""
    from moeplan.cli import cli
    from moeplan.laws import law_names

    made = {ROOT / "docs" / "commands" / f"{name}.md": _help(name) for name in cli.commands}
    made |= {ROOT / "docs" / "laws" / f"{name}.md": _law(name) for name in law_names()}
    return made | {ROOT / "moeplan" / "__init__.pyi": _stub}


def renewed(page: Path, slow: bool = False) -> str:
    """A page with every generated block as it should be; those that take minutes stay as they are unless `slow`."""
    text = page.read_text(encoding="utf-8")
    makers = BLOCKS | ({} if slow else dict.fromkeys(SLOW, str))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return BLOCK.sub(lambda match: match[1] + makers[match[2]](match[3]) + match[4], text)


def main() -> None:
    """Renew all generated text with --write; say which files are stale without; --slow includes what takes minutes."""
    arguments = sys.argv[1:]
    slow = "--slow" in arguments
    whole = files()
    made = {path: make() for path, make in whole.items()}
    made |= {page: renewed(page, slow) for page in pages() if page not in whole}
    stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    left = [
        path for folder in ("commands", "laws") for path in (ROOT / "docs" / folder).glob("*.md") if path not in made
    ]
    if "--write" in arguments:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[path], encoding="utf-8", newline="\n")
            print(f"renewed {path.relative_to(ROOT)}")
        for path in left:
            path.unlink()
            print(f"removed {path.relative_to(ROOT)}")
    elif stale or left:
        names = ", ".join(str(path.relative_to(ROOT)) for path in [*stale, *left])
        sys.exit(f"stale: {names}; renew with: python -m tests.generated --write")


if __name__ == "__main__":
    main()
