"""Published models: their configurations, exact counts and KV caches, as `Architecture`s.

`data/published_models.json` has one model a line: fields named as in its Hugging Face configuration, `counts` by group,
`kv_bytes_per_token_bf16`, `windows` (which layers see one), and `exact_total_meta`, the params of the real transformers
class built on the meta device.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from moeplan.architecture.blocks import AttentionRun, Blocks
from moeplan.architecture.hybrid import HybridArchitecture
from moeplan.architecture.shape import Architecture

Row = dict[str, Any]

ROWS: dict[str, Row] = {
    row["name"]: row
    for row in json.loads((Path(__file__).parent / "data" / "published_models.json").read_text(encoding="utf-8"))
}
"""Every published model with known counts, by name."""


def architecture(row: Row) -> Architecture:
    """The architecture that a row of the data file describes."""
    shared_width = row["shared_intermediate_size"]
    # Where a model names a total width only, that is one shared expert.
    num_shared = row.get("n_shared_experts") or row.get("num_shared_experts") or int(shared_width > 0)
    step = row.get("interleave_moe_layer_step", 1)
    sandwich_norms = row.get("norm_mult") == 2  # Grok-1: a norm behind each sub-block too, and two outside the blocks
    fields: Row = dict(  # noqa: C408, the names are those of `Architecture`
        d_model=row["hidden_size"],
        num_layers=row["num_hidden_layers"],
        vocab_size=row["vocab_size"],
        num_heads=row["num_attention_heads"],
        num_kv_heads=row["num_key_value_heads"],
        head_dim=row["head_dim"],
        d_ff=row["intermediate_size_dense"],
        num_experts=row["num_experts"],
        num_active_experts=row["num_experts_per_tok"],
        d_expert=row["moe_intermediate_size"],
        num_shared_experts=num_shared,
        d_shared_expert=shared_width // max(num_shared, 1),
        num_dense_layers=row["first_k_dense_replace"] if row["num_experts"] else 0,
        moe_layer_pattern=(tuple((i + 1) % step == 0 for i in range(row["num_hidden_layers"])) if step > 1 else None),
        tied_embeddings=row["tie_word_embeddings"],
        attention=row["attention_type"],
        q_lora_rank=row.get("q_lora_rank", 0),
        kv_lora_rank=row.get("kv_lora_rank", 0),
        qk_nope_head_dim=row.get("qk_nope_head_dim", 0),
        qk_rope_head_dim=row.get("qk_rope_head_dim", 0),
        v_head_dim=row.get("v_head_dim", 0),
        qkv_bias=row.get("qkv_bias", False),
        output_bias=row.get("o_bias", False),
        attention_sinks=row.get("sinks", False),
        qk_norm=row.get("qk_norm", "none"),
        router_bias=row.get("router_bias", False),
        router_correction_bias=row.get("extra_router_bias_param", False),
        expert_bias=bool(row.get("expert_bias", 0)),
        shared_expert_gate=row.get("shared_gate", False),
        d_dense_residual=row.get("dense_residual_size", 0),
        norms_per_block=4 if sandwich_norms else 2,
        num_final_norms=2 if sandwich_norms else 1,
        num_kv_layers=row.get("num_kv_layers", 0),
        num_mtp_layers=row.get("num_nextn_predict_layers", 0),
    )
    windows = row.get("windows")
    if windows is None:
        return Architecture(**fields)
    wide = Architecture(**fields).uniform_attention
    narrow = dataclasses.replace(wide, window=windows["tokens"], chunked=windows.get("chunked", False))
    sliding = [windows["period"][i % len(windows["period"])] for i in range(row["num_hidden_layers"])]
    kinds = [narrow if slides else wide for slides in sliding]
    runs = [AttentionRun(kind, tuple(i for i, own in enumerate(kinds) if own == kind)) for kind in dict.fromkeys(kinds)]
    return HybridArchitecture(**fields, blocks=Blocks(attentions=tuple(runs)))


MODELS: dict[str, Architecture] = {name: architecture(row) for name, row in ROWS.items()}
"""The same models as architectures."""
