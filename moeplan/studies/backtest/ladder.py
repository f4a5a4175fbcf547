"""Laws on a ladder of dense models beside a ladder of MoEs: leverage where a dense model of equal loss was not trained.

The dense compute of a MoE's loss is interpolated between two dense rungs and scored. A loss below that of the best
dense model has only a range, over the irreducible level of the power law that is extrapolated to it. A loss law
predicts the compute at which its own loss of the dense ladder, sizes and tokens interpolated, is that of the MoE.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moeplan.architecture.conventions import Variables
from moeplan.errors import LawError
from moeplan.laws import Fit, Law
from moeplan.laws.dense import dense_loss, dense_size
from moeplan.laws.law import Outside
from moeplan.studies.backtest.compute import extrapolated_compute, interpolated_compute
from moeplan.studies.backtest.equivalences import publication
from moeplan.studies.backtest.evidence import SEQ_LEN, ModelLadder, TrainedModel, ladders

_LEVELS = 5
"""Irreducible levels at which a ratio is computed, the ends of the ladder's range among them."""


@dataclass(frozen=True)
class RungPrediction:
    """One law's prediction of one rung."""

    law: str
    """The law."""
    claimed: float | None
    """The interpolated ratio in this law's own FLOPs; null for a loss below those of the dense models."""
    predicted: float | None
    """The law's ratio; null where it cannot say."""
    ratio: float | None
    """predicted / claimed."""
    error: float | None
    """ln(predicted / claimed); null for what is not scored."""
    basis: str
    """How the law compares, or why it cannot."""
    outside: tuple[Outside, ...]
    """Where the MoE leaves the law's measured range."""
    has_domain: bool
    """Whether the law file gives a range."""
    decades: float
    """How far the equation's own variables lie outside, in factors of 10, summed."""


@dataclass(frozen=True)
class LadderRung:
    """A MoE between, or below, the dense models of its ladder."""

    name: str
    """Short name."""
    publication: str
    """The publication, which has one vote however many studies it brings."""
    moe: str
    """The MoE."""
    train_flops: float
    """Its training compute by the study's own count [FLOPs]."""
    tokens: float
    """Its training tokens."""
    loss: float
    """Its loss, measured [nats/token]."""
    between: tuple[str, ...]
    """The dense models that its loss lies between; empty if it is below the best one's."""
    measured: float | None
    """Dense compute of equal loss over its own, by the study's count; null if no dense model has so low a loss."""
    low: float
    """The lowest ratio over irreducible levels: its sensitivity to the correction."""
    high: float
    """The highest."""
    correction: str
    """How losses become the ratio."""
    scored: bool
    """Whether laws are scored on it."""
    mfu: float
    """Utilisation of the GPUs in its training."""
    dense_mfu: float
    """That of the dense model of the same width."""
    measured_in_time: float | None
    """The ratio in time on the same GPUs: times mfu / dense_mfu."""
    says: str
    """The quantities held equal, and the finding."""
    source: str
    """Where it is published."""
    confidence: str
    """How sure it is."""
    assumed: str
    """Differences of the shape here from the study's."""
    note: str
    """A caveat, in words."""
    predictions: tuple[RungPrediction, ...]
    """The laws' predictions."""


def ladder_rungs(laws: Sequence[Law]) -> tuple[LadderRung, ...]:
    """Every MoE of every ladder, with what `laws` (those that compare with dense models) say of it."""
    return tuple(_rung(ladder, number, laws) for ladder in ladders() for number in range(len(ladder.moe)))


def _rung(ladder: ModelLadder, number: int, laws: Sequence[Law]) -> LadderRung:
    moe, origin = ladder.moe[number], ladder.origin
    own = [_published(design) for design in ladder.dense]
    losses = [design.loss for design in ladder.dense]
    here = _published(moe)
    at = interpolated_compute(own, losses, moe.loss, ladder.irreducible)
    scored = math.isfinite(at)
    compute = interpolated_compute if scored else extrapolated_compute
    levels = np.linspace(*ladder.irreducible_range, _LEVELS)
    ratios = [compute(own, losses, moe.loss, float(level)) / here for level in levels]
    measured = at / here if scored else None
    dense_mfu = ladder.dense[number].mfu
    assert moe.mfu is not None
    assert dense_mfu is not None
    above = sum(loss > moe.loss for loss in losses)
    how = "interpolated between dense models" if scored else "extrapolated below the best dense model"
    return LadderRung(
        name=f"{origin.name}-{moe.title}",
        publication=publication(origin.source),
        moe=moe.title,
        train_flops=here,
        tokens=moe.tokens,
        loss=moe.loss,
        between=tuple(design.title for design in ladder.dense[above - 1 : above + 1]) if scored else (),
        measured=measured,
        low=min([*ratios, measured] if measured else ratios),
        high=max([*ratios, measured] if measured else ratios),
        correction=f"{how} as a power of L - {ladder.irreducible:g}; range over levels from "
        f"{ladder.irreducible_range[0]:g} to {ladder.irreducible_range[1]:g}",
        scored=scored,
        mfu=moe.mfu,
        dense_mfu=dense_mfu,
        measured_in_time=measured * moe.mfu / dense_mfu if measured else None,
        says=origin.says,
        source=origin.source,
        confidence=origin.confidence,
        assumed=origin.assumed,
        note=origin.note,
        predictions=tuple(_prediction(law, ladder, moe, scored) for law in laws),
    )


def _published(design: TrainedModel) -> float:
    assert design.train_flops is not None
    return design.train_flops


def _prediction(law: Law, ladder: ModelLadder, moe: TrainedModel, scored: bool) -> RungPrediction:
    fit = law.objective
    assert fit is not None
    variables = Variables(moe.architecture, SEQ_LEN)
    convention = fit.convention("train_flops")
    here = float(variables.get("train_flops", convention, moe.tokens))
    dense = [Variables(design.architecture, SEQ_LEN) for design in ladder.dense]
    flops = [
        float(v.get("train_flops", convention, design.tokens)) for v, design in zip(dense, ladder.dense, strict=True)
    ]
    claimed = None
    if scored:
        losses = [design.loss for design in ladder.dense]
        claimed = interpolated_compute(flops, losses, moe.loss, ladder.irreducible) / here
    predicted, basis = _saving(law, fit, variables, moe.tokens, dense, ladder, flops)
    predicted = predicted / here if predicted and fit.predicts != "efficiency_leverage" else predicted
    outside = fit.outside(variables, moe.tokens)
    ratio = predicted / claimed if predicted and claimed else None
    return RungPrediction(
        law=law.full_name,
        claimed=claimed,
        predicted=predicted,
        ratio=ratio,
        error=math.log(ratio) if ratio else None,
        basis=basis,
        outside=outside,
        has_domain=bool(fit.domain),
        decades=sum(o.decades for o in outside if o.variable in fit.variables),
    )


def _saving(
    law: Law,
    fit: Fit,
    moe: Variables,
    tokens: float,
    dense: Sequence[Variables],
    ladder: ModelLadder,
    flops: Sequence[float],
) -> tuple[float | None, str]:
    """EL by a leverage law; by a loss law the compute [FLOPs] at which the dense ladder has its loss of the MoE."""
    loss = float(fit.at(moe, tokens))
    if fit.predicts == "efficiency_leverage":
        return loss, "EL at the MoE's compute, by its own formula"
    if "tokens" not in fit.variables:
        return None, "the two sides have different tokens, which it does not see"
    x = np.log(flops)
    try:
        sizes = np.log([dense_size(law, v) for v in dense])
    except LawError as error:
        return None, str(error)
    trained = np.log([design.tokens for design in ladder.dense])

    def gap(ln_flops: float) -> float:
        size, data = (math.exp(_line(ln_flops, x, y)) for y in (sizes, trained))
        return float(dense_loss(law, size, data)) - loss

    from scipy.optimize import brentq

    ends = (math.log(1e12), math.log(1e30))
    if gap(ends[0]) * gap(ends[1]) > 0:
        return None, "no dense model of the ladder, however large, has so low a loss"
    return math.exp(float(brentq(gap, *ends, xtol=1e-12))), "compute at which the dense ladder has its loss of the MoE"


def _line(at: float, x: np.ndarray, y: np.ndarray) -> float:
    """Piecewise linear through points, its first and last piece going on beyond them."""
    place = int(np.clip(np.searchsorted(x, at), 1, len(x) - 1))
    slope = (y[place] - y[place - 1]) / (x[place] - x[place - 1])
    return float(y[place - 1] + slope * (at - x[place - 1]))
