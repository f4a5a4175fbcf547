"""The fastest layouts that fit, of many architectures at once: `Trainer.fastest`.

A trainer has N GPUs that are paid for and a batch B that no step exceeds. Its layouts are all tp up to 8, pp and ep up
to 64 in powers of two, micro-batches of 1, 2 and 4 sequences, cp for sequences beyond 8,192 tokens alone, and for these
the largest dp that finds room on N GPUs and in B. Other GPUs are idle, so that a number without factors wastes few and
not all. A step has m = floor(B/(dp*micro_batch)) micro-batches a pipeline, at least as many as stages. So a layout of
fewer GPUs, less memory or a smaller batch is one of more as well: more of them never makes an architecture slower.
(Where a larger dp costs a step a micro-batch, the next smaller dp are tried too.)

`Ceiling` is what no layout of given degrees exceeds: a GPU's work on a token is least where nothing is split, in the
largest micro-batch; the waits of a layer and of the pipeline, and the memory that a stage needs at least, are those of
the degrees. Layouts are asked from the highest ceiling down, and left out where an architecture is faster already.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moeplan.architecture import counting
from moeplan.architecture.counting import Shape, Size
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import Gpus
from moeplan.cost.training.kinds import LayerKind, trained_attentions
from moeplan.cost.training.layer_memory import Counted, layer_params, layer_tensors
from moeplan.cost.training.memory import TrainingMemory, training_bytes, training_memory
from moeplan.cost.training.memory_settings import TrainingSettings
from moeplan.cost.training.parallelism import Layout, Recompute
from moeplan.cost.training.states import load_scheme
from moeplan.cost.training.throughput.layer import StepSetting, layer_terms, recomputed_by, sync_moe
from moeplan.cost.training.throughput.settings import Software, constants, load_software
from moeplan.cost.training.throughput.site import Site, unmeasured
from moeplan.cost.training.throughput.step import launched, layer_together, step_seconds
from moeplan.cost.training.throughput.words import DEFAULT_SOFTWARE
from moeplan.numerics import Floats
from moeplan.numerics.elementwise import anywhere

TENSOR, EXPERT, CONTEXT = (1, 2, 4, 8), (1, 2, 4, 8, 16, 32, 64), (1, 2, 4, 8, 16)
"""tp, ep and cp that are tried."""
PIPELINE = (1, 2, 4, 8, 16, 32, 64)
"""pp that are tried."""
MICRO_BATCHES = (1, 2, 4)
"""Sequences of a micro-batch that are tried."""
RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "full")
"""Recomputation that is tried, the fastest first."""
LONG = 8192
"""Tokens of a sequence beyond which cp is tried."""
NEAR = 0.04
"""How near to the fastest layout of one architecture those come that are tried for architectures like it."""
_APART = 1024
"""Of more designs than these, or for few layouts, a ceiling times layers for one micro-batch after the other."""
_AT_ONCE = 4096
"""Architectures that all layouts are tried for at once, for memory's sake."""
_AGAIN = {"none": 1.0, "selective": 1.03, "full": 1.3}
"""About how many times as long a layer takes with recomputation: it orders what is tried."""
_MORE_MICRO_BATCHES = 3
"""By how many micro-batches a step with a smaller dp may have more."""


class _Degrees(NamedTuple):
    tp: int
    cp: int
    etp: int
    micro_batch: int
    pp: int
    virtual_stages: int
    recompute: Recompute


class Degrees(_Degrees):
    """What of a layout its ceiling depends on; ep and dp are open."""

    @cached_property
    def unstaged(self) -> Degrees:
        """The same with one stage, by which what stages have in common is known."""
        return self._replace(pp=1)

    @cached_property
    def single(self) -> Degrees:
        """The same with one stage and one sequence, by which what these have in common is known."""
        return self._replace(pp=1, micro_batch=1)

    @cached_property
    def without_recomputation(self) -> Degrees:
        """The same with nothing recomputed."""
        return self._replace(recompute="none")


@dataclass(frozen=True)
class Spread:
    """A layout and how much of the batch its steps take."""

    layout: Layout
    """The layout."""
    num_micro_batches: int
    """Micro-batches of a step in each pipeline."""

    @property
    def batch(self) -> int:
        """Sequences of a step."""
        return self.layout.dp * self.layout.micro_batch * self.num_micro_batches


@dataclass(frozen=True)
class Fastest:
    """The fastest layout of each architecture."""

    tokens_per_second: Floats
    """Of all GPUs together; 0 where no layout fits."""
    place: NDArray[np.intp]
    """Its place among `spreads`; -1 where none fits."""
    spreads: tuple[Spread, ...]
    """Layouts that are the fastest of some."""
    near: frozenset[tuple[Degrees, int]]
    """Degrees and ep whose layouts come within `NEAR` of the fastest of some."""

    def spread(self, index: int) -> Spread | None:
        """The fastest layout of one; None where none fits."""
        place = int(self.place[index])
        return None if place < 0 else self.spreads[place]


@dataclass(frozen=True)
class Ranked:
    """A layout that fits one architecture."""

    spread: Spread
    """The layout."""
    tokens_per_second: float
    """Of all GPUs together, before it is scaled to the site."""
    memory: TrainingMemory
    """Its memory by stage and group."""


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What trains: GPUs, the batch, and how."""

    gpus: Gpus
    """The GPUs that are paid for."""
    batch: int
    """Most sequences of a step."""
    seq_len: int = 4096
    """Tokens of a sequence."""
    precision: str = "bf16"
    """Of matrix products."""
    software: Software = field(default_factory=lambda: load_software(DEFAULT_SOFTWARE))
    """By what software."""
    optimizer: str = "megatron"
    """Scheme of weights, gradients and optimizer state."""
    usable_bytes: float = math.inf
    """Memory of a GPU that may be used [bytes]."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """What of the layout is given, by name."""
    site: Site = field(default_factory=unmeasured)
    """How fast this site is."""
    balanced: bool = False
    """Whether routing is forced to be even, as benchmarks do."""

    @property
    def scale(self) -> float:
        """True over predicted tokens/s at this site."""
        return self.site.scale

    def choices(self, name: str, choices: tuple[Any, ...]) -> tuple[Any, ...]:
        """What is tried of a degree: the one that is given, or all."""
        return (self.given[name],) if name in self.given else choices

    @cached_property
    def degrees(self) -> tuple[Degrees, ...]:
        """All that are tried."""
        names = ("tp", "cp", "etp", "micro_batch", "pp", "virtual_stages", "recompute")
        choices = (TENSOR, CONTEXT if self.seq_len > LONG else (1,), (1,), MICRO_BATCHES, PIPELINE, (1,), RECOMPUTE)
        found = itertools.product(*map(self.choices, names, choices))
        each = (Degrees(**dict(zip(names, values, strict=True))) for values in found)
        return tuple(x for x in each if x.tp * x.cp * x.pp <= self.gpus.count and x.micro_batch * x.pp <= self.batch)

    @cached_property
    def experts(self) -> tuple[int, ...]:
        """ep that are tried."""
        return tuple(ep for ep in self.choices("ep", EXPERT) if ep <= self.gpus.count)

    def spreads(self, degrees: Degrees, ep: int) -> tuple[Spread, ...]:
        """Layouts of these degrees: with the largest dp, and with smaller ones where they may be faster."""
        if (degrees, ep) not in self._spread:
            self._spread[degrees, ep] = tuple(self._spreads(degrees, ep))
        return self._spread[degrees, ep]

    @cached_property
    def _spread(self) -> dict[tuple[Degrees, int], tuple[Spread, ...]]:
        return {}

    def _spreads(self, degrees: Degrees, ep: int) -> Iterator[Spread]:
        tp, cp, pp, etp, size = degrees.tp, degrees.cp, degrees.pp, degrees.etp, degrees.micro_batch
        multiple = ep * etp // math.gcd(ep * etp, tp * cp)
        most = min(self.gpus.count // (tp * cp * pp), self.batch // (size * pp)) // multiple * multiple
        if "dp" in self.given:
            most = self.given["dp"] if self.given["dp"] <= most and self.given["dp"] % multiple == 0 else 0
        if most == 0:
            return
        first = self.batch // (most * size)
        used = first * most * size / self.batch
        for m in range(first, first + 1 + _MORE_MICRO_BATCHES):
            dp = min(most, self.batch // (m * size) // multiple * multiple)
            if m > first and (used >= (first + pp - 1) / (m + pp - 1) or dp == 0 or "dp" in self.given):
                return
            layout = Layout(
                tp=tp, pp=pp, ep=ep, etp=etp, cp=cp, dp=dp, micro_batch=size, virtual_stages=degrees.virtual_stages,
                recompute=degrees.recompute,
            )  # fmt: skip
            # an interleaved schedule deals micro-batches in rounds of pp
            yield Spread(layout, m if degrees.virtual_stages == 1 else m // pp * pp)

    def setting(self, layout: Layout, counted: dict[tuple[Any, ...], Any] | None = None) -> StepSetting:
        """What a step's time depends on beside the shape; `counted` is shared by all layouts of one shape."""
        return StepSetting(
            layout=layout,
            device=self.gpus.device,
            seq_len=self.seq_len,
            precision=self.precision,
            software=self.software,
            constants=constants(),
            balanced=self.balanced,
            recomputed=recomputed_by(layout),
            counted={} if counted is None else counted,
        )

    def tokens_per_second(
        self, shape: Shape, spread: Spread, counted: dict[tuple[Any, ...], Any] | None = None
    ) -> Size:
        """Tokens a second of all GPUs together; `counted` as `setting` has it."""
        setting = self.setting(spread.layout, counted)
        sharded = "weights" in load_scheme(self.optimizer).split
        seconds = step_seconds(shape, setting, spread.batch, sharded_weights=sharded)
        return self.scale * spread.batch * self.seq_len / seconds

    def fits(self, shape: Shape, spread: Spread, counted: Counted | None = None) -> Size:
        """Whether each architecture's heaviest stage fits a GPU; `counted` as `training_bytes` has it."""
        limit = self.usable_bytes
        return training_bytes(shape, spread.layout, self._settings(spread), counted, limit=limit) <= limit

    def _settings(self, spread: Spread) -> TrainingSettings:
        return TrainingSettings(
            seq_len=self.seq_len, optimizer=self.optimizer, num_micro_batches=spread.num_micro_batches
        )

    def ceiling(
        self, designs: Any, *, close: bool = False, among: frozenset[tuple[Degrees, int]] | None = None
    ) -> Floats:
        """Tokens a second that no layout that fits exceeds, or none `among` some degrees and ep, of each of `designs`.

        `Ceiling` says what is close.
        """
        ceiling, best = Ceiling(self, designs, close=close, among=among), np.zeros(len(designs))
        for key in [(degrees, None) for degrees in self.degrees] if among is None else among:
            np.maximum(best, ceiling.of(*key), out=best)
        return best

    def roof(self, designs: Any) -> Floats:
        """Tokens a second that no layout exceeds, of each of `designs`, memory aside: a bound for very many.

        Every GPU does one layer's work for as many tokens as it may take at a time, on as few experts as it may hold,
        and nothing is exchanged.
        """
        largest, ep = max(self.choices("micro_batch", MICRO_BATCHES)), self.experts[-1]
        layout = Layout(ep=ep, dp=ep, micro_batch=largest)
        setting = self.setting(layout)

        def work(shape: Shape) -> Size:
            terms = layer_terms(shape, setting, True)
            return sum(terms[name] for name in ("products", "attention", "traffic")) + sync_moe(setting)

        layers = (designs.num_layers - 1) * designs.of_layer(work)
        return np.asarray(self.scale * self.gpus.count * largest * self.seq_len / layers)

    @property
    def least_state_bytes(self) -> float:
        """Weights, gradients and optimizer state of a param, spread over all GPUs [bytes]; no layout needs less."""
        scheme = load_scheme(self.optimizer)
        # embeddings, router and norms may carry more state
        return min(sum(scheme.state_bytes(1.0, 1, vector=v).values()) for v in (False, True)) / self.gpus.count

    def fastest(
        self,
        designs: Any,
        first: frozenset[tuple[Degrees, int]] = frozenset(),
        least: Floats | None = None,
        *,
        alone: bool = False,
    ) -> Fastest:
        """The fastest layout that fits, of each of `designs`: a grid as `counting` takes it, with `take(index)`.

        The degrees and ep of `first`, the `near` of architectures like these, are tried before the others; `alone`,
        those are not tried. Of architectures that no layout trains at more than `least` tokens a second none is found.
        """
        count = len(designs)
        if count > _AT_ONCE and not alone:
            return self._fastest_in_parts(designs, first, np.zeros(count) if least is None else least)
        best = np.zeros(count) if least is None else least.copy()
        place = np.full(count, -1, dtype=np.intp)
        found: list[Spread] = []
        fitting: list[tuple[tuple[Degrees, int], NDArray[np.bool_], Floats]] = []
        ceiling = Ceiling(self, designs, close=True, among=first if alone else None)
        for degrees, ep in self._in_order(ceiling, best, first, alone):
            may = ceiling.of(degrees, ep) > best
            for spread in self.spreads(degrees, ep) if may.any() else ():
                suits = may & spread.layout.suits(designs, self.seq_len)
                if not suits.any():
                    continue
                speed = self.tokens_per_second(designs, spread, ceiling.counted)
                faster = suits & (speed > best)
                if not faster.any():
                    continue
                faster &= self.fits(designs, spread, ceiling.memory)
                if faster.any():
                    best[faster], place[faster] = speed[faster], len(found)
                    found.append(spread)
                    fitting.append(((degrees, ep), faster, speed[faster]))
        near = frozenset(key for key, index, speed in fitting if (speed >= (1 - NEAR) * best[index]).any())
        return Fastest(np.where(place < 0, 0.0, best), place, tuple(found), near)

    def _fastest_in_parts(self, designs: Any, first: frozenset[tuple[Degrees, int]], least: Floats) -> Fastest:
        """`fastest` of many, some after the others."""
        cuts = range(0, len(designs), _AT_ONCE)
        parts = [np.arange(start, min(start + _AT_ONCE, len(designs))) for start in cuts]
        found = [self.fastest(designs.take(part), first, least[part]) for part in parts]
        before = np.cumsum([0, *(len(each.spreads) for each in found)])
        return Fastest(
            np.concatenate([each.tokens_per_second for each in found]),
            np.concatenate([np.where(x.place < 0, -1, x.place + n) for x, n in zip(found, before, strict=False)]),
            tuple(spread for each in found for spread in each.spreads),
            frozenset().union(*(each.near for each in found)),
        )

    def ranking(self, architecture: Architecture, count: int = 1) -> list[Ranked]:
        """The fastest layouts that fit one architecture, which differ in more than dp and the micro-batch."""
        row = _Row(architecture)
        simple = not architecture.is_dense and architecture.moe_layer_pattern is None
        simple = simple and architecture.num_dense_layers <= 1 and len(counting.attentions(architecture)) == 1
        ceiling = Ceiling(self, row, close=True) if simple else None
        experts = self.experts if not architecture.is_dense else (1,)
        keys = [(degrees, ep) for degrees in self.degrees for ep in experts]
        high = {key: float(ceiling.of(*key)[0]) / self.scale if ceiling else math.inf for key in keys}
        timed: dict[tuple[Any, ...], Any] = {}
        counted = Counted()
        found: dict[tuple[Any, ...], Ranked] = {}
        least = 0.0
        for degrees, ep in sorted(keys, key=lambda key: -high[key]):
            if high[degrees, ep] <= least:
                break
            for spread in self.spreads(degrees, ep):
                layout = spread.layout
                if layout.problems(architecture, self.seq_len):
                    continue
                speed = float(self.tokens_per_second(architecture, spread, timed)) / self.scale
                alike = layout.tp, layout.pp, layout.ep, layout.etp, layout.cp, layout.recompute
                if speed <= least or (alike in found and speed <= found[alike].tokens_per_second):
                    continue
                memory = training_memory(architecture, layout, self._settings(spread), counted)
                if memory.total <= self.usable_bytes:
                    found[alike] = Ranked(spread, speed, memory)
                    ordered = sorted((x.tokens_per_second for x in found.values()), reverse=True)
                    least = ordered[count - 1] if len(ordered) >= count else 0.0
        return sorted(found.values(), key=lambda x: -x.tokens_per_second)[:count]

    def least_bytes(self, architecture: Architecture) -> float:
        """Bytes on a GPU under the layout that needs the fewest; inf where none divides the architecture."""
        experts = self.experts if not architecture.is_dense else (1,)
        counted = Counted()
        spreads = (each for degrees in self.degrees for ep in experts for each in self.spreads(degrees, ep))
        return min(
            (
                training_memory(architecture, spread.layout, self._settings(spread), counted).total
                for spread in spreads
                if not spread.layout.problems(architecture, self.seq_len)
            ),
            default=math.inf,
        )

    def _in_order(
        self, ceiling: Ceiling, best: Floats, first: frozenset[tuple[Degrees, int]], alone: bool
    ) -> Iterator[tuple[Degrees, int]]:
        """Degrees and ep that may be faster than the `best` by then: of `first` and of the rest those that are fast for
        most."""
        yield from sorted(first, key=lambda key: (-float(ceiling.of(*key).mean()), repr(key)))
        for degrees in () if alone else sorted(self.degrees, key=lambda degrees: -ceiling.usual(degrees)):
            if not (ceiling.loosely(degrees) > best).any():
                continue
            may = (ceiling.loosely_by_ep(degrees) > best).any(axis=1)
            for row in np.flatnonzero(may):
                if (key := (degrees, self.experts[row])) not in first:
                    yield key


def _grouped(items: Iterable[Any], key: Callable[[Any], Degrees]) -> dict[Degrees, list[Any]]:
    """Items by their key."""
    groups: dict[Degrees, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


class _Row:
    """One architecture as a grid of one."""

    def __init__(self, architecture: Architecture) -> None:
        self.num_layers = np.array([architecture.num_layers])
        self._architecture = architecture

    def __getattr__(self, name: str) -> Any:
        return getattr(self._architecture, name)

    def __len__(self) -> int:
        return 1

    def take(self, index: Any) -> _Row:
        return self


class _Rows:
    """The (ep, pp) that a group of degrees is asked for, in rows."""

    def __init__(self, stages: Sequence[int], pairs: Iterable[tuple[int, int]]) -> None:
        asked = sorted(set(pairs))
        self.experts = tuple(sorted({ep for ep, _ in asked}))
        self.of_experts = [self.experts.index(ep) for ep, _ in asked]
        self._of_stages = [stages.index(pp) for _, pp in asked]
        self.number: dict[tuple[int | None, int], int] = {pair: row for row, pair in enumerate(asked)}
        self.number |= {(None, pp): row for row, pp in enumerate(stages)}

    def stages(self, any_ep: bool) -> Any:
        """Which stages the rows are of; for any ep there is one row of each."""
        return slice(None) if any_ep else self._of_stages


class Ceiling:
    """Tokens a second that no layout of given degrees exceeds, of each of some designs.

    With `close`, a layer is timed under the very degrees; else once for each ep and taken in proportion to its tokens,
    which is cheaper for many designs. With `among`, no other degrees and ep are asked for.
    """

    def __init__(
        self,
        trainer: Trainer,
        designs: Any,
        *,
        close: bool = False,
        among: Iterable[tuple[Degrees, int]] | None = None,
    ) -> None:
        self.trainer, self.designs, self.close = trainer, designs, close
        every = trainer.degrees if among is None else [degrees for degrees, _ in among]
        stages = sorted({x.pp for x in every})
        self._stages = np.array(stages)[:, None]
        self._apart = among is not None or len(designs) > _APART
        self._sizes: dict[Degrees, tuple[int, ...]] = {}
        for group, some in _grouped(every, self._group).items():
            self._sizes[group] = tuple(sorted({x.micro_batch for x in some}))
            self._sizes.setdefault(group.without_recomputation, self._sizes[group])
        every_row = _Rows(stages, itertools.product(trainer.experts, stages))
        self._rows = dict.fromkeys(self._sizes, every_row)
        for group, pairs in _grouped(among or (), lambda pair: self._group(pair[0])).items():
            self._rows[group] = _Rows(stages, ((ep, degrees.pp) for degrees, ep in pairs))
        self.layers = designs.num_layers
        scheme = load_scheme(trainer.optimizer)
        state = scheme.state_bytes(1.0, 1)
        self.whole = sum(size for name, size in state.items() if name not in scheme.split)
        self.spread = sum(size for name, size in state.items() if name in scheme.split)
        self.counted: dict[tuple[Any, ...], Any] = {}
        """What was counted of the designs' times, as `Trainer.setting` has it."""
        self.memory = Counted()
        """What was counted of their memory."""
        self._once = Counted().once
        self._layers = np.ceil(self.layers / self._stages) * (1 - 1 / self.layers)
        """Of the slowest stage at least: the mean's layers, of which one layer of the model may be dense."""

    def of(self, degrees: Degrees, ep: int | None = None) -> Floats:
        """The ceiling; 0 where no layout fits, whatever its ep, or with the one that is given."""
        group = self._group(degrees)
        found = self._once((group, ep is None), lambda: self._ceiling(group, ep is None))
        return self._row(found, group, degrees, ep)

    def loosely(self, degrees: Degrees) -> Floats:
        """The ceiling for any ep, as if nothing were recomputed and all fitted: a third of the layers are timed."""
        group = self._group(degrees).without_recomputation
        return self._row(self._loose(group, True), group, degrees, None)

    def loosely_by_ep(self, degrees: Degrees) -> Floats:
        """The same of each ep that is tried, in rows."""
        group = self._group(degrees).without_recomputation
        rows = [self._rows[group].number[ep, degrees.pp] for ep in self.trainer.experts]
        found: Floats = self._loose(group, False)[self._sizes[group].index(degrees.micro_batch), rows]
        return found

    def _group(self, degrees: Degrees) -> Degrees:
        """What stands for all degrees that are timed at once: in stages alone, or in micro-batches too, they differ."""
        return degrees.unstaged if self._apart else degrees.single

    def _row(self, found: Any, group: Degrees, degrees: Degrees, ep: int | None) -> Floats:
        """Of what is `found` of a group by micro-batch and row, what is of some degrees, for one or any ep."""
        row: Floats = found[self._sizes[group].index(degrees.micro_batch), self._rows[group].number[ep, degrees.pp]]
        return row

    def _sizes_of(self, group: Degrees) -> Any:
        """The micro-batches of a group, along the first axis of what is known of it."""
        return np.array(self._sizes[group])[:, None, None]

    def usual(self, degrees: Degrees) -> float:
        """About the mean ceiling of the designs."""
        group = self._group(degrees)
        means: Floats = self._once(("usual", group), lambda: self._usual(group))
        place = self._sizes[group].index(degrees.micro_batch), self._rows[group].number[None, degrees.pp]
        return float(means[place]) / _AGAIN[degrees.recompute]

    def _usual(self, group: Degrees) -> Floats:
        """The mean of the loose ceilings where they may fit, of each micro-batch and each of `stages`."""
        loose = self._loose(group.without_recomputation, True)
        return np.asarray((loose * self._may_fit(group, True)).mean(axis=-1))

    def _loose(self, group: Degrees, any_ep: bool) -> Floats:
        found: Floats = self._once(("loose", group, any_ep), lambda: self._speed(group, any_ep))
        return found

    def _ceiling(self, group: Degrees, any_ep: bool) -> Floats:
        """The ceilings by micro-batch and by stages, for any ep, or by ep and stages."""
        loose = group.recompute == "none"
        speed = self._loose(group, any_ep) if loose else self._speed(group, any_ep)
        return np.where(self._may_fit(group, any_ep), speed, 0.0)

    def _speed(self, group: Degrees, any_ep: bool) -> Floats:
        """The ceilings whether they fit or not; 0 where there are fewer layers than stages."""
        trainer, size = self.trainer, self._sizes_of(group)
        stages = self._rows[group].stages(any_ep)
        pp = self._stages[stages]
        dp = trainer.gpus.count / (group.tp * group.cp * pp)
        bubble = (pp - 1) / group.virtual_stages * dp * size / trainer.batch
        layer = self._layer(group, any_ep)
        speed = trainer.scale * dp * size * trainer.seq_len / (self._layers[stages] * layer * (1 + bubble))
        return np.where(self.layers >= pp, speed, 0.0)

    def _layer(self, group: Degrees, any_ep: bool) -> Any:
        """The least time of one MoE layer and micro-batch [s] by micro-batch, whatever its ep, or by row."""
        same = group.tp, group.cp, group.etp, self._sizes[group], group.recompute
        each = self._once(("layer", *same), lambda: self._layer_by_ep(group))
        if any_ep:
            return self._once(("least", *same), lambda: each.min(axis=1))[:, None]
        return each[:, self._rows[group].of_experts]

    def _layer_by_ep(self, group: Degrees) -> Any:
        """The least time of one MoE layer and micro-batch [s] by micro-batch and ep; infinite where it does not divide
        the experts."""
        sizes = self._sizes[group]
        largest = max(self.trainer.choices("micro_batch", MICRO_BATCHES))
        base = Layout(tp=group.tp, cp=group.cp, etp=group.etp) if self.close else Layout()
        layout = replace(base, recompute=group.recompute)
        timed = sizes if self.close else (largest,)
        setting = replace(self.trainer.setting(layout, self.counted), rows=self._rows[group].experts, sizes=timed)
        terms = layer_together(self.designs, setting, True)
        if self.close and not self._apart and anywhere(self.designs.num_dense_layers):
            layer_together(self.designs, setting, False)  # what layouts of these degrees will ask for
        device, host = terms["device"], terms["host"]
        share = 1.0 if self.close else np.array(sizes)[:, None, None] / largest / group.tp / group.cp
        time = launched(device * share, host) if anywhere(host) else device * share
        return np.where(self.designs.num_experts % setting.ep == 0, time + sync_moe(setting), np.inf)

    def _may_fit(self, group: Degrees, any_ep: bool) -> Any:
        """Whether the MoE layers of the fullest stages may fit, with the activations of all micro-batches in flight."""
        trainer, tp, etp, again = self.trainer, group.tp, group.etp, group.recompute
        kept, everything, matrices, experts, layer = self._once(("memory", tp, etp), lambda: self._memory(tp, etp))
        rows = self._rows[group]
        stages = rows.stages(any_ep)
        pp = self._stages[stages]
        each = np.minimum(trainer.experts[-1], np.maximum(trainer.gpus.count // pp // etp, 1))
        if not any_ep:
            each = np.array(rows.experts)[rows.of_experts, None]
        experts = experts / each
        state = self.whole * (experts + matrices) + self.spread * layer * pp / trainer.gpus.count
        size = self._sizes_of(group)
        active, again_bytes = kept[again] * size / group.cp, 0.0
        if again == "full":
            again_bytes = everything * size / group.cp
        fullest = self._once(("stages",), self._fullest)
        need = [moe[stages] * (state + flying[stages] * active) for moe, flying in fullest]
        return np.maximum(*need) + again_bytes <= trainer.usable_bytes

    def _fullest(self) -> list[tuple[Any, Any]]:
        """MoE layers of the first stage and of the fullest after it, and micro-batches in flight there."""
        pp = self._stages
        least, rest = np.divmod(self.layers, pp)
        larger = (pp - rest) // 2  # the first stage with a layer more, as `Layout.chunks` has it
        after = np.clip(larger, 1, np.maximum(pp - 2, 1))
        holds = [least + ((larger <= place) & (place < larger + rest)) for place in (0, after)]
        return [(np.maximum(holds[0] - 1, 0), pp), (np.where(pp > 1, holds[1], 0), pp - after)]

    def _memory(self, tp: int, etp: int) -> tuple[Any, ...]:
        """Of one MoE layer on one GPU: (bytes kept a sequence by recomputation, all of them, params of matrices,
        params of all its experts, params of the whole layer)."""
        layout = Layout(tp=tp, etp=etp, dp=etp)
        settings = TrainingSettings(seq_len=self.trainer.seq_len, optimizer=self.trainer.optimizer)
        found = []
        for place in range(len(trained_attentions(self.designs))):
            kind = LayerKind(True, place)
            tensors = layer_tensors(self.designs, layout, kind, settings, self.memory)
            everything = sum(x.bytes for x in tensors)
            selective = sum(x.bytes for x in tensors if not x.selective)
            matrices, experts, _ = layer_params(self.designs, layout, kind, self.memory)
            whole = sum(layer_params(self.designs, Layout(), kind, self.memory))
            found.append((everything, selective, tensors[0].bytes, matrices, experts, whole))
        # whatever kinds of attention a stage has, it needs as much as if all were the one that needs least
        everything, selective, full, matrices, experts, whole = (
            functools.reduce(np.minimum, each) for each in zip(*found, strict=True)
        )
        kept = {"none": everything, "selective": selective, "full": full}
        return kept, everything, matrices, experts, whole
