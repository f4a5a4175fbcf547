"""A fitted law as sections of text, tables and charts."""

from __future__ import annotations

from collections.abc import Sequence

from moeplan.fitting.only_just import ONLY_JUST
from moeplan.fitting.result import Coefficient, FittedLaw
from moeplan.laws.law import PREDICTS
from moeplan.laws.signatures import form_variables
from moeplan.quantities import number, percent, quantity
from moeplan.report.blocks import Block, Chart, Column, Items, Paragraph, Section, Series, Table, table
from moeplan.report.suggestion import suggestion_sections
from moeplan.report.text import NONE, Source, Text, mark
from moeplan.report.view import View
from moeplan.texts import sentence

RESIDUALS = 8
"""Largest residuals that are listed."""
LINES = 12
"""Lines of excluded runs that are listed for one reason."""


_SAYS = {
    "shrinkage": "A Gaussian prior at {prior}.",
    "compared": "Root mean square of ln(observed / predicted) over the largest runs.",
    "optima": "Least predicted loss over sizes at C = 6*Na*D.",
    "profiles": "The fitted law at C = 6*Na*D.",
    "comparisons": "Optimum of each law under C = 6*Na*D, judged by the fitted law.",
    "residuals": "ln(measured / predicted); a spread is 1.4826 times the median size.",
}
"""How the numbers of a part of the JSON came about."""


def fit_sections(fitted: FittedLaw) -> list[Section]:
    """The fitted law whole: how well it fits, coefficients, what is open, hold-out, optima, residuals, warnings."""
    f = seen(fitted)
    residuals = (_residuals(f), *_chart(residual_chart(fitted)))
    sections = [
        ("", (Paragraph(headline(f)), _about(f))),
        (f"Coefficients: {fitted.equation.rstrip('.')}", coefficient_blocks(f)),
        ("Not identified by these runs", _sentences(fitted, fitted.unidentified)),
        (f"Prior: {fitted.prior}", _shrinkage(f) if fitted.shrinkage else ()),
        ("The largest runs, predicted by the others", (Paragraph(_hold_out(f)),)),
        ("Forms by held-out error", _compared(f) if fitted.compared else ()),
        ("Compute-optimal sizes", _optima(f) if fitted.profiles else ()),
        ("Predictions at budgets", _predictions(f) if fitted.optima and not fitted.profiles else ()),
        ("Bundled laws of the same reach", _comparisons(f) if fitted.comparisons else ()),
        ("Largest residuals", residuals),
        *(suggestion_sections(f.suggestion) if fitted.suggestion is not None else ()),
        ("Warnings", _sentences(fitted, fitted.warnings)),
        (f"Runs left out: {len(fitted.runs.excluded)}", _excluded(fitted)),
    ]
    fallback = _source(fitted, "Fitted to the runs, or counted from them.")
    return [Section(title, blocks, source=fallback) for title, blocks in sections if blocks]


def seen(fitted: FittedLaw) -> View[FittedLaw]:
    """A fitted law whose every number knows its place and source."""

    def source(parts: list[str]) -> Source | None:
        if parts[0] == "suggestion" and fitted.suggestion is not None:
            found = fitted.suggestion
            says = {
                "runs": "Least weighted variance left of the value of designs that may be the best.",
                "expected": "The best design found anew under every draw; then with the covariance that the runs "
                "leave.",
            }.get(parts[1])
            return Source(says, f"{found.law} ({found.form})", "params with embeddings") if says else None
        if parts[0] == "coefficients":
            return _source(fitted, f"Fitted to the runs; {fitted.method.interval}.")
        says = _SAYS.get(parts[0])
        return _source(fitted, says.format(prior=fitted.prior)) if says else None

    return View(fitted, source)


def _source(fitted: FittedLaw, says: str) -> Source:
    runs = fitted.runs
    return Source(
        says,
        law=f"{fitted.name} ({fitted.form} fitted to {runs.used} runs of {runs.file})",
        convention="; ".join(f"{name}: {word}" for name, word in fitted.conventions.items()),
    )


def headline(f: View[FittedLaw]) -> Text:
    """How well the form fits, in a sentence."""
    held = ", {hold_out.rms:share} on the largest runs held out" if f.hold_out is not None else ""
    open_ones = [c.name for c in f.coefficients if not c.identified]
    known = [f"not identified: {', '.join(open_ones)}" if open_ones else "every coefficient is identified"]
    if only_just := _only_just(f):
        known.append(f"only just: {', '.join(only_just)}")
    return f(
        "{name}: {form} fitted to {runs.used} of {runs.rows} runs, rms residual {quality.rms:share}"
        + held
        + "; {known}",
        known="; ".join(known),
    )


def _about(f: View[FittedLaw]) -> Table:
    runs, method = f.runs, f.method
    columns = ", ".join(f"{name} from {column!r}" if name != column else name for name, column in runs.columns.items())
    rows: list[tuple[str, str]] = [
        ("runs", f"{runs.file} (SHA-256 {runs.digest}...), {runs.used} of {runs.rows} rows"),
        ("columns", columns),
    ]
    if runs.derived:
        rows.append(("computed", "; ".join(f"{name} = {how}" for name, how in runs.derived.items())))
    if runs.least_flops is not None and runs.most_flops is not None:
        rows.append(("compute", runs("{least_flops} to {most_flops} FLOPs")))
    if f.fixed:
        rows.append(("held fixed", ", ".join(f"{name} {quantity(name, x)}" for name, x in f.fixed.items())))
    delta = "least squares" if method.delta is None else "Huber, delta {delta:g}"
    minima = "{minima:d} distinct minima" if method.minima > 1 else "one minimum"
    objective = f"{delta}, on ln residuals: {{objective:number4}} ({minima} from all starts)"
    return Table((*rows, ("objective", method(objective)), ("intervals", method("{interval}; seed {seed:d}"))))


def coefficient_blocks(f: View[FittedLaw]) -> tuple[Block, ...]:
    """Value and interval of every coefficient."""
    columns: tuple[Column, ...] = (
        ("", "{name}"),
        (">value", "{value:number5}"),
        (f">{100 * f.method.level:g} % interval", "{low:number4} to {high:number4}"),
        (">±", "{stderr:number2}"),
        ("by the runs", _verdict),
    )
    found = table(f.coefficients, columns, source=f.source_at("coefficients"))
    only_just = _only_just(f)
    return (found, Paragraph(f"{', '.join(only_just)}: {ONLY_JUST}.")) if only_just else (found,)


def _only_just(f: View[FittedLaw]) -> list[str]:
    return [c.name for c in f.coefficients if c.identified and c.says == ONLY_JUST]


def _verdict(c: View[Coefficient]) -> str:
    if not c.identified:
        return "held by the prior" if "prior" in c.says else "not identified"
    return "only just" if c.says == ONLY_JUST else "at a bound" if c.says else "identified"


def _shrinkage(f: View[FittedLaw]) -> tuple[Block, ...]:
    columns: tuple[Column, ...] = (
        ("", "{name}"),
        (">runs alone", "{without:number4}"),
        (">prior", "{prior:number4}"),
        (">width", "{width:number2}"),
        (">fitted", "{value:number4}"),
        (">shrunk", "{weight:share2}"),
    )
    kinds = {c.name: c.coordinate for c in f.coefficients}
    in_ln = [s.name for s in f.shrinkage if kinds[s.name] == "ln"]
    bases = "; ".join(dict.fromkeys(f"width: {s.basis}" for s in f.shrinkage))
    note = f"{bases[0].upper()}{bases[1:]}. Shrunk: the prior's share of what is known; 0 % is the runs alone."
    if in_ln:
        note += f" Widths of {', '.join(in_ln)} are in ln."
    return (table(f.shrinkage, columns), Paragraph(note))


def _hold_out(f: View[FittedLaw]) -> str:
    held = f.hold_out
    if held is None:
        return f"Not asked: {f.hold_out_says}."
    text: str = held(
        "Fitted to the {fitted:d} smaller runs (rms {rms_fitted:share}), the form predicts the {held_out:d} from "
        "{from_flops} FLOPs on to {rms:share} rms; they lie {off} "
        f"{'above' if held.bias > 0 else 'below'} its prediction on average. The law itself is then fitted to all.",
        off=percent(abs(held.bias)),
    )
    return text


def _compared(f: View[FittedLaw]) -> tuple[Block, ...]:
    columns: tuple[Column, ...] = (
        ("form", "{form}"),
        (">coefficients", "{coefficients:d}"),
        (">held-out error", "{held_out:share}"),
        (">residual", "{rms:share}"),
        ("says", lambda score: score.says or (f"open: {', '.join(x)}" if (x := score.unidentified) else NONE)),
    )
    return (table(f.compared, columns, strong=(0,)),)


def _optima(f: View[FittedLaw]) -> tuple[Block, ...]:
    level = f">{100 * f.method.level:g} % interval"

    def ratio(x: View[object]) -> str:
        return NONE if None in (x.active_params, x.tokens) else number(x.tokens / x.active_params)

    columns: tuple[Column, ...] = (
        (">FLOPs", lambda x: mark(x("{train_flops}"), not x.inside)),
        (">active params", lambda x: _size(x, "active_params")),
        (level, "{active_params.low:count}–{active_params.high:count}"),
        (">tokens", lambda x: _size(x, "tokens")),
        (level, "{tokens.low:count}–{tokens.high:count}"),
        (">tokens/param", ratio),
        (f">{f.predicts}", "{value:number4}"),
        (level, "{value.low:number4}–{value.high:number4}"),
    )
    return (
        table(f.optima, columns, source=f.source_at("optima")),
        Paragraph(_held(f.it)),
        *_chart(profile_chart(f.it)),
    )


def _predictions(f: View[FittedLaw]) -> tuple[Block, ...]:
    """What a form without an optimum predicts at budgets."""
    columns: tuple[Column, ...] = (
        (">FLOPs", lambda x: mark(x("{train_flops}"), not x.inside)),
        (f">{f.predicts}", "{value:number4}"),
        (f">{100 * f.method.level:g} % interval", "{value.low:number4}–{value.high:number4}"),
    )
    parts = [f"{name} {quantity(name, f.held[name])}" for name in form_variables(f.form) if name in f.held]
    said = [f"Everything else at the runs' middle ({', '.join(parts)})."] if parts else []
    if any(not x.inside for x in f.optima):
        said.append("An asterisk marks budgets that the runs do not reach.")
    paragraphs = (Paragraph(" ".join(said)),) if said else ()
    return (table(f.optima, columns, source=_source(f.it, "The law at the budget.")), *paragraphs)


def _held(fitted: FittedLaw) -> str:
    others = {name: value for name, value in fitted.held.items() if name != "total_over_active"}
    parts = [f"{name} {quantity(name, value)}" for name, value in others.items()]
    ratio = fitted.held.get("total_over_active", 1.0)
    if abs(ratio - 1) > 1e-6:
        parts.append(f"N/Na {number(ratio)}")
    held = f", everything else at the runs' middle ({', '.join(parts)})" if parts else ""
    beyond = any(not x.inside for x in fitted.optima)
    return f"Under C = 6*Na*D{held}.{' An asterisk marks budgets that the runs do not reach.' if beyond else ''}"


def _size(x: View[object], name: str) -> str:
    return "at no size" if getattr(x, name) is None else x(f"{{{name}}}")


def _comparisons(f: View[FittedLaw]) -> tuple[Block, ...]:
    own = {x.train_flops: x for x in f.optima}
    found = {(c.law, c.train_flops): c for c in f.comparisons}

    def cell(law: str, budget: float) -> str:
        c = found.get((law, budget))
        return c(f"{{active_params}}, {NONE if c.efficiency is None else '{efficiency:share2}'}") if c else NONE

    rows = [(f.name, *(_size(x, "active_params") for x in own.values()))]
    rows += [(law, *(cell(law, budget) for budget in own)) for law in dict.fromkeys(c.law for c in f.comparisons)]
    columns = ("law", *(mark(x("{train_flops} FLOPs"), not x.inside) for x in own.values()))
    note = (
        "Each law's best active params at the budget, and how good the fitted law finds them, in percent of its own "
        "best: the budget at which its own best size is as good, over this one. Losses of two laws are not compared."
    )
    return (Table(tuple(rows), columns, right=tuple(range(1, len(columns))), strong=(0,)), Paragraph(note))


def _residuals(f: View[FittedLaw]) -> Table:
    columns: list[Column] = [
        (">line", "{line:d}"),
        (f">measured {f.predicts}", "{observed:number5}"),
        (">by the law", "{predicted:number5}"),
        (">residual", lambda r: f"{100 * r.residual:+.2f} %"),
        (">in spreads", "{scaled:+.1f}"),
    ]
    if f.runs.most_flops is not None:
        columns.insert(1, (">FLOPs", "{train_flops}"))
    return table(f.residuals[:RESIDUALS], columns, source=f.source_at("residuals"))


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
        source=_source(fitted, "100 * ln(measured / predicted)."),
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
            name=mark(f"{quantity('flops', p.train_flops)} FLOPs", not p.inside),
            x=p.active_params,
            y=p.value,
            inside=(p.inside,) * len(p.value),
            low=p.low,
            high=p.high,
            source=_source(fitted, _SAYS["profiles"]),
        )
        for p in fitted.profiles
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


def _excluded(fitted: FittedLaw) -> tuple[Block, ...]:
    """Excluded runs by reason."""
    reasons: dict[str, list[tuple[int, str]]] = {}
    for run in fitted.runs.excluded:
        rule, _, value = run.reason.partition(" (")
        reasons.setdefault(rule, []).append((run.line, value.removesuffix(")")))
    texts = tuple(f"{rule}: {_lines(runs)}" for rule, runs in reasons.items())
    return (Items(texts),) if texts else ()


def _lines(runs: Sequence[tuple[int, str]]) -> str:
    if len(runs) > LINES:
        return f"{len(runs)} runs, lines {', '.join(str(line) for line, _ in runs[:LINES])}, ..."
    listed = ", ".join(f"{line} ({value})" if value else str(line) for line, value in runs)
    return f"line{'s' if len(runs) > 1 else ''} {listed}"


def _sentences(fitted: FittedLaw, texts: Sequence[str]) -> tuple[Block, ...]:
    names = [coefficient.name for coefficient in fitted.coefficients]
    return (Items(tuple(sentence(text, names) for text in texts)),) if texts else ()
