"""Puts a unit, its configuration and its certificates into a machine, or into a folder that stands for one (`root`).

Nothing of a user's is overwritten: a configuration or certificate that is there stays, an edited unit is a refusal.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from isthmus.cli.services import units
from isthmus.cli.services.units import Role
from isthmus.device.config import AgentConfig
from isthmus.proto import config, security
from isthmus.proto.errors import ConfigError, DataError, SecurityError

HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""What a unit does not see: ProtectHome and PrivateTmp."""
FIRST: dict[Role, str] = {
    "agent": """# `isthmus config schema agent` lists every key, `isthmus doctor --config` this file looks at what it names.
bundle = "signs"
source = "camera:0"
deadline_s = 0.1
record = "answers.jsonl"  # in /var/lib/isthmus, at most 1 GB
# server = "edge.local:50551"
""",
    "server": """# `isthmus config schema server` lists every key.
bundle = "signs"
listen = "0.0.0.0:50551"
metrics = "127.0.0.1:9464"
""",
}
"""The configuration that is written where none is given."""
OUTLETS = ("record", "mqtt", "webhook", "page", "clips", "overlay", "preview")
"""Where an agent's answers go beside standard output, which a unit throws away."""


@dataclass
class Done:
    """What was written, what was left as it was, and what is to be known."""

    written: list[Path] = field(default_factory=list)
    left: list[Path] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)


def program() -> str:
    """The `isthmus` that runs now, as a unit can start it. Raises ConfigError where a unit cannot see it."""
    found = Path(sys.executable).parent / "isthmus"
    if not found.exists():
        raise ConfigError(
            f"{found}: not there; install isthmus into a virtual environment, and run that one's `isthmus`"
        )
    if str(found).startswith(tuple(f"{place}/" for place in HIDDEN)):
        raise ConfigError(
            f"{found}: a service sees nothing of {', '.join(HIDDEN)}; install into /opt: "
            "python3 -m venv /opt/isthmus && /opt/isthmus/bin/pip install isthmus, then /opt/isthmus/bin/isthmus service install"
        )
    return str(found)


def install(
    role: Role, root: Path, *, program: str, given: Path | None, certs: str | None, insecure: bool, replace: bool
) -> Done:
    """Write unit, configuration and certificates of `role` below `root`.

    `given` is a configuration to begin with, `certs` a folder of `isthmus certs`; `insecure` is plaintext, spelled out.
    Raises ConfigError, SecurityError, and DataError for what cannot be written, before anything is written where it can.
    """
    there = root / units.CONFIGURATION / f"{role}.toml"
    source = there if there.exists() else given
    settings = _settings(role, source)
    folder = certs or getattr(settings, "certs", None)
    has_certs = folder is not None or (root / units.certs_folder(role)).is_dir()
    _check(role, settings, has_certs=has_certs, insecure=insecure)
    path, text = root / units.UNITS / units.name(role), units.unit(role, program, certs=has_certs)
    _check_unit(path, text, replace)
    done = Done()
    try:
        if folder is not None:
            _copy_certificates(role, root, folder, done)
        _write_configuration(role, there, given, insecure, done)
        if path.exists() and not units.is_as_written(path.read_text()):
            kept = path.with_suffix(".service.edited")
            path.rename(kept)
            done.left.append(kept)
        _write(path, text.encode(), 0o644, done)
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}; run this as root, or give --root FOLDER") from error
    if role == "agent" and not any(getattr(_settings(role, there), key) for key in OUTLETS):
        done.advice.append(f"{there}: answers go nowhere; set record, mqtt, webhook or page")
    return done


def uninstall(role: Role, root: Path, *, replace: bool) -> Done:
    """Take the unit away; configuration, keys and what was recorded stay. Raises ConfigError for an edited or enabled one."""
    path, done = root / units.UNITS / units.name(role), Done()
    if not path.exists():
        raise ConfigError(f"{path}: there is no such unit")
    if (root / units.UNITS / "multi-user.target.wants" / units.name(role)).is_symlink():
        raise ConfigError(f"{path}: is enabled; systemctl disable --now {units.name(role)} first")
    if not units.is_as_written(path.read_text()) and not replace:
        raise ConfigError(f"{path}: was edited; keep what you need of it, then say --replace")
    try:
        path.unlink()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; run this as root") from error
    done.written.append(path)
    kept = (f"{units.CONFIGURATION}/{role}.toml", units.certs_folder(role), f"var/lib/{units.STATE[role]}")
    done.left += [root / place for place in kept if (root / place).exists()]
    return done


def _settings(role: Role, source: Path | None) -> msgspec.Struct:
    """What the unit will be told, without the variables of whoever installs it."""
    if role == "agent":
        kind: type[msgspec.Struct] = AgentConfig
    else:
        from isthmus.edge_server.config import ServerConfig

        kind = ServerConfig
    if source is None:
        return msgspec.toml.decode(FIRST[role], type=kind)
    return config.load(kind, source, {}, prefix="ISTHMUS_SERVICE_INSTALL")


def _check(role: Role, settings: msgspec.Struct, *, has_certs: bool, insecure: bool) -> None:
    talks = role == "server" or getattr(settings, "server", None) is not None
    plain = insecure or getattr(settings, "insecure", False)
    if has_certs and plain:
        raise ConfigError("insecure contradicts certs; drop one of them, also in the configuration")
    if talks and not has_certs and not plain:
        raise SecurityError(
            f"{role}: neither certificates nor plaintext; give --certs FOLDER of `isthmus certs`, or spell out --insecure"
        )
    for key in ("bundle", "filter"):
        path = Path(getattr(settings, key, None) or "")
        if str(path).startswith(tuple(f"{place}/" for place in HIDDEN)) or (
            not path.is_absolute() and "/" in str(path)
        ):
            raise ConfigError(f"{key} = '{path}': a service does not see it; copy it to /var/lib/isthmus-bundles, say, "
                              "and name it by its whole path")  # fmt: skip


def _check_unit(path: Path, text: str, replace: bool) -> None:
    if path.exists() and not replace and (there := path.read_text()) != text and not units.is_as_written(there):
        raise ConfigError(
            f"{path}: was edited; put your changes into a drop-in (systemctl edit {path.name}), or say --replace: "
            f"the edited one is then kept as {path.name}.edited"
        )


def _copy_certificates(role: Role, root: Path, folder: str, done: Done) -> None:
    """Authority and certificate for all to read, the key for root alone, and a link to where systemd shows it."""
    half = units.HALVES[role]
    authority, certificate, key = security.read(folder, half)
    names, place, keys = security.FILES[half], root / units.certs_folder(role), root / units.KEYS
    place.mkdir(parents=True, exist_ok=True)
    keys.mkdir(mode=0o700, exist_ok=True)
    keys.chmod(0o700)
    if (place / names[1]).exists() and (place / names[1]).read_bytes() != certificate:
        raise SecurityError(f"{place / names[1]}: another certificate is there; move it away first")
    _write(place / names[0], authority, 0o644, done)
    _write(place / names[1], certificate, 0o644, done)
    _write(keys / names[2], key, 0o600, done)
    link = place / names[2]
    if not link.is_symlink():
        link.symlink_to(units.credential(role))
        done.written.append(link)


def _write_configuration(role: Role, there: Path, given: Path | None, insecure: bool, done: Done) -> None:
    if there.exists():
        done.left.append(there)
        if given is not None and given.read_bytes() != there.read_bytes():
            done.advice.append(f"{there}: is there already and stays; {given} was not copied")
        return
    plain = "insecure = true\n" if insecure else ""
    text = FIRST[role] + plain if given is None else given.read_text()
    if given is not None and insecure and not getattr(_settings(role, given), "insecure", False):
        text = plain + text
    _write(there, text.encode(), 0o600, done)  # it may hold a password


def _write(path: Path, content: bytes, mode: int, done: Done) -> None:
    """In one step, and with its mode from the beginning."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_bytes() == content:
        done.left.append(path)
        return
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
    scratch.replace(path)
    done.written.append(path)
