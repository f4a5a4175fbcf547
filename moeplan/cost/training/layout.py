"""Every way to spread an architecture over all of some GPUs that breaks no rule, with the memory that it needs.

`LayoutSpace` has every divisor as a degree; which layouts are fastest is asked of `moeplan.cost.training.fastest`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from moeplan.architecture.shape import Architecture
from moeplan.cost.training.layer_memory import Counted
from moeplan.cost.training.memory import TrainingMemory, training_memory
from moeplan.cost.training.memory_settings import TrainingSettings
from moeplan.cost.training.parallelism import Layout, Recompute
from moeplan.errors import UsageError


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
