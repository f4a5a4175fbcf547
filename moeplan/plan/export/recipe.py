"""What every target takes from a job besides its shape: learning rate, schedule, batch, steps, optimizer.

The numbers that no law gives stand in `data/recipe.yaml`, each with what public recipes do.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from moeplan.cost.devices import bundled
from moeplan.cost.training.parallelism import Layout
from moeplan.errors import UsageError
from moeplan.laws import load_law
from moeplan.laws.reader import FileSection
from moeplan.plan.export.job import Job
from moeplan.units import format_count

_LEFT_OUT = 0.008
"""Share by which a batch without a layout may differ from the law's, so that more replicas divide it."""


@dataclass(frozen=True)
class Item:
    """One item of a recipe."""

    value: float | None
    """Its number; None where it follows from the plan."""
    public: str
    """What public recipes do."""
    written: str
    """What is written, in words; "" where it is the number."""
    names: dict[str, str]
    """What each target calls it."""


@functools.cache
def items() -> dict[str, Item]:
    """Every item of `data/recipe.yaml`."""
    return {name: _item(row) for name, row in _rows(bundled("recipe.yaml").section("items"))}


def _rows(section: FileSection) -> list[tuple[str, FileSection]]:
    return [(name, section.section(name)) for name in section]


def _item(row: FileSection) -> Item:
    row.only(("value", "public", "written", "names"), ("public", "names"))
    names = row.section("names")
    value = row.number("value") if "value" in row else None
    return Item(value, row.text("public"), row.text("written", ""), {name: names.text(name) for name in names})


def setting(name: str) -> float:
    """The number of an item."""
    value = items()[name].value
    assert value is not None, name
    return value


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train."""

    law: str
    """The law that learning rate and batch come from."""
    learning_rate: float
    """Peak learning rate (AdamW), to 4 digits."""
    least_learning_rate: float
    """Learning rate of the last step, to 4 digits."""
    seq_len: int
    """Tokens of one sequence."""
    batch: int
    """Sequences of one step."""
    steps: int
    """Steps: the plan's tokens, rounded up to whole ones."""
    warmup_steps: int
    """Steps in which the learning rate rises to its peak."""
    decay_steps: int
    """Last steps, in which it falls to the least."""
    others: str
    """What the other laws say of rate and batch; "" where there are none."""

    @property
    def tokens(self) -> int:
        """Tokens of all steps."""
        return self.steps * self.batch * self.seq_len


def recipe(job: Job, layout: Layout | None = None, rounds: int = 1) -> Recipe:
    """The job's first learning rate and its batch, a whole number of micro-batches for each replica.

    They are a multiple of `rounds`, and of pp where stages are virtual: such a schedule deals them in rounds of pp.
    """
    if job.tokens is None:
        raise UsageError(f"{job.name} says nothing of training tokens; give --tokens, for example 1T")
    if not job.hyperparameters:
        raise UsageError("the plan has no learning rate and batch; make it again with moeplan recommend")
    chosen, seq_len = job.hyperparameters[0], job.seq_len
    step = _even(job.batch_sequences)
    if layout is not None:
        dealt = layout.pp if layout.virtual_stages > 1 else 1
        step = layout.micro_batch * layout.dp * math.lcm(rounds, dealt)
    batch = max(1, round(job.batch_sequences / step)) * step
    steps = math.ceil(job.tokens / (batch * seq_len))
    rate = float(f"{chosen.learning_rate:.4g}")
    return Recipe(
        law=chosen.law,
        learning_rate=rate,
        least_learning_rate=float(f"{rate * setting('least learning rate'):.4g}"),
        seq_len=seq_len,
        batch=batch,
        steps=steps,
        warmup_steps=min(int(setting("warm-up steps")), max(1, round(steps * setting("warm-up share")))),
        decay_steps=max(1, round(steps * decay_share())),
        others="; ".join(
            f"{own.law}: {own.learning_rate:.3g}, {format_count(own.batch_tokens)} tokens"
            for own in job.hyperparameters[1:]
        ),
    )


def decay_share() -> float:
    """Share of the tokens over which the learning rate falls, by minicpm2024."""
    return float(load_law("minicpm2024").predicting("decay_fraction")())


def _even(batch: int) -> int:
    """The largest power of two with a multiple within `_LEFT_OUT` of the batch: as many replicas divide it."""
    powers = (2**i for i in range(batch.bit_length()))
    return max((p for p in powers if abs(round(batch / p) * p - batch) <= _LEFT_OUT * batch), default=1)


def summary(job: Job) -> str:
    """One line that says what is exported, for comments."""
    shape = job.architecture
    tokens = "" if job.tokens is None else f"{job.tokens:,} tokens; "
    return f"{shape.total_params():,} params, {shape.active_params():,} of them active, {tokens}moeplan {job.version}"


def by_law(chosen: Recipe) -> str:
    """Where learning rate and batch come from, and what others say, for comments."""
    return f"learning rate and batch by {chosen.law}" + (f" ({chosen.others})" if chosen.others else "")
