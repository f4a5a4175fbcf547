"""DeepSpeed JSON.

For `deepspeed.initialize(config="ds_config.json")` with the model of the target hf: batch, precision, AdamW, schedule,
stage of ZeRO. DeepSpeed has no constant rate with a decay at the end, so that the schedule is a cosine to the least
learning rate. Its loop takes one replica a GPU: layouts with tensor, context or pipeline parallelism are refused.
"""

from __future__ import annotations

import json
from typing import Any

from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.states import load_scheme
from moeplan.errors import InfeasibleError
from moeplan.plan.export.job import Job
from moeplan.plan.export.recipe import recipe, setting
from moeplan.plan.export.targets.hf import hf_config

TAKES_LAYOUT = True
OTHER_OPTIMIZERS = ("adam8bit", "muon")
"""Optimizer schemes that are not AdamW."""


def export(job: Job, layout: Layout | None = None) -> str:
    """The job's training as `ds_config.json`."""
    return json.dumps(deepspeed_config(job, layout), indent=2) + "\n"


def notes(job: Job) -> list[str]:
    """What DeepSpeed's schedules do not have."""
    return ["DeepSpeed has no constant rate with a decay at the end: the schedule is a cosine to the least rate"]


def deepspeed_config(job: Job, layout: Layout | None = None) -> dict[str, Any]:
    """The keys of a DeepSpeed config.

    Raises `InfeasibleError` for layouts and optimizers that it does not set up, and models without a class.
    """
    hf_config(job.architecture, job.context)
    if job.optimizer in OTHER_OPTIMIZERS:
        raise InfeasibleError(
            f"the plan counts memory for optimizer {job.optimizer}, and DeepSpeed is written for AdamW; plan with "
            "--optimizer deepspeed-zero3"
        )
    if layout is not None and (layout.tp, layout.cp, layout.pp, layout.ep) != (1, 1, 1, 1):
        raise InfeasibleError(
            f"DeepSpeed is written for one replica a GPU, and the layout is {layout}; give one with --layout dp="
            f"{layout.num_gpus}"
        )
    chosen = recipe(job, layout)
    config: dict[str, Any] = {
        "train_batch_size": chosen.batch,
        "train_micro_batch_size_per_gpu": layout.micro_batch if layout else 1,
        "bf16": {"enabled": True},
        "gradient_clipping": setting("gradient norm"),
        "zero_optimization": {"stage": zero_stage(job.optimizer), "overlap_comm": True, "contiguous_gradients": True},
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": chosen.learning_rate,
                "betas": [setting("beta1"), setting("beta2")],
                "eps": setting("adam epsilon"),
                "weight_decay": setting("weight decay"),
            },
        },
        "scheduler": {
            "type": "WarmupCosineLR",
            "params": {
                "total_num_steps": chosen.steps,
                "warmup_min_ratio": 0.0,
                "warmup_num_steps": chosen.warmup_steps,
                "warmup_type": "linear",
                "cos_min_ratio": setting("least learning rate"),
            },
        },
    }
    if layout is not None:
        config["gradient_accumulation_steps"] = chosen.batch // (layout.dp * layout.micro_batch)
    return config


def zero_stage(optimizer: str) -> int:
    """The stage of ZeRO that splits what the scheme of memory splits."""
    split = load_scheme(optimizer).split
    return 3 if "weights" in split else 2 if "gradients" in split else 1 if "optimizer" in split else 0
