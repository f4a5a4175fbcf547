"""The files that --plot and --html write: refused early where they cannot be written, and written whole."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from moeplan.errors import UsageError
from moeplan.files import atomic_write, check_writable
from moeplan.report.blocks import Chart, Section, Table
from moeplan.report.charts import charts_of

PLOT_SUFFIXES = (".png", ".svg")
"""Kinds of picture."""
PAGE_SUFFIXES = (".html", ".htm")
"""Suffixes of a page."""


def check_plot(path: str) -> str:
    """Return `path` if a picture can be written there; raises `UsageError` otherwise. Imports no matplotlib."""
    return _check(path, "--plot", PLOT_SUFFIXES, "matplotlib", "plot")


def check_page(path: str) -> str:
    """Return `path` if a page can be written there; raises `UsageError` otherwise. Imports no plotly."""
    return _check(path, "--html", PAGE_SUFFIXES, "plotly", "html")


def _check(path: str, option: str, suffixes: tuple[str, ...], module: str, extra: str) -> str:
    if Path(path).suffix.lower() not in suffixes:
        raise UsageError(f"{option} {path!r} must end in {' or '.join(suffixes[:2])}")
    if find_spec(module) is None:
        raise UsageError(f"{option} needs {module}, which is not installed; run: pip install 'moeplan[{extra}]'")
    check_writable(path)
    return path


def write_plot(path: str, charts: Sequence[Chart]) -> None:
    """Write charts as a PNG or SVG file, several in a grid; raises `UsageError` if there are none or no matplotlib."""
    check_plot(path)
    if not charts:
        raise UsageError(f"--plot {path!r}: this report has no chart; leave --plot out")
    from moeplan.report.charts.picture import picture

    data = picture(charts, Path(path).suffix.lower()[1:])
    with atomic_write(path) as file:
        file.flush()
        file.buffer.write(data)  # the bytes below the text


def write_page(
    path: str,
    sections: Sequence[Section],
    *,
    title: str,
    data: Any,
    card: Table | None = None,
    command: str = "",
    record: str = "moeplan.json",
) -> None:
    """Write a report as one HTML file; see `moeplan.report.page.page_html`."""
    check_page(path)
    from moeplan.report.page import page_html

    text = page_html(sections, title=title, data=data, card=card, command=command, record=record)
    with atomic_write(path) as file:
        file.write(text)


def write_pictures(
    *,
    plot: str | None,
    html: str | None,
    title: str,
    sections: Sequence[Section],
    data: Any,
    charts: Sequence[Chart] = (),
    card: Table | None = None,
    command: str = "",
    record: str = "moeplan.json",
) -> None:
    """Write what --plot and --html ask for, and say so on stderr.

    `--plot` draws `charts`, or, where none are given, those that stand in `sections`; `--html` shows `sections`, with
    `card` (rows of name, value, note) at the top, holds `data` (the report's JSON, whose "provenance" makes the footer)
    and offers it as the file `record`.
    """
    import click

    if plot:
        write_plot(plot, charts or charts_of(sections))
        click.echo(f"Picture written to {plot}", err=True)
    if html:
        write_page(html, sections, title=title, data=data, card=card, command=command, record=record)
        click.echo(f"Page written to {html}", err=True)
