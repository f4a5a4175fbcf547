"""What tests of `moeplan verify` share: plans small enough to train, ladders with invented losses."""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path

import numpy as np

from moeplan.architecture.shape import Architecture
from moeplan.plan.document import Plan
from moeplan.verification.groups import Group
from moeplan.verification.ladder import Data, Ladder, Settings, make_ladder
from moeplan.verification.shrink import flops_per_token
from moeplan.verification.spec import SPEC_SCHEMA, RoutingHealth, RunResult, RunSpec
from tests.sample import sample_plan

PLANNED = Architecture(
    d_model=3072, num_layers=27, vocab_size=131072, num_heads=24, num_kv_heads=6, head_dim=128, num_experts=184,
    num_active_experts=8, d_expert=768, num_shared_experts=1, num_dense_layers=1, d_ff=6912, qk_norm="head",
)  # fmt: skip
"""The model that 1e22 FLOPs and 80GB give."""
SMALL = dataclasses.replace(PLANNED, num_experts=8, num_active_experts=2, d_expert=1536, d_ff=4608, num_dense_layers=0)
"""Experts so few that their proxies train in a second."""
DATA = Data("builtin", "0" * 16, 256, 75_000_000)
SETTINGS = Settings("fp32", seeds=2, controls=False)


def plan_for(architecture: Architecture) -> Plan:
    """A plan whose model is `architecture`."""
    plan = sample_plan(architecture=architecture)
    design = dataclasses.replace(
        plan.design,
        total_params=architecture.total_params(),
        active_params=architecture.active_params(),
    )
    return dataclasses.replace(plan, design=design)


def text_file(folder: Path, megabytes: float = 1.0) -> Path:
    """Text with something to learn: lines of words from a small vocabulary, many documents in JSON lines."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 6))) for _ in range(60)]
    path = folder / "text.jsonl"
    with path.open("w", encoding="utf-8") as file:
        written = 0
        while written < megabytes * 1e6:
            text = " ".join(rng.choices(words, weights=range(1, 61), k=200))
            written += file.write(f'{{"text": "{text}"}}\n')
    return path


# A world with a known leverage -------------------------------------------------------------------------------------


def true_loss(train_flops: float, per_token: float, leverage: float = 1.0) -> float:
    """L = .6 + 14*(M/6)^-.34 + 60*D^-.34 of a model whose compute counts `leverage` times at its size's distance
    from the optimum: the envelope of the MoE is then that of dense models at `leverage` times the compute."""
    off = per_token / best_size(train_flops)
    size = best_size(leverage * train_flops) * off
    return 0.6 + 14 * (size / 6) ** -0.34 + 60 * (leverage * train_flops / size) ** -0.34


def best_size(train_flops: float) -> float:
    """M of least loss in this world, where both terms weigh alike: dL/dM = 0."""
    return math.sqrt(6 * train_flops) * (14 / 60) ** (1 / 0.68)


def invented(
    rng: np.random.Generator,
    leverage: float,
    *,
    base: float = 1e11,
    seeds: int = 2,
    noise: tuple[float, float] = (0.012, 0.010),
    falls: float = 0.0,
    shared: float = 0.01,
    documents: int = 25,
    moe_budgets: tuple[float, ...] = (1, 2),
    dense_budgets: tuple[float, ...] = (0.5, 1, 2, 4),
    sizes: tuple[float, ...] = (0.75, 1.35),
) -> tuple[list[Group], list[Group]]:
    """MoE and dense runs of a world with a planted leverage.

    A loss has a seed's own noise, whose variance falls with tokens to the power of `falls` from `noise` at the most
    tokens of any run on, noise that all runs of a seed share, and documents that differ in difficulty and, a little, in
    how each size takes them.
    """
    tokens = rng.integers(500, 4096, documents).astype(float)
    difficulty = rng.normal(0, 0.25, documents)
    level = (np.exp(difficulty) * tokens).sum() / tokens.sum()
    common = rng.normal(0, shared, seeds)
    longest = max(base * budget / best_size(base * budget) for budget in (*moe_budgets, *dense_budgets)) / min(sizes)
    arms = []
    for arm, budgets, own, lever in (
        ("moe", moe_budgets, noise[0], leverage),
        ("dense", dense_budgets, noise[1], 1.0),
    ):
        groups = []
        for multiple in budgets:
            for size in sizes:
                train_flops = base * multiple
                loss = true_loss(train_flops, best_size(train_flops) * size, lever)
                tokens_seen = train_flops / (best_size(train_flops) * size)
                level_of_noise = own * (tokens_seen / longest) ** (-falls / 2)
                taste = rng.normal(0, 0.02, documents)
                taste -= (taste * tokens).sum() / tokens.sum()
                rows = []
                for seed in range(seeds):
                    wobble = rng.normal(0, 0.01, documents) + rng.normal(0, level_of_noise) + common[seed]
                    rows.append(loss / level * np.exp(difficulty + taste + wobble) * tokens)
                table = np.array(rows)
                groups.append(
                    Group(
                        budget=f"{train_flops:.4g}",
                        train_flops=train_flops,
                        tokens=round(tokens_seen),
                        seeds=tuple(range(1, seeds + 1)),
                        losses=tuple(table.sum(axis=1) / tokens.sum()),
                        documents=table,
                        document_tokens=tokens,
                        seconds=train_flops / (1e9 if arm == "moe" else 3e9),
                        rung=f"{train_flops:.4g}/{arm}{size}",
                    )
                )
        arms.append(groups)
    return arms[0], arms[1]


def invented_result(spec: RunSpec, rng: np.random.Generator, leverage: float, noise: float = 0.004) -> RunResult:
    """What a run of a ladder would give in that world; controls behave as they should."""
    train_flops = spec.tokens * flops_per_token(spec.architecture, spec.seq_len)
    many = spec.architecture.num_experts > 1
    lever = leverage if many else 1.0
    loss = true_loss(train_flops, best_size(train_flops), lever) * math.exp(rng.normal(0, noise))
    if spec.frozen_router:
        loss *= 1.08
    tokens = np.random.default_rng(5).integers(500, 4096, 20)
    share = np.exp(np.random.default_rng(6).normal(0, 0.2, 20))
    share *= tokens.sum() / (share * tokens).sum()
    return RunResult(
        schema=SPEC_SCHEMA,
        spec=spec,
        status="finished",
        learning_rate=spec.learning_rate,
        attempts=1,
        loss=loss,
        document_losses=tuple((loss * share * tokens).tolist()),
        document_tokens=tuple(tokens.tolist()),
        train_losses=(3.0, loss),
        train_loads=(4.0, 2.0) if many else (),
        epochs=spec.tokens / DATA.train_tokens,
        train_flops=train_flops,
        seconds=train_flops / (3e9 if many else 1e10),
        tokens_per_second=1e4,
        mfu=0.1,
        routing=RoutingHealth((2.0,), (0.0,), (0.98,)) if many else None,
        device="an invented one",
        execution="eager",
        expert_products="blocks" if many else None,
        versions={"moeplan": "0", "torch": "0", "python": "0"},
    )


def small_ladder(base: float = 1e10, **changes: object) -> Ladder:
    """The ladder of `PLANNED` at one base compute."""
    return make_ladder(PLANNED, base, dataclasses.replace(SETTINGS, **changes), 256)  # type: ignore[arg-type]
