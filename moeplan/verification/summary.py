"""Finished runs in words, a plan's or suggested ones: summaries, tuned rates, caveats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from moeplan.verification.spec import RunResult
from moeplan.verification.tuning import tuned_rates
from moeplan.verification.verification import RunSummary, Tuning

ARM = {"moe": "MoE", "dense": "dense"}
"""How an arm is written."""


def summarise(result: RunResult) -> RunSummary:
    """A run and what came of it, without its documents."""
    spec, routing = result.spec, result.routing
    return RunSummary(
        digest=spec.digest,
        arm=spec.arm,
        control=spec.control,
        purpose=spec.purpose,
        rung=spec.rung,
        seed=spec.seed,
        architecture=spec.architecture,
        tokens=spec.tokens,
        epochs=result.epochs,
        train_flops=result.train_flops,
        batch_tokens=spec.batch_sequences * spec.seq_len,
        learning_rate=result.learning_rate,
        status=result.status,
        attempts=result.attempts,
        loss=result.loss,
        seconds=result.seconds,
        tokens_per_second=result.tokens_per_second,
        mfu=result.mfu,
        load=max(routing.load) if routing else None,
        dead_experts=max(routing.dead_experts) if routing else None,
        entropy=min(routing.entropy) if routing else None,
        device=result.device,
        execution=result.execution,
        expert_products=result.expert_products,
    )


def tunings(tuned: Sequence[RunResult]) -> tuple[Tuning, ...]:
    """The rates tried for each arm, and the one taken, which there must be."""
    return tuple(_tuning(tuned, arm) for arm in dict.fromkeys(r.spec.arm for r in tuned))


def _tuning(tuned: Sequence[RunResult], arm: str) -> Tuning:
    own = sorted((r for r in tuned if r.spec.arm == arm), key=lambda r: r.spec.learning_rate)
    rates = tuple(r.spec.learning_rate for r in own)
    losses = tuple(r.loss if r.status == "finished" else None for r in own)
    chosen = tuned_rates([(r.spec, r.loss if r.status == "finished" else math.inf) for r in own])[arm]
    return Tuning(arm, own[0].spec.rung, rates, losses, chosen, chosen in (rates[0], rates[-1]))


def tuning_notes(found: Iterable[Tuning]) -> list[str]:
    """Where a better rate may lie beyond those tried."""
    return [
        f"The learning rate of the {ARM[tuning.arm]} arm, {tuning.chosen:.3g}, is at the edge of those tried."
        for tuning in found
        if tuning.at_edge
    ]


def retry_notes(results: Iterable[RunResult]) -> list[str]:
    """Sentences on runs that diverged at first."""
    retried = [r for r in results if r.attempts > 1]
    if not retried:
        return []
    again = sum(r.status == "finished" for r in retried)
    return [
        f"{len(retried)} runs diverged at first; {again} of them finished at half the learning rate, "
        f"{len(retried) - again} diverged again and count nowhere."
    ]


def execution_notes(results: Iterable[RunResult]) -> list[str]:
    """Which runs a GPU could not replay as graphs, and so trained slower than it can."""
    reasons = [r.execution.partition(": ")[2] for r in results]
    slow = [reason for reason in reasons if reason]
    if not slow:
        return []
    return [f"{len(slow)} of {len(reasons)} runs were not replayed as CUDA graphs and took longer: {slow[0]}."]


def text_notes(results: Sequence[RunResult]) -> list[str]:
    """Where the text repeats, and where times do not compare."""
    notes = []
    epochs = max(r.epochs for r in results)
    if epochs > 1:
        notes.append(f"The longest run repeats the text {epochs:.1f} times.")
    if len({r.device for r in results}) > 1:
        notes.append("The runs were made on different devices, so their times do not compare.")
    return notes
