"""The gRPC face of the Open Inference Protocol: what it is asked goes behind the devices' batcher, with a deadline of its own.

A request may say how long it waits, as gRPC's deadline or as Triton's parameter `timeout` (microseconds). It says too little
of a device to be counted as one: all of them together are the device INFERENCE in the metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Container, Iterator
from typing import Any, NoReturn

import grpc
import grpc.aio
from numpy.typing import NDArray

from isthmus.edge_server import connections
from isthmus.edge_server.admission import revoked
from isthmus.edge_server.inference.offers import Asked, Offer, Offers
from isthmus.edge_server.inference.tensors import Port, write
from isthmus.edge_server.metrics import INFERENCE
from isthmus.edge_server.service import EdgeService
from isthmus.proto import inference_pb2 as pb
from isthmus.proto import inference_pb2_grpc
from isthmus.proto.errors import BundleError, WireError
from isthmus.proto.messages import Busy, Invalid, Late, Result, ServerMessage
from isthmus.proto.operations.version import version
from isthmus.proto.printable import printable

SERVICE = "inference.GRPCInferenceService"
PATIENCE_S = 1.0
"""How long a request is given that does not say: a device's frames, due sooner, go first."""
LONGEST_S = 60.0
MOST_ASKED = 64
"""Frames that are asked about at a time, so that no client fills the server's memory."""
OVERHEAD_BYTES = 65_536
"""Room in a request beside its tensors."""
PICTURES_BYTES = 1 << 20
"""A picture of 640 × 480, or several smaller ones: whoever has larger ones shrinks them, as a device does."""
Context = grpc.aio.ServicerContext[Any, Any]


class Inference(inference_pb2_grpc.GRPCInferenceServiceServicer):
    """The protocol for all bundles of one server."""

    def __init__(
        self, service: EdgeService, offers: Offers, *, max_batch: int, revoked: Callable[[], Container[str]] = tuple
    ) -> None:
        """`service` computes what is asked of `offers`, `max_batch` frames at once, by whoever's certificate is not `revoked`."""
        self._service, self._offers, self._max_batch, self._revoked = service, offers, max_batch, revoked
        self._asked = 0

    @property
    def max_message_bytes(self) -> int:
        """The largest request that is read: a full batch of features, and a picture of a size that networks take."""
        codecs = [served.codec for served in self._service.offered]
        features = max((4 * codec.height * codec.width * codec.channels for codec in codecs), default=0)
        return max(self._max_batch * features + OVERHEAD_BYTES, PICTURES_BYTES)

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        """Whoever answers is alive."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        """Whether it would answer."""
        return pb.ServerReadyResponse(ready=self._ready)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        """Whether a model is there, and would be answered from."""
        try:
            found = await self._offers.find(request.name, request.version)
        except BundleError:
            found = None
        return pb.ModelReadyResponse(ready=self._ready and found is not None)

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        """Which Isthmus this is."""
        return pb.ServerMetadataResponse(name="isthmus", version=version())

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        """What a model takes and gives; each of its inputs is enough."""
        offer = await self._model(request.name, request.version, context)
        inputs = [port.metadata for port in offer.inputs(request.name)]
        outputs = [port.metadata for port in offer.outputs]
        return pb.ModelMetadataResponse(
            name=request.name, versions=[offer.version], platform="isthmus", inputs=inputs, outputs=outputs
        )

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        """Answers to a batch of frames, or none and why."""
        offer = await self._model(request.model_name, request.model_version, context)
        began_s = asyncio.get_running_loop().time()
        try:
            due_s = began_s + budget(request, context.time_remaining())
            ports, (port, values) = wanted(request, offer), one_input(request, offer, self._max_batch)
            if self._asked + len(values) > MOST_ASKED:
                await refused(
                    context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._asked} frames are asked about already"
                )
            with self._counted(len(values)):
                asked = offer.read(port, values) or await offer.see(values)
                replies = await self._service.ask(offer.sha256, asked.frames, due_s=due_s)
        except WireError as error:
            await refused(context, grpc.StatusCode.INVALID_ARGUMENT, f"{request.model_name}: {error}")
        except BundleError as error:
            await refused(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))
        if replies is None:
            await refused(
                context, grpc.StatusCode.UNAVAILABLE, f"{request.model_name}: stopping, or still loading; try again"
            )
        return await self._answered(request, offer, ports, asked, replies, context)

    async def _answered(
        self,
        request: pb.ModelInferRequest,
        offer: Offer,
        ports: tuple[Port, ...],
        asked: Asked,
        replies: list[ServerMessage],
        context: Context,
    ) -> pb.ModelInferResponse:
        counted = self._service.metrics.bundle(offer.name, offer.sha256)
        for reply in replies:
            counted.on_reply(reply, INFERENCE)
        for reply in replies:
            if not isinstance(reply, Result):
                await refused(context, *why(reply))
        response = pb.ModelInferResponse(model_name=request.model_name, model_version=offer.version, id=request.id)
        packed = [reply.outputs for reply in replies if isinstance(reply, Result)]
        try:
            for port in ports:
                write(response, port, offer.answers(packed, asked, port))
        except ValueError as error:
            await refused(context, grpc.StatusCode.INTERNAL, printable(f"tail: {error}"))
        return response

    @property
    def _ready(self) -> bool:
        return self._service.metrics.vitals.why_not_ready(asyncio.get_running_loop().time()) is None

    async def _model(self, name: str, version: str, context: Context) -> Offer:
        if (certificate := connections.certificate_of(context)) is not None and certificate in self._revoked():
            await refused(context, grpc.StatusCode.PERMISSION_DENIED, revoked(certificate))
        try:
            offer = await self._offers.find(name, version)
        except BundleError as error:
            await refused(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))
        if offer is None:
            asked = printable(f"{name} {version}".strip(), 80)
            await refused(context, grpc.StatusCode.NOT_FOUND, f"{asked}: no such model; here are {self._offers}")
        return offer

    @contextlib.contextmanager
    def _counted(self, frames: int) -> Iterator[None]:
        self._asked += frames
        try:
            yield
        finally:
            self._asked -= frames


async def refused(context: Context, status: grpc.StatusCode, why: str) -> NoReturn:
    """End a request with one sentence."""
    await context.abort(status, why)
    raise AssertionError(why)  # abort raises


def budget(request: pb.ModelInferRequest, left_s: float | None) -> float:
    """How long a request waits: its `timeout`, gRPC's deadline, whatever is sooner. Raises WireError."""
    asked_s = PATIENCE_S if left_s is None else left_s
    if "timeout" in request.parameters:
        parameter = request.parameters["timeout"]
        kind = parameter.WhichOneof("parameter_choice")
        if kind not in ("int64_param", "uint64_param") or getattr(parameter, kind) < 0:
            raise WireError("timeout: expected microseconds, a whole number of at least 0")
        if timeout_us := getattr(parameter, kind):  # 0 is Triton's word for none
            asked_s = min(timeout_us / 1e6, LONGEST_S if left_s is None else left_s)
    return min(asked_s, LONGEST_S)


def wanted(request: pb.ModelInferRequest, offer: Offer) -> tuple[Port, ...]:
    """The outputs that are asked for; all where none is. Raises WireError."""
    known = {port.name: port for port in offer.outputs}
    for output in request.outputs:
        if output.name not in known:
            raise WireError(f"output '{printable(output.name, 40)}', known: {', '.join(known)}")
    return tuple(known[output.name] for output in request.outputs) or offer.outputs


def one_input(request: pb.ModelInferRequest, offer: Offer, most: int) -> tuple[Port, NDArray[Any]]:
    """The one input of a request, at most so many frames, and its values. Raises WireError."""
    known = {port.name: port for port in offer.inputs(request.model_name)}
    names = [tensor.name for tensor in request.inputs]
    if len(names) != 1 or names[0] not in known:
        given = printable(", ".join(names), 80) or "none"
        raise WireError(
            f"inputs: {given}; expected one: {' or '.join(f'{name} {port}' for name, port in known.items())}"
        )
    port = known[names[0]]
    values = port.read(request, 0)
    if len(values) > most:
        raise WireError(f"{port.name}: a batch of {len(values)}, at most {most}")
    return port, values


def why(reply: ServerMessage) -> tuple[grpc.StatusCode, str]:
    """Why there is no answer."""
    match reply:
        case Late():
            return grpc.StatusCode.DEADLINE_EXCEEDED, "it could not be answered in the time that it has"
        case Busy(retry_s=retry_s):
            return grpc.StatusCode.RESOURCE_EXHAUSTED, f"too much to do; try again in {retry_s * 1000:.0f} ms"
        case Invalid(why=said):
            return grpc.StatusCode.INTERNAL, printable(said)
    return grpc.StatusCode.UNAVAILABLE, "no answer"
