"""The budget of a plan: compute, memory, how the model is served, what is fixed or bounded."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from moeplan.architecture.patterns import pattern_named
from moeplan.architecture.plannable import LATENT, pattern_words
from moeplan.cost.devices import HEADROOM, Device, Gpus, flops_of_time, parse_gpus
from moeplan.cost.inference_memory import InferenceSettings
from moeplan.cost.serving.demand import Demand
from moeplan.cost.training.parallelism import Layout, read_degrees
from moeplan.cost.training.states import load_scheme
from moeplan.cost.training.throughput.words import DEFAULT_SOFTWARE, TrainPrecision
from moeplan.errors import InfeasibleError, UsageError
from moeplan.laws import load_law
from moeplan.laws.hyperparameters import hyperparameter_laws
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.budget_grid import narrowed
from moeplan.plan.search.grid import Grid
from moeplan.plan.search.variables import DESIGN_VARIABLES
from moeplan.units import MemoryLimit, parse_count, parse_flops, parse_memory

SMALL_BUDGET = 1e21
"""Below this compute [FLOPs] embeddings would be most of a small model: tied, with a smaller vocabulary."""
TOKEN_CAP = 100e12
"""Most training tokens a plan may ask for unless told otherwise."""
NOMINAL_MFU = 0.25
"""Utilisation at which days on GPUs stand for compute where one number must do for all designs: for the batch, the
vocabulary and the tying of embeddings, and the hours of a budget in FLOPs."""
GOODPUT = 0.9
"""Share of the days that trains, restarts and lost work off: Llama 3's run had over 90 % (arXiv 2407.21783, 3.3.4)."""
OPTIMISE = ("flops", "time", "money")
"""What designs may be compared at equal amounts of."""
FEWEST_TOKENS = 1e6
"""Fewest training tokens that a plan is made for."""
SYMBOLS = {
    "N": "total_params",
    "N_a": "active_params",
    "D": "tokens",
    "A": "activation_ratio",
    "S": "shared_ratio",
    "g": "granularity",
    "E": "num_experts",
    "k": "num_active_experts",
    "s": "num_shared_experts",
}
"""Symbols of the report, which are no names."""
REAL_TOLERANCE = 0.02
"""How near a realised real variable must be to a fixed one."""


def nominal_batch(law: str, flops: float, seq_len: int) -> int:
    """Sequences of a step that a law asks for at a compute [FLOPs], to a quarter of a doubling: 4, 5, 6 or 7 times 2^n.

    A law of size and tokens is asked at 20 tokens a param, for the size that this makes of the compute.
    """
    fit = load_law(law).predicting("batch_tokens")
    params = math.sqrt(flops / 120)
    at = {"train_flops": flops, "total_params": params, "active_params": params, "tokens": 20 * params}
    wanted = max(float(fit(*(at[name] for name in fit.variables))) / seq_len, 1.0)
    step = 2.0 ** max(math.floor(math.log2(wanted)) - 2, 0)
    return max(1, round(wanted / step)) * round(step)


def defaults_by_compute(flops: float) -> dict[str, int | bool]:
    """Vocabulary and tying of embeddings that a compute budget [FLOPs] chooses where they are not given."""
    small = flops < SMALL_BUDGET
    vocab_size = 131072 if not small else 49152 if flops >= SMALL_BUDGET / 10 else 32768
    return {"vocab_size": vocab_size, "tied_embeddings": small}


@dataclass(frozen=True)
class Budget:
    """A compute budget with a memory limit, and every condition on the design.

    `Budget("1e22", "80GB")` reads quantities as the command line does. What `serving` and `demand` hold may also be
    given by itself, in the command line's words: `Budget("1e22", "80GB", context=32768, served="5T")`. Raises
    `UsageError` for values that cannot be.
    """

    flops: float = 0.0
    """Compute for training [FLOPs] (with `inference_tokens`, for training and serving together); 0 if `gpus` and
    `days` say it."""
    memory: MemoryLimit | None = None
    """Memory that the served model must fit into; None for no limit, where training on `gpus` is one."""
    _: dataclasses.KW_ONLY
    vocab_size: int = 0
    """Rows of the embedding; 0 chooses 131072, or 49152 below 1e21 FLOPs and 32768 below 1e20."""
    tied_embeddings: bool | None = None
    """Whether the output head is the embedding; None ties below 1e21 FLOPs."""
    seq_len: int = 4096
    """Training sequence length [tokens]."""
    attention: str = "gqa"
    """Attention: gqa, mla, or a pattern such as gdn-3:1 (`moeplan.architecture.patterns`)."""
    latent: int = 1
    """How many times narrower than the model its routed experts are inside; there are as many times more of them."""
    serving: InferenceSettings = field(default_factory=InferenceSettings)
    """How the model is served."""
    headroom: float = HEADROOM
    """Share of the memory that stays free: a model that fills its memory exactly cannot serve."""
    fix: Mapping[str, float] = field(default_factory=dict)
    """Design variables with a given value: integers exactly, real ones within 2 %."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Design variables with a least and a largest value."""
    tokens_available: float = math.inf
    """Unique training tokens there are."""
    max_epochs: float = 4.0
    """How often they may be repeated."""
    max_tokens: float = TOKEN_CAP
    """Most training tokens, repeats included."""
    gpus: Gpus | None = None
    """Devices to train on, "256xH100"."""
    days: float = 0.0
    """Days on them, in place of `flops`: the designs are then compared at what each of them trains in that time, and
    `flops` is what the time buys at `NOMINAL_MFU`."""
    mfu: float = 0.0
    """Share of the dense bf16 peak that training reaches over all days, in place of what is predicted of each design;
    0 predicts it."""
    goodput: float = GOODPUT
    """Share of the days that trains; with `mfu`, which counts all of them, it has no effect."""
    optimise: str = ""
    """What designs are compared at equal amounts of: flops, time or money, which on given GPUs is time; "" takes time
    with `days` and flops without."""
    train_precision: str = "bf16"
    """Of matrix products in training."""
    software: str = DEFAULT_SOFTWARE
    """Preset of the training software (`data/throughput.yaml`)."""
    layout: str = ""
    """What of the training layout is given, as in tp=1,pp=8,ep=16; the rest is searched."""
    batch: int = 0
    """Most sequences of a training step; 0 takes the leverage law's at the compute, to a quarter of a doubling."""
    multiple_of: Mapping[str, int] = field(default_factory=dict)
    """Sizes of the design that must be multiples, as in num_experts=32."""
    measured: tuple[str, ...] = ()
    """Runs measured at the site, which calibrate its speed, or YAML files of such (`moeplan.plan.measured_runs`)."""
    price_per_gpu_hour: float | None = None
    """Price of a device-hour, in any currency."""
    memory_for: tuple[str, ...] = ("inference",)
    """Uses whose memory must fit: inference (into `memory`), training (into the memory of each of `gpus`), or both."""
    optimizer: str = "megatron"
    """Scheme of weights, gradients and optimizer state in training (`moeplan.cost.training.states.SCHEMES`)."""
    hyperparameters: str = LEVERAGE_LAW
    """Law whose learning rate and batch training takes."""
    inference_tokens: float = 0.0
    """Tokens served over the model's lifetime, each paid with 2*N_a FLOPs out of `flops`."""
    demand: Demand = field(default_factory=Demand)
    """What is served over the model's life and on what; with `gpus`, paid in GPU-hours out of the same budget."""
    words: Mapping[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)
    """It as it was given, before defaults were chosen: `Budget(**words)` is the same again."""

    if TYPE_CHECKING:  # what it is made from: quantities as people type them; the fields hold numbers

        def __init__(
            self,
            flops: float | str = ...,
            memory: MemoryLimit | float | str | None = ...,
            *,
            vocab_size: int = ...,
            tied_embeddings: bool | None = ...,
            seq_len: int = ...,
            attention: str = ...,
            latent: int = ...,
            serving: InferenceSettings = ...,
            headroom: float = ...,
            fix: Mapping[str, float] = ...,
            ranges: Mapping[str, tuple[float, float]] = ...,
            tokens_available: float | str = ...,
            max_epochs: float = ...,
            max_tokens: float | str = ...,
            gpus: Gpus | str | None = ...,
            days: float = ...,
            mfu: float = ...,
            goodput: float = ...,
            optimise: str = ...,
            train_precision: str = ...,
            software: str = ...,
            layout: str = ...,
            batch: int = ...,
            multiple_of: Mapping[str, int] = ...,
            measured: Sequence[str] = ...,
            price_per_gpu_hour: float | None = ...,
            memory_for: Sequence[str] = ...,
            optimizer: str = ...,
            hyperparameters: str = ...,
            inference_tokens: float | str = ...,
            demand: Demand = ...,
            weight_dtype: str = ...,
            kv_dtype: str = ...,
            context: int = ...,
            concurrency: int = ...,
            served: float | str = ...,
            serve_gpus: Gpus | str | None = ...,
            prompt_tokens: int = ...,
            answer_tokens: int = ...,
            tokens_per_second_per_user: float = ...,
            serve_price_per_gpu_hour: float | None = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        self._check_types(put)
        self._check_training(put)
        self._check_demand(put)
        self._check_throughput(put)
        if self.flops == 0:
            raise UsageError(
                f"gpus {self.gpus} alone are no budget; add days, for example 30, or flops, for example 1e22"
                if self.gpus
                else "a compute budget is missing; give flops, for example 1e22, or gpus and days"
            )
        put("flops", parse_flops(self.flops))
        if self.memory is not None:
            put("memory", parse_memory(self.memory))
        elif "inference" in self.memory_for and self.gpus is None:
            raise UsageError("a memory limit is missing; give one, for example 80GB")
        what, unit = f"compute budget {self.flops:g} FLOPs", 1.0
        if self.days:
            what, unit = (
                f"compute budget {self.flops:g} FLOPs, {self.days:g} days on {self.gpus},",
                self.days / self.flops,
            )
        words = " days" if self.days else ""
        if self.flops < 1e15:
            raise UsageError(f"{what} is too small for any language model; try {1e18 * unit:.2g}{words} or more")
        if self.flops > 1e30:
            raise UsageError(f"{what} is beyond what any law here can say; try up to {1e28 * unit:.2g}{words}")
        chosen = defaults_by_compute(self.flops)
        if self.vocab_size == 0:
            put("vocab_size", chosen["vocab_size"])
        if self.tied_embeddings is None:
            put("tied_embeddings", chosen["tied_embeddings"])
        for name, low, high in (("vocab_size", 2, 2**24), ("seq_len", 1, 2**24)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UsageError(f"{name} {value!r} must be a whole number from {low} to {high}")
        if not isinstance(self.attention, str):
            raise UsageError(f"attention {self.attention!r} must be {pattern_words()}")
        pattern_named(self.attention)
        if isinstance(self.latent, bool) or self.latent not in LATENT:
            known = f"{', '.join(map(str, LATENT[:-1]))} or {LATENT[-1]}"
            raise UsageError(
                f"latent {self.latent!r} must be {known}: experts in a latent width were measured to lose no quality "
                f"up to {LATENT[-1]} times narrower than the model (LatentMoE, arXiv 2601.18089)"
            )
        if not 0 <= self.headroom < 1:
            raise UsageError(f"headroom {self.headroom!r} must be at least 0 and below 1, for example 0.1")
        put("max_tokens", parse_count(self.max_tokens, "max_tokens"))
        if self.tokens_available != math.inf:
            put("tokens_available", parse_count(self.tokens_available, "tokens_available"))
        if not 1 <= self.max_epochs <= 1000:
            raise UsageError(f"max_epochs {self.max_epochs!r} must be from 1 to 1000")
        most = self.ranges.get("tokens", (0.0, math.inf))[1]
        for name, value in (("max_tokens", self.token_cap), ("tokens", min(self.fix.get("tokens", math.inf), most))):
            if value < FEWEST_TOKENS:
                raise UsageError(f"{name} {value:g} is too few to train on; give at least {FEWEST_TOKENS:g}")
        if self.inference_tokens != 0:
            put("inference_tokens", parse_count(self.inference_tokens, "inference_tokens"))
        for name in (*self.fix, *self.ranges):
            if name in SYMBOLS:
                raise UsageError(f"unknown design variable {name!r}; it is called {SYMBOLS[name]} here")
            if name not in DESIGN_VARIABLES:
                near = difflib.get_close_matches(name, DESIGN_VARIABLES, n=2, cutoff=0.5)
                hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(DESIGN_VARIABLES)}"
                raise UsageError(f"unknown design variable {name!r}; {hint}")
        for name, value in self.fix.items():
            if not math.isfinite(value) or value < 0 or (DESIGN_VARIABLES[name].integer and value != int(value)):
                kind = "a whole number" if DESIGN_VARIABLES[name].integer else "a positive number"
                raise UsageError(f"{name}={value:g} must be {kind}")
            if value == 0 and name not in ("num_shared_experts", "shared_ratio", "num_dense_layers"):
                raise UsageError(f"{name}=0 must be above 0")
        for name, (least, most) in self.ranges.items():
            if not (math.isfinite(least) and math.isfinite(most) and 0 <= least <= most):
                raise UsageError(f"{name}={least:g}..{most:g} must run from a smaller to a larger positive number")
            if name in self.fix:
                raise UsageError(
                    f"{name} is both fixed at {self.fix[name]:g} and bounded to {least:g}..{most:g}; give one"
                )

    def _check_types(self, put: Callable[[str, object], None]) -> None:
        """Refuse values of kinds that no quantity has, with what would work."""

        def real(value: object) -> bool:
            return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf

        for name, example in (("headroom", 0.1), ("max_epochs", 4.0), ("days", 30), ("mfu", 0.35), ("goodput", 0.9)):
            if not real(getattr(self, name)):
                raise UsageError(f"{name} {getattr(self, name)!r} must be a number, and finite, for example {example}")
        if self.tied_embeddings not in (None, True, False):
            raise UsageError(f"tied_embeddings {self.tied_embeddings!r} must be True, False or None")
        if not isinstance(self.serving, InferenceSettings):
            raise UsageError(f"serving {self.serving!r} must be an InferenceSettings")
        if self.inference_tokens is None:
            raise UsageError("inference_tokens None must be a count, for example 1e12")
        for name in ("fix", "ranges"):
            if not isinstance(getattr(self, name), Mapping):
                raise UsageError(f"{name} {getattr(self, name)!r} must be a mapping of design variables")
        for variable, value in self.fix.items():
            if not real(value) and not (isinstance(value, float)):
                raise UsageError(f"{variable}={value!r} must be a number")
        for variable, ends in self.ranges.items():
            if (
                not isinstance(ends, (tuple, list))
                or len(ends) != 2
                or not all(real(x) or isinstance(x, float) for x in ends)
            ):
                raise UsageError(f"{variable}={ends!r} must be a pair of numbers, the least and the largest value")
        put("fix", dict(self.fix))
        put("ranges", {name: tuple(ends) for name, ends in self.ranges.items()})

    def _check_training(self, put: Callable[[str, object], None]) -> None:
        """Read what training runs on, and turn GPU time into compute."""
        if self.gpus is not None:
            put("gpus", parse_gpus(self.gpus))
        if self.mfu and not 0 < self.mfu <= 1:
            raise UsageError(f"mfu {self.mfu!r} must be above 0 and at most 1, for example 0.35")
        kinds = (self.memory_for,) if isinstance(self.memory_for, str) else tuple(self.memory_for)
        if "both" in kinds:
            kinds = ("inference", "training")
        if not kinds or any(kind not in ("inference", "training") for kind in kinds):
            raise UsageError(f"memory_for {', '.join(kinds) or 'nothing'} must be inference, training or both")
        put("memory_for", tuple(sorted(set(kinds))))
        if "training" in kinds and self.gpus is None:
            raise UsageError("memory_for training needs gpus, for example 256xH100")
        if self.price_per_gpu_hour is not None and not 0 <= self.price_per_gpu_hour < math.inf:
            raise UsageError(f"price_per_gpu_hour {self.price_per_gpu_hour!r} must be at least 0, for example 2.5")
        load_scheme(self.optimizer)
        hyperparameter_laws(self.hyperparameters)
        if not 0 < self.goodput <= 1:
            raise UsageError(f"goodput {self.goodput!r} must be above 0 and at most 1, for example 0.9")
        if not self.days:
            return
        if self.flops:
            raise UsageError("flops and days both say the budget; give one")
        if self.gpus is None:
            raise UsageError("days need gpus, for example 256xH100")
        if self.days > 1e9:
            raise UsageError(f"days {self.days:g} must be at most 1e9, for example 30")
        put("flops", flops_of_time(self.gpus, self.days, self.mfu or NOMINAL_MFU * self.goodput))

    def _check_throughput(self, put: Callable[[str, object], None]) -> None:
        """Read how training runs; raise for what the GPUs do not have."""
        if self.optimise not in ("", *OPTIMISE):
            raise UsageError(f"optimise {self.optimise!r} must be {', '.join(OPTIMISE[:-1])} or {OPTIMISE[-1]}")
        if self.optimise in ("time", "money") and not self.days:
            raise UsageError(
                f"optimise {self.optimise} needs gpus and days, for example --gpus 256xH100 --days 30, or a target"
            )
        if self.gpus is not None or self.software != DEFAULT_SOFTWARE:
            # late, so that a plan without GPUs starts fast
            from moeplan.cost.training.throughput.settings import load_software, peak_flops

            load_software(self.software)
            if self.gpus is not None:
                peak_flops(self.gpus.device, self.train_precision)
        if self.train_precision not in get_args(TrainPrecision):
            raise UsageError(f"precision {self.train_precision!r} must be {', '.join(get_args(TrainPrecision))}")
        if self.gpus is None and self.train_precision not in ("bf16", "fp8"):
            raise UsageError(f"train_precision {self.train_precision} needs gpus that have it, for example 64xB200")
        if isinstance(self.batch, bool) or not isinstance(self.batch, int) or self.batch < 0:
            raise UsageError(f"batch {self.batch!r} must be a whole number of sequences, for example 2048")
        layout = Layout(**read_degrees(self.layout))
        if self.layout and self.gpus is None:
            raise UsageError(f"layout {self.layout} needs gpus, for example --gpus 256xH100")
        # What no design could have is refused before a search of minutes, which would find only that.
        if self.seq_len % layout.sequence_pieces:
            raise InfeasibleError(
                f"layout {self.layout} cuts sequences into {layout.sequence_pieces} equal pieces, which do not divide "
                f"seq_len {self.seq_len}; give a tp and cp that do, as in tp=2,cp=1"
            )
        if self.gpus is not None and layout.min_gpus > self.gpus.count:
            raise InfeasibleError(
                f"layout {self.layout} needs at least {layout.min_gpus} GPUs, and there are {self.gpus.count}"
            )
        for name, multiple in self.multiple_of.items():
            if name not in DESIGN_VARIABLES or not DESIGN_VARIABLES[name].integer:
                known = [each for each, variable in DESIGN_VARIABLES.items() if variable.integer]
                near = difflib.get_close_matches(name, known, n=2, cutoff=0.7)
                hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
                raise UsageError(f"multiple_of {name!r} is no whole size of a design; {hint}")
            if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
                raise UsageError(f"multiple_of {name}={multiple!r} must be a whole number of at least 1")
        put("multiple_of", dict(self.multiple_of))
        put("measured", (self.measured,) if isinstance(self.measured, str) else tuple(self.measured))
        if self.measured and self.gpus is None:
            raise UsageError("measured runs calibrate GPUs; give these too, for example --gpus 64xH100")

    @property
    def timed(self) -> bool:
        """Whether designs are compared at equal time."""
        return bool(self.days) and not self.mfu and self.optimise != "flops"

    @property
    def seconds(self) -> float:
        """Time that trains [s]."""
        return self.days * 86400 * self.goodput

    def _check_demand(self, put: Callable[[str, object], None]) -> None:
        """Take the memory limit of the serving devices where none is given, and refuse what cannot be paid."""
        demand = self.demand
        if not isinstance(demand, Demand):
            raise UsageError(f"demand {demand!r} must be a Demand")
        if demand.served and self.inference_tokens:
            raise UsageError("served and inference_tokens both say what is served; give one")
        serve = demand.serve_gpus
        if serve is not None and self.memory is None and "inference" in self.memory_for:
            put("memory", MemoryLimit(serve.device.memory_bytes, serve.count))
        if not self.pays_hours:
            return
        assert serve is not None
        prices = self.price_per_gpu_hour, demand.serve_price_per_gpu_hour
        if serve.device != self.hours_device and None in prices:
            raise UsageError(
                f"hours of {serve.device.name} and of {self.hours_device.name} make one budget only by their prices; "
                "give price_per_gpu_hour and serve_price_per_gpu_hour"
            )
        if prices[1] is not None and not self.price_per_gpu_hour:
            raise UsageError("serve_price_per_gpu_hour needs a price_per_gpu_hour above 0, for example 2.5")

    @property
    def pays_hours(self) -> bool:
        """Whether serving is paid in GPU-hours: tokens are served, on devices that are known, as is what trains.

        Without `gpus`, `mfu` says what the serving device reaches in training.
        """
        return bool(self.demand.served and self.demand.serve_gpus and (self.gpus or self.mfu))

    @property
    def hours_device(self) -> Device:
        """The device whose hours the budget is counted in, where serving is paid in hours."""
        known = self.gpus or self.demand.serve_gpus
        assert known is not None
        return known.device

    @property
    def served_tokens(self) -> float:
        """Tokens served over the life, however they are paid."""
        return self.demand.served or self.inference_tokens

    @property
    def gpu_hours(self) -> float:
        """Hours of training GPUs that the whole budget is: gpus * days, or FLOPs at `mfu` (nominal unless given)."""
        if self.days and self.gpus:
            return self.gpus.count * self.days * 24
        return self.flops / (self.hours_device.bf16_flops * (self.mfu or NOMINAL_MFU * self.goodput)) / 3600

    @property
    def serving_hour(self) -> float:
        """Price of an hour of a serving device in hours of a training GPU."""
        own = self.demand.serve_price_per_gpu_hour
        return 1.0 if own is None or not self.price_per_gpu_hour else own / self.price_per_gpu_hour

    def serving_share(self, seconds_per_token: Any) -> Any:
        """Share of the budget that serving takes, at a device time of each token [s]; floats or arrays."""
        return self.demand.gpu_hours(seconds_per_token) * self.serving_hour / self.gpu_hours

    @property
    def usable_bytes(self) -> int:
        """Memory of one serving device less the headroom [bytes]; no limit is 2**62."""
        return 2**62 if self.memory is None else int(self.memory.bytes_per_device * (1 - self.headroom))

    @property
    def usable_training_bytes(self) -> float | None:
        """Memory of one training GPU less the headroom [bytes]; None without GPUs."""
        return None if self.gpus is None else self.gpus.device.memory_bytes * (1 - self.headroom)

    @property
    def num_devices(self) -> int:
        """Devices that the served model is spread over."""
        return 1 if self.memory is None else self.memory.num_devices

    @property
    def token_cap(self) -> float:
        """Most tokens a plan may train on, repeats included."""
        return min(self.max_tokens, self.tokens_available * self.max_epochs)

    def worth(self, tokens: Any) -> Any:
        """The worth of training tokens, repeats discounted by muennighoff2023 [tokens]; floats or arrays."""
        if not math.isfinite(self.tokens_available):
            return tokens
        return load_law("muennighoff2023").predicting("effective_tokens")(tokens, self.tokens_available)

    def limits(self, name: str) -> tuple[float, float] | None:
        """Least and largest value allowed for a design variable by `fix` or `ranges`; None if it is free."""
        if name in self.fix:
            value = float(self.fix[name])
            slack = 0.0 if DESIGN_VARIABLES[name].integer else REAL_TOLERANCE
            return value * (1 - slack), value * (1 + slack)
        if name in self.ranges:
            low, high = self.ranges[name]
            # The ends themselves are inside, print rounding included.
            return low * (1 - 1e-9), high * (1 + 1e-9)
        return None

    def reference_grid(self) -> Grid:
        """The declared grid at this budget's vocabulary and sequence length; no condition narrows it.

        Laws were measured on attention over all tokens and on experts as wide as the model: their references are.
        """
        return Grid(
            vocab_size=self.vocab_size,
            tied_embeddings=bool(self.tied_embeddings),
            seq_len=self.seq_len,
            attention=pattern_named(self.attention).full,
        )

    def declared_grid(self, reference: Grid | None = None) -> Grid:
        """`reference` with this budget's pattern of attention and latent width, and as many times more experts."""
        grid, by = reference or self.reference_grid(), self.latent
        if by == 1 and self.attention == grid.attention:
            return grid
        return dataclasses.replace(
            grid,
            attention=self.attention,
            latent=by,
            num_experts=tuple(by * experts for experts in grid.num_experts),
            num_active_experts=tuple(by * active for active in grid.num_active_experts),
        )

    def grid(self, base: Grid) -> Grid:
        """`base` narrowed or widened to what `fix` and `ranges` say of its axes.

        Raises `InfeasibleError` for a value that the divisibility rules forbid, with the nearest ones that they allow.
        """
        return narrowed(base, self.fix, self.ranges, self.limits)


def _by_words(init: Callable[..., None]) -> Callable[..., None]:
    """The constructor that also takes fields of `serving` and `demand` by themselves, and keeps what it was given."""
    parts = {"serving": InferenceSettings, "demand": Demand}

    @functools.wraps(init)
    def by_words(self: Budget, *given: Any, **words: Any) -> None:
        whole = dict(words)
        for name, part in parts.items():
            own = {f.name: whole.pop(f.name) for f in dataclasses.fields(part) if f.name in whole}
            if own:
                whole[name] = dataclasses.replace(whole.get(name) or part(), **own)
        init(self, *given, **whole)
        object.__setattr__(self, "words", dict(zip(("flops", "memory"), given, strict=False)) | words)

    return by_words


Budget.__init__ = _by_words(Budget.__init__)  # type: ignore[method-assign]
