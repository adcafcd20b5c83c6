"""An agent's configuration: what cannot be is refused by its key, with the way out."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from isthmus.device.config import AgentConfig


@pytest.mark.parametrize("server", ["edge:50551", "192.168.1.20:1", "[::1]:65535", "[fe80::1%eth0]:50551"])
def test_one_server_is_named_by_host_and_port(server: str) -> None:
    assert AgentConfig(server=server).server == server
    assert AgentConfig(server=server).servers == (server,)


@pytest.mark.parametrize("several", ["a:1, b:2,a:1,", ("a:1", "b:2"), ["a:1", "b:2", "a:1"]])
def test_several_servers_are_a_list_or_have_commas_between(several: object) -> None:
    config = msgspec.convert({"server": several}, AgentConfig, strict=False)
    assert config.servers == ("a:1", "b:2")
    assert AgentConfig().servers == ()


@pytest.mark.parametrize(
    "server",
    [
        "localhost",
        "edge:",
        ":50551",
        "edge:0",
        "edge:70000",
        "",
        ",",
        "a:1,b",
        "a:1 b:2",
        "::1:50551",
        "ipv4:1.2.3.4:5",
        "dns:///a:1",
    ],
)
def test_whatever_else_is_refused_and_not_dialled_in_vain(server: str) -> None:
    with pytest.raises(ValueError, match=r"^server = .*expected HOST:PORT"):
        AgentConfig(server=server)


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 0},
        {"threads": 100_000},
        {"record_file_bytes": 10},
        {"record_file_bytes": 2_000_000, "record_total_bytes": 1_000_000},
        {"record_age_s": 0.0},
        {"record_age_s": float("nan")},
        {"energy_weight": -1.0, "profile": "pi4"},
        {"energy_weight": float("nan"), "profile": "pi4"},
        {"energy_weight": float("inf"), "profile": "pi4"},
        {"energy_weight": 1.0},
    ],
)
def test_limits_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError, match=next(iter(changes))):
        msgspec.convert(changes, AgentConfig)
