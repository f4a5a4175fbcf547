"""Every design within a share of the best V: `plan.candidates(within=0.05)`, or recommend's `--candidates all.csv`."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moeplan.cost.devices import DEFAULT_DEVICE, load_device
from moeplan.errors import UsageError
from moeplan.files import atomic_write
from moeplan.notebook import frame
from moeplan.plan.budget_fields import make_budget
from moeplan.plan.choice import Choice
from moeplan.plan.document import Plan
from moeplan.plan.law_selection import laws_again, select_laws
from moeplan.plan.layouts import machine_of
from moeplan.plan.near_equal import ln_efficiencies
from moeplan.plan.planner import search
from moeplan.plan.repeat import request_fields
from moeplan.plan.search.designs import joined
from moeplan.plan.search.variables import DESIGN_VARIABLES, Design

WITHIN = 0.05
"""Share of the best V that a candidate may lack."""
SUFFIXES = (".csv", ".parquet")
"""Files that candidates are written to."""


@dataclass(frozen=True)
class Candidates:
    """Designs within a share of the best V, the best first."""

    within: float
    """The share of the best V that each may lack."""
    columns: dict[str, Any]
    """Arrays of equal length by name: every design variable, and

    value_share (V / the best V), worst_efficiency (of the objective law that finds the design worth least, beside its
    own best under the same limits), train_flops [FLOPs], memory_bytes (served, on the fullest device), gpu_hours (as
    predicted; without GPUs on the machine that the plan's are told on, infinite where it cannot train a design) and,
    with GPUs, days and tokens_per_second (of all GPUs).
    """

    def __len__(self) -> int:
        return len(self.columns["value_share"])

    def to_frame(self) -> Any:
        """They as a pandas data frame; raises `UsageError` without pandas."""
        return frame(self.columns)

    def to_csv(self) -> str:
        """They as the text of a CSV file."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        for row in zip(*(column.tolist() for column in self.columns.values()), strict=True):
            writer.writerow([f"{x:.10g}" if isinstance(x, float) else x for x in row])
        return file.getvalue()

    def write(self, path: str | Path) -> None:
        """Write them to a .csv or .parquet file."""
        content = self.to_parquet() if Path(check_suffix(str(path))).suffix == ".parquet" else self.to_csv().encode()
        with atomic_write(path) as file:
            file.flush()
            file.buffer.write(content)  # the bytes below the text

    def to_parquet(self) -> bytes:
        """They as the bytes of a Parquet file; raises `UsageError` without pyarrow."""
        check_suffix("all.parquet")
        import pyarrow
        from pyarrow import parquet

        file = io.BytesIO()
        parquet.write_table(pyarrow.table(self.columns), file)
        return file.getvalue()


def check_suffix(path: str) -> str:
    """Return `path` if candidates can be written there; raises `UsageError` for another suffix, or without pyarrow."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"--candidates {path!r} must end in {' or '.join(SUFFIXES)}")
    if suffix == ".parquet":
        from importlib.util import find_spec

        if find_spec("pyarrow") is None:
            raise UsageError("Parquet needs pyarrow, which is not installed; run: pip install 'moeplan[parquet]'")
    return path


def check_within(within: float) -> None:
    """Raise `UsageError` for a share of V that cannot be."""
    if isinstance(within, bool) or not isinstance(within, (int, float)) or not 0 <= within < 1:
        raise UsageError(f"within {within!r} must be a share of V, at least 0 and below 1, for example 0.05")


def candidates(
    plan: Plan, within: float = WITHIN, *, threads: int = 1, progress: Callable[[str], None] | None = None
) -> Candidates:
    """Every design of a plan's search that lacks at most `within` of the best V; searches again.

    Of designs for GPUs these are the ones that some layout trains. Raises `UsageError` for a share that is not at least
    0 and below 1.
    """
    laws = select_laws(laws_again(plan.request.laws, plan.request.weights, ()))
    budget = make_budget(request_fields(plan.request))
    return candidates_of(search(budget, laws, threads=threads, say=progress or (lambda _: None)), within)


def candidates_of(choice: Choice, within: float = WITHIN) -> Candidates:
    """`candidates` of a search that was made."""
    check_within(within)
    choice.settle_within(within)
    space, scores, ln_value = choice.space, choice.scores, choice.scores.mean(choice.laws)
    best = float(ln_value.max())
    near = np.flatnonzero(ln_value >= best + math.log1p(-within))
    whole = {field.name for field in dataclasses.fields(Design) if field.type == "int"}
    columns = {
        name: space.values(name, near, scores).astype(np.int64 if name in whole else float) for name in DESIGN_VARIABLES
    }
    columns["value_share"] = np.exp(ln_value[near] - best)
    columns["worst_efficiency"] = np.exp(ln_efficiencies(choice, scores)[:, near].min(axis=0))
    columns["train_flops"] = scores.train_flops[near]
    columns["memory_bytes"] = space.memory[near]
    columns |= _time(choice, near)
    order = np.argsort(-columns["value_share"], kind="stable")
    return Candidates(within, {name: values[order] for name, values in columns.items()})


def _time(choice: Choice, near: Any) -> dict[str, Any]:
    """Device-hours of training, pauses included; on GPUs also days and speed."""
    budget, tokens, flops = choice.budget, choice.scores.tokens[near], choice.space.flops_per_token[near]
    goodput = 1.0 if budget.mfu else budget.goodput
    if choice.clock is not None and budget.gpus is not None:
        count, device = budget.gpus.count, budget.gpus.device
        speed = choice.clock.speeds.tokens_per_second[near]
    elif budget.mfu:
        count, device = 1, budget.hours_device if budget.pays_hours else load_device(DEFAULT_DEVICE)
        speed = flops
    else:
        trainer = machine_of(choice.architecture, budget)
        count, device = trainer.gpus.count, trainer.gpus.device
        speed = np.concatenate([trainer.fastest(row).tokens_per_second for row in joined(choice.space.taken(near))])
    if budget.mfu:  # of all designs, and which counts all days
        speed = count * device.bf16_flops * budget.mfu / flops
    with np.errstate(divide="ignore"):
        days = tokens / speed / goodput / 86400
    hours = {"gpu_hours": days * 24 * count}
    return hours | {"days": days, "tokens_per_second": speed} if budget.gpus is not None else hours
