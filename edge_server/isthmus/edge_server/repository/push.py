"""The server's side of `isthmus models push`: who may, and one bundle at a time into the repository."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import NamedTuple

import grpc
import grpc.aio

from isthmus.edge_server import connections
from isthmus.edge_server.repository.arrival import PREFIX, Arrival
from isthmus.edge_server.repository.off_loop import off_loop
from isthmus.edge_server.repository.repository import Repository
from isthmus.edge_server.repository.scratch import sweep
from isthmus.edge_server.service import TAKES_NONE, Context, Messages
from isthmus.proto import edge_pb2
from isthmus.proto.errors import BundleError, DataError, IsthmusError, SecurityError, WireError
from isthmus.proto.printable import printable

log = logging.getLogger(__name__)

SILENCE_S = 10.0
"""A push of which nothing comes for so long is given up, as a device's stream is."""
STATUS = {
    SecurityError: grpc.StatusCode.PERMISSION_DENIED,
    WireError: grpc.StatusCode.INVALID_ARGUMENT,
    DataError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    BundleError: grpc.StatusCode.FAILED_PRECONDITION,
}
"""How each kind of error crosses; `isthmus models push` ends with its exit code."""


class MayPush(NamedTuple):
    """Who may push: the names of certificates, or anybody, where the server is reached from its own machine alone."""

    names: frozenset[str] = frozenset()
    anybody: bool = False

    def refusal(self, certificate: str | None, revoked: Collection[str]) -> str | None:
        """Why whoever has a certificate of this name (None: plaintext) may not; None: he may."""
        if self.anybody or (certificate in self.names and certificate not in revoked):
            return None
        if not self.names:
            return f"push: this server {TAKES_NONE}"
        name = printable(certificate or "")
        if certificate in revoked:
            return f"push: certificate '{name}' is revoked; push with another that --push-from names"
        return f"push: '{name}' may not; start the server with --push-from {name}, or push with a certificate that it names"


class Receiver:
    """Takes bundles into a repository."""

    def __init__(self, repository: Repository, may: MayPush, revoked: Callable[[], Collection[str]]) -> None:
        self._repository, self._may, self._revoked = repository, may, revoked
        self._taking = False
        sweep(repository.root, PREFIX)

    async def receive(self, messages: Messages, context: Context) -> edge_pb2.Pushed:
        """One push, from its first message to its answer."""
        certificate = connections.certificate_of(context)
        who = f"'{printable(certificate)}' at" if certificate else "from"
        who = f"push {who} {connections.name_of(context.peer())}"
        try:
            if (why := self._may.refusal(certificate, self._revoked())) is not None:
                raise SecurityError(why)
            pushed = await self._take(messages)
        except IsthmusError as error:
            log.warning("%s: refused: %s", who, error)
            await context.abort(STATUS.get(type(error), grpc.StatusCode.FAILED_PRECONDITION), str(error))
            raise AssertionError("abort raises") from error
        log.info("%s: %s %s %s", who, pushed.name, pushed.version, "was served already" if pushed.already else "taken")
        return pushed

    async def _take(self, messages: Messages) -> edge_pb2.Pushed:
        begin = await _next(messages)
        if begin is None or begin.WhichOneof("kind") != "begin":
            raise WireError("push: expected its beginning first")
        said = begin.begin
        if (served := self._repository.serves(said.sha256)) is not None:
            return edge_pb2.Pushed(name=served.name, version=served.version, sha256=served.sha256, already=True)
        if self._taking:
            raise DataError("push: another one is under way; try again when it is over")
        self._taking = True
        arrival = None
        try:
            files = [(file.name, file.size_bytes) for file in said.files]
            arrival = await off_loop(
                lambda: Arrival(self._repository.root, said.name, said.version, said.sha256, files)
            )
            arrival.check_place()
            return await self._fill(arrival, messages)
        finally:
            self._taking = False
            if arrival is not None:
                arrival.discard()

    async def _fill(self, arrival: Arrival, messages: Messages) -> edge_pb2.Pushed:
        while (message := await _next(messages)) is not None:
            if message.WhichOneof("kind") != "data":
                raise WireError("push: expected data after its beginning")
            data = message.data
            await off_loop(lambda data=data: arrival.write(data))  # type: ignore[misc]
        await off_loop(arrival.finish)
        served = await self._repository.take(arrival.folder, arrival.place, arrival.put)
        return edge_pb2.Pushed(name=served.name, version=served.version, sha256=served.sha256)


async def _next(messages: Messages) -> edge_pb2.PushMessage | None:
    """The next message; None after the last. Raises WireError where none comes."""
    try:
        return await asyncio.wait_for(anext(messages), SILENCE_S)
    except StopAsyncIteration:
        return None
    except asyncio.TimeoutError:
        raise WireError(f"push: nothing came for {SILENCE_S:g} s; push again") from None
