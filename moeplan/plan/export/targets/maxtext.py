"""MaxText YAML.

For `python -m MaxText.train base.yml` with its values, where one of its decoder blocks fits. Its qwen3_moe block has
grouped queries, no shared experts and no dense layers; its deepseek block has latent attention, shared experts and
first dense layers. Nothing has grouped queries with either.
"""

from __future__ import annotations

from moeplan.architecture.routing import expert_scale, normalises
from moeplan.architecture.shape import Architecture
from moeplan.cost.training.parallelism import Layout
from moeplan.errors import InfeasibleError
from moeplan.plan.export.job import Job
from moeplan.plan.export.plain import by_attention, require_plain
from moeplan.plan.export.recipe import by_law, decay_share, recipe, setting, summary
from moeplan.texts import comment

TAKES_LAYOUT = True


def export(job: Job, layout: Layout | None = None) -> str:
    """The job's model and training as YAML."""
    chosen = recipe(job, layout, layout.pp if layout else 1)
    values: dict[str, object] = {
        **maxtext_model(job.architecture),
        "max_target_length": chosen.seq_len,
        "steps": chosen.steps,
        "learning_rate": chosen.learning_rate,
        "lr_schedule_type": "wsd",
        "warmup_steps_fraction": round(chosen.warmup_steps / chosen.steps, 6),
        "wsd_decay_steps_fraction": decay_share(),
        "wsd_decay_style": "linear",
        "learning_rate_final_fraction": setting("least learning rate"),
        "opt_type": "adamw",
        "adam_b1": setting("beta1"),
        "adam_b2": setting("beta2"),
        "adam_eps": setting("adam epsilon"),
        "adam_weight_decay": setting("weight decay"),
        "gradient_clipping_threshold": setting("gradient norm"),
        "dtype": "bfloat16",
        "weight_dtype": "float32",
    }
    lines = [comment(summary(job)), comment(by_law(chosen))]
    if layout is None:
        lines.append(comment(f"no layout: set per_device_batch_size to {chosen.batch} / number of devices"))
    else:
        values |= layout_values(layout, chosen.batch, job.architecture)
    lines.append(comment("left to you: base_output_directory, dataset_path, tokenizer_path, run_name"))
    lines += [f"{name}: {_yaml(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def layout_values(layout: Layout, batch: int, shape: Architecture) -> dict[str, object]:
    """The keys of a layout, as axes of MaxText's mesh: experts have one of their own, fsdp is what is left of dp.

    The batch of a step is per_device_batch_size * devices * gradient_accumulation_steps. Raises `InfeasibleError` for
    degrees that the mesh does not have.
    """
    if layout.etp > 1:
        raise InfeasibleError("MaxText is written without expert tensor parallelism; give etp=1 with --layout")
    if layout.dp % layout.ep:
        raise InfeasibleError(
            f"MaxText's mesh has experts on an axis beside tp and cp, so ep {layout.ep} must divide dp {layout.dp}"
        )
    piped = shape.num_moe_layers if shape.attention == "mla" else shape.num_layers
    if layout.pp > 1 and piped % (layout.pp * layout.virtual_stages):
        raise InfeasibleError(
            f"MaxText's pipeline needs equal stages: {piped} layers do not divide over "
            f"pp {layout.pp}{f' times {layout.virtual_stages}' if layout.virtual_stages > 1 else ''}; give another "
            "with --layout"
        )
    rounds = batch // (layout.dp * layout.micro_batch)
    values: dict[str, object] = {
        "ici_fsdp_parallelism": layout.dp // layout.ep,
        "ici_expert_parallelism": layout.ep,
        "ici_tensor_parallelism": layout.tp,
        "ici_context_parallelism": layout.cp,
        "ici_pipeline_parallelism": layout.pp,
        "dcn_data_parallelism": 1,
        "remat_policy": _REMAT[layout.recompute],
    }
    if layout.pp == 1:
        return values | {
            "per_device_batch_size": layout.micro_batch / (layout.tp * layout.cp),
            "gradient_accumulation_steps": rounds,
        }
    return values | {
        "num_layers_per_pipeline_stage": piped // (layout.pp * layout.virtual_stages),
        "num_pipeline_microbatches": rounds,
        "per_device_batch_size": layout.micro_batch * rounds / (layout.tp * layout.cp * layout.pp),
        "gradient_accumulation_steps": 1,
    }


_REMAT = {"none": "minimal_with_context", "selective": "minimal", "full": "full"}
"""Recomputation by MaxText's policies: what its layers keep, with the output of attention, without, nothing."""


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
        "normalization_layer_epsilon": setting("norm epsilon"),
        "rope_max_timescale": int(setting("rotary base")),
        "dropout_rate": setting("dropout"),
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
        values["norm_topk_prob"] = normalises(shape.num_experts, shape.num_active_experts)
    if block in ("qwen3_moe", "mixtral"):
        values["load_balance_loss_weight"] = setting("balance loss without a bias")
    if block == "deepseek":
        values |= {
            "first_num_dense_layers": shape.num_dense_layers,
            "shared_experts": shape.num_shared_experts,
            "routed_score_func": "sigmoid",
            "routed_bias": True,
            "routed_bias_update_rate": setting("router bias step"),
            "routed_scaling_factor": round(expert_scale(shape.num_active_experts), 6),
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
    extra = {
        "num_shared_experts": ("shared experts", shape.num_shared_experts),
        "num_dense_layers": ("first dense layers", shape.num_moe_layers < shape.num_layers),
    }
    there = {name: what for name, (what, number) in extra.items() if number}
    if there:
        raise InfeasibleError(
            f"MaxText has no decoder block with grouped-query attention and {' and '.join(there.values())}; plan with "
            f"{' '.join(f'--fix {name}=0' for name in there)}, or with --attention mla, which its deepseek block "
            "expresses"
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
