"""Write `moeplan/data/hf_defaults.json`, what transformers' Config classes take for absent keys.

`python -m tests.make_hf_defaults` (needs transformers, the extra `export-test`). For every type of a causal language
model, the sizes and switches that are not "none" of a config made without arguments: a constant, or another key's value
("=num_attention_heads"), found by making the config again with other sizes. A list with one entry a layer is the period
that the default repeats, after a head where it has one; `first_k_dense_replace` the dense layers that a default
`mlp_layer_types` begins with; `per_layer_config` what the default gives to all layers of one kind. `flat` are the types
whose class reads a language model from `text_config` alone, with that model's type: keys beside it say nothing to it.
"""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from pathlib import Path
from typing import Any

from moeplan.architecture.hf.keys import expanded
from moeplan.architecture.hf.sizes import SWITCHES
from moeplan.architecture.hf.types import facts_by_type

TABLE = Path(__file__).parent.parent / "moeplan" / "data" / "hf_defaults.json"
KEPT = re.compile(
    r"(num|n|moe)_.*|d_rel|rel_extent|cca_time\d|o_groups|hc_(mult|count|lowrank)|heads_per_ngram|\w*ngram_vocab_size\w+"
    r"|kv_channels|zero_expert_num|mlp_only_layers|\w+_kpool|indexer?_\w+|.*_(size|dim|rank|bias|kernel|period|offset|interval|step|freq|replace|d_\w+|expand|heads|groups)"
    r"|expand|conv_kernel|conv_L_cache|mamba_\w+|tie_word_embeddings|use_\w*norm|qk_norm|attn_output_gate|sliding_window"
    r"|index_\w+|swa_\w+|first_k_dense_replace|kv_lora_rank|q_lora_rank|\w+_bias|intermediate_size_mlp"
)
DROPPED = re.compile(
    r".*(vision|image|audio|beam|token|return|chunk|logits|labels|aux|rope_theta|rope_param|rope_scal|position|dropout|world|group_beam|coef).*"
    r"|moe_layer_end_index|num_hidden_layers|n_layers?|num_attention_heads|n_heads?|mamba_(hidden_act|ssm_cache_dtype)|use_cache"
)
ALSO = (
    "deepseek_ocr2_text",
    "glm4v_moe_text",
    "glm5_next_text",
    "mistral4",
    "qwen3_vl_moe_text",
    "qwen3_omni_moe_text",
)
"""Language models of larger ones that no causal class has alone."""
LISTS = ("layer_types", "indexer_types", "no_rope_layers")
"""Lists with one entry a layer that sizes depend on."""
DERIVED = {
    "=num_attention_heads": lambda c: c["num_attention_heads"],
    "=hidden_size/num_attention_heads": lambda c: c["hidden_size"] // c["num_attention_heads"],
    "=hidden_size": lambda c: c["hidden_size"],
}
PRODUCTS = {"jetmoe": {"num_attention_heads": "=num_key_value_heads*num_experts_per_tok"}}
"""What a class derives from other keys than those that are varied here."""


def own_text(config: Any) -> dict[str, Any]:
    """A config as a dictionary."""
    data: dict[str, Any] = config.to_dict()
    return data


def rule(kinds: list[Any], longer: list[Any]) -> Any:
    """The shortest list that `kinds` repeats, as `moeplan.architecture.hf.keys.expanded` reads it.

    `longer` must follow the same rule; None where no rule is found.
    """
    for n in range(1, len(kinds) // 2 + 1):
        for first in range(4):
            head, period = kinds[:first], kinds[first : first + n]
            plain = {"head": head, "period": period}
            from_end = {"reversed": True, "period": kinds[::-1][first : first + n], "head": kinds[::-1][:first]}
            for found in (period if not head else plain, {**plain, "last": kinds[-1]}, from_end):
                if expanded(found, len(kinds)) == kinds and expanded(found, len(longer)) == longer:
                    return found
    return None


def by_kind(config: Any) -> dict[str, dict[str, int]]:
    """What a default per_layer_config says of all layers of one kind, and of no others."""
    kinds, stated = config.get("layer_types"), config.get("per_layer_config")
    found: dict[str, dict[str, int]] = {}
    for layer, values in (stated or {}).items():
        found.setdefault(kinds[int(layer)], values)
        assert found[kinds[int(layer)]] == values
    assert all(kinds.count(kind) == sum(kinds[int(i)] == kind for i in stated) for kind in found)
    return found


def made(cls: Any, **given: Any) -> dict[str, Any]:
    """A config with other sizes, as a dictionary; empty where the class refuses them."""
    try:
        return own_text(cls(**given))
    except Exception:
        return {}


def defaults(cls: Any, name: str = "") -> dict[str, Any]:
    """The table's row of one Config class."""
    first = own_text(cls())
    names = {"hidden_size": 1600, "num_attention_heads": 10}
    second = made(cls, **{name: value for name, value in names.items() if name in first})
    row: dict[str, Any] = {}
    for key, value in sorted(first.items()):
        if value is False and key in SWITCHES:
            row[key] = False
        listed = isinstance(value, list) and key != "mlp_only_layers"
        if not KEPT.fullmatch(key) or DROPPED.fullmatch(key) or listed or isinstance(value, (float, str, dict)):
            continue
        other = second.get(key, value)
        if value == other and value not in (None, False, 0, []):
            row[key] = value
        elif value != other and {"hidden_size", "num_attention_heads"} <= set(first):
            derived = [name for name, f in DERIVED.items() if (value, other) == (f(first), f(second))]
            if derived:
                row[key] = derived[0]
    longer = made(cls, num_hidden_layers=first["num_hidden_layers"] + 1) if first.get("num_hidden_layers") else {}
    for key in LISTS:
        kinds, more = first.get(key), longer.get(key) or first.get(key)
        if isinstance(kinds, list) and len(set(kinds)) > 1 and (found := rule(kinds, more)):
            row[key] = found
        elif isinstance(kinds, list) and len(set(kinds)) > 1:
            print(f"{name}: no rule for {key} {kinds}")
    for key, value in (first.get("compress_rates") or {}).items():
        row[f"compress_rates.{key}"] = value
    if found := by_kind(first):
        row["per_layer_config"] = found
    kinds = first.get("mlp_layer_types")
    if isinstance(kinds, list) and "sparse" in kinds and "dense" not in kinds[kinds.index("sparse") :]:
        row["first_k_dense_replace"] = kinds.index("sparse")
    own = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    return row | {name: first[name] for name in own if isinstance(first.get(name), int)} | PRODUCTS.get(name, {})


def flat(cls: Any) -> str:
    """The type of the language model that a class reads from text_config alone; "" where it reads keys beside it."""
    if "text_config" not in cls.sub_configs:
        return ""
    plain, other = cls(), cls(hidden_size=1600)
    text = plain.get_text_config()
    if text is plain or own_text(text) != own_text(other.get_text_config()):
        return ""
    return str(text.model_type)


def main() -> None:
    """Write the table."""
    TABLE.write_text(table(), encoding="utf-8")


def table() -> str:
    """The table as it is written."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    outer = {}
    for name in CONFIG_MAPPING:
        with contextlib.suppress(Exception):
            if (found := flat(CONFIG_MAPPING[name])) in (*facts_by_type(), *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
                outer[name] = found
    rows = {}
    for name in sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *outer.values(), *ALSO}):
        with contextlib.suppress(Exception):  # a class without usable defaults, or no class of this name
            rows[name] = defaults(CONFIG_MAPPING[name], name)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items() if row)
    flat_types = json.dumps(outer)
    text = f'{{"transformers": "{transformers.__version__}",\n"flat": {flat_types},\n"types": {{\n{lines}\n}}}}\n'
    json.loads(text)
    return text


if __name__ == "__main__":
    main()
