"""A comparison as sections of text and tables. Every number is the comparison's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.report.blocks import (
    EXTRAPOLATED,
    NONE,
    Block,
    Cell,
    Items,
    Paragraph,
    Section,
    Source,
    Table,
    mark,
    number,
    percent,
    times,
)
from moeplan.report.comparison_charts import comparison_charts
from moeplan.report.comparison_laws import (
    WORK,
    equal_loss_blocks,
    interval_text,
    law_blocks,
    model_text,
    pair_blocks,
    ratio_text,
    savings_blocks,
    spread_text,
    work_cells,
)
from moeplan.report.comparison_strict import strict_blocks, strict_headline
from moeplan.studies.comparison.result import Comparison, Contender, LawColumn, Versus
from moeplan.units import format_bytes, format_count, format_flops

__all__ = ["comparison_charts", "comparison_sections", "headline"]

_CAUSAL = "6 * (active params without input embedding) + causal attention, forward + backward"
_ALIKE = 0.05
"""Ratios nearer to 1 are not told."""


def comparison_sections(found: Comparison) -> list[Section]:
    """The whole report of a comparison."""
    laws = ", ".join(column.law for column in found.laws)
    asked = Source("What was asked for, or moeplan's default where nothing was said.")
    lead = (Paragraph(headline(found)), Paragraph(_conditions(found), asked))
    counted = Source("Counted from the exact integer shape, or priced from it at stated peaks and shares of them.")
    answered = Source("Answers of the laws about the exact shapes, each in its own FLOPs.", laws, WORK)
    ratios = Source("Ratios of what stands side by side above, the first model over the other.", laws)
    sections = [Section("", lead, source=Source("Numbers of the sections below, again.", laws, WORK))]
    sections.append(Section("Side by side", _table(found), source=counted))
    if found.resources is not None:
        measured = Source("Measured points of li2025's tables, and straight lines between them.", "li2025, zhao2025")
        sections.append(Section("Strictly equal resources", strict_blocks(found, found.resources), source=measured))
    if found.regime == "models":
        sections.append(Section("By each law", pair_blocks(found), source=answered))
    else:
        sections.append(Section("Work by each law", law_blocks(found), source=answered))
    if found.equal_loss:
        twins = equal_loss_blocks(found)
        sections.append(Section("The dense model that is as good, by each law", twins, source=answered))
    if found.savings:
        optima = Source("Each law's own best MoE against its own best dense model, sizes continuous.", laws)
        sections.append(
            Section("Savings by each law's own optimum at this compute", savings_blocks(found), source=optima)
        )
    if found.versus:
        against = Items(tuple(_versus(found, one) for one in found.versus))
        sections.append(Section("Better and worse", (against,), source=ratios))
    if found.findings:
        texts = tuple(
            Cell(f"{finding.text} ({finding.source})", Source(f"Found by {finding.source}."))
            for finding in found.findings
        )
        blocks: tuple[Block, ...] = (Items(texts),)
        topics = {finding.topic for finding in found.findings}
        if "knowledge" in topics and "reasoning" not in topics:
            blocks = (*blocks, Paragraph("On reasoning apart from knowledge, nothing stands in the sources read."))
        sections.append(Section("What papers found", blocks))
    said = Source("Said by moeplan of this comparison, by the laws named.", laws)
    sections.append(Section("Notes", _notes(found), source=said))
    return sections


def headline(found: Comparison) -> str:
    """The answer in a sentence or two."""
    if found.resources is not None:
        return strict_headline(found, found.resources)
    if found.regime == "models":
        return _pair_headline(found)
    moe = found.models[0]
    text = f"{model_text(moe)} {_work(found)}"
    twin = next((model for model in found.models if model.role == "equal_loss"), None)
    if twin is not None:
        text += f": that of a dense {format_count(twin.total_params)} model on {format_count(twin.tokens)} tokens"
    text += "."
    against = next((one for one in found.versus if one.other != (twin.name if twin else "")), None)
    if against is None:
        return text
    other = next(model for model in found.models if model.name == against.other)
    what = {
        "compute_optimal": "the best dense model of the same compute",
        "equal_total_params": "the dense model of as many params and the same compute",
    }[other.role]
    return (
        f"{text} Against {what} ({format_count(other.total_params)} on {format_count(other.tokens)} tokens"
        f"{', which does not fit the memory' if other.fits_memory is False else ''}) it takes "
        f"{times(against.serving_bytes)} the memory to serve, {times(against.state_bytes)} to train, "
        f"{times(against.tokens)} the tokens and {times(against.gpu_hours)} the GPU time."
    )


def _work(found: Comparison) -> str:
    """What the MoE is worth, with interval and spread."""
    columns = [column for column in found.laws if column.answers[0].ratio is not None]
    if not columns:
        return "is worth what no law here can say in dense models"
    first = columns[0]
    interval = interval_text(first.answers[0])
    said = f"{first.law}, 90 % interval {interval}" if interval else first.law
    others = [column.answers[0].ratio or 0.0 for column in columns[1:]]
    if others:
        outside = any(column.answers[0].outside for column in columns[1:])
        said += f"; other laws {mark(spread_text(min(others), max(others)), outside)}"
    return f"does the work of {ratio_text(first.answers[0])} its compute in dense models ({said})"


def _conditions(found: Comparison) -> str:
    """What the comparison was made under."""
    made = found.setting
    cache = f"a {made.kv_dtype} cache of {made.context:,} tokens x {made.concurrency:,}"
    parts = []
    if made.flops is not None:
        limit = f" and {made.memory}" if made.memory else ""
        parts.append(f"For {format_flops(made.flops)} FLOPs{limit}, the MoE chosen by {', '.join(made.laws)}")
    else:
        parts.append("Each as it is" + (f", to be served in {made.memory}" if made.memory else ""))
    if made.tokens_available is not None:
        parts.append(f"{format_count(made.tokens_available)} unique tokens")
    parts.append(f"served in {made.weight_dtype} with {cache}, trained with {made.optimizer}")
    return "; ".join(parts) + "."


def _table(found: Comparison) -> tuple[Block, ...]:
    """Params, tokens, compute, quality, memory and speed of every model."""
    models, made = found.models, found.setting
    rows: list[tuple[str, ...]] = []

    def row(label: str, write: Callable[[Contender], str], field: str, says: str, convention: str = "") -> None:
        cells = [
            Cell(write(model), Source(says, convention=convention, path=f"/models/{place}/{field}"))
            for place, model in enumerate(models)
        ]
        rows.append((label, *cells))

    counted = "counted from the integer shape"
    row("total params", lambda m: format_count(m.total_params), "total_params", counted, "embeddings included")
    if any(not m.is_dense for m in models):
        row("active params", lambda m: format_count(m.active_params), "active_params", counted, "embeddings included")
    row("tokens", lambda m: format_count(m.tokens), "tokens", "what the compute pays for, or what was given")
    row("tokens per param", lambda m: number(m.tokens_per_param), "tokens_per_param", "tokens / active params")
    if any(m.epochs for m in models):
        row("epochs", lambda m: number(m.epochs or 0.0), "epochs", "tokens / unique tokens available")
    row("train FLOPs", lambda m: format_flops(m.train_flops), "train_flops", "FLOPs per token * tokens", _CAUSAL)
    hours = f"{made.device}-hours"
    row(hours, lambda m: format_count(m.gpu_hours), "gpu_hours", "train FLOPs / (dense bf16 peak * MFU)")
    row("  at MFU", lambda m: percent(m.mfu), "mfu", "share of the dense bf16 peak: a preset, unless given")
    if any(m.days is not None for m in models):
        row("days", lambda m: number(m.days or 0.0), "days", f"on {made.num_gpus} GPUs")
    if any(m.money is not None for m in models):
        row("price", lambda m: f"{m.money or 0.0:,.0f}", "money", "GPU time times its price")
    rows += _quality_rows(found)
    scheme = f"weights, gradients and optimizer state of {made.optimizer}, one copy"
    row("training state", lambda m: format_bytes(m.state_bytes), "state_bytes", scheme)
    if any(m.training_bytes_per_gpu is not None for m in models):
        row("  least a GPU", _per_gpu, "training_bytes_per_gpu", "the layout that needs least, activations included")
    served = f"served, 1 of {made.memory_devices}" if made.memory_devices > 1 else "served"
    row(served, lambda m: format_bytes(m.serving_bytes), "serving_bytes", "weights and full KV cache, exactly")
    if made.memory is not None:
        usable = format_bytes(made.usable_bytes or 0)
        row(f"  fits {usable}", lambda m: "yes" if m.fits_memory else "no", "fits_memory", "memory less headroom")
    row("KV a token", lambda m: format_bytes(m.kv_bytes_per_token), "kv_bytes_per_token", "keys and values, or latents")
    if any(m.num_devices > 1 for m in models):
        row(f"{made.device}s to serve", _devices, "num_devices", "the fewest, a power of two, that hold it")
    for place, batch in enumerate(dict.fromkeys(speed.batch for m in models for speed in m.decode)):
        rows.append(_speed_row(models, place, batch))
    strong = tuple(place for place, cells in enumerate(rows) if cells[0].startswith("work"))
    blocks: list[Block] = [
        Table(tuple(rows), ("", *(m.name for m in models)), right=tuple(range(1, len(models) + 1)), strong=strong)
    ]
    blocks.append(Items(tuple(f"{m.name}: {m.says}; {_shape(m)}." for m in models)))
    blocks.append(
        Paragraph(
            f"FLOPs are {_CAUSAL}, at sequences of {made.seq_len:,}. Decode speeds are upper bounds of one "
            f"{made.device} by bytes over bandwidth: tokens a second of all sequences of a batch, {made.context:,} "
            "tokens cached each; in brackets where the caches do not fit."
        )
    )
    return tuple(blocks)


def _devices(model: Contender) -> str:
    return str(model.num_devices) if model.num_devices else ">1,024"


def _per_gpu(model: Contender) -> str:
    return NONE if model.training_bytes_per_gpu is None else format_bytes(model.training_bytes_per_gpu)


def _speed_row(models: Iterable[Contender], place: int, batch: int) -> tuple[str, ...]:
    cells = []
    for index, model in enumerate(models):
        speed = next((s for s in model.decode if s.batch == batch), None)
        text = NONE if speed is None else number(speed.tokens_per_second)
        says = "batch / step time; the step reads every weight and cached token it needs, or computes"
        source = Source(says, path=f"/models/{index}/decode/{place}/tokens_per_second")
        cells.append(Cell(text if speed is None or speed.fits else f"({text})", source))
    return (f"tok/s, batch {batch}", *cells)


def _quality_rows(found: Comparison) -> list[tuple[str, ...]]:
    """Dense-equivalent compute by the leverage law, and how far the others lie apart."""
    rows: list[tuple[str, ...]] = []
    speaking = [column for column in found.laws if any(a.ratio is not None for a in column.answers)]
    for column in speaking:
        if column.law == LEVERAGE_LAW:
            place = found.laws.index(column)
            rows.append((f"work, {column.law}", *work_cells(column, place)))
            rows.append(("  90 % interval", *(_interval_cell(column, place, at) for at in range(len(found.models)))))
    others = [column for column in speaking if column.law != LEVERAGE_LAW]
    if others:
        rows.append(("  other laws", *(_spread_cell(found, others, at) for at in range(len(found.models)))))
    return rows


def _interval_cell(column: LawColumn, place: int, at: int) -> str:
    """The interval of one model's work by one law."""
    text = interval_text(column.answers[at])
    if not text:
        return NONE
    path = " ".join(f"/laws/{place}/answers/{at}/ratio_{end}" for end in ("low", "high"))
    says = f"The 90 % interval of {column.law}'s leverage, times what phi leaves of it."
    return Cell(text, Source(says, column.law, WORK, path=path))


def _spread_cell(found: Comparison, others: Sequence[LawColumn], at: int) -> str:
    """The lowest and the highest ratio of one model's work that other laws give."""
    known = {found.laws.index(column): column.answers[at].ratio for column in others}
    ratios = {place: ratio for place, ratio in known.items() if ratio is not None}
    if not ratios:
        return NONE
    ends = [pick(ratios, key=lambda place: ratios[place]) for pick in (min, max)]
    path = " ".join(f"/laws/{place}/answers/{at}/ratio" for place in ends)
    laws = ", ".join(found.laws[place].law for place in ends)
    says = "The lowest and the highest answer of the other laws; they are not averaged."
    outside = any(found.laws[place].answers[at].outside for place in ratios)
    text = mark(f"{number(ratios[ends[0]])}–{number(ratios[ends[1]])}", outside)
    return Cell(text, Source(says, laws, WORK, path=path))


def _pair_headline(found: Comparison) -> str:
    first, second = found.models
    against = found.versus[0]
    ratios = {**against.own_compute, **against.quality}
    if not ratios:
        return f"{first.name} and {second.name}: no law here can judge both."
    if all(abs(ratio - 1) < 0.005 for ratio in ratios.values()):
        return f"{first.name} and {second.name} are equally good by all {len(ratios)} laws that judge both."
    ahead = sum(ratio > 1 for ratio in ratios.values())
    better, worse, power = (first, second, 1) if 2 * ahead >= len(ratios) else (second, first, -1)
    agreeing = max(ahead, len(ratios) - ahead)
    by = f"all {len(ratios)} laws" if agreeing == len(ratios) else f"{agreeing} of {len(ratios)} laws"
    worth = []
    for kind, what in ((against.quality, "in dense models"), (against.own_compute, "in the laws' own best MoEs (C_l)")):
        if kind:
            ends = [ratio**power for ratio in kind.values()]
            outside = _outside(found, kind, 1)
            worth.append(f"{mark(spread_text(min(ends), max(ends)), outside)} {what}")
    return (
        f"{better.name} is better than {worse.name} by {by} that judge both: worth {', '.join(worth)}, for "
        f"{times(against.train_flops**power)} the training compute."
    )


def _outside(found: Comparison, laws: Iterable[str], at: int) -> bool:
    """Whether the first model or the one at `at` leaves the measured range of any of the laws."""
    columns = [column for column in found.laws if column.law in laws]
    return any(column.answers[place].outside for column in columns for place in (0, at))


def _versus(found: Comparison, against: Versus) -> str:
    """What the first model is better and worse at than another."""
    first = found.models[0]
    at = next(place for place, model in enumerate(found.models) if model.name == against.other)
    other = found.models[at]
    good: list[str] = []
    bad: list[str] = []
    quality = against.quality.get(LEVERAGE_LAW)
    if quality is not None:
        said = LEVERAGE_LAW
        if against.quality_low is not None and against.quality_high is not None:
            spread = spread_text(against.quality_low, against.quality_high)
            others = [law for law in against.quality if law != LEVERAGE_LAW]
            said += f"; other laws {mark(spread, _outside(found, others, at))}"
        if abs(quality - 1) < 0.005:
            good.append(f"as good ({said})")
        else:
            text = mark(times(quality), _outside(found, (LEVERAGE_LAW,), at))
            (good if quality > 1 else bad).append(f"{text} the work ({said})")
    for ratio, what in (
        (against.train_flops, "training compute"),
        (against.gpu_hours, "GPU time"),
        (against.tokens, "tokens"),
        (against.state_bytes, "training state"),
        (against.serving_bytes, "serving memory"),
        (against.kv_bytes_per_token, "KV cache"),
    ):
        if abs(ratio - 1) > _ALIKE:
            (good if ratio < 1 else bad).append(f"{times(ratio)} the {what}")
    for batch, ratio in against.decode.items():
        if abs(ratio - 1) > _ALIKE:
            (good if ratio > 1 else bad).append(f"{times(ratio)} the decode speed at batch {batch}")
    better, worse = (", ".join(texts) or "nothing" for texts in (good, bad))
    return f"{first.name} against {other.name}. Better: {better}. Worse: {worse}."


def _shape(model: Contender) -> str:
    a = model.architecture
    experts = ""
    if not model.is_dense:
        experts = f", {a.num_active_experts}+{a.num_shared_experts} of {a.num_experts} experts of {a.d_expert:,}"
    dense = f", d_ff {a.d_ff:,}" if a.d_ff and model.is_dense else ""
    return f"{a.num_layers} layers of {a.d_model:,}{dense}{experts}, {a.num_heads} heads"


def _notes(found: Comparison) -> tuple[Block, ...]:
    silent = [f"{law.reason[:1].upper()}{law.reason[1:]}." for law in found.silent]
    blocks: list[Block] = [Items((*silent, *found.notes))]
    flagged = any(answer.outside for column in found.laws for answer in column.answers)
    if flagged or any(saving.outside for saving in found.savings):
        blocks.append(
            Paragraph(f"Marked {EXTRAPOLATED}: extrapolated, outside the range that the law was measured on.")
        )
    command = f"; {found.provenance.command}" if found.provenance.command else ""
    blocks.append(Paragraph(f"moeplan {found.provenance.version}, grid {found.provenance.grid_digest}{command}"))
    return tuple(blocks)
