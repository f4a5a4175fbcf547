"""Getting runs done: what is finished is taken from the folder, the rest goes to an engine.

Engines differ in where runs happen, never in what they are: each gets the same specs and leaves the same files.
"""

from __future__ import annotations

import importlib
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moeplan.errors import InfeasibleError, UsageError
from moeplan.files import atomic_write
from moeplan.verification import results
from moeplan.verification.ladder import Data, Ladder
from moeplan.verification.options import Where
from moeplan.verification.shrink import flops_per_token
from moeplan.verification.spec import RunResult, RunSpec, spec_text
from moeplan.verification.tuning import bracketing, transfer_learning_rate, tuned_rates

PER_GPU = 2
"""Local processes a GPU, so that one trains while the other starts."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a run."""

    digest: str
    """Name of the run."""
    kind: Literal["started", "progress", "finished", "failed"]
    """What happened."""
    step: int = 0
    """Steps done."""
    steps: int = 0
    """Steps in all."""
    loss: float = 0.0
    """Latest training loss; of a finished run its validation loss [nats/token]."""
    tokens_per_second: float = 0.0
    """Training tokens a second."""
    mfu: float | None = None
    """Share of the measured matrix-product peak."""
    seconds_left: float = 0.0
    """Forecast by the run's own speed [s]."""
    message: str = ""
    """Why it failed."""
    name: str = ""
    """Arm and place in the ladder of a run that started."""


Listener = Callable[[Event], None]


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def finished(specs: Sequence[RunSpec], folder: Path) -> dict[str, RunResult]:
    """The results that the folder has, by digest; a torn or foreign file counts as none."""
    found = {}
    for spec in specs:
        result = results.load(folder, spec)
        if result is not None:
            found[spec.digest] = result
    return found


def launch_ladder(
    ladder: Ladder, data: Data, folder: Path, where: Where, listen: Listener | None = None
) -> tuple[list[RunResult], list[RunResult]]:
    """The runs that tune each arm's learning rate, until the best is inside, then the ladder's own; see `launch`."""
    listen = listen or _quiet
    tuned: list[RunResult] = []
    tried: list[tuple[RunSpec, float]] = []
    todo = ladder.tuning(data)
    while todo:
        tuned += launch(todo, folder, where, listen)
        tried = [(r.spec, r.loss if r.status == "finished" else math.inf) for r in tuned]
        todo = bracketing(tried, ladder.most_rates)
    return tuned, launch(ladder.measured(data, tuned_rates(tried), transfer_learning_rate), folder, where, listen)


def _quiet(event: Event) -> None:
    pass


def launch(specs: Sequence[RunSpec], folder: Path, where: Where, listen: Listener) -> list[RunResult]:
    """The result of every spec, in their order; runs what the folder does not have.

    Raises `InfeasibleError` if runs failed, with the first reason; whatever finished stays in the folder.
    """
    have = finished(specs, folder)
    todo = [spec for spec in {s.digest: s for s in specs}.values() if spec.digest not in have]
    if todo:
        # the longest first, so that workers end together
        todo.sort(key=lambda s: -s.tokens * flops_per_token(s.architecture, s.seq_len))
        folder.mkdir(parents=True, exist_ok=True)
        failures: list[str] = []

        def hear(event: Event) -> None:
            if event.kind == "failed":
                failures.append(event.message)
            listen(event)

        engine = importlib.import_module(f"moeplan.verification.engines.{where.engine}")
        engine.launch(todo, folder, where, hear)
        have = finished(specs, folder)
        lost = [spec for spec in specs if spec.digest not in have]
        if lost:
            reason = failures[0] if failures else "no result was left"
            said = folder / "errors"
            kept = f"{folder}, what failed runs wrote in {said}" if said.is_dir() else str(folder)
            raise InfeasibleError(
                f"{len(lost)} of {len(specs)} proxy runs failed ({reason}); what finished is kept in {kept}"
            )
    return [have[spec.digest] for spec in specs]


def write_specs(specs: Sequence[RunSpec], folder: Path) -> list[str]:
    """Write every spec into the folder and return the command that runs each."""
    inside = folder / "specs"
    inside.mkdir(parents=True, exist_ok=True)
    commands = []
    for spec in specs:
        path = inside / f"{spec.digest}.json"
        with atomic_write(path) as file:
            file.write(spec_text(spec) + "\n")
        commands.append(
            shlex.join([sys.executable, "-m", "moeplan.verification.worker", str(path), "--folder", str(folder)])
        )
    return commands


def reason_in(text: str) -> str:
    """The error at the end of a traceback that another process left as text: its last line that names one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no reason was given"]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
    return (named or lines)[-1]


def optional(module: str, extra: str) -> Any:
    """Import what an extra brings; raises `UsageError` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(f"this needs {module}; install it by pip install 'moeplan[{extra}]'") from None


def worker_environment(threads: int = 1) -> dict[str, str]:
    """Environment of a worker: this very package, and one thread."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    return {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
