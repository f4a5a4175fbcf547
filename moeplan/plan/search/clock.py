"""Training time in the search: what the designs of a space take on given GPUs, known as closely as it is asked.

A budget of N GPUs for D days trains a design x on

    tokens(x) = D * goodput * T(x),

T(x) the tokens a second of all GPUs under its fastest layout that fits (`moeplan.cost.training.fastest`). Designs are
judged at tokens of a speed that is drawn towards what is usual for their size,

    T_judged = T^s * (N*peak*u(N_a) / flops_per_token)^(1-s),    s = var/(var + err^2):

u is the trend of utilisation in ln N_a over the declared grid, var the variance that it leaves, and err the standard
deviation by which the model errs from design to design (`Band.design_ln_sd`), so that differences which the model
cannot tell apart weigh little. Neither trend nor s depends on days, number of GPUs or memory: more of these never
lowers a score. With a compute budget the designs are judged at that, and the GPUs only decide what can be trained.

The search is best first. All designs are scored at a proven bound of T, their roof, and those that may reach the best
are asked exactly (`moeplan.plan.search.speeds`). Few are asked under every layout. Where they are many, two samples, of
the best by their roofs and of those that then come near the best, give two things that are not proven: how near T comes
to its roof (a design that comes nearer raises it for all) and which layouts matter (the best few, the best of each
objective and the chosen design are asked under every layout; where more matter, all that were asked are asked for
them). Tests compare the answer with that of asking all on grids of up to 130,000 designs: V and the chosen design were
the same on all of eight; the best by one law alone was off by 3 % at most.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from moeplan.architecture import counting
from moeplan.cost.devices import Device, Gpus
from moeplan.cost.training.fastest import Trainer
from moeplan.cost.training.throughput.settings import Software, band
from moeplan.numerics import Floats
from moeplan.plan.search.designs import joined, put_in_rows
from moeplan.plan.search.grid import Grid
from moeplan.plan.search.scores import Scores
from moeplan.plan.search.space import Space, Spend
from moeplan.plan.search.speeds import Speeds

FEW = 2000
"""So many designs are asked exactly at once, without a sample."""
SAMPLE = 128
"""Designs of a sample, and of the first that are asked by each objective."""
SOME = 37
"""Of every so many designs the first sample is taken, where they are many: no grid has axes of multiples of it."""
FIRST = 256
"""Designs asked at first where many are near: they show that most of the others are not."""
MOST = 8192
"""Designs asked at a time, for memory's sake."""
WHOLE = 128
"""Best designs that are asked under every layout, so that no layout that matters to some of them is missed."""
BESIDE = WHOLE + 32
"""So many best are asked so if one of those must be: what comes to be among the best then is known already."""
_AFTER = 1 / 16
"""Share of the designs, the best by a bound, that a sample is taken of."""
_FAST, _SLOW = 2.5, 2.0
"""Powers of time: by less than the first those left out would have to grow, the second those judged may."""
_FILLED = 1e-9
_MOST_TURNS = 8
_REFERENCE_GPUS = 4096
_REFERENCE_DESIGNS = 2000

Objective = Callable[[Scores], Floats]
"""A value of every design of the scores, feasible or not, that is to be large."""


@dataclass(frozen=True)
class Typical:
    """Utilisation that is usual for a size, and how much a design's own counts beside it."""

    slope: float
    """Of ln utilisation in ln N_a."""
    intercept: float
    """At N_a = 1."""
    weight: float
    """s: variance around the trend / (that + variance of the model's error)."""

    def utilisation(self, active_params: Floats) -> Floats:
        """Share of the dense bf16 peak that is usual."""
        found: Floats = np.exp(self.intercept + self.slope * np.log(active_params))
        return found


@functools.lru_cache(maxsize=8)
def typical(device: Device, precision: str, software: Software, grid: Grid) -> Typical:
    """The trend over a sample of the declared grid, in micro-batches of one sequence with no memory limit."""
    trainer = Trainer(
        gpus=Gpus(_REFERENCE_GPUS, device),
        batch=_REFERENCE_GPUS,
        seq_len=grid.seq_len,
        precision=precision,
        software=software,
        given={"tp": 1, "pp": 1, "cp": 1, "micro_batch": 1, "recompute": "none"},
    )
    every = max(1, grid.most_designs() // _REFERENCE_DESIGNS)
    tables = [table for d in grid.d_model if (table := grid.product(d)) is not None]
    parts = [table.take(np.arange(every // 2, len(table), every)) for table in tables if len(table) > every // 2]
    sizes, shares = [], []
    put_in_rows(parts)
    for designs in joined(parts):
        speed, flops = trainer.ceiling(designs), counting.flops_per_token(designs, grid.seq_len)
        sizes.append(np.log(counting.active_params(designs)))
        shares.append(np.log(speed * flops / (_REFERENCE_GPUS * device.bf16_flops)))
    x, y = np.concatenate(sizes), np.concatenate(shares)
    slope, intercept = np.polyfit(x, y, 1)
    left = float(np.var(y - intercept - slope * x))
    return Typical(float(slope), float(intercept), left / (left + band().design_ln_sd ** 2))


class Clock:
    """What the designs of a space are worth in the time, or for the compute, of a budget with GPUs.

    `seconds` is the time that trains, where it is the budget. Else `flops` is the compute; with `days`, again as time
    that trains [s], it is that of a design chosen at equal compute that takes just so long.
    """

    def __init__(
        self,
        space: Space,
        trainer: Trainer,
        *,
        seconds: float = 0.0,
        flops: float = 0.0,
        days: float = 0.0,
        speeds: Speeds | None = None,
    ) -> None:
        self.space, self.seconds, self.flops, self.days = space, seconds, flops, days
        self._turns = 0
        self._fitting: dict[float, NDArray[np.bool_]] = {}
        self.speeds = speeds or _speeds(space, trainer)
        self.trainer = trainer
        gpus, grid = trainer.gpus, space.reference_grid
        self.typical = typical(gpus.device, trainer.precision, trainer.software, grid) if seconds else None

    @property
    def timed(self) -> bool:
        """Whether time is the budget, not compute."""
        return self.seconds > 0

    def fills_days(self, index: int) -> bool:
        """Whether a design chosen at equal compute takes all days; if not, the compute becomes what it does in them.

        After a few designs in turn the last one is taken at its own compute.
        """
        if self.days == 0:
            return True
        own = float(self.speeds.tokens_per_second[index] * self.space.flops_per_token[index]) * self.days
        near = abs(own / self.flops - 1) < _FILLED or self._turns >= _MOST_TURNS
        self.flops, self._turns = own if not near else self.flops, self._turns + 1
        return near

    def with_more_memory(self, factor: float, first: NDArray[np.intp]) -> Clock:
        """The same with so many times the memory of the GPUs; it asks those at `first` (sorted), likely the best."""
        trainer = dataclasses.replace(self.trainer, usable_bytes=self.trainer.usable_bytes * factor)
        speeds = self.speeds.with_more_memory(trainer)
        speeds.ask(first, every_layout=speeds.reach is None)
        return Clock(self.space, trainer, seconds=self.seconds, flops=self.flops, days=self.days, speeds=speeds)

    def scores(
        self,
        objectives: Sequence[tuple[Objective, float]],
        *,
        time: float = 1.0,
        memory: float = 1.0,
        known: Scores | None = None,
    ) -> Scores:
        """Every design at so many times the time (or compute) and memory; exact near the best of each objective.

        Feasible are those that were asked exactly and that some layout trains. `known` are scores by this clock at the
        same time, whatever their memory; what is learnt, they learn too.
        """
        if known is not None:
            scores = dataclasses.replace(known, feasible=known.feasible.copy())
        elif self.timed:
            self._learn(objectives[0][0], time, memory)
            speed = self.speeds.loosely()
            scores = self.space.score(self._spending(speed, time), memory, more=time)
            scores = dataclasses.replace(scores, tokens_per_second=speed)
        else:
            scores = self.space.score(self.flops * time, memory, more=time)
        self.settle(scores, objectives, time=time, memory=memory)
        return scores

    def with_more_time(
        self, known: Scores, objectives: Sequence[tuple[Objective, float]], time: float
    ) -> tuple[Clock, Scores] | None:
        """`scores` of those designs alone that may be the best in so many times the time, and their clock.

        `known` are the scores of all in the time itself. An objective grows with time by a power of it, in all that was
        tried by 1.6 at most (test), so that those are left out which would have to grow by its `_FAST`th. None where
        that leaves many, where one of those left grows by more than the `_SLOW`th power, or where a bound of those left
        out has risen.
        """
        self._rescore(known, self._stale(known), 1.0, 1.0)  # others may have asked since
        assert known.tokens_per_second is not None
        near = np.zeros(len(self.space), dtype=bool)
        for objective, share in objectives:
            value = objective(known)
            near |= value >= float(value[known.feasible].max()) + math.log1p(-share) - _FAST * math.log(time)
        near &= self._fits(1.0)
        if np.count_nonzero(near) > len(near) / 2:
            return None
        some = Clock(self.space.take(near), self.trainer, seconds=self.seconds)
        speed = known.tokens_per_second[near]
        scores = some.space.score(some._spending(speed, time), more=time)
        if (scores.ln_compute - known.ln_compute[:, near]).max() > _SLOW * math.log(time):
            return None
        scores = dataclasses.replace(scores, tokens_per_second=speed)
        some.settle(scores, objectives, time=time)
        return (some, scores) if some.speeds.reach == self.speeds.reach else None

    def settle(
        self,
        scores: Scores,
        objectives: Sequence[tuple[Objective, float]],
        *,
        among: NDArray[np.bool_] | None = None,
        time: float = 1.0,
        memory: float = 1.0,
    ) -> None:
        """Ask exactly, in place, all designs near the best by any objective, of all or `among` some.

        Each objective stands with the share of its best that is near; the first values each design by itself.
        """
        speeds = self.speeds
        fits = self._fits(memory)
        self._rescore(scores, self._stale(scores), time, memory)  # others may have asked since
        scores.feasible[:] = scores.allowed & fits & speeds.exact & (speeds.tokens_per_second > 0)
        pool: NDArray[np.intp] | None = None  # all
        first, most = SAMPLE, FIRST
        while True:
            here, there = (scores, slice(None)) if pool is None else (scores.take(pool), pool)
            possible = here.allowed & fits[there] & ~speeds.exact[there] & (speeds.tokens_per_second[there] > 0)
            known, version = here.feasible, speeds.version
            if among is not None:
                possible, known = possible & among[there], known & among[there]
            value = _values(here, objectives[0][0]) if pool is None else objectives[0][0](here)
            if known.any():
                wanted, claims = np.zeros(len(possible), dtype=bool), []
                for objective, near in objectives:
                    own = value if objective is objectives[0][0] else objective(here)
                    claimed = possible & (own >= float(own[known].max()) + math.log1p(-near))
                    places = np.flatnonzero(claimed)
                    claims.append((_within(pool, places), own[places]))
                    wanted |= claimed
                if not wanted.any():
                    return
                # What is no longer near never will be, unless its bound rises; the best of each objective stay at hand.
                chosen = _within(pool, np.flatnonzero(wanted))
                pool = _within(pool, np.flatnonzero(wanted | here.feasible))
                changed = chosen[self._loose(scores, chosen)]
                if not len(changed) and self._samples(len(chosen)):
                    changed = self._sample(claims)
                elif not len(changed):
                    changed, most = self._know(chosen, claims, most), MOST
            else:
                best = _within(pool, _largest(np.where(possible, value, -np.inf), first))
                if not len(best):
                    return
                first *= 2  # until one can be trained
                changed = self._begin(best, _within(pool, np.flatnonzero(possible)), value[possible])
            if speeds.version > version:  # others were asked for more layouts, or their bounds have risen
                stale = self._stale(scores)
                changed = _either(len(fits), changed, stale)
                pool = None if pool is None else _either(len(fits), pool, stale)
            self._rescore(scores, changed, time, memory)
            there = slice(None) if pool is None else pool
            scores.feasible[there] = (
                scores.allowed[there] & fits[there] & speeds.exact[there] & (speeds.tokens_per_second[there] > 0)
            )

    def _fits(self, memory: float) -> NDArray[np.bool_]:
        """`Space.fits`, kept: every settling asks."""
        if memory not in self._fitting:
            self._fitting[memory] = self.space.fits(memory)
        return self._fitting[memory]

    def check(self, scores: Scores, objectives: Sequence[tuple[Objective, float]], index: int) -> bool:
        """Ask for every layout of the best few by the first objective, of the best of each, and of the one at `index`.

        False if one is faster so, and others may be the best.
        """
        known = np.flatnonzero(scores.feasible)
        here = scores.take(known)
        values = [objective(here) for objective, _ in objectives]
        places = [
            np.unique([*(np.argmax(value) for value in values), *_largest(values[0], n)]) for n in (WHOLE, BESIDE)
        ]
        best, beside = (np.unique([*known[some], index]) for some in places)
        return self.speeds.check(best, beside)

    def unasked(self, scores: Scores) -> Scores:
        """The scores with those allowed again that were asked and that no layout trains, were they at their roofs."""
        lost = np.flatnonzero(self.speeds.lost)
        if not self.timed or not len(lost):
            return scores
        allowed = scores.allowed.copy()
        allowed[lost] = self.space.gather(lost).judge(self._spending(self.speeds.roof[lost], 1.0, lost)).allowed
        return dataclasses.replace(scores, allowed=allowed)

    def _learn(self, objective: Objective, time: float, memory: float) -> None:
        """Ask a sample of some of many designs first, to learn how the others are best bounded."""
        speeds, count = self.speeds, len(self.space)
        if speeds.reach is not None or count <= SOME * FEW:
            return
        index = np.arange(SOME // 2, count, SOME)
        space = self.space.gather(index)
        some = Clock(space, self.trainer, seconds=self.seconds, speeds=speeds.take(space, index))
        scores = space.score(some._spending(some.speeds.tokens_per_second, time), memory, more=time)
        possible = np.flatnonzero(scores.feasible & ~some.speeds.exact)
        if len(possible):
            value = objective(scores)[possible]
            some._begin(possible[_largest(value, SAMPLE)], possible, value)
            speeds.adopt(some.speeds, index)

    def _begin(self, best: NDArray[np.intp], possible: NDArray[np.intp], value: Floats) -> NDArray[np.intp]:
        """Ask of the `best` so far, where none is known that can be trained, and if they are many, of a sample.

        Those of which more is known then.
        """
        speeds = self.speeds
        # if the first could not be trained, most of many may be too large for any layout
        asked = best if len(best) <= SAMPLE else speeds.drop(best)
        if speeds.reach is not None or len(possible) <= FEW:
            speeds.ask(asked, every_layout=True)
            return best
        # the best, and some of those that come after them, tell of the others
        after = possible[_largest(value, max(FEW, int(_AFTER * len(possible))))]
        sample = _either(len(self.space), asked, after[:: max(1, len(after) // SAMPLE)])
        speeds.sample(sample)
        return _either(len(self.space), best, sample)

    def _samples(self, wanted: int) -> bool:
        """Whether so many are wanted that a sample of them is taken first."""
        return self.speeds.reach is not None and not self.speeds.sampled and wanted > SAMPLE

    def _sample(self, claims: list[tuple[NDArray[np.intp], Floats]]) -> NDArray[np.intp]:
        """Ask a sample of those that each objective is near by their roofs, which the first sample did not know."""
        self.speeds.sampled = True
        each = max(SAMPLE // len(claims), 1)
        some = [index[:: max(1, len(index) // each)] for index, _ in claims if len(index)]
        sample = _either(len(self.space), *some)
        self.speeds.sample(sample)
        return sample

    def _know(
        self, wanted: NDArray[np.intp], claims: list[tuple[NDArray[np.intp], Floats]], most: int
    ) -> NDArray[np.intp]:
        """Know those that are `wanted` exactly, of very many about so many alone; those that are known then.

        `claims` are those that each objective wants, with their values.
        """
        speeds = self.speeds
        if len(wanted) > min(4 * most, MOST):  # the likely best of each objective first, so that few others are near it
            turn = np.full(len(wanted), len(wanted))
            expected = self.typical.weight * speeds.ln_expected(wanted) if self.typical else np.zeros(len(wanted))
            for index, value in claims:
                places = np.searchsorted(wanted, index)
                order = places[np.argsort(-value - expected[places], kind="stable")]
                turn[order] = np.minimum(turn[order], np.arange(len(order)))
            wanted = wanted[_largest(-turn.astype(float), most)]
        speeds.ask(wanted, every_layout=speeds.reach is None)
        return wanted

    def _loose(self, scores: Scores, index: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which of those at `index` were judged at a looser bound than is known now."""
        own = scores.tokens_per_second
        return np.zeros(len(index), bool) if own is None else own[index] > self.speeds.tokens_per_second[index]

    def _spending(self, speed: Floats, time: float, index: NDArray[np.intp] | None = None) -> Spend:
        """Compute of each design, or of those at `index`, at a speed in so many times the time: predicted, and judged.

        It is asked of some after the others, so that all need no arrays of their own.
        """
        assert self.typical is not None
        gpus, seconds, s = self.trainer.gpus, self.seconds * time, self.typical.weight
        peak = self.trainer.scale * gpus.count * gpus.device.bf16_flops

        def spend(part: slice) -> tuple[Floats, Floats]:
            places = part if index is None else index[part]
            predicted = speed[part] * self.space.flops_per_token[places] * seconds
            return predicted, predicted**s * self._drawn[places] * (peak * seconds) ** (1 - s)

        return spend

    @cached_property
    def _drawn(self) -> Floats:
        """The usual utilisation of each design, to the power that it is judged by."""
        assert self.typical is not None
        found: Floats = self.typical.utilisation(self.space.active_params) ** (1 - self.typical.weight)
        return found

    def _stale(self, scores: Scores) -> NDArray[np.intp]:
        """Designs of which more is known than when they were judged, or whose bounds have risen."""
        own, now = scores.tokens_per_second, self.speeds.tokens_per_second
        return np.empty(0, np.intp) if own is None else np.flatnonzero((now > own) | (self.speeds.exact & (now != own)))

    def _rescore(self, scores: Scores, index: NDArray[np.intp], time: float, memory: float) -> None:
        """Judge those at `index` (sorted) again, in place, at the speeds that are known now."""
        if scores.tokens_per_second is None or not len(index):
            return
        speed = self.speeds.tokens_per_second[index]
        again = self.space.gather(index).judge(self._spending(speed, time, index), memory, time)
        scores.tokens[index], scores.train_flops[index] = again.tokens, again.train_flops
        scores.allowed[index] = again.allowed
        scores.ln_compute[:, index] = again.ln_compute
        scores.tokens_per_second[index] = speed
        for objective, values in scores.kept:
            values[index] = objective(again)


def _values(scores: Scores, objective: Objective) -> Floats:
    """The objective's value of every design, kept from one time to the next."""
    found = next((values for known, values in scores.kept if known == objective), None)
    if found is None:
        found = objective(scores)
        scores.kept[:] = [(objective, found)]
    return found


def _speeds(space: Space, trainer: Trainer) -> Speeds:
    """What is known of a space's designs by a trainer."""
    key = repr(trainer)
    if key not in space.known:
        space.known[key] = Speeds(space, trainer)
    found = space.known[key]
    assert isinstance(found, Speeds)
    return found


def _largest(value: Floats, count: int) -> NDArray[np.intp]:
    """The places of the largest values, sorted; fewer where others are -inf."""
    few = np.argpartition(-value, min(count, len(value) - 1))[:count]
    return np.sort(few[value[few] > -np.inf])


def _within(pool: NDArray[np.intp] | None, index: NDArray[np.intp]) -> NDArray[np.intp]:
    """The places of those at `index` of a pool of some, or of all."""
    return index if pool is None else pool[index]


def _either(count: int, *places: NDArray[np.intp]) -> NDArray[np.intp]:
    """The places, of so many, that are among any of these, sorted: np.unique takes many times as long."""
    there = np.zeros(count, dtype=bool)
    for some in places:
        there[some] = True
    return np.flatnonzero(there)
