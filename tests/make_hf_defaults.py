"""Write `moeplan/data/hf_defaults.json`, what transformers' Config classes take for absent keys.

`python -m tests.make_hf_defaults` (needs transformers, the extra `export-test`). For every type of a causal language
model, the sizes and switches that are not "none" of a config made without arguments: a constant, or another key's value
("=num_attention_heads"), found by making the config again with other sizes. `layer_types` is the period that the
default repeats, and `first_k_dense_replace` the dense layers that a default `mlp_layer_types` begins with.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent.parent / "moeplan" / "data" / "hf_defaults.json"
KEPT = re.compile(
    r"(num|n|moe)_.*|.*_(size|dim|rank|bias|kernel|period|offset|interval|step|freq|replace|d_\w+|expand|heads|groups)"
    r"|expand|conv_kernel|conv_L_cache|mamba_\w+|tie_word_embeddings|use_\w*norm|qk_norm|attn_output_gate|sliding_window"
    r"|index_\w+|swa_\w+|first_k_dense_replace|kv_lora_rank|q_lora_rank|\w+_bias|intermediate_size_mlp"
)
DROPPED = re.compile(
    r".*(vision|image|audio|beam|token|return|chunk|logits|labels|aux|rope_theta|rope_param|rope_scal|position|dropout|world|group_beam|coef).*"
    r"|moe_layer_end_index|num_hidden_layers|n_layers?|num_attention_heads|n_heads?|mamba_(hidden_act|ssm_cache_dtype)|use_cache"
)
DERIVED = {
    "=num_attention_heads": lambda c: c["num_attention_heads"],
    "=hidden_size/num_attention_heads": lambda c: c["hidden_size"] // c["num_attention_heads"],
}


def own_text(config: Any) -> dict[str, Any]:
    """A config as a dictionary."""
    data: dict[str, Any] = config.to_dict()
    return data


def period(kinds: list[str]) -> list[str] | None:
    """The shortest list that `kinds` repeats, if it is shorter than half of it."""
    for n in range(1, len(kinds) // 2 + 1):
        if all(kind == kinds[i % n] for i, kind in enumerate(kinds)):
            return kinds[:n]
    return None


def defaults(cls: Any) -> dict[str, Any]:
    """The table's row of one Config class."""
    first = own_text(cls())
    names = {"hidden_size": 1600, "num_attention_heads": 10}
    try:
        second = own_text(cls(**{name: value for name, value in names.items() if name in first}))
    except Exception:
        second = {}
    row: dict[str, Any] = {}
    for key, value in sorted(first.items()):
        if not KEPT.fullmatch(key) or DROPPED.fullmatch(key) or isinstance(value, (float, str, dict, list)):
            continue
        other = second.get(key, value)
        if value == other and value not in (None, False, 0):
            row[key] = value
        elif value != other and {"hidden_size", "num_attention_heads"} <= set(first):
            derived = [name for name, f in DERIVED.items() if (value, other) == (f(first), f(second))]
            if derived:
                row[key] = derived[0]
    kinds = first.get("layer_types")
    if isinstance(kinds, list) and len(set(kinds)) > 1 and (found := period(kinds)):
        row["layer_types"] = found
    kinds = first.get("mlp_layer_types")
    if isinstance(kinds, list) and "sparse" in kinds and "dense" not in kinds[kinds.index("sparse") :]:
        row["first_k_dense_replace"] = kinds.index("sparse")
    own = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    return row | {name: first[name] for name in own if isinstance(first.get(name), int)}


def main() -> None:
    """Write the table."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    warnings.simplefilter("ignore")
    rows = {}
    for name in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        try:
            rows[name] = defaults(CONFIG_MAPPING[name])
        except Exception as error:
            print(name, type(error).__name__)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items() if row)
    text = f'{{"transformers": "{transformers.__version__}", "types": {{\n{lines}\n}}}}\n'
    json.loads(text)
    TABLE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
