"""A real browser without a window, spoken to through a pipe in Chromium's own DevTools protocol."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Condition, Thread
from typing import Any, Final, Self

from tests.postgres.waiting import PATIENCE

PROGRAM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
_QUIET: Final = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # which root, as CI is, cannot have; it visits nobody but us
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--hide-scrollbars",
    "--mute-audio",
)
_END: Final = b"\0"
_PHONE: Final = 500

Message = Mapping[str, Any]


class Browser:
    """One life of Chromium."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._numbers = count(1)
        self._heard: list[Message] = []
        self._news = Condition()
        self._ended = False

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory(ignore_cleanup_errors=True)
        told, self._say = _pipe()
        self._hear, tells = _pipe()
        # It reads from its file 3 and writes to its file 4.
        shell = f'exec "$0" "$@" 3<&{told} 4>&{tells}'
        self._life = subprocess.Popen(
            ["/bin/bash", "-c", shell, self._program, *_QUIET, f"--user-data-dir={self._folder.name}"],
            pass_fds=(told, tells),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.defpath, "HOME": self._folder.name, "LC_ALL": "C.UTF-8"},
        )
        os.close(told)
        os.close(tells)
        self._reader = Thread(target=self._listen, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(AssertionError, OSError):
            self.call("Browser.close")
        os.close(self._say)
        try:
            self._life.wait(10)
        except subprocess.TimeoutExpired:
            self._life.kill()
            self._life.wait()
        self._reader.join()
        os.close(self._hear)
        self._folder.cleanup()

    @contextmanager
    def page(
        self, *, width: int = 1280, height: int = 900, dark: bool = False, scripts: bool = True
    ) -> Iterator["Page"]:
        """An empty page that knows nothing of other pages."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        opening = {"url": "about:blank", "browserContextId": context}
        target = self.call("Target.createTarget", **opening)["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, attached["sessionId"])
        page.begin(width=width, height=height, dark=dark, scripts=scripts)
        try:
            yield page
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)

    def call(self, method: str, *, session: str | None = None, **parameters: object) -> Message:
        """Ask for something, and wait for what comes of it."""
        number = next(self._numbers)
        said: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if session:
            said["sessionId"] = session
        os.write(self._say, json.dumps(said).encode() + _END)
        answer = self.wait(lambda heard: next((each for each in heard if each.get("id") == number), None))
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: Message = answer["result"]
        return result

    def wait(self, found: Any) -> Message:  # noqa: ANN401
        """Until this is found among all that was heard."""
        with self._news:
            done = self._news.wait_for(lambda: found(self._heard) or self._ended, PATIENCE)
            answer: Message | None = found(self._heard)
        assert answer is not None, "Chromium has ended" if done else "Chromium does not answer"
        return answer

    def heard(self, session: str, *methods: str) -> Sequence[Message]:
        """What was told of this page by now."""
        with self._news:
            told = [each for each in self._heard if each.get("sessionId") == session]
        return [each["params"] for each in told if each.get("method") in methods]

    def _listen(self) -> None:
        rest = b""
        while data := os.read(self._hear, 1 << 16):
            *whole, rest = (rest + data).split(_END)
            with self._news:
                self._heard += map(json.loads, whole)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


def _pipe() -> tuple[int, int]:
    """Both ends, beyond the numbers that the browser expects its own at."""
    ends = os.pipe()
    hear, say = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return hear, say


class Page:
    """One page, and all that its visitor would see, or find in the console."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self._loads = 0

    def begin(self, *, width: int, height: int, dark: bool, scripts: bool) -> None:
        """Be a window of this size, on a host of this taste."""
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self._call(f"{domain}.enable")
        window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < _PHONE}
        self._call("Emulation.setDeviceMetricsOverride", **window)
        wants = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[wants])
        if not scripts:
            self._call("Emulation.setScriptExecutionDisabled", value=True)

    def open(self, url: str) -> None:
        """Go there, and wait until all of it is there."""
        self._call("Page.navigate", url=url)
        self.loaded()

    def loaded(self) -> None:
        """Wait for the next time that all of it is there."""
        self._loads += 1
        self._browser.wait(lambda _: self._events("Page.loadEventFired")[self._loads - 1 :] or None)

    def ask(self, expression: str) -> Any:  # noqa: ANN401
        """What this JavaScript comes to, run by us and not by the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Save the whole page, or the visible part, as PNG."""
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    @property
    def complaints(self) -> Sequence[Message]:
        """Whatever stands in the console, and every issue that the browser has with the page."""
        return self._events(
            "Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Audits.issueAdded"
        )

    @property
    def requests(self) -> Sequence[str]:
        """Every address that was asked for."""
        return [event["request"]["url"] for event in self._events("Network.requestWillBeSent")]

    def _events(self, *methods: str) -> Sequence[Message]:
        return self._browser.heard(self._session, *methods)

    def _call(self, method: str, **parameters: object) -> Message:
        return self._browser.call(method, session=self._session, **parameters)
