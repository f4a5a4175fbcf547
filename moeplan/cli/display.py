"""How much of an answer is shown, and how: the options --full, --section, --no-pager, --json and --markdown."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import click

from moeplan.cli.options import formats, one_format, output_option, stacked


class Answer(Protocol):
    """A result of a command."""

    def to_json(self) -> Any:
        """The whole of it."""


class Display(NamedTuple):
    """What was asked of showing an answer."""

    as_json: bool
    """JSON, which is always whole."""
    as_markdown: bool
    """Markdown in place of columns."""
    full: bool
    """The whole report in place of its first screen."""
    sections: tuple[str, ...]
    """Names of the sections to show; all of them if there are none."""
    pager: bool
    """Whether a report longer than the terminal is shown page by page."""

    def show(self, answer: Answer, screen: Callable[[], Iterable[Any]], full: Callable[[], Iterable[Any]]) -> None:
        """Print an answer: its first screen, all of its report or parts of it, as asked."""
        self.show_all(answer.to_json, full if self.full or self.sections else screen)

    def show_all(self, data: Callable[[], Any], report: Callable[[], Iterable[Any]]) -> None:
        """Print what has no first screen: all of a report or parts of it, or its JSON."""
        from moeplan.report import output as out
        from moeplan.report.blocks import sections_named

        if self.as_json:
            out.emit_json(data())
            return
        shown = sections_named(list(report()), self.sections) if self.sections else report()
        out.emit_sections(shown, markdown=self.as_markdown, pager=self.pager)


def display_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of showing an answer, passed as `display`."""

    @functools.wraps(command)
    def with_display(
        *args: Any, as_json: bool, as_markdown: bool, full: bool, sections: tuple[str, ...], no_pager: bool, **more: Any
    ) -> Any:
        one_format(as_json, as_markdown)
        if as_json and (full or sections):
            flag = "--full" if full else "--section"
            raise click.UsageError(f"--json is always whole, so {flag} has no place beside it; leave one out")
        return command(*args, display=Display(as_json, as_markdown, full, sections, not no_pager), **more)

    return stacked(
        output_option("--full", is_flag=True, help="Print the whole report in place of its first screen."),
        output_option(
            "--section",
            "sections",
            multiple=True,
            metavar="NAME",
            help="Print this part of it: laws, memory, ...; repeatable. A wrong name lists all.",
        ),
        output_option("--no-pager", is_flag=True, help="Print at once what is longer than the terminal."),
        formats,
    )(with_display)
