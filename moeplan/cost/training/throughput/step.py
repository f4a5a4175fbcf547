"""The time of one optimizer step, term by term [s]: `step_time`.

A stage's device time of one micro-batch is the sum of its layers' (`layer`), with the output head on the last; the host
must launch them in the same time: (device^4 + host^4)^(1/4), and waits add. A step has m such micro-batches, and

    step = m * stage + (pp - 1)/v * stage + transfers + update + gathers of sharded weights + constant

for the slowest stage, with v virtual stages (arXiv 2104.04473, section 2.2), times the maturity of the software.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moeplan.architecture import counting
from moeplan.architecture.counting import Shape, Size
from moeplan.cost.devices import Device
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.throughput.kernels import trained_product
from moeplan.cost.training.throughput.layer import TERMS, StepSetting, Terms, layer_terms, recomputed_by, sync_moe
from moeplan.cost.training.throughput.settings import Constants, Software, constants, load_software
from moeplan.cost.training.throughput.words import DEFAULT_SOFTWARE

STEP_TERMS = (*TERMS, "bubble", "pipeline", "update", "gather", "step", "maturity")
"""Every term of a step."""

Counted = dict[tuple[object, ...], Any]
"""What layouts of one shape have in common: layers by `Layout.layer_key`, and their parts (`StepSetting.once`)."""

_TOGETHER = ("device", "host")
"""The terms of a layer where they need not be told apart; those of a stage are one then."""
_LOGIT_PASSES = 3
"""Times that a fused cross entropy reads or writes the bf16 logits: TransformerEngine reads them, and writes their
gradient over them."""
_EXPOSED_TRANSFER = 0.25
"""Share of the transfers between stages that the schedule does not hide."""


@dataclass(frozen=True)
class StepTime:
    """Time of one optimizer step by term [s]; arrays where the shape has arrays."""

    seconds: Terms
    """Seconds by term: `STEP_TERMS`."""
    model_flops: Size
    """Model FLOPs of the step on one GPU: 6*active params + causal attention a token, nothing recomputed."""
    tokens: Size
    """Tokens of the step on one GPU."""
    touched: Size
    """Share of the time that uneven routing lengthens."""

    @property
    def total(self) -> Size:
        """The step [s]."""
        return sum(self.seconds.values())

    def terms(self) -> dict[str, Any]:
        """Seconds by term; they add up to `total`."""
        return dict(self.seconds)

    @property
    def tokens_per_second(self) -> Size:
        """Tokens a second of one GPU."""
        return self.tokens / self.total

    def mfu(self, device: Device) -> Size:
        """Share of the dense bf16 peak that the model FLOPs reach, whatever the precision."""
        return self.model_flops / self.total / device.bf16_flops


def step_time(
    shape: Shape,
    layout: Layout,
    device: Device,
    batch: int,
    seq_len: int = 4096,
    *,
    precision: str = "bf16",
    software: str | Software = DEFAULT_SOFTWARE,
    balanced: bool = False,
    sharded_weights: bool = False,
    recomputed: frozenset[str] | None = None,
    fitted: Constants | None = None,
    counted: Counted | None = None,
) -> StepTime:
    """Time of one step of `batch` sequences by the calibrated model.

    `shape` may be an `Architecture` or a grid with int64 arrays, as in `counting`; whether it obeys the layout's rules
    is the caller's to check (`Layout.check`). `sharded_weights`: weights are gathered for every pass (FSDP, ZeRO-3).
    `recomputed` names Megatron's modules where the layout's three degrees are too coarse. `counted` holds the layers
    timed for other layouts, all else being the same. Raises `UsageError` for a
    precision that the device does not have and for unknown software.
    """
    setting = StepSetting(
        layout=layout,
        device=device,
        seq_len=seq_len,
        precision=precision,
        software=load_software(software),
        constants=fitted or constants(),
        balanced=balanced,
        recomputed=recomputed_by(layout) if recomputed is None else recomputed,
        counted={} if counted is None else counted,
    )
    model = _Step(shape, setting, TERMS)
    seconds = model.seconds(batch, sharded_weights)
    tokens = batch * seq_len / layout.num_gpus
    moe = shape.num_moe_layers / shape.num_layers
    total = sum(seconds.values()) - seconds["maturity"]
    return StepTime(
        seconds=seconds,
        model_flops=(counting.flops_per_token(shape, seq_len) + model.extra_flops()) * tokens,
        tokens=tokens,
        touched=moe * (seconds["products"] + seconds["traffic"] + seconds["dispatch"]) / total,
    )


def step_seconds(shape: Shape, setting: StepSetting, batch: int, *, sharded_weights: bool = False) -> Size:
    """`StepTime.total` alone [s], in far fewer operations: for grids under many layouts."""
    return sum(_Step(shape, setting, _TOGETHER).seconds(batch, sharded_weights).values())


def layer_together(shape: Shape, setting: StepSetting, moe: bool) -> Terms:
    """`layer_terms` of a layer, those of the device in one.

    Of several micro-batches and ep in rows of rows; each is known by itself then too.
    """

    def together() -> Terms:
        terms = layer_terms(shape, setting, moe)
        return {"device": sum(value for name, value in terms.items() if name != "host"), "host": terms["host"]}

    key = setting.layout.layer_key
    if not setting.rows:
        found: Terms = setting.once(("together", *key(moe)), together)
        return found
    found = setting.once(("rows", setting.sizes, setting.rows, *key(moe)), together)
    for place, ep in enumerate(setting.rows if moe else setting.rows[:1]):
        for number, size in enumerate(setting.sizes):
            # a term may be the same for all sizes, or for all ep as well
            axes = {3: (number, place), 2: (place,)}
            own = {name: value[axes[np.ndim(value)]] if np.ndim(value) > 1 else value for name, value in found.items()}
            setting.counted["together", *key(moe, ep, size)] = own
    return found


def launched(device: Size, host: Size) -> Size:
    """Time of work that the host must launch while the device runs it [s]: (device^4 + host^4)^(1/4)."""
    a, b = device * device, host * host  # square roots are far cheaper than powers
    return np.sqrt(np.sqrt(a * a + b * b))


class _Step:
    """What the parts of a step share; `names` are the terms of a layer that are told apart."""

    def __init__(self, shape: Shape, setting: StepSetting, names: tuple[str, ...]) -> None:
        self.shape, self.setting, self.layout, self.names = shape, setting, setting.layout, names
        self.moe = setting.once(("moe layers",), lambda: shape.num_moe_layers / shape.num_layers)
        nothing = dict.fromkeys(names, 0.0)
        self.dense_layer = self._layer(False) if np.any(self.moe < 1) else nothing
        self.moe_layer = self._layer(True) if np.any(self.moe > 0) else nothing

    def _layer(self, moe: bool) -> Terms:
        if self.names == _TOGETHER:
            return layer_together(self.shape, self.setting, moe)
        terms: Terms = self.setting.once(self.layout.layer_key(moe), lambda: layer_terms(self.shape, self.setting, moe))
        return terms

    def seconds(self, batch: int, sharded_weights: bool) -> Terms:
        """Seconds by term of a step of `batch` sequences."""
        setting, layout = self.setting, self.layout
        m = batch / (layout.dp * layout.micro_batch)
        stage = self.slowest_stage()
        once = sum(stage.values())
        seconds = {name: m * value for name, value in stage.items()}
        seconds["bubble"] = (layout.pp - 1) / layout.virtual_stages * once
        seconds["pipeline"] = m * self.transfers()
        seconds["update"] = self.update()
        seconds["gather"] = m * self.gathers() if sharded_weights else 0.0
        seconds["step"] = setting.constants.step
        by = {"now": 1.0, "2025": setting.constants.maturity_2025, "2026": setting.constants.maturity_2026}
        longer = by[setting.software.maturity] - 1
        seconds["maturity"] = sum(seconds.values()) * longer if longer else 0.0
        return seconds

    def extra_flops(self) -> Size:
        """FLOPs a token of layers that predict further tokens, with an output head each."""
        shape = self.shape
        if not np.any(shape.num_mtp_layers):
            return 0
        whole = counting.flops_per_token(shape, self.setting.seq_len)
        head = 6 * shape.vocab_size * shape.d_model
        return shape.num_mtp_layers * ((whole - head) / shape.num_layers + head + 12 * shape.d_model**2)

    def slowest_stage(self) -> Terms:
        """Seconds by term of one micro-batch on the slowest stage."""
        layout, extra = self.layout, self.shape.num_mtp_layers
        chunks = layout.pp, layout.virtual_stages, layout.stage_layers
        middle, last = self.setting.once(("layers of stages", *chunks), self._layers_of_stages)
        if layout.pp == 1 or np.any(extra):
            return self._stage(middle, 1 / layout.pp)
        a, b = self._stage(middle, 0.0), self._stage(last, 1.0)
        if self.names == _TOGETHER:
            return {name: np.maximum(a[name], b[name]) for name in a}
        later = sum(b.values()) > sum(a.values())
        return {name: np.where(later, b[name], a[name]) for name in a}

    def _layers_of_stages(self) -> tuple[tuple[Size, Size], tuple[Size, Size]]:
        """(MoE, dense) layers of the stage with most layers, and of the last (`Layout.chunks`, for arrays too).

        Layers that predict further tokens are spread by hand so that stages are even.
        """
        layout, count, extra = self.layout, self.shape.num_layers, self.shape.num_mtp_layers / self.layout.pp
        if layout.stage_layers is not None:
            held = [sum(layout.stage_layers[i :: layout.pp]) for i in range(layout.pp)]
            most, last = max(held), held[-1]
        else:
            chunks = layout.pp * layout.virtual_stages
            least, rest = count // chunks, count % chunks
            first = (chunks - rest) // 2
            most = layout.virtual_stages * least - (-rest // layout.pp)
            last = layout.virtual_stages * least + (first + rest) // layout.pp - first // layout.pp

        def kinds(layers: Size) -> tuple[Size, Size]:
            return layers * self.moe + extra * (self.moe > 0), layers * (1 - self.moe) + extra * (self.moe == 0)

        return kinds(most), kinds(last)

    def _stage(self, layers: tuple[Size, Size], heads: float) -> Terms:
        """One micro-batch on a stage of so many (MoE, dense) layers, with a share of the output head."""
        moe, dense = layers
        terms = {name: moe * self.moe_layer[name] + dense * self.dense_layer[name] for name in self.names}
        host = terms.pop("host")
        key = "output", self.layout.tp, self.setting.tokens_key
        output = self.setting.once(key, self._output) if heads else 0.0
        terms["output"] = heads * (1 + self.shape.num_mtp_layers) * output
        device = sum(terms.values())
        if self.names == _TOGETHER:
            return {"device": launched(device, host) + sync_moe(self.setting) * moe}
        return terms | {"host": launched(device, host) - device + sync_moe(self.setting) * moe}

    def _output(self) -> Size:
        """The output head, in bf16, and the loss [s]."""
        setting, rows = self.setting, self.setting.tokens
        width = self.shape.vocab_size / self.layout.tp
        r = setting.rates
        products = trained_product(r, rows, width, self.shape.d_model)[0] * r.flops / r.bf16_flops
        return products + 2 * _LOGIT_PASSES * rows * width * setting.traffic

    def transfers(self) -> Size:
        """Activations to the next stage and gradients back, of all chunks of one micro-batch [s]."""
        layout, setting = self.layout, self.setting
        if layout.pp == 1:
            return 0.0
        rate = setting.link if layout.num_gpus <= setting.device.link_domain else setting.device.network_bandwidth
        size = 2 * setting.tokens / layout.tp * self.shape.d_model
        return _EXPOSED_TRANSFER * 2 * layout.virtual_stages * size / rate

    def _params(self) -> tuple[Size, Size]:
        """Params outside experts, and of experts."""
        shape, groups = self.shape, counting.params_by_group(self.shape)
        experts = shape.num_moe_layers * shape.num_experts * counting.expert_params(shape)
        latent = shape.num_moe_layers * counting.latent_params(shape)
        dense = groups["attention"] + groups["dense_ffn"] + groups["shared_experts"] + latent
        return dense + 2 * shape.vocab_size * shape.d_model, experts

    def update(self) -> Size:
        """Gradients summed in fp32 and bf16 weights gathered over replicas; 30 bytes a param of optimizer state [s].

        Of the params of one GPU of an average stage.
        """
        setting, layout = self.setting, self.layout
        replicas, bandwidth = layout.dp * layout.cp, setting.device.bandwidth
        dense = setting.ring(6, replicas, layout.tp) + 30 / replicas / bandwidth
        experts = setting.ring(6, layout.expert_dp, layout.ep * layout.etp) + 30 / layout.expert_dp / bandwidth
        outside, inside = setting.once(("params",), self._params)
        split = setting.constants.update / layout.pp
        return split / layout.tp * dense * outside + split / (layout.ep * layout.etp) * experts * inside

    def gathers(self) -> Size:
        """Weights gathered forward and backward and gradients scattered, where weights are sharded [s]."""
        outside, _ = self.setting.once(("params",), self._params)
        layout, setting = self.layout, self.setting
        each = setting.constants.exposed * setting.ring(8, layout.dp * layout.cp, 1)
        return each / layout.pp / layout.tp * outside
