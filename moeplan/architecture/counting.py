"""Parameters and FLOPs of a transformer, exactly, from its integer shape.

Every function takes a *shape*: anything with the fields of `moeplan.architecture.shape.Architecture`. The sizes may be
plain integers (one architecture) or int64 arrays of equal length (a grid of them), so that the search and the report
count by the very same lines. Switches (attention kind, biases, tied embeddings) and q_lora_rank are always scalars.

A linear map from n to m features has n*m params; RMS norms have one weight per feature; embeddings vocab_size*d_model.
"""

from __future__ import annotations

from typing import Any

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


def attention_matrices(shape: Shape) -> list[tuple[Size, Size]]:
    """(input, output) features of every matrix of one attention block.

    GQA: query, key, value, output. MLA (DeepSeek-V2, arXiv 2405.04434, section 2.1): queries straight or through
    q_lora_rank, keys and values through kv_lora_rank plus one shared rotary key, output.
    """
    d, heads = shape.d_model, shape.num_heads
    if shape.attention == "mla":
        rank, rope, nope, value = shape.kv_lora_rank, shape.qk_rope_head_dim, shape.qk_nope_head_dim, shape.v_head_dim
        query_width, query_rank = heads * (nope + rope), shape.q_lora_rank
        queries = [(d, query_rank), (query_rank, query_width)] if query_rank else [(d, query_width)]
        return [*queries, (d, rank + rope), (rank, heads * (nope + value)), (heads * value, d)]
    query_width, kv_width = heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    return [(d, query_width), (d, kv_width), (d, kv_width), (query_width, d)]


def ffn_matrices(d_model: Size, width: Size) -> list[tuple[Size, Size]]:
    """(input, output) features of the matrices of one gated (SwiGLU) feed-forward block: gate, up, down."""
    return [(d_model, width), (d_model, width), (width, d_model)]


def attention_params(shape: Shape) -> Size:
    """Params of one attention block: `attention_matrices`, biases, sinks (one a head), norms of q, k or the latents."""
    params = sum(n * m for n, m in attention_matrices(shape))
    if shape.attention == "mla":
        return params + shape.q_lora_rank + shape.kv_lora_rank
    query_width, kv_width = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    if shape.qkv_bias:
        params = params + query_width + 2 * kv_width
    if shape.output_bias:
        params = params + shape.d_model
    if shape.attention_sinks:
        params = params + shape.num_heads
    if shape.qk_norm == "head":
        params = params + 2 * shape.head_dim
    elif shape.qk_norm == "full":
        params = params + query_width + kv_width
    return params


def ffn_params(d_model: Size, width: Size) -> Size:
    """Params of one gated (SwiGLU) feed-forward block: three maps between `d_model` and `width`."""
    return 3 * d_model * width


def expert_params(shape: Shape) -> Size:
    """Params of one routed expert: a gated feed-forward block of width `d_expert`, with biases where it has them."""
    params = ffn_params(shape.d_model, shape.d_expert)
    if shape.expert_bias:
        params = params + 2 * shape.d_expert + shape.d_model
    return params


def params_by_group(shape: Shape, experts: Size | None = None) -> dict[str, Size]:
    """Params of the whole model by group, with `experts` routed experts a layer (default all: the total).

    With `experts = num_active_experts` the sum is the number of active params, embeddings included.
    """
    d, moe_layers = shape.d_model, shape.num_moe_layers
    experts = shape.num_experts if experts is None else experts
    router = shape.num_experts * d
    if shape.router_bias:
        router = router + shape.num_experts
    if shape.router_correction_bias:
        router = router + shape.num_experts
    shared = shape.num_shared_experts * ffn_params(d, shape.d_shared_expert)
    if shape.shared_expert_gate:
        shared = shared + d
    embedding = shape.vocab_size * d
    return {
        "routed_experts": moe_layers * experts * expert_params(shape),
        "shared_experts": moe_layers * shared,
        "router": moe_layers * router,
        "attention": shape.num_layers * attention_params(shape),
        "dense_ffn": (shape.num_layers - moe_layers) * ffn_params(d, shape.d_ff)
        + moe_layers * ffn_params(d, shape.d_dense_residual),
        "norms": d * (shape.norms_per_block * shape.num_layers + shape.num_final_norms),
        "input_embedding": embedding,
        "output_head": embedding * (not shape.tied_embeddings),
    }


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
    block = attention_params(shape) + ffn + shape.norms_per_block * d + 2 * d * d + 3 * d
    return shape.num_mtp_layers * block


def attention_width(shape: Shape) -> Size:
    """d_attn = heads times the width of one head's value [features]; the width that attention FLOPs are counted by.

    For MLA this is num_heads*v_head_dim: the rotary part of its scores is left out, as in published FLOP counts.
    """
    return shape.num_heads * (shape.v_head_dim if shape.attention == "mla" else shape.head_dim)


def attention_score_flops(shape: Shape, seq_len: Size) -> Size:
    """FLOPs per token, forward and backward, of scores and weighted values under full attention.

    12 * num_layers * d_attn * seq_len; a causal mask halves it.
    """
    return 12 * shape.num_layers * attention_width(shape) * seq_len


def attention_flops(shape: Shape, seq_len: Size) -> Size:
    """FLOPs per token of attention as a whole, causal: 6 * its params + half of `attention_score_flops`."""
    return 6 * shape.num_layers * attention_params(shape) + attention_score_flops(shape, seq_len) // 2


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
    scores = attention_score_flops(shape, seq_len)
    return 6 * matmul + (scores if attention == "full" else scores // 2)
