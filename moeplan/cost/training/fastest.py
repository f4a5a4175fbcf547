"""The fastest layouts that fit, of many architectures at once or of one: `Trainer`.

The layouts are a `Machine`'s. They are asked from the highest `Ceiling` down, and left out where an architecture is
faster already.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeplan.architecture import counting
from moeplan.architecture.shape import Architecture
from moeplan.cost.training.ceilings import Ceiling
from moeplan.cost.training.degrees import Degrees, Spread
from moeplan.cost.training.layer_memory import Counted
from moeplan.cost.training.machine import Machine
from moeplan.cost.training.memory import TrainingMemory, training_memory
from moeplan.numerics import Floats

NEAR = 0.04
"""How near to the fastest layout of one architecture those come that are tried for architectures like it."""
_AT_ONCE = 4096
"""Architectures that all layouts are tried for at once, for memory's sake."""


@dataclass(frozen=True)
class Fastest:
    """The fastest layout of each architecture."""

    tokens_per_second: Floats
    """Of all GPUs together; 0 where no layout fits."""
    place: NDArray[np.intp]
    """Its place among `spreads`; -1 where none fits."""
    spreads: tuple[Spread, ...]
    """Layouts that are the fastest of some."""
    near: frozenset[tuple[Degrees, int]]
    """Degrees and ep whose layouts come within `NEAR` of the fastest of some."""

    def spread(self, index: int) -> Spread | None:
        """The fastest layout of one; None where none fits."""
        place = int(self.place[index])
        return None if place < 0 else self.spreads[place]


@dataclass(frozen=True)
class Ranked:
    """A layout that fits one architecture."""

    spread: Spread
    """The layout."""
    tokens_per_second: float
    """Of all GPUs together, before it is scaled to the site."""
    memory: TrainingMemory
    """Its memory by stage and group."""


class Trainer(Machine):
    """A machine that is asked for its fastest layouts."""

    def ceiling(self, designs: Any, *, close: bool = False) -> Floats:
        """Tokens a second that no layout that fits exceeds, of each of `designs`; `Ceiling` says what is close."""
        ceiling, best = Ceiling(self, designs, close=close), np.zeros(len(designs))
        for degrees in self.degrees:
            np.maximum(best, ceiling.of(degrees), out=best)
        return best

    def fastest(
        self,
        designs: Any,
        first: frozenset[tuple[Degrees, int]] = frozenset(),
        least: Floats | None = None,
        *,
        alone: bool = False,
    ) -> Fastest:
        """The fastest layout that fits, of each of `designs`: a grid as `counting` takes it, with `take(index)`.

        The degrees and ep of `first`, the `near` of architectures like these, are tried before the others; `alone`,
        those are not tried. Of architectures that no layout trains at more than `least` tokens a second none is found.
        """
        count = len(designs)
        if count > _AT_ONCE and not alone:
            return self._fastest_in_parts(designs, first, np.zeros(count) if least is None else least)
        best = np.zeros(count) if least is None else least.copy()
        place = np.full(count, -1, dtype=np.intp)
        found: list[Spread] = []
        fitting: list[tuple[tuple[Degrees, int], NDArray[np.bool_], Floats]] = []
        ceiling = Ceiling(self, designs, close=True, among=first if alone else None)
        for degrees, ep in self._in_order(ceiling, best, first, alone):
            may = ceiling.of(degrees, ep) > best
            for spread in self.spreads(degrees, ep) if may.any() else ():
                suits = may & spread.layout.suits(designs, self.seq_len)
                if not suits.any():
                    continue
                speed = self.tokens_per_second(designs, spread, ceiling.counted)
                faster = suits & (speed > best)
                if not faster.any():
                    continue
                faster &= self.fits(designs, spread, ceiling.memory)
                if faster.any():
                    best[faster], place[faster] = speed[faster], len(found)
                    found.append(spread)
                    fitting.append(((degrees, ep), faster, speed[faster]))
        near = frozenset(key for key, index, speed in fitting if (speed >= (1 - NEAR) * best[index]).any())
        return Fastest(np.where(place < 0, 0.0, best), place, tuple(found), near)

    def _fastest_in_parts(self, designs: Any, first: frozenset[tuple[Degrees, int]], least: Floats) -> Fastest:
        """`fastest` of many, some after the others."""
        cuts = range(0, len(designs), _AT_ONCE)
        parts = [np.arange(start, min(start + _AT_ONCE, len(designs))) for start in cuts]
        found = [self.fastest(designs.take(part), first, least[part]) for part in parts]
        before = np.cumsum([0, *(len(each.spreads) for each in found)])
        return Fastest(
            np.concatenate([each.tokens_per_second for each in found]),
            np.concatenate([np.where(x.place < 0, -1, x.place + n) for x, n in zip(found, before, strict=False)]),
            tuple(spread for each in found for spread in each.spreads),
            frozenset().union(*(each.near for each in found)),
        )

    def ranking(self, architecture: Architecture, count: int = 1) -> list[Ranked]:
        """The fastest layouts that fit one architecture, which differ in more than dp and the micro-batch."""
        row = _Row(architecture)
        simple = not architecture.is_dense and architecture.moe_layer_pattern is None
        simple = simple and architecture.num_dense_layers <= 1 and len(counting.attentions(architecture)) == 1
        ceiling = Ceiling(self, row, close=True) if simple else None
        keys = self._keys(architecture)
        high = {key: float(ceiling.of(*key)[0]) / self.scale if ceiling else math.inf for key in keys}
        timed: dict[tuple[Any, ...], Any] = {}
        counted = Counted()
        found: dict[tuple[Any, ...], Ranked] = {}
        least = 0.0
        for key in sorted(keys, key=lambda key: -high[key]):
            if high[key] <= least:
                break
            for spread in self._suiting(architecture, key):
                layout = spread.layout
                speed = float(self.tokens_per_second(architecture, spread, timed)) / self.scale
                alike = layout.tp, layout.pp, layout.ep, layout.etp, layout.cp, layout.recompute
                if speed <= least or (alike in found and speed <= found[alike].tokens_per_second):
                    continue
                memory = training_memory(architecture, layout, self.settings(spread), counted)
                if memory.total <= self.usable_bytes:
                    found[alike] = Ranked(spread, speed, memory)
                    ordered = sorted((x.tokens_per_second for x in found.values()), reverse=True)
                    least = ordered[count - 1] if len(ordered) >= count else 0.0
        return sorted(found.values(), key=lambda x: -x.tokens_per_second)[:count]

    def least_bytes(self, architecture: Architecture) -> float:
        """Bytes on a GPU under the layout that needs the fewest; inf where none divides the architecture."""
        counted = Counted()
        spreads = (spread for key in self._keys(architecture) for spread in self._suiting(architecture, key))
        each = (training_memory(architecture, x.layout, self.settings(x), counted).total for x in spreads)
        return min(each, default=math.inf)

    def _keys(self, architecture: Architecture) -> list[tuple[Degrees, int]]:
        """Degrees and ep that are tried for one architecture."""
        experts = self.experts if not architecture.is_dense else (1,)
        return list(itertools.product(self.degrees, experts))

    def _suiting(self, architecture: Architecture, key: tuple[Degrees, int]) -> Iterator[Spread]:
        """The layouts of some degrees and ep that divide one architecture."""
        for spread in self.spreads(*key):
            if not spread.layout.problems(architecture, self.seq_len):
                yield spread

    def _in_order(
        self, ceiling: Ceiling, best: Floats, first: frozenset[tuple[Degrees, int]], alone: bool
    ) -> Iterator[tuple[Degrees, int]]:
        """Degrees and ep that may be faster than the `best` by then: of `first` and of the rest those that are fast for
        most."""
        yield from sorted(first, key=lambda key: (-float(ceiling.of(*key).mean()), repr(key)))
        for degrees in () if alone else sorted(self.degrees, key=lambda degrees: -ceiling.usual(degrees)):
            if not (ceiling.loosely(degrees) > best).any():
                continue
            may = (ceiling.loosely_by_ep(degrees) > best).any(axis=1)
            for row in np.flatnonzero(may):
                if (key := (degrees, self.experts[row])) not in first:
                    yield key


class _Row:
    """One architecture as a grid of one."""

    def __init__(self, architecture: Architecture) -> None:
        self.num_layers = np.array([architecture.num_layers])
        self._architecture = architecture

    def __getattr__(self, name: str) -> Any:
        return getattr(self._architecture, name)

    def __len__(self) -> int:
        return 1

    def take(self, index: Any) -> _Row:
        return self
