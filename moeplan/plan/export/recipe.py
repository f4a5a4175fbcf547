"""The recipe that every target takes from a plan besides its shape: learning rate, batch, steps."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import cast

from moeplan.cost.training.parallelism import Layout, Recompute
from moeplan.errors import UsageError
from moeplan.plan.document import Plan
from moeplan.plan.training_and_serving import batch_sequences
from moeplan.units import format_count


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train."""

    law: str
    """The law that learning rate and batch come from."""
    learning_rate: float
    """Peak learning rate (AdamW), to 4 digits."""
    seq_len: int
    """Tokens of one sequence."""
    batch: int
    """Sequences of one step."""
    steps: int
    """Steps: the plan's tokens, rounded up to whole ones."""
    others: str
    """Rate and batch by the plan's other laws, in words; "" where there are none."""

    @property
    def tokens(self) -> int:
        """Tokens of all steps."""
        return self.steps * self.batch * self.seq_len


def recipe(plan: Plan, layout: Layout | None = None) -> Recipe:
    """The plan's first learning rate and its batch, a whole number of micro-batches for each replica."""
    if not plan.hyperparameters:
        raise UsageError("the plan has no learning rate and batch; make it again with moeplan recommend")
    chosen, seq_len = plan.hyperparameters[0], plan.request.seq_len
    step = layout.micro_batch * layout.dp if layout else 1
    batch = max(1, round(plan.training.batch_sequences / step)) * step
    return Recipe(
        law=chosen.law,
        learning_rate=float(f"{chosen.learning_rate:.4g}"),
        seq_len=seq_len,
        batch=batch,
        steps=math.ceil(plan.design.tokens / (batch * seq_len)),
        others="; ".join(
            f"{own.law}: {own.learning_rate:.3g}, {format_count(own.batch_tokens)} tokens"
            for own in plan.hyperparameters[1:]
        ),
    )


def with_hyperparameters(plan: Plan, law: str) -> Plan:
    """The plan with the learning rate and batch of `law` first, which exports take.

    Raises `UsageError` for a law that the plan holds none of.
    """
    by_name = {own.law: own for own in plan.hyperparameters}
    if law not in by_name:
        known = " or ".join(by_name) or "none"
        raise UsageError(f"the plan has no learning rate and batch by {law!r}; it has those of {known}")
    chosen = by_name[law]
    if chosen is plan.hyperparameters[0]:
        return plan
    gpus = plan.training.num_gpus or 1
    batch = batch_sequences(chosen.batch_tokens, plan.request.seq_len, gpus)
    others = (own for own in plan.hyperparameters if own is not chosen)
    training = dataclasses.replace(plan.training, batch_sequences=batch)
    return dataclasses.replace(plan, hyperparameters=(chosen, *others), training=training)


def planned_layouts(plan: Plan) -> list[Layout]:
    """The layouts that the plan lists, fastest first."""
    names = ("tp", "pp", "ep", "etp", "cp", "dp", "micro_batch")
    return [
        Layout(**{name: getattr(option, name) for name in names}, recompute=cast(Recompute, option.recompute))
        for option in plan.training.layouts
    ]


def summary(plan: Plan) -> str:
    """One line that says what is exported, for comments."""
    shape = plan.architecture
    return (
        f"{shape.total_params():,} params, {shape.active_params():,} of them active, "
        f"{plan.design.tokens:,} tokens; moeplan {plan.provenance.version}"
    )


def by_law(chosen: Recipe) -> str:
    """Where learning rate and batch come from, and what others say, for comments."""
    return f"learning rate and batch by {chosen.law}" + (f" ({chosen.others})" if chosen.others else "")
