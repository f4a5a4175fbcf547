"""MaxText YAML.

For `python -m MaxText.train base.yml` with its values, where one of its decoder blocks fits. Its qwen3_moe block has
grouped queries, no shared experts and no dense layers; its deepseek block has latent attention, shared experts and
first dense layers. Nothing has grouped queries with either.
"""

from __future__ import annotations

from moeplan.architecture.shape import Architecture
from moeplan.cost.training.parallelism import Layout
from moeplan.errors import InfeasibleError
from moeplan.plan.document import Plan
from moeplan.plan.export.plain import by_attention, require_plain
from moeplan.plan.export.recipe import by_law, recipe, summary
from moeplan.plan.export.targets.hf import ROPE_THETA
from moeplan.texts import comment

TAKES_LAYOUT = False


def export(plan: Plan, layout: Layout | None = None) -> str:
    """The plan's model and training as YAML."""
    chosen = recipe(plan, layout)
    values = {
        **maxtext_model(plan.architecture),
        "max_target_length": chosen.seq_len,
        "learning_rate": chosen.learning_rate,
        "steps": chosen.steps,
    }
    lines = [
        comment(summary(plan)),
        comment(f"{by_law(chosen)}: set per_device_batch_size to {chosen.batch} / number of devices"),
        *(f"{name}: {_yaml(value)}" for name, value in values.items()),
    ]
    return "\n".join(lines) + "\n"


def maxtext_model(shape: Architecture) -> dict[str, object]:
    """The keys of the model; raises `InfeasibleError` where no decoder block fits."""
    block = _block(shape)
    values: dict[str, object] = {
        "decoder_block": block,
        "base_emb_dim": shape.d_model,
        "base_num_decoder_layers": shape.num_layers,
        "base_num_query_heads": shape.num_heads,
        "base_num_kv_heads": shape.num_kv_heads,
        "base_mlp_dim": shape.d_ff if shape.num_dense_layers else shape.d_expert,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "mlp_activations": ["silu", "linear"],
        "logits_via_embedding": shape.tied_embeddings,
        "normalization_layer_epsilon": 1e-6,
        "rope_max_timescale": int(ROPE_THETA),
        "enable_dropout": False,
    }
    if shape.qk_norm == "head" and block != "deepseek":
        values["use_qk_norm"] = True
    if shape.num_moe_layers:
        values |= {
            "num_experts": shape.num_experts,
            "num_experts_per_tok": shape.num_active_experts,
            "base_moe_mlp_dim": shape.d_expert,
        }
    if block == "qwen3_moe":
        values["norm_topk_prob"] = True
    if block == "deepseek":
        values |= {
            "first_num_dense_layers": shape.num_dense_layers,
            "shared_experts": shape.num_shared_experts,
            "routed_score_func": "sigmoid",
            "routed_bias": True,
            "routed_bias_update_rate": 0.001,
            "routed_scaling_factor": 1.0,
            "attention_type": "mla",
            "q_lora_rank": shape.q_lora_rank,
            "kv_lora_rank": shape.kv_lora_rank,
            "qk_nope_head_dim": shape.qk_nope_head_dim,
            "qk_rope_head_dim": shape.qk_rope_head_dim,
            "v_head_dim": shape.v_head_dim,
        }
    return values


def _block(shape: Architecture) -> str:
    """The decoder block that fits."""
    require_plain(shape, "MaxText")
    return by_attention({"gqa": _grouped_block, "mla": _latent_block}, shape, "MaxText")(shape)


def _latent_block(shape: Architecture) -> str:
    if shape.is_dense:
        raise InfeasibleError("MaxText has latent attention in models with experts alone")
    if shape.num_shared_experts == 0:
        raise InfeasibleError("MaxText's deepseek block needs a shared expert; fix num_shared_experts=1")
    if shape.d_shared_expert != shape.d_expert or shape.moe_layer_pattern is not None:
        raise InfeasibleError("MaxText's deepseek block has shared experts as wide as routed ones, and no pattern")
    return "deepseek"


def _grouped_block(shape: Architecture) -> str:
    if shape.is_dense:
        return "qwen3" if shape.qk_norm == "head" else "llama2"
    extra = [
        what
        for what, there in (
            ("shared experts", shape.num_shared_experts),
            ("first dense layers", shape.num_moe_layers < shape.num_layers),
        )
        if there
    ]
    if extra:
        raise InfeasibleError(
            f"MaxText has no decoder block with grouped-query attention and {' and '.join(extra)}; plan with "
            "--attention mla, which its deepseek block expresses"
        )
    return "qwen3_moe" if shape.qk_norm == "head" else "mixtral"


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    return str(value)
