"""Exported and published configurations against the real transformers classes: `pytest -m export`.

Needs the extra `export-test` (torch, transformers). Models are built on the meta device, so no size is too large.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from moeplan.architecture.counting import GROUPS
from moeplan.architecture.hf.config import load_json, read_config
from moeplan.architecture.hf.keys import class_defaults
from moeplan.architecture.hf.safetensors import group_of
from moeplan.architecture.shape import Architecture
from moeplan.errors import UsageError
from moeplan.plan.budget import Budget
from moeplan.plan.export import export
from moeplan.plan.export.targets.hf import hf_config
from moeplan.studies.stored_weights import stored_weights
from tests import make_hf_defaults
from tests.exported import SHAPES, TINY, plan_of
from tests.make_hf_configs import FOLDER, file_name
from tests.published import ROWS

pytestmark = [
    pytest.mark.export,
    pytest.mark.filterwarnings("default"),  # other people's code warns; what is built is checked to the last param
]
SWITCHES = ("attention_bias", "attention_out_bias", "qkv_bias", "use_qkv_bias", "use_qk_norm", "qk_norm",
            "qk_layernorm", "mlp_bias", "use_bias", "lm_head_bias", "tie_word_embeddings")  # fmt: skip
NUMBERS: dict[str, tuple[Any, ...]] = {
    "n_shared_experts": (0, 3),
    "num_shared_experts": (2,),
    "shared_intermediate_size": (1024,),
    "first_k_dense_replace": (0, 2),
    "q_lora_rank": (None,),
    "mlp_only_layers": ([0, 1],),
    "decoder_sparse_step": (2,),
    "interleave_moe_layer_step": (2,),
    "moe_layer_start_index": (3,),
}
"""Values of a config that change its params, tried one by one."""
NEEDED: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 6, "first_k_dense_replace": 1},
    "deepseek_ocr2_text": {"num_experts_per_tok": 6, "mlp_layer_types": ["dense"] + ["sparse"] * 31},
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 2},
    "hunyuan_v1_moe": {"head_dim": 128, "num_experts": 4, "moe_topk": 2},
    "qwen3_omni_moe_text": {"tie_word_embeddings": False, "head_dim": 64},
    "qwen4_exp_text": {
        **{"indexer_n_heads": 8, "indexer_kv_heads": 1, "indexer_head_dim": 256, "indexer_budget": 2048},
        **{"indexer_compress_ratio": 16, "eos_token_id": 5},
    },
}
"""What classes with experts need beside their defaults to be built."""
NO_SIZES = "token_id|dropout|rope|theta|eps|init|output_|dtype|label"
"""Keys that no size depends on."""
PUBLISHED = [
    *(load_json(path) for path in sorted(FOLDER.glob("*.json")) if not path.stem.startswith("hybrid-")),
    *(
        case["config"]
        for name, case in json.loads((FOLDER.parent / "inspect_cases.json").read_text(encoding="utf-8")).items()
        if not name.startswith("silent")
    ),
]
"""Published configs."""
BODIES = {
    "deepseek_ocr2_text": "deepseek_ocr2.modeling_deepseek_ocr2.DeepseekOcr2TextModel",
    "step3p5": "step3p7.modeling_step3p7.Step3p7TextModel",
    "qwen3_omni_moe_text": "qwen3_omni_moe.modeling_qwen3_omni_moe.Qwen3OmniMoeThinkerTextModel",
    "unlimited_ocr_text": "unlimited_ocr.modeling_unlimited_ocr.UnlimitedOcrTextModel",
}
"""Language models of larger ones that no auto class builds alone; all lack the output head."""
NOT_EXPRESSED = {
    "diffusion_gemma_text": "it is no causal model",
    "ernie4_5_vl_moe_text": "experts of two widths, for text and for images",
    "lfm2_moe": "its default names no layers",
    "nllb-moe": "an encoder beside the decoder",
    "openai_privacy_filter": "a head that labels tokens",
    "qwen3_omni_moe_talker_text": "a head that predicts codes of sound",
    "switch_transformers": "an encoder beside the decoder",
}
"""Types with experts whose default config has no total, and why: they are refused, or say what is not counted."""
MOST_USED = (
    "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots1", "ernie4_5_moe", "gemma4_text", "glm4_moe", "glm4_moe_lite",
    "gpt_oss", "granitemoehybrid", "jamba", "llama4_text", "minimax_m2", "mixtral", "nemotron_h", "olmoe",
    "qwen2_moe", "qwen3_5_moe_text", "qwen3_moe", "qwen3_next",
)  # fmt: skip
"""Types of which every key is taken away in turn."""


@pytest.fixture(scope="module")
def transformers() -> Any:
    """The library, quiet."""
    pytest.importorskip("torch", reason="the extra export-test is not installed")
    library = pytest.importorskip("transformers", reason="the extra export-test is not installed")
    library.logging.set_verbosity_error()
    return library


def built(transformers: Any, config: Any, device: str = "meta") -> Any:
    """The model of a config, without weights on the meta device."""
    import torch

    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(config)


def numel(model: Any) -> int:
    """Params of a model; tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", SHAPES)
def test_exported_model_has_exactly_the_plans_params(transformers: Any, name: str, tmp_path: Path) -> None:
    """The real class, built from the exported file, has the plan's params to the last one."""
    plan = plan_of(SHAPES[name])
    (tmp_path / "config.json").write_text(export(plan, "hf"), encoding="utf-8")
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    model = built(transformers, config)
    assert type(model).__name__ == config.architectures[0]
    assert numel(model) == plan.architecture.total_params()


@pytest.mark.parametrize("name", SHAPES)
def test_config_class_changes_nothing(transformers: Any, name: str, tmp_path: Path) -> None:
    """Read and written again by the real Config class, the file still describes the plan's architecture."""
    (tmp_path / "config.json").write_text(export(plan_of(SHAPES[name]), "hf"), encoding="utf-8")
    transformers.AutoConfig.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert read_config(load_json(tmp_path)).architecture == SHAPES[name]


def test_a_tiny_plan_runs(transformers: Any, tmp_path: Path) -> None:
    """A tiny exported model computes a finite loss and gradients that reach every part."""
    import torch

    (tmp_path / "config.json").write_text(export(plan_of(TINY), "hf"), encoding="utf-8")
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    config.dtype = torch.float32
    model = built(transformers, config, "cpu").float()
    tokens = torch.arange(48).reshape(2, 24) % TINY.vocab_size
    result = model(input_ids=tokens, labels=tokens)
    assert result.logits.shape == (2, 24, TINY.vocab_size)
    assert torch.isfinite(result.loss)
    result.loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


HYBRIDS = (("gdn-3:1", 1), ("gdn-2:1", 1), ("kda-3:1", 1), ("mamba2-3:1", 1), ("mamba2-4:1", 4), ("gqa", 4), ("gqa", 2))
"""(pattern, latent) of plans that a class of transformers has."""


def hybrid_shape(attention: str, latent: int, width: int, **axes: Any) -> Architecture:
    """A design of the declared grid with a pattern and a latent width."""
    budget = Budget(1e22, "80GB", attention=attention, latent=latent)
    designs = dataclasses.replace(budget.declared_grid(), **axes).product(width)
    assert designs is not None
    return designs.take([len(designs) // 2]).architecture(0)


@pytest.mark.parametrize("d_model", [1024, 4096])
@pytest.mark.parametrize("attention, latent", HYBRIDS)
def test_exported_patterns_have_exactly_the_plans_params(
    transformers: Any, attention: str, latent: int, d_model: int, tmp_path: Path
) -> None:
    """The real class of a pattern or a latent width has the plan's params to the last one, and reads as the plan."""
    shape = hybrid_shape(attention, latent, d_model)
    (tmp_path / "config.json").write_text(json.dumps(hf_config(shape, 8192)), encoding="utf-8")
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    model = built(transformers, config)
    assert type(model).__name__ == config.architectures[0]
    assert numel(model) == shape.total_params()
    assert read_config(load_json(tmp_path)).architecture == shape


@pytest.mark.parametrize("attention, latent", HYBRIDS)
def test_tiny_patterns_run(transformers: Any, attention: str, latent: int, tmp_path: Path) -> None:
    """Tiny models of a pattern or a latent width compute a finite loss over all of their vocabulary."""
    import torch

    shape = hybrid_shape(
        attention, latent, 128, d_model=(128,), min_layers=1, num_experts=(8 * latent,), d_expert=(32,),
        num_active_experts=(2 * latent,), attention_share=(0.0, 1.0), vocab_size=256,
    )  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(hf_config(shape, 256)), encoding="utf-8")
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    config.dtype = torch.float32
    model = built(transformers, config, "cpu").float()
    assert numel(model) == shape.total_params()
    tokens = torch.arange(48).reshape(2, 24) % 256
    result = model(input_ids=tokens, labels=tokens)
    assert result.logits.shape == (2, 24, 256)
    assert torch.isfinite(result.loss)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if "exact_total_meta" in row])
def test_published_totals_are_those_of_the_real_class(transformers: Any, name: str) -> None:
    """The committed file of a published model, built by its real class, has the published number of params."""
    data = load_json(FOLDER / file_name(name))
    if data["model_type"] == "bailing_moe":  # its class is not in transformers; the count is of its own code
        assert read_config(data).architecture.total_params() == ROWS[name]["exact_total_meta"]
        return
    config = transformers.CONFIG_MAPPING[data["model_type"]].from_dict(data)
    assert numel(built(transformers, config)) == ROWS[name]["exact_total_meta"]


def unused(config: Any) -> int:
    """Params that a class makes and no file has: LongCat's gate and up maps of experts that compute nothing."""
    if config.model_type != "longcat_flash":
        return 0
    return int(2 * config.num_layers * config.zero_expert_num * config.expert_ffn_hidden_size * config.hidden_size)


def configs(transformers: Any, kind: str) -> list[Any]:
    """The default config of a type and those with one switch or number changed, as far as the class allows."""
    make = functools.partial(transformers.CONFIG_MAPPING[kind], **NEEDED.get(kind, {}))
    try:
        plain = make()
    except Exception:  # a class without usable defaults
        return []
    keys = plain.to_dict()
    changes: list[dict[str, Any]] = [{name: not keys[name]} for name in SWITCHES if isinstance(keys.get(name), bool)]
    changes += [{name: value} for name, values in NUMBERS.items() if name in keys for value in values]
    made = [plain]
    for change in changes:
        try:
            made.append(make(**change))
        except Exception:  # refused by the class
            continue
    return made


def test_no_class_of_transformers_is_miscounted(transformers: Any) -> None:
    """For the default config of every causal language model, and each of its switches, the total is right or refused.

    Multimodal models are left out: their class counts the towers too.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KINDS

    right, wrong = 0, []
    for kind in KINDS:
        for config in configs(transformers, kind):
            data = json.loads(config.to_json_string(use_diff=False))
            try:
                found = read_config(data)
            except UsageError:
                continue
            if found.unknown_groups or found.gaps:
                continue
            try:
                count = numel(built(transformers, config)) - unused(config)
            except Exception:  # a class that its own defaults do not fit
                continue
            right += found.architecture.total_params() == count
            if found.architecture.total_params() != count:
                wrong.append((kind, found.architecture.total_params() - count))
    assert wrong == []
    assert right >= 150


def language_model(transformers: Any, config: Any) -> tuple[Any, bool]:
    """The language model of a config, and whether its output head is a part of it."""
    import torch

    try:
        return built(transformers, config), True
    except Exception:  # no causal class of its own
        pass
    with torch.device("meta"):
        if config.model_type in BODIES:
            module, _, name = BODIES[config.model_type].rpartition(".")
            return getattr(importlib.import_module(f"transformers.models.{module}"), name)(config), False
        return transformers.AutoModel.from_config(config), False


def counts(transformers: Any, config: Any, shape: Architecture) -> tuple[int, int]:
    """Total and active params of the real class of a config; of `shape` only what the class itself does not say.

    A token passes through all but those of the routed experts that it does not reach: tensors of experts whose first
    dimension is the number of experts.
    """
    model, with_head = language_model(transformers, config)
    head = 0 if with_head or shape.tied_embeddings else shape.vocab_size * shape.d_model
    total = numel(model) + head - unused(config)
    idle = 0
    for name, parameter in model.named_parameters():
        routed = re.search(r"experts\.|put_linear|_embed\.|ffn\.experts", name) and "shared" not in name
        if routed and "router" not in name and parameter.shape[0] == shape.num_experts and parameter.ndim > 1:
            idle += parameter.numel() * (shape.num_experts - shape.num_active_experts) // shape.num_experts
        elif routed and "router" not in name and unused(config) and parameter.ndim > 1:
            own = parameter.numel() - unused(config) // config.num_layers
            idle += own * (shape.num_experts - shape.num_active_experts) // shape.num_experts
    return total, total - idle


def other_size(transformers: Any, kind: str) -> Any:
    """A config of a type at another size than its class's default: a published one, or another depth and vocabulary."""
    for data in PUBLISHED:
        if data.get("model_type") == kind:
            return transformers.CONFIG_MAPPING[kind].from_dict(data)
    base = {**NEEDED.get(kind, {}), "vocab_size": 262_144}
    experts = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")
    depths: list[dict[str, Any]] = [{"num_hidden_layers": 24}, {"num_layers": 24}]
    for depth in (*depths, {}) if "mlp_layer_types" not in base else ({},):
        try:
            plain = transformers.CONFIG_MAPPING[kind](**{**base, **depth})
            wide = next((name for name in experts if name in plain.to_dict()), None)
            more = {wide: 2 * getattr(plain, wide)} if wide and getattr(plain, wide) else {}
            return transformers.CONFIG_MAPPING[kind](**{**base, **depth, **more})
        except Exception:  # refused by the class
            continue
    return None


def with_experts(transformers: Any) -> dict[str, list[Any]]:
    """Configs of every type of a language model whose keys speak of experts."""
    found = {}
    for kind in transformers.CONFIG_MAPPING:
        made = configs(transformers, kind)
        keys = [str(key) for key in made[0].to_dict()] if made else []
        if "vocab_size" in keys and any(re.search("expert|moe", key) for key in keys):
            found[kind] = made
    return found


def test_every_class_with_experts_is_right_or_listed(transformers: Any) -> None:
    """Of every config class with experts, multimodal models' language models too, total and active are the class's.

    So they are at the default size, with each switch and number changed, and at another size. Those that an
    `Architecture` cannot express are the ones listed above: they are refused, or say what is not counted.
    """
    wrong, silent, others = [], set(), set()
    kinds = with_experts(transformers)
    for kind, made in kinds.items():
        for config in (*made, other_size(transformers, kind)):
            if config is None:
                continue
            try:
                found = read_config(json.loads(config.to_json_string(use_diff=False)))
            except UsageError:
                silent |= {kind} if config is made[0] else set()
                continue
            if found.unknown_groups:
                silent |= {kind} if config is made[0] else set()
                continue
            assert not any("not in moeplan's table" in sentence for sentence in found.assumptions), kind
            shape = found.architecture
            try:
                count = counts(transformers, config, shape)
            except Exception:  # a switch that the class does not survive
                if config is made[0]:
                    raise
                continue
            if (shape.total_params(), shape.active_params()) != count:
                wrong.append((kind, shape.total_params() - count[0], shape.active_params() - count[1]))
            others |= {kind} if all(config is not one for one in made) else set()
    assert wrong == []
    assert silent == set(NOT_EXPRESSED)
    assert len(kinds) - len(silent) >= 45
    causal = set(kinds) & set(transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    exact = causal - silent - {"longcat_flash"}
    assert len(exact) >= 0.95 * len(causal)
    assert len(causal & others) >= 0.95 * len(causal)


@pytest.mark.parametrize(
    "kind", [*MOST_USED, "deepseek_v4", "hy_v4", "jetmoe", "kimi_linear", "muse_spark_text", "zaya"]
)
def test_names_of_tensors_speak_of_their_groups(transformers: Any, kind: str) -> None:
    """The params of the real class by the groups that its tensors' names speak of are those of the architecture."""
    config = other_size(transformers, kind)
    shape = read_config(json.loads(config.to_json_string(use_diff=False))).architecture
    found = dict.fromkeys(GROUPS, 0)
    model, with_head = language_model(transformers, config)
    for name, parameter in model.named_parameters():
        found[group_of(name, shape.num_layers)] += parameter.numel()
    counted = shape.params_by_group()
    assert found == (counted if with_head else counted | {"output_head": 0})


def test_a_saved_model_holds_what_its_config_counts(transformers: Any, tmp_path: Path) -> None:
    """A tiny model saved by transformers: its files' headers and its config.json say the same, group by group."""
    (tmp_path / "config.json").write_text(export(plan_of(TINY), "hf"), encoding="utf-8")
    built(transformers, transformers.AutoConfig.from_pretrained(tmp_path), "cpu").save_pretrained(tmp_path)
    found = stored_weights(tmp_path)
    assert found.differing == ()
    assert found.total_params == found.counted_params == TINY.total_params()


def test_defaults_are_those_of_the_classes() -> None:
    """The bundled table of what classes take for absent keys is the one that this version of the classes gives."""
    assert make_hf_defaults.TABLE.read_text(encoding="utf-8") == make_hf_defaults.table()


@pytest.mark.parametrize("kind", MOST_USED)
def test_a_key_of_a_used_type_is_never_missed_in_silence(transformers: Any, kind: str) -> None:
    """Of a config with any one key taken away the total is the class's, or refused, or the absent key is named."""
    config = other_size(transformers, kind)
    data = json.loads(config.to_json_string(use_diff=False))
    keys = sorted(key for key in data if not re.search(NO_SIZES, key) and "Infinity" not in str(data[key]))
    for key in random.Random(0).sample(keys, min(10, len(keys))):
        less = {name: value for name, value in data.items() if name != key and "Infinity" not in str(value)}
        try:
            found = read_config(less)
            count = numel(built(transformers, transformers.CONFIG_MAPPING[kind].from_dict(less)))
        except Exception:  # refused here, or by the class
            continue
        named = any(re.search(rf"^{key} is absent|no {key}", sentence) for sentence in found.assumptions)
        assert found.unknown_groups or named or found.architecture.total_params() == count, key


def has_class(path: Path) -> bool:
    """Whether transformers has a class of its own for a file's language model."""
    data = load_json(path)
    return bool(class_defaults(data["model_type"])) and "text_config" not in data


@pytest.mark.parametrize("path", sorted(filter(has_class, FOLDER.glob("*.json"))), ids=lambda path: path.stem)
def test_a_missing_key_is_never_miscounted_in_silence(transformers: Any, path: Path) -> None:
    """Of a file with one key taken away the total is the class's, or refused, or the absent key is named."""
    data = load_json(path)
    keys = sorted(key for key in data if not re.search(NO_SIZES, key))
    for key in random.Random(0).sample(keys, min(8, len(keys))):
        less = {name: value for name, value in data.items() if name != key}
        try:
            found = read_config(less)
            config = transformers.CONFIG_MAPPING[data["model_type"]].from_dict(less)
            count = numel(built(transformers, config)) - unused(config)
        except Exception:  # refused here, or by the class
            continue
        named = any(re.search(rf"^{key} is absent|no {key}", sentence) for sentence in found.assumptions)
        assert found.unknown_groups or named or found.architecture.total_params() == count, key
