"""li2025's strict comparison: a MoE and a dense model of the same size, compute and unique data.

The MoE passes fewer params a token, so for the same compute it needs more tokens than the dense model, and where both
have the same unique data it repeats them. Which of the two wins is read from the paper's measured points, interpolated
on a straight line between neighbouring active rates; beyond the rates measured nothing is said.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from moeplan.architecture.counting import attention_score_flops
from moeplan.laws import Law, PaperTable, load_law
from moeplan.laws.checks import minimize_on
from moeplan.quantities import SHARE
from moeplan.studies.comparison.candidate import Candidate
from moeplan.units import parse_count

STUDIES = ("2b", "7b")
"""The sizes that li2025 tabulates, as its tables are named; params without vocabulary."""
REUSE = "reuse-7b"
"""The table of repeated data."""
ASPECT_RATIO = 88.0
"""li2025's best d_model/num_layers, which fixes the attention of its models here."""
STUDY_SEQ_LEN = 4096
"""Sequence length assumed for its models [tokens]; its tables do not state it."""


@dataclass(frozen=True)
class MeasuredRate:
    """One measured MoE of li2025."""

    active_rate: Annotated[float, SHARE]
    """N_a/N, without vocabulary."""
    bits_per_char: float
    """Its loss [bits per character]."""
    beats_dense: bool
    """Whether a dense model of the same size and compute is worse."""


@dataclass(frozen=True)
class StrictStudy:
    """MoE against dense at equal size and compute, as li2025 measured it at one size."""

    name: str
    """Its name: 2B or 7B."""
    total_params: float
    """N [params], without vocabulary."""
    train_flops: float
    """C [FLOPs] of each model."""
    dense_bits_per_char: float
    """Loss of the dense model of the same size and compute [bits per character]."""
    points: tuple[MeasuredRate, ...]
    """The MoEs measured."""
    best_active_rate: Annotated[float, SHARE]
    """The best of the measured rates."""
    region_low: Annotated[float | None, SHARE]
    """Rate from which the MoE beats the dense model, interpolated; null if every lower rate measured does too."""
    region_high: Annotated[float | None, SHARE]
    """Rate up to which it does, interpolated; null if every higher rate measured does too."""
    zhao2025_low: Annotated[float, SHARE]
    """Best rate by zhao2025 at this N and C = 6*N_a*D."""
    zhao2025_high: Annotated[float, SHARE]
    """The same with the attention that li2025 counts."""


@dataclass(frozen=True)
class EqualResources:
    """li2025's strict comparison: the same size, compute and unique data, so that the MoE repeats data."""

    study: StrictStudy
    """The study whose table is used: the one nearest in size."""
    studies: tuple[StrictStudy, ...]
    """Every study."""
    total_params: int
    """N of the MoE [params], without vocabulary."""
    train_flops: float
    """C of the MoE as li2025 counts: (6*N_a + 12*d_model*seq_len*layers)*D, without vocabulary [FLOPs]."""
    active_rate: Annotated[float, SHARE]
    """N_a/N of the MoE, without vocabulary."""
    bits_per_char: float | None
    """Loss at that rate in the study, interpolated [bits per character]; null outside the rates measured."""
    verdict: str
    """moe, dense or not_measured: which one wins at that rate in the study."""
    zhao2025_low: Annotated[float, SHARE]
    """Best rate by zhao2025 at the MoE's own N and C = 6*N_a*D."""
    zhao2025_high: Annotated[float, SHARE]
    """The same with the attention that li2025 counts."""
    unique_tokens: float
    """Unique data that both have [tokens]."""
    unique_basis: str
    """Where that number is from."""
    epochs: float
    """tokens / unique_tokens of the MoE."""
    dense_epochs: float
    """The same of the dense model."""
    reuse: dict[str, float]
    """Loss by epochs as li2025 measured it at 7B [bits per character]."""
    reuse_bits_per_char: float | None
    """The same at the MoE's epochs, interpolated; null beyond what was measured."""
    worth_share: Annotated[float, SHARE]
    """Share of the MoE's tokens that counts by muennighoff2023: D'/D at these epochs, fitted on dense models."""
    dense_worth_share: Annotated[float, SHARE]
    """The same of the dense model."""


def equal_resources(
    moe: Candidate, dense: Candidate, seq_len: int, unique_tokens: float | None, law: Law | None = None
) -> EqualResources:
    """The strict comparison of a MoE with the dense model of its size and compute.

    `unique_tokens` None takes the tokens of the dense model: it sees each once.
    """
    law = law or load_law("li2025")
    found = studies(law)
    shape = moe.architecture
    total, active = shape.total_params("non_embedding"), shape.active_params("non_embedding")
    rate = active / total
    study = min(found, key=lambda study: abs(math.log(study.total_params / total)))
    scores = float(attention_score_flops(shape, seq_len))
    train_flops = (6.0 * active + scores) * moe.tokens
    unique = float(unique_tokens or dense.tokens)
    reuse = table(law, REUSE)
    epochs = moe.tokens / unique
    low, high = zhao2025_rates(float(total), train_flops, scores)
    return EqualResources(
        study=study,
        studies=found,
        total_params=total,
        train_flops=train_flops,
        active_rate=rate,
        bits_per_char=bits_at(study, rate),
        verdict=verdict(study, rate),
        zhao2025_low=low,
        zhao2025_high=high,
        unique_tokens=unique,
        unique_basis="as given" if unique_tokens else "what the dense model sees once",
        epochs=epochs,
        dense_epochs=dense.tokens / unique,
        reuse={f"{row[0]:g}": row[1] for row in reuse.rows},
        reuse_bits_per_char=interpolated(reuse.rows, epochs),
        worth_share=worth_share(moe.tokens, unique),
        dense_worth_share=worth_share(dense.tokens, unique),
    )


def studies(law: Law) -> tuple[StrictStudy, ...]:
    """Every size that li2025 tabulates, with the rates at which the MoE beats the dense model of equal compute."""
    found = []
    for name in STUDIES:
        moes, dense = table(law, f"moe-{name}"), table(law, f"dense-{name}")
        train_flops, bits = dense.rows[0]  # the dense model of the MoEs' own compute stands first
        points = sorted(moes.rows)
        best = min(points, key=lambda point: point[1])[0]
        total = parse_count(name)
        # Dense core of the active params at the best rate: 12*L*d^2 with d = ASPECT_RATIO*L.
        d_model = (best * total * ASPECT_RATIO / 12) ** (1 / 3)
        low, high = zhao2025_rates(total, train_flops, 12 * d_model * STUDY_SEQ_LEN * d_model / ASPECT_RATIO)
        found.append(
            StrictStudy(
                name=name.upper(),
                total_params=total,
                train_flops=train_flops,
                dense_bits_per_char=bits,
                points=tuple(MeasuredRate(rate, loss, loss < bits) for rate, loss in points),
                best_active_rate=best,
                region_low=_crossing([p for p in reversed(points) if p[0] <= best], bits),
                region_high=_crossing([p for p in points if p[0] >= best], bits),
                zhao2025_low=low,
                zhao2025_high=high,
            )
        )
    return tuple(found)


def table(law: Law, name: str) -> PaperTable:
    """A table of a law by name."""
    return next(found for found in law.tables if found.name == name)


def _crossing(points: Sequence[tuple[float, ...]], bits: float) -> float | None:
    """Where the loss first rises above `bits` on a straight line between neighbours; None if it does nowhere."""
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if y0 < bits <= y1:
            return x0 + (bits - y0) / (y1 - y0) * (x1 - x0)
    return None


def interpolated(points: Sequence[tuple[float, ...]], x: float) -> float | None:
    """The value at `x` on straight lines through `points`; None outside them."""
    for (x0, y0), (x1, y1) in itertools.pairwise(sorted(points)):
        if x0 <= x <= x1:
            return y0 + (x - x0) / (x1 - x0) * (y1 - y0)
    return None


def bits_at(study: StrictStudy, rate: float) -> float | None:
    """Loss of a study's MoE at an active rate [bits per character]; None outside the rates measured."""
    return interpolated([(p.active_rate, p.bits_per_char) for p in study.points], rate)


def verdict(study: StrictStudy, rate: float) -> str:
    """Which of the two wins at an active rate in a study: moe, dense or not_measured."""
    bits = bits_at(study, rate)
    if bits is None:
        return "not_measured"
    return "moe" if bits < study.dense_bits_per_char else "dense"


def zhao2025_rates(total_params: float, train_flops: float, attention_flops: float) -> tuple[float, float]:
    """zhao2025's best N_a/N at fixed N and C, lower and higher: with C = 6*N_a*D, and with attention as li2025 counts.

    D = C/(6*N_a + attention_flops per token); active experts and shared ratio are free, so at the law's own best.
    """
    fit = load_law("zhao2025").predicting("loss")
    c = fit.coefficients
    # The routing factor e*G + f/G + m*S^2 + n*S has its minimum where its derivatives vanish.
    best_g, best_s = math.sqrt(c["f"] / c["e"]), -c["n"] / (2 * c["m"])

    def best(scores: float) -> float:
        def loss(rate: float) -> float:
            active = rate * total_params
            values = {
                "total_params": total_params,
                "active_params": active,
                "tokens": train_flops / (6 * active + scores),
                "G": best_g,
                "shared_ratio": best_s,
            }
            return fit(*(values[name] for name in fit.variables))  # type: ignore[no-any-return]

        return minimize_on(loss, 0.001, 1.0)

    rates = sorted((best(0.0), best(attention_flops)))
    return rates[0], rates[1]


def worth_share(tokens: float, unique_tokens: float) -> float:
    """D'/D by muennighoff2023: what share of repeated tokens counts."""
    return float(load_law("muennighoff2023").predicting("effective_tokens")(tokens, unique_tokens)) / tokens
