"""A small grid that a plain loop can enumerate, and the laws to search it with."""

from __future__ import annotations

from moeplan.laws import load_law
from moeplan.plan.search.grid import Grid

LAWS = ("tian2025", "zhao2025", "ludziejewski2025", "abnar2025")
VOCAB = 32768


def small_grid(**changes: object) -> Grid:
    """About 800 designs from 20M to 300B params, one vocabulary, tied embeddings."""
    axes: dict[str, object] = {
        "d_model": (512, 1024, 2048, 4096, 6144),
        "aspect_ratio": (64, 96),
        "num_experts": (16, 64, 256),
        "num_active_experts": (4, 8),
        "num_shared_experts": (0, 1),
        "granularity": (2.0, 4.0, 8.0, 16.0),
        "attention_width": (1.0, 1.0),
        "vocab_size": VOCAB,
        "tied_embeddings": True,
    }
    return Grid(**{**axes, **changes})  # type: ignore[arg-type]


def laws(*names: str):
    """The laws called `names`, by default the four of the default objective."""
    return [load_law(name) for name in names or LAWS]
