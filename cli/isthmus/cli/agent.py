"""`isthmus agent`: the device's half, in the field.

Every key of a role's configuration file is also a flag and an environment variable: `deadline_s` in the file is
`--deadline 100ms` and ISTHMUS_AGENT_DEADLINE_S=0.1.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import typer

from isthmus.cli.options import CONFIG, INSECURE, Format, run_role
from isthmus.device.config import AgentConfig
from isthmus.proto import config


def agent(
    config_file: Path | None = CONFIG,
    bundle: str | None = typer.Option(None, help="Zoo name or folder of the bundle [signs]."),
    source: str | None = typer.Option(None, help="Camera, address, folder, video: see docs/sources.md [generated:0]."),
    server: str | None = typer.Option(
        None, help="HOST:PORT of the edge server, or of several with commas [none: the device answers alone]."
    ),
    discover: bool | None = typer.Option(
        None, "--discover", help="Also find servers in the local network (mDNS) [no]."
    ),
    deadline: str | None = typer.Option(None, help="From capture to answer, e.g. 100ms [100ms]."),
    fps: float | None = typer.Option(None, help="Frames a second [the source's own, or 10]."),
    size: str | None = typer.Option(None, help="Ask a camera for pictures of this size, e.g. 1280x720 [its own]."),
    rotate: int | None = typer.Option(None, help="Turn pictures clockwise by 90, 180 or 270 degrees [0]."),
    frames: int | None = typer.Option(None, help="Stop after so many frames."),
    certs_: str | None = typer.Option(None, "--certs", help="Folder made by `isthmus certs init`."),
    insecure: bool | None = INSECURE,
    policy: str | None = typer.Option(
        None, help="expected-utility, always-offload, local-only, or your own as module:Class."
    ),
    on_time: float | None = typer.Option(
        None, help="Of the frames that are sent, the share to be answered in time, e.g. 0.9 [any]."
    ),
    energy_weight: float | None = typer.Option(
        None, help="Share of a right answer that a joule above idling costs, e.g. 0.5; needs a profile [0]."
    ),
    profile: str | None = typer.Option(
        None, help="Whose watts: a file of `isthmus bench device`, or a shipped profile [as-device's]."
    ),
    radio: str | None = typer.Option(None, help="Which of the profile's radios sends [wifi]."),
    threads: int | None = typer.Option(None, help="Threads of the head [1]."),
    filter_: str | None = typer.Option(None, "--filter", help="Folder of a neural filter [none]."),
    gate: float | None = typer.Option(
        None, help="Repeat answers to pictures that change by less, in grey levels [off]."
    ),
    gate_age: str | None = typer.Option(None, help="For at most so long, e.g. 2s [2s]."),
    as_device: str | None = typer.Option(None, help="Take as long as this profile's machine, e.g. pi4 [as this one]."),
    client_id: str | None = typer.Option(None, help="What the server's log calls this device."),
    record: str | None = typer.Option(None, help="Also write answers, with the run's header, to this file."),
    record_file_bytes: str | None = typer.Option(None, help="Go on in another file after so much [64 MB]."),
    record_age: str | None = typer.Option(None, help="Go on in another file after so long [1d]."),
    record_total_bytes: str | None = typer.Option(None, help="Delete the oldest files beyond so much in all [1 GB]."),
    watch: str | None = typer.Option(
        None, help="Classes that mqtt, webhook and clips are about, e.g. person,car [all]."
    ),
    mqtt: str | None = typer.Option(
        None, help="mqtt://[USER[:PASSWORD]@]HOST[:PORT]: be a device of Home Assistant's."
    ),
    webhook: str | None = typer.Option(None, help="URL that is told what comes into view, and what has gone."),
    overlay: str | None = typer.Option(None, help="Make a video of what was answered, in this new .mp4 file."),
    clips: str | None = typer.Option(None, help="Keep a snapshot and a clip of what comes into view in this folder."),
    clips_total_bytes: str | None = typer.Option(None, help="Delete the oldest of them beyond so much [1 GB]."),
    page: str | None = typer.Option(None, help="Show a live page at HOST:PORT, e.g. 127.0.0.1:8070 [none]."),
    page_token: str | None = typer.Option(
        None, help="Of a page that other machines can reach [made up at each start]."
    ),
    open_page: bool | None = typer.Option(
        None, "--open", "--open-page", help="Open the page in this machine's browser."
    ),
    metrics: str | None = typer.Option(
        None, help="HOST:PORT of /metrics, /healthz and /readyz, e.g. 127.0.0.1:9465 [none]."
    ),
    traces: str | None = typer.Option(
        None, help="OpenTelemetry collector's URL, e.g. http://127.0.0.1:4318, or env [none]."
    ),
    traces_share: float | None = typer.Option(None, help="Share of frames whose traces are sent, e.g. 0.01 [1]."),
    preview: str | None = typer.Option(None, help="Keep the newest picture, small, in this PNG for a viewer."),
    format_: Format = typer.Option("json", "--format", help="Answers as lines of JSON, or of text for people."),
) -> None:
    """Run the device's half: one line for every answer, on standard output."""
    flags: dict[str, object] = {
        "bundle": bundle,
        "source": source,
        "server": server,
        "discover": discover,
        "deadline_s": deadline,
        "fps": fps,
        "size": size,
        "rotate": rotate,
        "frames": frames,
        "certs": certs_,
        "insecure": insecure,
        "policy": policy,
        "on_time": on_time,
        "energy_weight": energy_weight,
        "profile": profile,
        "radio": radio,
        "threads": threads,
        "filter": filter_,
        "gate": gate,
        "gate_age_s": gate_age,
        "as_device": as_device,
        "client_id": client_id,
        "record": record,
        "record_file_bytes": record_file_bytes,
        "record_age_s": record_age,
        "record_total_bytes": record_total_bytes,
        "watch": watch,
        "mqtt": mqtt,
        "webhook": webhook,
        "overlay": overlay,
        "clips": clips,
        "clips_total_bytes": clips_total_bytes,
        "page": page,
        "page_token": page_token,
        "open_page": open_page,
        "metrics": metrics,
        "traces": traces,
        "traces_share": traces_share,
        "preview": preview,
    }
    settings = config.load(AgentConfig, config_file, flags, prefix="ISTHMUS_AGENT")
    from isthmus.device.run import run_agent  # help and a wrong flag need neither OpenCV nor LiteRT

    run_role(run_agent(settings, command=shlex.join(["isthmus", *sys.argv[1:]]), text=format_ == "text"))
