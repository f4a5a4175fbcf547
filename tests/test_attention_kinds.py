"""Kinds of attention: one class each, found by their folder, and the same numbers by every question."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from moeplan.architecture.attention import KINDS
from moeplan.architecture.hf.config import read_config
from moeplan.architecture.plannable import PLANNABLE
from moeplan.architecture.published import published_models
from moeplan.architecture.shape import Architecture
from moeplan.cost.inference_memory import cache_bytes, kv_cache_bytes_per_token, state_bytes
from tests.published import MODELS


def test_plannable_kinds_give_whole_architectures() -> None:
    """Every kind that plans can have is a kind, and its fields at a width make an architecture."""
    for name in PLANNABLE:
        fields = {
            key: value if isinstance(value, str) else int(value)
            for key, value in KINDS[name].planned(2048, 16, 128).items()
        }
        shape = Architecture(
            d_model=2048, num_layers=4, vocab_size=100, num_heads=16, d_ff=64, attention=name, **fields
        )
        assert shape.uniform_attention.kind == name


@pytest.mark.parametrize("name", ["DeepSeek-V3", "Qwen3-30B-A3B", "gpt-oss-20b", "OLMoE-1B-7B"])
def test_params_are_those_of_matrices_as_stored(name: str) -> None:
    """Maps that trainers store joined have as many weights as apart, and one device has all of a kind."""
    attention, d_model = MODELS[name].uniform_attention, MODELS[name].d_model
    stored = sum(rows * columns for rows, columns in attention.stored_matrices(d_model))
    assert stored + attention.vectors(d_model) == attention.params(d_model)
    assert attention.on_device(1) == attention


@pytest.mark.parametrize("name", ["DeepSeek-V3", "Qwen3-30B-A3B", "Llama-2-7B"])
def test_devices_share_heads(name: str) -> None:
    """Score FLOPs of n devices add up to the whole where n divides the heads."""
    attention = MODELS[name].uniform_attention
    for n in (2, 4, 8):
        assert n * attention.on_device(n).score_flops(4096) == attention.score_flops(4096)


@pytest.mark.parametrize("name", MODELS)
def test_decode_at_the_mean_context_is_prefill(name: str) -> None:
    """A third of a step's causal score FLOPs is its forward pass, and a prompt's tokens see half of it on average."""
    attention = MODELS[name].uniform_attention
    assert 3 * attention.prefill_flops(4096) == 4096 * attention.score_flops(4096, causal=True)
    assert attention.score_flops(4096) == 2 * attention.score_flops(4096, causal=True)
    if attention.kind == "gqa":
        assert attention.decode_flops(2048) * 4096 == attention.prefill_flops(4096)


def test_fields_are_those_of_the_architecture() -> None:
    """A kind's fields that `Architecture` has too are the same quantity: taken from it, they come back."""
    shape = MODELS["DeepSeek-V3"]
    names = {f.name for f in dataclasses.fields(shape.uniform_attention)} & {f.name for f in dataclasses.fields(shape)}
    assert len(names) == 6
    for name in names:
        assert getattr(shape.uniform_attention, name) == getattr(shape, name)


CASES = json.loads((Path(__file__).parent / "data" / "inspect_cases.json").read_text(encoding="utf-8"))


def test_windows_bound_the_cache_of_gpt_oss() -> None:
    """gpt-oss-120b keeps 18 layers whole and 128 tokens of the 18 others, 8 KV heads of 64 in bf16 each."""
    layer = 2 * 8 * 64 * 2
    for context in (8192, 131072):
        assert cache_bytes(MODELS["gpt-oss-120b"], context) == 18 * layer * (context + 128)


def test_windows_bound_the_scores() -> None:
    """A full window sees half of itself for its first tokens and all of it after, summed token by token."""
    wide = MODELS["gpt-oss-120b"].uniform_attention
    narrow = dataclasses.replace(wide, window=128)  # type: ignore[call-arg]
    seen = sum(min(i + 0.5, 128) for i in range(4096)) / 4096  # half of its own score, as in causal FLOP counts
    assert narrow.score_flops(4096, causal=True) == pytest.approx(12 * wide.width * seen, rel=1e-4)
    assert narrow.score_flops(100, causal=True) == wide.score_flops(100, causal=True)


def test_cache_and_state_of_qwen3_next() -> None:
    """12 layers cache 2 KV heads of 256; 36 keep 32 matrices of 128x128 in fp32 and 4 taps of 8192 features in bf16."""
    shape = read_config(CASES["gap-qwen3-next"]["config"]).architecture
    state = 36 * (4 * 32 * 128 * 128 + 2 * 4 * 8192)
    assert state_bytes(shape) == state
    for context in (8192, 131072):
        assert cache_bytes(shape, context) == 12 * 2 * 2 * 256 * 2 * context + state


def test_cache_and_state_of_nemotron_3_super() -> None:
    """8 attention layers cache 2 KV heads of 128; 40 of Mamba-2 keep 128 heads of 64 x 128 and 4 taps of 10,240."""
    config = CASES["refused-nemotron3-super"]["config"]
    shape, pattern = read_config(config).architecture, config["hybrid_override_pattern"]
    assert (pattern.count("*"), pattern.count("M"), pattern.count("E")) == (8, 40, 40)
    state = 40 * (4 * 128 * 64 * 128 + 2 * 4 * (128 * 64 + 2 * 8 * 128))
    for context in (8192, 131072):
        assert cache_bytes(shape, context) == 8 * 2 * 2 * 128 * 2 * context + state


def test_cache_and_state_of_nemotron_3_nano() -> None:
    """6 attention layers cache 2 KV heads of 128; 23 of Mamba-2 keep 64 heads of 64 x 128 and 4 taps of 6,144."""
    shape = published_models()["Nemotron-3-Nano"].architecture
    state = 23 * (4 * 64 * 64 * 128 + 2 * 4 * (64 * 64 + 2 * 8 * 128))
    assert state_bytes(shape) == state
    for context in (8192, 131072):
        assert cache_bytes(shape, context) == 6 * 2 * 2 * 128 * 2 * context + state


def test_cache_of_deepseek_v4() -> None:
    """Keys of a window of 128 in 43 layers; entries of 4 tokens with the indexer's in some, of 128 in others.

    Values are keys; each is 512 wide, the indexer's 128, in bf16.
    """
    shape = published_models()["DeepSeek-V4-Flash"].architecture
    runs = {run.attention.compress_rate: len(run.layers) for run in shape.blocks.attentions}  # type: ignore[union-attr, attr-defined]
    assert sum(runs.values()) == 43
    for context in (8192, 131072):
        sparse, heavy = runs[4] * context // 4 * (512 + 128), runs[128] * context // 128 * 512
        assert cache_bytes(shape, context) == 2 * (43 * 128 * 512 + sparse + heavy)


def test_cache_of_deepseek_v32() -> None:
    """61 layers cache a latent of 512, a rotary key of 64 and the indexer's key of 128."""
    shape = read_config(CASES["gap-deepseek-v3.2"]["config"]).architecture
    assert kv_cache_bytes_per_token(shape) == 61 * (512 + 64 + 128) * 2
    for context in (8192, 131072):
        assert cache_bytes(shape, context) == 61 * (512 + 64 + 128) * 2 * context
    assert state_bytes(shape) == 0


def test_picked_tokens_bound_the_scores() -> None:
    """DeepSeek-V3.2 attends to 2048 tokens however long the context; only its indexer's scores grow."""
    attention = read_config(CASES["gap-deepseek-v3.2"]["config"]).architecture.attentions[0][1]  # type: ignore[attr-defined]
    grown = attention.decode_flops(131072) - attention.decode_flops(65536)
    assert grown == 2 * 64 * 128 * 65536
