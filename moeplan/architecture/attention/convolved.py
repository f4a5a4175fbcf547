"""Attention behind convolutions over queries and keys (compressed convolutional attention, ZAYA1), and by a mask."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from moeplan.architecture.attention.gqa import GroupedQueryAttention
from moeplan.architecture.attention.kind import Attention, Matrix, Size
from moeplan.records import Word


@dataclass(frozen=True, kw_only=True)
class ConvolvedAttention(GroupedQueryAttention):
    """Queries and keys pass a convolution by feature and one by head; half of the values are those of the token before.

    Read in transformers' ZayaAttention.
    """

    kind: Word = field(init=False, default="convolved")
    label: ClassVar[str] = "convolved attention"
    trainable: ClassVar[bool] = False

    conv_kernel: int = 2
    """Taps of the convolution by feature."""
    head_conv_kernel: int = 2
    """Taps of the convolution that mixes the features of each head."""

    @property
    def _convolved(self) -> Size:
        return (self.num_heads + self.num_kv_heads) * self.head_dim

    def matrices(self, d_model: Size) -> list[Matrix]:
        """The taps that mix the features of a head before the output map."""
        *inputs, output = super().matrices(d_model)
        return [*inputs, (self.head_dim * self.head_conv_kernel, self._convolved), output]

    def stored_matrices(self, d_model: Size) -> list[Matrix]:
        return Attention.stored_matrices(self, d_model)

    def vectors(self, d_model: Size) -> Size:
        """Taps by feature, biases of both convolutions, and the temperature of a key head."""
        return super().vectors(d_model) + (self.conv_kernel + 2) * self._convolved + self.num_kv_heads

    @property
    def state_bytes(self) -> Size:
        """Inputs of the convolutions, in bf16."""
        return 2 * (self.conv_kernel + self.head_conv_kernel - 2) * self._convolved


@dataclass(frozen=True, kw_only=True)
class MaskedAttention(GroupedQueryAttention):
    """Scores have a mask that values set, by a map to one number a key-value head (dynamic mask attention, Doge)."""

    kind: Word = field(init=False, default="masked")
    label: ClassVar[str] = "dynamic mask attention"
    trainable: ClassVar[bool] = False

    def matrices(self, d_model: Size) -> list[Matrix]:
        """The map from values to the mask before the output map."""
        *inputs, output = super().matrices(d_model)
        return [*inputs, (self.num_kv_heads * self.head_dim, self.num_kv_heads), output]

    def stored_matrices(self, d_model: Size) -> list[Matrix]:
        return Attention.stored_matrices(self, d_model)

    def vectors(self, d_model: Size) -> Size:
        """The mask's decay, and its bias where the other maps have one."""
        return super().vectors(d_model) + self.num_kv_heads * (1 + self.qkv_bias)
