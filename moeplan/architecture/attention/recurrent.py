"""Blocks with a state in place of a cache: linear attention, state spaces, short convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Self

from moeplan.architecture.attention.kind import Activation, Attention, Size


@dataclass(frozen=True, kw_only=True)
class Recurrent(Attention):
    """A block whose past is a state of fixed size: nothing grows with the sequence, and causal is all there is.

    A token's step of a state of `state_numbers` is taken as three products with it (decay and write, correct, read):
    6 FLOPs a number, forward; three times as many with the backward pass. Chunked kernels do somewhat more.
    """

    full_beside: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """What full attention has in plans whose other blocks are of this kind (`moeplan.architecture.patterns`)."""
    fields_beside: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Fields of `Architecture` that these plans have."""
    blocks_beside: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Fields of `Blocks` that they have."""

    @classmethod
    def beside(cls, d_model: Size, num_heads: Size, head_dim: Size) -> Self:
        """Its sizes in plans, beside full attention with such heads."""
        raise NotImplementedError

    @property
    def state_numbers(self) -> Size:
        """Numbers of the recurrent state."""
        raise NotImplementedError

    @property
    def convolved_width(self) -> Size:
        """Features that pass the short convolution before it; 0 without one."""
        return 0

    @property
    def convolution_reach(self) -> Size:
        """Taps of that convolution."""
        return 0

    @property
    def cached_width(self) -> Size:
        """Nothing."""
        return 0

    @property
    def state_bytes(self) -> Size:
        return 4 * self.state_numbers + 2 * self.convolved_width * self.convolution_reach

    def score_flops(self, seq_len: Size, *, causal: bool = False) -> Size:
        return 18 * self.state_numbers

    def decode_flops(self, context: int) -> Size:
        return 6 * self.state_numbers

    def prefill_flops(self, prompt: int) -> Size:
        return 6 * self.state_numbers * prompt

    @property
    def passed_width(self) -> Size:
        """The state is passed on once; nothing by token."""
        return 0

    def activations(self) -> list[Activation]:
        """Inputs and output of the recurrence."""
        return [Activation("recurrence inputs", self.convolved_width), Activation("attention output", self.width)]

    @property
    def gradient_widths(self) -> tuple[Size, Size]:
        return self.width, self.convolved_width + self.width

    def on_device(self, n: int) -> Self:
        raise NotImplementedError
