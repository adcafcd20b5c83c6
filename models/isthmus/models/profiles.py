"""A profile: how long a machine takes, and what energy, for work of a known size. No number without a source.

Time is t = call + operators · op + FLOPs · flop + bytes of memory traffic · byte, its rates never negative and fitted on
timings that the file carries. Those hold for the runtime that was timed; `runtime` and `dispatch` make them LiteRT's.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import msgspec

from isthmus.proto.compat import tomllib
from isthmus.proto.errors import ConfigError

SCHEMA = 1
BOARDS = Path(__file__).parent / "boards"
SUITE, RADIOS = BOARDS / "suite.toml", BOARDS / "radios.toml"

Threads = Literal["all", "one"]
Confidence = Literal["measured", "published", "estimate", "unverified"]
"""Measured by us; printed by those who measured it; derived or judged by us; quoted without having seen the original."""


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A table of a profile."""


class Sourced(Strict, frozen=True, kw_only=True):
    """A table with numbers: where they come from (a key of `sources`), and how far they can be believed."""

    source: str
    confidence: Confidence


class Cost(Sourced, frozen=True, kw_only=True):
    """The work of one input: FLOPs (two a multiply-accumulate), bytes read and written, operators."""

    flops: float
    traffic_bytes: float
    ops: int


class Timing(Sourced, frozen=True, kw_only=True):
    """One workload timed: `seconds` for `batch` inputs together."""

    workload: str
    threads: Threads = "all"
    int8: bool = False
    batch: int = 1
    seconds: float


class Rates(Sourced, frozen=True, kw_only=True):
    """The fitted line, seconds per unit of work, and how far it was off (relative) on each workload left out of it."""

    threads: Threads = "all"
    call_s: float = 0.0
    """The time of each call, whatever its batch."""
    op_s: float = 0.0
    flop_s: float
    byte_s: float = 0.0
    left_out_median: float
    left_out_worst: float

    def seconds(self, flops: float, traffic_bytes: float, ops: float, batch: float = 1) -> float:
        """Time of one call on `batch` inputs, each of so much work."""
        return self.call_s + ops * self.op_s + batch * (flops * self.flop_s + traffic_bytes * self.byte_s)


class Factor(Sourced, frozen=True, kw_only=True):
    """The factor by which something takes longer."""

    factor: float


class Dispatch(Sourced, frozen=True, kw_only=True):
    """What every operator of LiteRT takes beyond the rates: nothing in a large network, much in a small stage."""

    op_s: float


class Int8(Factor, frozen=True, kw_only=True):
    """An int8 network's time over the float32 one's."""

    threads: Threads = "all"


class Power(Sourced, frozen=True, kw_only=True):
    """The power of the whole board."""

    idle_W: float
    active_W: float


class Radio(Sourced, frozen=True, kw_only=True):
    """Energy of what is sent, on top of the board's own: per message, per byte, and lingering after a message."""

    message_J: float = 0.0
    up_J_per_B: float = 0.0
    down_J_per_B: float = 0.0
    tail_W: float = 0.0
    tail_s: float = 0.0
    """The time that the radio stays on after a message; another message in that time starts it anew."""

    def energy_J(self, messages: int, bytes_up: float, bytes_down: float, span_s: float) -> float:
        """The energy of so many messages, taken as evenly spread over `span_s`, and of their bytes together."""
        sent_J = messages * self.message_J + bytes_up * self.up_J_per_B + bytes_down * self.down_J_per_B
        return sent_J + min(messages * self.tail_s, span_s) * self.tail_W


class Observation(Sourced, frozen=True, kw_only=True):
    """Something else that was measured, in the unit that its name ends in."""

    value: float


class Energy(NamedTuple):
    """Joules of some span of time above what the board takes idling all through it: computing, and the radio."""

    compute_J: float
    radio_J: float

    @property
    def above_idle_J(self) -> float:
        """The energy of computing and radio together."""
        return self.compute_J + self.radio_J


class Profile(Strict, frozen=True, kw_only=True):
    """The times and energies of one machine."""

    schema: int
    name: str
    title: str
    kind: Literal["device", "server"] = "device"
    sources: dict[str, str]
    """What a `source` stands for: a publication or a command."""
    rates: tuple[Rates, ...]
    runtime: Factor | None = None
    """LiteRT's time over that of the runtime that was timed."""
    dispatch: Dispatch | None = None
    """The factor of int8; none where the rates hold it already."""
    int8: tuple[Int8, ...] = ()
    throttling: dict[str, Factor] = {}
    """Slowdown in each state of heat or power saving."""
    power: Power | None = None
    radios: dict[str, Radio] = {}
    """The radios that differ from the shipped ones."""
    observed: dict[str, Observation] = {}
    workloads: dict[str, Cost] = {}
    """The workloads that the shipped suite lacks."""
    timings: tuple[Timing, ...] = ()
    slowdown: float = 1.0
    """The factor of the state that `throttled` chose; not part of a file."""

    def stage_s(
        self,
        flops: float,
        traffic_bytes: float = 0.0,
        *,
        ops: float = 0,
        threads: Threads = "all",
        int8: bool = False,
    ) -> float:
        """Seconds of one stage of so much work; a small one needs its `ops`. On all threads where one was not timed."""
        seconds = self._rates(threads).seconds(flops, traffic_bytes, ops)
        if int8:
            seconds *= self._int8(threads)
        if self.runtime is not None:
            seconds *= self.runtime.factor
        if self.dispatch is not None:
            seconds += ops * self.dispatch.op_s
        return seconds * self.slowdown

    def tail_s(self, flops: float, batch: int = 1, *, traffic_bytes: float = 0.0) -> float:
        """Seconds of one tail call on `batch` inputs of `flops` each, on all of the machine's threads."""
        return self._rates("all").seconds(flops, traffic_bytes, 0, batch) * self.slowdown

    def throttled(self, state: str) -> Profile:
        """The same machine in a state of `throttling`, or "none". ConfigError lists the states."""
        if state == "none":
            return msgspec.structs.replace(self, slowdown=1.0)
        if state not in self.throttling:
            known = ", ".join(("none", *self.throttling))
            raise ConfigError(f"throttling: '{state}' is not a state of {self.name}; it has {known}")
        return msgspec.structs.replace(self, slowdown=self.throttling[state].factor)

    def energy(
        self,
        *,
        active_s: float,
        idle_s: float,
        messages: int = 0,
        bytes_up: float = 0.0,
        bytes_down: float = 0.0,
        radio: str = "wifi",
    ) -> Energy:
        """The energy above idling over `active_s + idle_s`; the messages are taken as evenly spread over it.

        For one frame, `active_s` is its computing and `idle_s` the rest of its period. Raises ConfigError when the
        profile has no power figures or there is no such radio; it lists the radios.
        """
        radio_J = self.radio(radio).energy_J(messages, bytes_up, bytes_down, active_s + idle_s)
        return Energy(self.computing_W * active_s, radio_J)

    @property
    def computing_W(self) -> float:
        """The power of computing above idling. ConfigError when the profile has no power figures."""
        if self.power is None:
            raise ConfigError(f"profile {self.name}: no [power]; add idle_W and active_W with their source")
        return self.power.active_W - self.power.idle_W

    def radio(self, name: str) -> Radio:
        """The profile's own radio of this name, or the shipped one. ConfigError lists the radios."""
        known = radios() | self.radios
        if name not in known:
            raise ConfigError(f"radio: '{name}' is not one of {', '.join(known)}")
        return known[name]

    def cost(self, workload: str) -> Cost:
        """The work of a workload: the profile's own, or the shipped suite's. ConfigError if neither knows it."""
        known = suite() | self.workloads
        if workload not in known:
            raise ConfigError(f"profile {self.name}: timings: no workload '{workload}'; known: {', '.join(known)}")
        return known[workload]

    def _rates(self, threads: Threads) -> Rates:
        return next((r for r in self.rates if r.threads == threads), self.rates[0])

    def _int8(self, threads: Threads) -> float:
        if not self.int8:
            raise ConfigError(f"profile {self.name}: no int8; it has no figures for int8 networks")
        return next((i for i in self.int8 if i.threads == threads), self.int8[0]).factor


class Suite(Strict, frozen=True, kw_only=True):
    """`suite.toml`: the networks of the published tables."""

    schema: int
    sources: dict[str, str]
    workloads: dict[str, Cost]


class Radios(Strict, frozen=True, kw_only=True):
    """The content of `radios.toml`."""

    schema: int
    sources: dict[str, str]
    radios: dict[str, Radio]


def names() -> tuple[str, ...]:
    """The shipped profiles."""
    return tuple(sorted(p.stem for p in BOARDS.glob("*.toml") if p not in (SUITE, RADIOS)))


def path_of(name_or_path: str) -> Path:
    """The file of the shipped profile of this name, or the one at this path. ConfigError lists the names."""
    path = BOARDS / f"{name_or_path}.toml" if name_or_path in names() else Path(name_or_path)
    if not path.is_file():
        raise ConfigError(f"profile: no '{name_or_path}'; there are {', '.join(names())}, or name a file")
    return path


def load(name_or_path: str) -> Profile:
    """The shipped profile of this name, or the one in this file. Raises ConfigError naming file, key or known names."""
    path = path_of(name_or_path)
    profile = _read(path, Profile)
    if profile.slowdown != 1.0:
        raise ConfigError(f"{path}: slowdown: not part of a file; name the state under [throttling]")
    for timing in profile.timings:
        profile.cost(timing.workload)
    return profile


@cache
def suite() -> dict[str, Cost]:
    """The networks of the published tables, by name."""
    return _read(SUITE, Suite).workloads


@cache
def radios() -> dict[str, Radio]:
    """The shipped radios, by name."""
    return _read(RADIOS, Radios).radios


Table = TypeVar("Table", Profile, Suite, Radios)


def _read(path: Path, kind: type[Table]) -> Table:
    try:
        raw = tomllib.loads(path.read_text())
        table = msgspec.convert(raw, kind)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from error
    if table.schema != SCHEMA:
        raise ConfigError(f"{path}: schema {table.schema}, this Isthmus reads schema {SCHEMA}")
    _check(path, raw, table.sources, "")
    return table


def _check(path: Path, table: object, sources: dict[str, str], where: str) -> None:
    """Every source is one that the file explains, every number finite and not negative."""
    if isinstance(table, dict):
        if "source" in table and table["source"] not in sources:
            raise ConfigError(f"{path}: {where}: source '{table['source']}' is not explained under [sources]")
        for key, value in table.items():
            _check(path, value, sources, f"{where}.{key}" if where else key)
    elif isinstance(table, list):
        for i, value in enumerate(table):
            _check(path, value, sources, f"{where}[{i}]")
    elif isinstance(table, float) and not 0 <= table < float("inf"):
        raise ConfigError(f"{path}: {where} = {table}, expected a finite number of at least 0")


def render(profile: Profile) -> str:
    """`profile` as a TOML file that `load` reads back the same; defaults are left out, a table with numbers is one line."""
    lines, sections = [], []
    for key, value in msgspec.to_builtins(profile).items():
        if isinstance(value, dict) and "source" not in value and "idle_W" not in value:
            sections += ["", f"[{key}]", *(f"{_key(k)} = {_inline(v)}" for k, v in value.items())]
        elif isinstance(value, list | tuple):
            lines += [f"{key} = [", *(f"    {_inline(v)}," for v in value), "]"]
        else:
            lines.append(f"{key} = {_inline(value)}")
    return "\n".join(lines + sections) + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _inline(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_inline(v)}" for k, v in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)  # TOML's strings, numbers and booleans are written like JSON's
