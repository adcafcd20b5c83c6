"""Answers in Python: run `isthmus serve --config examples/server.toml` first, or see the device answer alone.

python examples/answers.py [agent.toml] [frames]
"""

import sys
from itertools import islice
from pathlib import Path

from isthmus.device.agent import Agent

config = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("agent.toml")
frames = int(sys.argv[2]) if len(sys.argv) > 2 else 100

for answer in islice(Agent.open(config).answers(), frames):
    print(f"{answer.picture}: {answer.answer} ({answer.confidence:.0%}) from {answer.source}, {answer.latency_s:.3f} s")
