"""Time of one layer and micro-batch on one GPU, forward and backward, by term [s].

T is the tokens that one GPU's attention sees, micro_batch * seq_len / cp; T/tp of them pass its norms and its router.
R = T/tp * k * etp rows reach its E/ep experts. Element-wise kernels are counted by the bytes that they must move, with
every array read or written once a pass, and times `Constants.traffic` over the memory's peak bandwidth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from moeplan.architecture.attention import Attention
from moeplan.architecture.attention.recurrent import Recurrent
from moeplan.architecture.counting import (
    Shape,
    Size,
    attentions,
    blocks_of,
    dense_ffns,
    expert_width,
    experts_gated,
    has_latent,
    sub_layers,
)
from moeplan.cost.devices import Device
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.throughput.kernels import (
    BACKWARD_ATTENTION,
    Rates,
    attention_forward,
    trained_grouped_product,
    trained_product,
)
from moeplan.cost.training.throughput.settings import Constants, Software, rates
from moeplan.numerics.elementwise import anywhere, largest, least, where

TERMS = ("products", "attention", "traffic", "dispatch", "tensor", "context", "output", "host")
"""Terms of a micro-batch on one stage."""

_COLLECTIVE_START = 20e-6
"""Start of one tensor-parallel collective [s]."""
_EXCHANGE_START = 46e-6
"""Start of one exchange of rows between two GPUs [s], the calibration's starting point for an all-to-all."""
_PLAIN_TENSOR = 1 / 0.75
"""Bytes over time of an all-gather without overlap: 512 MiB on 8 H100 in 1.40 ms is 0.75 of the links' peak (NCCL 2.29,
aiconfigurator 095f58a)."""
_BIAS_PASSES = 14
"""Passes over what biased experts give out, forward and backward: biases added, and summed up again, and the clamped
gate of gpt-oss, by kernels of their own."""
_GROUPED_LAUNCHES = 0.6
"""Exponent of the local experts in their launches: padding and quantising are grouped in part."""
_CHUNK = 128
"""Tokens that a recurrence takes at a time (Megatron-Core's and mamba-ssm's Mamba-2; arXiv 2405.21060, section 6)."""
_COLLECTIVE = 0.8
"""Share of the links' peak of large all-gathers and reduce-scatters."""

Terms = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class StepSetting:
    """What a step's time depends on beside the shape."""

    layout: Layout
    """How it is spread."""
    device: Device
    """On which GPUs."""
    seq_len: int
    """Tokens of a sequence."""
    precision: str
    """Of matrix products."""
    software: Software
    """By what software."""
    constants: Constants
    """With which constants."""
    balanced: bool = False
    """Whether routing is forced to be even."""
    recomputed: frozenset[str] = frozenset()
    """What the backward pass does again: full, moe, mlp, mla_up_proj, moe_act, layernorm (Megatron's names)."""
    counted: dict[tuple[object, ...], Any] = field(default_factory=dict)
    """What was counted of the same shape, taken again by settings that differ in layout and recomputation alone."""
    rows: tuple[int, ...] = ()
    """Degrees of expert parallelism that a MoE layer is timed under at once, in rows, in place of the layout's."""
    sizes: tuple[int, ...] = ()
    """Micro-batches that it is timed for at once, each with its rows, in place of the layout's."""

    def once(self, key: tuple[object, ...], count: Callable[[], Any]) -> Any:
        """What `count` gives, counted once for all settings that agree in `key`."""
        if key not in self.counted:
            self.counted[key] = count()
        return self.counted[key]

    @cached_property
    def rates(self) -> Rates:
        """What the kernels sustain."""
        return rates(self.device, self.precision, self.constants)

    @property
    def ep(self) -> Size:
        """GPUs that whole experts are spread over."""
        return np.array(self.rows)[:, None] if self.rows else self.layout.ep

    @property
    def low(self) -> bool:
        """Whether products are in less than bf16."""
        return self.precision != "bf16"

    @property
    def link(self) -> float:
        """Peak of the links one way [bytes/s]."""
        return self.device.link_bandwidth or self.device.network_bandwidth

    @property
    def micro_batch(self) -> Size:
        """Sequences of a micro-batch."""
        return np.array(self.sizes)[:, None, None] if self.sizes else self.layout.micro_batch

    @property
    def tokens(self) -> Size:
        """T: tokens of a micro-batch that one GPU's attention sees."""
        return self.micro_batch * self.seq_len / self.layout.cp

    @property
    def split_tokens(self) -> Size:
        """Tokens that its norms and its router see."""
        return self.tokens / self.layout.tp if self.layout.splits_sequence else self.tokens

    @property
    def tokens_key(self) -> object:
        """What tells `tokens` apart."""
        return (self.sizes, self.layout.cp) if self.sizes else self.tokens

    @property
    def split_key(self) -> object:
        """What tells `split_tokens` apart."""
        pieces = self.layout.tp if self.layout.splits_sequence else 1
        return (self.sizes, self.layout.cp, pieces) if self.sizes else self.split_tokens

    @property
    def traffic(self) -> float:
        """Seconds of a byte that element-wise kernels must move."""
        return self.constants.traffic / self.device.bandwidth

    def ring(self, size: Size, group: int, stride: int) -> Size:
        """Seconds of a gather or scatter whose whole is `size` bytes, over `group` GPUs `stride` apart."""
        members = max(self.device.link_domain // stride, 1)
        link, network = self.link * _COLLECTIVE, self.device.network_bandwidth * self.constants.network
        return size * (group - 1) / group / (link if group <= members else min(link, members * network))


_AGAIN = {
    "none": frozenset[str](),
    "selective": frozenset(("layernorm", "moe_act", "mla_up_proj")),
    "full": frozenset(("full",)),
}


def recomputed_by(layout: Layout) -> frozenset[str]:
    """What a layout's recomputation does again, in Megatron's names."""
    return _AGAIN[layout.recompute]


def layer_terms(shape: Shape, setting: StepSetting, moe: bool) -> Terms:
    """Seconds by term of one layer of `shape`, MoE or not, averaged over its kinds of attention and dense parts."""
    layout = setting.layout
    size = setting.sizes or layout.micro_batch
    split = layout.tp, layout.cp, size, layout.sequence_parallel, setting.recomputed
    mixing: Terms = setting.once(("mixing", *split), lambda: _mixing(shape, setting))
    block = _moe(shape, setting) if moe else _dense(shape, setting)
    return mixing | {name: mixing[name] + seconds for name, seconds in block.items()}


def _mixing(shape: Shape, setting: StepSetting) -> Terms:
    """Norms, residual sums and attention of one layer, averaged over its kinds of attention."""
    kinds = attentions(shape)
    total = dict.fromkeys(TERMS, 0.0)
    total["traffic"] = _between(shape, setting)
    for place, (blocks, attention) in enumerate(kinds):
        if not attention.matrices(shape.d_model):
            continue
        terms = _attention(shape.d_model, attention, place, setting)
        share = blocks / shape.num_layers if len(kinds) > 1 else 1
        total |= {name: total[name] + share * seconds for name, seconds in terms.items()}
    return total


def _between(shape: Shape, setting: StepSetting) -> Size:
    """Norms and residual sums, one of each for attention and for a feed-forward part, 14 passes each [s]."""
    again = 1 + 0.35 * _again(setting) + 4 / 28 * float("layernorm" in setting.recomputed)
    return (
        14 * 2 * sub_layers(shape) / shape.num_layers * setting.split_tokens * shape.d_model * setting.traffic * again
    )


def _again(setting: StepSetting, *modules: str) -> float:
    return float(bool(setting.recomputed & {"full", *modules}))


def _quantise(setting: StepSetting) -> float:
    """Bytes a number that enters a product in low precision: written once more, read as bf16 by the kernel before."""
    return 1.0 if setting.low else 0.0


def _attention(d_model: Size, whole: Attention, place: int, setting: StepSetting) -> Terms:
    """Maps, scores, norms and collectives of one attention block, the shape's `place`th."""
    r, t, layout = setting.rates, setting.tokens, setting.layout
    share = whole.on_device(layout.tp)  # one GPU's
    products, again = setting.once(
        ("attention", place, layout.tp, setting.tokens_key), lambda: _products(r, t, share.stored_matrices(d_model))
    )
    up = 2 * t * share.recomputed_params(d_model) / r.flops
    products = products + again * _again(setting) + up * float("mla_up_proj" in setting.recomputed)

    if isinstance(share, Recurrent):
        attention, moved = _recurrence(share, setting)
    else:
        attention, moved = _softmax(share, whole, setting)
    gradients = share.gradient_widths[1]
    kept = gradients - share.width  # queries, keys and values
    moved = moved + _quantise(setting) * (4 * t * d_model + t * share.width)
    biases = float(getattr(whole, "qkv_bias", False)) + float(getattr(whole, "output_bias", False))
    moved = moved + biases * 6 * t * kept
    context = 0.0
    if layout.cp > 1:
        context = 3 * setting.ring(2 * t * layout.cp * share.passed_width, layout.cp, layout.tp)
    return {
        "products": products,
        "attention": attention,
        "traffic": moved * setting.traffic * (1 + 0.35 * _again(setting)),
        "tensor": _tensor(d_model, setting),
        "context": context * setting.constants.exposed,
    }


def _softmax(share: Attention, whole: Attention, setting: StepSetting) -> tuple[Size, Size]:
    """Scores and weighted values forward and backward [s], and bytes moved by rotation and norms of heads.

    Scores have the width of queries, values that of the output: `score_flops` counts both by the latter. A window is
    worked on as a sequence of its length would be.
    """
    t, r, (queries, gradients) = setting.tokens, setting.rates, share.gradient_widths
    scores = share.score_flops(setting.seq_len, causal=True) / 3 * (queries + share.width) / (2 * share.width)
    reach = getattr(whole, "window", 0) or setting.seq_len
    forward = attention_forward(
        r, t * scores, min(reach, setting.seq_len), whole.width / getattr(whole, "num_heads", 1)
    )
    rotary = {"mla": 8, "gqa": 6}.get(whole.kind, 6) + 4 * (getattr(whole, "qk_norm", "none") != "none")
    return forward * (1 + BACKWARD_ATTENTION + _again(setting)), rotary * 2 * t * (gradients - share.width)


def _recurrence(share: Recurrent, setting: StepSetting) -> tuple[Size, Size]:
    """A recurrence in chunks, forward and backward, with its starts [s]; bytes of its convolution, gate and states.

    Beside the state's own products a chunk has scores of its tokens among themselves, causal: _CHUNK FLOPs for each
    feature that enters. Its inputs pass 9 times (5 in the convolution), its output 10 (8 in gate and norm), and a state
    a chunk, in fp32, 6 times.
    """
    t, state = setting.tokens, share.state_numbers
    inside = np.minimum(state, 1) * _CHUNK * share.convolved_width
    forward = t * (share.prefill_flops(1) + inside) / setting.rates.recurrent_flops
    moved = t * (2 * (9 * share.convolved_width + 10 * share.width) + 6 * 4 * state / _CHUNK)
    seconds = forward * (1 + BACKWARD_ATTENTION + _again(setting))
    return seconds + np.minimum(state, 1) * setting.constants.recurrent_start, moved


def _products(rates: Rates, tokens: Size, matrices: list[tuple[Size, Size]]) -> tuple[Size, Size]:
    """Products of tokens by (output, input) matrices with their gradients, and the products alone [s]."""
    passes = [trained_product(rates, tokens, n, k) for n, k in matrices]
    return sum(both for both, _ in passes), sum(forward for _, forward in passes)


def _tensor(d_model: Size, setting: StepSetting) -> Size:
    """Four collectives of T*d: a gather and a scatter forward, two backward (arXiv 2205.05198, section 4.2.2)."""
    tp = setting.layout.tp
    if tp == 1:
        return 0.0
    one = 2 * setting.tokens * d_model * (tp - 1) / tp / setting.link + _COLLECTIVE_START
    exposed = setting.constants.tensor if setting.software.overlap_tensor else _PLAIN_TENSOR
    return 4 * one * exposed * (1 + 0.5 * _again(setting))


def _feed_forward(d_model: Size, width: Size, gated: bool, setting: StepSetting) -> tuple[Size, Size, Size]:
    """(products, their forward part, bytes moved) of one feed-forward part of `width` features on all T tokens."""
    t = setting.tokens
    products, again = _products(setting.rates, t, [((1 + gated) * width, d_model), (d_model, width)])
    moved = _activation_bytes(t, width, gated, setting) + _quantise(setting) * 2 * t * d_model
    return products, again, moved


def _activation_bytes(rows: Size, width: Size, gated: bool, setting: StepSetting) -> Size:
    """Bytes of an activation: gated 3 numbers forward, 5 backward; else 2 and 3. Its results once more in low
    precision."""
    return rows * width * ((16 if gated else 10) + (2 + gated) * _quantise(setting))


def _dense(shape: Shape, setting: StepSetting) -> Terms:
    """Dense parts, averaged over the layers without experts, some of which may have none."""
    tp, gated, without = setting.layout.tp, blocks_of(shape).gated, shape.num_layers - shape.num_moe_layers
    total = dict.fromkeys(TERMS, 0.0)
    for place, (blocks, width) in enumerate(dense_ffns(shape)):
        products, again, moved = setting.once(
            ("dense", place, tp, setting.tokens_key),
            lambda width=width: _feed_forward(shape.d_model, width / tp, gated, setting),  # type: ignore[misc]
        )
        terms = {
            "products": products + again * _again(setting, "mlp"),
            "traffic": moved * setting.traffic * (1 + 0.35 * _again(setting)),
            "tensor": _tensor(shape.d_model, setting),
            "host": _host_dense(setting),
        }
        share = blocks / np.maximum(without, 1)
        total = {name: total[name] + share * terms.get(name, 0.0) for name in TERMS}
    return total


def _host_dense(setting: StepSetting) -> float:
    return setting.constants.host_dense * {"none": 1.0, "partial": 0.5, "full": 0.0}[setting.software.graph]


def _moe(shape: Shape, setting: StepSetting) -> Terms:
    """Router, exchange of rows, experts and shared experts of one MoE layer; its host time stands apart."""
    layout, d, gated = setting.layout, shape.d_model, blocks_of(shape).gated
    split = setting.split_tokens
    experts = setting.rows or layout.ep, layout.etp, setting.split_key
    products, again, moved, activation = setting.once(("routed", *experts), lambda: _routed(shape, setting))
    moved = moved + 6 * activation * float("moe_act" in setting.recomputed)
    shared = shape.num_shared_experts * shape.d_shared_expert + shape.d_dense_residual
    has_shared = np.minimum(shared, 1) * 1.0
    if np.any(shared):
        more, more_again, more_moved = setting.once(
            ("shared", layout.tp, setting.tokens_key), lambda: _feed_forward(d, shared / layout.tp, gated, setting)
        )
        products, again, moved = (
            products + has_shared * more,
            again + has_shared * more_again,
            moved + has_shared * more_moved,
        )
    uneven = 1.0 if setting.balanced else setting.constants.imbalance
    tensor = has_shared * _tensor(d, setting)
    if layout.etp > 1:
        rows = split * shape.num_active_experts * layout.etp
        tensor = tensor + 4 * setting.ring(2 * rows * expert_width(shape), layout.etp, 1)
    exchanges = setting.once(("exchanges", *experts), lambda: _exchanges(shape, setting))
    return {
        "products": uneven * products + again * _again(setting, "moe"),
        "traffic": uneven * moved * setting.traffic * (1 + 0.35 * _again(setting, "moe")),
        "dispatch": uneven * exchanges * (1 + 0.5 * _again(setting, "moe")),
        "tensor": tensor,
        "host": host_moe(shape, setting),
    }


def _routed(shape: Shape, setting: StepSetting) -> tuple[Size, Size, Size, Size]:
    """(products, their forward part, bytes moved, numbers of the activation) of router and routed experts.

    Maps into and out of a latent width are on every GPU, for the tokens that its router sees.
    """
    layout, software, r = setting.layout, setting.software, setting.rates
    split, inner, gated = setting.split_tokens, expert_width(shape), experts_gated(shape)
    local = shape.num_experts / setting.ep
    rows = split * shape.num_active_experts * layout.etp
    width = shape.d_expert / layout.etp
    columns = (1 + gated) * width
    in_products, in_again = trained_grouped_product(r, local, rows / local, columns, inner)
    out_products, out_again = trained_grouped_product(r, local, rows / local, inner, width)

    inside = _activation_bytes(rows, width, gated, setting) + _quantise(setting) * rows * inner
    if shape.expert_bias:
        inside = inside + _BIAS_PASSES * 2 * rows * (columns + inner)
    fused = setting.constants.fused if software.fused_experts else 1.0
    # sorted by destination and by expert, and back, forward and backward; a flexible dispatcher sorts once
    sorting = rows * inner * 2 * (8 if software.dispatcher == "flex" else 12)
    d = shape.d_model
    router = 24 * split * shape.num_experts + 8 * split * d
    products = in_products + out_products + 12 * split * d * shape.num_experts / r.bf16_flops
    again = in_again + out_again
    if has_latent(shape):
        down, up = (trained_product(r, split, *sizes) for sizes in ((inner, d), (d, inner)))
        products, again = products + down[0] + up[0], again + down[1] + up[1]
    return products, again, inside * fused + sorting + router, rows * width * fused


def _exchanges(shape: Shape, setting: StepSetting) -> Size:
    """Dispatch and combine, forward and backward [s]: rows inside the link domain, then those that leave it.

    An all-to-all sends a row for each expert of a token; a flexible dispatcher sends the token once to each GPU of its
    domain and once to each other domain that holds one of its experts: n*(1 - (1 - 1/n)^k) of n.
    """
    layout, device, constants = setting.layout, setting.device, setting.constants
    ep, k, split = setting.ep, shape.num_active_experts, setting.split_tokens
    if not anywhere(ep > 1):
        return 0.0
    members = largest((least(device.link_domain // layout.etp, ep), 1))
    domains = largest((ep / members, 1))
    if setting.software.dispatcher == "flex":
        inside = split * ep * (1 - (1 - 1 / ep) ** k) * (members - 1) / members
        outside = split * domains * (1 - (1 - 1 / domains) ** k) * (domains - 1) / domains
    else:
        inside, outside = split * k * (members - 1) / ep, split * k * (ep - members) / ep
    row = 2 * expert_width(shape)
    one = _EXCHANGE_START + constants.peer * (ep - 1) + row * inside / (constants.link * setting.link)
    one = one + row * outside / (constants.network * device.network_bandwidth)
    return where(ep > 1, 4 * one * (1 - constants.hidden * setting.software.overlap_dispatch), 0.0)


def host_moe(shape: Shape, setting: StepSetting) -> Size:
    """Host time of one MoE layer [s]: launches, and in low precision more with every local expert."""
    software, constants = setting.software, setting.constants
    if software.graph == "full":
        return 0.0
    base = constants.host_layer if software.graph == "none" else constants.host_graph
    padded = software.drop_tokens and software.dispatcher == "alltoall"  # rows come in blocks of one size
    local = shape.num_experts / setting.ep
    each = constants.host_expert * local**_GROUPED_LAUNCHES if setting.low and not padded else 0.0
    return base + each


def sync_moe(setting: StepSetting) -> float:
    """Wait of one MoE layer for the count of rows an expert [s]; none where shapes are fixed."""
    software = setting.software
    return 0.0 if software.graph == "full" or software.drop_tokens else setting.constants.sync
