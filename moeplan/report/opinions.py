"""The laws on a plan, as blocks of a report: leverage, prices of the limits, optima, hyper-parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from moeplan.laws import law_names, load_law
from moeplan.laws.hyperparameters import HyperParameters
from moeplan.laws.leverage import Leverage
from moeplan.laws.pooling import PooledLeverage
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.document import LawOpinion, Plan, Price
from moeplan.plan.near_equal import RULES
from moeplan.plan.training_run import DesignTime
from moeplan.quantities import percent, quantity, times
from moeplan.report.blocks import Block, Column, Items, Paragraph, Table, table
from moeplan.report.text import EXTRAPOLATED, NONE, Text, joined, listed, mark
from moeplan.report.view import View
from moeplan.studies.backtest.practice import HyperParameterPrediction, HyperParameterRow, hyperparameter_rows

SIZE = "{total_params}-A{active_params}"
"""Total and active params of a design in short, the way such models are named: 35.5B-A3.02B."""
EXPERTS = "{num_active_experts:d}+{num_shared_experts:d}/{num_experts:d}"
"""Experts of a design: routed active + shared / routed."""
_RESOURCES = {"memory": "memory limit", "compute": "compute budget", "tokens": "cap on tokens"}


def flag(extrapolated: object) -> str:
    """What follows a number that is extrapolated."""
    return EXTRAPOLATED if extrapolated else ""


def pooled_text(leverage: View[Leverage]) -> Text:
    """The headline leverage in short: EL with its interval, or the interval alone; flagged if it is extrapolated."""
    pooled = leverage.pooled
    ends = pooled("{low:2} to {high:2}")
    if pooled.efficiency_leverage is None:
        return mark(ends, True)
    return joined((mark(pooled("{efficiency_leverage:2}"), pooled.decades_outside), " (", ends, ")"))


def worth_text(leverage: View[Leverage]) -> Text:
    """The dense model of equal loss in short, with its interval, or as a range."""
    pooled = leverage.pooled
    text: Text = pooled(
        "a dense model of {dense_low.total_params:2} to {dense_high.total_params:2} params"
        if pooled.dense is None
        else "a dense {dense.total_params:2} model ({dense_low.total_params:2} to {dense_high.total_params:2}) on "
        "{dense.tokens:2} tokens"
    )
    return text


def pooled_line(leverage: View[Leverage]) -> Text:
    """The headline leverage in a sentence, with what it rests on and how far it is extrapolated."""
    pooled = leverage.pooled
    far = "extrapolated {decades_outside:2} decade(s)" if pooled.decades_outside else "within measured compute"
    basis = pooled(f"{{laws}} law(s), {{studies:d}} studies; {far}", laws=str(len(pooled.weights)))
    if pooled.efficiency_leverage is None:
        said = pooled("{low:2} to {high:2} (a range at {level}, no point; ")
    else:
        said = pooled("{efficiency_leverage:2} ({low:2} to {high:2} at {level}; ")
    return joined(("Against the best dense model, compute for equal loss: ", said, basis, ")."))


def leverage_blocks(leverage: View[Leverage]) -> tuple[Block, ...]:
    """EL pooled and by every law that compares with dense models, and the dense model that the plan is worth."""
    pooled = leverage.pooled
    own = leverage(
        "{allocation_efficiency}, by this split, of {alone}, its EL at its best split of compute (own {level} interval "
        "{low..high})",
        alone=mark(leverage("{efficiency_leverage}"), leverage.decades_outside),
    )
    rows = [(LEVERAGE_LAW, mark(_as_split(leverage), leverage.decades_outside), own)]
    rows += [
        (other.law, mark(other("{efficiency_leverage}"), other.extrapolated), Text(other.basis, other.source_at()))
        for other in leverage.others
    ]
    columns = ("law", "EL", "weight", "dense compute / MoE compute at equal loss")
    cells = tuple((law, said, _weight(pooled, law), basis) for law, said, basis in rows)
    rule = f"{pooled.rule[:1].upper()}{pooled.rule[1:]}."
    return (
        Paragraph(pooled_line(leverage), pooled.source_at()),
        Table(cells, columns, right=(1, 2), source=leverage.source_at()),
        Paragraph(_dense(leverage)),
        Paragraph(rule, pooled.source_at()),
        Paragraph(_alone(leverage), leverage.source_at()),
    )


def _as_split(leverage: View[Leverage]) -> Text:
    """The leverage law's EL as the compute is split: its opinion in the pool, if it is there."""
    if LEVERAGE_LAW in leverage.pooled.by_law:
        pooled: Text = leverage.pooled(f"{{by_law[{LEVERAGE_LAW}]}}")
        return pooled
    return Text(times(leverage.efficiency_leverage * leverage.allocation_efficiency), leverage.source_at())


def _weight(pooled: View[PooledLeverage], law: str) -> Text:
    return pooled(f"{{weights[{law}]:2}}") if law in pooled.weights else Text("beside")


def _dense(leverage: View[Leverage]) -> Text:
    """The dense model of equal loss, with its interval."""
    pooled = leverage.pooled
    split = f"in {LEVERAGE_LAW}'s FLOPs, split as it finds best for dense models"
    ends = (
        "{dense_low.total_params:2} params on {dense_low.tokens:2} tokens ({dense_low.train_flops:2} FLOPs) to "
        "{dense_high.total_params:2} on {dense_high.tokens:2} ({dense_high.train_flops:2})"
    )
    point = "{dense.total_params:2} params on {dense.tokens:2} tokens ({dense.train_flops:2} FLOPs); the interval is "
    text: Text = pooled(f"As good as a dense model of {'' if pooled.dense is None else point}{ends}, {split}.")
    return text


def _alone(leverage: View[Leverage]) -> Text:
    """What the leverage law alone would say: its own interval's rule, and the dense model that it equals."""
    beyond = leverage.pooled.dense is None
    shape = "" if beyond else "; {dense.architecture.num_layers} layers, d_model {dense.architecture.d_model}"
    return leverage(
        f"By {LEVERAGE_LAW} alone: {{rule}}. Its dense model of equal loss has "
        f"{{dense.total_params}} params ({{dense.non_embedding_params}} without embeddings{shape}), {{dense.tokens}} "
        "tokens and {dense.train_flops} FLOPs, this split included."
    )


def limit_blocks(plan: View[Plan]) -> tuple[Block, ...]:
    """What binds, and what 10 % more of it is worth."""
    blocks: list[Block] = [Paragraph(f"Binding: {', '.join(_RESOURCES.get(name, name) for name in plan.binding)}.")]
    if plan.prices:
        blocks.append(Items(tuple(_price(price, plan.leverage.decades_outside) for price in plan.prices)))
        laws = tuple(dict.fromkeys(law for price in plan.prices for law in price.by_law))
        if len(laws) > 1:
            gains = tuple((f">{_more(p)} {p.resource}", _gain(p.by_law)) for p in plan.prices)
            blocks.append(table(laws, (("compute, for each law alone", str), *gains)))
    return tuple(blocks)


def _gain(by_law: dict[str, float]) -> Any:
    return lambda law: f"+{percent(by_law[law] - 1, 2)}" if law in by_law else NONE


def _more(price: View[Price]) -> str:
    return f"{price.factor - 1:.0%} more".replace("%", " %")


def _price(price: View[Price], flagged: object) -> Text:
    gain = price.value_ratio - 1
    raised = f"raises quality (V) by {percent(gain, 2)}" if gain >= 5e-4 else "does not raise quality (V)"
    leverage = f"{LEVERAGE_LAW}'s EL {{efficiency_leverage}}{flag(flagged)} then"
    return price(f"{_more(price)} {price.resource} {raised} ({leverage}).")


def law_blocks(plan: View[Plan]) -> tuple[Block, ...]:
    """Every law's judgement, its own optimum, and where the plan leaves its domain."""
    blocks: list[Block] = [
        table(
            plan.laws,
            (
                ("law", lambda law: mark(law.law, law.outside)),
                ("grade", "{grade}"),
                ("role", "{role}"),
                (">of its best", "{efficiency}"),
                (">short by", "{regret_flops}"),
                ("domain", _domain),
            ),
        ),
        Paragraph(
            "Of its best, and short of it by so many FLOPs: the plan against the law's own best design of the declared "
            "grid under the same limits, in compute."
        ),
    ]
    optima = tuple(
        (law.law, *shape_cells(law.optimum), *shape_cells(law.without)[:2]) for law in plan.laws if law.optimum
    )
    if optima:
        here = ("the plan", *shape_cells(plan.design), NONE, NONE)
        columns = ("law", "its own best", "tokens", "k+s/E", "g", "without it", "tokens")
        blocks.append(Table((here, *optima), columns, right=(2, 3, 4, 6), strong=(0,)))
    says = tuple(Text(f"{law.law}: {law.says}.", law.source_at()) for law in plan.laws if law.says)
    if says:
        blocks.append(Items(says))
    outside = tuple(
        joined((f"{law.law}{EXTRAPOLATED} ", listed(o("{variable} {value} ({low..high})") for o in law.outside)))
        for law in plan.laws
        if law.outside
    )
    if outside:
        blocks.append(Paragraph("Outside the measured range (in brackets), as each law counts:"))
        blocks.append(Items(outside))
    return tuple(blocks)


def _domain(law: View[LawOpinion]) -> str:
    if law.outside:
        return Text(f"{len(law.outside)} outside", law.source_at())
    return "inside" if law.has_domain else "not given"


def shape_cells(design: Any) -> tuple[str, str, str, str]:
    """Size, tokens, experts and granularity of a design's view, if there is a design."""
    if design is None:
        return (NONE, NONE, NONE, NONE)
    return (design(SIZE), design("{tokens}"), design(EXPERTS), design("{granularity:number}"))


def hyperparameter_blocks(plan: View[Plan]) -> tuple[Block, ...]:
    """Peak learning rate and batch by each law."""
    columns = (
        ("law", _law_with_range),
        (">peak rate", "{learning_rate}"),
        (">near-optimal", lambda law: _near(law, "learning_rate")),
        (">batch", "{batch_tokens} tokens"),
        (">near-optimal", lambda law: _near(law, "batch_tokens")),
    )
    return (table(plan.hyperparameters, columns), Paragraph(f"Peak learning rate under AdamW. {_exported(plan.it)}"))


def _exported(plan: Plan) -> str:
    """How far the laws lie apart, whose values are taken, and what speaks for them."""
    first, *others = plan.hyperparameters
    if not others:
        return f"Exports take {first.law}'s."
    apart = " and ".join(
        f"{name} from {quantity(field, min(values))} to {quantity(field, max(values))}{unit} "
        f"({max(values) / min(values):.2g} times)"
        for name, field, unit in (("a rate", "learning_rate", ""), ("a batch", "batch_tokens", " tokens"))
        for values in [[float(getattr(own, field)) for own in plan.hyperparameters]]
    )
    tried = hyperparameter_rows([load_law(own.law) for own in plan.hyperparameters if own.law in law_names()])
    known = "".join(
        f" Of what {row.model} was trained with, {listed(map(_tried, row.predictions), '; ')}." for row in tried
    )
    return (
        f"The laws say {apart}. Exports take {first.law}'s{_why(first, tried)}; --hyperparameters names another.{known}"
    )


def _why(first: HyperParameters, tried: Sequence[HyperParameterRow]) -> str:
    """What speaks for a law: that it comes nearest to what published models were trained with."""

    def off(said: HyperParameterPrediction) -> float:
        return abs(math.log(said.learning_rate_ratio)) + abs(math.log(said.batch_ratio))

    nearest = [row.model for row in tried if min(row.predictions, key=off).law == first.law]
    return f", the nearest to what {' and '.join(nearest)} was trained with" if nearest else ""


def _tried(said: HyperParameterPrediction) -> str:
    """How one law does on a published model's learning rate and batch."""
    text = f"{said.law} gives {said.learning_rate_ratio:.2g} of the rate and {said.batch_ratio:.2g} of the batch"
    return f"{text}, {said.decades:.1f} decades outside its range" if said.decades else text


def _law_with_range(law: View[HyperParameters]) -> str:
    return f"{law.law} (range not given)" if law.extrapolated is None else mark(law.law, law.extrapolated)


def _near(law: View[HyperParameters], name: str) -> str:
    """What is near-optimal: a factor of the band either way."""
    if not law.band:
        return NONE
    found = law.number_at(name)
    ends = law.kind_at(name).ends(found.value / law.band, found.value * law.band)
    return Text("–".join(ends), found.source)


def near_equal_blocks(plan: View[Plan]) -> tuple[Block, ...]:
    """The best design and those that other rules choose, with what each costs in V."""
    columns: tuple[Column, ...] = (
        ("", "{rule}"),
        ("params", lambda row: row.design(SIZE)),
        (">tokens", lambda row: row.design("{tokens}")),
        (">k+s/E", lambda row: row.design(EXPERTS)),
        (">g", lambda row: row.design("{granularity:number}")),
        (">layers x d_model", lambda row: row.design("{num_layers} x {d_model}")),
        (">quality", "{value_share}"),
        (">worst", "{worst_efficiency}"),
        ("by", "{worst_law}"),
    )
    rules = {row.rule for row in plan.near_equal}
    words = "; ".join(f"{name}: {says}" for name, says in RULES.items() if name in rules)
    text = (
        f"{words[:1].upper()}{words[1:]}. --choose takes one in place of the best. Worst: C_l over that of "
        "the law's own best design under the same limits, by the objective law where that is least."
    )
    times = [row.time for row in plan.near_equal if row.time is not None]
    return (table(plan.near_equal, columns), Paragraph(text), *_times([row.rule for row in plan.near_equal], times))


_TIMES = {
    "MFU": "{mfu}",
    "days": "{days:number}",
    "V, same FLOPs": "{value_at_equal_flops:share}",
    "time, same FLOPs": "{time_at_equal_flops:share}",
}
"""What training takes of a design beside the plan."""


def _times(names: Sequence[str], times: Sequence[View[DesignTime]]) -> tuple[Block, ...]:
    """Training time of designs, by name, and what choosing each would cost; nothing without GPUs."""
    if not times:
        return ()
    rows = tuple((name, *(time(cell) for cell in _TIMES.values())) for name, time in zip(names, times, strict=True))
    text = (
        "Same FLOPs: V and training time over the plan's, both with its FLOPs: what choosing by the clock costs, "
        "and what it gains."
    )
    return (Table(rows, ("", *_TIMES), right=(1, 2, 3, 4)), Paragraph(text))


def alternative_blocks(plan: View[Plan]) -> tuple[Block, ...]:
    """The plan above the next best designs."""
    rows = tuple(
        (
            str(place) if place else "plan",
            *shape_cells(design),
            design("{num_layers} x {d_model}"),
            design("{efficiency_leverage}"),
            design("{value}"),
        )
        for place, design in enumerate((plan.design, *plan.alternatives))
    )
    leverage = mark(f"{LEVERAGE_LAW}'s EL", plan.leverage.decades_outside)
    columns = ("", "params", "tokens", "k+s/E", "g", "layers x d_model", leverage, "V [FLOPs]")
    numbers = [str(place) for place in range(1, len(plan.alternatives) + 1)]
    designs = Table(rows, columns, right=(2, 3, 4, 5, 6, 7), strong=(0,))
    return (designs, *_times(numbers, plan.alternative_times))
