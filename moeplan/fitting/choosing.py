"""Which runs shrink most the regret of a choice: numbers alone, from draws of what is not known.

Near each of B draws of P coefficients let ln loss be linear in small changes of them, with derivatives c_i (P,) for run
i, t_j (P,) for design j of those one of which will be chosen, and let F (P, P) be the information that there is already
(the inverse covariance of the coefficients). Runs S with noise of variance s^2 leave the covariance

    Sigma = (F + sum_{i in S} c_i c_i' / s^2)^-1.

With p_j the share of draws in which each design is the best, runs are chosen to minimise the mean over the draws of
sum_jk p_j p_k (t_j - t_k)' Sigma (t_j - t_k) / 2: the mean variance of the difference between two designs, each as
likely as it is to be the best, which is what makes a choice between them wrong. The criterion is linear in Sigma
(L-optimality), so the gain of every run is exact and found at once, and greedy choice with exchanges (Fedorov 1972,
Theory of Optimal Experiments) comes near its minimum. Its mean over draws makes the choice right on average for a
nonlinear law (Chaloner and Verdinelli 1995, Bayesian Experimental Design, section 4).

What the runs are then worth is said by simulation over the draws themselves, without derivatives: `regrets`, and
`left_by` with `around`.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from moeplan.numerics import Floats

EXCHANGES = 10
"""Most rounds in which every run may be exchanged for a better one."""
REPEATS = 20
"""Measurements simulated for each draw when the regret to expect is estimated."""

SHARES = (1.0, 0.5, 0.25)
"""Shares of the limited cost that no run is above, each tried in turn."""
_ROUNDING = 1e-12


def contrasts(designs: Floats, shares: Floats) -> Floats:
    """M = T (diag(p) - p p') T' for each draw, (B, P, P), from derivatives T (B, P, J) and shares p (J,)."""
    about = (designs - (designs @ shares)[:, :, None]) * np.sqrt(shares)
    return np.asarray(about @ about.swapaxes(1, 2))


def choose(
    wanted: Floats,
    measured: Floats,
    information: Floats,
    noise: float,
    count: int,
    costs: Floats | None = None,
    most: float = math.inf,
) -> list[int]:
    """`count` runs, the most valuable first; one run may be chosen several times.

    `wanted` (B, P, P) weighs what is to be known, `measured` (B, P, I) are the derivatives of ln loss of each run,
    `information` (B, P, P) is what is known already, `noise` the variance of one measurement. The `costs` (I,) of all
    chosen together are at most `most`, which `count` of the cheapest must keep. Where they are limited, the choice is
    made under each of `SHARES`, since one run that takes nearly all leaves no room for others.
    """
    worth = _Worth(wanted, measured, np.asarray(np.linalg.inv(information)), noise)
    if costs is None or not math.isfinite(most):
        return _in_order(worth, _chosen(worth, count, np.zeros(measured.shape[2]), 0.0))
    found = []
    for share in SHARES:
        cap = max(share * most, float(costs.min()))
        found.append(_chosen(worth, count, np.where(costs <= cap, costs, math.inf), most))
    return _in_order(worth, min(found, key=worth.left))


def _chosen(worth: _Worth, count: int, costs: Floats, most: float) -> list[int]:
    """Runs that cost at most `most` together: greedily, then each exchanged for a better one while there is any."""
    chosen, least = list[int](), float(costs.min())
    for number in range(1, count + 1):
        room = costs <= most - float(costs[chosen].sum()) - (count - number) * least + _ROUNDING * most
        chosen.append(worth.best(chosen, room))
    kept = 0  # places in a row at which nothing better was found
    for place in itertools.islice(itertools.cycle(range(count)), EXCHANGES * count):
        others = chosen[:place] + chosen[place + 1 :]
        room = costs <= most - float(costs[others].sum()) + _ROUNDING * most
        found = worth.best(others, room, chosen[place])
        kept = kept + 1 if found == chosen[place] else 1
        chosen[place] = found
        if kept == count:
            break
    return chosen


def _in_order(worth: _Worth, chosen: list[int]) -> list[int]:
    """The same runs, the most valuable first."""
    ordered, left = list[int](), list(chosen)
    while left:
        ordered.append(left.pop(int(np.argmax(worth.gains(ordered)[left]))))
    return ordered


class _Worth:
    """What measurements are worth, given others.

    Near a draw let C (P, P) be the covariance of the coefficients, M what is wanted, c_i the derivatives of run i.
    Runs that are made take K K' off C (Woodbury's identity), with K (P, S) turned so that K' M K is diagonal; one
    more gains (c' C M C c - sum_s b_s (2 a_s - (K' M K)_s b_s)) / (c' C c + s^2 - sum_s b_s^2), b = K' c and
    a = K' M C c. This takes fewer operations than the covariance that is left.
    """

    def __init__(self, wanted: Floats, measured: Floats, covariance: Floats, noise: float) -> None:
        self.wanted, self.measured, self.covariance, self.noise = wanted, measured, covariance, noise
        moved = covariance @ measured
        self.spread = (measured * moved).sum(axis=1) + noise
        self.told = (moved * (wanted @ moved)).sum(axis=1)

    def gains(self, made: list[int]) -> Floats:
        """How much each run (I,) takes off the mean variance of what is wanted, once the runs `made` are known."""
        taken, sizes = self._taken(made)
        maps = np.concatenate([taken, self.covariance @ self.wanted @ taken], axis=2).swapaxes(1, 2)
        total = np.zeros(self.measured.shape[2])
        for draw, measured in enumerate(self.measured):  # one at a time, which stays in the processor's cache
            b, a = np.split(maps[draw] @ measured, 2)
            gained = self.told[draw] - np.einsum("si,si->i", b, 2 * a - sizes[draw][:, None] * b)
            total += gained / (self.spread[draw] - np.einsum("si,si->i", b, b))
        return total / len(self.measured)

    def best(self, made: list[int], allowed: NDArray[np.bool_], unless: int | None = None) -> int:
        """Of the `allowed` runs (I,) the one that gains most; `unless`, where none gains a part in a million more."""
        gains = np.where(allowed, self.gains(made), -math.inf)
        found = int(np.argmax(gains))
        return found if unless is None or gains[found] > gains[unless] * (1 + 1e-6) else unless

    def left(self, made: list[int]) -> float:
        """Mean variance of what is wanted, once the runs `made` are known."""
        return float(((self.wanted * self.covariance).sum(axis=(1, 2)) - self._taken(made)[1].sum(axis=1)).mean())

    def _taken(self, made: list[int]) -> tuple[Floats, Floats]:
        """K (B, P, S), S at most P, and the diagonal of K' M K (B, S)."""
        runs = self.measured[:, :, made]
        moved = self.covariance @ runs
        inner = runs.swapaxes(1, 2) @ moved + self.noise * np.eye(len(made))
        # K = C c L'^-1 with L L' = c' C c + s^2, of its own rank.
        root = np.linalg.solve(np.linalg.cholesky(inner), moved.swapaxes(1, 2)).swapaxes(1, 2)
        if len(made) > root.shape[1]:
            left, sizes, _ = np.linalg.svd(root, full_matrices=False)
            root = left * sizes[:, None, :]
        sizes, turn = np.linalg.eigh(root.swapaxes(1, 2) @ self.wanted @ root)
        return np.asarray(root @ turn), np.asarray(sizes)


def left_by(wanted: Floats, measured: Floats, noise: float) -> Floats:
    """Draws (B, J) about 0 whose covariance is what measurements (B, S) leave of that of the draws `wanted`.

    Of the best linear prediction, Cov(U) - Cov(U, P) (Cov(P) + s^2)^-1 Cov(P, U), run by run, each draw times the
    square root of the update (Potter 1963).
    """
    count = len(wanted)
    u, p = ((x - x.mean(axis=0)) / math.sqrt(count) for x in (wanted, measured))
    for run in range(measured.shape[1]):
        c = p[:, run]
        total = float(c @ c) + noise
        step = c / (total + math.sqrt(noise * total))
        u, p = u - np.outer(step, c @ u), p - np.outer(step, c @ p)
    return np.asarray(u * math.sqrt(count))


def around(own: Floats | float, draws: Floats, left: Floats) -> Floats:
    """Draws (B, J) as they will be when of `draws` only `left` remains: about `own` (J,), if nothing does.

    How far the draws lie from `own` on average shrinks as their standard deviation does, so that what the runs do not
    tell stays as it is.
    """
    spread = draws.std(axis=0)
    kept = np.divide(left.std(axis=0), spread, out=np.zeros_like(spread), where=spread > 0)
    return np.asarray(own + kept * (draws.mean(axis=0) - own) + left)


def regrets(values: Floats, own: Floats, measured: Floats, noise: float, *, seed: int) -> tuple[float, list[float]]:
    """Mean share wasted by choosing by `own` values (J,) now, and to expect after the first, first two, ... runs.

    `values` (B, J), logarithms of what designs are worth, and `measured` (B, S) are the draws' own. Under each draw
    taken as the truth, runs are measured with noise, values predicted anew from them, and the design that is then the
    best is compared with the best under the draw: it wastes 1 - exp(its value - the best).
    """
    deviations, seen = values - values.mean(axis=0), measured - measured.mean(axis=0)
    count, runs = seen.shape
    covariance = seen.T @ seen / count + noise * np.eye(runs)
    between = seen.T @ deviations / count
    best, rows = values.max(axis=1), np.arange(count)
    rng = np.random.default_rng(seed)
    after = np.zeros(runs)
    for _ in range(REPEATS):
        measurements = seen + math.sqrt(noise) * rng.standard_normal(seen.shape)
        for made in range(1, runs + 1):
            weights = np.linalg.solve(covariance[:made, :made], between[:made])
            chosen = np.argmax(own + measurements[:, :made] @ weights, axis=1)
            after[made - 1] += float(-np.expm1(values[rows, chosen] - best).mean()) / REPEATS
    now = float(-np.expm1(values[:, int(np.argmax(own))] - best).mean())
    # One more measurement can only help on average: what rises is the noise of the simulation.
    return now, np.minimum.accumulate(np.minimum(after, now)).tolist()
