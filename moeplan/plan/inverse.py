"""The inverse questions: from a target to the smallest budget, `recommend_for(target_el=7, memory="80GB")`.

On GPUs the budget is the clock: the least days, and so the least GPU-hours and money, of training and of what is
served.

The budget found is the smallest whose recommendation reaches the target: an Efficiency Leverage by the leverage law, or
the work of a dense model, C*EL*phi of the plan against C*phi of the dense model, in that law's FLOPs. Recommendations
maximise V, not EL, so what they reach is not monotone in the budget (EL peaks where compute outgrows memory, and ties
move it by a few per cent); therefore every step of 1 % between the smallest and the largest budget is in question, and
none is skipped but by bounds that prove that it falls short (`moeplan.plan.sweep`). Between two steps nothing is
asked.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moeplan.architecture.conventions import Variables
from moeplan.architecture.proportions import dense_of_size, dense_shape
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import flops_of_time, parse_gpus
from moeplan.cost.inference_memory import inference_bytes
from moeplan.errors import InfeasibleError, LawError, UsageError
from moeplan.laws import Law, load_law
from moeplan.laws.dense import dense_compute, dense_fit, dense_loss, dense_phi, dense_size
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.numerics import Floats
from moeplan.plan.assembly import assemble, leverage_of
from moeplan.plan.budget import GOODPUT, NOMINAL_MFU, OPTIMISE, Budget
from moeplan.plan.budget_fields import make_budget, serving_of
from moeplan.plan.choice import Choice
from moeplan.plan.document import Plan
from moeplan.plan.existing import read_model
from moeplan.plan.goal import DenseGoal, Goal, GoalPoint
from moeplan.plan.law_selection import Laws, LawSelection, select_laws
from moeplan.plan.planner import check_whole
from moeplan.plan.search.grid import Grid
from moeplan.plan.search.scores import Scores
from moeplan.plan.search.space import Space
from moeplan.plan.sweep import Sweep
from moeplan.plan.sweep_spaces import Gain
from moeplan.units import MemoryLimit, format_bytes, format_count, format_flops, parse_count

FLOPS_SEARCHED = 1e17, 1e27
"""Compute that is searched [FLOPs]."""
BYTES_SEARCHED = 1e8, 1e14
"""Memory of one device that is searched [bytes]."""
_PER_DECADE = 231
"""Budgets in a factor of 10: steps of 1 %, rounded to three digits."""
_FACTORS = (0.1, 0.5, 1 / 1.1, 1.0, 1.1, 2.0, 10.0)
"""Where the neighbours of the budget found are shown."""
_ABOVE = 1.25
"""How far above the budget found it is looked whether the target is still reached."""
_SAMPLE = 16
"""Every how many budgets the largest value that can be had is looked for, where the target cannot; then at each beside
the best of these."""


def recommend_for(
    *,
    target_el: float | None = None,
    match_dense: str | float | Path | None = None,
    dense_tokens: str | float | None = None,
    flops: str | float | None = None,
    memory: str | MemoryLimit | None = None,
    optimise: str = "",
    laws: Laws = None,
    alternatives: int = 5,
    threads: int = 1,
    command: str = "",
    progress: Callable[[str], None] | None = None,
    grid: Grid | None = None,
    **fields: Any,
) -> Plan:
    """The plan at the smallest compute, time or memory whose recommendation reaches a target.

    Parameters
    ----------
    target_el : float, optional
        Efficiency Leverage to reach, by the leverage law alone: every design of the grid can be asked for its formula,
        while other laws' dense models are found by searches of their own.
    match_dense : str or float, optional
        The dense model to equal in its place: params ("70B"), a `config.json`, or the name of a bundled model.
    dense_tokens : str or float, optional
        Its training tokens ("2T"); by default those published.
    flops, memory
        The limit that is given [FLOPs, bytes]; the other is found, with `gpus` in days. With `match_dense`, neither
        finds the compute, or the days, within the memory that the dense model itself needs.
    optimise : str, optional
        What is to be the least: "time" or "money" (of given GPUs, and of what they cost, both are in proportion), by
        default with `gpus`; or "flops". Where something is served (`moeplan.plan.budget.Budget.demand`) it is of
        training and serving together.
    laws, alternatives, threads, command, progress
        As `moeplan.plan.planner.recommend` takes them.
    grid : Grid, optional
        In place of the declared grid, at one vocabulary.
    **fields
        The other fields of `moeplan.plan.budget.Budget` and of `InferenceSettings`, by name.

    Raises
    ------
    UsageError
        For targets and limits that cannot be.
    InfeasibleError
        If no budget that is searched reaches the target; the message names the best that can be had.
    """
    check_whole("alternatives", alternatives, 0, 100)
    check_whole("threads", threads, 1, 1024)
    _check_target(target_el, match_dense, dense_tokens)
    given = {**fields, "flops": flops, "memory": memory}
    absent = [name for name, value in given.items() if value is None or (name in ("flops", "days") and not value)]
    given = {name: value for name, value in given.items() if name not in absent}
    if "training" in given.get("memory_for", ()):
        raise UsageError("a target is searched under the memory of the served model; leave out memory_for training")
    selected = select_laws(laws)
    law = load_law(LEVERAGE_LAW)
    dense = None if match_dense is None else _read_dense(match_dense, dense_tokens, given, law)
    served_on = given.get("serve_gpus")
    own_memory = dense is not None and served_on is None and not {"flops", "days", "memory"} & set(given)
    if dense is not None and own_memory:
        given["memory"] = dense.memory
    finds = _what_to_find(given if served_on is None else {"memory": served_on, **given}, optimise)
    _check_optimise(optimise, given, finds)
    if optimise and (finds == "days" or given.get("days")):
        given["optimise"] = optimise
    budgets = _budgets(finds, given)
    say = progress or (lambda _: None)
    sweep = Sweep(budgets, selected, threads=threads, say=say, grid=grid)
    search = _Search(sweep, finds, law, target_el, dense, say, tuple(_vocabulary(given)))
    try:
        step, goal = search.goal()
    except InfeasibleError as error:
        if dense is None or not own_memory:
            raise
        raise InfeasibleError(
            f"{error}; {dense.memory} is what the dense {dense.asked} model itself needs, taken as the limit because "
            "none is given: add --memory 80GB"
        ) from None
    say("writing the plan")
    choice = search.trained(step)
    plan = assemble(choice, selected, num_alternatives=alternatives, command=command)
    if dense is not None:
        goal = dataclasses.replace(goal, dense=dense.goal(choice, selected))
    if plan.life is not None and plan.life.paid_in == "gpu_hours":
        hours = plan.life.gpu_hours(choice.budget.serving_hour)
        goal = dataclasses.replace(goal, gpu_hours=hours, money=plan.life.money)
    elif finds == "days":
        goal = dataclasses.replace(goal, gpu_hours=plan.training.gpu_hours, money=plan.training.money)
    return Plan.from_json(dataclasses.replace(plan, goal=goal).to_json())


def _check_optimise(optimise: str, given: Mapping[str, Any], finds: str) -> None:
    """Refuse to look for the least of what no budget is counted in, or of money where nothing says what it costs."""
    if optimise not in ("", *OPTIMISE):
        raise UsageError(f"optimise {optimise!r} must be {', '.join(OPTIMISE[:-1])} or {OPTIMISE[-1]}")
    if optimise == "time" and not given.get("gpus"):
        raise UsageError("the least time needs the GPUs that train; add --gpus 64xH100")
    if optimise != "money":
        return
    if finds == "memory":
        raise UsageError("the cheapest life is a budget that is found; leave out --flops and --days")
    needs = {"price_per_gpu_hour": "--price-per-gpu-hour 2.5"}
    if not given.get("gpus"):  # hours of training are known of GPUs, or by a utilisation of those that serve
        needs |= {"served": "--served 1T", "serve_gpus": "--serve-gpus 8xH100"}
        needs |= {} if given.get("mfu") else {"gpus": "--gpus 64xH100"}
    missing = [example for name, example in needs.items() if not given.get(name)]
    if missing:
        raise UsageError(f"the cheapest life needs its prices and its demand; add {' '.join(missing)}")


def _check_target(target_el: float | None, match_dense: object, dense_tokens: object) -> None:
    if dense_tokens is not None and match_dense is None:
        raise UsageError("--dense-tokens belongs to --match-dense; add --match-dense 70B")
    if (target_el is None) == (match_dense is None):
        raise UsageError("give one target: --target-el 7, or --match-dense 70B with --dense-tokens 2T")
    if target_el is None:
        return
    if isinstance(target_el, bool) or not isinstance(target_el, (int, float)) or not math.isfinite(target_el):
        raise UsageError(f"target_el {target_el!r} must be a number, and finite, for example 7")
    if target_el <= 1:
        raise UsageError(f"target_el {target_el:g} must be above 1, what a dense model has by definition")


def _what_to_find(given: Mapping[str, Any], optimise: str) -> str:
    """flops, days or memory: the limit that is not given, by the clock where GPUs are."""
    has_flops, has_memory = bool({"flops", "days"} & set(given)), "memory" in given
    if has_flops and has_memory:
        both = "days" if "days" in given else "compute"
        raise UsageError(f"{both} and memory are both given, so no target is left to search for; leave one of them out")
    if has_flops:
        return "memory"
    if given.get("gpus") and optimise != "flops":
        return "days"
    if not has_memory and not given.get("gpus"):
        raise UsageError("give --memory 80GB to find the compute, or --flops 1e22 to find the memory")
    return "flops"


def _budgets(finds: str, given: Mapping[str, Any]) -> list[Budget]:
    """Budgets in steps of 1 %, rounded to three digits, from the smallest to the largest."""
    low, high = BYTES_SEARCHED if finds == "memory" else FLOPS_SEARCHED
    if finds == "days":  # that nominally compute as much
        gpus = parse_gpus(given["gpus"])
        day = flops_of_time(gpus, 1.0, given.get("mfu") or NOMINAL_MFU * given.get("goodput", GOODPUT))
        low, high = low / day, high / day
    first, last = round(_PER_DECADE * math.log10(low)), round(_PER_DECADE * math.log10(high))
    values = dict.fromkeys(float(f"{10 ** (i / _PER_DECADE):.2e}") for i in range(first, last + 1))
    if finds == "memory":
        return [make_budget({**given, "memory": MemoryLimit(round(value))}) for value in values]
    return [make_budget({**given, finds: value}) for value in values]


@dataclasses.dataclass(frozen=True)
class _Dense:
    """A dense model to equal."""

    asked: str
    shape: Architecture
    tokens: float
    variables: Variables
    train_flops: float
    phi: float
    memory: MemoryLimit

    def goal(self, choice: Choice, laws: LawSelection) -> DenseGoal:
        """The dense model beside a plan."""
        others = [law for law in laws.everyone if law.name != LEVERAGE_LAW and law.has_dense]
        works = {law.full_name: self._work(law, choice) for law in others}
        return DenseGoal(
            asked=self.asked,
            total_params=self.shape.total_params(),
            tokens=self.tokens,
            train_flops=self.train_flops,
            allocation_efficiency=self.phi,
            memory=str(self.memory),
            work_by_law={name: work for name, work in works.items() if work is not None and math.isfinite(work)},
        )

    def _work(self, law: Law, choice: Choice) -> float | None:
        """The plan's work / this model's by a loss law: compute of its best dense models of the same losses."""
        fit = law.objective
        if fit is None or fit.predicts != "loss" or "tokens" not in fit.variables:
            return None
        variables = Variables(choice.architecture, choice.budget.seq_len)
        try:
            size = dense_size(law, self.variables)
            own = dense_compute(law, float(dense_loss(law, size, self.tokens)))
        except LawError:
            return None
        return dense_compute(law, float(fit.at(variables, choice.budget.worth(choice.tokens)))) / own


def _read_dense(asked: str | float | Path, tokens: str | float | None, given: Mapping[str, Any], law: Law) -> _Dense:
    text = str(asked)
    count = parse_count(tokens, "dense_tokens") if tokens is not None else None
    serving = serving_of(given)
    seq_len = int(given.get("seq_len", Budget.seq_len))
    if re.fullmatch(r"\s*[-+]?[\d.][\d_.]*(e[-+]?\d+)?\s*[a-z]?\s*", text, re.IGNORECASE):
        params = parse_count(text, "match_dense")
        if not 1e6 <= params <= 1e14:
            raise UsageError(f"match_dense {text!r} must be from 1M to 100T params, for example 70B")
        if count is None:
            raise UsageError(f"the tokens that the dense {text} model is trained on are missing; add --dense-tokens 2T")
        usual = Budget(min(max(6 * params * count, 1e15), 1e30), MemoryLimit(1), **_vocabulary(given))
        like = Architecture(
            d_model=1024, num_layers=8, vocab_size=usual.vocab_size, num_heads=8, d_ff=4096,
            tied_embeddings=bool(usual.tied_embeddings),
        )  # fmt: skip
        shape = dense_of_size(params, dense_shape(1024, like))
    else:
        subject = read_model(asked if isinstance(asked, Path) else text)
        shape = subject.architecture
        if any(gap.groups for gap in subject.gaps):
            raise UsageError(f"{text}: its params are not known, so nothing can be matched to it")
        if not shape.is_dense:
            raise UsageError(f"{text} is a Mixture-of-Experts model; match_dense takes a dense one, for example 70B")
        count = count or subject.tokens
        if count is None:
            raise UsageError(f"the tokens that {text} is trained on are not known; add --dense-tokens 15T")
    variables = Variables(shape, seq_len)
    fit = dense_fit(law)
    own = float(variables.get("train_flops", fit.convention("train_flops"), count))
    spoken = law.predicting("flops_per_token", "dense_flops_per_token")
    needed = sum(inference_bytes(shape, serving).values()) / (1 - float(given.get("headroom", Budget.headroom)))
    return _Dense(
        asked=text,
        shape=shape,
        tokens=count,
        variables=variables,
        train_flops=own,
        phi=dense_phi(law, spoken, variables, own),
        memory=MemoryLimit(math.ceil(needed / 1e6) * 10**6),
    )


def _vocabulary(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in ("vocab_size", "tied_embeddings") if name in given}


class _Search:
    """The search of a sweep for its first budget that reaches the target."""

    def __init__(
        self,
        sweep: Sweep,
        finds: str,
        law: Law,
        target_el: float | None,
        dense: _Dense | None,
        say: Callable[[str], None],
        given: tuple[str, ...],
    ) -> None:
        self.given = given
        self.sweep, self.finds, self.law, self.say = sweep, finds, law, say
        self.leverage = law.predicting("efficiency_leverage")
        self.target_el = target_el
        self.gain: Gain
        if dense is None:
            assert target_el is not None
            self.gain, self.target = self._leverage, float(target_el)
        else:
            self.gain, self.target = self._work, dense.train_flops * dense.phi
        self.dense = dense

    def _leverage(self, space: Space, scores: Scores) -> Floats:
        """EL of each design."""
        budget = space.budget
        return space.each(lambda v, tokens: self.leverage.at(v, budget.worth(np.floor(tokens))), scores)

    def _work(self, space: Space, scores: Scores) -> Floats:
        """C*EL*phi of each design in the law's FLOPs: the compute of the dense model that it equals."""
        budget, convention = space.budget, self.leverage.convention("train_flops")

        def work(v: Variables, tokens: Floats) -> Any:
            worth = budget.worth(np.floor(tokens))
            phi = self.law.allocation.at(v, worth) if self.law.allocation else 1.0
            return v.get("train_flops", convention, worth) * self.leverage.at(v, worth) * phi

        return space.each(work, scores)

    def limit(self, step: int) -> float:
        """The limit that is searched, at a step."""
        budget = self.sweep.budgets[step]
        if self.finds != "memory":
            return budget.days if self.finds == "days" else budget.flops
        assert budget.memory is not None
        return float(budget.memory.bytes_per_device)

    def goal(self) -> tuple[int, Goal]:
        """The first step that reaches the target, and how sure and how flat that is."""
        sweep, last = self.sweep, len(self.sweep.budgets) - 1
        self.say("searching the smallest budget")
        step = sweep.first(self.gain, self.target)
        if step is None:
            raise InfeasibleError(self._best())
        self.say("asking how sure it is")
        leverage = leverage_of(sweep.choice(step))
        factor = leverage.high / leverage.efficiency_leverage
        low = sweep.first(self.gain, self.target / factor, before=step)
        high = sweep.first(self.gain, self.target * factor, after=step)
        limit = self.limit(step)
        limits = np.array([self.limit(each) for each in range(last + 1)])
        near = {int(np.argmin(np.abs(np.log(limits / (limit * x))))) for x in _FACTORS}
        above = [each for each in range(step + 1, last + 1) if limits[each] <= limit * _ABOVE]
        self.say("asking how flat it is")
        points = self._points(sorted(near | set(above)))
        held = [points[each].reached >= 1 for each in above if each in points]
        return step, Goal(
            finds=self.finds,
            target_efficiency_leverage=self.target_el,
            dense=None,
            found=limit,
            interval_factor=factor,
            low=self.limit(step if low is None else low),
            high=None if high is None else self.limit(high),
            given=self.given,
            least=self.limit(0),
            most=self.limit(last),
            also_above=sum(held) / len(held) if held else 1.0,
            neighbours=tuple(points[each] for each in sorted(near) if each in points),
        )

    def trained(self, step: int) -> Choice:
        """The choice at the first step from this on that reaches the target with what its GPUs train."""
        last = len(self.sweep.budgets) - 1
        while True:
            choice = self.sweep.choice(step)
            reached = float(self.gain(choice.space, choice.scores)[choice.index])
            if choice.clock is None or reached >= self.target or step == last:
                return choice
            step += 1

    def _points(self, steps: Sequence[int]) -> dict[int, GoalPoint]:
        points = {}

        def done(step: int, choice: Choice) -> None:
            design = choice.design
            points[step] = GoalPoint(
                budget=self.limit(step),
                total_params=design.total_params,
                active_params=design.active_params,
                tokens=design.tokens,
                efficiency_leverage=design.efficiency_leverage,
                reached=float(self.gain(choice.space, choice.scores)[choice.index]) / self.target,
            )

        self.sweep.choices(done, steps)
        return points

    def _best(self) -> str:
        """The sentence of the best that can be had, where the target cannot."""
        self.say("searching the best that can be had")
        last = len(self.sweep.budgets) - 1
        points = self._points(sorted({*range(0, last, _SAMPLE), last}))
        if not points:
            return str(self.sweep.infeasible[last])
        peak = max(points, key=lambda step: points[step].reached)
        points |= self._points(range(max(peak - _SAMPLE + 1, 0), min(peak + _SAMPLE, last + 1)))
        best = max(points.values(), key=lambda point: point.reached)
        write = {"flops": format_flops, "days": "{:,.4g}".format, "memory": format_bytes}[self.finds]
        unit = {"flops": " FLOPs", "days": " days", "memory": ""}[self.finds]
        first = self.sweep.budgets[-1]
        if self.finds != "memory":
            within = " ".join(str(each) for each in (first.gpus, first.memory) if each)
        else:
            within = f"{first.days:g} days on {first.gpus}" if first.days else f"{format_flops(first.flops)} FLOPs"
        searched = f"{write(self.limit(0))} to {write(self.limit(last))}{unit}"
        where = f"from {searched}; the largest found is"
        at = f"at {write(best.budget)}{unit}"
        if self.target_el is not None:
            leverage = math.floor(best.efficiency_leverage * 100) / 100
            return (
                f"no recommendation within {within} has an Efficiency Leverage of {self.target_el:g} by {LEVERAGE_LAW} "
                f"alone {where} {leverage:g} {at}"
            )
        assert self.dense is not None
        return (
            f"no recommendation within {within} equals the dense {self.dense.asked} model on "
            f"{format_count(self.dense.tokens)} tokens {where} {100 * best.reached:.3g} % of its work {at}"
        )
