"""How sure a fitted law is of a plan, as blocks of a report."""

from __future__ import annotations

from moeplan.plan.document import Plan
from moeplan.plan.uncertainty.result import LawSpread, Spread
from moeplan.report.blocks import NONE, Block, Items, Paragraph, Source, Table, at, interval, mark, percent, quantity

_LOSS = 4
"""Digits of a loss."""


def spread_title(spread: Spread) -> str:
    """The section's title."""
    return "How sure the fitted law is" if len(spread.laws) == 1 else "How sure the fitted laws are"


def spread_source(plan: Plan, spread: Spread) -> Source:
    """Where intervals over the draws come from."""
    held = f"; the coefficients of {', '.join(spread.held)} are held" if spread.held else ""
    return Source(
        f"The middle {percent(spread.level)} of {spread.draws} draws of the coefficients{held}; for each the best "
        "design of the declared grid is found again under the same limits.",
        ", ".join(law.law for law in spread.laws),
        "losses in nats/token; EL is dense compute / MoE compute at equal loss, in the law's own FLOPs",
        "; ".join(f"{law.law}: {_WHERE[law.inside]}" for law in spread.laws),
        path="/spread/draws",
    )


_WHERE = {
    True: "inside the measured range",
    False: "outside the measured range",
    None: "the law's file gives no measured range",
}


def spread_blocks(plan: Plan, spread: Spread) -> tuple[Block, ...]:
    """Loss and leverage by each fitted law with their intervals, the best design's variables, and what that means."""
    level = f"{percent(spread.level)} interval"
    laws = tuple(_law(law, f"/spread/laws/{place}") for place, law in enumerate(spread.laws))
    rows = tuple(
        (
            row.variable,
            at(quantity(row.variable, row.value), f"/spread/variables/{place}/value"),
            at(quantity(row.variable, row.median), f"/spread/variables/{place}/median"),
            at(
                interval(row.variable, row.low, row.high),
                f"/spread/variables/{place}/low",
                f"/spread/variables/{place}/high",
            ),
        )
        for place, row in enumerate(spread.variables)
    )
    return (
        Paragraph(_made(spread)),
        Table(laws, ("this plan by", "loss", level, "one run measures", "EL", level), right=(1, 2, 3, 4, 5)),
        Table(rows, ("best by each draw", "plan", "middle draw", level), right=(1, 2, 3)),
        Items((*_means(spread), _sees(spread), spread.covers)),
    )


def _made(spread: Spread) -> str:
    held = f", the coefficients of {' and '.join(spread.held)} held" if spread.held else ""
    text = (
        f"The best design was found again for each of {spread.draws} draws of the coefficients ("
        f"{'; '.join(f'{law.law}: {law.basis}' for law in spread.laws)}){held}."
    )
    if spread.unusable:
        text += f" {spread.unusable} draws gave no finite number and are left out."
    return text


def _law(law: LawSpread, path: str) -> tuple[str, ...]:
    def value(name: str, digits: int) -> str:
        found = getattr(law, name)
        return NONE if found is None else at(_digits(found, digits), f"{path}/{name}")

    def ends(low: str, high: str, digits: int) -> str:
        found = getattr(law, low), getattr(law, high)
        if found[0] is None or found[1] is None:
            return NONE
        return at(f"{_digits(found[0], digits)}–{_digits(found[1], digits)}", f"{path}/{low}", f"{path}/{high}")

    return (
        mark(law.law, law.inside is False),
        value("loss", _LOSS),
        ends("loss_low", "loss_high", _LOSS),
        ends("run_low", "run_high", _LOSS),
        value("efficiency_leverage", 3),
        ends("leverage_low", "leverage_high", 3),
    )


def _digits(value: float, digits: int) -> str:
    return f"{value:#.{digits}g}"


def _sees(spread: Spread) -> str:
    parts = [f"{law.law} sees {', '.join(law.sees)} alone" for law in spread.laws]
    others = ", from the laws that are held" if spread.held else ""
    return (
        f"{'; '.join(parts)}: other variables follow from these, from the limits{others} and from how ties are broken."
    )


def _means(spread: Spread) -> tuple[str, str]:
    return (
        at(
            f"The plan's own design is the best, or ties with it, in {percent(spread.same_design)} of the draws.",
            "/spread/same_design",
        ),
        at(
            f"It keeps {percent(spread.efficiency_median)} of the best V in the middle draw, and at least "
            f"{percent(spread.efficiency_low)} in {percent(spread.level)} of the draws.",
            "/spread/efficiency_median",
            "/spread/efficiency_low",
            "/spread/level",
        ),
    )
