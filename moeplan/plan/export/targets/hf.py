"""Hugging Face config.json.

Checked on transformers 5.23: Glm4MoeForCausalLM with shared experts, Qwen3MoeForCausalLM without, DeepseekV3ForCausalLM
for latent attention, LlamaForCausalLM or Qwen3ForCausalLM for dense models. The file is read back before it is
returned: a design that it does not describe exactly is refused.
"""

from __future__ import annotations

import json
from typing import Any

from moeplan.architecture.hf.config import read_config
from moeplan.architecture.shape import Architecture
from moeplan.cost.training.parallelism import Layout
from moeplan.errors import InfeasibleError, UsageError
from moeplan.plan.document import Plan
from moeplan.plan.export.plain import by_attention, moe_layers

TAKES_LAYOUT = False
ROPE_THETA = 10000.0
"""Base of rotary positions in all of these classes by default."""
STARTING_STD = 0.02
"""Standard deviation of the initial weights in all of these classes by default."""


def export(plan: Plan, layout: Layout | None = None) -> str:
    """The plan's model as `config.json`."""
    return json.dumps(hf_config(plan.architecture, plan.request.seq_len), indent=2) + "\n"


def hf_config(shape: Architecture, seq_len: int) -> dict[str, Any]:
    """A `config.json` whose class has exactly the params of `shape`; raises `InfeasibleError` where none has."""
    config = {
        "hidden_size": shape.d_model,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": shape.tied_embeddings,
        "max_position_embeddings": seq_len,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "initializer_range": STARTING_STD,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "use_cache": True,
        "dtype": "bfloat16",
        **_class(shape),
    }
    try:
        same = read_config(config).architecture
    except UsageError as error:
        raise InfeasibleError(f"no Hugging Face class has this shape: {error}") from None
    wanted, given = shape.to_dict(), same.to_dict()
    different = [name for name in {**wanted, **given} if wanted.get(name) != given.get(name)]
    if different:
        name = different[0]
        raise InfeasibleError(
            f"{config['architectures'][0]} cannot express {name} {getattr(shape, name)!r}; it would have "
            f"{getattr(same, name)!r}"
        )
    return config


def _class(shape: Architecture) -> dict[str, Any]:
    """The keys of the class that fits: names and what only it has."""
    return by_attention({"gqa": _grouped_class, "mla": _latent_class}, shape, "Hugging Face")(shape)


def _latent_class(shape: Architecture) -> dict[str, Any]:
    return _named("DeepseekV3", "deepseek_v3") | _latent(shape) | _sigmoid_experts(shape)


def _grouped_class(shape: Architecture) -> dict[str, Any]:
    gqa = {"head_dim": shape.head_dim}
    if shape.is_dense:
        name = _named("Qwen3", "qwen3") if shape.qk_norm == "head" else _named("Llama", "llama")
        more = {} if shape.qk_norm == "head" else {"mlp_bias": False}
        return {**name, **gqa, **more, "intermediate_size": shape.d_ff}
    if shape.num_shared_experts == 0 and shape.qk_norm == "head":
        return {
            **_named("Qwen3Moe", "qwen3_moe"),
            **gqa,
            "num_experts": shape.num_experts,
            "num_experts_per_tok": shape.num_active_experts,
            "moe_intermediate_size": shape.d_expert,
            "intermediate_size": shape.d_ff or shape.d_expert,
            "mlp_only_layers": [i for i, moe in enumerate(moe_layers(shape)) if not moe],
            "decoder_sparse_step": 1,
            "norm_topk_prob": True,
            "output_router_logits": False,
            "router_aux_loss_coef": 0.001,
        }  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": ROPE_THETA, "partial_rotary_factor": 1.0}
    return {
        **_named("Glm4Moe", "glm4_moe"),
        **gqa,
        **_sigmoid_experts(shape),
        "use_qk_norm": shape.qk_norm == "head",
        "rope_parameters": rope,
        "partial_rotary_factor": 1.0,
    }


def _named(family: str, model_type: str) -> dict[str, Any]:
    return {"architectures": [f"{family}ForCausalLM"], "model_type": model_type}


def _latent(shape: Architecture) -> dict[str, Any]:
    names = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    return {"q_lora_rank": shape.q_lora_rank or None, **{name: getattr(shape, name) for name in names}}


def _sigmoid_experts(shape: Architecture) -> dict[str, Any]:
    """Experts as DeepSeek-V3 and GLM-4.5 have them: a sigmoid router with a correction bias that is a buffer."""
    # A dense model of this family has experts in no layer; the class needs their sizes nonetheless.
    experts, active, width = (
        (shape.num_experts, shape.num_active_experts, shape.d_expert) if shape.num_experts else (1, 1, shape.d_ff)
    )
    shared_width = shape.num_shared_experts * shape.d_shared_expert
    if shared_width % width:
        raise InfeasibleError(
            f"shared experts of {shared_width} features in all must be a multiple of the expert width {width}"
        )
    return {
        "intermediate_size": shape.d_ff or width,
        "moe_intermediate_size": width,
        "n_routed_experts": experts,
        "num_experts_per_tok": active,
        "n_shared_experts": shared_width // width,
        "first_k_dense_replace": shape.num_dense_layers,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "num_nextn_predict_layers": shape.num_mtp_layers,
    }
