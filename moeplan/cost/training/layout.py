"""Layouts that fit: every way to spread an architecture over given GPUs, kept if it may and fits, fastest first.

The order is that of `moeplan.cost.training.throughput`, a calibrated model whose terms come with every layout, for
free routing unless it is said to be forced. Where a model FLOPs utilisation is given, the fastest layout is taken to
reach it and the others keep their ratio.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import HEADROOM, Gpus
from moeplan.cost.training.memory import Counted, TrainingMemory, TrainingSettings, training_memory
from moeplan.cost.training.parallelism import Layout, Recompute
from moeplan.cost.training.states import load_scheme
from moeplan.cost.training.throughput.settings import Software
from moeplan.cost.training.throughput.step import Counted as StepCounted
from moeplan.cost.training.throughput.step import StepTime, step_time
from moeplan.cost.training.throughput.words import DEFAULT_SOFTWARE
from moeplan.errors import InfeasibleError, UsageError
from moeplan.units import format_decimal_bytes


@dataclass(frozen=True, kw_only=True)
class LayoutSpace:
    """Degrees and recomputations that the search may choose from. Raises `UsageError` for an empty choice."""

    max_tp: int = 8
    """Largest tp: GPUs that one node joins by its links."""
    max_pp: int = 64
    """Most pipeline stages."""
    max_cp: int = 0
    """Largest cp; 0 allows none up to sequences of 8192 tokens, and 16 beyond."""
    max_etp: int = 8
    """Largest etp."""
    micro_batches: tuple[int, ...] = (1, 2, 4)
    """Sequences of a micro-batch to try."""
    recompute: tuple[Recompute, ...] = ("none", "selective", "full")
    """Recomputation to try."""
    virtual_stages: tuple[int, ...] = (1,)
    """Chunks of layers a stage to try."""

    def __post_init__(self) -> None:
        for name in ("micro_batches", "recompute", "virtual_stages"):
            if not getattr(self, name):
                raise UsageError(f"{name} is empty; give at least one value")

    def degrees(self, num_gpus: int, architecture: Architecture, seq_len: int) -> Iterator[tuple[int, ...]]:
        """Every (tp, pp, cp, dp, ep, etp) whose GPUs are `num_gpus` and whose experts' grid fills a stage."""
        max_cp = self.max_cp or (1 if seq_len <= 8192 else 16)
        experts = max(architecture.num_experts if architecture.num_moe_layers else 1, 1)
        max_etp = self.max_etp if architecture.num_moe_layers else 1
        # Only degrees that divide what they split: the rest would break a rule of `Layout.problems`.
        for pp in _divisors(num_gpus, min(self.max_pp, architecture.num_layers)):
            stage = num_gpus // pp
            for tp in _divisors(math.gcd(stage, architecture.num_heads), self.max_tp):
                for cp in _divisors(stage // tp, max_cp):
                    for etp in _divisors(math.gcd(stage, architecture.d_expert or 1), max_etp):
                        for ep in _divisors(math.gcd(stage // etp, experts), experts):
                            yield tp, pp, cp, stage // tp // cp, ep, etp

    def layouts(self, num_gpus: int, architecture: Architecture, batch: int, seq_len: int) -> Iterator[Layout]:
        """Every layout of the space that breaks no rule of `Layout.problems` and divides the batch."""
        for tp, pp, cp, dp, ep, etp in self.degrees(num_gpus, architecture, seq_len):
            if batch % dp:
                continue
            base = Layout(tp=tp, pp=pp, cp=cp, dp=dp, ep=ep, etp=etp)
            if base.problems(architecture, seq_len):
                continue
            for micro, again, chunks in itertools.product(self.micro_batches, self.recompute, self.virtual_stages):
                layout = dataclasses.replace(base, micro_batch=micro, recompute=again, virtual_stages=chunks)
                if batch % (dp * micro):
                    continue
                # An interleaved schedule deals micro-batches in rounds of pp.
                rounds = batch // (dp * micro) % pp == 0
                if chunks == 1 or (rounds and not layout.problems(architecture, seq_len)):
                    yield layout


@dataclass(frozen=True)
class RankedLayout:
    """A layout that fits, with what it needs and how long a step takes."""

    layout: Layout
    """The layout."""
    memory: TrainingMemory
    """Its memory by stage and group."""
    time: StepTime
    """Time of a step by term, as the model has it or scaled to the utilisation given (`LayoutPlan.relative`)."""

    @property
    def bytes_per_gpu(self) -> float:
        """Memory of a GPU of its heaviest stage [bytes]."""
        return self.memory.total


@dataclass(frozen=True)
class LayoutPlan:
    """Layouts that fit, fastest first."""

    gpus: Gpus
    """The GPUs."""
    batch: int
    """Sequences of a step."""
    settings: TrainingSettings
    """Sequence length, optimizer and the rest."""
    usable_bytes: float
    """Memory of a GPU that may be used [bytes]."""
    relative: bool
    """Whether times only compare layouts: true unless a utilisation was given."""
    ranked: tuple[RankedLayout, ...]
    """The layouts that fit, fastest first; ties by less memory."""
    num_allowed: int
    """Layouts that break no rule, fitting or not."""

    @property
    def best(self) -> RankedLayout:
        """The fastest layout."""
        return self.ranked[0]


@functools.cache
def _divisors(n: int, most: int) -> tuple[int, ...]:
    return tuple(i for i in range(1, min(n, most) + 1) if n % i == 0)


def allowed_layouts(
    architecture: Architecture,
    num_gpus: int,
    batch: int,
    settings: TrainingSettings | None = None,
    space: LayoutSpace | None = None,
) -> list[tuple[Layout, TrainingMemory]]:
    """Every layout of the space that breaks no rule, with its memory."""
    settings, space = settings or TrainingSettings(), space or LayoutSpace()
    counted = Counted()
    result = []
    for layout in space.layouts(num_gpus, architecture, batch, settings.seq_len):
        m = batch // (layout.dp * layout.micro_batch)
        own = dataclasses.replace(settings, num_micro_batches=m)
        result.append((layout, training_memory(architecture, layout, own, counted)))
    return result


def search_layouts(
    architecture: Architecture,
    gpus: Gpus,
    batch: int,
    settings: TrainingSettings | None = None,
    *,
    memory_bytes: int | None = None,
    headroom: float = HEADROOM,
    space: LayoutSpace | None = None,
    precision: str = "bf16",
    software: str | Software = DEFAULT_SOFTWARE,
    balanced: bool = False,
    mfu: float | None = None,
) -> LayoutPlan:
    """Every layout of `space` that runs `architecture` on `gpus` within memory, fastest first.

    `batch` is the sequences of a step; `memory_bytes` is a GPU's memory, by default its device's; `headroom` is the
    share of it that stays free, for what the allocator reserves, NCCL and the CUDA context. `precision`, `software` and
    `balanced` are those of `throughput.step.step_time`. With `mfu` the fastest
    layout's step is scaled to reach that share of the bf16 peak. Raises `InfeasibleError` with the nearest layout.
    """
    settings = settings or TrainingSettings()
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise UsageError(f"batch {batch!r} must be a whole number of at least 1")
    if not 0 <= headroom < 1:
        raise UsageError(f"headroom {headroom!r} must be at least 0 and below 1, for example 0.1")
    if mfu is not None and not 0 < mfu <= 1:
        raise UsageError(f"mfu {mfu!r} must be above 0 and at most 1, for example 0.35")
    usable = (memory_bytes or gpus.device.memory_bytes) * (1 - headroom)
    allowed = allowed_layouts(architecture, gpus.count, batch, settings, space)
    if not allowed:
        raise InfeasibleError(
            f"no layout of {gpus.count} GPUs divides {architecture.num_heads} heads, {architecture.num_experts} "
            f"experts and a batch of {batch} sequences over at most {architecture.num_layers} stages; "
            "try a power of two of GPUs and a batch that is a multiple of it"
        )
    fitting = [(layout, memory) for layout, memory in allowed if memory.total <= usable]
    if not fitting:
        layout, memory = min(allowed, key=lambda pair: pair[1].total)
        raise InfeasibleError(
            f"training needs at least {format_decimal_bytes(memory.total)} a GPU on {gpus.count} GPUs "
            f"(layout {layout}), and {format_decimal_bytes(usable)} are usable; use more GPUs or more memory"
        )
    counted: StepCounted = {}
    ranked = [
        RankedLayout(
            layout,
            memory,
            step_time(
                architecture,
                layout,
                gpus.device,
                batch,
                settings.seq_len,
                precision=precision,
                software=software,
                balanced=balanced,
                sharded_weights="weights" in load_scheme(settings.optimizer).split,
                counted=counted,
            ),
        )
        for layout, memory in fitting
    ]
    ranked.sort(key=_order)
    if mfu is not None:
        best = ranked[0].time
        factor = best.model_flops / (gpus.device.bf16_flops * mfu) / best.total
        ranked = [dataclasses.replace(x, time=_scaled(x.time, factor)) for x in ranked]
    return LayoutPlan(gpus, batch, settings, usable, mfu is None, tuple(ranked), len(allowed))


def _order(ranked: RankedLayout) -> tuple[float, float, str]:
    return float(ranked.time.total), ranked.bytes_per_gpu, str(ranked.layout)


def _scaled(time: StepTime, factor: float) -> StepTime:
    return dataclasses.replace(time, seconds={name: value * factor for name, value in time.terms().items()})


def least_training_bytes(
    architecture: Architecture,
    num_gpus: int,
    batch: int,
    settings: TrainingSettings | None = None,
    space: LayoutSpace | None = None,
) -> tuple[Layout, TrainingMemory] | None:
    """The layout that needs least memory a GPU, and that memory; None if no layout breaks no rule."""
    allowed = allowed_layouts(architecture, num_gpus, batch, settings, space)
    return min(allowed, key=lambda pair: pair[1].total, default=None)
