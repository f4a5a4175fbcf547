"""The server: a page, its fields, and answers to what they hold.

Only this machine's own pages may ask. Every request must name a host that the server listens as (which foreign names
that point to this machine do not, against DNS rebinding), and what starts a search must come from one of its own pages.
Nothing else is loaded: the policy lets the page run its own files alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from moeplan.errors import MoeplanError, UsageError
from moeplan.plan.export import TARGETS
from moeplan.planner.fields import (
    Fields,
    Read,
    State,
    query_of,
    question_of,
    read_state,
    without_shape,
)
from moeplan.planner.form import form_of
from moeplan.planner.pool import BusyError, Pool
from moeplan.planner.worker import Failure

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the planner's own page may do."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LONGEST_BODY = 8192
"""Most bytes of a question."""
REMEMBERED = 64
"""Answers that are kept, by question."""
SCRIPTS = ("planner.js", "state.js", "form.js", "answer.js", "charts.js")
STATIC = {
    "page.css": ("moeplan.report.page", "text/css"),
    "planner.css": ("moeplan.planner", "text/css"),
    **dict.fromkeys(SCRIPTS, ("moeplan.planner", "text/javascript")),
}
"""The page's files, with the packages that hold them."""
_FASTEST = ("flops", "memory", "days", "gpus", "price-per-gpu-hour", "max-tokens", "choose")
"""Fields that no designs depend on, but for their scores."""


class Planner:
    """Answers by question, and the pool that finds them."""

    def __init__(self, fields: Fields, read: Read, workers: int) -> None:
        self.fields, self.read = fields, read
        self.pool = Pool(workers)
        self._known: OrderedDict[tuple[str, str], str] = OrderedDict()

    async def get(self, what: str, state: State) -> str:
        """What is known of a state ("plan", "answer", "designs", "curve"), searched for where it is not yet."""
        asked = without_shape(state) if what in ("designs", "curve") else state
        if what == "curve":  # one for all memory limits that it shows
            asked = {name: texts for name, texts in asked.items() if name != "choose"}
        key = query_of(asked)
        if (what, key) not in self._known:
            kind = {"plan": "plan", "answer": "plan"}.get(what, what)
            question = question_of(asked, self.fields, self.read)
            found = await self.pool.ask(kind, question, _grid(asked), long=question.budget.gpus is not None)
            if isinstance(found, Failure):
                raise UsageError(found.sentence) if found.mistake else RuntimeError(found.sentence)
            for name, text in found.items():
                self._known[name, key] = text
        self._known.move_to_end((what, key))
        while len(self._known) > 3 * REMEMBERED:
            self._known.popitem(last=False)
        return self._known[what, key]


def _grid(state: State) -> str:
    return query_of({name: texts for name, texts in state.items() if name not in _FASTEST})


def make_app(fields: Fields, read: Read, *, hosts: Sequence[str], port: int, workers: int = 2) -> ASGIApp:
    """The application; it answers requests that name one of `hosts`, at `port`."""
    planner = Planner(fields, read, workers)
    form = json.dumps(form_of(fields))

    async def index(request: Request) -> Response:
        page = (files("moeplan.planner") / "static" / "planner.html").read_text(encoding="utf-8")
        return _response(page, "text/html", {"Content-Security-Policy": POLICY})

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            return _response("not found", "text/plain", status=404)
        package, kind = STATIC[name]
        return _response((files(package) / "static" / name).read_text(encoding="utf-8"), kind)

    async def fields_(request: Request) -> Response:
        return _response(form, "application/json")

    def answering(what: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return await _answered(request, lambda state: planner.get(what, state), "application/json")

        return answer

    async def page(request: Request) -> Response:
        async def make(state: State) -> str:
            return str(await _made(planner, "page", await planner.get("plan", state)))

        return await _answered(request, make, "text/html")

    async def export(request: Request) -> Response:
        target = request.path_params["target"]

        async def make(state: State) -> str:
            if target not in TARGETS:
                raise UsageError(f"target {target!r} must be one of {', '.join(TARGETS)}")
            return str(await _made(planner, "export", (await planner.get("plan", state), target)))

        return await _answered(request, make, "text/plain")

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with planner.pool:
            yield

    routes = [
        Route("/", index),
        Route("/static/{name}", static),
        Route("/api/fields", fields_),
        *(Route(f"/api/{what}", answering(what), methods=["POST"]) for what in ("answer", "plan", "designs", "curve")),
        Route("/api/page", page, methods=["POST"]),
        Route("/api/export/{target}", export, methods=["POST"]),
    ]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.state.planner = planner
    return Guard(app, hosts, port)


async def _made(planner: Planner, kind: str, contents: Any) -> str:
    found = await planner.pool.ask(kind, contents)
    if isinstance(found, Failure):
        raise UsageError(found.sentence) if found.mistake else RuntimeError(found.sentence)
    text: str = found["text"]
    return text


async def _answered(request: Request, make: Callable[[State], Awaitable[str]], kind: str) -> Response:
    """The answer to a posted state, for as long as somebody waits for it."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_BODY:
            return _problem("the question is too long", 413)
    planner: Planner = request.app.state.planner

    async def work() -> str:
        return await make(read_state(body.decode("utf-8", "replace"), planner.fields))

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    asked, left = asyncio.ensure_future(work()), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({asked, left}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            return _problem("nobody waits for the answer", 499)
        return _response(asked.result(), kind)
    except BusyError:
        return _problem("too many searches wait; this one is tried again", 429, {"Retry-After": "1"})
    except MoeplanError as error:
        return _problem(str(error), 422)
    except RuntimeError as error:
        return _problem(str(error), 503)
    finally:
        for task in (asked, left):
            task.cancel()
        await asyncio.gather(asked, left, return_exceptions=True)


def _problem(sentence: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return _response(json.dumps({"error": sentence}), "application/json", headers, status)


def _response(text: str, kind: str, headers: dict[str, str] | None = None, status: int = 200) -> Response:
    return Response(text, status, {**HEADERS, **(headers or {})}, media_type=kind)


class Guard:
    """Lets pass requests that name a host of this server, and posts that come from its own pages."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], port: int) -> None:
        self.app = app
        self.hosts = {f"{host}:{port}" for host in hosts} | ({*hosts} if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "").lower()
        reason = ""
        if host not in self.hosts:
            reason = f"this planner answers as {', '.join(sorted(self.hosts))}, not as {escape(host[:100])}"
        elif scope["method"] not in ("GET", "HEAD"):
            site = headers.get("sec-fetch-site", "same-origin")
            origin = headers.get("origin", f"http://{host}")
            if origin != f"http://{host}" or site != "same-origin":
                reason = "only the planner's own page may ask"
        if reason:
            await _response(reason, "text/plain", status=403)(scope, receive, send)
            return
        await self.app(scope, receive, send)
