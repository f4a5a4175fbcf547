"""Requests as files: `moeplan recommend --request request.yaml`, whose keys are the words of the flags.

    flops: 1e22
    memory: 8x80GB
    fix: {granularity: 8}
    law: [tian2025, zhao2025]

A file is read as the flags that it stands for, so that it can ask for what they can and is refused as they are.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import click
from click.core import ParameterSource

from moeplan.errors import UsageError

_NOT_OUTPUT = "alternatives"
"""The one option among those of output that is part of a request."""
_NONE_AT_0 = ("flops", "days", "mfu", "served", "batch", "inference_tokens", "tokens_per_second_per_user")
"""Fields whose 0 says that none is given."""


def request_options_of(command: click.Command) -> dict[str, click.Option]:
    """The options of a command that a request may hold, by their words; names of parameters are words as well."""
    found: dict[str, click.Option] = {}
    for option in command.params:
        if isinstance(option, click.Option) and (
            getattr(option, "heading", "Output") != "Output" or option.name == _NOT_OUTPUT
        ):
            words = [str(option.name), *(text.lstrip("-").replace("-", "_") for text in option.opts)]
            found |= dict.fromkeys(words, option)
    found.pop("request", None)
    return found


def asked_by(command: click.Command, path: str) -> dict[str, Any]:
    """What a request file asks of a command: values by the names of its parameters.

    Raises `UsageError` for a file that is none, for a key that is no word of the flags, and for what the flag refuses.
    """
    from moeplan.files import read_text
    from moeplan.laws.reader import read_yaml

    known = request_options_of(command)
    content = read_yaml(read_text(path), path)
    arguments: list[str] = []
    given: dict[str, str] = {}
    for key, value in content.items():
        option = known.get(key.replace("-", "_"))
        if option is None:
            near = difflib.get_close_matches(key.replace("_", "-"), [_word(each) for each in known.values()], n=1)
            hint = f"did you mean {near[0]}?" if near else "the keys are the words of the flags, as in flops and memory"
            raise UsageError(f"{path}, line {content.lines[key]}: unknown key {key!r}; {hint}")
        if str(option.name) in given:
            raise UsageError(f"{path}: {given[str(option.name)]} and {key} are one key; give one")
        given[str(option.name)] = key
        arguments += _arguments(option, value, f"{path}, line {content.lines[key]}: {key}")
    try:
        parsed = command.make_context(command.name, arguments)
    except click.UsageError as error:
        raise UsageError(f"{path}: {error.format_message().rstrip('.')}") from None
    return {name: parsed.params[name] for name in given if parsed.params[name] not in (None, ())}


def _word(option: click.Option) -> str:
    return option.opts[0].lstrip("-")


def _arguments(option: click.Option, value: Any, place: str) -> Iterator[str]:
    """The flags that a key with its value stands for."""
    if value is None:
        return
    flag = option.opts[0]
    if option.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{place} is {value!r}, must be true or false")
        yield flag if value else option.secondary_opts[0]
    elif not option.multiple:
        yield f"{flag}={_text(value, place)}"
    elif isinstance(value, dict):
        for name, item in value.items():
            ends = isinstance(item, list) and len(item) == 2
            text = "..".join(_text(end, place) for end in item) if ends else _text(item, place)
            yield f"{flag}={name}={text}"
    else:
        yield from (f"{flag}={_text(item, place)}" for item in (value if isinstance(value, list) else [value]))


def _text(value: Any, place: str) -> str:
    if isinstance(value, (bool, list, dict)) or value is None:
        raise UsageError(f"{place} holds {value!r}, where a number or a text is meant")
    return str(value)


def take_request(ctx: click.Context, param: click.Parameter, path: str | None) -> str | None:
    """Let a request file give the defaults of a command; to be called before other options are read."""
    if path is not None and not ctx.resilient_parsing:
        ctx.default_map = asked_by(ctx.command, path)
    return path


def replaced(ctx: click.Context) -> Iterator[str]:
    """What flags take the place of in the request file, in sentences; of fixed and bounded variables one by one."""
    file = ctx.params["request"]
    for name, before in (ctx.default_map or {}).items():
        now: Any = ctx.params.get(name)
        if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE or now == before:
            continue
        option = request_options_of(ctx.command)[name]
        if name in ("fix", "ranges"):
            old, new = ({text.partition("=")[0]: text for text in texts} for texts in (before, now))
            both: Any = [variable for variable in new if old.get(variable, new[variable]) != new[variable]]
            pairs: list[tuple[Any, Any]] = [((new[variable],), (old[variable],)) for variable in both]
        else:
            pairs = [(now, before)]
        yield from (f"{_shown(option, new)} takes the place of {_shown(option, old)} in {file}" for new, old in pairs)


def _shown(option: click.Option, value: Any) -> str:
    if option.is_flag:
        return str(option.opts[0] if value else option.secondary_opts[0])
    return " ".join(f"{option.opts[0]} {item}" for item in (value if option.multiple else [value]))


def request_text(command: click.Command, fields: Mapping[str, Any]) -> str:
    """The text of a request file that asks a command for `fields`, by the names of its parameters."""
    import yaml

    words: dict[str, Any] = {}
    for option in dict.fromkeys(request_options_of(command).values()):
        value = fields.get(str(option.name))
        if value in (None, (), {}, "", math.inf) or (value == 0 and option.name in _NONE_AT_0):
            continue
        if option.name == "ranges":
            value = {variable: f"{low:.10g}..{high:.10g}" for variable, (low, high) in value.items()}
        words[_word(option)] = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(words, sort_keys=False, allow_unicode=True, width=10**6)
