"""Megatron-LM arguments.

One a line, for `pretrain_gpt.py $(grep -v '^#' plan.args)`, of models with Mamba-2 `pretrain_hybrid.py`. Widths are per
expert but for --moe-shared-expert-intermediate-size, which is the total of all shared experts. Checked with the parser
and `validate_args` of Megatron-LM 0.20, whose flags those of megatron-core 0.16 are.
"""

from __future__ import annotations

from moeplan.architecture.counting import blocks_of
from moeplan.architecture.routing import expert_scale, normalises
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import devices
from moeplan.cost.training.parallelism import Layout
from moeplan.errors import InfeasibleError
from moeplan.plan.export.job import Job
from moeplan.plan.export.megatron_hybrids import hybrid_args, is_state_space, state_space_args
from moeplan.plan.export.plain import by_attention, require_plain
from moeplan.plan.export.recipe import Recipe, by_law, recipe, setting, summary
from moeplan.texts import comment

TAKES_LAYOUT = True
OPTIMIZERS = ("megatron", "zero1", "zero1-fp32-gradients")
"""Optimizer schemes that Megatron-LM's distributed optimizer is."""
PRECISIONS: dict[str, dict[str, str]] = {
    "bf16": {},
    "fp8": {"fp8": "hybrid", "fp8_recipe": "tensorwise"},
    "mxfp8": {"fp8": "e4m3", "fp8_recipe": "mxfp8"},
    "nvfp4": {"fp4": "e2m1", "fp4_recipe": "nvfp4"},
}
"""What Megatron-LM's configuration calls a precision of products beside bf16; fp8 is scaled by tensor as it is made, as
in the runs that its speed was calibrated on."""
WITHOUT_LAYOUT = Layout()
"""One replica a GPU, as Megatron-LM trains unless told otherwise."""


def export(job: Job, layout: Layout | None = None) -> str:
    """The job's model and training as arguments."""
    return text_of(job, layout, arguments(job, layout))


def arguments(job: Job, layout: Layout | None = None) -> dict[str, object]:
    """Every flag with its value, "" for switches."""
    check_optimizer(job)
    chosen, shape = recipe(job, layout), job.architecture
    args: dict[str, object] = {
        **model_args(shape, layout.tp if layout else 1),
        "--seq-length": chosen.seq_len,
        "--max-position-embeddings": job.context,
        **training_args(chosen),
        **precision_args(job),
        **layout_args(layout or WITHOUT_LAYOUT, bool(shape.num_moe_layers)),
        **(stage_args(layout, shape) if layout else {}),
        **software_args(job, layout or WITHOUT_LAYOUT),
    }
    return state_space_args(args, shape, layout or WITHOUT_LAYOUT) if is_state_space(shape) else args


def text_of(job: Job, layout: Layout | None, args: dict[str, object], *more: str) -> str:
    """A file of arguments, with comments that say where they come from, and `more` of them."""
    chosen = recipe(job, layout)
    lines = [
        comment(summary(job)),
        comment(f"{by_law(chosen)}; {chosen.tokens:,} tokens in whole steps"),
        comment(f"environment: CUDA_DEVICE_MAX_CONNECTIONS={max_connections(job, layout)}"),
        comment("left to you: --data-path, --split, --tokenizer-type, --save, --load, and a ramp of the batch"),
        *map(comment, more),
    ]
    if is_state_space(job.architecture):
        lines.append(comment("for pretrain_hybrid.py: blocks with Mamba-2 stand in Megatron-LM's hybrid model"))
    if layout is None:
        lines.append(comment("no layout: Megatron trains it on one replica a GPU unless told otherwise"))
    lines += [f"{flag} {value}".rstrip() for flag, value in args.items()]
    return "\n".join(lines) + "\n"


def check_optimizer(job: Job) -> None:
    """Refuse optimizers that are not Megatron-LM's distributed one."""
    if job.optimizer not in OPTIMIZERS:
        raise InfeasibleError(
            f"the plan counts memory for optimizer {job.optimizer}, which these arguments do not set up; "
            f"plan with --optimizer {' or '.join(OPTIMIZERS)}"
        )


def training_args(chosen: Recipe) -> dict[str, object]:
    """The flags of learning rate, schedule, batch and optimizer."""
    return {
        "--lr": f"{chosen.learning_rate:g}",
        "--min-lr": f"{chosen.least_learning_rate:g}",
        "--lr-decay-style": "WSD",
        "--lr-wsd-decay-style": "linear",
        "--lr-warmup-iters": chosen.warmup_steps,
        "--lr-decay-iters": chosen.steps,
        "--lr-wsd-decay-iters": chosen.decay_steps,
        "--global-batch-size": chosen.batch,
        "--train-iters": chosen.steps,
        "--adam-beta1": f"{setting('beta1'):g}",
        "--adam-beta2": f"{setting('beta2'):g}",
        "--adam-eps": f"{setting('adam epsilon'):g}",
        "--weight-decay": f"{setting('weight decay'):g}",
        "--clip-grad": f"{setting('gradient norm'):g}",
        "--bf16": "",
        "--cross-entropy-loss-fusion": "",
        "--cross-entropy-fusion-impl": "native",
    }


def precision_args(job: Job) -> dict[str, object]:
    """The flags of products in less than bf16."""
    flags = {"fp8": "--fp8-format", "fp8_recipe": "--fp8-recipe", "fp4": "--fp4-format", "fp4_recipe": "--fp4-recipe"}
    return {flags[name]: value for name, value in PRECISIONS[job.train_precision].items()}


def software_args(job: Job, layout: Layout) -> dict[str, object]:
    """The flags of what the software overlaps, and how rows travel to experts."""
    software, has_experts = job.software, bool(job.architecture.num_moe_layers)
    args: dict[str, object] = {"--overlap-grad-reduce": "", "--overlap-param-gather": ""}
    if software.overlap_tensor and layout.splits_sequence:
        args["--tp-comm-overlap"] = ""
    if has_experts:
        flexible = software.dispatcher == "flex" and layout.ep > 1
        args["--moe-token-dispatcher-type"] = "flex" if flexible else "alltoall"
        if flexible:
            args["--moe-flex-dispatcher-backend"] = flexible_dispatcher(job.device)
        if overlaps_experts(job, layout):
            args["--overlap-moe-expert-parallel-comm"] = ""
    return args


def flexible_dispatcher(device: str) -> str:
    """HybridEP where links join more than one node of eight, DeepEP elsewhere."""
    known = devices().get(device)
    return "hybridep" if known is not None and known.link_domain > 8 else "deepep"


def overlaps_experts(job: Job, layout: Layout) -> bool:
    """Whether rows of one micro-batch travel beside the work of another.

    Megatron-LM does that without recomputation of whole layers, and with pipeline stages in virtual ones alone.
    """
    shape = job.architecture
    staged = layout.pp == 1 or layout.virtual_stages > 1
    able = bool(shape.num_moe_layers) and layout.ep > 1 and layout.recompute != "full" and staged
    return able and job.software.overlap_dispatch and not shape.num_mtp_layers


def max_connections(job: Job, layout: Layout | None) -> int:
    """CUDA_DEVICE_MAX_CONNECTIONS: 1 orders collectives before the products that hide them, 32 overlaps experts'."""
    return 32 if layout is not None and overlaps_experts(job, layout) else 1


def model_args(shape: Architecture, tp: int = 1) -> dict[str, str]:
    """The flags that make the model, with their values ("" for switches).

    Raises `InfeasibleError` for a shape that Megatron-LM cannot express.
    """
    blocks_args = hybrid_args(shape)
    gate = ("shared_expert_gate",) if blocks_args else ()
    require_plain(shape, "Megatron-LM", allowed=("qkv_bias", "num_mtp_layers", "blocks", "d_latent", *gate))
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
        **({"--swiglu": ""} if blocks_of(shape).gated else {"--squared-relu": ""}),
        "--normalization": "RMSNorm",
        "--disable-bias-linear": "",
        "--norm-epsilon": f"{setting('norm epsilon'):g}",
        "--hidden-dropout": f"{setting('dropout'):g}",
        "--attention-dropout": f"{setting('dropout'):g}",
        "--init-method-std": f"{setting('starting deviation'):g}",
        "--position-embedding-type": "rope",
        "--rotary-base": f"{setting('rotary base'):g}",
        **({} if shape.tied_embeddings else {"--untie-embeddings-and-output-weights": ""}),
        "--vocab-size": shape.vocab_size,
        # Megatron pads the vocabulary to a multiple of this and tp, which would add params.
        "--make-vocab-size-divisible-by": _divisor(shape.vocab_size, tp),
    }
    if shape.num_moe_layers:
        args |= _expert_args(shape)
    if shape.num_mtp_layers:
        args["--mtp-num-layers"] = shape.num_mtp_layers
    args |= blocks_args
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
        "--rope-type": "rope",  # latent attention would take yarn, and alone fuses it
        "--no-rope-fusion": "",
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
        **({"--moe-shared-expert-gate": ""} if shape.shared_expert_gate else {}),
        **({"--moe-latent-size": shape.d_latent} if shape.d_latent else {}),
        "--moe-layer-freq": pattern,
        "--moe-router-score-function": "sigmoid",
        "--moe-router-enable-expert-bias": "",
        "--moe-router-bias-update-rate": f"{setting('router bias step'):g}",
        **_scale(shape),
        "--moe-router-load-balancing-type": "seq_aux_loss",
        "--moe-aux-loss-coeff": f"{setting('balance loss of a sequence'):g}",
        "--moe-router-dtype": "fp32",
        "--moe-grouped-gemm": "",
        "--moe-permute-fusion": "",
    }


def _scale(shape: Architecture) -> dict[str, object]:
    """Megatron-LM divides scores by their sum if there is more than one, as `moeplan.architecture.routing` does."""
    if not normalises(shape.num_experts, shape.num_active_experts):
        return {}
    return {"--moe-router-topk-scaling-factor": f"{expert_scale(shape.num_active_experts):.6g}"}


def stage_args(layout: Layout, shape: Architecture) -> dict[str, str]:
    """The flags of pipeline stages: virtual ones, a first and a last stage of their own, or every stage's layers."""
    chunks = layout.chunks(shape.num_layers)
    if len(set(chunks)) == 1:
        return (
            {"--num-virtual-stages-per-pipeline-rank": str(layout.virtual_stages)} if layout.virtual_stages > 1 else {}
        )
    if layout.virtual_stages > 1 or len(set(chunks[1:-1])) > 1:
        return {"--pipeline-model-parallel-layout": stage_pattern(chunks, shape.num_mtp_layers)}
    return {
        "--decoder-first-pipeline-num-layers": str(chunks[0]),
        "--decoder-last-pipeline-num-layers": str(chunks[-1]),
    }


def stage_pattern(chunks: tuple[int, ...], num_mtp_layers: int = 0) -> str:
    """Layers of each chunk as Megatron-LM writes them: E embedding, t a layer, m MTP, L the loss, | between chunks."""
    layers = [f"t*{n}" for n in chunks]
    return f"E{'|'.join(layers)}{'m' * num_mtp_layers}L"


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
