"""The tracker of one stream: detections in as they come, late ones too; what is where in any recent frame out.

Sans-IO: whoever has the pictures follows places from one to another, when `asks` says so. Things are moved to every new
frame; a detection of an older one is first carried to the frame that things are in. Where things were in recent frames is
kept, so that a late answer to one of them is matched with what was there then.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from msgspec import Struct

from isthmus.device.actions import Follow
from isthmus.device.tracking.tracks import Place, Scores, Thing, Tracks, boxes_of, nearest, things_in
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
            self._asked = self._follow(found.frame_id, self._at, tuple(p for p, _ in found.things)), found
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
            moved = zip(places, of.things, strict=True)
            self._detect(of.frame_id, [(place, scores) for place, (_, scores) in moved if place is not None])
        else:
            frames = sum(follow.frame_ids[0] < frame_id <= follow.frame_ids[-1] for frame_id in self._places)
            self._tracks.move(dict(zip(of, places, strict=True)), max(1, frames))
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
            if thing is not None:
                del left[thing]
            told.append((place, scores if thing is None else thing.with_word(scores)))
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

    def _take_up(self) -> None:
        """The detections that nothing needs to be followed for; what is too old is forgotten."""
        while self._waiting and self._asked is None:
            found = self._waiting[0]
            known = found.frame_id in self._places
            if known and found.things and not self._tracks.things:
                self._at = found.frame_id
            if known and found.things and found.frame_id != self._at:
                return
            self._waiting.popleft()
            if known:
                self._detect(found.frame_id, found.things)

    def _detect(self, frame_id: int, things: list[tuple[Place, Scores]]) -> None:
        self._tracks.detect(things, frame_id)
        if self._at is not None:
            self._arrive(self._at)

    def _arrive(self, frame_id: int) -> None:
        self._at = frame_id
        if frame_id in self._places:
            self._places[frame_id] = {thing: thing.place for thing in self._tracks.things}
