"""A camera that libcamera knows, as those of a Raspberry Pi: through picamera2, otherwise through `rpicam-vid`."""

from __future__ import annotations

import shutil
import subprocess
from importlib import import_module
from importlib.util import find_spec

from isthmus.device.capture.sources.files import decoded
from isthmus.device.capture.sources.pipe import Jpegs
from isthmus.device.capture.sources.source import Picture, Source, Wish
from isthmus.proto.errors import SourceError

SIZE, FPS = (640, 480), 30.0
"""What a camera is asked for where nothing else is said: more than any shipped head looks at."""
COMMANDS = ("rpicam-vid", "libcamera-vid")
"""One program; the second is its name before 2023."""
ENDING_S = 2.0


def libcamera(index: int, wish: Wish) -> Source:
    """The camera of this number, through whatever is here. Raises SourceError."""
    if find_spec("picamera2") is not None:
        return PiCamera(index, wish)
    if (command := next(filter(shutil.which, COMMANDS), None)) is not None:
        return RpicamVid(command, index, wish)
    raise SourceError(
        f"libcamera:{index}: neither picamera2 nor rpicam-vid is here; `apt install python3-picamera2` (and let the virtual "
        "environment see it: --system-site-packages), or `apt install rpicam-apps`"
    )


class PiCamera(Source):
    """A camera in this process."""

    live = reconnects = True

    def __init__(self, index: int, wish: Wish) -> None:
        self._index, self._wish, self._count = index, wish, 0
        self.name, self.fps = f"libcamera {index}", wish.fps or FPS
        try:
            self._camera = import_module("picamera2").Picamera2(index)
            main = {"size": wish.size or SIZE, "format": "BGR888"}  # libcamera's word for R, G, B in memory
            self._camera.configure(self._camera.create_video_configuration(main=main, controls={"FrameRate": self.fps}))
            self._camera.start()
        except (ImportError, RuntimeError, IndexError, OSError) as error:
            raise SourceError(f"{self.name}: cannot be opened ({error}); does `rpicam-hello` show it?") from error

    def read(self) -> Picture:
        """The newest picture; SourceError when the camera stopped."""
        try:
            pixels = self._camera.capture_array("main")
        except (RuntimeError, OSError) as error:
            raise SourceError(f"{self.name}: gave no picture after {self._count} ({error})") from error
        self._count += 1
        return Picture(f"{self.name} #{self._count}", pixels)

    def again(self) -> PiCamera:
        """The camera opened anew."""
        return PiCamera(self._index, self._wish)

    def close(self) -> None:
        """Let go of the camera."""
        self._camera.stop()
        self._camera.close()


class RpicamVid(Source):
    """A camera in a process of its own, which writes MJPEG."""

    live = reconnects = True
    patience_s = 10.0

    def __init__(self, command: str, index: int, wish: Wish) -> None:
        self._command, self._index, self._wish = command, index, wish
        self.name, self.fps = f"libcamera {index}", wish.fps or FPS
        width, height = wish.size or SIZE
        asked = ["--camera", f"{index}", "--width", f"{width}", "--height", f"{height}", "--framerate", f"{self.fps:g}"]
        arguments = [command, "--timeout", "0", "--nopreview", "--codec", "mjpeg", *asked, "--output", "-"]
        try:
            self._child = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
            )
        except OSError as error:
            raise SourceError(f"{self.name}: {command}: {error.strerror}") from error
        assert self._child.stdout is not None
        self._jpegs = Jpegs(self._child.stdout.fileno())

    def read(self) -> Picture | None:
        """The next picture; SourceError when the process ended."""
        content = self._jpegs.next()
        if content is None:
            count = self._jpegs.count
            raise SourceError(f"{self.name}: {self._command} ended after {count} pictures; what does it say by hand?")
        name = f"{self.name} #{self._jpegs.count}"
        return decoded(content, name, name)

    def again(self) -> RpicamVid:
        """The process, started anew."""
        self.close()
        return RpicamVid(self._command, self._index, self._wish)

    def wake(self) -> None:
        """Wait for nothing more."""
        self._jpegs.wake()

    def close(self) -> None:
        """End the process."""
        if self._child.stdout is None or self._child.stdout.closed:
            return
        self._child.terminate()
        try:
            self._child.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
