"""Linear attention with a delta rule: gated delta-net (arXiv 2412.06464) and Kimi delta attention (2510.26692)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Self

from moeplan.architecture.attention.kind import Matrix, Size, ceil_div
from moeplan.architecture.attention.recurrent import Recurrent
from moeplan.records import Word


@dataclass(frozen=True, kw_only=True)
class GatedDeltaNet(Recurrent):
    """One decay and one step size a value head, from the block's input; as Qwen3-Next has it."""

    kind: Word = field(init=False, default="gated_delta_net")
    label: ClassVar[str] = "gated delta-net"

    num_key_heads: Size
    """Heads of queries and of keys."""
    num_value_heads: Size
    """Heads of values."""
    key_head_dim: Size
    """Width of a query or key head [features]."""
    value_head_dim: Size
    """Width of a value head [features]."""
    conv_kernel: int = 4
    """Taps of the convolution over queries, keys and values."""

    full_beside: ClassVar[Mapping[str, Any]] = MappingProxyType({"gate": "full", "gate_in_query": True})
    fields_beside: ClassVar[Mapping[str, Any]] = MappingProxyType({"shared_expert_gate": True})

    @classmethod
    def beside(cls, d_model: Size, num_heads: Size, head_dim: Size) -> Self:
        """As Qwen3-Next-80B-A3B: values as wide as full attention, keys half, heads of 128 (here as attention's)."""
        keys = ceil_div(num_heads, 2)
        return cls(num_key_heads=keys, num_value_heads=2 * keys, key_head_dim=head_dim, value_head_dim=head_dim)

    @property
    def width(self) -> Size:
        return self.num_value_heads * self.value_head_dim

    @property
    def convolved_width(self) -> Size:
        """Queries, keys and values."""
        return 2 * self.num_key_heads * self.key_head_dim + self.width

    @property
    def convolution_reach(self) -> Size:
        return self.conv_kernel

    @property
    def state_numbers(self) -> Size:
        """A key by value matrix for each value head."""
        return self.num_value_heads * self.key_head_dim * self.value_head_dim

    def matrices(self, d_model: Size) -> list[Matrix]:
        """Queries, keys and values; output gate; step size and decay; output."""
        inputs = (self.convolved_width, self.width, 2 * self.num_value_heads)
        return [*((d_model, width) for width in inputs), (self.width, d_model)]

    def vectors(self, d_model: Size) -> Size:
        """The convolution, A and the bias of the decay by value head, the norm of a value head."""
        return self.convolved_width * self.conv_kernel + 2 * self.num_value_heads + self.value_head_dim

    def on_device(self, n: int) -> Self:
        keys, values = ceil_div(self.num_key_heads, n), ceil_div(self.num_value_heads, n)
        return dataclasses.replace(self, num_key_heads=keys, num_value_heads=values)

    def words(self) -> str:
        return (
            f"gated delta-net with {self.num_value_heads} value heads of {self.value_head_dim} and "
            f"{self.num_key_heads} key heads of {self.key_head_dim}"
        )


@dataclass(frozen=True, kw_only=True)
class _SquareStates(Recurrent):
    """Heads of one width for queries, keys and values, each with a square matrix as its state."""

    num_heads: Size
    """Heads."""
    head_dim: Size
    """Width of a head [features]."""

    @property
    def width(self) -> Size:
        return self.num_heads * self.head_dim

    @property
    def convolved_width(self) -> Size:
        """Queries, keys and values."""
        return 3 * self.width

    @property
    def state_numbers(self) -> Size:
        """A square matrix for each head."""
        return self.width * self.head_dim

    def on_device(self, n: int) -> Self:
        return dataclasses.replace(self, num_heads=ceil_div(self.num_heads, n))

    def words(self) -> str:
        return f"{self.label} with {self.num_heads} heads of {self.head_dim}"


@dataclass(frozen=True, kw_only=True)
class KimiDeltaAttention(_SquareStates):
    """A decay for every feature of a key, through a map of low rank or a straight one."""

    kind: Word = field(init=False, default="kda")
    label: ClassVar[str] = "Kimi delta attention"

    conv_kernel: int = 4
    """Taps of the convolution over queries, keys and values."""
    low_rank: bool = True
    """Whether the maps to decay and output gate go through head_dim features; else they are straight."""

    @classmethod
    def beside(cls, d_model: Size, num_heads: Size, head_dim: Size) -> Self:
        """As Kimi-Linear-48B-A3B: as many heads as full attention, as wide."""
        return cls(num_heads=num_heads, head_dim=head_dim)

    @property
    def convolution_reach(self) -> Size:
        return self.conv_kernel

    def matrices(self, d_model: Size) -> list[Matrix]:
        """Queries, keys, values; step size; decay and output gate; output."""
        straight, low = [(d_model, self.width)], [(d_model, self.head_dim), (self.head_dim, self.width)]
        gates = 2 * (low if self.low_rank else straight)
        return [*3 * straight, (d_model, self.num_heads), *gates, (self.width, d_model)]

    def vectors(self, d_model: Size) -> Size:
        """The convolution, A by head, the decay's bias by feature, the norm of a head."""
        return self.convolved_width * self.conv_kernel + self.num_heads + self.width + self.head_dim


@dataclass(frozen=True, kw_only=True)
class LightningAttention(_SquareStates):
    """Linear attention with a fixed decay a head (MiniMax-01, arXiv 2501.08313)."""

    kind: Word = field(init=False, default="lightning")
    label: ClassVar[str] = "lightning attention"

    def matrices(self, d_model: Size) -> list[Matrix]:
        """Queries, keys, values, output gate, output."""
        return [*4 * [(d_model, self.width)], (self.width, d_model)]

    def vectors(self, d_model: Size) -> Size:
        """The norm of its output."""
        return self.width
