"""Memory that a run needs."""

from __future__ import annotations

from moeplan.architecture.shape import Architecture
from moeplan.verification.spec import RunSpec

MICRO_BYTES = 8e9
"""Most that a step keeps for its backward pass at a time [bytes]: a third of a card of 24 GB."""
CHUNK_TOKENS = 2**24
"""Tokens of text that a run holds at a time; the rest stays where it is mapped from."""


def micro_batches(spec: RunSpec) -> tuple[int, ...]:
    """Sequences of each part of a step, whose gradients are added up: as few and as even as `MICRO_BYTES` allows.

    It depends on the spec alone, so that every machine adds in the same order; another division gives the same numbers
    up to rounding.
    """
    most = max(1, int(MICRO_BYTES // (kept_bytes(spec) * spec.seq_len)))
    count = -(-spec.batch_sequences // most)
    size, larger = divmod(spec.batch_sequences, count)
    return (size + 1,) * larger + (size,) * (count - larger)


def memory_bytes(spec: RunSpec) -> float:
    """Peak memory of a run [bytes]: params and their states, what a micro-batch keeps for its backward pass, text.

    A param takes 16 bytes (fp32 weight, gradient and two moments) and 4 more with bf16 copies of weight and gradient.
    The text takes a byte a token, or 4 with more than 256 different ones.
    """
    shape = spec.architecture
    state = shape.total_params() * (16 + 4 * (spec.precision == "bf16"))
    steps = max(CHUNK_TOKENS, spec.batch_sequences * spec.seq_len)
    text = min(spec.tokens, steps) * (1 if shape.vocab_size <= 256 else 4)
    return float(state + kept_bytes(spec) * max(micro_batches(spec)) * spec.seq_len + text)


def kept_bytes(spec: RunSpec) -> float:
    """Bytes of a token that a step keeps for its backward pass."""
    shape, size = spec.architecture, 2 if spec.precision == "bf16" else 4
    kept = shape.num_layers * attention_bytes(shape, size) + logit_bytes(shape, size)
    kept += shape.num_moe_layers * moe_bytes(shape, size)
    return kept + (shape.num_layers - shape.num_moe_layers) * dense_bytes(shape, size)


def attention_bytes(shape: Architecture, size: int) -> int:
    """Bytes of a token that one layer's attention keeps, with matrices of `size` bytes a number.

    The fp32 stream, its norm, queries and keys in fp32 before their norms, queries, keys and values of every head, and
    what comes of them.
    """
    heads = shape.num_heads * shape.head_dim
    return 4 * (shape.d_model + heads + shape.num_kv_heads * shape.head_dim) + size * (shape.d_model + 4 * heads)


def dense_bytes(shape: Architecture, size: int) -> int:
    """Bytes of a token that a dense block keeps: the stream, its norm, gate, up and their product."""
    return 4 * shape.d_model + size * (shape.d_model + 3 * shape.d_ff)


def moe_bytes(shape: Architecture, size: int) -> int:
    """Bytes of a token that a MoE block keeps: stream and norm in fp32, the norm, and for each expert that it reaches
    its row, gate, up, product and output; scores of all experts, places of its rows, and the shared experts."""
    row = 2 * shape.d_model + 3 * shape.d_expert
    shared = 3 * shape.num_shared_experts * shape.d_shared_expert
    products = size * (shape.d_model + shape.num_active_experts * row + shared)
    return 8 * shape.d_model + products + 12 * shape.num_experts + 40 * shape.num_active_experts


def logit_bytes(shape: Architecture, size: int) -> int:
    """Bytes of a token that the loss takes: logits, the same in fp32, their softmax and its gradient."""
    return (12 + size) * shape.vocab_size
