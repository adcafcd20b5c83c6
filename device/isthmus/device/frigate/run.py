"""Opens a detector's bundle and answers Frigate until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable

from isthmus.device.frigate.config import FrigateConfig
from isthmus.device.frigate.detector import Detector
from isthmus.device.output.writers import Writers
from isthmus.device.run import SWITCH_S, answer_with, open_device, recorded
from isthmus.proto.errors import ConfigError

log = logging.getLogger(__name__)


async def run_frigate(config: FrigateConfig, ready: Callable[[str], None], *, command: str = "") -> None:
    """Answer Frigate until SIGTERM; `ready` is told where, once it is listened.

    Raises ConfigError, BundleError, SecurityError, BindError, HandshakeError, DataError: each names the thing and the way out.
    """
    sys.setswitchinterval(SWITCH_S)
    device = open_device(config.agent())
    if (task := device.bundle.manifest.task) != "detection":
        raise ConfigError(f"{config.bundle}: its answers are {task}, Frigate asks for boxes; name a detector's bundle")
    record = recorded(device, 0.0, command)
    detector = Detector(config.listen, deadline_s=config.deadline_s, channels=config.channels)
    with contextlib.closing(Writers([detector, *record])) as writers:
        ready(detector.endpoint)
        await answer_with(device, detector.serve, writers.write, on_end=writers.end, signals=True)
        writers.check()
