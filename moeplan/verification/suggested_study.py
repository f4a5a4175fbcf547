"""The study of runs that `moeplan fit --suggest` wrote: each is trained on the text at hand and its loss measured.

Nothing is compared here: the runs are rows for `moeplan fit` (`moeplan.verification.save`).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from moeplan import records
from moeplan.errors import InfeasibleError, UsageError
from moeplan.fitting.suggestion import SuggestedRun, Suggestion
from moeplan.units import format_bytes, format_count
from moeplan.verification.footprint import memory_bytes
from moeplan.verification.formats import MAX_TOKENS
from moeplan.verification.kept_choice import KeptChoice
from moeplan.verification.ladder import (
    LEAST_STEPS,
    LENGTHS,
    MAX_EPOCHS,
    Data,
    Ladder,
    Rung,
    Settings,
    ladder_seconds,
    least_steps,
    make_rung,
    most_epochs,
    smallest_rungs,
)
from moeplan.verification.machine import Machine, ladder_outline
from moeplan.verification.options import SUGGESTED_SEEDS, StudyOptions, Where, check_suggested
from moeplan.verification.proxy_runs import SCHEMA, ProxyRun, ProxyRuns
from moeplan.verification.shrink import flops_per_token
from moeplan.verification.spec import RunResult, check_architecture
from moeplan.verification.study import Prepared, Study
from moeplan.verification.summary import execution_notes, retry_notes, summarise, text_notes, tuning_notes, tunings
from moeplan.verification.tuning import TUNING_FACTORS
from moeplan.verification.verdict import UNHEALTHY_LOAD
from moeplan.verification.verification import OUTLINE_SCHEMA, Outline


@dataclass(frozen=True)
class SuggestedStudy(Study[ProxyRuns]):
    """Trains suggested runs, each as often as it is listed.

    Raises `UsageError` for a request that is for plans alone.
    """

    suggestion: Suggestion
    """The runs."""
    request: StudyOptions = field(default_factory=StudyOptions)
    """Seeds of every listed run, text, arithmetic."""

    def __post_init__(self) -> None:
        check_suggested(self.request)

    @property
    def subject(self) -> Suggestion:
        """The suggestion."""
        return self.suggestion

    @property
    def seeds(self) -> int:
        """Seeds of every listed run."""
        return self.request.seeds or SUGGESTED_SEEDS

    def key(self, data: Data, where: Where) -> Any:
        """The runs and the text; not the seeds, since more of them go on from what is finished."""
        runs, precision = records.to_json(self.suggestion.runs), self.request.precision
        return [OUTLINE_SCHEMA, runs, self.suggestion.seq_len, data.digest, where.device, precision]

    def is_choice_for(self, kept: KeptChoice, where: Where) -> bool:
        """Whether it is for as many seeds and workers."""
        return (kept.workers, kept.outline.seeds) == (where.workers, self.seeds)

    def ladder_again(self, kept: KeptChoice, settings: Settings, data: Data) -> Ladder:
        """The same runs: they are as listed."""
        return suggested_ladder(self.suggestion, data, settings)

    def check(self, data: Data) -> None:
        """Refuse shapes that cannot be."""
        suggested_ladder(self.suggestion, data, self.settings("fp32"))

    def choose(self, data: Data, machine: Machine, kept: KeptChoice | None) -> tuple[Ladder, Outline]:
        """The runs in the faster arithmetic, or in that of the runs that are finished."""
        kinds = ["bf16", "fp32"] if self.request.precision == "auto" else [self.request.precision]
        if kept is not None:  # more seeds, or other workers: what is finished must count
            kinds = [kept.outline.precision]
        ladders = [suggested_ladder(self.suggestion, data, self.settings(kind)) for kind in kinds]
        fastest = min(ladders, key=lambda made: ladder_seconds(made, data, machine.seconds, machine.workers))
        return fastest, self.outline_of(fastest, data, machine)

    def outline_of(self, ladder: Ladder, data: Data, machine: Machine) -> Outline:
        """The outline of the suggested runs on a machine. Where the text is too short for them, a note says so."""
        return ladder_outline(ladder, data, machine, notes=_outline_notes(self.suggestion, ladder, data, machine))

    def check_prepared(self, prepared: Prepared) -> None:
        """Refuse too little text."""
        lacking = _lacking(prepared.ladder, prepared.data)
        if lacking:
            raise InfeasibleError(lacking)

    def conclude(
        self, prepared: Prepared, tuned: list[RunResult], results: list[RunResult], *, command: str = ""
    ) -> ProxyRuns:
        """The runs with their losses. Raises `InfeasibleError` if all of them diverged."""
        if all(result.status == "diverged" for result in results):
            raise InfeasibleError("every suggested run diverged; try other data, or --precision fp32")
        proxies = []
        for rung in dict.fromkeys(prepared.ladder.rungs):
            places = tuple(place for place, other in enumerate(prepared.ladder.rungs, 1) if other == rung)
            own = [r for r in results if _is_of(r, rung)]
            proxies.append(_proxy(places, self.suggestion.runs[places[0] - 1].tokens, own))
        return ProxyRuns(
            schema=SCHEMA,
            law=self.suggestion.law,
            form=self.suggestion.form,
            proxies=tuple(proxies),
            tuning=tunings(tuned),
            runs=tuple(summarise(r) for r in (*tuned, *results)),
            outline=prepared.outline,
            notes=(
                *tuning_notes(tunings(tuned)),
                *retry_notes([*tuned, *results]),
                *_load_notes(proxies),
                *execution_notes([*tuned, *results]),
                *text_notes([*tuned, *results]),
            ),
            command=command,
            versions=results[0].versions,
        )


def suggested_ladder(found: Suggestion, data: Data, settings: Settings) -> Ladder:
    """The ladder whose rungs are the suggested runs in their order, on the text at hand.

    Its vocabulary replaces the target's, so that tokens, not FLOPs, are as suggested. A run that was suggested several
    times is a rung several times, with further seeds each time. The learning rate of an arm is tuned on its cheapest
    run, each value over a third of the steps at the same batch, so that tuning costs no more than that run.

    Raises `UsageError` for an empty list, and for a shape that proxies cannot have.
    """
    if not found.runs:
        raise UsageError("the list of suggested runs is empty")
    rungs = tuple(suggested_rung(run, found.seq_len, data.vocab_size) for run in found.runs)
    budgets = {arm: tuple(sorted({r.train_flops for r in rungs if r.arm == arm})) for arm in ("moe", "dense")}
    base = min(rung.train_flops for rung in rungs)
    return Ladder(
        base=base,
        moe_budgets=budgets["moe"],
        dense_budgets=budgets["dense"],
        seq_len=found.seq_len,
        embedding_parts=1,
        validation_tokens=next(tokens for least, _, tokens in LENGTHS if base >= least),
        settings=settings,
        rungs=rungs,
        most_rates=len(TUNING_FACTORS),
        tuned=tuple(_shortened(rung, found.seq_len) for rung in smallest_rungs(rungs, found.seq_len)),
    )


def suggested_rung(run: SuggestedRun, seq_len: int, vocab_size: int) -> Rung:
    """One suggested run with another vocabulary, its compute that of its whole steps."""
    shape = dataclasses.replace(run.architecture, vocab_size=vocab_size)
    check_architecture(shape)
    arm: Literal["moe", "dense"] = "moe" if shape.num_experts > 1 else "dense"
    rung = make_rung(arm, "", run.tokens * flops_per_token(shape, seq_len), shape, seq_len)
    return _with_steps(rung, rung.steps, seq_len)


def _shortened(rung: Rung, seq_len: int) -> Rung:
    return _with_steps(rung, min(rung.steps, max(LEAST_STEPS, rung.steps // len(TUNING_FACTORS))), seq_len)


def _with_steps(rung: Rung, steps: int, seq_len: int) -> Rung:
    tokens = steps * rung.batch_sequences * seq_len
    return dataclasses.replace(rung, steps=steps, train_flops=tokens * flops_per_token(rung.architecture, seq_len))


def _outline_notes(found: Suggestion, ladder: Ladder, data: Data, machine: Machine) -> tuple[str, ...]:
    tuning = (
        f"The learning rate of each arm is tuned on its cheapest run, {len(TUNING_FACTORS)} values over a third of its "
        "steps each, and carried to other widths as 1/sqrt(d_model)."
    )
    notes = [_lacking(ladder, data), _memory_note(ladder, data, machine), _short_note(ladder)]
    return tuple(note for note in (*notes, _vocabulary_note(found, data), tuning) if note)


def _lacking(ladder: Ladder, data: Data) -> str:
    """A sentence on the text that the runs lack; "" if they have enough."""
    epochs = most_epochs(ladder, data)
    if epochs <= MAX_EPOCHS:
        return ""
    tokens = math.ceil(epochs * data.train_tokens)
    needed = math.ceil(tokens / MAX_EPOCHS)
    advice = "give more text with --data"
    if needed > MAX_TOKENS:
        advice = (
            f"verify reads at most {format_count(MAX_TOKENS)}, so have smaller runs suggested by a lower --max-flops"
        )
    return (
        f"The longest suggested run trains on {format_count(tokens)} tokens, {format_count(epochs)} epochs of the "
        f"{format_count(data.train_tokens)} training tokens of {data.name}; at most {MAX_EPOCHS:g} are worth making, "
        f"so {format_count(needed)} training tokens are needed: {advice}."
    )


def _memory_note(ladder: Ladder, data: Data, machine: Machine) -> str:
    """Where the machine's memory is too small by the forecast; "" if it is not."""
    needed = sorted((memory_bytes(spec) for spec in ladder.specs(data)), reverse=True)
    if not machine.memory_bytes:
        return ""
    has = f"this machine has {format_bytes(machine.memory_bytes, 2)}"
    if needed[0] > machine.memory_bytes:
        return (
            f"The largest run needs about {format_bytes(needed[0], 2)}, {has}: train it on another one with --engine "
            "slurm, ray or plan."
        )
    together = sum(needed[: machine.workers])
    if not machine.is_gpu and together > machine.memory_bytes:
        return (
            f"The {machine.workers} largest runs together need about {format_bytes(together, 2)}, {has}: give fewer "
            "--workers."
        )
    return ""


def _short_note(ladder: Ladder) -> str:
    steps = least_steps(ladder)
    return f"The shortest run has {steps} steps: warm-up and decay are nearly all of it." if steps < LEAST_STEPS else ""


def _vocabulary_note(found: Suggestion, data: Data) -> str:
    first = found.runs[0]
    suggested = first.architecture.vocab_size
    vocabulary = ""
    if data.vocab_size != suggested:
        active = suggested_rung(first, found.seq_len, data.vocab_size).architecture.active_params()
        vocabulary = (
            f"The text has {data.vocab_size:,} different tokens, the target {suggested:,}: run 1 has "
            f"{format_count(active)} active params, embeddings included, not the suggested "
            f"{format_count(first.active_params)}; its tokens are as suggested. Token files of the target's tokenizer "
            "(--data) give the suggested sizes. "
        )
    return vocabulary + (
        "Losses under two tokenizers do not compare, so none is shown beside the law's prediction: add these runs only "
        "to runs on the same data with the same tokenizer."
    )


def _is_of(result: RunResult, rung: Rung) -> bool:
    spec = result.spec
    return (spec.architecture, spec.batch_sequences, spec.steps) == (
        rung.architecture,
        rung.batch_sequences,
        rung.steps,
    )


def _proxy(places: tuple[int, ...], suggested_tokens: int, results: list[RunResult]) -> ProxyRun:
    spec = results[0].spec
    losses = tuple(r.loss if r.status == "finished" else None for r in results)
    good = [loss for loss in losses if loss is not None]
    routings = [r.routing for r in results if r.routing is not None]
    return ProxyRun(
        places=places,
        arm=spec.arm,
        architecture=spec.architecture,
        total_params=spec.architecture.total_params(),
        active_params=spec.architecture.active_params(),
        suggested_tokens=suggested_tokens,
        tokens=spec.tokens,
        train_flops=results[0].train_flops,
        status="finished" if len(good) == len(losses) else "partly diverged" if good else "diverged",
        seeds=tuple(r.spec.seed for r in results),
        losses=losses,
        loss=math.fsum(good) / len(good) if good else None,
        load=max((max(r.load) for r in routings), default=None),
        dead_experts=max((max(r.dead_experts) for r in routings), default=None),
        entropy=min((min(r.entropy) for r in routings), default=None),
        seconds=math.fsum(r.seconds for r in results) / len(results),
    )


def _load_notes(proxies: list[ProxyRun]) -> list[str]:
    uneven = [p for p in proxies if p.load is not None and p.load > UNHEALTHY_LOAD]
    if not uneven:
        return []
    places = ", ".join(str(place) for proxy in uneven for place in proxy.places)
    worst = max(proxy.load or 0.0 for proxy in uneven)
    return [
        f"Unhealthy router in {places}: an expert has up to {worst:.1f} times the mean load, where at most "
        f"{UNHEALTHY_LOAD:g} is healthy, so that the loss says little of a well-trained model's."
    ]
