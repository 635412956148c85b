"""The status page in a real browser: on a wall and on a phone, whatever clients call themselves."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from reaper.policy.text import printable
from reaper.telemetry.http.views import Overview
from tests.postgres.clients import Clients
from tests.postgres.sandbox import Role, Sandbox
from tests.postgres.waiting import until
from tests.unit.telemetry import sights
from tests.unit.telemetry.pages import LOOPBACK, serving

from .browser import PROGRAM, Browser, Page
from .command import Reaper
from .policies import FILE, leaked, policy_file
from .service import started

PHONE: Final = 360
DESK: Final = 1280
NAMES: Final = ("usual", "full", "empty", "hostile", "fleet")
SIGHTS: Final[Mapping[str, Callable[[], Overview]]] = {name: getattr(sights, name) for name in NAMES}
NOT_THERE: Final = "Chromium, Debian's package `chromium`, is not there: nobody looks at the status page"
CI: Final = "REAPER_TEST_CHROMIUM"
"""Set to `required` where it must not be missing."""

# The ratio of WCAG: of the text of each element that has any to what lies behind it.
CONTRASTS: Final = """
(() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const lightness = colour => {
    const [r, g, b] = channels(colour).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (channels(colour)[3] !== 0) return colour;
    }
  };
  const told = [...document.body.querySelectorAll('*')].filter(
    e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
  return told.map(e => {
    const [a, b] = [lightness(getComputedStyle(e).color), lightness(behind(e))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 40)];
  }).filter(([ratio]) => ratio < 4.5);
})()
"""

# Elements that reach beyond the window, whoever hides it.
OVERFLOWING: Final = """
[...document.body.querySelectorAll('*')]
  .filter(e => !e.closest('.stack thead') && e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.tagName + ' ' + e.textContent.trim().slice(0, 40))
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if PROGRAM is None:
        assert os.environ.get(CI) != "required", NOT_THERE
        pytest.skip(NOT_THERE)
    with Browser(PROGRAM) as browser:
        yield browser


def show(browser: Browser, sight: str, scene: Callable[[Page], None], **window: Any) -> None:  # noqa: ANN401
    """Play a scene before a page that shows this, in a window of this kind."""

    async def look(_: str | None) -> Overview:
        return SIGHTS[sight]()

    def visit(port: int) -> None:
        with browser.page(**window) as page:
            page.open(f"http://{LOOPBACK}:{port}/")
            scene(page)
            assert page.complaints == []
            assert {urlsplit(url).netloc for url in page.requests} == {f"{LOOPBACK}:{port}"}

    async def play() -> None:
        async with serving(overview=look) as pages:
            await asyncio.to_thread(visit, pages.port)

    asyncio.run(play())


@pytest.mark.parametrize(
    ("width", "dark"), [(PHONE, True), (DESK, False)], ids=["a phone at night", "a desk by day"]
)
@pytest.mark.parametrize("sight", SIGHTS)
def test_it_fits_its_window_and_everything_on_it_can_be_read(
    browser: Browser,
    sight: str,
    width: int,
    dark: bool,  # noqa: FBT001
) -> None:
    def scene(page: Page) -> None:
        assert page.ask("document.documentElement.scrollWidth") == width
        assert page.ask(OVERFLOWING) == []
        assert page.ask(CONTRASTS) == []
        ground = page.ask("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(12, 15, 19)" if dark else "rgb(245, 246, 248)")

    show(browser, sight, scene, width=width, dark=dark)


def test_every_name_is_text_and_nothing_else_whatever_it_says(browser: Browser) -> None:
    def scene(page: Page) -> None:
        assert page.ask("document.querySelectorAll('script, svg svg, [onload], [onerror]').length") == 0
        assert page.ask("document.querySelectorAll('img').length") == 1
        assert "owned" not in page.ask("document.title").replace(printable(sights.HOSTILE[0]), "")
        applications = page.ask("[...document.querySelectorAll('.wide .rank bdi')].map(e => e.textContent)")
        assert sorted(applications) == sorted(map(printable, sights.HOSTILE))
        assert page.ask("document.body.innerText.includes('49')") is False  # 7 * 7
        assert page.ask("[...document.links].filter(a => !a.href.startsWith(location.origin)).length") == 0

    show(browser, "hostile", scene)


def test_it_says_the_same_where_scripts_are_off(browser: Browser) -> None:
    said: list[str] = []
    for scripts in (True, False):
        show(browser, "full", lambda page: said.append(page.ask("document.body.innerText")), scripts=scripts)

    assert said[0] == said[1]
    assert "95" in said[0].split()
    assert "Ordinary roles are refused." in said[0]


def test_it_refreshes_itself_until_it_is_paused(browser: Browser) -> None:
    refresh = "document.querySelector('meta[http-equiv=refresh]')?.content"

    def scene(page: Page) -> None:
        assert page.ask(refresh) == "10"
        page.open(page.ask("[...document.links].find(a => a.textContent === 'pause').href"))
        assert page.ask(refresh) is None
        page.open(page.ask("[...document.links].find(a => a.textContent.startsWith('refresh')).href"))
        assert page.ask(refresh) == "10"

    show(browser, "usual", scene)


def test_a_server_of_the_fleet_is_one_link_away_and_the_worst_come_first(browser: Browser) -> None:
    def scene(page: Page) -> None:
        names = page.ask("[...document.querySelectorAll('.fleet bdi')].map(e => e.textContent)")
        assert names[:3] == ["payroll", "billing", "orders-17.internal"]
        links = page.ask("[...document.querySelectorAll('.fleet a')].map(a => a.search)")
        assert links[1] == "?server=billing"

    show(browser, "fleet", scene)


def test_a_running_reaper_shows_who_is_there_and_what_it_did(
    browser: Browser, reaper: Reaper, app: Role, clients: Clients, sandbox: Sandbox
) -> None:
    evil = sandbox.role("\u202e\x1b[2Jevil")
    reaper.write(FILE, policy_file(leaked(app)))
    service = started(reaper)
    until(clients.open(role=app, application="<b>leak</b>").left)
    staying = clients.open(role=evil, application="<i>stays</i>", state="idle in transaction")
    service.life.logged("cycle.acted")
    where = service.life.logged("http.listening")["at"]

    with browser.page(width=DESK) as page:
        page.open(f"http://{where}/")
        said = page.ask("document.body.innerText")
        complaints, requests = page.complaints, page.requests

    assert staying.present()
    assert "<i>stays</i>" in said
    assert r"\u202e\x1b[2Jevil" in said
    assert "<b>leak</b>" in said
    assert "1 terminated" in said
    assert complaints == []
    assert {urlsplit(url).netloc for url in requests} == {where}
