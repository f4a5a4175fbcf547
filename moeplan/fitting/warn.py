"""Warnings about a fit: narrow ranges, outliers, few budgets, unseen quantities, learning-rate artefacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from moeplan.fitting.names import flag
from moeplan.fitting.optimum import has_optimum
from moeplan.fitting.problem import Problem, spread
from moeplan.fitting.result import Optimum
from moeplan.fitting.runs import Runs
from moeplan.fitting.sufficiency import unseen_quantities
from moeplan.laws.signatures import form_variables
from moeplan.numerics import Floats
from moeplan.units import format_flops

OUTLIER = 6.0
"""Residual, in units of the residuals' spread, from which a run is an outlier."""
FEW_BUDGETS = 3
"""Fewer distinct budgets than this say little about how the optimum moves."""
NARROW = {"total_params": 10.0, "active_params": 10.0, "tokens": 10.0, "train_flops": 30.0, "expansion_ratio": 4.0}
"""Ratio of largest to least below which an exponent is read off too short a stretch."""
FAR_WIDER = 20.0
"""Width of an interval amid the runs, over their scatter, from which it is no interval of a law that fits them."""
_RUN_NAMES = ("run", "run_id", "run_name", "runid")
"""Columns that name a run, in small letters."""
_CURVE = 3
"""Points of one run from which they are its learning curve."""
_NOTICED = 3.0
"""t value from which residuals go with the learning rate."""


def run_warnings(runs: Runs, problem: Problem, residuals: Floats, at_bound: Mapping[str, float]) -> list[str]:
    """Warnings about runs and their residuals ln(observed/predicted), (R,), one sentence each."""
    found = _sweeps(runs) + _curves(runs)
    if runs.sampled_from:
        found.append(
            f"the law is fitted to a sample of {runs.count} of the {runs.sampled_from} runs, spread evenly over the "
            f"logarithm of compute"
        )
    losses = runs.column("loss") if "loss" in runs.naming.columns else None
    if losses is not None and (losses == np.round(losses)).all() and np.ptp(losses) > 0:
        found.append(
            f"all losses in column {runs.naming.columns['loss']!r} are whole numbers; is it the loss? Name another "
            f"with --map loss=COLUMN"
        )
    variables = form_variables(problem.form)
    for name, values in zip(variables, problem.variables, strict=True):
        least, most = float(values.min()), float(values.max())
        if name in NARROW and least > 0 and most / least < NARROW[name]:
            found.append(f"{name} spans only a factor of {most / least:.2g}; its exponent rests on a short stretch")
    scale = spread(residuals)
    outliers = [line for line, r in zip(runs.lines, residuals, strict=True) if scale and abs(r) > OUTLIER * scale]
    if outliers:
        listed = ", ".join(str(line) for line in outliers[:8]) + (", ..." if len(outliers) > 8 else "")
        plural = "runs lie" if len(outliers) > 1 else "run lies"
        found.append(
            f"{len(outliers)} {plural} more than {OUTLIER:g} spreads from the law "
            f"(line{'s' if len(outliers) > 1 else ''} {listed}); the objective bounds their pull"
        )
    flops = runs.column("train_flops")
    if flops is not None and has_optimum(problem.form):
        budgets = distinct_budgets(flops)
        if budgets < FEW_BUDGETS:
            found.append(
                f"the runs lie at {budgets} budgets; how the optimum moves with compute rests on {budgets} points"
            )
    unseen = unseen_quantities(runs, problem.form)
    if unseen:
        found.append(
            f"the runs vary {', '.join(unseen)}, which {problem.form} does not see: what it does to the loss "
            f"counts as noise"
        )
    if runs.count <= len(problem.names):
        found.append("there are as many coefficients as runs, so the residuals say nothing about the noise")
    found += [f"{name} stands at the bound {value:.3g} of the form" for name, value in at_bound.items()]
    return found + _learning_rate(runs, residuals)


def interval_warnings(optima: Sequence[Optimum], residuals: Floats) -> list[str]:
    """Intervals amid the runs that are far wider than the runs scatter, a sentence each: the runs know better."""
    scatter = max(float(np.sqrt(np.mean(residuals**2))), 1e-4)
    found = []
    for x in optima:
        if not x.inside or not x.value or x.value.low is None or x.value.high is None:
            continue
        amid = f"at {format_flops(x.train_flops)} FLOPs, amid the runs, the interval"
        if x.value.low <= 0:
            found.append(
                f"{amid} reaches down to {x.value.low:.3g}, as no "
                f"loss does: the draws run along what the runs leave open; give a --prior, or fit a form with fewer "
                f"coefficients"
            )
            continue
        width = float(np.log(x.value.high / x.value.low))
        if width > FAR_WIDER * scatter:
            found.append(
                f"{amid} is {100 * width:.2g} % wide where "
                f"the runs scatter by {100 * scatter:.2g} %: the draws run along what the runs leave open; give a "
                f"--prior, or fit a form with fewer coefficients"
            )
    return found


def beyond_warnings(optima: Sequence[Optimum], observed: Floats, asked: Sequence[float], what: str) -> list[str]:
    """The furthest of the budgets asked for that the runs do not reach, where what is predicted lies beyond all of
    theirs: a sentence, or none."""
    far = [x for x in optima if x.train_flops in asked and not x.inside and x.value]
    far = [x for x in far if x.value is not None and not observed.min() <= x.value <= observed.max()]
    if not far:
        return []
    x = max(far, key=lambda each: each.train_flops)
    assert x.value is not None
    side = "below" if x.value < observed.min() else "above"
    return [
        f"at {format_flops(x.train_flops)} FLOPs the law predicts {what} {x.value:.4g}, {side} all that the runs "
        f"measured ({observed.min():.4g} to {observed.max():.4g}): it is extrapolated"
    ]


def distinct_budgets(train_flops: Floats) -> int:
    """Budgets that differ by more than 10 %, the runs in order of compute."""
    logs = np.sort(np.log(train_flops))
    count, last = 1, logs[0]
    for value in logs:
        if value - last > 0.1:
            count, last = count + 1, value
    return count


def _learning_rate(runs: Runs, residuals: Floats) -> list[str]:
    """Whether residuals go with the learning rate, and whether a sweep ends at its best rate."""
    if "learning_rate" not in runs.naming.columns:
        return []
    rates = runs.column("learning_rate")
    if rates is None or np.ptp(np.log(rates)) < 1e-9:
        return []
    found = []
    columns = [np.ones(runs.count)]
    for name in ("active_params", "tokens"):
        values = runs.column(name)
        if values is not None and np.ptp(np.log(values)) > 1e-9:
            columns.append(np.log(values))
    base = np.stack(columns, axis=1)
    # What size and tokens do not explain of the rate, against what they do not explain of the residuals.
    rate, rest = (x - base @ np.linalg.lstsq(base, x, rcond=None)[0] for x in (np.log(rates), residuals))
    freedom = runs.count - base.shape[1] - 1
    if freedom > 2 and rate @ rate > 1e-12 * len(rate):
        r = float(rate @ rest / np.sqrt((rate @ rate) * (rest @ rest) + 1e-300))
        t = r * np.sqrt(freedom / max(1 - r * r, 1e-12))
        if abs(t) > _NOTICED:
            way = "higher" if t > 0 else "lower"
            found.append(
                f"losses above the law go with {way} learning rates than size and tokens explain (t = {t:.1f}): the "
                f"runs were not tuned alike, and the law has part of that in its coefficients"
            )
    return found


def _sweeps(runs: Runs) -> list[str]:
    """Settings that were trained at several learning rates."""
    rates = runs.column("learning_rate") if "learning_rate" in runs.naming.columns else None
    if rates is None:
        return []
    size, tokens = runs.column("active_params"), runs.column("tokens")
    if size is None or tokens is None or "loss" not in runs.naming.columns:
        return []
    losses = runs.column("loss")
    assert losses is not None
    cells: dict[tuple[float, float], list[int]] = {}
    for place in range(runs.count):
        cells.setdefault((float(size[place]), float(tokens[place])), []).append(place)
    swept = [places for places in cells.values() if len({float(rates[i]) for i in places}) > 2]
    if not swept:
        return []
    edge = sum(
        rates[best] in (min(rates[i] for i in places), max(rates[i] for i in places))
        for places in swept
        for best in [min(places, key=lambda i: float(losses[i]))]
    )
    text = (
        f"{len(swept)} settings were trained at several learning rates; keep only the best of each (--keep-best), "
        f"since the others measure the rate"
    )
    if edge:
        text += f" ({edge} of them end at the best rate, so a better one may lie beyond)"
    return [text]


def _curves(runs: Runs) -> list[str]:
    """Runs that stand in the table at several points of their training, as histories of trackers have them."""
    column = next((name for name in runs.table.columns if name.lower() in _RUN_NAMES), "")
    size, tokens = runs.column("active_params"), runs.column("tokens")
    if not column or size is None or tokens is None:
        return []
    points: dict[str, list[int]] = {}
    for place, name in enumerate(runs.texts(column)):
        points.setdefault(name, []).append(place)
    if min(map(len, points.values())) < _CURVE or any(np.ptp(size[of]) > 0 for of in points.values()):
        return []
    if any(len(np.unique(tokens[of])) < len(of) for of in points.values()):
        return []
    return [
        f"each of the {len(points)} runs in column {column!r} stands at {_CURVE} or more points of its training: a "
        f"loss on the way, before the learning rate has fallen, is above that of a run that ends there; keep the last "
        f"point of each, or at least draw them together ({flag('cluster', column)})"
    ]
