"""The port for Prometheus and for probes over real connections: what is there, and what those cost who misuse it."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Iterator

import pytest

from isthmus.proto.errors import BindError
from isthmus.proto.monitoring import http as pages
from isthmus.proto.monitoring.endpoint import MOST_READERS, Endpoint, Shown, address_of
from isthmus.proto.monitoring.vitals import Vitals

LARGE = b"a_metric 1\n" * 1_000_000
PATIENCE_S = 20.0


@contextlib.contextmanager
def opened(content: bytes = b"a_metric 1\n", vitals: Vitals | None = None) -> Iterator[Endpoint]:
    endpoint = Endpoint("127.0.0.1:0", Shown(vitals or Vitals(), lambda: (content, "text/plain")))
    try:
        yield endpoint
    finally:
        endpoint.close()


def ask(endpoint: Endpoint, path: str, method: str = "GET") -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers


def test_three_paths_and_nothing_else() -> None:
    vitals = Vitals()
    with opened(vitals=vitals) as endpoint:
        assert ask(endpoint, "/metrics")[:2] == (200, b"a_metric 1\n")
        assert ask(endpoint, "/metrics?name[]=x")[0] == 200
        assert ask(endpoint, "/healthz")[:2] == (200, b"ok\n")
        assert ask(endpoint, "/readyz")[:2] == (503, b"starting\n")
        vitals.ready()
        assert ask(endpoint, "/readyz")[:2] == (200, b"ok\n")
        vitals.beat(time.monotonic() - 60)
        for path in ("/healthz", "/readyz"):
            status, why, _ = ask(endpoint, path)
            assert (status, why[:35]) == (503, b"the event loop has not run for 60 s"), path
        for path in ("/", "/metrics/", "/state.json", "/../etc/passwd", "/healthz/x", "//metrics"):
            assert ask(endpoint, path)[0] == 404, path


def test_it_is_read_and_nothing_else() -> None:
    with opened() as endpoint:
        status, content, headers = ask(endpoint, "/metrics", "HEAD")
        assert (status, content, headers["Content-Length"]) == (200, b"", "11")
        assert ask(endpoint, "/healthz", "HEAD")[:2] == (200, b"")
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
            status, _, headers = ask(endpoint, "/metrics", method)
            assert (status, headers["Allow"]) == (405, "GET, HEAD"), method


@pytest.mark.parametrize(
    "said",
    [b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/2\r\n\r\n", b"x" * 100_000,
     b"GET http://[ HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
)  # fmt: skip
def test_garbage_costs_itself(said: bytes) -> None:
    with opened() as endpoint:
        garbled = socket.create_connection(("127.0.0.1", endpoint.port), PATIENCE_S)
        with garbled, contextlib.suppress(ConnectionError):
            garbled.sendall(said)
            answer = garbled.recv(100)
            assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404")) or answer == b""
        assert ask(endpoint, "/healthz")[0] == 200


def test_who_reads_slowly_or_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "REQUEST_S", 0.3)
    with opened(LARGE) as endpoint, contextlib.ExitStack() as stack:
        for i in range(2 * MOST_READERS):
            reader = stack.enter_context(socket.create_connection(("127.0.0.1", endpoint.port), PATIENCE_S))
            if i % 2:
                with contextlib.suppress(ConnectionError):
                    reader.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        ends_s = time.monotonic() + PATIENCE_S
        status = 503
        while status != 200 and time.monotonic() < ends_s:
            with contextlib.suppress(OSError, http.client.HTTPException):
                status = ask(endpoint, "/healthz")[0]
        assert status == 200


def test_a_page_that_cannot_be_made_is_no_end(caplog: pytest.LogCaptureFixture) -> None:
    endpoint = Endpoint("0", Shown(Vitals(), lambda: (b"" + 1, "")))  # type: ignore[operator]
    with contextlib.closing(endpoint):
        assert ask(endpoint, "/metrics")[0] == 500
        assert ask(endpoint, "/healthz")[0] == 200
    assert "metrics: cannot be shown" in caplog.text


def test_a_port_that_is_taken_is_named_and_one_that_was_left_is_free() -> None:
    with opened() as endpoint:
        port = endpoint.port
        with pytest.raises(BindError, match=rf"127\.0\.0\.1:{port}: metrics: .*; choose another --metrics HOST:PORT"):
            Endpoint(f"127.0.0.1:{port}", Shown(Vitals(), lambda: (b"", "")))
    Endpoint(f"127.0.0.1:{port}", Shown(Vitals(), lambda: (b"", ""))).close()
    with pytest.raises(BindError, match="metrics:"):
        Endpoint("192.0.2.7:0", Shown(Vitals(), lambda: (b"", "")))


def test_an_address_is_a_port_of_this_machine_where_it_names_no_other() -> None:
    assert address_of("9464") == ("127.0.0.1", 9464)
    assert address_of("0.0.0.0:9464") == ("0.0.0.0", 9464)
    assert address_of("[::1]:0") == ("::1", 0)
    for wrong in ("", ":", ":80", "x:", "x:99999", "::1:80", "a b:1", "http://x:1", "x:http", "²"):
        with pytest.raises(ValueError, match="expected HOST:PORT"):
            address_of(wrong)


def test_whoever_asks_while_it_closes_is_answered_or_hung_up_on() -> None:
    """A connection that was accepted as the port closed was left open, and its reader waited for ever."""
    for _ in range(20):
        with opened() as endpoint, contextlib.ExitStack() as stack:
            asking = [
                stack.enter_context(socket.create_connection(("127.0.0.1", endpoint.port), PATIENCE_S))
                for _ in range(3)
            ]
            for connection in asking:
                connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            endpoint.close()
            for connection in asking:
                with contextlib.suppress(ConnectionError):
                    while connection.recv(1000):
                        pass
