"""The optimizer: the best design of the grid under a budget, exactly.

Every design x is judged by each law l through C_l(x) (`moeplan.reference`); the search maximises

    V(x) = geometric mean of C_l(x) over the chosen laws  [FLOPs].

All designs of the grid that fit are evaluated, so the answer is exact on its grid; the order in which designs are
visited, and the number of threads, change nothing. Designs within .5 % of the best V are ties for any law; they go to
the attention share nearest .35 (to .01), then d_model/num_layers nearest 88 (to 1), then fewer params, then the smaller
integers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeplan.architecture import Architecture
from moeplan.budget import Budget
from moeplan.design import DESIGN_VARIABLES
from moeplan.errors import InfeasibleError, LawError, MoeplanError, UsageError
from moeplan.grid import AXES, Designs, Grid
from moeplan.laws import Fit, Law
from moeplan.memory import total_inference_bytes
from moeplan.reference import LossReference, make_reference
from moeplan.units import format_bytes, format_count, format_flops
from moeplan.variables import Variables

Floats = NDArray[np.float64]

TIE = 0.005
"""Relative difference in V below which two designs are ties."""
BEST_ATTENTION_SHARE, BEST_ASPECT_RATIO = 0.35, 88.0
"""Where ties go (tian2025's best attention share of 30-40 %, li2025's best aspect ratio)."""
MARGIN = float(np.log(100))
"""How far below a law's best design its table of C_l must reach, in ln C_l."""
MOST_DESIGNS = 15_000_000
"""Largest grid that is searched, for memory's sake."""
_FREED = {
    "shared_ratio": {"shared_ratio": (0.0, 1.0)},
    "G": {"G": (0.0, 1e9)},
    "attention_share": {"attention_share": (0.0, 1.0)},
}
"""What takes a bound off the grid, for bounds that are no axes."""
MORE = 1.1
"""Factor by which the price of memory and of compute is asked."""


@dataclass(frozen=True)
class Block:
    """Designs of one width with what does not depend on the budget."""

    designs: Designs
    """The designs."""
    variables: Variables
    """Their variables, under any convention."""
    memory: NDArray[np.int64]
    """Bytes on the fullest device when served."""
    flops_per_token: Floats
    """Training FLOPs per token by the budget's convention."""


@dataclass(frozen=True)
class Scores:
    """Every design of a space at one budget."""

    tokens: Floats
    """Training tokens of each design."""
    train_flops: Floats
    """Training FLOPs of each design."""
    feasible: NDArray[np.bool_]
    """Which designs meet every condition."""
    ln_compute: Floats
    """ln C_l of each design (rows) by each law (columns)."""

    def mean(self, columns: Sequence[int]) -> Floats:
        """ln V over the laws at `columns`; -inf where infeasible."""
        total = self.ln_compute[:, columns[0]].copy()
        for column in columns[1:]:  # one by one, so that the sum's order is fixed
            total += self.ln_compute[:, column]
        return np.where(self.feasible, total / len(columns), -np.inf)


class Space:
    """The designs of a grid that can fit a budget's memory (and a little more), ready to be scored.

    `laws` judge; each must be able to search. `flops` is the convention that budgets are counted by: "causal" is
    moeplan's, the others exist to compare with papers. `allocation=False` switches off the discount of leverage laws
    for misallocated budgets (to show why it is there).
    """

    def __init__(
        self,
        budget: Budget,
        laws: Sequence[Law],
        *,
        base: Grid | None = None,
        reference: Grid | None = None,
        flops: str = "causal",
        allocation: bool = True,
        threads: int = 1,
        memory_factor: float = MORE,
    ) -> None:
        for law in laws:
            if not law.can_search:
                raise MoeplanError(f"law {law.full_name} cannot choose a design: {law.why_not}")
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
            raise UsageError(f"threads {threads!r} must be a whole number from 1 to 1024")
        self.budget, self.laws, self.flops, self.threads = budget, tuple(laws), flops, threads
        self.reference_grid = reference or budget.reference_grid()
        self.grid = budget.grid(base or self.reference_grid)
        size = self.grid.most_designs()
        if size > MOST_DESIGNS:
            raise UsageError(f"the ranges hold {size:,} designs, more than {MOST_DESIGNS:,}; narrow them")
        self._limit = budget.usable_bytes * memory_factor
        self.references = [make_reference(law, flops, allocation=allocation) for law in self.laws]
        self.blocks: list[Block] = []
        self.num_designs, self.smallest_bytes = 0, np.inf
        same = self.grid == self.reference_grid
        collected = []
        for size, smallest, block, tables in self._map(lambda d: self._visit(d, collect=same), self.grid.d_model):
            self.num_designs += size
            self.smallest_bytes = min(self.smallest_bytes, smallest)
            self.blocks += [block] if block else []
            collected += [tables] if tables else []
        if not self.blocks:
            self._refuse()
        if not same:
            collected = [tables for tables in self._map(self._collect, self.reference_grid.d_model) if tables]
        for judge, tables in zip(self.references, zip(*collected, strict=True), strict=True):
            judge.finish(tables, budget.flops)
        del collected, tables  # a third of the memory

    def _map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        if self.threads == 1:
            yield from map(function, items)
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                yield from pool.map(function, items)

    def _visit(self, d_model: int, collect: bool) -> tuple[int, float, Block | None, list[Floats]]:
        """One width of the grid: designs, least memory, those that can fit, and what the references need of it.

        Only these survive the visit, so that a grid of any size needs little memory.
        """
        designs = self.grid.block(d_model)
        if designs is None:
            return 0, np.inf, None, []
        v = Variables(designs, self.budget.seq_len)
        memory = total_inference_bytes(designs, self.budget.serving, self.budget.num_devices)
        fits = memory <= self._limit
        kept = None
        if fits.any():
            chosen = Variables(designs.take(fits), self.budget.seq_len)
            kept = Block(chosen.shape, chosen, memory[fits], chosen.get("flops_per_token", self.flops))
        tables = [reference.collect(v) for reference in self.references] if collect else []
        return len(designs), float(memory.min()), kept, tables

    def _collect(self, d_model: int) -> list[Floats]:
        designs = self.reference_grid.block(d_model)
        if designs is None:
            return []
        v = Variables(designs, self.reference_grid.seq_len)
        return [reference.collect(v) for reference in self.references]

    def _refuse(self) -> None:
        if self.num_designs == 0:
            given = [*self.budget.fix, *self.budget.ranges]
            if not given:
                low, high = (100 * share for share in self.grid.attention_share)
                raise InfeasibleError(
                    f"no architecture of the grid keeps attention within {low:g}-{high:g} % of its FLOPs at sequences "
                    f"of {self.budget.seq_len} tokens; allow more with --range attention_share=0.25..0.9"
                )
            for name in given:
                nearest = self._nearest(name)
                if nearest is not None:
                    others = [f"{x}={_range_text(self.budget, x)}" for x in given if x != name]
                    together = f" with {', '.join(others)}" if others else ""
                    raise InfeasibleError(
                        f"no architecture of the grid has {name}={_range_text(self.budget, name)}{together}; "
                        f"nearest is {_number(name, nearest)}"
                    )
            everything = ", ".join(f"{name}={_range_text(self.budget, name)}" for name in given)
            raise InfeasibleError(f"no architecture of the grid meets {everything} together")
        needed = self.smallest_bytes / (1 - self.budget.headroom)
        devices = self.budget.num_devices
        each = f"{devices}x" if devices > 1 else ""
        raise InfeasibleError(
            f"memory limit {self.budget.memory} is too small for any MoE of the grid: the smallest needs "
            f"{each}{format_bytes(np.ceil(needed / 1e6) * 1e6, 4)}, {100 * self.budget.headroom:g} % headroom included"
        )

    def _nearest(self, name: str) -> float | None:
        """The value nearest to a bounded variable that the grid has under the other conditions; None if none helps."""
        freed: dict[str, Any] = _FREED.get(name, {})
        axes = {"num_layers": ("num_layers", "min_layers", "max_layers")}.get(name, (name,))
        freed = freed or {axis: getattr(self.reference_grid, axis) for axis in axes if hasattr(self.grid, axis)}
        low, high = self.budget.limits(name) or (0.0, np.inf)
        values = dataclasses.replace(self.grid, **freed).values(name)
        nearest = min(values, key=lambda x: max(low - x, x - high), default=None)
        return None if nearest is None or low <= nearest <= high else nearest

    def __len__(self) -> int:
        return sum(len(block.designs) for block in self.blocks)

    def score(self, train_flops: float, memory_factor: float = 1.0) -> Scores:
        """Judge every design at a budget of `train_flops` and `memory_factor` times the memory."""
        while True:
            parts = list(self._map(lambda block: self._score_block(block, train_flops, memory_factor), self.blocks))
            scores = Scores(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
            short = [
                reference
                for column, reference in enumerate(self.references)
                if isinstance(reference, LossReference)
                and scores.feasible.any()
                and scores.mean([column]).max() < reference.least_ln_compute + MARGIN
            ]
            # Where a budget buys little, the tables must reach further down.
            extended = [reference.extend(3) for reference in short]
            if not any(extended):
                break
        for column, law in enumerate(self.laws):
            if not np.isfinite(scores.ln_compute[scores.feasible, column]).all():
                raise LawError(f"law {law.full_name} gives results that are not finite numbers; check its coefficients")
        return scores

    def _score_block(self, block: Block, train_flops: float, memory_factor: float) -> tuple[Any, ...]:
        budget, v = self.budget, block.variables
        spendable = train_flops - 2 * v.get("active_params") * budget.inference_tokens
        positive = spendable > 0
        tokens = np.where(positive, spendable, 1.0) / block.flops_per_token
        low, high = budget.limits("tokens") or (0.0, np.inf)
        if "tokens" in budget.fix:
            low = high = float(budget.fix["tokens"])
        tokens = np.minimum(tokens, min(high, budget.token_cap))
        feasible = positive & (tokens >= low) & (block.memory <= budget.usable_bytes * memory_factor)
        for name in (*budget.fix, *budget.ranges):
            if name != "tokens":
                bounds = budget.limits(name)
                assert bounds is not None
                values = DESIGN_VARIABLES[name].of(v, tokens)
                feasible &= (bounds[0] <= values) & (values <= bounds[1])
        worth = budget.worth(tokens)
        train = block.flops_per_token * tokens
        judged = [reference.judge(v, worth, block.flops_per_token * worth) for reference in self.references]
        return tokens, train, feasible, np.stack(judged, axis=1)

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        return np.cumsum([0] + [len(block.designs) for block in self.blocks])

    def locate(self, index: int) -> tuple[Block, int]:
        """The block of a design and its place in it."""
        block = int(np.searchsorted(self._offsets, index, side="right")) - 1
        return self.blocks[block], index - int(self._offsets[block])

    def architecture(self, index: int) -> Architecture:
        """The design at an index of the scores."""
        block, place = self.locate(index)
        return block.designs.architecture(place)

    def values(self, name: str, index: NDArray[np.intp], scores: Scores) -> Any:
        """A design variable at `index` (sorted positions in the scores)."""
        parts = []
        for number, block in enumerate(self.blocks):
            start, stop = int(self._offsets[number]), int(self._offsets[number + 1])
            chosen = index[np.searchsorted(index, start) : np.searchsorted(index, stop)]
            if len(chosen):
                values = DESIGN_VARIABLES[name].of(block.variables, scores.tokens[start:stop])
                parts.append(np.broadcast_to(values, stop - start)[chosen - start])
        return np.concatenate(parts)

    def choose(self, ln_value: Floats, scores: Scores) -> int:
        """The best design by `ln_value`, ties within `TIE` broken as the module says; raises `InfeasibleError`."""
        best = float(ln_value.max())
        if best == -np.inf:
            raise InfeasibleError(self._why_empty(scores))
        ties = np.flatnonzero(ln_value >= best + np.log1p(-TIE))
        keys = [self.values(name, ties, scores) for name in reversed(AXES)]
        aspect = self.values("d_model", ties, scores) / self.values("num_layers", ties, scores)
        keys.append(self.values("total_params", ties, scores))
        keys.append(np.rint(np.abs(aspect - BEST_ASPECT_RATIO)))
        keys.append(np.rint(np.abs(self.values("attention_share", ties, scores) - BEST_ATTENTION_SHARE) * 100))
        return int(ties[np.lexsort(keys)[0]])

    def _why_empty(self, scores: Scores) -> str:
        """The condition that leaves nothing, with the nearest value the others allow."""
        budget = self.budget
        everything = np.arange(len(self))
        memory = np.concatenate([block.memory for block in self.blocks])
        fits = memory <= budget.usable_bytes
        if not fits.any():
            self.smallest_bytes = float(memory.min())
            try:
                self._refuse()
            except InfeasibleError as error:
                return str(error)
        names = (*budget.fix, *budget.ranges)
        values = {name: self.values(name, everything, scores) for name in names}
        inside = {}
        for name in names:
            low, high = budget.limits(name) or (0.0, np.inf)
            inside[name] = (low <= values[name]) & (values[name] <= high)
        for name in names:
            others = fits.copy()
            for other in names:
                if other != name:
                    others &= inside[other]
            if others.any() and not (others & inside[name]).any():
                low, high = budget.limits(name) or (0.0, np.inf)
                options = values[name][others]
                distance = np.maximum(low - options, options - high)
                nearest = float(options[np.argmin(distance)])
                together = [f"{other}={_range_text(budget, other)}" for other in names if other != name]
                under = " with " + ", ".join(together) if together else ""
                return (
                    f"no design that fits {_limits(budget)} has "
                    f"{name}={_range_text(budget, name)}{under}; nearest is {_number(name, nearest)}"
                )
        given = ", ".join(f"{name}={_range_text(budget, name)}" for name in names)
        if given:
            return f"no design that fits {_limits(budget)} meets {given} together"
        return (
            f"no design can be trained on {format_flops(budget.flops)} FLOPs: "
            f"serving {format_count(budget.inference_tokens)} tokens alone costs more"
        )


def _limits(budget: Budget) -> str:
    return f"{format_flops(budget.flops)} FLOPs" + (f" and {budget.memory}" if budget.memory else "")


def _number(name: str, value: float) -> str:
    if DESIGN_VARIABLES[name].integer:
        return str(int(value))
    return format_count(value, 4) if value >= 1e4 else f"{value:.4g}"


def _range_text(budget: Budget, name: str) -> str:
    if name in budget.fix:
        return _number(name, budget.fix[name])
    low, high = budget.ranges[name]
    return f"{_number(name, low)}..{_number(name, high)}"


def objective(law: Law) -> Fit:
    """The fit by which a law judges; the law must have one."""
    fit = law.objective
    if fit is None:
        raise MoeplanError(f"law {law.full_name} judges no architecture")
    return fit
