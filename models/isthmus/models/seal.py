"""What holds a bundle's folder together: the seal of its `bundle.toml`, and through it the hash of every file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from isthmus.proto.errors import BundleError

FILE, SEAL = "bundle.toml", "bundle.sha256"


def sealed(raw: bytes) -> str:
    """What `bundle.sha256` says beside a `bundle.toml` of these bytes, as `sha256sum` writes it."""
    return f"{hashlib.sha256(raw).hexdigest()}  {FILE}\n"


def check(path: Path, found: str) -> None:
    """Raises BundleError when the seal beside the `bundle.toml` in `path` is of another sha256 than was found.

    Bundles of older versions have no seal.
    """
    try:
        said = path.with_name(SEAL).read_text().partition(" ")[0]
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path.with_name(SEAL)}: cannot be read ({error}); fetch the bundle again") from error
    if said != found:
        raise BundleError(
            f"{path}: is not as it was written (sha256 {found[:12]}…, {SEAL} says {said[:12]}…); fetch the bundle again, "
            f"or, if the change is yours, `sha256sum {FILE} > {SEAL}` in its folder"
        )


def verify(path: Path, expected: str | None) -> None:
    """Raises BundleError unless a bundle's file is there, in its folder, and of the sha256 that `bundle.toml` says."""
    if expected is None:
        raise BundleError(f"{path.parent / FILE}: files: no hash for {path.name}")
    if path.resolve().parent != path.parent.resolve():
        raise BundleError(f"{path}: leads out of the bundle's folder; put the file itself there")
    if not path.is_file():
        raise BundleError(f"{path}: missing; fetch the bundle again")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise BundleError(f"{path}: sha256 {found[:12]}…, bundle.toml says {expected[:12]}…; fetch the bundle again")
