"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
from click.shell_completion import CompletionItem
from click.testing import CliRunner, Result

import moeplan
from moeplan.cli import cli
from moeplan.cli.options import complete_law, complete_variable
from moeplan.cli.program import recorded_command
from moeplan.cost.inference_memory import InferenceSettings
from moeplan.cost.serving.demand import Demand
from moeplan.files import atomic_write
from moeplan.laws import law_names
from moeplan.laws.roles import OBJECTIVE_LAWS
from moeplan.plan import planner
from moeplan.plan.budget import Budget
from moeplan.plan.candidates import WITHIN
from moeplan.plan.document import Plan, plan_schema
from moeplan.plan.search.variables import DESIGN_VARIABLES
from moeplan.report import output
from moeplan.units import parse_bytes, parse_count
from tests.processes import PATIENCE, held, started
from tests.sample import sample_plan

BUDGET = ["--flops", "1e22", "--memory", "80GB"]
HEAVY = {"rich", "numpy", "scipy", "yaml", "torch", "json", "dataclasses", "moeplan.laws", "moeplan.plan.document"}


def run(*args: str, **env: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, list(args), prog_name="moeplan", env={"COLUMNS": "80", **env})


def python(*args: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python in a process of its own."""
    everything = {**os.environ, "COLUMNS": "80", **env}
    return subprocess.run([sys.executable, *args], capture_output=True, env=everything, timeout=PATIENCE)


@dataclasses.dataclass
class Searches:
    """What the planner was asked for, in place of a search."""

    calls: list[tuple[Budget, dict[str, Any]]]
    plan: Plan

    def __call__(self, budget: Budget, **options: Any) -> Plan:
        """Remember the request."""
        self.calls.append((budget, options))
        return self.plan


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> Searches:
    """Answers every request with the sample plan, at once."""
    fake = Searches([], sample_plan())
    monkeypatch.setattr(planner, "recommend", fake)
    return fake


@pytest.fixture
def plan_file(tmp_path: Path) -> str:
    """The sample plan as a file."""
    path = tmp_path / "old.json"
    path.write_text(sample_plan().to_text(), encoding="utf-8")
    return str(path)


def one_sentence(result: Result, code: int) -> str:
    """The only line on stderr, after nothing on stdout and an exit code."""
    assert result.stdout == ""
    assert result.exit_code == code, result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr[len("Error: ") :].strip()


# Help and start


@pytest.mark.parametrize("args", [["--help"], ["recommend", "--help"], ["laws", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    """Help and version load click and nothing that costs time: no rich, numpy, scipy, yaml, torch, not even json."""
    code = (
        "import sys, click; before = set(sys.modules); from moeplan.cli import cli\n"
        f"try: cli({args!r})\nexcept SystemExit as end: code = end.code\n"
        f"print('LOADED', code, *sorted((set(sys.modules) - before) & {HEAVY!r}))"
    )
    result = python("-c", code)
    assert result.stdout.decode().splitlines()[-1] == "LOADED 0", result.stderr.decode()


@pytest.mark.parametrize("command", ["recommend", "frontier", "laws", "schema"])
def test_help_names_every_option(command: str) -> None:
    """Every option stands in the help with a sentence, in plain ASCII and at most 80 columns."""
    result = run(command, "--help")
    assert result.exit_code == 0
    assert result.stdout.isascii()
    assert max(map(len, result.stdout.splitlines())) <= 80
    for parameter in cli.commands[command].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            for name in parameter.opts:
                assert re.search(rf"{name}\b", result.stdout)


def test_help_states_the_true_defaults() -> None:
    """The defaults in the help are those of the library."""
    budget, serving = Budget("1e22", "80GB"), InferenceSettings()  # type: ignore[arg-type]
    recommend = cli.commands["recommend"]
    stated = {p.name: re.search(r"\[default: ([^\];]+)", getattr(p, "help", None) or "") for p in recommend.params}
    texts = {name: match[1] for name, match in stated.items() if match}
    assert texts.pop("laws") == ", ".join(OBJECTIVE_LAWS)
    assert texts.pop("tied_embeddings").startswith("tied below 1e21")
    assert texts.pop("tokens_available") == "no limit"
    assert parse_count(texts.pop("max_tokens")) == budget.max_tokens
    assert texts.pop("alternatives") == "5"
    assert texts.pop("threads") == "1"
    assert texts.pop("choose") == "best"
    for name in ("weight_dtype", "kv_dtype", "context", "concurrency"):
        assert texts.pop(name) == str(getattr(serving, name))
    for name in ("vocab_size", "seq_len", "attention"):
        assert texts.pop(name) == str(getattr(budget, name))
    for name in ("prompt_tokens", "answer_tokens"):
        assert texts.pop(name) == str(getattr(budget.demand, name))
    for name in ("headroom", "max_epochs"):
        assert float(texts.pop(name)) == getattr(budget, name)
    assert (texts.pop("memory_for"),) == budget.memory_for
    assert texts.pop("optimizer") == budget.optimizer
    assert texts.pop("hyperparameters") == budget.hyperparameters
    assert texts.pop("mfu") == "predicted for each design"
    assert float(texts.pop("goodput")) == budget.goodput
    for name in ("software", "train_precision"):
        assert texts.pop(name) == getattr(budget, name)
    assert (texts.pop("batch"), budget.batch) == ("by the law of the batch", 0)
    assert (texts.pop("layout"), budget.layout) == ("the fastest that fits", "")
    assert (texts.pop("optimise"), budget.optimise) == ("time with --days, else flops", "")
    assert texts.pop("dense_tokens") == "as published"
    assert texts.pop("latent") == str(budget.latent)
    assert float(texts.pop("within")) == WITHIN
    assert texts == {}


def test_version() -> None:
    """--version names the program and its version; python -m moeplan is the same program."""
    assert run("--version").stdout == f"moeplan {moeplan.__version__}\n"
    assert python("-m", "moeplan", "--version").stdout.decode().split() == ["moeplan", moeplan.__version__]


def test_no_command_shows_the_help() -> None:
    """Without a command the program says what there is."""
    result = run()
    assert "recommend" in result.output
    assert "Error" not in result.output


# Bad input


@pytest.mark.parametrize(
    "flops, reason",
    [
        ("-1e22", "must be positive and finite"),
        ("0", "must be positive and finite"),
        ("nan", "must be positive and finite"),
        ("inf", "must be positive and finite"),
        ("1e999", "must be positive and finite"),
        ("lots", "is not a quantity"),
        ("", "is not a quantity"),
        ("1e22GB", "has the unknown unit 'GB'"),
        ("1e3", "is too small"),
        ("1e40", "is beyond"),
    ],
)
def test_impossible_compute(searches: Searches, flops: str, reason: str) -> None:
    """A compute budget that cannot be is refused in one sentence with exit code 2, and nothing is searched."""
    sentence = one_sentence(run("recommend", "--flops", flops, "--memory", "80GB"), 2)
    assert sentence.startswith("compute budget")
    assert reason in sentence
    assert searches.calls == []


@pytest.mark.parametrize(
    "memory, reason",
    [
        ("-80GB", "must be positive and finite"),
        ("0GB", "must be positive and finite"),
        ("nan", "must be positive and finite"),
        ("infGB", "must be positive and finite"),
        ("eighty", "is not a quantity"),
        ("80 parsecs", "has the unknown unit 'parsecs'"),
        ("0x80GB", "needs between 1 and 65536 devices"),
    ],
)
def test_impossible_memory(searches: Searches, memory: str, reason: str) -> None:
    """A memory limit that cannot be is refused in one sentence with exit code 2."""
    sentence = one_sentence(run("recommend", "--flops", "1e22", "--memory", memory), 2)
    assert sentence.startswith("memory limit")
    assert reason in sentence
    assert searches.calls == []


@pytest.mark.parametrize(
    "args, reason",
    [
        (["--fix", "granularty=8"], "unknown design variable 'granularty'; did you mean granularity"),
        (["--fix", "granularity"], "--fix 'granularity' is not NAME=VALUE; write it like granularity=8"),
        (["--fix", "=8"], "is not NAME=VALUE"),
        (["--fix", "granularity=fine"], "--fix granularity 'fine' is not a quantity"),
        (["--fix", "granularity=-8"], "must be positive and finite"),
        (["--fix", "granularity=nan"], "must be positive and finite"),
        (["--fix", "num_experts=8.5"], "num_experts=8.5 must be a whole number"),
        (["--fix", "G=8", "--fix", "G=9"], "G is fixed twice, at 8 and at 9; give one"),
        (["--fix", "G=8", "--range", "G=4..9"], "G is both fixed at 8 and bounded to 4..9; give one"),
        (["--range", "G=4-9"], "--range 'G=4-9' is not NAME=LO..HI; write it like granularity=4..8"),
        (["--range", "G=9..4"], "G=9..4 must run from a smaller to a larger positive number"),
        (["--range", "G=..9"], "--range 'G=..9' is not NAME=LO..HI"),
        (["--range", "tokens=1T...2T"], "--range 'tokens=1T...2T' is not NAME=LO..HI"),
        (["--range", "G=4..nine"], "--range G 'nine' is not a quantity"),
        (["--range", "G=1..9", "--range", "G=2..9"], "G is bounded twice"),
        (["--range", "speed=1..2"], "unknown design variable 'speed'"),
        (["--tokens-available", "-2T"], "tokens_available '-2T' must be positive"),
        (["--max-tokens", "nan"], "max_tokens 'nan' must be positive"),
        (["--inference-tokens", "some"], "inference_tokens 'some' is not a quantity"),
        (["--max-epochs", "0.5"], "max_epochs 0.5 must be from 1 to 1000"),
        (["--max-epochs", "nan"], "max_epochs nan must be"),
        (["--max-epochs", "-1", "--tokens-available", "1T"], "max_epochs -1.0 must be"),
        (["--inference-tokens", ""], "inference_tokens '' is not a quantity"),
        (["--range", "tokens=0..0"], "tokens 0 is too few to train on"),
        (["--range", "tokens=10..20"], "tokens 20 is too few to train on"),
        (["--vocab-size", "0"], "--vocab-size 0 must be above 0"),
        (["--headroom", "1"], "headroom 1.0 must be at least 0 and below 1"),
        (["--headroom", "nan"], "headroom nan must be"),
        (["--vocab-size", "-5"], "vocab_size -5 must be"),
        (["--seq-len", "0"], "seq_len 0 must be"),
        (["--context", "0"], "context 0 must be"),
        (["--concurrency", "-1"], "concurrency -1 must be"),
        (["--gpus", "8xH100", "--batch", "0"], "--batch 0 must be above 0"),
        (["--gpus", "8.5xH100"], "GPUs '8.5xH100' need a whole number of devices, for example 256xH100"),
        (["--gpus", "-1xH100"], "need a whole number of devices"),
        (["--gpus", "2x8xH100"], "need one number of devices, for example 16xH100"),
    ],
)
def test_impossible_conditions(searches: Searches, args: list[str], reason: str) -> None:
    """A condition that cannot be, or contradicts another, is refused in one sentence with exit code 2."""
    assert reason in one_sentence(run("recommend", *BUDGET, *args), 2)
    assert searches.calls == []


@pytest.mark.parametrize(
    "args, reason",
    [
        (["--threads", "0"], "threads 0 must be a whole number from 1 to 1024"),
        (["--alternatives", "-1"], "alternatives -1 must be a whole number from 0 to 100"),
        (["--law", "zhou2025"], "unknown law 'zhou2025'; did you mean zhao2025"),
        (["--law", "zhao2025/lose"], "law zhao2025 has no fit 'lose'; it has loss"),
        (["--law", "zhao2025", "--law", "zhao2025"], "a law is named twice"),
        (["--law", "no/such/law.yaml"], "law.yaml: cannot be read"),
        (["--law", "hoffmann2022"], "hoffmann2022 cannot choose a design"),
    ],
)
def test_impossible_searches(args: list[str], reason: str) -> None:
    """What the search itself refuses is one sentence with exit code 2 as well."""
    assert reason in one_sentence(run("recommend", *BUDGET, *args), 2)


@pytest.mark.parametrize(
    "args, said",
    [
        (["recommend"], ["a compute budget is missing", "--flops 1e22 --memory 80GB"]),
        (["recommend", "--flops", "1e22"], ["a memory limit is missing", "--memory 80GB"]),
        (["recommend", "--flps", "1e22"], ["--flps", "--flops", "for example: moeplan recommend --flops 1e22"]),
        (["recommend", "--flops"], ["--flops", "requires an argument", "for example: moeplan recommend"]),
        (["recommend", *BUDGET, "now"], ["unexpected extra argument", "for example: moeplan recommend"]),
        (["recommend", *BUDGET, "--weights", "fp7"], ["'fp7' is not one of", "'bf16', 'fp8', 'int8', 'int4'"]),
        (["recommend", *BUDGET, "--context", "long"], ["'long' is not a valid integer", "for example"]),
        (["recommend", *BUDGET, "--json", "--markdown"], ["--json and --markdown exclude each other", "for example"]),
        (["export", "plan.json", "--to"], ["--to", "requires an argument", "for example: moeplan export plan.json"]),
        (["export", "plan.json"], ["--to is missing: give one of the targets above"]),
        (["export", "deepseek-v3", "--to", "hf", "--tokens", "1e300"], ["tokens '1e300' must be at most 1e+30"]),
        (["export", "deepseek-v3", "--to", "hf", "--tokens", "1e-9"], ["tokens '1e-9' must be at least 1"]),
        (["upcycle", "llama-3-8b", "--flops", "1e22", "--dense-tokens", "1e300"], ["must be at most 1e+30"]),
        (["inspect", "deepseek-v3", "--tokens", "1e300"], ["tokens '1e300' must be at most 1e+30"]),
        (["recommend", *BUDGET, "--max-tokens", "1e300"], ["max_tokens '1e300' must be at most 1e+30"]),
        (["inspect", "--tokens", "1T"], ["--tokens needs a MODEL", "for example: moeplan inspect deepseek-v3"]),
        (["laws", "--chek"], ["--chek", "--check", "for example: moeplan laws zhao2025"]),
        (["recomend"], ["recomend", "for example: moeplan recommend"]),
        (["--frobnicate"], ["--frobnicate", "for example: moeplan recommend"]),
    ],
)
def test_usage_errors_say_what_would_work(args: list[str], said: list[str]) -> None:
    """A wrong or missing option ends with exit code 2 and an example that works."""
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    error = result.stderr.splitlines()[-1]
    assert error.startswith("Error: ")
    for text in said:
        assert text in error


def test_memory_too_small() -> None:
    """A memory that no MoE fits is exit code 1, and the sentence says the smallest that would do; that one does."""
    sentence = one_sentence(run("recommend", "--flops", "1e18", "--memory", "20MB"), 1)
    needed = re.search(r"the smallest needs (\S+),", sentence)
    assert needed
    assert parse_bytes(needed[1]) > 20e6
    assert run("recommend", "--flops", "1e18", "--memory", needed[1]).exit_code == 0


def test_infeasible_conditions() -> None:
    """Conditions that nothing meets are exit code 1, with the nearest value that would."""
    sentence = one_sentence(run("recommend", "--flops", "1e18", "--memory", "4GB", "--fix", "total_params=1T"), 1)
    assert "total_params=1T" in sentence
    assert "nearest is" in sentence


BROKEN_LAWS = {
    "yaml": ("schema: [", "not valid YAML"),
    "empty": ("", "line 1: the file is empty"),
    "list": ("- a\n- b\n", "line 1: the file must be a mapping"),
    "version": ("schema: moeplan.law/9\nname: a\ntitle: a\ncitation: {}\ndigits: a\n", "line 1: schema is"),
    "key": ("schema: moeplan.law/1\nname: a\ntitel: a\n", "line 3: titel is not a known key"),
}


@pytest.mark.parametrize("name", BROKEN_LAWS)
@pytest.mark.parametrize("command", [["recommend", *BUDGET, "--law"], ["laws"], ["laws", "--check"]])
def test_broken_law_files(tmp_path: Path, name: str, command: list[str]) -> None:
    """A broken law file is refused with file, line and key, exit code 2, wherever a law may be named."""
    content, reason = BROKEN_LAWS[name]
    path = tmp_path / "mine.yaml"
    path.write_text(content, encoding="utf-8")
    sentence = one_sentence(run(*command, str(path)), 2)
    assert sentence.startswith(str(path))
    assert reason in sentence


def test_a_law_whose_coefficients_do_not_fit_its_form(tmp_path: Path) -> None:
    """A missing coefficient is told with file, line and key."""
    bundled = Path(moeplan.__file__).parent.parent / "laws" / "zhao2025.yaml"
    path = tmp_path / "zhao2025.yaml"
    path.write_text(bundled.read_text(encoding="utf-8").replace("      eps: 1.8182\n", ""), encoding="utf-8")
    sentence = one_sentence(run("laws", str(path)), 2)
    assert re.match(rf"{re.escape(str(path))}, line \d+: fits\.loss\.coefficients", sentence)
    assert "eps" in sentence


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "cannot be read"),
        ("", "is not JSON, so no plan file"),
        ("{}", "this is no plan: it lacks the key 'schema'"),
        ('{"schema": "moeplan.plan/0"}', "the plan has schema 'moeplan.plan/0', this version of moeplan reads"),
        ('{"schema": "moeplan.plan/2"}', "lacks the key 'request'"),
    ],
)
def test_broken_plan_files(tmp_path: Path, searches: Searches, content: str | None, reason: str) -> None:
    """A plan file that is none, or of another schema version, is refused with its name and exit code 2."""
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    sentence = one_sentence(run("recommend", "--from", str(path)), 2)
    assert sentence.startswith(str(path))
    assert reason in sentence
    assert searches.calls == []


# Output files


@pytest.mark.parametrize("place", ["missing/plan.json", "file/plan.json", "folder", "nul\0.json", "x" * 300])
def test_unwritable_output(tmp_path: Path, searches: Searches, place: str) -> None:
    """A path that cannot be written is refused before the search, exit code 2, and nothing is left behind."""
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    sentence = one_sentence(run("recommend", *BUDGET, "--output", str(tmp_path / place)), 2)
    assert "cannot be written" in sentence
    assert searches.calls == []
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "args",
    [
        ["inspect", ""],
        ["inspect", "  "],
        ["compare", "", "deepseek-v3"],
        ["recommend", "--from", ""],
        ["export", "", "--to", "hf"],
        ["fit", "", "--form", "auto"],
        ["export", "plan.json", "--to", "hf", "--output", ""],
    ],
)
def test_an_empty_name_is_no_file(args: list[str]) -> None:
    """A file name that is empty, as of an unset variable, is told; it is neither this folder nor left out."""
    assert "is no file name; write it like plan.json" in one_sentence(run(*args), 2)


def test_a_name_in_other_letters_is_no_model() -> None:
    """A name without a Latin letter or digit is not taken for a model that has no repository."""
    assert one_sentence(run("inspect", "千问"), 2).startswith("千问: is no file, no folder and no bundled model")


def test_a_file_that_is_read_is_not_overwritten(tmp_path: Path) -> None:
    """A plan, a law and runs stay whole where the output is given the same name, spelled as it may be."""
    path = tmp_path / "same.yaml"
    path.write_text("kept", encoding="utf-8")
    other = f"{tmp_path}/./same.yaml"
    asked = ["--suggest", "2", "--max-flops", "1e18", "--for", "--flops 1e20 --memory 24GB"]
    for args in (
        ["export", str(path), "--to", "hf", "--output", other],
        ["recommend", "--flops", "1e22", "--memory", "80GB", "--law", str(path), "--output", other],
        ["fit", str(path), "--form", "auto", *asked, "--runs", other],
        ["fit", str(path), "--form", "auto", "--output", other],
    ):
        assert "it is read here; give another file name" in one_sentence(run(*args), 2)
    args = ["fit", str(tmp_path / "runs.csv"), "--form", "auto", *asked, "--output", str(path), "--runs", other]
    assert "give two file names" in one_sentence(run(*args), 2)
    assert path.read_text(encoding="utf-8") == "kept"


def test_output_is_a_plan_file(tmp_path: Path, searches: Searches) -> None:
    """--output writes the plan that --json prints, replaces an older file, and says so on stderr."""
    path = tmp_path / "plan.json"
    path.write_text("old", encoding="utf-8")
    result = run("recommend", *BUDGET, "--output", str(path), "--full")
    assert result.exit_code == 0
    assert result.stderr == f"Plan written to {path}\n"
    assert "Efficiency Leverage" in result.stdout
    assert path.read_bytes() == run("recommend", *BUDGET, "--json").stdout_bytes
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_search_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written, and an older file stays, when the search finds nothing or is interrupted."""
    path = tmp_path / "plan.json"
    path.write_text("old", encoding="utf-8")
    result = run("recommend", "--flops", "1e18", "--memory", "20MB", "--output", str(path))
    assert result.exit_code == 1

    def interrupt(*_: Any, **__: Any) -> Plan:
        raise KeyboardInterrupt

    monkeypatch.setattr(planner, "recommend", interrupt)
    result = run("recommend", *BUDGET, "--output", str(path))
    assert (result.exit_code, result.stderr) == (130, "Error: interrupted\n")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_follows_links_and_reports_a_full_disk(tmp_path: Path) -> None:
    """A link's target is replaced, not the link; a write that fails names the path and leaves what was there."""
    target = tmp_path / "target.json"
    target.write_text("old", encoding="utf-8")
    link = tmp_path / "link.json"
    try:
        link.symlink_to(target)
    except OSError:  # Windows without the right to make links
        link = target
    with (
        pytest.raises(moeplan.MoeplanError, match=r"link\.json: cannot be written: no space|target"),
        atomic_write(link),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert target.read_text(encoding="utf-8") == "old"
    with atomic_write(link) as file:
        file.write("new")
    assert target.read_text(encoding="utf-8") == "new"
    assert link.is_symlink() or link == target
    assert len(list(tmp_path.iterdir())) == len({link, target})


# What recommend asks for and prints


def test_every_option_reaches_the_planner(searches: Searches) -> None:
    """Each option of recommend becomes the condition of the same name."""
    args = (
        "--flops 5ZFLOP --memory 2x24GiB --law zhao2025 --law abnar2025 --fix granularity=8 --fix num_shared_experts=0 "
        "--range tokens=1T..2T --tokens-available 3T --max-epochs 2 --max-tokens 4T --inference-tokens 5T "
        "--vocab-size 50304 --seq-len 2048 --tied --attention mla --weights fp8 --kv-dtype fp8 --context 100 "
        "--concurrency 7 --headroom 0.2 --alternatives 3 --threads 1 --json"
    )
    assert run("recommend", *args.split()).exit_code == 0
    ((budget, options),) = searches.calls
    assert budget == Budget(
        5e21,
        "2x24GiB",  # type: ignore[arg-type]
        vocab_size=50304,
        tied_embeddings=True,
        seq_len=2048,
        attention="mla",
        serving=InferenceSettings("fp8", "fp8", 100, 7),
        headroom=0.2,
        fix={"granularity": 8.0, "num_shared_experts": 0.0},
        ranges={"tokens": (1e12, 2e12)},
        tokens_available=3e12,
        max_epochs=2.0,
        max_tokens=4e12,
        inference_tokens=5e12,
    )
    assert options.pop("progress")
    assert options == {
        "laws": ("zhao2025", "abnar2025"),
        "alternatives": 3,
        "threads": 1,
        "command": f"moeplan recommend {args.replace(' --threads 1', '')}",
    }


def test_defaults_are_the_librarys(searches: Searches) -> None:
    """Without options the planner gets the library's defaults."""
    run("recommend", *BUDGET)
    ((budget, options),) = searches.calls
    assert budget == Budget("1e22", "80GB")  # type: ignore[arg-type]
    assert options["laws"] is None
    assert options["alternatives"] == 5


@pytest.mark.parametrize(
    "args, recorded",
    [
        (["recommend", "--flops", "1e22", "--threads", "2"], "moeplan recommend --flops 1e22"),
        (["recommend", "--threads=8", "--memory", "80 GB"], "moeplan recommend --memory '80 GB'"),
        (["laws"], "moeplan laws"),
    ],
)
def test_recorded_command(args: list[str], recorded: str) -> None:
    """The recorded command can be typed again, and does not hold the threads, which change nothing."""
    assert recorded_command(args) == recorded


def test_from_repeats_the_request(searches: Searches, plan_file: str) -> None:
    """--from asks for exactly what the plan was asked for, and says that nothing changed."""
    result = run("recommend", "--from", plan_file)
    assert result.exit_code == 0, result.stderr
    ((budget, options),) = searches.calls
    request = sample_plan().request
    assert budget == Budget(
        request.flops,
        request.memory,  # type: ignore[arg-type]
        vocab_size=request.vocab_size,
        tied_embeddings=request.tied_embeddings,
        seq_len=request.seq_len,
        serving=InferenceSettings("fp8", "bf16", request.context, request.concurrency),
        headroom=request.headroom,
        fix=request.fix,
        ranges={"tokens": (1.01e11, 2.02e12)},
        tokens_available=7.07e11,
        max_epochs=request.max_epochs,
        max_tokens=request.max_tokens,
        inference_tokens=request.inference_tokens,
        demand=Demand(
            serve_gpus=request.serve_gpus,
            prompt_tokens=request.prompt_tokens,
            answer_tokens=request.answer_tokens,
            tokens_per_second_per_user=request.tokens_per_second_per_user,
            serve_price_per_gpu_hour=request.serve_price_per_gpu_hour,
        ),
        gpus=request.gpus,  # type: ignore[arg-type]
        mfu=request.mfu,
        goodput=request.goodput,
        train_precision=request.train_precision,
        software=request.software,
        layout=request.layout,
        batch=request.batch,
        multiple_of={name: int(value) for name, value in request.multiple_of.items()},
        price_per_gpu_hour=request.price_per_gpu_hour,
        memory_for=request.memory_for,
        optimizer=request.optimizer,
        measured=request.measured,
    )
    assert options["laws"] == request.laws
    assert options["alternatives"] == request.alternatives
    assert f"Changed since {plan_file}" in " ".join(result.stdout.split())
    assert "Nothing: the plan is the same." in result.stdout


def test_from_with_changes(searches: Searches, plan_file: str) -> None:
    """What else is given overrides the plan's request; fixed and bounded variables are replaced one by one."""
    args = ["--memory", "80GB", "--fix", "tokens=1T", "--fix", "G=9", "--law", "abnar2025", "--untied"]
    run("recommend", "--from", plan_file, *args)
    ((budget, options),) = searches.calls
    assert str(budget.memory) == "80GB"
    assert budget.fix == {"num_shared_experts": 2.0, "tokens": 1e12, "G": 9.0}
    assert budget.ranges == {}
    assert budget.flops == sample_plan().request.flops
    assert options["laws"] == ("abnar2025",)


def test_changes_go_to_stderr_beside_json(searches: Searches, plan_file: str) -> None:
    """With --json stdout is the plan alone and the list of changes stands on stderr."""
    searches.plan = dataclasses.replace(sample_plan(), value_ratio=0.7)
    result = run("recommend", "--from", plan_file, "--json")
    assert json.loads(result.stdout) == searches.plan.to_json()
    assert re.search(r"value_ratio +46.1 % +70 %", result.stderr)


def test_markdown(searches: Searches) -> None:
    """--markdown prints headings and pipe tables."""
    lines = run("recommend", *BUDGET, "--markdown", "--full").stdout.splitlines()
    assert lines[0].startswith("**Train a 11.2B-A1.35B MoE")
    assert "## The model" in lines
    assert any(line.startswith("| N | total_params | 11.2B |") for line in lines)


@pytest.fixture(scope="module")
def small() -> Result:
    """A real search for a small budget, as JSON."""
    return run("recommend", "--flops", "1e18", "--memory", "4GB", "--json")


def test_json_passes_the_printed_schema(small: Result) -> None:
    """A real plan's JSON passes the schema that `moeplan schema` prints; nothing else stands on stdout or stderr."""
    schema = json.loads(run("schema").stdout)
    assert schema == plan_schema()
    jsonschema.validate(json.loads(small.stdout), schema)
    assert small.stderr == ""


def test_json_is_the_same_for_any_threads(small: Result) -> None:
    """One thread and two give the same bytes, and so does a repeat but for the command it records."""
    one = run("recommend", "--flops", "1e18", "--memory", "4GB", "--threads", "1", "--json")
    assert one.stdout_bytes == small.stdout_bytes


def test_a_real_plan_can_be_repeated(small: Result, tmp_path: Path) -> None:
    """A real plan file is read again, repeats to the same plan, and differs where it is given less memory."""
    path = tmp_path / "plan.json"
    path.write_bytes(small.stdout_bytes)
    again = run("recommend", "--from", str(path))
    assert "Nothing: the plan is the same." in again.stdout
    other = run("recommend", "--from", str(path), "--memory", "1GB", "--full")
    assert re.search(r"request.memory +4GB +1GB", other.stdout)
    assert re.search(r"design.total_params +\S+ +\S+", other.stdout)


# laws


def test_laws_list() -> None:
    """`moeplan laws` names every law; --json says the same in JSON."""
    text = run("laws").stdout
    data = json.loads(run("laws", "--json").stdout)
    assert tuple(law["name"] for law in data["laws"]) == law_names()
    for law in data["laws"]:
        assert law["name"] in text
        assert law["citation"]["arxiv"] in text
    assert {form["form"] for form in data["forms_without_coefficients"]} == {
        "expansion_interaction",
        "expert_count_power_law",
    }


def test_one_law() -> None:
    """`moeplan laws zhao2025` shows it whole; --json gives every digit; a file or a fit stands for a name."""
    text = run("laws", "zhao2025").stdout
    assert "e = 0.1577" in text
    assert "Caveats" in text
    data = json.loads(run("laws", "zhao2025", "--json").stdout)
    assert data["fits"]["loss"]["coefficients"]["eps"] == 1.8182
    assert all(check["passed"] for check in data["checks"])
    file = str(Path(moeplan.__file__).parent.parent / "laws" / "zhao2025.yaml")
    assert "e = 0.1577" in run("laws", file).stdout
    assert "Fit moe-e16" in run("laws", "krajewski2024/moe-e16").stdout
    assert "did you mean zhao2025" in one_sentence(run("laws", "zhaao2025"), 2)


def test_laws_check() -> None:
    """`moeplan laws --check` recomputes every number of every paper, and all are reproduced."""
    result = run("laws", "--check")
    assert result.exit_code == 0
    assert "Failures" not in result.stdout
    data = json.loads(run("laws", "--check", "--json").stdout)
    assert data["passed"] is True
    assert len(data["checks"]) > 100


def test_failing_check(tmp_path: Path) -> None:
    """A law that misses its paper's numbers ends --check with exit code 1 and a table of what it misses."""
    bundled = Path(moeplan.__file__).parent.parent / "laws" / "zhao2025.yaml"
    path = tmp_path / "mine.yaml"
    path.write_text(bundled.read_text(encoding="utf-8").replace("eps: 1.8182", "eps: 1.9182"), encoding="utf-8")
    result = run("laws", "--check", str(path))
    assert result.exit_code == 1
    assert "Failures" in result.stdout
    assert "2.66438" in result.stdout
    assert run("laws", "--check", str(path), "--json").exit_code == 1
    assert "NO" in run("laws", str(path)).stdout


# Terminals and pipes


def test_piping_to_json_tool() -> None:
    """What --json prints is read by another program; a pipe brings no colour."""
    made = python("-m", "moeplan", "laws", "--json")
    read = subprocess.run([sys.executable, "-m", "json.tool"], input=made.stdout, capture_output=True, timeout=PATIENCE)
    assert read.returncode == 0
    assert b"\x1b" not in python("-m", "moeplan", "laws").stdout


def test_a_reader_that_has_enough() -> None:
    """When the reader closes the pipe, as `head` does, the program ends without a word."""
    command = [sys.executable, "-m", "moeplan", "schema"]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.close()
        _, errors = process.communicate(timeout=PATIENCE)
    assert errors == b""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_other_encodings(encoding: str) -> None:
    """A stdout that is not UTF-8 gets plain characters in place of those it lacks; JSON is escaped and stays exact."""
    text = python("-m", "moeplan", "laws", "tian2025", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert text.returncode == 0, text.stderr
    assert "?" not in text.stdout.decode(encoding)
    data = python("-m", "moeplan", "laws", "ludziejewski2025", "--json", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert data.stdout.isascii()
    assert json.loads(data.stdout) == json.loads(run("laws", "ludziejewski2025", "--json").stdout)


def test_the_c_locale() -> None:
    """In the C locale an error whose value is not ASCII is still one sentence."""
    result = python("-m", "moeplan", "laws", "Gesetz-ä", LC_ALL="C", LANG="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert result.returncode == 2
    assert result.stderr.startswith(b"Error: unknown law")
    assert result.stderr.count(b"\n") == 1


class Terminal:
    """A stdout that claims to be a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """Yes."""
        return True


def test_colour_only_on_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colour needs a terminal, and NO_COLOR or a dumb terminal switch it off."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert not output.use_color()  # pytest's capture is no terminal
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert output.use_color()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not output.use_color()
    monkeypatch.setenv("NO_COLOR", "")
    assert output.use_color()
    monkeypatch.setenv("TERM", "dumb")
    assert not output.use_color()


def terminal_output(*args: str, **env: str) -> bytes:
    """What a command writes to a terminal, stdout and stderr together."""
    pty = pytest.importorskip("pty", reason="terminals need a POSIX system")
    parent, child = pty.openpty()
    everything = {**os.environ, "COLUMNS": "80", "TERM": "xterm", **env}
    command = [sys.executable, "-m", "moeplan", *args]
    with started(command, stdout=child, stderr=child, stdin=child, env=everything) as process:
        os.close(child)
        seen = b""
        try:
            while chunk := os.read(parent, 65536):
                seen += chunk
        except OSError:  # Linux reports the end so
            pass
        os.close(parent)
        assert process.wait(PATIENCE) == 0
    return seen


def test_a_real_terminal() -> None:
    """On a terminal titles are coloured; with NO_COLOR the same text comes without any codes."""
    colour = terminal_output("laws", "zhao2025", NO_COLOR="")
    plain = terminal_output("laws", "zhao2025", NO_COLOR="1")
    assert b"\x1b[1;36m" in colour
    assert b"\x1b" not in plain
    stripped = re.sub(rb"\x1b\[[0-9;]*m", b"", colour)
    assert [line.rstrip() for line in stripped.splitlines()] == [line.rstrip() for line in plain.splitlines()]


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress almost at once."""
    monkeypatch.setattr(output, "PATIENCE", 0.01)
    monkeypatch.setenv("TERM", "xterm")


def test_progress_needs_a_terminal(patience: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Where stderr is no terminal no progress is written, however long it takes."""
    with output.Progress() as progress:
        progress("counting")
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_progress_on_a_terminal() -> None:
    """On a terminal, work of over a second shows its step on stderr and clears it."""
    code = (
        "import time; from moeplan.report import output; output.PATIENCE = .05\n"
        "with output.Progress() as progress: progress('counting'); time.sleep(1)"
    )
    pty = pytest.importorskip("pty", reason="terminals need a POSIX system")
    parent, child = pty.openpty()
    with started([sys.executable, "-c", code], stderr=child, env={**os.environ, "TERM": "xterm"}) as process:
        assert process.wait(PATIENCE) == 0
    os.close(child)
    seen = os.read(parent, 65536)
    os.close(parent)
    assert b"counting ..." in seen
    assert seen.endswith(b"\x1b[2K")


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to the whole console")
def test_ctrl_c() -> None:
    """Ctrl-C ends with exit code 130 and one word, no traceback."""
    arguments = ["frontier", "--flops", "1e20..1e25", "--memory", "80GB"]  # forty searches
    with held(arguments, step=" 1 of 40 points") as process:
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, errors) == (130, b"", b"Error: interrupted\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk() -> None:
    """A stdout that cannot take the answer ends in one sentence."""
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "moeplan", "schema"], stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE
        )
    assert result.returncode == 2
    assert result.stderr.splitlines()[0] == b"Error: output: no space left on device"
    assert b"Traceback" not in result.stderr


# Completion


def completed(items: list[CompletionItem]) -> list[str]:
    """The words offered."""
    return [item.value for item in items]


def test_completion() -> None:
    """Laws, their fits, files and design variables complete."""
    context = click.Context(cli)
    option = cli.commands["recommend"].params[0]
    assert completed(complete_law(context, option, "")) == list(law_names())
    assert completed(complete_law(context, option, "zh")) == ["zhao2025"]
    assert completed(complete_law(context, option, "krajewski2024/moe")) == [
        "krajewski2024/moe-e64",
        "krajewski2024/moe-e16",
    ]
    assert [item.type for item in complete_law(context, option, "./my")] == ["file"]
    assert completed(complete_variable(context, option, "")) == [f"{name}=" for name in DESIGN_VARIABLES]
    assert completed(complete_variable(context, option, "gran")) == ["granularity="]


def test_the_shell_can_ask() -> None:
    """bash gets completions from the program itself."""
    result = python("-m", "moeplan", _MOEPLAN_COMPLETE="bash_complete", COMP_WORDS="moeplan laws zh", COMP_CWORD="2")
    assert b"zhao2025" in result.stdout or result.returncode == 0


def test_hardware_lists_every_device() -> None:
    """`moeplan hardware` shows every preset with its source, one by name, and the nearest names of a wrong one."""
    from moeplan.cost.devices import devices

    text = run("hardware").stdout
    assert all(name in text for name in devices())
    assert "Published utilisation" in text
    assert "MFU: share of the dense bf16 peak" in text
    one = json.loads(run("hardware", "H200", "--json").stdout)["devices"]
    assert [device["name"] for device in one] == ["H200"]
    wrong = run("hardware", "H1000")
    assert wrong.exit_code == 2
    assert "did you mean H100" in wrong.stderr


def test_gpus_alone_ask_for_a_time() -> None:
    """--gpus without compute or days says that days are what is missing."""
    done = run("recommend", "--gpus", "8xH100")
    assert (done.exit_code, "--days 30" in done.stderr) == (2, True)


def test_export_without_a_target_lists_them_one_a_line() -> None:
    """Each target stands in its own line with what is written, before the sentence that asks for one."""
    done = run("export", "deepseek-v3")
    assert done.exit_code == 2
    assert done.stdout == ""
    *targets, sentence = done.stderr.splitlines()
    assert len(targets) == 10
    assert all(re.match(r"--to \w+ +\S", line) for line in targets)
    assert sentence.startswith("Error: --to is missing")
