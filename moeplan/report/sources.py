"""Where the numbers of a plan come from: one function for each kind of number. Laws' own words are in their files."""

from __future__ import annotations

from collections.abc import Iterable

from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.document import HyperParameters, LawOpinion, Leverage, LeverageOpinion, OutsideDomain, Plan
from moeplan.plan.search.variables import DESIGN_VARIABLES
from moeplan.report.blocks import Source, interval, quantity

_EL = "dense compute / MoE compute at equal loss; both in the law's own FLOPs"

ASKED = Source("What was asked for, or moeplan's default where nothing was said.")
NOTE = Source("Said by moeplan of this plan: a limit that its own rules state, or a number of another section again.")

CHANGED = Source("Read from the plan that this one is held against, and from this one.")


def outside_text(outside: Iterable[OutsideDomain]) -> str:
    """Variables that leave a measured range, each with the range in brackets."""
    return ", ".join(
        f"{o.variable} {quantity(o.variable, o.value)} ({interval(o.variable, o.low, o.high)})" for o in outside
    )


def chosen(plan: Plan, variable: str = "") -> Source:
    """A variable of the design that the search found."""
    made, request = plan.provenance, plan.request
    known = DESIGN_VARIABLES.get(variable)
    meaning = known.meaning if known else "params with embeddings; D in tokens"
    if variable in request.fix:
        return Source(f"Fixed by the request: {variable}={quantity(variable, request.fix[variable])}.", "", meaning)
    return Source(
        f"Of the design with the largest V among the {made.num_feasible:,} of the declared grid that meet every "
        "condition; counted on its exact integer shape.",
        ", ".join(request.laws),
        meaning,
        _domain_of(plan, variable) if variable else "",
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


def band(plan: Plan, share: int) -> Source:
    """A near-optimal range."""
    return Source(
        f"Least and largest value among designs within {share} % of the best V, everything else re-optimised.",
        ", ".join(plan.request.laws),
        "counted as in the plan's column; the range is of the declared grid's steps",
    )


def worth(plan: Plan) -> Source:
    """V, and what it is of the budget."""
    return Source(
        "V is the geometric mean, over the laws that were maximised, of the compute at which the law's own best design "
        "of the declared grid, without a memory limit, is as good as this one.",
        ", ".join(plan.request.laws),
        "FLOPs of the exact shape: 6 x active params without input embedding + causal attention, forward + backward",
        _domain_of_laws(plan),
    )


def _domain_of_laws(plan: Plan) -> str:
    out = [law for law in plan.laws if law.role == "objective" and law.outside]
    return "; ".join(f"outside for {law.law}: {outside_text(law.outside)}" for law in out) or "inside for every law"


COUNTED = Source(
    "Counted exactly on the plan's integer shape; no law is involved.",
    convention="params under the name of the row; FLOPs of training are forward + backward",
)
MEMORY = Source(
    "Counted exactly on the plan's integer shape, tensor by tensor, on the fullest device; no law is involved.",
    convention="bytes, GB = 1e9; weights and KV cache in the dtypes named, replicated parts on every device",
)
DENSE = Source(
    f"The dense model that {LEVERAGE_LAW} expects to reach the same loss: its compute is the plan's times EL times "
    "phi, its "
    f"size and tokens {LEVERAGE_LAW}'s best split of that, its shape the nearest integer one.",
    LEVERAGE_LAW,
    f"params with embeddings unless said otherwise; {LEVERAGE_LAW}'s FLOPs: non-embedding params, full attention, no "
    "logits",
)


def leverage(found: Leverage) -> Source:
    """EL by the leverage law, with its interval."""
    far = f"{found.decades_outside:.2f} decades (factors of 10) outside, summed over variables"
    return Source(
        f"By {LEVERAGE_LAW}'s equation at this design; {found.rule}.",
        LEVERAGE_LAW,
        "dense compute / MoE compute at equal loss; FLOPs of non-embedding params and full attention, no logits",
        far if found.decades_outside else "inside the measured range",
    )


def opinion(found: LeverageOpinion) -> Source:
    """EL by another law; never part of the interval."""
    where = "outside the measured range" if found.extrapolated else "inside the measured range"
    return Source(f"By {found.law} alone: {found.basis}.", found.law, _EL, where)


OTHERS = Source("Least and largest EL by the other laws of the table; not part of the interval.", convention=_EL)


def training(plan: Plan) -> Source:
    """GPU time and money."""
    return Source(
        f"Training FLOPs / (device's dense bf16 peak x MFU); MFU: {plan.training.mfu_basis}.",
        convention="model FLOPs: 6 x active params without input embedding + causal attention, forward + backward",
    )


BATCH = Source(
    f"{LEVERAGE_LAW}'s batch at this compute, rounded to what divides over the GPUs.", LEVERAGE_LAW, "sequences; tokens"
)
LAYOUT = Source(
    "Memory counted on the exact shape for the heaviest stage; time by a stated model of a step "
    "(moeplan.cost.training.step_time), relative to the first layout listed.",
    convention="degrees of parallelism; bytes on one GPU; shares of the step's time",
)
SERVING = Source(
    "An upper bound (moeplan.cost.serving): bytes of a decode step over memory bandwidth, FLOPs over peak, the slower "
    "one; experts hit are those expected of independent uniform routing.",
    convention="tokens a second of one device; bytes and FLOPs of one step on one device",
)


def price(plan: Plan) -> Source:
    """What more of a limit is worth."""
    return Source(
        "The best V, or the law's own best C_l, of a search with so much more of it / without.",
        ", ".join(plan.request.laws),
        f"ratio of compute; EL is {LEVERAGE_LAW}'s of the best design then",
        _domain_of_laws(plan),
    )


def judged(law: LawOpinion) -> Source:
    """A law's judgement of the plan and its own optimum."""
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


def own_best(law: LawOpinion) -> Source:
    """The design that a law alone would choose."""
    return Source(
        f"The best design of the declared grid by {law.law} alone, under the same limits.",
        law.law,
        "params with embeddings; D in tokens; routed active + shared / routed experts; g = 2*d_model/d_expert",
    )


def left_out(law: LawOpinion, plan: Plan) -> Source:
    """The best design without one law."""
    rest = [name for name in plan.request.laws if name != law.law]
    return Source(
        f"The best design of the declared grid if {law.law} is left out.",
        ", ".join(rest),
        "params with embeddings; D in tokens",
    )


def hyperparameter(found: HyperParameters) -> Source:
    """Learning rate and batch by one law."""
    where = {None: "the law's file gives no measured range", True: "outside the measured range"}
    return Source(
        f"By {found.law} at the plan's compute or size and tokens"
        + (f"; near-optimal within a factor of {found.band:g} either way." if found.band else "."),
        found.law,
        "peak learning rate under AdamW; batch in tokens",
        where.get(found.extrapolated, "inside the measured range"),
    )


def alternatives(plan: Plan) -> Source:
    """The next best designs."""
    return Source(
        "The best designs of the declared grid that differ markedly from the plan and from each other, by V.",
        ", ".join(plan.request.laws),
        f"params with embeddings; D in tokens; EL by {LEVERAGE_LAW}; V in FLOPs",
    )
