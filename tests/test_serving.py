"""The decode roofline against hand counts, its limits, and what more sequences and devices change."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeplan.cost.devices import load_device
from moeplan.cost.inference_memory import (
    InferenceSettings,
    cache_bytes,
    kv_cache_bytes_per_token,
    total_inference_bytes,
)
from moeplan.cost.serving.roofline import (
    decode_flops,
    decode_point,
    devices_needed,
    experts_hit,
    prefill_flops,
    serving_estimate,
)
from moeplan.errors import InfeasibleError, UsageError
from tests.published import MODELS

H100, H200 = load_device("H100"), load_device("H200")


def test_llama_8b_by_hand() -> None:
    """Llama-3-8B at batch 1 and no context to speak of reads 15.01 GB a token on H100: at most 223 tokens a second.

    8,030,261,248 params less the 525,336,576 of the input embedding, of which one row is read, at 3.35 TB/s.
    """
    point = decode_point(MODELS["Llama-3-8B"], H100, 1, 1)
    assert point.weight_bytes == 2 * (8_030_261_248 - 525_336_576 + 4096)
    assert point.kv_bytes == 131_072
    assert point.tokens_per_second_per_gpu == pytest.approx(3.35e12 / (point.weight_bytes + 131_072))
    assert 222 < point.tokens_per_second_per_gpu < 224
    assert point.bound == "memory"


def test_experts_hit() -> None:
    """One token of DeepSeek-V3 reaches 8 of 256 experts, 64 tokens 222.5 of them: 256*(1 - (1 - 8/256)^64)."""
    assert experts_hit(MODELS["DeepSeek-V3"], 1) == pytest.approx(8)
    assert experts_hit(MODELS["DeepSeek-V3"], 64) == pytest.approx(256 * (1 - (31 / 32) ** 64))
    assert experts_hit(MODELS["DeepSeek-V3"], 10**6) == pytest.approx(256)
    assert experts_hit(MODELS["Llama-3-8B"], 64) == 0


def test_batch_one_reads_the_active_params() -> None:
    """At batch 1 a MoE model reads the router whole and otherwise its active params, in bf16."""
    model = MODELS["Mixtral-8x7B"]
    point = decode_point(model, H200, 1, 1)
    active = model.active_params() - model.vocab_size * model.d_model + model.d_model
    assert point.weight_bytes == pytest.approx(2 * active)


def test_prefill_of_llama_8b() -> None:
    """A prompt of 1000 tokens: 2 FLOPs for each non-embedding param and token, 2*L*d*n^2 attention, logits once."""
    model = MODELS["Llama-3-8B"]
    params = 8_030_261_248 - 2 * 525_336_576
    assert prefill_flops(model, 1000) == 2000 * params + 2 * 32 * 4096 * 1000**2 + 2 * 525_336_576


def test_decode_flops_of_latents() -> None:
    """DeepSeek-V3 attends to its cached latents: 2*61*128*(2*512 + 64) FLOPs a cached token."""
    model = MODELS["DeepSeek-V3"]
    assert decode_flops(model, 1001) - decode_flops(model, 1000) == 2 * 61 * 128 * (2 * 512 + 64)


@given(
    st.sampled_from(sorted(MODELS)),
    st.sampled_from([1, 8, 64]),
    st.sampled_from([1, 1024, 32768]),
    st.sampled_from([1, 2, 8]),
    st.sampled_from(["bf16", "fp8", "int4"]),
)
def test_the_roofline_holds(name: str, batch: int, context: int, n: int, dtype: str) -> None:
    """No step is faster than its bytes or its FLOPs allow, and neither weights nor cache exceed what is stored."""
    settings = InferenceSettings(weight_dtype=dtype)  # type: ignore[arg-type]
    point = decode_point(MODELS[name], H100, batch, context, settings, n)
    stored = dataclasses.replace(settings, context=context, concurrency=batch)
    if not hasattr(MODELS[name], "blocks"):  # no windows
        assert cache_bytes(MODELS[name], context) == context * kv_cache_bytes_per_token(MODELS[name])
    assert point.kv_bytes == pytest.approx(batch * cache_bytes(MODELS[name], context) / n)
    assert point.seconds >= (point.weight_bytes + point.kv_bytes) / H100.bandwidth
    slack = 2 * batch * MODELS[name].d_model
    assert point.weight_bytes + point.kv_bytes <= total_inference_bytes(MODELS[name], stored, n) * 1.001 + slack
    assert point.tokens_per_second_per_gpu == pytest.approx(batch / point.seconds / n)


def test_larger_batches_and_longer_contexts() -> None:
    """Larger batches give more tokens a second of a GPU, longer contexts fewer."""
    estimate = serving_estimate(MODELS["Qwen3-30B-A3B"], H200)
    speed = {(p.batch, p.context): p.tokens_per_second_per_gpu for p in estimate.points}
    assert len(speed) == 9
    for context in (1024, 8192, 32768):
        assert speed[1, context] < speed[8, context] < speed[64, context]
    for batch in (1, 8, 64):
        assert speed[batch, 1024] > speed[batch, 8192] > speed[batch, 32768]


def test_huge_batches_are_bound_by_compute() -> None:
    """A small dense model at a batch of 4096 and a short context is bound by compute, at the peak."""
    point = decode_point(MODELS["Qwen3-0.6B"], H100, 4096, 1)
    assert point.bound == "compute"
    assert point.flops / point.seconds == pytest.approx(H100.bf16_flops)


def test_devices_needed() -> None:
    """Mixtral-8x7B in bf16 (93.4 GB) needs two H100; DeepSeek-V3 in fp8 needs 16 H100 and 8 H200."""
    assert devices_needed(MODELS["Mixtral-8x7B"], H100) == 2
    fp8 = InferenceSettings(weight_dtype="fp8")
    assert devices_needed(MODELS["DeepSeek-V3"], H100, fp8) == 16
    assert devices_needed(MODELS["DeepSeek-V3"], H200, fp8) == 8


def test_what_does_not_fit_is_said() -> None:
    """A point whose weights and cache exceed the device says so; the same on enough devices does not."""
    model = MODELS["Mixtral-8x7B"]
    assert not decode_point(model, H100, 1, 1024).fits
    assert decode_point(model, H100, 1, 1024, num_devices=2).fits


def test_impossible_estimates_are_refused() -> None:
    """A batch below 1, and a cache that no number of devices holds, are refused."""
    with pytest.raises(UsageError, match="batch 0 must be a whole number of at least 1"):
        serving_estimate(MODELS["Mixtral-8x7B"], H100, batches=(0,))
    with pytest.raises(InfeasibleError, match="lower context or concurrency"):
        devices_needed(MODELS["DeepSeek-V3"], H100, InferenceSettings(context=10**7, concurrency=1000))
