"""Data of proxy runs: every format read back, damage refused, the split by content. Needs torch: `pytest -m verify`."""

from __future__ import annotations

import gzip
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from moeplan.errors import UsageError
from moeplan.verification import text
from moeplan.verification.data import DOCUMENT_TOKENS, MAX_EPOCHS, load_corpus, split, windows
from moeplan.verification.formats import BLOCK_TOKENS, Documents, read_documents
from tests.tiny import documents, sentences

pytestmark = pytest.mark.verify

TEXTS = sentences(300)
IDS = np.random.default_rng(0).integers(0, 50257, 700_000).astype(np.uint16)
LENGTHS = [700, 1, 299, *[1000] * 699]


def texts_of(read: Documents) -> list[bytes]:
    """Its documents as bytes."""
    return [part.tobytes() for part in np.split(read.tokens, read.ends[:-1])]


def write_llmc(path: Path, ids: np.ndarray, magic: int = 20240520, version: int = 1) -> None:
    """llm.c's header and ids."""
    header = np.zeros(256, np.int32)
    header[:3] = magic, version, len(ids)
    path.write_bytes(header.tobytes() + ids.tobytes())


def write_megatron(prefix: Path, ids: np.ndarray, lengths: list[int], per_document: int = 1) -> None:
    """Megatron's pair of files; documents of `per_document` sequences."""
    codes = {np.dtype(np.uint8): 1, np.dtype(np.int32): 4, np.dtype(np.int64): 5, np.dtype(np.uint16): 8}
    ends = np.cumsum(lengths)
    starts = [*range(0, len(lengths), per_document), len(lengths)]
    prefix.with_suffix(".bin").write_bytes(ids.tobytes())
    prefix.with_suffix(".idx").write_bytes(
        b"MMIDIDX\0\0"
        + struct.pack("<QBQQ", 1, codes[ids.dtype], len(lengths), len(starts))
        + np.array(lengths, np.int32).tobytes()
        + ((ends - lengths) * ids.itemsize).astype(np.int64).tobytes()
        + np.array(starts, np.int64).tobytes()
    )


def test_nanogpt_is_read_back(tmp_path: Path) -> None:
    """uint16 ids without a header come back in blocks."""
    IDS.tofile(tmp_path / "train.bin")
    read = read_documents(tmp_path / "train.bin")
    assert np.array_equal(read.tokens, IDS)
    assert read.ends.tolist() == [*range(BLOCK_TOKENS, len(IDS), BLOCK_TOKENS), len(IDS)]
    assert not read.text
    assert load_corpus(tmp_path / "train.bin").vocab_size == int(IDS.max()) + 1


@pytest.mark.parametrize(("magic", "version", "kind"), [(20240520, 1, np.uint16), (20240801, 7, np.uint32)])
def test_llmc_is_read_back(tmp_path: Path, magic: int, version: int, kind: type) -> None:
    """The ids behind llm.c's header come back, in both of its types."""
    write_llmc(tmp_path / "a.bin", IDS.astype(kind), magic, version)
    assert np.array_equal(read_documents(tmp_path / "a.bin").tokens, IDS)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.int64])
@pytest.mark.parametrize("name", ["a.bin", "a.idx", "a"])
def test_megatron_is_read_back(tmp_path: Path, kind: type, name: str) -> None:
    """The pair comes back with its documents, named by either file or their prefix."""
    write_megatron(tmp_path / "a", IDS.astype(kind), LENGTHS)
    read = read_documents(tmp_path / name)
    assert np.array_equal(read.tokens, IDS)
    assert read.ends.tolist() == np.cumsum(LENGTHS).tolist()


def test_megatron_documents_of_several_sequences(tmp_path: Path) -> None:
    """A document ends where the document index says, not at each sequence."""
    write_megatron(tmp_path / "a", IDS.astype(np.int32), LENGTHS, per_document=2)
    assert read_documents(tmp_path / "a").ends.tolist() == np.cumsum(LENGTHS)[1::2].tolist()


def test_text_formats_are_read_back(tmp_path: Path) -> None:
    """.txt, .jsonl, .jsonl.gz and a folder give the bytes of their texts, and all but .txt their documents."""
    (tmp_path / "a.txt").write_bytes(b"".join(TEXTS))
    lines = "\n".join(json.dumps({"id": i, "text": text.decode()}) for i, text in enumerate(TEXTS))
    (tmp_path / "a.jsonl").write_text(lines + "\n\n", encoding="utf-8")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(json.dumps(text.decode()) for text in TEXTS))
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "no.txt").write_bytes(b"no")
    for i, content in enumerate(TEXTS):
        (folder / ("deep" if i % 2 else ".") / f"{i:04}.txt").write_bytes(content)
    assert read_documents(tmp_path / "a.txt").tokens.tobytes() == b"".join(TEXTS)
    assert texts_of(read_documents(tmp_path / "a.jsonl")) == TEXTS
    assert texts_of(read_documents(tmp_path / "b.jsonl.gz")) == TEXTS
    assert sorted(texts_of(read_documents(folder))) == sorted(TEXTS)
    # The split is by content: the same documents in another order are the same validation set.
    one, other = load_corpus(tmp_path / "a.jsonl"), load_corpus(folder)
    assert one.validation_tokens.tobytes() == other.validation_tokens.tobytes()
    assert one.vocab_size == 256
    assert one.text


def test_folder_of_token_files(tmp_path: Path) -> None:
    """A folder of token files is their ids in the order of their names; text beside them is refused."""
    IDS[:100_000].tofile(tmp_path / "a.bin")
    write_llmc(tmp_path / "b.bin", IDS[100_000:])
    assert np.array_equal(read_documents(tmp_path).tokens, IDS)
    (tmp_path / "readme.txt").write_text("words", encoding="utf-8")
    with pytest.raises(UsageError, match="mixes text and token ids"):
        read_documents(tmp_path)


@pytest.mark.parametrize("column", ["text", "content"])
def test_parquet_is_read_back(tmp_path: Path, column: str) -> None:
    """Rows of the text column are documents."""
    pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    import pyarrow.parquet as parquet

    table = pyarrow.table({"id": range(len(TEXTS)), column: [text.decode() for text in TEXTS]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert texts_of(read_documents(tmp_path / "a.parquet")) == TEXTS
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError, match="not a whole parquet file"):
        read_documents(tmp_path / "a.parquet")
    parquet.write_table(pyarrow.table({"words": [1, 2]}), tmp_path / "b.parquet")
    with pytest.raises(UsageError, match='no column "text" or "content"'):
        read_documents(tmp_path / "b.parquet")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pyarrow is missing the message says how to get it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"moeplan\[parquet\]"):
        read_documents(tmp_path / "a.parquet")


def cut(path: Path, size: int) -> None:
    """Keep the first bytes, or drop that many at the end."""
    content = path.read_bytes()
    path.write_bytes(content[:size])


def broken_megatron(path: Path, change: Callable[[Path], None]) -> Path:
    """A pair that `change` damages."""
    write_megatron(path / "m", IDS, LENGTHS)
    change(path / "m")
    return path / "m.bin"


def make(path: Path, content: bytes) -> Path:
    """A file of that content."""
    path.write_bytes(content)
    return path


def llmc_cut(path: Path) -> Path:
    """llm.c's file without its last id."""
    write_llmc(path / "a.bin", IDS)
    cut(path / "a.bin", -2)
    return path / "a.bin"


def gzip_cut(path: Path) -> Path:
    """Half of a compressed file."""
    whole = gzip.compress(b"\n".join(json.dumps({"text": text.decode()}).encode() for text in TEXTS))
    return make(path / "a.jsonl.gz", whole[: len(whole) // 2])


BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda p: p / "no.bin", "there is no such file or folder"),
    "unknown suffix": (lambda p: make(p / "a.pt", b"x"), "not a known kind of data"),
    "nothing": (lambda p: make(p / "a.bin", b""), "is empty"),
    "odd bytes": (lambda p: make(p / "a.bin", IDS.tobytes() + b"\1"), "odd number"),
    "text named .bin": (lambda p: make(p / "a.bin", b"these are words, not ids; " * 1000), "is text"),
    "gzip named .bin": (lambda p: make(p / "a.bin", gzip.compress(IDS.tobytes())), "is gzip"),
    "array named .bin": (lambda p: make(p / "a.bin", b"\x93NUMPY" + IDS.tobytes()), "NumPy array"),
    "llm.c cut": (llmc_cut, "damaged: its header promises"),
    "llm.c version": (lambda p: make(p / "a.bin", struct.pack("<3i", 20240520, 9, 0) + bytes(1012)), "version 9"),
    "bin missing": (
        lambda p: broken_megatron(p, lambda m: m.with_suffix(".bin").unlink()).with_suffix(".idx"),
        "is missing",
    ),
    "bin cut": (lambda p: broken_megatron(p, lambda m: cut(m.with_suffix(".bin"), -2)), "damaged or of another index"),
    "idx cut": (lambda p: broken_megatron(p, lambda m: cut(m.with_suffix(".idx"), -8)), "do not hold"),
    "idx header cut": (lambda p: broken_megatron(p, lambda m: cut(m.with_suffix(".idx"), 20)), "header is cut off"),
    "idx foreign": (
        lambda p: broken_megatron(p, lambda m: m.with_suffix(".idx").write_bytes(b"RIFF" * 40) and None),
        "no Megatron index",
    ),
    "no UTF-8": (lambda p: make(p / "a.txt", b"caf\xe9 " * 100_000), "not UTF-8 text"),
    "zero bytes": (lambda p: make(p / "a.txt", bytes(1000)), "zero byte"),
    "no JSON": (lambda p: make(p / "a.jsonl", b'{"text": "a"}\n{"text": \n'), "line 2 is not JSON"),
    "no text key": (lambda p: make(p / "a.jsonl", b'{"body": "a"}\n'), "line 1"),
    "gzip cut": (gzip_cut, "damaged after line"),
    "no gzip": (lambda p: make(p / "a.jsonl.gz", b'{"text": "a"}\n'), "damaged after line 0"),
    "no texts": (lambda p: make(p / "a.jsonl", b"\n\n"), "no text in it"),
    "empty folder": (lambda p: p, "no data in it"),
    "too small": (lambda p: make(p / "a.txt", b"a few words " * 100), "too small"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_damaged_and_foreign_data_is_refused(case: str, tmp_path: Path) -> None:
    """Each is one sentence that names the path and what is wrong."""
    build, message = BROKEN[case]
    path = build(tmp_path)
    with pytest.raises(UsageError, match=message) as caught:
        load_corpus(path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_negative_ids_are_refused(tmp_path: Path) -> None:
    """Ids of a signed type must not be negative."""
    ids = IDS.astype(np.int32)
    ids[7] = -1
    write_megatron(tmp_path / "a", ids, LENGTHS)
    with pytest.raises(UsageError, match="negative"):
        read_documents(tmp_path / "a")


def test_split_is_by_content() -> None:
    """Copies of a document land on one side, and a document stays on its side whatever else there is."""
    texts = sentences(500)
    few, many = split("x", documents(texts[:400])), split("x", documents([*texts, *texts[:100]]))
    held = {part.tobytes() for part in np.split(few.validation_tokens, few.validation_ends[:-1])}
    held_of_more = {part.tobytes() for part in np.split(many.validation_tokens, many.validation_ends[:-1])}
    assert held <= held_of_more
    assert 5 < len(held) < 40
    assert all(text not in many.tokens.tobytes() for text in held_of_more)
    assert few.digest != many.digest
    assert few.digest == split("y", documents(texts[:400])).digest


def test_long_documents_count_by_a_stretch() -> None:
    """No validation document is longer than 4,096 tokens, and each stretch stands in its document."""
    texts = [b"".join(sentences(20, seed)) for seed in range(200)]
    corpus = split("x", documents(texts))
    parts = corpus.validation(10**9)
    assert {len(part) for part in parts} == {DOCUMENT_TOKENS}
    assert all(any(part.tobytes() in text for text in texts) for part in parts)
    assert [len(part) for part in corpus.validation(5000)] == [DOCUMENT_TOKENS] * 2


def test_windows_are_one_pass_in_the_seeds_order() -> None:
    """An epoch has every window once; two seeds differ in their order; the targets follow the inputs by one."""
    tokens = np.arange(1001, dtype=np.uint16)
    one, other = windows(tokens, 10, 250, 1), windows(tokens, 10, 250, 2)
    assert sorted(one[:100, 0].tolist()) == list(range(0, 1000, 10))
    assert sorted(one[100:200, 0].tolist()) == list(range(0, 1000, 10))
    assert not np.array_equal(one, other)
    assert not np.array_equal(one[:100], one[100:200])
    assert np.array_equal(one[:, 1:] - one[:, :-1], np.ones((250, 10)))
    assert np.array_equal(windows(tokens, 10, 70, 1), one[:70])


def test_builtin_corpus_is_large_and_repeats() -> None:
    """The built-in corpus has over 40 MB of source, at least 100 validation documents, and the same digest again."""
    pytest.importorskip("torch", reason="the extra verify is not installed")
    corpus = load_corpus()
    assert corpus.max_tokens() == MAX_EPOCHS * len(corpus.tokens) > 4 * 40e6
    assert len(corpus.validation_ends) >= 100
    assert corpus.digest == load_corpus("builtin").digest
    assert b"def forward(self" in corpus.tokens[:40_000_000].tobytes()
    assert corpus.vocab_size == 256


def test_a_study_reads_its_text_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder keeps the corpus: a second look reads nothing, and a run gets the same tokens mapped from there."""
    source = tmp_path / "data"
    source.mkdir()
    for number, content in enumerate(TEXTS):
        (source / f"{number}.txt").write_bytes(content)
    whole = load_corpus(source)
    first = text.describe(str(source), tmp_path / "study")
    with monkeypatch.context() as patched:
        patched.setattr(text, "load_corpus", None)
        assert text.describe(str(source), tmp_path / "study") == first
        kept = text.corpus_of(str(source), first.digest, tmp_path / "study")
    assert isinstance(kept.tokens, np.memmap)
    assert np.array_equal(kept.tokens, whole.tokens)
    assert np.array_equal(kept.validation_tokens, whole.validation_tokens)
    assert np.array_equal(kept.validation_ends, whole.validation_ends)
    assert (kept.vocab_size, kept.text, kept.digest) == (whole.vocab_size, whole.text, whole.digest)
    (source / "0.txt").write_bytes(TEXTS[0] + b" more")
    assert text.describe(str(source), tmp_path / "study").digest != first.digest


@pytest.mark.parametrize("damage", ["torn", "changed", "gone"])
def test_a_damaged_kept_text_is_not_taken(tmp_path: Path, damage: str) -> None:
    """A kept corpus whose content is not that of its digest is passed over, and the source is read instead."""
    source = tmp_path / "data.bin"
    IDS.tofile(source)
    digest = text.describe(str(source), tmp_path).digest
    file = tmp_path / "text" / f"{digest}.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "torn" else content)
    found = text.corpus_of(str(source), digest, tmp_path)
    assert found.digest == digest
    assert not isinstance(found.tokens, np.memmap)
