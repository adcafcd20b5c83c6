"""Who may look at the page."""

from __future__ import annotations

import pytest

from isthmus.device.output.page.access import Access, is_loopback

TOKEN = "a-token-of-some-length"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("192.168.1.2", False),
        ("camera.local", False),
        ("127.0.0.1.example.org", False),
        ("", False),
    ],
)
def test_what_is_this_machine_alone(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("host", "granted"),
    [
        ("127.0.0.1:8070", True),
        ("localhost:8070", True),
        ("[::1]:8070", True),
        ("evil.example:8070", False),
        ("", False),
    ],
)
def test_a_page_of_this_machine_is_not_shown_under_another_name(host: str, granted: bool) -> None:
    assert Access(None).granted({"host": host}) is granted


@pytest.mark.parametrize(
    ("headers", "granted"),
    [
        ({}, False),
        ({"host": "127.0.0.1"}, False),
        ({"authorization": f"Bearer {TOKEN}"}, True),
        ({"authorization": f"bearer {TOKEN}"}, True),
        ({"authorization": "Bearer wrong"}, False),
        ({"authorization": f"Basic {TOKEN}"}, False),
        ({"cookie": f"other=1; isthmus_page={TOKEN}"}, True),
        ({"cookie": "isthmus_page=wrong"}, False),
        ({"cookie": "isthmus_page=\u00e4"}, False),
        ({"cookie": "]]]"}, False),
    ],
)
def test_a_page_that_others_can_reach_needs_its_token(headers: dict[str, str], granted: bool) -> None:
    assert Access(TOKEN).granted(headers) is granted


def test_without_a_token_none_fits() -> None:
    assert not Access(None).fits("")
