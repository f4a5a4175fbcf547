"""An answer about upcycling as sections of text and tables. Every number is the answer's."""

from __future__ import annotations

from moeplan.report.blocks import Block, Items, Paragraph, Section, Table
from moeplan.report.text import Text
from moeplan.report.view import View
from moeplan.studies.upcycling.overtaking import LAW
from moeplan.studies.upcycling.result import Upcycling

_ADVICE = {
    "upcycle": "Upcycle {dense.name}",
    "scratch": "Train a MoE from scratch, not from {dense.name}",
    "open": "Whether to upcycle {dense.name} is open",
}
_TOO_LARGE = "It does not fit the memory ({memory_bytes} of {usable_bytes} usable); without that limit:"
_SIZE = "{total_params:4}-A{active_params:3}"


def upcycling_sections(found: Upcycling) -> list[Section]:
    """The whole report."""
    seen = View(found)
    parts: list[tuple[str, tuple[Block, ...]]] = [
        ("", (Paragraph(_headline(seen)), Paragraph(_basis(seen)))),
        ("The upcycled model", _model(seen)),
        ("When a MoE from scratch overtakes", _law(seen)),
        ("From scratch with the same budget", _scratch(seen)),
        ("What publications found", (Items(tuple(f"{each.text} {each.source}." for each in found.findings)),)),
        ("Without training", _moefication(seen)),
    ]
    return [Section(title, blocks) for title, blocks in parts]


def _headline(seen: View[Upcycling]) -> Text:
    it = seen.it
    words = _ADVICE[it.verdict]
    if it.verdict == "scratch" and it.scratch is not None:
        own = "{scratch.total_params:4}-A{scratch.active_params:3} on {scratch.tokens} tokens"
        return seen(f"{words}: {{budget_flops}} FLOPs train a {own}.")
    if it.fits is False:
        words = f"{_TOO_LARGE} {words}"
    if it.verdict == "open":
        return seen(f"{words}: {{budget_flops}} FLOPs train it as a {_SIZE} MoE on {{tokens}} tokens.")
    return seen(f"{words} into a {_SIZE} MoE and train it on {{tokens}} tokens with {{budget_flops}} FLOPs.")


def _basis(seen: View[Upcycling]) -> Text:
    it = seen.it
    text = f"Because {it.reason}: {{budget_share}} of {{dense.train_flops}} FLOPs on {{dense.tokens}} tokens."
    if it.extrapolated:
        beyond = ", ".join(it.crossing.outside)
        text += f" No law was measured there: outside of {LAW}'s range (in brackets) lie {beyond}."
    return seen(text)


def _model(seen: View[Upcycling]) -> tuple[Block, ...]:
    it, shape = seen.it, seen.it.architecture
    parts = f", each block cut into {it.granularity_of_copies}" if it.granularity_of_copies > 1 else ""
    shared = ", and one that is shared" if shape.num_shared_experts else ""
    rows = [
        ("experts", f"{shape.num_experts} of {shape.d_expert:,} features a layer, {shape.num_active_experts} active, "
                    f"copies of the dense block{parts}{shared}"),
        ("params", seen("{total_params:,} total, {active_params:,} active")),
        ("kept", seen("{copied_params:,} params start as the dense model's; the routers start anew")),
        ("FLOPs per token", seen("{flops_per_token}")),
        ("tokens", seen("{tokens:,} for the budget; {scratch_tokens} with what the dense model took spent on it too")),
        ("GPU time", _time(seen)),
        ("memory", _memory(seen)),
    ]  # fmt: skip
    return (Table(tuple((name, str(value)) for name, value in rows)),)


def _time(seen: View[Upcycling]) -> Text:
    if seen.it.gpu_hours is None:
        return seen("not known: {mfu_basis}")
    days = "; {days} day(s)" if seen.it.days is not None else ""
    return seen(f"{{gpu_hours:count}} {{device}}-hours{days}, {{mfu_basis}}")


def _memory(seen: View[Upcycling]) -> Text:
    text = "{memory_bytes} on the fullest of {num_devices:d}" if seen.it.num_devices > 1 else "{memory_bytes}"
    if seen.it.fits is None:
        return seen(f"{text} to serve it in bf16 at the default context")
    return seen(f"{text} of {{usable_bytes}} usable: {'it fits' if seen.it.fits else 'it does not fit'}")


def _law(seen: View[Upcycling]) -> tuple[Block, ...]:
    crossing = seen.it.crossing
    if crossing.tokens is None:
        says = f"{LAW}'s curves do not cross below 1e13 tokens for this dense model"
    else:
        says = f"By {LAW}, after {{crossing.tokens:count}} tokens, {{crossing.train_flops}} FLOPs"
    if crossing.inside:
        if crossing.same_as_scratch is not None:
            says += "; the budget's tokens are worth {crossing.same_as_scratch} from scratch"
        return (Paragraph(seen(f"{says}. Its digits come from a secondary source.")),)
    return (Paragraph(seen(f"{says}; outside of what it was measured on, so that this decides nothing.")),)


def _scratch(seen: View[Upcycling]) -> tuple[Block, ...]:
    own = seen.it.scratch
    if own is None:
        return (Paragraph(f"None: {seen.it.scratch_note}."),)
    shared = " + {scratch.num_shared_experts:d} shared" if own.num_shared_experts else ""
    text = (
        "{scratch.total_params:4}-A{scratch.active_params:3} on {scratch.tokens} tokens, "
        f"{{scratch.num_active_experts:d}}{shared} of {{scratch.num_experts:d}} experts: what moeplan recommend trains "
        "for the same FLOPs, memory and vocabulary."
    )
    return (Paragraph(seen(text)),)


def _moefication(seen: View[Upcycling]) -> tuple[Block, ...]:
    variant = seen.it.moefication
    text = (
        f"MoEfication: {variant.text} {variant.source}. Such shares would leave {{moefication.low}} to "
        "{moefication.high} params active"
    )
    if not variant.holds:
        text += ", but this model's activation is no ReLU: its neurons are not silent, and nothing was measured of it"
    return (Paragraph(seen(f"{text}.")),)
