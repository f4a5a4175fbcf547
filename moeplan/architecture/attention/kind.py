"""The interface of every kind of attention: its weights, its FLOPs, what it caches, and how devices share it.

A kind is a frozen dataclass of sizes, which may be integers (one model) or int64 arrays of equal length (a grid of
them), as in `moeplan.architecture.counting`; switches are always scalars. Every number it gives is of one block.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

from moeplan.records import Word

# Sizes are duck-typed over int and int64 arrays, which no static type expresses; results follow their input.
Size = Any
Matrix = tuple[Size, Size]
"""(input, output) features of a matrix."""


class Activation(NamedTuple):
    """One tensor that the backward pass needs."""

    name: str
    """What it is."""
    width: Size
    """Features a token, on one device."""
    split: bool = False
    """Whether sequence parallelism splits its tokens."""
    recomputed: bool = False
    """Whether selective recomputation drops it."""
    fp32: bool = False
    """Whether it is kept in fp32; else in bf16."""


def ceil_div(a: Size, b: int) -> Size:
    """a / b, rounded up."""
    return -(-a // b)


@dataclass(frozen=True, kw_only=True)
class Attention:
    """One kind of attention, or of another block that mixes tokens.

    A subclass states its fields, `kind`, and the methods below that raise `NotImplementedError`; the others hold for
    softmax attention over all tokens before. Fields of the same name in `Architecture` are the same quantity.
    """

    kind: Word = field(init=False, default="")
    """Its name in YAML, JSON and flags."""
    label: ClassVar[str]
    """Its name in sentences."""
    trainable: ClassVar[bool] = True
    """Whether what training keeps of it is modelled."""

    @classmethod
    def every_kind(cls) -> list[type[Attention]]:
        """Every kind, by name; `moeplan.records` takes a field of this type to hold any of them.

        A kind is known once its module is loaded, so all of this folder are.
        """
        for module in pkgutil.iter_modules([os.path.dirname(__file__)]):
            importlib.import_module(f"{__package__}.{module.name}")
        return sorted((kind for kind in loaded_kinds(Attention) if kind.kind), key=lambda kind: kind.kind)

    @classmethod
    def of(cls, shape: Any) -> Self:
        """This kind with the sizes that `shape` has under the same names."""
        names = [f.name for f in dataclasses.fields(cls) if f.init and hasattr(shape, f.name)]
        return cls(**{name: getattr(shape, name) for name in names})

    @classmethod
    def complete(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """The sizes that follow from the other fields of an `Architecture` where they are 0; raises `UsageError`."""
        return {}

    @classmethod
    def planned(cls, d_model: int, num_heads: Size, head_dim: int) -> dict[str, Any]:
        """The fields of `Architecture` that plans give to it at a width of the model and a number of heads."""
        raise NotImplementedError

    def matrices(self, d_model: Size) -> list[Matrix]:
        """Every matrix that tokens are multiplied by."""
        raise NotImplementedError

    def vectors(self, d_model: Size) -> Size:
        """Params outside `matrices`: biases, norms, sinks, short convolutions."""
        return 0

    def params(self, d_model: Size) -> Size:
        """All params."""
        return sum(n * m for n, m in self.matrices(d_model)) + self.vectors(d_model)

    def idle_params(self, d_model: Size) -> Size:
        """Those that one token does not pass through: of experts in attention."""
        return 0

    def stored_matrices(self, d_model: Size) -> list[Matrix]:
        """(output, input) features of every weight as trainers store it: maps of one input joined where they do."""
        return [(m, n) for n, m in self.matrices(d_model)]

    @property
    def width(self) -> Size:
        """d_attn = heads times the width of one head's value [features]; score FLOPs are counted by it."""
        raise NotImplementedError

    @property
    def cached_width(self) -> Size:
        """Numbers in the cache for one token."""
        raise NotImplementedError

    def cached_tokens(self, context: int) -> int:
        """Tokens in the cache of a sequence of `context` tokens."""
        return context

    def cached_numbers(self, context: int) -> Size:
        """Numbers in the cache of a sequence of `context` tokens."""
        return self.cached_width * self.cached_tokens(context)

    @property
    def state_bytes(self) -> Size:
        """Bytes that stay for a sequence, however long: recurrent states in fp32, inputs of convolutions in bf16."""
        return 0

    def score_flops(self, seq_len: Size, *, causal: bool = False) -> Size:
        """Training FLOPs per token, forward and backward, beside those of params: 12*width*seq_len, half if causal."""
        return 6 * self.width * seq_len if causal else 12 * self.width * seq_len

    def decode_flops(self, context: int) -> Size:
        """FLOPs of one new token beside those of params: 4*width*context."""
        return 4 * self.width * context

    def prefill_flops(self, prompt: int) -> Size:
        """FLOPs of a prompt beside those of params: causal scores and values, 2*width*prompt^2."""
        return 2 * self.width * prompt**2

    def on_device(self, n: int) -> Self:
        """What the fullest of `n` devices has of it under tensor parallelism."""
        raise NotImplementedError

    def splits(self, n: int) -> Size:
        """Whether `n` devices of tensor parallelism can share it, heads that do not divide over them aside."""
        return True

    def split_problem(self, n: int) -> str:
        """Why `n` devices of tensor parallelism cannot share it; "" if they can."""
        return ""

    @property
    def passed_width(self) -> Size:
        """Features a token that context parallelism passes on: keys and values."""
        raise NotImplementedError

    def activations(self) -> list[Activation]:
        """Every tensor kept for the backward pass between its input and its output map, on `on_device`'s share."""
        raise NotImplementedError

    @property
    def gradient_widths(self) -> tuple[Size, Size]:
        """Features a token of (queries; queries, keys, values and output together) whose gradients live at a time."""
        raise NotImplementedError

    def recomputed_params(self, d_model: Size) -> Size:
        """Params whose products selective recomputation does again in the backward pass."""
        return 0

    def words(self) -> str:
        """Its sizes in a few words."""
        raise NotImplementedError


def loaded_kinds(cls: type[Attention]) -> Iterator[type[Attention]]:
    """Every class below one whose module has been loaded, those that only share code with `kind` empty."""
    for below in cls.__subclasses__():
        yield below
        yield from loaded_kinds(below)
