"""Write `data/hf_configs/*.json` by the real transformers Config classes: `python -m tests.make_hf_configs`.

Needs transformers (the extra `export-test`); the files are committed, so that reading them needs nothing. Where
transformers has no class of its own for a model (Ling: `bailing_moe`), its base class writes the published keys.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data" / "hf_configs"
ROWS = json.loads((Path(__file__).parent / "data" / "published_models.json").read_text(encoding="utf-8"))


def file_name(name: str) -> str:
    """The file of a model: lower case, no spaces or brackets."""
    return name.lower().replace(" ", "-").replace("(", "").replace(")", "") + ".json"


def keys(row: dict[str, Any]) -> dict[str, Any]:
    """A row of published_models.json as arguments of the model's Config class."""
    kind = row["model_type"]
    values = {
        name: row[name]
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")
    }
    values["tie_word_embeddings"] = row["tie_word_embeddings"]
    heads = row["hidden_size"] // row["num_attention_heads"]
    if row["attention_type"] == "mla":
        for name in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
            values[name] = row[name]
        values["q_lora_rank"] = row.get("q_lora_rank") or None
    elif row["head_dim"] != heads or kind in ("qwen3", "qwen3_moe", "llama", "mistral", "gpt_oss", "glm4_moe"):
        values["head_dim"] = row["head_dim"]
    if not row["num_experts"]:
        return {**values, "intermediate_size": row["intermediate_size_dense"]}
    width, top_k, experts = row["moe_intermediate_size"], row["num_experts_per_tok"], row["num_experts"]
    narrow = {"intermediate_size": width, "num_experts_per_tok": top_k}
    if kind in ("mixtral", "gpt_oss", "granitemoe", "minimax_m2"):
        return {**values, **narrow, "num_local_experts": experts}
    if kind == "olmoe":
        return {**values, **narrow, "num_experts": experts}
    if kind == "llama4_text":
        step = row.get("interleave_moe_layer_step", 1)
        wide = row["intermediate_size_dense"] or 2 * width
        return {
            **values, **narrow, "num_local_experts": experts,
            "intermediate_size_mlp": wide, "interleave_moe_layer_step": step,
        }  # fmt: skip
    values |= {"moe_intermediate_size": width, "intermediate_size": row["intermediate_size_dense"] or width}
    first = row["first_k_dense_replace"]
    if kind == "ernie4_5_moe":
        return {
            **values, "moe_num_experts": experts, "moe_k": top_k, "moe_num_shared_experts": 0,
            "moe_layer_start_index": first, "moe_layer_end_index": row["num_hidden_layers"] - 1,
        }  # fmt: skip
    values["num_experts_per_tok"] = top_k
    if kind in ("qwen2_moe", "qwen3_moe"):
        values["num_experts"] = experts
        if kind == "qwen2_moe":
            values["shared_expert_intermediate_size"] = row["shared_intermediate_size"]
        return values
    shared = row["shared_intermediate_size"] // width
    if kind == "bailing_moe":
        extra = {"use_qk_norm": True} if row.get("qk_norm") == "head" else {}
        return {
            **values, **extra, "num_experts": experts, "num_shared_experts": shared, "first_k_dense_replace": first,
            "hidden_act": "silu", "use_bias": False, "use_qkv_bias": False, "norm_topk_prob": True,
        }  # fmt: skip
    values |= {"n_routed_experts": experts, "n_shared_experts": shared}
    if kind == "glm4_moe":
        values["attention_bias"] = row["qkv_bias"]
    if kind == "glm4_moe_lite":
        layers = row["num_hidden_layers"]
        values["mlp_layer_types"] = ["dense"] * first + ["sparse"] * (layers - first)
    else:
        values["first_k_dense_replace"] = first
    if "num_nextn_predict_layers" in row:
        values["num_nextn_predict_layers"] = row["num_nextn_predict_layers"]
    return values


def main() -> None:
    """Write every file."""
    from transformers import PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    FOLDER.mkdir(exist_ok=True)
    for row in ROWS:
        if "exact_total_meta" not in row or "counts" not in row:
            continue
        kind = row["model_type"]
        if kind == "bailing_moe":
            config = type("BailingMoeConfig", (PreTrainedConfig,), {"model_type": kind})(**keys(row))
        else:
            config = CONFIG_MAPPING[kind](**keys(row))
        config.save_pretrained(FOLDER)
        (FOLDER / "config.json").rename(FOLDER / file_name(row["name"]))
    dbrx = CONFIG_MAPPING["dbrx"](
        d_model=6144, n_heads=48, n_layers=40, vocab_size=100352, attn_config={"kv_n_heads": 8, "clip_qkv": 8},
        ffn_config={"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
    )  # fmt: skip
    llama4 = CONFIG_MAPPING["llama4"](
        text_config=keys(next(row for row in ROWS if row["name"].startswith("Llama-4-S")))
    )
    for name, config in (("dbrx", dbrx), ("multimodal-llama4", llama4)):
        config.save_pretrained(FOLDER)
        (FOLDER / "config.json").rename(FOLDER / f"{name}.json")
    for name in HYBRIDS:
        CONFIG_MAPPING[name]().save_pretrained(FOLDER)
        (FOLDER / "config.json").rename(FOLDER / f"hybrid-{name}.json")


HYBRIDS = ("qwen3_next", "minimax", "jamba", "lfm2", "kimi_linear", "deepseek_v32", "longcat_flash", "gemma3n_text")
"""Types with other blocks than attention and gated feed-forward ones, by their default configs."""


if __name__ == "__main__":
    main()
