"""Ratios of the first model to the others, and the caveats of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from moeplan.architecture.conventions import Variables
from moeplan.laws import load_law
from moeplan.laws.leverage import Leverage
from moeplan.laws.roles import DENSE_ALLOCATION_LAWS, LEVERAGE_LAW
from moeplan.plan.budget import Budget
from moeplan.quantities import TIMES
from moeplan.studies.comparison.answers import LawColumn
from moeplan.studies.comparison.candidate import Candidate
from moeplan.units import format_count


@dataclass(frozen=True)
class Versus:
    """The first model against another, as ratios first / other."""

    other: str
    """The other model."""
    quality: Annotated[dict[str, float], TIMES]
    """Dense-equivalent compute, by each law that can say it of both."""
    quality_low: Annotated[float | None, TIMES]
    """The lowest of these by another law than the leverage law; null if none speaks."""
    quality_high: Annotated[float | None, TIMES]
    """The highest of these by another law than the leverage law."""
    own_compute: Annotated[dict[str, float], TIMES]
    """C_l, by each law that judged both; empty unless two models are compared."""
    train_flops: Annotated[float, TIMES]
    """Training compute."""
    gpu_hours: Annotated[float | None, TIMES]
    """GPU time of training."""
    tokens: Annotated[float, TIMES]
    """Training tokens."""
    state_bytes: Annotated[float, TIMES]
    """Weights, gradients and optimizer state in training."""
    serving_bytes: Annotated[float, TIMES]
    """Memory of serving."""
    kv_bytes_per_token: Annotated[float, TIMES]
    """KV cache of one token."""
    decode: Annotated[dict[str, float], TIMES]
    """Decode speed of one device, by batch; only batches that fit both."""


def versus(number: int, models: Sequence[Candidate], columns: Sequence[LawColumn]) -> Versus:
    """The first model against the one at `number`."""
    first, other = models[0], models[number]
    quality, own = {}, {}
    for column in columns:
        a, b = column.answers[0], column.answers[number]
        if a.dense_compute and b.dense_compute:
            quality[column.law] = a.dense_compute / b.dense_compute
        if a.own_compute and b.own_compute:
            own[column.law] = a.own_compute / b.own_compute
    others = [ratio for law, ratio in quality.items() if law != LEVERAGE_LAW]
    speeds = {speed.batch: speed for speed in other.decode}
    return Versus(
        other=other.name,
        quality=quality,
        quality_low=min(others, default=None),
        quality_high=max(others, default=None),
        own_compute=own,
        train_flops=first.train_flops / other.train_flops,
        gpu_hours=first.gpu_hours / other.gpu_hours if first.gpu_hours and other.gpu_hours else None,
        tokens=first.tokens / other.tokens,
        state_bytes=first.state_bytes / other.state_bytes,
        serving_bytes=first.serving_bytes / other.serving_bytes,
        kv_bytes_per_token=first.kv_bytes_per_token / other.kv_bytes_per_token,
        decode={
            str(speed.batch): speed.expected_tokens_per_second_per_gpu
            / speeds[speed.batch].expected_tokens_per_second_per_gpu
            for speed in first.decode
            if speed.batch in speeds and speed.fits and speeds[speed.batch].fits
        },
    )


def dense_notes(
    models: Sequence[Candidate], columns: Sequence[LawColumn], budget: Budget, leverage: Leverage, regime: str
) -> tuple[str, ...]:
    """Caveats of a comparison with dense models."""
    return (
        *_extrapolated(columns),
        *_discount(leverage),
        *_splits(models, budget),
        *_short(models),
        *_repeats(models, budget, regime),
    )


def _extrapolated(columns: Sequence[LawColumn]) -> Iterator[str]:
    outside = [column.law for column in columns if any(answer.outside for answer in column.answers)]
    if outside:
        yield f"Extrapolated: a model lies outside the measured range of {', '.join(outside)}."


def _discount(leverage: Leverage) -> Iterator[str]:
    phi = leverage.allocation_efficiency
    if phi < 0.995:
        yield (
            f"{LEVERAGE_LAW}'s EL of {leverage.efficiency_leverage:.3g} is at the best split of compute into size and "
            f"tokens; the memory limit forces another, which keeps {100 * phi:.3g} % of it (an inferred rule)."
        )


def _splits(models: Sequence[Candidate], budget: Budget) -> Iterator[str]:
    """How laws of dense models alone would split the compute of the best dense model."""
    best = next((model for model in models if model.role == "compute_optimal"), None)
    if best is None:
        return
    # One count of FLOPs for all, or the sizes would differ by convention: 6*N*D without embeddings.
    v = Variables(best.architecture, budget.seq_len)
    flops = float(v.get("train_flops", "six_non_embedding", best.tokens))
    texts = [f"{name} {format_count(size)} on {format_count(flops / (6 * size))}" for name, size in dense_sizes(flops)]
    if texts:
        yield (
            "Other laws split the same compute of a dense model otherwise, in non-embedding params and tokens: "
            f"{', '.join(texts)}; here {format_count(best.architecture.total_params('non_embedding'))} on "
            f"{format_count(best.tokens)}."
        )


def dense_sizes(train_flops: float) -> list[tuple[str, float]]:
    """The best dense size [params] at 6*N*D = `train_flops`, by each law of dense models alone."""
    from moeplan.laws.checks import compute_optimum

    sizes = []
    for name in DENSE_ALLOCATION_LAWS:
        law = load_law(name)
        fit = law.objective
        if fit is not None and fit.family == "six_total_params":
            sizes.append((name, float(compute_optimum(fit, train_flops, 1e5, 1e15, [{}])["total_params"])))
            continue
        tokens = next(
            (f for f in law.fits.values() if f.predicts == "tokens" and f.variables == ("train_flops",)), None
        )
        if tokens is not None:
            sizes.append((name, train_flops / (6 * float(tokens(train_flops)))))
    return sizes


def _short(models: Sequence[Candidate]) -> Iterator[str]:
    for model in models[1:]:
        share = model.train_flops / models[0].train_flops
        if model.role != "equal_loss" and share < 0.99:
            yield f"{model.name} uses {100 * share:.3g} % of the compute: its tokens meet the cap on tokens."


def _repeats(models: Sequence[Candidate], budget: Budget, regime: str) -> Iterator[str]:
    over = [f"{model.name} {model.epochs:.3g}" for model in models if model.epochs and model.epochs > 1]
    if over and regime != "resources":
        yield (
            f"Epochs over {format_count(budget.tokens_available)} unique tokens: {', '.join(over)}; repeats are "
            "discounted by muennighoff2023, which was fitted on dense models."
        )
    far = [model.name for model in models if model.epochs and model.epochs > budget.max_epochs * (1 + 1e-9)]
    if far:
        yield f"{', '.join(far)} would need more than the {budget.max_epochs:g} epochs that are allowed."
