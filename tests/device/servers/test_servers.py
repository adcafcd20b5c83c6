"""Which servers are dialled when, and which one is used: the core alone, told what its host would tell it."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.device.actions import Beat, Dial, HangUp
from isthmus.device.guard import SessionConfig
from isthmus.device.servers.pauses import FIRST_S, LONGEST_S, STEADY_S, UNHURRIED_S, Pauses
from isthmus.device.servers.servers import LOOK_S, STREAMS, Servers
from isthmus.proto.messages import Busy, Drain, ServerHeartbeat, Welcome
from isthmus.proto.vocabulary import LinkState, Load

IDLE = Load()


def welcome(name: str, load: Load = IDLE) -> Welcome:
    return Welcome(f"edge {name}", 8, 10_000, load)


class Hosted:
    """The core, and a host that performs what it asks: who is dialled is taken on at once, unless the test says it is away."""

    def __init__(self, *names: str, seed: int = 1, ids: dict[str, str] | None = None) -> None:
        self.core = Servers(names, chance=random.Random(seed))
        self.away: set[str] = set()
        """Servers that cannot be reached."""
        self.loads: dict[str, Load] = {}
        self.ids = ids or {}
        """What servers call themselves, where that is not their name."""
        self.now = 0.0
        self.dialled: list[tuple[float, str]] = []
        self.hung_up: list[tuple[float, str]] = []
        self.beats: list[tuple[float, str]] = []
        self.core.connect(now=0.0)
        self.perform()

    def perform(self) -> None:
        while asked := self.core.actions():
            for action in asked:
                match action:
                    case Dial(name):
                        self.dialled.append((self.now, name))
                        if name in self.away:
                            self.core.on_disconnected(name, now=self.now)
                        else:
                            self.core.on_connected(
                                name, welcome(self.ids.get(name, name), self.loads.get(name, IDLE)), now=self.now
                            )
                    case HangUp(name):
                        self.hung_up.append((self.now, name))
                        self.core.on_disconnected(name, now=self.now)
                    case Beat(sequence, name):
                        self.beats.append((self.now, name))
                        if name not in self.away:
                            said = ServerHeartbeat(sequence, self.loads.get(name, Load()))
                            self.core.on_message(name, said, now=self.now + 0.001)

    def run(self, until_s: float) -> Hosted:
        while (due := self.core.due_at) is not None and due <= until_s:
            self.now = max(due, self.now)
            self.core.step(self.now)
            self.perform()
        self.now = until_s
        return self

    def lose(self, name: str) -> None:
        """It ends its stream, and cannot be reached any more."""
        self.away.add(name)
        self.core.on_disconnected(name, now=self.now)
        self.perform()

    @property
    def up(self) -> set[str]:
        return {s.name for s in self.core._up}


def test_one_server_is_dialled_once_and_used() -> None:
    host = Hosted("a").run(30.0)
    assert host.dialled == [(0.0, "a")]
    assert (host.core.state, host.core.used.name, host.core.due_at is None) == (LinkState.UP, "a", False)
    assert not host.hung_up


def test_without_servers_nothing_is_due() -> None:
    host = Hosted().run(30.0)
    assert host.core.due_at is None
    assert (host.core.state, host.core.names, host.dialled) == (LinkState.DOWN, (), [])


def test_duplicates_are_one_server() -> None:
    assert Hosted("a", "b", "a").run(5.0).core.names == ("a", "b")


def test_two_names_of_one_server_are_one_stream() -> None:
    """Where there are certificates, its second stream would end the first, and so on for ever."""
    host = Hosted("edge", "192.168.1.5", "other", ids={"192.168.1.5": "edge"}).run(300.0)
    assert "other" in host.up
    assert len(host.up) == 2
    alone = Hosted("edge", "192.168.1.5", ids={"192.168.1.5": "edge"}).run(300.0)
    assert len(alone.up) == 1
    assert len(alone.hung_up) == 1
    assert alone.core.state is LinkState.UP


def test_of_many_two_are_drawn_one_used_and_one_standing_by() -> None:
    drawn = Counter(tuple(sorted(Hosted(*"abcdefgh", seed=n).up)) for n in range(200))
    assert all(len(pair) == STREAMS for pair in drawn)
    assert len(drawn) == 28, "every pair comes up"
    used = Counter(Hosted(*"abcdefgh", seed=n).core.used.name for n in range(400))
    assert min(used.values()) > 25, "and nobody is preferred"


def test_a_standby_beats_less_often() -> None:
    host = Hosted("a", "b").run(20.0)
    beats = Counter(name for _, name in host.beats)
    used = host.core.used.name
    other = ({"a", "b"} - {used}).pop()
    config = SessionConfig()
    assert beats[used] == pytest.approx(20 / config.heartbeat_s, abs=2)
    assert beats[other] == pytest.approx(20 / config.standby_s, abs=2)
    assert host.beats[0] == (0.0, other), "its round trip is asked for at once"


def test_a_lost_server_is_left_at_once_and_another_drawn() -> None:
    host = Hosted("a", "b", "c").run(5.0)
    lost = host.core.used.name
    (other,) = host.up - {lost}
    host.lose(lost)
    assert host.core.used.name == other
    assert host.core.state is LinkState.UP
    assert host.up == {"a", "b", "c"} - {lost}, "the third stands by"


def test_a_draining_server_is_left_and_its_place_taken() -> None:
    host = Hosted("a", "b", "c").run(5.0)
    drained = host.core.used.name
    host.core.on_message(drained, Drain(5.0), now=5.0)
    host.perform()
    assert host.core.used.name != drained
    assert len(host.up) == STREAMS
    assert host.core.for_a_frame({}, 5.0) is host.core.used


def test_a_busy_server_s_frames_go_to_the_standby_while_it_is() -> None:
    host = Hosted("a", "b").run(5.0)
    used = host.core.used
    host.core.on_message(used.name, Busy(0, 0.2), now=5.0)
    other = host.core.for_a_frame({}, 5.1)
    assert other is not None
    assert other is not used
    assert host.core.for_a_frame({}, 5.3) is used
    assert host.core.for_a_frame({used.name: 8, other.name: 8}, 5.3) is None, "credits are each server's own"


def test_when_all_are_gone_each_is_tried_ever_more_rarely() -> None:
    host = Hosted("a", "b").run(5.0)
    host.lose(host.core.used.name)
    host.lose(host.core.used.name)
    assert host.core.state is LinkState.DOWN
    host.run(60.0)
    for name in "ab":
        tries = [at_s for at_s, who in host.dialled if who == name and at_s > 5.0]
        gaps = [b - a for a, b in itertools.pairwise(tries)]
        assert tries[0] - 5.0 <= 1.5 * FIRST_S
        assert max(gaps) <= 1.5 * LONGEST_S + 1e-9
        assert min(gaps[5:]) >= 0.5 * LONGEST_S
    host.away.clear()
    host.run(62.0)
    assert host.up == {"a", "b"}


def test_while_another_serves_a_lost_one_is_not_pressed() -> None:
    host = Hosted("a", "b").run(5.0)
    lost = host.core.used.name
    host.lose(lost)
    host.run(120.0)
    tries = [at_s for at_s, who in host.dialled if who == lost and at_s > 5.0]
    assert len(tries) < 110 / (0.5 * UNHURRIED_S[1])
    assert host.core.state is LinkState.UP


def test_when_the_last_one_drains_those_that_rest_are_tried_at_once() -> None:
    """A server that came back during a long pause is needed now."""
    host = Hosted("a", "b").run(5.0)
    lost = host.core.used.name
    host.lose(lost)
    host.run(60.0)
    host.away.clear()
    last = host.core.used.name
    host.core.on_message(last, Drain(5.0), now=60.0)
    host.perform()
    host.run(60.0 + FIRST_S)
    assert host.core.used.name == lost
    assert host.core.state is LinkState.UP


def test_servers_that_come_and_go_at_once_are_not_pressed() -> None:
    """Neither shortens the other's pauses by what it does within a moment."""
    core = Servers(("a", "b"), chance=random.Random(1))
    core.connect(now=0.0)
    now, dials = 0.0, 0
    while now < 60.0:
        for action in core.actions():
            if isinstance(action, Dial):
                dials += 1
                core.on_connected(action.server, welcome(action.server), now=now)
                core.on_disconnected(action.server, now=now + 0.01)
        if (due := core.due_at) is None:
            break
        now = max(due, now)
        core.step(now)
    assert 2 * 60 / (1.5 * LONGEST_S) < dials < 2 * 60 / (0.5 * LONGEST_S)


def test_of_two_the_clearly_less_busy_one_is_used() -> None:
    busy = Load(20, 0.080, 0.020)
    for seed in range(20):
        host = Hosted("a", "b", seed=seed)
        host.loads["a"] = busy
        assert host.run(2 * LOOK_S[1]).core.used.name == "b"
        host.loads = {"a": Load(0, 0.0, 0.020), "b": Load(0, 0.0, 0.022)}
        assert host.run(6 * LOOK_S[1]).core.used.name == "b", "a little more is no reason to switch"


def test_the_load_of_the_welcome_counts_already() -> None:
    class Loaded(Hosted):
        def __init__(self, seed: int) -> None:
            self.loads_then = {"a": Load(20, 0.5, 0.1)}
            super().__init__(seed=seed)
            self.loads = self.loads_then
            self.core.on_found(("a", "b"), now=0.0)
            self.perform()

    assert {Loaded(seed).core.used.name for seed in range(20)} == {"b"}


def test_with_more_than_two_the_standby_changes_now_and_then() -> None:
    host = Hosted("a", "b", "c", "d").run(1200.0)
    assert {name for _, name in host.dialled} == {"a", "b", "c", "d"}
    assert len(host.up) == STREAMS
    assert 8 < len(host.hung_up) < 50, "once a minute"
    assert len({name for _, name in host.hung_up}) > 1


def test_a_silent_server_is_hung_up_and_the_standby_used() -> None:
    host = Hosted("a", "b").run(5.0)
    silent = host.core.used.name
    host.away.add(silent)
    host.run(5.0 + SessionConfig().heartbeat_s + SessionConfig().silence_s + 0.1)
    assert [name for _, name in host.hung_up] == [silent]
    assert host.core.used.name != silent


def test_a_suspected_server_gets_nothing_until_it_speaks() -> None:
    host = Hosted("a", "b").run(5.0)
    suspect = host.core.used
    host.core.suspect(suspect, 5.0)
    assert host.core.used is not suspect
    assert not suspect.usable(0, 5.0)
    host.core.on_message(suspect.name, ServerHeartbeat(99), now=5.1)
    assert suspect.usable(0, 5.1)
    assert host.core.used is not suspect, "and it is the standby now"


def test_servers_are_found_and_vanish() -> None:
    host = Hosted()
    host.core.on_found(["x:1"], now=1.0)
    host.now = 1.0
    host.perform()
    assert (host.core.used.name, host.core.state) == ("x:1", LinkState.UP)
    host.core.on_found(["y:1", "x:1"], now=2.0)
    host.perform()
    assert host.up == {"x:1", "y:1"}
    host.core.on_vanished("y:1", now=3.0)
    assert host.up == {"x:1", "y:1"}, "a stream that works is not given up for a word of mDNS"
    host.lose("y:1")
    assert [*host.core.names] == ["x:1"], "once it has ended, it is forgotten"
    host.core.on_vanished("z:1", now=3.0)
    host.core.on_found(["y:1"], now=4.0)
    assert [*host.core.names] == ["x:1", "y:1"]


def test_a_listed_server_is_tried_whatever_mdns_says() -> None:
    host = Hosted("a").run(5.0)
    host.lose("a")
    host.core.on_vanished("a", now=5.0)
    assert host.core.names == ("a",)


@given(st.integers(0, 1000), st.lists(st.floats(0.0, 3.0) | st.none(), max_size=30), st.booleans())
def test_pauses_stay_within_their_bounds(seed: int, lasted: list[float | None], served: bool) -> None:
    pauses, longest_s = Pauses(random.Random(seed)), UNHURRIED_S[1] if served else LONGEST_S
    for lasted_s in lasted:
        pause_s = pauses.next_s(lasted_s, served=served)
        assert 0.5 * FIRST_S <= pause_s <= 1.5 * longest_s
        if lasted_s is not None and lasted_s >= STEADY_S:
            assert pause_s <= 1.5 * (UNHURRIED_S[0] if served else FIRST_S)
    assert 0.0 <= pauses.soon_s() <= FIRST_S


STEPS = st.sampled_from(["connect", "end", "drain", "beat", "busy", "step", "suspect", "wait", "find", "vanish"])


@given(st.integers(1, 4), st.integers(0, 100), st.lists(st.tuples(STEPS, st.integers(0, 3)), max_size=60))
def test_whatever_is_told_no_more_streams_are_asked_for_than_wanted(
    count: int, seed: int, steps: list[tuple[str, int]]
) -> None:
    core, now = Servers("abcd"[:count], chance=random.Random(seed)), 0.0
    core.connect(now=now)
    lines: set[str] = set()
    """Servers with a stream, or an attempt at one."""
    for what, number in steps:
        for action in core.actions():
            if isinstance(action, Dial):
                assert action.server not in lines, "one stream to each"
                lines.add(action.server)
            elif isinstance(action, HangUp):
                assert action.server in lines
        ordered = sorted(lines)
        name = ordered[number % len(ordered)] if ordered else None
        match what:
            case "connect" if name is not None and core._known[name].state is LinkState.DOWN:
                core.on_connected(name, welcome(name), now=now)
            case "end" if name is not None:
                lines.discard(name)
                core.on_disconnected(name, now=now)
            case "drain" if name is not None:
                core.on_message(name, Drain(1.0), now=now)
            case "beat" if name is not None:
                core.on_message(name, ServerHeartbeat(1), now=now)
            case "busy" if name is not None:
                core.on_message(name, Busy(1, 0.1), now=now)
            case "suspect" if core.state is LinkState.UP:
                core.suspect(core.used, now)
            case "find":
                core.on_found(("abcd"[number],), now=now)
            case "vanish":
                core.on_vanished("abcd"[number], now=now)
            case "step" if core.due_at is not None:
                now = max(now, core.due_at)
                core.step(now)
            case "wait":
                now += 0.3
        useful = sum(server.useful for server in core._known.values())
        assert useful <= STREAMS + 1
        served = [s for s in core._up if not s.suspected]
        assert not served or core.state is LinkState.UP or core.used.state is LinkState.UP
