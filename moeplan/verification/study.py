"""`verify`: from a plan to a measured leverage by short proxy runs; `outline` says beforehand what would be run.

The folder of a study keeps every finished run, so that a second call, or one with more seeds, trains only what is
missing. It keeps the ladder chosen for a request as well: a forecast varies from call to call, the runs must not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

from moeplan import records
from moeplan.architecture.conventions import Variables
from moeplan.errors import InfeasibleError, UsageError
from moeplan.laws import load_law
from moeplan.laws.leverage import LEVERAGE_LAW
from moeplan.plan.document import OutsideDomain, Plan
from moeplan.units import format_count, format_flops
from moeplan.verification import estimate, shrink
from moeplan.verification.chosen import keep_chosen, key_of, read_chosen
from moeplan.verification.controls import control_results
from moeplan.verification.ladder import (
    Choice,
    Data,
    Ladder,
    Settings,
    choose_ladder,
    ladder_seconds,
    make_ladder,
)
from moeplan.verification.launch import Listener, launch_ladder
from moeplan.verification.machine import Machine, ladder_outline, probe_machine
from moeplan.verification.power import power
from moeplan.verification.request import SEEDS, Request, Where
from moeplan.verification.spec import RunResult
from moeplan.verification.summary import ARM, retry_notes, summarise, text_notes, tuning_notes, tunings
from moeplan.verification.text import describe
from moeplan.verification.verdict import UNHEALTHY_LOAD, judge
from moeplan.verification.verification import (
    OUTLINE_SCHEMA,
    SCHEMA,
    LeverageAt,
    Outline,
    Point,
    Verification,
)

TIME_ON_CPU, TIME_ON_GPU = 120.0, 300.0
"""Time of the runs where none is given [s]."""


def outline(plan: Plan, folder: str | Path, request: Request | None = None, where: Where | None = None) -> Outline:
    """The runs that `verify` would make, with compute, tokens, memory and time on this machine; nothing trains.

    Raises `InfeasibleError` for a dense plan, or where nothing fits the time, the budget or the data.
    """
    return _prepare(plan, Path(folder), request or Request(), where or Where())[0]


def verify(
    plan: Plan,
    folder: str | Path,
    request: Request | None = None,
    where: Where | None = None,
    *,
    listen: Listener | None = None,
    announce: Callable[[Outline], None] | None = None,
    command: str = "",
) -> Verification:
    """Measure the leverage of a plan's experts by short runs of both arms, kept in `folder`.

    `listen` hears what happens to runs, `announce` gets the outline before anything trains. Raises `InfeasibleError`
    for a dense plan, where nothing fits, or if runs fail; `moeplan.verification.engines.plan.Commands` with the engine
    plan.
    """
    folder, where = Path(folder), where or Where()
    planned, ladder, data = _prepare(plan, folder, request or Request(), where)
    if announce is not None:
        announce(planned)
    tuned, results = launch_ladder(ladder, data, folder, where, listen)
    return conclude(plan, planned, ladder, data, tuned, results, command=command)


# Before the runs ----------------------------------------------------------------------------------------------------


def _prepare(plan: Plan, folder: Path, request: Request, where: Where) -> tuple[Outline, Ladder, Data]:
    if plan.architecture.is_dense:
        raise InfeasibleError("the plan's model is dense, so there is no leverage to verify; plan one with experts")
    data = describe(str(request.data), folder)
    seeds = request.seeds or SEEDS
    key = _key(plan, dataclasses.replace(request, seeds=seeds), where, data)
    kept = _read_outline(folder, key)
    if kept is not None:
        base, planned = kept
        settings = Settings(cast(Literal["fp32", "bf16"], planned.precision), seeds, request.controls)
        return planned, make_ladder(plan.architecture, base, settings, data.vocab_size), data
    here = probe_machine(where)
    time = request.time
    if time is None and request.budget is None:
        time = TIME_ON_GPU if here.is_gpu else TIME_ON_CPU

    def choose(precision: str) -> Choice:
        return choose_ladder(
            plan.architecture,
            Settings(cast(Literal["fp32", "bf16"], precision), seeds, request.controls),
            data,
            time=time,
            budget=request.budget,
            seconds=here.seconds,
            workers=here.workers,
            at_least=request.time is None and request.budget is None,
        )

    kinds = ["bf16", "fp32"]  # which is faster hangs on the size of the runs: the one that allows larger ones is taken
    if request.precision != "auto" or request.budget is not None:
        kinds = [here.precision if request.precision == "auto" else request.precision]
    choices, refused = [], None
    for kind in kinds:
        try:
            choices.append(choose(kind))
        except InfeasibleError as error:
            refused = refused or error
    if refused is not None and not choices:
        raise refused
    choice = max(choices, key=lambda c: (c.ladder.base, -ladder_seconds(c.ladder, data, here.seconds, here.workers)))
    planned = make_outline(plan, choice, data, here)
    # JSON keeps every digit of the base: the runs' digests hang on it
    keep_chosen(folder, key, {"base": choice.ladder.base, "outline": planned.to_json()})
    return planned, choice.ladder, data


def make_outline(plan: Plan, choice: Choice, data: Data, machine: Machine) -> Outline:
    """What a chosen ladder runs, grouped by rung."""
    ladder = choice.ladder
    proxies = tuple({r.architecture: None for r in ladder.rungs if r.arm == "moe" and not r.control})
    notes = []
    for arm in ("moe", "dense"):
        own = [r for r in ladder.rungs if r.arm == arm and not r.control]
        lowest = min(own, key=lambda r: r.train_flops).train_flops
        least = min(shrink.flops_per_token(r.architecture, ladder.seq_len) for r in own if r.train_flops == lowest)
        if least > 1.5 * shrink.optimal_flops_per_token(lowest):
            notes.append(
                f"At {format_flops(lowest)} FLOPs even the smallest {ARM[arm]} proxies are larger than "
                "compute-optimal; a larger budget is fairer."
            )
    if ladder.settings.seeds == 1:
        notes.append("One seed has no spread: the verdict can only be underpowered.")
    kept = shrink.kept(plan.architecture, proxies)
    return ladder_outline(ladder, data, machine, kept=kept, limit=choice.limit, notes=tuple(notes))


def _key(plan: Plan, request: Request, where: Where, data: Data) -> str:
    return key_of(
        {
            "architecture": plan.architecture.to_dict(),
            "request": records.to_json(dataclasses.replace(request, data=data.name)),
            "digest": data.digest,
            "device": where.device,
            "workers": where.workers,
            "schema": OUTLINE_SCHEMA,
        }
    )


def _read_outline(folder: Path, key: str) -> tuple[float, Outline] | None:
    kept = read_chosen(folder, key)
    try:
        return float(kept["base"]), records.from_json(Outline, kept["outline"])
    except (ValueError, KeyError, TypeError, UsageError):  # none yet, or torn: it is made again
        return None


# After the runs -----------------------------------------------------------------------------------------------------


def conclude(
    plan: Plan,
    planned: Outline,
    ladder: Ladder,
    data: Data,
    tuned: list[RunResult],
    results: list[RunResult],
    *,
    command: str = "",
) -> Verification:
    """What finished runs say. Raises `InfeasibleError` if an arm has nothing to read a leverage from."""
    moe, dense = estimate.group_runs(results, "moe"), estimate.group_runs(results, "dense")
    measured = estimate.measure(moe, dense)
    if not measured:
        raise InfeasibleError("too many runs diverged to measure a leverage; try other data, or --precision fp32")
    leverages = tuple(_leverage_at(plan, one, results) for one in measured)
    last = leverages[-1]
    return Verification(
        schema=SCHEMA,
        plan_name=_plan_name(plan),
        predicted=plan.leverage.efficiency_leverage,
        predicted_low=plan.leverage.low,
        predicted_high=plan.leverage.high,
        plan_flops=plan.counts.flops_per_token_tian2025 * plan.design.tokens,
        verdict=last.verdict,
        reason=last.reason,
        outside_domain=any(one.outside for one in leverages),
        leverages=leverages,
        power=power(plan, last, ladder, data, planned),
        controls=control_results(results),
        tuning=tunings(tuned),
        envelopes=tuple(
            Point(arm, g.rung, g.train_flops, sum(g.losses) / len(g.losses), len(g.seeds), g.seconds)
            for arm, groups in (("moe", moe), ("dense", dense))
            for g in estimate.frontier(groups)
        ),
        runs=tuple(summarise(r) for r in (*tuned, *results)),
        outline=planned,
        notes=_notes(leverages, tuned, results),
        command=command,
        versions=results[0].versions,
    )


def _plan_name(plan: Plan) -> str:
    total, active = format_count(plan.design.total_params), format_count(plan.design.active_params)
    return f"{total}-A{active}"


def _leverage_at(plan: Plan, measured: estimate.Measured, results: list[RunResult]) -> LeverageAt:
    behind = [r for r in results if r.spec.rung == measured.rung and (r.spec.arm, r.spec.control) == ("moe", "")]
    spec = behind[0].spec
    law = load_law(LEVERAGE_LAW)
    fit = law.predicting("efficiency_leverage")
    variables = Variables(spec.architecture, spec.seq_len)
    here = float(fit.at(variables, spec.tokens))
    healths = [r.routing for r in behind if r.routing is not None]
    load = max((max(h.load) for h in healths), default=1.0)
    judged = judge(measured, plan_low=plan.leverage.low, plan_high=plan.leverage.high, law_here=here, load=load)
    return LeverageAt(
        measured=measured,
        law=law.full_name,
        law_here=here,
        outside=tuple(
            OutsideDomain(outside.name, outside.value, outside.low, outside.high)
            for outside in fit.outside(variables, spec.tokens)
        ),
        load=load,
        dead_experts=max((max(h.dead_experts) for h in healths), default=0.0),
        entropy=min((min(h.entropy) for h in healths), default=1.0),
        verdict=judged.verdict,
        reason=judged.reason,
    )


def _notes(leverages: tuple[LeverageAt, ...], tuned: list[RunResult], results: list[RunResult]) -> tuple[str, ...]:
    notes = []
    last = leverages[-1]
    if any(one.outside for one in leverages):
        notes.append(
            f"Outside the law's domain: {last.law} was measured from 1e18 FLOPs on, these runs are at most "
            f"{format_flops(last.measured.train_flops)}; its value at their compute is an extrapolation, shown for "
            "orientation and never a test."
        )
    notes += [*tuning_notes(tunings(tuned)), *retry_notes([*tuned, *results])]
    for one in leverages:
        if one.load > UNHEALTHY_LOAD and one.verdict != "router unhealthy":
            notes.append(
                f"At {format_flops(one.measured.train_flops)} FLOPs an expert has {one.load:.1f} times the mean load."
            )
    if last.measured.bound:
        notes.append(
            f"The dense runs do not reach the loss of the MoE within a factor of {estimate.REACH:g}, so the leverage "
            f"is a bound: {last.measured.bound} {last.measured.efficiency_leverage:.3g}."
        )
    return (*notes, *text_notes([*tuned, *results]))
