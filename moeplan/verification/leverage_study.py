"""The study of a plan's leverage: proxy runs with its experts and dense ones beside them, and what they say."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from moeplan import records
from moeplan.architecture.conventions import Variables
from moeplan.errors import InfeasibleError
from moeplan.estimates import Estimate
from moeplan.laws import load_law
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.document import Plan
from moeplan.units import format_count, format_flops
from moeplan.verification import estimate, shrink
from moeplan.verification.choice import LadderChoice, choose_ladder
from moeplan.verification.controls import control_results
from moeplan.verification.formats import BYTE_VALUES
from moeplan.verification.groups import group_runs
from moeplan.verification.kept_choice import KeptChoice
from moeplan.verification.ladder import Data, Ladder, Settings, ladder_seconds, make_ladder
from moeplan.verification.machine import Machine, ladder_outline
from moeplan.verification.options import SEEDS, StudyOptions, Where
from moeplan.verification.power import power
from moeplan.verification.spec import RunResult
from moeplan.verification.study import Prepared, Study
from moeplan.verification.summary import ARM, execution_notes, retry_notes, summarise, text_notes, tuning_notes, tunings
from moeplan.verification.verdict import UNHEALTHY_LOAD, reach_verdict
from moeplan.verification.verification import OUTLINE_SCHEMA, SCHEMA, BestSize, LeverageAt, Outline, Verification

TIME_ON_CPU, TIME_ON_GPU = 120.0, 300.0
"""Time of the runs where none is given [s]."""


@dataclass(frozen=True)
class LeverageStudy(Study[Verification]):
    """Measures the leverage of a plan's experts by short runs of both arms.

    Raises `InfeasibleError` for a dense plan.
    """

    plan: Plan
    """The plan whose experts are tried."""
    request: StudyOptions = field(default_factory=StudyOptions)
    """Time or budget, seeds, text, controls, arithmetic."""

    def __post_init__(self) -> None:
        if self.plan.architecture.is_dense:
            raise InfeasibleError("the plan's model is dense, so there is no leverage to verify; plan one with experts")

    @property
    def subject(self) -> Plan:
        """The plan."""
        return self.plan

    @property
    def seeds(self) -> int:
        """Seeds of every rung."""
        return self.request.seeds or SEEDS

    def check_request(self) -> None:
        """Raise `InfeasibleError` for a budget below that of the smallest ladder on any amount of plain text."""
        if self.request.budget is not None:
            plenty = Data("", "", BYTE_VALUES, 2**62)
            choose_ladder(self.plan.architecture, self.settings("fp32"), plenty, budget=self.request.budget)

    def key(self, data: Data, where: Where) -> Any:
        """The plan's architecture, the request and the text, and where the runs happen."""
        request = dataclasses.replace(self.request, seeds=self.seeds, data=data.name)
        return {
            "architecture": self.plan.architecture.to_dict(),
            "request": records.to_json(request),
            "digest": data.digest,
            "device": where.device,
            "workers": where.workers,
            "schema": OUTLINE_SCHEMA,
        }

    def is_choice_for(self, kept: KeptChoice, where: Where) -> bool:
        """Always: the key holds everything that the choice hangs on."""
        return True

    def ladder_again(self, kept: KeptChoice, settings: Settings, data: Data) -> Ladder:
        """The ladder of the kept base."""
        return make_ladder(self.plan.architecture, kept.base, settings, data.vocab_size)

    def choose(self, data: Data, machine: Machine, kept: KeptChoice | None) -> tuple[Ladder, Outline]:
        """The largest ladder within the time or budget, in the arithmetic that allows the larger one."""
        # which arithmetic is faster hangs on the size of the runs: both are tried
        kinds = ["bf16", "fp32"]
        if self.request.precision != "auto" or self.request.budget is not None:
            kinds = [machine.precision if self.request.precision == "auto" else self.request.precision]
        choices, refused = [], None
        for kind in kinds:
            try:
                choices.append(self._choice(kind, data, machine))
            except InfeasibleError as error:
                refused = refused or error
        if refused is not None and not choices:
            raise refused
        choice = max(
            choices, key=lambda c: (c.ladder.base, -ladder_seconds(c.ladder, data, machine.seconds, machine.workers))
        )
        return choice.ladder, self.outline_of(choice, data, machine)

    def _choice(self, precision: str, data: Data, machine: Machine) -> LadderChoice:
        asked_nothing = self.request.time is None and self.request.budget is None
        time = self.request.time
        if asked_nothing:
            time = TIME_ON_GPU if machine.is_gpu else TIME_ON_CPU
        return choose_ladder(
            self.plan.architecture,
            self.settings(precision),
            data,
            time=time,
            budget=self.request.budget,
            seconds=machine.seconds,
            workers=machine.workers,
            at_least=asked_nothing,
        )

    def outline_of(self, choice: LadderChoice, data: Data, machine: Machine) -> Outline:
        """The outline of a chosen ladder, grouped by rung."""
        ladder = choice.ladder
        proxies = tuple({r.architecture: None for r in ladder.rungs if r.arm == "moe" and not r.control})
        kept = shrink.kept(self.plan.architecture, proxies)
        return ladder_outline(ladder, data, machine, kept=kept, limit=choice.limit, notes=_outline_notes(ladder))

    def conclude(
        self, prepared: Prepared, tuned: list[RunResult], results: list[RunResult], *, command: str = ""
    ) -> Verification:
        """The measured leverage. Raises `InfeasibleError` if an arm has nothing to read a leverage from."""
        plan, pooled = self.plan, self.plan.leverage.pooled
        moe, dense = group_runs(results, "moe"), group_runs(results, "dense")
        measured = estimate.measure(moe, dense)
        if not measured:
            raise InfeasibleError("too many runs diverged to measure a leverage; try other data, or --precision fp32")
        leverages = tuple(_leverage_at(plan, one, results) for one in measured)
        last = leverages[-1]
        return Verification(
            schema=SCHEMA,
            plan_name=_plan_name(plan),
            predicted=Estimate(pooled.middle, pooled.low, pooled.high),
            plan_flops=plan.counts.flops_per_token_tian2025 * plan.design.tokens,
            plan_decades_outside=pooled.decades_outside,
            verdict=last.verdict,
            reason=last.reason,
            outside_domain=any(one.outside for one in leverages),
            leverages=leverages,
            power=power(plan, last, prepared.ladder, prepared.data, prepared.outline),
            controls=control_results(results),
            tuning=tunings(tuned),
            envelopes=tuple(
                BestSize(arm, g.rung, g.train_flops, sum(g.losses) / len(g.losses), len(g.seeds), g.seconds)
                for arm, groups in (("moe", moe), ("dense", dense))
                for g in estimate.frontier(groups)
            ),
            runs=tuple(summarise(r) for r in (*tuned, *results)),
            outline=prepared.outline,
            notes=_notes(leverages, tuned, results),
            command=command,
            versions=results[0].versions,
        )


def _outline_notes(ladder: Ladder) -> tuple[str, ...]:
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
    return tuple(notes)


def _plan_name(plan: Plan) -> str:
    total, active = format_count(plan.design.total_params), format_count(plan.design.active_params)
    return f"{total}-A{active}"


def _leverage_at(plan: Plan, measured: estimate.MeasuredLeverage, results: list[RunResult]) -> LeverageAt:
    behind = [r for r in results if r.spec.rung == measured.rung and (r.spec.arm, r.spec.control) == ("moe", "")]
    spec = behind[0].spec
    law = load_law(LEVERAGE_LAW)
    fit = law.predicting("efficiency_leverage")
    variables = Variables(spec.architecture, spec.seq_len)
    here = float(fit.at(variables, spec.tokens))
    healths = [r.routing for r in behind if r.routing is not None]
    load = max((max(h.load) for h in healths), default=1.0)
    pooled = plan.leverage.pooled
    judged = reach_verdict(measured, plan_low=pooled.low, plan_high=pooled.high, law_here=here, load=load)
    return LeverageAt(
        measured=measured,
        law=law.full_name,
        law_here=here,
        outside=fit.outside(variables, spec.tokens),
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
    return (*notes, *execution_notes([*tuned, *results]), *text_notes([*tuned, *results]))
