"""A verification, and its outline, as sections of text, tables and charts. Every number is theirs."""

from __future__ import annotations

import math

from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.quantities import number, percent, quantity, times
from moeplan.report.blocks import Block, Chart, Items, Level, Paragraph, Section, Series, Table
from moeplan.report.text import EXTRAPOLATED, NONE, Source, mark
from moeplan.units import format_bytes, format_count, format_flops
from moeplan.verification.estimate import REACH, Measured
from moeplan.verification.request import duration
from moeplan.verification.summary import ARM
from moeplan.verification.verdict import UNHEALTHY_LOAD
from moeplan.verification.verification import LeverageAt, Outline, PlannedRun, Tuning, Verification

_CONTROL = {"one_expert": "one expert", "second_seed": "other seeds", "frozen_router": "frozen router"}
FLOPS = f"FLOPs as {LEVERAGE_LAW} counts: non-embedding params, full attention, no logits"
_MEASURED = Source(
    "Measured by proxy runs: dense compute / MoE compute at equal validation loss, the dense compute read from the "
    "dense envelope by log-log interpolation.",
    convention=FLOPS,
)
ROUTING = (
    "Of the worst layer and seed, on the validation documents: largest load of an expert / mean load (above "
    f"{UNHEALTHY_LOAD:g} the router is unhealthy), experts with under 1 % of the mean load, entropy of the load / that "
    "of an even one."
)
COUNTED = Source("Counted from the proxies' exact shapes; times are a forecast from a short probe of this machine.")


def verification_sections(found: Verification) -> list[Section]:
    """The whole report of a verification."""
    sections = [
        Section("", (Paragraph(headline(found), _MEASURED), Paragraph(_reason(found)))),
        Section("Leverage", _leverage(found)),
        Section("Envelopes", _envelopes(found)),
        Section("Routing", _routing(found)),
    ]
    if found.controls:
        sections.append(Section("Controls", _controls(found)))
    sections += [
        Section("Runs", _runs(found)),
        Section("What was kept of the plan", _kept(found.outline)),
        Section("What would resolve it", (Paragraph(found.power.says), Paragraph(_detectable(found)))),
    ]
    notes = found.notes + found.outline.notes
    legend = [Paragraph(f"Marked {EXTRAPOLATED}: outside the range that the law was measured on.")]
    made = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    sections.append(Section("Notes", (Items(notes), *legend, Paragraph(f"{made}; {found.command}".rstrip("; ")))))
    return sections


def headline(found: Verification) -> str:
    """The answer in one sentence."""
    last = found.leverages[-1]
    outside = " (outside the law's domain)" if found.outside_domain else ""
    return (
        f"{found.verdict[:1].upper()}{found.verdict[1:]}{outside}: measured leverage {_value(last.measured)} "
        f"({percent(last.measured.level, 2)} interval {_interval(last.measured)}) at "
        f"{format_flops(last.measured.train_flops)} FLOPs; the plan {found.plan_name} predicts "
        f"{mark(times(found.predicted), found.plan_flops > 3e20)} ({times(found.predicted_low)}–"
        f"{times(found.predicted_high)}) at {format_flops(found.plan_flops)}."
    )


def _reason(found: Verification) -> str:
    reason = found.reason[:1].upper() + found.reason[1:]
    advice = "" if found.verdict in ("consistent", "inconsistent in sign") else f" {found.power.says}"
    return f"{reason}.{advice}"


def _value(measured: Measured) -> str:
    text = times(measured.efficiency_leverage)
    return f"{measured.bound} {text}" if measured.bound else text


def _interval(measured: Measured) -> str:
    """Both ends; one that lies where nothing can be read is open."""
    low, high = times(measured.low), times(measured.high)
    if measured.bound == "at least" and measured.high <= measured.efficiency_leverage * (1 + 1e-9):
        return f"{low} and above"
    if measured.bound == "at most" and measured.low >= measured.efficiency_leverage * (1 - 1e-9):
        return f"{high} and below"
    return f"{low}–{high}"


def _leverage(found: Verification) -> tuple[Block, ...]:
    rows = [
        (
            f"{format_flops(at.measured.train_flops)}",
            _value(at.measured),
            _interval(at.measured),
            times(at.measured.wall_clock) if at.measured.wall_clock else NONE,
            mark(times(at.law_here), at.outside),
            at.verdict,
        )
        for at in found.leverages
    ]
    level = percent(found.leverages[-1].measured.level, 2)
    columns = ("MoE compute", "leverage", f"{level} interval", "in time", f"{found.leverages[-1].law} here", "verdict")
    last = found.leverages[-1].measured
    estimators = ", ".join(f"{_ESTIMATOR[name]} {times(value)}" for name, value in last.by_estimator.items())
    spread = f"the bootstrap alone gives {times(last.bootstrap_low)}–{times(last.bootstrap_high)}"
    return (
        Table(tuple(rows), columns, right=(0, 1, 2, 3, 4), strong=(len(rows) - 1,), source=_MEASURED),
        Paragraph(
            f"Dense compute / MoE compute at equal loss, {FLOPS}; in time: the same in training time on "
            f"{found.runs[-1].device}. Interval: the wider of a bootstrap over seeds and validation documents, paired "
            f"across arms, and the spread between estimators. At the largest budget {spread}; {estimators}."
        ),
    )


_ESTIMATOR = {
    "envelope": "interpolation in the envelope",
    "power_law": "one power law",
    "irreducible_loss": "a power law with an irreducible loss",
}


def _envelopes(found: Verification) -> tuple[Block, ...]:
    rows = [
        (
            ARM[point.arm],
            format_flops(point.train_flops),
            point.rung.partition("/")[2],
            f"{point.loss:.4f}",
            f"{point.loss / math.log(2):.3f}" if found.outline.runs[0].architecture.vocab_size == 256 else NONE,
            str(point.seeds),
            duration(point.seconds),
        )
        for point in found.envelopes
    ]
    columns = ("arm", "compute", "best size", "loss", "bits/token", "seeds", "time")
    return (
        Table(tuple(rows), columns, right=(1, 3, 4, 5, 6), source=_MEASURED),
        Paragraph("The best size of every budget; validation loss in nats a token, averaged over seeds."),
    )


def _routing(found: Verification) -> tuple[Block, ...]:
    rows = [
        (
            format_flops(at.measured.train_flops),
            at.measured.rung.partition("/")[2],
            number(at.load),
            percent(at.dead_experts, 2),
            percent(at.entropy),
        )
        for at in found.leverages
    ]
    columns = ("MoE compute", "size", "largest load", "dead experts", "entropy")
    return (
        Table(tuple(rows), columns, right=(0, 2, 3, 4)),
        Paragraph(ROUTING),
    )


def _controls(found: Verification) -> tuple[Block, ...]:
    rows = [
        (_CONTROL[c.control], f"{number(c.value)}", f"{number(c.low)}–{number(c.high)}", c.verdict, c.checks)
        for c in found.controls
    ]
    return (Table(tuple(rows), ("control", "value", "90 % interval", "verdict", "what must come out"), right=(1, 2)),)


def _runs(found: Verification) -> tuple[Block, ...]:
    blocks: list[Block] = [tuning_table(found.tuning)]
    measured = [run for run in found.runs if run.purpose == "measure"]
    finished = [run for run in measured if run.status == "finished"]
    speeds = {
        arm: sum(r.tokens for r in finished if r.arm == arm)
        / max(1e-9, sum(r.seconds for r in finished if r.arm == arm))
        for arm in ("moe", "dense")
    }
    blocks.append(
        Paragraph(
            f"{len(found.runs)} runs, {len(measured)} of them measured, {len(measured) - len(finished)} of these "
            f"diverged; {format_flops(sum(run.train_flops for run in found.runs))} FLOPs in "
            f"{duration(sum(run.seconds for run in found.runs))} of training on {found.runs[-1].device}: MoE "
            f"{format_count(speeds['moe'])}, dense {format_count(speeds['dense'])} tokens a second a run."
        )
    )
    return tuple(blocks)


def tuning_table(tunings: tuple[Tuning, ...]) -> Table:
    """The learning rates tried for each arm."""
    rows = []
    for tuning in tunings:
        losses = " ".join(
            f"{rate:.3g}: {'diverged' if loss is None else f'{loss:.4f}'}"
            for rate, loss in zip(tuning.learning_rates, tuning.losses, strict=True)
        )
        rows.append((ARM[tuning.arm], tuning.rung, losses, f"{tuning.chosen:.3g}"))
    return Table(tuple(rows), ("arm", "tuned at", "rate: loss", "taken"), right=(3,))


def _kept(outline: Outline) -> tuple[Block, ...]:
    rows = []
    for kept in outline.kept:
        ends = [quantity(kept.variable, value) for value in (kept.low, kept.high)]
        if kept.variable == "attention":
            rows.append((kept.variable, NONE, NONE, kept.reason))
            continue
        value = ends[0] if ends[0] == ends[1] else f"{ends[0]}–{ends[1]}"
        rows.append((kept.variable, quantity(kept.variable, kept.planned), value, kept.reason or "kept"))
    return (Table(tuple(rows), ("", "plan", "proxies", ""), right=(1, 2)),)


def _detectable(found: Verification) -> str:
    return f"These runs can tell a leverage of {times(found.power.detectable)} or more (or its inverse) from 1."


# Before the runs ----------------------------------------------------------------------------------------------------


def outline_sections(outline: Outline) -> list[Section]:
    """What will be run, before anything trains."""
    budgets = " and ".join(map(format_flops, outline.moe_budgets))
    head = f"{cost_text(outline)}; leverage at {budgets} FLOPs."
    rows = tuple(_planned(run) for run in outline.runs)
    columns = (
        "",
        "compute",
        "size",
        "runs",
        "params",
        "active",
        "tokens",
        "epochs",
        "batch",
        "steps",
        "memory",
        "time",
    )
    blocks: list[Block] = [
        Table(rows, columns, right=tuple(range(3, len(columns))), source=COUNTED),
        Paragraph(
            "Each row is one size at one budget; compute, tokens, memory and time are those of one run. Params without "
            f"embeddings; {FLOPS}. Dense runs reach further on both sides, to bracket the MoE's loss."
        ),
    ]
    sections = [
        Section("", (Paragraph(head, COUNTED), Paragraph(setting_text(outline)))),
        Section("Runs", tuple(blocks)),
        Section("What is kept of the plan", _kept(outline)),
    ]
    notes = outline.notes + ((f"The next larger ladder needs {outline.limit}.",) if outline.limit else ())
    if notes:
        sections.append(Section("Notes", (Items(notes),)))
    return sections


def cost_text(outline: Outline) -> str:
    """Runs, compute and time, the beginning of a sentence."""
    total = sum(run.count for run in outline.runs)
    time = "not known" if outline.seconds is None else f"about {duration(outline.seconds)}"
    return (
        f"{total} runs, {format_flops(outline.train_flops)} FLOPs, {time} on this machine ({outline.device}, "
        f"{outline.workers} at a time)"
    )


def setting_text(outline: Outline) -> str:
    """What all runs share, in a sentence."""
    return (
        f"{outline.seeds} seed{'s' * (outline.seeds > 1)}; sequences of {outline.seq_len} tokens; {outline.precision}; "
        f"text: {outline.data} (digest {outline.data_digest}), {format_count(outline.train_tokens)} training tokens, "
        f"losses over {format_count(outline.validation_tokens)} validation tokens."
    )


def _planned(run: PlannedRun) -> tuple[str, ...]:
    what = _CONTROL.get(run.control, f"{ARM[run.arm]}{', tuning' if run.purpose == 'tune' else ''}")
    budget, _, size = run.rung.partition("/")
    return (
        what,
        budget,
        size,
        str(run.count),
        format_count(run.total_params),
        format_count(run.active_params),
        format_count(run.tokens),
        epochs_text(run.epochs),
        format_count(run.batch_tokens),
        str(run.steps),
        format_bytes(run.memory_bytes, 2),
        NONE if run.seconds is None else duration(run.seconds),
    )


def epochs_text(epochs: float) -> str:
    """Repeats of the text."""
    return "< 0.01" if epochs < 0.005 else f"{epochs:.2f}" if epochs < 100 else format_count(epochs)


# Charts -------------------------------------------------------------------------------------------------------------


def verification_charts(found: Verification) -> tuple[Chart, ...]:
    """Loss against compute for both arms with their envelopes; leverage with its interval beside the predicted one."""
    return (_loss_chart(found), _leverage_chart(found))


def _loss_chart(found: Verification) -> Chart:
    series = []
    for arm in ("moe", "dense"):
        own = [r for r in found.runs if (r.arm, r.control, r.purpose, r.status) == (arm, "", "measure", "finished")]
        best = [point for point in found.envelopes if point.arm == arm]
        series.append(
            Series(
                f"{ARM[arm]} envelope",
                tuple(p.train_flops for p in best),
                tuple(p.loss for p in best),
                texts=tuple(p.rung for p in best),
                strong=arm == "moe",
                source=_MEASURED,
            )
        )
        series.append(
            Series(
                f"{ARM[arm]} runs",
                tuple(r.train_flops for r in own),
                tuple(r.loss for r in own),
                kind="points",
                texts=tuple(f"{r.rung}, seed {r.seed}" for r in own),
                source=_MEASURED,
            )
        )
    return Chart(
        "Loss against compute",
        "compute [FLOPs]",
        "validation loss [nats/token]",
        tuple(series),
        x_quantity="flops",
        y_quantity="loss",
        x_log=True,
        y_log=True,
        note="The leverage is the horizontal distance from the MoE's envelope to the dense one.",
    )


def _leverage_chart(found: Verification) -> Chart:
    at = found.leverages
    flops = tuple(one.measured.train_flops for one in at)
    measured = Series(
        "measured",
        flops,
        tuple(one.measured.efficiency_leverage for one in at),
        kind="points",
        low=tuple(one.measured.low for one in at),
        high=tuple(one.measured.high for one in at),
        texts=tuple(one.verdict for one in at),
        strong=True,
        source=_MEASURED,
    )
    law = Series(
        f"{at[-1].law} at the proxies' compute",
        flops,
        tuple(one.law_here for one in at),
        inside=tuple(not one.outside for one in at),
        source=Source("The law at the compute of these runs.", law=at[-1].law, domain=_domain(at[-1])),
    )
    plan = Series(
        "predicted for the plan",
        (found.plan_flops,),
        (found.predicted,),
        kind="points",
        low=(found.predicted_low,),
        high=(found.predicted_high,),
        source=Source("The plan's predicted leverage with its interval.", law=at[-1].law),
    )
    return Chart(
        "Efficiency Leverage, measured and predicted",
        "MoE compute [FLOPs]",
        "dense compute / MoE compute at equal loss",
        (measured, law, plan),
        x_quantity="flops",
        y_quantity="times",
        x_log=True,
        y_log=True,
        levels=(Level("dense", 1.0),),
        note=f"Only the side of 1 is compared. Losses are read up to {REACH:g} times outside the dense budgets.",
    )


def _domain(at: LeverageAt) -> str:
    if not at.outside:
        return "inside"
    return "outside: " + ", ".join(
        f"{o.variable} {quantity(o.variable, o.value)} ({quantity(o.variable, o.low)}–{quantity(o.variable, o.high)})"
        for o in at.outside
    )
