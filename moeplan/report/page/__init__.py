"""A report as one HTML file that needs nothing else: tables, interactive charts, and a source behind every number.

Charts are pictures in the page (`moeplan.report.charts.svg`). A content security policy lets nothing else run and
nothing be fetched. On paper a summary comes first, with its sources as notes, and the rest is its appendix. The same
report makes the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from moeplan.errors import MoeplanError
from moeplan.report.blocks import Section, Table
from moeplan.report.page.elements import (
    Numbers,
    block_html,
    card_html,
    law_names_of,
    section_html,
    summary_html,
    text_html,
)
from moeplan.report.text import visible

_ASK = "Every number can be asked for its source: click it, or press Enter on it."


def page_html(
    sections: Sequence[Section],
    *,
    title: str,
    data: Any,
    card: Table | None = None,
    summary: Sequence[Section] = (),
    command: str = "",
    record: str = "moeplan.json",
) -> str:
    """A report as an HTML page.

    `title` may be a `Text`. `data` is the report's JSON, which the page holds and offers as the file `record`; `card`
    has rows of (name, value, what else is to say), shown large at the top; `summary` is what a print begins with.
    Raises `LookupError` for a number whose path the JSON lacks.
    """
    sections, title = [visible(section) for section in sections], visible(title)
    state = Numbers(data)
    before = summary_html(title, [visible(section) for section in summary], state) if summary else ""
    heading = text_html(title, None, state)
    lead, rest = (sections[0].blocks, sections[1:]) if sections and not sections[0].title else ((), sections)
    source = sections[0].source if lead else None
    hero = [block_html(block, source, state, lead=True) for block in lead[:1]]
    hero += [card_html(card, state)] if card else []
    hero += [block_html(block, source, state, small=True) for block in lead[1:]]
    body, contents = [], []
    for place, section in enumerate(rest):
        body.append(section_html(section, f"part-{place + 1}", state))
        if section.level == 1:
            contents.append((f"part-{place + 1}", section.title))
    contents.append(("sources", "Sources"))
    style = _static("page.css") + _running(f"moeplan: {title}")
    script = _static("page.js")
    return Template(_static("page.html")).substitute(
        policy=_policy([style], [script]),
        title=escape(title),
        heading=heading,
        style=style,
        contents="".join(f'<li><a href="#{name}">{escape(text)}</a></li>' for name, text in contents),
        summary=before,
        hero="\n".join(hero),
        ask=_ASK,
        body="\n".join(body),
        sources="\n".join(_source_list(state)),
        laws="\n".join(_law_list(state)),
        footer=_footer(data, command),
        record=_inline_json(data, indent=1),
        record_name=escape(record),
        script=script,
    )


def numbers_without_source(sections: Sequence[Section], data: Any, card: Table | None = None) -> list[str]:
    """Every number of a report that cannot be asked for its source, with what stands around it."""
    state = Numbers(data)
    if card:
        card_html(card, state)
    for place, section in enumerate(sections):
        section_html(section, str(place), state)
    return state.without


def _running(words: str) -> str:
    """What stands at the foot of every printed page."""
    said = words.replace("\\", "\\\\").replace('"', "'").replace("<", "").replace("\n", " ")
    return f'@page {{ @bottom-left {{ content: "{said}"; }} }}\n'


def _static(name: str) -> str:
    return (files("moeplan.report.page") / "static" / name).read_text(encoding="utf-8")


def _policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    """Nothing from outside, and inside only what is written here; `data:` and `blob:` are the page itself."""
    allowed = {"script-src": scripts, "style-src": styles}
    hashed = [f"{kind} {' '.join(_digest(text) for text in texts)}" for kind, texts in allowed.items()]
    return "; ".join(("default-src 'none'", *hashed, "img-src data: blob:", "base-uri 'none'", "form-action 'none'"))


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _inline_json(value: Any, indent: int | None = None) -> str:
    # A "<" could end the script element that holds it.
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent).replace("<", "\\u003c")


def _source_list(state: Numbers) -> Iterator[str]:
    """Every source once, by the number that points to it."""
    for source, number in state.sources.items():
        lines = []
        if source.law:
            laws = ", ".join(f'<a href="#{_law_id(name)}">{escape(name)}</a>' for name in law_names_of(source))
            lines.append(f'<p class="laws"><b>{"Laws" if "," in source.law else "Law"}:</b> {laws}</p>')
        lines.append(f"<p>{escape(source.says, quote=False)}</p>")
        rows = (("Counted as", source.convention), ("Measured range", source.domain))
        lines += [f"<p><b>{name}:</b> {escape(text, quote=False)}</p>" for name, text in rows if text]
        yield f'<li id="source-{number}">{"".join(lines)}</li>'


def _law_id(name: str) -> str:
    return f"law-{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}"  # a name may be a file's path


def _law_list(state: Numbers) -> Iterator[str]:
    """Every law that a source names: citation, grade, conventions and measured range, from its file."""
    from moeplan.laws import load_law
    from moeplan.laws.law import GRADES
    from moeplan.report.laws import counted, measured

    for name in state.laws:
        try:
            law = load_law(name)
        except MoeplanError:  # a law file of the user's that is no longer there
            yield f'<li id="{_law_id(name)}"><p><b>{escape(name)}</b></p></li>'
            continue
        rows = [
            ("Published", str(law.citation)),
            ("Grade of its digits", f"{law.grade}: {GRADES[law.grade]}"),
            ("Digits", law.digits),
        ]
        if law.objective is not None:
            rows += [("Counts", counted(law.objective)), ("Measured on", measured(law.objective))]
        lines = "".join(f"<p><b>{what}:</b> {escape(text, quote=False)}</p>" for what, text in rows if text)
        yield (
            f'<li id="{_law_id(name)}"><p><b>{escape(law.full_name)}</b>: {escape(law.title)}</p>{lines}'
            f'<p class="digest">File {law.digest}</p></li>'
        )


def _footer(data: Any, command: str) -> str:
    """Version, command and digests, as the JSON records them."""
    made = data.get("provenance") if isinstance(data, dict) else None
    rows = dict(made) if isinstance(made, dict) else {}
    if command:
        rows["command"] = command
    parts = []
    for name, value in rows.items():
        if isinstance(value, dict):
            value = [f"{key} {digest}" for key, digest in value.items()]
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        text = f"{value:,}" if isinstance(value, int) else str(value)
        parts.append(f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(text)}</dd></div>")
    return f'<dl class="made">{"".join(parts)}</dl>'
