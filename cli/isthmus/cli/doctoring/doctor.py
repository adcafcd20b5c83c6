"""`isthmus doctor`: what is wrong on this machine, and how to put it right.

What is compiled is loaded by another process first: nothing here may import numpy, OpenCV, gRPC or LiteRT at its top.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from isthmus.cli.doctoring import clock, machine, ports, processor, software, storage
from isthmus.cli.doctoring.finding import Finding, Level, failure
from isthmus.cli.options import CONFIG, FORMAT, INSECURE, Format
from isthmus.device.config import AgentConfig
from isthmus.proto import config
from isthmus.proto.errors import ConfigError, IsthmusError

MARKS: dict[Level, tuple[str, str]] = {
    "ok": ("ok  ", "green"),
    "warning": ("warn", "yellow"),
    "failure": ("FAIL", "red"),
}

Check = Callable[[], list[Finding]]


def doctor(
    config_file: Path | None = CONFIG,
    bundle: str | None = typer.Option(None, help="Look at this bundle too, and at its deadline."),
    source: str | None = typer.Option(None, help="Open this source, and count its pictures."),
    server: str | None = typer.Option(None, help="HOST:PORT of an edge server to look at too."),
    certs: str | None = typer.Option(None, "--certs", help="Folder of certificates to look at too."),
    insecure: bool | None = INSECURE,
    listen: list[str] = typer.Option([], help="HOST:PORT that is to be free; repeatable."),
    format_: Format = FORMAT,
) -> None:
    """Look at this machine and at what an agent is told: exit code 0 where nothing keeps it from working, else 1."""
    flags: dict[str, object] = {
        "bundle": bundle, "source": source, "server": server, "certs": certs, "insecure": insecure,
    }  # fmt: skip
    settings, said = config.resolve(AgentConfig, config_file, flags, prefix="ISTHMUS_AGENT")
    findings = list(_all(settings, frozenset(said), listen))
    if format_ == "json":
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        _show(findings)
    if any(finding.level == "failure" for finding in findings):
        raise typer.Exit(1)


def _show(findings: list[Finding]) -> None:
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)  # details are anybody's text
    for one in findings:
        word, colour = MARKS[one.level]
        console.print(
            Text(word, colour), f"{one.what}: {one.detail}" + (f"\n     {one.way_out}" if one.way_out else "")
        )


def _all(settings: AgentConfig, said: frozenset[str], listen: list[str]) -> Iterator[Finding]:
    """Every finding, group by group. `said` are the keys that somebody set: only what was set is looked for."""
    yield from software.findings(software.facts())
    loaded = processor.facts()
    yield from processor.findings(loaded)
    yield from machine.findings(machine.facts())
    yield from storage.findings(storage.facts(settings))
    yield from clock.findings(clock.facts())
    yield from ports.findings(ports.facts(_wanted(settings, listen)))
    checks = _compiled(settings, said)
    if name := processor.blocked(loaded):
        yield failure(", ".join(checks), f"not looked at: {name} cannot be loaded", "put that right first")
        return
    for what, check in checks.items():
        try:
            yield from check()
        except IsthmusError as error:
            yield failure(what, str(error), "put that right first")


def _wanted(settings: AgentConfig, listen: list[str]) -> list[tuple[str, str]]:
    wanted = [("listen", address) for address in listen]
    for _, address in wanted:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise ConfigError(f"--listen: '{address}', expected HOST:PORT")
    return wanted + ([("page", settings.page)] if settings.page is not None else [])


def _compiled(settings: AgentConfig, said: frozenset[str]) -> dict[str, Check]:
    """The checks that load compiled packages, by what they look at."""
    checks: dict[str, Check] = {"heads": lambda: _heads(settings, said)}
    if settings.certs is not None:
        checks["certificates"] = lambda: _certificates(settings)
    if "source" in said:
        checks["source"] = lambda: _source(settings)
    for address in settings.servers:
        what = "server" if len(settings.servers) == 1 else f"server {address}"
        checks[what] = partial(_server, settings, address)
    return checks


def _heads(settings: AgentConfig, said: frozenset[str]) -> list[Finding]:
    from isthmus.cli.doctoring import head

    names = head.shipped()
    if "bundle" in said and settings.bundle not in names:
        names.append(settings.bundle)
    ran = head.facts(names, threads=settings.threads, deadline_s=settings.deadline_s, configured=settings.bundle)
    return head.findings(ran)


def _certificates(settings: AgentConfig) -> list[Finding]:
    from isthmus.cli.doctoring import certificates
    from isthmus.proto.security import FILES, part

    folder, found = str(settings.certs), []
    hosts: list[str | None] = [address.rpartition(":")[0].strip("[]") for address in settings.servers]
    has_server = (part(folder, "server") / FILES["server"][1]).exists()
    if not has_server or (part(folder, "device") / FILES["device"][1]).exists():
        found += certificates.findings(certificates.facts(folder, "device"))
    if has_server:
        for host in hosts or [None]:
            found += certificates.findings(certificates.facts(folder, "server", host=host))
    return found


def _source(settings: AgentConfig) -> list[Finding]:
    from isthmus.cli.doctoring import camera

    return camera.findings(camera.facts(settings))


def _server(settings: AgentConfig, address: str) -> list[Finding]:
    from isthmus.cli.doctoring import server

    return server.findings(server.facts(settings, address))
