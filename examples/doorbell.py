"""Rings when somebody comes: a doorbell that has other things to do meanwhile, on an event loop.

python examples/doorbell.py [source] [what] [frames]
"""

import asyncio
import sys

from isthmus.device.agent import Agent
from isthmus.device.config import AgentConfig
from isthmus.device.output.presence import Presence

source = sys.argv[1] if len(sys.argv) > 1 else "generated:4"
awaited = sys.argv[2] if len(sys.argv) > 2 else "stop"
frames = int(sys.argv[3]) if len(sys.argv) > 3 else 300


async def watch(agent: Agent) -> None:
    in_view = Presence()
    async for answer in agent.answers(source):
        in_view.step(answer.answered_s)
        for change in in_view.answered(answer):
            if agent.name_of(change.label) == awaited:
                print(
                    f"ding dong: {awaited}, {answer.confidence:.0%} sure, {answer.latency_s * 1e3:.0f} ms after the picture"
                )


async def other_things() -> None:
    while True:
        await asyncio.sleep(5)
        print("still here")


async def main() -> None:
    with Agent.open(AgentConfig(bundle="signs", fps=15, frames=frames)) as agent:
        others = asyncio.create_task(other_things())
        await watch(agent)
        others.cancel()


asyncio.run(main())
