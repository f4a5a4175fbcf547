"""Megatron-LM arguments.

One a line, for `pretrain_gpt.py $(grep -v '^#' plan.args)`. Widths are per expert but for
--moe-shared-expert-intermediate-size, which is the total of all shared experts.
"""

from __future__ import annotations

from moeplan.architecture.shape import Architecture
from moeplan.cost.training.parallelism import Layout
from moeplan.errors import InfeasibleError
from moeplan.plan.document import Plan
from moeplan.plan.export.plain import by_attention, require_plain
from moeplan.plan.export.recipe import by_law, recipe, summary
from moeplan.texts import comment

TAKES_LAYOUT = True
OPTIMIZERS = ("megatron", "zero1", "zero1-fp32-gradients")
"""Optimizer schemes that Megatron-LM's distributed optimizer is."""
AUX_LOSS = "1e-4"
"""Weight of the sequence-wise balance loss beside the expert bias (DeepSeek-V3, arXiv 2412.19437, section 4.2)."""
BIAS_UPDATE_RATE = "1e-3"
"""Step of the expert bias (the same section; Megatron's default)."""


def export(plan: Plan, layout: Layout | None = None) -> str:
    """The plan's model and training as arguments."""
    if plan.request.optimizer not in OPTIMIZERS:
        raise InfeasibleError(
            f"the plan counts memory for optimizer {plan.request.optimizer}, which these arguments do not set up; "
            f"plan with --optimizer {' or '.join(OPTIMIZERS)}"
        )
    chosen = recipe(plan, layout)
    args = {**model_args(plan.architecture, layout.tp if layout else 1), "--seq-length": str(chosen.seq_len)}
    args["--max-position-embeddings"] = str(chosen.seq_len)
    if layout is not None:
        args |= layout_args(layout, bool(plan.architecture.num_moe_layers)) | stage_args(layout, plan.architecture)
    args |= {
        "--lr": f"{chosen.learning_rate:g}",
        "--global-batch-size": str(chosen.batch),
        "--train-iters": str(chosen.steps),
        "--bf16": "",
    }
    lines = [
        comment(summary(plan)),
        comment(f"{by_law(chosen)}; {chosen.tokens:,} tokens in whole steps"),
    ]
    if layout is None:
        lines.append(comment("no layout: Megatron trains it on one replica a GPU unless told otherwise"))
    lines += [f"{flag} {value}".rstrip() for flag, value in args.items()]
    return "\n".join(lines) + "\n"


def model_args(shape: Architecture, tp: int = 1) -> dict[str, str]:
    """The flags that make the model, with their values ("" for switches).

    Raises `InfeasibleError` for a shape that Megatron-LM cannot express.
    """
    require_plain(shape, "Megatron-LM", allowed=("qkv_bias",))
    args: dict[str, object] = {
        "--use-mcore-models": "",
        "--transformer-impl": "transformer_engine",
        "--num-layers": shape.num_layers,
        "--hidden-size": shape.d_model,
        "--ffn-hidden-size": shape.d_ff or shape.d_expert,
        "--num-attention-heads": shape.num_heads,
    }
    args |= by_attention({"gqa": _grouped_args, "mla": _latent_args}, shape, "Megatron-LM")(shape)
    args |= {
        "--swiglu": "",
        "--normalization": "RMSNorm",
        "--disable-bias-linear": "",
        "--position-embedding-type": "rope",
        **({} if shape.tied_embeddings else {"--untie-embeddings-and-output-weights": ""}),
        "--vocab-size": shape.vocab_size,
        # Megatron pads the vocabulary to a multiple of this and tp, which would add params.
        "--make-vocab-size-divisible-by": _divisor(shape.vocab_size, tp),
    }
    if shape.num_moe_layers:
        args |= _expert_args(shape)
    return {flag: str(value) for flag, value in args.items()}


def _grouped_args(shape: Architecture) -> dict[str, object]:
    return {
        "--group-query-attention": "",
        "--num-query-groups": shape.num_kv_heads,
        "--kv-channels": shape.head_dim,
        **({"--qk-layernorm": ""} if shape.qk_norm == "head" else {}),
        **({"--add-qkv-bias": ""} if shape.qkv_bias else {}),
    }


def _latent_args(shape: Architecture) -> dict[str, object]:
    return {
        "--multi-latent-attention": "",
        **({"--q-lora-rank": shape.q_lora_rank} if shape.q_lora_rank else {}),
        "--kv-lora-rank": shape.kv_lora_rank,
        "--qk-head-dim": shape.qk_nope_head_dim,
        "--qk-pos-emb-head-dim": shape.qk_rope_head_dim,
        "--v-head-dim": shape.v_head_dim,
        "--kv-channels": shape.v_head_dim,
        "--qk-layernorm": "",  # norms the latents
        "--rope-type": "rope",  # latent attention would take yarn
    }


def _divisor(vocab_size: int, tp: int) -> int:
    """The largest of 128, 64, ... that keeps the vocabulary unpadded; raises `InfeasibleError` if tp forbids it."""
    if vocab_size % tp:
        raise InfeasibleError(f"vocab_size {vocab_size} must be a multiple of tp {tp}, or Megatron-LM pads it")
    return next(n for n in (128, 64, 32, 16, 8, 4, 2, 1) if vocab_size % (n * tp) == 0)


def _expert_args(shape: Architecture) -> dict[str, object]:
    shared = shape.num_shared_experts * shape.d_shared_expert
    pattern = f"([0]*{shape.num_dense_layers}+[1]*{shape.num_moe_layers})"
    if shape.moe_layer_pattern is not None:
        pattern = f"[{','.join(str(int(moe)) for moe in shape.moe_layer_pattern)}]"
    return {
        "--num-experts": shape.num_experts,
        "--moe-router-topk": shape.num_active_experts,
        "--moe-ffn-hidden-size": shape.d_expert,
        **({"--moe-shared-expert-intermediate-size": shared} if shared else {}),
        "--moe-layer-freq": pattern,
        "--moe-router-score-function": "sigmoid",
        "--moe-router-enable-expert-bias": "",
        "--moe-router-bias-update-rate": BIAS_UPDATE_RATE,
        "--moe-router-load-balancing-type": "seq_aux_loss",
        "--moe-aux-loss-coeff": AUX_LOSS,
        "--moe-router-dtype": "fp32",
        "--moe-grouped-gemm": "",
        "--moe-token-dispatcher-type": "alltoall",
    }


def stage_args(layout: Layout, shape: Architecture) -> dict[str, str]:
    """The flags of pipeline stages with unequal layers: the first and the last have their own number.

    Raises `InfeasibleError` where the stages between them differ, which Megatron-LM's flags cannot say.
    """
    chunks = layout.chunks(shape.num_layers)
    if len(set(chunks)) == 1:
        return {}
    if layout.virtual_stages > 1 or len(set(chunks[1:-1])) > 1:
        raise InfeasibleError(
            f"{shape.num_layers} layers do not divide over pp {layout.pp} in a way that Megatron-LM's flags can say; "
            "give another with --layout"
        )
    return {
        "--decoder-first-pipeline-num-layers": str(chunks[0]),
        "--decoder-last-pipeline-num-layers": str(chunks[-1]),
    }


def layout_args(layout: Layout, has_experts: bool) -> dict[str, str]:
    """The flags of a layout."""
    args: dict[str, object] = {
        "--tensor-model-parallel-size": layout.tp,
        "--pipeline-model-parallel-size": layout.pp,
        "--context-parallel-size": layout.cp,
    }
    if has_experts:
        args |= {"--expert-model-parallel-size": layout.ep, "--expert-tensor-parallel-size": layout.etp}
    args["--micro-batch-size"] = layout.micro_batch
    if layout.splits_sequence:
        args["--sequence-parallel"] = ""
    args["--use-distributed-optimizer"] = ""
    if layout.recompute == "full":
        args |= {"--recompute-granularity": "full", "--recompute-method": "uniform"}
        args["--recompute-num-layers"] = layout.recompute_layers
    elif layout.recompute == "selective":
        args["--recompute-granularity"] = "selective"
    return {flag: str(value) for flag, value in args.items()}
