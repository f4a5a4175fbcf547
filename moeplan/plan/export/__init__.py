"""A plan as a configuration that a trainer loads: one module a target in `targets`, `export(plan, "hf")`.

Every target builds a model with exactly the plan's params; a design that a target cannot express is refused with the
reason. An existing model is exported as the job that `job_of_model` makes of it, another design of a plan's search as
the plan that `moeplan.plan.candidate` makes.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType

from moeplan.cost.training.parallelism import Layout, read_layout
from moeplan.errors import InfeasibleError, UsageError
from moeplan.modules import modules_in
from moeplan.plan.document import Plan
from moeplan.plan.export.job import Job, job_of, job_of_plan, with_hyperparameters

TARGETS = MappingProxyType(modules_in("plan/export/targets"))
"""Every target by name, with what is written."""


@dataclass(frozen=True)
class Exported:
    """A job written for a trainer or a server."""

    text: str
    """The text of a file."""
    layout: Layout | None
    """The layout that it was written for; None if none is given and the plan lists none."""
    notes: tuple[str, ...]
    """Sentences on what it leaves open: why it is not the plan's fastest layout, what the trainer does not do."""


def export(
    subject: Plan | Job | str | Path,
    to: str,
    *,
    layout: Layout | str | None = None,
    hyperparameters: str = "",
    alternative: int | None = None,
    fix: Mapping[str, float] | None = None,
    tokens: str | float | None = None,
) -> str:
    """The model, learning rate and batch of a plan or a job as the text of a file for the trainer `to`.

    `subject` may also be a plan's file or an existing model, as `moeplan.plan.export.job.job_of` takes it with
    `alternative`, `fix` and `tokens`. `layout` says how training is spread over GPUs, as in "tp=2,ep=8,dp=8" (default:
    the fastest that the plan lists and the target can say, if any); targets that have no place for it leave it out.
    `hyperparameters` names the law whose learning rate and batch are taken (default: the plan's first).

    Raises `InfeasibleError` for a design that the target cannot express, or for a layout that breaks a rule.
    """
    if not isinstance(subject, Job):
        subject = job_of(subject, alternative=alternative, fix=fix, tokens=tokens)
    layout = read_layout(layout) if isinstance(layout, str) else layout
    return exported(subject, to, layout=layout, hyperparameters=hyperparameters).text


def exported(subject: Plan | Job, to: str, *, layout: Layout | None = None, hyperparameters: str = "") -> Exported:
    """What `export` returns, with the layout that was taken and why; raises what it raises.

    Where the target cannot say any layout of the plan, the reason against the fastest is raised.
    """
    if to not in TARGETS:
        raise UsageError(f"target {to!r} must be one of {', '.join(TARGETS)}")
    job = job_of_plan(subject) if isinstance(subject, Plan) else subject
    if hyperparameters:
        job = with_hyperparameters(job, hyperparameters)
    if layout is not None:
        return Exported(_write(job, to, layout), layout, _notes(job, to))
    if not job.layouts or not takes_layout(to):
        return Exported(_write(job, to, None), None, _notes(job, to))
    reason: InfeasibleError | None = None
    for step_time, planned in zip(job.step_times, job.layouts, strict=True):
        try:
            text = _write(job, to, planned)
        except InfeasibleError as error:
            reason = reason or error
            continue
        if reason is None:
            return Exported(text, planned, _notes(job, to))
        note = (
            f"written for the plan's layout {planned}, whose step takes {step_time:.2f} times as long as that "
            f"of its fastest, {job.layouts[0]}: {str(reason).partition(';')[0]}"
        )
        return Exported(text, planned, (note, *_notes(job, to)))
    assert reason is not None
    raise reason


def _write(job: Job, to: str, layout: Layout | None) -> str:
    if layout is not None:
        layout.check(job.architecture, job.seq_len)
        job = dataclasses.replace(job, num_gpus=layout.num_gpus)
    text: str = _target(to).export(job, layout)
    return text


def _notes(job: Job, to: str) -> tuple[str, ...]:
    """What the target itself says of a job, if it says anything."""
    target = _target(to)
    says = getattr(target, "notes", None)
    notes = () if says is None else tuple(says(job))
    if job.train_precision != "bf16" and target.TAKES_LAYOUT and not hasattr(target, "PRECISIONS"):
        notes += (f"the plan's times are for products in {job.train_precision}, and what is written trains in bf16",)
    return notes


def takes_layout(to: str) -> bool:
    """Whether a layout has a place in what the target `to` is written as."""
    return bool(_target(to).TAKES_LAYOUT)


def _target(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.targets.{name}")
