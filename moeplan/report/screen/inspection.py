"""The first screen of `moeplan inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moeplan.report.blocks import Section, Table
from moeplan.report.inspection import headline, seen
from moeplan.report.mixers import mixed
from moeplan.report.opinions import SIZE
from moeplan.report.screen.commands import asked_again, next_section
from moeplan.report.screen.leverage import leverage_section
from moeplan.report.screen.warnings import warning_sections
from moeplan.report.speeds import speeds_text
from moeplan.report.text import Text, joined, listed
from moeplan.report.view import View
from moeplan.studies.inspection import Inspection
from moeplan.studies.long_sequences import LongSequences
from moeplan.units import format_count

_DEGREES = ("tp", "pp", "ep", "etp", "cp", "dp", "virtual_stages")


def inspection_screen(found: Inspection, command: str = "") -> list[Section]:
    """A model on one screen; `command` is the line that asked for it."""
    s = seen(found)
    also = ["--section optimum" if found.judgement is not None else f"{_tokens(found)} asks the laws"]
    if found.training is not None and found.serving is None:
        also.append("--memory 8x80GB asks how it is served")
    leverage = found.judgement is not None and found.judgement.leverage is not None
    return [
        Section(headline(s), (Table(tuple(_rows(s))),)),
        *([leverage_section(s.judgement.leverage.pooled)] if leverage else []),
        *_warnings(s),
        *next_section(asked_again(command, "--full"), also),
    ]


def _tokens(found: Inspection) -> str:
    """An option for training tokens: the model's own where they are published."""
    made = found.publication
    return f"--tokens {format_count(made.training_tokens, 4) if made and made.training_tokens else '15T'}"


def _rows(s: View[Inspection]) -> Iterator[tuple[str, str]]:
    experts = ", {shape.num_moe_layers:d} with experts" if s.shape.num_experts else ""
    built = s(f"{{shape.num_layers:d}} layer(s){experts}; d_model {{shape.d_model}}")
    yield "Shape", joined((built, mixed(s.architecture))) if s.architecture is not None else built
    if s.shape.num_experts:
        more = (
            "width {shape.d_expert}, granularity {shape.granularity:number}, "
            "activation ratio {shape.activation_ratio}, shared ratio {shape.shared_ratio}"
        )
        yield "Experts", s(more)
    if s.publication is not None:
        made = s.publication
        trained = ", {publication.training_tokens} tokens" if made.training_tokens else ""
        said = f"{{publication.card_total:count}} total, {{publication.card_active:count}} active params{trained}"
        yield "Published", s(said)
    if s.flops_per_token is not None:
        yield "FLOPs", s("{flops_per_token} a token, forward and backward, at {seq_len} tokens")
    if s.memory is not None:
        held = (
            "{memory.total_bytes} with weights in {memory.weight_dtype} and a {memory.kv_dtype} cache of "
            "{memory.context} tokens x {memory.concurrency}; {memory.kv_bytes_per_token} a token"
        )
        yield "Memory", s(held)
    if s.long_sequences is not None:
        yield "At 128k", _long(s.long_sequences)
    if s.training is not None:
        yield from _train(s)
    if s.serving is not None:
        yield "Serve", _serve(s)
    if s.judgement is not None:
        yield from _judged(s)


def _long(s: View[LongSequences]) -> Text:
    """Cache and speed of one sequence of the longer length, and what experts are sent."""
    speed = ", {sequences[1].tokens_per_second:number} tokens/s for one user ({num_devices:d} {device})"
    sent = "; {expert_row_bytes} a token to experts and back in training"
    said: Text = s(
        "{sequences[1].cache_bytes} of cache a sequence"
        + (speed if s.num_devices is not None else "")
        + (sent if s.expert_row_bytes is not None else "")
    )
    return said


def _train(s: View[Inspection]) -> list[tuple[str, str]]:
    run = s.training
    on = f"{{num_gpus:d}} {run.device}"
    if not run.layouts:
        return [("Train", run(f"cannot be trained on {on}"))]
    best = run.layouts[0]
    names = [name for name in _DEGREES if getattr(best, name) > 1]
    degrees = listed([best(f"{name} {{{name}:d}}") for name in names] or ["one GPU"], " ")
    days = best("{days:number} day(s)") if best.days is not None else ""
    whole = joined((days, run(" for {tokens} tokens "))) if days else ""
    speed = "{tokens_per_second_per_gpu:,.0f} tokens/s per GPU ({tokens_per_second_per_gpu.low:,.0f}–"
    speed += "{tokens_per_second_per_gpu.high:,.0f}), {mfu:share} MFU"
    return [
        ("Train", joined((whole, run(f"on {on}: "), best(speed)))),
        ("", joined(("layout ", degrees, best(", {bytes_per_gpu} "), run("of {usable_bytes} per GPU")))),
    ]


def _serve(s: View[Inspection]) -> Text:
    use = s.serving
    where = f"{use.memory} in {use.weight_dtype}"
    if not use.fits:
        lacks: Text = use(f"does not fit {where}: {{bytes_per_device}} per GPU, {{usable_bytes}} usable")
        return lacks
    room = use(f"fits {where}, room for {{most_sequences:,}} sequence(s) of {{context}} tokens: ")
    return joined((room, speeds_text(use), use(f" ({{num_devices:d}} {use.device})")))


def _judged(s: View[Inspection]) -> list[tuple[str, str]]:
    """Tokens, quality, and what would be chosen there."""
    judged = s.judgement
    rows = [("Tokens", judged("{tokens}: {train_flops} FLOPs, {tokens_per_param:number} per active param"))]
    if judged.value_ratio is not None:
        rows.append(
            ("Quality (V)", judged("{value_ratio:share} of its compute would do as well in the laws' own best designs"))
        )
    if judged.recommended is not None:
        there = judged.recommended(f"{SIZE} on {{tokens}} tokens for the same compute in ")
        memory = judged.memory if s.serving is not None else "as much memory"
        share = judged(": {recommended_value_ratio:share}") if judged.recommended_value_ratio is not None else ""
        rows.append(("Recommended", joined((there, memory, share))))
    return rows


def _warnings(s: View[Inspection]) -> list[Section]:
    found = s.it
    laws = [law for law in found.judgement.laws if law.compute is not None] if found.judgement else []
    applies: dict[str, Any] = {
        "no_total": lambda: found.total_params is None,
        "cannot_train": lambda: found.training is not None and not found.training.layouts,
        "layout_does_not_fit": lambda: found.training and found.training.layouts and not found.training.layouts[0].fits,
        "cannot_serve": lambda: found.serving is not None and not found.serving.fits,
        "serves_one": lambda: found.serving is not None and found.serving.most_sequences == 1,
        "all_outside": lambda: laws and all(law.outside for law in laws),
        "assumed": lambda: found.assumptions,
    }
    return warning_sections("inspection", s, applies, points=s.count_at("assumptions"))
