"""The report: a page that stands alone, figures that are the summary's, and odd runs that still make one."""

from __future__ import annotations

import base64
import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from isthmus.emulation import traces
from isthmus.emulation.reports import figure_style, frames_table, provenance, run_plots, run_report
from isthmus.emulation.run_summary import summary
from isthmus.emulation.traces import AnyTrace, PacketTrace, Trace
from isthmus.proto.errors import DataError
from isthmus.proto.record import FrameRecord, Run, RunHeader
from isthmus.proto.vocabulary import AnswerSource, Box, Reason

DEMO = traces.find("demo")
BEGAN_S = 500.0


def header(*, trace: str | None = "demo", bundle: str = "signs", start_s: float = 0.0, fps: float = 5.0) -> RunHeader:
    return RunHeader(
        kind="emulated",
        bundle=bundle,
        bundle_sha256="ab" * 32,
        policy="utility",
        trace=trace,
        trace_began_s=BEGAN_S if trace else 0.0,
        trace_start_s=start_s,
        deadline_s=0.1,
        fps=fps,
        host={"cores": 4},
        notes=("relay: holds bytes and cannot lose them",),
    )


def records(length_s: float = 72.0, *, truth: int | None = 1, source: AnswerSource | None = None) -> list[FrameRecord]:
    """Five frames a second, of which every other one is answered by the server."""
    rows = []
    for i in range(int(length_s * 5)):
        origin = source or (AnswerSource.EXIT if i % 2 else AnswerSource.SERVER)
        captured_s = BEGAN_S + i / 5
        rows.append(
            FrameRecord(
                frame_id=i,
                captured_s=captured_s,
                deadline_s=captured_s + 0.1,
                truth=truth,
                label=None if origin is AnswerSource.NONE else 1,
                confidence=0.9,
                source=origin,
                reason=Reason.RETURNED,
                width=None if origin is AnswerSource.NONE else 0.5,
                answered_s=captured_s + 0.05,
                latency_s=0.05,
                on_time=True,
                bytes_up=2000 if origin is AnswerSource.SERVER else 0,
                local_label=i % 3,
                goodput_Bps=1e5,
            )
        )
    return rows


LOADING = ("src", "href", "xlink:href", "srcset", "data", "action")


class Links(HTMLParser):
    """Everything that a page would load or lead to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in LOADING]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of one demo-like run; drawing takes seconds, so it is drawn once."""
    return run_report.write(tmp_path_factory.mktemp("runs") / "a" / "report", header(), records(), DEMO)


def test_a_report_has_its_files_and_its_page_loads_nothing(drawn: Path) -> None:
    text = drawn.read_text(encoding="utf-8")
    names = {path.name for path in drawn.parent.iterdir()}
    assert names == {"index.html", "summary.json", "timeline.png", "accuracy.png", "latency.png", "bytes.png"}
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in Links(text).found)
    assert not re.search(r"<script|@import|url\((?!#)", text)
    assert set(re.findall(r"https?://[^\"]*", text)) == {"http://www.w3.org/1999/xlink"}  # a name, never loaded
    assert text.count("<svg") == 2 * text.count("<figure") == 8
    assert "relay: holds bytes and cannot lose them" in text


def test_the_figures_are_the_summary_s_and_outages_stand_apart(drawn: Path) -> None:
    facts = json.loads((drawn.parent / "summary.json").read_text())
    assert facts["summary"]["accuracy"] == summary(records()).accuracy == 1.0
    assert facts["header"]["policy"] == "utility"
    assert facts["by_link"]["outage"]["frames"] == 50
    assert facts["by_link"]["link up"]["frames"] == 360 - 50
    text = drawn.read_text(encoding="utf-8")
    assert "<b>100.0 %</b><span>right and on time</span><small>the device alone: 33.3 %</small>" in text


def test_a_page_is_the_same_when_it_is_drawn_again(drawn: Path, tmp_path: Path) -> None:
    assert run_report.write(tmp_path, header(), records(), DEMO).read_bytes() == drawn.read_bytes()


def test_every_colour_of_a_picture_has_one_for_dark_pages(drawn: Path) -> None:
    text = drawn.read_text(encoding="utf-8")
    pictures = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert not re.search(r"(?:fill|stroke): #", pictures)
    for name in set(re.findall(r"var\((--c[0-9a-f]{6})\)", text)):
        assert text.count(f"{name}: #") == 2


@pytest.mark.parametrize(
    ("rows", "trace", "pictures"),
    [
        ([], DEMO, 0),
        (records(1.0), None, 4),
        (records(0.2), DEMO, 4),
        (records(3.0, truth=None), DEMO, 3),
        (records(3.0, source=AnswerSource.NONE), DEMO, 4),
        (records(150.0), DEMO, 4),
        (records(6.0), PacketTrace("cell", np.array([1, 700, 1400, 5000]), None), 4),
        (records(6.0), Trace("down", *np.array([[0.0], [np.nan], [1e5], [0.02], [0.0]])), 4),
    ],
    ids=["nothing", "no trace", "one frame", "no truth", "no answers", "longer than its trace", "packets", "no uplink"],
)
def test_odd_runs_make_a_page_all_the_same(
    tmp_path: Path, rows: list[FrameRecord], trace: AnyTrace | None, pictures: int
) -> None:
    page = run_report.write(tmp_path, header(), rows, trace)
    assert page.read_text(encoding="utf-8").count("<figure") == pictures


def test_a_live_run_that_kept_its_source_s_own_pace_is_drawn(tmp_path: Path) -> None:
    page = run_report.write(tmp_path, header(trace=None, fps=0.0), records(3.0))
    assert "15 frames, each to be answered within 100 ms" in page.read_text(encoding="utf-8")


def test_what_a_bundle_calls_itself_cannot_write_html(tmp_path: Path) -> None:
    page = run_report.write(tmp_path, header(bundle="<script>alert(1)</script>"), records(1.0))
    assert "<script" not in page.read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="name another folder"):
        run_report.write(tmp_path / "file", header(), records(1.0))


def test_the_link_s_rows_go_round_from_where_the_run_began() -> None:
    trace = Trace("t", *np.array([[0.0, 1.0, 3.0], [8.0, 0.0, 4.0], [1, 1, 1], [0, 0, 0], [0, 0, 0]]))
    view = run_plots.View(header(start_s=2.0), records(6.0), trace)
    assert trace.length_s == 5.0
    assert view.uplink is not None
    assert list(view.uplink.rows()) == [(0, 1, 0.0), (1, 3, 4.0), (3, 4, 8.0), (4, 6, 0.0)]
    assert view.outages() == [(0, 1), (4, 6)]
    assert sum(view.in_outage()) == 15


def test_marks_that_are_drawn_as_points_have_dark_ones_for_dark_pages(drawn: Path) -> None:
    text = drawn.read_text(encoding="utf-8")
    image = re.compile(r'<image class="(light|dark)" xlink:href="data:image/png;base64,([^"]*)"')
    found = {kind: [png for of, png in image.findall(text) if of == kind] for kind in ("light", "dark")}
    assert len(found["light"]) == len(found["dark"]) > 0
    shown = {
        kind: [
            np.asarray(cv2.imdecode(np.frombuffer(base64.b64decode(png), np.uint8), cv2.IMREAD_UNCHANGED))
            for png in pictures
        ]
        for kind, pictures in found.items()
    }
    for light, dark in zip(shown["light"], shown["dark"], strict=True):
        assert (light[..., 3] == dark[..., 3]).all()
        colours = {"#" + bytes(pixel[2::-1]).hex() for pixel in dark[dark[..., 3] == 255]}
        assert colours <= set(figure_style.DARK.values())
    assert "image.dark { display: none; }" in text


def test_a_live_run_has_captions_for_what_is_drawn_and_files_in_the_forms_asked_for(
    drawn: Path, tmp_path: Path
) -> None:
    assert "grey is an outage" in drawn.read_text(encoding="utf-8")
    text = run_report.write(tmp_path, header(trace=None), records(3.0), forms=("svg", "pdf")).read_text(
        encoding="utf-8"
    )
    assert "outage" not in text
    assert "Orange bars" not in text
    assert ">the device's estimate</text>" in text, "what is known of a live link is what the device believed"
    assert ">the trace</text>" not in text
    assert not list(tmp_path.glob("*.png"))
    assert all(path.read_bytes().startswith(b"%PDF") for path in tmp_path.glob("*.pdf"))
    assert all(b"<svg" in path.read_bytes()[:600] for path in tmp_path.glob("*.svg"))
    assert len(list(tmp_path.glob("*.svg"))) == len(list(tmp_path.glob("*.pdf"))) == 4


def test_how_a_run_was_made_is_said_for_people() -> None:
    said = {row[0]: row[1] for row in provenance.rows(header(start_s=12.5))}
    assert said["Link"] == "demo, from its second 12.5 on"
    assert said["Deadline"] == "100 ms"
    assert said["Bundle"] == "signs (sha256 abababababab…)"
    assert said["Machine"] == "cores 4"
    assert not {"trace_swapped", "trace_began_s", "Seed", "Scenario"} & set(said)
    assert provenance.moment("2026-11-30T12:05:53+00:00") == "2026-11-30 12:05:53 UTC"
    assert provenance.moment("yesterday") == "yesterday"


def test_every_frame_is_a_row_of_a_table_that_has_no_header_of_a_run_in_it(tmp_path: Path) -> None:
    boxed = msgspec.structs.replace(records(1.0)[0], boxes=(Box(1, 0.5, 0.1, 0.2, 0.3, 0.4),))
    runs = [(Path("a.jsonl"), Run(header(), records(1.0), 0)), (Path("b.jsonl"), Run(header(fps=0.0), [boxed], 0))]
    frames_table.write(tmp_path / "frames.csv", runs)
    with (tmp_path / "frames.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["a.jsonl"] * 5 + ["b.jsonl"]
    assert rows[0]["source"] == "server"
    assert float(rows[1]["latency_s"]) == 0.05
    assert rows[0]["energy_J"] == ""
    assert json.loads(rows[5]["boxes"])[0]["score"] == 0.5
    with pytest.raises(DataError, match="name another place for the table"):
        frames_table.write(tmp_path / "nowhere" / "frames.csv", runs)
