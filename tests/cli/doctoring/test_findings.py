"""What each group makes of the facts that it is given."""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from isthmus.cli.doctoring import (
    camera,
    certificates,
    clock,
    head,
    machine,
    ports,
    processor,
    server,
    software,
    storage,
)
from isthmus.cli.doctoring.finding import Finding
from isthmus.device.config import AgentConfig
from isthmus.device.sensors import Reading
from isthmus.proto.compat import tomllib

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
ALL = {name: "1.0" for names in software.PARTS.values() for name in names} | {"ai-edge-litert": "2.3"}


def said(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(f.level, f"{f.what}: {f.detail}") for f in findings]


def not_well(findings: list[Finding]) -> list[tuple[str, str]]:
    assert all(f.way_out for f in findings if f.level != "ok"), "a finding without a way out"
    return [pair for pair in said(findings) if pair[0] != "ok"]


def installed(extra: str) -> str:
    return f"pip install 'isthmus[{extra}]'"


# Software


def test_every_package_that_a_part_needs_is_looked_at() -> None:
    def wanted(dependencies: list[str]) -> set[str]:
        return {re.split(r"[<>=]", text)[0] for text in dependencies if ";" not in text and "[" not in text}

    assert set(software.PARTS["device"]) == wanted(PROJECT["dependencies"])
    for extra in ("server", "emulation"):
        assert set(software.PARTS[extra]) == wanted(PROJECT["optional-dependencies"][extra])


@pytest.mark.parametrize(
    ("version", "well"), [((3, 9, 18), False), ((3, 10, 0), True), ((3, 13, 9), True), ((3, 14, 0), False)]
)
def test_a_python_that_is_too_old_or_too_new(version: tuple[int, int, int], well: bool) -> None:
    found = not_well(software.findings(software.Facts(version, ALL)))
    assert found == ([] if well else [("failure", f"python: {'.'.join(map(str, version))}")])


def test_a_package_of_the_device_must_be_there_and_one_of_an_extra_need_not() -> None:
    def without(*names: str) -> list[Finding]:
        versions = {name: version for name, version in ALL.items() if name not in names}
        return software.findings(software.Facts((3, 11, 0), versions), installed)

    assert not_well(without("zstandard")) == [("failure", "zstandard: not installed")]
    assert not_well(without("onnxruntime")) == []
    assert any(
        f.detail.endswith("'server' extra brings it: pip install 'isthmus[server]'") for f in without("onnxruntime")
    )
    assert not_well(without("ai-edge-litert")) == [
        ("failure", "runtime: neither ai-edge-litert nor tflite-runtime is installed")
    ]


def test_another_build_of_opencv_does_as_well() -> None:
    versions = {n: v for n, v in ALL.items() if n != "opencv-python-headless"} | {"opencv-python": "4.12"}
    assert not_well(software.findings(software.Facts((3, 11, 0), versions))) == []


def test_a_file_that_hides_the_other_portions_is_named() -> None:
    found = software.findings(software.Facts((3, 11, 0), ALL, "/away/isthmus/__init__.py"))
    assert not_well(found) == [("failure", "namespace: /away/isthmus/__init__.py")]


# Processor

CPU = processor.Facts("aarch64", 64, frozenset({"asimd", "asimddp"}), {})


def test_features_are_read_on_arm_and_on_x86() -> None:
    assert "asimddp" in processor.features("processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    assert "avx2" in processor.features("flags\t\t: fpu avx2\nbogomips: 2\nflags: other\n")
    assert processor.features("") == frozenset()


def test_a_processor_without_dot_products_is_told_of_and_is_no_fault() -> None:
    found = processor.findings(replace(CPU, features=frozenset({"asimd"})))
    assert not_well(found) == []
    assert "has no asimddp" in found[1].detail


def test_a_32_bit_python_on_a_64_bit_kernel_is_a_waste_and_on_a_32_bit_one_is_what_there_is() -> None:
    assert not_well(processor.findings(replace(CPU, bits=32))) == [
        ("warning", "processor: aarch64, 32-bit Python on a 64-bit kernel")
    ]
    assert not_well(processor.findings(replace(CPU, bits=32, machine="armv7l"))) == []


def test_a_module_that_ends_its_process_is_named_with_the_signal() -> None:
    illegal, segment = (processor.findings(replace(CPU, died=("cv2", number))) for number in (4, 11))
    assert not_well(illegal) == [("failure", "import cv2: wants instructions that this processor lacks (SIGILL)")]
    assert not_well(segment) == [("failure", "import cv2: ended the process (SIGSEGV)")]


def test_what_is_refused_in_words_blocks_what_needs_it_and_the_servers_engine_blocks_nothing() -> None:
    broken = replace(CPU, refused={"numpy": "libopenblas.so: not found", "onnxruntime": "not here"})
    assert not_well(processor.findings(broken)) == [("failure", "import numpy: libopenblas.so: not found")]
    assert processor.blocked(broken) == "numpy"
    assert processor.blocked(replace(CPU, died=("onnxruntime", 4))) == ""


# Machine


def test_a_machine_that_is_held_back_is_not_well_and_one_that_shows_nothing_is_passed_over() -> None:
    held = machine.Facts(Reading(84.0, throttling=("throttled",)))
    assert not_well(machine.findings(held)) == [("failure", "machine: 84 °C, throttled")]
    assert machine.findings(machine.Facts(Reading())) == []


def test_firmware_that_only_its_own_tool_shows_is_believed() -> None:
    (found,) = machine.findings(machine.Facts(Reading(), firmware="0x5"))
    assert (found.level, found.detail) == ("failure", "under-voltage, throttled")
    assert "power supply" in found.way_out


def test_what_held_it_back_since_the_start_is_a_warning() -> None:
    (found,) = machine.findings(machine.Facts(Reading(50.0, throttling=()), firmware="50000"))
    assert (found.level, found.detail) == (
        "warning", "50 °C, not throttled; since its start it was held back: under-voltage, throttled",
    )  # fmt: skip


def test_it_is_hot_before_it_is_slow() -> None:
    assert not_well(machine.findings(machine.Facts(Reading(81.0, throttling=())))) != []


def test_a_governor_that_sleeps_between_frames_is_a_warning() -> None:
    slow = machine.Facts(Reading(), governors=frozenset({"powersave"}))
    assert not_well(machine.findings(slow)) == [("warning", "governor: powersave")]
    assert not_well(machine.findings(replace(slow, governors=frozenset({"schedutil"})))) == []


@pytest.mark.parametrize(("available", "level"), [(90e6, "failure"), (150e6, "warning"), (400e6, "ok")])
def test_memory(available: float, level: str) -> None:
    (found,) = machine.findings(machine.Facts(Reading(), available_bytes=int(available), total_bytes=512_000_000))
    assert found.level == level


def test_meminfo_is_read_in_bytes() -> None:
    assert machine.meminfo("MemTotal:  1000 kB\nMemAvailable: 10 kB\nHugePages_Total: 0\n") == {
        "MemTotal": 1_024_000, "MemAvailable": 10_240,
    }  # fmt: skip


# Storage

CARD = storage.Disk("/dev/mmcblk0p2", "ext4", 20_000_000_000, writable=True)


def judged(config: AgentConfig, disk: storage.Disk) -> list[tuple[str, str]]:
    return not_well(storage.findings(storage.Facts(tuple((place, disk) for place in storage.places(config)))))


def test_a_record_within_its_bounds_is_well_on_a_card() -> None:
    assert judged(AgentConfig(record="run.jsonl", fps=10), CARD) == []


def test_a_card_that_is_written_all_day_is_a_warning_and_another_disk_is_not() -> None:
    busy = AgentConfig(record="run.jsonl", fps=60)
    assert judged(busy, CARD) == [("warning", "record run.jsonl: about 3.3 GB a day written to an SD card")]
    assert judged(busy, replace(CARD, device="/dev/sda1")) == []
    assert (
        judged(AgentConfig(preview="now.png"), CARD)[0][1]
        == "preview now.png: about 25.9 GB a day written to an SD card"
    )


def test_a_video_without_end_and_a_bound_beyond_the_disk_are_named() -> None:
    assert judged(AgentConfig(overlay="all.mp4"), CARD) == [
        ("warning", "overlay all.mp4: grows without end; 20.0 GB free")
    ]
    small = replace(CARD, free_bytes=400_000_000)
    assert judged(AgentConfig(clips="seen"), small) == [("warning", "clips seen: may grow to 1.0 GB; 0.4 GB free")]


def test_what_cannot_be_written_is_a_failure_and_what_lies_in_memory_is_said_to() -> None:
    config = AgentConfig(record="run.jsonl", fps=10)
    assert judged(config, replace(CARD, writable=False))[0][0] == "failure"
    assert judged(config, replace(CARD, device="tmpfs", kind="tmpfs")) == [
        ("warning", "record run.jsonl: lies in memory")
    ]


def test_a_path_lies_on_the_longest_mount_point_that_holds_it() -> None:
    rows = storage.mounted("/dev/root / ext4 rw 0 0\n/dev/sda1 /media/my\\040disk vfat rw 0 0\nproc /proc proc\n")
    assert rows[0] == ("/media/my disk", "/dev/sda1", "vfat")
    assert rows[-1] == ("/", "/dev/root", "ext4")


def test_a_full_disk_is_a_warning() -> None:
    place = storage.Place("disk", ".", 0)
    assert not_well(storage.findings(storage.Facts(((place, replace(CARD, free_bytes=10)),)))) != []


# Clock

NOW = datetime(2026, 11, 30, 12, tzinfo=timezone.utc)


def test_a_clock_before_the_installation_is_wrong_and_one_that_nobody_sets_is_a_warning() -> None:
    well = clock.Facts(NOW.timestamp(), NOW.timestamp() - 1e6, synchronised=True, keeps_time=True)
    assert not_well(clock.findings(well)) == []
    assert not_well(clock.findings(replace(well, synchronised=None))) == []
    assert not_well(clock.findings(replace(well, synchronised=False, keeps_time=False))) == [
        ("warning", "clock: 2026-11-30 12:00 UTC, not set by a time server, and it stands still while the power is off")
    ]
    assert not_well(clock.findings(replace(well, now_s=1e6))) == [
        ("failure", "clock: 1970-01-12 13:46 UTC, before this software was installed")
    ]


# Ports


def test_an_address_in_use_one_that_needs_root_and_one_of_another_machine() -> None:
    tried = (("page", "127.0.0.1:8070", 0), ("listen", "h:1", errno.EADDRINUSE), ("listen", "h:80", errno.EACCES),
             ("listen", "192.0.2.1:1", errno.EADDRNOTAVAIL))  # fmt: skip
    assert not_well(ports.findings(ports.Facts(tried))) == [
        ("failure", "listen h:1: is in use already"),
        ("failure", "listen h:80: may not be listened on by this user"),
        ("failure", "listen 192.0.2.1:1: cannot be listened on (EADDRNOTAVAIL)"),
    ]


# Heads

RUN = head.Run("signs", "", (0.25, 1.0), (0.02, 0.08), accelerated=True)


def test_the_bundle_at_which_the_process_ended_is_to_blame() -> None:
    line = '{"bundle": "signs", "error": "", "widths": [1.0], "seconds": [0.002]}\n'
    first, second = head.runs(["signs", "mine"], -11, line)
    assert (first.seconds, second.bundle, second.error) == (
        (0.002,), "mine", "the process that ran it ended: signal SIGSEGV",
    )  # fmt: skip


def test_a_deadline_that_the_narrowest_head_cannot_keep() -> None:
    def found(deadline_s: float, accelerated: bool = True) -> list[tuple[str, str]]:
        return not_well(head.findings(head.Facts((replace(RUN, accelerated=accelerated),), deadline_s, "signs")))

    assert found(0.1) == []
    assert found(0.03)[0][0] == "warning"
    assert found(0.01) == [
        ("failure", "deadline: the narrowest head takes 20 ms, the deadline of 10 ms cannot be kept")
    ]
    assert found(0.1, accelerated=False)[0][1].startswith("delegate: plain kernels")


def test_a_zoo_without_bundles_and_a_damaged_bundle_are_not_well() -> None:
    assert not_well(head.findings(head.Facts((), 0.1))) == [("failure", "bundles: none in the zoo")]
    broken = head.Facts((head.Run("signs", "head.tflite: sha256 …"), RUN), 0.1)
    assert not_well(head.findings(broken)) == [("failure", "bundle signs: head.tflite: sha256 …")]


# Source


def test_a_rate_is_the_median_pause_and_not_shaken_by_the_first_pictures() -> None:
    assert camera.rate((0.0, 2.0, 2.001, 2.101, 2.201, 2.9)) == pytest.approx(10)
    assert camera.rate((0.0, 1.0)) is None


def test_a_camera_that_is_slower_than_asked_dark_or_of_another_size() -> None:
    times = tuple(i / 12 for i in range(20))
    seen = camera.Facts("camera 0", True, 30.0, times, (640, 480), None, 90.0)
    assert not_well(camera.findings(seen)) == [
        ("warning", "source camera 0: 12.0 pictures a second, 640x480; 30 were to be had")
    ]
    assert not_well(camera.findings(replace(seen, asked_fps=12.0))) == []
    assert "is dark" in not_well(camera.findings(replace(seen, asked_fps=None, mean=2.0)))[0][1]
    assert (
        "1280x720 was asked for"
        in not_well(camera.findings(replace(seen, asked_fps=None, asked_size=(1280, 720))))[0][1]
    )
    assert not_well(camera.findings(replace(seen, times_s=())))[0][0] == "failure"
    assert not_well(camera.findings(replace(seen, error="camera 0: gone")))[0] == ("failure", "source camera 0: gone")


# Certificates


def test_dates_of_certificates_against_the_clock() -> None:
    def found(*, begins: int, ends: int) -> list[tuple[str, str]]:
        pem = certificates.Pem("device.pem", NOW + timedelta(days=begins), NOW + timedelta(days=ends))
        return not_well(certificates.findings(certificates.Facts("keys", "device", NOW, (pem,))))

    assert found(begins=-5, ends=400) == []
    assert found(begins=-5, ends=20)[0] == ("warning", "certificates keys: device.pem holds until 2026-12-20 only")
    assert found(begins=-5, ends=-1)[0][0] == "failure"
    assert "holds from 2026-12-02" in found(begins=2, ends=400)[0][1]


# Server

SEEN = server.Facts(
    "edge:1", "signs", "ab" * 32, 1, 0.1, probed=True, round_trip_s=0.02, up_Bps=125_000.0,
    described=server.Described("edge", (("signs", "ab" * 32),), 1),
)  # fmt: skip


def test_a_server_that_fits_is_told_with_its_link() -> None:
    assert said(server.findings(SEEN)) == [
        ("ok", f"server edge:1: edge serves signs {'ab' * 6}, as this device"),
        ("ok", "server edge:1: round trip 20.0 ms; 1 Mbit/s up, too fast to tell down"),
    ]


def test_a_server_of_another_bundle_codec_or_time_is_not_well() -> None:
    other = replace(SEEN, described=server.Described("edge", (("cifar10", "cd" * 32),), 1))
    assert not_well(server.findings(other))[0][1].endswith(
        f"serves cifar10 {'cd' * 6}, this device has signs {'ab' * 6}"
    )
    assert not_well(server.findings(replace(SEEN, codec_version=2)))[0][0] == "failure"
    several = server.Described("edge", (("cifar10", "cd" * 32), ("signs", "ab" * 32)), 1)
    assert (
        server.findings(replace(SEEN, described=several))[0].detail == "edge serves 2 bundles, this device's among them"
    )
    none = replace(SEEN, described=server.Described("edge", (), 1))
    assert "serves no bundle yet" in not_well(server.findings(none))[0][1]
    assert not_well(server.findings(replace(SEEN, round_trip_s=0.2)))[0][0] == "warning"


@pytest.mark.parametrize(
    ("refused", "hint"),
    [
        ("permission_denied: certificate 'cam7': revoked; …", "another name"),
        ("unavailable: Hostname Verification Check failed", "--host"),
        ("unavailable: certificate has expired", "clocks"),
        ("unavailable: Ssl handshake failed", "one `isthmus certs init`"),
        ("unavailable: Socket closed", "--insecure"),
    ],
)
def test_a_refusal_comes_with_what_to_look_at(refused: str, hint: str) -> None:
    (found,) = server.findings(replace(SEEN, described=None, refused=refused))
    assert (found.level, hint in found.way_out) == ("failure", True)
