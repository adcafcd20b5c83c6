"""Opens a detector's bundle and answers Frigate until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable

from isthmus.device.frigate.config import FrigateConfig
from isthmus.device.frigate.detector import Detector
from isthmus.device.run import SWITCH_S, answer_with, open_device
from isthmus.proto.errors import ConfigError

log = logging.getLogger(__name__)


async def run_frigate(config: FrigateConfig, ready: Callable[[str], None]) -> None:
    """Answer Frigate until SIGTERM; `ready` is told where, once it is listened.

    Raises ConfigError, BundleError, SecurityError, BindError, HandshakeError: each names the thing and the way out.
    """
    sys.setswitchinterval(SWITCH_S)
    device = open_device(config.agent())
    if (task := device.bundle.manifest.task) != "detection":
        raise ConfigError(f"{config.bundle}: its answers are {task}, Frigate asks for boxes; name a detector's bundle")
    detector = Detector(config.listen, deadline_s=config.deadline_s, channels=config.channels)
    with contextlib.closing(detector):
        ready(detector.endpoint)
        await answer_with(device, detector.serve, detector.answered, signals=True)
