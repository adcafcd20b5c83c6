"""What commands share: names of classes, extras that are not installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from graphs import classifier
from isthmus.cli.main import application
from isthmus.cli.options import label_names
from isthmus.proto.errors import DataError


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ("a\nb\nc\n", r"3 names, the model has 4 classes; give one a line"),
        ("background\na\nb\nc\nd\n", r"5 names, the model has 4 classes; is one of them a background"),
        ("\na\nb\nc\nd\n", r"5 names, the model has 4 classes"),
        ("", "0 names, the model has 4 classes"),
        ("a\nb\nc\nd", None),
        ("a\nb\nc\nd\n\n \n", None),
        ("\ufeffa\r\nb\r\nc\r\nd\r\n", None),
    ],
)
def test_there_are_as_many_labels_as_classes(names: str, problem: str | None, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(names.encode())
    if problem is None:
        assert label_names(path, 4) == ("a", "b", "c", "d")
        return
    with pytest.raises(DataError, match=rf"labels\.txt: {problem}"):
        label_names(path, 4)


def test_wrong_labels_are_refused_before_any_picture_is_read(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    arguments = [str(classifier(tmp_path / "model.tflite")), "--pictures", "nowhere", "--pixels", "0..1"]
    asked = ["models", "split", *arguments, "--labels", str(tmp_path / "labels.txt")]
    refused = CliRunner().invoke(application(asked), asked).exception
    assert isinstance(refused, DataError)
    assert "3 names, the model has 4 classes" in str(refused)
