"""How often each thing came into view: a counter, told by a function that is called with every answer.

python examples/counter.py [source] [frames]
"""

import sys
from collections import Counter

from isthmus.device.agent import Agent
from isthmus.device.config import AgentConfig
from isthmus.device.output.presence import Presence
from isthmus.proto.record import FrameRecord

source = sys.argv[1] if len(sys.argv) > 1 else "generated:3"
frames = int(sys.argv[2]) if len(sys.argv) > 2 else 300
came: Counter[int] = Counter()
in_view = Presence()  # answers flicker; what is away for two seconds has gone


def count(answer: FrameRecord) -> None:
    in_view.step(answer.answered_s)
    came.update(change.label for change in in_view.answered(answer))


with Agent.open(AgentConfig(bundle="signs", fps=15, frames=frames)) as agent:
    agent.run(count, source)
    for label, times in came.most_common():
        print(f"{agent.name_of(label)}: {times}")
