"""The list of cuts: readable at 80 columns for a graph of hundreds of operators, what pays first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from graphs import Builder
from isthmus.cli.main import application
from isthmus.cli.models import cut_list
from isthmus.models import flatbuffer, profiles
from isthmus.models.flatbuffer import Graph
from isthmus.models.splitting.cuts import cuts
from isthmus.models.splitting.split import Conditions, Place

BLOCKS = 130


def long_graph(path: Path) -> Path:
    """Four hundred operators: blocks of two convolutions and a skip connection, pooled to half their size now and then."""
    b = Builder()
    image = b.tensor((1, 64, 64, 3))
    size = 64
    x = b.conv(image, 3, 8, size)
    for block in range(BLOCKS):
        y = b.conv(b.conv(x, 8, 8, size), 8, 8, size)
        x = b.add("ADD", [x, y], [b.tensor((1, size, size, 8))], "AddOptions")
        if block % 40 == 20:
            x = b.conv(x, 8, 8, size, stride=2)
            size //= 2
    return b.write(path, [image], [b.softmax(b.dense(b.mean(x, 8), 8, 5), 5)])


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return flatbuffer.read(long_graph(tmp_path_factory.mktemp("long") / "long.tflite"))


@pytest.fixture(scope="module")
def places(graph: Graph) -> list[Place]:
    """Each cut as if a bit a value crossed."""
    return [Place(cut, None if cut.obstacle else cut.raw_bytes / 32) for cut in cuts(graph)]


LIMITS = Conditions(profiles.load("pi4"), profiles.load("edge-server"), 1e6, 0.02, 1.0, agreement=0.9)


@pytest.mark.parametrize("limits", [None, LIMITS])
@pytest.mark.parametrize("every", [False, True])
def test_every_line_fits_into_80_columns(
    graph: Graph, places: list[Place], limits: Conditions | None, every: bool
) -> None:
    assert len(graph.operators) > 390
    shown = [Place(place.cut, place.coded_bytes if limits else None) for place in places]
    lines = list(cut_list.lines(graph, shown, limits, every=every))
    assert max(map(len, lines)) <= cut_list.COLUMNS
    assert (len(lines) > 390) == every


def test_what_pays_is_a_handful_and_the_rest_is_counted(graph: Graph, places: list[Place]) -> None:
    pays = cut_list.useful(graph, places)
    sent = [place.coded_bytes or 0 for place in pays]
    assert sent == sorted(sent, reverse=True)
    assert 3 <= len(pays) <= 10
    head, *listed, mark, rest = cut_list.lines(graph, places, LIMITS, every=False)
    assert head.split() == ["after", "operator", "crosses", "bytes", "device", "ms", "server", "ms", "answer", "ms"]
    assert [int(line.split()[0]) for line in listed] == [place.cut.after for place in pays]
    assert sum(line.endswith("*") for line in listed) == 1
    assert mark == "* the quickest of them on this device and link"
    assert rest == f"{len(places) - len(pays)} more cuts that send more or do more, 0 places that cannot be cut: --all"


def test_the_quickest_cut_is_among_those_that_pay(graph: Graph, places: list[Place]) -> None:
    quickest = min(places, key=lambda place: LIMITS.seconds(place.cut, place.coded_bytes or 0))
    assert quickest in cut_list.useful(graph, places)


def test_places_that_cannot_be_cut_are_a_line_for_each_reason(tmp_path: Path) -> None:
    """The picture is needed again at the end: no cut before that."""
    b = Builder()
    image = b.tensor((1, 16, 16, 3))
    x = image
    for _ in range(12):
        x = b.conv(x, 3, 3, 16)
    x = b.add("ADD", [x, image], [b.tensor((1, 16, 16, 3))], "AddOptions")
    graph = flatbuffer.read(b.write(tmp_path / "again.tflite", [image], [b.dense(b.mean(x, 3), 3, 2)]))
    lines = list(cut_list.lines(graph, [Place(cut, None) for cut in cuts(graph)], None, every=True))
    assert lines[-1] == "no cut after 0 to 11: the picture itself is needed behind it"


def test_where_no_cut_is_smaller_than_the_picture_the_smallest_are_listed(tmp_path: Path) -> None:
    b = Builder()
    image = b.tensor((1, 16, 16, 3))
    x = b.conv(b.conv(b.conv(image, 3, 8, 16), 8, 8, 16), 8, 4, 16)
    graph = flatbuffer.read(b.write(tmp_path / "wide.tflite", [image], [x]))
    lines = list(cut_list.lines(graph, [Place(cut, None) for cut in cuts(graph)], None, every=False))
    assert lines[0] == "no cut sends fewer bytes than the picture has; these send the fewest:"
    assert [int(line.split()[0]) for line in lines[2:]] == [0, 1]


def typed(*words: str) -> Result:
    return CliRunner().invoke(application(list(words)), list(words))


def test_the_verb_lists_what_pays_and_all_of_it_where_asked(graph: Graph) -> None:
    few, every = typed("models", "split", str(graph.path)), typed("models", "split", str(graph.path), "--all")
    assert few.exit_code == every.exit_code == 0
    assert len(few.stdout.splitlines()) < 15 < len(every.stdout.splitlines())
    found = json.loads(typed("models", "split", str(graph.path), "--format", "json").stdout)["cuts"]
    assert len(found) > 390
    assert sum(row["useful"] for row in found) == len(few.stdout.splitlines()) - 2
