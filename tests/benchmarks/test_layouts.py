"""Speed of the layout search, as a ratio to counting every layout on its own: `python -m pytest tests/benchmarks`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import parse_gpus
from moeplan.cost.training.layout import search_layouts
from moeplan.cost.training.memory import TrainingSettings, training_memory
from moeplan.cost.training.throughput.step import step_time

Record = Callable[[str, object], None]

LARGE = Architecture(
    d_model=10240, num_layers=116, vocab_size=131072, num_heads=88, num_kv_heads=8, head_dim=128, d_ff=13824,
    num_experts=64, num_active_experts=5, d_expert=2304, num_shared_experts=1, num_dense_layers=1, qk_norm="head",
)  # fmt: skip
BATCH = 24_576
MAX_SHARE = 0.4
"""Most of the time of counting each layout on its own that the search may take; it takes about a fifth."""


def test_many_layouts_share_their_counts(record_property: Record) -> None:
    """Over 6144 GPUs, which divide in thousands of ways, the search takes at most 0.4 of counting each layout alone."""
    gpus = parse_gpus("6144xH100")
    shares = []
    for _ in range(3):
        start = time.perf_counter()
        plan = search_layouts(LARGE, gpus, BATCH)
        whole = time.perf_counter() - start
        sample = plan.ranked[:: len(plan.ranked) // 100]
        start = time.perf_counter()
        for ranked in sample:
            m = BATCH // (ranked.layout.dp * ranked.layout.micro_batch)
            settings = dataclasses.replace(TrainingSettings(), num_micro_batches=m)
            alone = training_memory(LARGE, ranked.layout, settings)
            assert max(stage.total for stage in alone.stages) == ranked.bytes_per_gpu
            assert step_time(LARGE, ranked.layout, gpus.device, BATCH).total == ranked.time.total
        each = (time.perf_counter() - start) / len(sample)
        shares.append(whole / (each * plan.num_allowed))
    assert plan.num_allowed > 10_000
    record_property("layouts listed", f"{plan.num_allowed:,} in {whole:.1f} s, {min(shares):.2f} of one by one")
    assert min(shares) <= MAX_SHARE
