"""The optimizer: the best design of the grid under a budget, exactly.

Every design x is judged by each law l through C_l(x) (`moeplan.plan.search.reference`); the search maximises

    V(x) = geometric mean of C_l(x) over the chosen laws, weighted where weights are given  [FLOPs].

All designs of the grid that fit are evaluated, so the answer is exact on its grid; the order in which designs are
visited, and the number of threads, change nothing. Designs within .5 % of the best V are ties for any law; they go to
the attention share nearest .35 (to .01), then d_model/num_layers nearest 88 (to 1), then fewer params, then the smaller
integers.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeplan.architecture.conventions import Variables
from moeplan.architecture.shape import Architecture
from moeplan.cost.inference_memory import total_inference_bytes
from moeplan.errors import LawError, MoeplanError, UsageError
from moeplan.laws import Law
from moeplan.numerics import Floats
from moeplan.plan.budget import Budget
from moeplan.plan.search.blocks import Block, score_block, served_seconds
from moeplan.plan.search.designs import Designs, DesignVariables, alike, put_in_rows
from moeplan.plan.search.grid import AXES, Grid
from moeplan.plan.search.pruning import Costs
from moeplan.plan.search.reference import LossReference, Reference, make_reference
from moeplan.plan.search.scores import Scores
from moeplan.plan.search.variables import DESIGN_VARIABLES

Spend = Callable[[slice], tuple[Floats, Floats]]
"""Of some designs, the compute that each is trained for and the compute that the laws judge it at [FLOPs]."""
TIE = 0.005
"""Relative difference in V below which two designs are ties."""
BEST_ATTENTION_SHARE, BEST_ASPECT_RATIO = 0.35, 88.0
"""Where ties go (tian2025's best attention share of 30-40 %, li2025's best aspect ratio)."""
MARGIN = float(np.log(100))
"""How far below a law's best design its table of C_l must reach, in ln C_l."""
MOST_DESIGNS = 15_000_000
"""Largest grid that is searched, for memory's sake."""
SOME_WIDTHS, SOME_DESIGNS = 4, 61
"""Of every so many widths of the reference grid, every so many designs are asked first: enough to be near each law's
best at any compute, and to have each of its classes."""
FEW_DESIGNS = 20_000
"""Below so many designs one thread scores faster than two."""
MORE = 1.1
"""Factor by which the price of memory and of compute is asked."""


def _keep_freed_memory() -> None:
    """Let the C library reuse the memory of arrays that are freed, in place of mapping it anew for the next ones.

    glibc maps a block of more than 128 KiB anew each time, and its pages must be cleared; but once it has freed a
    larger block it keeps all up to that size (mallopt(3), M_MMAP_THRESHOLD). Elsewhere this does nothing.
    """
    np.empty(4_000_000)


class Space:
    """The designs of a grid that can fit a budget's memory (and a little more), ready to be scored.

    `laws` judge; each must be able to search. `flops` is the convention that budgets are counted by: "causal" is
    moeplan's, the others exist to compare with papers. `allocation=False` switches off the discount of leverage laws
    for misallocated budgets (to show why it is there). `span` is the least and the most compute [FLOPs] that the space
    will be scored at, by default the budget's. `references` are those of another space of the same laws, reference grid
    and convention whose span holds this one's; they judge in place of new ones.
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
        span: tuple[float, float] | None = None,
        references: Sequence[Reference] | None = None,
    ) -> None:
        for law in laws:
            if not law.can_search:
                raise MoeplanError(f"law {law.full_name} cannot choose a design: {law.why_not}")
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
            raise UsageError(f"threads {threads!r} must be a whole number from 1 to 1024")
        _keep_freed_memory()
        self.budget, self.laws, self.flops, self.threads = budget, tuple(laws), flops, threads
        self.reference_grid = reference or budget.reference_grid()
        self.grid = budget.grid(base or budget.declared_grid(self.reference_grid))
        size = self.grid.most_designs()
        if size > MOST_DESIGNS:
            raise UsageError(f"the ranges hold {size:,} designs, more than {MOST_DESIGNS:,}; narrow them")
        self._limit = budget.usable_bytes * memory_factor
        self.references: list[Reference] = list(references or ())
        if references is None:
            self.references += [make_reference(law, flops, allocation=allocation) for law in self.laws]
        self.blocks: list[Block] = []
        self.known: dict[str, Any] = {}
        """What is known of its designs beside their scores, by what was asked (`moeplan.plan.search.clock`)."""
        self.num_designs, self.smallest_bytes = 0, float("inf")
        least, most = span or (budget.flops, budget.flops)
        same = self.grid == self.reference_grid and references is None
        if same:
            self._bound_references(most)
        collected = []
        for size, smallest, block, tables in self._map(lambda d: self._visit(d, collect=same), self.grid.d_model):
            self.num_designs += size
            self.smallest_bytes = min(self.smallest_bytes, smallest)
            self.blocks += [block] if block else []
            collected += [tables] if tables else []
        put_in_rows([block.designs for block in self.blocks])
        if references is not None or not self.blocks:  # nothing to judge: the caller says why
            return
        if not same:
            self._bound_references(most)
            collected = [tables for tables in self._map(self._collect, self.reference_grid.d_model) if tables]
        for judge, tables in zip(self.references, zip(*collected, strict=True), strict=True):
            judge.finish(tables, least, most)
        del collected, tables  # a third of the memory

    def at(self, budget: Budget) -> Space:
        """The same designs under another budget that differs in compute and memory alone and gives no more memory."""
        return self._with(budget, self.blocks)

    def take(self, kept: NDArray[np.bool_]) -> Space:
        """The designs where `kept`."""
        if kept.all():
            return self
        masks = np.split(kept, self._offsets[1:-1])
        taken = self._with(
            self.budget, [block.take(mask) for block, mask in zip(self.blocks, masks, strict=True) if mask.any()]
        )
        taken.known = {key: value.take(taken, kept) for key, value in self.known.items()}
        return taken

    def gather(self, index: NDArray[np.intp]) -> Space:
        """The designs at `index` (sorted), in as few blocks as can be: some of many widths are judged faster so."""
        cuts = np.searchsorted(index, self._offsets)
        parts = [
            self.blocks[number].take(index[cuts[number] : cuts[number + 1]] - self._offsets[number])
            for number in np.flatnonzero(np.diff(cuts))
        ]
        return self._with(self.budget, [Block.joined(list(group)) for group in alike(parts, lambda part: part.designs)])

    @property
    def is_empty(self) -> bool:
        """Whether no design of the grid can fit; such a space cannot be scored."""
        return not self.blocks

    def judged_by(self, laws: Sequence[Law]) -> Space:
        """The same designs, judged by some of the laws only."""
        other = copy.copy(self)
        other.laws, other.references = tuple(laws), [self.reference(law) for law in laws]
        return other

    def reference(self, law: Law) -> Reference:
        """The reference of one of the laws."""
        return self.references[self.laws.index(law)]

    def _with(self, budget: Budget, blocks: list[Block]) -> Space:
        other = copy.copy(self)
        other.budget, other.blocks = budget, blocks
        if blocks is not self.blocks:
            other.known = {}
            for name in ("_offsets", "memory", "flops_per_token", "active_params", "total_params"):
                vars(other).pop(name, None)
        return other

    def _map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        if self.threads == 1:
            yield from map(function, items)
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                yield from pool.map(function, items)

    def _visit(self, d_model: int, collect: bool) -> tuple[int, float, Block | None, list[Any]]:
        """One width of the grid: designs, least memory, those that can fit, and what the references need of it.

        Only these survive the visit, so that a grid of any size needs little memory.
        """
        designs = self.grid.product(d_model)
        if designs is None:
            return 0, np.inf, None, []
        v = DesignVariables(designs, self.budget.seq_len)
        tables = self._tables(v) if collect else []
        serving, devices = self.budget.serving, self.budget.num_devices
        memory = designs.count(lambda shape: total_inference_bytes(shape, serving, devices))
        fits = memory <= self._limit
        kept = None
        if fits.any():
            for reference in self.references:  # what scores need, while a table gives it in few operations
                reference.prepare(v)
            taken, pick = designs.take(fits), designs.pick(fits)
            known = v.take(taken, pick)
            served = served_seconds(designs, self.budget)
            picked = None if served is None else np.asarray(pick(np.broadcast_to(served, designs.shape)))
            kept = Block(taken, known, memory[fits], np.asarray(known.get("flops_per_token", self.flops)), picked)
        return len(designs), float(memory.min()), kept, tables

    def _bound_references(self, most: float) -> None:
        """Let some designs of the reference grid show the references which others need not be collected."""
        tables = [self.reference_grid.product(d_model) for d_model in self.reference_grid.d_model[::SOME_WIDTHS]]
        some = [table.take(np.arange(0, len(table), SOME_DESIGNS)) for table in tables if table is not None]
        variables = [DesignVariables(designs, self.reference_grid.seq_len) for designs in some]
        for reference in self.references:
            if isinstance(reference, LossReference) and variables:
                reference.bound_by([reference.columns(v) for v in variables], most)

    def _collect(self, d_model: int) -> list[Any]:
        """What the references need of one width of the reference grid, where that is not the grid searched."""
        designs = self.reference_grid.product(d_model)
        return [] if designs is None else self._tables(DesignVariables(designs, self.reference_grid.seq_len))

    def _tables(self, v: Variables) -> list[Any]:
        costs = Costs(v.get("flops_per_token", self.flops))
        return [reference.collect(v, costs) for reference in self.references]

    def __len__(self) -> int:
        return sum(len(block.designs) for block in self.blocks)

    def score(self, spend: float | Spend, memory_factor: float = 1.0, *, more: float = 1.0) -> Scores:
        """Judge every design at `memory_factor` times the memory, and at a compute [FLOPs].

        The compute is one for all, or of each design what it spends and what the laws judge, `more` times what the
        budget gives it.
        """
        while True:
            scores = self.limit(self.judge(spend, memory_factor, more), memory_factor)
            # Where a budget buys little, the tables must reach further down.
            extended = [reference.extend(3) for reference in self.short(scores)]
            if not any(extended):
                break
        for law in self.laws:
            if not np.isfinite(scores.of(law)[scores.feasible]).all():
                raise LawError(f"law {law.full_name} gives results that are not finite numbers; check its coefficients")
        return scores

    def judge(self, spend: float | Spend, memory_factor: float = 1.0, more: float = 1.0) -> Scores:
        """`score` by the tables of the laws as they are, whatever the memory limit."""
        count = len(self)  # one array of each, so that no design's scores are ever held twice
        tokens, train, allowed = np.empty(count), np.empty(count), np.empty(count, dtype=bool)
        ln_compute = np.empty((len(self.laws), count))

        def block(number: int) -> None:
            part = slice(int(self._offsets[number]), int(self._offsets[number + 1]))
            own, seen = spend(part) if callable(spend) else (spend, spend)
            found = score_block(self.blocks[number], self.budget, self.references, own, seen, memory_factor, more)
            tokens[part], train[part], allowed[part], ln_compute[:, part] = found

        list((map if count < FEW_DESIGNS else self._map)(block, range(len(self.blocks))))
        return Scores(self.laws, tokens, train, allowed, ln_compute, allowed.copy())

    def short(self, scores: Scores) -> list[LossReference]:
        """The references whose tables do not reach far enough below the best design of their law."""
        return [
            reference
            for law, reference in zip(self.laws, self.references, strict=True)
            if isinstance(reference, LossReference)
            and scores.feasible.any()
            and scores.mean([law]).max() < reference.least_ln_compute + MARGIN
        ]

    def limit(self, scores: Scores, memory_factor: float = 1.0) -> Scores:
        """The same judgements, of designs that fit `memory_factor` times this space's memory limit."""
        return dataclasses.replace(scores, feasible=scores.allowed & self.fits(memory_factor))

    def fits(self, memory_factor: float = 1.0) -> NDArray[np.bool_]:
        """Which designs fit `memory_factor` times this space's memory limit when served."""
        found: NDArray[np.bool_] = self.memory <= self.budget.usable_bytes * memory_factor
        return found

    @cached_property
    def flops_per_token(self) -> Floats:
        """Training FLOPs per token of each design, by the budget's convention."""
        return np.concatenate([block.flops_per_token for block in self.blocks])

    @cached_property
    def active_params(self) -> Floats:
        """N_a of each design."""
        return self._of_each("active_params")

    @cached_property
    def total_params(self) -> Floats:
        """N of each design."""
        return self._of_each("total_params")

    def _of_each(self, name: str) -> Floats:
        sizes = ((block.variables.get(name), len(block.designs)) for block in self.blocks)
        return np.concatenate([np.broadcast_to(size, count) for size, count in sizes]).astype(float)

    def taken(self, index: NDArray[np.intp]) -> list[Designs]:
        """The designs at `index` (sorted), of each width those that are there."""
        cuts = np.searchsorted(index, self._offsets)
        return [
            self.blocks[number].designs.take(index[cuts[number] : cuts[number + 1]] - self._offsets[number])
            for number in np.flatnonzero(np.diff(cuts))
        ]

    @cached_property
    def memory(self) -> NDArray[np.int64]:
        """Bytes of each design on the fullest device when served."""
        return np.concatenate([block.memory for block in self.blocks])

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        return np.cumsum([0] + [len(block.designs) for block in self.blocks])

    def locate(self, index: int) -> tuple[Block, int]:
        """The block of a design and its place in it."""
        block = int(np.searchsorted(self._offsets, index, side="right")) - 1
        return self.blocks[block], index - int(self._offsets[block])

    def designs(self, index: int) -> Designs:
        """The design at an index of the scores, alone."""
        block, place = self.locate(index)
        return block.designs.take(np.array([place]))

    def architecture(self, index: int) -> Architecture:
        """The design at an index of the scores."""
        block, place = self.locate(index)
        return block.designs.architecture(place)

    def values(self, name: str, index: NDArray[np.intp], scores: Scores) -> Any:
        """A design variable at `index` (sorted positions in the scores)."""
        parts = []
        cuts = np.searchsorted(index, self._offsets)
        for number in np.flatnonzero(np.diff(cuts)):
            block, start, stop = self.blocks[number], int(self._offsets[number]), int(self._offsets[number + 1])
            chosen = index[cuts[number] : cuts[number + 1]]
            values = DESIGN_VARIABLES[name].of(block.variables, scores.tokens[start:stop])
            parts.append(np.broadcast_to(values, stop - start)[chosen - start])
        return np.concatenate(parts)

    def each(self, value: Callable[[Variables, Floats], Any], scores: Scores) -> Floats:
        """A number (or a column of them) for every design, from its variables and its training tokens."""
        parts = []
        for number, block in enumerate(self.blocks):
            part = slice(int(self._offsets[number]), int(self._offsets[number + 1]))
            found = np.asarray(value(block.variables, scores.tokens[part]), dtype=float)
            parts.append(np.broadcast_to(found, (*found.shape[:-1], len(block.designs))))
        return np.concatenate(parts, axis=-1)

    def choose(self, ln_value: Floats, scores: Scores) -> int | None:
        """The best design by `ln_value`, ties within `TIE` broken as the module says; None if nothing is feasible."""
        best = float(ln_value.max(initial=-np.inf))
        if best == -np.inf:
            return None
        ties = np.flatnonzero(ln_value >= best + np.log1p(-TIE))
        return int(ties[np.argmin(self.rank(ties, scores))])

    def rank(self, index: NDArray[np.intp], scores: Scores) -> NDArray[np.intp]:
        """The place of each design at `index` (sorted) in the order that ties go by; it is the same for any law."""
        keys = [self.values(name, index, scores) for name in reversed(AXES)]
        aspect = self.values("d_model", index, scores) / self.values("num_layers", index, scores)
        keys.append(self.values("total_params", index, scores))
        keys.append(np.rint(np.abs(aspect - BEST_ASPECT_RATIO)))
        keys.append(np.rint(np.abs(self.values("attention_share", index, scores) - BEST_ATTENTION_SHARE) * 100))
        rank = np.empty(len(index), dtype=np.intp)
        rank[np.lexsort(keys)] = np.arange(len(index))
        return rank
