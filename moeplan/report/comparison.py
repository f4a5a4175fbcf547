"""A comparison as sections of text and tables. Every number is the comparison's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from moeplan.laws.pooling import PooledLeverage
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.quantities import times
from moeplan.report.blocks import Block, Items, Paragraph, Section, Table, legend
from moeplan.report.comparison_charts import comparison_charts
from moeplan.report.comparison_laws import (
    MODEL,
    equal_loss_blocks,
    law_blocks,
    pair_blocks,
    savings_blocks,
    spread_text,
    work_cells,
)
from moeplan.report.comparison_sources import CAUSAL, COUNTED, WORK, seen
from moeplan.report.comparison_strict import strict_blocks, strict_headline
from moeplan.report.sources import ASKED
from moeplan.report.text import NONE, Source, Text, joined, judges, listed, mark
from moeplan.report.view import View
from moeplan.studies.comparison.answers import LawColumn
from moeplan.studies.comparison.candidate import Candidate
from moeplan.studies.comparison.remarks import Versus
from moeplan.studies.comparison.result import Comparison
from moeplan.texts import counted

__all__ = ["comparison_charts", "comparison_sections", "headline"]

_ALIKE = 0.05
"""Ratios nearer to 1 are not told."""


def comparison_sections(found: Comparison) -> list[Section]:
    """The whole report of a comparison."""
    laws, c = ", ".join(column.law for column in found.laws), seen(found)
    answered = Source("Answers of the laws about the exact shapes, each in its own FLOPs.", laws, WORK)
    optima = Source("Each law's own best MoE against its own best dense model, sizes continuous.", laws)
    again = Source("Numbers of the sections below, again.", laws, WORK)
    said = Source("Said by moeplan of this comparison, by the laws named.", laws)
    by_law = ("By each law", pair_blocks) if found.regime == "models" else ("Dense compute by each law", law_blocks)
    against = Items(tuple(_versus(c, one) for one in c.versus))
    ratios = Source("Ratios of what stands side by side above, the first model over the other.", laws)
    parts = [
        ("Side by side", _table(c), COUNTED),
        ("Strictly equal resources", strict_blocks(c) if found.resources else (), c.source_at("resources")),
        (by_law[0], by_law[1](c), answered),
        ("The dense model that is as good, by each law", equal_loss_blocks(c) if c.equal_loss else (), answered),
        ("Savings by each law's own optimum at this compute", savings_blocks(c) if c.savings else (), optima),
        ("Better and worse", (against,) if found.versus else (), ratios),
        ("What papers found", _findings(found), None),
        ("Notes", _notes(found), said),
    ]
    lead = Section("", (Paragraph(headline(found)), Paragraph(_conditions(c), ASKED)), source=again)
    return [lead, *(Section(title, blocks, source=source) for title, blocks, source in parts if blocks)]


def headline(found: Comparison) -> str:
    """The answer in a sentence or two."""
    c = seen(found)
    if found.resources is not None:
        return strict_headline(c)
    if found.regime == "models":
        return _pair_headline(c)
    twin = next((model for model in c.models if model.role == "equal_loss"), None)
    text = joined(("A ", c.models[0](MODEL), " has a leverage of ", _work(c.pooled), "."))
    against = next((one for one in c.versus if one.other != (twin.name if twin else "")), None)
    if against is None:
        return text
    other = next(model for model in c.models if model.name == against.other)
    what = {
        "compute_optimal": "the best dense model of the same compute",
        "equal_total_params": "the dense model of as many params and the same compute",
    }[other.role]
    misfit = ", which does not fit the memory" if other.fits_memory is False else ""
    time = " and {gpu_hours} the GPU time" if against.gpu_hours is not None else ""
    parts = "{serving_bytes} the memory to serve, {state_bytes} to train" + (", " if time else " and ")
    takes = against(f"{parts}{{tokens}} the tokens{time}.")
    return joined(
        (text, f" Against {what} (", other(f"{{total_params}} on {{tokens}} tokens{misfit}) it takes "), takes)
    )


def _work(pooled: View[PooledLeverage]) -> str:
    """What the MoE is worth by all laws together, with its interval and the dense model of equal loss."""
    laws = counted(len(pooled.weights), "law(s)")
    ends = pooled("{dense_low.total_params:2} to {dense_high.total_params:2}")
    if pooled.efficiency_leverage is None:
        said = mark(pooled("{low:2} to {high:2}"), True)
        basis = pooled(f" ({laws}, {{level}} interval): it is as good as a dense model of ")
        return joined((said, basis, ends, " params"))
    said = mark(pooled("{efficiency_leverage:2}"), pooled.decades_outside)
    basis = pooled(f" ({laws}, {{level}} interval {{low:2}}–{{high:2}}): it is as good as a dense ")
    return joined((said, basis, pooled("{dense.total_params:2} model ("), ends, ")"))


def _conditions(c: View[Comparison]) -> Text:
    """What the comparison was made under."""
    made = c.setting
    if made.flops is not None:
        limit = " and {memory}" if made.memory else ""
        parts = [f"For {{flops}} FLOPs{limit}, the MoE chosen by {judges(made.laws, made.weights)}"]
        parts.append(f"dense models with {c.models[1].architecture.attention.upper()} in every layer")
    else:
        parts = ["Each as it is" + (", to be served in {memory}" if made.memory else "")]
    if made.tokens_available is not None:
        parts.append("{tokens_available} unique tokens")
    parts.append(
        "served in {weight_dtype} with a {kv_dtype} cache of {context} tokens x {concurrency}, trained with {optimizer}"
    )
    text: Text = made("; ".join(parts) + ".")
    return text


def _table(c: View[Comparison]) -> tuple[Block, ...]:
    """Params, tokens, compute, quality, memory and speed of every model."""
    models, made = c.models, c.setting

    def any_has(field: str) -> bool:
        return any(getattr(model, field) is not None for model in models)

    rows: list[tuple[str, str]] = [("total params", "{total_params}")]
    if any(not model.is_dense for model in models):
        rows.append(("active params", "{active_params}"))
    rows += [("tokens", "{tokens}"), ("tokens per param", "{tokens_per_param:number}")]
    if any(model.epochs for model in models):
        rows.append(("epochs", "{epochs}"))
    rows += [("train FLOPs", "{train_flops}"), (f"{made.device}-hours", "{gpu_hours}"), ("  at MFU", "{mfu}")]
    rows += [("days", "{days}")] if any_has("days") else []
    rows += [("price", "{money:,.0f}")] if any_has("money") else []
    memory = [("training state", "{state_bytes}")]
    memory += [("  least per GPU", "{training_bytes_per_gpu}")] if any_has("training_bytes_per_gpu") else []
    memory.append((f"served, 1 of {made.memory_devices}" if made.memory_devices > 1 else "served", "{serving_bytes}"))
    if made.memory is not None:
        memory.append((made("  fits {usable_bytes}"), "{fits_memory}"))
    memory.append(("KV a token", "{kv_bytes_per_token}"))
    memory.append(("cache at 128k", "{long_sequences.sequences[1].cache_bytes}"))
    memory.append(("  tokens/s at 128k", "{long_sequences.sequences[1].tokens_per_second:number}"))
    memory.append(("rows to experts", "{long_sequences.expert_row_bytes}"))
    batches = dict.fromkeys(speed.batch for model in models for speed in model.decode)
    cells: list[tuple[str, ...]] = [
        *((label, *(model(template) for model in models)) for label, template in rows),
        *_quality_rows(c),
        *((label, *(model(template) for model in models)) for label, template in memory),
        *(
            (f"tok/s per {name}, {batch} served", *(_speed(model, batch, of) for model in models))
            for of, name in (("user", "user"), ("gpu", "GPU"))
            for batch in batches
        ),
    ]
    strong = tuple(place for place, row in enumerate(cells) if row[0].startswith("dense compute"))
    columns = ("", *(model.name for model in models))
    text = (
        f"FLOPs are {CAUSAL}, at sequences of {{seq_len}}. Decode on {{num_serving_devices:d}} {{serving_device}}, as "
        "expected by a model fitted to published figures: tokens a second of each user and of each GPU with so many "
        "sequences served at a time, {context} tokens cached each; in brackets where that exceeds "
        f"{'the memory limit' if made.memory else 'their memory'}."
    )
    return (
        Table(tuple(cells), columns, right=tuple(range(1, len(columns))), strong=strong),
        Items(tuple(joined((f"{model.name}: {model.says}", _built(c, model), ".")) for model in models)),
        Paragraph(made(text), COUNTED),
    )


def _speed(model: View[Candidate], batch: int, of: str) -> str:
    speed = next((speed for speed in model.decode if speed.batch == batch), None)
    written = f"{{expected_tokens_per_second_per_{of}:number}}"
    return NONE if speed is None else speed(written if speed.fits else f"({written})")


def _quality_rows(c: View[Comparison]) -> list[tuple[str, ...]]:
    """What the MoE is worth by all laws together, dense-equivalent compute by the leverage law, and by the others."""
    rows: list[tuple[str, ...]] = []
    if c.pooled is not None:
        none = [NONE] * (len(c.models) - 1)
        if c.pooled.efficiency_leverage is not None:
            point = mark(c.pooled("{efficiency_leverage:2}"), c.pooled.decades_outside)
            rows.append(("leverage, pooled", point, *none))
        label = "leverage, pooled" if c.pooled.efficiency_leverage is None else c.pooled("  {level} interval")
        rows.append((label, mark(c.pooled("{low:2}–{high:2}"), c.pooled.decades_outside), *none))
    comparing = [column for column in c.laws if any(a.ratio is not None for a in column.answers)]
    for column in comparing:
        if column.law == LEVERAGE_LAW:
            rows.append((f"dense compute, {column.law}", *work_cells(column)))
    others = [column for column in comparing if column.law != LEVERAGE_LAW]
    if others:
        spreads = (_spread_cell(others, at) for at in range(len(c.models)))
        rows.append(("  other laws", *spreads))
    return rows


def _spread_cell(others: Iterable[View[LawColumn]], at: int) -> str:
    """The lowest and the highest ratio of one model's work that other laws give; they are not averaged."""
    known = [column.answers[at] for column in others if column.answers[at].ratio is not None]
    return spread_text(known, "{ratio:number}") if known else NONE


EQUAL = 0.005
"""Ratios of quality nearer to 1 are equal."""


def judged(against: View[Versus]) -> dict[str, float]:
    """By every law that judges two models, the first one's quality over the other's."""
    return {**against.own_compute, **against.quality}


def better_by(ratios: Mapping[str, float]) -> int | None:
    """By how many laws the first model is better, negative where the other is; None where all find them equal."""
    if all(abs(ratio - 1) < EQUAL for ratio in ratios.values()):
        return None
    ahead = sum(ratio > 1 for ratio in ratios.values())
    return ahead if 2 * ahead >= len(ratios) else ahead - len(ratios)


def _pair_headline(c: View[Comparison]) -> str:
    first, second = c.models
    against = c.versus[0]
    ratios = judged(against)
    if not ratios:
        return f"{first.name} and {second.name}: no law here can judge both."
    ahead = better_by(ratios)
    if ahead is None:
        return f"{first.name} and {second.name} are equally good by all {len(ratios)} laws that judge both."
    better, worse, power = (first, second, 1) if ahead > 0 else (second, first, -1)
    by = f"all {len(ratios)} laws" if abs(ahead) == len(ratios) else f"{abs(ahead)} of {len(ratios)} laws"
    worth = []
    for kind, what in ((against.quality, "in dense models"), (against.own_compute, "in the laws' own best MoEs (C_l)")):
        if kind:
            values = [ratio**power for ratio in kind.values()]
            ends = "–".join(dict.fromkeys((times(min(values)), times(max(values)))))
            worth.append(f"{mark(ends, _outside(c, kind, 1))} {what}")
    return (
        f"{better.name} is better than {worse.name} by {by} that judge both: by {', '.join(worth)}, for "
        f"{times(against.train_flops**power)} the training compute."
    )


def _outside(c: View[Comparison], laws: Iterable[str], at: int) -> bool:
    """Whether the first model or the one at `at` leaves the measured range of any of the laws."""
    columns = [column for column in c.laws if column.law in laws]
    return any(column.answers[place].outside for column in columns for place in (0, at))


def _versus(c: View[Comparison], against: View[Versus]) -> Text:
    """What the first model is better and worse at than another."""
    at = next(place for place, model in enumerate(c.models) if model.name == against.other)
    good: list[str] = []
    bad: list[str] = []
    quality = against.quality.get(LEVERAGE_LAW)
    if quality is not None:
        said = Text(LEVERAGE_LAW)
        if against.quality_low is not None and against.quality_high is not None:
            others = [law for law in against.quality if law != LEVERAGE_LAW]
            spread = mark(against("{quality_low..quality_high}"), _outside(c, others, at))
            said = joined((said, "; other laws ", spread))
        if abs(quality - 1) < EQUAL:
            good.append(joined(("as good (", said, ")")))
        else:
            text = mark(against(f"{{quality[{LEVERAGE_LAW}]}}"), _outside(c, (LEVERAGE_LAW,), at))
            (good if quality > 1 else bad).append(joined((text, " the dense compute (", said, ")")))
    for field, what in (
        ("train_flops", "training compute"),
        ("gpu_hours", "GPU time"),
        ("tokens", "tokens"),
        ("state_bytes", "training state"),
        ("serving_bytes", "serving memory"),
        ("kv_bytes_per_token", "KV cache"),
    ):
        ratio = getattr(against, field)
        if ratio is not None and abs(ratio - 1) > _ALIKE:
            (good if ratio < 1 else bad).append(against(f"{{{field}}} the {what}"))
    for batch, ratio in against.decode.items():
        if abs(ratio - 1) > _ALIKE:
            (good if ratio > 1 else bad).append(against(f"{{decode[{batch}]}} the decode speed at batch {batch}"))
    better, worse = (listed(texts or ["nothing"]) for texts in (good, bad))
    return joined((f"{c.models[0].name} against {against.other}. Better: ", better, ". Worse: ", worse, "."))


def _built(c: View[Comparison], model: View[Candidate]) -> Text:
    """A model's shape; nothing of a dense model that so far out no law can name."""
    far = model.role == "equal_loss" and c.pooled is not None and c.pooled.dense is None
    return Text("") if far else joined(("; ", _shape(model.architecture)))


def _shape(shape: Any) -> Text:
    experts = ", {num_active_experts:d}+{num_shared_experts:d} of {num_experts:d} experts of {d_expert}"
    dense = ", d_ff {d_ff}" if shape.d_ff and shape.is_dense else ""
    text: Text = shape(
        f"{{num_layers}} layers of {{d_model}}{dense}{'' if shape.is_dense else experts}, {{num_heads}} heads"
    )
    return text


def _findings(found: Comparison) -> tuple[Block, ...]:
    texts = tuple(Text(f"{x.text} ({x.source})", Source(f"Found by {x.source}.")) for x in found.findings)
    if not texts:
        return ()
    reasoning = Paragraph("On reasoning apart from knowledge, nothing stands in the sources read.")
    topics = {finding.topic for finding in found.findings}
    return (Items(texts), *([reasoning] if "knowledge" in topics and "reasoning" not in topics else []))


def _silent(found: Comparison) -> list[str]:
    """Why laws say nothing, each reason once."""
    reasons: dict[str, list[str]] = {}
    for law in found.silent:
        reasons.setdefault(law.reason.replace(law.law, "{}"), []).append(law.law)
    texts = []
    for reason, laws in reasons.items():
        if len(laws) > 1:
            plural = reason.replace("law {} has", "laws {} have").replace("it says", "they say")
            text = plural.replace("{}", f"{', '.join(laws[:-1])} and {laws[-1]}")
        else:
            text = reason.replace("{}", laws[0])
        texts.append(f"{text[:1].upper()}{text[1:]}.")
    return texts


def _notes(found: Comparison) -> tuple[Block, ...]:
    silent = _silent(found)
    flagged = any(answer.outside for column in found.laws for answer in column.answers)
    made = found.provenance
    command = f"; {made.command}" if made.command else ""
    return (
        Items((*silent, *found.notes)),
        *legend(flagged or any(saving.outside for saving in found.savings)),
        Paragraph(f"moeplan {made.version}, grid {made.grid_digest}{command}"),
    )
