from __future__ import annotations

import pytest
from msgspec.structs import replace

from isthmus.edge_server.assembly import Accepted, Assembled, Assembly, Damaged
from isthmus.proto import codec
from isthmus.proto.codec import checksum
from isthmus.proto.messages import Layer

BASE, FINE = b"base", b"refinement"
LEAD_S = 0.010


def layer(frame_id: int, index: int, payload: bytes, *, last: bool = False, budget_s: float = 0.1) -> Layer:
    return Layer(frame_id, index, last, budget_s, payload, checksum(payload))


def damaged(whole: Layer) -> Layer:
    return replace(whole, payload=whole.payload[:-1] + b"\x00")


def arrive(assembly: Assembly, message: Layer, *, now: float = 0.0) -> list[Accepted | Damaged | Assembled]:
    assembly.on_layer(1, message, due_s=now + message.budget_s, lead_s=LEAD_S, now=now)
    return assembly.actions()


def test_a_frame_is_handed_over_with_its_last_layer() -> None:
    assembly = Assembly(codec.LAYERS)
    assert arrive(assembly, layer(7, 0, BASE)) == [Accepted(1, 7, 0)]
    assert assembly.due_at == pytest.approx(0.09)
    handed = arrive(assembly, layer(7, 1, FINE, last=True, budget_s=0.08), now=0.025)
    assert handed == [Accepted(1, 7, 1), Assembled(1, 7, 0.1, 0.0, (BASE, FINE))]
    assert assembly.idle


def test_a_single_layer_is_a_frame() -> None:
    assert arrive(Assembly(codec.LAYERS), layer(7, 0, BASE, last=True))[1:] == [Assembled(1, 7, 0.1, 0.0, (BASE,))]


def test_when_the_deadline_says_so_it_starts_on_what_is_there() -> None:
    assembly = Assembly(codec.LAYERS)
    arrive(assembly, layer(7, 0, BASE))
    arrive(assembly, layer(8, 0, BASE, budget_s=0.05))
    assert assembly.due_at == pytest.approx(0.04)
    assembly.step(0.03)
    assert assembly.actions() == []
    assembly.step(0.04)
    assert assembly.actions() == [Assembled(1, 8, 0.05, 0.0, (BASE,))]
    assert assembly.due_at == pytest.approx(0.09)
    assert arrive(assembly, layer(8, 1, FINE, last=True), now=0.041) == [Accepted(1, 8, 1)], "acknowledged, of no use"


def test_the_tightest_of_the_layers_budgets_counts() -> None:
    assembly = Assembly(codec.LAYERS)
    arrive(assembly, layer(7, 0, BASE, budget_s=0.1))
    handed = arrive(assembly, layer(7, 1, FINE, last=True, budget_s=0.05), now=0.02)
    assert handed[-1] == Assembled(1, 7, 0.07, 0.0, (BASE, FINE))


def test_a_damaged_refinement_costs_only_itself() -> None:
    assembly = Assembly(codec.LAYERS)
    arrive(assembly, layer(7, 0, BASE))
    lost, frame = arrive(assembly, damaged(layer(7, 1, FINE)))
    assert isinstance(lost, Damaged)
    assert (lost.frame_id, lost.layer) == (7, 1)
    assert "checksum" in lost.why
    assert frame == Assembled(1, 7, 0.1, 0.0, (BASE,))


def test_without_its_base_there_is_no_frame() -> None:
    assembly = Assembly(codec.LAYERS)
    (lost,) = arrive(assembly, damaged(layer(7, 0, BASE)))
    assert isinstance(lost, Damaged)
    assert lost.layer == 0
    assert arrive(assembly, layer(7, 1, FINE, last=True)) == [Accepted(1, 7, 1)]
    assert assembly.idle


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"tail": 3}, "tail 3"),
        ({"reference": 5}, "coded against frame 5"),
        ({"layer": 1}, "expected layer 0"),
        ({"crc": 1}, "the layer says 00000001"),
    ],
)
def test_what_cannot_be_decoded_is_named(wrong: dict[str, int], why: str) -> None:
    (lost,) = arrive(Assembly(codec.LAYERS), replace(layer(7, 0, BASE), **wrong))
    assert isinstance(lost, Damaged)
    assert why in lost.why


def test_streams_do_not_mix() -> None:
    assembly = Assembly(codec.LAYERS)
    for stream in (1, 2):
        message = layer(7, 0, BASE)
        assembly.on_layer(stream, message, due_s=message.budget_s, lead_s=LEAD_S, now=0.0)
    assert (assembly.count(1), assembly.count(2)) == (1, 1)
    assembly.forget(1)
    assert not assembly.knows(1, 7)
    assert assembly.knows(2, 7)


def test_a_closed_frame_is_not_handed_over() -> None:
    assembly = Assembly(codec.LAYERS)
    arrive(assembly, layer(7, 0, BASE))
    assembly.close(1, 7)
    assert assembly.due_at is None
    assert arrive(assembly, layer(7, 1, FINE, last=True)) == [Accepted(1, 7, 1)]
