"""The pages of reference say what the code says: every flag, key, field, metric and message is on its page."""

from __future__ import annotations

import re

import pytest
import typer
from msgspec.structs import fields

from isthmus.cli.main import application
from isthmus.edge_server.metrics import Metrics
from isthmus.models.bundle import Manifest
from isthmus.proto import edge_pb2
from isthmus.proto.fates import RunEnd
from isthmus.proto.record import FrameRecord, RunHeader
from isthmus.proto.vocabulary import AnswerSource
from reference_pages import PAGES, boards, command_line, configuration, formats, metrics, repository, structs, wire
from reference_pages.meanings import MEANINGS


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_one_with_one_heading_and_whole_tables(name: str) -> None:
    text = re.sub(r"^```.*?^```", "", PAGES[name](), flags=re.DOTALL | re.MULTILINE)
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_every_flag_of_every_command_is_there() -> None:
    page = command_line.page()
    for words, command in command_line.commands(typer.main.get_command(application([]))):
        section = re.split(r"^#+ ", page.partition(f" isthmus {' '.join(words)}\n")[2], flags=re.MULTILINE)[0]
        flags = [name for p in command.params for name in p.opts if name.startswith("--") and name != "--help"]
        assert section, words
        assert [flag for flag in flags if f"`{flag}`" not in section] == [], words


def test_every_key_of_every_role_is_there_with_its_default() -> None:
    page = configuration.page()
    for kind in configuration.ROLES.values():
        assert [field.name for field in structs.fields(kind)] == [field.name for field in fields(kind)]
        for field in structs.fields(kind):
            assert f"| `{field.name}` |" in page
    assert re.search(r"\| `deadline_s` \| `2.5`, `100ms`, `5m` \| `0.1` \| Time from a frame's capture", page)


@pytest.mark.parametrize(
    ("kind", "page"), [(RunHeader, formats.records), (FrameRecord, formats.records), (Manifest, formats.bundles)]
)
def test_every_field_of_a_format_is_there(kind: type, page: object) -> None:
    assert callable(page)
    section = page().partition(f"## {kind.__name__}\n")[2]
    assert [field.name for field in fields(kind) if f"| `{field.name}` |" not in section] == []


def test_every_struct_inside_a_bundle_has_its_table() -> None:
    """A key whose type is a struct of ours leads to that struct's own table."""
    page = formats.bundles()
    named = {
        word for kind in formats.PARTS for field in structs.fields(kind) for word in re.findall(r"[A-Z]\w+", field.type)
    }
    tables = {kind.__name__ for kind in formats.PARTS}
    assert named - tables <= {"None", "Literal", "Family"}  # the last is a Literal by another name
    assert all(f"## {name}\n" in page for name in tables)


def test_no_meaning_is_given_of_a_field_that_is_gone() -> None:
    records: list[type] = [RunHeader, FrameRecord, RunEnd, *formats.DETAILS]
    others: list[type] = [AnswerSource, *formats.PARTS, *configuration.ROLES.values()]
    kinds = {kind.__name__: kind for kind in records + others}
    for name, given in MEANINGS.items():
        known = set(AnswerSource) if name == "AnswerSource" else {field.name for field in structs.fields(kinds[name])}
        assert set(given) <= known, name


def test_words_of_records_have_their_meaning() -> None:
    assert "| `none` | No half had an answer at the deadline: said honestly, with no label. |" in formats.records()


def test_every_metric_of_the_servers_registry_is_there() -> None:
    names = {
        f"`{metric.name}`".replace("_total`", "`") for metric in metrics.declared("edge_server/isthmus/edge_server")
    }
    shown = [family.name for family in Metrics().registry.collect()]
    registry = {f"`{name}`" for name in shown if not name.startswith("process_")}
    assert registry <= names
    page = metrics.page()
    assert "| `isthmus_streams_closed_total` | counter | `reason` |" in page
    assert "| `isthmus_agent_pictures_total` | counter | `fate`, `reason` |" in page
    assert "| `isthmus_agent_sink_dropped_total` | counter | `sink` |" in page
    assert "| `isthmus_tail_duration_seconds` | histogram | `bundle` |" in page


def test_a_board_shows_what_was_published_and_what_is_expected() -> None:
    page = boards.page()
    assert re.search(r"^\| `pi4` \| 61 / 124 \|", page, re.MULTILINE)
    assert re.search(r"^\| `pi4` \| \d+\.\d to \d+\.\d \|.*\| 21 %, 32 % \|$", page, re.MULTILINE)
    assert "edge-server" not in page


def test_every_message_and_field_of_the_wire_is_there() -> None:
    page = wire.page()
    for name, message in edge_pb2.DESCRIPTOR.message_types_by_name.items():
        section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        listed = re.findall(r"^\| (\d+) \| `(\w+)` ", section, re.MULTILINE)
        assert listed == [(str(field.number), field.name) for field in message.fields], name


def test_links_to_the_root_of_the_repository_stay_inside_the_site() -> None:
    assert repository.from_the_site("[it](../README.md#more)", "install.md") == "[it](index.md#more)"
    assert repository.from_the_site("[it](../../CONTRIBUTING.md)", "start/wifi.md") == "[it](../contributing.md)"
    assert repository.from_the_site("[it](../examples/agent.toml)", "python.md") == "[it](examples/agent.toml)"


def test_prose_of_a_docstring_is_no_markup() -> None:
    assert structs.prose("of shape [exit][width], in `a_b` * 2") == r"of shape \[exit\]\[width\], in `a_b` \* 2"


def test_a_bar_in_a_cell_is_no_new_column() -> None:
    assert structs.table(("key",), [("int | None",)]).splitlines()[2] == r"| int \| None |"
