"""The text of a study, kept in its folder: read and split once, then mapped into memory by every run.

Two things are kept under `text/`: the corpus itself, named by its digest, and, named by a fingerprint of the source's
files (paths, sizes, times of change), what a ladder must know of it. So a second call reads no text, and a worker
starts at once. A corpus is only taken if its content has the digest it is named by.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from moeplan import records
from moeplan.errors import UsageError
from moeplan.files import atomic_write, check_read, temporary_beside
from moeplan.verification.data import Corpus, digest_of, load_corpus, source_files
from moeplan.verification.ladder import Data

_SCHEMA = "moeplan.text/1"


def describe(source: str, folder: Path) -> Data:
    """The text of `source` in numbers, for a ladder; reads it only if `folder` does not keep it.

    Raises `UsageError` for data that cannot be read or is too small, and for a folder that cannot be written.
    """
    known = folder / "text" / f"{fingerprint(source)}.json"
    try:
        data = records.from_json(Data, json.loads(known.read_text(encoding="utf-8")))
        if _paths(folder, data.digest)[0].exists():
            return data
    except (OSError, ValueError, UsageError):  # none yet, or torn: the text is read again
        pass
    corpus = load_corpus(source)
    data = Data(source, corpus.digest, int(corpus.vocab_size), len(corpus.tokens))
    _keep(corpus, folder)
    with atomic_write(known) as file:
        file.write(json.dumps(records.to_json(data)) + "\n")
    return data


def corpus_of(source: str, digest: str, folder: str | Path | None) -> Corpus:
    """The corpus with that digest, mapped from `folder` if it is kept there, else read from `source`."""
    kept = _kept(source, digest, Path(folder)) if folder is not None else None
    return kept or load_corpus(source)


def fingerprint(source: str) -> str:
    """SHA-256 of paths, sizes and times of change of all files of a source, first 16 hex digits."""
    digest = hashlib.sha256(_SCHEMA.encode())
    for path in source_files(source):
        check_read(path)
        with suppress(OSError):  # what is missing is said when it is read
            state = os.stat(path)
            digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _paths(folder: Path, digest: str) -> tuple[Path, Path]:
    return folder / "text" / f"{digest}.npy", folder / "text" / f"{digest}.npz"


def _keep(corpus: Corpus, folder: Path) -> None:
    """Write a corpus; the tokens, which say that it is whole, come last."""
    tokens, rest = _paths(folder, corpus.digest)
    try:
        tokens.parent.mkdir(parents=True, exist_ok=True)
        _write(
            rest,
            lambda file: np.savez(
                file,
                validation_tokens=corpus.validation_tokens,
                validation_ends=corpus.validation_ends,
                others=[corpus.vocab_size, corpus.text, corpus.num_documents, corpus.cut],
            ),
        )
        _write(tokens, lambda file: np.save(file, corpus.tokens))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {(error.strerror or str(error)).lower()}") from None


def _write(path: Path, fill: Callable[[IO[bytes]], None]) -> None:
    temporary = temporary_beside(path)
    try:
        with temporary.open("xb") as file:
            fill(file)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _kept(source: str, digest: str, folder: Path) -> Corpus | None:
    tokens, rest = _paths(folder, digest)
    try:
        train = np.load(tokens, mmap_mode="r")
        with np.load(rest) as more:
            validation, ends = more["validation_tokens"], more["validation_ends"]
            vocab_size, text, documents, cut = more["others"].tolist()
    except (OSError, ValueError, KeyError, EOFError):
        return None
    if digest_of(train, validation, ends) != digest:
        return None
    return Corpus(source, digest, vocab_size, bool(text), train, validation, ends, documents, bool(cut))
