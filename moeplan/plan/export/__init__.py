"""A plan as a configuration that a trainer loads: one module a target in `targets`, `export(plan, "hf")`.

Every target builds a model with exactly the plan's params; a design that a target cannot express is refused with the
reason.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import MappingProxyType, ModuleType

from moeplan.cost.training.parallelism import Layout
from moeplan.errors import InfeasibleError, UsageError
from moeplan.modules import modules_in
from moeplan.plan.document import Plan
from moeplan.plan.export.recipe import planned_layouts, with_hyperparameters

TARGETS = MappingProxyType(modules_in("plan/export/targets"))
"""Every target by name, with what is written."""


@dataclass(frozen=True)
class Exported:
    """A plan written for a trainer."""

    text: str
    """The text of a file."""
    layout: Layout | None
    """The layout that it was written for; None if none is given and the plan lists none."""
    note: str
    """Why it is not the fastest layout of the plan, in a sentence; "" where it is, or where one is given."""


def export(plan: Plan, to: str, *, layout: Layout | None = None, hyperparameters: str = "") -> str:
    """The plan's model, learning rate and batch as the text of a file for the trainer `to`.

    `layout` says how training is spread over GPUs (default: the fastest that the plan lists and the target can say, if
    any); targets that have no place for it leave it out. `hyperparameters` names the law whose learning rate and batch
    are taken (default: the plan's first).

    Raises `InfeasibleError` for a design that the target cannot express, or for a layout that breaks a rule.
    """
    return exported(plan, to, layout=layout, hyperparameters=hyperparameters).text


def exported(plan: Plan, to: str, *, layout: Layout | None = None, hyperparameters: str = "") -> Exported:
    """`export`, with the layout that was taken and why; raises the same.

    Where the target cannot say any layout of the plan, the reason against the fastest is raised.
    """
    if to not in TARGETS:
        raise UsageError(f"target {to!r} must be one of {', '.join(TARGETS)}")
    for name in ("total_params", "active_params"):
        counted, stated = getattr(plan.architecture, name)(), getattr(plan.design, name)
        if counted != stated:
            raise UsageError(
                f"the plan's architecture has {counted:,} {name} but its design says {stated:,}; plan anew"
            )
    if hyperparameters:
        plan = with_hyperparameters(plan, hyperparameters)
    if layout is not None:
        return Exported(_write(plan, to, layout), layout, "")
    layouts = planned_layouts(plan)
    if not layouts:
        return Exported(_write(plan, to, None), None, "")
    reason: InfeasibleError | None = None
    for option, planned in zip(plan.training.layouts, layouts, strict=True):
        try:
            text = _write(plan, to, planned)
        except InfeasibleError as error:
            reason = reason or error
            continue
        if reason is None:
            return Exported(text, planned, "")
        note = (
            f"written for the plan's layout {planned}, whose step takes {option.step_time:.2f} times as long as that "
            f"of its fastest, {layouts[0]}: {str(reason).partition(';')[0]}"
        )
        return Exported(text, planned, note)
    assert reason is not None
    raise reason


def _write(plan: Plan, to: str, layout: Layout | None) -> str:
    if layout is not None:
        layout.check(plan.architecture, plan.request.seq_len)
    text: str = _target(to).export(plan, layout)
    return text


def takes_layout(to: str) -> bool:
    """Whether a layout has a place in what the target `to` is written as."""
    return bool(_target(to).TAKES_LAYOUT)


def _target(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.targets.{name}")
