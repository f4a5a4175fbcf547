"""Train one proxy: `run` turns a `RunSpec` and its `Corpus` into a `RunResult`, a pure function apart from its timings.

AdamW (betas 0.9 and 0.95) on fp32 master weights, decay on matrices only, gradients clipped to a norm of 1, linear
warm-up, then linear decay to zero. After every step the correction bias of each router moves by a fixed size towards
balance over the whole batch (Wang et al. 2024, arXiv 2408.15664, algorithm 1); that size decays to zero as well. A
large batch is taken in micro-batches whose gradients add up in fp32 (`footprint.micro_batches`). On a CPU two runs of a
spec are equal bit for bit if both have one thread (`worker_setup`). A run that diverges is tried once more at half the
rate.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import moeplan
from moeplan import records
from moeplan.errors import UsageError
from moeplan.verification.capture import fastest_step
from moeplan.verification.data import MAX_EPOCHS, Corpus, cut, window_starts
from moeplan.verification.device import device_name, fastest_flops, pick_device
from moeplan.verification.flat import Flat
from moeplan.verification.footprint import CHUNK_TOKENS, micro_batches
from moeplan.verification.formats import Tokens
from moeplan.verification.model import Model
from moeplan.verification.spec import SPEC_SCHEMA, RoutingHealth, RunResult, RunSpec

Progress = Callable[[int, int, float, float, "float | None", float], None]
"""Called with step, steps, loss [nats/token], tokens per second, MFU and seconds left."""

BETAS = (0.9, 0.95)
BASE_WIDTH = 64
"""d_model at which embedding and norms learn at the rate of the matrices."""
TRAIN_LOSSES = 100
"""Stretches that a result averages the training loss over, at most."""
LATE = 0.1
"""Share of the steps, the last ones, over which the load of the experts is counted: short runs end amid few documents,
and what their router did while it learned says little of what it learned."""
DEAD = 0.01
"""Share of the mean load below which an expert is dead."""
VALIDATION_BATCH = 4096
"""Tokens of a validation step, at least."""
PROGRESS_SECONDS = 0.2


def worker_setup() -> None:
    """One thread for this process; call it first in every worker. Results on a CPU then do not depend on its cores."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


class Trainer:
    """One attempt at a run: model, optimizer and data on the device, and `step`, which needs nothing from the host."""

    def __init__(self, spec: RunSpec, corpus: Corpus, device: torch.device, peak: float) -> None:
        self.spec, self.device = spec, device
        self.model = Model(spec.architecture, spec.seq_len, spec.seed, spec.embedding_parts).to(device)
        for layer in self.model.moe_layers:
            layer.router.requires_grad_(not spec.frozen_router)
            layer.blind = spec.frozen_router
        self.flat = Flat(self.model, spec.precision)
        steps = spec.steps
        rates = peak * np.array(spec.schedule())
        self.rates_TG = torch.tensor(
            np.stack([rates, rates * spec.architecture.d_model / BASE_WIDTH], 1), dtype=torch.float32, device=device
        )
        self.optimizer = self._adamw()
        self.balance_T = torch.tensor(
            spec.balance_rate * (1 - np.arange(steps) / steps), dtype=torch.float32, device=device
        )
        self.bias_LE, self.load_LE = self._stack_routers()
        self.late_LE = torch.zeros_like(self.load_LE)  # the load over the last steps
        late = np.arange(steps) >= steps - max(1, round(LATE * steps))
        self.late_T = torch.tensor(late, dtype=torch.float32, device=device)
        self.micro_batches = micro_batches(spec)
        self.tokens = corpus.tokens
        self.starts = window_starts(len(corpus.tokens), spec.seq_len, steps * spec.batch_sequences, spec.seed)
        self.chunk = min(steps, max(1, CHUNK_TOKENS // (spec.batch_sequences * spec.seq_len)))
        self.data = self._batches(0).to(device)
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self.losses = torch.zeros(steps, device=device)
        self.loads = torch.zeros(steps, device=device)  # the largest load / the mean one of any layer
        self.execution = "eager"

    def _adamw(self) -> torch.optim.AdamW:
        """Three parts of the vector: matrices and routers decay, embedding and norms do not and have their own rate."""
        low, router, _ = self.flat.sizes
        cuda = self.device.type == "cuda"
        groups = []
        for part, group in ((slice(0, low + router), 0), (slice(low + router, None), 1)):
            p = torch.nn.Parameter(self.flat.master[part])
            p.grad = self.flat.grad[part]
            rate = torch.zeros((), device=self.device) if cuda else 0.0
            groups.append({"params": [p], "lr": rate, "weight_decay": self.spec.weight_decay * (group == 0)})
        return torch.optim.AdamW(groups, betas=BETAS, eps=1e-8, fused=True, capturable=cuda)

    def _stack_routers(self) -> tuple[Tensor, Tensor]:
        """Biases and loads of all MoE layers as rows of two tensors, which the layers keep using."""
        layers = self.model.moe_layers
        shape = (len(layers), self.spec.architecture.num_experts)
        bias_LE, load_LE = torch.zeros(shape, device=self.device), torch.zeros(shape, device=self.device)
        for layer, bias_E, load_E in zip(layers, bias_LE, load_LE, strict=True):
            layer.bias_E, layer.load_E = bias_E, load_E
        return bias_LE, load_LE

    def _batches(self, first: int) -> Tensor:
        """The batches of a chunk of steps from `first` on, (chunk, sequences, seq_len + 1); the last may be short."""
        size = self.spec.batch_sequences
        data = cut(self.tokens, self.starts[first * size : (first + self.chunk) * size], self.spec.seq_len)
        kind = np.int32 if data.dtype.itemsize > 1 else np.uint8  # torch computes with few unsigned types
        return torch.from_numpy(data.astype(kind)).view(-1, size, self.spec.seq_len + 1)

    def feed(self, index: int) -> None:
        """Have the text of step `index` at hand: once a chunk of steps it takes the place of the last one's."""
        if index and index % self.chunk == 0:
            batches = self._batches(index)
            self.data[: len(batches)].copy_(batches)

    def _backward(self, batch_NT: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the mean loss of a batch, micro-batch by micro-batch; the loss, and how many tokens of all of it
        reached each expert."""
        loss, load_LE = torch.zeros((), device=self.device), self.load_LE
        for number, part_NT in enumerate(batch_NT.split(self.micro_batches)):
            losses = self.model(part_NT[:, :-1], part_NT[:, 1:])
            share = losses.mean() * (len(part_NT) / len(batch_NT))
            share.backward()
            self.flat.collect(add=number > 0)
            loss = loss + share.detach()
            if len(self.micro_batches) > 1:
                load_LE = self.load_LE.clone() if number == 0 else load_LE + self.load_LE
        return loss, load_LE

    def step(self) -> None:
        """One optimizer step on the next batch; its loss goes to `losses`, its fullest expert's load to `loads`."""
        loss, load_LE = self._backward(self.data.index_select(0, self.at % self.chunk)[0].long())
        self.flat.clip()
        rates_G = self.rates_TG.index_select(0, self.at)[0]
        for group, rate in zip(self.optimizer.param_groups, rates_G, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].copy_(rate)
            else:
                group["lr"] = rate.item()
        self.optimizer.step()
        self.flat.publish()
        if self.spec.balance_rate and len(self.bias_LE):
            gap_LE = load_LE.mean(dim=1, keepdim=True) - load_LE
            self.bias_LE.add_(gap_LE.sign() * self.balance_T.index_select(0, self.at))
        if len(self.bias_LE):
            self.late_LE.add_(load_LE * self.late_T.index_select(0, self.at))
            self.loads.index_copy_(0, self.at, (load_LE.amax(dim=1) / load_LE.mean(dim=1)).amax()[None])
        self.losses.index_copy_(0, self.at, loss[None])
        self.at += 1

    def train(self, progress: Progress | None, peak_flops: float | None) -> float:
        """All steps; returns their wall-clock [s]. Stops early once a loss is not a number."""
        spec = self.spec
        step, self.execution = fastest_step(self)
        batch_tokens = spec.batch_sequences * spec.seq_len
        flops = spec.architecture.flops_per_token(spec.seq_len)
        start = last = time.perf_counter()
        for index in range(spec.steps):
            self.feed(index)
            step()
            now = time.perf_counter()
            if now - last < PROGRESS_SECONDS and index + 1 < spec.steps:
                continue
            last = now
            loss = float(self.losses[index])  # the one place that waits for the device, a few times a second
            if not math.isfinite(loss):
                break
            if progress is not None:
                speed = (index + 1) * batch_tokens / (time.perf_counter() - start)
                left = (spec.steps - index - 1) * batch_tokens / speed
                progress(index + 1, spec.steps, loss, speed, speed * flops / peak_flops if peak_flops else None, left)
        return time.perf_counter() - start

    def snapshot(self) -> Callable[[], None]:
        """Remember the state before the first step; returns what goes back to it, moments at zero, no gradients."""
        state = [self.flat.master, self.bias_LE, self.load_LE, self.late_LE, self.at, self.losses, self.loads]
        saved = [each.to("cpu", copy=True) for each in state]  # on the device a second copy may not fit

        def restore() -> None:
            for each, old in zip(state, saved, strict=True):
                each.copy_(old)
            for moments in self.optimizer.state.values():
                for moment in moments.values():
                    moment.zero_()
            for p in self.flat.params:  # a step that failed leaves them
                p.grad = None
            self.flat.publish()

        return restore

    @torch.no_grad()
    def validate(self, documents: list[Tokens]) -> list[float]:
        """Summed loss of every document [nats].

        A document is read in stretches of seq_len, each from an empty context; its first token is given.
        """
        t = self.spec.seq_len
        inputs, targets, owners = [], [], []
        for owner, document in enumerate(documents):
            ids = document.astype(np.int64)
            for start in range(0, len(ids) - 1, t):
                stretch = ids[start : start + t + 1]
                inputs.append(np.resize(stretch[:-1], t))  # the rest repeats the stretch and has no target
                targets.append(np.append(stretch[1:], np.full(t + 1 - len(stretch), -1)))
                owners.append(owner)
        sums: list[Tensor] = []
        size = max(self.spec.batch_sequences, VALIDATION_BATCH // t)
        for first in range(0, len(inputs), size):
            ids_NT = torch.from_numpy(np.stack(inputs[first : first + size])).to(self.device)
            targets_NT = torch.from_numpy(np.stack(targets[first : first + size])).to(self.device)
            sums.append(self.model(ids_NT, targets_NT).sum(dim=1))
        losses = np.zeros(len(documents))
        np.add.at(losses, owners, torch.cat(sums).double().cpu().numpy())
        return losses.tolist()

    def routing(self) -> RoutingHealth | None:
        """How the router spread the last steps' tokens; None for a dense model."""
        return _health(self.late_LE)


def _health(load_LE: Tensor) -> RoutingHealth | None:
    if not len(load_LE):
        return None
    load = load_LE.double().cpu().numpy()
    share = load / load.sum(axis=1, keepdims=True)
    relative = share * load.shape[1]
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1) / max(math.log(load.shape[1]), 1e-9)
    return RoutingHealth(
        load=tuple(relative.max(axis=1).tolist()),
        dead_experts=tuple((relative < DEAD).mean(axis=1).tolist()),
        entropy=tuple(entropy.tolist()) if load.shape[1] > 1 else (1.0,) * len(load),
    )


def check_spec(spec: RunSpec, corpus: Corpus) -> None:
    """Raise `UsageError` if the spec cannot be run on this corpus."""
    if spec.data_digest != corpus.digest:
        raise UsageError(
            f"{corpus.name}: the data has changed: its digest is {corpus.digest}, the run's {spec.data_digest}"
        )
    if spec.architecture.vocab_size < corpus.vocab_size:
        raise UsageError(f"vocab_size {spec.architecture.vocab_size} is below that of the data, {corpus.vocab_size}")
    for name in ("seq_len", "batch_sequences", "steps"):
        if getattr(spec, name) < 1:
            raise UsageError(f"{name} {getattr(spec, name)} must be at least 1")
    if spec.tokens > corpus.max_tokens():
        raise UsageError(
            f"{corpus.name}: {spec.tokens:,} training tokens are more than {MAX_EPOCHS} epochs of "
            f"{len(corpus.tokens):,}; give more data or a smaller budget"
        )
    if len(corpus.tokens) <= spec.seq_len:
        raise UsageError(f"seq_len {spec.seq_len} must be below the {len(corpus.tokens):,} training tokens")


@dataclass(frozen=True)
class Attempt:
    """The outcome of one learning rate."""

    losses: np.ndarray
    """Training loss of every step [nats/token]."""
    loads: np.ndarray
    """Largest load of an expert / mean load of every step; empty for dense models."""
    seconds: float
    """Time of the steps [s]."""
    steps: int
    """Steps made."""
    sums: list[float]
    """Summed loss of every validation document [nats]; empty if it diverged."""
    routing: RoutingHealth | None
    """How the router fared."""
    execution: str
    """How the steps were run: graph, eager, or eager with the reason."""
    expert_products: str | None
    """By what the experts' rows were multiplied."""

    @property
    def good(self) -> bool:
        """Whether it ended in losses."""
        return bool(self.sums) and all(map(math.isfinite, self.sums))


def _attempt(
    spec: RunSpec, corpus: Corpus, documents: list[Tokens], where: torch.device, rate: float, progress: Progress | None,
    peak_flops: float | None,
) -> Attempt:  # fmt: skip
    """Train and validate at one rate; whatever it held on the device is free again when it returns."""
    trainer = Trainer(spec, corpus, where, rate)
    seconds = trainer.train(progress, peak_flops)
    losses = trainer.losses.double().cpu().numpy()
    sums, routing = ([], None) if diverged(losses) else (trainer.validate(documents), trainer.routing())
    products = trainer.model.expert_products
    loads = trainer.loads.double().cpu().numpy() if spec.architecture.num_experts else losses[:0]
    return Attempt(losses, loads, seconds, int(trainer.at), sums, routing, trainer.execution, products)


def run(
    spec: RunSpec,
    corpus: Corpus,
    *,
    progress: Progress | None = None,
    device: str = "auto",
    peak_flops: float | None = None,
) -> RunResult:
    """Train and validate one proxy.

    `peak_flops` is what MFU is a share of [FLOP/s], measured here if it is not given: something else on the device
    would slow that measurement down. Raises `UsageError` for a spec that does not fit the corpus or `Model`.
    Divergence is a result, not an error.
    """
    spec = records.from_json(RunSpec, records.to_json(spec))  # the digits that a file keeps are the digits that run
    check_spec(spec, corpus)
    where = pick_device(device)
    peak_flops = peak_flops or fastest_flops(str(where))
    documents = corpus.validation(spec.validation_tokens)
    tokens = [len(document) - 1 for document in documents]
    rate, attempts = spec.learning_rate, 1
    found = _attempt(spec, corpus, documents, where, rate, progress, peak_flops)
    if not found.good:
        rate, attempts = rate / 2, 2
        found = _attempt(spec, corpus, documents, where, rate, progress, peak_flops)
    if where.type == "cuda":
        torch.cuda.empty_cache()  # the memory is another worker's to use
    a, losses = spec.architecture, found.losses
    finite = len(losses) if np.isfinite(losses).all() else int(np.argmin(np.isfinite(losses)))
    speed = found.steps * spec.batch_sequences * spec.seq_len / found.seconds
    return RunResult(
        schema=SPEC_SCHEMA,
        spec=spec,
        status="finished" if found.good else "diverged",
        learning_rate=rate,
        attempts=attempts,
        loss=math.fsum(found.sums) / sum(tokens) if found.good else 0.0,
        document_losses=tuple(found.sums) if found.good else (),
        document_tokens=tuple(tokens) if found.good else (),
        train_losses=stretches(losses[:finite]),
        train_loads=stretches(found.loads[:finite]),
        epochs=spec.tokens / len(corpus.tokens),
        train_flops=float(a.flops_per_token(spec.seq_len, attention="full", logits=False) * spec.tokens),
        seconds=found.seconds,
        tokens_per_second=speed,
        mfu=speed * a.flops_per_token(spec.seq_len) / peak_flops if peak_flops else None,
        routing=found.routing,
        device=device_name(where),
        execution=found.execution,
        expert_products=found.expert_products,
        versions={"moeplan": moeplan.__version__, "torch": torch.__version__, "python": platform.python_version()},
    )


def stretches(values: np.ndarray) -> tuple[float, ...]:
    """Means over equal stretches, `TRAIN_LOSSES` at most."""
    parts = np.array_split(values, min(len(values), TRAIN_LOSSES)) if len(values) else []
    return tuple(float(part.mean()) for part in parts)


def diverged(losses: np.ndarray) -> bool:
    """Whether a run's losses are not all numbers, or the mean of the last twentieth is above the first."""
    if not np.isfinite(losses).all():
        return True
    return bool(losses[-max(1, len(losses) // 20) :].mean() > losses[0])
