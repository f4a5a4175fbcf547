"""The planner as a process: a socket, the application, and uvicorn between them."""

from __future__ import annotations

import contextlib
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
    found = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(128)  # so that whoever reads the address can ask at once
    except (OSError, OverflowError) as error:
        if found is not None:
            found.close()
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise UsageError(f"{host}:{port} cannot be listened at: {reason}; try another --port, or 0 for any") from None
    return found


def names_of(host: str) -> tuple[str, ...]:
    """The names that a page served at an address may be asked for under; of a wildcard, all of this machine."""
    if host in ("127.0.0.1", "localhost", "::1"):
        return LOOPBACK
    if host not in ("0.0.0.0", "::", ""):
        return (*LOOPBACK, _bracketed(host))
    own = socket.gethostname()
    found = {own.lower(), socket.getfqdn().lower()}
    with contextlib.suppress(OSError):
        found |= {_bracketed(str(address[0])) for *_, address in socket.getaddrinfo(own, None)}
    return (*LOOPBACK, *sorted(found))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host.lower()


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
    """Serve the planner until it is interrupted; `say` gets its address once it answers."""
    check_installed()
    import uvicorn

    from moeplan.planner.app import make_app

    own = listen(host, port)
    port = own.getsockname()[1]
    hosts = names_of(host)
    shown = "127.0.0.1" if host in ("0.0.0.0", "", "localhost") else "[::1]" if host == "::" else _bracketed(host)
    address = f"http://{shown}:{port}/{'?' + query if query else ''}"
    app = make_app(fields, read, hosts=hosts, port=port, workers=workers)

    class Server(uvicorn.Server):
        """Says where it is once it serves and takes signals: a Ctrl-C that answers the address ends it in order."""

        async def main_loop(self) -> None:
            say(f"moeplan's planner is at {address} (Ctrl-C ends it)")
            if open_browser:
                threading.Timer(0.5, webbrowser.open, (address,)).start()
            await super().main_loop()

    server = Server(
        uvicorn.Config(
            app,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=65536,
        )
    )
    with own, contextlib.suppress(KeyboardInterrupt):  # which is how it ends
        server.run(sockets=[own])
