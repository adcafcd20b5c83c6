"""The text of a unit: a template, what it starts, its key, and a line by which an edited unit is known."""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import Literal

from isthmus.proto.security import FILES, Half

Role = Literal["agent", "server"]
HALVES: dict[Role, Half] = {"agent": "device", "server": "server"}
VERBS: dict[Role, str] = {"agent": "agent", "server": "serve"}
STATE: dict[Role, str] = {"agent": "isthmus", "server": "isthmus-server"}
"""The unit's folder in /var/lib, which is where relative paths of its configuration lie."""
CONFIGURATION = "etc/isthmus"
UNITS = "etc/systemd/system"
KEYS = f"{CONFIGURATION}/keys"
"""Where keys lie, for root alone; a unit is given its own by LoadCredential."""
_SEAL = re.compile(r"# isthmus service: ([0-9a-f]{64})\n")


def name(role: Role) -> str:
    """The unit's name."""
    return f"isthmus-{role}.service"


def certs_folder(role: Role) -> str:
    """Where a role's certificate lies, from the root of the file system."""
    return f"{CONFIGURATION}/{HALVES[role]}"


def credential(role: Role) -> str:
    """Where systemd shows a unit its key: only that unit's user sees it."""
    return f"/run/credentials/{name(role)}/{FILES[HALVES[role]][2]}"


def unit(role: Role, program: str, *, certs: bool) -> str:
    """A whole unit that starts `program`, the absolute path of `isthmus`; with `certs`, its key is loaded for it."""
    command = f"{program} {VERBS[role]} --config ${{CREDENTIALS_DIRECTORY}}/{role}.toml"
    key = FILES[HALVES[role]][2]
    loaded = [f"LoadCredential={role}.toml:/{CONFIGURATION}/{role}.toml", f"LoadCredential={key}:/{KEYS}/{key}"]
    text = (
        _template(f"{role}.service")
        .replace("@COMMAND@", command + (f" --certs /{certs_folder(role)}" if certs else ""))
        .replace("@CREDENTIALS@", "\n".join(loaded if certs else loaded[:1]))
        .replace("@HARDENING@", _template("hardening.conf"))
    )
    return f"# isthmus service: {hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def is_as_written(text: str) -> bool:
    """Whether a unit is one of ours that nobody has edited since."""
    seal = _SEAL.match(text)
    return seal is not None and seal[1] == hashlib.sha256(text[seal.end() :].encode()).hexdigest()


def _template(file: str) -> str:
    return resources.files(__package__).joinpath(file).read_text(encoding="utf-8")
