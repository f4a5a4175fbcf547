"""Published models by name, bundled as data with source and confidence: `find_model("deepseek-v3")`."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Any

from moeplan.architecture.hf.types import Gap
from moeplan.architecture.hybrid import HybridArchitecture, architecture_from_dict
from moeplan.architecture.shape import Architecture
from moeplan.architecture.trained import TrainedSettings
from moeplan.errors import UsageError


@dataclass(frozen=True)
class Publication:
    """The makers' figures of a published model."""

    hf_id: str
    """Its repository on Hugging Face; "" if it has none."""
    source: str
    """Where the shape comes from."""
    confidence: str
    """How sure it is: high or medium."""
    training_tokens: float | None
    """Training tokens; null if not published."""
    card_total: float
    """Total params as its makers round them."""
    card_active: float
    """Active params as its makers count and round them."""
    class_params: int | None
    """Params of the real transformers class on the meta device (transformers 5.23); null if there is none."""
    note: str
    """A caveat, in words."""


@dataclass(frozen=True)
class PublishedModel(Publication):
    """A published model: its shape and what its makers say of it."""

    name: str
    """Its name."""
    model_type: str
    """The model_type of its configuration."""
    not_counted: tuple[Gap, ...]
    """What the shape does not express; such a model has no total here."""
    architecture: Architecture | HybridArchitecture
    """Its shape."""

    @property
    def publication(self) -> Publication:
        """What its makers say, without the shape."""
        return Publication(**{field.name: getattr(self, field.name) for field in fields(Publication)})


@functools.cache
def _rows() -> dict[str, dict[str, Any]]:
    """The data file by the models' names, in its order."""
    rows = json.loads((files("moeplan") / "data" / "models.json").read_text(encoding="utf-8"))
    return {row["name"]: row for row in rows}


@functools.cache
def _model(name: str) -> PublishedModel:
    row = _rows()[name]
    gaps = tuple(Gap(gap["what"], tuple(gap["groups"])) for gap in row["not_counted"])
    shape = architecture_from_dict(row["architecture"])
    said = {name: value for name, value in row.items() if name != "trained"}
    return PublishedModel(**{**said, "not_counted": gaps, "architecture": shape})


def trained_settings_of(model: PublishedModel) -> TrainedSettings | None:
    """What a bundled model's weights go with; None where that is not bundled."""
    stated = _rows()[model.name].get("trained")
    return None if stated is None else TrainedSettings(**stated)


def published_models() -> dict[str, PublishedModel]:
    """Every bundled model by its name, in the order of the data file."""
    return {name: _model(name) for name in _rows()}


def find_model(name: str) -> PublishedModel:
    """The bundled model called `name`, in any case, or by its repository; raises `UsageError` with near names."""
    wanted = _plain(name)
    if wanted in _names():
        return _model(_names()[wanted])
    import difflib

    plain = {_plain(own): own.lower().replace(" (text)", "").replace(" (llm)", "") for own in _rows()}
    near = difflib.get_close_matches(wanted, plain, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(plain[x] for x in near)}?" if near else "moeplan inspect lists the bundled ones"
    raise UsageError(f"{name}: is no file, no folder and no bundled model; {hint}")


@functools.cache
def _names() -> dict[str, str]:
    """The model of each plain name that it goes by; where two have one name, the first of the data file."""
    names: dict[str, str] = {}
    for own, row in _rows().items():
        for name in (own, row["hf_id"], row["hf_id"].rpartition("/")[2]):
            names.setdefault(_plain(name), own)
    names.pop("", None)
    return names


def _plain(name: str) -> str:
    return re.sub(r"\(.*?\)|[^a-z0-9.]", "", name.lower())
