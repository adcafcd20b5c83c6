"""The live page of a real agent, looked at with a real browser: dark and light, phone and desk."""

from __future__ import annotations

import re
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from world.browser import Browser, browsing, chromium
from world.servers import Agent, until

pytestmark = pytest.mark.skipif(chromium() is None, reason="no browser here; Debian's chromium")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    agent = Agent(tmp_path_factory.mktemp("page"), "generated:7", "--fps", "10", "--page", "127.0.0.1:0")
    try:
        until(lambda: "page: http" in agent.said, "the page is there")
        yield agent
    finally:
        agent.kill()


@pytest.fixture
def address(agent: Agent) -> str:
    return str(re.findall(r"page: (http\S+)", agent.said)[0])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as found:
        yield found


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_and_shows_the_answer(address: str, browser: Browser, width: int, dark: bool) -> None:
    browser.look(address, width=width, height=1000, dark=dark)
    browser.until(
        "document.getElementById('picture').naturalWidth > 0 && document.querySelectorAll('#points tr').length > 0"
    )
    assert browser.value("document.documentElement.scrollWidth") == width, "nothing is cut off at the right"
    assert browser.value("document.getElementById('said').textContent") not in ("", "–")
    assert "early exit on the device" in browser.value("document.body.innerText")
    assert browser.value("document.getElementById('stale').hidden") is True
    loaded = browser.value("performance.getEntriesByType('resource').map((e) => new URL(e.name).origin)")
    assert set(loaded) <= {address.rstrip("/")}, "nothing comes from the network"
    picture = cv2.imdecode(np.frombuffer(browser.picture(), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape[:2] == (1000, width)
    corner = picture[-20:, :6].mean()  # beside the cards: the page's own paper
    assert corner < 60 if dark else corner > 200
    assert not browser.said


def test_when_the_agent_ends_the_page_says_so(agent: Agent, address: str, browser: Browser) -> None:
    """The last of them: the agent is gone then."""
    browser.look(address, width=390, height=800, dark=False)
    browser.until("document.getElementById('picture').naturalWidth > 0")
    assert agent.end() == 0, agent.said
    browser.until("/does not answer|no new picture/.test(document.getElementById('stale').textContent)")
    assert browser.value("document.getElementById('stale').hidden") is False
