"""A fitted law as a law file that every command takes: `law_text(fitted)`.

Bytes depend on the runs and the arguments alone: no time stamp, digits that read back as the same numbers, lines in a
fixed order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from moeplan.architecture.conventions import CONVENTIONS
from moeplan.fitting.result import FittedLaw
from moeplan.laws import Fit, load_law
from moeplan.laws.law import SCHEMA
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.laws.signatures import form_variables
from moeplan.texts import counted, sentence

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_ .()/-]*")
_WIDTH = 116


def law_text(fitted: FittedLaw) -> str:
    """The YAML text of a fitted law, which `moeplan.laws.load_law` reads back to the last digit."""
    runs = fitted.runs
    title = f"{fitted.predicts} by {fitted.form}, fitted to {counted(runs.used, 'run(s)')}"
    lines = [
        f"schema: {SCHEMA}",
        f"name: {_text(fitted.name)}",
        f"title: {_text(title)}",
        "citation:",
        f"  authors: {_text(f'fitted by moeplan {fitted.moeplan_version}')}",
        f"  title: {_text(f'{fitted.form} fitted to {runs.file}')}",
        f"  where: {_text(f'{runs.used} of {runs.rows} rows; SHA-256 of the file {runs.digest}...; {fitted.command}')}",
        f"digits: {_text(_digits(fitted))}",
        "",
        "fits:",
        f"  {fitted.predicts}:",
        f"    predicts: {fitted.predicts}",
        f"    form: {fitted.form}",
        "    coefficients:",
        *(f"      {c.name}: {_number(c.value)}" for c in fitted.coefficients),
        *_stderr(fitted),
        "    grade: fitted",
        f"    conventions: {_mapping(_conventions(fitted))}",
        *(["    domain:"] if fitted.domain else []),
        *(f"      {name}: [{_number(low)}, {_number(high)}]" for name, (low, high) in fitted.domain.items()),
        *_optional(fitted),
        *_covariance(fitted),
        "    residual: "
        f"{{rms: {_number(fitted.quality.rms)}, degrees_of_freedom: {fitted.quality.degrees_of_freedom}}}",
        f"    note: {_text(_note(fitted))}",
        *_allocation(fitted),
        "",
        "notes:",
        *(f"  - {_text(note)}" for note in _notes(fitted)),
    ]
    return "\n".join(lines) + "\n"


def _digits(fitted: FittedLaw) -> str:
    delta = fitted.method.delta
    objective = "least squares" if delta is None else f"Huber objective with delta {delta:g}"
    return f"{objective} on ln residuals; intervals: {fitted.method.interval}"


def _stderr(fitted: FittedLaw) -> list[str]:
    known = [(c.name, c.stderr) for c in fitted.coefficients if c.stderr is not None]
    if not known:
        return []
    return [f"    stderr: {{{', '.join(f'{name}: {value:.6g}' for name, value in known)}}}"]


def _conventions(fitted: FittedLaw) -> dict[str, str]:
    return {name: word for name, word in fitted.conventions.items() if name in CONVENTIONS}


def _optional(fitted: FittedLaw) -> list[str]:
    lines = []
    if fitted.fixed:
        lines.append(f"    fixed: {_mapping({name: _number(value) for name, value in fitted.fixed.items()})}")
    dense = _dense(fitted)
    if dense:
        lines.append(f"    dense: {_mapping({name: _number(value) for name, value in dense.items()})}")
    family = {
        ("total_params", "tokens"): "six_total_params",
        ("active_params", "tokens", "expansion_ratio"): "six_active_params",
    }
    found = family.get(form_variables(fitted.form))
    if found and (found == "six_active_params" or fitted.fixed.get("activation_ratio") == 1):
        lines.append(f"    family: {found}")
    return lines


def _dense(fitted: FittedLaw) -> dict[str, float]:
    """Values of the form's variables at which it describes a dense model, if the runs reach them."""
    if fitted.predicts != "loss":
        return {}
    for name in ("expansion_ratio", "activation_ratio"):
        low, high = fitted.domain.get(name, (0.0, 0.0))
        if name in form_variables(fitted.form) and low <= 1 <= high:
            return {name: 1.0}
    return {}


def _covariance(fitted: FittedLaw) -> list[str]:
    if fitted.covariance is None:
        return []
    return [
        "    covariance:",
        f"      coordinates: {_mapping(fitted.covariance.coordinates)}",
        "      matrix:",
        *(f"        - [{', '.join(_number(x) for x in row)}]" for row in fitted.covariance.matrix),
        "      draws: |",
        # Ten digits: rounding moves no prediction by more than a millionth of its interval.
        *(f"        {' '.join(f'{x:.10g}' for x in draw)}" for draw in fitted.covariance.draws),
    ]


def _note(fitted: FittedLaw) -> str:
    quality = fitted.quality
    held = ""
    if fitted.hold_out is not None:
        error = 100 * fitted.hold_out.rms
        held = f"; held out, the largest {counted(fitted.hold_out.held_out, 'run(s)')}: predicted to {error:.3g} %"
    return f"rms residual {100 * quality.rms:.3g} %, largest {100 * quality.largest:.3g} %{held}."


def _notes(fitted: FittedLaw) -> list[str]:
    names = [coefficient.name for coefficient in fitted.coefficients]
    notes = [sentence(text, names) for text in (*fitted.unidentified, *fitted.warnings)]
    for name, how in fitted.runs.derived.items():
        if name in fitted.domain:
            notes.append(f"{name} = {how}.")
    if fitted.prior:
        notes.append(f"The prior is {fitted.prior}; what the runs do not determine stays near it.")
    if fitted.predicts == "efficiency_leverage":
        notes.append(f"The discount for a misallocated budget is taken over from {LEVERAGE_LAW}.")
    if fitted.runs.excluded:
        notes.append(f"Left out: {counted(len(fitted.runs.excluded), 'row(s)')} of the runs file.")
    return notes or ["The runs determine every coefficient."]


def _allocation(fitted: FittedLaw) -> list[str]:
    """The bundled leverage law's discount for a misallocated budget: leverage sees neither size nor tokens."""
    if fitted.predicts != "efficiency_leverage":
        return []
    fit: Fit | None = load_law(LEVERAGE_LAW).allocation
    assert fit is not None
    domain = {name: f"[{_number(low)}, {_number(high)}]" for name, (low, high) in fit.domain.items()}
    grades = {"default": fit.grade} | {name: grade for name, grade in fit.grades.items() if grade != fit.grade}
    return [
        "",
        f"  {fit.name}:",
        f"    predicts: {fit.predicts}",
        f"    form: {fit.form}",
        f"    coefficients: {_mapping({name: _number(value) for name, value in fit.coefficients.items()})}",
        f"    grade: {_mapping(grades)}",
        f"    conventions: {_mapping(fit.conventions)}",
        f"    domain: {_mapping(domain)}",
        f"    note: {_text(f'Taken over from {fit.full_name}.')}",
    ]


def _mapping(items: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name}: {value}" for name, value in items.items()) + "}"


def _number(value: float) -> str:
    """The shortest decimal that reads back as the same float."""
    return str(int(value)) if value == int(value) and abs(value) < 1e6 else repr(float(value))


def _text(text: str) -> str:
    """A scalar of YAML: plain where it can be, else quoted."""
    text = " ".join(text.split())
    if _PLAIN.fullmatch(text) and text not in ("null", "true", "false") and not text.endswith(" "):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
