"""Who a device is where a balancer ends its TLS: the name that the balancer says, and nobody else's word."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.edge_server.connections import certificate_of
from isthmus.proto.security import BALANCED, BALANCER_NAME


class Call:
    """What gRPC tells of one."""

    def __init__(self, common_name: str | None, *metadata: tuple[str, Any]) -> None:
        self._name, self._metadata = common_name, metadata

    def auth_context(self) -> dict[str, tuple[bytes, ...]]:
        if self._name is None:
            return {}
        return {"transport_security_type": (b"ssl",), "x509_common_name": (self._name.encode(),)}

    def invocation_metadata(self) -> tuple[tuple[str, Any], ...]:
        return self._metadata


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Call(BALANCER_NAME, (BALANCED, "cam7")), "cam7"),
        (Call(BALANCER_NAME, ("user-agent", "x"), (BALANCED, "CN=cam7")), "cam7"),
        (Call(BALANCER_NAME), ""),
        (Call(BALANCER_NAME, (BALANCED, "cam7"), (BALANCED, "cam8")), ""),
        (Call(BALANCER_NAME, (BALANCED, b"cam7")), ""),
        (Call("cam9", (BALANCED, "cam7")), "cam9"),
        (Call(None, (BALANCED, "cam7")), None),
    ],
)
def test_a_device_s_name(call: Any, name: str | None) -> None:
    assert certificate_of(call) == name
