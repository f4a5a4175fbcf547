"""Hugging Face classes of models whose blocks differ, or whose experts work in a latent width: their keys."""

from __future__ import annotations

from typing import Any

from moeplan.architecture import counting
from moeplan.architecture.attention.delta import GatedDeltaNet, KimiDeltaAttention
from moeplan.architecture.attention.mamba import Mamba2
from moeplan.architecture.hybrid import HybridArchitecture
from moeplan.architecture.routing import expert_scale, normalises
from moeplan.architecture.shape import Architecture
from moeplan.errors import InfeasibleError
from moeplan.plan.export.plain import moe_layers
from moeplan.plan.export.recipe import setting


def hybrid_class(shape: Architecture) -> dict[str, Any]:
    """The keys of the class that fits: names and what only it has; none for a shape that plain classes have.

    Raises `InfeasibleError` for a shape that no class has.
    """
    blocks = counting.blocks_of(shape)
    states = [a for _, a in counting.attentions(shape)[:-1]] if isinstance(shape, HybridArchitecture) else []
    state = states[0] if len(states) == 1 else None
    if not states and blocks.gated and not shape.d_latent:
        return {}
    if isinstance(state, Mamba2) or (not states and not blocks.gated):
        return _nemotron_h(shape, state if isinstance(state, Mamba2) else None)
    if shape.d_latent:
        raise InfeasibleError(
            f"no Hugging Face class has gated experts in a latent width of {shape.d_latent}; export to megatron, or "
            "plan with attention gqa or mamba2-3:1"
        )
    if isinstance(state, GatedDeltaNet):
        return _qwen3_next(shape, state)
    if isinstance(state, KimiDeltaAttention):
        return _kimi_linear(shape, state)
    raise InfeasibleError("Hugging Face export is not written for these kinds of blocks")


def hybrid_notes(config: dict[str, Any]) -> list[str]:
    """What is to know of these classes."""
    if config["model_type"] != "nemotron_h":
        return []
    said = ["its num_hidden_layers counts attention and feed-forward parts apart: two for each block of the plan"]
    if "linear_attention" not in config["layers_block_type"]:
        said.append(
            "NemotronH has no rotary positions: with attention in every block its order of tokens comes from the "
            "causal mask alone; add rotary positions to its attention, which have no params, before training"
        )
    return said


_NO_TOKENS = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
"""Tokens of the published model's own vocabulary, which a plan's may not reach: they come with the tokenizer."""


def _named(family: str, model_type: str) -> dict[str, Any]:
    return {"architectures": [f"{family}ForCausalLM"], "model_type": model_type}


def _kinds(shape: Architecture) -> list[str]:
    """The name of every block's attention."""
    assert isinstance(shape, HybridArchitecture)
    full = set(shape.blocks.attentions[-1].layers)
    return ["full_attention" if i in full else "linear_attention" for i in range(shape.num_layers)]


def _shared_width(shape: Architecture, family: str) -> int:
    width = shape.num_shared_experts * shape.d_shared_expert
    if not width:
        raise InfeasibleError(
            f"{family} builds a shared expert of no width where there is none; fix num_shared_experts=1"
        )
    return width


def _qwen3_next(shape: Architecture, state: GatedDeltaNet) -> dict[str, Any]:
    return {
        **_named("Qwen3Next", "qwen3_next"),
        "head_dim": shape.head_dim,
        "layer_types": _kinds(shape),
        "linear_num_key_heads": state.num_key_heads,
        "linear_num_value_heads": state.num_value_heads,
        "linear_key_head_dim": state.key_head_dim,
        "linear_value_head_dim": state.value_head_dim,
        "linear_conv_kernel_dim": state.conv_kernel,
        "num_experts": shape.num_experts,
        "num_experts_per_tok": shape.num_active_experts,
        "moe_intermediate_size": shape.d_expert,
        "shared_expert_intermediate_size": _shared_width(shape, "Qwen3Next"),
        "intermediate_size": shape.d_ff or shape.d_expert,
        "mlp_only_layers": [i for i, moe in enumerate(moe_layers(shape)) if not moe],
        "decoder_sparse_step": 1,
        "norm_topk_prob": normalises(shape.num_experts, shape.num_active_experts),
        "output_router_logits": True,
        "router_aux_loss_coef": setting("balance loss without a bias"),
    }


def _kimi_linear(shape: Architecture, state: KimiDeltaAttention) -> dict[str, Any]:
    full = [i + 1 for i, kind in enumerate(_kinds(shape)) if kind == "full_attention"]
    width = _shared_width(shape, "KimiLinear")
    if width % shape.d_expert:
        raise InfeasibleError(f"shared experts of {width} features in all must be a multiple of {shape.d_expert}")
    names = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    return {
        **_named("KimiLinear", "kimi_linear"),
        **{name: getattr(shape, name) for name in names},
        "q_lora_rank": shape.q_lora_rank or None,
        "head_dim": shape.head_dim,
        "linear_attn_config": {
            "full_attn_layers": full,
            "kda_layers": [i for i in range(1, shape.num_layers + 1) if i not in full],
            "num_heads": state.num_heads,
            "head_dim": state.head_dim,
            "short_conv_kernel_size": state.conv_kernel,
        },
        "num_experts": shape.num_experts,
        "num_experts_per_token": shape.num_active_experts,
        "moe_intermediate_size": shape.d_expert,
        "num_shared_experts": width // shape.d_expert,
        "intermediate_size": shape.d_ff or shape.d_expert,
        "first_k_dense_replace": shape.num_dense_layers,
        "moe_renormalize": normalises(shape.num_experts, shape.num_active_experts),
        "moe_router_activation_func": "sigmoid",
        "routed_scaling_factor": round(expert_scale(shape.num_active_experts), 6),
        **_NO_TOKENS,
    }


def _nemotron_h(shape: Architecture, state: Mamba2 | None) -> dict[str, Any]:
    mixers = ["full_attention"] * shape.num_layers if state is None else _kinds(shape)
    parts = [
        part for mixer, moe in zip(mixers, moe_layers(shape), strict=True) for part in (mixer, "moe" if moe else "mlp")
    ]
    own: dict[str, Any] = {}
    if state is not None:
        own = {
            "mamba_num_heads": state.num_heads,
            "mamba_head_dim": state.head_dim,
            "n_groups": state.num_groups,
            "ssm_state_size": state.state_dim,
            "conv_kernel": state.conv_kernel,
            "chunk_size": 128,
        }
    if shape.is_dense:
        raise InfeasibleError("NemotronH export is written for models with experts")
    return {
        **_named("NemotronH", "nemotron_h"),
        **own,
        "head_dim": shape.head_dim,
        "layers_block_type": parts,
        "num_hidden_layers": len(parts),
        "layer_norm_epsilon": setting("norm epsilon"),
        "mlp_hidden_act": "relu2",
        "intermediate_size": shape.d_ff or shape.d_expert,
        "n_routed_experts": shape.num_experts,
        "num_experts_per_tok": shape.num_active_experts,
        "moe_intermediate_size": shape.d_expert,
        "moe_latent_size": shape.d_latent or None,
        "n_shared_experts": 1,
        "moe_shared_expert_intermediate_size": _shared_width(shape, "NemotronH"),
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "noaux_tc",
        "norm_topk_prob": normalises(shape.num_experts, shape.num_active_experts),
        "routed_scaling_factor": round(expert_scale(shape.num_active_experts), 6),
        "num_nextn_predict_layers": 0,
    }
