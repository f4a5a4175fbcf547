"""Runs larger than memory: batches taken in micro-batches, text taken in chunks; the numbers are the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra verify is not installed")

from moeplan.architecture.shape import Architecture  # noqa: E402
from moeplan.verification import formats, train  # noqa: E402
from moeplan.verification.data import Corpus, cut, load_corpus, window_starts, windows  # noqa: E402
from moeplan.verification.footprint import MICRO_BYTES, kept_bytes, memory_bytes, micro_batches  # noqa: E402
from moeplan.verification.formats import read_documents  # noqa: E402
from moeplan.verification.train import Trainer, run  # noqa: E402
from tests.tiny import DENSE, MOE, corpus, sentences, spec  # noqa: E402

pytestmark = pytest.mark.verify
PARTS = ((5, 3), (3, 3, 2), (1,) * 8)
"""Ways to take 8 sequences."""


@pytest.fixture(scope="module")
def data() -> Corpus:
    """A text to learn."""
    return corpus()


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Sums in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(parts: tuple[int, ...], shape: Architecture, data: Corpus, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """A few steps in fp32, in these micro-batches."""
    monkeypatch.setattr(train, "micro_batches", lambda spec: parts)
    trainer = Trainer(spec(data, shape, batch_sequences=8, steps=12, precision="fp32"), data, torch.device("cpu"), 1e-2)
    for index in range(12):
        trainer.feed(index)
        trainer.step()
    return trainer


@pytest.mark.parametrize("shape", [MOE, DENSE], ids=["moe", "dense"])
@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_micro_batches_change_nothing_but_rounding(
    parts: tuple[int, ...], shape: Architecture, data: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses of every step, params and the router's biases of 12 steps are those of undivided batches: the mean is over
    the whole batch, the balance as well."""
    whole, divided = (trained(each, shape, data, monkeypatch) for each in ((8,), parts))
    torch.testing.assert_close(divided.losses, whole.losses, rtol=2e-5, atol=0)
    torch.testing.assert_close(divided.flat.master, whole.flat.master, rtol=0, atol=2e-4)
    torch.testing.assert_close(divided.bias_LE, whole.bias_LE)


def test_bf16_gradients_add_up_in_fp32(data: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """In eight parts the gradient of a bf16 model is as near to the fp32 model's as in one: within bf16's own error."""
    found = {}
    for precision, parts in (("fp32", (8,)), ("bf16", (8,)), ("bf16", (1,) * 8)):
        monkeypatch.setattr(train, "micro_batches", lambda spec, parts=parts: parts)
        trainer = Trainer(spec(data, MOE, batch_sequences=8, precision=precision), data, torch.device("cpu"), 1e-2)
        trainer._backward(trainer.data[0].long())
        found[precision, len(parts)] = trainer.flat.grad.clone()
    exact = found["fp32", 1]
    one, many = ((found["bf16", n] - exact).norm() / exact.norm() for n in (1, 8))
    assert many <= 1.2 * one


def test_text_comes_in_chunks(data: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that holds three steps' text at a time has the result of one that holds all of it, to the bit; none holds
    more than a chunk."""
    asked = spec(data, MOE, batch_sequences=4, steps=11, precision="fp32")
    whole = run(asked, data, device="cpu")
    monkeypatch.setattr(train, "CHUNK_TOKENS", 3 * asked.batch_sequences * asked.seq_len)
    assert Trainer(asked, data, torch.device("cpu"), 1e-2).data.shape[0] == 3
    chunked = run(asked, data, device="cpu")
    assert chunked.document_losses == whole.document_losses
    assert chunked.train_losses == whole.train_losses


def test_sequences_are_cut_where_they_start() -> None:
    """Windows taken a few at a time are those taken at once."""
    tokens = np.arange(1000, dtype=np.uint16)
    starts = window_starts(1000, 16, 100, seed=3)
    at_once = windows(tokens, 16, 100, 3)
    assert np.array_equal(np.concatenate([cut(tokens, part, 16) for part in np.split(starts, 4)]), at_once)


def token_file(path: Path, tokens: int) -> Path:
    """An llm.c file of so many ids: some random ones, and then a hole that takes no room on disk."""
    ids = np.random.default_rng(0).integers(0, 500, 400_000).astype(np.uint32)
    path.write_bytes(np.array([20240801, 7, tokens, *[0] * 253], np.int32).tobytes() + ids.tobytes())
    os.truncate(path, 1024 + 4 * tokens)
    return path


def test_more_than_two_to_the_thirty_tokens_are_read(tmp_path: Path) -> None:
    """A file of 1.2 billion ids is mapped, none of it left out."""
    found = read_documents(token_file(tmp_path / "long.bin", 1_200_000_000))
    assert len(found.tokens) == found.ends[-1] == 1_200_000_000 > 2**30
    assert not found.cut
    assert isinstance(found.tokens, np.memmap)


def test_a_long_text_is_spooled_as_it_would_be_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents of three files, held in memory or through a file, are one corpus, to the digest."""
    for number in range(3):
        lines = [json.dumps({"text": text.decode()}) for text in sentences(400, seed=number)]
        (tmp_path / f"{number}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    held = load_corpus(tmp_path)
    monkeypatch.setattr(formats, "IN_MEMORY", 1000)
    spooled = load_corpus(tmp_path)
    assert isinstance(spooled.tokens, np.memmap)
    assert not isinstance(held.tokens, np.memmap)
    assert spooled.digest == held.digest
    assert np.array_equal(spooled.tokens, held.tokens)


BOUNDED = """
import resource, sys
import numpy as np
from moeplan.verification.data import cut, load_corpus, window_starts
resource.setrlimit(resource.RLIMIT_DATA, (400_000_000, 400_000_000))
corpus = load_corpus(sys.argv[1])
starts = window_starts(len(corpus.tokens), 512, 100_000, 1)
assert cut(corpus.tokens, starts[-64:], 512).shape == (64, 513)
print(len(corpus.tokens))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory that is not mapped from files")
def test_memory_is_bounded_whatever_the_text(tmp_path: Path) -> None:
    """200 million ids, 800 MB, are read, split, digested and cut into sequences by a process that may hold half of
    that."""
    path = token_file(tmp_path / "long.bin", 200_000_000)
    done = subprocess.run([sys.executable, "-c", BOUNDED, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0.9 * 200_000_000


def realistic() -> Architecture:
    """A proxy of 1.5B params with the vocabulary of a real tokenizer."""
    return Architecture(
        d_model=1024, num_layers=12, vocab_size=131072, num_heads=16, num_kv_heads=16, head_dim=64, num_experts=64,
        num_active_experts=4, d_expert=512, num_dense_layers=1, d_ff=2048, qk_norm="head",
    )  # fmt: skip


def test_a_realistic_run_fits_one_gpu(data: Corpus) -> None:
    """A batch of 256 sequences of 4,096 tokens under a vocabulary of 131,072, and 20B tokens, takes less than 80 GB;
    at once it would take 2 TB. What is kept at a time is bounded, and depends on nothing but the spec."""
    asked = spec(data, realistic(), seq_len=4096, batch_sequences=256, steps=20_000, precision="bf16")
    parts = micro_batches(asked)
    assert sum(parts) == 256
    assert max(parts) - min(parts) <= 1
    assert max(parts) == 1 or kept_bytes(asked) * max(parts) * 4096 <= MICRO_BYTES
    assert memory_bytes(asked) < 60e9
    assert kept_bytes(asked) * 256 * 4096 > 2e12
    assert micro_batches(replace(asked, seed=7, learning_rate=1.0)) == parts


def test_small_runs_are_undivided(data: Corpus) -> None:
    """The ladders of minutes on a CPU take every batch at once."""
    assert micro_batches(spec(data, MOE, batch_sequences=32)) == (32,)
