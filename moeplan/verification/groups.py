"""Finished runs by rung: `Group`, what a leverage is measured from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeplan.verification.spec import RunResult

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """The runs of one size at one budget, one a seed."""

    budget: str
    """Name of the budget, which sizes share."""
    train_flops: float
    """C [FLOPs]."""
    tokens: int
    """D of each run."""
    seeds: tuple[int, ...]
    """Seeds of the runs."""
    losses: tuple[float, ...]
    """Loss of each [nats/token]."""
    documents: Array
    """Summed loss of each document (seeds, documents) [nats]."""
    document_tokens: Array
    """Tokens of each document."""
    seconds: float
    """Training time of a run, averaged over seeds [s]."""
    rung: str = ""
    """Name of the rung."""


def group_runs(results: Iterable[RunResult], arm: str, control: str = "") -> list[Group]:
    """Finished measuring runs by rung, the cheapest first; diverged ones have no loss and are left out."""
    chosen = [r for r in results if (r.spec.arm, r.spec.control) == (arm, control) and r.spec.purpose == "measure"]
    by_rung: dict[str, list[RunResult]] = {}
    for result in sorted(chosen, key=lambda r: r.spec.seed):
        if result.status == "finished":
            by_rung.setdefault(result.spec.rung, []).append(result)
    groups = [
        Group(
            budget=rung.partition("/")[0],
            train_flops=float(np.mean([r.train_flops for r in runs])),
            tokens=runs[0].spec.tokens,
            seeds=tuple(r.spec.seed for r in runs),
            losses=tuple(r.loss for r in runs),
            documents=np.array([r.document_losses for r in runs], dtype=float),
            document_tokens=np.array(runs[0].document_tokens, dtype=float),
            seconds=float(np.mean([r.seconds for r in runs])),
            rung=rung,
        )
        for rung, runs in by_rung.items()
    ]
    return sorted(groups, key=lambda group: group.train_flops)


def degrees_of_freedom(groups: Sequence[Group]) -> int:
    """Runs less means."""
    return sum(len(group.seeds) - 1 for group in groups)
