"""Designs of one width as arrays: all that a grid has as a table, and any number of them picked out of it.

Attention follows the grid's pattern (`moeplan.architecture.patterns`), whose runs every depth holds whole.

Both have the fields of `moeplan.architecture.shape.Architecture`, sizes as int64 arrays that broadcast together, so
that `moeplan.architecture.counting` counts them all at once, and `attention_share`, attention's share of a MoE block's
FLOPs. A field is made when it is first asked for.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from moeplan.architecture.attention import Attention
from moeplan.architecture.conventions import Variables
from moeplan.architecture.hybrid import hybrid
from moeplan.architecture.patterns import Pattern
from moeplan.architecture.ratios import as_float
from moeplan.architecture.shape import Architecture

Ints = NDArray[np.int64]
Places = NDArray[np.int32]
Part = TypeVar("Part")
_DEPTHS = ("num_layers", "num_kv_layers", "num_moe_layers")
"""The fields that depend on depth."""


class _Patterned:
    """Designs whose attention follows a pattern."""

    pattern: Pattern
    trained_attentions: None = None
    dense_ffns: None = None

    @property
    def attentions(self) -> list[tuple[Any, Attention]]:
        """(blocks, their attention) of each kind, as `moeplan.architecture.counting.attentions` has them."""
        return self.pattern.attentions(self)


class Cells(_Patterned):
    """What one width of a grid has but for depth, as a table of arrays that broadcast together; fields by name."""

    num_dense_layers: int

    def __init__(self, fields: dict[str, Any]) -> None:
        vars(self).update(fields)

    def of_depth(self, num_layers: Any) -> Cells:
        """The same with as many blocks."""
        moe_layers = num_layers - vars(self)["num_dense_layers"]
        return Cells(vars(self) | dict(zip(_DEPTHS, (num_layers, num_layers, moe_layers), strict=True)))


class Designs(_Patterned):
    """Designs, as arrays of one length."""

    def __init__(self, table: Table | Tables | Row, places: Places) -> None:
        self._table, self._places = table, places
        self._pick: Callable[[Any], Any] | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a copy that has no table yet asks for it
            raise AttributeError(name)
        if self._pick is None:
            self._pick = self._table.pick(self._places)
        value = self._pick(getattr(self._table, name))
        setattr(self, name, value)
        return value

    def __len__(self) -> int:
        return len(self._places)

    @property
    def shape(self) -> tuple[int]:
        """The shape that the arrays broadcast to."""
        return self._places.shape

    @cached_property
    def attentions(self) -> list[tuple[Any, Attention]]:
        """As any has them; made once."""
        return self.pattern.attentions(self)

    @property
    def row(self) -> tuple[Tables, int] | None:
        """Tables of several widths that theirs is one of, and its number among them."""
        return self._table.row if isinstance(self._table, Table) else None

    def take(self, index: Any) -> Designs:
        """Some of them: their places, or a mask."""
        return Designs(self._table, self._places[index])

    def pick(self, index: Any) -> Callable[[Any], Any]:
        """What takes some of them, at places or a mask, out of a value of each."""
        return lambda value: value if np.ndim(value) == 0 else value[index]

    def count(self, function: Callable[[Any], Any]) -> Any:
        """A count of whole numbers that `function` makes of a shape, of each design."""
        return function(self)

    def of_layer(self, function: Callable[[Any], Any]) -> Any:
        """A number that `function` makes of a shape, of each design, the same for all depths.

        Of many it is made of the cells of the table that they are picked from, each of its axes once.
        """
        if not isinstance(self._table, Table) or len(self) < self._table.shape[1]:
            return function(self)
        return self._table.pick(self._places)(self._table.of_layer(function))

    def architecture(self, index: int) -> Architecture:
        """One design as an `Architecture`."""
        one = self.take([index])
        fields: dict[str, Any] = {}
        for f in dataclasses.fields(Architecture):
            if f.init:
                value = getattr(one, f.name)
                fields[f.name] = int(value[0]) if isinstance(value, np.ndarray) else value
        if not fields["num_shared_experts"]:
            fields["d_shared_expert"] = 0
        if not fields["num_dense_layers"]:
            fields["d_ff"] = 0
        shape = Architecture(**fields)
        return hybrid(fields, dataclasses.replace(self.blocks, attentions=self.pattern.runs(shape)))


class Table(_Patterned):
    """The designs of one width as a table of depths (rows) and of everything else (columns), numbered along its rows.

    Its arrays have length 1 along the axis that they do not depend on. Whatever is computed of them elementwise is so
    computed once for all depths where no depth enters, as with the ratios of the experts.
    """

    def __init__(self, num_layers: Ints, cells: Cells, allowed: NDArray[np.bool_]) -> None:
        """Depths; what else there is, of which each cell that is `allowed` is a column."""
        self._cells, self._allowed = cells, allowed
        self.num_layers = self.num_kv_layers = num_layers[:, None]
        self.num_moe_layers = self.num_layers - self._columns(cells.num_dense_layers)
        self.shape = len(num_layers), int(np.count_nonzero(allowed))
        self.row: tuple[Tables, int] | None = None
        """Tables of several widths that it is one of, and its number among them."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        value = self._columns(getattr(self._cells, name))
        setattr(self, name, value)
        return value

    def _columns(self, value: Any) -> Any:
        """A value of each cell as a row of columns; what is no array is the same for all."""
        return np.broadcast_to(value, self._allowed.shape)[self._allowed][None] if np.ndim(value) else value

    def __len__(self) -> int:
        return math.prod(self.shape)

    def count(self, function: Callable[[Any], Any]) -> Any:
        """A count of whole numbers that `function` makes of a shape, of each design.

        Runs of blocks are alike but for the first block, so that every count is affine in depth: those of the cells at
        two depths give all, with no more than two operations on arrays of the table's size.
        """
        run = self.pattern.period
        at_two = function(self._cells.of_depth(run * np.array([1, 2])[:, None, None]))
        first, second = (self._columns(at_one) for at_one in at_two)
        return np.broadcast_to(first + (self.num_layers // run - 1) * (second - first), self.shape)

    def of_layer(self, function: Callable[[Any], Any]) -> Any:
        """A number that `function` makes of a shape, the same for all depths, of each column."""
        return self._columns(function(self._cells.of_depth(2 * self.pattern.period)))

    def pick(self, index: Any) -> Callable[[Any], Any]:
        """What takes the designs at `index` (numbers, or a mask of the table's shape) out of a value of each."""
        places = self._places(index)
        rows, columns = np.divmod(places, self.shape[1])

        def picked(value: Any) -> Any:
            if np.ndim(value) == 0:
                return value
            if value.shape == self.shape:
                return value.reshape(-1)[places]
            # Along an axis that it does not depend on there is one value.
            depths, others = value.shape
            return value[:, 0][rows if depths > 1 else np.zeros_like(rows)] if others == 1 else value[0][columns]

        return picked

    def take(self, index: Any) -> Designs:
        """The designs at `index` (numbers, or a mask of the table's shape), as arrays of one length."""
        return Designs(self, self._places(index))

    @staticmethod
    def _places(index: Any) -> Places:
        """Numbers of designs, in half the memory of the largest integers: blocks keep them."""
        index = np.asarray(index)
        return (np.flatnonzero(index) if index.dtype == bool else index).astype(np.int32)


class _Along(NamedTuple):
    """A field of several tables."""

    axis: str
    """What it has a value of each of: "table", "depth", "column" or "design"."""
    values: NDArray[Any]
    """Those of all tables in a row."""


class Tables(_Patterned):
    """Tables of several widths in a row, whose switches are the same: any of their designs are picked at once."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tables
        depths, columns = (np.array(sizes) for sizes in zip(*(table.shape for table in tables), strict=True))
        self._columns = columns
        self._starts, self._depth_starts, self._column_starts = (
            np.concatenate(([0], np.cumsum(sizes))) for sizes in (depths * columns, depths, columns)
        )
        for number, table in enumerate(tables):
            table.row = self, number

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        values = [getattr(table, name) for table in self._tables]
        value: Any = values[0]
        if name == "d_model" or any(isinstance(each, np.ndarray) for each in values) or len(set(values)) > 1:
            value = self._along(values)
        setattr(self, name, value)
        return value

    def _along(self, values: list[Any]) -> _Along:
        if not any(isinstance(value, np.ndarray) for value in values):
            return _Along("table", np.array(values))
        whole = [np.atleast_2d(value) for value in values]
        shapes = [table.shape for table in self._tables]
        name = "design"
        if all(value.shape[0] == 1 for value in whole):
            name, shapes = "column", [(1, columns) for _, columns in shapes]
        elif all(value.shape[1] == 1 for value in whole):
            name, shapes = "depth", [(depths, 1) for depths, _ in shapes]
        parts = [np.broadcast_to(value, shape).reshape(-1) for value, shape in zip(whole, shapes, strict=True)]
        return _Along(name, np.concatenate(parts))

    def places(self, number: int, places: Places) -> Places:
        """The numbers among the designs of all tables of those at `places` of one."""
        found: Places = places + np.int32(self._starts[number])
        return found

    def pick(self, index: Any) -> Callable[[Any], Any]:
        """What takes the designs of these numbers out of a field."""
        number = np.searchsorted(self._starts, index, side="right") - 1
        depths, columns = np.divmod(index - self._starts[number], self._columns[number])
        along = {
            "table": number,
            "depth": depths + self._depth_starts[number],
            "column": columns + self._column_starts[number],
            "design": index,
        }
        return lambda value: value.values[along[value.axis]] if isinstance(value, _Along) else value


class Row(_Patterned):
    """Designs of several widths in a row, whose switches are the same."""

    def __init__(self, parts: Sequence[Designs]) -> None:
        self._parts = parts

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        values = [getattr(part, name) for part in self._parts]
        if name == "d_model" or any(isinstance(value, np.ndarray) for value in values) or len(set(values)) > 1:
            pairs = zip(values, self._parts, strict=True)
            value = np.concatenate([np.broadcast_to(value, len(part)) for value, part in pairs])
        else:
            value = values[0]
        setattr(self, name, value)
        return value

    def pick(self, index: Any) -> Callable[[Any], Any]:
        """What takes some of them, at places or a mask, out of a value of each."""
        return lambda value: value if np.ndim(value) == 0 else value[index]


def alike(parts: Sequence[Part], designs: Callable[[Part], Designs]) -> list[list[Part]]:
    """What has designs of several widths, in a row, by the switches of these: as few groups as keep the order."""
    return [list(group) for _, group in itertools.groupby(parts, key=lambda part: designs(part).q_lora_rank)]


def joined(parts: Sequence[Designs]) -> list[Designs]:
    """Designs of several widths in a row, d_model an array too; as few such as have their switches in common.

    The order stays.
    """
    return [_joined(group) for group in alike(parts, lambda part: part)]


def _joined(parts: Sequence[Designs]) -> Designs:
    rows = [part.row for part in parts]
    first = rows[0]
    if first is not None and all(row is not None and row[0] is first[0] for row in rows):
        places = [first[0].places(row[1], part._places) for row, part in zip(rows, parts, strict=True) if row]
        return Designs(first[0], np.concatenate(places))
    return Designs(Row(parts), np.arange(sum(map(len, parts)), dtype=np.int32))


def put_in_rows(parts: Sequence[Designs]) -> None:
    """Let any of these designs be joined at once; it pays where some of them are joined again and again."""
    for group in alike(parts, lambda part: part):
        tables = [part._table for part in group if isinstance(part._table, Table)]
        if len(tables) == len(group):
            Tables(tables)


class DesignVariables(Variables):
    """The variables of designs, whose counts they make themselves."""

    def count(self, function: Callable[[Any], Any]) -> Any:
        """A count of each."""
        return as_float(self.shape.count(function))

    @classmethod
    def joined(cls, designs: Designs, parts: Sequence[Variables], sizes: Sequence[int]) -> DesignVariables:
        """Of `designs`, so many of each of `parts` in a row: what all of them know stays known."""
        made = cls(designs, parts[0].seq_len)
        for key in set.intersection(*(set(part._known) for part in parts)):
            values = [np.broadcast_to(part._known[key], size) for part, size in zip(parts, sizes, strict=True)]
            made._known[key] = np.concatenate(values)
        return made
