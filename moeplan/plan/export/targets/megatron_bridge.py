"""Megatron-Bridge recipe in Python.

For Megatron-Bridge 0.3: `pretrain(moeplan_pretrain_config(), forward_step)`. The model is made by the provider itself,
field by field: the bridge that reads a GLM-4.5 config.json leaves shared experts out. Everything else is what the
target megatron writes.
"""

from __future__ import annotations

from moeplan.architecture.routing import expert_scale, normalises
from moeplan.architecture.shape import Architecture
from moeplan.cost.training.parallelism import Layout
from moeplan.plan.export.job import Job
from moeplan.plan.export.plain import by_attention, moe_layers, require_plain
from moeplan.plan.export.recipe import Recipe, by_law, recipe, setting, summary
from moeplan.plan.export.targets.megatron import (
    PRECISIONS,
    WITHOUT_LAYOUT,
    check_optimizer,
    flexible_dispatcher,
    max_connections,
    overlaps_experts,
    stage_pattern,
)
from moeplan.texts import comment

TAKES_LAYOUT = True

_RECIPE = """\


def moeplan_pretrain_config() -> ConfigContainer:
    # Left to you: cfg.dataset.blend, cfg.tokenizer, cfg.checkpoint, cfg.logger.
    cfg = _pretrain_common()
    cfg.model = {provider}(activation_func=F.silu, params_dtype=torch.bfloat16, bf16=True, **MODEL, **LAYOUT)
    cfg.model.pipeline_dtype = torch.bfloat16
    cfg.tokenizer.tokenizer_type = "NullTokenizer"
    cfg.tokenizer.vocab_size = MODEL["vocab_size"]
    cfg.dataset.seq_length = MODEL["seq_length"]
    for part, values in (
        (cfg.train, TRAIN), (cfg.scheduler, SCHEDULER), (cfg.optimizer, OPTIMIZER), (cfg.ddp, DDP)
    ):
        for name, value in values.items():
            assert hasattr(part, name), name
            setattr(part, name, value)
    return cfg
"""


def export(job: Job, layout: Layout | None = None) -> str:
    """The job's model and training as a Python module."""
    check_optimizer(job)
    chosen, given = recipe(job, layout), layout or WITHOUT_LAYOUT
    provider = by_attention({"gqa": "GPTModelProvider", "mla": "MLAModelProvider"}, job.architecture, "Megatron-Bridge")
    module = {"GPTModelProvider": "gpt_provider", "MLAModelProvider": "mla_provider"}[provider]
    values = {
        "MODEL": model_fields(job.architecture, chosen.seq_len),
        "LAYOUT": layout_fields(job, given),
        **training_fields(chosen, given),
    }
    lines = [
        '"""For Megatron-Bridge 0.3: moeplan_pretrain_config() is the recipe."""',
        "",
        comment(summary(job)),
        comment(by_law(chosen)),
        comment(f"environment: CUDA_DEVICE_MAX_CONNECTIONS={max_connections(job, layout)}"),
        "import torch",
        "import torch.nn.functional as F",
        f"from megatron.bridge.models.{module} import {provider}",
        "from megatron.bridge.recipes.common import _pretrain_common",
        "from megatron.bridge.training.config import ConfigContainer",
        "",
        *(f"{name} = {value!r}" for name, value in values.items()),
    ]
    return "\n".join(lines) + "\n" + _RECIPE.format(provider=provider)


def model_fields(shape: Architecture, seq_len: int) -> dict[str, object]:
    """The provider's fields that make the model; raises `InfeasibleError` for a shape that it does not have."""
    require_plain(shape, "Megatron-Bridge", allowed=("qkv_bias",))
    fields: dict[str, object] = {
        "num_layers": shape.num_layers,
        "hidden_size": shape.d_model,
        "ffn_hidden_size": shape.d_ff or shape.d_expert,
        "num_attention_heads": shape.num_heads,
        **by_attention({"gqa": _grouped_fields, "mla": _latent_fields}, shape, "Megatron-Bridge")(shape),
        "vocab_size": shape.vocab_size,
        "should_pad_vocab": False,
        "seq_length": seq_len,
        "share_embeddings_and_output_weights": shape.tied_embeddings,
        "gated_linear_unit": True,
        "add_bias_linear": False,
        "normalization": "RMSNorm",
        "layernorm_epsilon": setting("norm epsilon"),
        "init_method_std": setting("starting deviation"),
        "hidden_dropout": setting("dropout"),
        "attention_dropout": setting("dropout"),
        "position_embedding_type": "rope",
        "rotary_base": int(setting("rotary base")),
        "cross_entropy_loss_fusion": True,
        "cross_entropy_fusion_impl": "native",
    }
    return fields | (_expert_fields(shape) if shape.num_moe_layers else {})


def _grouped_fields(shape: Architecture) -> dict[str, object]:
    return {
        "num_query_groups": shape.num_kv_heads,
        "kv_channels": shape.head_dim,
        "qk_layernorm": shape.qk_norm == "head",
        "add_qkv_bias": shape.qkv_bias,
    }


def _latent_fields(shape: Architecture) -> dict[str, object]:
    return {
        "multi_latent_attention": True,
        "q_lora_rank": shape.q_lora_rank or None,
        "kv_lora_rank": shape.kv_lora_rank,
        "qk_head_dim": shape.qk_nope_head_dim,
        "qk_pos_emb_head_dim": shape.qk_rope_head_dim,
        "v_head_dim": shape.v_head_dim,
        "kv_channels": shape.v_head_dim,
        "qk_layernorm": True,
        "rope_type": "rope",
        "apply_rope_fusion": False,
    }


def _expert_fields(shape: Architecture) -> dict[str, object]:
    scaled = normalises(shape.num_experts, shape.num_active_experts)
    return {
        "num_moe_experts": shape.num_experts,
        "moe_router_topk": shape.num_active_experts,
        "moe_ffn_hidden_size": shape.d_expert,
        "moe_shared_expert_intermediate_size": shape.num_shared_experts * shape.d_shared_expert or None,
        "moe_layer_freq": [int(moe) for moe in moe_layers(shape)],
        "moe_router_score_function": "sigmoid",
        "moe_router_enable_expert_bias": True,
        "moe_router_bias_update_rate": setting("router bias step"),
        "moe_router_topk_scaling_factor": round(expert_scale(shape.num_active_experts), 6) if scaled else None,
        "moe_router_load_balancing_type": "seq_aux_loss",
        "moe_aux_loss_coeff": setting("balance loss of a sequence"),
        "moe_router_dtype": "fp32",
        "moe_grouped_gemm": True,
        "moe_permute_fusion": True,
    }


def layout_fields(job: Job, layout: Layout) -> dict[str, object]:
    """The provider's fields of a layout, and of how rows travel to experts."""
    shape, software = job.architecture, job.software
    chunks = layout.chunks(shape.num_layers)
    fields: dict[str, object] = {
        "tensor_model_parallel_size": layout.tp,
        "pipeline_model_parallel_size": layout.pp,
        "virtual_pipeline_model_parallel_size": layout.virtual_stages if layout.virtual_stages > 1 else None,
        "context_parallel_size": layout.cp,
        "sequence_parallel": layout.splits_sequence,
        "pipeline_model_parallel_layout": stage_pattern(chunks) if len(set(chunks)) > 1 else None,
        **PRECISIONS[job.train_precision],
    }
    if shape.num_moe_layers:
        flexible = software.dispatcher == "flex" and layout.ep > 1
        fields |= {
            "expert_model_parallel_size": layout.ep,
            "expert_tensor_parallel_size": layout.etp,
            "moe_token_dispatcher_type": "flex" if flexible else "alltoall",
            "overlap_moe_expert_parallel_comm": overlaps_experts(job, layout),
        }
        if flexible:
            fields["moe_flex_dispatcher_backend"] = flexible_dispatcher(job.device)
    if layout.recompute == "full":
        fields |= {"recompute_granularity": "full", "recompute_method": "uniform"}
        fields["recompute_num_layers"] = layout.recompute_layers
    elif layout.recompute == "selective":
        fields["recompute_granularity"] = "selective"
    return fields


def training_fields(chosen: Recipe, layout: Layout) -> dict[str, dict[str, object]]:
    """What is set in the recipe's other parts, by part."""
    return {
        "TRAIN": {
            "train_iters": chosen.steps,
            "global_batch_size": chosen.batch,
            "micro_batch_size": layout.micro_batch,
        },
        "SCHEDULER": {
            "lr_decay_style": "WSD",
            "lr_wsd_decay_style": "linear",
            "lr_warmup_iters": chosen.warmup_steps,
            "lr_decay_iters": chosen.steps,
            "lr_wsd_decay_iters": chosen.decay_steps,
            "start_weight_decay": setting("weight decay"),
            "end_weight_decay": setting("weight decay"),
        },
        "OPTIMIZER": {
            "lr": chosen.learning_rate,
            "min_lr": chosen.least_learning_rate,
            "adam_beta1": setting("beta1"),
            "adam_beta2": setting("beta2"),
            "adam_eps": setting("adam epsilon"),
            "weight_decay": setting("weight decay"),
            "clip_grad": setting("gradient norm"),
            "use_distributed_optimizer": True,
        },
        "DDP": {"overlap_grad_reduce": True, "overlap_param_gather": True, "use_distributed_optimizer": True},
    }
