"""Inference memory against published models, on one device and on several."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeplan.architecture import counting
from moeplan.architecture.shape import Architecture
from moeplan.cost.inference_memory import (
    InferenceSettings,
    KVDtype,
    WeightDtype,
    inference_bytes,
    kv_cache_bytes_per_token,
    matrices,
    matrix_bytes,
    total_inference_bytes,
)
from moeplan.errors import UsageError
from tests.published import MODELS, ROWS
from tests.strategies import architecture_batches, architectures, stack

WEIGHT_DTYPES = get_args(WeightDtype)
DEVICES = st.integers(1, 50)
SETTINGS = st.builds(
    InferenceSettings,
    weight_dtype=st.sampled_from(WEIGHT_DTYPES),
    kv_dtype=st.sampled_from(get_args(KVDtype)),
    context=st.integers(1, 10**6),
    concurrency=st.integers(1, 100),
)
BF16 = InferenceSettings()


def small_params(model: Architecture) -> dict[str, int]:
    """Biases, sinks, gates and inner norms of a model: what its matrices leave of attention and feed-forward blocks."""
    query, key = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    if model.attention == "mla":
        attention = model.kv_lora_rank + model.q_lora_rank
    else:
        attention = (
            (query + 2 * key) * model.qkv_bias
            + model.d_model * model.output_bias
            + model.num_heads * model.attention_sinks
            + {"none": 0, "head": 2 * model.head_dim, "full": query + key}[model.qk_norm]
        )
    biases = model.num_experts * (2 * model.d_expert + model.d_model) * model.expert_bias
    return {
        "attention": model.num_layers * attention,
        "routed_experts": model.num_moe_layers * biases,
        "shared_experts": model.num_moe_layers * model.d_model * model.shared_expert_gate,
        "dense_ffn": 0,
    }


def assert_matrices_and_the_rest_are_all_params(model: Architecture) -> None:
    """Assert that `matrices` and `small_params` are the params of attention and feed-forward blocks."""
    sizes = small_params(model)
    for group, copies, n_in, n_out in matrices(model):
        sizes[group] += copies * n_in * n_out
    assert sizes == {group: model.params_by_group()[group] for group in sizes}


@pytest.mark.parametrize("name", MODELS)
def test_matrices_of_published_models_are_complete(name: str) -> None:
    """Matrices, biases, sinks, gates and inner norms add up to the exact params of every published model's blocks."""
    assert_matrices_and_the_rest_are_all_params(MODELS[name])


@given(architectures())
def test_matrices_are_complete(model: Architecture) -> None:
    """Matrices, biases, sinks, gates and inner norms add up to the exact params of any model's blocks."""
    assert_matrices_and_the_rest_are_all_params(model)


@pytest.mark.parametrize("name", MODELS)
def test_kv_cache_of_published_models(name: str) -> None:
    """The KV cache of one token is right to the byte for every published model, and half of it in fp8."""
    expected = ROWS[name]["kv_bytes_per_token_bf16"]
    assert kv_cache_bytes_per_token(MODELS[name]) == expected
    assert 2 * kv_cache_bytes_per_token(MODELS[name], "fp8") == expected


def test_kv_cache_holds_every_sequence() -> None:
    """The cache has room for context * concurrency tokens: Llama-3.1-405B needs 516,096 bytes for each."""
    settings = InferenceSettings(context=1000, concurrency=7)
    assert inference_bytes(MODELS["Llama-3.1-405B"], settings)["kv_cache"] == 516_096 * 7000


@given(architectures())
def test_bf16_weights_are_two_bytes_a_param(model: Architecture) -> None:
    """In bf16 every group of weights takes two bytes a param."""
    groups = inference_bytes(model, BF16)
    del groups["kv_cache"]
    assert groups == {group: 2 * params for group, params in model.params_by_group().items()}


@pytest.mark.parametrize(
    "dtype, n_in, n_out, expected",
    [
        ("bf16", 300, 200, 120_000),
        ("fp8", 300, 200, 60_000 + 4 * 3 * 2),
        ("int8", 300, 200, 60_000 + 2 * 200),
        ("int4", 300, 200, 30_000 + 2 * 3 * 200),
        ("fp8", 128, 128, 16_384 + 4),
        ("fp8", 129, 128, 16_512 + 8),
        ("int4", 128, 5, 320 + 10),
        ("int4", 3, 5, 8 + 10),
    ],
)
def test_bytes_of_one_matrix(dtype: WeightDtype, n_in: int, n_out: int, expected: int) -> None:
    """A matrix takes its weights and one scale a 128x128 block (fp8), output row (int8) or 128 inputs (int4)."""
    assert matrix_bytes(n_in, n_out, dtype) == expected


def test_fp8_equals_the_released_deepseek_v3() -> None:
    """The released fp8 checkpoint of DeepSeek-V3 has the fp8 weights and the fp32 scales that the formula says.

    The header of its files counts 680,571,043,840 fp8 and 41,555,600 fp32 elements, its prediction layer among them:
    one more MoE layer here. 59*256 of the fp32 elements are load-balancing biases, the others scales.
    """
    checkpoint = dataclasses.replace(MODELS["DeepSeek-V3"], num_layers=62)
    weights = sum(copies * n_in * n_out for _, copies, n_in, n_out in matrices(checkpoint))
    stored = sum(copies * matrix_bytes(n_in, n_out, "fp8") for _, copies, n_in, n_out in matrices(checkpoint))
    assert weights == 680_571_043_840
    assert stored == weights + 4 * (41_555_600 - 59 * 256)
    saved = total_inference_bytes(checkpoint, BF16) - total_inference_bytes(
        checkpoint, InferenceSettings(weight_dtype="fp8")
    )
    assert saved == 2 * weights - stored


@pytest.mark.parametrize("name", MODELS)
def test_only_the_large_matrices_shrink(name: str) -> None:
    """Embeddings, head, router and norms stay bf16 under every dtype; matrices take 1.00-1.01 or 0.51-0.53 bytes."""
    model = MODELS[name]
    params = model.params_by_group()
    for dtype, low, high in (("fp8", 1, 1.01), ("int8", 1, 1.01), ("int4", 0.51, 0.53)):
        groups = inference_bytes(model, InferenceSettings(weight_dtype=dtype))
        for group in ("input_embedding", "output_head", "router", "norms"):
            assert groups[group] == 2 * params[group]
        for group in ("routed_experts", "shared_experts", "dense_ffn", "attention"):
            assert low * params[group] <= groups[group] <= high * params[group]


@given(architectures(), SETTINGS)
def test_groups_add_up(model: Architecture, settings: InferenceSettings) -> None:
    """The groups are those of the params and the KV cache, none negative, and their sum is the total."""
    groups = inference_bytes(model, settings, 3)
    assert tuple(groups) == (*counting.GROUPS, "kv_cache")
    assert min(groups.values()) >= 0
    assert sum(groups.values()) == total_inference_bytes(model, settings, 3)


@given(architecture_batches(), SETTINGS, DEVICES)
def test_arrays_weigh_like_integers(batch: list[Architecture], settings: InferenceSettings, num_devices: int) -> None:
    """The bytes of an array of shapes are the bytes of its shapes, group by group."""
    one_by_one = [inference_bytes(model, settings, num_devices) for model in batch]
    for group, value in inference_bytes(stack(batch), settings, num_devices).items():
        assert list(value) == [groups[group] for groups in one_by_one], group


@given(architectures(), SETTINGS, DEVICES)
def test_more_devices_never_hold_less_together(
    model: Architecture, settings: InferenceSettings, num_devices: int
) -> None:
    """The fullest device holds at least an equal share, and never more than with one device fewer."""
    one = inference_bytes(model, settings)
    fewer = inference_bytes(model, settings, max(1, num_devices - 1))
    for group, value in inference_bytes(model, settings, num_devices).items():
        assert one[group] <= num_devices * value, group
        assert value <= fewer[group], group


def test_eight_devices_split_llama_evenly() -> None:
    """Llama-3-70B on 8 devices: exactly an eighth of everything on each, but for the norms, which all have whole."""
    model = MODELS["Llama-3-70B"]
    one, eight = inference_bytes(model, BF16), inference_bytes(model, BF16, 8)
    assert eight.pop("norms") == one.pop("norms")
    assert {group: 8 * value for group, value in eight.items()} == one


def test_kv_heads_are_replicated_beyond_their_number() -> None:
    """Llama-3-70B has 8 KV heads: 16 devices hold as much cache each as 8 do, and its query heads are still split."""
    model = MODELS["Llama-3-70B"]
    eight, sixteen = inference_bytes(model, BF16, 8), inference_bytes(model, BF16, 16)
    assert sixteen["kv_cache"] == eight["kv_cache"]
    # 80 layers, d_model 8192, heads of 128: queries and output 4 heads, keys and values 1 head a device
    assert sixteen["attention"] == 2 * 80 * 8192 * 128 * (2 * 4 + 2 * 1)


def test_latents_are_on_every_device() -> None:
    """DeepSeek-V3 on 6 devices: 43 of 256 experts and 22 of 128 heads on the fullest; latents and router on each."""
    model = MODELS["DeepSeek-V3"]
    one, six = inference_bytes(model, BF16), inference_bytes(model, BF16, 6)
    assert six["routed_experts"] == 2 * 58 * 43 * 3 * 7168 * 2048
    into_latents = 7168 * 1536 + 1536 + 7168 * 576 + 512
    assert six["attention"] == 2 * 61 * (into_latents + 22 * (1536 * 192 + 512 * 256 + 128 * 7168))
    assert six["shared_experts"] == 2 * 58 * 3 * 7168 * 342
    assert six["input_embedding"] == 2 * 21547 * 7168
    for group in ("router", "norms", "kv_cache"):
        assert six[group] == one[group]


@given(architectures(), SETTINGS, DEVICES, st.sampled_from(["d_model", "num_layers", "vocab_size", "num_experts"]))
def test_larger_models_need_no_less(
    model: Architecture, settings: InferenceSettings, num_devices: int, field: str
) -> None:
    """A wider or deeper model, a larger vocabulary or more experts never need fewer bytes."""
    pattern = model.moe_layer_pattern
    if field == "num_experts" and model.num_experts == 0:
        return
    if field == "num_layers" and pattern is not None:
        larger = dataclasses.replace(model, num_layers=model.num_layers + 1, moe_layer_pattern=(*pattern, False))
    elif model.num_experts == 0:
        larger = Architecture.from_dict(model.to_dict() | {field: getattr(model, field) + 1})
    else:
        larger = dataclasses.replace(model, **{field: getattr(model, field) + 1})
    assert total_inference_bytes(larger, settings, num_devices) >= total_inference_bytes(model, settings, num_devices)


@given(architectures(), SETTINGS)
def test_more_cached_tokens_need_more(model: Architecture, settings: InferenceSettings) -> None:
    """One more token of context or one more sequence needs more bytes."""
    for field in ("context", "concurrency"):
        larger = dataclasses.replace(settings, **{field: getattr(settings, field) + 1})
        assert total_inference_bytes(model, larger) > total_inference_bytes(model, settings)


@pytest.mark.parametrize("name", MODELS)
def test_fewer_bits_need_less(name: str) -> None:
    """Every published model weighs less in fp8 and int8 than in bf16, and less again in int4."""
    sizes = {d: total_inference_bytes(MODELS[name], InferenceSettings(weight_dtype=d)) for d in WEIGHT_DTYPES}
    assert sizes["int4"] < min(sizes["fp8"], sizes["int8"])
    assert max(sizes["fp8"], sizes["int8"]) < sizes["bf16"]


@pytest.mark.parametrize(
    "field, value, answer",
    [
        ("weight_dtype", "fp16", "bf16, fp8, int8, int4"),
        ("kv_dtype", "int8", "bf16, fp8"),
        ("context", 0, "at least 1"),
        ("context", 8192.0, "whole number"),
        ("concurrency", -1, "at least 1"),
        ("concurrency", True, "whole number"),
        ("context", 2**40, "at most"),
    ],
)
def test_impossible_settings_are_refused(field: str, value: object, answer: str) -> None:
    """A wrong setting raises one sentence with its name, its value and what would work."""
    with pytest.raises(UsageError) as error:
        InferenceSettings(**{field: value})
    assert f"{field} {value!r}" in str(error.value)
    assert answer in str(error.value)


def test_no_devices_are_refused() -> None:
    """A model cannot be spread over no device."""
    with pytest.raises(UsageError, match="num_devices 0 must be a whole number of at least 1"):
        inference_bytes(MODELS["Llama-2-7B"], BF16, 0)
