"""Laws as sections of text and tables, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moeplan.architecture.conventions import CONVENTIONS
from moeplan.laws import Fit, Law
from moeplan.laws.checks import CheckResult
from moeplan.laws.law import GRADES, PREDICTS
from moeplan.laws.terms import TermResult
from moeplan.quantities import interval, number, quantity
from moeplan.report.blocks import Block, Items, Paragraph, Section, Table
from moeplan.report.law_records import form_equation, unused_forms
from moeplan.report.text import NONE


def list_sections(laws: Sequence[Law]) -> list[Section]:
    """All laws in one table, and the forms that no law has coefficients for."""
    rows = tuple((law.name, law.title, law.grade, _letters(law), law.citation.arxiv or NONE) for law in laws)
    table = Table(rows, ("law", "what it says", "grade", "use", "arXiv"))
    legend = (
        "use: S, it can choose a design at a budget; D, it compares with dense models.",
        *(f"{grade}: {meaning}." for grade, meaning in GRADES.items()),
        "moeplan laws NAME shows one whole: equations, coefficients, conventions, domain, caveats, checks.",
    )
    sections = [Section("", (table,)), Section("How to read it", (Items(legend),))]
    forms = unused_forms(laws)
    if forms:
        texts = tuple(f"{form}: {form_equation(form)}" for form in forms)
        sections.append(Section("Forms without published coefficients", (Items(texts),)))
    return sections


def _letters(law: Law) -> str:
    return f"{'S' if law.can_search else NONE} {'D' if law.has_dense else NONE}"


def law_sections(law: Law, checks: Sequence[CheckResult]) -> list[Section]:
    """One law whole."""
    about = Table(
        (
            ("published", str(law.citation)),
            ("digits", law.digits),
            ("grade", f"{law.grade}: {GRADES[law.grade]}"),
            ("use", _use(law)),
            ("file", f"{law.path} (SHA-256 {law.digest}...)"),
        )
    )
    sections = [Section("", (Paragraph(f"{law.full_name}: {law.title}"), about))]
    fits = [law.fits[law.chosen]] if law.chosen else list(law.fits.values())
    sections += [Section(f"Fit {fit.name}: {_predicts(fit)}", _fit(fit)) for fit in fits]
    for table in law.tables:
        rows = tuple(tuple(_cell(name, x) for name, x in zip(table.columns, row, strict=True)) for row in table.rows)
        blocks: list[Block] = [Paragraph(table.note)] if table.note else []
        blocks.append(Table(rows, table.columns, right=tuple(range(len(table.columns)))))
        sections.append(Section(f"Table {table.name} ({table.grade})", tuple(blocks)))
    if law.notes:
        sections.append(Section("Caveats", (Items(law.notes),)))
    if checks:
        sections.append(Section(f"Checks: {_passed(checks)}", (_own_checks(law, checks),)))
    return sections


def _own_checks(law: Law, checks: Sequence[CheckResult]) -> Table:
    """What a law's file checks, one row a statement; a statement about a table of the paper is one row."""
    rows = []
    for stated in law.checks:
        says = stated.text("says")
        own = [check for check in checks if check.says == says or check.says.startswith(f"{says}: ")]
        passed = "yes" if all(check.passed for check in own) else "NO"
        many = len(own) > 1
        expected = f"{len(own)} numbers" if many else number(own[0].expected, 6) if own else NONE
        found = f"{sum(check.passed for check in own)} agree" if many else number(own[0].found, 6) if own else NONE
        within = ", ".join(dict.fromkeys(check.tolerance for check in own))
        rows.append((passed, says, expected, found, within))
    return Table(tuple(rows), ("ok", "the paper says", "number", "here", "within"), right=(2, 3))


def _use(law: Law) -> str:
    search = "can choose a design at a budget" if law.can_search else "cannot choose a design at a budget"
    dense = "compares with dense models" if law.has_dense else "says nothing about dense models"
    return f"{search}; {dense}"


def _predicts(fit: Fit) -> str:
    unit = PREDICTS[fit.predicts]
    return f"{fit.predicts} [{unit}]" if unit else fit.predicts


def _fit(fit: Fit) -> tuple[Block, ...]:
    rows = [("equation", fit.equation.rstrip(".")), ("coefficients", _coefficients(fit)), ("grade", _grades(fit))]
    if fit.fixed:
        rows.append(("held fixed", ", ".join(f"{name} {quantity(name, x)}" for name, x in fit.fixed.items())))
    if fit.dense:
        rows.append(("dense at", ", ".join(f"{name} = {x:g}" for name, x in fit.dense.items())))
    if fit.dense_fit:
        rows.append(("dense by", f"fit {fit.dense_fit}"))
    if fit.band:
        rows.append(("near-optimal", f"within a factor of {fit.band:g} either way"))
    if fit.uncertainty:
        rule = fit.uncertainty
        rows.append(
            (
                "uncertainty",
                f"rms {rule.rms:g} in ln, {rule.per_decade_outside:g} more for each factor of 10 outside, interval of "
                f"{rule.level:g} never under {rule.floor:g}; rms: {rule.source}; outside: {rule.per_decade_source}",
            )
        )
    if fit.residual:
        freedom = fit.residual.degrees_of_freedom
        rows.append(("residual", f"rms {fit.residual.rms:.3g} in ln, {freedom} degrees of freedom"))
    if fit.covariance:
        rows.append(
            ("covariance", f"of {', '.join(_coordinate(*item) for item in fit.covariance.coordinates.items())}")
        )
    if fit.note:
        rows.append(("note", fit.note))
    blocks: list[Block] = [Table(tuple(rows))]
    variables = tuple(dict.fromkeys((*fit.variables, *fit.conventions, *fit.domain)))
    if variables:
        table = tuple((name, _counted(fit, name), _domain(fit, name)) for name in variables)
        blocks.append(Table(table, ("variable", "counted as", "measured"), right=(2,)))
    return tuple(blocks)


def _coordinate(name: str, kind: str) -> str:
    return f"ln {name}" if kind == "ln" else name


def _coefficients(fit: Fit) -> str:
    parts = []
    for name, value in fit.coefficients.items():
        error = f" ± {fit.stderr[name]:.10g}" if name in fit.stderr else ""
        parts.append(f"{name} = {value:.10g}{error}")
    return ", ".join(parts)


def _grades(fit: Fit) -> str:
    others = [f"{name} {grade}" for name, grade in fit.grades.items() if grade != _usual(fit)]
    return "; ".join((_usual(fit), ", ".join(others))) if others else _usual(fit)


def _usual(fit: Fit) -> str:
    grades = list(fit.grades.values())
    return max(dict.fromkeys(grades), key=grades.count)


def _counted(fit: Fit, name: str) -> str:
    words = CONVENTIONS.get(name, {}).get(fit.convention(name), "")
    unstated = "not stated in the paper; here " if name in fit.unstated else ""
    return f"{unstated}{words}" if words else (unstated.partition(";")[0] or NONE)


def counted(fit: Fit) -> str:
    """How a fit counts each of its variables that can be counted in several ways."""
    names = [name for name in dict.fromkeys((*fit.variables, *fit.conventions)) if _counted(fit, name) != NONE]
    return "; ".join(f"{name}: {_counted(fit, name)}" for name in names)


def measured(fit: Fit) -> str:
    """The range of each variable that a fit was measured on."""
    return ", ".join(f"{name} {interval(name, *bounds)}" for name, bounds in fit.domain.items())


def _domain(fit: Fit, name: str) -> str:
    return interval(name, *fit.domain[name]) if name in fit.domain else NONE


def _cell(name: str, value: float) -> str:
    return quantity(name, value) if abs(value) >= 1e6 else f"{value:.6g}"


def check_sections(results: Mapping[str, Sequence[CheckResult]], terms: Sequence[TermResult] = ()) -> list[Section]:
    """How many of each law's checks pass, where each term keeps its sign, and every failure."""
    rows = tuple((name, f"{sum(c.passed for c in checks)} of {len(checks)}") for name, checks in results.items())
    every = [check for checks in results.values() for check in checks]
    failed = [check for check in every if not check.passed]
    sections = [Section(f"Checks: {_passed(every)}", (Table(rows, ("law", "numbers reproduced"), right=(1,)),))]
    if failed:
        sections.append(Section("Failures", (_failures(failed),)))
    return [*sections, *_term_sections(terms)]


def _term_sections(terms: Sequence[TermResult]) -> list[Section]:
    """Where each term of each fit keeps its sign, and what is not as a file states it."""
    if not terms:
        return []
    fits: dict[str, list[TermResult]] = {}
    for result in terms:
        fits.setdefault(f"{result.law}/{result.fit}", []).append(result)
    rows = tuple(
        (fit, "; ".join(result.says for result in own), f"{sum(result.passed for result in own)} of {len(own)}")
        for fit, own in fits.items()
    )
    text = (
        "A term is what one coefficient brings to the equation, the others that it is affine in at nothing. Held "
        "against the default grid, designs of every width from 1e18 to 1e26 FLOPs; where no region is named, "
        "everywhere there."
    )
    blocks: list[Block] = [Table(rows, ("fit", "its terms", "hold"), right=(2,)), Paragraph(text)]
    passed = f"{sum(result.passed for result in terms)} of {len(terms)} statements hold"
    sections = [Section(f"Terms: {passed}", tuple(blocks))]
    failed = [f"{result.law}/{result.fit}, {result.says}: {result.found}." for result in terms if not result.passed]
    if failed:
        sections.append(Section("Failures of terms", (Items(tuple(failed)),)))
    return sections


def _passed(checks: Sequence[CheckResult]) -> str:
    return f"{sum(check.passed for check in checks)} of {len(checks)} numbers of the papers are reproduced"


def _failures(checks: Sequence[CheckResult]) -> Table:
    rows = tuple(
        (c.law, f"{c.says} ({c.quantity})", number(c.expected, 6), number(c.found, 6), c.tolerance) for c in checks
    )
    return Table(rows, ("law", "the paper says", "number", "here", "within"), right=(2, 3))
