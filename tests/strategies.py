"""Hypothesis strategies for valid architectures, alone and as the arrays that the search counts."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
from hypothesis import strategies as st

from moeplan.architecture.shape import Architecture

# Counting wants these the same over a whole array of shapes.
_SCALARS = ("attention", "qk_norm", "q_lora_rank")
_SIZE = st.integers(1, 700)


@st.composite
def _switches(draw: st.DrawFn) -> dict[str, object]:
    names = [f.name for f in dataclasses.fields(Architecture) if f.type == "bool"]
    return {name: draw(st.booleans()) for name in names} | {
        "attention": draw(st.sampled_from(["gqa", "mla"])),
        "qk_norm": draw(st.sampled_from(["none", "head", "full"])),
        "q_lora_rank": draw(st.sampled_from([0, 1, 200])),
    }


@st.composite
def _sizes(draw: st.DrawFn) -> dict[str, object]:
    num_layers, num_kv_heads = draw(st.integers(1, 9)), draw(st.integers(1, 12))
    fields = {name: draw(_SIZE) for name in ("d_model", "vocab_size", "head_dim", "d_ff")}
    fields |= {name: draw(_SIZE) for name in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")}
    fields |= {
        "num_layers": num_layers,
        "num_kv_layers": draw(st.integers(0, num_layers)),
        "num_kv_heads": num_kv_heads,
        "num_heads": num_kv_heads * draw(st.integers(1, 6)),
        "d_dense_residual": draw(st.integers(0, 300)),
        "norms_per_block": draw(st.integers(1, 4)),
        "num_final_norms": draw(st.integers(0, 2)),
        "num_mtp_layers": draw(st.integers(0, 2)),
    }
    if draw(st.booleans()):
        num_experts = draw(st.integers(1, 40))
        fields |= {
            "num_experts": num_experts,
            "num_active_experts": draw(st.integers(1, num_experts)),
            "d_expert": draw(_SIZE),
            "num_shared_experts": draw(st.integers(0, 3)),
            "d_shared_expert": draw(st.integers(0, 300)),
        }
        if draw(st.booleans()):
            pattern = draw(st.lists(st.booleans(), min_size=num_layers, max_size=num_layers))
            return fields | {"moe_layer_pattern": tuple(pattern)}
        return fields | {"num_dense_layers": draw(st.integers(0, num_layers))}
    return fields


@st.composite
def architecture_batches(draw: st.DrawFn) -> list[Architecture]:
    """One to five valid architectures, dense ones among them, that share their switches."""
    switches = draw(_switches())
    return [Architecture(**switches, **sizes) for sizes in draw(st.lists(_sizes(), min_size=1, max_size=5))]


def architectures() -> st.SearchStrategy[Architecture]:
    """A valid architecture."""
    return architecture_batches().map(lambda batch: batch[0])


def stack(batch: list[Architecture]) -> SimpleNamespace:
    """One shape whose sizes are int64 arrays over `batch`, as the search makes them."""
    fields = {}
    for f in dataclasses.fields(Architecture):
        values = [getattr(architecture, f.name) for architecture in batch]
        arrayed = f.type == "int" and f.name not in _SCALARS
        fields[f.name] = np.array(values, dtype=np.int64) if arrayed else values[0]
    return SimpleNamespace(**fields)
