"""A fit of the model of training throughput to runs: constants, and errors of every run, fitted and left out."""

from __future__ import annotations

from typing import Any

from moeplan.cost.training.throughput.calibrate import LeftOut, Spread, Validation
from moeplan.cost.training.throughput.runs import RunTable
from moeplan.cost.training.throughput.settings import constants, priors
from moeplan.quantities import number, percent
from moeplan.records import to_json
from moeplan.report.blocks import Block, Items, Paragraph, Section, Table
from moeplan.report.text import NONE
from moeplan.texts import counted


def calibration_sections(runs: RunTable, validation: Validation) -> list[Section]:
    """The fit as tables: validation first, then constants and every run."""
    by_model = validation.left_out[0]
    verdict = (
        f"Over left-out models Kendall's tau of MFU is {validation.mfu_rank:.3f}; intervals for 80 %, as wide as the "
        f"errors of the other models say, hold {percent(validation.coverage)} of the runs. Between designs of a site "
        f"the standard deviation in ln tokens/s is {validation.design_ln_sd:.3f}."
    )
    errors: list[Block] = [
        Table(
            (
                _spread("all runs, fitted", validation.fit.errors),
                *(_spread(f"a {x.what}", x.errors) for x in validation.left_out),
            ),
            ("left out", "runs", "median error", "90th percentile", "within 30 %", "bias"),
            right=(1, 2, 3, 4, 5),
        ),
        Paragraph(verdict),
    ]
    sections = [Section("Errors of tokens/s", tuple(errors)), *(_groups(x) for x in validation.left_out)]
    sections.append(_constants(validation))
    rows = tuple(
        (
            run.label,
            str(run.layout),
            number(run.tokens_per_second, 5),
            number(run.tokens_per_second * (1 + fitted), 5),
            _signed(fitted),
            _signed(left),
        )
        for run, fitted, left in zip(runs.runs, validation.fit.errors, by_model.errors, strict=True)
    )
    columns = ("run", "layout", "tokens/s/GPU", "fitted", "error", "left out")
    blocks: list[Block] = [Table(rows, columns, right=(2, 3, 4, 5))]
    sections.append(Section("Runs", tuple(blocks)))
    if runs.left_out:
        reasons = tuple(dict.fromkeys(f"{model}: {why}" for model, why in runs.left_out))
        sections.append(Section(f"{counted(len(runs.left_out), 'row(s)')} left out", (Items(reasons),)))
    return sections


def calibration_record(runs: RunTable, validation: Validation) -> dict[str, Any]:
    """The same as JSON's types."""
    return {
        "constants": to_json(validation.fit.constants),
        "ln_stderr": to_json(validation.fit.ln_stderr),
        "fitted": to_json(Spread.of(validation.fit.errors)),
        "left_out": {x.what: to_json(Spread.of(x.errors)) for x in validation.left_out},
        "mfu_rank": validation.mfu_rank,
        "coverage": validation.coverage,
        "design_ln_sd": validation.design_ln_sd,
        "runs": [
            {"run": run.label, "tokens_per_second_per_gpu": run.tokens_per_second, "error": a, "left_out_error": b}
            for run, a, b in zip(runs.runs, validation.fit.errors, validation.left_out[0].errors, strict=True)
        ],
        "rows_left_out": [{"model": model, "why": why} for model, why in runs.left_out],
    }


def _signed(error: float) -> str:
    return f"{100 * error:+.0f} %"


def _spread(name: str, errors: tuple[float, ...] | list[float]) -> tuple[str, ...]:
    x = Spread.of(errors)
    return name, str(x.count), percent(x.median), percent(x.p90), percent(x.within_30), _signed(x.bias)


def _groups(left_out: LeftOut) -> Section:
    rows = tuple(_spread(group, left_out.of(group)) for group in dict.fromkeys(left_out.groups))
    columns = (left_out.what, "runs", "median error", "90th percentile", "within 30 %", "bias")
    return Section(f"Each {left_out.what} left out", (Table(rows, columns, right=(1, 2, 3, 4, 5)),))


def _constants(validation: Validation) -> Section:
    known, bundled, fit = priors(), constants(), validation.fit
    rows = tuple(
        (
            name,
            number(getattr(fit.constants, name), 3),
            percent(fit.ln_stderr[name]) if name in known else NONE,
            number(known[name].centre, 3) if name in known else "not fitted",
            number(getattr(bundled, name), 3),
        )
        for name in to_json(fit.constants)
    )
    columns = ("constant", "fitted", "standard error", "before", "bundled")
    return Section("Constants", (Table(rows, columns, right=(1, 2, 3, 4)),))
