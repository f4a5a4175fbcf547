"""Designs of one width with what does not depend on the budget's compute, and their judgement: `Block`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeplan.architecture.conventions import Variables
from moeplan.architecture.counting import Shape
from moeplan.numerics import Floats
from moeplan.plan.budget import Budget
from moeplan.plan.search.designs import Designs, DesignVariables, joined
from moeplan.plan.search.reference import Reference
from moeplan.plan.search.variables import DESIGN_VARIABLES


@dataclass(frozen=True)
class Block:
    """Designs with what does not depend on the budget."""

    designs: Designs
    """The designs."""
    variables: Variables
    """Their variables, under any convention."""
    memory: NDArray[np.int64]
    """Bytes on the fullest device when served."""
    flops_per_token: Floats
    """Training FLOPs per token by the budget's convention."""
    served_seconds: Floats | None
    """Device time of a served token [s], inf where it cannot be served as asked; None where nothing is asked."""

    def take(self, index: Any) -> Block:
        """The designs at `index` (an index array or a mask)."""
        designs, pick = self.designs.take(index), self.designs.pick(index)
        served = None if self.served_seconds is None else self.served_seconds[index]
        known = self.variables.take(designs, pick)
        return Block(designs, known, self.memory[index], self.flops_per_token[index], served)

    @classmethod
    def joined(cls, parts: Sequence[Block]) -> Block:
        """Designs of several widths, whose switches are the same, in one."""
        if len(parts) == 1:
            return parts[0]
        (designs,) = joined([part.designs for part in parts])
        served = [part.served_seconds for part in parts if part.served_seconds is not None]
        return cls(
            designs,
            DesignVariables.joined(designs, [part.variables for part in parts], [len(part.designs) for part in parts]),
            np.concatenate([part.memory for part in parts]),
            np.concatenate([part.flops_per_token for part in parts]),
            np.concatenate(served) if served else None,
        )


def served_seconds(designs: Shape, budget: Budget, memory_factor: float = 1.0) -> Any:
    """Device time of a served token of each design [s] with so many times the memory; None where nothing is asked."""
    if budget.demand.serve_gpus is None:
        return None
    share = memory_factor * (1 - budget.headroom)
    return budget.demand.throughput(designs, budget.serving, share).gpu_seconds_per_token


def score_block(
    block: Block,
    budget: Budget,
    references: Sequence[Reference],
    train_flops: float | Floats,
    judged: float | Floats,
    memory_factor: float = 1.0,
    more: float = 1.0,
) -> tuple[Any, ...]:
    """Tokens, training FLOPs, whether all conditions but memory are met, and ln C_l by each reference (rows).

    Of each design, trained for `train_flops` and judged by the references at `judged` [FLOPs], `more` times what the
    budget gives it, with so many times the memory.
    """
    v = block.variables
    served = block.served_seconds
    if budget.pays_hours and memory_factor != 1:  # with more memory more users share a step
        served = served_seconds(block.designs, budget, memory_factor)

    can_serve = share = None
    if served is not None:
        can_serve = np.isfinite(served)
        share = budget.serving_share(np.where(can_serve, served, 0.0)) if budget.pays_hours else None

    def tokens_of(flops: float | Floats) -> tuple[NDArray[np.bool_], Floats]:
        if share is not None:
            whole = flops / more if isinstance(flops, np.ndarray) else budget.flops
            spendable = flops - share * whole
        elif budget.served_tokens:
            spendable = flops - 2 * v.get("active_params") * budget.served_tokens
        else:
            spendable = np.asarray(flops)
        positive = spendable > 0
        if can_serve is not None:
            positive &= can_serve
        return positive, np.where(positive, spendable, 1.0) / block.flops_per_token

    low, high = budget.limits("tokens") or (0.0, np.inf)
    if "tokens" in budget.fix:
        low = high = float(budget.fix["tokens"])
    positive, tokens = tokens_of(train_flops)
    tokens = np.minimum(tokens, min(high, budget.token_cap))
    seen = tokens if judged is train_flops else np.minimum(tokens_of(judged)[1], min(high, budget.token_cap))
    allowed = positive & (tokens >= low)
    for name in (*budget.fix, *budget.ranges):
        if name != "tokens":
            bounds = budget.limits(name)
            assert bounds is not None
            values = DESIGN_VARIABLES[name].of(v, tokens)
            allowed &= (bounds[0] <= values) & (values <= bounds[1])
    for name, multiple in budget.multiple_of.items():
        allowed &= DESIGN_VARIABLES[name].of(v, tokens) % multiple == 0
    worth = budget.worth(seen)
    train = block.flops_per_token * tokens
    ln_compute = [reference.judge(v, worth, block.flops_per_token * worth) for reference in references]
    return tokens, train, allowed, np.stack(ln_compute)
