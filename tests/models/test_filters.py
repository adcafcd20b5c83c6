"""A filter on disk: whatever is wrong with one is named by file and key."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from isthmus.models import filters
from isthmus.proto.errors import BundleError

SOUND = """
schema = 1
name = "yard"
threshold = 0.25
temperature = 1.5
flops = 1000
sha256 = "{sha256}"
[input]
size = 64
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
[score]
interesting = 10
empty = 90
visits = 3
visits_lost = 0
"""


def written(folder: Path, old: str = "", new: str = "") -> Path:
    """A filter's folder, its network no network: `load` does not open it."""
    (folder / filters.NETWORK).write_bytes(b"network")
    text = SOUND.format(sha256=hashlib.sha256(b"network").hexdigest())
    assert old in text
    (folder / filters.FILE).write_text(text.replace(old, new, 1))
    return folder


def test_a_sound_one_is_read(tmp_path: Path) -> None:
    text = "interesting = 10\n"
    found = filters.load(written(tmp_path, text, text + "auc = 0.9\nlost = 0.1\ndismissed = 0.8\n"))
    assert found.manifest.threshold == 0.25


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("temperature = 1.5", "temperature = 0.0", "threshold and temperature must be finite, temperature above 0"),
        ("threshold = 0.25", "threshold = nan", "threshold and temperature must be finite"),
        ("std = [0.25, 0.25, 0.25]", "std = [0.0, 0.25, 0.25]", "input: mean and std must be finite, std above 0"),
        ("size = 64", "size = 0", r"input: \(0, 0\) pixels"),
        ('name = "yard"', "name = 7", r"Expected `str`, got `int` - at `\$\.name`"),
        ("flops = 1000", "flosp = 1000", "flosp"),
        ("schema = 1", "schema = 2", "schema 2, this Isthmus reads 1"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(old: str, new: str, why: str, tmp_path: Path) -> None:
    score = "visits_lost = 0\n"
    folder = written(tmp_path, old, new)
    path = folder / filters.FILE
    path.write_text(path.read_text().replace(score, score + "auc = 0.9\nlost = 0.1\ndismissed = 0.8\n"))
    with pytest.raises(BundleError, match=rf"filter\.toml: .*{why}"):
        filters.load(folder)


def test_another_network_is_noticed(tmp_path: Path) -> None:
    folder = written(tmp_path, "visits_lost = 0\n", "visits_lost = 0\nauc = 0.9\nlost = 0.1\ndismissed = 0.8\n")
    (folder / filters.NETWORK).write_bytes(b"another")
    with pytest.raises(BundleError, match=r"filter\.tflite: sha256 .* make it again"):
        filters.load(folder)
