"""Parameters and FLOPs of a transformer, exactly, from its integer shape.

Every function takes a *shape*: anything with the fields of `moeplan.architecture.shape.Architecture`. The sizes may be
plain integers (one architecture) or int64 arrays of equal length (a grid of them), so that the search and the report
count by the very same lines. Switches (attention kind, biases, tied embeddings) and q_lora_rank are always scalars.

A linear map from n to m features has n*m params; RMS norms have one weight per feature; embeddings vocab_size*d_model.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from moeplan.architecture.attention import Attention, attention_of
from moeplan.architecture.blocks import UNIFORM, Blocks
from moeplan.numerics.elementwise import anywhere, where

# Shapes are duck-typed over int and int64 arrays, which no static type expresses; results follow their input.
Shape = Any
Size = Any

GROUPS = (
    "routed_experts",
    "shared_experts",
    "router",
    "attention",
    "dense_ffn",
    "norms",
    "input_embedding",
    "output_head",
)
"""The groups whose sum is `total_params`; multi-token-prediction layers stand outside (`mtp_params`)."""


class Changed:
    """A shape in which some fields have other values, as of one device's part."""

    def __init__(self, shape: Shape, **changed: object) -> None:
        self.__dict__.update(changed)
        self._shape = shape

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shape, name)


def attentions(shape: Shape) -> list[tuple[Size, Attention]]:
    """(blocks, their attention) for every attention that the blocks of a shape have; the last block's stands last."""
    return getattr(shape, "attentions", None) or [(shape.num_layers, attention_of(shape))]


def caches(shape: Shape) -> list[tuple[Size, Attention]]:
    """(blocks that keep a cache of their own, their attention), as `attentions`."""
    different = attentions(shape)
    return different if len(different) > 1 else [(shape.num_kv_layers, different[0][1])]


def blocks_of(shape: Shape) -> Blocks:
    """What the blocks of a shape have beside its fields."""
    blocks: Blocks = getattr(shape, "blocks", UNIFORM)
    return blocks


def sub_layers(shape: Shape) -> Size:
    """Attentions and feed-forward parts of all blocks, each with a norm and a residual sum of its own."""
    none = sum(layers for layers, attention in attentions(shape) if not attention.matrices(shape.d_model))
    return 2 * shape.num_layers - none - len(blocks_of(shape).bare_layers)


def ffn_matrices(d_model: Size, width: Size, *, gated: bool = True) -> list[tuple[Size, Size]]:
    """(input, output) features of the matrices of one feed-forward block: gate (SwiGLU) if `gated`, up, down."""
    return [*(1 + gated) * [(d_model, width)], (width, d_model)]


def attention_params(shape: Shape) -> Size:
    """Params of the attention of all blocks."""
    return sum(layers * attention.params(shape.d_model) for layers, attention in attentions(shape))


def idle_attention_params(shape: Shape) -> Size:
    """Params of attention that one token does not pass through."""
    return sum(layers * attention.idle_params(shape.d_model) for layers, attention in attentions(shape))


def ffn_params(d_model: Size, width: Size, *, gated: bool = True) -> Size:
    """Params of one feed-forward block: three maps between `d_model` and `width` if gated (SwiGLU), else two."""
    return (2 + gated) * d_model * width


def experts_gated(shape: Shape) -> bool:
    """Whether routed experts are gated."""
    blocks = blocks_of(shape)
    return blocks.gated and blocks.gated_experts


def expert_width(shape: Shape) -> Size:
    """Features that routed experts take in and give out: d_model, or their latent width."""
    return where(shape.d_latent > 0, shape.d_latent, shape.d_model) if has_latent(shape) else shape.d_model


def has_latent(shape: Shape) -> bool:
    """Whether routed experts work in a latent width."""
    return anywhere(shape.d_latent)


def expert_params(shape: Shape) -> Size:
    """Params of one routed expert: a feed-forward block of width `d_expert`, with biases where it has them."""
    d, gated = expert_width(shape), experts_gated(shape)
    params = ffn_params(d, shape.d_expert, gated=gated)
    if shape.expert_bias:
        params = params + (1 + gated) * shape.d_expert + d
    return params


def router_params(shape: Shape) -> Size:
    """Params of the router of one layer: a map from d_model, or a net of its own, to every choice; and its biases."""
    d, blocks = shape.d_model, blocks_of(shape)
    choices = shape.num_experts + blocks.num_zero_experts
    params = choices * d
    if blocks.product_keys:
        params = 2 * math.isqrt(shape.num_experts) * d
    if width := blocks.router_width:
        params = (d + 1) * width + width + 2 * (width + 1) * width + width * choices
    if shape.router_bias:
        params = params + choices
    if shape.router_correction_bias:
        params = params + choices
    return params


def dense_ffns(shape: Shape) -> list[tuple[Size, Size]]:
    """(blocks, width) of the dense feed-forward parts, those beside experts not counted."""
    given: list[tuple[Size, Size]] | None = getattr(shape, "dense_ffns", None)
    if given is not None:
        return given
    blocks = blocks_of(shape)
    if blocks.dense_widths:
        return [(number, width) for width, number in Counter(blocks.dense_widths).items() if width]
    return [(shape.num_layers - shape.num_moe_layers - len(blocks.bare_layers), shape.d_ff)]


def looked_up_params(shape: Shape) -> int:
    """Params of tables beside the input embedding of which a token takes rows: no products, so no FLOPs."""
    return sum(params for group, params in blocks_of(shape).extra_params if group == "input_embedding")


def latent_params(shape: Shape) -> Size:
    """Params of the maps into and out of the width that the experts of one layer work in; 0 if it is d_model."""
    return 2 * shape.d_model * shape.d_latent


def params_by_group(shape: Shape, experts: Size | None = None) -> dict[str, Size]:
    """Params of the whole model by group, with `experts` routed experts a layer (default all: the total).

    With `experts = num_active_experts` the sum is the number of active params, embeddings included, but where attention
    has experts too.
    """
    d, moe_layers, blocks = shape.d_model, shape.num_moe_layers, blocks_of(shape)
    experts = shape.num_experts if experts is None else experts
    shared = shape.num_shared_experts * ffn_params(d, shape.d_shared_expert, gated=blocks.gated)
    if shape.shared_expert_gate:
        shared = shared + d
    embedding = shape.vocab_size * d
    dense = sum(layers * ffn_params(d, width, gated=blocks.gated) for layers, width in dense_ffns(shape))
    groups = {
        "routed_experts": moe_layers * experts * expert_params(shape) + moe_layers * latent_params(shape),
        "shared_experts": moe_layers * shared,
        "router": moe_layers * router_params(shape),
        "attention": attention_params(shape),
        "dense_ffn": dense + moe_layers * ffn_params(d, shape.d_dense_residual, gated=blocks.gated),
        "norms": d * (shape.norms_per_block * shape.num_layers + shape.num_final_norms),
        "input_embedding": embedding,
        "output_head": embedding * (not shape.tied_embeddings),
    }
    for group, params in blocks.extra_params:
        groups[group] = groups[group] + params
    return groups


def total_params(shape: Shape) -> Size:
    """N: all params, embeddings included, multi-token-prediction layers not."""
    return sum(params_by_group(shape).values())


def active_params(shape: Shape) -> Size:
    """N_a: params a token passes through, both embeddings included (the count on most model cards)."""
    return sum(params_by_group(shape, shape.num_active_experts).values()) - idle_attention_params(shape)


def embedding_params(shape: Shape) -> Size:
    """Params of the input embedding, of tables beside it and, where untied, of the output head."""
    return shape.vocab_size * shape.d_model * (2 - shape.tied_embeddings) + looked_up_params(shape)


def mtp_params(shape: Shape) -> Size:
    """Params of the multi-token-prediction layers, which no total includes.

    Each is one more block of the last kind, a map from 2*d_model to d_model and three norms; embedding and head are
    shared with the model (DeepSeek-V3, arXiv 2412.19437, section 2.2).
    """
    d = shape.d_model
    moe = shape.num_experts * (expert_params(shape) + d) + shape.num_shared_experts * ffn_params(
        d, shape.d_shared_expert
    )
    has_moe = shape.num_moe_layers > 0
    ffn = has_moe * moe + (1 - has_moe) * ffn_params(d, shape.d_ff)
    _, attention = attentions(shape)[-1]
    block = attention.params(d) + ffn + shape.norms_per_block * d + 2 * d * d + 3 * d
    return shape.num_mtp_layers * block


def attention_score_flops(shape: Shape, seq_len: Size, *, causal: bool = False) -> Size:
    """FLOPs per token, forward and backward, of scores and weighted values: `Attention.score_flops` of all blocks."""
    return sum(layers * attention.score_flops(seq_len, causal=causal) for layers, attention in attentions(shape))


def attention_flops(shape: Shape, seq_len: Size) -> Size:
    """FLOPs per token of attention as a whole, causal: 6 * its params + `attention_score_flops`."""
    return 6 * (attention_params(shape) - idle_attention_params(shape)) + attention_score_flops(
        shape, seq_len, causal=True
    )


def flops_per_token(shape: Shape, seq_len: Size, *, attention: str = "causal", logits: bool = True) -> Size:
    """Training FLOPs per token, forward + backward [FLOPs].

    6*(active params without input embedding) + attention scores; `attention` is "causal" (half), "full" or "none".
    The output head counts once whether or not it is tied to the embedding; `logits=False` leaves it out. Recomputation
    is not counted.
    """
    embedding = shape.vocab_size * shape.d_model
    matmul = active_params(shape) - embedding_params(shape)
    if logits:
        matmul = matmul + embedding
    if attention == "none":
        return 6 * matmul
    return 6 * matmul + attention_score_flops(shape, seq_len, causal=attention == "causal")
