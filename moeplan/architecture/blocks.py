"""What the blocks of a model have that is not the same in all of them, or that few models have: `Blocks`."""

from __future__ import annotations

from dataclasses import dataclass

from moeplan.architecture.attention import Attention


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
    gated: bool = True
    """Whether feed-forward parts are gated: three matrices; else two, up and down."""
    d_latent: int = 0
    """Width that routed experts work in, between two maps a layer (LatentMoE, arXiv 2601.18089); 0 for d_model."""
    num_zero_experts: int = 0
    """Experts that compute nothing, among which the router chooses too (LongCat-Flash, arXiv 2509.01322)."""
    extra_params: tuple[tuple[str, int], ...] = ()
    """Params that no other field speaks of, such as a bias of the output head, by group of `counting.GROUPS`."""


UNIFORM = Blocks()
"""What a plain model has."""
