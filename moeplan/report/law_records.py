"""Laws as JSON: what `moeplan laws --json` prints of all of them, of one, and of its checks."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from moeplan.laws import Fit, Law
from moeplan.laws.checks import CheckResult
from moeplan.laws.law import PREDICTS, Citation, PaperTable, ResidualError, Uncertainty
from moeplan.laws.signatures import FORMS, form_coefficients, form_variables
from moeplan.laws.terms import TermResult


@dataclass(frozen=True)
class LawSummary:
    """A law in short."""

    name: str
    """Its name, with the fit where one is asked for."""
    title: str
    """What it says."""
    grade: str
    """How sure its digits are, by the least sure."""
    can_search: bool
    """Whether it can choose a design at a budget."""
    has_dense: bool
    """Whether it compares with dense models."""
    predicts: tuple[str, ...]
    """What its fits predict."""
    citation: Citation
    """Where it was published."""
    digest: str
    """SHA-256 of its file, in hex."""


@dataclass(frozen=True)
class UnusedForm:
    """An equation that no bundled law gives coefficients for; it can be fitted."""

    form: str
    """Its name."""
    equation: str
    """The equation."""
    variables: tuple[str, ...]
    """Its variables, in order."""
    coefficients: tuple[str, ...]
    """Its coefficients."""


@dataclass(frozen=True)
class LawList:
    """All bundled laws."""

    laws: tuple[LawSummary, ...]
    """The laws."""
    forms_without_coefficients: tuple[UnusedForm, ...]
    """Forms that none of them has."""


@dataclass(frozen=True)
class CovarianceRecord:
    """How the coefficients of a fit vary together."""

    coordinates: dict[str, str]
    """ln or linear, by coefficient in the matrix's order."""
    matrix: tuple[tuple[float, ...], ...]
    """The covariance of these coordinates."""


@dataclass(frozen=True)
class FitRecord:
    """One fitted equation of a law."""

    predicts: str
    """What it predicts."""
    unit: str
    """In which unit."""
    form: str
    """Name of its equation."""
    equation: str
    """The equation."""
    variables: tuple[str, ...]
    """Its variables, in order."""
    coefficients: dict[str, float]
    """The digits, by the paper's letters."""
    stderr: dict[str, float]
    """Standard errors, where published."""
    grades: dict[str, str]
    """How sure each digit is."""
    conventions: dict[str, str]
    """How each variable is counted."""
    unstated: tuple[str, ...]
    """Variables whose convention the paper leaves open."""
    domain: dict[str, tuple[float, ...]]
    """Least and largest measured value of each variable."""
    fixed: dict[str, float]
    """What was held fixed in all runs."""
    dense: dict[str, float]
    """Values of the variables at which it describes a dense model; empty if there are none."""
    dense_fit: str
    """Name of the fit that describes dense models instead; "" if there is none."""
    band: float
    """Factor either way within which results were near-optimal; 0 if not given."""
    uncertainty: Uncertainty | None
    """Residuals and widening rule, where known."""
    covariance: CovarianceRecord | None
    """How the coefficients vary together, where known."""
    residual: ResidualError | None
    """How far the runs lie from it, where known."""
    note: str
    """One sentence on what this fit is."""


@dataclass(frozen=True)
class LawRecord(LawSummary):
    """One law whole."""

    digits: str
    """Where its digits come from."""
    fits: dict[str, FitRecord]
    """Its fitted equations, by name."""
    tables: tuple[PaperTable, ...]
    """Measured points, as the paper prints them."""
    notes: tuple[str, ...]
    """Caveats."""
    checks: tuple[CheckResult, ...]
    """The paper's own numbers beside those recomputed."""


@dataclass(frozen=True)
class LawChecks:
    """The papers' own numbers, recomputed."""

    passed: bool
    """Whether every number is reproduced and every statement on terms holds."""
    checks: tuple[CheckResult, ...]
    """Every number of every law."""
    terms: tuple[TermResult, ...]
    """Where each term of each fit keeps its sign."""


def list_record(laws: Sequence[Law]) -> LawList:
    """All laws in short, and the forms that none of them has."""
    forms = (
        UnusedForm(form, form_equation(form), tuple(form_variables(form)), tuple(form_coefficients(form)))
        for form in unused_forms(laws)
    )
    return LawList(tuple(LawSummary(**_summary(law)) for law in laws), tuple(forms))


def law_record(law: Law, checks: Sequence[CheckResult]) -> LawRecord:
    """One law whole, with its recomputed numbers."""
    return LawRecord(
        **_summary(law),
        digits=law.digits,
        fits={name: _fit_record(fit) for name, fit in law.fits.items()},
        tables=tuple(law.tables),
        notes=tuple(law.notes),
        checks=tuple(checks),
    )


def check_record(results: Mapping[str, Sequence[CheckResult]], terms: Sequence[TermResult] = ()) -> LawChecks:
    """Every check of every law, and every statement on terms."""
    every = tuple(check for checks in results.values() for check in checks)
    passed = all(check.passed for check in every) and all(term.passed for term in terms)
    return LawChecks(passed, every, tuple(terms))


def unused_forms(laws: Iterable[Law]) -> tuple[str, ...]:
    """Forms that no law gives coefficients for."""
    used = {fit.form for law in laws for fit in law.fits.values()}
    return tuple(form for form in FORMS if form not in used)


def form_equation(form: str) -> str:
    """A form's equation and words, in one line."""
    return " ".join((inspect.getdoc(FORMS[form]) or "").split())


def _summary(law: Law) -> dict[str, Any]:
    """The fields of `LawSummary`."""
    predicts = tuple(dict.fromkeys(fit.predicts for fit in law.fits.values()))
    return {**_common(LawSummary, law), "name": law.full_name, "predicts": predicts}


def _fit_record(fit: Fit) -> FitRecord:
    covariance = None
    if fit.covariance is not None:
        covariance = CovarianceRecord(**_common(CovarianceRecord, fit.covariance))
    return FitRecord(**{**_common(FitRecord, fit), "unit": PREDICTS[fit.predicts], "covariance": covariance})


def _common(record: type, source: object) -> dict[str, Any]:
    """The fields of a record that its source has under the same names; mappings as dictionaries."""
    found = {f.name: getattr(source, f.name) for f in fields(record) if hasattr(source, f.name)}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in found.items()}
