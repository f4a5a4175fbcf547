"""Reading a config.json: exact on files that the real Config classes wrote, and one sentence for everything else."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from moeplan.architecture.hf.config import LARGEST_FILE, load_json, read_config
from moeplan.architecture.hf.keys import ALIASES
from moeplan.errors import UsageError
from tests.make_hf_configs import FOLDER, HYBRIDS, file_name
from tests.published import MODELS, ROWS

EXACT = [name for name, row in ROWS.items() if "exact_total_meta" in row]
SMALL: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "vocab_size": 100,
    "intermediate_size": 128,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
MOE = SMALL | {
    "model_type": "mixtral",
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}


def config(name: str) -> dict[str, Any]:
    """The committed file of a model."""
    data = load_json(FOLDER / f"{name}.json")
    assert isinstance(data, dict)
    return data


@pytest.mark.parametrize("name", EXACT)
def test_total_equals_the_real_class(name: str) -> None:
    """The total of a file that the real Config class wrote is the real class's, and so is the whole shape."""
    found = read_config(load_json(FOLDER / file_name(name)))
    assert found.unknown_groups == ()
    assert found.architecture.total_params() == ROWS[name]["exact_total_meta"]
    assert found.architecture == MODELS[name]


def test_every_model_with_a_real_class_has_its_file() -> None:
    """There are files for all 37 published models with known counts and a real class."""
    assert len(EXACT) == 37
    assert all((FOLDER / file_name(name)).exists() for name in EXACT)


@pytest.mark.parametrize(
    "field", ["num_experts", "num_active_experts", "num_shared_experts", "num_mtp_layers", "d_model"]
)
@pytest.mark.parametrize("name", ["DeepSeek-V3", "Qwen3-30B-A3B", "GLM-4.5-Air", "Mixtral-8x7B", "Solar-Open-100B"])
def test_every_spelling_reads_alike(name: str, field: str) -> None:
    """A key under any of its spellings, those of published files among them, gives the same architecture."""
    data = config(file_name(name).removesuffix(".json"))
    own = next((key for key in ALIASES[field] if key in data), None)
    for alias in ALIASES[field] if own else ():
        spelled = {key: value for key, value in data.items() if key != own}
        outer, dot, inner = alias.partition(".")
        spelled[outer] = {inner: data[own]} if dot else data[own]
        assert read_config(spelled).architecture == MODELS[name], alias


def test_qwen3_moe_has_both_spellings() -> None:
    """transformers writes num_local_experts where published files say num_experts; both read alike."""
    data = config("qwen3-30b-a3b")
    assert data["num_local_experts"] == 128
    published = {**data, "num_experts": 128}
    del published["num_local_experts"]
    assert read_config(published).architecture == read_config(data).architecture == MODELS["Qwen3-30B-A3B"]


def test_shared_experts_by_total_width() -> None:
    """A total width alone is one shared expert; with a number of experts it must be as wide as they are together."""
    one = read_config(MOE | {"shared_intermediate_size": 96}).architecture
    assert (one.num_shared_experts, one.d_shared_expert) == (1, 96)
    two = read_config(MOE | {"n_shared_experts": 2, "moe_shared_expert_intermediate_size": 64}).architecture
    assert (two.num_shared_experts, two.d_shared_expert) == (2, 32)


def test_dbrx_is_read_by_its_own_spellings() -> None:
    """DBRX nests its experts in ffn_config; it has 131,596,523,520 params, as its repository's weights have."""
    found = read_config(config("dbrx"))
    assert found.architecture.total_params() == 131_596_523_520
    assert (found.architecture.num_experts, found.architecture.num_active_experts) == (16, 4)


def test_multimodal_configs_give_their_language_model() -> None:
    """The language model under text_config is counted in full; the vision tower is named as not counted."""
    found = read_config(config("multimodal-llama4"))
    assert found.architecture == MODELS["Llama-4-Scout (text)"]
    assert found.unknown_groups == ()
    assert [gap.what for gap in found.gaps] == ["the part under vision_config"]


EXACT_HYBRIDS = {
    "qwen3_next": 79_674_391_296,
    "minimax": 47_373_946_880,
    "jamba": 51_570_323_328,
    "kimi_linear": 49_133_074_464,
    "deepseek_v32": 671_877_929_216,
    "longcat_flash": 741_053_585_408 - 28 * 256 * 2 * 2048 * 6144,
}
"""Params of the default configs' real classes on the meta device, transformers 5.23.

The class of LongCat-Flash makes two maps for each of the 256 experts that compute nothing too; no file has them.
"""


@pytest.mark.parametrize("name", EXACT_HYBRIDS)
def test_hybrids_equal_the_real_class(name: str) -> None:
    """Delta rules, lightning attention, Mamba and sparse attention are counted to the last param of the real class."""
    found = read_config(config(f"hybrid-{name}"))
    assert found.unknown_groups == ()
    assert found.architecture.total_params() == EXACT_HYBRIDS[name]


@pytest.mark.parametrize("name", sorted(set(HYBRIDS) - set(EXACT_HYBRIDS)))
def test_hybrids_have_no_total(name: str) -> None:
    """Models with other blocks still say what is not counted."""
    found = read_config(config(f"hybrid-{name}"))
    assert found.unknown_groups
    assert all(gap.what for gap in found.gaps)


TRUTH: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "inspect_cases.json").read_text(encoding="utf-8"))
"""Configs as published, or with a key taken away, and the params of their real classes on the meta device."""


@pytest.mark.parametrize("name", TRUTH)
def test_configs_of_2026(name: str) -> None:
    """Published files of hybrids, files with unknown or absent keys: total and active params of the real class."""
    case = TRUTH[name]
    found = read_config(case["config"])
    assert found.unknown_groups == ()
    assert (found.architecture.total_params(), found.architecture.active_params()) == (case["total"], case["active"])


@pytest.mark.parametrize(
    "name, words",
    [
        ("silent-mixtral-no-num_key_value_heads", "num_key_value_heads is absent: taken as 8."),
        ("silent-dsv3-no-first_k_dense_replace", "first_k_dense_replace is absent: taken as 3."),
        ("silent-gptoss-no-head_dim", "head_dim is absent: taken as 64."),
    ],
)
def test_absent_keys_are_said(name: str, words: str) -> None:
    """An absent key takes the class's own default, and the file's reader is told."""
    assert words in read_config(TRUTH[name]["config"]).assumptions


def test_harmless_keys_are_listed() -> None:
    """A key that speaks of no size keeps the total and is named with its value."""
    found = read_config(SMALL | {"use_new_gate": True})
    assert found.architecture == read_config(SMALL).architecture
    assert found.unknown_groups == ()
    assert any("use_new_gate true" in sentence for sentence in found.assumptions)


def test_a_shared_expert_may_be_wider() -> None:
    """One shared expert as wide as its own key says contradicts nothing; the total is by hand.

    12*(2*1024*16*64 + 2*1024*4*64 + 32*3*1024*512 + 3*1024*1024 + 32*1024 + 2*1024) + 1024 + 2*32000*1024.
    """
    data = {
        "model_type": "some_moe", "hidden_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 16,
        "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 32000, "hidden_act": "silu",
        "tie_word_embeddings": False, "n_routed_experts": 32, "num_experts_per_tok": 4, "moe_intermediate_size": 512,
        "n_shared_experts": 1, "moe_shared_expert_intermediate_size": 1024,
    }  # fmt: skip
    shape = read_config(data).architecture
    assert (shape.num_shared_experts, shape.d_shared_expert) == (1, 1024)
    assert shape.total_params() == 739_140_608


def test_experts_that_are_switched_off() -> None:
    """`use_moe: false` is a dense model, whatever sizes of experts the file lists."""
    listed = {"num_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 128}
    found = read_config(SMALL | listed | {"use_moe": False}).architecture
    assert found == read_config(SMALL).architecture
    assert read_config(SMALL | listed | {"use_moe": True}).architecture.num_experts == 4


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"layer_types": ["full_attention", "linear_attention"] * 2}, "2 of 4 layers of kind linear_attention"),
        ({"mamba_d_state": 16}, "Mamba"),
        ({"conv_L_cache": 3}, "short-convolution"),
        ({"share_q_dim": 2048}, "multi-matrix-factorised"),
        ({"use_cla": True}, "cross-layer"),
        ({"index_n_heads": 64}, "indexer"),
        ({"mlp_bias": True}, "biases in feed-forward"),
        ({"lm_head_bias": True}, "output head"),
        ({"num_memory_slots": 64}, "num_memory_slots 64"),
        ({"widths": [1, 2]}, "widths [...]"),
        ({"hidden_act": "relu2"}, "hidden_act 'relu2'"),
        ({"is_encoder_decoder": True}, "encoder"),
    ],
)
def test_what_is_not_counted_is_named(keys: dict[str, Any], words: str) -> None:
    """A key that may add params takes the total away and is named with what it stands for."""
    found = read_config(SMALL | keys)
    assert found.unknown_groups
    assert any(words in gap.what for gap in found.gaps)


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_theta": 1e6, "rope_scaling": {"factor": 8}, "max_position_embeddings": 4096, "sliding_window": 512},
        {"torch_dtype": "bfloat16", "architectures": ["X"], "bos_token_id": 1, "transformers_version": "5.0"},
        {"attention_dropout": 0.1, "initializer_range": 0.02, "router_aux_loss_coef": 1, "use_cache": True},
        {"some_new_rate": 0.3, "some_new_mode": "fast", "switched_off": False, "not_used": None, "none_of_these": 0},
        {"quantization_config": {"quant_method": "fp8"}, "auto_map": {"AutoModel": "x"}, "ep_size": 1, "seq_aux": True},
        {"mamba_d_state": 0, "index_n_heads": None, "use_cla": False},
    ],
)
def test_keys_without_params_change_nothing(keys: dict[str, Any]) -> None:
    """Keys about positions, tokens, dropout, precision and routing, rates, names and what is off have no params."""
    found = read_config(SMALL | keys)
    assert found.unknown_groups == ()
    assert found.architecture == read_config(SMALL).architecture


@pytest.mark.parametrize(
    "keys, moe",
    [
        ({"first_k_dense_replace": 1}, (False, True, True, True)),
        ({"num_dense_layers": 2}, (False, False, True, True)),
        ({"first_k_dense_replace": 1, "moe_layer_freq": 2}, (False, False, True, False)),
        ({"moe_layer_freq": [0, 1, 0, 1]}, (False, True, False, True)),
        ({"mlp_only_layers": [0, 3]}, (False, True, True, False)),
        ({"mlp_only_layers": [], "decoder_sparse_step": 2}, (False, True, False, True)),
        ({"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]}, (False, True, True, True)),
        ({"interleave_moe_layer_step": 2}, (False, True, False, True)),
        ({"moe_layers": [1, 3], "interleave_moe_layer_step": 2}, (False, True, False, True)),
        ({"moe_layer_start_index": 1, "moe_layer_end_index": 2}, (False, True, True, False)),
        ({"moe_layer_start_index": 1, "moe_layer_end_index": -1, "moe_layer_interval": 2}, (False, True, False, True)),
        ({}, (True, True, True, True)),
        ({"decoder_sparse_step": 1, "mlp_only_layers": [], "first_k_dense_replace": 2}, (False, False, True, True)),
    ],
)
def test_which_layers_have_experts(keys: dict[str, Any], moe: tuple[bool, ...]) -> None:
    """Every way to say which layers have experts gives the same pattern; defaults give way to what is said."""
    shape = read_config(MOE | keys).architecture
    pattern = shape.moe_layer_pattern or tuple(i >= shape.num_dense_layers for i in range(4))
    assert pattern == moe
    assert shape.num_moe_layers == sum(moe)


@pytest.mark.parametrize(
    "model_type, keys, fields",
    [
        ("llama", {"attention_bias": True}, {"qkv_bias": True, "output_bias": True}),
        ("glm4_moe", {"attention_bias": True}, {"qkv_bias": True, "output_bias": False}),
        ("qwen2", {}, {"qkv_bias": True, "output_bias": False}),
        ("qwen2_moe", {"qkv_bias": False}, {"qkv_bias": False}),
        ("qwen3", {}, {"qk_norm": "head"}),
        ("olmoe", {}, {"qk_norm": "full"}),
        ("glm4_moe", {"use_qk_norm": True}, {"qk_norm": "head"}),
        ("minimax_m2", {"use_qk_norm": True}, {"qk_norm": "full"}),
        ("llama4_text", {"use_qk_norm": True}, {"qk_norm": "none"}),
        ("gemma2", {"hidden_act": "gelu_pytorch_tanh"}, {"norms_per_block": 4}),
        ("a-new-one", {"attention_bias": True}, {"qkv_bias": True, "output_bias": True}),
    ],
)
def test_what_the_model_type_says(model_type: str, keys: dict[str, Any], fields: dict[str, Any]) -> None:
    """Biases and norms that no key states come from the table of model types, and keys go before it."""
    shape = read_config(SMALL | {"model_type": model_type} | keys).architecture
    assert {name: getattr(shape, name) for name in fields} == fields


def test_unknown_model_types_are_read_by_structure() -> None:
    """A model type that nobody knows is read by its keys, and what is taken for granted is said."""
    found = read_config(MOE | {"model_type": "brand_new_moe"})
    assert found.architecture == read_config(MOE).architecture
    assert any("brand_new_moe" in sentence for sentence in found.assumptions)
    assert read_config(MOE).assumptions == ()


def test_blocks_of_different_widths() -> None:
    """DeciLM's block_configs: KV heads and widths by layer, 2/3 of ffn_mult*d_model up to 256; norms by part."""
    blocks = [
        {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 2.5}},
        {"attention": {"no_op": True}, "ffn": {"ffn_mult": 10}},
        {"attention": {"n_heads_in_group": 4}, "ffn": {"no_op": True}},
        {"attention": {"no_op": True}, "ffn": {"no_op": True}},
    ]
    config = {key: value for key, value in SMALL.items() if key not in ("intermediate_size", "num_key_value_heads")}
    found = read_config(config | {"model_type": "nemotron-nas", "block_configs": blocks})
    assert found.unknown_groups == ()
    attention = 2 * 64 * 64 + 2 * 64 * 2 * 16 + 2 * 64 * 64 + 2 * 64 * 16
    assert found.architecture.params_by_group() == {
        "routed_experts": 0, "shared_experts": 0, "router": 0, "attention": attention,
        "dense_ffn": 3 * 64 * (256 + 512), "norms": 64 * (4 + 1), "input_embedding": 6400, "output_head": 6400,
    }  # fmt: skip
    assert "The widths of its dense blocks differ by layer, from 256 to 512." in found.assumptions
    linear = read_config(
        config | {"block_configs": [*blocks[:3], {"attention": {"replace_with_linear": True}, "ffn": {"no_op": True}}]}
    )
    assert "attention" in linear.unknown_groups


def test_a_language_model_beside_its_config_is_no_certain_one() -> None:
    """A class that reads text_config alone takes its own vocabulary where the file states another beside it."""
    found = read_config(TRUTH["flagged-qwen35moe-trimmed"]["config"]["text_config"] | {"model_type": "qwen3_5_moe"})
    assert {"input_embedding", "output_head"} <= set(found.unknown_groups)
    assert any("which alone the class of qwen3_5_moe reads" in gap.what for gap in found.gaps)


def test_absent_tying_is_said() -> None:
    """Where the file does not say whether embeddings are tied, the assumption does."""
    found = read_config({key: value for key, value in SMALL.items() if key != "tie_word_embeddings"})
    assert found.assumptions == ("tie_word_embeddings is absent: taken as false.",)


@pytest.mark.parametrize(
    "key, default, alike",
    [
        ("num_local_experts", 8, {}),
        ("num_experts_per_tok", 2, {}),
        ("intermediate_size", 14336, {"moe_intermediate_size": None}),
    ],
)
def test_the_class_decides_absent_experts(key: str, default: int, alike: dict[str, Any]) -> None:
    """Absent numbers and widths of experts are those of transformers' class (MixtralConfig), and are listed."""
    stated = {name: value for name, value in {**MOE, **alike}.items() if value is not None}
    found = read_config({name: value for name, value in stated.items() if name != key})
    assert f"{key} is absent: taken as {default}." in found.assumptions
    assert found.architecture == read_config({**stated, key: default}).architecture


UNKNOWN = {"model_type": "of-nobody"}
"""No class decides what is absent."""


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"hidden_size": None, "vocab_size": None}, "lacks hidden_size, vocab_size"),
        (
            {"intermediate_size": None, "num_local_experts": 0, "num_experts_per_tok": 0, "moe_intermediate_size": 0}
            | UNKNOWN,
            "lacks",
        ),
        ({"num_experts_per_tok": None} | UNKNOWN, "lacks num_experts_per_tok"),
        ({"moe_intermediate_size": None, "intermediate_size": None} | UNKNOWN, "lacks moe_intermediate_size"),
        ({"num_local_experts": 0}, "num_local_experts 0 but num_experts_per_tok 2"),
        ({"num_local_experts": None} | UNKNOWN, "no num_experts but num_experts_per_tok 2"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok 9 must be 1 to num_local_experts 8"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok 0 must be 1"),
        ({"num_experts": 16}, "num_local_experts 8 and num_experts 16 contradict"),
        ({"moe_topk": 4}, "contradict"),
        ({"n_shared_experts": 2, "shared_intermediate_size": 33}, "contradict"),
        ({"n_shared_experts": 0, "shared_intermediate_size": 33}, "contradict"),
        ({"first_k_dense_replace": 1, "mlp_only_layers": [3]}, "contradict"),
        ({"first_k_dense_replace": 9}, "above num_hidden_layers 4"),
        ({"mlp_layer_types": ["dense"]}, "1 entries"),
        ({"mlp_layer_types": ["dense", "odd", "sparse", "sparse"]}, "'odd'"),
        ({"layer_types": ["full_attention"]}, "1 entries"),
        ({"mlp_only_layers": [7]}, "outside 0 to 3"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step is 0"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": 64.5}, "hidden_size is 64.5"),
        ({"hidden_size": -1}, "hidden_size is -1"),
        ({"hidden_size": 10**30}, "must be a whole number"),
        ({"hidden_size": 0}, "hidden_size is 0, must be at least 1"),
        ({"num_hidden_layers": 10**9}, "1000000000 layers"),
        ({"attention_bias": "no"}, "attention_bias is 'no'"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3 must divide num_attention_heads 4"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0"),
        (
            {"num_attention_heads": 128, "num_key_value_heads": 128, "head_dim": None},
            "num_attention_heads 128 is above hidden_size 64",
        ),
        ({"head_dim": 0}, "head_dim is 0"),
        ({"kv_lora_rank": 0, "qk_nope_head_dim": 16, "v_head_dim": 16}, "kv_lora_rank is 0, must be at least 1 beside"),
        ({"kv_lora_rank": 16, "v_head_dim": 16}, "qk_nope_head_dim is 0"),
        ({"moe_intermediate_size": 0}, "moe_intermediate_size is 0"),
        ({"first_k_dense_replace": 1, "intermediate_size_mlp": 0}, "intermediate_size_mlp is 0"),
        ({"num_nextn_predict_layers": 1.5}, "num_nextn_predict_layers is 1.5"),
        ({"decoder_sparse_step": [1, 2]}, "decoder_sparse_step is [1, 2]"),
        ({"moe_layers": [1, 9]}, "moe_layers names layers outside 0 to 3: 9"),
        ({"mlp_only_layers": [True]}, "mlp_only_layers names layers outside 0 to 3: True"),
        ({"moe_layer_freq": [0, 1, 2, 1]}, "moe_layer_freq"),
        ({"moe_layer_start_index": 3, "moe_layer_end_index": 1}, "moe_layer_start_index 3 is above"),
        ({"expert_layer_period": 2, "expert_layer_offset": 2}, "expert_layer_offset 2 must be below"),
        ({"layer_types": []}, "layer_types has 0 entries"),
        ({"mlp_layer_types": []}, "mlp_layer_types has 0 entries"),
        ({"model_type": 8}, "model_type is 8, must be text"),
        ({"hidden_act": 1}, "hidden_act is 1, must be text"),
        ({"ffn_config": 8}, "ffn_config is 8, must be an object"),
        ({"text_config": [1]}, "text_config is [1], must be an object"),
        ({"mlp_bias": "yes"}, "mlp_bias is 'yes', must be true or false"),
        ({"use_mla": 1}, "use_mla is 1, must be true or false"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1"),
        ({"layer_types": "full_attention"}, "must be a list"),
        ({"moe_intermediate_size": [32, 64, 32, 64]}, "moe_intermediate_size is [32"),
    ],
)
def test_impossible_configs_are_refused(changes: dict[str, Any], words: str) -> None:
    """A missing, contradictory or impossible key raises one sentence with the file, the keys and their values."""
    data = {key: value for key, value in {**MOE, **changes}.items() if value is not None}
    with pytest.raises(UsageError) as error:
        read_config(data, "x/config.json")
    assert words in str(error.value)
    assert str(error.value).startswith("x/config.json: ")
    assert "\n" not in str(error.value)


COUNTS = {alias for names in ALIASES.values() for alias in names} | {
    "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "intermediate_size_mlp",
    "first_k_dense_replace", "decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_start_index",
    "moe_layer_interval", "expert_layer_period", "expert_layer_offset",
}  # fmt: skip
AT_LEAST_ONE = {
    alias
    for name in ("d_model", "num_layers", "num_heads", "vocab_size", "num_kv_heads", "head_dim")
    for alias in ALIASES[name]
}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_no_broken_count_is_read(path: Path) -> None:
    """In every committed file, a count that is negative, fractional, text, a switch or far too large is refused.

    So is 0 where a model needs at least one. The sentence names the key and the value.
    """
    data = load_json(path)
    inner = data.get("text_config", data)
    for key in COUNTS & set(inner):
        zero = (0,) if key in AT_LEAST_ONE else ()
        for value in (-1, 1.5, float("nan"), "8", True, {}, [1, 2], 10**12, *zero):
            broken = {**inner, key: value}
            with pytest.raises(UsageError) as error:
                read_config({**data, "text_config": broken} if inner is not data else broken)
            assert f"{key} is {value!r}" in str(error.value)


@pytest.mark.parametrize(
    "keys",
    [
        {"head_dim": None, "num_key_value_heads": None, "kv_lora_rank": None, "q_lora_rank": None, "layer_types": None},
        {"use_mla": False, "kv_lora_rank": None, "qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "v_head_dim": 0},
        {"use_mla": False, "kv_lora_rank": 16, "qk_nope_head_dim": 8},
        {"kv_lora_rank": 0, "q_lora_rank": 0},
        {"num_experts": 0, "n_shared_experts": None, "moe_layer_freq": None, "mlp_bias": None},
        {"hidden_size": 64.0, "num_nextn_predict_layers": 0},
    ],
)
def test_what_published_files_leave_out_is_read(keys: dict[str, Any]) -> None:
    """A key that is null, a zero that says "none of these" and a whole number with a point read as absent ones do."""
    found = read_config(SMALL | keys)
    assert (found.architecture, found.unknown_groups) == (read_config(SMALL).architecture, ())


def test_a_latent_of_queries_alone_is_named() -> None:
    """Queries through a latent without a latent of keys and values are no grouped-query attention: no total."""
    found = read_config(SMALL | {"q_lora_rank": 32})
    assert found.unknown_groups == ("attention",)
    assert any("q_lora_rank 32" in gap.what for gap in found.gaps)


def test_text_under_a_key_of_other_blocks_is_named() -> None:
    """A key that speaks of other blocks takes the total away whatever its value, unless it is switched off."""
    for value in ("auto", 1.5, 3, True):
        assert read_config(SMALL | {"mamba_dt_rank": value}).unknown_groups
    assert not read_config(SMALL | {"mamba_dt_rank": ""}).unknown_groups


@pytest.mark.parametrize("data", [[], "text", 3, None, {}, {"name": "a-package", "version": "1.0"}])
def test_other_json_is_no_config(data: object) -> None:
    """JSON that describes no model says so."""
    with pytest.raises(UsageError, match="no model config"):
        read_config(data)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"hidden_size = 64", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"hidden_size": 64, "hidden_size": 128}', "twice"),
        (b" " * (LARGEST_FILE + 1), "far more than any model config"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    """A file that is not JSON, or 5 MB and more, is refused in one sentence that names it."""
    path = tmp_path / "config.json"
    path.write_bytes(content)
    for place in (path, tmp_path):
        with pytest.raises(UsageError, match=words) as error:
            load_json(place)
        assert str(path) in str(error.value)


def test_a_number_that_is_none_stands_once(tmp_path: Path) -> None:
    """A key whose value is NaN, which equals nothing, is not taken for a key that stands twice."""
    path = tmp_path / "config.json"
    path.write_text('{"hidden_size": NaN}', encoding="utf-8")
    assert math.isnan(load_json(path)["hidden_size"])


def test_missing_files_are_refused(tmp_path: Path) -> None:
    """A path that is not there, and a folder without a config.json, are named."""
    for place in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError, match=str(place)):
            load_json(place)


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    """A file with a byte order mark reads as one without."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SMALL), encoding="utf-8-sig")
    assert read_config(load_json(path)).architecture == read_config(SMALL).architecture
