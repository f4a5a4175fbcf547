"""SimuMax script: a cross-check of training times and memory.

Run it where SimuMax is installed (its repository, May 2026); it simulates a step of the plan's model and layout, for a
look at the times and memory given here from another side. SimuMax counts no query-key norms, an output head of its own
and a router as Megatron-LM has it; its bundled systems are A100 PCIe and B200.
"""

from __future__ import annotations

from moeplan.architecture.shape import Architecture
from moeplan.cost.training.parallelism import Layout
from moeplan.errors import InfeasibleError
from moeplan.plan.export.job import Job
from moeplan.plan.export.plain import by_attention, require_plain
from moeplan.plan.export.recipe import recipe, summary
from moeplan.texts import comment

TAKES_LAYOUT = True

_SCRIPT = """\
import sys

from simumax.core.config import ModelConfig, StrategyConfig, SystemConfig
from simumax.core.perf_llm import PerfLLM
from simumax.utils import get_simu_system_config

perf = PerfLLM()
perf.configure(
    model_config=ModelConfig(**MODEL),
    strategy_config=StrategyConfig(**STRATEGY),
    system_config=SystemConfig.init_from_config_file(get_simu_system_config(SYSTEM)),
)
perf.model_config.padded_vocab_size = False
perf.run_estimate()
perf.analysis(sys.argv[1] if len(sys.argv) > 1 else "moeplan")
"""


def export(job: Job, layout: Layout | None = None) -> str:
    """The job's model and layout as a script that simulates them."""
    if layout is None:
        raise InfeasibleError("SimuMax simulates a layout; give one with --layout, or plan with --gpus")
    chosen = recipe(job, layout)
    values: dict[str, object] = {
        "MODEL": model_values(job.architecture),
        "STRATEGY": strategy_values(layout, job.architecture, chosen.seq_len, chosen.batch),
        "SYSTEM": "b200_bf16_ceperm" if "B200" in job.device else "a100_pcie",
    }
    lines = [comment(summary(job)), comment(f"planned for {job.device}: give SYSTEM a file of its own for its speeds")]
    lines += [f"{name} = {value!r}" for name, value in values.items()]
    return "\n".join([*lines, "", _SCRIPT])


def model_values(shape: Architecture) -> dict[str, object]:
    """The fields of SimuMax's ModelConfig."""
    require_plain(shape, "SimuMax")
    if shape.moe_layer_pattern is not None:
        raise InfeasibleError("SimuMax has dense layers first, in no other pattern")
    values: dict[str, object] = {
        "model_type": "moe" if shape.num_experts else "dense",
        "model_name": "moeplan",
        "hidden_size": shape.d_model,
        "head_num": shape.num_heads,
        "kv_head_num": shape.num_kv_heads,
        "layer_num": shape.num_layers,
        "vocab_size": shape.vocab_size,
        "intermediate_size": shape.d_ff or shape.d_expert,
        "use_swiglu": True,
    }
    if shape.num_experts:
        values |= {
            "expert_num": shape.num_experts,
            "topk": shape.num_active_experts,
            "moe_ffn_hidden_size": shape.d_expert,
            "dense_layers": shape.num_dense_layers,
        }
        if shape.num_shared_experts:
            values["moe_shared_expert_intermediate_size"] = shape.num_shared_experts * shape.d_shared_expert
    return values | by_attention({"gqa": _grouped, "mla": _latent}, shape, "SimuMax")(shape)


def _grouped(shape: Architecture) -> dict[str, object]:
    return {"attention_type": "mha", "head_size": shape.head_dim}


def _latent(shape: Architecture) -> dict[str, object]:
    return {
        "attention_type": "mla",
        "head_size": shape.v_head_dim,
        "v_head_dim": shape.v_head_dim,
        "qk_head_dim": shape.qk_nope_head_dim,
        "qk_pos_emb_head_dim": shape.qk_rope_head_dim,
        "q_lora_rank": shape.q_lora_rank or None,
        "kv_lora_rank": shape.kv_lora_rank,
    }


def strategy_values(layout: Layout, shape: Architecture, seq_len: int, batch: int) -> dict[str, object]:
    """The fields of SimuMax's StrategyConfig; raises `InfeasibleError` for stages that it does not have."""
    if shape.attention == "mla" and layout.tp > 1:
        raise InfeasibleError("SimuMax splits no latent attention over tp; give tp=1 with --layout")
    chunks = layout.chunks(shape.num_layers)
    uneven = {"num_layers_in_first_pipeline_stage": chunks[0], "num_layers_in_last_pipeline_stage": chunks[-1]}
    if len(set(chunks)) > 1 and (layout.virtual_stages > 1 or len(set(chunks[1:-1])) > 1):
        raise InfeasibleError(
            f"SimuMax has a first and a last stage of their own, and {shape.num_layers} layers over pp {layout.pp} "
            "differ between; give another with --layout"
        )
    recompute: dict[str, object] = {"enable_recompute": layout.recompute != "none"}
    if layout.recompute == "full":
        recompute |= {"recompute_granularity": "full_block", "recompute_layer_num": max(chunks)}
    elif layout.recompute == "selective":
        recompute |= {"recompute_granularity": "sdp_only", "recompute_layer_num": max(chunks)}
    return {
        "seq_len": seq_len,
        "micro_batch_size": layout.micro_batch,
        "micro_batch_num": batch // (layout.dp * layout.micro_batch),
        "dtype": "bf16",
        "world_size": layout.num_gpus,
        "tp_size": layout.tp,
        "cp_size": layout.cp,
        "pp_size": layout.pp,
        "ep_size": layout.ep,
        "etp_size": layout.etp,
        "enable_sequence_parallel": layout.splits_sequence,
        "interleaving_size": layout.virtual_stages,
        "pp_comm_async": layout.virtual_stages == 1,  # its times of interleaved stages know no other
        "zero_state": 1,
        "cross_entropy_loss_fusion": True,
        **(uneven if len(set(chunks)) > 1 else {}),
        **recompute,
    }
