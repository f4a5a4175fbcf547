"""torchtitan 0.3.0 config module in Python.

For `torchrun -m torchtitan.train --module plan --config moeplan`, with the module as plan.py where Python finds it: its
function `moeplan` returns a `Trainer.Config`. torchtitan's Qwen3 blocks hold either a dense block or experts, with
shared ones, layer by layer; its DeepSeek-V3 layers have latent attention. The API of 0.2 (MoEArgs) differs and cannot
express dense layers in Qwen3.
"""

from __future__ import annotations

from moeplan.architecture.routing import expert_scale, normalises
from moeplan.architecture.shape import Architecture
from moeplan.cost.training.parallelism import Layout
from moeplan.errors import InfeasibleError
from moeplan.plan.export.job import Job
from moeplan.plan.export.plain import by_attention, moe_layers, require_plain
from moeplan.plan.export.recipe import Recipe, by_law, decay_share, recipe, setting, summary
from moeplan.texts import comment

TAKES_LAYOUT = True
VERSION = "0.3.0"
"""The version that is written for, the newest there is."""
OTHER_OPTIMIZERS = ("adam8bit", "muon")
"""Optimizer schemes that are not AdamW, fully sharded or less."""

_TRAINER = """\


def moeplan() -> Trainer.Config:
    # Left to you: the tokenizer's folder, the data, checkpoints and metrics.
    spec = model_spec(moe_comm_backend=MOE_COMM_BACKEND)
    return Trainer.Config(
        model_spec=spec,
        hf_assets_path="./assets/hf/tokenizer",
        dataloader=HuggingFaceTextDataLoader.Config(dataset="c4"),
        loss=ChunkedLossWrapper.Config(loss_fn=CrossEntropyLoss.Config(global_vocab_size=VOCAB_SIZE)),
        optimizer=default_adamw(lr=LEARNING_RATE, betas=BETAS, eps=ADAM_EPSILON, weight_decay=WEIGHT_DECAY),
        lr_scheduler=LRSchedulersContainer.Config(
            warmup_steps=WARMUP,
            decay_ratio=DECAY_RATIO,
            decay_type="linear",
            min_lr_factor=MIN_LR_FACTOR,
        ),
        training=TrainingConfig(
            local_batch_size=LOCAL_BATCH_SIZE,
            global_batch_size=GLOBAL_BATCH_SIZE,
            seq_len=SEQ_LEN,
            max_norm=MAX_NORM,
            steps=STEPS,
            disable_cuda_graphs=True,
        ),
        parallelism=ParallelismConfig(**PARALLELISM),
        activation_checkpoint=ACTIVATION_CHECKPOINT,
        checkpoint=CheckpointManager.Config(interval=500),
    )
"""
_TRAINER_IMPORTS = """\
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.optimizer import (
    LRSchedulersContainer,
    default_adamw,
    register_moe_load_balancing_hook,
)
from torchtitan.config import ParallelismConfig, TrainingConfig
from torchtitan.distributed.activation_checkpoint import FullAC, SelectiveAC
from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader
"""
_GQA = """\
from torchtitan.models.common import CosSinRoPE, Embedding, Linear
from torchtitan.models.common.config_utils import (
    get_attention_config,
    make_ffn_config,
    make_gqa_config,
    make_moe_config,
    make_routed_experts_config,
    make_router_config,
)
from torchtitan.models.common.nn_modules import RMSNorm
from torchtitan.models.common.param_init import skip_param_init
from torchtitan.models.qwen3 import Qwen3Model, Qwen3StateDictAdapter, parallelize_qwen3
from torchtitan.models.qwen3.model import Qwen3TransformerBlock
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.trainer import Trainer

WEIGHT = partial(nn.init.normal_, std=STARTING_DEVIATION)
LINEAR = {"weight": WEIGHT, "bias": nn.init.zeros_}
EXPERTS = {"w1_EFD": WEIGHT, "w2_EDF": WEIGHT, "w3_EFD": WEIGHT}


def norm(width):
    return RMSNorm.Config(normalized_shape=width, eps=NORM_EPSILON, param_init={"weight": nn.init.ones_})


def ffn(width):
    return make_ffn_config(dim=D_MODEL, hidden_dim=width, w1_param_init=LINEAR, w2w3_param_init=LINEAR)


def experts(moe_comm_backend):
    return make_moe_config(
        num_experts=NUM_EXPERTS,
        router=make_router_config(
            dim=D_MODEL,
            num_experts=NUM_EXPERTS,
            gate_param_init=LINEAR,
            top_k=NUM_ACTIVE_EXPERTS,
            score_func="sigmoid",
            route_norm=ROUTE_NORM,
            route_scale=ROUTE_SCALE,
        ),
        routed_experts=make_routed_experts_config(
            dim=D_MODEL,
            hidden_dim=D_EXPERT,
            num_experts=NUM_EXPERTS,
            top_k=NUM_ACTIVE_EXPERTS,
            param_init=EXPERTS,
            comm_backend=moe_comm_backend,
        ),
        shared_experts=ffn(SHARED_WIDTH) if SHARED_WIDTH else None,
        load_balance_coeff=BIAS_STEP,
    )


def layer(index, attn_backend, moe_comm_backend):
    dense = index not in MOE_LAYERS
    return Qwen3TransformerBlock.Config(
        attention_norm=norm(D_MODEL),
        ffn_norm=norm(D_MODEL),
        attention=make_gqa_config(
            dim=D_MODEL,
            n_heads=NUM_HEADS,
            n_kv_heads=NUM_KV_HEADS,
            head_dim=HEAD_DIM,
            wqkv_param_init=LINEAR,
            wo_param_init=LINEAR,
            inner_attention=get_attention_config(attn_backend),
            fuse_qkv=True,
            rope=CosSinRoPE.Config(dim=HEAD_DIM, max_seq_len=SEQ_LEN, theta=ROPE_THETA),
            qk_norm=norm(HEAD_DIM) if QK_NORM else None,
        ),
        feed_forward=ffn(D_FF) if dense else None,
        moe=None if dense else experts(moe_comm_backend),
    )


def model_config(attn_backend="flex", moe_comm_backend="standard"):
    return Qwen3Model.Config(
        vocab_size=VOCAB_SIZE,
        dim=D_MODEL,
        enable_weight_tying=TIED_EMBEDDINGS,
        norm=norm(D_MODEL),
        tok_embeddings=Embedding.Config(
            num_embeddings=VOCAB_SIZE,
            embedding_dim=D_MODEL,
            param_init={"weight": skip_param_init if TIED_EMBEDDINGS else WEIGHT},
        ),
        lm_head=Linear.Config(in_features=D_MODEL, out_features=VOCAB_SIZE, param_init=LINEAR),
        layers=[layer(i, attn_backend, moe_comm_backend) for i in range(NUM_LAYERS)],
    )


def model_spec(attn_backend="flex", moe_comm_backend="standard"):
    return ModelSpec(
        name="qwen3",
        flavor="moeplan",
        model=model_config(attn_backend, moe_comm_backend),
        parallelize_fn=parallelize_qwen3,
        pipelining_fn=pipeline_llm,
        post_optimizer_build_fn=register_moe_load_balancing_hook,
        state_dict_adapter=Qwen3StateDictAdapter,
    )
"""

_MLA = """\
from torchtitan.models.common import ComplexRoPE, Embedding, Linear
from torchtitan.models.common.nn_modules import RMSNorm
from torchtitan.models.deepseek_v3 import (
    DeepSeekV3Model,
    DeepSeekV3StateDictAdapter,
    build_mla_moe_layers,
    parallelize_deepseekv3,
)
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.trainer import Trainer

WEIGHT = partial(nn.init.normal_, std=STARTING_DEVIATION)
LINEAR = {"weight": WEIGHT, "bias": nn.init.zeros_}
EXPERTS = {"w1_EFD": WEIGHT, "w2_EDF": WEIGHT, "w3_EFD": WEIGHT}
NORM = {"weight": nn.init.ones_}


def model_config(attn_backend="flex", moe_comm_backend="standard"):
    return DeepSeekV3Model.Config(
        vocab_size=VOCAB_SIZE,
        dim=D_MODEL,
        norm=RMSNorm.Config(normalized_shape=D_MODEL, eps=NORM_EPSILON, param_init=NORM),
        tok_embeddings=Embedding.Config(
            num_embeddings=VOCAB_SIZE, embedding_dim=D_MODEL, param_init={"weight": WEIGHT}
        ),
        lm_head=Linear.Config(in_features=D_MODEL, out_features=VOCAB_SIZE, param_init=LINEAR),
        layers=build_mla_moe_layers(
            n_layers=NUM_LAYERS,
            n_dense_layers=NUM_DENSE_LAYERS,
            dim=D_MODEL,
            n_heads=NUM_HEADS,
            q_lora_rank=Q_LORA_RANK,
            kv_lora_rank=KV_LORA_RANK,
            qk_nope_head_dim=QK_NOPE_HEAD_DIM,
            qk_rope_head_dim=QK_ROPE_HEAD_DIM,
            v_head_dim=V_HEAD_DIM,
            mscale=1.0,
            dense_hidden_dim=D_FF,
            moe_hidden_dim=D_EXPERT,
            num_experts=NUM_EXPERTS,
            num_shared_experts=NUM_SHARED_EXPERTS,
            router_top_k=NUM_ACTIVE_EXPERTS,
            router_score_func="sigmoid",
            router_route_norm=ROUTE_NORM,
            router_route_scale=ROUTE_SCALE,
            attn_backend=attn_backend,
            moe_comm_backend=moe_comm_backend,
            non_blocking_capacity_factor=None,
            linear_init=LINEAR,
            norm_init=NORM,
            depth_init=lambda layer: LINEAR,
            depth_experts_init=lambda layer: EXPERTS,
            rope=ComplexRoPE.Config(dim=QK_ROPE_HEAD_DIM, max_seq_len=SEQ_LEN, theta=ROPE_THETA),
        ),
        mtp_layers=[],
    )


def model_spec(attn_backend="flex", moe_comm_backend="standard"):
    return ModelSpec(
        name="deepseek_v3",
        flavor="moeplan",
        model=model_config(attn_backend, moe_comm_backend),
        parallelize_fn=parallelize_deepseekv3,
        pipelining_fn=pipeline_llm,
        post_optimizer_build_fn=register_moe_load_balancing_hook,
        state_dict_adapter=DeepSeekV3StateDictAdapter,
    )
"""


def export(job: Job, layout: Layout | None = None) -> str:
    """The job's model and training as a Python module."""
    chosen = recipe(job, layout)
    shape = job.architecture
    _refuse(job, layout)
    values = {**constants(shape, chosen), **training_constants(job, chosen, layout)}
    lines = [f"{name} = {value!r}" for name, value in values.items()]
    lines.append(f"ACTIVATION_CHECKPOINT = {_RECOMPUTE[layout.recompute if layout else 'none']}")
    model = by_attention({"gqa": _GQA, "mla": _MLA}, shape, f"torchtitan {VERSION}")
    return "\n".join(
        [
            f'"""For torchtitan {VERSION}: moeplan() is the trainer\'s config, model_spec() the model."""',
            "",
            comment(summary(job)),
            comment(by_law(chosen)),
            "from functools import partial",
            "",
            "from torch import nn",
            _TRAINER_IMPORTS + model.replace("\nWEIGHT =", "\n" + "\n".join(lines) + "\n\nWEIGHT =", 1) + _TRAINER,
        ]
    )


def constants(shape: Architecture, chosen: Recipe) -> dict[str, object]:
    """The numbers of the model at the head of the module."""
    values: dict[str, object] = {
        "VOCAB_SIZE": shape.vocab_size,
        "TIED_EMBEDDINGS": shape.tied_embeddings,
        "D_MODEL": shape.d_model,
        "NUM_LAYERS": shape.num_layers,
        "NUM_HEADS": shape.num_heads,
        "D_FF": shape.d_ff,
        "NUM_EXPERTS": shape.num_experts,
        "NUM_ACTIVE_EXPERTS": shape.num_active_experts,
        "D_EXPERT": shape.d_expert,
        "ROUTE_NORM": normalises(shape.num_experts, shape.num_active_experts),
        "ROUTE_SCALE": round(expert_scale(shape.num_active_experts), 6) if shape.num_experts else 1.0,
    }
    own = by_attention({"gqa": _grouped_constants, "mla": _latent_constants}, shape, f"torchtitan {VERSION}")
    return {
        **values,
        **own(shape),
        "ROPE_THETA": setting("rotary base"),
        "NORM_EPSILON": setting("norm epsilon"),
        "STARTING_DEVIATION": setting("starting deviation"),
        "SEQ_LEN": chosen.seq_len,
    }


def training_constants(job: Job, chosen: Recipe, layout: Layout | None) -> dict[str, object]:
    """The numbers of training: schedule, optimizer, batch and layout.

    The local batch is what one replica takes before its gradients are summed: with pipeline stages all micro-batches of
    the step, as torchtitan deals them from there.
    """
    layout = layout or Layout()
    micro_batches = chosen.batch // (layout.dp * layout.micro_batch) if layout.pp > 1 else 1
    flexible = job.software.dispatcher == "flex" and layout.ep > 1
    return {
        "LEARNING_RATE": chosen.learning_rate,
        "WARMUP": chosen.warmup_steps,
        "DECAY_RATIO": decay_share(),
        "MIN_LR_FACTOR": setting("least learning rate"),
        "BETAS": (setting("beta1"), setting("beta2")),
        "ADAM_EPSILON": setting("adam epsilon"),
        "WEIGHT_DECAY": setting("weight decay"),
        "MAX_NORM": setting("gradient norm"),
        "BIAS_STEP": setting("router bias step"),
        "GLOBAL_BATCH_SIZE": chosen.batch,
        "LOCAL_BATCH_SIZE": layout.micro_batch * micro_batches,
        "STEPS": chosen.steps,
        "MOE_COMM_BACKEND": "deepep" if flexible else "standard",
        "PARALLELISM": parallelism(layout, job.architecture.num_layers),
    }


def parallelism(layout: Layout, num_layers: int) -> dict[str, object]:
    """The layout by torchtitan's names, as arguments of ParallelismConfig; stages layer by layer."""
    degrees: dict[str, object] = {
        "data_parallel_shard_degree": layout.dp,
        "tensor_parallel_degree": layout.tp,
        "enable_sequence_parallel": layout.splits_sequence,
        "context_parallel_degree": layout.cp,
        "pipeline_parallel_degree": layout.pp,
        "expert_parallel_degree": layout.ep,
    }
    if layout.pp == 1:
        return degrees
    return {
        **degrees,
        "pipeline_parallel_microbatch_size": layout.micro_batch,
        "pipeline_parallel_schedule": "Interleaved1F1B" if layout.virtual_stages > 1 else "1F1B",
        "module_fqns_per_model_part": stage_modules(layout.chunks(num_layers)),
    }


def stage_modules(chunks: tuple[int, ...]) -> list[list[str]]:
    """The names of the modules of each pipeline stage, in model order."""
    starts = [sum(chunks[:i]) for i in range(len(chunks))]
    parts = [[f"layers.{i}" for i in range(start, start + n)] for start, n in zip(starts, chunks, strict=True)]
    return [["tok_embeddings", *parts[0]], *parts[1:-1], [*parts[-1], "norm", "lm_head"]]


_RECOMPUTE = {"none": "None", "selective": "SelectiveAC.Config()", "full": "FullAC.Config()"}
"""Recomputation by torchtitan's policies; its selective one recomputes more than Megatron-LM's."""


def _grouped_constants(shape: Architecture) -> dict[str, object]:
    moe = [i for i, has in enumerate(moe_layers(shape)) if has]
    whole = bool(moe) and moe == list(range(moe[0], shape.num_layers))
    return {
        "SHARED_WIDTH": shape.num_shared_experts * shape.d_shared_expert,
        "NUM_KV_HEADS": shape.num_kv_heads,
        "HEAD_DIM": shape.head_dim,
        "QK_NORM": shape.qk_norm == "head",
        "MOE_LAYERS": range(moe[0], shape.num_layers) if whole else moe,
    }


def _latent_constants(shape: Architecture) -> dict[str, object]:
    ranks = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    return {
        "NUM_SHARED_EXPERTS": shape.num_shared_experts * shape.d_shared_expert // (shape.d_expert or 1),
        "NUM_DENSE_LAYERS": shape.num_dense_layers,
        **{name.upper(): getattr(shape, name) for name in ranks},
    }


def _refuse(job: Job, layout: Layout | None) -> None:
    """Refuse what torchtitan's blocks and meshes do not have."""
    shape, target = job.architecture, f"torchtitan {VERSION}"
    require_plain(shape, target)
    by_attention({"gqa": lambda shape: None, "mla": _refuse_latent}, shape, target)(shape)
    if job.optimizer in OTHER_OPTIMIZERS:
        raise InfeasibleError(
            f"the plan counts memory for optimizer {job.optimizer}, and {target} is written for sharded AdamW; "
            "plan with --optimizer fsdp2"
        )
    if layout is None:
        return
    if layout.etp > 1:
        raise InfeasibleError(f"{target} has no expert tensor parallelism; give etp=1 with --layout")
    if layout.pp > 1 and shape.tied_embeddings:
        raise InfeasibleError(f"{target} ties no embeddings across pipeline stages; give pp=1 or plan with --untied")
    if layout.tp > 1 and not layout.sequence_parallel:
        raise InfeasibleError(f"{target} is written with sequence parallelism alone")


def _refuse_latent(shape: Architecture) -> None:
    if shape.tied_embeddings:
        raise InfeasibleError(f"torchtitan {VERSION} does not tie embeddings in deepseek_v3; plan with --untied")
    shared = shape.num_shared_experts * shape.d_shared_expert
    if shape.num_moe_layers and (not shared or shared % shape.d_expert):
        raise InfeasibleError(
            f"torchtitan {VERSION}'s deepseek_v3 needs shared experts as wide as routed ones; fix num_shared_experts=1"
        )
    if shape.moe_layer_pattern is not None:
        raise InfeasibleError(f"torchtitan {VERSION}'s deepseek_v3 has dense layers first, in no other pattern")
