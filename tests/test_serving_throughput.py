"""Serving throughput: published figures, brute force over batches, limits that no model passes, monotony."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeplan.cost.devices import HEADROOM, Gpus, load_device, parse_gpus
from moeplan.cost.inference_memory import InferenceSettings, total_inference_bytes
from moeplan.cost.serving.published import fit, left_out, published_serving
from moeplan.cost.serving.roofline import decode_point
from moeplan.cost.serving.settings import constants, priors, spread
from moeplan.cost.serving.throughput import SPLITS, Load, serving_step, serving_throughput
from moeplan.errors import UsageError
from moeplan.plan.search.grid import Grid
from tests.published import MODELS
from tests.small import small_grid

FP8 = InferenceSettings(weight_dtype="fp8")


def test_published_figures() -> None:
    """Over all published figures the median error is below 25 % and nine in ten are within 60 %."""
    errors = np.abs([row.ln_error() for row in published_serving()])
    assert len(errors) == 79
    assert np.expm1(np.median(errors)) < 0.25
    assert np.expm1(np.quantile(errors, 0.9)) < 0.60


def test_the_constants_are_the_fit() -> None:
    """Repeating the fit on the bundled figures gives the bundled constants and standard errors."""
    found, stderr = fit(published_serving())
    for name in priors():
        assert getattr(found, name) == pytest.approx(getattr(constants(), name), rel=0.01)
        assert 0 < stderr[name] < priors()[name].ln_sd


@pytest.mark.slow
def test_models_left_out() -> None:
    """Models that took no part in the fit err by under 30 % (median) and as widely as the stated spread."""
    errors = np.concatenate([np.array(own) for own in left_out(published_serving(), "model").values()])
    assert np.expm1(np.median(np.abs(errors))) < 0.30
    assert spread().ln_sd == pytest.approx(float(errors.std()), abs=0.02)


@pytest.mark.parametrize("gpus", ["1xH200", "8xH100", "16xH200"])
@pytest.mark.parametrize("name", ["Qwen3-30B-A3B", "DeepSeek-V3", "Llama-3-8B"])
def test_no_speed_passes_the_roofline(name: str, gpus: str) -> None:
    """At every batch the model is slower than bytes over bandwidth and FLOPs over peak allow."""
    shape, group = MODELS[name], parse_gpus(gpus)
    load = Load(prompt_tokens=1023, answer_tokens=1)
    for batch in (1, 8, 64):
        bound = decode_point(shape, group.device, batch, 1023, FP8, group.count)
        for split in SPLITS:
            assert float(serving_step(shape, group, load, FP8, split).seconds(batch)) > bound.seconds


def test_prompts_take_their_flops() -> None:
    """A prompt of 4,096 tokens of Llama-3-8B on one H100 takes 2 x 7.5B x 4,096 FLOPs at the fitted share of the peak.

    Its weights are read once for 8,192 tokens, which takes less; scores are 2*32*4096*4096^2 FLOPs.
    """
    shape, group, c = MODELS["Llama-3-8B"], Gpus(1, load_device("H100")), constants()
    step = serving_step(shape, group, Load(prompt_tokens=4096), InferenceSettings(), "tensor")
    params = 8_030_261_248 - 2 * 525_336_576
    scores = 2 * 32 * 4096 * 4096**2
    peak = load_device("H100").bf16_flops
    assert float(step.prompt) == pytest.approx(2 * params * 4096 / (peak * c.bf16) + scores / (peak * c.attention))


@given(
    st.sampled_from(["Qwen3-30B-A3B", "Llama-3-8B", "OLMoE-1B-7B"]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([0.0, 5.0, 20.0, 60.0, 150.0]),
    st.integers(16, 8192),
    st.integers(16, 4096),
)
def test_the_batch_is_the_best_of_all(name: str, n: int, speed: float, prompt: int, answer: int) -> None:
    """No batch that fits and is fast enough gives more than the one that is found; found by trying each."""
    shape, group = MODELS[name], Gpus(n, load_device("H100"))
    load = Load(prompt_tokens=prompt, answer_tokens=answer, tokens_per_second_per_user=speed)
    found = serving_throughput(shape, group, load)
    best = 0.0
    for split in SPLITS if n > 1 else SPLITS[:1]:
        step = serving_step(shape, group, load, InferenceSettings(), split)
        batches = np.arange(1, int(step.most_sequences) + 1)
        speeds = 1 / step.seconds_per_token(batches, load)
        best = max([best, *(batches * speeds)[speeds >= speed].tolist()])
    assert float(found.tokens_per_second_per_gpu) * n == pytest.approx(best, rel=1e-9, abs=1e-12)
    if best:
        assert float(found.tokens_per_second_per_user) >= speed * (1 - 1e-6)
    else:
        assert float(found.fastest) < speed or float(found.most_sequences) < 1


@given(st.sampled_from(["Qwen3-30B-A3B", "Mixtral-8x7B", "Llama-3-8B"]), st.floats(1, 200), st.floats(1, 3))
def test_a_looser_speed_never_serves_less(name: str, speed: float, more: float) -> None:
    """Asking a higher speed for each user never lowers what a token costs, for any model on two H200."""
    group = parse_gpus("2xH200")
    fast, slow = (
        serving_throughput(MODELS[name], group, Load(tokens_per_second_per_user=x)).gpu_seconds_per_token
        for x in (speed * more, speed)
    )
    assert float(slow) <= float(fast) * (1 + 1e-12)


def test_a_grid_is_served_as_its_designs_are() -> None:
    """Arrays over a grid give for every design what the design alone gives, experts that do not divide included."""
    group, load = parse_gpus("2xH100"), Load(prompt_tokens=900, answer_tokens=300, tokens_per_second_per_user=40)
    designs = small_grid(num_experts=(16, 24, 40)).block(1024)
    assert designs is not None
    found = serving_throughput(designs, group, load, FP8)
    for index in range(0, len(designs), max(1, len(designs) // 25)):
        own = serving_throughput(designs.architecture(index), group, load, FP8)
        for name in ("batch", "tokens_per_second_per_user", "gpu_seconds_per_token", "fastest"):
            array = np.broadcast_to(np.asarray(getattr(found, name)), (len(designs),))
            assert float(array[index]) == pytest.approx(float(getattr(own, name)), rel=1e-12)


def test_sequences_are_those_that_fit() -> None:
    """Split by tensors, as many sequences are batched as fit the fullest device with its headroom."""
    shape, group = MODELS["Qwen3-30B-A3B"], parse_gpus("2xH100")
    most = int(serving_step(shape, group, Load(), FP8, "tensor").most_sequences)
    usable = group.device.memory_bytes * (1 - HEADROOM)
    for sequences, fits in ((most, True), (most + 1, False)):
        settings = dataclasses.replace(FP8, context=2048, concurrency=sequences)
        assert (total_inference_bytes(shape, settings, 2) <= usable) is fits


def test_more_devices_of_experts_cost_less_a_token() -> None:
    """DeepSeek-V3 does not fit eight H100 in fp8; on 16 GB200 a token costs a fifth less than on 8, at 20 tokens/s."""
    load = Load(tokens_per_second_per_user=20)
    assert float(serving_throughput(MODELS["DeepSeek-V3"], parse_gpus("8xH100"), load, FP8).batch) == 0
    few, many = (
        float(serving_throughput(MODELS["DeepSeek-V3"], parse_gpus(f"{n}xGB200"), load, FP8).gpu_seconds_per_token)
        for n in (8, 16)
    )
    assert many < 0.85 * few


def test_a_full_search_is_quick() -> None:
    """The declared grid's narrowest width is served whole in one call, none of it faster than a token alone."""
    designs = Grid(vocab_size=32768).product(384)
    assert designs is not None
    found = serving_throughput(designs, parse_gpus("1xH100"), Load(tokens_per_second_per_user=100))
    assert np.all(found.tokens_per_second_per_user <= found.fastest * (1 + 1e-12))
    assert np.all(found.batch >= 1)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"prompt_tokens": 0}, "prompt_tokens 0 must be a whole number"),
        ({"answer_tokens": 1.5}, "answer_tokens 1.5 must be a whole number"),
        ({"tokens_per_second_per_user": -1}, "must be at least 0"),
        ({"tokens_per_second_per_user": True}, "must be at least 0"),
    ],
)
def test_impossible_loads_are_refused(wrong: dict[str, float], says: str) -> None:
    """No prompt, a fraction of a token and a speed below 0 are refused with what would work."""
    with pytest.raises(UsageError, match=says):
        Load(**wrong)  # type: ignore[arg-type]
