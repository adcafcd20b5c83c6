"""The session under any order of events: every frame is answered once, and in time."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from isthmus.device.actions import Emit, Forget, RunStage, Send
from isthmus.device.scheduler import AlwaysOffload, LocalOnly
from isthmus.device.session import Session
from isthmus.device.stage_times import StageTimes
from isthmus.proto import messages
from isthmus.proto.vocabulary import (
    Frame,
    Guess,
    Load,
    ServerTimings,
    StageResult,
)
from pair import catalogue

EVENTS = st.sampled_from(
    [
        "frame",
        "stage",
        "failed stage",
        "connect",
        "disconnect",
        "result",
        "late",
        "busy",
        "invalid",
        "drain",
        "ack",
        "wait",
        "long wait",
    ]
)


ANY = st.one_of(st.integers(0, 8), st.integers(0, 2**32 - 1))
SECONDS = st.one_of(st.floats(0, 0.1), st.floats(0, 4295))
ANY_LOAD = st.builds(Load, ANY, SECONDS, SECONDS)
SAID = st.one_of(
    st.builds(messages.Welcome, st.text(max_size=3), ANY, ANY, ANY_LOAD),
    st.builds(messages.Ack, ANY, st.integers(0, 4), ANY_LOAD),
    st.builds(
        messages.Result,
        ANY,
        ANY,
        st.one_of(st.lists(st.floats(width=32), max_size=5).map(tuple), st.binary(max_size=101)),
        st.builds(ServerTimings, SECONDS, SECONDS, SECONDS, SECONDS),
        ANY_LOAD,
    ),
    st.builds(messages.Late, ANY, ANY_LOAD),
    st.builds(messages.Busy, ANY, SECONDS, st.sampled_from(messages.Hint), ANY_LOAD),
    st.builds(messages.Invalid, ANY, st.integers(0, 4), st.text(max_size=3), ANY_LOAD),
    st.builds(messages.Drain, SECONDS, ANY_LOAD),
    st.builds(messages.ServerHeartbeat, ANY, ANY_LOAD),
)
"""Whatever a server can put into a message, sensible or not."""


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(EVENTS, EVENTS, SAID), max_size=60), st.booleans())
def test_whatever_happens_every_frame_is_answered_once_and_in_time(
    events: list[str | messages.ServerMessage], offloads: bool
) -> None:
    known = catalogue()
    session = Session(known, AlwaysOffload(known) if offloads else LocalOnly(known), StageTimes(((0.004, 0.01),) * 2))
    now, frames = 0.0, 0
    answered: Counter[int] = Counter()
    forgotten: Counter[int] = Counter()
    running: list[RunStage] = []

    def drain() -> None:
        for action in session.actions():
            match action:
                case Emit(answer):
                    answered[answer.frame_id] += 1
                    assert answer.on_time
                case Forget(frame_id):
                    assert answered[frame_id] == 1
                    forgotten[frame_id] += 1
                case RunStage():
                    assert not running
                    running.append(action)
                case Send(frame_id, _, layer):
                    session.on_sent(frame_id, layer, 100, now=now)

    def pass_time(seconds: float) -> None:
        nonlocal now
        until = now + seconds
        while (due := session.due_at) is not None and due <= until:
            now = max(now, due)
            session.step(now)
            drain()
        now = until

    for event in events:
        match event:
            case "frame":
                session.on_frame(Frame(frames, now, now + 0.1), now=now)
                frames += 1
            case "stage" if running:
                done = running.pop()
                sizes = ((100, 200), (80, 150)) if done.stage else None
                session.on_stage(
                    StageResult(done.frame_id, done.stage, done.width, Guess(0, 0.6), 0.01, sizes), now=now
                )
            case "failed stage" if running:
                session.on_stage_failed(running.pop().frame_id, now=now)
            case "connect":
                session.on_connected(messages.Welcome("edge", 2, 10_000), now=now)
            case "disconnect":
                session.on_disconnected(now=now)
            case "result":
                session.on_message(messages.Result(frames - 1, 2, (0.0, 1.0, 0.0, 0.0), ServerTimings()), now=now)
            case "late":
                session.on_message(messages.Late(frames - 1, Load(3, 0.1, 0.1)), now=now)
            case "busy":
                session.on_message(messages.Busy(frames - 1, 0.05), now=now)
            case "invalid":
                session.on_message(messages.Invalid(frames - 1, 0, ""), now=now)
            case "drain":
                session.on_message(messages.Drain(1.0), now=now)
            case "ack":
                session.on_message(messages.Ack(frames - 1, 0), now=now)
            case "wait":
                pass_time(0.03)
            case "long wait":
                pass_time(1.0)
            case Struct():
                session.on_message(event, now=now)
        drain()
    pass_time(1.0)
    assert answered == Counter(range(frames))
    assert forgotten == answered
