"""Runs: the numbers of a file under glossary names, selected, checked, and completed by what follows from them.

Counted by the conventions asked for: params and FLOPs of a run whose architecture stands in the file are counted
exactly (`moeplan.architecture.conventions`); others are taken as they stand. Compute, size and tokens give one another
by C = 6*Na*D.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from moeplan.architecture.conventions import ARCHITECTURAL, CONVENTIONS, Variables, default_convention
from moeplan.architecture.shape import Architecture
from moeplan.errors import UsageError
from moeplan.fitting.names import HOW_TRAINED, PARAMS, QUANTITIES, SHAPE_FIELDS, Naming, listed, name_columns
from moeplan.fitting.optimum import FLOPS_PER_PARAM
from moeplan.fitting.selection import Excluded, drop_highest, select
from moeplan.fitting.table import RawTable, read_tables
from moeplan.numerics import Floats

_MOST = 5000
"""Runs that a law is fitted to at most: of more, a sample spread evenly over the logarithm of compute. A law's error
falls with the square root of their number, and long before this below what a form leaves out."""
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
_POSITIVE_OR_ZERO = ("shared_ratio", "num_shared_experts", "num_dense_layers", "weight_sparsity", "seed")
"""Quantities that may be 0; every other one must be above 0."""
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
                f"are {', '.join(self.table.columns)} (name one with --map {name}=COLUMN)"
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
            raise UsageError(f"{self.table.file}: has no column {column!r}; it has {', '.join(self.table.columns)}")
        column_cells = self.table.cells[actual]
        return [column_cells[place] for place in self.rows]

    def _own(self, name: str) -> Floats | None:
        column = self.naming.columns.get(name)
        counted = name in ("total_params", "active_params", "flops_per_token")
        if column is not None and not (counted and self.shapes_known):
            cells = self.table.cells[column]
            if any(cells[place] for place in self.rows):
                return self._numbers(name, column)
        if name in self.fixed and column is None:
            return np.full(self.count, self.fixed[name])
        return self._computed(name)

    def _numbers(self, name: str, column: str) -> Floats:
        cells, factor = self.table.cells[column], self.naming.factors.get(name, 1.0)
        low, high = _RANGES.get(name, _ANY_RANGE)
        values = []
        absurd: int | None = None
        for place in self.rows:
            cell = cells[place]
            try:
                value = self.table.number(cell)
            except ValueError:
                what = f"is {cell!r}, must be a number;" if cell else "is empty, must be a number;"
                if not cell and name in _RULES:
                    what += " remove the column, so that it is computed, or"
                raise self._bad_cell(place, column, what, f"{column}={cell}") from None
            if math.isnan(value) or math.isinf(value):
                raise self._bad_cell(place, column, f"is {cell}, must be finite;", f"{column}={cell}")
            if value < 0 or (value == 0 and name not in _POSITIVE_OR_ZERO):
                least = "at least 0" if name in _POSITIVE_OR_ZERO else "above 0"
                raise self._bad_cell(place, column, f"is {cell}, must be {least};", f"{column}<=0")
            value *= factor
            if value > high or 0 < value < low:
                absurd = place if absurd is None else absurd
            values.append(value)
        found = np.array(values)
        if absurd is not None and (found.max() >= _TOO_SMALL.get(name, (0.0,))[0]):
            cell = cells[absurd] if len(cells[absurd]) <= 30 else repr(self.table.number(cells[absurd]))
            what = f"is {cell}, must be from {low:g} to {high:g} in a training run;"
            raise self._bad_cell(absurd, column, what, f"{column}={cell}")
        if factor != 1.0:
            self.derived[name] = f"column {column!r} times {factor:g}"
        self._check_unit(name, column, found)
        return found

    def _check_unit(self, name: str, column: str, values: Floats) -> None:
        """Refuse numbers that cannot be params, tokens or FLOPs, with the question what they are in."""
        most, what, units = _TOO_SMALL.get(name, (0.0, "", ()))
        if values.max() >= most or self._compute_agrees():
            return
        questions = " or ".join(words for words, _ in units)
        examples = " or ".join(f"--map '{name}={column}*{unit}'" for _, unit in units)
        raise UsageError(
            f"{self.table.file}: column {column!r} holds {values.min():.4g} to {values.max():.4g}, too few to be "
            f"{what} of a training run; are they in {questions}? Say so with {examples}"
        )

    def _compute_agrees(self) -> bool:
        """Whether params, tokens and compute stand in the table and C is about 6*N*D: then their units are right."""
        size = next((name for name in ("active_params", "total_params") if name in self.naming.columns), "")
        if not size or not {"tokens", "train_flops"} <= set(self.naming.columns):
            return False
        n, d, c = (self._written(name) for name in (size, "tokens", "train_flops"))
        with np.errstate(all="ignore"):
            ratio = c / (6 * n * d)
        return bool(np.all(np.abs(np.log(ratio)) < math.log(_AGREEMENT)))

    def _written(self, name: str) -> Floats:
        """A column's numbers as they stand, times the factor of its unit; NaN for what is no number."""
        cells, factor = self.table.cells[self.naming.columns[name]], self.naming.factors.get(name, 1.0)
        values = []
        for place in self.rows:
            try:
                values.append(self.table.number(cells[place]) * factor)
            except ValueError:
                values.append(math.nan)
        return np.array(values)

    def _bad_cell(self, place: int, column: str, what: str, rule: str) -> UsageError:
        return UsageError(
            f"{self.table.where(place)}: column {column!r} {what} leave such runs out with --exclude {rule!r}"
        )

    @property
    def shapes_known(self) -> bool:
        """Whether the file describes each run's architecture."""
        return all(name in self.naming.columns for name in _SHAPE_NEEDED)

    def _computed(self, name: str) -> Floats | None:
        from_shape = self._from_shape(name)
        if from_shape is not None:
            return from_shape
        for needs, compute, says in _RULES.get(name, ()):
            if (name, *needs) in _DENSE_RULES and self.says_moe:
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
        if any(self.fixed.get(name, 1.0) != 1 for name in _DENSE_AT_ONE):
            return True
        for name in _DENSE_AT_ONE:
            if name in own and any(value not in (0.0, 1.0) for value in self._numeric(own[name])):
                return True
        for name, most in _DENSE_UP_TO.items():
            if name in own and any(value > most for value in self._numeric(own[name])):
                return True
        return "total_params" in own and "active_params" in own and self.total_over_active() > 1.001

    def _numeric(self, column: str) -> Iterator[float]:
        """The numbers of a column, whatever else stands in it."""
        cells, table = self.table.cells[column], self.table
        return (table.number(cells[place]) for place in self.rows if table.is_number(cells[place]))


_DENSE_AT_ONE = ("num_experts", "num_active_experts", "expansion_ratio", "activation_ratio", "G")
"""Quantities that are 1 (or 0, or absent) for a dense model."""
_DENSE_UP_TO = {"shared_ratio": 0.0, "num_shared_experts": 0.0, "granularity": 4 / 3}
"""Quantities that are no larger for a dense model (granularity: a gated block of d_ff = 1.5*d_model)."""
_DENSE_RULES = (("total_params", "active_params"), ("active_params", "total_params"), ("base_params", "active_params"))
"""Rules that hold for dense models alone."""
_Compute = Callable[..., Floats]
_PER = f"{FLOPS_PER_PARAM}*Na"
_RULES: dict[str, tuple[tuple[tuple[str, ...], _Compute, str], ...]] = {
    "tokens": (
        (("steps", "batch_tokens"), lambda steps, batch: steps * batch, "steps * batch_tokens"),
        (
            ("train_flops", "active_params"),
            lambda flops, active: flops / (FLOPS_PER_PARAM * active),
            f"train_flops / ({_PER})",
        ),
    ),
    "train_flops": (
        (
            ("flops_per_token", "tokens"),
            lambda per_token, tokens: per_token * tokens,
            "flops_per_token * tokens",
        ),
    ),
    "active_params": (
        (("total_params",), lambda total: total, "total_params: nothing says that fewer are active"),
        (("base_params",), lambda base: base, "base_params"),
        (("nonzero_params",), lambda nonzero: nonzero, "nonzero_params"),
    ),
    "total_params": ((("active_params",), lambda active: active, "active_params: nothing says that there are more"),),
    "base_params": ((("active_params",), lambda active: active, "active_params: the dense model's own size"),),
    "flops_per_token": ((("active_params",), lambda active: FLOPS_PER_PARAM * active, _PER),),
    "tokens_per_param": (
        (("tokens", "active_params"), lambda tokens, active: tokens / active, "tokens / active_params"),
    ),
    "activation_ratio": (
        (
            ("num_experts", "num_active_experts"),
            lambda experts, active: active / experts,
            "num_active_experts / num_experts",
        ),
    ),
    "expansion_ratio": (
        (
            ("num_experts", "num_active_experts", "num_shared_experts"),
            lambda experts, active, shared: (experts + shared) / (active + shared),
            "(num_experts + shared) / (num_active_experts + shared), experts of equal width",
        ),
        (
            ("num_experts", "num_active_experts"),
            lambda experts, active: experts / active,
            "num_experts / num_active_experts",
        ),
        (("activation_ratio",), lambda ratio: 1 / ratio, "1 / activation_ratio"),
    ),
    "G": (
        (
            ("num_active_experts", "num_shared_experts"),
            lambda active, shared: active + shared,
            "num_active_experts + num_shared_experts",
        ),
    ),
    "shared_ratio": (
        (
            ("num_active_experts", "num_shared_experts"),
            lambda active, shared: shared / (active + shared),
            "num_shared_experts / (num_active_experts + num_shared_experts)",
        ),
    ),
    "granularity": ((("d_model", "d_expert"), lambda width, expert: 2 * width / expert, "2 * d_model / d_expert"),),
}


def read_runs(
    path: str | Path | Sequence[str | Path],
    *,
    columns: Mapping[str, str] | None = None,
    where: Iterable[str] = (),
    exclude: Iterable[str] = (),
    drop_highest_loss: int = 0,
    keep_best: bool = False,
    target: str = "loss",
    conventions: Mapping[str, str] | None = None,
    fixed: Mapping[str, float] | None = None,
) -> Runs:
    """Read the runs that count from a CSV or JSON-lines file.

    Parameters
    ----------
    path : str or Path, or several
        The file, or files that are read as one.
    columns : mapping, optional
        Column by quantity, for columns whose names say nothing.
    where, exclude : iterables of str
        Comparisons that all must hold, or of which none may: "router_type=S-Base,Dense", "loss>3.2".
    drop_highest_loss : int
        How many of the highest losses to leave out.
    keep_best : bool
        Of runs that differ in nothing but how they were trained (learning rate, batch, steps, seed), keep that of the
        least loss.
    target : str
        The measured quantity, "loss" unless the form predicts another.
    conventions : mapping, optional
        How quantities are counted, where not by the default (`moeplan.architecture.conventions.CONVENTIONS`).
    fixed : mapping, optional
        What all runs have and no column says.

    Raises
    ------
    UsageError
        For anything that cannot be read as runs, with the line and the column.
    """
    table = read_tables([path] if isinstance(path, (str, Path)) else path)
    naming = name_columns(table.columns, columns or {}, table.file)
    for name, convention in (conventions or {}).items():
        if name not in CONVENTIONS or convention not in CONVENTIONS[name]:
            known = ", ".join(CONVENTIONS.get(name, CONVENTIONS))
            raise UsageError(f"convention {name}={convention} is not known; known are {known}")
    for name, value in (fixed or {}).items():
        if name not in QUANTITIES:
            raise UsageError(f"fixed {name} is no quantity that runs have; known are {', '.join(sorted(QUANTITIES))}")
        if name in naming.columns:
            raise UsageError(f"{name} cannot be fixed at {value:g}: {table.file} has a column of it")
        if not math.isfinite(value) or value < 0:
            raise UsageError(f"fixed {name} {value} must be finite and at least 0")
    rows, excluded = select(table, naming, where, exclude)
    if not rows:
        raise UsageError(
            f"{table.file}: no run is left of {len(table.lines)}; the first was left out by {excluded[0].reason}"
        )
    runs = Runs(table, naming, rows, excluded, {**naming.conventions, **(conventions or {})}, dict(fixed or {}))
    if target == "loss" and naming.losses:
        several = len(naming.losses) > 1
        names = listed([repr(column) for column in naming.losses])
        raise UsageError(
            f"{table.file}: {'columns' if several else 'column'} {names} may {'each ' if several else ''}be the loss; "
            f"choose with --map loss={naming.losses[0]}"
        )
    measured = runs.column(target)
    if measured is None or target not in naming.columns:
        raise UsageError(
            f"{table.file}: has no column {target}; its columns are {', '.join(table.columns)} "
            f"(name one with --map {target}=COLUMN)"
        )
    if drop_highest_loss:
        rows, dropped = drop_highest(rows, dict(zip(rows, measured.tolist(), strict=True)), drop_highest_loss, table)
        left_out = sorted([*excluded, *dropped], key=lambda x: x.line)
        runs = Runs(table, naming, rows, left_out, runs.conventions, runs.fixed)
    if keep_best:
        runs = _best(runs, target)
    return _sampled(runs) if runs.count > _MOST else runs


def _best(runs: Runs, target: str) -> Runs:
    """The runs of least loss among those that differ in nothing but how they were trained."""
    if target != "loss":
        raise UsageError(f"--keep-best keeps the least loss of a sweep, and these runs measure {target}; leave it out")
    losses = runs.require("loss", "--keep-best")
    names = [name for name in (*runs.naming.columns, "tokens") if name not in ("loss", "train_flops", *HOW_TRAINED)]
    columns = [column for name in dict.fromkeys(names) if (column := runs.column(name)) is not None]
    best: dict[tuple[float, ...], int] = {}
    settings = list(zip(*(column.tolist() for column in columns), strict=True)) or [()] * runs.count
    for i, setting in enumerate(settings):
        if setting not in best or losses[i] < losses[best[setting]]:
            best[setting] = i
    kept = sorted(best.values())
    dropped = [
        Excluded(runs.lines[i], f"--keep-best (line {runs.lines[best[settings[i]]]} has the least loss of its setting)")
        for i in range(runs.count)
        if best[settings[i]] != i
    ]
    excluded = sorted([*runs.excluded, *dropped], key=lambda x: x.line)
    return Runs(runs.table, runs.naming, [runs.rows[i] for i in kept], excluded, runs.conventions, runs.fixed)


def _sampled(runs: Runs) -> Runs:
    """`_MOST` of the runs, as many at every stretch of ln compute as there are, always the same."""
    rng = np.random.default_rng(0)
    flops = runs.column("train_flops")
    logs = np.zeros(runs.count) if flops is None else np.log(flops)
    width = np.ptp(logs) or 1.0
    stretch = np.minimum(((logs - logs.min()) / width * 100).astype(int), 99)
    order = rng.permutation(runs.count)
    # Each run's place among those of its stretch: the first of every stretch come before the second ones.
    by_stretch = order[np.argsort(stretch[order], kind="stable")]
    sizes = np.bincount(stretch)
    rank = np.empty(runs.count, dtype=int)
    rank[by_stretch] = np.arange(runs.count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = np.sort(np.lexsort((order, rank))[:_MOST])
    return Runs(
        runs.table, runs.naming, [runs.rows[i] for i in kept.tolist()], runs.excluded, runs.conventions, runs.fixed,
        sampled_from=runs.count,
    )  # fmt: skip
