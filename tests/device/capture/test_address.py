"""What is said of an address: never a password."""

from __future__ import annotations

import pytest

from isthmus.device.capture.sources.address import public


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://admin:p@ss@10.0.0.9:554/h264", "rtsp://10.0.0.9:554/h264"),
        ("rtsp://10.0.0.9/a@b", "rtsp://10.0.0.9/a@b"),
        ("http://cam/video.cgi?user=a&pwd=b", "http://cam/video.cgi?…"),
        ("isthmus agent --source 'http://u:p@cam/x?pwd=b' --fps 5", "isthmus agent --source 'http://cam/x?…' --fps 5"),
        ("isthmus agent --source rtsp://u:p@cam/x --server a:1", "isthmus agent --source rtsp://cam/x --server a:1"),
        ("rtspsrc location=rtsp://u:p@cam/x ! appsink", "rtspsrc location=rtsp://cam/x ! appsink"),
        ("camera:0", "camera:0"),
        ("what?", "what?"),
    ],
)
def test_credentials_are_left_out(text: str, shown: str) -> None:
    assert public(text) == shown
