"""Parts of a model's blocks that differ between them, or that few models have: `Blocks`."""

from __future__ import annotations

from dataclasses import dataclass

from moeplan.architecture.attention import Attention
from moeplan.records import Word


@dataclass(frozen=True)
class AttentionRun:
    """Blocks that mix tokens alike."""

    attention: Attention
    """How."""
    layers: tuple[int, ...]
    """Which blocks, from 0."""


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Beside the fields of an `Architecture`. The defaults are what every plain model has."""

    attentions: tuple[AttentionRun, ...] = ()
    """Attention of every block, where not all have the one that the architecture's own fields state."""
    bare_layers: tuple[int, ...] = ()
    """Blocks without a feed-forward part."""
    dense_widths: tuple[int, ...] = ()
    """Width of the dense feed-forward part of every block, 0 where it has none, where not all have d_ff [features]."""
    gated: bool = True
    """Whether feed-forward parts are gated: three matrices; else two, up and down."""
    num_zero_experts: int = 0
    """Experts that compute nothing, among which the router chooses too (LongCat-Flash, arXiv 2509.01322)."""
    gated_experts: bool = True
    """Whether routed experts are gated where the other feed-forward parts are."""
    product_keys: bool = False
    """Whether the router scores two halves of sqrt(num_experts) keys (Lample et al., arXiv 1907.05242)."""
    router_width: int = 0
    """Width of the router's own feed-forward net of two hidden layers (ZAYA1); 0 for a straight map [features]."""
    extra_params: tuple[tuple[Word, int], ...] = ()
    """Params that no other field speaks of, by group of `counting.GROUPS`; those of "input_embedding" are looked up."""


UNIFORM = Blocks()
"""The blocks of a plain model."""
