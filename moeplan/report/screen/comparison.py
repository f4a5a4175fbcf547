"""The first screen of `moeplan compare`: the MoE beside the best dense model, or two models."""

from __future__ import annotations

from typing import Any

from moeplan.report.blocks import Block, Paragraph, Section, Table
from moeplan.report.comparison import better_by, headline, judged
from moeplan.report.comparison_sources import seen
from moeplan.report.mixers import mixed
from moeplan.report.screen.commands import asked_again, next_section
from moeplan.report.screen.leverage import leverage_section
from moeplan.report.screen.warnings import open_laws, warning_sections
from moeplan.report.text import NONE, Text, joined
from moeplan.report.view import View
from moeplan.studies.comparison.candidate import Candidate
from moeplan.studies.comparison.remarks import Versus
from moeplan.studies.comparison.result import Comparison

_ROWS = (
    ("total params", "{total_params}", ""),
    ("active params", "{active_params}", ""),
    ("tokens", "{tokens}", "tokens"),
    ("train FLOPs", "{train_flops}", "train_flops"),
    ("{device}-hours", "{gpu_hours}", "gpu_hours"),
    ("  at MFU", "{mfu}", ""),
    ("days", "{days}", ""),
    ("price", "{money:,.0f}", ""),
    ("training state", "{state_bytes}", "state_bytes"),
    ("served{each}", "{serving_bytes}", "serving_bytes"),
    ("  fits the memory", "{fits_memory}", ""),
    ("KV cache a token", "{kv_bytes_per_token}", "kv_bytes_per_token"),
    ("cache at 128k tokens", "{long_sequences.sequences[1].cache_bytes}", ""),
    ("  tokens/s there, one user", "{long_sequences.sequences[1].tokens_per_second:number}", ""),
    ("rows to experts, token", "{long_sequences.expert_row_bytes}", ""),
)
"""What stands side by side: label, the number of a model, and its ratio."""


def comparison_screen(found: Comparison) -> list[Section]:
    """The first two models side by side, the leverage, and the other models in a line each."""
    c = seen(found)
    first, second = c.models[:2]
    against = next((one for one in c.versus if one.other == second.name), None)
    title = joined((_name(first), " beside ", _name(second), _verdict(first, second, against)))
    columns = ("", first.name, second.name, "ratio")
    beside = Table(tuple(_rows(c, first, second, against)), columns, right=(1, 2, 3))
    strict: tuple[Block, ...] = (Paragraph(headline(found)),) if found.resources is not None else ()
    return [
        Section(title, (*strict, beside)),
        *([leverage_section(c.pooled)] if found.pooled is not None else []),
        *_others(c),
        *_warnings(c, first, second),
        *next_section(asked_again(found.provenance.command, "--full"), ("--section side-by-side", "--html page.html")),
    ]


def _name(model: View[Candidate]) -> Text:
    if model.role == "given":
        return Text(model.name)
    if model.is_dense:
        return joined((model("{total_params} dense ("), model.name, ")"))
    return model("{total_params}-A{active_params} mixture of experts")


def _verdict(first: View[Candidate], second: View[Candidate], against: View[Versus] | None) -> str:
    """Which of two given models laws find better."""
    ratios = judged(against) if against is not None else {}
    if first.role != "given" or not ratios:
        return ""
    ahead = better_by(ratios)
    if ahead is None:
        return ": equally good by all laws that judge both"
    by = "all" if abs(ahead) == len(ratios) else "most"
    return f": {(first if ahead > 0 else second).name} is better by {by} laws that judge both"


def _rows(
    c: View[Comparison], first: View[Candidate], second: View[Candidate], against: View[Versus] | None
) -> list[tuple[str, ...]]:
    """Costs, speeds and, of two given models, what laws say of one over the other."""
    words = {"device": c.setting.device, "each": " per GPU" if c.setting.memory_devices > 1 else ""}
    rows: list[tuple[str, ...]] = []
    for label, template, ratio in _ROWS:
        cells = first(template), second(template)
        if any(cell != NONE for cell in cells):
            over = against(f"{{{ratio}}}") if ratio and against is not None else ""
            rows.append((label.format(**words), *cells, over))
    batches = {speed.batch: speed for speed in first.decode}
    others = {speed.batch: speed for speed in second.decode}
    for batch, speed in batches.items():
        if batch in others and (batch == 1 or (speed.fits and others[batch].fits)):
            per = "user" if batch == 1 else "gpu"
            template = f"{{expected_tokens_per_second_per_{per}:number}}"
            cells = tuple(x(template if x.fits else f"({template})") for x in (speed, others[batch]))
            over = against(f"{{decode[{batch}]}}") if against is not None and str(batch) in against.decode else ""
            label = "tokens/s, one user alone" if batch == 1 else "tokens/s per GPU, {batch:d} users"
            rows.append((speed(label), *cells, over))
    if c.pooled is None and against is not None:
        for label, field in (
            ("dense compute of equal loss", "quality"),
            ("compute of a law's best MoE", "own_compute"),
        ):
            ratios = getattr(against, field)
            if ratios:
                low, high = (pick(ratios, key=ratios.__getitem__) for pick in (min, max))
                rows.append((f"{label}, by law", "", "", against(f"{{{field}[{low}]}} to {{{field}[{high}]}}")))
    return rows


def _others(c: View[Comparison]) -> list[Section]:
    """The models beyond the first two."""
    rows = tuple(
        (x.name, x("{total_params}"), x("{tokens}"), x("{train_flops}"), x("{serving_bytes}"), x("{fits_memory}"))
        for x in c.models[2:]
    )
    columns = ("", "params (N)", "tokens", "train FLOPs", "served", "fits")
    return [Section("Other dense models", (Table(rows, columns, right=(1, 2, 3, 4)),))] if rows else []


def _warnings(c: View[Comparison], first: View[Candidate], second: View[Candidate]) -> list[Section]:
    speaking = [column for column in c.it.laws if column.answers[0].dense_compute or column.answers[0].own_compute]
    open_ones = open_laws(c.it.notes)
    applies: dict[str, Any] = {
        "first_does_not_fit": lambda: first.fits_memory is False,
        "second_does_not_fit": lambda: second.fits_memory is False,
        "no_law": lambda: not speaking,
        "open_law": lambda: bool(open_ones),
        "other_attention": lambda: first.role != "given" and mixed(first.architecture),
        "all_outside": lambda: speaking and all(any(a.outside for a in column.answers[:2]) for column in speaking),
    }
    kind = second.architecture.attention.upper()
    more = {"first": str(first.name), "second": str(second.name), "attention": kind, "open": open_ones}
    return warning_sections("comparison", c, applies, **more)
