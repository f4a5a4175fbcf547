"""The planner as a process: a socket, the application, and uvicorn between them."""

from __future__ import annotations

import socket
import threading
import webbrowser
from collections.abc import Callable
from importlib.util import find_spec

from moeplan.errors import UsageError
from moeplan.planner.fields import Fields, Read

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names of this machine that its own pages use."""
_NEEDS = ("starlette", "uvicorn")


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address of this machine; port 0 takes a free one. Raises `UsageError` if it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(128)  # so that whoever reads the address can ask at once
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise UsageError(f"{host}:{port} cannot be listened at: {reason}; try another --port, or 0 for any") from None
    return found


def check_installed() -> None:
    """Raise `UsageError` where the extra is missing."""
    for module in _NEEDS:
        if find_spec(module) is None:
            raise UsageError(f"the planner needs {module}, which is not installed; run: pip install 'moeplan[planner]'")


def serve(
    fields: Fields,
    read: Read,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    workers: int = 2,
    open_browser: bool = False,
    query: str = "",
    say: Callable[[str], object] = print,
) -> None:
    """Serve the planner until it is interrupted; `say` gets its address once it listens."""
    check_installed()
    import uvicorn

    from moeplan.planner.app import make_app

    own = listen(host, port)
    port = own.getsockname()[1]
    local = host in ("127.0.0.1", "localhost", "::1")
    named = f"[{host}]" if ":" in host else host
    hosts = LOOPBACK if local else (*LOOPBACK, named)
    shown = "localhost" if host == "::1" else "127.0.0.1" if host in ("0.0.0.0", "localhost") else named
    address = f"http://{shown}:{port}/{'?' + query if query else ''}"
    app = make_app(fields, read, hosts=hosts, port=port, workers=workers)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=65536,
        )
    )
    say(f"moeplan's planner is at {address} (Ctrl-C ends it)")
    if open_browser:
        threading.Timer(0.5, webbrowser.open, (address,)).start()
    with own:
        server.run(sockets=[own])
