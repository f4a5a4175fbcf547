"""The fastest layouts of many architectures at once, against one architecture and one layout at a time."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import parse_gpus
from moeplan.cost.training.ceilings import Ceiling
from moeplan.cost.training.degrees import RECOMPUTE
from moeplan.cost.training.fastest import Trainer
from moeplan.cost.training.memory import training_bytes, training_memory
from moeplan.cost.training.memory_settings import TrainingSettings
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.throughput.step import step_time
from moeplan.plan.search.designs import joined
from moeplan.plan.search.grid import Grid

GRIDS = [Grid(), Grid(attention="mla", num_shared_experts=(0, 1, 2)), Grid(vocab_size=32768, tied_embeddings=True)]


def sample(grid: Grid, every: int, first: int = 0) -> Any:
    """Some designs of all widths of a grid, in one row."""
    tables = [table for d in grid.d_model if (table := grid.product(d)) is not None]
    return joined([table.take(np.arange(first % len(table), len(table), every)) for table in tables])[-1]


def architectures_of(designs: Any) -> list[Architecture]:
    """Each of them alone."""
    return [designs.architecture(index) for index in range(len(designs))]


@given(
    st.sampled_from(GRIDS),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.sampled_from([1, 2, 8, 64]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 4]),
    st.sampled_from(RECOMPUTE),
    st.sampled_from(["megatron", "fsdp2", "adam8bit", "zero3"]),
    st.integers(0, 20_000),
)
@settings(max_examples=30)
@example(grid=GRIDS[0], tp=1, pp=8, ep=1, cp=1, micro=4, recompute="none", optimizer="megatron", first=0)
def test_memory_and_rules_of_many_are_those_of_each(
    grid: Grid, tp: int, pp: int, ep: int, cp: int, micro: int, recompute: Any, optimizer: str, first: int
) -> None:
    """Many at once, a layout suits whom no rule of it forbids, and needs the bytes that each alone needs."""
    designs = sample(grid, 40_000, first)
    layout = Layout(tp=tp, pp=pp, ep=ep, cp=cp, dp=64, micro_batch=micro, recompute=recompute)
    suits = np.broadcast_to(layout.suits(designs, 4096), len(designs))
    alone = architectures_of(designs)
    assert suits.tolist() == [not layout.problems(one, 4096) for one in alone]
    if not suits.any():
        return
    asked = TrainingSettings(optimizer=optimizer, num_micro_batches=2 * pp)
    many = training_bytes(designs.take(np.flatnonzero(suits)), layout, asked)
    each = [training_memory(one, layout, asked).total for one, may in zip(alone, suits, strict=True) if may]
    assert many == pytest.approx(each, rel=1e-12)


def enumerated(trainer: Trainer, one: Architecture) -> float:
    """Tokens a second of the fastest layout of one architecture, by trying every layout."""
    best = 0.0
    for degrees in trainer.degrees:
        for ep in trainer.experts:
            for spread in trainer.spreads(degrees, ep):
                layout, m = spread.layout, spread.num_micro_batches
                if layout.problems(one, trainer.seq_len):
                    continue
                asked = TrainingSettings(seq_len=trainer.seq_len, optimizer=trainer.optimizer, num_micro_batches=m)
                if training_memory(one, layout, asked).total > trainer.usable_bytes:
                    continue
                time = step_time(
                    one, layout, trainer.gpus.device, spread.batch, trainer.seq_len, precision=trainer.precision
                )
                best = max(best, spread.batch * trainer.seq_len / float(time.total))
    return best


@pytest.mark.parametrize(
    "gpus, batch, usable, precision",
    [("8xH100", 96, 72e9, "bf16"), ("60xGB200", 640, 120e9, "mxfp8")],
)
def test_the_fastest_layout_is_found(gpus: str, batch: int, usable: float, precision: str) -> None:
    """For designs of all widths, what is found is the fastest of all layouts, tried one by one."""
    trainer = Trainer(gpus=parse_gpus(gpus), batch=batch, usable_bytes=usable, precision=precision)
    designs = sample(Grid(d_model=(512, 2048, 4096)), 45_000, 9_000)
    found = trainer.fastest(designs)
    expected = [enumerated(trainer, one) for one in architectures_of(designs)]
    assert found.tokens_per_second == pytest.approx(expected, rel=1e-12)
    assert (found.place >= 0).tolist() == [speed > 0 for speed in expected]
    assert np.count_nonzero(found.place >= 0) > 0
    for high in (trainer.roof(designs), trainer.ceiling(designs), trainer.ceiling(designs, close=True)):
        assert (high >= found.tokens_per_second).all()


@given(
    st.sampled_from(GRIDS),
    st.sampled_from([("256xH100", "bf16"), ("250xH100", "fp8"), ("64xGB200", "mxfp8")]),
    st.integers(64, 4000),
    st.integers(0, 60_000),
)
@settings(max_examples=4, deadline=None)
def test_no_layout_exceeds_its_ceiling(grid: Grid, gpus: tuple[str, str], batch: int, first: int) -> None:
    """With or without a layer timed closely, no layout of a design is faster than the ceiling of its degrees and ep.

    Stages of many layers hold the one dense layer in part, so that a ceiling must not take all of theirs for MoE.
    """
    trainer = Trainer(gpus=parse_gpus(gpus[0]), batch=batch, precision=gpus[1])
    designs = sample(grid, 120_000, first)
    ceilings = [Ceiling(trainer, designs, close=close) for close in (False, True)]
    for degrees, ep in itertools.product(trainer.degrees[:: 1 + first % 5], trainer.experts):
        for spread in trainer.spreads(degrees, ep):
            suits = np.broadcast_to(spread.layout.suits(designs, trainer.seq_len), len(designs))
            speed = trainer.tokens_per_second(designs, spread, ceilings[1].counted)
            for ceiling in ceilings:
                assert (suits * speed <= ceiling.of(degrees, ep) * (1 + 1e-12)).all()


@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.integers(1, 12_000),
    st.floats(4e9, 200e9),
    st.floats(1, 4),
    st.integers(0, 10_000),
)
@settings(max_examples=3, deadline=None)
def test_more_never_makes_slower(count: int, more: int, batch: int, usable: float, factor: float, first: int) -> None:
    """More GPUs of a kind, more memory of each, or a larger batch never lower the tokens a second of any design."""
    designs = sample(Grid(d_model=(512, 1024, 3072)), 50_000, first)
    base = Trainer(gpus=parse_gpus(f"{count}xH100"), batch=batch, usable_bytes=usable)
    slow = base.fastest(designs).tokens_per_second
    for changes in (
        {"gpus": parse_gpus(f"{count + more}xH100")},
        {"usable_bytes": usable * factor},
        {"batch": batch + more},
    ):
        fast = dataclasses.replace(base, **changes).fastest(designs).tokens_per_second  # type: ignore[arg-type]
        assert (fast >= slow * (1 - 1e-12)).all()


def test_idle_gpus_are_few() -> None:
    """4,001 GPUs, a prime number, train as fast as 4,000, and no slower than 3,840 of them; few stay idle."""
    designs = sample(Grid(d_model=(4096,)), 20_000)
    speeds = {
        n: Trainer(gpus=parse_gpus(f"{n}xH100"), batch=16384, usable_bytes=72e9).fastest(designs)
        for n in (3840, 4000, 4001)
    }
    assert (speeds[4001].tokens_per_second == speeds[4000].tokens_per_second).all()
    assert (speeds[4001].tokens_per_second >= speeds[3840].tokens_per_second).all()
    used = [spread.layout.num_gpus for spread in speeds[4001].spreads]
    assert min(used) >= 3840


def test_what_is_given_stays() -> None:
    """Degrees that are given are those of every layout found."""
    designs = sample(Grid(d_model=(2048,)), 20_000)
    trainer = Trainer(gpus=parse_gpus("64xH100"), batch=512, given={"tp": 2, "pp": 4, "recompute": "full", "dp": 4})
    found = trainer.fastest(designs)
    assert found.spreads
    for spread in found.spreads:
        layout = spread.layout
        assert (layout.tp, layout.pp, layout.dp, layout.recompute) == (2, 4, 4, "full")
        assert layout.num_gpus == 32


def test_batches_are_within_the_given_one() -> None:
    """No step takes more sequences than given, each pipeline at least one micro-batch a stage."""
    trainer = Trainer(gpus=parse_gpus("96xH100"), batch=500)
    spreads = [
        spread for degrees in trainer.degrees for ep in trainer.experts for spread in trainer.spreads(degrees, ep)
    ]
    assert spreads
    for spread in spreads:
        assert spread.batch <= 500
        assert spread.num_micro_batches >= spread.layout.pp
        assert spread.layout.num_gpus <= 96
