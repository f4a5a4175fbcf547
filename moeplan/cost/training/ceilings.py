"""What no layout of given degrees exceeds, of each of some designs: `Ceiling`.

A GPU's work on a token is least where nothing is split, in the largest micro-batch; the waits of a layer and of the
pipeline, and the memory that a stage needs at least, are those of the degrees.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from moeplan.cost.training.degrees import MICRO_BATCHES, Degrees
from moeplan.cost.training.kinds import LayerKind, trained_attentions
from moeplan.cost.training.layer_memory import Counted, layer_params, layer_tensors
from moeplan.cost.training.machine import Machine
from moeplan.cost.training.memory_settings import TrainingSettings
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.states import load_scheme
from moeplan.cost.training.throughput.layer import sync_moe
from moeplan.cost.training.throughput.step import launched, layer_together
from moeplan.numerics import Floats
from moeplan.numerics.elementwise import anywhere

_APART = 1024
"""Of more designs than these, or for few layouts, a ceiling times layers for one micro-batch after the other."""
_AGAIN = {"none": 1.0, "selective": 1.03, "full": 1.3}
"""About how many times as long a layer takes with recomputation: it orders what is tried."""


def _grouped(items: Iterable[Any], key: Callable[[Any], Degrees]) -> dict[Degrees, list[Any]]:
    """Items by their key."""
    groups: dict[Degrees, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


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
        trainer: Machine,
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
