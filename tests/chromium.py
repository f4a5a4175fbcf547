"""A headless Chromium, driven over a pipe by the Chrome DevTools protocol; nothing listens on any port."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
"""The browser's program; "" if there is none."""
_PATIENCE = 60.0
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # continuous integration runs as root, and the pages are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
)


class Browser:
    """One page of a browser that is started here and ended by `close`."""

    def __init__(self) -> None:
        self._home = tempfile.mkdtemp(prefix="chromium-")
        read, self._write = os.pipe()
        self._read, write = os.pipe()

        def wire() -> None:  # the protocol speaks on descriptors 3 and 4
            first, second = os.dup(read), os.dup(write)
            os.dup2(first, 3)
            os.dup2(second, 4)

        self._process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={self._home}", "about:blank"],
            pass_fds=(3, 4, read, write),
            preexec_fn=wire,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self._number, self._rest, self._session = 0, b"", ""
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Audits"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _PATIENCE
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _receive(self, deadline: float) -> Any:
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError("the browser says nothing")
            data = os.read(self._read, 1 << 20)
            if not data:
                raise RuntimeError("the browser has ended")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def wait(self, expression: str) -> Any:
        """Wait until a JavaScript expression is true, and return its value."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if value := self.js(expression):
                return value
            time.sleep(0.02)
        raise TimeoutError(expression)

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def open(self, path: Path) -> None:
        """Load a file and wait until it is there."""
        self.go(path.as_uri())

    def go(self, url: str) -> None:
        """Load an address and wait until its page is there."""
        self.events.clear()
        self.send("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def resize(self, width: int, height: int = 900) -> None:
        """Give the page a size [px], that of a phone below 500."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def media(self, kind: str = "", scheme: str = "light") -> None:
        """Show the page as on paper (kind "print"), or in a colour scheme."""
        self.send(
            "Emulation.setEmulatedMedia", media=kind, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    def press(self, key: str, times: int = 1) -> None:
        """Press a key: "Tab", "Enter", "Escape", "ArrowDown", " "."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
                 "ArrowDown": 40}  # fmt: skip
        text = {"Enter": {"text": "\r"}, " ": {"text": " "}}.get(key, {})
        event = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": codes[key]}
        for _ in range(times):
            self.send("Input.dispatchKeyEvent", type="keyDown", **event, **text)
            self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, selector: str, text: str) -> None:
        """Type into a field, in place of what it holds."""
        self.js(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.focus(); e.select(); }})()")
        self.send("Input.insertText", text=text)

    def drag(self, selector: str, share: float) -> None:
        """Drag the knob of a slider, from where it is, to a share of its length."""
        x, y, width, at = self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect(); "
            "return [b.x, b.y + b.height / 2, b.width, (e.value - e.min) / (e.max - e.min)]; })()"
        )
        inside = width - 16  # half a knob is left at each end
        start, end = x + 8 + inside * at, x + 8 + inside * share
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=start, y=y)
        self.send("Input.dispatchMouseEvent", type="mousePressed", x=start, y=y, button="left", clickCount=1)
        for step in range(1, 9):
            place = start + (end - start) * step / 8
            self.send("Input.dispatchMouseEvent", type="mouseMoved", x=place, y=y, button="left", buttons=1)
        self.send("Input.dispatchMouseEvent", type="mouseReleased", x=end, y=y, button="left", clickCount=1)

    def click(self, selector: str) -> None:
        """Click the middle of an element, scrolled into view."""
        box = self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect(); "
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        self.click_at(*box)

    def click_at(self, x: float, y: float) -> None:
        """Click a place of the window [px]."""
        place = {"x": x, "y": y, "button": "left", "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.send("Input.dispatchMouseEvent", type="mousePressed", **place)
        self.send("Input.dispatchMouseEvent", type="mouseReleased", **place)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Write what is seen to a PNG file."""
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.send("Page.printToPDF", printBackground=True)["data"])

    def seen(self, *methods: str) -> list[dict[str, Any]]:
        """Params of the events of these names since the page was opened."""
        self.js("1")  # whatever was said before has now arrived
        return [event["params"] for event in self.events if event.get("method") in methods]

    def close(self) -> None:
        """End the browser that this started, and remove its folder."""
        os.close(self._write)  # at the end of its input the browser leaves by itself
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        shutil.rmtree(self._home, ignore_errors=True)
