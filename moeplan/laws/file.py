"""Reading a law file: every key is known, every digit a finite number, every mistake told with file, line and key."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from moeplan.architecture.conventions import ARCHITECTURAL, CONVENTIONS
from moeplan.laws.law import (
    COORDINATES,
    GRADES,
    PREDICTS,
    SCHEMA,
    Citation,
    Covariance,
    Fit,
    Law,
    PaperTable,
    ResidualError,
    Uncertainty,
)
from moeplan.laws.reader import FileSection, read_text_file, read_yaml
from moeplan.laws.signatures import FAMILIES, FORMS, form_coefficients, form_variables
from moeplan.laws.statements import read_statement


def read_law(path: Path) -> Law:
    """Read and validate one law file; raises `LawError` with file, line and key for any mistake in it."""
    return _law(read_text_file(path), str(path))


@functools.lru_cache(maxsize=64)
def _law(text: str, path: str) -> Law:
    """The law that a file's text is; one command asks for the same laws many times."""
    root = read_yaml(text, path)
    root.only(
        ("schema", "name", "title", "citation", "digits", "fits", "tables", "notes", "checks"),
        ("schema", "name", "title", "citation", "digits"),
    )
    if root.text("schema") != SCHEMA:
        raise root.error("schema", f"is {root.text('schema')!r}; this version of moeplan reads {SCHEMA}")
    name = root.text("name")
    if "/" in name or not name or name != name.strip():
        raise root.error("name", f"is {name!r}, must be a word without a slash")
    fits_section = root.section("fits", optional=True)
    fits = {key: _read_fit(name, key, fits_section.section(key), fits_section) for key in fits_section}
    tables = tuple(_read_table(section) for section in root.sections("tables"))
    if not fits and not tables:
        raise root.error(None, "has neither fits nor tables")
    return Law(
        name=name,
        title=root.text("title"),
        citation=_read_citation(root.section("citation")),
        digits=root.text("digits"),
        fits=MappingProxyType(fits),
        tables=tables,
        notes=root.texts("notes"),
        checks=tuple(root.sections("checks")),
        path=path,
        digest=hashlib.sha256(text.encode()).hexdigest()[:16],
    )


def _read_citation(section: FileSection) -> Citation:
    section.only(("authors", "year", "title", "arxiv", "where"), ("authors", "title"))
    return Citation(
        authors=section.text("authors"),
        year=int(section.number("year", 0.0)),
        title=section.text("title"),
        arxiv=section.text("arxiv", ""),
        where=section.text("where", ""),
    )


def _one_of(section: FileSection, key: str, known: Any, default: str | None = None) -> str:
    value = section.text(key, default)
    if value not in known and not (default is not None and value == default):
        raise section.error(key, f"is {value!r}; known are {', '.join(known)}")
    return value


def _read_fit(law: str, name: str, section: FileSection, fits: FileSection) -> Fit:
    section.only(
        (
            "predicts",
            "form",
            "coefficients",
            "stderr",
            "grade",
            "conventions",
            "unstated",
            "domain",
            "fixed",
            "dense",
            "dense_fit",
            "family",
            "band",
            "uncertainty",
            "covariance",
            "residual",
            "terms",
            "note",
        ),
        ("predicts", "form", "coefficients", "grade"),
    )
    form = _one_of(section, "form", FORMS)
    wanted = form_coefficients(form)
    coefficients = section.section("coefficients")
    coefficients.only(wanted, [key for key, default in wanted.items() if default is None])
    digits = coefficients.numbers()
    for key, value in digits.items():
        if not math.isfinite(value):
            raise coefficients.error(key, f"is {value}, must be finite")
    stderr = section.section("stderr", optional=True)
    stderr.only(wanted)
    variables = form_variables(form)
    dense = section.section("dense", optional=True)
    dense.only(variables)
    dense_fit = section.text("dense_fit", "")
    if dense_fit and dense_fit not in fits:
        raise section.error("dense_fit", f"is {dense_fit!r}; this file's fits are {', '.join(fits)}")
    band = section.number("band", 0.0)
    if band and band < 1:
        raise section.error("band", f"is {band}, must be a factor of at least 1")
    return Fit(
        law=law,
        name=name,
        predicts=_one_of(section, "predicts", PREDICTS),
        form=form,
        coefficients=MappingProxyType(digits),
        stderr=MappingProxyType(stderr.numbers()),
        grades=MappingProxyType(_read_grades(section, digits)),
        conventions=MappingProxyType(_read_conventions(section)),
        unstated=section.texts("unstated"),
        domain=MappingProxyType(_read_domain(section.section("domain", optional=True))),
        fixed=MappingProxyType(section.section("fixed", optional=True).numbers()),
        dense=MappingProxyType(dense.numbers()),
        dense_fit=dense_fit,
        family=_one_of(section, "family", FAMILIES, ""),
        band=band,
        uncertainty=_read_uncertainty(section),
        note=section.text("note", ""),
        covariance=_read_covariance(section, digits),
        residual=_read_residual(section),
        terms=_read_terms(section),
    )


def _read_terms(section: FileSection) -> tuple[str, ...]:
    """`terms: [A falls with total_params, ...]`: where each term keeps its sign."""
    statements = section.texts("terms")
    for text in statements:
        if read_statement(text) is None:
            raise section.error(
                "terms", f"has {text!r}, must read as 'A falls with total_params' or '... where tokens > 1e9'"
            )
    return statements


def _read_grades(section: FileSection, digits: Mapping[str, float]) -> dict[str, str]:
    """`grade: read`, or `grade: {default: read, alpha: inferred}`."""
    if isinstance(section["grade"], str):
        grade = _one_of(section, "grade", GRADES)
        return dict.fromkeys(digits, grade)
    grades = section.section("grade")
    grades.only(("default", *digits), ("default",))
    for key in grades:
        _one_of(grades, key, GRADES)
    return {key: grades.get(key, grades["default"]) for key in digits}


def _read_conventions(section: FileSection) -> dict[str, str]:
    conventions = section.section("conventions", optional=True)
    conventions.only(CONVENTIONS)
    return {key: _one_of(conventions, key, CONVENTIONS[key]) for key in conventions}


def _read_domain(section: FileSection) -> dict[str, tuple[float, float]]:
    section.only({*ARCHITECTURAL, *(name for form in FORMS for name in form_variables(form))})
    domain = {}
    for key, bounds in section.items():
        if (
            not isinstance(bounds, list)
            or len(bounds) != 2
            or any(isinstance(b, bool) or not isinstance(b, (int, float)) for b in bounds)
            or not bounds[0] <= bounds[1]
        ):
            raise section.error(key, f"is {bounds!r}, must be [lowest, highest]")
        domain[key] = (float(bounds[0]), float(bounds[1]))
    return domain


def _read_uncertainty(section: FileSection) -> Uncertainty | None:
    if "uncertainty" not in section:
        return None
    rule = section.section("uncertainty")
    numbers = ("level", "rms", "floor", "per_decade_outside")
    texts = ("source", "per_decade_source")
    rule.only((*numbers, *texts), (*numbers, *texts))
    for key in numbers:
        if not 0 <= rule.number(key) < (1 if key == "level" else math.inf):
            raise rule.error(key, f"is {rule[key]}, must be at least 0{' and below 1' if key == 'level' else ''}")
    return Uncertainty(
        level=rule.number("level"),
        rms=rule.number("rms"),
        floor=rule.number("floor"),
        per_decade_outside=rule.number("per_decade_outside"),
        source=rule.text("source"),
        per_decade_source=rule.text("per_decade_source"),
    )


def _read_covariance(section: FileSection, digits: Mapping[str, float]) -> Covariance | None:
    """`covariance: {coordinates: {A: ln, alpha: linear}, matrix: [[...], [...]]}`, rows in the order of the keys.

    It may hold `draws`, a text with a draw of the coefficients in each line, in the same order.
    """
    if "covariance" not in section:
        return None
    covariance = section.section("covariance")
    covariance.only(("coordinates", "matrix", "draws"), ("coordinates", "matrix"))
    coordinates = covariance.section("coordinates")
    coordinates.only(digits)
    for key in coordinates:
        if _one_of(coordinates, key, COORDINATES) == "ln" and digits[key] <= 0:
            raise coordinates.error(key, f"is ln, but the coefficient is {digits[key]}, not above 0")
    size = len(coordinates)
    rows = covariance["matrix"]
    if (
        not isinstance(rows, list)
        or len(rows) != size
        or any(not isinstance(row, list) or len(row) != size for row in rows)
        or any(isinstance(x, bool) or not isinstance(x, (int, float)) for row in rows for x in row)
    ):
        raise covariance.error(
            "matrix", f"must be {size} rows of {size} numbers, one for each of {', '.join(coordinates)}"
        )
    matrix = tuple(tuple(float(x) for x in row) for row in rows)
    names = list(coordinates)
    for i in range(size):
        if matrix[i][i] < 0:
            raise covariance.error("matrix", f"has the variance {matrix[i][i]:g} for {names[i]}, must be at least 0")
        for j in range(i):
            if not math.isclose(matrix[i][j], matrix[j][i], rel_tol=1e-9, abs_tol=1e-300):
                raise covariance.error("matrix", f"is not symmetric in {names[j]} and {names[i]}")
            if abs(matrix[i][j]) > math.sqrt(matrix[i][i] * matrix[j][j]) * (1 + 1e-9):
                raise covariance.error("matrix", f"has a correlation above 1 between {names[j]} and {names[i]}")
    return Covariance(MappingProxyType(dict(coordinates)), matrix, _read_draws(covariance, coordinates))


def _read_draws(covariance: FileSection, coordinates: FileSection) -> tuple[tuple[float, ...], ...]:
    """The lines of `draws`, numbers apart by spaces: a text, because it reads so much faster than lists."""
    lines = covariance.text("draws", "").splitlines()
    draws = []
    for number, line in enumerate(lines, start=1):
        try:
            draw = tuple(float(word) for word in line.split())
        except ValueError:
            draw = ()
        if len(draw) != len(coordinates) or not all(math.isfinite(x) for x in draw):
            raise covariance.error("draws", f"has in line {number} {line[:40]!r}, must be {len(coordinates)} numbers")
        for key, value in zip(coordinates, draw, strict=True):
            if coordinates[key] == "ln" and value <= 0:
                raise covariance.error("draws", f"has {value:g} for {key} in line {number}, must be above 0")
        draws.append(draw)
    return tuple(draws)


def _read_residual(section: FileSection) -> ResidualError | None:
    """`residual: {rms: 0.0075, degrees_of_freedom: 235}`."""
    if "residual" not in section:
        return None
    residual = section.section("residual")
    keys = ("rms", "degrees_of_freedom")
    residual.only(keys, keys)
    for key in keys:
        if not 0 <= residual.number(key) < math.inf:
            raise residual.error(key, f"is {residual[key]}, must be at least 0")
    return ResidualError(residual.number("rms"), int(residual.number("degrees_of_freedom")))


def _read_table(section: FileSection) -> PaperTable:
    section.only(("name", "note", "grade", "columns", "rows"), ("name", "grade", "columns", "rows"))
    columns = section.texts("columns")
    rows = []
    for row in section["rows"] if isinstance(section["rows"], list) else [None]:
        if (
            not isinstance(row, list)
            or len(row) != len(columns)
            or any(isinstance(x, bool) or not isinstance(x, (int, float)) for x in row)
        ):
            raise section.error("rows", f"has {row!r}, must be lists of {len(columns)} numbers")
        rows.append(tuple(float(x) for x in row))
    return PaperTable(
        name=section.text("name"),
        note=section.text("note", ""),
        grade=_one_of(section, "grade", GRADES),
        columns=columns,
        rows=tuple(rows),
    )
