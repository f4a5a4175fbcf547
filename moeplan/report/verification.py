"""A verification, and its outline, as sections of text, tables and charts. Every number is theirs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from moeplan.laws.pooling import RANGE_ONLY
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.quantities import FLOPS as AS_FLOPS
from moeplan.report.blocks import Block, Chart, Column, Items, Level, Paragraph, Section, Series, Table, series, table
from moeplan.report.sources import outside_text
from moeplan.report.text import EXTRAPOLATED, NONE, Source, Text, joined, listed, mark
from moeplan.report.view import View
from moeplan.texts import counted
from moeplan.units import format_count, format_duration
from moeplan.verification.estimate import REACH, MeasuredLeverage
from moeplan.verification.shrink import KeptProperty
from moeplan.verification.summary import ARM
from moeplan.verification.verdict import UNHEALTHY_LOAD
from moeplan.verification.verification import LeverageAt, Outline, PlannedRun, RunSummary, Tuning, Verification

_CONTROL = {"one_expert": "one expert", "second_seed": "other seeds", "frozen_router": "frozen router"}
FLOPS = f"FLOPs as {LEVERAGE_LAW} counts: non-embedding params, full attention, no logits"
MEASURED = Source(
    "Measured by proxy runs: dense compute / MoE compute at equal validation loss, the dense compute read from the "
    "dense envelope by log-log interpolation.",
    convention=FLOPS,
)
"""Where what was measured comes from."""
ROUTING = (
    "Of the worst layer and seed, over the last tenth of the steps: largest load of an expert / mean load (above "
    f"{UNHEALTHY_LOAD:g} the router is unhealthy), experts with under 1 % of the mean load, entropy of the load / that "
    "of an even one."
)
COUNTED = Source("Counted from the proxies' exact shapes; times are a forecast from a short probe of this machine.")


RUN_LOSSES: dict[str, Any] = {
    "x_title": "compute [FLOPs]",
    "y_title": "validation loss [nats/token]",
    "x_quantity": "flops",
    "y_quantity": "loss",
    "x_log": True,
    "y_log": True,
}
"""The axes of a chart of losses against compute."""


def verification_sections(found: Verification) -> list[Section]:
    """The whole report of a verification."""
    v = seen(found)
    resolve = (Paragraph(found.power.says), Paragraph(v.power(_DETECTABLE)))
    legend = Paragraph(f"Marked {EXTRAPOLATED}: outside the range that the law was measured on.")
    notes = (Items(found.notes + found.outline.notes), legend, Paragraph(made_text(found.versions, found.command)))
    parts = [
        ("", (Paragraph(headline(found), MEASURED), Paragraph(_reason(found)))),
        ("Leverage", _leverage(v)),
        ("Envelopes", _envelopes(v)),
        ("Routing", _routing(v)),
        ("Controls", _controls(v) if found.controls else ()),
        ("Runs", _runs(v)),
        ("What was kept of the plan", _kept(v.outline)),
        ("What would resolve it", resolve),
        ("Notes", notes),
    ]
    return [Section(title, blocks) for title, blocks in parts if blocks]


_DETECTABLE = "These runs can tell a leverage of {detectable} or more (or its inverse) from 1."


def seen(found: Verification) -> View[Verification]:
    """A verification whose every number knows its place and source."""
    planned = Source("The plan's leverage by all laws that know dense models, with its interval.")

    def source(parts: list[str]) -> Source | None:
        match parts:
            case ["predicted" | "predicted_low" | "predicted_high" | "plan_flops"]:
                return planned
            case ["leverages", place, "law_here"]:
                one = found.leverages[int(place)]
                far = f"outside: {outside_text(one.outside)}" if one.outside else "inside"
                return Source("The law at the compute of these runs.", one.law, domain=far)
            case ["outline", *_]:
                return COUNTED
        return MEASURED

    return View(found, source)


def made_text(versions: dict[str, str], command: str) -> str:
    """What ran the runs, and the command."""
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{made}; {command}".rstrip("; ")


def headline(found: Verification) -> Text:
    """The answer in one sentence."""
    v, last = seen(found), seen(found).leverages[-1]
    outside = " (outside the law's domain)" if found.outside_domain else ""
    return v(
        f"{found.verdict[:1].upper()}{found.verdict[1:]}{outside}: measured leverage {{value}} ({{level}} interval "
        "{interval}) at {at} FLOPs; the plan {plan_name} predicts {own} at {plan_flops}.",
        value=value_text(last.measured),
        level=last.measured("{level:2}"),
        interval=interval_text(last.measured),
        at=last.measured("{train_flops}"),
        own=planned_text(v),
    )


def planned_text(v: View[Verification]) -> Text:
    """What the plan predicts: a point with its interval, or the interval alone where nothing so large was measured."""
    if v.plan_decades_outside > RANGE_ONLY:
        return mark(v("{predicted.low:2}–{predicted.high:2}"), True)
    return joined((mark(v("{predicted:2}"), v.plan_decades_outside), v(" ({predicted.low:2}–{predicted.high:2})")))


def _reason(found: Verification) -> str:
    reason = found.reason[:1].upper() + found.reason[1:]
    advice = "" if found.verdict in ("consistent", "inconsistent in sign") else f" {found.power.says}"
    return f"{reason}.{advice}"


def value_text(measured: View[MeasuredLeverage]) -> Text:
    """A measured leverage, or the bound that it is."""
    return measured("{bound} {efficiency_leverage}" if measured.bound else "{efficiency_leverage}")


def interval_text(measured: View[MeasuredLeverage]) -> Text:
    """Both ends; one that lies where nothing can be read is open."""
    if measured.bound == "at least" and measured.high <= measured.efficiency_leverage * (1 + 1e-9):
        return measured("{low} and above")
    if measured.bound == "at most" and measured.low >= measured.efficiency_leverage * (1 - 1e-9):
        return measured("{high} and below")
    return measured("{low}–{high}")


def _leverage(v: View[Verification]) -> tuple[Block, ...]:
    last = v.leverages[-1]
    columns: tuple[Column, ...] = (
        (">MoE compute", "{measured.train_flops}"),
        (">leverage", lambda at: value_text(at.measured)),
        (f">{last.measured('{level:2}')} interval", lambda at: interval_text(at.measured)),
        (">in time", lambda at: at("{measured.wall_clock}") if at.measured.wall_clock else NONE),
        (f">{last.law} here", lambda at: mark(at("{law_here}"), at.outside)),
        ("verdict", "{verdict}"),
    )
    estimators = listed(last.measured(f"{_ESTIMATOR[x]} {{by_estimator[{x}]}}") for x in last.measured.by_estimator)
    text = last.measured(
        f"Dense compute / MoE compute at equal loss, {FLOPS}; in time: the same in training time on "
        f"{v.runs[-1].device}. Interval: the wider of a bootstrap over seeds and validation documents, paired across "
        "arms, and the spread between estimators. At the largest budget the bootstrap alone gives "
        "{bootstrap_low}–{bootstrap_high}; {estimators}.",
        estimators=estimators,
    )
    return (table(v.leverages, columns, strong=(len(v.leverages) - 1,), source=MEASURED), Paragraph(text))


_ESTIMATOR = {
    "envelope": "interpolation in the envelope",
    "power_law": "one power law",
    "irreducible_loss": "a power law with an irreducible loss",
}


def _envelopes(v: View[Verification]) -> tuple[Block, ...]:
    bytewise = v.outline.runs[0].architecture.vocab_size == 256
    columns: tuple[Column, ...] = (
        ("arm", lambda point: ARM[point.arm]),
        (">compute", "{train_flops}"),
        ("best size", lambda point: point.rung.partition("/")[2]),
        (">loss", "{loss:.4f}"),
        (">bits/token", lambda point: f"{point.loss / math.log(2):.3f}" if bytewise else NONE),
        (">seeds", "{seeds:d}"),
        (">time", "{seconds}"),
    )
    text = "The best size of every budget; validation loss in nats a token, averaged over seeds."
    return (table(v.envelopes, columns, source=MEASURED), Paragraph(text))


def _routing(v: View[Verification]) -> tuple[Block, ...]:
    columns: tuple[Column, ...] = (
        (">MoE compute", "{measured.train_flops}"),
        ("size", lambda at: at.measured.rung.partition("/")[2]),
        *ROUTED,
    )
    return (table(v.leverages, columns), Paragraph(ROUTING))


ROUTED: tuple[Column, ...] = (
    (">largest load", "{load}"), (">dead experts", "{dead_experts:2}"), (">entropy", "{entropy}"),
)  # fmt: skip
"""The columns of a router's health."""


def _controls(v: View[Verification]) -> tuple[Block, ...]:
    columns: tuple[Column, ...] = (
        ("control", lambda control: _CONTROL[control.control]),
        (">value", "{value}"),
        (">90 % interval", "{low}–{high}"),
        ("verdict", "{verdict}"),
        ("what must come out", "{checks}"),
    )
    return (table(v.controls, columns),)


def _runs(v: View[Verification]) -> tuple[Block, ...]:
    runs: tuple[RunSummary, ...] = v.it.runs
    measured = [run for run in runs if run.purpose == "measure"]
    finished = [run for run in measured if run.status == "finished"]
    speeds = []
    for arm in ("moe", "dense"):
        own = [run for run in finished if run.arm == arm]
        speeds.append(format_count(sum(r.tokens for r in own) / max(1e-9, sum(r.seconds for r in own))))
    text = (
        f"{counted(len(runs), 'run(s)')}, {len(measured)} of them measured, {len(measured) - len(finished)} of these "
        f"diverged; "
        f"{spent_text(runs)}: MoE {speeds[0]}, dense {speeds[1]} tokens a second a run."
    )
    return (tuning_table(v.tuning), Paragraph(text))


def spent_text(runs: tuple[RunSummary, ...]) -> str:
    """Compute and time of runs together."""
    flops = AS_FLOPS.text(sum(run.train_flops for run in runs))
    return f"{flops} FLOPs in {format_duration(sum(run.seconds for run in runs))} of training on {runs[-1].device}"


def tuning_table(tunings: Iterable[View[Tuning]]) -> Table:
    """The learning rates tried for each arm."""

    def losses(tuning: View[Tuning]) -> str:
        pairs = zip(tuning.learning_rates, tuning.losses, strict=True)
        return " ".join(f"{rate:.3g}: {'diverged' if loss is None else f'{loss:.4f}'}" for rate, loss in pairs)

    columns: tuple[Column, ...] = (
        ("arm", lambda tuning: ARM[tuning.arm]),
        ("tuned at", "{rung}"),
        ("rate: loss", losses),
        (">taken", "{chosen:.3g}"),
    )
    return table(tunings, columns)


def _kept(outline: View[Outline]) -> tuple[Block, ...]:
    def of_numbers(template: str) -> Any:
        return lambda kept: NONE if kept.variable == "attention" else kept(template)

    def reason(kept: View[KeptProperty]) -> str:
        return str(kept.reason) if kept.variable == "attention" else kept.reason or "kept"

    columns: tuple[Column, ...] = (
        ("", "{variable}"),
        (">plan", of_numbers("{planned}")),
        (">proxies", of_numbers("{low..high}")),
        ("", reason),
    )
    return (table(outline.kept, columns),)


# Before the runs ----------------------------------------------------------------------------------------------------


def outline_sections(outline: Outline) -> list[Section]:
    """What will be run, before anything trains."""
    o = View(outline)
    budgets = " and ".join(map(AS_FLOPS.text, outline.moe_budgets))
    text = (
        "Each row is one size at one budget; compute, tokens, memory and time are those of one run. Params without "
        f"embeddings; {FLOPS}. Dense runs reach further on both sides, to bracket the MoE's loss."
    )
    columns: tuple[Column, ...] = (
        ("", _purpose),
        ("compute", lambda run: run.rung.partition("/")[0]),
        ("size", lambda run: run.rung.partition("/")[2]),
        (">runs", "{count:d}"),
        (">params", "{total_params}"),
        (">active", "{active_params}"),
        (">tokens", "{tokens}"),
        (">epochs", epochs_text),
        (">batch", "{batch_tokens}"),
        (">steps", "{steps:d}"),
        *COSTS,
    )
    head = joined((cost_text(o), f"; leverage at {budgets} FLOPs."))
    notes = outline.notes + ((f"The next larger ladder needs {outline.limit}.",) if outline.limit else ())
    return [
        Section("", (Paragraph(head, COUNTED), Paragraph(setting_text(o)))),
        Section("Runs", (table(o.runs, columns, source=COUNTED), Paragraph(text))),
        Section("What is kept of the plan", _kept(o)),
        *([Section("Notes", (Items(notes),))] if notes else []),
    ]


COSTS: tuple[Column, ...] = ((">memory", "{memory_bytes:2}"), (">time", "{seconds}"))
"""The columns of what one run takes."""


def _purpose(run: View[PlannedRun]) -> str:
    return _CONTROL.get(run.control, f"{ARM[run.arm]}{', tuning' if run.purpose == 'tune' else ''}")


def cost_text(outline: View[Outline]) -> Text:
    """Runs, compute and time, the beginning of a sentence."""
    total = sum(run.count for run in outline.runs)
    time = "not known" if outline.seconds is None else "about {seconds}"
    return outline(
        f"{counted(total, 'run(s)')}, {{train_flops}} FLOPs, {time} on this machine ({{device}}, "
        "{workers:d} at a time)"
    )


def setting_text(outline: View[Outline]) -> Text:
    """What all runs share, in a sentence."""
    return outline(
        "{seeds:d} seed(s); sequences of {seq_len:d} tokens; {precision}; text: "
        "{data} (digest {data_digest}), {train_tokens} training tokens, losses over {validation_tokens} "
        "validation tokens."
    )


def epochs_text(run: View[PlannedRun]) -> str:
    """Repeats of the text."""
    epochs: float = run.epochs
    if epochs < 0.005:
        return "< 0.01"
    return run("{epochs:.2f}") if epochs < 100 else run("{epochs:count}")


# Charts -------------------------------------------------------------------------------------------------------------


def verification_charts(found: Verification) -> tuple[Chart, ...]:
    """Loss against compute for both arms with their envelopes; leverage with its interval beside the predicted one."""
    return (_loss_chart(seen(found)), leverage_chart(seen(found)))


def _loss_chart(v: View[Verification]) -> Chart:
    lines = []
    for arm in ("moe", "dense"):
        best = [point for point in v.envelopes if point.arm == arm]
        rungs = tuple(point.rung for point in best)
        name = f"{ARM[arm]} envelope"
        lines.append(series(name, best, "loss", x="train_flops", texts=rungs, strong=arm == "moe"))
        own = [run for run in v.runs if (run.arm, run.control, run.purpose, run.status) == (arm, "", *_MADE)]
        seeds = tuple(f"{run.rung}, seed {run.seed}" for run in own)
        lines.append(series(f"{ARM[arm]} runs", own, "loss", x="train_flops", kind="points", texts=seeds))
    note = "The leverage is the horizontal distance from the MoE's envelope to the dense one."
    return Chart("Loss against compute", series=tuple(lines), note=note, **RUN_LOSSES)


_MADE = ("measure", "finished")


_PREDICTED = ("predicted", "predicted.low", "predicted.high")


def leverage_chart(v: View[Verification]) -> Chart:
    """The measured leverage with its interval, the law's at that compute, and the plan's own."""
    at: tuple[View[LeverageAt], ...] = v.leverages
    law = at[-1].law
    style: dict[str, Any] = {"kind": "points", "texts": tuple(one.verdict for one in at), "strong": True}
    fields = [f"measured.{name}" for name in ("efficiency_leverage", "low", "high")]
    lines: tuple[Series, ...] = (
        series("measured", at, *fields, x="measured.train_flops", **style),
        series(
            f"{law} at the proxies' compute",
            at,
            "law_here",
            x="measured.train_flops",
            inside=tuple(not one.outside for one in at),
        ),
        series("predicted for the plan", [v], *_PREDICTED, x="plan_flops", kind="points"),
    )
    return Chart(
        "Efficiency Leverage, measured and predicted",
        "MoE compute [FLOPs]",
        "dense compute / MoE compute at equal loss",
        lines,
        x_quantity="flops",
        y_quantity="times",
        x_log=True,
        y_log=True,
        levels=(Level("dense", 1.0),),
        note=f"Only the side of 1 is compared. Losses are read up to {REACH:g} times outside the dense budgets.",
    )
