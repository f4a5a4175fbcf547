"""The laws on models side by side, each in compute: that of its own best dense model with the same loss.

A leverage law says C*EL*phi of a MoE and C*phi of a dense model; phi discounts a budget split off the law's
optimum, of the MoE's or of the dense allocation. A loss law says C_dense(L): the least 6*N*D at which its best dense
model, of continuous size, has the loss L that it gives the model. Every law counts in its own FLOPs, so that answers
are read as ratios inside one law; losses never meet.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from moeplan.architecture.conventions import Variables
from moeplan.errors import LawError
from moeplan.estimates import Estimate
from moeplan.laws import Fit, Law
from moeplan.laws.checks import minimize_on
from moeplan.laws.dense import dense_compute, dense_fit, dense_loss, dense_phi, dense_size
from moeplan.laws.law import Outside
from moeplan.laws.leverage import leverage_by
from moeplan.plan.budget import Budget
from moeplan.plan.uncertainty.drawn import DrawnLaw, draw, ends
from moeplan.quantities import FLOPS, TIMES
from moeplan.studies.comparison.candidate import Candidate

SMALLEST, LARGEST = 1e5, 1e15
"""Range of continuous dense sizes [params]."""


@dataclass(frozen=True)
class Answer:
    """One law's dense-equivalent compute of one model."""

    dense_compute: Annotated[float | None, FLOPS]
    """Compute of the law's own best dense model that is as good [FLOPs, as the law counts]; null if it cannot say."""
    ratio: Annotated[Estimate | None, TIMES]
    """Work: dense_compute / the compute of the comparison's first model, both as the law counts."""
    leverage: Annotated[float | None, TIMES]
    """EL: dense_compute / the model's own compute, for leverage laws before any discount; null for a dense model."""
    own_compute: Annotated[float | None, FLOPS]
    """C_l: the compute at which the law's best MoE without a memory limit is as good; null if it was not asked."""
    outside: tuple[Outside, ...]
    """Where the model leaves the law's measured range."""
    says: str
    """Why the law cannot say, if so."""

    @property
    def extrapolated(self) -> bool:
        """Whether the model lies outside the law's measured range."""
        return bool(self.outside)


@dataclass(frozen=True)
class LawColumn:
    """One law's answers, one for each model in order."""

    law: str
    """The law."""
    grade: str
    """How sure its digits are."""
    basis: str
    """How it compares, in words."""
    answers: tuple[Answer, ...]
    """One for each model."""
    draws: int = 0
    """Draws of a fitted law's coefficients behind its intervals; 0 for a law without."""


@dataclass(frozen=True)
class SilentLaw:
    """A law that says nothing about dense models."""

    law: str
    """The law."""
    reason: str
    """Why."""


@dataclass(frozen=True)
class EqualLoss:
    """One law's own best dense model that is as good as the MoE."""

    law: str
    """The law."""
    dense_compute: Annotated[float, FLOPS]
    """Its compute [FLOPs, as the law counts]."""
    total_params: float
    """Its size [params, as the law counts]."""
    tokens: float
    """Its training tokens."""
    ratio: Annotated[float, TIMES]
    """dense_compute / the MoE's compute, as the law counts."""
    extrapolated: bool
    """Whether the MoE, or that dense model, lies outside the law's measured range."""


def split_by_dense(laws: Sequence[Law]) -> tuple[list[Law], tuple[SilentLaw, ...]]:
    """The laws that compare with dense models, and the others with their reasons."""
    with_dense, silent = [], []
    for law in laws:
        try:
            dense_fit(law)
        except LawError as error:
            silent.append(SilentLaw(law.full_name, str(error)))
        else:
            with_dense.append(law)
    return with_dense, tuple(silent)


def law_column(law: Law, models: Sequence[Candidate], budget: Budget) -> LawColumn:
    """One law's answers about every model; raises `LawError` for a law without a dense counterpart."""
    fit = law.objective
    assert fit is not None
    dense_fit(law)
    seq_len = budget.seq_len
    of = [(Variables(model.architecture, seq_len), float(budget.worth(model.tokens))) for model in models]
    if fit.predicts != "efficiency_leverage" and "tokens" not in fit.variables:
        answers = [_by_size(law, model, *own) for model, own in zip(models, of, strict=True)]
        tokens = fit.fixed.get("tokens", 0)
        basis = f"dense size of equal loss / active size, both at {tokens / 1e9:.0f}B tokens; it sees no other tokens"
        return LawColumn(law.full_name, law.grade, basis, tuple(answers))
    # What the first model costs, whatever its tokens are worth.
    own = float(of[0][0].get("train_flops", fit.convention("train_flops"), float(models[0].tokens)))
    if fit.predicts == "efficiency_leverage":
        answers = [_by_leverage(law, fit, model, *values, own) for model, values in zip(models, of, strict=True)]
        basis = "compute times EL, discounted for a split of compute off the law's optimum"
    else:
        answers = [_by_loss(law, fit, model, *values, own) for model, values in zip(models, of, strict=True)]
        basis = "best dense model of equal loss, continuous sizes, C = 6*N*D"
        drawn = draw(law)
        if drawn is not None:
            found = zip(models, answers, of, strict=True)
            answers = [_between(drawn, model, own_answer, *values) for model, own_answer, values in found]
            return LawColumn(law.full_name, law.grade, basis, tuple(answers), drawn.count)
    return LawColumn(law.full_name, law.grade, basis, tuple(answers))


def _between(drawn: DrawnLaw, model: Candidate, own: Answer, v: Variables, tokens: float) -> Answer:
    """An answer of a loss law, with the interval of its ratio over the draws of the law's coefficients."""
    if own.ratio is None:
        return own
    law = drawn.law
    if model.is_dense:
        size = dense_size(law, v)
        losses, loss = drawn.dense_losses(size, tokens), float(dense_loss(law, size, tokens))
    else:
        losses, loss = drawn.predictions(v, tokens), float(law.require_objective().at(v, tokens))
    found = ends(own.ratio * drawn.dense_ratios(losses, loss))
    return dataclasses.replace(own, ratio=Estimate(own.ratio, *found)) if found else own


def _by_leverage(law: Law, fit: Fit, model: Candidate, v: Variables, tokens: float, first: float) -> Answer:
    own = float(v.get("train_flops", fit.convention("train_flops"), tokens))
    if model.is_dense:
        spoken = law.predicting("flops_per_token", "dense_flops_per_token")
        worth = own * dense_phi(law, spoken, v, own)
        return _answer(worth, first, spoken.outside(v, tokens))
    leverage = float(fit.at(v, tokens))
    phi = float(law.allocation.at(v, tokens)) if law.allocation else 1.0
    outside = fit.outside(v, tokens)
    width = None
    if fit.uncertainty is not None:
        width = fit.uncertainty.half_width(sum(o.decades for o in outside if o.variable in fit.variables))
    return _answer(own * phi * leverage, first, outside, leverage=leverage, width=width)


def _by_loss(law: Law, fit: Fit, model: Candidate, v: Variables, tokens: float, first: float) -> Answer:
    dense = dense_fit(law)
    own = float(v.get("train_flops", fit.convention("train_flops"), tokens))
    if model.is_dense:
        loss = float(dense_loss(law, dense_size(law, v), tokens))
        return _answer(dense_compute(law, loss), first, dense.outside(v, tokens))
    worth = dense_compute(law, float(fit.at(v, tokens)))
    return _answer(worth, first, fit.outside(v, tokens), leverage=worth / own)


def _by_size(law: Law, model: Candidate, v: Variables, tokens: float) -> Answer:
    if model.is_dense:
        return answer((), says="fitted at one number of tokens, so it can set no budgets beside each other")
    opinion = leverage_by(law, v, tokens)
    assert law.objective is not None
    known = opinion.efficiency_leverage if math.isfinite(opinion.efficiency_leverage) else None
    return answer(law.objective.outside(v, tokens), leverage=known)


def _answer(
    worth: float,
    first: float,
    outside: Sequence[Outside],
    *,
    leverage: float | None = None,
    width: float | None = None,
) -> Answer:
    """A model worth `worth` FLOPs of dense compute, within exp(+-width), beside the first model's own compute."""
    if not math.isfinite(worth):
        return answer(outside, says="no dense model of this law is as good, whatever its compute")
    ratio = worth / first
    ends = () if width is None else (ratio * math.exp(-width), ratio * math.exp(width))
    return answer(outside, dense_compute=worth, ratio=Estimate(ratio, *ends), leverage=leverage)


def answer(
    outside: Sequence[Outside],
    *,
    dense_compute: float | None = None,
    ratio: Estimate | None = None,
    leverage: float | None = None,
    own_compute: float | None = None,
    says: str = "",
) -> Answer:
    """An `Answer` of which most is not known."""
    return Answer(dense_compute, ratio, leverage, own_compute, tuple(outside), says)


def best_dense(law: Law, train_flops: float) -> tuple[float, float, float]:
    """(N [params], D [tokens], loss [nats]) of a loss law's best dense model at 6*N*D = `train_flops`."""
    size = minimize_on(lambda n: dense_loss(law, n, train_flops / (6 * n)), SMALLEST, LARGEST)
    tokens = train_flops / (6 * size)
    return size, tokens, float(dense_loss(law, size, tokens))


def equal_loss(law: Law, column: LawColumn, exact: Candidate, budget: Budget) -> EqualLoss | None:
    """A law's own best dense model that is as good as the first model; None where the law trades no tokens.

    Sizes are continuous, but for the leverage law, whose model is `exact`.
    """
    own, fit = column.answers[0], law.objective
    if own.dense_compute is None or own.ratio is None or fit is None:
        return None
    if fit.predicts == "efficiency_leverage":
        size = float(exact.architecture.total_params("non_embedding"))
        tokens = float(exact.tokens)
        v = Variables(exact.architecture, budget.seq_len)
        outside: Sequence[object] = law.predicting("flops_per_token", "dense_flops_per_token").outside(v, tokens)
    else:
        size, tokens, _ = best_dense(law, own.dense_compute)
        outside = leaves(dense_fit(law), {"total_params": size, "active_params": size, "tokens": tokens})
    return EqualLoss(
        law=law.full_name,
        dense_compute=own.dense_compute,
        total_params=size,
        tokens=tokens,
        ratio=own.ratio,
        extrapolated=bool(own.outside or outside),
    )


def leaves(fit: Fit, values: dict[str, float]) -> tuple[str, ...]:
    """The variables among `values` that lie outside the fit's measured range."""
    found = []
    for name, value in values.items():
        low, high = fit.domain.get(name, (-math.inf, math.inf))
        if not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
            found.append(name)
    return tuple(found)
