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
from moeplan.report.charts.svg import file_picture

PLOT_SUFFIXES = (".png", ".svg")
"""Kinds of picture."""
PAGE_SUFFIXES = (".html", ".htm")
"""Suffixes of a page."""


def check_plot(path: str) -> str:
    """Return `path` if a picture can be written there; raises `UsageError` otherwise. Imports no vl_convert."""
    _check(path, "--plot", PLOT_SUFFIXES)
    if Path(path).suffix.lower() == ".png" and find_spec("vl_convert") is None:
        raise UsageError(
            "--plot needs vl_convert for a .png, which is not installed; run: pip install 'moeplan[plot]', or give a "
            "name that ends in .svg"
        )
    return path


def check_page(path: str) -> str:
    """Return `path` if a page can be written there; raises `UsageError` otherwise."""
    return _check(path, "--html", PAGE_SUFFIXES)


def _check(path: str, option: str, suffixes: tuple[str, ...]) -> str:
    if Path(path).suffix.lower() not in suffixes:
        raise UsageError(f"{option} {path!r} must end in {' or '.join(suffixes[:2])}")
    check_writable(path)
    return path


def png(svg: str) -> bytes:
    """An SVG picture as a PNG of two dots a pixel, by resvg (extra `plot`)."""
    import vl_convert

    data: bytes = vl_convert.svg_to_png(svg, scale=2)
    return data


def write_plot(path: str, charts: Sequence[Chart]) -> None:
    """Write charts as a PNG or SVG file, several in a grid; raises `UsageError` where there are none to draw."""
    check_plot(path)
    if not charts:
        raise UsageError(f"--plot {path!r}: this report has no chart; leave --plot out")
    svg = file_picture(charts)
    data = svg.encode() if Path(path).suffix.lower() == ".svg" else png(svg)
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
    summary: Sequence[Section] = (),
    command: str = "",
    record: str = "moeplan.json",
) -> None:
    """Write a report as one HTML file; see `moeplan.report.page.page_html`."""
    check_page(path)
    from moeplan.report.page import page_html

    text = page_html(sections, title=title, data=data, card=card, summary=summary, command=command, record=record)
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
    summary: Sequence[Section] = (),
    command: str = "",
    record: str = "moeplan.json",
) -> None:
    """Write what --plot and --html ask for, and say so on stderr.

    `--plot` draws `charts`, or, where none are given, those that stand in `sections`; `--html` shows `sections`, with
    `card` (rows of name, value, note) at the top and `summary` before all else on paper, holds `data` (the report's
    JSON, whose "provenance" makes the footer) and offers it as the file `record`.
    """
    import click

    if plot:
        write_plot(plot, charts or charts_of(sections))
        click.echo(f"Picture written to {plot}", err=True)
    if html:
        write_page(html, sections, title=title, data=data, card=card, summary=summary, command=command, record=record)
        click.echo(f"Page written to {html}", err=True)
