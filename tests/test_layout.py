"""Layouts that are allowed, against brute force and their rules, and the one that needs least memory."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import load_device, parse_gpus
from moeplan.cost.training.degrees import Spread
from moeplan.cost.training.fastest import Trainer
from moeplan.cost.training.layout import LayoutSpace, allowed_layouts, least_training_bytes
from moeplan.cost.training.memory import training_memory
from moeplan.cost.training.memory_settings import TrainingSettings
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.throughput.step import step_time
from moeplan.errors import UsageError
from tests.memory_cases import CASES, architecture, layout
from tests.published import MODELS

SMALL = Architecture(
    d_model=512,
    num_layers=6,
    vocab_size=32768,
    num_heads=8,
    num_kv_heads=4,
    d_ff=2048,
    num_experts=12,
    num_active_experts=2,
    d_expert=256,
    num_shared_experts=1,
    num_dense_layers=1,
)
DENSE = Architecture(d_model=512, num_layers=5, vocab_size=32768, num_heads=8, num_kv_heads=2, d_ff=2048)


def brute_force(model: Architecture, gpus: int, batch: int, seq_len: int) -> dict[Layout, float]:
    """Every layout of the default space, by trying all degrees up to the number of GPUs, and its memory."""
    found = {}
    degrees = range(1, gpus + 1)
    for tp, pp, ep, etp, cp, dp in itertools.product(degrees, repeat=6):
        if tp * pp * cp * dp != gpus or tp > 8 or etp > 8 or cp > 1:
            continue
        for micro, recompute in itertools.product((1, 2, 4), ("none", "selective", "full")):
            # every rule written out again
            grid = tp * cp * dp
            if grid % (ep * etp) or pp > model.num_layers or batch % (dp * micro) or seq_len % tp:
                continue
            if model.num_heads % tp or (model.num_kv_heads % tp and tp % model.num_kv_heads) or model.d_ff % tp:
                continue
            if model.is_dense:
                if ep * etp > 1:
                    continue
            elif model.num_experts % ep or model.d_expert % etp or model.d_expert * model.num_shared_experts % tp:
                continue
            one = Layout(tp=tp, pp=pp, ep=ep, etp=etp, cp=cp, dp=dp, micro_batch=micro, recompute=recompute)  # type: ignore[arg-type]
            m = batch // (dp * micro)
            found[one] = training_memory(model, one, TrainingSettings(seq_len=seq_len, num_micro_batches=m)).total
    return found


@pytest.mark.parametrize("model", [SMALL, DENSE], ids=["moe", "dense"])
@pytest.mark.parametrize("gpus, batch, seq_len", [(1, 4, 1024), (4, 8, 1024), (6, 12, 960)])
def test_layouts_equal_brute_force(model: Architecture, gpus: int, batch: int, seq_len: int) -> None:
    """On small cases the layouts are those that trying everything finds, each with its memory."""
    allowed = allowed_layouts(model, gpus, batch, TrainingSettings(seq_len=seq_len))
    assert {one: memory.total for one, memory in allowed} == brute_force(model, gpus, batch, seq_len)
    assert allowed


@given(
    st.sampled_from([SMALL, DENSE, MODELS["Qwen3-30B-A3B"], MODELS["DeepSeek-V2-Lite"]]),
    st.integers(1, 48),
    st.integers(1, 96),
    st.sampled_from([512, 1000, 4096, 32768]),
)
@settings(max_examples=60)
def test_no_layout_breaks_a_rule(model: Architecture, count: int, batch: int, seq_len: int) -> None:
    """Whatever is asked, every layout uses the GPUs and keeps every rule; or there is none."""
    space = LayoutSpace(micro_batches=(1, 2), virtual_stages=(1, 2))
    for one, memory in allowed_layouts(model, count, batch, TrainingSettings(seq_len=seq_len), space):
        assert one.num_gpus == count
        assert one.min_gpus <= count
        assert one.problems(model, seq_len) == []
        assert model.num_heads % one.tp == 0
        assert one.ep * one.etp == 1 or model.num_experts % one.ep == 0
        assert one.tp * one.cp * one.dp == one.ep * one.etp * one.expert_dp
        assert batch % (one.dp * one.micro_batch) == 0
        assert memory.total == max(stage.total for stage in memory.stages)


@pytest.mark.parametrize("model", ["llama3-70b L12", "llama3-405b L4", "deepseek-v2 L4", "deepseek-v3 L4"])
def test_measured_best_layout_is_found(model: str) -> None:
    """Of the layouts measured for a model, the fastest a token is the model's fastest too, at 32 micro-batches."""
    rows = [r for r in CASES["measured_b200"]["step_times"] if r["case"] == model and r["micro_batches"] == 32]
    measured, ours = [], []
    for row in rows:
        where = layout(row["cfg"])
        time = step_time(architecture(row["cfg"]), where, load_device("B200"), 32 * where.dp)
        measured.append(row["milliseconds"] / where.dp)
        ours.append(float(time.total) / where.dp)
    assert ours.index(min(ours)) == measured.index(min(measured))


def test_a_published_layout_is_among_the_fastest() -> None:
    """For Qwen3-30B-A3B on 16 H100 the published pp 2, ep 8, dp 8 has four fifths of the fastest layout's speed."""
    trainer = Trainer(gpus=parse_gpus("16xH100"), batch=1024, precision="fp8", given={"micro_batch": 1})
    best = trainer.ranking(MODELS["Qwen3-30B-A3B"])[0].tokens_per_second
    published = Spread(Layout(pp=2, ep=8, dp=8), 1024 // 8)
    speed = float(trainer.tokens_per_second(MODELS["Qwen3-30B-A3B"], published))
    assert 0.8 * best <= speed <= best


def test_least_memory() -> None:
    """The layout of least memory is the least of all allowed ones; None where no layout is allowed."""
    allowed = allowed_layouts(SMALL, 4, 8)
    least = least_training_bytes(SMALL, 4, 8)
    assert least is not None
    assert least[1].total == min(memory.total for _, memory in allowed)
    assert least_training_bytes(SMALL, 11, 7) is None


def test_an_empty_choice_is_refused() -> None:
    """A space without any micro-batch is refused."""
    with pytest.raises(UsageError, match="micro_batches is empty"):
        LayoutSpace(micro_batches=())
