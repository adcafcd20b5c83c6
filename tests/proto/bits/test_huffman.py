"""The static code: lengths that are complete and short enough, and bodies that any deflate reads."""

from __future__ import annotations

import zlib

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.proto.bits.huffman import StaticCode, block_header, code_lengths


@settings(suppress_health_check=list(HealthCheck))  # 256 numbers are many for older versions of hypothesis
@given(st.lists(st.floats(0, 1e9), min_size=256, max_size=256).filter(lambda w: sum(x > 0 for x in w) > 0))
def test_lengths_form_a_complete_code_with_room_for_the_end_of_block(weights: list[float]) -> None:
    lengths = code_lengths(np.array(weights))
    room = 2**15 - sum(2 ** (15 - length) for length in lengths if length)
    assert [length > 0 for length in lengths] == [w > 0 for w in weights]
    assert max(lengths) <= 15
    assert room > 0
    assert room & (room - 1) == 0


def test_steep_weights_are_limited_to_fifteen_bits() -> None:
    lengths = code_lengths(np.array([1.7**i for i in range(256)]))
    assert max(lengths) == 15
    assert lengths[255] == min(lengths) <= 2


def test_a_body_behind_its_block_header_is_plain_deflate() -> None:
    lengths = code_lengths(np.arange(1.0, 257))
    code = StaticCode((lengths, lengths), (256, 256))
    bodies = code.encode((bytes(range(256)), bytes(range(255, -1, -1))))
    room = 2**15 - sum(2 ** (15 - length) for length in lengths)
    header = block_header([*lengths, 16 - room.bit_length()])
    assert len(header) == 142
    for body, expected in zip(bodies, (bytes(range(256)), bytes(range(255, -1, -1))), strict=True):
        assert zlib.decompressobj(-15).decompress(header + body)[:256] == expected
    assert code.decode(1, bodies[1], 256)[:256] == bytes(range(255, -1, -1))
