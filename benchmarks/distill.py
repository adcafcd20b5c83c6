"""The pictures that docs/distillation.md's figures were measured with, laid out for `isthmus models distill`.

    python benchmarks/distill.py laid-out
    isthmus models distill MODEL.tflite --pictures laid-out/train --validation laid-out/judges …

`train` are Caltech-101's training pictures, all classes; `judges` the test pictures of the classes that ImageNet's models
know. Both come from the data folder (`ISTHMUS_DATA`, or ../shared/data).
"""

from __future__ import annotations

import argparse
import csv
import zipfile
from pathlib import Path

from isthmus.models.pictures import data_root


def lay_out(target: Path) -> dict[str, int]:
    """How many pictures each folder got."""
    root = data_root() / "caltech101"
    with (root / "imagenet_map.csv").open() as lines:
        mapped = {row["class"] for row in csv.DictReader(lines)}
    with (root / "index.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    wanted = {
        "train": [r["file"] for r in rows if r["split"] == "train"],
        "judges": [r["file"] for r in rows if r["split"] == "test" and r["class"] in mapped],
    }
    with zipfile.ZipFile(root / "images.zip") as archive:
        for folder, files in wanted.items():
            archive.extractall(target / folder, files)
    return {folder: len(files) for folder, files in wanted.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    print(lay_out(parser.parse_args().target))
