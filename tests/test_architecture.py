"""Counts and FLOPs against published models, and what an architecture refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeplan.architecture import counting
from moeplan.architecture.hybrid import architecture_from_dict
from moeplan.architecture.shape import Architecture
from moeplan.errors import UsageError
from tests.published import MODELS, ROWS
from tests.strategies import architecture_batches, architectures, stack

# Names of the groups in the data file.
COUNT_OF_GROUP = {
    "routed_experts": "routed_experts",
    "shared_experts": "shared",
    "router": "router",
    "attention": "attention",
    "dense_ffn": "dense_ffn",
    "norms": "norms",
    "input_embedding": "embed",
    "output_head": "lm_head",
}
DENSE = {"d_model": 64, "num_layers": 2, "vocab_size": 100, "num_heads": 4, "d_ff": 128}
MOE = DENSE | {"num_experts": 8, "num_active_experts": 2, "d_expert": 32}


def expected_counts(name: str) -> dict[str, int]:
    """The published counts of a model.

    The row of ERNIE-4.5 has its 51*64 router correction biases in `total` and `active` only; they are params of the
    model's router that every token uses, so here they are in the router and in every convention.
    """
    counts = dict(ROWS[name]["counts"])
    if ROWS[name].get("extra_router_bias_param"):
        assert name == "ERNIE-4.5-300B-A47B"
        for key in ("router", "active_no_input_embed", "non_embedding_total", "non_embedding_active"):
            counts[key] += 51 * 64
    return counts


@pytest.mark.parametrize("name", MODELS)
def test_groups_equal_the_published_counts(name: str) -> None:
    """Every group of params of every published model is right to the last param."""
    expected = expected_counts(name)
    groups = MODELS[name].params_by_group()
    assert tuple(groups) == counting.GROUPS
    assert groups == {group: expected[key] for group, key in COUNT_OF_GROUP.items()}


@pytest.mark.parametrize("name", MODELS)
def test_totals_equal_the_published_counts(name: str) -> None:
    """Total and active params of every published model are right to the last param under every convention."""
    expected, model = expected_counts(name), MODELS[name]
    assert model.total_params() == expected["total"]
    assert model.total_params("without_input_embedding") == expected["total"] - expected["embed"]
    assert model.total_params("non_embedding") == expected["non_embedding_total"]
    assert model.active_params() == expected["active"]
    assert model.active_params("without_input_embedding") == expected["active_no_input_embed"]
    assert model.active_params("non_embedding") == expected["non_embedding_active"]


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if "exact_total_meta" in row])
def test_totals_equal_the_real_class(name: str) -> None:
    """The total equals the number of params of the model's own transformers class on the meta device."""
    assert MODELS[name].total_params() == ROWS[name]["exact_total_meta"]


def test_training_compute_of_deepseek_v3() -> None:
    """DeepSeek-V3's 14.8T tokens cost 3.616e24 FLOPs at 4096 tokens a sequence, causal, head included."""
    assert MODELS["DeepSeek-V3"].flops_per_token(4096) * 14.8e12 == pytest.approx(3.616e24, rel=0.005)


def test_training_compute_of_deepseek_v3_by_non_embedding_params() -> None:
    """Without the head but with full attention, DeepSeek-V3's training counts as 3.897e24 FLOPs."""
    flops = MODELS["DeepSeek-V3"].flops_per_token(4096, attention="full", logits=False)
    assert flops * 14.8e12 == pytest.approx(3.897e24, rel=0.005)


@given(architectures(), st.integers(1, 10**6))
def test_flops_per_token_by_parts(model: Architecture, seq_len: int) -> None:
    """Causal attention costs half of full attention, logits 6*vocab*d, and the rest 6 FLOPs an active param."""
    matmul = model.flops_per_token(seq_len, attention="none", logits=False)
    assert matmul == 6 * model.active_params("non_embedding")
    assert model.flops_per_token(seq_len, attention="none") - matmul == 6 * model.vocab_size * model.d_model
    full = model.flops_per_token(seq_len, attention="full", logits=False) - matmul
    assert full == 2 * (model.flops_per_token(seq_len, logits=False) - matmul)


def test_multi_token_prediction_stands_apart() -> None:
    """DeepSeek-V3's one prediction layer has the 11.5B params its weight notes say, within 1 %, and is in no total."""
    model = MODELS["DeepSeek-V3"]
    without = dataclasses.replace(model, num_mtp_layers=0)
    assert model.mtp_params == pytest.approx(11.5e9, rel=0.01)
    assert without.mtp_params == 0
    assert model.params_by_group() == without.params_by_group()
    assert model.flops_per_token(4096) == without.flops_per_token(4096)


def test_ratios_of_published_models() -> None:
    """Ratios follow their definitions on a model with shared experts and on one without experts."""
    v3 = MODELS["DeepSeek-V3"]
    assert (v3.G, v3.shared_ratio, v3.activation_ratio) == (9, 1 / 9, 8 / 256)
    assert (v3.granularity, v3.expansion_ratio, v3.is_dense) == (7, 257 / 9, False)
    llama = MODELS["Llama-2-7B"]
    assert (llama.G, llama.shared_ratio, llama.activation_ratio) == (1, 0, 1)
    assert (llama.active_param_ratio, llama.expansion_ratio, llama.is_dense) == (1, 1, True)


@given(architectures())
def test_active_params_are_part_of_the_total(model: Architecture) -> None:
    """Active params never exceed the total, and equal it where every expert is active."""
    assert 0 < model.active_params() <= model.total_params()
    everything = dataclasses.replace(model, num_active_experts=model.num_experts) if model.num_experts else model
    assert everything.active_params() == everything.total_params()


@given(architecture_batches(), st.integers(1, 10**6))
def test_arrays_count_like_integers(batch: list[Architecture], seq_len: int) -> None:
    """Counting an array of shapes gives the same integers as counting them one by one."""
    shapes = stack(batch)
    for group, params in counting.params_by_group(shapes).items():
        expected = np.array([model.params_by_group()[group] for model in batch])
        np.testing.assert_array_equal(params, expected, err_msg=group)
    functions = (counting.total_params, counting.active_params, counting.embedding_params, counting.mtp_params)
    for function in functions:
        np.testing.assert_array_equal(function(shapes), np.array([function(model) for model in batch]))
    for attention in ("causal", "full", "none"):
        flops = counting.flops_per_token(shapes, seq_len, attention=attention)
        assert list(flops) == [model.flops_per_token(seq_len, attention=attention) for model in batch]
    attention_flops = counting.attention_flops(shapes, seq_len)
    assert list(attention_flops) == [counting.attention_flops(model, seq_len) for model in batch]


@given(architectures())
def test_dictionary_round_trip(model: Architecture) -> None:
    """An architecture comes back from its dictionary, which has integers, strings, booleans and lists only."""
    values = model.to_dict()
    assert Architecture.from_dict(values) == model
    assert {type(value) for value in values.values()} <= {int, str, bool, list}


@pytest.mark.parametrize("name", MODELS)
def test_published_models_round_trip(name: str) -> None:
    """Every published model comes back from its dictionary."""
    assert architecture_from_dict(MODELS[name].to_dict()) == MODELS[name]


@pytest.mark.parametrize(
    "fields, word",
    [
        (DENSE | {"d_model": 0}, "d_model 0"),
        (DENSE | {"num_layers": -1}, "num_layers -1"),
        (DENSE | {"vocab_size": 1.5}, "vocab_size 1.5"),
        (DENSE | {"num_heads": True}, "num_heads True"),
        (DENSE | {"num_heads": 5}, "num_heads 5"),
        (DENSE | {"num_kv_heads": 3}, "num_kv_heads 3"),
        (DENSE | {"num_kv_layers": 3}, "num_kv_layers 3"),
        (DENSE | {"d_ff": 0}, "d_ff 0"),
        (DENSE | {"attention": "linear"}, "attention 'linear'"),
        (DENSE | {"attention": "mla"}, "kv_lora_rank 0"),
        (DENSE | {"qk_norm": "layer"}, "qk_norm 'layer'"),
        (DENSE | {"tied_embeddings": "yes"}, "tied_embeddings 'yes'"),
        (DENSE | {"num_active_experts": 1}, "num_active_experts 1"),
        (DENSE | {"num_shared_experts": 1}, "num_shared_experts 1"),
        (DENSE | {"moe_layer_pattern": (False, True)}, "moe_layer_pattern"),
        (MOE | {"num_active_experts": 9}, "num_active_experts 9"),
        (MOE | {"num_active_experts": 0}, "num_active_experts 0"),
        (MOE | {"d_expert": 0}, "d_expert 0"),
        (MOE | {"num_dense_layers": 3}, "num_dense_layers 3"),
        (MOE | {"num_dense_layers": 1, "d_ff": 0}, "d_ff 0"),
        (MOE | {"moe_layer_pattern": (True,)}, "moe_layer_pattern has 1 entries"),
        (MOE | {"moe_layer_pattern": "tf"}, "moe_layer_pattern 'tf'"),
    ],
)
def test_impossible_shapes_are_refused(fields: dict[str, object], word: str) -> None:
    """A shape no model can have raises one sentence that names the field and its value."""
    with pytest.raises(UsageError) as error:
        Architecture(**fields)
    assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fields, word", [(DENSE | {"depth": 3}, "'depth'"), ({"d_model": 64}, "'num_layers'")])
def test_dictionaries_with_other_fields_are_refused(fields: dict[str, object], word: str) -> None:
    """An unknown or a missing field of a dictionary is named."""
    with pytest.raises(UsageError, match=word):
        Architecture.from_dict(fields)


def test_unknown_convention_is_refused() -> None:
    """A parameter convention that does not exist raises a sentence with the three that do."""
    with pytest.raises(UsageError, match="non_embedding"):
        Architecture(**DENSE).total_params("everything")
