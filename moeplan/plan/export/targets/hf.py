"""Hugging Face config.json.

Checked on transformers 5.23: Glm4MoeForCausalLM with shared experts, Qwen3MoeForCausalLM or MixtralForCausalLM without,
DeepseekV3ForCausalLM for latent attention, LlamaForCausalLM or Qwen3ForCausalLM for dense models; vLLM and SGLang serve
all of them. Patterns of attention and experts in a latent width are Qwen3NextForCausalLM, KimiLinearForCausalLM or
NemotronHForCausalLM, whose layers are one part of a block each (`moeplan.plan.export.hf_hybrids`). The file is read
back before it is returned: a design that it does not describe exactly is refused.

transformers never updates the correction bias of the router (`e_score_correction_bias`) and has no balance loss for the
two classes that have one: train elsewhere and load the weights, or add the update to your own loop. Qwen3Moe and
Mixtral have no such bias and balance by their auxiliary loss, which the file turns on (`output_router_logits`); the
weights of their experts are a softmax that adds up to 1.
"""

from __future__ import annotations

import json
from typing import Any

from moeplan.architecture.hf.config import read_config
from moeplan.architecture.routing import expert_scale, normalises
from moeplan.architecture.shape import Architecture
from moeplan.cost.training.parallelism import Layout
from moeplan.errors import InfeasibleError, UsageError
from moeplan.plan.export.hf_hybrids import hybrid_class, hybrid_notes
from moeplan.plan.export.job import Job
from moeplan.plan.export.plain import by_attention, moe_layers
from moeplan.plan.export.recipe import setting

TAKES_LAYOUT = False


def export(job: Job, layout: Layout | None = None) -> str:
    """The job's model as `config.json`."""
    return json.dumps(hf_config(job.architecture, job.context), indent=2) + "\n"


def notes(job: Job) -> list[str]:
    """What transformers does not do for a router with a correction bias."""
    config = json.loads(export(job))
    said = hybrid_notes(config)
    if config.get("topk_method") != "noaux_tc" or job.architecture.is_dense:
        return said
    return [
        *said,
        "transformers never updates the router's e_score_correction_bias and has no balance loss for this class: train "
        "elsewhere and load the weights, or update the bias in your loop",
    ]


def hf_config(shape: Architecture, context: int) -> dict[str, Any]:
    """A `config.json` whose class has exactly the params of `shape`; raises `InfeasibleError` where none has."""
    config = {
        "hidden_size": shape.d_model,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": shape.tied_embeddings,
        "max_position_embeddings": context,
        "hidden_act": "silu",
        "rms_norm_eps": setting("norm epsilon"),
        "initializer_range": setting("starting deviation"),
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": setting("rotary base")},
        "use_cache": True,
        "dtype": "bfloat16",
        **(hybrid_class(shape) or _class(shape)),
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
            "norm_topk_prob": normalises(shape.num_experts, shape.num_active_experts),
            "output_router_logits": True,
            "router_aux_loss_coef": setting("balance loss without a bias"),
        }  # fmt: skip
    if shape.num_shared_experts == 0 and shape.num_moe_layers == shape.num_layers:
        return {
            **_named("Mixtral", "mixtral"),
            **gqa,
            "num_local_experts": shape.num_experts,
            "num_experts_per_tok": shape.num_active_experts,
            "intermediate_size": shape.d_expert,
            "sliding_window": None,
            "output_router_logits": True,
            "router_aux_loss_coef": setting("balance loss without a bias"),
        }
    rope = {"rope_type": "default", "rope_theta": setting("rotary base"), "partial_rotary_factor": 1.0}
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
    if shape.num_moe_layers and not shared_width:
        family = "DeepseekV3" if shape.attention == "mla" else "Glm4Moe"
        raise InfeasibleError(
            f"{family} builds a shared expert of no width where there is none; fix num_shared_experts=1"
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
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "norm_topk_prob": normalises(experts, active),
        "routed_scaling_factor": round(expert_scale(active), 6),
        "num_nextn_predict_layers": shape.num_mtp_layers,
    }
