"""Where the numbers of a plan come from: one source for each place of its JSON. Laws' own words are in their files."""

from __future__ import annotations

from collections.abc import Iterable

from moeplan.laws.hyperparameters import HyperParameters
from moeplan.laws.law import Outside
from moeplan.laws.leverage import Leverage, LeverageOpinion
from moeplan.laws.pooling import PooledLeverage
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.document import LawOpinion, Plan
from moeplan.plan.uncertainty.result import PlanUncertainty
from moeplan.quantities import QUANTITIES, interval, percent, quantity
from moeplan.report.text import Source
from moeplan.report.view import SourceOf

_EL = "dense compute / MoE compute at equal loss; both in the law's own FLOPs"
_SIZES = "params with embeddings; D in tokens"
_MODEL_FLOPS = "6 x active params without input embedding + causal attention, forward + backward"

ASKED = Source("What was asked for, or moeplan's default where nothing was said.")
NOTE = Source("Said by moeplan of this plan: a limit that its own rules state, or a number of another section again.")
CHANGED = Source("Read from the plan that this one is held against, and from this one.")
COUNTED = Source(
    "Counted exactly on the plan's integer shape; no law is involved.",
    convention="params under the name of the row; FLOPs of training are forward + backward",
)
MEMORY = Source(
    "Counted exactly on the plan's integer shape, tensor by tensor, on the fullest device; no law is involved.",
    convention="bytes, GB = 1e9; weights and KV cache in the dtypes named, replicated parts on every device",
)
DENSE = Source(
    f"The dense model that {LEVERAGE_LAW} expects to reach the same loss: its compute is the plan's times EL times the "
    f"share that the split keeps, its size and tokens {LEVERAGE_LAW}'s best split of that, its shape the nearest "
    "integer one.",
    LEVERAGE_LAW,
    f"params with embeddings unless said otherwise; {LEVERAGE_LAW}'s FLOPs: non-embedding params, full attention, no "
    "logits",
)
WORTH = Source(
    "A dense model of the plan's compute times the pooled leverage, or times either end of its interval, split into "
    f"size and tokens as {LEVERAGE_LAW} finds best for dense models.",
    LEVERAGE_LAW,
    f"params with embeddings; {LEVERAGE_LAW}'s FLOPs",
)
LAYOUT = Source(
    "Memory counted on the exact shape for the heaviest stage; time by a calibrated model of a "
    "step (moeplan.cost.training.throughput), relative to the first layout listed.",
    convention="degrees of parallelism; bytes on one GPU; shares of the step's time",
)
SERVING = Source(
    "Expected speeds by a model fitted to published figures (moeplan.cost.serving.throughput); bounds by bytes of a "
    "decode step over bandwidth and FLOPs over peak (moeplan.cost.serving.roofline); what fits by the plan's memory "
    "limit. Experts hit are those expected of independent uniform routing.",
    convention="tokens a second of each user, and of one device; bytes and FLOPs of one step on one device",
)
MADE = Source("What the plan was made from.")
SEARCHED = Source(
    "Found by searching the limits in steps of 1 % for the first whose recommendation reaches the target; the "
    "interval's ends are searched for in the same way, with the target multiplied and divided.",
    LEVERAGE_LAW,
    f"FLOPs of the exact shape, forward + backward; dense compute in {LEVERAGE_LAW}'s FLOPs: the dense model's own, "
    "and C*EL of the plan, each times the share that its split keeps",
)


LIFE = Source(
    "Device-hours of training as planned; of serving by a model fitted to published figures "
    "(moeplan.cost.serving.throughput), at full load; in FLOPs 2*N_a a served token.",
    convention="tokens served are prompts and answers; hours of serving are of one serving device",
)


def plan_source(plan: Plan) -> SourceOf:
    """From the place of a number in a plan's JSON to where the number comes from."""
    laws = ", ".join(plan.request.laws)
    out = [law for law in plan.laws if law.role == "objective" and law.outside]
    domain = "; ".join(f"outside for {law.law}: {outside_text(law.outside)}" for law in out) or "inside for every law"

    def source(parts: list[str]) -> Source | None:
        match parts:
            case ["request", *_] | ["memory", "limit_bytes" | "num_devices"]:
                return ASKED
            case ["value_ratio"] | ["design", "value"]:
                return Source(
                    "V is the geometric mean, over the laws that were maximised, of the compute at which the law's own "
                    "best design of the declared grid, without a memory limit, is as good as this one.",
                    laws,
                    f"FLOPs of the exact shape: {_MODEL_FLOPS}",
                    domain,
                )
            case ["design", "efficiency_leverage"]:
                return _leverage(plan.leverage)
            case ["design", variable] | ["bands", variable, "value"]:
                return _chosen(plan, plan.bands[int(variable)].variable if variable.isdigit() else variable)
            case ["bands", _, end]:
                return Source(
                    f"Least and largest value among designs within {end[-1]} % of the best V, everything else "
                    "re-optimised.",
                    laws,
                    "counted as in the plan's column; the range is of the declared grid's steps",
                )
            case ["counts" | "architecture", *_]:
                return COUNTED
            case ["memory", *_]:
                return MEMORY
            case ["leverage", *rest]:
                return leverage_source(plan.leverage, rest)
            case ["training", "batch_sequences"]:
                law = plan.request.hyperparameters
                return Source(f"{law}'s batch, rounded to what divides over the GPUs.", law, "sequences; tokens")
            case ["training", "layouts", *_] | ["training", "usable_bytes"]:
                return LAYOUT
            case ["training", *_]:
                run = plan.training
                return Source(
                    "Tokens / tokens a second under the first layout, by the calibrated model of throughput; MFU "
                    f"{run.mfu_basis}. Goodput, the share of the days that trains: {run.goodput:g}.",
                    convention=f"{run.mfu_convention}; model FLOPs: {_MODEL_FLOPS}",
                )
            case ["serving", *_]:
                return SERVING
            case ["life", *_]:
                return LIFE
            case ["if_served", *_]:
                return Source(
                    "The best design of a search of the same grid with as many tokens to serve out of the same budget.",
                    laws,
                    f"{_SIZES}; ratio of V",
                    domain,
                )
            case ["if_concurrent", *_]:
                return Source(
                    "The best design of the same search that serves so many sequences at a time in the same memory.",
                    laws,
                    f"{_SIZES}; ratio of V",
                    domain,
                )
            case ["prices", *_]:
                return Source(
                    "The best V, or the law's own best C_l, of a search with so much more of it / without.",
                    laws,
                    f"ratio of compute; EL is {LEVERAGE_LAW}'s of the best design then",
                    domain,
                )
            case ["laws", place, *rest]:
                return _law(plan, plan.laws[int(place)], rest[0] if rest else "")
            case ["hyperparameters", place, *_]:
                return _hyperparameter(plan.hyperparameters[int(place)])
            case ["alternative_times", *_] | ["near_equal", _, "time", *_]:
                return Source(
                    "By the calibrated model of throughput, under the fastest layout that fits; V of the same laws at "
                    "the plan's compute.",
                    laws,
                    "ratios: over the plan's design, both at the plan's compute",
                )
            case ["near_equal", *_]:
                return Source(
                    "The designs that the rules named take among all that meet every condition "
                    "(moeplan.plan.near_equal); V / best is their V over the largest.",
                    laws,
                    f"{_SIZES}; C_l in FLOPs of the exact shape",
                    domain,
                )
            case ["alternatives", *_]:
                return Source(
                    "The best designs of the declared grid that differ markedly from the plan and from each other, by "
                    "V.",
                    laws,
                    f"{_SIZES}; EL by {LEVERAGE_LAW}; V in FLOPs",
                )
            case ["goal", *_]:
                return SEARCHED
            case ["spread", *_] if plan.spread:
                return _drawn(plan.spread)
            case ["provenance", *_]:
                return MADE
        return None

    return source


def leverage_source(found: Leverage, parts: list[str]) -> Source:
    """The source of a number of a leverage, by its place in there."""
    match parts:
        case ["pooled", *rest]:
            return pooled_source(found.pooled, rest)
        case ["dense", *_] | ["allocation_efficiency"]:
            return DENSE
        case ["others", place, *_]:
            return _opinion(found.others[int(place)])
    return _leverage(found)


def outside_text(outside: Iterable[Outside]) -> str:
    """Variables that leave a measured range, each with the range in brackets."""
    return ", ".join(
        f"{o.variable} {quantity(o.variable, o.value)} ({interval(o.variable, o.low, o.high)})" for o in outside
    )


def _chosen(plan: Plan, variable: str) -> Source:
    """A variable of the design that the search found."""
    known, request = QUANTITIES.get(variable), plan.request
    meaning = known.meaning if known else _SIZES
    if variable in request.fix:
        return Source(f"Fixed by the request: {variable}={quantity(variable, request.fix[variable])}.", "", meaning)
    rule = "with the largest V" if request.choose == "best" else f"of the rule {request.choose} (near-equal choices)"
    trained = ", trained by a layout, which was asked of the best of them" if request.gpus else ""
    return Source(
        f"Of the design {rule} among the {plan.provenance.num_feasible:,} of the declared grid that meet "
        f"every condition{trained}; counted on its exact integer shape.",
        ", ".join(request.laws),
        meaning,
        _domain_of(plan, variable),
    )


def _domain_of(plan: Plan, variable: str) -> str:
    """Where the laws that were maximised stand on one variable."""
    objective = [law for law in plan.laws if law.role == "objective"]
    out = [(law.law, o) for law in objective for o in law.outside if o.variable == variable]
    if not out:
        return "inside for every law that was maximised and gives a range for it"
    return "; ".join(
        f"outside for {law}: {quantity(variable, o.value)} as it counts, measured on "
        f"{interval(variable, o.low, o.high)}"
        for law, o in out
    )


def pooled_source(found: PooledLeverage, parts: list[str]) -> Source:
    """The source of a number of the pooled leverage, by its place in there."""
    if parts and parts[0].startswith("dense"):
        return WORTH
    far = f"compute {found.decades_outside:.2f} factors of ten outside everything measured"
    return Source(
        f"{found.rule[:1].upper()}{found.rule[1:]}.",
        ", ".join(found.weights),
        _EL,
        far if found.decades_outside else "compute inside everything measured",
    )


def _leverage(found: Leverage) -> Source:
    """EL by the leverage law, with its interval."""
    far = f"{found.decades_outside:.2f} decades (factors of 10) outside, summed over variables"
    return Source(
        f"By {LEVERAGE_LAW}'s equation at this design; {found.rule}.",
        LEVERAGE_LAW,
        "dense compute / MoE compute at equal loss; FLOPs of non-embedding params and full attention, no logits",
        far if found.decades_outside else "inside the measured range",
    )


def _opinion(found: LeverageOpinion) -> Source:
    """EL by another law, one opinion of the pool; never part of the leverage law's interval."""
    where = "outside the measured range" if found.extrapolated else "inside the measured range"
    return Source(f"By {found.law} alone: {found.basis}.", found.law, _EL, where)


def _law(plan: Plan, law: LawOpinion, part: str) -> Source:
    """A law's judgement of the plan, its own best design, or the best one without it."""
    if part == "optimum":
        says = f"The best design of the declared grid by {law.law} alone, under the same limits."
        return Source(says, law.law, f"{_SIZES}; routed active + shared / routed experts; g = 2*d_model/d_expert")
    if part == "without":
        rest = ", ".join(name for name in plan.request.laws if name != law.law)
        return Source(f"The best design of the declared grid if {law.law} is left out.", rest, _SIZES)
    if law.outside:
        where = f"outside the measured range: {outside_text(law.outside)}"
    else:
        where = "inside the measured range" if law.has_domain else "the law's file gives no measured range"
    return Source(
        f"By {law.law} alone: C_l of the plan against C_l of the law's own best design of the declared grid under the "
        "same limits. C_l is the compute at which the law's best design without a memory limit is as good.",
        law.law,
        "compute in FLOPs of the exact shape: 6 x active params without input embedding + causal attention",
        where,
    )


def _hyperparameter(found: HyperParameters) -> Source:
    """Learning rate and batch by one law."""
    where = {None: "the law's file gives no measured range", True: "outside the measured range"}
    return Source(
        f"By {found.law} at the plan's compute or size and tokens"
        + (f"; near-optimal within a factor of {found.band:g} either way." if found.band else "."),
        found.law,
        "peak learning rate under AdamW; batch in tokens",
        where.get(found.extrapolated, "inside the measured range"),
    )


_WHERE = {
    True: "inside the measured range",
    False: "outside the measured range",
    None: "the law's file gives no measured range",
}


def _drawn(spread: PlanUncertainty) -> Source:
    """Intervals over the draws of fitted laws."""
    held = f"; the coefficients of {', '.join(spread.held)} are held" if spread.held else ""
    return Source(
        f"The middle {percent(spread.level)} of {spread.draws} draws of the coefficients{held}; for each the best "
        "design of the declared grid is found again under the same limits.",
        ", ".join(law.law for law in spread.laws),
        "losses in nats/token; EL is dense compute / MoE compute at equal loss, in the law's own FLOPs",
        "; ".join(f"{law.law}: {_WHERE[law.inside]}" for law in spread.laws),
    )
