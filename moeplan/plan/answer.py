"""What a search answers: the design chosen among the scores of a budget, and the plan that says everything of it."""

from __future__ import annotations

import copy
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
from moeplan.laws.hyperparameters import hyperparameters
from moeplan.laws.leverage import predict
from moeplan.laws.roles import HYPERPARAMETER_LAWS, LEVERAGE_LAW
from moeplan.plan.budget import Budget
from moeplan.plan.costs import batch_sequences, least_bytes, serving_use, state_bytes_per_gpu, training_run
from moeplan.plan.document import (
    SCHEMA,
    Band,
    Counts,
    Design,
    LawOpinion,
    Leverage,
    MemoryUse,
    OutsideDomain,
    Plan,
    Price,
    Provenance,
    Request,
)
from moeplan.plan.notes import notes
from moeplan.plan.search.space import MORE, Floats, Scores, Space, objective
from moeplan.plan.search.variables import DESIGN_VARIABLES
from moeplan.plan.uncertainty.result import Spread
from moeplan.units import format_count

MARKED = 0.25
"""Alternatives differ by at least this in N_a, N or tokens, or by a factor of 2 in experts or G."""
MOST_RULED_OUT = 500
"""Designs that no layout may spread before the search for a trainable one gives up."""
_BINDS = 1.001
"""A resource binds if 10 % more of it raises the best V by more than .1 %."""


class Answer:
    """One search, scored, and what a plan says of it. `columns` are the chosen laws' columns in the scores.

    `scores` are the space's at this budget, if they are known already. Raises `InfeasibleError` if nothing is feasible.
    """

    def __init__(
        self, space: Space, budget: Budget, num_chosen: int, alternatives: int = 0, scores: Scores | None = None
    ) -> None:
        self.space, self.budget = space, budget
        self.columns = list(range(num_chosen))
        self.alternatives = alternatives
        self.scores = scores or space.score(budget.flops)
        self.leverage_law = load_law(LEVERAGE_LAW)
        self._trainable_params = math.inf
        self._take(self._choose())
        self.ln_value = self.scores.mean(self.columns)

    def _take(self, index: int) -> None:
        self.index = index
        self.architecture = self.space.architecture(index)
        self.tokens = math.floor(self.scores.tokens[index])

    def choosing(self, index: int) -> Answer:
        """The same search with the design at `index` in place of the best."""
        other = copy.copy(self)
        other._take(index)
        return other

    def _keep_trainable(self, scores: Scores, memory_factor: float = 1.0) -> None:
        """Drop designs whose model state, times the least overhead seen, is too much for the training GPUs."""
        if "training" in self.budget.memory_for:
            params = self.space.values("total_params", np.arange(len(self.space)), scores)
            scores.feasible[:] &= params <= self._trainable_params * memory_factor

    def _choose(self) -> int:
        """The best design; with training limits, the first of the best that some layout can train."""
        budget, gpus, usable = self.budget, self.budget.gpus, self.budget.usable_training_bytes
        if "training" not in budget.memory_for or gpus is None or usable is None:
            return self.space.choose(self.scores.mean(self.columns), self.scores)
        state = state_bytes_per_gpu(1.0, budget.optimizer, gpus.count)
        self._trainable_params = usable / state
        self._keep_trainable(self.scores)
        if not self.scores.feasible.any():
            raise InfeasibleError(
                f"no design that fits can be trained on {gpus} with {budget.optimizer}: weights, gradients and "
                "optimizer state take too much memory; use more GPUs"
            )
        overheads: list[float] = []
        ruled_out = 0
        while True:
            index = self.space.choose(self.scores.mean(self.columns), self.scores)
            architecture = self.space.architecture(index)
            least = least_bytes(architecture, budget, self._batch(architecture, float(self.scores.tokens[index])))
            if least is not None and least <= usable:
                return index
            self.scores.feasible[index] = False
            if least is None:
                ruled_out += 1
                if ruled_out > MOST_RULED_OUT:
                    raise InfeasibleError(
                        f"no layout of {gpus} divides heads, experts, layers and batch of {ruled_out} designs; "
                        "try a number of GPUs with more factors of 2"
                    )
            else:
                overheads.append(least / (state * architecture.total_params()))
                if len(overheads) % 8 == 7:
                    # What the state grew by in designs that failed, the next ones will hardly escape.
                    self._trainable_params = usable / state / (1 + 0.9 * (min(overheads) - 1))
                    self._keep_trainable(self.scores)
            if not self.scores.feasible.any():
                raise InfeasibleError(
                    f"no design that fits can be trained on {gpus}: every layout breaks a rule or memory"
                )

    def _batch(self, architecture: Architecture, tokens: float) -> int:
        """Sequences of a step by the leverage law."""
        (own,) = hyperparameters([self.leverage_law], architecture, tokens, self.budget.seq_len)
        gpus = self.budget.gpus
        return batch_sequences(own.batch_tokens, self.budget.seq_len, gpus.count if gpus else 1)

    def plan(self, chosen: Sequence[Law], opinions: Sequence[Law], command: str) -> Plan:
        """Assemble the plan."""
        budget, architecture, tokens = self.budget, self.architecture, self.tokens
        speakers = [*chosen, *opinions]
        variables = Variables(architecture, budget.seq_len)
        prices = self._prices()
        hyper_laws = [load_law(name) for name in HYPERPARAMETER_LAWS]
        hyper = hyperparameters(hyper_laws, architecture, tokens, budget.seq_len)
        by_name = {law.full_name: law for law in (*speakers, *hyper_laws, self.leverage_law)}
        best, design = self.best_ln_value, self.design
        leverage = self.leverage(speakers)
        return Plan(
            schema=SCHEMA,
            request=self.request(chosen),
            design=design,
            architecture=architecture,
            counts=_counts(architecture, tokens, budget.seq_len),
            memory=self._memory(),
            leverage=leverage,
            hyperparameters=hyper,
            training=training_run(
                architecture,
                float(architecture.flops_per_token(budget.seq_len)) * tokens,
                next(own.batch_tokens for own in hyper if own.law == LEVERAGE_LAW),
                budget,
            ),
            serving=serving_use(architecture, budget),
            value_ratio=math.exp(float(self.ln_value[self.index])) / budget.flops,
            best_value=math.exp(best),
            binding=self._binding(prices),
            prices=prices,
            bands=self._bands(),
            designs_within_1=int(np.count_nonzero(self.ln_value >= best + math.log(0.99))),
            designs_within_5=int(np.count_nonzero(self.ln_value >= best + math.log(0.95))),
            laws=tuple(self._opinion(law, number, len(chosen), variables) for number, law in enumerate(speakers)),
            alternatives=self._alternatives(),
            notes=notes(self.space.grid, design, architecture, budget, speakers, leverage),
            goal=None,
            spread=self.spread(chosen),
            provenance=Provenance(
                version=__version__,
                command=command,
                law_digests={name: law.digest for name, law in sorted(by_name.items())},
                grid_digest=self.space.grid.digest,
                num_designs=self.space.num_designs,
                num_feasible=int(np.count_nonzero(self.scores.feasible)),
            ),
        )

    @property
    def design(self) -> Design:
        """The chosen design in numbers."""
        return self._design(self.index, self.scores, self.ln_value)

    def spread(self, chosen: Sequence[Law]) -> Spread | None:
        """What the runs behind fitted laws leave open; None where no chosen law gives a covariance."""
        if not any(objective(law).covariance for law in chosen):
            return None
        from moeplan.plan.uncertainty.redraw import spread

        return spread(self, chosen)

    @property
    def best_ln_value(self) -> float:
        """ln of the largest V, at or within a tie of the chosen design's."""
        return float(self.ln_value.max())

    def leverage(self, speakers: Sequence[Law]) -> Leverage:
        """EL of the chosen design by the leverage law, and by those of `speakers` that compare with dense models."""
        worth = self.budget.worth(self.tokens)
        return predict(self.leverage_law, speakers, self.architecture, worth, self.budget.seq_len)

    def request(self, chosen: Sequence[Law]) -> Request:
        """What was asked, as resolved."""
        budget = self.budget
        return Request(
            flops=budget.flops,
            memory=str(budget.memory) if budget.memory else None,
            laws=tuple(law.source for law in chosen),
            vocab_size=budget.vocab_size,
            tied_embeddings=bool(budget.tied_embeddings),
            seq_len=budget.seq_len,
            attention=budget.attention,
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
            gpus=str(budget.gpus) if budget.gpus else None,
            days=budget.days,
            mfu=budget.mfu,
            price_per_gpu_hour=budget.price_per_gpu_hour,
            memory_for=budget.memory_for,
            optimizer=budget.optimizer,
            alternatives=self.alternatives,
        )

    def _design(self, index: int, scores: Scores, ln_value: Floats) -> Design:
        """A design of the scores in numbers; V by `ln_value`."""
        architecture, tokens = self.space.architecture(index), math.floor(scores.tokens[index])
        variables = Variables(architecture, self.budget.seq_len)
        at = np.array([index])
        fit = self.leverage_law.predicting("efficiency_leverage")
        return Design(
            total_params=architecture.total_params(),
            active_params=architecture.active_params(),
            active_param_ratio=architecture.active_param_ratio,
            tokens=tokens,
            tokens_per_param=tokens / architecture.active_params(),
            G=architecture.G,
            shared_ratio=architecture.shared_ratio,
            granularity=architecture.granularity,
            activation_ratio=architecture.activation_ratio,
            expansion_ratio=architecture.expansion_ratio,
            num_experts=architecture.num_experts,
            num_active_experts=architecture.num_active_experts,
            num_shared_experts=architecture.num_shared_experts,
            d_expert=architecture.d_expert,
            d_model=architecture.d_model,
            num_layers=architecture.num_layers,
            num_heads=architecture.num_heads,
            attention_share=float(self.space.values("attention_share", at, scores)[0]),
            value=math.exp(float(ln_value[index])),
            efficiency_leverage=float(fit.at(variables, self.budget.worth(tokens))),
        )

    def _memory(self) -> MemoryUse:
        memory, devices = self.budget.memory, self.budget.num_devices
        groups = inference_bytes(self.architecture, self.budget.serving, devices)
        return MemoryUse(
            by_group=groups,
            total_bytes=sum(groups.values()),
            usable_bytes=self.budget.usable_bytes if memory else None,
            limit_bytes=memory.bytes_per_device if memory else None,
            num_devices=devices,
        )

    def more(self, compute: float = 1.0, memory: float = 1.0) -> Scores:
        """The scores at so many times the compute and the memory."""
        if compute == 1:
            scores = self.space.limit(self.scores, memory)
        else:
            scores = self.space.score(self.budget.flops * compute, memory)
        self._keep_trainable(scores, memory)
        return scores

    def _prices(self) -> tuple[Price, ...]:
        prices = []
        for resource, compute, memory in (("memory", 1.0, MORE), ("compute", MORE, 1.0)):
            scores = self.more(compute, memory)
            value = scores.mean(self.columns)
            index = self.space.choose(value, scores)
            by_law = {
                law.full_name: math.exp(float(scores.mean([c]).max() - self.scores.mean([c]).max()))
                for c, law in zip(self.columns, self.space.laws, strict=False)
            }
            prices.append(
                Price(
                    resource=resource,
                    factor=MORE,
                    value_ratio=math.exp(float(value.max() - self.ln_value.max())),
                    by_law=by_law,
                    efficiency_leverage=self._design(index, scores, value).efficiency_leverage,
                )
            )
        return tuple(prices)

    def _binding(self, prices: tuple[Price, ...]) -> tuple[str, ...]:
        """What holds the plan back, the dearest first."""
        held = sorted(prices, key=lambda price: -price.value_ratio)
        binding = [price.resource for price in held if price.value_ratio > _BINDS]
        if self.tokens >= math.floor(self.budget.token_cap):
            binding.append("tokens")
        return tuple(binding) or ("the grid's own edges",)

    def _bands(self) -> tuple[Band, ...]:
        best = float(self.ln_value.max())
        near = np.flatnonzero(self.ln_value >= best + math.log(0.95))
        nearest = self.ln_value[near] >= best + math.log(0.99)
        bands = []
        here = np.array([self.index])
        for name in DESIGN_VARIABLES:
            values = self.space.values(name, near, self.scores)
            bands.append(
                Band(
                    variable=name,
                    value=float(self.space.values(name, here, self.scores)[0]),
                    low_1=float(values[nearest].min()),
                    high_1=float(values[nearest].max()),
                    low_5=float(values.min()),
                    high_5=float(values.max()),
                )
            )
        return tuple(bands)

    def _opinion(self, law: Law, number: int, num_chosen: int, variables: Variables) -> LawOpinion:
        role = "objective" if number < num_chosen else "second opinion"
        fit = objective(law)
        optimum = efficiency = regret = without = None
        if law in self.space.laws:
            column = self.space.laws.index(law)
            alone = self.scores.mean([column])
            optimum = self._design(self.space.choose(alone, self.scores), self.scores, alone)
            best, own = float(alone.max()), float(alone[self.index])
            efficiency, regret = math.exp(own - best), math.exp(best) - math.exp(own)
            others = [c for c in self.columns if c != column]
            if role == "objective" and others:
                rest = self.scores.mean(others)
                without = self._design(self.space.choose(rest, self.scores), self.scores, rest)
        return LawOpinion(
            law=law.full_name,
            grade=law.grade,
            role=role,
            optimum=optimum,
            efficiency=efficiency,
            regret_flops=regret,
            outside=tuple(OutsideDomain(o.name, o.value, o.low, o.high) for o in fit.outside(variables, self.tokens)),
            has_domain=bool(fit.domain),
            without=without,
            says="" if optimum else self._says(law, variables),
        )

    def _says(self, law: Law, variables: Variables) -> str:
        """What a law that cannot choose a design says about the budget, in words."""
        fits = {fit.predicts: fit for fit in reversed(list(law.fits.values())) if fit.variables == ("train_flops",)}
        if "active_params" in fits and "tokens" in fits:
            fit = fits["active_params"]
            flops = float(variables.get("train_flops", fit.convention("train_flops"), self.tokens))
            recipe = ", ".join(f"{name}={value:g}" for name, value in fit.fixed.items())
            return (
                f"would train {format_count(float(fit(flops)))} active params on "
                f"{format_count(float(fits['tokens'](flops)))} tokens ({recipe})"
            )
        tokens = objective(law).fixed.get("tokens")
        if tokens:
            return f"fitted at {format_count(tokens)} tokens, so it cannot trade size against tokens; leverage only"
        return "cannot choose a design at a compute budget"

    def _alternatives(self) -> tuple[Design, ...]:
        """The best designs that differ markedly from the plan and from each other."""
        names = ("active_params", "total_params", "tokens", "num_experts", "G")
        order = np.argsort(-self.ln_value, kind="stable")[: int(np.count_nonzero(self.scores.feasible))]
        everything = np.arange(len(self.space))
        ln = {name: np.log(self.space.values(name, everything, self.scores)) for name in names}
        limits = np.array([math.log1p(MARKED)] * 3 + [math.log(2)] * 2) * (1 - 1e-9)
        table = np.stack([ln[name] for name in names])
        free = np.ones(len(everything), dtype=bool)
        found: list[int] = []
        last = self.index
        while len(found) < self.alternatives:
            free &= (np.abs(table - table[:, [last]]) >= limits[:, None]).any(axis=0)
            remaining = order[free[order]]
            if len(remaining) == 0:
                break
            last = int(self.space.choose(np.where(free, self.ln_value, -np.inf), self.scores))
            found.append(last)
        return tuple(self._design(index, self.scores, self.ln_value) for index in found)


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
