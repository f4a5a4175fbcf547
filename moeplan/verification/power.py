"""Ways to resolve the side of 1: more seeds at the same budgets, or larger budgets."""

from __future__ import annotations

import math

from moeplan.architecture.conventions import Variables
from moeplan.laws import load_law
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.document import Plan
from moeplan.units import format_flops
from moeplan.verification.ladder import (
    MAX_EPOCHS,
    STEP,
    WIDE,
    Data,
    Ladder,
    Seconds,
    ladder_seconds,
    make_ladder,
    most_epochs,
    with_seeds,
)
from moeplan.verification.options import duration_option
from moeplan.verification.shrink import flops_per_token
from moeplan.verification.spec import RunSpec
from moeplan.verification.verdict import resolved_side, seeds_needed, side
from moeplan.verification.verification import LeverageAt, Outline, Power

MOST_SEEDS = 100
"""More seeds than this are not proposed."""
SPARE = 1.05
"""A proposed time is the forecast times this, so that the ladder it is for fits."""
WITHIN_REACH = 86400.0
"""Time of runs beyond which none are advised [s]: a day on the machine at hand."""
MOST_FLOPS = 1e21
"""Budgets up to here are tried."""


def forecast(planned: Outline) -> Seconds:
    """Time of a run [s] by the outline's own forecasts: that of its rung, else by the arm's largest, per FLOP."""
    known = {(run.arm, run.control, run.rung): run.seconds for run in planned.runs if run.seconds}
    rates = {}
    for run in sorted(planned.runs, key=lambda run: run.train_flops):
        if run.seconds and not run.control:
            rates[run.arm] = run.seconds / run.train_flops

    def seconds(spec: RunSpec) -> float:
        found = known.get((spec.arm, spec.control, spec.rung))
        if found is not None:
            return found
        return rates[spec.arm] * spec.tokens * flops_per_token(spec.architecture, spec.seq_len)

    return seconds


def power(plan: Plan, at: LeverageAt, ladder: Ladder, data: Data, planned: Outline) -> Power:
    """Seeds or budgets that would resolve the side of 1, with its time on the machine that the outline is for.

    Seeds: by how far the bootstrap's interval reaches past 1, if the measured leverage holds. Budget: where the law,
    extrapolated, lies on the plan's side by the present half-width; it tells where to look, not what will be found.
    """
    measured, seconds, workers = at.measured, forecast(planned), planned.workers
    half_width = math.log(measured.high / measured.low) / 2
    resolved = at.verdict in ("consistent", "inconsistent in sign")
    seeds = seeds_seconds = None
    if not resolved and resolved_side(measured.low, measured.high) == 0:
        seeds = seeds_needed(measured)
    if seeds is not None and seeds > MOST_SEEDS:
        seeds = None
    if seeds is not None:
        more = make_ladder(plan.architecture, ladder.base, with_seeds(ladder.settings, seeds), data.vocab_size)
        seeds_seconds = SPARE * ladder_seconds(more, data, seconds, workers)
    flops = flops_seconds = None
    enough = True
    if not resolved:
        flops = _where_law_tells(plan, half_width)
        if flops is not None:
            flops = max(flops, measured.train_flops * STEP)
            larger = _reaching(plan, ladder, flops, data)
            flops_seconds = SPARE * ladder_seconds(larger, data, seconds, workers)
            enough = most_epochs(larger, data) <= MAX_EPOCHS
    return Power(
        detectable=math.exp(half_width),
        seeds=seeds,
        seeds_seconds=seeds_seconds,
        train_flops=flops,
        train_flops_seconds=flops_seconds,
        says=_says(resolved, seeds, seeds_seconds, flops, flops_seconds, enough),
    )


def _where_law_tells(plan: Plan, half_width: float) -> float | None:
    """The least budget at which the law lies on the plan's side of 1 by `half_width` in ln; None up to `MOST_FLOPS`."""
    fit = load_law(LEVERAGE_LAW).predicting("efficiency_leverage")
    variables, seq_len = Variables(plan.architecture, plan.request.seq_len), plan.request.seq_len
    per_token = float(Variables(plan.architecture, seq_len).get("flops_per_token", fit.convention("train_flops")))
    claimed = side(plan.leverage.pooled.middle)
    flops = 1e9
    while flops <= MOST_FLOPS:
        if claimed * math.log(float(fit.at(variables, flops / per_token))) >= half_width:
            return flops
        flops *= STEP
    return None


def _reaching(plan: Plan, ladder: Ladder, flops: float, data: Data) -> Ladder:
    """The smallest ladder whose largest MoE budget is `flops` or more."""
    base = ladder.base
    if flops > WIDE[0][-1] * base:  # not below, and the last steps one by one
        base *= STEP ** math.floor(math.log(flops / (WIDE[0][-1] * base), STEP))
    while True:
        larger = make_ladder(plan.architecture, base, ladder.settings, data.vocab_size)
        if larger.moe_budgets[-1] >= flops * 0.999:
            return larger
        base *= STEP


def _says(
    resolved: bool,
    seeds: int | None,
    seeds_seconds: float | None,
    flops: float | None,
    flops_seconds: float | None,
    enough: bool,
) -> str:
    if resolved:
        return "The side of 1 is resolved."
    parts = []
    if seeds is not None and seeds_seconds is not None and seeds_seconds <= WITHIN_REACH:
        parts.append(
            f"If the leverage is what was measured, {seeds} seeds would resolve its side: --seeds {seeds} --time "
            f"{duration_option(seeds_seconds)}; finished runs of the same ladder count."
        )
    if flops is not None and flops_seconds is not None and flops_seconds <= WITHIN_REACH:
        text = "" if enough else ", and more text than there is here (--data)"
        parts.append(
            f"{'Or larger runs' if parts else 'Larger runs'}: the law, extrapolated, is on the plan's side of 1 by as "
            f"much as this interval is wide at MoE runs of {format_flops(flops, 2)} FLOPs: --time "
            f"{duration_option(flops_seconds)} on this machine{text}."
        )
    return " ".join(parts) or (
        "Neither more seeds nor larger runs that this machine makes within a day would resolve the side of 1; a GPU "
        "makes runs a thousand times as large: --device cuda --time 1h, there or by --engine slurm or ray."
    )
