"""From losses of finished runs to the measured leverage of each MoE budget, with an interval.

EL(C) = C_dense(L) / C, where L is the least loss of the MoE sizes at budget C and C_dense(L) the compute at which the
dense envelope has that loss. The envelope is the least loss over the sizes of each dense budget, made non-increasing
(pool adjacent violators), joined by straight lines in ln C and ln L. Nothing is read further than `REACH` outside the
dense budgets: beyond that the leverage is a bound.

Interval (`LEVEL`): the wider, at either end, of

* a bootstrap over seeds and validation documents. Both are paired across arms: one draw of documents and of the
  seeds' common part (the same text in the same order) holds for every run. What is a run's own is drawn from the
  deviations of all runs, each in units of its rung's noise (`moeplan.verification.noise`: two seeds alone are no
  distribution, and noise falls with tokens), and the whole is stretched by Student's t over the normal quantile for
  the degrees of freedom by which the noise that matters is known;
* the spread between estimators: the envelope as above; one straight line through it (a power law); and with
  `IRREDUCIBLE_FROM` or more budgets a power law with an irreducible loss.

Compute is counted as the leverage law counts it. Losses of one study are compared with each other only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from moeplan.quantities import SHARE, TIMES
from moeplan.verification.groups import Array, Group, degrees_of_freedom
from moeplan.verification.noise import Noise, noise_of

LEVEL = 0.9
"""Probability that the interval is meant to cover, as that of the prediction."""
REACH = 1.5
"""How far outside the dense budgets a loss is still read [factor in compute]."""
IRREDUCIBLE_FROM = 6
"""Dense budgets from which an irreducible loss is fitted: three unknowns want twice as many points."""
REPLICATES = 1000
"""Draws of the bootstrap."""


@dataclass(frozen=True)
class MeasuredLeverage:
    """The leverage measured at one budget."""

    train_flops: float
    """C of the MoE [FLOPs, as the leverage law counts]."""
    loss: float
    """Its loss [nats/token]."""
    rung: str
    """Its best size."""
    efficiency_leverage: float
    """EL = C_dense / C at equal loss; the bound itself where the dense runs do not bracket the loss."""
    low: Annotated[float, TIMES]
    """Lower end of the interval."""
    high: Annotated[float, TIMES]
    """Upper end of the interval."""
    level: Annotated[float, SHARE]
    """Probability that the interval is meant to cover."""
    bound: Literal["", "at least", "at most"]
    """Whether the leverage is only known to lie beyond: the dense runs do not reach the MoE's loss; "" if they do."""
    bootstrap_low: Annotated[float, TIMES]
    """Lower end by the bootstrap alone."""
    bootstrap_high: Annotated[float, TIMES]
    """Upper end by the bootstrap alone."""
    by_estimator: Annotated[dict[str, float], TIMES]
    """The leverage by each estimator."""
    wall_clock: Annotated[float | None, TIMES]
    """Time of the dense model of equal loss / time of the MoE, on the machine of the runs; null for a bound."""
    seeds: int
    """Seeds of the MoE's best size."""
    degrees_of_freedom: int
    """Runs less means in both arms: what the spread between seeds is known by; 0 with one seed, when it is not."""


# One arm's losses as arrays: the same steps for the data and for all replicates at once ---------------------------


@dataclass(frozen=True)
class Envelope:
    """Least loss over the sizes of each budget, for one or many replicates."""

    log_flops: Array
    """ln C of the best size (replicates, budgets)."""
    log_losses: Array
    """ln of its loss (replicates, budgets)."""
    best: NDArray[np.int64]
    """Which group is best (replicates, budgets)."""


def envelope(groups: Sequence[Group], log_losses: Array) -> Envelope:
    """The envelope of `groups`, whose losses (replicates, groups) are given as ln."""
    flops = np.log([group.train_flops for group in groups])
    budgets = list(dict.fromkeys(group.budget for group in groups))
    places = [np.array([i for i, g in enumerate(groups) if g.budget == b]) for b in budgets]
    best = np.stack([at[np.argmin(log_losses[:, at], axis=1)] for at in places], axis=1)
    return Envelope(flops[best], np.take_along_axis(log_losses, best, axis=1), best)


def falling(values: Array) -> Array:
    """The nearest non-increasing sequence in least squares (pool adjacent violators), for each row."""
    rows = np.array(values, dtype=float)
    for place in np.flatnonzero((np.diff(rows, axis=1) > 0).any(axis=1)):
        blocks: list[tuple[float, int]] = []
        for value in rows[place]:
            blocks.append((float(value), 1))
            while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
                (a, n), (b, m) = blocks[-2:]
                blocks[-2:] = [((a * n + b * m) / (n + m), n + m)]
        rows[place] = [value for value, count in blocks for _ in range(count)]
    return rows


def invert(log_flops: Array, log_losses: Array, wanted: Array) -> Array:
    """ln C at which each row's envelope has the ln loss `wanted` (rows,); not clipped, for rows of two or more budgets.

    Outside the budgets the straight line through all of them continues from the nearest end; on a flat stretch the
    middle is taken.
    """
    y = falling(log_losses)
    slope = np.minimum(_slope(log_flops, log_losses), -1e-3)
    rows, last = np.arange(len(y)), y.shape[1] - 1
    right = np.clip(np.argmax(y <= wanted[:, None], axis=1), 1, last)
    left_y, right_y = y[rows, right - 1], y[rows, right]
    drop = left_y - right_y
    share = np.where(drop > 0, (left_y - wanted) / np.where(drop > 0, drop, 1.0), 0.5)
    left_x, right_x = log_flops[rows, right - 1], log_flops[rows, right]
    inside = left_x + (right_x - left_x) * share
    below = log_flops[:, 0] + (wanted - y[:, 0]) / slope
    above = log_flops[:, -1] + (wanted - y[:, -1]) / slope
    return np.where(wanted > y[:, 0], below, np.where(wanted < y[:, -1], above, inside))


def _slope(x: Array, y: Array) -> Array:
    dx = x - x.mean(axis=1, keepdims=True)
    return np.asarray((dx * (y - y.mean(axis=1, keepdims=True))).sum(axis=1) / (dx**2).sum(axis=1))


def straight(log_flops: Array, log_losses: Array, wanted: Array) -> Array:
    """ln C by one straight line through the envelope: L = a * C^-b."""
    slope = np.minimum(_slope(log_flops, log_losses), -1e-3)
    return np.asarray(log_flops.mean(axis=1) + (wanted - log_losses.mean(axis=1)) / slope)


def curved(log_flops: Array, log_losses: Array, wanted: Array) -> Array:
    """ln C by L = E + a * C^-b, E the irreducible loss, fitted by least squares in ln L over a scan of E."""
    result = np.empty(len(log_flops))
    for row in range(len(log_flops)):
        x, losses, target = log_flops[row], np.exp(log_losses[row]), math.exp(wanted[row])
        best = (math.inf, math.nan)
        for irreducible in np.linspace(0.0, 0.98, 50) * min(float(losses.min()), target):
            y = np.log(losses - irreducible)
            slope = min(float(_slope(x[None], y[None])[0]), -1e-3)
            fitted = irreducible + np.exp(y.mean() + slope * (x - x.mean()))
            error = float(np.sum((np.log(fitted) - log_losses[row]) ** 2))
            if error < best[0]:
                best = error, x.mean() + (math.log(target - irreducible) - y.mean()) / slope
        result[row] = best[1]
    return result


ESTIMATORS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "envelope": invert,
    "power_law": straight,
    "irreducible_loss": curved,
}
"""ln C of the dense envelope at a loss, by name; the first is the one reported."""


# The bootstrap ------------------------------------------------------------------------------------------------------


def replicates(
    arms: Sequence[Sequence[Group]], noise: Noise, rng: np.random.Generator, count: int = REPLICATES
) -> list[Array]:
    """ln losses (count, groups) of each arm under drawn documents and seeds, paired across arms."""
    first = arms[0][0]
    documents = len(first.document_tokens)
    weights = rng.multinomial(documents, np.full(documents, 1 / documents), size=count).astype(float)
    tokens = weights @ first.document_tokens
    shared = np.array(list(noise.shared.values()))
    common = shared[rng.integers(len(shared), size=(count, len(shared)))].mean(axis=1)
    drawn = []
    for groups, scales in zip(arms, noise.scales, strict=True):
        columns = []
        for group, scale in zip(groups, scales, strict=True):
            mean = np.log((weights @ group.documents.T) / tokens[:, None]).mean(axis=1)
            own = rng.choice(noise.pool, size=(count, len(group.seeds))).mean(axis=1) * scale
            columns.append(mean + common + own)
        drawn.append(np.stack(columns, axis=1))
    return drawn


# The leverage ---------------------------------------------------------------------------------------------------


def measure(moe: Sequence[Group], dense: Sequence[Group], *, rng_seed: int = 0) -> tuple[MeasuredLeverage, ...]:
    """The leverage at every budget of `moe` against `dense`, which must have two or more budgets; () otherwise."""
    if not moe or len({group.budget for group in dense}) < 2:
        return ()
    rng = np.random.default_rng(rng_seed)
    noise = noise_of((moe, dense))
    drawn_moe, drawn_dense = replicates((moe, dense), noise, rng)
    observed = [np.log([np.mean(group.losses) for group in groups])[None, :] for groups in (moe, dense)]
    points, cloud = (
        _log_leverages(moe, dense, *losses) for losses in ((observed[0], observed[1]), (drawn_moe, drawn_dense))
    )
    ours, theirs = envelope(moe, observed[0]), envelope(dense, observed[1])
    pulls = _pulls(moe, dense, observed, noise)
    freedom = degrees_of_freedom(moe) + degrees_of_freedom(dense)
    found = []
    for place in range(ours.best.shape[1]):
        best = moe[ours.best[0, place]]
        log_c = math.log(best.train_flops)
        # how far a leverage can be read at this budget
        least = float(theirs.log_flops[0, 0]) - math.log(REACH) - log_c
        most = float(theirs.log_flops[0, -1]) + math.log(REACH) - log_c
        names = list(ESTIMATORS)[: 3 if theirs.best.shape[1] >= IRREDUCIBLE_FROM else 2]
        by_name = {name: float(points(name)[0, place]) for name in names}
        value = by_name["envelope"]
        sample = np.clip(cloud("envelope")[:, place], least, most)
        edges = np.quantile(sample, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
        middle, factor = float(np.clip(value, least, most)), noise.student_factor(pulls[:, place], LEVEL)
        low, high = (float(np.clip(middle + (edge - middle) * factor, least, most)) for edge in edges)
        spread = [float(np.clip(x, least, most)) for x in by_name.values()]
        bound: Literal["", "at least", "at most"] = "at most" if value < least else "at least" if value > most else ""
        found.append(
            MeasuredLeverage(
                train_flops=best.train_flops,
                loss=float(np.mean(best.losses)),
                rung=best.rung,
                efficiency_leverage=math.exp(middle),
                low=math.exp(min(low, *spread)),
                high=math.exp(max(high, *spread)),
                level=LEVEL,
                bound=bound,
                bootstrap_low=math.exp(low),
                bootstrap_high=math.exp(high),
                by_estimator={name: math.exp(min(max(x, least), most)) for name, x in by_name.items()},
                wall_clock=None if bound else _wall_clock(best, dense, theirs, value),
                seeds=len(best.seeds),
                degrees_of_freedom=freedom,
            )
        )
    return tuple(found)


def _log_leverages(
    moe: Sequence[Group], dense: Sequence[Group], moe_losses: Array, dense_losses: Array
) -> Callable[[str], Array]:
    """ln EL (replicates, MoE budgets) by any estimator."""
    ours, theirs = envelope(moe, moe_losses), envelope(dense, dense_losses)

    def by(name: str) -> Array:
        columns = [
            ESTIMATORS[name](theirs.log_flops, theirs.log_losses, ours.log_losses[:, place])
            for place in range(ours.best.shape[1])
        ]
        return np.stack(columns, axis=1) - ours.log_flops

    return by


def _pulls(moe: Sequence[Group], dense: Sequence[Group], observed: Sequence[Array], noise: Noise) -> Array:
    """Variance of ln EL by the envelope that the noise of each group brings (groups of both arms, MoE budgets).

    Each group alone is moved up and down by its noise.
    """
    count = len(moe) + len(dense)
    moves = np.diag(_of_means((moe, dense), noise))
    ends = []
    for sign in (1.0, -1.0):
        moved = [np.repeat(losses, count, axis=0) for losses in observed]
        moved[0] += sign * moves[:, : len(moe)]
        moved[1] += sign * moves[:, len(moe) :]
        ends.append(_log_leverages(moe, dense, *moved)("envelope"))
    return np.asarray(((ends[0] - ends[1]) / 2) ** 2)


def _of_means(arms: Sequence[Sequence[Group]], noise: Noise) -> Array:
    """The noise of each group's mean ln loss, arm after arm."""
    return np.concatenate(noise.scales) / np.sqrt([len(group.seeds) for groups in arms for group in groups])


def _wall_clock(best: Group, dense: Sequence[Group], theirs: Envelope, log_leverage: float) -> float | None:
    """Time of the dense model of equal loss / time of the MoE, ln time of the dense envelope being read at EL*C."""
    log_seconds = np.log([dense[i].seconds for i in theirs.best[0]])
    if not np.all(np.isfinite(log_seconds)) or best.seconds <= 0:
        return None
    target = math.log(best.train_flops) + log_leverage
    x = theirs.log_flops[0]
    slope = float(_slope(x[None], log_seconds[None])[0])
    inside = float(np.clip(target, x[0], x[-1]))
    return math.exp(float(np.interp(inside, x, log_seconds)) + slope * (target - inside)) / best.seconds


def frontier(groups: Sequence[Group]) -> tuple[Group, ...]:
    """The best size of every budget, as the envelope has them."""
    if not groups:
        return ()
    best = envelope(groups, np.log([np.mean(group.losses) for group in groups])[None, :]).best[0]
    return tuple(groups[i] for i in best)


def loss_difference(first: Sequence[Group], second: Sequence[Group], rng_seed: int = 0) -> tuple[float, float, float]:
    """Mean of ln loss of `first` over `second` for the same rungs, with its interval, by the same bootstrap."""
    rng = np.random.default_rng(rng_seed)
    noise = noise_of((first, second))
    drawn = replicates((first, second), noise, rng)
    factor = noise.student_factor(_of_means((first, second), noise) ** 2, LEVEL)
    difference = (drawn[0] - drawn[1]).mean(axis=1)
    observed = float(
        np.mean([math.log(np.mean(a.losses) / np.mean(b.losses)) for a, b in zip(first, second, strict=True)])
    )
    low, high = np.quantile(difference, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return observed, observed + (float(low) - observed) * factor, observed + (float(high) - observed) * factor
