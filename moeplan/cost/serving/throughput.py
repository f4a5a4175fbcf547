"""Throughput of serving on a group of devices: tokens a second of prompts and answers, for one design or a grid.

A request is a prompt of p tokens and an answer of a tokens. n equal devices hold one copy of the model and decode B
requests at a time; prompts are read between the steps. One step gives each of the B requests a token and takes

    t(B) = layers + max(weights(B)/b, F*B/c) + B*(max(cache/b, f/c) + exchange)

with b the bandwidth of memory and c the peak of products that are reached, weights(B) the bytes of all weights that B
tokens read, experts by E*(1 - (1 - k/E)^B), F and f the FLOPs of a token in products and attention, cache the bytes of
a sequence half way through its answer, and exchange what the devices send each other for a token. A request that waits
for B prompts of T seconds each while its a tokens come is answered at

    1 / (t(B) + B*T/a)   tokens a second for each user, and all of them together at B times that.

The first falls with B and the second rises, so the largest B is best that the memory and the speed allow. Memory must
hold B caches of p + a tokens. Each group is split in the better of two ways (`SPLITS`): "tensor" splits every matrix
and sums over devices twice a layer; "data" copies all but the routed experts to every device, which attends to its own
sequences, and exchanges rows with the experts twice a layer.

Shares of peaks, times of layers and of exchanges are fitted to published figures (`moeplan.cost.serving.published`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from moeplan.architecture import counting
from moeplan.cost.devices import HEADROOM, Device, Gpus
from moeplan.cost.inference_memory import InferenceSettings, cache_bytes, inference_bytes
from moeplan.cost.serving.settings import Constants, constants
from moeplan.errors import UsageError

Split = Literal["tensor", "data"]
"""How a group of devices shares a model."""
SPLITS: tuple[Split, ...] = get_args(Split)
_EMBEDDINGS = ("input_embedding", "output_head")
_CHUNK = 8192
"""Tokens of prompts that are read at a time, for which all weights are read once (the default of TensorRT-LLM)."""
_BISECTIONS = 24
"""Halvings of the logarithm of the batch, whose range is below 2**31: an error below 1e-6."""

# Sizes are duck-typed over numbers and arrays, as in `moeplan.architecture.counting`.
Size = Any


@dataclass(frozen=True, kw_only=True)
class Load:
    """What users ask for."""

    prompt_tokens: int = 1024
    """p, tokens of a prompt."""
    answer_tokens: int = 1024
    """a, tokens of an answer."""
    tokens_per_second_per_user: float = 0.0
    """Least speed of an answer [tokens/s]; 0 for none."""

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "answer_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 2**24:
                raise UsageError(f"{name} {value!r} must be a whole number from 1 to {2**24}, for example 1024")
        speed = self.tokens_per_second_per_user
        if isinstance(speed, bool) or not isinstance(speed, (int, float)) or not 0 <= speed < 1e6:
            raise UsageError(f"tokens_per_second_per_user {speed!r} must be at least 0 and below 1e6, for example 30")

    @property
    def context(self) -> int:
        """Tokens in the cache when an answer ends: p + a."""
        return self.prompt_tokens + self.answer_tokens

    @property
    def tokens_per_answer_token(self) -> float:
        """(p + a) / a: prompt and answer tokens for each token of an answer."""
        return self.context / self.answer_tokens


@dataclass(frozen=True)
class Step:
    """A decode step of B sequences on one group, split one way: its time [s] and its limits. Sizes may be arrays."""

    fixed: Size
    """What the layers take whatever is in them [s]."""
    read: Size
    """Reading the weights that every token needs [s]."""
    experts: Size
    """Reading all routed experts [s]."""
    ln_missed: Size
    """ln(1 - k/E), of the share of experts that one token misses; -inf where every token reaches all."""
    products: Size
    """Products of one sequence's token [s]."""
    sequence: Size
    """Attention of one sequence to its cache, and its exchanges [s]."""
    prompt: Size
    """Reading one prompt [s]."""
    most_sequences: Size
    """Sequences whose caches fit beside the weights; below 1 where none does."""

    def seconds(self, batch: Size) -> Size:
        """Time of a step of `batch` sequences [s]."""
        hit = 1 - np.exp(self.ln_missed * batch)
        return self.fixed + np.maximum(self.read + self.experts * hit, self.products * batch) + self.sequence * batch

    def seconds_per_token(self, batch: Size, load: Load) -> Size:
        """Time from one token of a user's answer to the next, prompts of others between them [s]."""
        return self.seconds(batch) + self.prompt * batch / load.answer_tokens

    def batch(self, load: Load) -> Size:
        """The most sequences that memory and speed allow; 0 where not even one is fast enough or fits."""
        most = np.floor(self.most_sequences)
        if not load.tokens_per_second_per_user:
            return np.where(most >= 1, most, 0.0)
        limit = 1 / load.tokens_per_second_per_user
        low, high = np.zeros_like(most), np.log(np.maximum(most, 1.0))
        with np.errstate(over="ignore"):
            alone, full = (self.seconds_per_token(np.exp(end), load) <= limit for end in (low, high))
            if np.any(alone & ~full):
                for _ in range(_BISECTIONS):
                    middle = (low + high) / 2
                    fast = self.seconds_per_token(np.exp(middle), load) <= limit
                    low, high = np.where(fast, middle, low), np.where(fast, high, middle)
        found = np.where(full, most, np.floor(np.exp(low) * (1 + 1e-6)))
        return np.where((most >= 1) & alone, np.minimum(found, most), 0.0)


@dataclass(frozen=True)
class Throughput:
    """What a group of devices serves of a load. Every number may be an array."""

    num_gpus: int
    """n, devices that hold one copy."""
    batch: Size
    """B, sequences decoded at a time; 0 if it cannot be served."""
    most_sequences: Size
    """Sequences that fit, whatever their speed."""
    tokens_per_second_per_user: Size
    """Speed of one user's answer [tokens/s]; 0 if it cannot be served."""
    tokens_per_second_per_gpu: Size
    """Answer tokens a second of one device."""
    fastest: Size
    """Speed of a user alone [tokens/s]; 0 if one does not fit."""
    split: Size
    """Index in `SPLITS` of the better way."""
    load: Load
    """What was asked for."""

    @property
    def gpu_seconds_per_token(self) -> Size:
        """Device time of one served token, prompts and answers both counted [s]; inf if it cannot be served."""
        per_gpu = np.asarray(self.tokens_per_second_per_gpu, dtype=float) * self.load.tokens_per_answer_token
        with np.errstate(divide="ignore"):
            return 1 / per_gpu


def peak(device: Device, weight_dtype: str) -> float:
    """Peak of the products that weights of this dtype take part in [FLOP/s].

    fp8 weights multiply in fp8 where the device does; mxfp4 weights in fp8 where microscaled formats are native
    (Blackwell, CDNA 4); all others are widened to bf16.
    """
    native = weight_dtype == "fp8" or (weight_dtype == "mxfp4" and device.kernels.startswith("blackwell"))
    return device.fp8_flops if native and device.fp8_flops is not None else device.bf16_flops


def serving_step(
    shape: counting.Shape,
    gpus: Gpus,
    load: Load,
    settings: InferenceSettings,
    split: Split,
    *,
    usable_bytes: float | None = None,
    using: Constants | None = None,
) -> Step:
    """A decode step of `shape` (an architecture, or a grid of them) on one group, split one way.

    `settings` gives the dtypes; its context and concurrency are the load's here. `usable_bytes` is the memory of one
    device that weights and caches may take, by default what `HEADROOM` leaves.
    """
    c, device, n = using or constants(), gpus.device, gpus.count
    one = dataclasses.replace(settings, context=load.context, concurrency=1)
    groups = dict(inference_bytes(shape, one, n if split == "tensor" else 1))
    if split == "data":  # whole experts are spread, all else is on every device
        share = _ceil_div(shape.num_experts, n) / np.maximum(shape.num_experts, 1)
        groups["routed_experts"] = groups["routed_experts"] * share
    cache = groups.pop("kv_cache")
    stored = sum(groups.values())
    experts = groups.pop("routed_experts")
    if not shape.tied_embeddings:
        del groups["input_embedding"]  # of which one row a token is read
    spread = n if split == "data" else 1  # devices that a sequence's cache is not on
    bandwidth, products = device.bandwidth * c.memory, peak(device, settings.weight_dtype)
    products *= c.fp8 if products == device.fp8_flops else c.bf16

    half_way = load.prompt_tokens + load.answer_tokens // 2
    halfway_cache = cache * _cache_share(shape, half_way, load.context)
    heads = _sum(layers * attention.decode_flops(half_way) for layers, attention in counting.attentions(shape))
    reached = counting.params_by_group(shape, shape.num_active_experts)
    rest = sum(size for name, size in reached.items() if name not in ("routed_experts", *_EMBEDDINGS))
    linear = 2.0 * (rest + reached["routed_experts"] / c.grouped)
    head = 2.0 * shape.vocab_size * shape.d_model
    exchange, rounds = _exchange(shape, device, n, split, c)
    attention_rate = n * device.bf16_flops * c.attention
    attended = np.maximum(halfway_cache / (bandwidth * spread), heads / attention_rate)

    p = load.prompt_tokens
    scores = _sum(layers * attention.prefill_flops(p) for layers, attention in counting.attentions(shape))
    chunked = np.maximum(linear * p / (n * products), p / _CHUNK * stored / bandwidth)
    prompt = chunked + scores / attention_rate + exchange * p

    missed = 1 - shape.num_active_experts / np.maximum(shape.num_experts, 1)
    with np.errstate(divide="ignore"):
        ln_missed = np.log(np.where(shape.num_experts > 0, missed, 0.0))
    room = (device.memory_bytes * (1 - HEADROOM) if usable_bytes is None else usable_bytes) - stored
    return Step(
        fixed=1e-6 * (c.layer_us * shape.num_layers + c.experts_us * shape.num_moe_layers + c.exchange_us * rounds),
        read=sum(groups.values()) / bandwidth,
        experts=experts / bandwidth,
        ln_missed=ln_missed,
        products=(linear + head) / (n * products),
        sequence=attended + exchange,
        prompt=prompt,
        most_sequences=np.minimum(np.floor(np.maximum(room, 0.0) / cache), c.most_sequences) * spread,
    )


def serving_throughput(
    shape: counting.Shape,
    gpus: Gpus,
    load: Load | None = None,
    settings: InferenceSettings | None = None,
    *,
    usable_bytes: float | None = None,
    concurrency: float | None = None,
    splits: tuple[Split, ...] = SPLITS,
    using: Constants | None = None,
) -> Throughput:
    """What `gpus`, holding one copy of `shape` (an architecture, or a grid of them), serve of a load.

    `concurrency` fixes the sequences decoded at a time; None takes the most that memory and speed allow.
    """
    load, settings = load or Load(), settings or InferenceSettings()
    best: Throughput | None = None
    for split in splits if gpus.count > 1 else splits[:1]:
        step = serving_step(shape, gpus, load, settings, split, usable_bytes=usable_bytes, using=using)
        batch = step.batch(load) if concurrency is None else np.where(step.most_sequences >= 1, concurrency, 0.0)
        speed = np.where(batch > 0, 1 / step.seconds_per_token(np.maximum(batch, 1.0), load), 0.0)
        found = Throughput(
            num_gpus=gpus.count,
            batch=batch,
            most_sequences=np.floor(step.most_sequences),
            tokens_per_second_per_user=speed,
            tokens_per_second_per_gpu=batch * speed / gpus.count,
            fastest=np.where(step.most_sequences >= 1, 1 / step.seconds_per_token(1.0, load), 0.0),
            split=np.full(np.shape(speed), SPLITS.index(split)),
            load=load,
        )
        best = found if best is None else _better(best, found)
    assert best is not None
    return best


def _better(one: Throughput, other: Throughput) -> Throughput:
    """For each design, the way that gives more tokens; the fastest speed of both."""
    more = other.tokens_per_second_per_gpu > one.tokens_per_second_per_gpu
    names = ("batch", "most_sequences", "tokens_per_second_per_user", "tokens_per_second_per_gpu", "split")
    taken = {name: np.where(more, getattr(other, name), getattr(one, name)) for name in names}
    return dataclasses.replace(one, **taken, fastest=np.maximum(one.fastest, other.fastest))


def _exchange(shape: counting.Shape, device: Device, n: int, split: Split, c: Constants) -> tuple[Size, Size]:
    """(seconds that one token's exchanges take, exchanges of a step) on a group of n devices.

    Summing over devices moves 2*(n-1)/n of a row of bf16 on each device, twice a layer. Rows go to at most n devices
    where experts are, in fp8, and come back in bf16; n devices share that work.
    """
    if n == 1:
        return 0.0, 0
    inside = (min(n, device.link_domain) - 1) / (n - 1)
    link = (device.link_bandwidth or device.network_bandwidth) * c.link
    byte = inside / link + (1 - inside) / (device.network_bandwidth * c.link)
    apart = (n - 1) / n
    if split == "tensor":
        return 2 * shape.num_layers * 2 * apart * 2 * shape.d_model * byte, 2 * shape.num_layers
    rows = np.minimum(shape.num_active_experts, n) * apart / n
    return shape.num_moe_layers * rows * 3 * shape.d_model * byte, 2 * shape.num_moe_layers


def _cache_share(shape: counting.Shape, part: int, whole: int) -> Size:
    """Cache of a sequence of `part` tokens over that of `whole`: windows may be full before, states always are."""
    return cache_bytes(shape, part) / cache_bytes(shape, whole)


def _sum(values: Any) -> Size:
    return sum(values, 0.0)


def _ceil_div(a: Size, b: int) -> Size:
    return -(-a // b)
