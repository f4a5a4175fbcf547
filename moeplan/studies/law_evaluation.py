"""The laws evaluated at an existing model: `evaluate_laws(architecture, tokens)`.

Efficiency Leverage by every law that compares with dense models, the model against each law's own best design at the
same compute and memory, and what `moeplan recommend` would have chosen there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from moeplan.architecture.conventions import Variables
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import HEADROOM
from moeplan.cost.inference_memory import InferenceSettings, inference_bytes
from moeplan.errors import InfeasibleError, LawError
from moeplan.laws.law import Outside
from moeplan.laws.leverage import Leverage
from moeplan.plan.budget import Budget
from moeplan.plan.search.variables import Design
from moeplan.units import MemoryLimit

SEQ_LEN = Budget.seq_len
"""Sequence length that FLOPs are counted at unless told otherwise [tokens]."""


@dataclass(frozen=True)
class EvaluationByLaw:
    """A model against one law's own best design at the same compute and memory."""

    law: str
    """The law."""
    role: str
    """objective, or second opinion, as `moeplan recommend` uses it."""
    compute: float | None
    """C_l [FLOPs]: where the law's own best design without a memory limit is as good; null if it cannot judge it."""
    efficiency: float | None
    """C_l of the model / C_l of the law's own optimum at the same compute and memory."""
    optimum: Design | None
    """That optimum."""
    outside: tuple[Outside, ...]
    """Where the model leaves the law's domain."""
    says: str
    """Why the law does not judge, if so."""


@dataclass(frozen=True)
class LawEvaluation:
    """The laws evaluated at a model and its training tokens."""

    tokens: float
    """D, training tokens."""
    train_flops: float
    """flops_per_token * tokens [FLOPs]."""
    tokens_per_param: float
    """D/N_a, tokens per active param."""
    memory: str
    """The memory limit of the comparison."""
    memory_basis: str
    """Where that limit comes from."""
    leverage: Leverage | None
    """Efficiency Leverage by every law that can speak; null for a dense model, whose leverage is 1 by definition."""
    laws: tuple[EvaluationByLaw, ...]
    """Every law that can judge a design at a compute budget."""
    value_ratio: float | None
    """V/C of the model: the geometric mean of C_l over the objective's laws, in units of its compute."""
    recommended: Design | None
    """The design that `moeplan recommend` chooses there; null if nothing fits."""
    recommended_value_ratio: float | None
    """V/C of that design."""
    recommended_says: str
    """Why there is none."""
    command: str
    """The command that prints the recommended plan in full."""


def evaluate_laws(
    shape: Architecture,
    tokens: float,
    *,
    seq_len: int = SEQ_LEN,
    serving: InferenceSettings | None = None,
    memory: MemoryLimit | None = None,
    threads: int = 1,
    progress: Callable[[str], None] | None = None,
) -> LawEvaluation:
    """Evaluate the laws at an architecture trained on `tokens`; see `moeplan.studies.inspection.inspect` for the
    arguments."""
    from moeplan.laws import law_names, load_law
    from moeplan.laws.leverage import predict
    from moeplan.laws.roles import LEVERAGE_LAW, OBJECTIVE_LAWS, SECOND_OPINIONS
    from moeplan.plan.budget import Budget
    from moeplan.plan.choice import make_space
    from moeplan.plan.planner import recommend

    say = progress or (lambda _: None)
    serving = serving or InferenceSettings()
    train_flops = float(shape.flops_per_token(seq_len)) * tokens
    own = sum(inference_bytes(shape, serving).values())
    budget = Budget(
        train_flops,
        memory or MemoryLimit(own),
        vocab_size=shape.vocab_size,
        tied_embeddings=shape.tied_embeddings,
        seq_len=seq_len,
        attention=shape.attention,
        serving=serving,
        headroom=HEADROOM if memory else 0.0,
    )
    leverage = None
    if not shape.is_dense:
        with_dense = [law for law in map(load_law, law_names()) if law.has_dense]
        leverage = predict(load_law(LEVERAGE_LAW), with_dense, shape, tokens, seq_len)
    judges = [load_law(name) for name in (*OBJECTIVE_LAWS, *SECOND_OPINIONS)]
    judges = [law for law in judges if law.can_search]
    say("asking the laws")
    variables = Variables(shape, seq_len)
    optima: dict[str, Design | None] = {}
    best: dict[str, float] = {}
    computes: dict[str, float | str] = {}
    recommended, refusal = None, ""
    try:
        space = make_space(budget, judges, threads=threads)
        scores = space.score(budget.flops)
        best = {law.full_name: float(scores.mean([law]).max()) for law in judges}
        computes = {
            law.full_name: _compute(law, reference, shape, variables, tokens, train_flops)
            for law, reference in zip(judges, space.references, strict=True)
        }
        del space, scores  # half of the memory that the next search takes
        say("searching what moeplan would have chosen")
        recommended = recommend(budget, threads=threads)
        optima = {opinion.law: opinion.optimum for opinion in recommended.laws}
    except InfeasibleError as error:
        refusal = str(error)
    laws = []
    for number, law in enumerate(judges):
        compute = computes.get(law.full_name, refusal)
        known = not isinstance(compute, str) and math.isfinite(compute)
        least = best.get(law.full_name, -math.inf)
        assert law.objective is not None  # laws that can search have one
        laws.append(
            EvaluationByLaw(
                law=law.full_name,
                role="objective" if number < len(OBJECTIVE_LAWS) else "second opinion",
                compute=math.exp(float(compute)) if known else None,
                efficiency=math.exp(float(compute) - least) if known and math.isfinite(least) else None,
                optimum=optima.get(law.full_name),
                outside=law.objective.outside(variables, tokens),
                says=compute if isinstance(compute, str) else "",
            )
        )
    objective = [law.compute for law in laws if law.role == "objective"]
    value = _mean(objective) if all(objective) else None
    return LawEvaluation(
        tokens=tokens,
        train_flops=train_flops,
        tokens_per_param=tokens / shape.active_params(),
        memory=str(budget.memory),
        memory_basis=f"as given, with {100 * HEADROOM:g} % headroom"
        if memory
        else "exactly what the model itself needs to be served",
        leverage=leverage,
        laws=tuple(laws),
        value_ratio=value / train_flops if value else None,
        recommended=recommended.design if recommended else None,
        recommended_value_ratio=recommended.value_ratio if recommended else None,
        recommended_says=refusal,
        command=_command(budget, serving),
    )


def _mean(values: Iterable[float | None]) -> float:
    logs = [math.log(x) for x in values if x]
    return math.exp(sum(logs) / len(logs))


def _compute(law: Any, reference: Any, shape: Architecture, v: Variables, tokens: float, flops: float) -> float | str:
    """ln C_l of a model by one law, or why the law cannot judge it."""
    from moeplan.laws.dense import dense_loss, dense_size

    if not shape.is_dense:
        return float(reference.judge(v, tokens, flops))
    if law.objective.predicts == "efficiency_leverage":
        return "judges a dense model by definition alone: its leverage is 1"
    try:
        return float(reference.ln_compute(float(dense_loss(law, dense_size(law, v), tokens))))
    except LawError:
        return "says nothing about dense models"


def _command(budget: Any, serving: InferenceSettings) -> str:
    """The command line that recommends at a budget."""
    words = [f"moeplan recommend --flops {budget.flops:.10g} --memory {budget.memory} --headroom {budget.headroom:g}"]
    words.append(f"--vocab-size {budget.vocab_size} {'--tied' if budget.tied_embeddings else '--untied'}")
    words.append(f"--seq-len {budget.seq_len} --attention {budget.attention}")
    default = InferenceSettings()
    flags = {"weight_dtype": "weights", "kv_dtype": "kv-dtype", "context": "context", "concurrency": "concurrency"}
    words += [
        f"--{flag} {getattr(serving, n)}" for n, flag in flags.items() if getattr(serving, n) != getattr(default, n)
    ]
    return " ".join(words)
