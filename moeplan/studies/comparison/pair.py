"""Any two models beside each other: plan files, config.json files or bundled models, each with its training tokens."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from moeplan import __version__
from moeplan.architecture.conventions import Variables
from moeplan.cost.devices import Gpus
from moeplan.cost.inference_memory import InferenceSettings
from moeplan.errors import LawError, UsageError
from moeplan.laws import Law, load_law
from moeplan.laws.dense import dense_loss, dense_size
from moeplan.laws.roles import OBJECTIVE_LAWS, SECOND_OPINIONS
from moeplan.plan.budget import FEWEST_TOKENS, Budget
from moeplan.plan.choice import make_space
from moeplan.plan.existing import ExistingModel, read_model
from moeplan.plan.search.reference import LossReference, Reference
from moeplan.studies.comparison.answers import Answer, LawColumn, answer, law_column, split_by_dense
from moeplan.studies.comparison.candidate import NO_LIMIT, Candidate, candidate, serving_devices, setting
from moeplan.studies.comparison.remarks import versus
from moeplan.studies.comparison.result import SCHEMA, Comparison, ComparisonProvenance
from moeplan.studies.law_evaluation import SEQ_LEN
from moeplan.units import MemoryLimit, format_count, parse_count

SEPARATOR = "@"
"""Stands between a model and its training tokens: deepseek-v3@14.8T."""


def compare_models(
    first: str | Path,
    second: str | Path,
    *,
    tokens: str | float | None,
    seq_len: int | None,
    serving: InferenceSettings,
    memory: str | MemoryLimit | None,
    gpus: str | Gpus | None,
    threads: int,
    command: str,
    progress: Callable[[str], None] | None,
) -> Comparison:
    """Two models beside each other; see `moeplan.studies.comparison.compare` for the arguments."""
    say = progress or (lambda _: None)
    given = None if tokens is None else parse_count(tokens, "tokens")
    subjects = [_subject(source, given) for source in (first, second)]
    length = _seq_len([subject for subject, _, _ in subjects], seq_len)
    flops = [float(subject.architecture.flops_per_token(length)) * count for subject, count, _ in subjects]
    shapes = [subject.architecture for subject, _, _ in subjects]
    alike = len({(shape.vocab_size, shape.tied_embeddings) for shape in shapes}) == 1
    budget = Budget(
        max(flops),
        memory if memory is not None else NO_LIMIT,
        gpus=gpus,
        vocab_size=shapes[0].vocab_size if alike else 131072,
        tied_embeddings=shapes[0].tied_embeddings if alike else False,
        seq_len=length,
        serving=serving,
        goodput=1.0,
    )
    serving_on = serving_devices(shapes, budget)
    models = [
        candidate(name, "given", says, subject.architecture, count, dataclasses.replace(budget, flops=own), serving_on)
        for name, (subject, count, says), own in zip(_names(subjects), subjects, flops, strict=True)
    ]
    conditions = setting(budget, serving_on)
    conditions = dataclasses.replace(conditions, flops=None)
    if memory is None:
        models = [dataclasses.replace(model, fits_memory=None) for model in models]
        conditions = dataclasses.replace(conditions, memory=None, usable_bytes=None)
    say("asking the laws")
    laws = [load_law(name) for name in (*OBJECTIVE_LAWS, *SECOND_OPINIONS)]
    with_dense, silent = split_by_dense(laws)
    judges = [law for law in laws if law.can_search]
    space = make_space(
        dataclasses.replace(budget, memory=MemoryLimit(80 * 10**9)),  # keeps few designs; references see no memory
        judges,
        threads=threads,
        span=(min(flops), max(flops)),
    )
    references = dict(zip((law.full_name for law in judges), space.references, strict=True))
    columns = tuple(
        _column(law, law in with_dense, references.get(law.full_name), models, budget)
        for law in laws
        if law in with_dense or law.full_name in references
    )
    return Comparison(
        schema=SCHEMA,
        regime="models",
        setting=conditions,
        models=tuple(models),
        pooled=None,
        laws=columns,
        silent=silent,
        versus=(versus(1, models, columns),),
        equal_loss=(),
        savings=(),
        savings_spread=None,
        resources=None,
        findings=(),
        notes=_notes(subjects, alike),
        provenance=ComparisonProvenance(
            version=__version__,
            command=command,
            law_digests={law.full_name: law.digest for law in sorted(laws, key=lambda law: law.full_name)},
            grid_digest=space.reference_grid.digest,
        ),
    )


def _subject(source: str | Path, tokens: float | None) -> tuple[ExistingModel, float, str]:
    """A model with its training tokens and where these are from."""
    text = str(source)
    own: str | None
    path, at, own = text.rpartition(SEPARATOR)
    if not at or not path or Path(text).exists():
        path, own = text, None
    subject = read_model(Path(path) if isinstance(source, Path) else path)
    if any(gap.groups for gap in subject.gaps):
        raise UsageError(
            f"{subject.name}: its params are not known, so it cannot be compared: not counted are "
            f"{'; '.join(gap.what for gap in subject.gaps)}"
        )
    if own is not None:
        count, says = parse_count(own, f"tokens of {path}"), "tokens as given"
    elif subject.kind == "plan" and subject.tokens:
        count, says = subject.tokens, "tokens of the plan"
    elif tokens is not None:
        count, says = tokens, "tokens as given"
    elif subject.tokens:
        count, says = subject.tokens, "tokens as published"
    else:
        raise UsageError(
            f"{path}: its training tokens are not known; write them behind it, {path}{SEPARATOR}15T, or give --tokens "
            "15T"
        )
    if count < FEWEST_TOKENS:
        raise UsageError(
            f"{path}: {format_count(count)} tokens are too few to train on; give at least {format_count(FEWEST_TOKENS)}"
        )
    return subject, count, says


def _seq_len(subjects: Sequence[ExistingModel], given: int | None) -> int:
    """The sequence length that FLOPs are counted at: as given, that of the plans, or 4,096."""
    if given is not None:
        return given
    plans = {subject.seq_len for subject in subjects if subject.kind == "plan"}
    if len(plans) > 1:
        lengths = " and ".join(str(length) for length in sorted(plans))
        raise UsageError(f"the plans count FLOPs at sequences of {lengths} tokens; give one with --seq-len")
    return plans.pop() if plans else SEQ_LEN


def _names(subjects: Sequence[tuple[ExistingModel, float, str]]) -> list[str]:
    """Short names that tell the two apart."""
    names = []
    for subject, _, _ in subjects:
        path = Path(subject.name)
        config = path.stem == "config" and path.parent.name
        names.append(subject.name if subject.kind == "published" else path.parent.name if config else path.stem)
    if names[0] == names[1]:
        counts = [format_count(count) for _, count, _ in subjects]
        names = [f"{name}{SEPARATOR}{count}" for name, count in zip(names, counts, strict=True)]
    return names if names[0] != names[1] else [f"{names[0]} (1)", f"{names[1]} (2)"]


def _column(
    law: Law, speaks: bool, reference: Reference | None, models: Sequence[Candidate], budget: Budget
) -> LawColumn:
    """One law's answers: its dense equivalents, and C_l where it can choose designs."""
    if speaks:
        column = law_column(law, models, budget)
    else:
        answers = tuple(_own_only(law, model, budget.seq_len) for model in models)
        column = LawColumn(law.full_name, law.grade, "C_l alone: it knows no dense models", answers)
    if reference is None:
        return column
    answers = tuple(
        dataclasses.replace(own, own_compute=_own_compute(law, reference, model, budget.seq_len))
        for own, model in zip(column.answers, models, strict=True)
    )
    return dataclasses.replace(column, answers=answers)


def _own_only(law: Law, model: Candidate, seq_len: int) -> Answer:
    assert law.objective is not None
    if model.is_dense:
        return answer((), says="says nothing about dense models")
    return answer(law.objective.outside(Variables(model.architecture, seq_len), model.tokens))


def _own_compute(law: Law, reference: Reference, model: Candidate, seq_len: int) -> float | None:
    """C_l of a model [FLOPs]; None where the law cannot judge it."""
    v, tokens = Variables(model.architecture, seq_len), float(model.tokens)
    if not model.is_dense:
        found = float(reference.judge(v, tokens, model.train_flops))
    elif isinstance(reference, LossReference):
        try:
            found = float(reference.ln_compute(float(dense_loss(law, dense_size(law, v), tokens))))
        except LawError:
            return None
    else:
        return None
    return math.exp(found) if math.isfinite(found) and found < 700 else None


def _notes(subjects: Sequence[tuple[ExistingModel, float, str]], alike: bool) -> tuple[str, ...]:
    notes = []
    if not alike:
        notes.append(
            "The two have different vocabularies, so their losses would not compare; C_l is over the declared grid "
            "with an untied vocabulary of 131,072 for both."
        )
    read = [subject.name for subject, _, _ in subjects if subject.assumptions]
    if read:
        notes.append(f"Read with assumptions: {', '.join(read)}; moeplan inspect says which.")
    notes.append("GPU time is of training throughout, without pauses.")
    notes.append(
        "The laws see params, experts, tokens and FLOPs alone: no data, tokenizer, post-training or training precision."
    )
    return tuple(notes)
