"""Plan files of the same schema from before it had all of today's keys: what an absent key meant."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

_REQUEST = {
    "goodput": 1.0,
    "optimise": "flops",
    "train_precision": "bf16",
    "software": "partial graphs",
    "layout": "",
    "batch": 0,
    "multiple_of": {},
}
"""Time was compute at one utilisation, which had its pauses in it."""
_TRAINING = {
    "idle_gpus": 0,
    "precision": "bf16",
    "software": "partial graphs",
    "goodput": 1.0,
    "tokens_per_second_per_gpu": None,
    "tokens_per_second_per_gpu_low": None,
    "tokens_per_second_per_gpu_high": None,
    "mfu_convention": "model FLOPs over the dense bf16 peak",
    "site_ln_sd": None,
    "design_ln_sd": None,
    **{f"{name}_{end}": None for name in ("gpu_hours", "days", "money") for end in ("low", "high")},
}
_LAYOUT = {
    "virtual_stages": 1,
    **{f"{name}{end}": None for name in ("tokens_per_second_per_gpu", "days") for end in ("", "_low", "_high")},
    "mfu": None,
}


def completed(data: Mapping[str, Any]) -> dict[str, Any]:
    """A plan's JSON with the keys that an older version did not write; anything else stays as it is."""
    plan: dict[str, Any] = dict(copy.deepcopy(data))
    request, training = plan.get("request"), plan.get("training")
    if isinstance(request, dict):
        plan["request"] = _REQUEST | request
    if isinstance(training, dict):
        plan["training"] = _TRAINING | training
        layouts = training.get("layouts")
        if isinstance(layouts, list):
            plan["training"]["layouts"] = [_layout(row, training) if isinstance(row, dict) else row for row in layouts]
    return plan


def _layout(row: dict[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    absent = {"num_gpus": training.get("num_gpus"), "batch_sequences": training.get("batch_sequences")}
    return _LAYOUT | absent | row
