"""Patterns of attention that plans can have: one kind in all blocks, or one with a state in most and full in the rest.

A pattern is one word: "gqa", or "gdn-3:1" for three blocks with a gated delta-net to one of full attention, which ends
each run. Depths are whole runs. The sizes of blocks with a state are those that a published model has beside its heads
(`Recurrent.beside`).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from typing import Any

from moeplan.architecture.attention import KINDS, Attention, attention_of
from moeplan.architecture.attention.recurrent import Recurrent
from moeplan.architecture.blocks import UNIFORM, AttentionRun, Blocks
from moeplan.architecture.plannable import MOST_IN_A_ROW, PLANNABLE, STATES, pattern_words
from moeplan.errors import UsageError

# Shapes and sizes are duck-typed over int and int64 arrays, as in `moeplan.architecture.counting`.
Shape = Any
Size = Any


@dataclass(frozen=True)
class Pattern:
    """How the blocks of a plan mix tokens."""

    word: str
    """Its name in flags, JSON and Python."""
    full: str
    """Kind of full attention: a name of `moeplan.architecture.attention.KINDS`."""
    state: str = ""
    """Kind of the blocks with a state; "" where there are none."""
    in_a_row: int = 0
    """Blocks with a state before each run's full attention."""
    full_in_a_row: int = 1
    """Blocks of full attention that end each run."""

    @property
    def period(self) -> int:
        """Blocks of one run."""
        return self.in_a_row + self.full_in_a_row

    @property
    def _recurrent(self) -> type[Recurrent]:
        kind = KINDS[self.state]
        assert issubclass(kind, Recurrent)
        return kind

    def fields(self, d_model: int, num_heads: Size, head_dim: int) -> dict[str, Any]:
        """The fields of `Architecture` that plans have at a width of the model and a number of heads."""
        fields = {"d_model": d_model, "num_heads": num_heads, "attention": self.full}
        fields |= KINDS[self.full].planned(d_model, num_heads, head_dim)
        return {**fields, **self._recurrent.fields_beside} if self.state else fields

    @property
    def blocks(self) -> Blocks:
        """What blocks have beside their attention."""
        return replace(UNIFORM, **self._recurrent.blocks_beside) if self.state else UNIFORM

    def attentions(self, shape: Shape) -> list[tuple[Size, Attention]]:
        """(blocks, their attention) of a shape whose depth is whole runs, full attention last."""
        full = attention_of(shape)
        if not self.state:
            return [(shape.num_layers, full)]
        runs = shape.num_layers // self.period
        state = self._recurrent.beside(shape.d_model, shape.num_heads, shape.head_dim)
        full = replace(full, **self._recurrent.full_beside)
        return [(runs * self.in_a_row, state), (runs * self.full_in_a_row, full)]

    def among(self, place: int, first: Size) -> Size:
        """How many of the `first` blocks have the attention at a place of `attentions`."""
        if not self.state:
            return first
        rest = first % self.period
        states = rest - (rest > self.in_a_row) * (rest - self.in_a_row)
        return first // self.period * self.in_a_row + states if place == 0 else first - self.among(0, first)

    def runs(self, shape: Shape) -> tuple[AttentionRun, ...]:
        """The attention of every block of one architecture; none where all have the architecture's own."""
        if not self.state:
            return ()
        (_, state), (_, full) = self.attentions(shape)
        layers = range(shape.num_layers)
        return (
            AttentionRun(state, tuple(i for i in layers if i % self.period < self.in_a_row)),
            AttentionRun(full, tuple(i for i in layers if i % self.period >= self.in_a_row)),
        )


@functools.cache
def pattern_named(word: str) -> Pattern:
    """The pattern that a word names; raises `UsageError` for one that names none."""
    if word in PLANNABLE:
        return Pattern(word, word)
    found = re.fullmatch(r"([a-z0-9]+)-([0-9]{1,3}):([0-9]{1,3})", word)
    if not found or found[1] not in STATES:
        raise UsageError(f"attention {word!r:.60} must be {pattern_words()}")
    states, full = int(found[2]), int(found[3])
    if not (1 <= states <= MOST_IN_A_ROW and 1 <= full <= MOST_IN_A_ROW):
        raise UsageError(f"attention {word!r} must have 1 to {MOST_IN_A_ROW} blocks of each kind in a row")
    kind, beside = STATES[found[1]]
    return Pattern(word, beside, kind, states, full)
