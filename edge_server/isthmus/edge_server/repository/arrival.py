"""A bundle that comes in over the network, as files: out of everybody's sight until it is whole and checked by its hashes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from isthmus.edge_server.repository.scratch import Scratch
from isthmus.models import bundle as bundles
from isthmus.models import seal
from isthmus.proto.errors import BundleError, DataError, IsthmusError, WireError
from isthmus.proto.printable import printable

PREFIX = ".push-"
"""Of the folders in a repository in which pushes arrive; what begins with a dot is no bundle's."""
MOST_BYTES = 2 << 30
"""The largest bundle that is taken; the largest network that a frame's budget allows is a tenth of it."""
MOST_FILES = 64
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""A bundle's name and version become folders, so that neither leads anywhere else."""
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Arrival:
    """One push: what is said at its beginning, then bytes, then the check. `discard` leaves nothing behind."""

    def __init__(
        self,
        root: Path,
        name: str,
        version: str,
        sha256: bytes,
        files: Sequence[tuple[str, int]],
        *,
        most: int = MOST_BYTES,
    ) -> None:
        """`files` are names and sizes in the order in which they come; all together are `most` bytes.

        Raises WireError where what is said cannot be a bundle, DataError where it is too much.
        """
        _check_names(name, version, sha256, [file for file, _ in files])
        total = sum(size for _, size in files)
        if total > most:
            raise DataError(f"push: {total} bytes, at most {most} are taken; put the bundle into {root} by hand")
        self._root, self.place, self.sha256 = root, f"{name}/{version}", sha256
        self._name, self._left = name, [*files]
        self._total = self._missing = total
        self._file: BinaryIO | None = None
        self._file_missing = 0
        with _kept_in(root):
            if (free := shutil.disk_usage(root).free) < total:
                raise DataError(f"push: {total} bytes, {free} are free on the server's disk; make room there")
            self._scratch = Scratch(root, PREFIX)
            self.folder = self._scratch.path / "bundle"
            self.folder.mkdir()

    def write(self, data: bytes) -> None:
        """The next bytes. Raises WireError where more come than were said, DataError where the disk refuses."""
        if len(data) > self._missing:
            raise WireError(f"push: more than the {self._total} bytes that were said; push again")
        self._missing -= len(data)
        with _kept_in(self._root):
            while data:
                if self._file is None or self._file_missing == 0:
                    self._next_file()
                    continue
                part = data[: self._file_missing]
                self._file.write(part)
                self._file_missing -= len(part)
                data = data[len(part) :]

    def finish(self) -> None:
        """All that came has come. Raises WireError where it was cut, BundleError where it is not what was said."""
        if self._missing:
            raise WireError(f"push: cut after {self._total - self._missing} of {self._total} bytes; push again")
        with _kept_in(self._root):
            while self._left:
                self._next_file()  # those that are empty
            self._close_file()
        try:
            found = bundles.load(str(self.folder.resolve()))
        except IsthmusError as error:
            raise BundleError(f"push: {str(error).replace(f'{self.folder.resolve()}/', '')}") from error
        if found.sha256 != self.sha256:
            raise BundleError(
                f"push: {seal.FILE}: sha256 {found.sha256.hex()[:12]}…, {self.sha256.hex()[:12]}… was said; push again"
            )
        if found.manifest.name != self._name:
            raise BundleError(f"push: bundle {printable(found.manifest.name)}, {self._name} was said; push again")

    def check_place(self) -> None:
        """Raises BundleError where something lies in its place already."""
        if os.path.lexists(self._root / self.place):
            raise BundleError(
                f"push: {self.place}: is there already, and holds something else; choose another --version"
            )

    def put(self) -> None:
        """Move it to its place, in one step. Raises BundleError where something lies there, DataError if the disk refuses."""
        target = self._root / self.place
        with _kept_in(self._root):
            target.parent.mkdir(exist_ok=True)
            self.check_place()
            self.folder.rename(target)

    def discard(self) -> None:
        """Delete what is left of it."""
        if self._file is not None:
            self._file.close()
        self._scratch.close()

    def _next_file(self) -> None:
        self._close_file()
        name, self._file_missing = self._left.pop(0)
        self._file = (self.folder / name).open("xb")

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@contextlib.contextmanager
def _kept_in(root: Path) -> Iterator[None]:
    """What the disk refuses, as a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"push: cannot be kept in {root} ({error.strerror}), and nothing of it was; make room there, or let the server "
            "write into it"
        ) from error


def _check_names(name: str, version: str, sha256: bytes, files: Sequence[str]) -> None:
    for what, said in (("name", name), ("version", version)):
        if not NAME.fullmatch(said):
            raise WireError(
                f"push: {what} '{printable(said)}': letters, digits, '.', '_' and '-' are expected, 64 at most"
            )
    for file in files:
        if not FILE.fullmatch(file):
            raise WireError(f"push: file '{printable(file)}': a plain name is expected, without a folder")
    if len(files) > MOST_FILES or len(set(files)) < len(files) or seal.FILE not in files or len(sha256) != 32:
        raise WireError(f"push: one {seal.FILE}, at most {MOST_FILES} files, none twice, and a sha256 are expected")
