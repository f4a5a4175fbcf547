"""This machine, as a study must know it, and what runs need there: outlines, with time and memory."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moeplan.verification.footprint import memory_bytes
from moeplan.verification.ladder import Data, Ladder, Seconds, ladder_flops, ladder_seconds
from moeplan.verification.options import Where
from moeplan.verification.shrink import KeptProperty, flops_per_token
from moeplan.verification.spec import RunSpec
from moeplan.verification.speed import read_probe
from moeplan.verification.verification import OUTLINE_SCHEMA, Outline, PlannedRun


@dataclass(frozen=True)
class Machine:
    """The machine as a study knows it: the probe's answer."""

    device: str
    """What it is."""
    is_gpu: bool
    """Whether that is a GPU."""
    precision: Literal["fp32", "bf16"]
    """The faster arithmetic."""
    workers: int
    """Runs that train at a time at full speed."""
    seconds: Seconds
    """Forecast of a run's time, start and validation included [s]."""
    memory_bytes: float = 0.0
    """Its memory, or that of one GPU; 0 if that is not known [bytes]."""


def probe_machine(where: Where, folder: Path) -> Machine:
    """Measure for a few seconds the machine that an engine's runs would have."""
    engine = importlib.import_module(f"moeplan.verification.engines.{where.engine}")
    found = read_probe(engine.probe(where, folder))
    gpu = found.device_type == "cuda"

    def seconds(spec: RunSpec) -> float:
        return float(found.seconds(spec))

    workers = where.workers or found.num_devices
    return Machine(found.device, gpu, found.precision, workers, seconds, found.memory_bytes)


def ladder_outline(
    ladder: Ladder,
    data: Data,
    machine: Machine,
    *,
    kept: tuple[KeptProperty, ...] = (),
    limit: str = "",
    notes: tuple[str, ...] = (),
) -> Outline:
    """The runs of a ladder on a machine, grouped by rung."""
    return Outline(
        schema=OUTLINE_SCHEMA,
        runs=planned_runs(ladder.specs(data), data, machine),
        kept=kept,
        moe_budgets=ladder.moe_budgets,
        dense_budgets=ladder.dense_budgets,
        seeds=ladder.settings.seeds,
        seq_len=ladder.seq_len,
        precision=ladder.settings.precision,
        data=data.name,
        data_digest=data.digest,
        train_tokens=data.train_tokens,
        validation_tokens=ladder.validation_tokens,
        train_flops=ladder_flops(ladder, data),
        seconds=ladder_seconds(ladder, data, machine.seconds, machine.workers),
        workers=machine.workers,
        device=machine.device,
        limit=limit,
        notes=notes,
    )


def planned_runs(specs: Sequence[RunSpec], data: Data, machine: Machine) -> tuple[PlannedRun, ...]:
    """Runs before they are made, those that differ only in seed or learning rate together."""
    groups: dict[RunSpec, int] = {}
    for spec in specs:
        alike = dataclasses.replace(spec, seed=0, learning_rate=0.0)
        groups[alike] = groups.get(alike, 0) + 1
    return tuple(_planned_run(spec, count, data, machine) for spec, count in groups.items())


def _planned_run(spec: RunSpec, count: int, data: Data, machine: Machine) -> PlannedRun:
    shape = spec.architecture
    return PlannedRun(
        arm=spec.arm,
        control=spec.control,
        purpose=spec.purpose,
        rung=spec.rung,
        count=count,
        architecture=shape,
        total_params=shape.total_params("non_embedding"),
        active_params=shape.active_params("non_embedding"),
        tokens=spec.tokens,
        epochs=spec.tokens / data.train_tokens,
        batch_tokens=spec.batch_sequences * spec.seq_len,
        steps=spec.steps,
        train_flops=spec.tokens * flops_per_token(shape, spec.seq_len),
        seconds=machine.seconds(spec),
        memory_bytes=memory_bytes(spec),
    )
