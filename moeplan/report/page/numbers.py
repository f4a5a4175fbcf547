"""Where numbers stand in a text, for pages on which a number can be asked for its source."""

from __future__ import annotations

import re
from collections.abc import Iterator

_PLAIN = r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?"
NUMBER = re.compile(
    rf"""
    (?<![\w.,/^-]) [-+]?                             # not inside a name such as tian2025, d_2 or 0.1.0
    (?: \d+\+\d+/\d+                                 # experts: 7+1/184
      | \d+\.\d+-\d+\.\d+                            # 0.21-0.24
      | (?:\d+x)? {_PLAIN}                           # 8x80GB
        (?: [KMBT] | [kMGTP]?i?B | x )?              # 3.02B, 71.8GB, 6.10x
    )
    (?: [ ]%)?                                       # 90 %
    \*?                                              # the flag of an extrapolation
    (?: -A (?P<active> {_PLAIN} [KMBT]? ) )?         # total and active params: 35.6B-A3.02B
    (?! \w | \.\d | -\w )
    """,
    re.VERBOSE,
)
"""A number with its unit and flag; total and active params together are two."""


def pieces(text: str) -> Iterator[tuple[bool, str]]:
    """The text cut into (whether it is a number, piece), which make the text again."""
    end = 0
    for match in NUMBER.finditer(text):
        if match.start() > end:
            yield False, text[end : match.start()]
        first, dash, active = match[0].partition("-A") if match["active"] else (match[0], "", "")
        yield True, first
        if dash:
            yield False, dash
            yield True, active
        end = match.end()
    if end < len(text):
        yield False, text[end:]
