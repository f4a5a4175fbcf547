"""Tokens a second of all designs of a space by one trainer: bounds of all, and exact of those that were asked.

A design's roof (`Trainer.roof`) is a proven bound. Where designs are many, a sample says how near they come to their
roofs at most, and which layouts matter; neither is proven.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeplan.cost.training.degrees import Degrees, Spread
from moeplan.cost.training.fastest import Trainer
from moeplan.cost.training.throughput.site import unmeasured
from moeplan.numerics import Floats
from moeplan.plan.search.designs import Designs, joined
from moeplan.plan.search.space import Space

REACH = 1.03
"""How far beyond the nearest of the sample a design may come to its bound."""
_LOOSER = 1.08
"""How far the reach may rise before designs must be judged anew at it."""
_SIZES = ("d_model", "num_layers", "num_heads", "num_experts", "num_active_experts", "d_expert")
"""What tells roughly how near to its roof a design comes."""
_OF_EACH = ("tokens_per_second", "exact", "roof", "_asked", "_whole", "_place")


@dataclass(frozen=True)
class _Roofs:
    """Roofs of the designs of a space, on one GPU of a site as it was not measured."""

    per_gpu: Floats
    """Tokens a second."""

    def take(self, space: Space, kept: NDArray[np.bool_]) -> _Roofs:
        """Of those where `kept`, the designs of `space`."""
        return _Roofs(self.per_gpu[kept])


def _roofs(space: Space, trainer: Trainer) -> Floats:
    """The roof of each design of a space; the same for trainers that differ in number of GPUs, batch and memory."""
    largest = dataclasses.replace(trainer.gpus, count=trainer.experts[-1])
    alike = dataclasses.replace(trainer, gpus=largest, batch=1, usable_bytes=math.inf, site=unmeasured())
    key = f"roof {alike!r}"
    if key not in space.known:
        each = [np.broadcast_to(alike.roof(block.designs), len(block.designs)) for block in space.blocks]
        space.known[key] = _Roofs(np.concatenate(each) / (alike.scale * largest.count))
    roofs = space.known[key]
    assert isinstance(roofs, _Roofs)
    return roofs.per_gpu * (trainer.scale * trainer.gpus.count)


class Speeds:
    """Tokens a second of all designs of a space by one trainer: bounds, and exact where they were asked."""

    def __init__(self, space: Space, trainer: Trainer) -> None:
        self.space, self.trainer = space, trainer
        self.roof = _roofs(space, trainer)
        self.exact: NDArray[np.bool_] = self._too_many_params()
        self.tokens_per_second: Floats = np.where(self.exact, 0.0, self.roof)
        self._asked, self._whole = np.zeros((2, len(space)), dtype=bool)
        self._place = np.full(len(space), -1, dtype=np.int32)
        self._spreads: list[Spread] = []
        self._near: frozenset[tuple[Degrees, int]] | None = None
        self._by_size: Floats | None = None
        self.reach: float | None = None
        """Largest share of its roof that a design is taken to reach, once a sample says so."""
        self.version = 0
        """It rises whenever more becomes known of others than those that were asked."""
        self.sampled = False
        """Whether a sample was also taken of those that came near the best by their roofs."""

    def _too_many_params(self) -> NDArray[np.bool_]:
        return np.asarray(self.trainer.least_state_bytes * self.space.total_params > self.trainer.usable_bytes)

    @property
    def lost(self) -> NDArray[np.bool_]:
        """Designs that no layout trains, as was found by asking."""
        found: NDArray[np.bool_] = self.exact & (self.tokens_per_second == 0) & ~self._too_many_params()
        return found

    def take(self, space: Space, kept: Any) -> Speeds:
        """What is known of the designs where `kept` (a mask, or places), which are those of `space`."""
        taken = copy.copy(self)
        taken.space = space
        for name in _OF_EACH:
            setattr(taken, name, getattr(self, name)[kept])
        return taken

    def adopt(self, some: Speeds, index: NDArray[np.intp]) -> None:
        """Know what became known of those at `index`, taken before as `some`, and of all by them."""
        for name in _OF_EACH:
            getattr(self, name)[index] = getattr(some, name)
        self._spreads, self._near, self._by_size = some._spreads, some._near, some._by_size
        self.sampled = some.sampled
        self._reach(some.reach)

    def with_more_memory(self, trainer: Trainer) -> Speeds:
        """Bounds under a trainer of more memory, by what is known of this one: layouts that matter, reach."""
        more = Speeds(self.space, trainer)
        more.sampled, more._near, more._by_size = self.sampled, self._near, self._by_size
        more._reach(self.reach)
        return more

    def loosely(self) -> Floats:
        """Bounds, or exact speeds, that hold as well if the reach rises a little."""
        if self.sampled:  # it seldom rises any more
            return self.tokens_per_second.copy()
        return np.where(self.exact, self.tokens_per_second, self.roof * min(1.0, _LOOSER * (self.reach or 1.0)))

    def _reach(self, share: float | None) -> None:
        """Bound all that were not asked exactly by this share of their roofs."""
        self.reach = share
        if share is not None:
            self.version += 1
            self.tokens_per_second = np.where(self.exact, self.tokens_per_second, self.roof * share)

    def drop(self, index: NDArray[np.intp]) -> NDArray[np.intp]:
        """Those at `index` (sorted) that some layout may fit, by a bound; the others are known not to be trained."""
        kept = np.zeros(len(self.exact), dtype=bool)
        for part, designs in self._designs(index):
            kept[part] = self.trainer.ceiling(designs) > 0
        lost = index[~kept[index]]
        self.tokens_per_second[lost], self.exact[lost] = 0.0, True
        return index[kept[index]]

    def ask(self, index: NDArray[np.intp], *, every_layout: bool) -> None:
        """Find the fastest layouts of those at `index` (sorted): of all layouts, or of those that matter.

        Where more layouts turn out to matter, all that were asked before are asked for these.
        """
        before = self._near
        every_layout = every_layout or before is None
        near = self._find(index, before or frozenset(), alone=not every_layout)
        self.exact[index] = True
        if every_layout:
            self._near, self._whole[index] = near | (before or frozenset()), True
            if before is not None and self._near > before:
                self._find(np.flatnonzero(self._asked & ~self._whole), self._near - before, alone=True)
                self.version += 1
        if self.reach is not None:
            self.learn(np.flatnonzero(self._asked))

    def _find(
        self, index: NDArray[np.intp], first: frozenset[tuple[Degrees, int]], *, alone: bool
    ) -> frozenset[tuple[Degrees, int]]:
        """Ask those at `index` (sorted) for what is faster than was found, among the `first` layouts `alone` or all.

        Those layouts that come near the fastest of some.
        """
        fresh = index[~self._asked[index]]
        self.tokens_per_second[fresh], self._asked[index] = 0.0, True
        near: frozenset[tuple[Degrees, int]] = frozenset()
        for part, designs in self._designs(index):
            found = self.trainer.fastest(designs, first, self.tokens_per_second[part], alone=alone)
            faster = found.place >= 0
            self.tokens_per_second[part[faster]] = found.tokens_per_second[faster]
            self._place[part[faster]] = found.place[faster] + len(self._spreads)
            self._spreads = [*self._spreads, *found.spreads]
            near |= found.near
        return near

    def sample(self, index: NDArray[np.intp]) -> None:
        """Ask those at `index` (sorted) under every layout, to learn of others from them."""
        self.ask(index, every_layout=True)
        self.learn(index)

    def learn(self, index: NDArray[np.intp]) -> None:
        """Take from those at `index`, asked exactly, how near designs come to their roofs, if nearer than was taken."""
        share = float((self.tokens_per_second[index] / self.roof[index]).max(initial=0.0))
        if share <= (self.reach or 0.0):  # as where none of the first can be trained
            return
        if self.reach is None:
            self._expect(index)
        self._reach(min(1.0, REACH * share))

    def _expect(self, index: NDArray[np.intp]) -> None:
        """Fit the share of their roofs that those at `index` reach by their sizes, to know whom to ask first."""
        known = index[self.tokens_per_second[index] > 0]
        share = np.log(self.tokens_per_second[known] / self.roof[known])
        self._by_size = np.asarray(np.linalg.lstsq(self._sizes(known), share, rcond=None)[0], dtype=float)

    def ln_expected(self, index: NDArray[np.intp]) -> Floats:
        """ln of the share of their bounds that those at `index` (sorted) are expected to reach, but for a constant."""
        if self._by_size is None:
            return np.zeros(len(index))
        return np.asarray(self._sizes(index) @ self._by_size, dtype=float)

    def _sizes(self, index: NDArray[np.intp]) -> Floats:
        parts = [
            np.stack([np.broadcast_to(np.log(getattr(row, name)), len(row)) for name in _SIZES])
            for _, row in self._designs(index)
        ]
        return np.vstack((np.ones(len(index)), np.concatenate(parts, axis=1))).T

    def spread(self, index: int) -> Spread | None:
        """The fastest layout found of a design; None if none fits."""
        place = int(self._place[index])
        return None if place < 0 else self._spreads[place]

    def check(self, index: NDArray[np.intp], beside: NDArray[np.intp]) -> bool:
        """Ask those at `index` (sorted) for every layout, if one was not, with those `beside` them.

        False if one is faster than was known.
        """
        if self._whole[index].all():
            return True
        index = beside[~self._whole[beside]]
        before = self.tokens_per_second[index]
        self.ask(index, every_layout=True)
        return bool((self.tokens_per_second[index] <= before).all())

    def _designs(self, index: NDArray[np.intp]) -> list[tuple[NDArray[np.intp], Designs]]:
        """The designs at `index` (sorted) in few rows, each with its part of the index."""
        rows = joined(self.space.taken(index)) if len(index) else []
        cuts = np.cumsum([0, *(len(row) for row in rows)])
        return [(index[a:b], row) for a, b, row in zip(cuts, cuts[1:], rows, strict=False)]
