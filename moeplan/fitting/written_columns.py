"""Numbers as the cells of a table have them, in the units of their names, and refused where a run cannot have them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from moeplan.errors import UsageError
from moeplan.fitting.derived import RULES
from moeplan.fitting.names import PARAMS, SHARES, Naming, flag
from moeplan.fitting.table import RawTable
from moeplan.numerics import Floats

_RANGES = {
    **dict.fromkeys((*PARAMS, "tokens", "unique_tokens", "batch_tokens"), (1.0, 1e30)),
    **dict.fromkeys(("train_flops", "flops_per_token"), (1.0, 1e40)),
    "loss": (1e-6, 1e6),
}
"""Least and largest value that a training run can have; 1e-15 to 1e15 for anything else."""
_ANY_RANGE = (1e-15, 1e15)
_TOO_SMALL = {
    **dict.fromkeys(PARAMS, (1e5, "params", (("millions", "M"), ("billions", "B")))),
    "tokens": (1e6, "tokens", (("millions", "M"), ("billions", "B"))),
    "train_flops": (1e9, "FLOPs", (("units of 1e18", "1e18"), ("units of 1e21", "1e21"))),
}
"""Largest value of a column below which it cannot be what its name says, and the units that it may be in."""
_AGREEMENT = 100.0
"""Factor within which C = 6*N*D must hold to show that three columns are in the units of their names: ways of counting
params and FLOPs differ by less, even at small sizes, and units by a thousand at least."""
_LEAST = {**dict.fromkeys(PARAMS, 1e3), "tokens": 1e4, "train_flops": 1e6}
"""Least that any run has, also where a column's other runs are large enough: a cell below is in another unit."""
_MOST_LOGARITHM = 100.0
"""Largest logarithm (to base 2 or more) of params, tokens or FLOPs."""
_DENSE_AT_ZERO = ("num_experts", "num_active_experts")
"""Quantities whose 0 says, as 1 does, that a run is of a dense model."""
_POSITIVE_OR_ZERO = ("shared_ratio", "num_shared_experts", "num_dense_layers", "weight_sparsity", "seed")
"""Quantities that may be 0; every other one must be above 0."""


@dataclass(frozen=True)
class WrittenColumns:
    """Columns of some of the runs of a table."""

    table: RawTable
    """The file."""
    naming: Naming
    """Which column is which quantity."""
    rows: list[int]
    """Places of the runs."""

    def numbers(self, name: str) -> Floats:
        """The numbers of a quantity's column; raises `UsageError` for a cell that holds none, or none that can be."""
        column = self.naming.columns[name]
        cells, factor = self.table.cells[column], self.naming.factors.get(name, 1.0)
        low, high = _RANGES.get(name, _ANY_RANGE)
        values = []
        absurd: int | None = None
        for place in self.rows:
            cell = cells[place]
            try:
                value = self._number(name, cell)
            except ValueError:
                what = f"is {_short(cell)!r}, must be a number" if cell else "is empty, must be a number"
                ends = ";"
                if not cell and self._is_computable(name):
                    ends = "; remove the column, so that it is computed, or"
                raise self._bad_cell(place, name, what, f"{column}={cell}", ends=ends) from None
            if math.isnan(value) or math.isinf(value):
                raise self._bad_cell(place, name, f"is {_short(cell)}, must be finite", f"{column}>0", "where")
            if value == 0 and name in _DENSE_AT_ZERO:
                value = 1.0
            if value < 0 or (value == 0 and name not in _POSITIVE_OR_ZERO):
                least = "at least 0" if name in _POSITIVE_OR_ZERO else "above 0"
                if name == "loss" and (self._as_written(name) < 0).all():
                    raise UsageError(
                        f"{self.table.where(place)}: column {column!r} is {cell}, must be above 0, and none is; if "
                        f"these are log-likelihoods, the loss is the same without the sign: write it so"
                    )
                raise self._bad_cell(place, name, f"is {_short(cell)}, must be {least}", f"{column}<=0")
            value *= factor
            if name in SHARES and value > 1:
                raise UsageError(
                    f"{self.table.where(place)}: column {column!r} is {cell}, must be at most 1; if it is in percent, "
                    f"say so with {flag('map', f'{name}={column}*0.01')}"
                )
            if value > high or 0 < value < low:
                absurd = place if absurd is None else absurd
            values.append(value)
        found = np.array(values)
        if absurd is not None and (found.max() >= _TOO_SMALL.get(name, (0.0,))[0]):
            cell = cells[absurd] if len(cells[absurd]) <= 30 else repr(self.table.number(cells[absurd]))
            what = f"is {cell}, must be from {low:g} to {high:g} in a training run"
            raise self._bad_cell(absurd, name, what, f"{column}={cell}")
        self._check_unit(name, column, found)
        self._check_row(name, column, found)
        return found

    def _check_unit(self, name: str, column: str, values: Floats) -> None:
        """Refuse numbers that cannot be params, tokens or FLOPs, with the question what they are in."""
        most, what, units = _TOO_SMALL.get(name, (0.0, "", ()))
        if values.max() >= most or self._compute_agrees():
            return
        holds = f"{self.table.file}: column {column!r} holds {values.min():.4g} to {values.max():.4g}, too few to be"
        logarithms = f"if they are logarithms, name the column log10_{name}, log2_{name} or ln_{name}"
        if "log" in column.lower():
            raise UsageError(f"{holds} {what} of a training run; {logarithms}")
        questions = " or ".join(words for words, _ in units)
        examples = " or ".join(flag("map", f"{name}={column}*{unit}") for _, unit in units)
        raise UsageError(
            f"{holds} {what} of a training run; are they in {questions}? Say so with {examples}"
            + (f"; {logarithms}" if values.max() < _MOST_LOGARITHM else "")
        )

    def _check_row(self, name: str, column: str, values: Floats) -> None:
        """Refuse a run in another unit than the rest: too little for any run there is, though its column is not."""
        least = int(values.argmin())
        if values[least] >= _LEAST.get(name, 0.0) or self._compute_agrees():
            return
        cell = _short(self.table.cells[column][self.rows[least]])
        what = f"is {cell}, too few {_TOO_SMALL[name][1]} for a training run, where others are {values.max():.4g}"
        raise self._bad_cell(self.rows[least], name, what, f"{column}={cell}", ends="; write all in one unit, or")

    def _compute_agrees(self) -> bool:
        """Whether params, tokens and compute stand in the table and C is about 6*N*D: then their units are right."""
        size = next((name for name in ("active_params", "total_params") if name in self.naming.columns), "")
        if not size or not {"tokens", "train_flops"} <= set(self.naming.columns):
            return False
        n, d, c = (self._as_written(name) for name in (size, "tokens", "train_flops"))
        with np.errstate(all="ignore"):
            ratio = c / (6 * n * d)
        return bool(np.all(np.abs(np.log(ratio)) < math.log(_AGREEMENT)))

    def _as_written(self, name: str) -> Floats:
        """A column's numbers as they stand, times the factor of its unit; NaN where a cell holds no number."""
        cells, factor = self.table.cells[self.naming.columns[name]], self.naming.factors.get(name, 1.0)
        values = []
        for place in self.rows:
            try:
                values.append(self._number(name, cells[place]) * factor)
            except ValueError:
                values.append(math.nan)
        return np.array(values)

    def _number(self, name: str, cell: str) -> float:
        """The number of a cell, before its unit; raises `ValueError` if it holds none."""
        value, base = self.table.number(cell), self.naming.bases.get(name)
        try:
            return value if base is None else base**value
        except OverflowError:
            return math.inf

    def _is_fine(self, name: str, cell: str) -> bool:
        """Whether a cell holds a number that a training run can have."""
        low, high = _RANGES.get(name, _ANY_RANGE)
        try:
            value = self._number(name, cell) * self.naming.factors.get(name, 1.0)
        except ValueError:
            return False
        return low <= value <= high or (value == 0 and name in _POSITIVE_OR_ZERO)

    def _is_computable(self, name: str, without: tuple[str, ...] = ()) -> bool:
        """Whether a quantity follows from other columns of the table."""
        without = (*without, name)
        return any(
            all(
                need not in without and (need in self.naming.columns or self._is_computable(need, without))
                for need in needs
            )
            for needs, _, _ in RULES.get(name, ())
        )

    def _bad_cell(
        self, place: int, name: str, what: str, rule: str, keyword: str = "exclude", ends: str = ";"
    ) -> UsageError:
        """The refusal of a cell: with the rule that leaves such runs out, or, where all cells of its column are
        like it, with the advice to name another column."""
        column = self.naming.columns[name]
        cells = self.table.cells[column]
        said = f"{self.table.where(place)}: column {column!r} {what}"
        if not any(cells[row] and self._is_fine(name, cells[row]) for row in self.rows):
            return UsageError(f"{said}, and no other cell is better; name the column of {name} by --map {name}=COLUMN")
        return UsageError(f"{said}{ends} leave such runs out with {flag(keyword, rule)}")


def _short(cell: str) -> str:
    """A cell for a sentence, the beginning of a long one."""
    return cell if len(cell) <= 60 else f"{cell[:57]}..."
