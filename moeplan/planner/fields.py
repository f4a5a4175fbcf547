"""The form: every option of a plan as a field, and what the form holds as a link and as a command line.

Fields are made from the command's own options (`moeplan.cli.planner`), so that form, flags and JSON agree. A `State` is
what people typed, by field; it is written as a link's query (`flops=1e22&memory=80GB`) and as a command line, and read
by the parsers of the command line alone.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from moeplan.architecture.published import find_model
from moeplan.errors import UsageError
from moeplan.laws import law_names
from moeplan.plan.budget import Budget
from moeplan.plan.search.grid import AXES

State = Mapping[str, tuple[str, ...]]
"""What is typed into each field, by the field's name; a field that is left alone is not in it."""
LONGEST, MOST = 200, 40
"""Most characters of what is typed, and most entries of a state."""
LAW_FIELDS = ("law", "hyperparameters")
"""Fields that name laws."""
_LAW = re.compile(r"([A-Za-z0-9_.-]+)(?:/[A-Za-z0-9_.-]+)?(?:=[0-9.e+-]+)?", re.IGNORECASE)
_FILE = re.compile(r"[\\/]|\.(ya?ml|json)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Field:
    """One field of the form: an option of `moeplan recommend`."""

    name: str
    """In links: the flag without its dashes."""
    flags: tuple[str, ...]
    """The flag; where each choice is a flag of its own, all of them."""
    heading: str
    """What it stands under in the command's help."""
    help: str
    """What it is."""
    default: str
    """What holds where it is left alone; "" if nothing does."""
    example: str
    """What is typed, as in FLOPS or NAME=VALUE."""
    choices: tuple[str, ...] = ()
    """What may be chosen; empty where something is typed."""
    several: bool = False
    """Whether it may be given more than once."""

    def arguments(self, typed: str) -> list[str]:
        """What is typed as words of a command line."""
        return [f"--{typed}"] if len(self.flags) > 1 else [self.flags[0], typed]


Fields = Mapping[str, Field]
"""All fields by name, in the order of the command's help."""


@dataclass(frozen=True)
class Question:
    """What a state asks, as read."""

    budget: Budget
    """The budget."""
    laws: tuple[str, ...]
    """The laws that are named, each with its weight behind it; empty for the default set."""
    choose: str
    """The rule that the design is chosen by."""
    command: str
    """The command line that gives the same answer."""


Read = Callable[[Sequence[str]], tuple[Budget, tuple[str, ...], str]]
"""The command's own reading of its arguments: budget, laws, rule."""


def read_state(query: str, fields: Fields) -> State:
    """The state that a link's query or a form's body holds, in the order of the fields.

    Raises `UsageError` for fields that there are not, for files, which only the command line reads, and for more than
    anybody types.
    """
    found: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MOST, errors="strict")
    except ValueError:  # not UTF-8, or too many
        raise UsageError(f"this link cannot be read; it holds up to {MOST} fields as NAME=VALUE, in UTF-8") from None
    for name, typed in pairs:
        text = typed.strip()
        if name not in fields:
            raise UsageError(f"unknown field {name[:LONGEST]!r}; known are {', '.join(fields)}")
        if len(text) > LONGEST or not text.isprintable():
            raise UsageError(f"{name} holds more than {LONGEST} characters, or some that cannot be printed")
        if text:
            _check(name, text)
            found.setdefault(name, []).append(text)
    for name, texts in found.items():
        if len(texts) > 1 and not fields[name].several:
            raise UsageError(f"{name} is given twice; give it once")
    return {name: tuple(found[name]) for name in fields if name in found}


def _check(name: str, text: str) -> None:
    """Refuse what the command line would read as an option or as a file of this machine."""
    if text.startswith("-"):
        raise UsageError(f"{name} {text!r} must not begin with a dash")
    if name in LAW_FIELDS:
        match = _LAW.fullmatch(text)
        if match is None or match[1] not in law_names():
            raise UsageError(f"law {text!r} is not bundled; known are {', '.join(law_names())}")
    elif name == "measured":  # a run on a model: one of ours, for any other would be a file
        find_model(text.partition(" on ")[0].strip())
    elif _FILE.search(text):
        raise UsageError(f"{name} {text!r} looks like a file, which only the command line reads")


def query_of(state: State) -> str:
    """A state as a link's query."""
    return urlencode([(name, text) for name, texts in state.items() for text in texts])


def command_of(state: State, fields: Fields, more: Sequence[str] = ()) -> str:
    """The command line that gives the same answer."""
    return shlex.join(["moeplan", "recommend", *arguments_of(state, fields), *more])


def arguments_of(state: State, fields: Fields) -> list[str]:
    """A state as the command's arguments."""
    return [word for name, texts in state.items() for text in texts for word in fields[name].arguments(text)]


def question_of(state: State, fields: Fields, read: Read) -> Question:
    """What a state asks; raises `MoeplanError` as the command line does."""
    budget, laws, choose = read(arguments_of(state, fields))
    return Question(budget, laws, choose, command_of(state, fields))


def without_shape(state: State) -> State:
    """The state without the values that settle one design's shape, if it has them all; else as it is.

    The designs beside a design are those that it was picked from.
    """
    fixed = {text.partition("=")[0].strip(): text for text in state.get("fix", ())}
    if not set(AXES) <= set(fixed):
        return state
    rest = tuple(text for name, text in fixed.items() if name not in AXES)
    others = {name: texts for name, texts in state.items() if name != "fix"}
    return {**others, **({"fix": rest} if rest else {})}
