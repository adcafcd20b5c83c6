"""`isthmus models evaluate`, interrupted: what was answered by then counts."""

from __future__ import annotations

import pytest

from isthmus.cli.models.evaluate import interruptible


def test_what_was_done_before_an_interruption_counts(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[int] = []
    with interruptible(done) as interruption:
        for n in range(9):
            if n == 3:
                raise KeyboardInterrupt
            done.append(n)
    assert interruption.happened
    assert "interrupted: these are the figures of the first 3 pictures" in capsys.readouterr().err


def test_an_interruption_before_anything_was_done_ends_the_command() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible([]):
        raise KeyboardInterrupt


def test_without_one_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with interruptible([1]) as interruption:
        pass
    assert (interruption.happened, capsys.readouterr().err) == (False, "")
