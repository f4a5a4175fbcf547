"""Gated short convolution (LFM2, arXiv 2511.23404), and no mixing of tokens at all."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar, Self

from moeplan.architecture.attention.kind import Matrix, Size, ceil_div
from moeplan.architecture.attention.recurrent import Recurrent
from moeplan.records import Word


@dataclass(frozen=True, kw_only=True)
class ShortConvolution(Recurrent):
    """A convolution of a few taps between two gates."""

    kind: Word = field(init=False, default="short_convolution")
    label: ClassVar[str] = "short convolution"

    channels: Size
    """Features that are convolved [features]."""
    conv_kernel: int = 3
    """Taps."""
    bias: bool = False
    """Biases of the convolution and of the maps in and out."""

    @property
    def width(self) -> Size:
        return self.channels

    @property
    def convolved_width(self) -> Size:
        return self.channels

    @property
    def convolution_reach(self) -> Size:
        return self.conv_kernel

    @property
    def state_numbers(self) -> Size:
        """None but the convolution's inputs."""
        return 0

    def matrices(self, d_model: Size) -> list[Matrix]:
        """Two gates and the input; output."""
        return [(d_model, 3 * self.channels), (self.channels, d_model)]

    def vectors(self, d_model: Size) -> Size:
        return self.channels * self.conv_kernel + self.bias * (4 * self.channels + d_model)

    def on_device(self, n: int) -> Self:
        return dataclasses.replace(self, channels=ceil_div(self.channels, n))

    def words(self) -> str:
        return f"short convolution of {self.conv_kernel} taps"


@dataclass(frozen=True, kw_only=True)
class NoAttention(Recurrent):
    """A block that is a feed-forward block alone."""

    kind: Word = field(init=False, default="none")
    label: ClassVar[str] = "no attention"

    @property
    def width(self) -> Size:
        return 0

    @property
    def state_numbers(self) -> Size:
        return 0

    def matrices(self, d_model: Size) -> list[Matrix]:
        return []

    def on_device(self, n: int) -> Self:
        return self

    def words(self) -> str:
        return "no attention"
