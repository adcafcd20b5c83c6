"""The pages of the two formats that others read: records of runs, and bundles. From the structs that write and read them."""

from __future__ import annotations

import msgspec

from isthmus.models import bundle, picture_ladder
from isthmus.proto import fates, record, vocabulary
from isthmus.proto.bits import spectrum
from isthmus.proto.tasks import boxes
from isthmus.proto.temporal import delta
from reference_pages.structs import described, words

RECORDS = f"""# Records

JSON Lines: the header of a run, then a line for every frame, then a line that says how the run ended, unless it was cut off.
`isthmus agent` prints the frames' lines; `--record FILE` and `isthmus emulate --out FOLDER` write all of it, compressed where
the name ends in `.jsonl.zst`. Several runs may follow each other in one file. The schema is {record.SCHEMA}. Times are in
seconds on the device's own clock, which is never set; sizes are bytes. What is not known is left out.

`isthmus report FILE --table frames.csv` makes a table of them; from Python: `isthmus.proto.record.read`
([more](../python.md#records-in-pandas)).

"""

BUNDLES = f"""# Bundles

A bundle is one folder. `isthmus models info NAME` tells what is in it, `isthmus models verify NAME` whether it is whole.

| file | what it is | needed by |
|---|---|---|
| `bundle.toml` | everything that both halves must know, below | both |
| `bundle.sha256` | the hash of `bundle.toml`, so that a half alone notices a change | both |
| `head.tflite` | the head: a signature for each stage and width | the device |
| `tail.onnx`, or what `tail` names | the tail | the server |
| `outcomes.npz` | the outcome table: what each operating point answered for each validation sample | the emulator |
| `inputs.npz` | what JPEG and WebP of the pictures would have taken | the emulator's rivals |
| `MODEL_CARD.md` | how it was made, and what it was measured to do | people |

Halves with different bundles refuse each other: the hello holds the hash of `bundle.toml`, which holds the hashes of the rest.
The schema is {bundle.SCHEMA}; older ones are read too. Unknown keys are refused.

"""
PARTS: tuple[type[msgspec.Struct], ...] = (
    bundle.Manifest,
    picture_ladder.Input,
    bundle.Stage,
    bundle.Bottleneck,
    bundle.Crossing,
    bundle.Contest,
    spectrum.Spectrum,
    delta.Deltas,
    picture_ladder.TailPart,
    bundle.Point,
    boxes.Boxes,
    picture_ladder.PictureLadder,
    picture_ladder.View,
    picture_ladder.Region,
    bundle.Predictor,
    bundle.Chance,
    bundle.Ageing,
)


def records() -> str:
    """The page of records: header, frame, end, and the words that `source` and `reason` may say."""
    structs = "".join(described(kind) for kind in (record.RunHeader, record.FrameRecord, fates.RunEnd))
    said = "".join(words(kind) for kind in (vocabulary.AnswerSource, vocabulary.Reason))
    return RECORDS + structs + said + "".join(described(kind) for kind in DETAILS)


DETAILS = (
    vocabulary.Box,
    vocabulary.Mask,
    vocabulary.Pose,
    vocabulary.Depth,
    vocabulary.Embedding,
    vocabulary.Values,
)
"""Answers that are more than a class."""


def bundles() -> str:
    """The page of bundles: the files, then `bundle.toml` table by table."""
    tables = "".join(described(kind) for kind in PARTS)
    return BUNDLES + tables + described(bundle.Outcomes)
