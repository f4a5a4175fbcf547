"""A fitted law as sections of text, tables and charts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from moeplan.fitting.result import Coefficient, FittedLaw, Optimum
from moeplan.laws.law import PREDICTS
from moeplan.report.blocks import (
    NONE,
    Block,
    Chart,
    Items,
    Paragraph,
    Section,
    Series,
    Source,
    Table,
    mark,
    number,
    percent,
    quantity,
)
from moeplan.report.suggestion import suggestion_sections
from moeplan.units import format_count, format_flops

RESIDUALS = 8
"""Largest residuals that are listed."""
LINES = 12
"""Lines of excluded runs that are listed for one reason."""


def fit_sections(fitted: FittedLaw) -> list[Section]:
    """The fitted law whole: how well it fits, coefficients, what is open, hold-out, optima, residuals, warnings."""
    sections = [Section("", (Paragraph(_headline(fitted)), _about(fitted)))]
    sections.append(Section(f"Coefficients: {fitted.equation.rstrip('.')}", _coefficients(fitted)))
    if fitted.unidentified:
        sections.append(Section("Not identified by these runs", (Items(_sentences(fitted.unidentified)),)))
    if fitted.shrinkage:
        sections.append(Section(f"Prior: {fitted.prior}", _shrinkage(fitted)))
    sections.append(Section("The largest runs, predicted by the others", (Paragraph(_hold_out(fitted)),)))
    if fitted.compared:
        sections.append(Section("Forms by held-out error", (_compared(fitted),)))
    if fitted.optima:
        sections.append(Section("Compute-optimal sizes", _optima(fitted)))
    if fitted.comparisons:
        sections.append(Section("Bundled laws of the same reach", _comparisons(fitted)))
    sections.append(Section("Largest residuals", (_residuals(fitted), *_chart(residual_chart(fitted)))))
    if fitted.suggestion is not None:
        sections += suggestion_sections(fitted.suggestion)
    if fitted.warnings:
        sections.append(Section("Warnings", (Items(_sentences(fitted.warnings)),)))
    if fitted.runs.excluded:
        sections.append(Section(f"Runs left out: {len(fitted.runs.excluded)}", (Items(_excluded(fitted)),)))
    fallback = _source(fitted, "Fitted to the runs, or counted from them.", "")
    return [section if section.source else dataclasses.replace(section, source=fallback) for section in sections]


def _source(fitted: FittedLaw, says: str, path: str) -> Source:
    runs = fitted.runs
    return Source(
        says,
        law=f"{fitted.name} ({fitted.form}, fitted to {runs.used} runs of {runs.file})",
        convention="; ".join(f"{name}: {word}" for name, word in fitted.conventions.items()),
        path=path,
    )


def _headline(fitted: FittedLaw) -> str:
    quality = fitted.quality
    text = (
        f"{fitted.name}: {fitted.form} fitted to {fitted.runs.used} of {fitted.runs.rows} runs, rms residual "
        f"{percent(quality.rms)}"
    )
    if fitted.hold_out is not None:
        text += f", {percent(fitted.hold_out.rms)} on the largest runs held out"
    open_ones = [c.name for c in fitted.coefficients if not c.identified]
    return f"{text}; {'not identified: ' + ', '.join(open_ones) if open_ones else 'every coefficient is identified'}"


def _about(fitted: FittedLaw) -> Table:
    runs, method = fitted.runs, fitted.method
    columns = ", ".join(f"{name} from {column!r}" if name != column else name for name, column in runs.columns.items())
    rows = [("runs", f"{runs.file} (SHA-256 {runs.digest}...), {runs.used} of {runs.rows} rows"), ("columns", columns)]
    if runs.derived:
        rows.append(("computed", "; ".join(f"{name} = {how}" for name, how in runs.derived.items())))
    if runs.least_flops is not None and runs.most_flops is not None:
        rows.append(("compute", f"{format_flops(runs.least_flops)} to {format_flops(runs.most_flops)} FLOPs"))
    if fitted.fixed:
        rows.append(("held fixed", ", ".join(f"{name} {quantity(name, x)}" for name, x in fitted.fixed.items())))
    delta = "least squares" if method.delta is None else f"Huber, delta {method.delta:g}"
    minima = f"{method.minima} distinct minima" if method.minima > 1 else "one minimum"
    rows.append(("objective", f"{delta}, on ln residuals: {number(method.objective, 4)} ({minima} from all starts)"))
    rows.append(("intervals", f"{method.interval}; seed {method.seed}"))
    return Table(tuple(rows))


def _coefficients(fitted: FittedLaw) -> tuple[Block, ...]:
    rows = tuple(
        (c.name, number(c.value, 5), _between(c), NONE if c.stderr is None else number(c.stderr, 2), _verdict(c))
        for c in fitted.coefficients
    )
    columns = ("", "value", f"{100 * fitted.method.level:g} % interval", "±", "by the runs")
    source = _source(fitted, f"Fitted to the runs; {fitted.method.interval}.", "/coefficients")
    return (Table(rows, columns, right=(1, 2, 3), source=source),)


def _between(c: Coefficient) -> str:
    return NONE if c.low is None or c.high is None else f"{number(c.low, 4)} to {number(c.high, 4)}"


def _verdict(c: Coefficient) -> str:
    if not c.identified:
        return "held by the prior" if "prior" in c.says else "not identified"
    return "at a bound" if c.says else "identified"


def _shrinkage(fitted: FittedLaw) -> tuple[Block, ...]:
    rows = tuple(
        (s.name, number(s.without, 4), number(s.prior, 4), number(s.width, 2), number(s.value, 4), percent(s.weight, 2))
        for s in fitted.shrinkage
    )
    kinds = {c.name: c.coordinate for c in fitted.coefficients}
    in_ln = [s.name for s in fitted.shrinkage if kinds[s.name] == "ln"]
    bases = "; ".join(dict.fromkeys(f"width: {s.basis}" for s in fitted.shrinkage))
    note = f"{bases[0].upper()}{bases[1:]}. Shrunk: the prior's share of what is known; 0 % is the runs alone."
    if in_ln:
        note += f" Widths of {', '.join(in_ln)} are in ln."
    columns = ("", "runs alone", "prior", "width", "fitted", "shrunk")
    source = _source(fitted, f"A Gaussian prior at {fitted.prior}.", "/shrinkage")
    return (Table(rows, columns, right=(1, 2, 3, 4, 5), source=source), Paragraph(note))


def _hold_out(fitted: FittedLaw) -> str:
    held = fitted.hold_out
    if held is None:
        return f"Not asked: {fitted.hold_out_says}."
    way = "above" if held.bias > 0 else "below"
    return (
        f"Fitted to the {held.fitted} smaller runs (rms {percent(held.rms_fitted)}), the form predicts the "
        f"{held.held_out} from {format_flops(held.from_flops)} FLOPs on to {percent(held.rms)} rms; they lie "
        f"{percent(abs(held.bias))} {way} its prediction on average. The law itself is then fitted to all."
    )


def _compared(fitted: FittedLaw) -> Table:
    rows = tuple(
        (
            score.form,
            str(score.coefficients),
            NONE if score.held_out is None else percent(score.held_out),
            NONE if score.rms is None else percent(score.rms),
            score.says or NONE,
        )
        for score in fitted.compared
    )
    columns = ("form", "coefficients", "held-out error", "residual", "says")
    source = _source(fitted, "Root mean square of ln(observed / predicted) over the largest runs.", "/compared")
    return Table(rows, columns, right=(1, 2, 3), strong=(0,), source=source)


def _optima(fitted: FittedLaw) -> tuple[Block, ...]:
    rows = tuple(
        (
            mark(format_flops(x.train_flops), not x.inside),
            _count(x.active_params),
            _counts(x.active_params_low, x.active_params_high),
            _count(x.tokens),
            _counts(x.tokens_low, x.tokens_high),
            NONE if x.active_params is None or x.tokens is None else number(x.tokens / x.active_params),
            NONE if x.value is None else number(x.value, 4),
            _values(x),
        )
        for x in fitted.optima
    )
    level = f"{100 * fitted.method.level:g} % interval"
    columns = ("FLOPs", "active params", level, "tokens", level, "tokens/param", fitted.predicts, level)
    source = _source(fitted, "Least predicted loss over sizes at C = 6*Na*D.", "/optima")
    blocks: list[Block] = [Table(rows, columns, right=tuple(range(8)), source=source), Paragraph(_held(fitted))]
    return (*blocks, *_chart(profile_chart(fitted)))


def _held(fitted: FittedLaw) -> str:
    others = {name: value for name, value in fitted.held.items() if name != "total_over_active"}
    parts = [f"{name} {quantity(name, value)}" for name, value in others.items()]
    ratio = fitted.held.get("total_over_active", 1.0)
    if abs(ratio - 1) > 1e-6:
        parts.append(f"N/Na {number(ratio)}")
    held = f", everything else at the runs' middle ({', '.join(parts)})" if parts else ""
    beyond = (
        " An asterisk marks budgets that the runs do not reach." if any(not x.inside for x in fitted.optima) else ""
    )
    return f"Under C = 6*Na*D{held}.{beyond}"


def _count(value: float | None) -> str:
    return "at no size" if value is None else format_count(value)


def _counts(low: float | None, high: float | None) -> str:
    return NONE if low is None or high is None else f"{format_count(low)}–{format_count(high)}"


def _values(x: Optimum) -> str:
    if x.value_low is None or x.value_high is None:
        return NONE
    return f"{number(x.value_low, 4)}–{number(x.value_high, 4)}"


def _comparisons(fitted: FittedLaw) -> tuple[Block, ...]:
    own = {x.train_flops: x for x in fitted.optima}
    budgets = list(own)
    laws = list(dict.fromkeys(c.law for c in fitted.comparisons))
    found = {(c.law, c.train_flops): c for c in fitted.comparisons}
    rows = [(fitted.name, *(_count(own[budget].active_params) for budget in budgets))]
    for law in laws:
        cells = []
        for budget in budgets:
            c = found.get((law, budget))
            share = NONE if c is None or c.efficiency is None else percent(c.efficiency, 2)
            cells.append(NONE if c is None else f"{format_count(c.active_params)}, {share}")
        rows.append((law, *cells))
    columns = ("law", *(mark(f"{format_flops(b)} FLOPs", not own[b].inside) for b in budgets))
    note = (
        "Each law's best active params at the budget, and its efficiency by the fitted law: the budget at which the "
        "fitted law's own best size is as good, over this one. Losses of two laws are not compared."
    )
    source = _source(fitted, "Optimum of each law under C = 6*Na*D, judged by the fitted law.", "/comparisons")
    table = Table(tuple(rows), columns, right=tuple(range(1, len(columns))), strong=(0,), source=source)
    return (table, Paragraph(note))


def _residuals(fitted: FittedLaw) -> Table:
    flops = fitted.runs.most_flops is not None
    rows = tuple(
        (
            str(r.line),
            *([format_flops(r.train_flops or 0)] if flops else []),
            number(r.observed, 5),
            number(r.predicted, 5),
            f"{100 * r.residual:+.2f} %",
            f"{r.scaled:+.1f}",
        )
        for r in fitted.residuals[:RESIDUALS]
    )
    columns = (
        "line",
        *(["FLOPs"] if flops else []),
        f"measured {fitted.predicts}",
        "by the law",
        "residual",
        "in spreads",
    )
    source = _source(fitted, "ln(measured / predicted); a spread is 1.4826 times the median size.", "/residuals")
    return Table(rows, columns, right=tuple(range(len(columns))), source=source)


def _chart(chart: Chart | None) -> tuple[Block, ...]:
    return () if chart is None else (chart,)


def residual_chart(fitted: FittedLaw) -> Chart | None:
    """Residuals over compute; None where the runs do not say their compute."""
    points = sorted((r.train_flops, r.residual, r.line) for r in fitted.residuals if r.train_flops is not None)
    if len(points) < 2:
        return None
    series = Series(
        name="runs",
        x=tuple(x for x, _, _ in points),
        y=tuple(100 * residual for _, residual, _ in points),
        kind="points",
        texts=tuple(f"line {line}: {100 * residual:+.2f} %" for _, residual, line in points),
        source=_source(fitted, "100 * ln(measured / predicted).", "/residuals"),
    )
    return Chart(
        title="Residuals over compute",
        x_title="training compute [FLOPs]",
        y_title="residual [%]",
        series=(series,),
        x_quantity="flops",
        x_log=True,
    )


def profile_chart(fitted: FittedLaw) -> Chart | None:
    """The fitted law over sizes, a line for each budget; None for forms that do not trade size against tokens."""
    if not fitted.profiles:
        return None
    unit = PREDICTS[fitted.predicts]
    series = tuple(
        Series(
            name=mark(f"{format_flops(p.train_flops)} FLOPs", not p.inside),
            x=p.active_params,
            y=p.value,
            inside=(p.inside,) * len(p.value),
            low=p.low,
            high=p.high,
            source=_source(fitted, "The fitted law at C = 6*Na*D.", f"/profiles/{place}/value"),
        )
        for place, p in enumerate(fitted.profiles)
    )
    return Chart(
        title="The fitted law over sizes at fixed compute",
        x_title="active params",
        y_title=f"{fitted.predicts} [{unit}]" if unit else fitted.predicts,
        series=series,
        x_quantity="count",
        y_quantity="loss",
        x_log=True,
    )


def _excluded(fitted: FittedLaw) -> tuple[str, ...]:
    """Excluded runs by reason."""
    reasons: dict[str, list[tuple[int, str]]] = {}
    for run in fitted.runs.excluded:
        rule, _, value = run.reason.partition(" (")
        reasons.setdefault(rule, []).append((run.line, value.removesuffix(")")))
    return tuple(f"{rule}: {_lines(runs)}" for rule, runs in reasons.items())


def _lines(runs: Sequence[tuple[int, str]]) -> str:
    if len(runs) > LINES:
        return f"{len(runs)} runs, lines {', '.join(str(line) for line, _ in runs[:LINES])}, ..."
    listed = ", ".join(f"{line} ({value})" if value else str(line) for line, value in runs)
    return f"line{'s' if len(runs) > 1 else ''} {listed}"


def _sentences(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{text}." for text in texts)
