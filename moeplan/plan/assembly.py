"""The plan that says everything of a choice: `assemble(choice, laws, ...)`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from moeplan import __version__
from moeplan.architecture import counting
from moeplan.architecture.conventions import CONVENTIONS, Variables
from moeplan.architecture.shape import Architecture
from moeplan.cost.inference_memory import inference_bytes
from moeplan.errors import InfeasibleError
from moeplan.laws import Law, load_law
from moeplan.laws.hyperparameters import hyperparameter_laws, hyperparameters
from moeplan.laws.leverage import Leverage, pooled_laws, predict
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.budget import Budget
from moeplan.plan.choice import Choice
from moeplan.plan.design_time import design_times
from moeplan.plan.document import SCHEMA, Band, Counts, LawOpinion, MemoryUse, Plan, Price, Provenance, Request
from moeplan.plan.if_concurrent import if_concurrent
from moeplan.plan.if_served import if_served
from moeplan.plan.law_selection import LawSelection
from moeplan.plan.life import life_of
from moeplan.plan.near_equal import near_equal, near_equal_rows
from moeplan.plan.notes import notes
from moeplan.plan.search.space import MORE
from moeplan.plan.search.variables import DESIGN_VARIABLES
from moeplan.plan.training_and_serving import serving_use, training_run
from moeplan.plan.uncertainty.redraw import plan_uncertainty
from moeplan.units import format_count, format_flops

MARKED = 0.25
"""Alternatives differ by at least this in N_a, N or tokens, or by a factor of 2 in experts or G."""
_BINDS = 1.001
"""A resource binds if 10 % more of it raises the best V by more than .1 %."""


def assemble(
    choice: Choice, laws: LawSelection, *, num_alternatives: int = 0, choose: str = "best", command: str = ""
) -> Plan:
    """The plan of a choice by the laws that it was made by, with so many alternatives.

    `choose` is one of `moeplan.plan.near_equal.RULES`: the design that the plan is of, in place of the best.
    """
    beside = near_equal(choice)
    if choose not in beside:
        raise InfeasibleError(f"no {choose} design that fits can be trained; leave out --choose {choose}")
    choice = beside[choose]
    budget, architecture, tokens = choice.budget, choice.architecture, choice.tokens
    hyper_laws = hyperparameter_laws(budget.hyperparameters)
    hyper = hyperparameters(hyper_laws, architecture, tokens, budget.seq_len)
    by_name = {law.full_name: law for law in (*pooled_laws(), *laws.everyone, *hyper_laws)}
    best, design, prices = choice.best_ln_value, choice.design, _prices(choice)
    opinions = tuple(_opinion(choice, law) for law in laws.everyone)
    leverage = leverage_of(choice, laws.everyone)
    train_flops = float(architecture.flops_per_token(budget.seq_len)) * tokens
    training = training_run(architecture, tokens, hyper[0].batch_tokens, budget)
    serving = serving_use(architecture, budget)
    others = _alternatives(choice, num_alternatives)
    ln_value = choice.scores.mean(choice.laws)  # after the alternatives were asked exactly
    return Plan(
        schema=SCHEMA,
        request=request_for(budget, laws, num_alternatives, choose, flops=choice.flops),
        design=design,
        architecture=architecture,
        counts=_counts(architecture, tokens, budget.seq_len),
        memory=_memory(architecture, budget),
        leverage=leverage,
        hyperparameters=hyper,
        training=training,
        serving=serving,
        life=life_of(architecture, train_flops, training.gpu_hours or 0.0, budget),
        if_served=if_served(choice),
        value_ratio=math.exp(float(choice.ln_value[choice.index])) / choice.flops,
        best_value=math.exp(best),
        binding=_binding(choice, prices),
        prices=prices,
        bands=_bands(choice),
        designs_within_1=int(np.count_nonzero(choice.ln_value >= best + math.log(0.99))),
        designs_within_5=int(np.count_nonzero(choice.ln_value >= best + math.log(0.95))),
        laws=opinions,
        near_equal=near_equal_rows(beside, choice),
        alternatives=tuple(choice.describe(index, ln_value) for index in others),
        alternative_times=design_times(choice, others),
        notes=notes(
            choice.space.grid,
            design,
            architecture,
            budget,
            laws.everyone,
            leverage,
            {opinion.law: opinion.without for opinion in opinions if opinion.without},
        ),
        goal=None,
        spread=plan_uncertainty(choice),
        if_concurrent=if_concurrent(choice, serving),
        provenance=Provenance(
            version=__version__,
            command=command,
            law_digests={name: law.digest for name, law in sorted(by_name.items())},
            grid_digest=choice.space.grid.digest,
            num_designs=choice.space.num_designs,
            num_feasible=choice.num_feasible,
        ),
    )


def leverage_of(choice: Choice, others: Sequence[Law] = ()) -> Leverage:
    """EL of the chosen design, pooled and by each law, those of `others` that compare with dense models among them."""
    budget = choice.budget
    return predict(load_law(LEVERAGE_LAW), others, choice.architecture, budget.worth(choice.tokens), budget.seq_len)


def request_for(
    budget: Budget, laws: LawSelection, num_alternatives: int = 0, choose: str = "best", flops: float = 0.0
) -> Request:
    """The question, as resolved; `flops` where they are not the budget's."""
    return Request(
        flops=flops or budget.flops,
        memory=str(budget.memory) if budget.memory else None,
        laws=tuple(law.source for law in laws.objective),
        weights=laws.weights,
        vocab_size=budget.vocab_size,
        tied_embeddings=bool(budget.tied_embeddings),
        seq_len=budget.seq_len,
        attention=budget.attention,
        latent=budget.latent,
        weight_dtype=budget.serving.weight_dtype,
        kv_dtype=budget.serving.kv_dtype,
        context=budget.serving.context,
        concurrency=budget.serving.concurrency,
        headroom=budget.headroom,
        fix=dict(budget.fix),
        ranges={name: tuple(bounds) for name, bounds in budget.ranges.items()},
        tokens_available=budget.tokens_available if math.isfinite(budget.tokens_available) else None,
        max_epochs=budget.max_epochs,
        max_tokens=budget.max_tokens,
        inference_tokens=budget.inference_tokens,
        served=budget.demand.served,
        serve_gpus=str(budget.demand.serve_gpus) if budget.demand.serve_gpus else None,
        prompt_tokens=budget.demand.prompt_tokens,
        answer_tokens=budget.demand.answer_tokens,
        tokens_per_second_per_user=budget.demand.tokens_per_second_per_user,
        serve_price_per_gpu_hour=budget.demand.serve_price_per_gpu_hour,
        gpus=str(budget.gpus) if budget.gpus else None,
        days=budget.days,
        mfu=budget.mfu,
        goodput=budget.goodput,
        optimise=budget.optimise or ("time" if budget.timed else "flops"),
        train_precision=budget.train_precision,
        software=budget.software,
        layout=budget.layout,
        batch=budget.batch,
        multiple_of=dict(budget.multiple_of),
        measured=budget.measured,
        price_per_gpu_hour=budget.price_per_gpu_hour,
        memory_for=budget.memory_for,
        optimizer=budget.optimizer,
        alternatives=num_alternatives,
        choose=choose,
        hyperparameters=budget.hyperparameters,
    )


def _memory(architecture: Architecture, budget: Budget) -> MemoryUse:
    memory, devices = budget.memory, budget.num_devices
    groups = inference_bytes(architecture, budget.serving, devices)
    return MemoryUse(
        by_group=groups,
        total_bytes=sum(groups.values()),
        usable_bytes=budget.usable_bytes if memory else None,
        limit_bytes=memory.bytes_per_device if memory else None,
        num_devices=devices,
    )


def _prices(choice: Choice) -> tuple[Price, ...]:
    """Worth of 10 % more memory, and of 10 % more compute."""
    return _price(choice, "memory", 1.0, MORE), _price(choice, "compute", MORE, 1.0)


def _price(choice: Choice, resource: str, compute: float, memory: float) -> Price:
    """Worth of so many times the compute and the memory; the scores of all designs there go when it is known."""
    more = choice.with_more(compute, memory)
    return Price(
        resource=resource,
        factor=MORE,
        value_ratio=math.exp(more.best_ln_value - choice.best_ln_value),
        by_law={
            law.full_name: math.exp(float(more.scores.mean([law]).max() - choice.scores.mean([law]).max()))
            for law in choice.laws
        },
        efficiency_leverage=more.design.efficiency_leverage,
    )


def _binding(choice: Choice, prices: tuple[Price, ...]) -> tuple[str, ...]:
    """Limits that hold the plan back, the dearest first."""
    held = sorted(prices, key=lambda price: -price.value_ratio)
    binding = [price.resource for price in held if price.value_ratio > _BINDS]
    if choice.tokens >= math.floor(choice.budget.token_cap):
        binding.append("tokens")
    return tuple(binding) or ("the grid's own edges",)


def _bands(choice: Choice) -> tuple[Band, ...]:
    """The values of each variable among designs within 1 % and 5 % of the best V, everything else re-optimised."""
    best, space, scores = choice.best_ln_value, choice.space, choice.scores
    near = np.flatnonzero(choice.ln_value >= best + math.log(0.95))
    nearest = choice.ln_value[near] >= best + math.log(0.99)
    bands = []
    here = np.array([choice.index])
    for name in DESIGN_VARIABLES:
        values = space.values(name, near, scores)
        bands.append(
            Band(
                variable=name,
                value=float(space.values(name, here, scores)[0]),
                low_1=float(values[nearest].min()),
                high_1=float(values[nearest].max()),
                low_5=float(values.min()),
                high_5=float(values.max()),
            )
        )
    return tuple(bands)


def _opinion(choice: Choice, law: Law) -> LawOpinion:
    """One law's view of the chosen design: its own best under the same limits, and what the choice loses by it."""
    fit = law.speaks_by
    variables = Variables(choice.architecture, choice.budget.seq_len)
    optimum = efficiency = regret = without = None
    if law in choice.space.laws:
        alone = choice.scores.mean([law])
        optimum = choice.describe(choice.best_by(alone), alone)
        best, own = float(alone.max()), float(alone[choice.index])
        efficiency, regret = math.exp(own - best), math.exp(best) - math.exp(own)
        others = [other for other in choice.laws if other != law]
        if law in choice.laws and others:
            rest = choice.scores.mean(others)
            without = choice.describe(choice.best_by(rest), rest)
    return LawOpinion(
        law=law.full_name,
        grade=law.grade,
        role="objective" if law in choice.laws else "second opinion",
        optimum=optimum,
        efficiency=efficiency,
        regret_flops=regret,
        outside=fit.outside(variables, choice.tokens),
        has_domain=bool(fit.domain),
        without=without,
        says="" if optimum else _says(law, variables, choice.tokens),
    )


def _says(law: Law, variables: Variables, tokens: int) -> str:
    """The statement about the budget, in words, of a law that cannot choose a design."""
    fits = {fit.predicts: fit for fit in reversed(list(law.fits.values())) if fit.variables == ("train_flops",)}
    if "active_params" in fits and "tokens" in fits:
        fit = fits["active_params"]
        flops = float(variables.get("train_flops", fit.convention("train_flops"), tokens))
        recipe = ", ".join(f"{name}={value:g}" for name, value in fit.fixed.items())
        return (
            f"would train {format_count(float(fit(flops)))} active params on "
            f"{format_count(float(fits['tokens'](flops)))} tokens ({recipe})"
        )
    if "flops_per_token" in fits and "tokens" in fits:
        fit = fits["flops_per_token"]
        flops = float(variables.get("train_flops", fit.convention("train_flops"), tokens))
        return (
            f"would train {format_flops(float(fit(flops)))} FLOPs a token on "
            f"{format_count(float(fits['tokens'](flops)))} tokens"
        )
    fixed = law.require_objective().fixed.get("tokens")
    if fixed:
        return f"fitted at {format_count(fixed)} tokens, so it cannot trade size against tokens; leverage only"
    return "cannot choose a design at a compute budget"


def _alternatives(choice: Choice, count: int) -> list[int]:
    """The places of the best designs that differ markedly from the plan and from each other."""
    names = ["active_params", "total_params", "tokens", "num_experts", "G"]
    limits = [math.log1p(MARKED)] * 3 + [math.log(2)] * 2
    if choice.timed:  # tokens are known of those alone that were asked exactly
        del names[2], limits[2]
    everything = np.arange(len(choice.space))
    ln = [np.log(choice.space.values(name, everything, choice.scores)) for name in names]
    free = np.ones(len(choice.space), dtype=bool)
    found = [choice.index]
    while len(found) <= count:
        alike = everything  # the designs that differ markedly from the last in no variable so far
        for column, limit in zip(ln, limits, strict=True):
            alike = alike[np.abs(column[alike] - column[found[-1]]) < limit * (1 - 1e-9)]
        free[alike] = False
        index = choice.best_among(free)
        if index is None:
            break
        found.append(index)
    return found[1:]


def _counts(architecture: Architecture, tokens: int, seq_len: int) -> Counts:
    conventions = tuple(CONVENTIONS["total_params"])
    per_token = float(architecture.flops_per_token(seq_len))
    own = float(counting.flops_per_token(architecture, seq_len, attention="full", logits=False))
    return Counts(
        total_params={name: architecture.total_params(name) for name in conventions},  # type: ignore[arg-type]
        active_params={name: architecture.active_params(name) for name in conventions},  # type: ignore[arg-type]
        params_by_group=architecture.params_by_group(),
        flops_per_token=per_token,
        flops_per_token_tian2025=own,
        train_flops=per_token * tokens,
    )
