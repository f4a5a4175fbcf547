"""An inspection as sections of text and tables. Every number is the inspection's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from moeplan.architecture.published import PublishedModel
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.quantities import times
from moeplan.report.blocks import Block, Column, Items, Paragraph, Section, Table, table
from moeplan.report.opinions import SIZE, leverage_blocks, shape_cells
from moeplan.report.sections import PARAMS
from moeplan.report.sources import leverage_source
from moeplan.report.stored_weights import weights_blocks
from moeplan.report.text import EXTRAPOLATED, NONE, Source, Text, mark
from moeplan.report.view import View
from moeplan.studies.inspection import Inspection
from moeplan.studies.long_sequences import LongSequences
from moeplan.studies.serving_fit import ServingFit
from moeplan.studies.training_fit import TrainingFit
from moeplan.units import format_count, format_decimal_bytes, parse_memory

_DEGREES = ("tp", "pp", "ep", "etp", "cp", "dp", "virtual_stages")
_MFU = "{mfu_convention}"


def seen(found: Inspection) -> View[Inspection]:
    """An inspection whose numbers know their place."""

    def source(parts: list[str]) -> Source | None:
        judged = found.judgement
        of_leverage = judged is not None and judged.leverage is not None and parts[:2] == ["judgement", "leverage"]
        return leverage_source(judged.leverage, parts[2:]) if of_leverage else None  # type: ignore[union-attr, arg-type]

    return View(found, source)


def inspection_sections(found: Inspection) -> list[Section]:
    """The whole report of an inspection."""
    s = seen(found)
    parts = [
        ("", (Paragraph(headline(s)), *_origin(s))),
        ("Not counted", _not_counted(found) if found.not_counted else ()),
        ("Params", _params(s)),
        ("Weight files", weights_blocks(s.stored) if found.stored is not None else ()),
        ("Shape", _shape(s)),
        ("FLOPs and memory", _costs(s) if found.memory is not None else ()),
        ("Long sequences", _long(s.long_sequences) if found.long_sequences is not None else ()),
        ("Training", _training(s.training) if found.training is not None else ()),
        ("Serving", _serving(s.serving) if found.serving is not None else ()),
        *(_judgement(s.judgement) if found.judgement is not None else ()),
        ("Read as", (Items(found.assumptions),) if found.assumptions else ()),
    ]
    return [Section(title, blocks) for title, blocks in parts if blocks]


def headline(seen: View[Inspection]) -> Text:
    """Name, params and experts in a sentence."""
    shape = seen.shape
    kind = " ({model_type})" if seen.model_type else ""
    shared = " and {shape.num_shared_experts:d} shared" if shape.num_shared_experts else ""
    experts = "{shape.num_active_experts:d} of {shape.num_experts:d} experts" if shape.num_experts else "dense"
    if seen.total_params is None or seen.active_params is None:
        least = "at least {at_least_params:,} params"
        count = f"{least}; {experts}{shared}; the total is not known, because not everything is counted"
    else:
        total, active = "{total_params[with_embeddings]:,}", "{active_params[with_embeddings]:4}"
        count = f"{total} params, {active} of them active; {experts}{shared}"
    return seen(f"{{name}}{kind}: {count}.")


def _origin(seen: View[Inspection]) -> tuple[Block, ...]:
    made = seen.publication
    hint = "--tokens {planned_tokens:count4} shows what the laws say"
    if made is None:
        return (Paragraph(seen(hint + ".")),) if seen.planned_tokens and seen.judgement is None else ()
    text = (
        f"By the {made.source.removeprefix('the ')} (confidence: {{publication.confidence}}). Its makers say "
        "{publication.card_total:count} total and {publication.card_active:count} active params"
    )
    if made.class_params and seen.total_params is None:
        text += "; its transformers class has {publication.class_params:,}"
    if made.training_tokens:
        text += ", trained on {publication.training_tokens} tokens"
    if made.note:
        text += f". {made.note.rstrip('.')}"
    if made.training_tokens and seen.judgement is None and seen.total_params is not None:
        text += f". {hint}"
    return (Paragraph(seen(text + ".")),)


def _not_counted(found: Inspection) -> tuple[Block, ...]:
    items = Items(tuple(f"{what[:1].upper()}{what[1:]}." for what in found.not_counted))
    if found.total_params is not None:
        return (items, Paragraph("These are no part of the language model, whose params are counted in full."))
    return (items, Paragraph("So there is no total, no FLOPs and no memory; what is certain is below."))


def _params(seen: View[Inspection]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    if seen.total_params is not None and seen.active_params is not None:
        columns: tuple[Column, ...] = (
            ("", lambda name: PARAMS[name]),
            (">total (N)", lambda name: seen(f"{{total_params[{name}]:,}}")),
            (">active (N_a)", lambda name: seen(f"{{active_params[{name}]:,}}")),
        )
        blocks.append(table(seen.total_params, columns, strong=(0,)))
    groups = [name for name, params in seen.params_by_group.items() if params]
    blocks.append(table(groups, (("group", str), (">params", lambda name: seen(f"{{params_by_group[{name}]:,}}")))))
    if seen.mtp_layers:
        what = "{mtp_params:,} params" if seen.mtp_params is not None else "not counted"
        layers = "layer" if seen.mtp_layers == 1 else "layers"
        text = f"{{mtp_layers}} multi-token-prediction {layers} more ({what}), which no total includes."
        blocks.append(Paragraph(seen(text)))
    return tuple(blocks)


def _shape(seen: View[Inspection]) -> tuple[Block, ...]:
    rows = [("", "layers", "{num_layers:d}, {num_moe_layers:d} with experts"), ("", "d_model", "{d_model}")]
    if seen.shape.num_experts:
        rows += [
            ("A", "activation_ratio", "{num_active_experts:d}/{num_experts:d} = {activation_ratio}"),
            ("G", "active experts, shared included", "{G}"),
            ("S", "shared_ratio", "{shared_ratio}"),
            ("", "d_expert", "{d_expert}"),
            ("g", "granularity", "{granularity:number} = 2*d_model/d_expert"),
            ("", "expansion_ratio", "{expansion_ratio:number4}, shared included"),
        ]
    cells = [(symbol, name, seen.shape(template)) for symbol, name, template in rows]
    if seen.active_param_ratio is not None:
        cells.append(("N_a/N", "active_param_ratio", seen("{active_param_ratio}")))
    return (Table(tuple(cells)),)


def _costs(seen: View[Inspection]) -> tuple[Block, ...]:
    rows = {
        "FLOPs per token": "{flops_per_token:4}: 6 x active params without input embedding + causal attention at "
        "{seq_len} tokens, forward + backward",
        f"as {LEVERAGE_LAW} counts": "{flops_per_token_tian2025:flops4}: non-embedding params, full "
        "attention, no logits",
        "weights": "{memory.weight_bytes:4} in {memory.weight_dtype}",
        "KV cache": "{memory.kv_bytes_per_token:,} bytes a token, {memory.kv_dtype}",
        **({"state": "{memory.state_bytes:,} bytes a sequence"} if seen.memory.state_bytes else {}),
        "served": "{memory.total_bytes:4} with a cache of {memory.context} tokens x {memory.concurrency}, "
        "{memory.kv_dtype}",
    }
    return (Table(tuple((name, seen(template)) for name, template in rows.items())),)


def _long(seen: View[LongSequences]) -> tuple[Block, ...]:
    """What attention and experts cost at two lengths."""
    speed = ">tokens/s, one user" + (f" ({seen.num_devices} {seen.device})" if seen.num_devices is not None else "")
    columns: tuple[Column, ...] = (
        (">tokens", "{context}"),
        (">cache of a sequence", "{cache_bytes:4}"),
        (speed, "{tokens_per_second:number}"),
    )
    rows = "A token's rows to experts and back in training, all layers, bf16: {expert_row_bytes:4}."
    return (table(seen.sequences, columns), *([Paragraph(seen(rows))] if seen.expert_row_bytes is not None else []))


def _training(seen: View[TrainingFit]) -> tuple[Block, ...]:
    """The layouts with speed and memory, or why there is none."""
    on = "{num_gpus:d} {device}, {batch_sequences:,} sequences of {seq_len} tokens a step, {precision}, {software}"
    if not seen.layouts:
        return (Paragraph(seen(f"Cannot be trained on {on}: {{says}}.")),)
    verdict = "" if seen.layouts[0].fits else "The layout does not fit: {says}. "
    note = f" Site: {seen.site_note}." if seen.site_note else ""
    more = note + (" {idle_gpus:d} of the GPUs stay idle." if seen.idle_gpus else "")
    degrees = [name for name in _DEGREES if any(getattr(each, name) > 1 for each in seen.layouts)]
    columns: list[Column] = [
        *((f">{name}", f"{{{name}:d}}") for name in degrees),
        (">micro-batch", "{micro_batch:d}"),
        ("recompute", lambda layout: NONE if layout.recompute == "none" else layout.recompute),
        (">tokens/s per GPU", "{tokens_per_second_per_gpu:,.0f}"),
        ("80 % interval", "{tokens_per_second_per_gpu.low:,.0f}–{tokens_per_second_per_gpu.high:,.0f}"),
        (">MFU", "{mfu:share}"),
        (">memory per GPU", "{bytes_per_gpu}"),
    ]
    if seen.tokens is not None:
        columns += [(">days", "{days:number}"), ("80 % interval", "{days.low:number}–{days.high:number}")]
    groups = {name: size for name, size in seen.layouts[0].bytes_by_group.items() if size}
    memory = Table(
        tuple((name, format_decimal_bytes(size)) for name, size in groups.items()), ("the first, per GPU", "bytes")
    )
    return (
        Paragraph(
            seen(f"{verdict}On {on}, {{optimizer}} optimizer; {{usable_bytes}} usable per GPU.{more} MFU: {_MFU}.")
        ),
        table(seen.layouts, tuple(columns)),
        memory,
        Paragraph(
            "Time by a model calibrated on published runs; the interval holds 80 % of runs that it never saw, what is "
            "common to a site included."
            + (" Days are of training throughout, without pauses." if seen.tokens is not None else "")
        ),
    )


def _serving(seen: View[ServingFit]) -> tuple[Block, ...]:
    """Yes or no, for how many users, and how fast."""
    where = "{memory}, {usable_bytes} usable on each device"
    if not seen.fits:
        return (Paragraph(seen(f"No: with one sequence of {{context}} tokens it does not fit {where}; {seen.says}.")),)
    return (
        Paragraph(
            seen(
                f"Yes: it fits {where}, weights in {{weight_dtype}}, with room for at most {{most_sequences:,}} "
                "sequence(s) of {context} tokens, cached in {kv_dtype}."
            )
        ),
        Paragraph(
            seen(
                "Decode on {num_devices:d} {device}: {tokens_per_second_per_user:number} tokens a second per user and "
                "{tokens_per_second_per_gpu:number} per GPU with all of them, "
                "{tokens_per_second_per_user_alone:number} for one user alone (80 % interval: divided and multiplied "
                "by {interval_factor:number}); no GPU passes {most_tokens_per_second_per_gpu:number}."
            )
        ),
    )


def _judgement(judged: View[Any]) -> list[tuple[str, tuple[Block, ...]]]:
    about = judged("{tokens:4} tokens cost {train_flops:4} FLOPs; {tokens_per_param:number} tokens per active param.")
    dense = Paragraph("A dense model is what leverage is measured against: its own is 1 by definition.")
    leverage = (dense,) if judged.leverage is None else leverage_blocks(judged.leverage)
    return [
        ("Efficiency Leverage", (Paragraph(about), *leverage)),
        ("Against each law's own optimum", _laws(judged)),
        ("What moeplan would have chosen", _chosen(judged)),
    ]


def _laws(judged: View[Any]) -> tuple[Block, ...]:
    columns: tuple[Column, ...] = (
        ("law", lambda law: mark(law.law, law.outside)),
        ("role", "{role}"),
        (">of its best", "{efficiency:share}"),
        (">C_l [FLOPs]", "{compute:flops}"),
    )
    limit = parse_memory(judged.memory)
    each = f"{limit.num_devices} x " if limit.num_devices > 1 else ""
    blocks: list[Block] = [
        table(judged.laws, columns),
        Paragraph(
            "Of its best: C_l of the model / C_l of the law's own best design of the declared grid at the same compute "
            "and memory; C_l is the compute at which the law's best design without a memory limit is as good. Above "
            "100 % the model, which is not on the grid, is better by that law than any design that is. Memory: "
            f"{each}{format_decimal_bytes(limit.bytes_per_device, 4)}, {judged.memory_basis}."
        ),
    ]
    optima = tuple((law.law, *shape_cells(law.optimum)) for law in judged.laws if law.optimum is not None)
    if optima:
        blocks.append(Table(optima, ("law", "its own best", "tokens", "k+s/E", "g"), right=(2, 4)))
    says = tuple(f"{law.law}: {law.says}." for law in judged.laws if law.says)
    if says:
        blocks.append(Items(says))
    far = dict.fromkeys(outside.variable for law in judged.laws for outside in law.outside)
    if far:
        text = f"Marked {EXTRAPOLATED}: outside the range that the law was measured on ({', '.join(far)})."
        blocks.append(Paragraph(text))
    return tuple(blocks)


def _chosen(judged: View[Any]) -> tuple[Block, ...]:
    if judged.recommended is None:
        return (Paragraph(f"Nothing: {judged.recommended_says}."),)
    best = judged.recommended(
        f"{SIZE} on {{tokens}} tokens: {{num_active_experts:d}} of {{num_experts:d}} experts of {{d_expert}} and "
        f"{{num_shared_experts:d}} shared, {{num_layers:d}} layers of {{d_model}}, {LEVERAGE_LAW}'s EL "
        "{efficiency_leverage}."
    )
    blocks: list[Block] = [Paragraph(best)]
    if judged.value_ratio and judged.recommended_value_ratio:
        ratio = times(judged.recommended_value_ratio / judged.value_ratio)
        text = (
            "The laws together (geometric mean) give the model a quality (V) of {value_ratio} of its compute, that "
            f"design {{recommended_value_ratio:share}}: {ratio} as much."
        )
        blocks.append(Paragraph(judged(text)))
    return (*blocks, Paragraph(f"In full: {judged.command}"))


def model_list_sections(models: Iterable[PublishedModel]) -> list[Section]:
    """The bundled models in one table."""
    columns: tuple[Column, ...] = (
        ("model", lambda model: model.name),
        (">params", lambda m: NONE if m.not_counted else format_count(m.architecture.total_params(), 4)),
        (">active", lambda m: NONE if m.not_counted else format_count(m.architecture.active_params(), 4)),
        ("k+s/E", _experts),
        (">tokens", lambda model: format_count(model.training_tokens) if model.training_tokens else NONE),
        ("confidence", lambda model: model.confidence),
    )
    legend = (
        "Params with both embeddings, without multi-token-prediction layers.",
        f"{NONE} under params: something in the model is not counted; moeplan inspect NAME says what.",
    )
    return [Section("", (table(models, columns), Items(legend)))]


def _experts(model: PublishedModel) -> str:
    shape = model.architecture
    if not shape.num_experts:
        return "dense"
    return f"{shape.num_active_experts}+{shape.num_shared_experts}/{shape.num_experts}"
