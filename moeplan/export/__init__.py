"""A plan as a configuration that a trainer loads: one module a target, `export(plan, "hf")`.

Every target builds a model with exactly the plan's params; a design that a target cannot express is refused with the
reason. Each module has `export(plan, layout) -> str`, the text of a file.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType

from moeplan.errors import InfeasibleError, UsageError
from moeplan.export.recipe import planned_layout
from moeplan.plan import Plan
from moeplan.training.parallelism import Layout

TARGETS = MappingProxyType(
    {
        "hf": "Hugging Face config.json",
        "megatron": "Megatron-LM arguments",
        "torchtitan": "torchtitan 0.3.0 model in Python",
        "maxtext": "MaxText YAML",
    }
)
"""Every target by name, with what is written."""


def export(plan: Plan, to: str, *, layout: Layout | None = None) -> str:
    """The plan's model, learning rate and batch as the text of a file for the trainer `to`.

    `layout` says how training is spread over GPUs (default: the fastest that the plan lists, if any); targets that have
    no place for it leave it out.

    Raises `InfeasibleError` for a design that the target cannot express, or for a layout that breaks a rule.
    """
    if to not in TARGETS:
        raise UsageError(f"target {to!r} must be one of {', '.join(TARGETS)}")
    for name in ("total_params", "active_params"):
        counted, stated = getattr(plan.architecture, name)(), getattr(plan.design, name)
        if counted != stated:
            raise UsageError(
                f"the plan's architecture has {counted:,} {name} but its design says {stated:,}; plan anew"
            )
    layout = layout or planned_layout(plan)
    if layout is not None:
        broken = layout.problems(plan.architecture, plan.request.seq_len)
        if broken:
            raise InfeasibleError(f"layout {layout}: {broken[0]}")
    text: str = importlib.import_module(f"moeplan.export.{to}").export(plan, layout)
    return text
