"""Parameters and FLOPs of a transformer, exactly, from its integer shape.

Every function takes a *shape*: anything with the fields of `moeplan.architecture.shape.Architecture`. The sizes may be
plain integers (one architecture) or int64 arrays of equal length (a grid of them), so that the search and the report
count by the very same lines. Switches (attention kind, biases, tied embeddings) and q_lora_rank are always scalars.

A linear map from n to m features has n*m params; RMS norms have one weight per feature; embeddings vocab_size*d_model.
"""

from __future__ import annotations

from typing import Any

from moeplan.architecture.attention import Attention, attention_of
from moeplan.architecture.blocks import UNIFORM, Blocks

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


def ffn_matrices(d_model: Size, width: Size, *, gated: bool = True) -> list[tuple[Size, Size]]:
    """(input, output) features of the matrices of one feed-forward block: gate (SwiGLU) if `gated`, up, down."""
    return [*(1 + gated) * [(d_model, width)], (width, d_model)]


def attention_params(shape: Shape) -> Size:
    """Params of the attention of all blocks."""
    return sum(layers * attention.params(shape.d_model) for layers, attention in attentions(shape))


def ffn_params(d_model: Size, width: Size, *, gated: bool = True) -> Size:
    """Params of one feed-forward block: three maps between `d_model` and `width` if gated (SwiGLU), else two."""
    return (2 + gated) * d_model * width


def expert_params(shape: Shape) -> Size:
    """Params of one routed expert: a feed-forward block of width `d_expert`, with biases where it has them."""
    blocks = blocks_of(shape)
    d = blocks.d_latent or shape.d_model
    params = ffn_params(d, shape.d_expert, gated=blocks.gated)
    if shape.expert_bias:
        params = params + (1 + blocks.gated) * shape.d_expert + d
    return params


def latent_params(shape: Shape) -> Size:
    """Params of the maps into and out of the width that the experts of one layer work in; 0 if it is d_model."""
    return 2 * shape.d_model * blocks_of(shape).d_latent


def params_by_group(shape: Shape, experts: Size | None = None) -> dict[str, Size]:
    """Params of the whole model by group, with `experts` routed experts a layer (default all: the total).

    With `experts = num_active_experts` the sum is the number of active params, embeddings included.
    """
    d, moe_layers, blocks = shape.d_model, shape.num_moe_layers, blocks_of(shape)
    experts = shape.num_experts if experts is None else experts
    choices = shape.num_experts + blocks.num_zero_experts
    router = choices * d
    if shape.router_bias:
        router = router + choices
    if shape.router_correction_bias:
        router = router + choices
    shared = shape.num_shared_experts * ffn_params(d, shape.d_shared_expert, gated=blocks.gated)
    if shape.shared_expert_gate:
        shared = shared + d
    embedding = shape.vocab_size * d
    dense_layers = shape.num_layers - moe_layers - len(blocks.bare_layers)
    groups = {
        "routed_experts": moe_layers * experts * expert_params(shape) + moe_layers * latent_params(shape),
        "shared_experts": moe_layers * shared,
        "router": moe_layers * router,
        "attention": attention_params(shape),
        "dense_ffn": dense_layers * ffn_params(d, shape.d_ff, gated=blocks.gated)
        + moe_layers * ffn_params(d, shape.d_dense_residual, gated=blocks.gated),
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
    return sum(params_by_group(shape, shape.num_active_experts).values())


def embedding_params(shape: Shape) -> Size:
    """Params of the input embedding and, where untied, of the output head."""
    return shape.vocab_size * shape.d_model * (2 - shape.tied_embeddings)


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
    return 6 * attention_params(shape) + attention_score_flops(shape, seq_len, causal=True)


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
