"""`verify`: from a plan to a measured leverage by short proxy runs; `outline` says beforehand what would be run.

The folder of a study keeps every finished run, so that a second call, or one with more seeds, trains only what is
missing. It keeps the ladder chosen for a request as well: a forecast varies from call to call, the runs must not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from moeplan import records
from moeplan.errors import InfeasibleError, UsageError
from moeplan.files import atomic_write
from moeplan.laws import load_law
from moeplan.leverage import LEVERAGE_LAW
from moeplan.plan import OutsideDomain, Plan
from moeplan.units import format_count, format_flops
from moeplan.variables import Variables
from moeplan.verify import estimate, shrink
from moeplan.verify.controls import control_results
from moeplan.verify.ladder import (
    Choice,
    Data,
    Ladder,
    Seconds,
    Settings,
    choose_ladder,
    ladder_flops,
    ladder_seconds,
    make_ladder,
    most_epochs,
    transfer_learning_rate,
    tuned_rates,
)
from moeplan.verify.launch import Event, Listener, cores, launch
from moeplan.verify.power import power
from moeplan.verify.request import Request, Where
from moeplan.verify.spec import RunResult, RunSpec
from moeplan.verify.text import describe
from moeplan.verify.verdict import UNHEALTHY_LOAD, judge
from moeplan.verify.verification import (
    OUTLINE_SCHEMA,
    SCHEMA,
    LeverageAt,
    Outline,
    PlannedRun,
    Point,
    RunSummary,
    Tuning,
    Verification,
)

TIME_ON_CPU, TIME_ON_GPU = 120.0, 300.0
"""Time of the runs where none is given [s]."""


@dataclass(frozen=True)
class Machine:
    """What a study must know of the machine: the probe's answer."""

    device: str
    """What it is."""
    is_gpu: bool
    """Whether that is a GPU."""
    precision: Literal["fp32", "bf16"]
    """The faster arithmetic."""
    workers: int
    """Runs that train at a time at full speed."""
    seconds: Seconds
    """Forecast of a run's time, start and validation included [s]."""


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
    for a dense plan, where nothing fits, or if runs fail; `moeplan.verify.engines.plan.Commands` with the engine plan.
    """
    folder, where = Path(folder), where or Where()
    planned, ladder, data = _prepare(plan, folder, request or Request(), where)
    if announce is not None:
        announce(planned)
    listen = listen or _quiet
    tuned = launch(ladder.tuning(data), folder, where, listen)
    rates = tuned_rates([(r.spec, r.loss if r.status == "finished" else math.inf) for r in tuned])
    results = launch(ladder.measured(data, rates, transfer_learning_rate), folder, where, listen)
    return conclude(plan, planned, ladder, data, tuned, results, command=command)


def _quiet(event: Event) -> None:
    pass


# Before the runs ----------------------------------------------------------------------------------------------------


def _prepare(plan: Plan, folder: Path, request: Request, where: Where) -> tuple[Outline, Ladder, Data]:
    if plan.architecture.is_dense:
        raise InfeasibleError("the plan's model is dense, so there is no leverage to verify; plan one with experts")
    data = describe(str(request.data), folder)
    key = _key(plan, request, where, data)
    kept = _read_outline(folder, key)
    if kept is not None:
        base, planned = kept
        settings = Settings(cast(Literal["fp32", "bf16"], planned.precision), request.seeds, request.controls)
        return planned, make_ladder(plan.architecture, base, settings, data.vocab_size), data
    here = probe_machine(where)
    time = request.time
    if time is None and request.budget is None:
        time = TIME_ON_GPU if here.is_gpu else TIME_ON_CPU

    def choose(precision: str) -> Choice:
        return choose_ladder(
            plan.architecture,
            Settings(cast(Literal["fp32", "bf16"], precision), request.seeds, request.controls),
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
    _write_outline(folder, key, choice.ladder.base, planned)
    return planned, choice.ladder, data


def probe_machine(where: Where) -> Machine:
    """Measure this machine for a few seconds."""
    from moeplan.verify.probe import probe

    found = probe(where.device)
    gpu = found.device_type == "cuda"

    def seconds(spec: RunSpec) -> float:
        return float(found.seconds(spec))

    workers = where.workers or (found.num_devices if gpu else cores())
    return Machine(found.device, gpu, found.precision, workers, seconds)


def make_outline(plan: Plan, choice: Choice, data: Data, machine: Machine) -> Outline:
    """What a chosen ladder runs, grouped by rung."""
    ladder = choice.ladder
    groups: dict[tuple[str, str, str, str], list[RunSpec]] = {}
    for spec in ladder.specs(data):
        groups.setdefault((spec.purpose, spec.control, spec.arm, spec.rung), []).append(spec)
    proxies = tuple({r.architecture: None for r in ladder.rungs if r.arm == "moe" and not r.control})
    notes = []
    for arm in ("moe", "dense"):
        own = [r for r in ladder.rungs if r.arm == arm and not r.control]
        lowest = min(own, key=lambda r: r.train_flops).train_flops
        least = min(shrink.flops_per_token(r.architecture, ladder.seq_len) for r in own if r.train_flops == lowest)
        if least > 1.5 * shrink.optimal_flops_per_token(lowest):
            notes.append(
                f"At {format_flops(lowest)} FLOPs even the smallest {_ARM[arm]} proxies are larger than "
                "compute-optimal; a larger budget is fairer."
            )
    if ladder.settings.seeds == 1:
        notes.append("One seed has no spread: the verdict can only be underpowered.")
    return Outline(
        schema=OUTLINE_SCHEMA,
        runs=tuple(_planned_run(specs, data, machine) for specs in groups.values()),
        kept=shrink.kept(plan.architecture, proxies),
        moe_budgets=ladder.moe_budgets,
        dense_budgets=ladder.dense_budgets,
        seeds=ladder.settings.seeds,
        seq_len=ladder.seq_len,
        precision=ladder.settings.precision,
        data=data.name,
        data_digest=data.digest,
        train_tokens=data.train_tokens,
        validation_tokens=ladder.validation_tokens,
        train_flops=ladder_flops(ladder, data),
        seconds=ladder_seconds(ladder, data, machine.seconds, machine.workers),
        workers=machine.workers,
        device=machine.device,
        limit=choice.limit,
        notes=tuple(notes),
    )


_ARM = {"moe": "MoE", "dense": "dense"}


def _planned_run(specs: list[RunSpec], data: Data, machine: Machine) -> PlannedRun:
    spec = specs[0]
    shape, batch = spec.architecture, spec.batch_sequences * spec.seq_len
    return PlannedRun(
        arm=spec.arm,
        control=spec.control,
        purpose=spec.purpose,
        rung=spec.rung,
        count=len(specs),
        architecture=shape,
        total_params=shape.total_params("non_embedding"),
        active_params=shape.active_params("non_embedding"),
        tokens=spec.tokens,
        epochs=spec.tokens / data.train_tokens,
        batch_tokens=batch,
        steps=spec.steps,
        train_flops=spec.tokens * shrink.flops_per_token(shape, spec.seq_len),
        seconds=machine.seconds(spec),
        memory_bytes=memory_bytes(spec),
    )


def memory_bytes(spec: RunSpec) -> float:
    """About what a run needs [bytes].

    16 bytes a param (fp32 weight, gradient and two moments), 4 more for bf16 copies of weight and gradient; activations
    of a step at 4 bytes: per layer 14*d_model + 6*active expert width, and three times the logits.
    """
    shape = spec.architecture
    state = shape.total_params() * (16 + 4 * (spec.precision == "bf16"))
    width = shape.num_active_experts * shape.d_expert + shape.num_shared_experts * shape.d_shared_expert or shape.d_ff
    per_token = shape.num_layers * (14 * shape.d_model + 6 * width) + 3 * shape.vocab_size
    return float(state + 4 * per_token * spec.batch_sequences * spec.seq_len)


def _key(plan: Plan, request: Request, where: Where, data: Data) -> str:
    asked = {
        "architecture": plan.architecture.to_dict(),
        "request": records.to_json(dataclasses.replace(request, data=data.name)),
        "digest": data.digest,
        "device": where.device,
        "workers": where.workers,
        "schema": OUTLINE_SCHEMA,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _read_outline(folder: Path, key: str) -> tuple[float, Outline] | None:
    try:
        kept = json.loads((folder / "ladders" / f"{key}.json").read_text(encoding="utf-8"))
        return float(kept["base"]), records.from_json(Outline, kept["outline"])
    except (OSError, ValueError, KeyError, TypeError, UsageError):  # none yet, or torn: it is made again
        return None


def _write_outline(folder: Path, key: str, base: float, planned: Outline) -> None:
    inside = folder / "ladders"
    try:
        inside.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {(error.strerror or str(error)).lower()}") from None
    with atomic_write(inside / f"{key}.json") as file:
        # repr keeps every digit of the base: the runs' digests hang on it
        file.write(json.dumps({"base": base, "outline": planned.to_json()}, indent=1) + "\n")


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
        tuning=tuple(_tuning(tuned, arm, ladder) for arm in ("moe", "dense")),
        envelopes=tuple(
            Point(arm, g.rung, g.train_flops, sum(g.losses) / len(g.losses), len(g.seeds), g.seconds)
            for arm, groups in (("moe", moe), ("dense", dense))
            for g in estimate.frontier(groups)
        ),
        runs=tuple(_summary(r) for r in (*tuned, *results)),
        outline=planned,
        notes=_notes(plan, leverages, tuned, results, ladder, data),
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


def _tuning(tuned: list[RunResult], arm: str, ladder: Ladder) -> Tuning:
    own = sorted((r for r in tuned if r.spec.arm == arm), key=lambda r: r.spec.learning_rate)
    rates = tuple(r.spec.learning_rate for r in own)
    losses = tuple(r.loss if r.status == "finished" else None for r in own)
    chosen = min((loss, rate) for loss, rate in zip(losses, rates, strict=True) if loss is not None)[1]
    return Tuning(arm, own[0].spec.rung, rates, losses, chosen, chosen in (rates[0], rates[-1]))


def _summary(result: RunResult) -> RunSummary:
    spec, routing = result.spec, result.routing
    return RunSummary(
        digest=spec.digest,
        arm=spec.arm,
        control=spec.control,
        purpose=spec.purpose,
        rung=spec.rung,
        seed=spec.seed,
        architecture=spec.architecture,
        tokens=spec.tokens,
        epochs=result.epochs,
        train_flops=result.train_flops,
        batch_tokens=spec.batch_sequences * spec.seq_len,
        learning_rate=result.learning_rate,
        status=result.status,
        attempts=result.attempts,
        loss=result.loss,
        seconds=result.seconds,
        tokens_per_second=result.tokens_per_second,
        mfu=result.mfu,
        load=max(routing.load) if routing else None,
        dead_experts=max(routing.dead_experts) if routing else None,
        entropy=min(routing.entropy) if routing else None,
        device=result.device,
    )


def _notes(
    plan: Plan,
    leverages: tuple[LeverageAt, ...],
    tuned: list[RunResult],
    results: list[RunResult],
    ladder: Ladder,
    data: Data,
) -> tuple[str, ...]:
    notes = []
    last = leverages[-1]
    if any(one.outside for one in leverages):
        notes.append(
            f"Outside the law's domain: {last.law} was measured from 1e18 FLOPs on, these runs are at most "
            f"{format_flops(last.measured.train_flops)}; its value at their compute is an extrapolation, shown for "
            "orientation and never a test."
        )
    for arm in ("moe", "dense"):
        tuning = _tuning(tuned, arm, ladder)
        if tuning.at_edge:
            notes.append(
                f"The best learning rate of the {_ARM[arm]} arm, {tuning.chosen:.3g}, is at the edge of those tried."
            )
    retried = [r for r in (*tuned, *results) if r.attempts > 1]
    if retried:
        again = sum(r.status == "finished" for r in retried)
        notes.append(
            f"{len(retried)} runs diverged at first; {again} of them finished at half the learning rate, "
            f"{len(retried) - again} diverged again and count nowhere."
        )
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
    epochs = most_epochs(ladder, data)
    if epochs > 1:
        notes.append(f"The longest run repeats the text {epochs:.1f} times.")
    if len({r.device for r in results}) > 1:
        notes.append("The runs were made on different devices, so their times do not compare.")
    return tuple(notes)
