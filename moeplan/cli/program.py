"""How the command line behaves, whatever its commands: help under headings, errors as one sentence, exit codes."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from moeplan.errors import MoeplanError
from moeplan.texts import printable

EXAMPLES = {
    "moeplan": "moeplan recommend --flops 1e22 --memory 80GB",
    "moeplan recommend": "moeplan recommend --flops 1e22 --memory 80GB",
    "moeplan compare": "moeplan compare --flops 1e22 --memory 80GB",
    "moeplan laws": "moeplan laws zhao2025",
    "moeplan fit": "moeplan fit runs.csv --form ludziejewski2025 --output law.yaml",
    "moeplan backtest": "moeplan backtest --law tian2025",
    "moeplan schema": "moeplan schema",
    "moeplan hardware": "moeplan hardware H100",
    "moeplan inspect": "moeplan inspect deepseek-v3",
    "moeplan frontier": "moeplan frontier --flops 1e22 --memory 24GB..640GB",
    "moeplan export": "moeplan export plan.json --to hf",
    "moeplan verify": "moeplan verify plan.json",
    "moeplan help": "moeplan help words",
    "moeplan planner": "moeplan planner --open",
    "moeplan upcycle": "moeplan upcycle llama-3-8b --flops 1e22",
}
"""A working example of each command, for errors to quote."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class Option(click.Option):
    """An option that stands under a heading of the help.

    One that `writes` names a file that the command makes, one that `reads` a file that is read with the arguments.
    """

    def __init__(
        self, *args: Any, heading: str = "Other", writes: bool = False, reads: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.heading, self.writes, self.reads = heading, writes, reads


class Command(click.Command):
    """A command whose help lists options under headings, and which says what it writes before it reads anything."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read its arguments; a mistake in them is this command's, whose example the error then quotes."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run it with its outputs declared, so that no input can be overwritten."""
        from moeplan.files import check_read, outputs  # late, so that --help starts fast

        files = [
            (option, str(ctx.params[option.name]))
            for option in self.params
            if isinstance(option, Option)
            and (option.writes or option.reads)
            and ctx.params.get(option.name or "") is not None
        ]
        with outputs({option.opts[0]: path for option, path in files if option.writes}):
            for option, path in files:
                if option.reads:  # before the outputs were known
                    check_read(path)
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, one list a heading."""
        lists: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                lists.setdefault(getattr(parameter, "heading", "Other"), []).append(record)
        for heading, records in lists.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class Failure(click.ClickException):
    """One sentence on stderr and an exit code."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(printable(sentence))
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it on the class

    def show(self, file: Any = None) -> None:
        """Write it; to a terminal in lines that end between words."""
        stream = file or sys.stderr
        text = f"Error: {self.format_message()}"
        if getattr(stream, "isatty", lambda: False)():
            columns = shutil.get_terminal_size().columns
            text = textwrap.fill(text, columns, break_long_words=False, break_on_hyphens=False)
        click.echo(text, file=stream)


class Program(click.Group):
    """A group of commands whose users' mistakes end as one sentence on stderr."""

    command_class = Command

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        """Remember the command line, which a plan records."""
        command = recorded_command(args)
        with mistakes_as_sentences():
            for arg in args:
                if not _is_utf8(arg):
                    raise click.UsageError(f"{arg!r} is not UTF-8; rename the file, or give it by a link whose name is")
            context = super().make_context(info_name, args, *rest, **extra)
        context.obj = command
        return context

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with mistakes_as_sentences():
            return super().invoke(ctx)


def _is_utf8(arg: str) -> bool:
    """Whether the bytes of an argument, as the shell gave it, are UTF-8."""
    if arg.isascii():
        return True
    try:
        os.fsencode(arg).decode("utf-8")
    except UnicodeError:
        return False
    return True


@contextmanager
def mistakes_as_sentences() -> Iterator[None]:
    """The one place where errors become sentences and exit codes."""
    try:
        yield
    except MoeplanError as error:
        raise Failure(str(error), error.exit_code) from None
    except click.UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # no mistake: click (from 8.2 on) shows the help
            raise
        example = EXAMPLES.get(error.ctx.command_path if error.ctx else "", EXAMPLES["moeplan"])
        sentence = error.format_message().replace("\n\t", " ").rstrip(".")  # click lists choices one a line
        raise Failure(f"{sentence}; for example: {example}", error.exit_code) from None
    except KeyboardInterrupt:
        raise Failure("interrupted", INTERRUPTED) from None
    except MemoryError:
        raise Failure("this needs more memory than there is; ask for less, or give a smaller file", 1) from None
    except RecursionError:
        raise Failure("a file is nested too deeply to be read", 2) from None
    except OSError as error:
        if error.errno == errno.EPIPE:  # click ends quietly when a reader such as `head` has enough
            raise
        reason = (error.strerror or str(error)).lower()
        raise Failure(f"{error.filename or 'output'}: {reason}", 2) from None


def recorded_command(args: Sequence[str]) -> str:
    """The command line for a plan's record, without --threads, which changes nothing in the answer."""
    kept, skip = [], False
    for arg in args:
        if not (skip or arg == "--threads" or arg.startswith("--threads=")):
            kept.append(arg)
        skip = arg == "--threads"
    return printable(shlex.join(["moeplan", *kept]))
