"""Kinds of attention: one class each, found by their folder, and the same numbers by every question."""

from __future__ import annotations

import dataclasses

import pytest

from moeplan.architecture.attention import KINDS
from moeplan.architecture.plannable import PLANNABLE
from moeplan.architecture.shape import Architecture
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
