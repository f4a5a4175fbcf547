"""Reading the runs that count: `read_runs("runs.csv")` selects and checks them, and samples where there are many."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from moeplan.architecture.conventions import CONVENTIONS
from moeplan.errors import UsageError
from moeplan.fitting.names import HOW_TRAINED, QUANTITIES, flag, listed, name_columns
from moeplan.fitting.runs import Runs
from moeplan.fitting.selection import Excluded, drop_highest, select
from moeplan.fitting.table import read_tables

_MOST = 5000
"""Runs that a law is fitted to at most: of more, a sample spread evenly over the logarithm of compute. A law's error
falls with the square root of their number, and long before this below what a form leaves out."""
_DIVERGED = ("nan", "inf", "infinity", "")
"""Losses of runs that diverged, in small letters without their sign, as tables have them."""
_MORE_ACTIVE = 1.05
"""Active params over all params, in the middle, from which they cannot be that: ways of counting differ by less."""


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
        least loss; those that diverged (NaN, infinity) are never it.
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
            f"choose with {flag('map', f'loss={naming.losses[0]}')}{_of_the_loss(naming.losses)}"
        )
    if keep_best and target in naming.columns:
        runs = _without_diverged(runs, target)
        rows, excluded = runs.rows, runs.excluded
    measured = runs.column(target)
    if measured is None or target not in naming.columns:
        hint = _of_the_loss(table.columns) if target == "loss" else ""
        raise UsageError(
            f"{table.file}: has no column {target}; its columns are {listed(table.columns)} "
            f"(name one with --map {target}=COLUMN{hint})"
        )
    if drop_highest_loss:
        rows, dropped = drop_highest(rows, dict(zip(rows, measured.tolist(), strict=True)), drop_highest_loss, table)
        left_out = sorted([*excluded, *dropped], key=lambda x: x.line)
        runs = Runs(table, naming, rows, left_out, runs.conventions, runs.fixed)
    if keep_best:
        runs = _best(runs, target)
    found = _sampled(runs) if runs.count > _MOST else runs
    _check_sizes(found)
    return found


def _of_the_loss(columns: Sequence[str]) -> str:
    """What a table without a loss has that gives it, in words behind the advice to name a column; "" for none."""
    for column in columns:
        words = set(re.split(r"[^a-z0-9]+", column.lower()))
        if re.search(r"ppl|perplexity", column.lower()):
            return f"; the loss is the logarithm of {column!r}"
        if "loss" in words and words & {"bit", "bits"} and not words & {"byte", "char"}:
            return f"; of bits per token, {flag('map', f'loss={column}*{math.log(2):.6g}')}"
        if "loss" in words and words & {"log", "ln", "log2", "log10"}:
            return f"; if {column!r} holds logarithms of losses, write the losses themselves"
    return ""


def _check_sizes(runs: Runs) -> None:
    """Refuse runs all of whose active params are more than all params, as where the two columns are swapped."""
    columns = [runs.naming.columns.get(name) for name in ("active_params", "total_params")]
    if None in columns or runs.shapes_known:
        return
    active, total = (runs.require(name, "the check of sizes") for name in ("active_params", "total_params"))
    if (active >= total).all() and np.median(active / total) > _MORE_ACTIVE:
        raise UsageError(
            f"{runs.table.file}: column {columns[0]!r} (active_params) holds {active[0]:.4g} where column "
            f"{columns[1]!r} (total_params) holds {total[0]:.4g}, and no model has more active params than params; if "
            f"they are swapped, say so with --map 'active_params={columns[1]}' --map 'total_params={columns[0]}'"
        )


def _without_diverged(runs: Runs, target: str) -> Runs:
    """The runs whose loss is a number: in a sweep, NaN and infinity are never the best."""
    cells = [(place, runs.table.cells[runs.naming.columns[target]][place]) for place in runs.rows]
    diverged = {place: cell for place, cell in cells if cell.lower().lstrip("+-") in _DIVERGED}
    if len(diverged) in (0, runs.count):
        return runs
    gone = [
        Excluded(runs.table.lines[place], f"--keep-best (its {target} is {cell or 'empty'})")
        for place, cell in diverged.items()
    ]
    return Runs(
        runs.table, runs.naming, [place for place in runs.rows if place not in diverged],
        sorted([*runs.excluded, *gone], key=lambda x: x.line), runs.conventions, runs.fixed,
    )  # fmt: skip


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
