"""An inspection as sections of text and tables. Every number is the inspection's."""

from __future__ import annotations

from collections.abc import Iterable

from moeplan.architecture.published import PublishedModel
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.document import Design
from moeplan.report.blocks import (
    EXTRAPOLATED,
    NONE,
    Block,
    Items,
    Paragraph,
    Section,
    Table,
    mark,
    number,
    percent,
    times,
)
from moeplan.report.opinions import leverage_blocks, size
from moeplan.studies.inspection import Inspection
from moeplan.studies.laws_on_model import Judgement, LawJudgement
from moeplan.units import format_bytes, format_count, format_flops, parse_memory

_CONVENTIONS = {
    "with_embeddings": "params, all",
    "without_input_embedding": "params, without input embedding",
    "non_embedding": "params, without embeddings",
}


def inspection_sections(found: Inspection) -> list[Section]:
    """The whole report of an inspection."""
    sections = [Section("", (Paragraph(_headline(found)), *_origin(found)))]
    if found.not_counted:
        sections.append(Section("Not counted", _not_counted(found)))
    sections.append(Section("Params", _params(found)))
    sections.append(Section("Shape", _shape(found)))
    if found.memory is not None:
        sections.append(Section("FLOPs and memory", _costs(found)))
    if found.judgement is not None:
        sections += _judgement(found.judgement)
    if found.assumptions:
        sections.append(Section("Read as", (Items(found.assumptions),)))
    return sections


def _headline(found: Inspection) -> str:
    kind = f" ({found.model_type})" if found.model_type else ""
    shape = found.shape
    experts = (
        f"{shape.num_active_experts} of {shape.num_experts} experts"
        + (f" and {shape.num_shared_experts} shared" if shape.num_shared_experts else "")
        if shape.num_experts
        else "dense"
    )
    if found.total_params is None or found.active_params is None:
        return f"{found.name}{kind}: {experts}; the total is not known, because not everything is counted."
    total, active = found.total_params["with_embeddings"], found.active_params["with_embeddings"]
    return f"{found.name}{kind}: {total:,} params, {format_count(active, 4)} of them active; {experts}."


def _origin(found: Inspection) -> tuple[Block, ...]:
    made = found.publication
    if made is None:
        if found.planned_tokens and found.judgement is None:
            return (Paragraph(f"{_hint(found)} shows what the laws say."),)
        return ()
    said = f"{format_count(made.card_total)} total and {format_count(made.card_active)} active params"
    parts = [f"By the {made.source.removeprefix('the ')} (confidence: {made.confidence}). Its makers say {said}"]
    if made.class_params and found.total_params is None:
        parts[0] += f"; its transformers class has {made.class_params:,}"
    if made.training_tokens:
        parts[0] += f", trained on {format_count(made.training_tokens)} tokens"
    if made.note:
        parts.append(made.note.rstrip("."))
    if made.training_tokens and found.judgement is None and found.total_params is not None:
        parts.append(f"{_hint(found)} shows what the laws say")
    return (Paragraph(". ".join(parts) + "."),)


def _hint(found: Inspection) -> str:
    return f"--tokens {format_count(found.planned_tokens or 0, 4)}"


def _not_counted(found: Inspection) -> tuple[Block, ...]:
    items = Items(tuple(f"{what[:1].upper()}{what[1:]}." for what in found.not_counted))
    if found.total_params is not None:
        return (items, Paragraph("These are no part of the language model, whose params are counted in full."))
    return (items, Paragraph("So there is no total, no FLOPs and no memory; what is certain is below."))


def _params(found: Inspection) -> tuple[Block, ...]:
    blocks: list[Block] = []
    if found.total_params is not None and found.active_params is not None:
        rows = [
            (_CONVENTIONS[name], f"{total:,}", f"{found.active_params[name]:,}")
            for name, total in found.total_params.items()
        ]
        blocks.append(Table(tuple(rows), ("", "total (N)", "active (N_a)"), right=(1, 2), strong=(0,)))
    groups = tuple((name, f"{params:,}") for name, params in found.params_by_group.items() if params)
    blocks.append(Table(groups, ("group", "params"), right=(1,)))
    if found.mtp_layers:
        what = f"{found.mtp_params:,} params" if found.mtp_params is not None else "not counted"
        layers = "layer" if found.mtp_layers == 1 else "layers"
        blocks.append(
            Paragraph(f"{found.mtp_layers} multi-token-prediction {layers} more ({what}), which no total includes.")
        )
    return tuple(blocks)


def _shape(found: Inspection) -> tuple[Block, ...]:
    shape = found.shape
    rows = [
        ("", "layers", f"{shape.num_layers}, {shape.num_moe_layers} with experts"),
        ("", "d_model", f"{shape.d_model:,}"),
    ]
    if shape.num_experts:
        rows += [
            (
                "A",
                "activation_ratio",
                f"{shape.num_active_experts}/{shape.num_experts} = {percent(shape.activation_ratio)}",
            ),
            ("G", "active experts, shared included", str(shape.G)),
            ("S", "shared_ratio", percent(shape.shared_ratio)),
            ("", "d_expert", f"{shape.d_expert:,}"),
            ("g", "granularity", f"{number(shape.granularity)} = 2*d_model/d_expert"),
            ("", "expansion_ratio", f"{number(shape.expansion_ratio, 4)}, shared included"),
        ]
    if found.active_param_ratio is not None:
        rows.append(("N_a/N", "active_param_ratio", percent(found.active_param_ratio)))
    return (Table(tuple(rows)),)


def _costs(found: Inspection) -> tuple[Block, ...]:
    memory = found.memory
    assert memory is not None
    assert found.flops_per_token is not None
    assert found.flops_per_token_tian2025 is not None
    cached = f"{memory.context:,} tokens x {memory.concurrency:,}, {memory.kv_dtype}"
    rows = (
        (
            "FLOPs per token",
            f"{format_flops(found.flops_per_token, 4)}: 6 x active params without input embedding + causal attention "
            f"at {found.seq_len:,} tokens, forward + backward",
        ),
        (
            f"as {LEVERAGE_LAW} counts",
            f"{format_flops(found.flops_per_token_tian2025, 4)}: non-embedding params, full attention, no logits",
        ),
        ("weights", f"{format_bytes(memory.weight_bytes, 4)} in {memory.weight_dtype}"),
        ("KV cache", f"{memory.kv_bytes_per_token:,} bytes a token, {memory.kv_dtype}"),
        ("served", f"{format_bytes(memory.total_bytes, 4)} with a cache of {cached}"),
    )
    return (Table(rows),)


def _judgement(judged: Judgement) -> list[Section]:
    about = (
        f"{format_count(judged.tokens, 4)} tokens cost {format_flops(judged.train_flops, 4)} FLOPs; "
        f"{number(judged.tokens_per_param)} tokens per active param."
    )
    sections = []
    if judged.leverage is not None:
        sections.append(Section("Efficiency Leverage", (Paragraph(about), *leverage_blocks(judged.leverage))))
    else:
        dense = "A dense model is what leverage is measured against: its own is 1 by definition."
        sections.append(Section("Efficiency Leverage", (Paragraph(about), Paragraph(dense))))
    sections.append(Section("Against each law's own optimum", _laws(judged)))
    sections.append(Section("What moeplan would have chosen", _chosen(judged)))
    return sections


def _laws(judged: Judgement) -> tuple[Block, ...]:
    rows = tuple(
        (
            mark(law.law, law.outside),
            law.role,
            percent(law.efficiency) if law.efficiency is not None else NONE,
            format_flops(law.compute) if law.compute is not None else NONE,
        )
        for law in judged.laws
    )
    limit = parse_memory(judged.memory)
    each = f"{limit.num_devices} x " if limit.num_devices > 1 else ""
    memory = f"{each}{format_bytes(limit.bytes_per_device, 4)}"
    blocks: list[Block] = [
        Table(rows, ("law", "role", "efficiency", "C_l [FLOPs]"), right=(2, 3)),
        Paragraph(
            "Efficiency: C_l of the model / C_l of the law's own best design at the same compute and memory; C_l is "
            "the compute at which the law's best design without a memory limit is as good. Memory: "
            f"{memory}, {judged.memory_basis}."
        ),
    ]
    optima = tuple((law.law, *_design(law.optimum)) for law in judged.laws if law.optimum is not None)
    if optima:
        blocks.append(Table(optima, ("law", "its own best", "tokens", "k+s/E", "g"), right=(2, 4)))
    says = tuple(f"{law.law}: {law.says}." for law in judged.laws if law.says)
    if says:
        blocks.append(Items(says))
    if any(law.outside for law in judged.laws):
        blocks.append(
            Paragraph(f"Marked {EXTRAPOLATED}: outside the range that the law was measured on ({_far(judged.laws)}).")
        )
    return tuple(blocks)


def _far(laws: Iterable[LawJudgement]) -> str:
    names = dict.fromkeys(outside.variable for law in laws for outside in law.outside)
    return ", ".join(names)


def _design(design: Design | None) -> tuple[str, str, str, str]:
    if design is None:
        return (NONE, NONE, NONE, NONE)
    experts = f"{design.num_active_experts}+{design.num_shared_experts}/{design.num_experts}"
    return (size(design), format_count(design.tokens), experts, number(design.granularity))


def _chosen(judged: Judgement) -> tuple[Block, ...]:
    best = judged.recommended
    if best is None:
        return (Paragraph(f"Nothing: {judged.recommended_says}."),)
    sentence = (
        f"{size(best)} on {format_count(best.tokens)} tokens: {best.num_active_experts} of {best.num_experts} experts "
        f"of {best.d_expert:,} and {best.num_shared_experts} shared, {best.num_layers} layers of {best.d_model:,}, EL "
        f"{times(best.efficiency_leverage)}."
    )
    blocks: list[Block] = [Paragraph(sentence)]
    if judged.value_ratio and judged.recommended_value_ratio:
        blocks.append(
            Paragraph(
                f"The laws together (geometric mean) make the model worth {percent(judged.value_ratio)} of its "
                f"compute, that design {percent(judged.recommended_value_ratio)}: "
                f"{times(judged.recommended_value_ratio / judged.value_ratio)} as much."
            )
        )
    blocks.append(Paragraph(f"In full: {judged.command}"))
    return tuple(blocks)


def model_list_sections(models: Iterable[PublishedModel]) -> list[Section]:
    """The bundled models in one table."""
    rows = tuple(
        (
            model.name,
            NONE if model.not_counted else format_count(model.architecture.total_params(), 4),
            NONE if model.not_counted else format_count(model.architecture.active_params(), 4),
            _experts(model),
            format_count(model.training_tokens) if model.training_tokens else NONE,
            model.confidence,
        )
        for model in models
    )
    columns = ("model", "params", "active", "k+s/E", "tokens", "confidence")
    legend = (
        "Params with both embeddings, without multi-token-prediction layers.",
        f"{NONE} under params: something in the model is not counted; moeplan inspect NAME says what.",
    )
    return [Section("", (Table(rows, columns, right=(1, 2, 4)), Items(legend)))]


def _experts(model: PublishedModel) -> str:
    shape = model.architecture
    if not shape.num_experts:
        return "dense"
    return f"{shape.num_active_experts}+{shape.num_shared_experts}/{shape.num_experts}"
