"""The published laws: files, reader, equations. `load_law("zhao2025")` gives one; `law_names()` lists them."""

from __future__ import annotations

import atexit
import dataclasses
import difflib
import functools
import os
import re
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

from moeplan.errors import LawError
from moeplan.laws.file import read_law
from moeplan.laws.law import Citation, Covariance, Fit, Law, Outside, PaperTable, ResidualError, Uncertainty

__all__ = [
    "Citation",
    "Covariance",
    "Fit",
    "Law",
    "Outside",
    "PaperTable",
    "ResidualError",
    "Uncertainty",
    "law_names",
    "load_law",
    "read_law",
]

ENVIRONMENT = "MOEPLAN_LAWS"
"""Environment variable that names a folder with a user's own law files."""


@functools.cache
def _bundled_folder() -> Path:
    """The bundled laws: inside the installed package, or the checkout's `laws/` folder."""
    packaged = resources.files("moeplan.laws") / "bundled"
    if not packaged.is_dir():
        return Path(__file__).resolve().parent.parent.parent / "laws"
    if isinstance(packaged, Path):
        return packaged
    # A zipped wheel has no paths on disk, and `as_file` takes no folder before Python 3.12.
    unpacked = TemporaryDirectory(prefix="moeplan-laws-")
    atexit.register(unpacked.cleanup)
    for file in packaged.iterdir():
        (Path(unpacked.name) / file.name).write_bytes(file.read_bytes())
    return Path(unpacked.name)


@functools.cache
def _bundled_files() -> dict[str, Path]:
    """The bundled law files by name."""
    return _in_folder(_bundled_folder())


def _in_folder(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _files() -> dict[str, Path]:
    """Every law file by name; a user's folder adds to the bundled ones and wins over them."""
    own = os.environ.get(ENVIRONMENT)
    if own:
        folder = Path(own)
        if not folder.is_dir():
            raise LawError(f"{ENVIRONMENT} is {own!r}, which is not a folder")
        return _bundled_files() | _in_folder(folder)
    return _bundled_files()


def _read(path: Path) -> Law:
    """A law file, parsed once for as long as it stays the same."""
    try:
        state = path.stat()
    except OSError:
        return read_law(path)
    return _parse(path, state.st_ino, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=64)
def _parse(path: Path, *_: int) -> Law:
    return read_law(path)


def law_names() -> tuple[str, ...]:
    """Names of the bundled laws and of those in the folder `MOEPLAN_LAWS`, sorted."""
    return tuple(sorted(_files()))


def load_law(name: str | Path) -> Law:
    """Load a law by name ("zhao2025"), by name and fit ("krajewski2024/moe-e16"), or from a file ("my/law.yaml").

    Raises `LawError` for an unknown name (with the nearest ones) and for a file that is not a valid law.
    """
    text = str(name)
    file = re.fullmatch(r"(.+\.ya?ml)(?:/([^/]+))?", text)
    if file:
        law, fit = _read(Path(file[1])), file[2]
    elif "/" in text and (Path(text).exists() or text.startswith((".", "/", "~")) or "\0" in text):
        raise LawError(f"{text!r} is no law file; the name of one ends in .yaml")
    else:
        stem, _, fit = text.partition("/")
        files = _files()
        if stem not in files:
            near = difflib.get_close_matches(stem, files, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(sorted(files))}"
            raise LawError(f"unknown law {stem!r}; {hint}")
        law = _read(files[stem])
        if law.name != stem:
            raise LawError(f"{files[stem]}, line 1: name is {law.name!r}, must be the file's own name {stem!r}")
    if fit and fit not in law.fits:
        raise LawError(f"law {law.name} has no fit {fit!r}; it has {', '.join(law.fits)}")
    return dataclasses.replace(law, chosen=fit or "", source=text)
