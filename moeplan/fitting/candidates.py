"""Proxy runs that could be made: small realisable architectures at several computes, counted exactly.

Shapes come from the rules of the declared grid (`moeplan.plan.search.grid`) at small widths, one depth a width, with
the usual numbers of experts, and from dense models where the law covers them. Vocabulary, tying of embeddings and
sequence length are the target's: losses under two tokenizers do not compare. What the law does not see stays as near to
the target's own design as these shapes come.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moeplan.architecture.conventions import ARCHITECTURAL, Variables
from moeplan.architecture.proportions import dense_shape
from moeplan.architecture.shape import Architecture
from moeplan.errors import InfeasibleError
from moeplan.fitting.limits import RunLimits
from moeplan.laws import Fit
from moeplan.numerics import Floats, Indices
from moeplan.plan.search.designs import Designs
from moeplan.plan.search.grid import Grid

WIDTHS = (256, 384, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 4096)
"""Widths of proxy models [features]."""
ASPECT_RATIO = 80.0
"""d_model / num_layers of proxy models, inside the declared grid's range."""
EXPERTS = (8, 16, 32, 64, 128, 256)
"""Routed experts of a layer: usual numbers, which any trainer can spread over devices."""
ACTIVE_EXPERTS, SHARED_EXPERTS = (1, 2, 4, 8), (0, 1)
"""Experts that a token reaches, chosen and shared."""
GRANULARITY = (2.0, 4.0, 8.0, 16.0)
"""2*d_model/d_expert."""
HALVINGS = 8
"""The least compute of a proxy run is the most, halved so often."""
TOKENS_PER_PARAM = (3.0, 400.0)
"""Tokens per active param of a proxy run, about the range that published laws were fitted to: beyond both ends their
equations are the first to fail."""
ALIKE = 0.05
"""Runs whose variables all differ by less than about this in ln are one to the law."""


@dataclass(frozen=True)
class Candidates:
    """Runs that could be made, as arrays of one length (I,)."""

    shapes: tuple[Designs | Architecture, ...]
    """Where the architectures are: designs of one width, and dense models."""
    shape: Indices
    """Which of these each run's is in."""
    place: Indices
    """Its place there."""
    tokens: Floats
    """Training tokens."""
    train_flops: Floats
    """Compute [FLOPs], as moeplan counts budgets."""
    days: Floats
    """Days that it takes on the limits' GPUs, pauses included; 0 without GPUs."""
    variables: Floats
    """The law's variables in its own conventions, (V, I)."""

    def __len__(self) -> int:
        return len(self.tokens)

    def architecture(self, index: int) -> Architecture:
        """The exact shape of one run."""
        found = self.shapes[int(self.shape[index])]
        return found if isinstance(found, Architecture) else found.architecture(int(self.place[index]))


def make_candidates(fit: Fit, like: Architecture, seq_len: int, limits: RunLimits) -> Candidates:
    """Every run within `limits` that the law `fit` can speak of, and tells from all others.

    A run has the most compute that the limits give its shape, or that halved up to `HALVINGS` times. Of runs that are
    one to the law the one whose routing is nearest to `like` is kept. Raises `InfeasibleError` if no model is small
    enough.
    """
    shapes, parts = list(_shapes(fit, like)), []
    for number, designs in enumerate(shapes):
        v = Variables(designs, seq_len)
        per_token, active = (np.atleast_1d(v.get(name)) for name in ("flops_per_token", "active_params"))
        away = np.zeros(1) if isinstance(designs, Architecture) else _away(designs, like)
        allowed = limits.allows(designs, seq_len)
        speed = np.full(len(per_token), np.inf)
        if limits.gpus is not None and allowed.any():
            speed = limits.tokens_per_second(designs, seq_len, 0.5**HALVINGS)
            allowed = allowed & (speed > 0)
        most = limits.most_flops(per_token, speed)
        for part in 0.5 ** np.arange(HALVINGS + 1):
            tokens = np.floor(most * part / per_token)
            kept = allowed & (TOKENS_PER_PARAM[0] * active <= tokens) & (tokens <= TOKENS_PER_PARAM[1] * active)
            values = v.select(fit.variables, fit.conventions, tokens)
            days, numbers = limits.days_of(tokens, speed), np.full(len(tokens), number)
            rows = [numbers, np.arange(len(tokens)), tokens, per_token * tokens, days, away, *values]
            parts.append(np.stack(np.broadcast_arrays(*rows))[:, kept])
    found = np.concatenate(parts, axis=1) if parts else np.empty((6, 0))
    if not found.shape[1]:
        raise InfeasibleError(
            f"no proxy model is small enough for runs of at most {limits}; allow more with --max-flops, --max-params, "
            f"--max-memory, or --gpus and --days"
        )
    found = found[:, np.argsort(found[5], kind="stable")]
    with np.errstate(divide="ignore"):
        cells = np.where(found[6:] > 0, np.rint(np.log(np.maximum(found[6:], 1e-9)) / ALIKE), -1e9)
    _, first = np.unique(cells, axis=1, return_index=True)
    found = found[:, np.sort(first)]
    shape, place = (found[row].astype(np.intp) for row in (0, 1))
    tokens, train_flops, days = found[2:5]
    return Candidates(tuple(shapes), shape, place, tokens, train_flops, days, found[6:])


def _shapes(fit: Fit, like: Architecture) -> Iterator[Designs | Architecture]:
    experts = tuple(x for x in EXPERTS if fit.fixed.get("num_experts", x) == x) or (int(fit.fixed["num_experts"]),)
    grid = Grid(
        d_model=WIDTHS,
        aspect_ratio=(ASPECT_RATIO,),
        min_layers=2,
        num_experts=experts,
        num_active_experts=ACTIVE_EXPERTS,
        num_shared_experts=SHARED_EXPERTS,
        granularity=GRANULARITY,
        attention_width=(1.0, 1.0),
        attention_share=(0.0, 1.0),
        vocab_size=like.vocab_size,
        tied_embeddings=like.tied_embeddings,
    )
    for d_model in WIDTHS:
        block = grid.block(d_model)
        assert block is not None, "every width has designs"
        if fit.dense:
            yield dense_shape(d_model, block.architecture(0))
        kept, v = np.ones(len(block), dtype=bool), Variables(block, 1)
        for name, value in fit.fixed.items():
            if name in ARCHITECTURAL and name not in ("tokens", "train_flops", "tokens_per_param"):
                kept &= np.isclose(v.get(name, fit.convention(name)), value, rtol=ALIKE)
        if kept.any():
            yield block.take(kept)


def _away(designs: Designs, like: Architecture) -> Floats:
    """How far the routing of designs is from another's, in factors of e and shared experts."""
    far = np.abs(np.log(2 * designs.d_model / designs.d_expert / like.granularity))
    for name in ("num_active_experts", "num_experts"):
        far = far + np.abs(np.log(getattr(designs, name) / getattr(like, name)))
    return np.asarray(far + np.abs(designs.num_shared_experts - like.num_shared_experts), dtype=float)
