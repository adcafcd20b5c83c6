"""What a machine shows of itself, as its kernel writes it; and what is made of nonsense."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.device import sensors
from isthmus.device.sensors import Reading


def sysfs(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


PI = {
    "class/thermal/thermal_zone0/temp": "61342",
    sensors.FIRMWARE: "50005",
    **{f"devices/system/cpu/cpu{i}/cpufreq/cpuinfo_max_freq": "1800000" for i in range(4)},
    **{f"devices/system/cpu/cpu{i}/cpufreq/scaling_cur_freq": "1800000" for i in (0, 1, 3)},
    "devices/system/cpu/cpu2/cpufreq/scaling_cur_freq": "600000",
    "class/hwmon/hwmon0/temp1_input": "61342",
    "class/hwmon/hwmon0/name": "cpu_thermal",
}
JETSON = {
    "class/thermal/thermal_zone0/temp": "47812",
    "class/thermal/thermal_zone1/temp": "49500",
    "class/thermal/thermal_zone2/temp": "-256000",  # a zone that is switched off
    "class/hwmon/hwmon3/in1_label": "VDD_IN",
    "class/hwmon/hwmon3/in1_input": "4968",
    "class/hwmon/hwmon3/curr1_input": "1120",
    "class/hwmon/hwmon3/in2_label": "VDD_CPU_GPU_CV",
    "class/hwmon/hwmon3/in2_input": "4968",
    "class/hwmon/hwmon3/curr2_input": "400",
    "class/hwmon/hwmon3/in7_label": "Sum of shunt voltages",
    "class/hwmon/hwmon3/in7_input": "3",
}


def test_a_raspberry_pi(tmp_path: Path) -> None:
    reading = sensors.read(sysfs(tmp_path, PI))
    assert reading == Reading(61.342, reading.clock_share, ("under-voltage", "throttled"), None)
    assert reading.clock_share == pytest.approx(1 / 3)
    assert str(reading) == "61 °C, clock 33%, under-voltage, throttled"


def test_a_jetson(tmp_path: Path) -> None:
    reading = sensors.read(sysfs(tmp_path, JETSON))
    assert reading == Reading(49.5, None, None, reading.power_W)
    assert reading.power_W == pytest.approx(4.968 * 1.12)
    assert str(reading) == "50 °C, 5.6 W"


def test_a_monitor_of_watts(tmp_path: Path) -> None:
    files = {"class/hwmon/hwmon0/power1_input": "5120000", "class/hwmon/hwmon1/power1_input": "880000"}
    assert sensors.read(sysfs(tmp_path, files)).power_W == pytest.approx(6.0)


def test_a_machine_that_shows_nothing(tmp_path: Path) -> None:
    assert sensors.read(tmp_path) == Reading()
    assert str(Reading()) == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0", ()),
        ("0x0\n", ()),
        ("80008", ("soft temperature limit",)),
        ("50000", ()),  # once, not now
        ("f", sensors.THROTTLING_BITS),
        ("", None),
        ("busy", None),
        (None, None),
    ],
)
def test_the_firmwares_bits(text: str | None, told: tuple[str, ...] | None) -> None:
    assert sensors.throttling(text) == told


def test_nonsense_is_no_reading(tmp_path: Path) -> None:
    files = {
        "class/thermal/thermal_zone0/temp": "hot",
        sensors.FIRMWARE: "?",
        "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "<unknown>",
        "devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "0",
        "class/hwmon/hwmon0/in1_input": "4968",  # a voltage without its current
        "class/hwmon/hwmon0/power1_input": "",
    }
    assert sensors.read(sysfs(tmp_path, files)) == Reading()
