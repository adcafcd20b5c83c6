"""The sink that counts every answer, knows whether the agent answers, and opens the port for Prometheus and for probes."""

from __future__ import annotations

import asyncio

from isthmus.device.monitoring.metrics import AgentMetrics
from isthmus.device.output.sinks import Inbox, Sink, Sinks
from isthmus.proto.monitoring.endpoint import Endpoint, Shown
from isthmus.proto.monitoring.vitals import Vitals

BEAT_S = 1.0
SILENT_S = 10.0
"""An agent that has answered nothing for so long is not ready, nor one that lacks three answers in a row."""


class Monitor(Sink):
    """One agent's."""

    name = "metrics"
    capacity = 4096
    pictures = False

    def __init__(self, metrics: AgentMetrics, address: str | None, *, period_s: float) -> None:
        """Without an `address` there is no port: whoever has the `metrics` shows them. An answer is due every `period_s`."""
        self.metrics, self._address = metrics, address
        self._patience_s = max(SILENT_S, 3 * period_s)
        self._vitals = Vitals()
        self._opened: Endpoint | None = None
        self._answered_s: float | None = None

    @property
    def port(self) -> int | None:
        """The port that was opened."""
        return None if self._opened is None else self._opened.port

    def beside(self, sinks: Sinks) -> None:
        """Look at what the others dropped, and into the session."""
        self.metrics.insight = sinks.insight
        self.metrics.dropped = lambda: sinks.dropped

    async def open(self) -> None:
        """Listen. Raises BindError."""
        if self._address is not None:
            self._opened = Endpoint(self._address, Shown(self._vitals, self.metrics.page))

    async def run(self, inbox: Inbox) -> None:
        """Count what comes, until the end."""
        loop = asyncio.get_running_loop()
        beating = asyncio.ensure_future(self._beat())
        try:
            async for answered in inbox:
                self.metrics.add(answered.row)
                self._answered_s = loop.time()
                self._vitals.ready()
        finally:
            beating.cancel()
            if self._opened is not None:
                self._opened.close()

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._look(loop.time())
            await asyncio.sleep(BEAT_S)

    def _look(self, now: float) -> None:
        self._vitals.beat(now)
        if self._answered_s is None:
            self._vitals.not_ready("nothing answered yet")
        elif now - self._answered_s > self._patience_s:
            self._vitals.not_ready(f"no answer for {now - self._answered_s:.0f} s")
