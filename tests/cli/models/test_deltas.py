"""A bundle is taught from clips how its frames are coded against those before, and is otherwise as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from isthmus.cli.main import application
from isthmus.models import bundle as bundles
from isthmus.models.bundling.films import FeatureHead, film
from isthmus.proto.errors import ConfigError, DataError
from moving import calm_pictures


@pytest.fixture
def clips(tmp_path: Path) -> list[str]:
    for name in ("a", "b"):
        calm_pictures(tmp_path / name, 8)
    return [str(tmp_path / name) for name in ("a", "b")]


def test_a_bundle_with_deltas_serves_the_same_network(tmp_path: Path, clips: list[str]) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(
        application(["models"]), ["models", "deltas", "signs", *clips, "--frames", "8", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert "of the base's step kept" in done.output
    before, after = bundles.load("signs"), bundles.load(str(out))
    assert after.manifest.schema == bundles.SCHEMA
    assert after.manifest.files == before.manifest.files
    assert after.codec.tables == before.codec.tables
    assert after.codec.deltas is not None
    assert after.sha256 != before.sha256


def test_one_clip_is_not_enough(tmp_path: Path, clips: list[str]) -> None:
    done = CliRunner().invoke(
        application(["models"]), ["models", "deltas", "signs", clips[0], "--out", str(tmp_path / "out")]
    )
    assert isinstance(done.exception, ConfigError)
    assert "learnt from some and judged on others" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_what_is_no_clip_is_named(tmp_path: Path) -> None:
    signs = bundles.load("signs")
    head = FeatureHead(signs, 1.0)
    (tmp_path / "notes.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    for name in ("notes.mp4", "empty", "absent.mp4"):
        with pytest.raises(DataError, match=f"{name}: neither a video"):
            film(tmp_path / name, head)


def test_boxes_beside_a_clip_are_read_by_frame(tmp_path: Path) -> None:
    calm_pictures(tmp_path / "clip", 6)
    table = tmp_path / "clip.boxes.csv"
    table.write_text("frame,label,x,y,w,h\n2,Bird,1,2,3,4\n3,Bird,1,2,3,4\n")
    found = film(tmp_path / "clip", FeatureHead(bundles.load("signs"), 1.0), every=2)
    assert len(found.features) == 3
    assert found.truth == [(), (("bird", (2.0, 1.0, 6.0, 4.0)),), ()]
    table.write_text("frame,name\n2,Bird\n")
    with pytest.raises(DataError, match=r"clip.boxes.csv: not a table of frame, label, x, y, w, h"):
        film(tmp_path / "clip", FeatureHead(bundles.load("signs"), 1.0))
