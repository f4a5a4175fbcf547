"""Text to a terminal or a pipe, whatever it can show; progress on stderr for what takes over a second."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import click

from moeplan.errors import MoeplanError
from moeplan.files import atomic_write
from moeplan.report.blocks import Section

PATIENCE = 1.0
"""Seconds before progress is shown."""
_UNSEEN = re.compile(
    "[\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control codes that JSON's own escapes leave as they are."""
_PLAIN = str.maketrans(
    {"–": "-", "—": "-", "•": "-", "×": "x", "·": ".", "≤": "<=", "≥": ">=", "→": "->", "…": "...", "’": "'", "±": "+-"}
)


def emit(text: str) -> None:
    """Write text to stdout; characters that its encoding lacks are replaced by plain ones."""
    click.echo(encodable(text), nl=False, color=use_color())


def encodable(text: str) -> str:
    """The text with plain characters for those that stdout's encoding lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
    return text


def emit_json(data: Any) -> None:
    """Write JSON to stdout; on a stdout that is not UTF-8 other characters are escaped, which means the same."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").replace("_", "")
    text = json.dumps(data, indent=2, ensure_ascii=encoding != "utf8", allow_nan=False)
    click.echo(_UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1].replace("\x7f", "\\u007f"), text))


def emit_sections(sections: Iterable[Section], *, markdown: bool = False, pager: bool = False) -> None:
    """Write a report to stdout, as wide as the terminal, or as Markdown; through a pager if it is longer than that."""
    if markdown:
        from moeplan.report.markdown import markdown_text

        emit(markdown_text(sections))
    else:
        from moeplan.report.terminal import terminal_text

        columns, lines = shutil.get_terminal_size()
        text = terminal_text(sections, columns, use_color())
        if pager and text.count("\n") >= lines and _has_keys():
            click.echo_via_pager(encodable(text), color=None if use_color() else False)
        else:
            emit(text)


def _has_keys() -> bool:
    """Whether someone at a terminal can turn pages."""
    both = all(getattr(stream, "isatty", lambda: False)() for stream in (sys.stdin, sys.stdout))
    return both and os.environ.get("TERM") != "dumb"


def note_sections(sections: Iterable[Section]) -> None:
    """Write a report to stderr, where stdout is for a program."""
    from moeplan.report.terminal import terminal_text

    text = terminal_text(sections)
    if text.strip():
        click.echo(text, nl=False, err=True)


def use_color() -> bool:
    """Whether stdout is a terminal that wants colour: not with NO_COLOR or TERM=dumb."""
    isatty = getattr(sys.stdout, "isatty", lambda: False)
    return bool(isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Progress(AbstractContextManager["Progress"]):
    """Shows the latest step on stderr, if that is a terminal and the work takes more than `PATIENCE`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._status: Any = None
        self._text, self._done = "working", False
        self._timer = threading.Timer(PATIENCE, self._show)
        self._timer.daemon = True

    def __enter__(self) -> Progress:
        if getattr(sys.stderr, "isatty", lambda: False)() and os.environ.get("TERM") != "dumb":
            self._timer.start()
        return self

    def __call__(self, text: str) -> None:
        """Say what is being done now."""
        with self._lock:
            self._text = text
            if self._status is not None:
                self._status.update(f"{text} ...")

    def _show(self) -> None:
        from rich.console import Console

        with self._lock:
            if not self._done:
                console = Console(stderr=True, markup=False, no_color=True)
                self._status = console.status(f"{self._text} ...", spinner="line")  # ASCII
                self._status.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._done = True
            if self._status is not None:
                self._status.stop()


class Delivery(AbstractContextManager["Delivery"]):
    """Files and the printed answer of a command: what cannot be written, as on a full disk, does not cost the answer.

    Files are written where they are asked for; the first error is raised at the end, after the answer was printed.
    """

    def __init__(self) -> None:
        self._error: MoeplanError | None = None

    def write(self, path: str | None, text: Callable[[], str], what: str = "Written") -> None:
        """Write a file, if one is asked for, and say so on stderr."""
        if path is None:
            return

        def write() -> None:
            with atomic_write(path) as file:
                file.write(text())
            click.echo(f"{what} to {path}", err=True)

        self.attempt(write)

    def pictures(self, *, plot: str | None, html: str | None, **contents: Any) -> None:
        """Write what --plot and --html ask for; see `moeplan.report.pictures.write_pictures`."""
        from moeplan.report.pictures import write_pictures

        if plot:
            self.attempt(lambda: write_pictures(plot=plot, html=None, **contents))
        if html:
            self.attempt(lambda: write_pictures(plot=None, html=html, **contents))

    def attempt(self, write: Callable[[], object]) -> None:
        """Do what writes files, and keep its error for the end."""
        try:
            write()
        except MoeplanError as error:
            self._error = self._error or error

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._error is not None:
            raise self._error
