"""Curves of proxy runs in an experiment tracker: TensorBoard, Weights & Biases or MLflow, each by its own API.

The process that plans a study writes a run when it has finished, from the result that its worker left. So it does not
matter where runs happen, workers need no tracker, and what was there before is written as well; `FOLDER/tracked` says
what a tracker has, so that a study that goes on writes nothing twice.

A tracker that stops answering stops nothing else: it is told once, and the next call writes what is missing.
"""

from __future__ import annotations

import json
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from moeplan import records
from moeplan.errors import UsageError
from moeplan.verification.launch import Event, Listener, optional
from moeplan.verification.options import TRACKERS
from moeplan.verification.results import load_digest
from moeplan.verification.spec import RunResult
from moeplan.verification.worker import name_of_run

PROJECT = "moeplan"
"""Project of W&B and experiment of MLflow, unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME says another."""
EXTRA = "tracking"
"""The extra that brings all trackers."""


@dataclass(frozen=True)
class Curves:
    """One run as a tracker has it."""

    name: str
    """What it is, and the start of its digest: moe 1.5e11/d64L1 seed 1 02d2."""
    digest: str
    """Name of its result."""
    config: dict[str, Any]
    """Its spec, as JSON's types."""
    points: tuple[tuple[int, dict[str, float]], ...]
    """Step and values there: train/loss, train/learning_rate, and of a MoE router/load."""
    last: dict[str, float]
    """Values at its end: validation/loss, speed, router/load, router/dead_experts and router/entropy."""


def curves(result: RunResult) -> Curves:
    """The curves of a finished run; training losses and loads are means over the stretch that ends at the step."""
    spec, losses, loads = result.spec, result.train_losses, result.train_loads
    schedule = spec.schedule()
    points = []
    for place, loss in enumerate(losses):
        step = min(spec.steps, -(-spec.steps * (place + 1) // len(losses)))
        values = {"train/loss": loss, "train/learning_rate": result.learning_rate * schedule[step - 1]}
        if loads:
            values["router/load"] = loads[place]
        points.append((step, values))
    last = {"tokens_per_second": result.tokens_per_second}
    if result.status == "finished":
        last["validation/loss"] = result.loss
    if result.mfu is not None:
        last["mfu"] = result.mfu
    if result.routing is not None:
        last["router/load"] = max(result.routing.load)
        last["router/dead_experts"] = max(result.routing.dead_experts)
        last["router/entropy"] = min(result.routing.entropy)
    rate = f" rate {spec.learning_rate:g}" if spec.purpose == "tune" else ""
    config = {**records.to_json(spec), "status": result.status, "device": result.device}
    return Curves(f"{name_of_run(spec)}{rate} {spec.digest[:4]}", spec.digest, config, tuple(points), last)


class Tracker(ABC):
    """One tracker, opened before anything trains; raises `UsageError` where it is missing or cannot be written to."""

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        self.folder, self.plan, self.study = folder, plan, folder.stem

    @abstractmethod
    def write(self, run: Curves) -> None:
        """Write a run whole."""


class TensorBoard(Tracker):
    """Event files in FOLDER/tensorboard, a folder a run, by torch's own writer; plan and specs are texts."""

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        super().__init__(folder, plan)
        optional("tensorboard", EXTRA)
        self.writer = optional("torch.utils.tensorboard", EXTRA).SummaryWriter
        with self.writer(str(folder / "tensorboard" / "plan")) as writer:
            writer.add_text("plan", _as_code(plan))

    def write(self, run: Curves) -> None:
        """Scalars by step, the values at its end at the last one."""
        with self.writer(str(self.folder / "tensorboard" / re.sub(r"[ /]", "-", run.name))) as writer:
            writer.add_text("config", _as_code(run.config))
            for step, values in run.points:
                for name, value in values.items():
                    writer.add_scalar(name, value, step)
            for name, value in run.last.items():
                writer.add_scalar(f"end/{name}", value, run.config["steps"])


class Wandb(Tracker):
    """Runs of Weights & Biases, a group a study, with spec and plan as config; files are kept in FOLDER/wandb."""

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        super().__init__(folder, plan)
        self.api = optional("wandb", EXTRA)
        if os.environ.get("WANDB_MODE", "online") == "online" and not self.api.login():
            raise UsageError("no API key is known; log in by wandb login, or set WANDB_MODE=offline")

    def write(self, run: Curves) -> None:
        """History by step, the values at its end as its summary."""
        with self.api.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), group=self.study, name=run.name, id=run.digest,
            config={**run.config, "plan": dict(self.plan)}, dir=str(self.folder), reinit="create_new",
            settings=self.api.Settings(silent=True, console="off"),
        ) as found:  # fmt: skip
            for step, values in run.points:
                found.log(values, step=step)
            found.summary.update(run.last)


class MLflow(Tracker):
    """Runs of an MLflow experiment where MLFLOW_TRACKING_URI says, else in FOLDER/mlflow.db; specs are their params."""

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        super().__init__(folder, plan)
        own = None if os.environ.get("MLFLOW_TRACKING_URI") else f"sqlite:///{folder.resolve() / 'mlflow.db'}"
        self.api = optional("mlflow", EXTRA)
        self.client = self.api.MlflowClient(tracking_uri=own)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self.client.get_experiment_by_name(name)
        files = (folder.resolve() / "mlflow").as_uri() if own else None
        self.experiment = known.experiment_id if known else self.client.create_experiment(name, files)

    def write(self, run: Curves) -> None:
        """Metrics by step, the values at its end at the last one, the plan as a file."""
        entities, now = self.api.entities, int(time.time() * 1000)
        tags = {"study": self.study, "digest": run.digest}
        made = self.client.create_run(self.experiment, run_name=run.name, tags=tags).info.run_id
        rows = [(name, value, step) for step, values in run.points for name, value in values.items()]
        rows += [(f"end/{name}", value, run.config["steps"]) for name, value in run.last.items()]
        self.client.log_batch(
            made,
            metrics=[entities.Metric(name, value, now, step) for name, value, step in rows],
            params=[entities.Param(name, str(value)) for name, value in _flat(run.config)],
        )
        self.client.log_dict(made, dict(self.plan), "plan.json")
        self.client.set_terminated(made)


_BY_NAME: dict[str, type[Tracker]] = dict(zip(TRACKERS, (TensorBoard, Wandb, MLflow), strict=True))


class Tracking:
    """Writes each finished run to a tracker, once."""

    def __init__(self, name: str, folder: Path, plan: Mapping[str, Any]) -> None:
        self.name, self.folder = name, folder
        self.record = folder / "tracked" / f"{name}.txt"
        try:
            self.record.parent.mkdir(parents=True, exist_ok=True)
            self.written = set(self.record.read_text(encoding="utf-8").split()) if self.record.exists() else set()
            self.tracker: Tracker | None = _BY_NAME[name](folder, plan)
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None
        except Exception as error:  # whatever a tracker raises
            raise UsageError(f"{name} cannot be written to: {_first_line(error)}") from None

    def heard(self, listen: Listener | None) -> Listener:
        """A listener that writes what finished, and passes everything on."""

        def hear(event: Event) -> None:
            if event.kind == "finished":
                self.write(load_digest(self.folder, event.digest))
            if listen is not None:
                listen(event)

        return hear

    def write(self, result: RunResult | None) -> None:
        """Write a run that is not there yet."""
        if self.tracker is None or result is None or result.spec.digest in self.written:
            return
        try:
            self.tracker.write(curves(result))
            self.written.add(result.spec.digest)
            with self.record.open("a", encoding="utf-8") as file:
                file.write(f"{result.spec.digest}\n")
        except Exception as error:  # whatever a tracker raises; the runs must go on
            self.tracker = None
            click.echo(f"{self.name} was lost: {_first_line(error)}; the same command writes what is missing", err=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _as_code(value: Mapping[str, Any]) -> str:
    """JSON as Markdown shows it literally."""
    return "\n".join(f"    {line}" for line in json.dumps(value, indent=1).splitlines())


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Names with dots, and values, of what JSON nests."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value
