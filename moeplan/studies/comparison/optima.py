"""Savings of each law's own best MoE over its own best dense model: continuous sizes, the law's own FLOPs.

    saving = 1 - C_moe/C

C_moe is the compute at which the MoE optimum reaches the loss of the optimal dense model at C. A law's MoE is its own
family of models (`moeplan.laws.families`), with what that family fixes: the expansion ratios or activation ratios that
were measured, and the best granularity. No memory limit holds here, and no exact architecture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from moeplan.laws import Fit, Law
from moeplan.laws.checks import compute_optimum
from moeplan.laws.dense import dense_compute, dense_fit
from moeplan.numerics.bisection import first_where
from moeplan.quantities import SHARE, TIMES
from moeplan.studies.comparison.answers import best_dense, leaves

GRANULARITIES = tuple(2.0**i for i in range(7))
"""Granularities that krajewski2024 chooses among in its table of compute-optimal models."""
TOP1_VOCABULARY = 50257.0
"""Rows of the embedding that the checks of abnar2025 assume; the paper fixes none."""
_STEPS = 30
"""Halvings of ln C_moe, to 1e-7."""
_SIZES = {"six_active_params": (1e5, 1e15), "krajewski_blocks": (64.0, 1e6), "top1_blocks": (64.0, 1e6)}
"""Range of each family's continuous size."""


@dataclass(frozen=True)
class Saving:
    """Saving of a law's own best MoE over its own best dense model, sizes continuous, in its own FLOPs."""

    law: str
    """The law, with the fit where it has several."""
    settings: dict[str, float]
    """Variables of the MoE that were fixed (expansion_ratio, activation_ratio) and chosen (granularity)."""
    saving: Annotated[float, SHARE]
    """1 - C_moe/C: C_moe is where the best MoE reaches the loss of the best dense model at C."""
    times: Annotated[float, TIMES]
    """C/C_moe."""
    leverage: Annotated[float | None, TIMES]
    """C_dense/C: C_dense is where the best dense model reaches the loss of the best MoE at C; null if it never does."""
    outside: tuple[str, ...]
    """Variables in which that MoE leaves the law's measured range."""


@dataclass(frozen=True)
class SavingsSpread:
    """The largest saving of each law, which is as far as laws can be set beside each other."""

    low_law: str
    """The law that saves least."""
    low: Annotated[float, TIMES]
    """Its C/C_moe."""
    low_leverage: Annotated[float | None, TIMES]
    """Its C_dense/C."""
    high_law: str
    """The law that saves most."""
    high: Annotated[float, TIMES]
    """Its C/C_moe."""
    high_leverage: Annotated[float | None, TIMES]
    """Its C_dense/C."""


def savings(law: Law, train_flops: float) -> tuple[Saving, ...]:
    """Savings of a law's best MoE at `train_flops`, for each ratio of total to active experts that it measured.

    Every fit of the law that describes MoEs speaks. Empty for a law whose MoEs have no continuous family; raises
    `LawError` for a law without a dense counterpart.
    """
    dense_fit(law)
    found = []
    for fit in law.fits.values():
        if fit.predicts == "loss" and (fit.dense or fit.dense_fit) and fit.family in _SIZES:
            found += [_saving(law, fit, fixed, choices, train_flops) for fixed, choices in _cases(fit)]
    return tuple(found)


def spread(found: Iterable[Saving]) -> SavingsSpread | None:
    """The largest saving of each law, lowest and highest; None for fewer than two laws."""
    best: dict[str, Saving] = {}
    for saving in found:
        law = saving.law.partition("/")[0]
        if law not in best or saving.times > best[law].times:
            best[law] = saving
    if len(best) < 2:
        return None
    (low_law, low), *_, (high_law, high) = sorted(best.items(), key=lambda item: item[1].times)
    return SavingsSpread(low_law, low.times, low.leverage, high_law, high.times, high.leverage)


def _cases(fit: Fit) -> list[tuple[dict[str, float], list[dict[str, float]]]]:
    """Variables fixed in MoEs of a fit's family, each with the choices left to it."""
    if fit.family == "krajewski_blocks" and "expansion_ratio" in fit.fixed:
        fixed = {"expansion_ratio": fit.fixed["expansion_ratio"]}
        return [(fixed, [{**fixed, "granularity": g} for g in GRANULARITIES])]
    if fit.family == "top1_blocks":
        low = fit.domain.get("activation_ratio", (1.0, 1.0))[0]
        ratios = [2.0**-i for i in range(1, 10) if 2.0**-i > low] + [low] * (low < 1)
        return [({"activation_ratio": a}, [{"activation_ratio": a, "vocab_size": TOP1_VOCABULARY}]) for a in ratios]
    if fit.family != "six_active_params":
        return []
    high = fit.domain.get("expansion_ratio", (1.0, 1.0))[1]
    ratios = [2.0**i for i in range(1, 10) if 2.0**i <= high]
    return [({"expansion_ratio": e}, [{"expansion_ratio": e}]) for e in ratios]


def _saving(law: Law, fit: Fit, fixed: dict[str, float], choices: list[dict[str, float]], train_flops: float) -> Saving:
    def best(flops: float) -> dict[str, float]:
        return compute_optimum(fit, flops, *_SIZES[fit.family], choices)

    _, _, loss = best_dense(law, train_flops)
    low, high = math.log(train_flops) - 20, math.log(train_flops) + 5
    flops = math.exp(first_where(lambda ln_flops: best(math.exp(ln_flops))["loss"] <= loss, low, high, _STEPS))
    at = best(flops)
    leverage = dense_compute(law, float(best(train_flops)["loss"])) / train_flops
    name = f"{law.name}/{fit.name}" if sum(x.predicts == "loss" for x in law.fits.values()) > 1 else law.name
    chosen = {"granularity": float(at["granularity"])} if len(choices) > 1 else {}
    values = {name: float(value) for name, value in at.items()} | {"train_flops": flops}
    return Saving(
        law=name,
        settings=fixed | chosen,
        saving=1 - flops / train_flops,
        times=train_flops / flops,
        leverage=leverage if math.isfinite(leverage) else None,
        outside=leaves(fit, values),
    )
