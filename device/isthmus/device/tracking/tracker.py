"""The tracker of one stream: detections in as they come, late ones too; what is where in any recent frame out.

Sans-IO: whoever has the pictures follows places from one to another, when `asks` says so. Things are moved to every new
frame; a detection of an older one is first carried to the frame that things are in. Where things were in recent frames is
kept, so that a late answer to one of them is matched with what was there then.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from msgspec import Struct

from isthmus.device.actions import Follow
from isthmus.device.tracking.tracks import (
    Place,
    Scores,
    Thing,
    Tracks,
    between,
    boxes_of,
    carried,
    nearest,
    things_in,
)
from isthmus.proto.vocabulary import Frame, Guess

RECENT = 32
"""Frames that are remembered, and whose pictures the host keeps: a second at 30 a second, and 2.6 MB. What comes back
later than that is not carried on."""
STRIDE = 3
"""Where things must be followed over several frames, pictures between are left out: three frames at a time lose 2 points in
24 frames, and take a third of the time."""
MOST_STEPS, MOST_PASSING = 4, 4
"""Pictures that one job goes through at most, in longer steps if it must; and frames that may pass meanwhile: followers that
are slow take fewer steps, so that they do not fall behind for good."""
MOST_WAITING = 2
"""Detections that wait to be carried; when there are more, the oldest is let go: followers so slow must not fall behind."""


class _Found(Struct):
    """A detection: what was found in a frame, and in which frame its places are by now."""

    frame_id: int
    things: list[tuple[Place, Scores]]
    known: list[tuple[Thing, Place, Place, Scores]] = []
    """Those that were tracked in that frame: each with its thing's place there, and the one that was found."""
    unknown: list[tuple[Place, Scores]] = []
    """The others, which must be followed to now."""

    def know(self, then: dict[Thing, Place]) -> None:
        """Tell apart what was tracked in that frame, and where."""
        left, self.known, self.unknown = dict(then), [], []
        for place, scores in self.things:
            thing = nearest(place, left)
            if thing is None:
                self.unknown.append((place, scores))
            else:
                self.known.append((thing, left.pop(thing), place, scores))


class Tracker:
    """See above. Frames are known by their ids, which ascend."""

    def __init__(self) -> None:
        self._tracks = Tracks()
        self._at: int | None = None
        """The frame that things are in."""
        self._places: OrderedDict[int, dict[Thing, Place]] = OrderedDict()
        """Recent frames, with where things were in them; empty for those that things have not been moved to yet."""
        self._waiting: deque[_Found] = deque(maxlen=MOST_WAITING)
        self._asked: tuple[Follow, tuple[Thing, ...] | _Found] | None = None
        self._asked_at, self._passing = 0, 0.0
        """The newest frame when that was asked, and how many frames lately passed with every step."""
        self._empty_confidence: float | None = None
        """What a picture with nothing in it is answered with; None before any detection."""
        self.detected_s: float | None = None
        """When the newest picture was captured that a detection of is known."""

    @property
    def at(self) -> int | None:
        """The frame that things have been moved to; None before any."""
        return self._at

    @property
    def serving_s(self) -> float | None:
        """`detected_s` while anything is tracked; None where the next frame had better be looked at."""
        return self.detected_s if self._tracks.things else None

    def on_frame(self, frame: Frame) -> None:
        """A frame was captured."""
        self._places[frame.id] = {}
        if len(self._places) > RECENT:
            self._places.popitem(last=False)
        if not self._tracks.things and self._asked is None:
            self._at = frame.id

    def detected(self, frame: Frame, guess: Guess) -> Guess:
        """Somebody found something in a frame, or nothing; what it is together with what was known of that frame before.

        What is too old to be carried on is not taken up.
        """
        told = self._voted(frame.id, guess)
        boxes = guess.detail if isinstance(guess.detail, tuple) else ()
        if not boxes:
            self._empty_confidence = guess.confidence
        elif self._empty_confidence is None:
            self._empty_confidence = 0.0
        self.detected_s = max(frame.captured_s, self.detected_s or frame.captured_s)
        self._waiting.append(_Found(frame.id, things_in(boxes)))
        self._take_up()
        return told

    def asks(self) -> Follow | None:
        """What should be followed now; None while that is under way, or all is done. Ask after every event."""
        if self._asked is not None:
            return None
        self._take_up()
        newest = next(reversed(self._places), None)
        if self._at is None or newest is None:
            return None
        if self._at not in self._places:  # its picture is gone: nobody knows what became of things since
            self._tracks.things.clear()
            self._at = newest
        if self._waiting and (found := self._waiting[0]).frame_id < self._at:
            self._asked = self._follow(found.frame_id, self._at, tuple(p for p, _ in found.unknown)), found
        elif self._tracks.things and newest > self._at:
            until = min(newest, self._waiting[0].frame_id) if self._waiting else newest
            self._asked = self._follow(self._at, until, self._tracks.places), tuple(self._tracks.things)
        self._asked_at = newest
        return self._asked[0] if self._asked is not None else None

    def on_followed(self, places: tuple[Place | None, ...]) -> None:
        """Where the places last asked for are, None for one that was lost."""
        assert self._asked is not None, "nothing was asked"
        (follow, of), self._asked = self._asked, None
        passed = sum(frame_id > self._asked_at for frame_id in self._places)
        self._passing = passed / (len(follow.frame_ids) - 1)
        if isinstance(of, _Found):
            if of in self._waiting:
                self._waiting.remove(of)
            moved = zip(places, of.unknown, strict=True)
            self._detect_late(of, [(place, scores) for place, (_, scores) in moved if place is not None])
        else:
            self._pass_by(follow.frame_ids, dict(zip(of, places, strict=True)))
            self._arrive(follow.frame_ids[-1])
        self._take_up()

    def guess(self, frame_id: int) -> Guess | None:
        """What is in a recent frame, for all that is known now; None before any detection."""
        if self._empty_confidence is None:
            return None
        then = self._places.get(frame_id, {})
        ahead = sum((self._at or 0) < other <= frame_id for other in self._places)
        things = self._tracks.things
        return self._told([(then.get(thing) or thing.place_in(ahead), thing.scores) for thing in things])

    def _voted(self, frame_id: int, guess: Guess) -> Guess:
        """A detection of a recent frame that is not known yet, with each thing called what its track and it say together.

        What is tracked and was not detected this time is told all the same, less surely.
        """
        if not isinstance(guess.detail, tuple):
            return guess
        ahead = sum((self._at or 0) < other <= frame_id for other in self._places)
        then = self._places.get(frame_id) or {thing: thing.place_in(ahead) for thing in self._tracks.things}
        told, left = (
            list[tuple[Place, Scores]](),
            {thing: then[thing] for thing in self._tracks.things if thing in then},
        )
        for place, scores in things_in(guess.detail):
            thing = nearest(place, left)
            before = left.pop(thing) if thing is not None else place
            if thing is None:
                told.append((place, scores))
            else:
                told.append((thing.steadied(place, before), thing.with_word(scores)))
        return self._told(told + [(place, thing.with_word({})) for thing, place in left.items()])

    def _told(self, things: list[tuple[Place, Scores]]) -> Guess:
        boxes = boxes_of(things)
        return Guess(boxes[0].label, boxes[0].score, boxes) if boxes else Guess(0, self._empty_confidence or 0.0, ())

    def _follow(self, first: int, last: int, places: tuple[Place, ...]) -> Follow:
        """The job of following places between two frames that are remembered, through some of those between."""
        between = [frame_id for frame_id in self._places if first <= frame_id < last]
        steps = max(1, min(MOST_STEPS, int(MOST_PASSING / max(self._passing, 1.0))))
        stride = max(STRIDE, -(-len(between) // steps))
        return Follow((*between[::stride], last), places)

    def _pass_by(self, frame_ids: tuple[int, ...], moved: dict[Thing, Place | None]) -> None:
        """Move things, and remember where they were in the frames passed by: on their way, at a steady pace."""
        passed = [frame_id for frame_id in self._places if frame_ids[0] < frame_id <= frame_ids[-1]]
        for n, frame_id in enumerate(passed[:-1], start=1):
            on_the_way = {
                thing: between(thing.place, place, n / len(passed))
                for thing, place in moved.items()
                if place is not None and thing in self._tracks.things
            }
            self._places[frame_id] = on_the_way
        self._tracks.move(moved, max(1, len(passed)))

    def _take_up(self) -> None:
        """The detections that nothing needs to be followed for; what is too old is forgotten."""
        while self._waiting and self._asked is None:
            found = self._waiting[0]
            known = found.frame_id in self._places
            if known and found.things and not self._tracks.things:
                self._at = found.frame_id
            if known and found.things and found.frame_id != self._at:
                if self._at is None or found.frame_id > self._at:
                    return
                found.know(self._places[found.frame_id])
                if found.unknown:
                    return
            self._waiting.popleft()
            if known and found.frame_id == self._at:
                self._detect(found.frame_id, found.things)
            elif known:
                self._detect_late(found, [])

    def _detect_late(self, found: _Found, followed: list[tuple[Place, Scores]]) -> None:
        """Take up a detection of an earlier frame: what is tracked went the way of its thing, the rest was `followed`."""
        alive = set(self._tracks.things)
        known = [(carried(p, then, thing.place), scores) for thing, then, p, scores in found.known if thing in alive]
        self._detect(found.frame_id, known + followed)

    def _detect(self, frame_id: int, things: list[tuple[Place, Scores]]) -> None:
        self._tracks.detect(things, frame_id)
        if self._at is not None:
            self._arrive(self._at)

    def _arrive(self, frame_id: int) -> None:
        self._at = frame_id
        if frame_id in self._places:
            self._places[frame_id] = {thing: thing.place for thing in self._tracks.things}
