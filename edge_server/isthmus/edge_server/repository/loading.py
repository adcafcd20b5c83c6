"""From a bundle's folder to a tail that is ready. Takes seconds: for a thread beside the event loop.

What a repository serves is a copy of its own of `bundle.toml` and the tail, checked by its hashes: whatever is done to the
folder then, a thread that takes the place of a hung one, or a tail that is loaded again, finds what was checked.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from isthmus.edge_server.engines import ENGINES, Tail
from isthmus.edge_server.repository.folder import version_of
from isthmus.edge_server.repository.lane import Served
from isthmus.edge_server.repository.tail import WarmTail
from isthmus.models import bundle as bundles
from isthmus.models import seal
from isthmus.models.bundle import Bundle
from isthmus.proto import wire
from isthmus.proto.errors import BundleError, ConfigError


@dataclass(frozen=True)
class Loader:
    """How tails are loaded on this server."""

    threads: int
    engine: str
    max_batch: int
    max_message_bytes: int
    copies: Path
    """Where the copies lie, each in a folder named after its hash."""

    def __post_init__(self) -> None:
        """Raises ConfigError for an engine that there is not: no bundle's fault."""
        if self.engine not in ENGINES:
            raise ConfigError(f"engine = '{self.engine}'; known: {', '.join(ENGINES)}")

    def find(self, folder: Path, place: str) -> tuple[Bundle, Served]:
        """The bundle in `folder`, whose hashes are right, and what is served of it from `place`.

        Raises IsthmusError that names the file, and OSError.
        """
        if not (folder / seal.FILE).is_file():
            raise BundleError(f"{folder / seal.FILE}: not a file that can be read; put a bundle there, or nothing")
        found = bundles.load(str(folder.resolve()), half="tail")
        if not found.manifest.name.strip():
            raise BundleError(
                f"{folder / seal.FILE}: name: is empty, and a repository tells bundles apart by it; give it one"
            )
        served = _served(found, version_of(place))
        needed = wire.max_message_bytes(served.codec)
        if needed > self.max_message_bytes:
            raise BundleError(
                f"{folder}: messages of up to {needed} bytes cross, a repository's server takes {self.max_message_bytes}; "
                "serve it alone, with --bundle"
            )
        return found, served

    def load(self, found: Bundle, version: str) -> WarmTail:
        """The tail of a bundle that was found, from a copy of it. Raises as `find` does."""
        return self._warm(self._copied(found), version)

    def again(self, served: Served) -> WarmTail:
        """The tail of a bundle that was loaded before, from its copy. Raises as `find` does."""
        return self._warm(self.copied(served), served.version)

    def copied(self, served: Served) -> Bundle:
        """The copy of a bundle that was loaded before. Raises BundleError."""
        return bundles.load(str(self.copy_of(served.sha256)), half="tail")

    def copy_of(self, sha256: bytes) -> Path:
        """Where the copy of a bundle lies, once it is checked."""
        return self.copies / sha256.hex()

    def keep_only(self, needed: Collection[bytes]) -> None:
        """Delete the copies of all bundles but these."""
        names = {self.copy_of(sha256).name for sha256 in needed}
        for path in self.copies.iterdir() if self.copies.is_dir() else ():
            if path.is_dir() and path.name not in names:
                shutil.rmtree(path, ignore_errors=True)

    def _copied(self, found: Bundle) -> Bundle:
        target = self.copy_of(found.sha256)
        if not target.exists():
            scratch = target.with_suffix(".new")
            shutil.rmtree(scratch, ignore_errors=True)
            try:
                scratch.mkdir(parents=True)
                for name in (seal.FILE, *bundles.tail_files(found.manifest)):
                    shutil.copyfile(found.folder / name, scratch / name)
                if found.head_path.is_file():  # for clients that have nothing but a picture
                    shutil.copyfile(found.head_path, scratch / found.head_path.name)
                if bundles.load(str(scratch), half="tail").sha256 != found.sha256:
                    raise BundleError(f"{found.folder}: changed while it was read")
                scratch.rename(target)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return bundles.load(str(target), half="tail")

    def _warm(self, copy: Bundle, version: str) -> WarmTail:
        def tail() -> Tail:
            return Tail(copy, self.threads, engine=self.engine)

        return WarmTail.of(_served(copy, version), tail(), max_batch=self.max_batch, another=tail)


def _served(found: Bundle, version: str) -> Served:
    return Served(found.manifest.name, found.sha256, found.codec, version)
