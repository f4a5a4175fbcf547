"""Caches and states against those that transformers' classes fill in a forward pass (extra `export-test`)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moeplan.architecture.hf.config import read_config
from moeplan.cost.inference_memory import cache_bytes, state_bytes

pytestmark = pytest.mark.export
_ANY = {"hidden_size": 64, "vocab_size": 128, "num_attention_heads": 4, "max_position_embeddings": 256}
_GROUPED = {**_ANY, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64, "num_experts_per_tok": 2}
_WINDOW = 16
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt_oss": {**_GROUPED, "num_hidden_layers": 4, "num_local_experts": 4, "sliding_window": _WINDOW},
    "qwen3_next": {
        **_GROUPED, "num_hidden_layers": 4, "num_experts": 4, "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    },
    "nemotron_h": {
        **_GROUPED, "layers_block_type": ["linear_attention", "moe", "full_attention", "moe"], "num_hidden_layers": 4,
        "n_routed_experts": 4, "moe_intermediate_size": 32, "moe_shared_expert_intermediate_size": 32,
        "mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 2, "ssm_state_size": 16, "n_group": 1, "topk_group": 1,
    },
    "deepseek_v32": {
        **_ANY, "num_key_value_heads": 4, "num_hidden_layers": 3, "q_lora_rank": 32, "kv_lora_rank": 32,
        "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "intermediate_size": 64,
        "moe_intermediate_size": 32, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
        "first_k_dense_replace": 1, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 8,
    },
}  # fmt: skip
"""The classes of gpt-oss, Qwen3-Next, Nemotron 3 and DeepSeek-V3.2, small enough to run."""


def kept_bytes(layer: Any) -> int:
    """Bytes of the tensors that one layer of a class's cache holds; a flag of one number is none."""
    import torch

    values = [x for value in vars(layer).values() for x in (value.values() if isinstance(value, dict) else [value])]
    held = {id(x): x for x in values if torch.is_tensor(x) and x.numel() > 1}
    return sum(x.numel() * x.element_size() for x in held.values())


@pytest.mark.parametrize("model_type", CONFIGS)
def test_caches_are_those_that_the_classes_fill(model_type: str) -> None:
    """Keys, values, latents, indexers' keys and states are what the class holds after 24 and after 48 tokens.

    A window's class keeps one token less than the window: the last comes with the next token.
    """
    torch = pytest.importorskip("torch", reason="the extra export-test is not installed")
    library = pytest.importorskip("transformers", reason="the extra export-test is not installed")

    config = library.AutoConfig.for_model(model_type, **CONFIGS[model_type])
    model = library.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    shape = read_config(json.loads(config.to_json_string(use_diff=False))).architecture
    assert (state_bytes(shape) > 0) == (model_type in ("qwen3_next", "nemotron_h"))
    windows = 2 * 2 * 2 * 16 * 2 if model_type == "gpt_oss" else 0  # a token of 2 layers, 2 KV heads of 16 in bf16
    for context in (24, 48):
        with torch.no_grad():
            held = model(torch.randint(3, 128, (1, context)), use_cache=True).past_key_values
        assert sum(map(kept_bytes, held.layers)) == cache_bytes(shape, context) - windows
