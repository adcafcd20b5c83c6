"""What is where, and what it is: things born of detections, moved between them, kept for a while, dropped. Pure.

Boxes in one place are one thing, whatever classes they were given; a thing's scores by class are averaged along its track,
so that it is called what it was called most and most surely. A detection that does not confirm a track counts as one that
gave it no score at all: what was seen once by mistake fades by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from isthmus.proto.vocabulary import Box

Scores = dict[int, float]
"""Scores by class."""


class Place(NamedTuple):
    """Edges of a box in shares of the picture's height and width; beyond 0 and 1 where it is cut off."""

    top: float
    left: float
    bottom: float
    right: float


SAME_THING = 0.3
"""Boxes of two times that overlap so much (intersection over union) are of one thing: small ones are out by a third of
their size as it is."""
SAME_PLACE = 0.5
"""Boxes of one detection that overlap so much are of one thing, as in non-maximum suppression."""
MEMORY = 30
"""A track's scores are the mean over its detections; after so many, the oldest begin to fade."""
STEADY = 8
"""A track's place is the mean over so many of its last detections, each carried to now: a small thing's box is out by more
than flow goes astray meanwhile."""
LEAST_SCORE = 0.05
"""A track whose best class is believed less is dropped; a detector's boxes begin about here."""
MOST_MISSED = 4
"""A track that so many detections in a row have not confirmed is gone, however sure it was."""
FORESEEN = 8
"""Frames that a thing is expected to go on as it went, where following it takes longer than frames take to come."""
MOST_THINGS = 32
"""The surest are kept: no small device follows more in time."""


class Thing:
    """One track."""

    def __init__(self, place: Place, scores: Scores, frame_id: int) -> None:
        self.place, self.scores = place, scores
        self.seen, self.missed = 1, 0
        self.placed = 1
        """The detections that its place is the mean of."""
        self.velocity = 0.0, 0.0
        """How far it lately went down and to the right from one frame to the next."""
        self.born_at = frame_id
        """The frame of its first detection: only those of it and later ones can miss it."""

    def place_in(self, frames: int) -> Place:
        """Where it will be so many frames on, if it goes on as it went."""
        down, right = (v * min(frames, FORESEEN) for v in self.velocity)
        top, left, bottom, right_ = self.place
        return Place(top + down, left + right, bottom + down, right_ + right)

    @property
    def score(self) -> float:
        """That of its best class."""
        return max(self.scores.values())

    def with_word(self, scores: Scores) -> Scores:
        """What its scores are together with those of one more detection."""
        weight = 1 / min(self.seen + 1, MEMORY)
        return {
            label: (1 - weight) * self.scores.get(label, 0.0) + weight * scores.get(label, 0.0)
            for label in sorted(self.scores.keys() | scores.keys())
        }

    def judged(self, scores: Scores) -> None:
        """One detection's word on what it is; no scores where that did not see it."""
        self.scores = self.with_word(scores)
        self.seen, self.missed = self.seen + 1, 0 if scores else self.missed + 1

    def steadied(self, place: Place, before: Place) -> Place:
        """One more detection's place together with those before it, whose mean was carried to `before`."""
        return between(before, place, 1 / min(self.placed + 1, STEADY))

    def seen_at(self, place: Place, frame_id: int) -> None:
        """One detection's word on where it is, carried to the picture that it is in."""
        self.place = self.steadied(place, self.place)
        self.placed, self.born_at = self.placed + 1, min(self.born_at, frame_id)


class Tracks:
    """All things in view, in the picture that they were last moved to."""

    def __init__(self) -> None:
        self.things: list[Thing] = []

    @property
    def places(self) -> tuple[Place, ...]:
        """Where they are."""
        return tuple(thing.place for thing in self.things)

    def move(self, moved: Mapping[Thing, Place | None], frames: int = 1) -> None:
        """So many frames on: where things are there; one that was lost is dropped, one not named stays where it was."""
        for thing in self.things:
            if (place := moved.get(thing)) is not None:
                down = place.top + place.bottom - thing.place.top - thing.place.bottom
                right = place.left + place.right - thing.place.left - thing.place.right
                thing.place, thing.velocity = place, (down / 2 / frames, right / 2 / frames)
        self.things = [thing for thing in self.things if moved.get(thing, thing.place) is not None]

    def detect(self, found: Sequence[tuple[Place, Scores]], frame_id: int) -> None:
        """What a detector found in frame `frame_id`, its places carried to the picture that things are in, surest first.

        It has a word on all that were in view by then: a late one, too, may say that something was not there.
        """
        left = list(self.things)
        for place, scores in found:
            thing = nearest(place, {t: t.place for t in left})
            if thing is None:
                self.things.append(Thing(place, scores, frame_id))
                continue
            left.remove(thing)
            thing.seen_at(place, frame_id)
            thing.judged(scores)
        for thing in left:
            if frame_id >= thing.born_at:
                thing.judged({})
        kept = [t for t in self.things if t.score >= LEAST_SCORE and t.missed < MOST_MISSED]
        self.things = sorted(kept, key=lambda t: -t.score)[:MOST_THINGS]


def between(a: Place, b: Place, share: float) -> Place:
    """The place so far on the way from `a` to `b`."""
    return Place(*(old + share * (new - old) for old, new in zip(a, b, strict=True)))


def carried(place: Place, then: Place, now: Place) -> Place:
    """Where `place` is by now, if it is of the thing that was at `then` and is at `now`: moved and grown with it."""
    grown = [(now[k + 2] - now[k]) / max(then[k + 2] - then[k], 1e-6) for k in (0, 1)]
    top, left, bottom, right = (now[k] + (place[k] - then[k]) * grown[k % 2] for k in range(4))
    return Place(top, left, bottom, right)


def nearest(place: Place, places: Mapping[Thing, Place]) -> Thing | None:
    """The thing that overlaps a place most; None where none is there."""
    thing = max(places, key=lambda t: overlap(places[t], place), default=None)
    return thing if thing is not None and overlap(places[thing], place) >= SAME_THING else None


def things_in(boxes: Sequence[Box]) -> list[tuple[Place, Scores]]:
    """Boxes of whatever class that lie in one place, as one: the surest one's place, the best score of each class."""
    found: list[tuple[Place, Scores]] = []
    for box in boxes:
        place = Place(box.top, box.left, box.bottom, box.right)
        for other, scores in found:
            if overlap(other, place) >= SAME_PLACE:
                scores[box.label] = max(scores.get(box.label, 0.0), box.score)
                break
        else:
            found.append((place, {box.label: box.score}))
    return found


def boxes_of(things: Sequence[tuple[Place, Scores]]) -> tuple[Box, ...]:
    """Things as a detector would tell them: a box for each class that is believed, within the picture, surest first."""
    found = [
        Box(label, score, *(min(max(edge, 0.0), 1.0) for edge in place))
        for place, scores in things
        for label, score in scores.items()
        if score >= LEAST_SCORE
    ]
    return tuple(sorted(found, key=lambda box: -box.score))


def overlap(a: Place, b: Place) -> float:
    """Intersection over union, 0 to 1."""
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    width = min(a.right, b.right) - max(a.left, b.left)
    shared = max(0.0, height) * max(0.0, width)
    both = (a.bottom - a.top) * (a.right - a.left) + (b.bottom - b.top) * (b.right - b.left) - shared
    return shared / both if both > 0 else 0.0
