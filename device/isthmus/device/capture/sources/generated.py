"""The generated scenes."""

from __future__ import annotations

from isthmus.device.capture.sources.source import Picture, Source


class Generated(Source):
    """The rendered scenes of the `signs` bundle, as seen from a moving camera; the truth is known."""

    def __init__(self, seed: int, fps: float = 15.0) -> None:
        from isthmus.models.scenes import Drive  # 10 MB of pictures that no other source needs

        self.name, self.fps = f"generated:{seed}", fps
        self._drive = Drive(seed, fps)
        self._next = 0

    def read(self) -> Picture:
        """The next frame of an endless drive."""
        scene = self._drive.frame(self._next)
        self._next += 1
        return Picture(f"scene #{self._next}", scene.image, scene.label)

    def close(self) -> None:
        """Nothing is held open."""
