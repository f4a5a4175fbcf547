"""Attention with learned biases by distance and short convolutions on keys and values (Inkling)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from moeplan.architecture.attention.gqa import GroupedQueryAttention
from moeplan.architecture.attention.kind import Matrix, Size
from moeplan.records import Word


@dataclass(frozen=True, kw_only=True)
class RelativeAttention(GroupedQueryAttention):
    """Grouped-query attention whose scores have a bias by distance, mixed for every token and head from profiles.

    Read in transformers' InklingAttention and Inkling2FullAttention.
    """

    kind: Word = field(init=False, default="relative")
    label: ClassVar[str] = "relative attention"
    trainable: ClassVar[bool] = False

    relative_width: int
    """Profiles that a head mixes."""
    relative_extent: int
    """Distances that they cover [tokens]."""
    conv_kernel: int = 4
    """Taps of the convolutions over keys and over values."""
    dynamic_taps: bool = False
    """Whether tokens change these taps, by one map for each of the convolutions."""
    sink_map: bool = False
    """Whether tokens set the sink logit of each head."""
    clip_scales: bool = False
    """One learned scale for every feature of queries and of profiles' weights."""

    def matrices(self, d_model: Size) -> list[Matrix]:
        """Weights of profiles, sinks and taps before the output map."""
        *inputs, output = super().matrices(d_model)
        widths = [self.num_heads * self.relative_width]
        if self.sink_map:
            widths.append(self.num_heads)
        if self.dynamic_taps:
            widths += 2 * [self.num_kv_heads * self.conv_kernel]
        return [*inputs, *((d_model, width) for width in widths), output]

    def vectors(self, d_model: Size) -> Size:
        """Profiles, taps, scales."""
        params = super().vectors(d_model) + self.relative_width * self.relative_extent
        params = params + self.conv_kernel * self.passed_width
        return params + self.clip_scales * self.num_heads * (self.head_dim + self.relative_width)

    @property
    def state_bytes(self) -> Size:
        """Inputs of the convolutions, in bf16."""
        return 2 * self.conv_kernel * self.passed_width

    def score_flops(self, seq_len: Size, *, causal: bool = False) -> Size:
        """With the mixing of profiles."""
        mixing = 6 * self.num_heads * self.relative_width * self.relative_extent
        return super().score_flops(seq_len, causal=causal) + mixing
