"""Tiny proxies, a corpus that is quick to make, and specs over them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from moeplan.architecture.shape import Architecture
from moeplan.verification.data import Corpus, split
from moeplan.verification.formats import Documents
from moeplan.verification.spec import RunSpec

DENSE = Architecture(
    d_model=32, num_layers=2, vocab_size=256, num_heads=2, num_kv_heads=1, head_dim=16, d_ff=64, qk_norm="head"
)
MOE = Architecture(
    d_model=32, num_layers=2, vocab_size=256, num_heads=2, num_kv_heads=1, head_dim=16, d_ff=96, num_experts=8,
    num_active_experts=2, d_expert=16, num_shared_experts=1, num_dense_layers=1, qk_norm="head",
)  # fmt: skip


def sentences(count: int = 400, seed: int = 0) -> list[bytes]:
    """Documents of a small language: words from a list in an order that repeats often enough to be learnt."""
    pick = np.random.default_rng(seed)
    words = [bytes(pick.integers(97, 123, pick.integers(2, 9)).astype(np.uint8)) for _ in range(60)]
    following = pick.integers(0, 60, (60, 3))
    made = []
    for _ in range(count):
        word, text = int(pick.integers(60)), []
        for _ in range(int(pick.integers(60, 160))):
            text.append(words[word])
            word = int(following[word, pick.integers(3)])
        made.append(b" ".join(text) + b".\n")
    return made


def documents(texts: list[bytes]) -> Documents:
    """Texts as documents of bytes."""
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    return Documents(np.frombuffer(b"".join(texts), np.uint8), ends, text=True)


def corpus() -> Corpus:
    """About 240 kB of the small language."""
    return split("tiny", documents(sentences()))


def spec(data: Corpus, architecture: Architecture = MOE, **changes: Any) -> RunSpec:
    """A run of a second or less."""
    is_moe = not architecture.is_dense
    made = RunSpec(
        arm="moe" if is_moe else "dense",
        control="",
        rung="tiny/d32",
        purpose="measure",
        architecture=architecture,
        embedding_parts=1,
        seq_len=64,
        batch_sequences=4,
        steps=30,
        learning_rate=1e-2,
        warmup_steps=5,
        weight_decay=0.1,
        balance_rate=1e-2 if is_moe else 0.0,
        frozen_router=False,
        seed=1,
        precision="fp32",
        data=data.name,
        data_digest=data.digest,
        validation_tokens=4000,
    )
    return replace(made, **changes)
