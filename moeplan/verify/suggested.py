"""Suggested proxy runs as a ladder that `verify` can train: `suggested_ladder(read_suggestion("next.json"), ...)`."""

from __future__ import annotations

import dataclasses

from moeplan.fitting.suggestion import SuggestedRun, Suggestion
from moeplan.verify.ladder import LENGTHS, Data, Ladder, Rung, Settings, make_rung
from moeplan.verify.model import check_architecture
from moeplan.verify.shrink import flops_per_token


def suggested_ladder(found: Suggestion, data: Data, settings: Settings) -> Ladder:
    """The ladder whose rungs are the suggested runs, each once, on the text at hand.

    Its vocabulary replaces the target's, so that tokens, not FLOPs, are as suggested. A run that was suggested several
    times is one rung: `settings.seeds` trains every rung that often. Raises `UsageError` for a shape that proxies
    cannot have.
    """
    rungs = tuple(dict.fromkeys(_rung(run, found.seq_len, data.vocab_size) for run in found.runs))
    budgets = {arm: tuple(sorted({r.train_flops for r in rungs if r.arm == arm})) for arm in ("moe", "dense")}
    return Ladder(
        base=min(rung.train_flops for rung in rungs),
        moe_budgets=budgets["moe"],
        dense_budgets=budgets["dense"],
        seq_len=found.seq_len,
        validation_tokens=LENGTHS[0][2],
        settings=settings,
        rungs=rungs,
    )


def _rung(run: SuggestedRun, seq_len: int, vocab_size: int) -> Rung:
    shape = dataclasses.replace(run.architecture, vocab_size=vocab_size)
    check_architecture(shape)
    train_flops = run.tokens * flops_per_token(shape, seq_len)
    return make_rung("dense" if shape.is_dense else "moe", "", train_flops, shape, seq_len)
