"""An upcycled model written for a trainer: routers whose weights add up to 1, so that it starts as the dense model.

Experts that are copies of one block give its output back if their weights add up to 1: a softmax, of the chosen scores
alone (Mixtral, Qwen3Moe) or before the choice, with Megatron-LM's scaling of the copies (He et al. 2024, arXiv
2410.07524). The sigmoid router of plans, whose weights add up to sqrt(k), would not. Rotary
positions, norms' epsilon and activation are the dense model's own, which its weights were trained with.
"""

from __future__ import annotations

import json

from moeplan.architecture.hf.keys import GATED
from moeplan.architecture.trained import TrainedSettings
from moeplan.errors import InfeasibleError
from moeplan.plan.export.job import Job
from moeplan.plan.export.targets.hf import hf_config
from moeplan.plan.export.targets.megatron import arguments, text_of

AUX_LOSS = "1e-2"
"""Weight of the balance loss, where Megatron-LM recommends to begin."""
_SIGMOID = (
    "--moe-router-enable-expert-bias",
    "--moe-router-bias-update-rate",
    "--moe-router-topk-scaling-factor",
)
TARGETS = ("hf", "megatron")
"""What upcycled models are written for."""


def export_upcycled(job: Job, to: str, granularity: int, dense: TrainedSettings) -> str:
    """The text of a file for `to`; `dense` is what the dense model's weights go with.

    Raises `InfeasibleError` for what the target cannot express.
    """
    return _config(job, granularity, dense) if to == "hf" else _arguments(job, granularity, dense)


def _config(job: Job, granularity: int, dense: TrainedSettings) -> str:
    """A config.json of a class with a softmax over the chosen scores; a script of yours copies the weights."""
    if job.architecture.num_shared_experts:
        raise InfeasibleError("no Hugging Face class with a softmax router has a shared expert without a gate")
    if granularity > 1:
        raise InfeasibleError(
            f"Hugging Face's routers know no groups, so that the parts of a block cut into {granularity} would be "
            "chosen apart; use --to megatron, or --granularity 1"
        )
    own = {
        "max_position_embeddings": max(dense.context, job.context),
        "rms_norm_eps": dense.norm_epsilon,
        "hidden_act": dense.activation,
        "rope_parameters": dict(dense.rope),
    }
    return json.dumps(hf_config(job.architecture, job.context) | own, indent=2) + "\n"


def _positions(dense: TrainedSettings) -> dict[str, object]:
    """Megatron-LM's flags of the dense model's rotary positions."""
    kind = dense.rope["rope_type"]
    args: dict[str, object] = {"--rotary-base": f"{dense.rope['rope_theta']:g}"}
    if dense.rope.get("partial_rotary_factor", 1) != 1:
        args["--rotary-percent"] = f"{dense.rope['partial_rotary_factor']:g}"
    if kind == "llama3":
        args |= {"--use-rope-scaling": "", "--rope-scaling-factor": f"{dense.rope['factor']:g}"}
    elif kind != "default":
        raise InfeasibleError(f"Megatron-LM's arguments have no rotary positions of type {kind}; use --to hf")
    return args


def _arguments(job: Job, granularity: int, dense: TrainedSettings) -> str:
    """Arguments with which Megatron-LM loads the dense checkpoint (--load) as this model."""
    if job.architecture.num_shared_experts:
        raise InfeasibleError("Megatron-LM upcycles without shared experts; leave out --shared")
    if dense.activation not in GATED:
        raise InfeasibleError(f"Megatron-LM's --swiglu is silu, the dense model's activation {dense.activation}")
    args = {flag: value for flag, value in arguments(job).items() if flag not in _SIGMOID}
    args |= {
        "--norm-epsilon": f"{dense.norm_epsilon:g}",
        "--max-position-embeddings": max(dense.context, job.context),
        **_positions(dense),
        "--moe-router-score-function": "softmax",
        "--moe-router-pre-softmax": "",
        "--moe-router-load-balancing-type": "aux_loss",
        "--moe-aux-loss-coeff": AUX_LOSS,
        "--moe-use-upcycling": "",
        "--moe-upcycling-granularity": granularity,
    }
    return text_of(
        job, None, args, "--load is the dense checkpoint, --save where the upcycled one goes",
        "the learning rate is a model's from scratch: an upper end for one that is trained on",
    )  # fmt: skip
