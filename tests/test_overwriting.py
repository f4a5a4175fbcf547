"""No command writes where it reads, or two things into one file: refused before anything is computed."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import click
import pytest
from click.testing import CliRunner

from moeplan.cli import cli
from moeplan.cli.program import Option
from moeplan.files import atomic_write, outputs
from moeplan.plan.export.targets.hf import hf_config
from tests.exported import TINY, plan_of
from tests.sample import DENSE

LAWS = Path(__file__).parents[1] / "laws"
SUFFIXES = {"--plot": ".svg", "--html": ".html", "--candidates": ".csv"}
SUGGEST = ("--suggest", "2", "--max-flops", "1e18", "--for", "--flops 1e20 --memory 24GB")
BUDGET = ("--flops", "1e20", "--memory", "24GB")
RUNS = "loss,total_params,active_params,tokens\n" + "".join(
    f"{1.7 + 400 / n**0.34 + 410 / d**0.28},{n},{n},{d}\n" for n in (1e7, 3e7, 1e8, 3e8) for d in (3e8, 1e9, 3e9)
)
REQUEST = "flops: 1e20\nmemory: 24GB\n"
DEVICE = """\
name: Ours
memory: 40GB
memory_bandwidth: 1.5e12
bf16_flops: 3e14
"""

Case = Callable[[Path], tuple[list[str], Path]]
"""Makes files in a folder; gives the arguments of a command, and the file that it reads and must not lose."""


def _law(folder: Path, name: str = "own", like: str = "zhao2025") -> Path:
    path = folder / f"{name}.yaml"
    text = (LAWS / f"{like}.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace(f"name: {like}", f"name: {name}"), encoding="utf-8")
    return path


def _plan(folder: Path, *laws: str) -> Path:
    plan = plan_of(TINY)
    request = dataclasses.replace(plan.request, laws=laws or plan.request.laws)
    path = folder / "plan.json"
    path.write_text(dataclasses.replace(plan, request=request).to_text(), encoding="utf-8")
    return path


def _config(folder: Path) -> Path:
    path = folder / "model" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(hf_config(DENSE, 4096)), encoding="utf-8")
    return path


def _text(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _megatron(folder: Path) -> list[str]:
    return ["--to", "megatron", "--output", str(folder.parent / "other.args")]


def _data(folder: Path) -> Path:
    return _text(folder / "data" / "text.jsonl", '{"text": "a word after a word"}\n' * 20_000)


def _law_cases(*command: str) -> dict[str, Case]:
    """A law by file, by file and fit, and by name out of MOEPLAN_LAWS (which the test sets to the folder)."""
    return {
        "law file": lambda d: ([*command, "--law", str(law := _law(d))], law),
        "law file and fit": lambda d: ([*command, "--law", f"{(law := _law(d))}/loss"], law),
        "law by name": lambda d: ([*command, "--law", (law := _law(d)).stem], law),
        "law by default": lambda d: ([*command], _law(d, "zhao2025")),  # one's own in place of the bundled one
    }


def _gpus(*command: str) -> dict[str, Case]:
    return {"device": lambda d: ([*command, "--gpus", f"8x{(file := _text(d / 'dev.yaml', DEVICE))}"], file)}


INPUTS: MappingProxyType[str, dict[str, Case]] = MappingProxyType(
    {
        "recommend": {
            **_law_cases("recommend", *BUDGET),
            **_gpus("recommend", *BUDGET),
            "request": lambda d: (["recommend", "--request", str(file := _text(d / "request.yaml", REQUEST))], file),
            "plan": lambda d: (["recommend", "--from", str(plan := _plan(d))], plan),
            "law of a plan": lambda d: (["recommend", "--from", str(_plan(d, str(law := _law(d))))], law),
            "dense model": lambda d: (["recommend", *BUDGET[:2], "--match-dense", str(file := _config(d)),
                                       "--dense-tokens", "1B"], file),
        },
        "compare": {
            **_law_cases("compare", *BUDGET),
            **_gpus("compare", *BUDGET),
            "config": lambda d: (["compare", f"{(file := _config(d))}@1T", str(_plan(d))], file),
            "folder of a config": lambda d: (["compare", f"{(file := _config(d)).parent}@1T", str(_plan(d))], file),
            "plan": lambda d: (["compare", "deepseek-v3", str(plan := _plan(d))], plan),
        },
        "frontier": {**_law_cases("frontier", "--flops", "1e20", "--memory", "24GB..80GB"),
                     **_gpus("frontier", "--flops", "1e20", "--memory", "24GB..80GB")},
        "backtest": _law_cases("backtest"),
        "fit": {
            "runs": lambda d: (["fit", str(runs := _text(d / "runs.yaml", RUNS))], runs),
            "form": lambda d: (["fit", str(_text(d / "runs.csv", RUNS)), "--form",
                                f"{(law := _law(d, like='hoffmann2022'))}"], law),
            "prior": lambda d: (["fit", str(_text(d / "runs.csv", RUNS)), "--form",
                                 "additive_power_law", "--prior", f"{(law := _law(d, like='hoffmann2022'))}"], law),
            "device of whom it is for": lambda d: (
                ["fit", str(_text(d / "runs.csv", RUNS)), *SUGGEST[:-1], "--flops 1e20 --memory 24GB --gpus "
                 f"8x{(file := _text(d / 'dev.yaml', DEVICE))}"], file),
        },
        "export": {
            "plan": lambda d: (["export", str(plan := _plan(d)), *_megatron(d)], plan),
            "law of a plan": lambda d: (["export", str(_plan(d, str(law := _law(d)))), *_megatron(d), "--fix",
                                         "num_active_experts=8"], law),
            "config": lambda d: (["export", str(file := _config(d)), *_megatron(d), "--tokens", "1B"], file),
        },
        "upcycle": {"config": lambda d: (["upcycle", str(file := _config(d)), "--dense-tokens", "1T", "--flops", "1e20",
                                          "--to", "megatron"], file)},
        "hardware": {},  # --output is for --measure alone, which reads no file
        "verify": {
            "plan": lambda d: (["verify", str(plan := _plan(d))], plan),
            "text": lambda d: (["verify", str(_plan(d)), "--data", str(data := _data(d))], data),
            "folder of text": lambda d: (["verify", str(_plan(d)), "--data", str((data := _data(d)).parent)], data),
        },
    }
)  # fmt: skip


def written(name: str) -> list[str]:
    """The options of a command that name a file to write."""
    command = cli.commands[name]
    return [each.opts[0] for each in command.params if isinstance(each, Option) and each.writes]


def test_every_output_is_declared() -> None:
    """An option that names a FILE writes one or says that it reads it; there is no other way for a command to write."""
    for name, command in cli.commands.items():
        files = [o for o in command.params if isinstance(o, click.Option) and o.metavar == "FILE"]
        named = [o.opts[0] for o in files if not getattr(o, "reads", False)]
        assert sorted(named) == sorted(written(name)), name
    assert set(INPUTS) == {name for name in cli.commands if written(name)}


CASES = [
    (name, case, option, spelling)
    for name, cases in INPUTS.items()
    for case in cases
    for option in written(name)
    for spelling in ("link", "hard link", "relative")
    if spelling != "relative" or option not in SUFFIXES  # the suffix of a picture is none of an input's
]


@pytest.mark.parametrize(("name", "case", "option", "spelling"), CASES)
def test_no_input_is_overwritten(
    name: str, case: str, option: str, spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each input against each output of every command, spelled otherwise: exit 2, one sentence, nothing changed."""
    laws = tmp_path / "laws"
    laws.mkdir()
    monkeypatch.setenv("MOEPLAN_LAWS", str(laws))
    monkeypatch.chdir(tmp_path)
    args, source = INPUTS[name][case](laws)
    content = source.read_bytes()
    out = tmp_path / f"out{SUFFIXES.get(option, '.yaml')}"
    if spelling == "link":
        out.symlink_to(os.path.relpath(source, tmp_path))
    elif spelling == "hard link":
        os.link(source, out)
    else:
        out = Path(f"{os.path.relpath(source.parent, tmp_path)}/./{source.name}")
    if option == "--runs" and "--suggest" not in args:
        args += SUGGEST
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(cli, [*args, option, str(out)], prog_name="moeplan", env={"MOEPLAN_LAWS": str(laws)})
    assert "it is read here; give another file name" in done.stderr, done.output
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert (source.read_bytes(), sorted(tmp_path.rglob("*"))) == (content, before)


PAIRS = [(name, one, other) for name in INPUTS for i, one in enumerate(written(name)) for other in written(name)[:i]]


@pytest.mark.parametrize(("name", "one", "other"), PAIRS)
def test_two_outputs_are_two_files(name: str, one: str, other: str, tmp_path: Path) -> None:
    """Two outputs of a command on one path, a link away, are refused before anything is read."""
    first = tmp_path / f"x{SUFFIXES.get(one, SUFFIXES.get(other, '.json'))}"
    second = tmp_path / f"y{SUFFIXES.get(other, first.suffix)}"
    second.symlink_to(first.name)
    args = next(iter(INPUTS[name].values()))(tmp_path)[0]
    done = CliRunner().invoke(cli, [*args, one, str(first), other, str(second)], prog_name="moeplan")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "give two file names" in done.stderr
    assert not first.exists()


def test_declared_outputs_end_with_the_command(tmp_path: Path) -> None:
    """What one command writes, the next may read."""
    path = tmp_path / "plan.json"
    with outputs({"--output": str(path)}), atomic_write(path) as file:
        file.write(plan_of(TINY).to_text())
    done = CliRunner().invoke(cli, ["export", str(path), "--to", "hf"], prog_name="moeplan")
    assert done.exit_code == 0, done.output
