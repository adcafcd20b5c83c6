"""The way to Ray: a cluster that is there, or one of this process alone that ends with it. It is imported when asked for."""

from __future__ import annotations

import logging
import os
from typing import Any

from isthmus.proto.errors import ConfigError

STORE_BYTES = 256 * 2**20
"""The object store of a Ray of our own: what crosses is small, and Ray would take a third of the memory."""


def connect(address: str | None, *, cpus: int | None = None) -> Any:
    """The module `ray`, connected to the cluster at `address`, or at RAY_ADDRESS; without either to one of our own.

    `cpus` is how many processors our own believes to have; None: those of the machine. Raises ConfigError where Ray is not
    installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"{error.name or error}: not installed; this needs the 'ray' extra") from error
    if ray.is_initialized():
        return ray  # by whoever else is in this process
    address = address or os.environ.get("RAY_ADDRESS")
    own: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    try:
        ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False, **({} if address else own))
    except Exception as error:  # Ray has many, and each names only what it was about to do
        hint = "`ray start --head` makes one" if address else "see its logs in /tmp/ray"
        raise ConfigError(
            f"ray: no cluster at {address or 'this machine'} ({' '.join(str(error).split())}); {hint}"
        ) from error
    return ray
