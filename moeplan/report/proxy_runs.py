"""Suggested runs that `verify` made, and their outline, as sections of text, tables and a chart."""

from __future__ import annotations

from collections.abc import Sequence

from moeplan.report.blocks import Block, Chart, Column, Items, Paragraph, Section, series, table
from moeplan.report.screen.paper import paper_parts
from moeplan.report.suggestion import experts_text, shape_text
from moeplan.report.text import Source
from moeplan.report.verification import (
    COSTS,
    COUNTED,
    FLOPS,
    ROUTED,
    ROUTING,
    RUN_LOSSES,
    cost_text,
    epochs_text,
    made_text,
    setting_text,
    spent_text,
    tuning_table,
)
from moeplan.report.view import View
from moeplan.texts import counted
from moeplan.verification.proxy_runs import ProxyRun, ProxyRuns
from moeplan.verification.summary import ARM
from moeplan.verification.verification import Outline

_MEASURED = Source("Measured: loss on the validation documents, in nats a token.", convention=FLOPS)
_EXPERTS = "experts: active + shared of routed, width, or a dense model's width"
_SHAPE: tuple[Column, ...] = (
    ("d x layers", lambda run: shape_text(run.architecture)),
    ("experts", lambda run: experts_text(run.architecture)),
)


def proxy_runs_sections(found: ProxyRuns) -> list[Section]:
    """The whole report."""
    seen = _seen(found)
    notes = (Items(found.notes + found.outline.notes), Paragraph(made_text(found.versions, found.command)))
    return [
        Section("", (Paragraph(_headline(found), _MEASURED), Paragraph(setting_text(seen.outline)))),
        Section("Losses", _losses(seen)),
        *([Section("Routing", _routing(seen))] if any(proxy.load is not None for proxy in found.proxies) else []),
        Section("Learning rates", (tuning_table(seen.tuning),)),
        Section("Notes", notes),
    ]


def _seen(found: ProxyRuns) -> View[ProxyRuns]:
    """Runs whose every number knows its place and source."""
    return View(found, lambda parts: COUNTED if parts[0] == "outline" else _MEASURED)


def _headline(found: ProxyRuns) -> str:
    measured = [run for run in found.runs if run.purpose == "measure"]
    diverged = sum(run.status == "diverged" for run in measured)
    return (
        f"{counted(len(measured), 'run(s)')} measured for the law {found.law} ({found.form})"
        f"{f', {diverged} of them diverged' if diverged else ''}; with the {len(found.runs) - len(measured)} that "
        f"chose learning rates, {spent_text(found.runs)}."
    )


def _losses(seen: View[ProxyRuns]) -> tuple[Block, ...]:
    several = any(len(proxy.seeds) > 1 for proxy in seen.proxies)
    columns: tuple[Column, ...] = (
        ("", _places),
        *_SHAPE,
        (">N", "{total_params}"),
        (">Na", "{active_params}"),
        (">tokens", "{tokens}"),
        (">FLOPs", "{train_flops}"),
        (">loss", lambda proxy: "diverged" if proxy.loss is None else proxy("{loss:.4f}")),
        *(((">by seed", _seeds),) if several else ()),
        (">time", "{seconds}"),
    )
    text = (
        f"The suggested runs by their places in the list; {_EXPERTS}; params with embeddings; {FLOPS}; validation "
        f"loss in nats a token{', the mean over seeds' if several else ''}; time of one run."
    )
    return (table(seen.proxies, columns, source=_MEASURED), Paragraph(text))


def _places(proxy: View[ProxyRun]) -> str:
    return ", ".join(map(str, proxy.places))


_MOST_SEEDS = 3
"""Seeds up to which every loss is shown."""


def _seeds(proxy: View[ProxyRun]) -> str:
    if len(proxy.losses) <= _MOST_SEEDS:
        return " ".join("diverged" if loss is None else f"{loss:.4f}" for loss in proxy.losses)
    good = [loss for loss in proxy.losses if loss is not None]
    span = f"{min(good):.4f}–{max(good):.4f} of " if good else ""
    return f"{span}{len(good)} of {len(proxy.losses)}" if len(good) < len(proxy.losses) else f"{span}{len(good)}"


def _routing(seen: View[ProxyRuns]) -> tuple[Block, ...]:
    routed = [proxy for proxy in seen.proxies if proxy.load is not None]
    return (table(routed, (("", _places), _SHAPE[1], *ROUTED), source=_MEASURED), Paragraph(ROUTING))


def proxy_runs_summary(found: ProxyRuns, report: Sequence[Section]) -> list[Section]:
    """What a print begins with: what was run, the chart of losses, their table."""
    return paper_parts(report, proxy_runs_charts(found)[0], ("Losses",))


# Before the runs ----------------------------------------------------------------------------------------------------


def proxy_outline_sections(outline: Outline) -> list[Section]:
    """What will be run, before anything trains."""
    seen = View(outline)
    columns: tuple[Column, ...] = (
        ("", lambda run: "tuning" if run.purpose == "tune" else ""),
        *_SHAPE,
        (">runs", "{count:d}"),
        (">active", "{active_params}"),
        (">tokens", "{tokens}"),
        (">epochs", epochs_text),
        (">steps", "{steps}"),
        (">FLOPs", "{train_flops}"),
        *COSTS,
    )
    text = (
        f"The suggested runs in their order, one that is listed k times as k runs; {_EXPERTS}. Tokens, FLOPs, memory "
        f"and time are those of one run. Active params without embeddings; {FLOPS}."
    )
    return [
        Section("", (Paragraph(cost_text(seen) + ".", COUNTED), Paragraph(setting_text(seen)))),
        Section("Runs", (table(seen.runs, columns, source=COUNTED), Paragraph(text))),
        Section("Notes", (Items(outline.notes),)),
    ]


# Chart --------------------------------------------------------------------------------------------------------------


def proxy_runs_charts(found: ProxyRuns) -> tuple[Chart, ...]:
    """Loss against compute, a point a finished run."""
    lines = []
    for arm in ("moe", "dense"):
        own = [run for run in _seen(found).runs if (run.arm, run.purpose, run.status) == (arm, "measure", "finished")]
        texts = tuple(f"{shape_text(run.architecture)}, {experts_text(run.architecture)}" for run in own)
        if own:
            lines.append(series(f"{ARM[arm]} runs", own, "loss", x="train_flops", kind="points", texts=texts))
    return (Chart("Loss of the suggested runs", series=tuple(lines), **RUN_LOSSES),)
