"""Runs: the numbers of a file under glossary names, completed by what follows from them.

Counted by the conventions asked for: params and FLOPs of a run whose architecture stands in the file are counted
exactly (`moeplan.architecture.conventions`); others are taken as they stand. Compute, size and tokens give one another
by C = 6*Na*D.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from moeplan.architecture.conventions import ARCHITECTURAL, CONVENTIONS, Variables, default_convention
from moeplan.architecture.shape import Architecture
from moeplan.errors import UsageError
from moeplan.fitting.derived import DENSE_AT_ONE, DENSE_RULES, DENSE_UP_TO, RULES
from moeplan.fitting.names import SHAPE_FIELDS, Naming, listed
from moeplan.fitting.selection import Excluded
from moeplan.fitting.table import RawTable
from moeplan.fitting.written_columns import WrittenColumns
from moeplan.numerics import Floats

_SHAPE_NEEDED = ("d_model", "num_layers", "vocab_size", "num_heads")


@dataclass
class Runs:
    """The runs that count, column by column; `column` completes what the file does not hold."""

    table: RawTable
    """The file."""
    naming: Naming
    """Which column is which quantity."""
    rows: list[int]
    """Places of the runs that count."""
    excluded: list[Excluded]
    """Runs that were left out, and why."""
    conventions: dict[str, str]
    """How quantities are counted: as asked for, or as a column's name says."""
    fixed: dict[str, float] = field(default_factory=dict)
    """Values common to all runs that no column gives."""
    derived: dict[str, str] = field(default_factory=dict)
    """How each computed quantity was computed, in words."""
    sampled_from: int = 0
    """Of how many runs these are a sample; 0 where they are all."""
    _known: dict[str, Floats | None] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of runs that count."""
        return len(self.rows)

    @property
    def lines(self) -> list[int]:
        """Line of the file of each run."""
        return [self.table.lines[place] for place in self.rows]

    def convention(self, name: str) -> str:
        """How a quantity is counted."""
        return self.conventions.get(name, default_convention(name))

    def has(self, name: str) -> bool:
        """Whether the file holds a quantity, or it follows from others."""
        return self.column(name) is not None

    def require(self, name: str, form: str) -> Floats:
        """A quantity that a form needs; raises `UsageError` if the file neither holds nor gives it."""
        found = self.column(name)
        if found is None:
            raise UsageError(
                f"{self.table.file}: has no column {name}, which {form} sees, nor columns that give it; its columns "
                f"are {listed(self.table.columns)} (name one with --map {name}=COLUMN)"
            )
        return found

    def column(self, name: str) -> Floats | None:
        """A quantity over the runs: from its column, or computed; None where neither is there."""
        if name not in self._known:
            self._known[name] = None  # what would need itself is not there
            self._known[name] = self._own(name)
        return self._known[name]

    def texts(self, column: str) -> list[str]:
        """The cells of a column, by its own or its glossary name; raises `UsageError` if there is none."""
        actual = self.naming.columns.get(column, column)
        if actual not in self.table.columns:
            raise UsageError(f"{self.table.file}: has no column {column!r}; it has {listed(self.table.columns)}")
        column_cells = self.table.cells[actual]
        return [column_cells[place] for place in self.rows]

    def _own(self, name: str) -> Floats | None:
        column = self.naming.columns.get(name)
        counted = name in ("total_params", "active_params", "flops_per_token")
        if column is not None and not (counted and self.shapes_known):
            cells = self.table.cells[column]
            if any(cells[place] for place in self.rows):
                factor = self.naming.factors.get(name, 1.0)
                base = self.naming.bases.get(name)
                if base:
                    written = "e" if base == math.e else f"{base:g}"
                    self.derived[name] = f"{written} to the power of column {column!r}"
                elif factor != 1.0:
                    self.derived[name] = f"column {column!r} times {factor:g}"
                return WrittenColumns(self.table, self.naming, self.rows).numbers(name)
        if name in self.fixed and column is None:
            return np.full(self.count, self.fixed[name])
        return self._computed(name)

    @property
    def shapes_known(self) -> bool:
        """Whether the file describes each run's architecture."""
        return all(name in self.naming.columns for name in _SHAPE_NEEDED)

    def _computed(self, name: str) -> Floats | None:
        from_shape = self._from_shape(name)
        if from_shape is not None:
            return from_shape
        for needs, compute, says in RULES.get(name, ()):
            if (name, *needs) in DENSE_RULES and self.says_moe:
                continue
            columns = [self.column(need) for need in needs]
            if all(column is not None for column in columns):
                result = compute(*columns)
                self.derived[name] = says
                return np.asarray(result, dtype=float)
        return None

    def _from_shape(self, name: str) -> Floats | None:
        """A quantity counted on each run's architecture."""
        if name not in ARCHITECTURAL or name in ("tokens", "tokens_per_param") or not self.shapes_known:
            return None
        tokens = self.column("tokens") if name == "train_flops" else np.ones(self.count)
        if tokens is None:
            return None
        convention = self.convention(name)
        values = []
        for place, shape in enumerate(self._shapes()):
            seq_len = self.column("seq_len")
            variables = Variables(shape, int(seq_len[place]) if seq_len is not None else 4096)
            values.append(float(variables.get(name, convention, tokens[place])))
        counted = CONVENTIONS.get(name, {}).get(convention, "")
        self.derived[name] = "counted on each run's architecture" + (f": {counted}" if counted else "")
        return np.array(values)

    def _shapes(self) -> list[Architecture]:
        fields = [name for name in (*SHAPE_FIELDS, "num_experts") if name in self.naming.columns]
        shapes = []
        for place in self.rows:
            values: dict[str, int] = {}
            for name in fields:
                cell = self.table.cells[self.naming.columns[name]][place]
                if cell:
                    values[name] = self._whole(place, name, cell)
            if not values.get("num_experts"):
                for name in ("num_experts", "num_active_experts", "num_shared_experts", "d_expert", "d_shared_expert"):
                    values.pop(name, None)
            try:
                shapes.append(Architecture.from_dict(values))
            except UsageError as error:
                raise UsageError(f"{self.table.where(place)}: {error}") from None
        return shapes

    def _whole(self, place: int, name: str, cell: str) -> int:
        try:
            value = self.table.number(cell)
            if value != int(value):
                raise ValueError
        except (ValueError, OverflowError):
            column = self.naming.columns[name]
            raise UsageError(
                f"{self.table.where(place)}: column {column!r} is {cell!r}, must be a whole number"
            ) from None
        return int(value)

    def total_over_active(self) -> float:
        """Middle of total params / active params; 1 where the runs do not say."""
        total, active = self.column("total_params"), self.column("active_params")
        return 1.0 if total is None or active is None else float(np.exp(np.median(np.log(total / active))))

    @property
    def says_moe(self) -> bool:
        """Whether anything says that some run is a Mixture-of-Experts model: a column, or what is fixed."""
        own = self.naming.columns
        if any(self.fixed.get(name, 1.0) != 1 for name in DENSE_AT_ONE):
            return True
        for name in DENSE_AT_ONE:
            if name in own and any(value not in (0.0, 1.0) for value in self._numeric(own[name])):
                return True
        for name, most in DENSE_UP_TO.items():
            if name in own and any(value > most for value in self._numeric(own[name])):
                return True
        return "total_params" in own and "active_params" in own and self.total_over_active() > 1.001

    def _numeric(self, column: str) -> Iterator[float]:
        """The numbers of a column, whatever else stands in it."""
        cells, table = self.table.cells[column], self.table
        return (table.number(cells[place]) for place in self.rows if table.is_number(cells[place]))
