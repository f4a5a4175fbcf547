"""Experiment trackers have the curves of finished runs, read back by each tracker's own reader."""

from __future__ import annotations

import dataclasses
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from moeplan.cli import cli
from moeplan.errors import UsageError
from moeplan.verification import results
from moeplan.verification.ladder import Data, make_ladder
from moeplan.verification.launch import Event, launch
from moeplan.verification.options import TRACKERS, Where
from moeplan.verification.spec import RunResult
from moeplan.verification.tracking import EXTRA, Tracking, curves
from tests.verify_cases import DATA, SETTINGS, SMALL, invented_result, small_ladder, text_file

PLAN = {"architecture": {"d_model": 3072}}


def needs(package: str) -> pytest.MarkDecorator:
    """Skip without a tracker's package."""
    return pytest.mark.skipif(find_spec(package) is None, reason=f"needs {package} (the extra tracking)")


@pytest.fixture
def made() -> list[RunResult]:
    """A MoE run, a dense one and one that tunes, with curves of five points."""
    ladder, rng = small_ladder(), np.random.default_rng(0)
    measured = ladder.measured(DATA, {"moe": 0.01, "dense": 0.02}, lambda rate, start, end: rate)
    specs = [next(s for s in measured if s.arm == arm) for arm in ("moe", "dense")] + [ladder.tuning(DATA)[0]]
    found = []
    for spec in specs:
        result = invented_result(spec, rng, 2.0)
        losses = (5.0, 4.0, 3.0, 2.5, result.loss)
        loads = (9.0, 6.0, 4.0, 3.0, 2.0) if spec.arm == "moe" else ()
        found.append(RunResult(**{**vars(result), "train_losses": losses, "train_loads": loads}))
    return found


def test_a_curve_ends_at_the_last_step_and_falls_as_the_rate_does(made: list[RunResult]) -> None:
    """Points are the ends of equal stretches; the rate there is the peak times the schedule, which ends near zero; only
    a MoE has a router's load, and the names of all runs differ."""
    for result in made:
        spec, found = result.spec, curves(result)
        steps = [step for step, _ in found.points]
        assert steps == sorted(set(steps))
        assert steps[-1] == spec.steps
        assert [values["train/loss"] for _, values in found.points] == list(result.train_losses)
        rates = [values["train/learning_rate"] for _, values in found.points]
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] == pytest.approx(result.learning_rate / (spec.steps - spec.warmup_steps))
        assert all(("router/load" in values) == (spec.arm == "moe") for _, values in found.points)
        assert found.last["validation/loss"] == result.loss
        assert found.config["architecture"]["d_model"] == spec.architecture.d_model
    assert len({curves(result).name for result in made}) == len(made)


def told(tracking: Tracking, found: list[RunResult]) -> None:
    """Leave results as workers do, and tell that they have finished."""
    for result in found:
        results.save(tracking.folder, result)
        tracking.heard(None)(Event(result.spec.digest, "finished"))


@needs("tensorboard")
@pytest.mark.verify
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_curves_and_plan(made: list[RunResult], tmp_path: Path) -> None:
    """TensorBoard reads back each run's losses by step, its values at the end, and the plan; a second study that finds
    the runs finished writes none of them again."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told(Tracking("tensorboard", tmp_path, PLAN), made)
    places = {place.name: place for place in (tmp_path / "tensorboard").iterdir()}
    assert len(places) == len(made) + 1
    for result in made:
        found = curves(result)
        place = next(place for name, place in places.items() if name.endswith(found.digest[:4]))
        events = EventAccumulator(str(place)).Reload()
        losses = [(event.step, event.value) for event in events.Scalars("train/loss")]
        assert losses == [(step, pytest.approx(values["train/loss"])) for step, values in found.points]
        (end,) = events.Scalars("end/validation/loss")
        assert (end.step, end.value) == (result.spec.steps, pytest.approx(result.loss))
        assert ("router/load" in events.Tags()["scalars"]) == (result.spec.arm == "moe")
    events = EventAccumulator(str(places["plan"])).Reload()
    (text,) = events.Tensors("plan/text_summary")
    assert json.loads(text.tensor_proto.string_val[0]) == PLAN
    sizes = {path: path.stat().st_size for path in tmp_path.rglob("*tfevents*")}
    again = Tracking("tensorboard", tmp_path, PLAN)
    for result in made:
        again.write(result)
    assert {path: path.stat().st_size for path in sizes} == sizes


@needs("wandb")
@pytest.mark.verify
@pytest.mark.filterwarnings("ignore")  # of its own modules
def test_wandb_offline_keeps_a_run_each(made: list[RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline a file a run is kept in the study's folder, named by its digest, with losses, spec and plan."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    import wandb

    told(Tracking("wandb", tmp_path, PLAN), made[:1])
    wandb.teardown()  # as at the end of a process: its service has written all it was told
    (path,) = (tmp_path / "wandb").rglob("*.wandb")
    digest = made[0].spec.digest
    assert path.name == f"run-{digest}.wandb"
    content = path.read_bytes()
    for word in (
        b"train/loss",
        b"train/learning_rate",
        b"router/load",
        b"validation/loss",
        b"batch_sequences",
        b"3072",
    ):
        assert word in content
    assert (tmp_path / "tracked" / "wandb.txt").read_text() == f"{digest}\n"


@needs("mlflow")
@pytest.mark.verify
@pytest.mark.filterwarnings("ignore")  # of its own modules
def test_mlflow_keeps_runs_in_the_folder(
    made: list[RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a server runs lie in the study's folder: metrics by step, the spec as params, the plan as a file."""
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    told(Tracking("mlflow", tmp_path, PLAN), made)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("moeplan")
    by_digest = {run.data.tags["digest"]: run for run in client.search_runs([experiment.experiment_id])}
    for result in made:
        run, found = by_digest[result.spec.digest], curves(result)
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert sorted((each.step, each.value) for each in history) == [
            (step, pytest.approx(values["train/loss"])) for step, values in found.points
        ]
        assert run.data.params["architecture.d_model"] == str(result.spec.architecture.d_model)
        assert run.data.metrics["end/validation/loss"] == pytest.approx(result.loss)
        assert (run.info.run_name, run.info.status) == (found.name, "FINISHED")
    assert json.loads(next((tmp_path / "mlflow").rglob("plan.json")).read_text()) == PLAN


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_tracker_is_a_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not there is named with the extra that brings it."""
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=rf"needs {name}; install it by pip install 'moeplan\[{EXTRA}\]'"):
        Tracking(name, tmp_path, PLAN)


def test_other_names_are_refused() -> None:
    """A tracker that is none of them is refused with those that there are."""
    with pytest.raises(UsageError, match="'neptune' must be one of tensorboard, wandb, mlflow"):
        Where(report_to="neptune")
    assert CliRunner().invoke(cli, ["verify", "plan.json", "--report-to", "neptune"]).exit_code == 2


@needs("tensorboard")
@pytest.mark.verify
def test_a_tracker_that_stops_answering_stops_no_run(
    made: list[RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told once, later events still pass, and the next study writes the runs that are missing."""
    tracking = Tracking("tensorboard", tmp_path, PLAN)

    def lost(run: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(tracking.tracker, "write", lost)
    heard: list[Event] = []
    for result in made:
        results.save(tmp_path, result)
        tracking.heard(heard.append)(Event(result.spec.digest, "finished"))
    assert len(heard) == len(made)
    assert capsys.readouterr().err.count("tensorboard was lost: no route to host") == 1
    again = Tracking("tensorboard", tmp_path, PLAN)
    for result in made:
        again.write(result)
    assert set((tmp_path / "tracked" / "tensorboard.txt").read_text().split()) == {r.spec.digest for r in made}


@needs("tensorboard")
@pytest.mark.verify
def test_runs_of_other_processes_are_reported(tmp_path: Path) -> None:
    """Runs that train in processes of their own are reported as they finish, with a rate that warms up and a router's
    load of as many points as there are losses."""
    pytest.importorskip("torch")
    from moeplan.verification.data import load_corpus

    text = text_file(tmp_path, 0.4)
    corpus = load_corpus(text)
    data = Data(str(text), corpus.digest, corpus.vocab_size, len(corpus.tokens))
    chosen = make_ladder(SMALL, 5e9, SETTINGS, data.vocab_size).tuning(data)
    short = [
        dataclasses.replace(s, steps=20, warmup_steps=2, batch_sequences=2, validation_tokens=2048)
        for s in chosen[:4:3]
    ]
    tracking = Tracking("tensorboard", tmp_path, PLAN)
    made = launch(short, tmp_path, Where(device="cpu", workers=1), tracking.heard(None))
    assert tracking.written == {spec.digest for spec in short}
    assert len(list((tmp_path / "tensorboard").iterdir())) == len(short) + 1
    for result in made:
        assert len(result.train_loads) == (len(result.train_losses) if result.spec.arm == "moe" else 0)
        assert all(load >= 1 for load in result.train_loads)
    rates = [values["train/learning_rate"] for _, values in curves(made[0]).points]
    assert rates[0] < rates[1] < rates[2] == max(rates)
