"""Layouts of a plan's training on its GPUs: the fastest, and the one of least memory."""

from __future__ import annotations

from moeplan.architecture.shape import Architecture
from moeplan.cost.training.layout import LayoutSpace, RankedLayout, least_training_bytes, search_layouts
from moeplan.cost.training.memory import TrainingSettings
from moeplan.errors import InfeasibleError
from moeplan.plan.budget import Budget
from moeplan.plan.document import LayoutOption

LISTED = 3
"""Layouts that a plan lists."""
_LEAST_SPACE = LayoutSpace(micro_batches=(1,), recompute=("full",))
"""The layouts that need least memory: smallest micro-batch, everything recomputed."""


def least_bytes(architecture: Architecture, budget: Budget, batch: int) -> float | None:
    """The least memory a GPU [bytes] by any layout on the budget's GPUs; None if no layout breaks no rule."""
    assert budget.gpus is not None
    least = least_training_bytes(architecture, budget.gpus.count, batch, _settings(budget), _LEAST_SPACE)
    return None if least is None else float(least[1].total)


def _settings(budget: Budget) -> TrainingSettings:
    return TrainingSettings(seq_len=budget.seq_len, optimizer=budget.optimizer)


def fastest_layouts(architecture: Architecture, budget: Budget, batch: int) -> tuple[tuple[LayoutOption, ...], str]:
    """The fastest layouts on the budget's GPUs, or why there is none."""
    assert budget.gpus is not None
    try:
        found = search_layouts(architecture, budget.gpus, batch, _settings(budget), headroom=budget.headroom)
    except InfeasibleError as error:
        return (), str(error)
    fastest = found.best.time.total
    return tuple(_option(ranked, fastest) for ranked in _distinct(found.ranked)), ""


def _distinct(ranked: tuple[RankedLayout, ...]) -> list[RankedLayout]:
    """The fastest layouts that differ in more than the micro-batch."""
    best: dict[tuple[object, ...], RankedLayout] = {}
    for candidate in ranked:
        layout = candidate.layout
        best.setdefault((layout.tp, layout.pp, layout.ep, layout.etp, layout.cp, layout.recompute), candidate)
        if len(best) == LISTED:
            break
    return list(best.values())


def _option(ranked: RankedLayout, fastest: float) -> LayoutOption:
    layout, total = ranked.layout, ranked.time.total
    return LayoutOption(
        tp=layout.tp,
        pp=layout.pp,
        ep=layout.ep,
        etp=layout.etp,
        cp=layout.cp,
        dp=layout.dp,
        micro_batch=layout.micro_batch,
        recompute=layout.recompute,
        bytes_per_gpu=float(ranked.bytes_per_gpu),
        bytes_by_group={name: float(size) for name, size in ranked.memory.heaviest.groups.items()},
        step_time=total / fastest,
        step_terms={name: seconds / total for name, seconds in ranked.time.terms().items()},
    )
