"""One target, searched by atheris for so many seconds: `python tests/fuzz/hunt.py NAME SECONDS FOLDER`.

A process of its own: a native crash is then a finding too. What was found lies in FOLDER as `crash-…`; what was learnt,
as its corpus, so that a second run goes on from there.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
from fuzz.targets import TARGETS

LONGEST_RUN_S = 10
"""An input that takes longer is a finding."""
MEMORY_MB = 4096


def main(name: str, duration_s: int, folder: Path) -> None:
    """Search until the time is up; ends with another code than 0 when something was found."""
    target = TARGETS[name]
    tempfile.tempdir = str(folder)  # a process that ends by a crash cleans nothing up
    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    # What the seeds need is imported now, and watched from then on.
    with atheris.instrument_imports(include=["isthmus"]):
        for number, seed in enumerate(target.seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
            target.run(seed)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limits = [f"-max_total_time={duration_s}", f"-timeout={LONGEST_RUN_S}", f"-rss_limit_mb={MEMORY_MB}"]
    options = [
        f"-max_len={target.longest_bytes}",
        f"-artifact_prefix={folder / name}-",
        "-print_final_stats=1",
        "-seed=1",
    ]
    atheris.Setup([sys.argv[0], *limits, *options, str(corpus)], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
