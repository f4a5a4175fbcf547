"""What to type next: the command that made an answer, asked for more."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from moeplan.report.blocks import Paragraph, Section

_VALUED = ("--output", "--html", "--plot", "--section")
_FLAGS = ("--json", "--markdown", "--full", "--no-pager")
"""What a command is asked again without: files are written already, and how an answer was shown is no part of it."""


NEXT = "Next, the whole answer"
"""How the last section of a first screen begins."""


def asked_again(command: str, *more: str, first: str = "moeplan") -> str:
    """A command line with `more` behind it; "" for what is none, as a call from Python."""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    if words[:1] != [first]:
        return ""
    kept: list[str] = []
    skip = False
    for word in words:
        name, equals, _ = word.partition("=")
        if not skip and name not in (*_VALUED, *_FLAGS):
            kept.append(word)
        skip = not skip and name in _VALUED and not equals
    return shlex.join([*kept, *more])


def next_section(command: str, also: Sequence[str] = ()) -> list[Section]:
    """The last lines of a first screen: a command that works when pasted, and what else it takes."""
    if not command:
        return []
    title = f"{NEXT}{' (or ' + ', '.join(also) + ')' if also else ''}"
    return [Section(title, (Paragraph(command, command=True),))]
