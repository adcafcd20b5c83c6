"""A robot that must act every 50 ms, with the best answer that there is by then, and that notices when there is none.

python examples/robot.py [steps] [HOST:PORT of an edge server]
"""

import sys
import time

from isthmus.device.agent import Agent
from isthmus.device.config import AgentConfig
from isthmus.models.scenes import Drive

PERIOD_S, THINKING_S = 0.05, 0.04  # what is left is for the motors

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
server = sys.argv[2] if len(sys.argv) > 2 else None
road = Drive(3)  # instead of a camera
config = AgentConfig(bundle="signs", deadline_s=THINKING_S, server=server, insecure=server is not None)
blind = late = 0

with Agent.open(config) as agent:
    agent.answer(road.frame(0).image)  # the first one starts it
    tick = time.monotonic()
    for step in range(steps):
        answer = agent.answer(road.frame(step).image)
        blind += answer.source == "none"
        print(
            f"{step}: {'slow down' if answer.answer in (None, 'stop', 'yield') else 'drive'} ({answer.answer}, {answer.source})"
        )
        tick += PERIOD_S
        late += time.monotonic() > tick
        time.sleep(max(0.0, tick - time.monotonic()))
print(f"{steps} steps, {late} late, {blind} without an answer")
