"""What trains: GPUs, a batch and software, the layouts that there are, and what one of them takes: `Machine`.

A machine has N GPUs that are paid for and a batch B that no step exceeds. Its layouts are all tp up to 8, pp and ep up
to 64 in powers of two, micro-batches of 1, 2 and 4 sequences, cp for sequences beyond 8,192 tokens alone, and for these
the largest dp that finds room on N GPUs and in B. Other GPUs are idle, so that a number without factors wastes few and
not all. A step has m = floor(B/(dp*micro_batch)) micro-batches a pipeline, at least as many as stages. So a layout of
fewer GPUs, less memory or a smaller batch is one of more as well: more of them never makes an architecture slower.
(Where a larger dp costs a step a micro-batch, the next smaller dp are tried too.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from moeplan.architecture.counting import Shape, Size
from moeplan.cost.devices import Gpus
from moeplan.cost.training.degrees import (
    CONTEXT,
    EXPERT,
    LONG,
    MICRO_BATCHES,
    PIPELINE,
    RECOMPUTE,
    TENSOR,
    Degrees,
    Spread,
)
from moeplan.cost.training.layer_memory import Counted
from moeplan.cost.training.memory import training_bytes
from moeplan.cost.training.memory_settings import TrainingSettings
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.states import load_scheme
from moeplan.cost.training.throughput.layer import StepSetting, layer_terms, recomputed_by, sync_moe
from moeplan.cost.training.throughput.settings import Software, constants, load_software
from moeplan.cost.training.throughput.site import Site, unmeasured
from moeplan.cost.training.throughput.step import step_seconds
from moeplan.cost.training.throughput.words import DEFAULT_SOFTWARE
from moeplan.numerics import Floats

_MORE_MICRO_BATCHES = 3
"""By how many micro-batches a step with a smaller dp may have more."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What trains: GPUs, the batch, and how."""

    gpus: Gpus
    """The GPUs that are paid for."""
    batch: int
    """Most sequences of a step."""
    seq_len: int = 4096
    """Tokens of a sequence."""
    precision: str = "bf16"
    """Of matrix products."""
    software: Software = field(default_factory=lambda: load_software(DEFAULT_SOFTWARE))
    """By what software."""
    optimizer: str = "megatron"
    """Scheme of weights, gradients and optimizer state."""
    usable_bytes: float = math.inf
    """Memory of a GPU that may be used [bytes]."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """What of the layout is given, by name."""
    site: Site = field(default_factory=unmeasured)
    """How fast this site is."""
    balanced: bool = False
    """Whether routing is forced to be even, as benchmarks do."""

    @property
    def scale(self) -> float:
        """True over predicted tokens/s at this site."""
        return self.site.scale

    def choices(self, name: str, choices: tuple[Any, ...]) -> tuple[Any, ...]:
        """What is tried of a degree: the one that is given, or all."""
        return (self.given[name],) if name in self.given else choices

    @cached_property
    def degrees(self) -> tuple[Degrees, ...]:
        """All that are tried."""
        names = ("tp", "cp", "etp", "micro_batch", "pp", "virtual_stages", "recompute")
        choices = (TENSOR, CONTEXT if self.seq_len > LONG else (1,), (1,), MICRO_BATCHES, PIPELINE, (1,), RECOMPUTE)
        found = itertools.product(*map(self.choices, names, choices))
        each = (Degrees(**dict(zip(names, values, strict=True))) for values in found)
        return tuple(x for x in each if x.tp * x.cp * x.pp <= self.gpus.count and x.micro_batch * x.pp <= self.batch)

    @cached_property
    def experts(self) -> tuple[int, ...]:
        """ep that are tried."""
        return tuple(ep for ep in self.choices("ep", EXPERT) if ep <= self.gpus.count)

    def spreads(self, degrees: Degrees, ep: int) -> tuple[Spread, ...]:
        """Layouts of these degrees: with the largest dp, and with smaller ones where they may be faster."""
        if (degrees, ep) not in self._spread:
            self._spread[degrees, ep] = tuple(self._spreads(degrees, ep))
        return self._spread[degrees, ep]

    @cached_property
    def _spread(self) -> dict[tuple[Degrees, int], tuple[Spread, ...]]:
        return {}

    def _spreads(self, degrees: Degrees, ep: int) -> Iterator[Spread]:
        tp, cp, pp, etp, size = degrees.tp, degrees.cp, degrees.pp, degrees.etp, degrees.micro_batch
        multiple = ep * etp // math.gcd(ep * etp, tp * cp)
        most = min(self.gpus.count // (tp * cp * pp), self.batch // (size * pp)) // multiple * multiple
        if "dp" in self.given:
            most = self.given["dp"] if self.given["dp"] <= most and self.given["dp"] % multiple == 0 else 0
        if most == 0:
            return
        first = self.batch // (most * size)
        used = first * most * size / self.batch
        for m in range(first, first + 1 + _MORE_MICRO_BATCHES):
            dp = min(most, self.batch // (m * size) // multiple * multiple)
            if m > first and (used >= (first + pp - 1) / (m + pp - 1) or dp == 0 or "dp" in self.given):
                return
            layout = Layout(
                tp=tp, pp=pp, ep=ep, etp=etp, cp=cp, dp=dp, micro_batch=size, virtual_stages=degrees.virtual_stages,
                recompute=degrees.recompute,
            )  # fmt: skip
            # an interleaved schedule deals micro-batches in rounds of pp
            yield Spread(layout, m if degrees.virtual_stages == 1 else m // pp * pp)

    def setting(self, layout: Layout, counted: dict[tuple[Any, ...], Any] | None = None) -> StepSetting:
        """What a step's time depends on beside the shape; `counted` is shared by all layouts of one shape."""
        return StepSetting(
            layout=layout,
            device=self.gpus.device,
            seq_len=self.seq_len,
            precision=self.precision,
            software=self.software,
            constants=constants(),
            balanced=self.balanced,
            recomputed=recomputed_by(layout),
            counted={} if counted is None else counted,
        )

    def tokens_per_second(
        self, shape: Shape, spread: Spread, counted: dict[tuple[Any, ...], Any] | None = None
    ) -> Size:
        """Tokens a second of all GPUs together; `counted` as `setting` has it."""
        setting = self.setting(spread.layout, counted)
        sharded = "weights" in load_scheme(self.optimizer).split
        seconds = step_seconds(shape, setting, spread.batch, sharded_weights=sharded)
        return self.scale * spread.batch * self.seq_len / seconds

    def fits(self, shape: Shape, spread: Spread, counted: Counted | None = None) -> Size:
        """Whether each architecture's heaviest stage fits a GPU; `counted` as `training_bytes` has it."""
        limit = self.usable_bytes
        return training_bytes(shape, spread.layout, self.settings(spread), counted, limit=limit) <= limit

    def settings(self, spread: Spread) -> TrainingSettings:
        """What a step's memory depends on beside the layout."""
        return TrainingSettings(
            seq_len=self.seq_len, optimizer=self.optimizer, num_micro_batches=spread.num_micro_batches
        )

    def roof(self, designs: Any) -> Floats:
        """Tokens a second that no layout exceeds, of each of `designs`, memory aside: a bound for very many.

        Every GPU does one layer's work for as many tokens as it may take at a time, on as few experts as it may hold,
        and nothing is exchanged.
        """
        largest, ep = max(self.choices("micro_batch", MICRO_BATCHES)), self.experts[-1]
        layout = Layout(ep=ep, dp=ep, micro_batch=largest)
        setting = self.setting(layout)

        def work(shape: Shape) -> Size:
            terms = layer_terms(shape, setting, True)
            return sum(terms[name] for name in ("products", "attention", "traffic")) + sync_moe(setting)

        layers = (designs.num_layers - 1) * designs.of_layer(work)
        return np.asarray(self.scale * self.gpus.count * largest * self.seq_len / layers)

    @property
    def least_state_bytes(self) -> float:
        """Weights, gradients and optimizer state of a param, spread over all GPUs [bytes]; no layout needs less."""
        scheme = load_scheme(self.optimizer)
        # embeddings, router and norms may carry more state
        return min(sum(scheme.state_bytes(1.0, 1, vector=v).values()) for v in (False, True)) / self.gpus.count
