"""Training data: `load_corpus` reads text or token files and splits their documents into training and validation.

The built-in corpus is Python source code as bytes, which every machine with torch has: the standard library and torch
itself. A document goes to validation by a hash of its content, never by its place, so that the split survives any
change elsewhere in the data and copies of a file land on one side.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moeplan.errors import UsageError
from moeplan.verification.formats import MAX_TOKENS, Documents, Spool, Tokens, read_documents

BUILTIN = "builtin"
"""Name of the corpus that needs no data of one's own."""
MAX_EPOCHS = 4
"""Repeats up to here are worth about as much as new tokens (Muennighoff et al. 2023, arXiv 2305.16264, section 6)."""
VALIDATION_SHARE = 0.05
"""Share of the documents that are kept for validation."""
DOCUMENT_TOKENS = 4096
"""A longer validation document counts by one stretch of this length at a place its hash picks, so that no file
outweighs the others."""
MIN_TRAIN_TOKENS = 100_000
"""Fewer training tokens teach the smallest proxy nothing that lasts for 4 epochs."""
MAX_VALIDATION_DOCUMENTS = 2**16
"""Documents that are kept for validation at most: a hundred times as many as a run reads."""
MIN_VALIDATION_DOCUMENTS = 8
"""Fewer documents make no interval."""
_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True, eq=False)
class Corpus:
    """Tokens to train and validate on."""

    name: str
    """builtin, or the path that it was read from."""
    digest: str
    """SHA-256 of training and validation tokens and of where documents end, first 16 hex digits."""
    vocab_size: int
    """Largest id + 1; 256 for text."""
    text: bool
    """Whether a token is a byte of text: losses / ln 2 are bits per byte then."""
    tokens: Tokens
    """Training tokens, document after document."""
    validation_tokens: Tokens
    """Validation tokens, document after document, in the order of their hashes."""
    validation_ends: NDArray[np.int64]
    """Index behind the last token of each validation document."""
    num_documents: int
    """Documents in all."""
    cut: bool
    """Whether the data was longer than what is read at most (`MAX_TOKENS`)."""

    def max_tokens(self, epochs: float = MAX_EPOCHS) -> int:
        """Most training tokens of a run that repeats the data at most `epochs` times."""
        return int(epochs * len(self.tokens))

    def validation(self, tokens: int) -> list[Tokens]:
        """The first validation documents with at least `tokens` tokens together; all of them if they have fewer."""
        last = int(np.searchsorted(self.validation_ends, tokens)) + 1
        ends = self.validation_ends[:last]
        return np.split(self.validation_tokens[: ends[-1]], ends[:-1])


def load_corpus(source: str | Path = BUILTIN) -> Corpus:
    """The corpus called builtin, or that of a file or folder (`moeplan.verification.formats` lists what it can be).

    Raises `UsageError` for data that is missing, damaged, empty, too small or in an unknown format.
    """
    documents = _builtin() if str(source) == BUILTIN else read_documents(Path(source))
    return split(str(source), documents)


def split(name: str, documents: Documents) -> Corpus:
    """Documents as a corpus; raises `UsageError` if there are too few."""
    train, num_train = Spool(), 0
    held: list[tuple[bytes, Tokens]] = []
    threshold = int(VALIDATION_SHARE * 2**32)
    seen: set[bytes] = set()
    start = 0
    for end in documents.ends.tolist():
        tokens = documents.tokens[start:end]
        start = end
        name_of = hashlib.blake2b(tokens.tobytes(), digest_size=16).digest()
        if int.from_bytes(name_of[:4], "little") >= threshold:
            train.add(tokens)
            num_train += len(tokens)
        elif name_of not in seen and len(tokens) > 1:
            seen.add(name_of)
            held.append((name_of, tokens))
    if num_train < MIN_TRAIN_TOKENS or len(held) < MIN_VALIDATION_DOCUMENTS:
        raise UsageError(
            f"{name}: too small: {num_train:,} training tokens and {len(held)} validation documents, the least is "
            f"{MIN_TRAIN_TOKENS:,} and {MIN_VALIDATION_DOCUMENTS} (1 document in {round(1 / VALIDATION_SHARE)})"
        )
    held.sort(key=lambda pair: pair[0])
    stretches = [_stretch(name_of, tokens) for name_of, tokens in held[:MAX_VALIDATION_DOCUMENTS]]
    train_tokens, validation_tokens = train.tokens(documents.tokens.dtype), np.concatenate(stretches)
    ends = np.cumsum([len(tokens) for tokens in stretches], dtype=np.int64)
    return Corpus(
        name=name,
        digest=digest_of(train_tokens, validation_tokens, ends),
        vocab_size=256 if documents.text else int(max(train_tokens.max(), validation_tokens.max())) + 1,
        text=documents.text,
        tokens=train_tokens,
        validation_tokens=validation_tokens,
        validation_ends=ends,
        num_documents=len(documents.ends),
        cut=documents.cut,
    )


def digest_of(tokens: Tokens, validation_tokens: Tokens, validation_ends: NDArray[np.int64]) -> str:
    """`Corpus.digest` of these arrays."""
    digest = hashlib.sha256()
    for part in (tokens, validation_tokens, validation_ends):
        digest.update(str(part.dtype).encode())
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()[:16]


def source_files(source: str | Path) -> list[Path]:
    """Every file that a source is read from, in order; the source itself where there is none."""
    if str(source) == BUILTIN:
        return list(_sources())
    path = Path(source)
    if path.is_dir():
        return sorted(each for each in path.rglob("*") if each.is_file())
    return [path, *(path.with_name(path.name.removesuffix(path.suffix) + end) for end in (".bin", ".idx"))]


def _stretch(name_of: bytes, tokens: Tokens) -> Tokens:
    room = len(tokens) - DOCUMENT_TOKENS
    if room <= 0:
        return tokens
    start = int.from_bytes(name_of[4:12], "little") % (room + 1)
    return tokens[start : start + DOCUMENT_TOKENS]


def _builtin() -> Documents:
    parts = [content for content in (path.read_bytes() for path in _sources()) if content]
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    return Documents(np.frombuffer(b"".join(parts), np.uint8)[:MAX_TOKENS], ends, text=True)


def _sources() -> Iterator[Path]:
    """Every .py file of the standard library and of torch, by relative path, each root in turn."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("verify needs torch; install it by pip install 'moeplan[verify]'")
    for root in (Path(sysconfig.get_paths()["stdlib"]), Path(next(iter(spec.submodule_search_locations)))):
        found: list[str] = []
        for folder, inner, names in os.walk(root):
            inner[:] = [name for name in inner if name not in _SKIPPED_FOLDERS]
            found += [os.path.join(folder, name) for name in names if name.endswith(".py")]
        for path in sorted(found, key=lambda each: os.path.relpath(each, root).replace(os.sep, "/")):
            yield Path(path)


def windows(tokens: Tokens, seq_len: int, count: int, seed: int) -> Tokens:
    """`count` training sequences (count, seq_len + 1) in the order of `seed`; the last token of one starts the next."""
    return cut(tokens, window_starts(len(tokens), seq_len, count, seed), seq_len)


def window_starts(num_tokens: int, seq_len: int, count: int, seed: int) -> NDArray[np.int64]:
    """Where the training sequences of a run start, (count,).

    The data is cut into windows once; each epoch is a permutation of them that depends on the seed and its number
    alone, so that runs of one seed and sequence length see the same sequences in the same order.
    """
    available = (num_tokens - 1) // seq_len
    picks: list[NDArray[np.int64]] = []
    for epoch in range(-(-count // available)):
        picks.append(np.random.default_rng((seed, epoch)).permutation(available))
    return np.concatenate(picks)[:count] * seq_len


def cut(tokens: Tokens, starts: NDArray[np.int64], seq_len: int) -> Tokens:
    """The sequences (count, seq_len + 1) that start there; only these are read of tokens mapped from a file."""
    made: Tokens = np.lib.stride_tricks.sliding_window_view(tokens, seq_len + 1)[starts]
    return made
