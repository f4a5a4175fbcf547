"""Designs of laboratories beside moeplan's for their compute and the memory of their model: `labs()`.

A laboratory that trains N_a active params on D tokens spends C = flops_per_token * D. If its model must also serve
m*D tokens over its life, each at 2*N_a FLOPs, the whole budget is C + 2*N_a*m*D; the laboratory's own design spends
exactly that. moeplan gets the same budget, the same fixed demand of m*D tokens and the memory that the laboratory's
weights and one sequence of 8,192 cached tokens take, and chooses. With m = 0 training alone counts.

The same is asked in GPU-hours (`HOURS`): training at one utilisation, and serving as the serving model has it, on the
fewest of one device that hold the laboratory's model and `SEQUENCES` users. The laboratory's own design again spends
exactly the budget.

This is weak evidence: laboratories follow each other, their choices had reasons that no law sees, and N_a of the
laboratory enters the budget. It weighs no law.

Known differences, with what each is worth at these budgets (docs/accuracy.md has the numbers):

* k of 4 to 6 where laboratories take 6 to 10: one shared expert is fixed and tian2025 is read to count A without it, so
  that fewer routed experts look sparser; its paper does not say. Counted with it, 6 to 7 are chosen; k of 8 and more
  cost 1 to 3 % of V. That is less than the laws differ by, and k can be fixed.
* Up to 113 layers: no law sees depth, so it follows the width, at the usual proportions; with a demand to serve, the
  designs are about as narrow and shallow as the laboratories'.
* A law's "own best" is the declared grid's: models with more attention than the grid allows can be better by laws that
  count attention's FLOPs as compute.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

from moeplan import __version__
from moeplan.architecture.conventions import Variables
from moeplan.architecture.hybrid import HybridArchitecture
from moeplan.architecture.published import find_model
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import Gpus, bundled, load_device
from moeplan.cost.inference_memory import InferenceSettings, WeightDtype, inference_bytes
from moeplan.cost.serving.demand import Demand
from moeplan.cost.serving.roofline import devices_needed
from moeplan.errors import InfeasibleError, UsageError
from moeplan.plan.budget import Budget
from moeplan.plan.law_selection import select_laws
from moeplan.plan.planner import search
from moeplan.quantities import SHARE
from moeplan.units import MemoryLimit

SCHEMA = "moeplan.labs/1"
DEMANDS = (0.0, 1.0, 3.0, 10.0)
"""Tokens served over the model's life, in multiples of the laboratory's own training tokens."""
HOURS = (3.0,)
"""Demands that are also paid in GPU-hours."""
HOURS_DEVICE, HOURS_MFU = "H200", 0.3
"""The device whose hours are counted, and the share of its bf16 peak that training reaches."""
SPEED = 30.0
"""Tokens a second that each user must see where serving is paid in GPU-hours."""
SEQUENCES = 64
"""Users of 8,192 tokens that the serving devices must hold beside the laboratory's model."""
SEQ_LEN = 4096
"""Sequence length that FLOPs are counted at [tokens]."""
MEMORY_SLACK = 1.003
"""Memory given / memory that the laboratory's model needs: the grid has no design of exactly its size."""


@dataclass(frozen=True)
class ChosenDesign:
    """One design with its tokens."""

    total_params: int
    """N [params]."""
    active_params: int
    """N_a [params]."""
    tokens: float
    """D, training tokens."""
    num_experts: int
    """E, routed experts of a layer."""
    num_active_experts: int
    """k of them for each token."""
    num_shared_experts: int
    """Shared experts of a layer."""
    granularity: float
    """2 * d_model / d_expert."""
    num_layers: int
    """Layers."""
    d_model: int
    """Width."""


@dataclass(frozen=True)
class Chosen:
    """The design that moeplan chooses at one demand."""

    demand: float
    """Tokens served / the laboratory's training tokens."""
    paid_in: str
    """flops, 2*N_a a served token, or gpu_hours, by the serving model."""
    choice: ChosenDesign | None
    """The design; null if nothing fits."""
    active_params_factor: float | None
    """N_a / the laboratory's."""
    tokens_factor: float | None
    """D / the laboratory's."""
    value_factor: float | None
    """V / V of the laboratory's design; below 1 where that, which is not on the grid, is better by the laws."""
    value_ratio: Annotated[float | None, SHARE]
    """V / the laboratory's training compute."""
    says: str
    """Why there is none; "" if there is one."""


@dataclass(frozen=True)
class Lab:
    """A laboratory's model, and what moeplan chooses in its place."""

    model: str
    """The bundled model."""
    weights: str
    """Dtype of the weights when served."""
    source: str
    """Where that is from."""
    train_flops: float
    """Training compute: flops_per_token * D [FLOPs]."""
    memory_bytes: float
    """Memory that is given: what the model needs to be served, times `MEMORY_SLACK` [bytes]."""
    choice: ChosenDesign
    """The laboratory's own design."""
    value_ratio: Annotated[float | None, SHARE]
    """V of it / its training compute; null if nothing fits."""
    is_hybrid: bool
    """Whether blocks have windows, linear attention, states or the like, which moeplan's own designs do not have."""
    chosen: tuple[Chosen, ...]
    """The designs that moeplan chooses, one for each demand."""


@dataclass(frozen=True)
class Agreement:
    """How near moeplan comes to the laboratories at one demand."""

    demand: float
    """Tokens served / the laboratory's training tokens."""
    paid_in: str
    """flops or gpu_hours."""
    median_factor: float
    """Median over models of the larger of N_a / theirs and its inverse."""
    worst_factor: float
    """The largest of these."""
    worst: str
    """The model that it is of."""


@dataclass(frozen=True)
class Labs:
    """The report."""

    schema: str
    """Version of this structure, moeplan.labs/1."""
    version: str
    """moeplan's version."""
    laws: tuple[str, ...]
    """Laws whose geometric mean is maximised, with equal weights."""
    labs: tuple[Lab, ...]
    """The models, in the order of the data file."""
    agreement: tuple[Agreement, ...]
    """How near the choices come, one for each demand."""


def labs(
    models: Sequence[str] | None = None,
    *,
    demands: Sequence[float] = DEMANDS,
    hours: Sequence[float] = (),
    threads: int = 1,
    progress: Callable[[str], None] | None = None,
) -> Labs:
    """Designs of laboratories beside moeplan's; `models` names some of the bundled ones, default all.

    Raises `UsageError` for a model that is not in the list.
    """
    rows = bundled("labs.yaml").sections("labs")
    for row in rows:
        row.only(("model", "weights", "source"), ("model", "weights", "source"))
    known = {row.text("model"): row for row in rows}
    for name in models or ():
        if name not in known:
            raise UsageError(f"{name} is not among the models of this report; they are {', '.join(known)}")
    found = []
    for name in models or known:
        if progress is not None:
            progress(name)
        weights = cast(WeightDtype, known[name].text("weights"))
        found.append(_lab(name, weights, known[name].text("source"), demands, hours, threads))
    return Labs(
        schema=SCHEMA,
        version=__version__,
        laws=tuple(law.full_name for law in select_laws(None).objective),
        labs=tuple(found),
        agreement=tuple(
            agreement
            for paid_in, asked in (("flops", demands), ("gpu_hours", hours))
            for demand in asked
            if (agreement := _agreement(found, demand, paid_in)) is not None
        ),
    )


def _lab(
    name: str,
    weights: WeightDtype,
    source: str,
    demands: Sequence[float],
    hours: Sequence[float],
    threads: int,
) -> Lab:
    model = find_model(name)
    shape, tokens = model.architecture, model.training_tokens
    if tokens is None:
        raise UsageError(f"{name}: its training tokens are not published")
    serving = InferenceSettings(weight_dtype=weights)
    train_flops = float(shape.flops_per_token(SEQ_LEN)) * tokens
    memory = sum(inference_bytes(shape, serving).values()) * MEMORY_SLACK
    given: dict[str, Any] = {
        "memory": MemoryLimit(round(memory)),
        "vocab_size": shape.vocab_size,
        "tied_embeddings": shape.tied_embeddings,
        "attention": shape.attention,
        "serving": serving,
        "headroom": 0.0,
    }
    chosen = []
    for demand in demands:
        served = demand * tokens
        budget = Budget(train_flops + 2 * shape.active_params() * served, **given, inference_tokens=served)
        chosen.append(_chosen(shape, tokens, demand, budget, train_flops, threads))
    for demand in hours:
        try:
            budget = _in_hours(shape, train_flops, demand * tokens, given)
        except InfeasibleError as error:
            chosen.append(Chosen(demand, "gpu_hours", None, None, None, None, None, str(error)))
        else:
            chosen.append(_chosen(shape, tokens, demand, budget, train_flops, threads))
    found = next((each for each in chosen if each.value_ratio is not None and each.value_factor), None)
    return Lab(
        model=name,
        weights=weights,
        source=source,
        train_flops=train_flops,
        memory_bytes=memory,
        choice=_choice(shape, tokens),
        value_ratio=None if found is None else found.value_ratio / found.value_factor,  # type: ignore[operator]
        is_hybrid=isinstance(shape, HybridArchitecture),
        chosen=tuple(chosen),
    )


def _in_hours(shape: Architecture, train_flops: float, served: float, given: dict[str, Any]) -> Budget:
    """The GPU-hours that the laboratory spends on training and on serving, as a budget in them."""
    device, settings = load_device(HOURS_DEVICE), given["serving"]
    users = dataclasses.replace(settings, concurrency=SEQUENCES)
    demand = Demand(
        served=served,
        serve_gpus=Gpus(devices_needed(shape, device, users), device),
        tokens_per_second_per_user=SPEED,
    )
    seconds = float(demand.throughput(shape, settings, 1 - given["headroom"]).gpu_seconds_per_token)
    if not math.isfinite(seconds):
        raise InfeasibleError(f"the laboratory's model does not answer at {SPEED:g} tokens/s on {demand.serve_gpus}")
    flops = train_flops + float(demand.gpu_hours(seconds)) * 3600 * device.bf16_flops * HOURS_MFU
    return Budget(flops, **given, demand=demand, mfu=HOURS_MFU)


def _chosen(
    shape: Architecture, tokens: float, demand: float, budget: Budget, train_flops: float, threads: int
) -> Chosen:
    laws = select_laws(None)
    paid_in = "gpu_hours" if budget.pays_hours else "flops"
    try:
        ours = search(budget, laws, threads=threads, say=lambda _: None)
    except InfeasibleError as error:
        return Chosen(demand, paid_in, None, None, None, None, None, str(error))
    variables = Variables(shape, budget.seq_len)
    references = [ours.space.reference(law) for law in laws.objective]
    ln_theirs = statistics.fmean(float(each.judge(variables, tokens, train_flops)) for each in references)
    ln_ours = float(ours.ln_value[ours.index])
    return Chosen(
        demand=demand,
        paid_in=paid_in,
        choice=_choice(ours.architecture, ours.tokens),
        active_params_factor=ours.architecture.active_params() / shape.active_params(),
        tokens_factor=ours.tokens / tokens,
        value_factor=math.exp(ln_ours - ln_theirs),
        value_ratio=math.exp(ln_ours) / train_flops,
        says="",
    )


def _choice(shape: Architecture, tokens: float) -> ChosenDesign:
    return ChosenDesign(
        total_params=shape.total_params(),
        active_params=shape.active_params(),
        tokens=tokens,
        num_experts=shape.num_experts,
        num_active_experts=shape.num_active_experts,
        num_shared_experts=shape.num_shared_experts,
        granularity=shape.granularity,
        num_layers=shape.num_layers,
        d_model=shape.d_model,
    )


def _agreement(found: Sequence[Lab], demand: float, paid_in: str) -> Agreement | None:
    factors = {
        lab.model: max(factor, 1 / factor)
        for lab in found
        for each in lab.chosen
        if (each.demand, each.paid_in) == (demand, paid_in) and (factor := each.active_params_factor) is not None
    }
    if not factors:
        return None
    worst = max(factors, key=factors.__getitem__)
    return Agreement(demand, paid_in, statistics.median(factors.values()), factors[worst], worst)
