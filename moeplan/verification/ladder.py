"""The runs of a study: budgets, sizes, batches, steps and learning rates of both arms, as `RunSpec`s.

A ladder is one number, its base compute C: MoE runs at C and 2C, dense runs at C/2, C, 2C and 4C (`NARROW`), from
`WIDE_FROM` on MoE runs at C and 4C, dense runs at C/4 to 8C (`WIDE`). Every budget has sizes around the compute-optimal
one, every size `seeds` seeds. Dense runs reach further on both sides, because a leverage is read where a dense model
has the loss of the MoE.

One set of rules for both arms: batch by steplaw2025 (Li et al. 2025, arXiv 2503.04715), learning rate tuned on the
arm's smallest size and carried to other widths (`moeplan.verification.tuning`), linear decay to zero.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from moeplan.architecture.conventions import Variables
from moeplan.architecture.shape import Architecture
from moeplan.laws import load_law
from moeplan.units import format_flops
from moeplan.verification.shrink import flops_per_token, name_of, one_expert, sizes
from moeplan.verification.spec import RunSpec
from moeplan.verification.tuning import (
    MOST_RATES,
    TUNING_BUDGET,
    TUNING_CENTRE,
    TUNING_FACTORS,
    TUNING_SEED,
    TUNING_WIDTH,
    Transfer,
)

Arm = Literal["moe", "dense"]
Control = Literal["", "one_expert", "frozen_router", "second_seed"]

NARROW = ((1.0, 2.0), (0.5, 1.0, 2.0, 4.0))
"""MoE and dense budgets of a small ladder, in units of its base."""
WIDE = ((1.0, 4.0), (0.25, 0.5, 1.0, 2.0, 4.0, 8.0))
"""The same from `WIDE_FROM` on; six dense budgets, so that an irreducible loss can be fitted."""
WIDE_FROM = 2e12
"""Base compute [FLOPs] from which the smallest dense runs of a wide ladder still have a compute-optimal size."""
THREE_SIZES_FROM = 1e13
"""Base compute [FLOPs] from which every budget has three sizes; below, two."""
LENGTHS = ((1e15, 512, 2**21), (1e12, 256, 2**20), (0.0, 128, 2**16))
"""Sequence length and validation tokens from a base compute on: attention stays below half of the FLOPs, and
validation costs a few per cent of the shortest run."""
MAX_EPOCHS = 4.0
"""Most repeats of the training text: up to four are nearly as good as new text (Muennighoff et al. 2023)."""
MIN_TOKENS_PER_EXPERT = 32
"""Least tokens that an expert sees in a step, on average; below that its gradient is mostly noise."""
FED_BY_LAW = 0.75 * MIN_TOKENS_PER_EXPERT
"""Tokens that a batch by the law gives an expert, at least: for its sake no batch grows by more than a third."""
ROUTER_SHARE = 0.25
"""Largest share of a proxy's FLOPs that its router may take. With 496 experts at d32 it would be .42, and the MoE ended
5 % above the dense model's loss at equal FLOPs; with a third of them .21, and it ended 9 % below (1e11 FLOPs)."""
EMBEDDING_PARTS = 3
"""Thirds of each embedding are those of the token itself, the one before and the one before that, in both arms. Proxies
of a minute otherwise spend it on learning to attend to neighbours, the whole of what attention does at that scale,
at a moment that hangs on the seed: two seeds lay up to 10 % apart, and experts had no time to differ. Of 1 to 4 parts 3
gave the dense arm its least loss (d32L1, 1e11 FLOPs: 2.1, 1.93, 1.90, 2.0), so that no part of it favours the MoE."""
WEIGHT_DECAY = 0.1
"""AdamW's weight decay on matrices, as in nearly all published runs."""
BALANCE_RATE = 3e-2
"""First size of the sign update of the router's bias. 1e-3, usual in long runs, is too slow below 2,000 steps; in 538
steps 1e-2 left an expert 4.0 times the mean load, 3e-2 1.9 times, at the same loss (184 experts, d32L1). A warm-up of
the bias helps nothing: with 4 or 10 times the rate at first, falling over a quarter of the steps, the load peaked at
15 and 21 times the mean, at 14 without it, and losses were .1 and .6 % higher; 3 times the rate throughout cost 1.6 %
(122 experts, d32L1, 340 steps, three seeds each)."""
STEP = 2**0.25
"""Base computes are powers of this, so that a slightly faster machine has the same runs."""

LEAST_STEPS = 40
"""Fewest steps of a run: with fewer, warm-up and decay are all there is."""


@dataclass(frozen=True)
class Data:
    """The text a ladder trains on, in numbers."""

    name: str
    """Where it is: builtin, or a path."""
    digest: str
    """Digest of the tokens."""
    vocab_size: int
    """Different tokens."""
    train_tokens: int
    """Unique training tokens."""


@dataclass(frozen=True)
class Settings:
    """Settings of all runs of a study, chosen before its size is."""

    precision: Literal["fp32", "bf16"]
    """Arithmetic of matrix products."""
    seeds: int
    """Seeds of every rung."""
    controls: bool
    """Whether the controls run as well."""


@dataclass(frozen=True)
class Rung:
    """A size at a budget: everything of its runs but learning rate and seed."""

    arm: Arm
    """Which side of the comparison it is on."""
    control: Control
    """The control that it belongs to; "" for a rung that is measured."""
    train_flops: float
    """The budget it belongs to [FLOPs, as the leverage law counts]; its own compute differs by a step at most."""
    architecture: Architecture
    """The exact shape."""
    batch_sequences: int
    """Sequences of a step."""
    steps: int
    """Optimizer steps."""

    @property
    def name(self) -> str:
        """Its place in the ladder, as in 1.41e11/d32L1."""
        return f"{format_flops(self.train_flops)}/{name_of(self.architecture)}"


@dataclass(frozen=True)
class Ladder:
    """The rungs of a study; learning rates come later, from its tuning runs."""

    base: float
    """Base compute [FLOPs]."""
    moe_budgets: tuple[float, ...]
    """Budgets at which the leverage is measured [FLOPs]."""
    dense_budgets: tuple[float, ...]
    """Budgets of the dense runs [FLOPs]."""
    seq_len: int
    """Sequence length of every run [tokens]: losses at two lengths do not compare."""
    embedding_parts: int
    """Parts of each run's embeddings, 1 for whole ones (`EMBEDDING_PARTS`)."""
    validation_tokens: int
    """Tokens of the validation documents that every run's loss is taken over, if there are as many."""
    settings: Settings
    """Settings that all runs share."""
    rungs: tuple[Rung, ...]
    """Every size at every budget, controls last; one that stands here twice gets further seeds."""
    most_rates: int
    """Most learning rates that an arm tries."""
    tuned: tuple[Rung, ...]
    """Where the learning rate of each arm is tuned, an arm without rungs left out."""

    def tuning(self, data: Data) -> tuple[RunSpec, ...]:
        """The runs that choose the learning rate: one size of each arm with three values."""
        specs = []
        for rung in self.tuned:
            centre = TUNING_CENTRE * TUNING_WIDTH / rung.architecture.d_model
            specs += [self._spec(rung, data, centre * factor, TUNING_SEED, "tune") for factor in TUNING_FACTORS]
        return tuple(specs)

    def measured(self, data: Data, rates: Mapping[str, float], transfer: Transfer) -> tuple[RunSpec, ...]:
        """The runs that count, with the tuned rate of each arm's size carried to every other."""
        specs, before = [], Counter[Rung]()
        widths = {rung.arm: rung.architecture.d_model for rung in self.tuned}
        for rung in self.rungs:
            arm = tuned_arm(rung)
            rate = transfer(rates[arm], widths[arm], rung.architecture.d_model)
            first = 1 + self.settings.seeds * (before[rung] + (rung.control == "second_seed"))
            before[rung] += 1
            for seed in range(first, first + self.settings.seeds):
                specs.append(self._spec(rung, data, rate, seed, "measure"))
        return tuple(sorted(specs, key=lambda spec: spec.control != ""))

    def specs(self, data: Data) -> tuple[RunSpec, ...]:
        """Every run, the rates not tuned yet: what a forecast of time and memory needs."""
        rates = dict.fromkeys(("moe", "dense"), TUNING_CENTRE)
        return (*self.tuning(data), *self.measured(data, rates, lambda rate, start, end: rate))

    def _spec(self, rung: Rung, data: Data, rate: float, seed: int, purpose: Literal["measure", "tune"]) -> RunSpec:
        is_moe = rung.architecture.num_experts > 1
        return RunSpec(
            arm=rung.arm,
            control=rung.control,
            rung=rung.name,
            purpose=purpose,
            architecture=rung.architecture,
            embedding_parts=self.embedding_parts,
            seq_len=self.seq_len,
            batch_sequences=rung.batch_sequences,
            steps=rung.steps,
            learning_rate=float(f"{rate:.4g}"),
            warmup_steps=max(1, min(100, rung.steps // 10)),
            weight_decay=WEIGHT_DECAY,
            balance_rate=BALANCE_RATE if is_moe else 0.0,
            frozen_router=rung.control == "frozen_router",
            seed=seed,
            precision=self.settings.precision,
            data=data.name,
            data_digest=data.digest,
            validation_tokens=self.validation_tokens,
        )


def tuned_arm(rung: Rung) -> Arm:
    """The arm whose learning rate a rung has: one expert alone is a dense model."""
    return "moe" if rung.architecture.num_experts > 1 else "dense"


Seconds = Callable[[RunSpec], float]
"""Forecast of a run's time on this machine [s]."""


def law_batch(architecture: Architecture, tokens: float, seq_len: int) -> float:
    """Tokens of a step by steplaw2025."""
    return float(load_law("steplaw2025").predicting("batch_tokens").at(Variables(architecture, seq_len), tokens))


def batch_sequences(architecture: Architecture, tokens: float, seq_len: int) -> int:
    """The batch by steplaw2025 in sequences, enough for `MIN_TOKENS_PER_EXPERT`."""
    wanted = law_batch(architecture, tokens, seq_len) / seq_len
    least = 1.0
    if architecture.num_experts > 1:
        per_sequence = seq_len * architecture.num_active_experts / architecture.num_experts
        least = math.ceil(MIN_TOKENS_PER_EXPERT / per_sequence)
    return int(max(round(wanted), least, 1))


def make_rung(arm: Arm, control: Control, train_flops: float, architecture: Architecture, seq_len: int) -> Rung:
    """A size at a budget: tokens = budget / FLOPs per token, in whole steps."""
    tokens = train_flops / flops_per_token(architecture, seq_len)
    batch = batch_sequences(architecture, tokens, seq_len)
    return Rung(arm, control, train_flops, architecture, batch, max(1, round(tokens / (batch * seq_len))))


def thinned(planned: Architecture, train_flops: float, seq_len: int, vocab_size: int) -> Architecture:
    """The plan's model with as many of its experts as proxies of this budget can have: all, a half, a third, ...

    In a large model the router costs next to nothing and a batch feeds hundreds of experts. In a narrow one the router
    over all of them would be most of the FLOPs, and so few tokens a step would reach each that its gradient is noise:
    both would be held against the plan, which has neither. Active and shared experts and their widths stay, so that
    fewer experts mean a larger activation ratio, and by tian2025 a smaller leverage. Embeddings are never tied: among
    256 bytes that saves nothing, and short runs begin late with it (mean loss of the first tenth 4.9 in place of 3.5).
    """
    for parts in itertools.count(1):
        experts = max(planned.num_experts // parts, min(planned.num_experts, 2 * planned.num_active_experts))
        model = dataclasses.replace(planned, num_experts=experts, tied_embeddings=False)
        smallest = sizes(model, dense=False, train_flops=train_flops, count=2, seq_len=seq_len, vocab_size=vocab_size)[
            0
        ]
        per_token = flops_per_token(smallest, seq_len)
        router = 6 * experts * smallest.d_model * smallest.num_layers / per_token
        fed = law_batch(smallest, train_flops / per_token, seq_len) * model.num_active_experts / experts
        if experts <= 2 * planned.num_active_experts or (router <= ROUTER_SHARE and fed >= FED_BY_LAW):
            return model
    raise AssertionError("half as many experts are few in the end")


def smallest_rungs(rungs: Iterable[Rung], seq_len: int) -> tuple[Rung, ...]:
    """The cheapest rung of each arm that has any, whose size its learning rate is tuned on."""
    by_arm: dict[Arm, Rung] = {}
    for rung in sorted(rungs, key=lambda r: (r.train_flops, flops_per_token(r.architecture, seq_len))):
        if not rung.control:
            by_arm.setdefault(rung.arm, rung)
    return tuple(by_arm[arm] for arm in ("moe", "dense") if arm in by_arm)


def make_ladder(planned: Architecture, base: float, settings: Settings, vocab_size: int) -> Ladder:
    """The ladder of one base compute."""
    moe_budgets, dense_budgets = (
        tuple(base * multiple for multiple in multiples) for multiples in (WIDE if base >= WIDE_FROM else NARROW)
    )
    count = 3 if base >= THREE_SIZES_FROM else 2
    seq_len, validation_tokens = next(rest for least, *rest in LENGTHS if base >= least)

    family = thinned(planned, base, seq_len, vocab_size) if planned.num_experts else planned

    def models(dense: bool, budget: float) -> tuple[Architecture, ...]:
        return sizes(family, dense=dense, train_flops=budget, count=count, seq_len=seq_len, vocab_size=vocab_size)

    rungs = [
        make_rung("dense" if dense else "moe", "", budget, shape, seq_len)
        for dense, budgets in ((False, moe_budgets), (True, dense_budgets))
        for budget in budgets
        for shape in models(dense, budget)
    ]
    if settings.controls:
        lowest = moe_budgets[0]
        dense = models(True, lowest)
        rungs += [make_rung("moe", "one_expert", lowest, one_expert(shape), seq_len) for shape in dense]
        rungs += [make_rung("dense", "second_seed", lowest, shape, seq_len) for shape in dense]
        highest = moe_budgets[-1]  # where the router had most time to learn
        rungs += [make_rung("moe", "frozen_router", highest, s, seq_len) for s in models(False, highest)]
    tuned = tuple(
        make_rung(rung.arm, "", TUNING_BUDGET * base, rung.architecture, seq_len)
        for rung in smallest_rungs(rungs, seq_len)
    )
    return Ladder(
        base=base,
        moe_budgets=moe_budgets,
        dense_budgets=dense_budgets,
        seq_len=seq_len,
        embedding_parts=EMBEDDING_PARTS,
        validation_tokens=validation_tokens,
        settings=settings,
        rungs=tuple(rungs),
        most_rates=MOST_RATES,
        tuned=tuned,
    )


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Time of independent jobs on `workers` equal workers, the longest first [s]."""
    busy = [0.0] * workers
    for job in sorted(seconds, reverse=True):
        busy[busy.index(min(busy))] += job
    return max(busy)


def ladder_seconds(ladder: Ladder, data: Data, seconds: Seconds, workers: int) -> float:
    """Forecast of a whole study [s]: tuning runs first, then the others."""
    times: dict[str, list[float]] = {"tune": [], "measure": []}
    known: dict[tuple[Architecture, int, int], float] = {}  # seeds and rates do not change the time
    for spec in ladder.specs(data):
        key = (spec.architecture, spec.batch_sequences, spec.steps)
        if key not in known:
            known[key] = seconds(spec)
        times[spec.purpose].append(known[key])
    return makespan(times["tune"], workers) + makespan(times["measure"], workers)


def ladder_flops(ladder: Ladder, data: Data) -> float:
    """Compute of a whole study [FLOPs], tuning and controls included."""
    return sum(spec.tokens * flops_per_token(spec.architecture, spec.seq_len) for spec in ladder.specs(data))


def most_epochs(ladder: Ladder, data: Data) -> float:
    """The most often that a run of the ladder repeats the training text."""
    return max(spec.tokens for spec in ladder.specs(data)) / data.train_tokens


def least_steps(ladder: Ladder) -> int:
    """Steps of the shortest run."""
    return min(rung.steps for rung in ladder.rungs)


def with_seeds(settings: Settings, seeds: int) -> Settings:
    """The same settings with another number of seeds."""
    return dataclasses.replace(settings, seeds=seeds)
