"""A stated model of the time of one optimizer step under a layout, term by term [s].

It is for ranking layouts. Every term is work over a peak, nothing overlaps, routing is even and kernels start for free,
so that times are too short by a factor that depends on the machine. With T the tokens of a micro-batch on one GPU
before tp splits them, t = tp, and the times of the slowest pipeline stage:

* compute: FLOPs / (tp * cp) / (kernel_efficiency * peak), recomputed ones included;
* memory: weights read for the forward and backward products and gradients added to (2 + 2 + 8 bytes a param of the
  stage), and six passes over the kept activations, over the memory's bandwidth;
* tensor: gathers and scatters of 2*T*d*(t - 1)/t bytes, 4 in each attention and 4 in each dense or shared feed-forward
  block, forward and backward (arXiv 2205.05198, section 4.2.2), and those of etp around experts;
* expert: 4 all-to-alls of 2*R*d*(ep - 1)/ep bytes a MoE layer: dispatch and combine, forward and backward;
* context: keys and values round the ring once forward, and with their gradients backward;
* pipeline: activations to the next stage and gradients back; bubble: (pp - 1)/(virtual_stages * m) of the step's m
  micro-batches (arXiv 2104.04473, section 2.2);
* update: gradients summed and weights gathered over replicas, and the optimizer's pass over its state.

A group inside a device's link domain runs at its links; one that leaves it, at the network of all its members there.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import cast

from moeplan.architecture import counting
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import Device, Gpus, Precision, bundled, load_device
from moeplan.cost.training.activations import kept_tensors, tokens
from moeplan.cost.training.memory import layer_params
from moeplan.cost.training.parallelism import Layout
from moeplan.errors import InfeasibleError, UsageError


@dataclass(frozen=True, kw_only=True)
class StepAssumptions:
    """Assumptions of the model of step time."""

    precision: Precision = "bf16"
    """Of the matrix products: which peak counts."""
    kernel_efficiency: float = 0.8
    """Share of the peak that large matrix products reach: 0.80 on H100, 0.87 on A100 (Bekman, Machine Learning
    Engineering, maximum achievable matmul FLOPS)."""
    network_bandwidth: float = 50e9
    """Bandwidth of one GPU to other domains, one way [bytes/s]: a 400 Gb/s adapter each."""

    def __post_init__(self) -> None:
        if not 0 < self.kernel_efficiency <= 1:
            raise UsageError(f"kernel_efficiency {self.kernel_efficiency!r} must be above 0 and at most 1")
        if not self.network_bandwidth > 0:
            raise UsageError(f"network_bandwidth {self.network_bandwidth!r} must be above 0")


@dataclass(frozen=True)
class StepTime:
    """Time of one optimizer step by term [s]; relative, unless scaled to a known utilisation."""

    compute: float
    """Matrix products and attention, recomputed ones included."""
    memory: float
    """Weights, gradients and activations moved through the memory."""
    tensor: float
    """Collectives of tp and etp."""
    expert: float
    """All-to-alls of ep."""
    context: float
    """Keys and values of cp."""
    pipeline: float
    """Transfers between stages."""
    bubble: float
    """Waiting while the pipeline fills and drains."""
    update: float
    """Gradient sum, weight gather and optimizer."""
    model_flops: float
    """Model FLOPs of the step on one GPU: forward and backward, nothing recomputed."""

    @property
    def total(self) -> float:
        """The step [s]."""
        return sum(self.terms().values())

    def terms(self) -> dict[str, float]:
        """The terms by name; they add up to `total`."""
        names = ("compute", "memory", "tensor", "expert", "context", "pipeline", "bubble", "update")
        return {name: getattr(self, name) for name in names}

    def mfu(self, device: Device) -> float:
        """Share of the dense bf16 peak that the step's model FLOPs reach."""
        return self.model_flops / self.total / device.bf16_flops


def layer_flops(architecture: Architecture, moe: bool, seq_len: int) -> float:
    """Model FLOPs per token, forward and backward, of one dense or MoE layer: 6*active params + causal attention.

    Summed over layers, with final norms and output head, this is `counting.flops_per_token`.
    """
    layout = Layout()
    matrices, _, vectors = layer_params(architecture, layout, moe)
    experts = architecture.num_active_experts * counting.expert_params(architecture) if moe else 0
    scores = architecture.uniform_attention.score_flops(seq_len, causal=True)
    return float(6 * (matrices + vectors + experts) + scores)


def step_time(
    architecture: Architecture,
    layout: Layout,
    device: Device,
    batch: int,
    seq_len: int = 4096,
    assumptions: StepAssumptions | None = None,
    counted: Counted | None = None,
) -> StepTime:
    """Time of one step of `batch` sequences [s], by the model in the module's docstring.

    `counted` holds the layers counted for other layouts, all else being the same. Raises `InfeasibleError` for a layout
    that the architecture or the batch cannot have.
    """
    layout.check(architecture, seq_len)
    if batch % (layout.dp * layout.micro_batch):
        raise InfeasibleError(
            f"batch {batch} must be a multiple of dp {layout.dp} times micro_batch {layout.micro_batch}"
        )
    counted = {} if counted is None else counted
    model = _Costs(architecture, layout, device, seq_len, assumptions or StepAssumptions(), counted)
    m = batch // (layout.dp * layout.micro_batch)
    kinds = layout.kinds_of_stages(architecture)
    slowest = max((model.stage(*kind) for kind in kinds), key=lambda terms: sum(terms.values()))
    once = sum(slowest.values())
    tokens_per_gpu = batch * seq_len / layout.num_gpus
    return StepTime(
        **{name: m * seconds for name, seconds in slowest.items()},
        bubble=(layout.pp - 1) / layout.virtual_stages * once,
        update=max(model.update(*kind) for kind in kinds),
        model_flops=architecture.flops_per_token(seq_len) * tokens_per_gpu,
    )


@dataclass(frozen=True)
class PublishedStep:
    """A published run whose layout is known, to compare the model of step time with."""

    model: str
    """The model's name."""
    gpus: Gpus
    """The GPUs."""
    layout: Layout
    """How it was spread."""
    batch: int
    """Sequences of a step."""
    seq_len: int
    """Tokens of a sequence."""
    precision: Precision
    """Of the matrix products."""
    mfu: float
    """Share of the dense bf16 peak it reached."""
    release: str
    """NeMo container that published it."""

    def error(self, architecture: Architecture, assumptions: StepAssumptions | None = None) -> float:
        """Our utilisation over the published one, less 1; positive where the model of step time is too fast."""
        assumptions = assumptions or StepAssumptions(precision=self.precision)
        time = step_time(architecture, self.layout, self.gpus.device, self.batch, self.seq_len, assumptions)
        return time.mfu(self.gpus.device) / self.mfu - 1


@functools.cache
def published_steps() -> tuple[PublishedStep, ...]:
    """Runs of NVIDIA Megatron-Bridge's performance summary whose layout is published (`data/mfu.yaml`)."""
    steps = []
    for row in bundled("mfu.yaml").sections("layouts"):
        count, tp, pp, cp, chunks, ep, micro_batch = (
            round(row.number(key)) for key in ("gpus", "tp", "pp", "cp", "virtual_stages", "ep", "micro_batch")
        )
        dp = count // (tp * pp * cp)
        layout = Layout(tp=tp, pp=pp, ep=ep, cp=cp, dp=dp, micro_batch=micro_batch, virtual_stages=chunks)
        device = load_device(row.text("device"))
        steps.append(
            PublishedStep(
                row.text("model"),
                Gpus(count, device),
                layout,
                round(row.number("batch")),
                round(row.number("seq_len")),
                cast(Precision, row.text("precision")),
                row.number("tflops") * 1e12 / device.bf16_flops,
                row.text("release"),
            )
        )
    return tuple(steps)


Counted = dict[tuple[object, ...], tuple[dict[str, float], tuple[float, float, float]]]
"""Times of layers by term, and their params, by how they are split and what is recomputed (`Layout.layer_key`)."""


class _Costs:
    """Times of one micro-batch on one GPU of each stage."""

    def __init__(
        self,
        architecture: Architecture,
        layout: Layout,
        device: Device,
        seq_len: int,
        assumptions: StepAssumptions,
        counted: Counted,
    ) -> None:
        self.architecture, self.layout, self.device, self.seq_len = architecture, layout, device, seq_len
        self.network = assumptions.network_bandwidth
        self.link = device.link_bandwidth or self.network
        self.flops = assumptions.kernel_efficiency * device.peak(assumptions.precision)
        self.tokens = tokens(architecture, layout, seq_len)
        self.table = architecture.vocab_size * architecture.d_model / layout.tp
        kinds = {True: architecture.num_moe_layers, False: architecture.num_layers - architecture.num_moe_layers}
        self.layers, self.params = {}, {}
        for moe in (moe for moe, count in kinds.items() if count):
            key = layout.layer_key(moe)
            if key not in counted:
                counted[key] = self._layer(moe), layer_params(architecture, layout, moe)
            self.layers[moe], self.params[moe] = counted[key]

    def _members(self, stride: int) -> int:
        """GPUs of one link domain in a group whose members are `stride` apart."""
        return max(self.device.link_domain // stride, 1)

    def ring(self, size: float, group: int, stride: int) -> float:
        """Seconds of a gather or scatter whose whole is `size` bytes: (group - 1)/group of it passes each GPU."""
        members = self._members(stride)
        rate = self.link if group <= members else min(self.link, members * self.network)
        return size * (group - 1) / group / rate

    def exchange(self, size: float, group: int, stride: int) -> float:
        """Seconds of an all-to-all of `size` bytes a GPU: what stays in the domain and what leaves it, at once."""
        members = min(self._members(stride), group)
        inside, outside = size * (members - 1) / group, size * (group - members) / group
        return max(inside / self.link, outside / self.network)

    def _layer(self, moe: bool) -> dict[str, float]:
        a, layout, t = self.architecture, self.layout, self.tokens
        share = t.full / layout.tp
        flops = layer_flops(a, moe, self.seq_len)
        if layout.recompute == "full":
            flops *= 4 / 3
        elif layout.recompute == "selective":
            flops += 2 * a.uniform_attention.recomputed_params(a.d_model)
        params = sum(layer_params(a, layout, moe))
        tensors = kept_tensors(a, layout, self.seq_len, moe)
        kept = sum(x.bytes for x in tensors)
        hidden = 2 * t.full * a.d_model
        blocks = 1 + (not moe or a.num_shared_experts > 0 or a.d_dense_residual > 0)
        tensor = 4 * blocks * self.ring(hidden, layout.tp, 1)
        expert = 0.0
        if moe:
            expert = 4 * self.exchange(2 * t.routed * a.d_model, layout.ep, layout.etp)
            tensor += 4 * self.ring(2 * t.expert * a.d_model, layout.etp, 1)
        passed = a.uniform_attention.on_device(layout.tp).passed_width
        ring = self.ring(2 * t.full * layout.cp * passed, layout.cp, layout.tp)
        again = layout.recompute != "none"
        return {
            "compute": flops * share / self.flops,
            "memory": ((12 + 2 * again) * params + (6 + 2 * again) * kept) / self.device.bandwidth,
            "tensor": tensor * (1.5 if layout.recompute == "full" else 1),
            "expert": expert * (1.5 if layout.recompute == "full" else 1),
            "context": 3 * ring,
        }

    def stage(self, stage: int, num_dense: int, num_moe: int) -> dict[str, float]:
        """Seconds of one micro-batch, forward and backward, by term."""
        layout, t = self.layout, self.tokens
        counts = [(n, self.layers[moe]) for n, moe in ((num_dense, False), (num_moe, True)) if n]
        terms = {name: sum(n * layer[name] for n, layer in counts) for name in next(iter(self.layers.values()))}
        if stage == layout.pp - 1:
            terms["compute"] += 6 * self.table * t.full / self.flops
            terms["memory"] += (
                12 * self.table + 6 * 2 * t.full * self.table / self.architecture.d_model
            ) / self.device.bandwidth
        domain = self.device.link_domain
        rate = self.link if layout.num_gpus <= domain else self.network
        size = 2 * t.full / layout.tp * self.architecture.d_model
        terms["pipeline"] = 2 * layout.virtual_stages * size / rate if layout.pp > 1 else 0.0
        return terms

    def update(self, stage: int, num_dense: int, num_moe: int) -> float:
        """Seconds to sum fp32 gradients, step (read and write 12 bytes of state, read 4) and gather bf16 weights."""
        layout = self.layout
        counts = [(n, self.params[moe]) for n, moe in ((num_dense, False), (num_moe, True)) if n]
        dense = sum(n * (params[0] + params[2]) for n, params in counts)
        dense += self.table * ((stage == 0) + (stage == layout.pp - 1))
        experts = sum(n * params[1] for n, params in counts)
        seconds = 0.0
        for params, replicas, stride in (
            (dense, layout.dp * layout.cp, layout.tp),
            (experts, layout.expert_dp, layout.ep * layout.etp),
        ):
            seconds += self.ring(6 * params, replicas, stride) + 30 * params / replicas / self.device.bandwidth
        return seconds
