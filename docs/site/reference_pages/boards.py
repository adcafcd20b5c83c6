"""The page of boards: what others published, what is expected of the shipped heads there, and where each number is from."""

from __future__ import annotations

from isthmus.models import bundle, profiles, work
from isthmus.models.profiles import Profile
from reference_pages.structs import prose, table

HEAD = """# Boards

Everything here is read from the profiles that ship ([what is in one](../profiles.md#what-is-in-it)). Nothing of it was measured
for this project. What was: [hardware](../hardware.md).

"""
EXPECTED = """## Expected of the shipped heads

Milliseconds for the whole head, narrowest to widest, on one thread, as the profile predicts them. How far that is off
stands in the last column: the median and the worst network that was left out of the fit. Profiles of GPUs are for comparison:
on a device, Isthmus runs on the CPU.

"""
PUBLISHED = """## Published

Milliseconds a picture, on all threads and on one, as their source gives them.

"""


def page() -> str:
    """The whole page: expectations, what was published, sources board by board."""
    boards = [one for name in profiles.names() if (one := profiles.load(name)).kind == "device"]
    return HEAD + EXPECTED + _expected(boards) + "\n" + PUBLISHED + _published(boards) + "\n" + _sources(boards)


def _expected(boards: list[Profile]) -> str:
    names = sorted(path.parent.name for path in bundle.ZOO.glob("*/bundle.toml"))
    heads = [bundle.load(name, half="head") for name in names]
    rows = [(f"`{board.name}`", *(_head_ms(board, head) for head in heads), _off(board)) for board in boards]
    return table(("profile", *(f"`{name}`" for name in names), "off by"), rows)


def _head_ms(board: Profile, head: bundle.Bundle) -> str:
    stages = work.stage_times(board, head, threads="one")
    whole = [1e3 * sum(stage[width] for stage in stages) for width in range(len(stages[0]))]
    return f"{whole[0]:.1f} to {whole[-1]:.1f}"


def _off(board: Profile) -> str:
    rates = next((rate for rate in board.rates if rate.threads == "one"), board.rates[0])
    return f"{100 * rates.left_out_median:.0f} %, {100 * rates.left_out_worst:.0f} %"


def _published(boards: list[Profile]) -> str:
    workloads = list(dict.fromkeys(timing.workload for board in boards for timing in board.timings))
    rows = [(f"`{board.name}`", *(_timing(board, workload) for workload in workloads)) for board in boards]
    return table(("profile", *workloads), rows)


def _timing(board: Profile, workload: str) -> str:
    shown = [
        f"{1e3 * timing.seconds:.0f}"
        for threads in ("all", "one")
        for timing in board.timings
        if (timing.workload, timing.threads, timing.int8, timing.confidence) == (workload, threads, False, "published")
    ]
    return " / ".join(shown)


def _sources(boards: list[Profile]) -> str:
    parts = []
    for board in boards:
        lines = "".join(f"- *{name}*: {prose(said)}\n" for name, said in board.sources.items())
        parts.append(f"## {board.name}\n\n{prose(board.title)}. Where its numbers are from:\n\n{lines}\n")
    return "".join(parts)
