"""State-space blocks: Mamba (arXiv 2312.00752) and Mamba-2 (arXiv 2405.21060)."""

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
class Mamba2(Recurrent):
    """A scalar decay a head; B and C shared by the heads of a group."""

    kind: Word = field(init=False, default="mamba2")
    label: ClassVar[str] = "Mamba-2"

    num_heads: Size
    """Heads."""
    head_dim: Size
    """Width of a head [features]."""
    num_groups: Size
    """Groups of heads that share B and C."""
    state_dim: Size
    """Numbers of state for each feature of a head."""
    conv_kernel: int = 4
    """Taps of the convolution over inputs, B and C."""
    conv_bias: bool = True
    """Bias of that convolution."""
    bias: bool = False
    """Biases of the maps in and out."""

    fields_beside: ClassVar[Mapping[str, Any]] = MappingProxyType({"qk_norm": "none"})
    blocks_beside: ClassVar[Mapping[str, Any]] = MappingProxyType({"gated": False})

    @classmethod
    def beside(cls, d_model: Size, num_heads: Size, head_dim: Size) -> Self:
        """As Nemotron-3-Super-120B-A12B: twice as wide as full attention, heads of 64, 8 groups, a state of 128."""
        return cls(num_heads=2 * num_heads * head_dim // 64, head_dim=64, num_groups=8, state_dim=128)

    @property
    def width(self) -> Size:
        return self.num_heads * self.head_dim

    @property
    def convolved_width(self) -> Size:
        """Inputs, B and C."""
        return self.width + 2 * self.num_groups * self.state_dim

    @property
    def convolution_reach(self) -> Size:
        return self.conv_kernel

    @property
    def state_numbers(self) -> Size:
        return self.width * self.state_dim

    def matrices(self, d_model: Size) -> list[Matrix]:
        """Gate, inputs, B, C and step sizes in one; output."""
        return [(d_model, self.width + self.convolved_width + self.num_heads), (self.width, d_model)]

    def vectors(self, d_model: Size) -> Size:
        """The convolution; A, D and the step's bias by head; the norm; biases."""
        params = self.convolved_width * (self.conv_kernel + self.conv_bias) + 3 * self.num_heads + self.width
        return params + self.bias * (self.width + self.convolved_width + self.num_heads + d_model)

    def on_device(self, n: int) -> Self:
        heads, groups = ceil_div(self.num_heads, n), ceil_div(self.num_groups, n)
        return dataclasses.replace(self, num_heads=heads, num_groups=groups)

    def words(self) -> str:
        return f"Mamba-2 with {self.num_heads} heads of {self.head_dim} and a state of {self.state_dim}"


@dataclass(frozen=True, kw_only=True)
class Mamba(Recurrent):
    """A decay for every feature and number of state; step, B and C norms as in Jamba (arXiv 2403.19887) where told."""

    kind: Word = field(init=False, default="mamba")
    label: ClassVar[str] = "Mamba"

    inner_width: Size
    """Features inside [features]."""
    state_dim: Size
    """Numbers of state for each of them."""
    step_rank: Size
    """Rank of the map to step sizes."""
    conv_kernel: int = 4
    """Taps of the convolution."""
    conv_bias: bool = True
    """Bias of that convolution."""
    bias: bool = False
    """Biases of the maps in and out."""
    inner_norms: bool = False
    """Norms on step, B and C."""

    @property
    def width(self) -> Size:
        return self.inner_width

    @property
    def convolved_width(self) -> Size:
        return self.inner_width

    @property
    def convolution_reach(self) -> Size:
        return self.conv_kernel

    @property
    def state_numbers(self) -> Size:
        return self.inner_width * self.state_dim

    def matrices(self, d_model: Size) -> list[Matrix]:
        """Inputs and gate; step, B and C; step sizes; output."""
        inner = self.inner_width
        small = self.step_rank + 2 * self.state_dim
        return [(d_model, 2 * inner), (inner, small), (self.step_rank, inner), (inner, d_model)]

    def vectors(self, d_model: Size) -> Size:
        """The convolution, the step's bias, A, D, and norms of step, B and C."""
        inner = self.inner_width
        params = inner * (self.conv_kernel + self.conv_bias) + inner + inner * self.state_dim + inner
        params = params + self.inner_norms * (self.step_rank + 2 * self.state_dim)
        return params + self.bias * (2 * inner + d_model)

    def on_device(self, n: int) -> Self:
        return dataclasses.replace(self, inner_width=ceil_div(self.inner_width, n))

    def words(self) -> str:
        return f"Mamba of {self.inner_width} features with a state of {self.state_dim}"
