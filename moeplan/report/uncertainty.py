"""How sure a fitted law is of a plan, as blocks of a report."""

from __future__ import annotations

from moeplan.plan.document import Plan
from moeplan.plan.uncertainty.result import PlanUncertainty
from moeplan.quantities import percent
from moeplan.report.blocks import Block, Items, Paragraph, table
from moeplan.report.text import mark
from moeplan.report.view import View


def uncertainty_title(spread: PlanUncertainty) -> str:
    """The section's title."""
    return "How sure the fitted law is" if len(spread.laws) == 1 else "How sure the fitted laws are"


def uncertainty_blocks(plan: View[Plan]) -> tuple[Block, ...]:
    """Loss and leverage by each fitted law with their intervals, the best design's variables, and what that means."""
    spread = plan.spread
    level = f">{percent(spread.level)} interval"
    laws = (
        ("this plan by", lambda law: mark(law.law, law.inside is False)),
        (">loss", "{loss:#.4g}"),
        (level, "{loss.low:#.4g}–{loss.high:#.4g}"),
        (">one run measures", "{run_low:#.4g}–{run_high:#.4g}"),
        (">EL", "{efficiency_leverage:#.3g}"),
        (level, "{leverage_low:#.3g}–{leverage_high:#.3g}"),
    )
    variables = (
        ("best by each draw", "{variable}"),
        (">plan", "{value}"),
        (">middle draw", "{median}"),
        (level, "{low..high}"),
    )
    means = (
        "The plan's own design is the best, or ties with it, in {same_design} of the draws.",
        "It keeps {efficiency_median} of the best V in the middle draw, and at least {efficiency_low} in {level} of "
        "the draws.",
    )
    return (
        Paragraph(_made(spread.it)),
        table(spread.laws, laws),
        table(spread.variables, variables),
        Items((*map(spread, means), _sees(spread.it), spread.covers)),
    )


def _made(spread: PlanUncertainty) -> str:
    held = f", the coefficients of {' and '.join(spread.held)} held" if spread.held else ""
    text = (
        f"The best design was found again for each of {spread.draws} draws of the coefficients ("
        f"{'; '.join(f'{law.law}: {law.basis}' for law in spread.laws)}){held}."
    )
    if spread.unusable:
        text += f" {spread.unusable} draws gave no finite number and are left out."
    return text


def _sees(spread: PlanUncertainty) -> str:
    parts = [f"{law.law} sees {', '.join(law.sees)} alone" for law in spread.laws]
    others = ", from the laws that are held" if spread.held else ""
    return (
        f"{'; '.join(parts)}: other variables follow from these, from the limits{others} and from how ties are broken."
    )
