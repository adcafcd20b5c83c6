"""What is offered of a folder, in virtual time: copies half done, reloads, names that clash, folders that go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isthmus.edge_server.repository.catalogue import SETTLE_S, Catalogue, Check, Offer, Say, Withdraw
from isthmus.edge_server.repository.folder import Stamp, version_of
from isthmus.edge_server.streams import Served


class World:
    """A catalogue over a folder that a test changes. `whole` says which content can be served."""

    def __init__(self, served: Served) -> None:
        self.catalogue, self.folder, self.now = Catalogue(), dict[str, tuple[str, int]](), 0.0
        self._served = served
        self.offered: list[int] = []
        self.lines: list[str] = []
        self.checks: list[str] = []
        self.look(again=True)

    def served(self, place: str, content: tuple[str, int]) -> Served | str:
        name, number = content
        if number < 0:
            return f"{place}/tail.onnx: missing; fetch the bundle again"
        return replace(self._served, name=name, sha256=bytes([number]) * 32, version=version_of(place))

    def put(self, place: str, name: str, number: int) -> None:
        """A bundle of this name and hash in the place; a negative number: one that is not whole."""
        self.folder[place] = (name, number)

    def stamp(self, place: str) -> Stamp:
        return (self.folder[place],)

    def look(self, *, again: bool = False) -> None:
        self.catalogue.look({place: self.stamp(place) for place in self.folder}, now=self.now, again=again)
        while actions := self.catalogue.actions():
            for action in actions:
                match action:
                    case Check(place, stamp):
                        self.checks.append(place)
                        ((name, number),) = stamp
                        self.catalogue.on_checked(place, stamp, self.served(place, (str(name), int(number))))
                    case Offer(served):
                        self.offered.append(served.sha256[0])
                    case Withdraw(sha256):
                        self.offered.remove(sha256[0])
                    case Say(line):
                        self.lines.append(line)

    def run(self, seconds: float) -> World:
        """Look every second."""
        for _ in range(round(seconds)):
            self.now += 1.0
            self.look()
        return self


@pytest.fixture
def world(served: Served) -> World:
    return World(served)


def test_what_is_there_at_the_start_is_served_at_once(served: Served) -> None:
    world = World(served)
    world.put("signs", "signs", 1)
    world.put("birds/2", "birds", 2)
    world.look(again=True)
    assert sorted(world.offered) == [1, 2]
    assert sorted(world.lines) == [
        "birds 2 (020202020202…): served",
        "signs (010101010101…): served",
    ]


def test_what_comes_is_served_once_it_is_left_alone(world: World) -> None:
    world.put("signs", "signs", 1)
    world.run(1)
    assert world.checks == []
    world.run(SETTLE_S)
    assert world.offered == [1]


def test_a_bundle_that_is_being_copied_is_not_looked_at(world: World) -> None:
    """It changes with every look; a damaged bundle would be said each time."""
    for number in (-1, -2, -3, -4, -5, 6):
        world.put("signs", "signs", number)
        world.run(1)
    assert (world.checks, world.lines) == ([], [])
    world.run(SETTLE_S)
    assert world.offered == [6]


def test_a_copy_that_pauses_is_said_once_and_served_when_it_is_whole(world: World) -> None:
    world.put("signs", "signs", -1)
    world.run(60)
    assert world.checks == ["signs"]
    assert world.lines == ["signs: not served: signs/tail.onnx: missing; fetch the bundle again"]
    assert world.catalogue.faults == {"signs": "signs/tail.onnx: missing; fetch the bundle again"}
    world.put("signs", "signs", 1)
    world.run(3)
    assert world.offered == [1]
    assert world.catalogue.faults == {}


def test_a_reload_takes_the_place_of_what_was_there(world: World) -> None:
    world.put("signs", "signs", 1)
    world.run(3)
    world.put("signs", "signs", 2)
    world.run(3)
    assert world.offered == [2]
    assert world.lines[-1] == "signs (020202020202…): served in the place of signs (010101010101…)"


def test_a_reload_that_fails_keeps_the_old_one(world: World) -> None:
    world.put("signs", "signs", 1)
    world.run(3)
    world.put("signs", "signs", -1)
    world.run(60)
    assert world.offered == [1]
    assert world.lines[1:] == [
        "signs: not served: signs/tail.onnx: missing; fetch the bundle again; signs (010101010101…) stays"
    ]
    assert list(world.catalogue.faults) == ["signs"]
    world.put("signs", "signs", 1)
    world.run(3)
    assert (world.offered, world.catalogue.faults) == ([1], {})


def test_two_of_one_name_and_version_are_refused_and_the_first_stays(world: World) -> None:
    world.put("first", "signs", 1)
    world.run(3)
    world.put("second", "signs", 2)
    world.run(3)
    assert world.offered == [1]
    assert world.lines[-1] == (
        "second: not served: signs (020202020202…), of no version, has the name and version of signs (010101010101…) in "
        "first, which stays; put each version into a folder of its own, NAME/VERSION"
    )
    world.run(60)
    assert len(world.lines) == 2


def test_the_second_is_served_when_the_first_is_gone(world: World) -> None:
    world.put("a/1", "signs", 1)
    world.run(3)
    world.put("b/1", "signs", 2)
    world.run(3)
    assert world.offered == [1]
    del world.folder["a/1"]
    world.run(4)
    assert world.offered == [2]
    assert world.catalogue.faults == {}


def test_versions_live_side_by_side(world: World) -> None:
    world.put("signs", "signs", 1)
    world.put("signs/2", "signs", 2)
    world.put("signs/3", "signs", 3)
    world.run(3)
    assert sorted(world.offered) == [1, 2, 3]


def test_one_bundle_in_two_places_is_served_once_and_as_long_as_it_is_in_one(world: World) -> None:
    world.put("a", "signs", 1)
    world.put("b", "signs", 1)
    world.run(3)
    assert world.offered == [1]
    del world.folder["a"]
    world.run(4)
    assert world.offered == [1]
    del world.folder["b"]
    world.run(4)
    assert world.offered == []


def test_a_folder_that_is_gone_for_a_moment_takes_nothing_with_it(world: World) -> None:
    """`mv old aside; mv new place` leaves a gap."""
    world.put("signs", "signs", 1)
    world.run(3)
    del world.folder["signs"]
    world.run(1)
    world.put("signs", "signs", 2)
    world.run(3)
    assert world.offered == [2]
    del world.folder["signs"]
    world.run(3)
    assert world.offered == []
    assert world.lines[-1] == "signs (020202020202…): its folder is gone; devices that have it keep it"


def test_a_hangup_tries_again_what_has_failed(world: World) -> None:
    """What was wrong may have been the server's: a full disk for its copies, a library."""
    world.put("signs", "signs", -1)
    world.run(10)
    assert world.checks == ["signs"]
    world.look(again=True)
    assert world.checks == ["signs", "signs"]


def test_a_place_that_changes_while_it_is_checked_is_checked_again(world: World) -> None:
    world.catalogue.look({"signs": (("signs", 1),)}, now=0.0, again=True)
    (check,) = world.catalogue.actions()
    world.catalogue.look({"signs": (("signs", 2),)}, now=1.0)
    world.catalogue.look({"signs": (("signs", 2),)}, now=9.0)
    assert world.catalogue.actions() == [], "one check at a time"
    assert isinstance(check, Check)
    world.catalogue.on_checked("signs", check.stamp, "signs: damaged")
    world.catalogue.look({"signs": (("signs", 2),)}, now=10.0)
    assert [action for action in world.catalogue.actions() if isinstance(action, Check)] == [
        Check("signs", (("signs", 2),))
    ]
