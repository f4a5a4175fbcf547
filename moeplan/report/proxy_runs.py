"""Suggested runs that `verify` made, and their outline, as sections of text, tables and a chart."""

from __future__ import annotations

from moeplan.quantities import number, percent
from moeplan.report.blocks import Block, Chart, Items, Paragraph, Section, Series, Table
from moeplan.report.suggestion import experts_text, shape_text
from moeplan.report.text import NONE, Source
from moeplan.report.verification import COUNTED, FLOPS, ROUTING, cost_text, epochs_text, setting_text, tuning_table
from moeplan.units import format_bytes, format_count, format_flops
from moeplan.verification.proxy_runs import ProxyRun, ProxyRuns
from moeplan.verification.request import duration
from moeplan.verification.summary import ARM
from moeplan.verification.verification import Outline, PlannedRun

_MEASURED = Source("Measured: loss on the validation documents, in nats a token.", convention=FLOPS)
_EXPERTS = "experts: active + shared of routed, width, or a dense model's width"


def proxy_runs_sections(found: ProxyRuns) -> list[Section]:
    """The whole report."""
    sections = [
        Section("", (Paragraph(_headline(found), _MEASURED), Paragraph(setting_text(found.outline)))),
        Section("Losses", _losses(found)),
    ]
    if any(proxy.load is not None for proxy in found.proxies):
        sections.append(Section("Routing", _routing(found)))
    made = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    return [
        *sections,
        Section("Learning rates", (tuning_table(found.tuning),)),
        Section(
            "Notes", (Items(found.notes + found.outline.notes), Paragraph(f"{made}; {found.command}".rstrip("; ")))
        ),
    ]


def _headline(found: ProxyRuns) -> str:
    measured = [run for run in found.runs if run.purpose == "measure"]
    diverged = sum(run.status == "diverged" for run in measured)
    return (
        f"{len(measured)} runs measured for the law {found.law} ({found.form})"
        f"{f', {diverged} of them diverged' if diverged else ''}; with the {len(found.runs) - len(measured)} that "
        f"chose learning rates, {format_flops(sum(run.train_flops for run in found.runs))} FLOPs in "
        f"{duration(sum(run.seconds for run in found.runs))} of training on {found.runs[-1].device}."
    )


def _losses(found: ProxyRuns) -> tuple[Block, ...]:
    several = any(len(proxy.seeds) > 1 for proxy in found.proxies)
    rows = tuple(
        (
            _places(proxy),
            shape_text(proxy.architecture),
            experts_text(proxy.architecture),
            format_count(proxy.total_params),
            format_count(proxy.active_params),
            format_count(proxy.tokens),
            format_flops(proxy.train_flops),
            "diverged" if proxy.loss is None else f"{proxy.loss:.4f}",
            *((_seeds(proxy),) if several else ()),
            duration(proxy.seconds),
        )
        for proxy in found.proxies
    )
    columns = ["", "d x layers", "experts", "N", "Na", "tokens", "FLOPs", "loss", "time"]
    if several:
        columns.insert(-1, "by seed")
    return (
        Table(rows, tuple(columns), right=tuple(range(3, len(columns))), source=_MEASURED),
        Paragraph(
            f"The suggested runs by their places in the list; {_EXPERTS}; params with embeddings; {FLOPS}; validation "
            f"loss in nats a token{', the mean over seeds' if several else ''}; time of one run."
        ),
    )


def _places(proxy: ProxyRun) -> str:
    return ", ".join(map(str, proxy.places))


_MOST_SEEDS = 3
"""Seeds up to which every loss is shown."""


def _seeds(proxy: ProxyRun) -> str:
    if len(proxy.losses) <= _MOST_SEEDS:
        return " ".join("diverged" if loss is None else f"{loss:.4f}" for loss in proxy.losses)
    good = [loss for loss in proxy.losses if loss is not None]
    span = f"{min(good):.4f}–{max(good):.4f} of " if good else ""
    return f"{span}{len(good)} of {len(proxy.losses)}" if len(good) < len(proxy.losses) else f"{span}{len(good)}"


def _routing(found: ProxyRuns) -> tuple[Block, ...]:
    rows = tuple(
        (
            _places(proxy),
            experts_text(proxy.architecture),
            number(proxy.load),
            NONE if proxy.dead_experts is None else percent(proxy.dead_experts, 2),
            NONE if proxy.entropy is None else percent(proxy.entropy),
        )
        for proxy in found.proxies
        if proxy.load is not None
    )
    columns = ("", "experts", "largest load", "dead experts", "entropy")
    return (
        Table(rows, columns, right=(2, 3, 4), source=_MEASURED),
        Paragraph(ROUTING),
    )


# Before the runs ----------------------------------------------------------------------------------------------------


def proxy_outline_sections(outline: Outline) -> list[Section]:
    """What will be run, before anything trains."""
    rows = tuple(_planned(run) for run in outline.runs)
    columns = (
        "",
        "d x layers",
        "experts",
        "runs",
        "active",
        "tokens",
        "epochs",
        "steps",
        "FLOPs",
        "memory",
        "time",
    )
    return [
        Section("", (Paragraph(f"{cost_text(outline)}.", COUNTED), Paragraph(setting_text(outline)))),
        Section(
            "Runs",
            (
                Table(rows, columns, right=tuple(range(3, len(columns))), source=COUNTED),
                Paragraph(
                    f"The suggested runs in their order, one that is listed k times as k runs; {_EXPERTS}. Tokens, "
                    f"FLOPs, memory and time are those of one run. Active params without embeddings; {FLOPS}."
                ),
            ),
        ),
        Section("Notes", (Items(outline.notes),)),
    ]


def _planned(run: PlannedRun) -> tuple[str, ...]:
    return (
        "tuning" if run.purpose == "tune" else "",
        shape_text(run.architecture),
        experts_text(run.architecture),
        str(run.count),
        format_count(run.active_params),
        format_count(run.tokens),
        epochs_text(run.epochs),
        f"{run.steps:,}",
        format_flops(run.train_flops),
        format_bytes(run.memory_bytes, 2),
        NONE if run.seconds is None else duration(run.seconds),
    )


# Chart --------------------------------------------------------------------------------------------------------------


def proxy_runs_charts(found: ProxyRuns) -> tuple[Chart, ...]:
    """Loss against compute, a point a finished run."""
    series = []
    for arm in ("moe", "dense"):
        own = [r for r in found.runs if (r.arm, r.purpose, r.status) == (arm, "measure", "finished")]
        if own:
            series.append(
                Series(
                    f"{ARM[arm]} runs",
                    tuple(r.train_flops for r in own),
                    tuple(r.loss for r in own),
                    kind="points",
                    texts=tuple(f"{shape_text(r.architecture)}, {experts_text(r.architecture)}" for r in own),
                    source=_MEASURED,
                )
            )
    return (
        Chart(
            "Loss of the suggested runs",
            "compute [FLOPs]",
            "validation loss [nats/token]",
            tuple(series),
            x_quantity="flops",
            y_quantity="loss",
            x_log=True,
            y_log=True,
        ),
    )
