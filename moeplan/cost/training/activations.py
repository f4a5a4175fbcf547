"""Activations that one GPU keeps of one layer for the backward pass, tensor by tensor, and what its passes add [bytes].

Written for bf16 (2 bytes), flash attention (no scores are kept, arXiv 2205.14135), gated feed-forward blocks with a
fused activation, no dropout, no biases; what attention keeps is `Attention.activations`. Ungated blocks have one
projection in; a latent width (`Architecture.d_latent`) is that of the rows that travel to experts. T is the tokens of a
micro-batch on one GPU, micro_batch * seq_len / cp; norms and residuals keep T/tp of them under sequence parallelism. R
is the rows that reach the experts of one GPU, T/tp * k * etp when tokens are spread evenly. Each tensor is one that a
module saves for its backward pass in Megatron-Core 0.14 on TransformerEngine 2 (megatron/core/transformer;
transformer_engine/pytorch). Term by term it is the list of the worked example of DeepSeek-V3 in
yanring/Megatron-MoE-ModelZoo (misc/tools/deepseek_mem_estimate.py, e865051).

Sizes may be those of one architecture or arrays of many, as in `moeplan.architecture.counting`; bytes follow them.

Recomputation: "none" keeps every tensor. "selective" drops the outputs of norms, of the routed experts' activation and
of MLA's up-projections, and computes them again (Megatron's `--recompute-granularity selective --recompute-modules
layernorm moe_act mla_up_proj`). "full" keeps only the input of every `recompute_layers` layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from moeplan.architecture import counting
from moeplan.architecture.counting import Shape, Size
from moeplan.cost.training.kinds import LayerKind, trained_attentions
from moeplan.cost.training.parallelism import Layout
from moeplan.numerics.elementwise import anywhere, largest, least

_BF16, _FP32 = 2, 4


class KeptTensor(NamedTuple):
    """One tensor kept for the backward pass."""

    name: str
    """Its name."""
    bytes: Size
    """Its size on one GPU [bytes]."""
    part: str
    """Sub-block it belongs to: "attention" or "ffn"."""
    selective: bool = False
    """Whether selective recomputation drops it."""


@dataclass(frozen=True)
class Tokens:
    """Tokens and rows of one micro-batch on one GPU."""

    full: float
    """T: tokens that attention and dense matrices see."""
    split: float
    """Tokens that norms, residuals and the router see: T/tp under sequence parallelism."""
    routed: Size
    """Rows this GPU sends to experts: split * k * imbalance."""
    expert: Size
    """R: rows that reach its own experts, gathered over etp: routed * etp."""


def tokens_of(layout: Layout, seq_len: int) -> tuple[float, float]:
    """`Tokens.full` and `Tokens.split` of a layout."""
    full = layout.micro_batch * seq_len / layout.cp
    return full, full / layout.tp if layout.splits_sequence else full


def tokens(architecture: Shape, layout: Layout, seq_len: int, imbalance: float = 1.0) -> Tokens:
    """Tokens and rows of one micro-batch on one GPU; `imbalance` is rows on the fullest GPU over an even share."""
    full, split = tokens_of(layout, seq_len)
    routed = split * architecture.num_active_experts * imbalance
    return Tokens(full, split, routed, routed * layout.etp)


def kept_tensors(
    architecture: Shape,
    layout: Layout,
    seq_len: int,
    kind: LayerKind,
    *,
    imbalance: float = 1.0,
    weighted_activation: bool = True,
) -> list[KeptTensor]:
    """Every tensor of one layer of a kind that the backward pass needs, without recomputation.

    `weighted_activation`: the router's weight multiplies the experts' activation (Megatron-Core from 0.13, where the
    combine keeps nothing); False multiplies the experts' output, which is then kept too.
    """
    d, tp = architecture.d_model, layout.tp
    t = tokens(architecture, layout, seq_len, imbalance)
    hidden = _BF16 * t.split * d
    attention = trained_attentions(architecture)[kind.place].on_device(tp)
    result = []
    if attention.matrices(d):
        result = [
            KeptTensor("attention input", hidden, "attention"),
            KeptTensor("attention norm output", hidden, "attention", selective=True),
        ]
    for x in attention.activations():
        size = (_FP32 if x.fp32 else _BF16) * (t.split if x.split else t.full) * x.width
        result.append(KeptTensor(x.name, size, "attention", selective=x.recomputed))
    if layout.cp > 1:
        # TransformerEngine keeps the output on both sides of its exchange over cp (context_parallel.py, from 2.8).
        out = _BF16 * t.full * attention.width
        result.append(KeptTensor("attention output before its exchange", out, "attention"))
    if kind.bare:
        return result
    gated = counting.blocks_of(architecture).gated
    result += [
        KeptTensor("ffn input", hidden, "ffn"),
        KeptTensor("ffn norm output", hidden, "ffn", selective=True),
    ]
    for _ in range(2, architecture.norms_per_block):
        result.append(KeptTensor("input of a further norm", hidden, "ffn"))
    if not kind.moe:
        return result + _feed_forward("dense", t.full, architecture.d_ff / tp, gated)
    if anywhere(architecture.d_dense_residual):
        result += _feed_forward("dense residual", t.full, architecture.d_dense_residual / tp, gated)
    result += [
        KeptTensor("router probabilities", _BF16 * t.split * architecture.num_experts, "ffn"),
        # int32 [T, 2E]: transformer_engine/pytorch/triton/permutation.py, make_row_id_map
        KeptTensor("row map", 2 * _FP32 * t.split * architecture.num_experts, "ffn"),
    ]
    shared = architecture.num_shared_experts * architecture.d_shared_expert
    if anywhere(shared):
        result += _feed_forward("shared experts", t.full, shared / tp, gated)
        if architecture.shared_expert_gate:
            result.append(KeptTensor("shared experts output", hidden * (shared > 0), "ffn"))
    inner, gated = counting.expert_width(architecture), counting.experts_gated(architecture)
    result.append(KeptTensor("permuted rows", _BF16 * t.expert * inner, "ffn"))
    result += _feed_forward("experts", t.expert, architecture.d_expert / layout.etp, gated, selective=True)
    if not weighted_activation:
        result.append(KeptTensor("experts output", _BF16 * t.routed * inner, "ffn"))
    if counting.has_latent(architecture):
        result.append(KeptTensor("input of the map out of the latent width", _BF16 * t.split * inner, "ffn"))
    return result


def _feed_forward(name: str, rows: Size, width: Size, gated: bool, selective: bool = False) -> list[KeptTensor]:
    """Activations that a block keeps: the projections in (the activation's input), and the activation's output."""
    return [
        KeptTensor(f"{name} gate and up" if gated else f"{name} up", (1 + gated) * _BF16 * rows * width, "ffn"),
        KeptTensor(f"{name} activation", _BF16 * rows * width, "ffn", selective=selective),
    ]


def kept_bytes(tensors: list[KeptTensor], layout: Layout, num_layers: Size = 1) -> Size:
    """Bytes kept for `num_layers` such layers of a stage and one micro-batch, under the layout's recomputation."""
    if layout.recompute == "full":
        return tensors[0].bytes * -(-num_layers // layout.recompute_layers)
    return num_layers * sum(x.bytes for x in tensors if layout.recompute == "none" or not x.selective)


def recomputed_bytes(tensors: list[KeptTensor], layout: Layout, num_layers: Size = 1) -> Size:
    """Bytes that recomputation brings back at a time, in a stage of `num_layers` such layers.

    Selective: what it drops of one layer. Full: all of `recompute_layers` layers but the input they keep.
    """
    if layout.recompute == "full":
        layers = least(layout.recompute_layers, num_layers)
        return layers * sum(x.bytes for x in tensors) - tensors[0].bytes
    return sum(x.bytes for x in tensors if x.selective and layout.recompute == "selective")


def transient_bytes(
    architecture: Shape,
    layout: Layout,
    seq_len: int,
    kind: LayerKind,
    tensors: list[KeptTensor],
    imbalance: float = 1.0,
) -> Size:
    """The most that one layer's own passes hold beyond all kept activations [bytes].

    The largest, over the steps of its forward and backward pass, of what is alive minus kept tensors already freed: the
    feed-forward block's gradients (of its activation, then of gate and up); the experts' exchanges
    (`_exchange_steps`); the attention's gradients (of queries, keys, values and output, and flash attention's fp32 sum
    for the queries). `recomputed_bytes` comes on top.
    """
    d, tp = architecture.d_model, layout.tp
    t = tokens(architecture, layout, seq_len, imbalance)
    residual = _BF16 * t.split * d
    gathered = _BF16 * t.full * d if tp > 1 else 0.0  # tp gathers the gradient, or holds it whole before the sum
    steps = []
    if kind.moe:
        width = _BF16 * t.expert * architecture.d_expert / layout.etp
        steps += _exchange_steps(architecture, layout, t)
        rows = _BF16 * t.expert * counting.expert_width(architecture)
        steps += [residual + rows + width, residual + (1 + counting.experts_gated(architecture)) * width]
    elif not kind.bare:
        width = _BF16 * t.full * architecture.d_ff / tp
        steps += [residual + gathered + width, residual + (1 + counting.blocks_of(architecture).gated) * width]
    queries, together = trained_attentions(architecture)[kind.place].on_device(tp).gradient_widths
    ffn = sum(x.bytes for x in tensors if x.part == "ffn" and not (layout.recompute == "selective" and x.selective))
    gradients = _BF16 * t.full * together
    steps.append(residual + gathered + gradients + _FP32 * t.full * queries - ffn)
    return largest(steps)


def _exchange_steps(architecture: Shape, layout: Layout, t: Tokens) -> list[Size]:
    """Rows alive while a MoE layer sends tokens to experts and back, beyond those kept [bytes].

    Megatron-LM's `MoELayer.forward` (megatron/core/transformer/moe/moe_layer.py) holds the permuted rows and what their
    exchange over ep returns in local variables until the layer ends. Beside them are first the experts' output and its
    copy in the senders' order, then that copy and what the exchange back returns, with the layer's output. The shared
    experts' output, computed first, waits all along. The backward pass holds an input and an output of each step.
    """
    inner = counting.expert_width(architecture)
    sent, rows = _BF16 * t.routed * inner, _BF16 * t.expert * inner
    exchanges = 1 + (layout.ep > 1)
    sorts = 1 + (architecture.num_experts > layout.ep)
    shared = _BF16 * t.split * architecture.d_model * (architecture.num_shared_experts > 0)
    held = exchanges * sent + shared
    output = _BF16 * t.split * architecture.d_model
    return [held + sorts * rows, held + exchanges * sent + output, output + sent + rows, output + 2 * rows]
