"""torchtitan 0.3.0 model in Python.

A module with the model's configuration and a trainer's. Its Qwen3 blocks hold either a dense block or experts, with
shared ones, layer by layer; its DeepSeek-V3 layers have latent attention. The API of 0.2 (MoEArgs) differs and cannot
express dense layers in Qwen3.
"""

from __future__ import annotations

from moeplan.architecture.shape import Architecture
from moeplan.cost.training.parallelism import Layout
from moeplan.errors import InfeasibleError
from moeplan.plan.document import Plan
from moeplan.plan.export.plain import by_attention, moe_layers, require_plain
from moeplan.plan.export.recipe import Recipe, by_law, recipe, summary
from moeplan.plan.export.targets.hf import ROPE_THETA
from moeplan.texts import comment

TAKES_LAYOUT = True
VERSION = "0.3.0"
"""The version that is written for."""

_GQA = """\
from torchtitan.components.optimizer import register_moe_load_balancing_hook
from torchtitan.distributed.pipeline_parallel import pipeline_llm
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

WEIGHT = partial(nn.init.normal_, std=0.02)
LINEAR = {"weight": WEIGHT, "bias": nn.init.zeros_}
EXPERTS = {"w1_EFD": WEIGHT, "w2_EDF": WEIGHT, "w3_EFD": WEIGHT}


def norm(width):
    return RMSNorm.Config(normalized_shape=width, eps=1e-6, param_init={"weight": nn.init.ones_})


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
            route_norm=True,
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
        load_balance_coeff=1e-3,
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
from torchtitan.components.optimizer import register_moe_load_balancing_hook
from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.models.common import ComplexRoPE, Embedding, Linear
from torchtitan.models.common.nn_modules import RMSNorm
from torchtitan.models.deepseek_v3 import (
    DeepSeekV3Model,
    DeepSeekV3StateDictAdapter,
    build_mla_moe_layers,
    parallelize_deepseekv3,
)
from torchtitan.protocols.model_spec import ModelSpec

WEIGHT = partial(nn.init.normal_, std=0.02)
LINEAR = {"weight": WEIGHT, "bias": nn.init.zeros_}
EXPERTS = {"w1_EFD": WEIGHT, "w2_EDF": WEIGHT, "w3_EFD": WEIGHT}
NORM = {"weight": nn.init.ones_}


def model_config(attn_backend="flex", moe_comm_backend="standard"):
    return DeepSeekV3Model.Config(
        vocab_size=VOCAB_SIZE,
        dim=D_MODEL,
        norm=RMSNorm.Config(normalized_shape=D_MODEL, param_init=NORM),
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
            router_route_norm=True,
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


def export(plan: Plan, layout: Layout | None = None) -> str:
    """The plan's model and training as a Python module."""
    chosen = recipe(plan, layout)
    shape = plan.architecture
    _refuse(shape)
    values = {**constants(shape, chosen), **_layout(layout)}
    return "\n".join(
        [
            f'"""For torchtitan {VERSION}: model_spec() is the model, the constants below are for Trainer.Config."""',
            "",
            comment(summary(plan)),
            comment(by_law(chosen)),
            "from functools import partial",
            "",
            "from torch import nn",
            by_attention({"gqa": _GQA, "mla": _MLA}, shape, f"torchtitan {VERSION}").replace(
                "\nWEIGHT =",
                "\n" + "\n".join(f"{name} = {value!r}" for name, value in values.items()) + "\n\nWEIGHT =",
                1,
            ),
        ]
    )


def constants(shape: Architecture, chosen: Recipe) -> dict[str, object]:
    """The numbers at the head of the module."""
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
    }
    own = by_attention({"gqa": _grouped_constants, "mla": _latent_constants}, shape, f"torchtitan {VERSION}")
    return {
        **values,
        **own(shape),
        "ROPE_THETA": ROPE_THETA,
        "SEQ_LEN": chosen.seq_len,
        "LEARNING_RATE": chosen.learning_rate,
        "GLOBAL_BATCH_SIZE": chosen.batch,
        "STEPS": chosen.steps,
    }


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


def _layout(layout: Layout | None) -> dict[str, object]:
    """The layout by torchtitan's names, as arguments of ParallelismConfig."""
    if layout is None:
        return {}
    return {
        "LOCAL_BATCH_SIZE": layout.micro_batch,
        "PARALLELISM": {
            "data_parallel_shard_degree": layout.dp,
            "tensor_parallel_degree": layout.tp,
            "context_parallel_degree": layout.cp,
            "pipeline_parallel_degree": layout.pp,
            "expert_parallel_degree": layout.ep,
        },
    }


def _refuse(shape: Architecture) -> None:
    """Refuse what torchtitan's blocks do not have."""
    require_plain(shape, f"torchtitan {VERSION}")
    by_attention({"gqa": lambda shape: None, "mla": _refuse_latent}, shape, f"torchtitan {VERSION}")(shape)


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
