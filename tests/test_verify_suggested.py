"""`moeplan verify` for the runs that `moeplan fit --suggest` wrote: what is run, refused, said and saved."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner, Result

from moeplan.architecture.shape import Architecture
from moeplan.cli import cli
from moeplan.errors import InfeasibleError, UsageError
from moeplan.fitting.reading import read_runs
from moeplan.fitting.suggestion import SCHEMA, SuggestedRun, Suggestion
from moeplan.report.proxy_runs import proxy_outline_sections, proxy_runs_charts, proxy_runs_sections
from moeplan.report.schemas import document_schema
from moeplan.report.terminal import terminal_text
from moeplan.units import format_duration as duration
from moeplan.verification import study
from moeplan.verification.ladder import LEAST_STEPS, Settings
from moeplan.verification.machine import Machine
from moeplan.verification.options import StudyOptions, check_suggested
from moeplan.verification.proxy_runs import ProxyRuns
from moeplan.verification.save import runs_csv
from moeplan.verification.shrink import flops_per_token
from moeplan.verification.spec import RunResult, RunSpec
from moeplan.verification.study import Prepared
from moeplan.verification.subject import read_subject
from moeplan.verification.suggested_study import SuggestedStudy, suggested_ladder
from moeplan.verification.tuning import tuned_rates
from tests.sample import sample_plan
from tests.verify_cases import DATA, invented_result, text_file

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="needs torch (the extra verify)")
MACHINE = Machine("an invented one", False, "fp32", 2, lambda spec: spec.tokens / 1e5, 64e9)
SETTINGS = Settings("fp32", seeds=1, controls=False)


def shape(width: int, experts: int = 0, layers: int = 1) -> Architecture:
    """A model of one layer, dense or with experts."""
    own = {"num_experts": experts, "num_active_experts": 2, "d_expert": width // 2} if experts else {"d_ff": 3 * width}
    return Architecture(
        d_model=width, num_layers=layers, vocab_size=4096, num_heads=2, num_kv_heads=1, head_dim=16, qk_norm="head",
        **own,
    )  # fmt: skip


def suggestion(*runs: tuple[Architecture, int], seq_len: int = 64) -> Suggestion:
    """A list of runs: architectures and tokens."""
    found = tuple(
        SuggestedRun(
            architecture=architecture,
            total_params=architecture.total_params(),
            active_params=architecture.active_params(),
            tokens=tokens,
            train_flops=float(architecture.flops_per_token(seq_len) * tokens),
            predicted=7.77,
            memory_bytes=1e9,
            days=None,
            sees={"tokens": float(tokens)},
            regret_after=0.01,
        )
        for architecture, tokens in runs
    )
    return Suggestion(
        schema=SCHEMA,
        moeplan_version="0",
        command="",
        law="ours",
        form="expansion_joint",
        target_flops=1e22,
        target_memory="80GB",
        max_flops=1e12,
        max_params=None,
        max_memory=None,
        gpus="",
        max_days=None,
        days=None,
        seq_len=seq_len,
        runs=found,
        train_flops=sum(run.train_flops for run in found),
        candidates=len(found),
        noise=0.01,
        regret_now=0.02,
        regret_after=0.01,
        expected=(),
        level=0.9,
        draws=100,
        notes=(),
    )


SMALL, WIDE, DENSE = shape(32, 8), shape(64, 8), shape(32)
LISTED = suggestion((SMALL, 10_000), (DENSE, 12_000), (WIDE, 10_000), (SMALL, 10_000))
"""Three runs, the first of them listed twice."""


def finished(spec: RunSpec, **changes: object) -> RunResult:
    """A result that depends on width and seed."""
    made = invented_result(spec, np.random.default_rng(0), 1.0, 0.0)
    loss = 4 - 0.1 * math.log(spec.architecture.d_model) + 0.01 * spec.seed + abs(math.log(spec.learning_rate / 0.05))
    return dataclasses.replace(made, loss=loss, **changes)  # type: ignore[arg-type]


def made(found: Suggestion, change: Callable[[RunResult], RunResult] = lambda result: result) -> ProxyRuns:
    """What `verify` says of invented results."""
    ladder = suggested_ladder(found, DATA, SETTINGS)
    planned = SuggestedStudy(found).outline_of(ladder, DATA, MACHINE)
    tuned = [finished(spec) for spec in ladder.tuning(DATA)]
    rates = tuned_rates([(result.spec, result.loss) for result in tuned])
    results = [change(finished(s)) for s in ladder.measured(DATA, rates, lambda rate, old, new: rate)]
    return SuggestedStudy(found).conclude(Prepared(planned, ladder, DATA), tuned, results)


# Which runs ---------------------------------------------------------------------------------------------------------


def test_a_run_is_made_as_often_as_it_is_listed() -> None:
    """Listed twice it has two seeds; more seeds are so many of every listing and keep the runs of fewer."""
    once, more = (suggested_ladder(LISTED, DATA, Settings("fp32", n, False)) for n in (1, 3))
    seeds = {
        ladder.settings.seeds: [s.seed for s in ladder.specs(DATA) if s.purpose == "measure" and s.architecture ==
                                dataclasses.replace(SMALL, vocab_size=256)]
        for ladder in (once, more)
    }  # fmt: skip
    assert seeds == {1: [1, 2], 3: [1, 2, 3, 4, 5, 6]}
    assert {s.digest for s in once.specs(DATA)} < {s.digest for s in more.specs(DATA)}
    digests = [spec.digest for spec in more.specs(DATA)]
    assert len(set(digests)) == len(digests)


def test_runs_have_the_tokens_and_shapes_suggested() -> None:
    """In the list's order, tokens to half a step, everything of the shape but the vocabulary."""
    ladder = suggested_ladder(LISTED, DATA, SETTINGS)
    specs = ladder.measured(DATA, {"moe": 0.01, "dense": 0.01}, lambda rate, old, new: rate)
    for spec, run in zip(specs, LISTED.runs, strict=True):
        assert dataclasses.replace(spec.architecture, vocab_size=4096) == run.architecture
        assert spec.architecture.vocab_size == DATA.vocab_size
        assert abs(spec.tokens - run.tokens) <= spec.batch_sequences * spec.seq_len / 2
        assert spec.seq_len == LISTED.seq_len


@pytest.mark.parametrize("tokens", [30_000, 3_000_000])
def test_tuning_costs_no_more_than_the_cheapest_run_of_each_arm(tokens: int) -> None:
    """Three rates over a third of its steps at its batch, unless these are too few to mean anything."""
    found = suggestion((SMALL, tokens), (WIDE, tokens), (DENSE, tokens))
    ladder = suggested_ladder(found, DATA, SETTINGS)
    measured = {s.architecture: s for s in ladder.specs(DATA) if s.purpose == "measure"}
    for arm, cheapest in (("moe", SMALL), ("dense", DENSE)):
        tuning = [s for s in ladder.tuning(DATA) if s.arm == arm]
        own = measured[dataclasses.replace(cheapest, vocab_size=256)]
        assert len(tuning) == 3
        assert {(s.architecture, s.batch_sequences) for s in tuning} == {(own.architecture, own.batch_sequences)}
        least = {min(own.steps, LEAST_STEPS)}
        assert sum(s.steps for s in tuning) <= own.steps or {s.steps for s in tuning} == least


@pytest.mark.parametrize("own, missing", [((SMALL, WIDE), "dense"), ((DENSE, shape(64)), "moe")])
def test_an_arm_without_runs_is_not_tuned(own: tuple[Architecture, ...], missing: str) -> None:
    """A list without dense runs, or without experts, has rates, runs and a result for the other arm alone."""
    found = suggestion(*((each, 30_000) for each in own))
    ladder = suggested_ladder(found, DATA, SETTINGS)
    assert missing not in {spec.arm for spec in ladder.specs(DATA)}
    said = made(found)
    assert [tuning.arm for tuning in said.tuning] == [{"moe": "dense", "dense": "moe"}[missing]]
    assert len(proxy_runs_charts(said)[0].series) == 1
    assert ("Routing" in {section.title for section in proxy_runs_sections(said)}) == (missing == "dense")


def test_shapes_that_are_one_size_by_name_stay_apart() -> None:
    """Two runs of equal width, depth and compute but other experts are two runs, in the outline too."""
    found = suggestion((shape(32, 8), 30_000), (shape(32, 16), 30_000))
    ladder = suggested_ladder(found, DATA, SETTINGS)
    outline = SuggestedStudy(found).outline_of(ladder, DATA, MACHINE)
    assert [run.architecture.num_experts for run in outline.runs if run.purpose == "measure"] == [8, 16]
    assert [proxy.architecture.num_experts for proxy in made(found).proxies] == [8, 16]


# What is said beforehand --------------------------------------------------------------------------------------------


def test_the_outline_counts_every_run_and_says_what_to_know() -> None:
    """Compute and time are those of all runs; the tuning, the vocabulary and what may be compared are said."""
    ladder = suggested_ladder(LISTED, DATA, SETTINGS)
    outline = SuggestedStudy(LISTED).outline_of(ladder, DATA, MACHINE)
    assert outline.train_flops == pytest.approx(sum(run.count * run.train_flops for run in outline.runs))
    assert [run.count for run in outline.runs] == [3, 3, 2, 1, 1]
    text = " ".join(terminal_text(proxy_outline_sections(outline), 100).split())
    for words in (
        "tuned on its cheapest run",
        "256 different tokens, the target 4,096",
        "only to runs on the same data",
    ):
        assert words in text
    same = dataclasses.replace(DATA, vocab_size=4096)
    notes = SuggestedStudy(LISTED).outline_of(suggested_ladder(LISTED, same, SETTINGS), same, MACHINE).notes
    assert not any("different tokens" in note for note in notes)


def test_too_little_text_says_how_much_is_needed() -> None:
    """A run of more than four epochs is told with the training tokens that it needs, and where no text would do."""
    for tokens, needed, advice in ((10**9, "250M", "--data"), (10**12, "250B", "--max-flops")):
        found = suggestion((SMALL, tokens))
        ladder = suggested_ladder(found, DATA, SETTINGS)
        first = SuggestedStudy(found).outline_of(ladder, DATA, MACHINE).notes[0]
        assert f"so {needed} training tokens are needed" in first
        assert advice in first


def test_too_little_memory_is_said() -> None:
    """For one run too large for the machine, and for all that train at a time."""
    found = suggestion((shape(2048, 256, 20), 10**8), (shape(2048, 256, 19), 10**8))
    ladder = suggested_ladder(found, DATA, SETTINGS)
    alone = max(run.memory_bytes for run in SuggestedStudy(found).outline_of(ladder, DATA, MACHINE).runs)
    for memory, words in ((0.9, "The largest run needs"), (1.1, "The 2 largest runs together"), (3, ""), (0, "")):
        machine = dataclasses.replace(MACHINE, memory_bytes=memory * alone)
        notes = [n for n in SuggestedStudy(found).outline_of(ladder, DATA, machine).notes if "this machine has" in n]
        assert bool(notes) == bool(words)
        assert all(note.startswith(words) for note in notes)


def test_long_forecasts_are_written_for_people() -> None:
    """From a hundred hours on in days, then in years."""
    assert [duration(hours * 3600) for hours in (99, 240, 8760 * 17)] == ["99h", "10 days", "17 years"]


# What is said afterwards --------------------------------------------------------------------------------------------


def test_every_run_has_its_losses() -> None:
    """Losses by seed with their mean, by place in the list; no predicted loss stands anywhere."""
    found = made(LISTED)
    assert [proxy.places for proxy in found.proxies] == [(1, 4), (2,), (3,)]
    assert [proxy.seeds for proxy in found.proxies] == [(1, 2), (1,), (1,)]
    for proxy in found.proxies:
        assert proxy.loss == pytest.approx(sum(proxy.losses) / len(proxy.losses))  # type: ignore[arg-type]
        assert (proxy.load is None) == (proxy.arm == "dense")
        assert proxy.train_flops == proxy.tokens * flops_per_token(proxy.architecture, 64)
    text = terminal_text(proxy_runs_sections(found), 100)
    assert f"{found.proxies[0].losses[1]:.4f}" in text
    assert "7.77" not in text
    assert "7.77" not in json.dumps(found.to_json())


def test_diverged_runs_are_told_and_not_saved() -> None:
    """One of two seeds diverged: the other counts; a run without any loss says so; all diverged is an error."""

    def lost(result: RunResult) -> RunResult:
        return dataclasses.replace(result, status="diverged", attempts=2, loss=0.0)

    found = made(LISTED, lambda r: lost(r) if r.spec.seed == 2 or r.spec.arm == "dense" else r)
    assert [proxy.status for proxy in found.proxies] == ["partly diverged", "diverged", "finished"]
    assert found.proxies[0].losses[1] is None
    assert found.proxies[0].loss == found.proxies[0].losses[0]
    assert found.proxies[1].loss is None
    assert "diverged" in terminal_text(proxy_runs_sections(found), 100)
    assert runs_csv(found.runs, 64).count("\n") == 3  # a heading and two runs
    with pytest.raises(InfeasibleError, match="diverged"):
        made(LISTED, lost)


def test_an_unhealthy_router_is_named() -> None:
    """The places of runs with an expert of five times the mean load are in the notes."""
    found = made(
        LISTED,
        lambda r: (
            dataclasses.replace(r, routing=dataclasses.replace(r.routing, load=(5.0,)))
            if r.spec.architecture.d_model == 64 and r.routing
            else r
        ),
    )
    assert any(note.startswith("Unhealthy router in 3:") for note in found.notes)


def test_json_goes_out_and_back() -> None:
    """The result survives JSON; another schema is refused."""
    data = json.loads(json.dumps(made(LISTED).to_json()))
    assert ProxyRuns.from_json(data).to_json() == data
    jsonschema.validate(data, document_schema("proxy_runs"))
    with pytest.raises(UsageError, match="proxy_runs/1"):
        ProxyRuns.from_json({**data, "schema": "moeplan.verification/1"})


# What is refused ----------------------------------------------------------------------------------------------------


def test_lists_that_cannot_be_run_are_refused() -> None:
    """An empty one, and one with a shape that proxies cannot have."""
    with pytest.raises(UsageError, match="empty"):
        suggested_ladder(suggestion(), DATA, SETTINGS)
    odd = dataclasses.replace(SMALL, qk_norm="none")
    with pytest.raises(UsageError, match="qk_norm"):
        suggested_ladder(suggestion((odd, 30_000)), DATA, SETTINGS)


@pytest.mark.parametrize("asked", [{"time": 60.0}, {"budget": 1e12}, {"controls": True}])
def test_what_is_a_plans_alone_is_refused(asked: dict[str, float]) -> None:
    """A time, a budget and controls, by name; seeds and precision are not."""
    with pytest.raises(UsageError, match=f"{next(iter(asked))} is for a plan"):
        check_suggested(StudyOptions(**asked))  # type: ignore[arg-type]
    check_suggested(StudyOptions(seeds=3, precision="fp32"))


def run(*args: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, ["verify", *args], prog_name="moeplan", env={"COLUMNS": "100"})


@pytest.mark.parametrize(
    "text, options, says",
    [
        (LISTED.to_text(), ["--time", "5m"], "the option time is for a plan"),
        (LISTED.to_text(), ["--budget", "1e12"], "the option budget is for a plan"),
        (LISTED.to_text(), ["--controls"], "the option controls is for a plan"),
        (LISTED.to_text(), ["--seeds", "0"], "seeds 0 must be 1 to 100"),
        (LISTED.to_text().replace('"law"', '"lore"'), [], "unknown key 'lore'"),
        ('{"schema": "moeplan.verification/1"}', [], "verify takes a plan (moeplan.plan/2) or runs that moeplan fit"),
        ('{"schema": ["a"]}', [], "verify takes a plan"),
        ("{}", [], "lacks the key 'schema'"),
        ("[]", [], "schema"),
        ("not JSON", [], "is not JSON"),
    ],
)
def test_mistakes_are_refused_in_a_sentence(text: str, options: list[str], says: str, tmp_path: Path) -> None:
    """Exit code 2, one sentence that names the file or the option, before torch is needed."""
    path = tmp_path / "next.json"
    path.write_text(text, encoding="utf-8")
    done = run(str(path), *options)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "next.verify").exists()


def test_plans_and_lists_are_told_apart(tmp_path: Path) -> None:
    """By the schema, whatever the file is called."""
    (tmp_path / "a.json").write_text(sample_plan().to_text(), encoding="utf-8")
    (tmp_path / "b.json").write_text(LISTED.to_text(), encoding="utf-8")
    assert type(read_subject(tmp_path / "a.json")).__name__ == "Plan"
    assert read_subject(tmp_path / "b.json") == LISTED


# For real -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a list and a text."""
    path = tmp_path_factory.mktemp("suggested")
    (path / "next.json").write_text(LISTED.to_text(), encoding="utf-8")
    text_file(path, 0.4)
    return path


@pytest.mark.verify
@needs_torch
def test_suggested_runs_train_resume_and_can_be_fitted(folder: Path, tmp_path: Path) -> None:
    """A dry run trains nothing; the first call makes every run, the second none, and says the same; what is saved is
    what `moeplan fit` reads."""
    common = [str(folder / "next.json"), "--data", str(folder / "text.jsonl"), "--device", "cpu"]
    common += ["--precision", "fp32", "--workers", "1", "--folder", str(tmp_path / "runs")]
    dry = run(*common, "--dry-run")
    assert dry.exit_code == 0, dry.stderr
    for word in ("FLOPs", "tokens", "epochs", "memory", "time", "tuning", "only to runs on the same data"):
        assert word in " ".join(dry.stdout.split())
    assert not list((tmp_path / "runs").glob("*.json"))

    first = run(*common, "--save", str(tmp_path / "runs.csv"), "--output", str(tmp_path / "out.json"))
    assert first.exit_code == 0, first.stderr
    assert "10 runs" in first.stderr
    found = ProxyRuns.from_json(json.loads((tmp_path / "out.json").read_text(encoding="utf-8")))
    assert len(found.runs) == 10
    assert [len(proxy.losses) for proxy in found.proxies] == [2, 1, 1]
    assert found.proxies[0].losses[0] != found.proxies[0].losses[1]
    assert all(proxy.loss is not None and proxy.loss < math.log(256) for proxy in found.proxies)

    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*.json")}
    again = run(*common, "--json")
    losses = [
        [proxy.losses for proxy in each.proxies] for each in (found, ProxyRuns.from_json(json.loads(again.stdout)))
    ]
    assert losses[0] == losses[1]
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*.json")}

    runs = read_runs(tmp_path / "runs.csv")
    assert runs.count == 4
    measured = {loss for proxy in found.proxies for loss in proxy.losses if loss is not None}
    assert sorted(set(runs.require("loss", "a form").tolist())) == pytest.approx(sorted(measured), abs=1e-6)
    tokens = {proxy.tokens for proxy in found.proxies}
    assert {int(x) for x in runs.require("tokens", "a form")} == tokens
    assert runs.says_moe


@pytest.mark.verify
@needs_torch
def test_little_text_and_other_engines(folder: Path, tmp_path: Path) -> None:
    """Too little text ends with exit code 1 before anything trains, while a dry run still shows the runs; the engine
    plan hands out the tuning runs as commands."""
    path = tmp_path / "next.json"
    path.write_text(suggestion((SMALL, 10**8)).to_text(), encoding="utf-8")
    data = ["--data", str(folder / "text.jsonl"), "--device", "cpu"]
    done = run(str(path), *data)
    assert done.exit_code == 1
    assert "training tokens are needed" in done.stderr
    assert done.stderr.count("\n") == 1
    dry = run(str(path), *data, "--dry-run", "--json")
    assert dry.exit_code == 0
    assert "training tokens are needed" in json.loads(dry.stdout)["notes"][0]
    assert not list((tmp_path / "next.verify").glob("*.json"))
    handed = run(str(folder / "next.json"), *data, "--engine", "plan", "--folder", str(tmp_path / "runs"))
    assert handed.exit_code == 0
    assert len(handed.stdout.splitlines()) == 6
    assert all("moeplan.verification.worker" in line for line in handed.stdout.splitlines())


@pytest.mark.verify
@needs_torch
def test_what_was_chosen_stays(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arithmetic taken at first is kept when more seeds are asked for, whatever the probe then finds faster."""
    request = StudyOptions(seeds=1, data=str(folder / "text.jsonl"))
    for faster, seeds in (("bf16", 1), ("fp32", 2)):
        fast = dataclasses.replace(
            MACHINE, seconds=lambda s, fast=faster: s.tokens / (1e5 if s.precision == fast else 1e4)
        )
        monkeypatch.setattr(study, "probe_machine", lambda where, folder, fast=fast: fast)
        outline = study.outline(SuggestedStudy(LISTED, dataclasses.replace(request, seeds=seeds)), tmp_path)
        assert (outline.precision, outline.seeds) == ("bf16", seeds)
