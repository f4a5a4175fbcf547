"""Readers of training data: each gives `Documents`, the tokens of a file or folder and where its documents end.

Text is read as its UTF-8 bytes (256 tokens, no tokenizer); token files keep their ids. Formats without documents
become blocks of `BLOCK_TOKENS`. Nothing here imports torch.

| what | documents |
|---|---|
| nanoGPT .bin: uint16 ids, no header | blocks |
| llm.c .bin: int32[256] header (magic 20240520, version, tokens), then uint16 ids | blocks |
| Megatron .bin + .idx: lengths, pointers and document index (MMIDIDX) | its own |
| .txt | blocks |
| .jsonl, .jsonl.gz: an object with "text" (or "content"), or a string, a line | lines |
| .parquet: a column "text" (or "content") | rows |
| folder: every file in it by these rules, in the order of their relative paths | files, lines, rows |
"""

from __future__ import annotations

import gzip
import json
import struct
import tempfile
import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from moeplan.errors import UsageError
from moeplan.files import LARGEST, open_source

Tokens = NDArray[Any]

BYTE_VALUES = 256
"""Different tokens of text."""
BLOCK_TOKENS = 2048
"""Length of a document where a format has none."""
MAX_TOKENS = 2**36
"""Tokens that are read at most; more than anything that proxies are trained on."""
UNPACKED, PACKED = 2**30, 20
"""Bytes of text that a file may unpack to in any case, and in units of its own size: prose packs to a tenth."""
IN_MEMORY = 2**26
"""Bytes that are held in memory; more go to a file in the folder for temporary ones."""
TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py", ".c", ".h", ".cc", ".cpp", ".java", ".js", ".ts", ".go", ".rs", ".tex",
                 ".html", ".xml", ".json", ".yaml", ".yml", ".csv", ".tsv")  # fmt: skip
"""Names of text files inside a folder; each file is one document."""
TEXT_KEYS = ("text", "content")
"""Where JSON lines and parquet files keep the text."""
LLMC_HEADER = {20240520: (1, np.uint16), 20240801: (7, np.uint32)}
"""First word of llm.c's header: version and type of the ids (llm.c, dev/data/data_common.py)."""
MEGATRON_MAGIC = b"MMIDIDX\x00\x00"
MEGATRON_TYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}
"""Codes of integer types in a Megatron .idx (6 and 7 are floats, which are no ids)."""
_FOREIGN = {b"\x1f\x8b": "gzip", b"PK": "zip", b"\x7fELF": "a program", b"GGUF": "GGUF weights",
            b"\x93NUMPY": "a NumPy array", b"PAR1": "parquet", MEGATRON_MAGIC: "a Megatron index"}  # fmt: skip


class Spool:
    """Bytes one after the other: in memory while they are few, then in a file without a name, mapped for reading."""

    def __init__(self) -> None:
        self.size = 0
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY, prefix="moeplan-")  # noqa: SIM115  # see __del__

    def __del__(self) -> None:
        self._file.close()  # what is mapped of it stays until nobody uses it

    def add(self, part: bytes | Tokens) -> None:
        """Add text, or ids of one type."""
        if len(part):
            self.size += self._file.write(
                part if isinstance(part, bytes) else np.ascontiguousarray(part).data.cast("B")
            )

    def tokens(self, kind: Any) -> Tokens:
        """All that was added, as ids of a type."""
        if self.size > IN_MEMORY:
            self._file.flush()
            return np.memmap(cast(IO[bytes], self._file), kind, "r")
        self._file.seek(0)
        return np.frombuffer(self._file.read(), kind)


@dataclass(frozen=True, eq=False)
class Documents:
    """Tokens of a data source and where each document ends."""

    tokens: Tokens
    """All ids one after the other, in an unsigned type."""
    ends: NDArray[np.int64]
    """Index behind the last token of each document, rising."""
    text: bool
    """Whether a token is a byte of text."""
    cut: bool = False
    """Whether there was more than `MAX_TOKENS`."""


def read_documents(path: Path) -> Documents:
    """The documents of a file, or of all files of a folder.

    Raises `UsageError` with the path for anything missing, unreadable, damaged, empty or in a format that is not
    listed above.
    """
    try:
        if path.is_dir():
            return _folder(path)
        if not path.exists() and not any(each.exists() for each in _indexes(path)):
            raise UsageError(f"{path}: there is no such file or folder of data")
        return _file(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None


def _file(path: Path) -> Documents:
    name = path.name.lower()
    if name.endswith(".idx") or any(each.exists() for each in _indexes(path)):
        return _megatron(path)
    if name.endswith(".bin"):
        return _token_file(path)
    if name.endswith((".jsonl", ".jsonl.gz")):
        return _from_texts(_json_lines(path), path)
    if name.endswith(".parquet"):
        return _from_texts(_parquet(path), path)
    if name.endswith(TEXT_SUFFIXES):
        return _blocks(np.frombuffer(_text(path), np.uint8), path, text=True)
    raise UsageError(
        f"{path}: not a known kind of data; give a .bin (nanoGPT, llm.c, Megatron), .txt, .jsonl, .jsonl.gz or "
        ".parquet file, or a folder of them"
    )


def _indexes(path: Path) -> list[Path]:
    """Where the index of a Megatron set of that name would be: it is named by its .bin or by the common prefix."""
    return [path.with_suffix(".idx")] if path.suffix == ".bin" else [path.with_name(path.name + ".idx")]


def _blocks(tokens: Tokens, path: Path, *, text: bool) -> Documents:
    if not len(tokens):
        raise UsageError(f"{path}: is empty; give a file with at least a few hundred thousand tokens")
    cut = len(tokens) > MAX_TOKENS
    tokens = tokens[:MAX_TOKENS]
    ends = np.append(np.arange(BLOCK_TOKENS, len(tokens), BLOCK_TOKENS), len(tokens)).astype(np.int64)
    return Documents(tokens, ends, text, cut)


def _text(path: Path) -> bytes:
    with open_source(path) as file:
        content = file.read()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text (byte {error.start}); convert it first") from None
    if b"\0" in content:
        raise UsageError(f"{path}: is not text (it has a zero byte at {content.index(0)})")
    return content


def _from_texts(texts: Iterator[bytes], path: Path) -> Documents:
    spool, ends, cut = Spool(), array("q"), False
    most = min(MAX_TOKENS, max(UNPACKED, PACKED * path.stat().st_size))
    for text in texts:
        if spool.size + len(text) > most:
            cut = True
            break
        if text:
            spool.add(text)
            ends.append(spool.size)
    if not ends:
        raise UsageError(f"{path}: has no text in it")
    return Documents(spool.tokens(np.uint8), np.array(ends, np.int64), True, cut)


def _json_lines(path: Path) -> Iterator[bytes]:
    number = 0
    try:
        with open_source(path) as source, gzip.open(source) if path.suffix == ".gz" else source as file:
            while line := file.readline(LARGEST + 1):
                number += 1
                if len(line) > LARGEST:
                    raise UsageError(f"{path}: line {number} is over {LARGEST / 1e6:g} MB, far more than a document")
                if line.strip():
                    yield _json_text(json.loads(line))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UsageError(f"{path}: damaged after line {number}: {str(error).lower()}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: line {number} is not JSON with a text: {error}") from None


def _json_text(value: object) -> bytes:
    if isinstance(value, dict):
        value = next((value[key] for key in TEXT_KEYS if key in value), None)
    if not isinstance(value, str):
        raise ValueError('it must be a string or an object with a string "text" or "content"')
    return value.encode("utf-8", errors="replace")


def _parquet(path: Path) -> Iterator[bytes]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise UsageError(
            f"{path}: reading parquet needs pyarrow; install it by pip install 'moeplan[parquet]'"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            column = next((key for key in TEXT_KEYS if key in file.schema_arrow.names), None)
            kind = file.schema_arrow.field(column).type if column else None
            if kind is None or not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                names = ", ".join(file.schema_arrow.names[:8])
                raise UsageError(f'{path}: has no column "text" or "content" of strings; it has {names}')
            for batch in file.iter_batches(columns=[column]):
                for value in batch.column(0).to_pylist():
                    if value is not None:
                        yield value.encode("utf-8", errors="replace")
    except (pyarrow.ArrowException, OSError) as error:
        raise UsageError(f"{path}: is not a whole parquet file: {str(error).splitlines()[0]}") from None


def _token_file(path: Path) -> Documents:
    """nanoGPT's or llm.c's .bin."""
    size = path.stat().st_size
    with open_source(path) as file:
        head = file.read(65536)
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            raise UsageError(f"{path}: is {what}, not a file of token ids")
    if len(head) >= 12 and (first := struct.unpack("<3i", head[:12]))[0] in LLMC_HEADER:
        version, kind = LLMC_HEADER[first[0]]
        if first[1] != version:
            raise UsageError(f"{path}: llm.c file of version {first[1]}, known is {version}")
        wanted = 1024 + first[2] * np.dtype(kind).itemsize
        if first[2] < 0 or size != wanted:
            raise UsageError(
                f"{path}: damaged: its header promises {first[2]} tokens ({wanted} bytes), it has {size} bytes"
            )
        return _blocks(np.memmap(path, kind, "r", 1024) if first[2] else np.empty(0, kind), path, text=False)
    if size % 2:
        raise UsageError(f"{path}: damaged or no file of uint16 token ids: {size} bytes is an odd number")
    if head and sum(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head) > 0.99 * len(head):
        raise UsageError(f"{path}: is text, not token ids; name it .txt")
    return _blocks(np.memmap(path, np.uint16, "r") if size else np.empty(0, np.uint16), path, text=False)


def _megatron(path: Path) -> Documents:
    """Megatron's pair, by the name of either file or by their common prefix."""
    prefix = path.with_suffix("") if path.suffix in (".bin", ".idx") else path
    index, data = (prefix.with_name(prefix.name + suffix) for suffix in (".idx", ".bin"))
    for file in (index, data):
        if not file.exists():
            raise UsageError(f"{file}: is missing; a Megatron data set is a .bin and a .idx of one name")
    with open_source(index) as opened:
        content = opened.read()
    if not content.startswith(MEGATRON_MAGIC):
        raise UsageError(f"{index}: is no Megatron index (it does not start with MMIDIDX)")
    try:
        version, code, sequences, entries = struct.unpack_from("<QBQQ", content, len(MEGATRON_MAGIC))
    except struct.error:
        raise UsageError(f"{index}: damaged: its header is cut off") from None
    if version != 1 or code not in MEGATRON_TYPES:
        raise UsageError(f"{index}: version {version} with type {code}; known is version 1 with types of whole numbers")
    start = len(MEGATRON_MAGIC) + struct.calcsize("<QBQQ")
    if len(content) < start + 12 * sequences + 8 * entries:  # multimodal sets append one more byte a sequence
        raise UsageError(
            f"{index}: damaged: {len(content)} bytes do not hold {sequences} sequences, {entries} documents"
        )
    kind = np.dtype(MEGATRON_TYPES[code])
    lengths = np.frombuffer(content, np.int32, sequences, start).astype(np.int64)
    pointers = np.frombuffer(content, np.int64, sequences, start + 4 * sequences)
    document_starts = np.frombuffer(content, np.int64, entries, start + 12 * sequences)
    ends = np.cumsum(lengths)
    size = data.stat().st_size
    total = int(ends[-1]) if sequences else 0
    if (lengths < 0).any() or size != total * kind.itemsize or (pointers != (ends - lengths) * kind.itemsize).any():
        raise UsageError(
            f"{data}: damaged or of another index: {size} bytes, the index tells of {total} tokens in a row"
        )
    if not entries or document_starts[0] or document_starts[-1] != sequences or (np.diff(document_starts) < 0).any():
        raise UsageError(f"{index}: damaged: its document index does not run from 0 to {sequences}")
    if not total:
        raise UsageError(f"{data}: is empty")
    tokens = np.memmap(data, kind, "r")[:MAX_TOKENS]
    if kind.kind == "i":
        if tokens.min() < 0:
            raise UsageError(f"{data}: has negative token ids")
        tokens = tokens.view(f"u{kind.itemsize}") if kind.itemsize < 8 else tokens.astype(np.uint32)
    document_ends = ends[document_starts[1:] - 1] if len(document_starts) > 1 else ends[-1:]
    document_ends = np.unique(np.minimum(document_ends, len(tokens)))
    return Documents(tokens, document_ends[document_ends > 0], False, total > MAX_TOKENS)


def _folder(path: Path) -> Documents:
    files = sorted(
        (
            each
            for each in path.rglob("*")
            if each.is_file() and not any(p.startswith(".") for p in each.relative_to(path).parts)
        ),
        key=lambda each: each.relative_to(path).as_posix(),
    )
    read: dict[str, Callable[[Path], Documents]] = {".bin": _file, ".gz": _file, ".jsonl": _file, ".parquet": _file}
    found: list[Documents] = []
    total = 0
    for file in files:
        suffix = file.suffix.lower()
        if suffix in read and (suffix != ".gz" or file.name.lower().endswith(".jsonl.gz")):
            found.append(read[suffix](file))
        elif suffix in TEXT_SUFFIXES and file.stat().st_size:
            found.append(_from_texts(iter([_text(file)]), file))
        else:
            continue
        total += len(found[-1].tokens)
        if total > MAX_TOKENS:
            break
    if not found:
        raise UsageError(
            f"{path}: the folder has no data in it; known are .bin, .jsonl, .jsonl.gz, .parquet and text files"
        )
    if len({each.text for each in found}) > 1:
        raise UsageError(f"{path}: the folder mixes text and token ids; give it one kind")
    shifts = np.cumsum([0, *(len(each.tokens) for each in found[:-1])])
    ends = np.concatenate([each.ends + shift for each, shift in zip(found, shifts, strict=True)])
    kind, spool = np.result_type(*(each.tokens for each in found)), Spool()
    for each in found:
        for start in range(0, len(each.tokens), IN_MEMORY):
            spool.add(each.tokens[start : start + IN_MEMORY].astype(kind, copy=False))
    return _cut(Documents(spool.tokens(kind), ends, found[0].text, found[-1].cut))


def _cut(documents: Documents) -> Documents:
    if len(documents.tokens) <= MAX_TOKENS:
        return documents
    ends = documents.ends[documents.ends <= MAX_TOKENS]
    return Documents(documents.tokens[: ends[-1]], ends, documents.text, True)
