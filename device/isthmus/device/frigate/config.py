"""What `isthmus frigate` can be told, from a file, ISTHMUS_FRIGATE_* variables and flags."""

from __future__ import annotations

import re

import msgspec

from isthmus.device.config import AgentConfig
from isthmus.device.frigate.protocol import Channels

MOST_PORT = 65_535
_ENDPOINT = re.compile(r"ipc://.+|tcp://[^\s/]+:(?:(?P<port>[0-9]{1,9})|\*)")


class FrigateConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The configuration of a detector for Frigate."""

    bundle: str = ""
    """Folder of a detector's bundle."""
    listen: str = "tcp://127.0.0.1:5555"
    """Where Frigate asks: its detector's `endpoint`."""
    channels: Channels = "rgb"
    """The order of a picture's colours: Frigate's `input_pixel_format`, which it does not tell."""
    server: str | tuple[str, ...] | None = None
    """HOST:PORT of the edge server, or of several as the agent takes them; None answers from the device alone."""
    deadline_s: float = 0.17
    """Time from a request to its reply: Frigate's `request_timeout_ms` of 200 less the way there and back."""
    certs: str | None = None
    """Folder of ca.pem, device.pem and device.key."""
    insecure: bool = False
    """Talk to the server in plaintext."""
    policy: str = "expected-utility"
    threads: int = 1
    """Threads of the head."""
    client_id: str = "frigate"
    """What the server's log calls this device."""
    record: str | None = None
    """Append every reply to this file as an agent does (JSON lines); rotated and bounded like an agent's."""

    def __post_init__(self) -> None:
        if not self.bundle:
            raise ValueError("bundle: none named; give the folder of a detector's (`isthmus models pair` makes one)")
        if (match := _ENDPOINT.fullmatch(self.listen)) is None or int(match["port"] or 0) > MOST_PORT:
            raise ValueError(
                f"listen = '{self.listen}', expected ipc://PATH or tcp://HOST:PORT, a port up to {MOST_PORT}"
            )
        self.agent()

    def agent(self) -> AgentConfig:
        """The agent that answers. Raises ValueError for what no agent can be told."""
        return AgentConfig(
            bundle=self.bundle,
            server=self.server,
            deadline_s=self.deadline_s,
            certs=self.certs,
            insecure=self.insecure,
            policy=self.policy,
            threads=self.threads,
            client_id=self.client_id,
            record=self.record,
        )
