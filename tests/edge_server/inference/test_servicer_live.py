"""The Open Inference Protocol over a real server: Triton's own client, and every way in which a request is refused."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from numpy.typing import NDArray

from isthmus.edge_server.inference import servicer
from isthmus.edge_server.inference.offers import Offers
from isthmus.edge_server.inference.servicer import Inference
from isthmus.edge_server.server import bind, run
from isthmus.edge_server.service import EdgeService
from isthmus.edge_server.streams import Served
from isthmus.models import bundle as bundles
from isthmus.proto import inference_pb2 as pb
from isthmus.proto import inference_pb2_grpc
from isthmus.proto.tasks.task import Packed
from live_server import live

SIGNS = bundles.load("signs")
CLASSES = len(SIGNS.manifest.labels)
FEATURES = np.zeros((1, 16, 16, 6), np.float32)
DOCS = Path(__file__).parents[3] / "docs/monitoring.md"
Job = Callable[["Client"], Awaitable[None]]


class Gated:
    """A tail that waits for its gate, and fails where it is told to."""

    def __init__(self) -> None:
        self.gate, self.fails = threading.Event(), False
        self.gate.set()
        self.sizes: list[int] = []

    def run(self, frames: Sequence[NDArray[Any]]) -> list[Packed]:
        self.gate.wait(30)
        self.sizes.append(len(frames))
        if self.fails:
            raise ValueError("out of memory")
        return [tuple(float(k == 3) for k in range(CLASSES))] * len(frames)


class Client:
    """A server of one bundle, and somebody who asks it."""

    def __init__(self, engine: Gated, service: EdgeService, address: str, channel: grpc.aio.Channel) -> None:
        self.engine, self.service, self.address = engine, service, address
        self.stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)

    async def infer(self, request: pb.ModelInferRequest, timeout_s: float | None = None) -> pb.ModelInferResponse:
        reply: Any = await self.stub.ModelInfer(request, timeout=timeout_s)
        assert isinstance(reply, pb.ModelInferResponse)
        return reply

    async def refused(self, request: pb.ModelInferRequest, timeout_s: float | None = None) -> tuple[str, str]:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self.infer(request, timeout_s)
        return error.value.code().name, error.value.details() or ""


def served(job: Job, engine: Gated | None = None) -> None:
    async def check() -> None:
        tail = engine or Gated()
        service = EdgeService(Served("signs", SIGNS.sha256, SIGNS.codec), tail)
        offers = Offers(lambda: service.offered, lambda _: SIGNS)
        server, status, address = bind(service, "127.0.0.1:0", None, inference=Inference(service, offers, max_batch=8))
        up = asyncio.Event()
        task = asyncio.create_task(run(service, server, status, grace_s=5.0, ready=up.set))
        await up.wait()
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                await job(Client(tail, service, address, channel))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    live(check)


def asked(values: NDArray[Any] = FEATURES, model: str = "signs.tail", name: str = "features") -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, id="7")
    datatype = {"f": "FP32", "u": "UINT8"}[values.dtype.kind]
    request.inputs.add(name=name, datatype=datatype, shape=values.shape)
    request.raw_input_contents.append(values.tobytes())
    return request


def test_a_batch_is_answered_and_counted() -> None:
    async def job(client: Client) -> None:
        reply = await client.infer(asked(np.repeat(FEATURES, 5, 0)))
        assert (reply.model_name, reply.id) == ("signs.tail", "7")
        assert [output.name for output in reply.outputs] == ["answer", "logits"]
        assert list(reply.outputs[1].shape) == [5, CLASSES]
        assert b'"name":"no entry"' in reply.raw_output_contents[0]
        assert sum(client.engine.sizes[-5:]) >= 5
        only = asked()
        only.outputs.add(name="logits")
        assert [output.name for output in (await client.infer(only)).outputs] == ["logits"]
        labels = {"bundle": "signs", "device": "inference", "outcome": "result"}
        assert client.service.metrics.registry.get_sample_value("isthmus_requests_total", labels) == 6

    served(job)


def test_what_makes_no_sense_is_an_invalid_argument_in_one_sentence() -> None:
    batch = asked(np.repeat(FEATURES, 9, 0))
    nan = asked(np.full_like(FEATURES, np.nan))
    two = asked()
    two.inputs.add(name="features", datatype="FP32", shape=FEATURES.shape)
    output = asked()
    output.outputs.add(name="boxes")
    timeout = asked()
    timeout.parameters["timeout"].string_param = "soon"
    negative = asked()
    negative.parameters["timeout"].int64_param = -5
    expected = "expected one: features FP32 (any, 16, 16, 6) or payload BYTES (any, any)"
    cases = {
        "signs.tail: features: a batch of 9, at most 8": batch,
        "signs.tail: features: NaN or infinite values": nan,
        f"signs.tail: inputs: features, features; {expected}": two,
        "signs.tail: output 'boxes', known: answer, logits": output,
        "signs.tail: timeout: expected microseconds, a whole number of at least 0": timeout,
        "signs.tail: timeout: expected microseconds, a whole number of at least 0 ": negative,
        f"signs.tail: inputs: image; {expected}": asked(name="image"),
        "signs: inputs: features; expected one: picture UINT8 (any, any, any, 3)": asked(model="signs"),
        "signs.tail: features: FP32 (1, 8, 8, 6), expected FP32 (any, 16, 16, 6)": asked(FEATURES[:, :8, :8]),
        f"signs.tail: inputs: none; {expected}": pb.ModelInferRequest(model_name="signs.tail"),
    }  # fmt: skip

    async def job(client: Client) -> None:
        for why, request in cases.items():
            assert await client.refused(request) == ("INVALID_ARGUMENT", why.rstrip())
        assert (await client.infer(asked())).outputs, "and nobody else is the worse for it"

    served(job)


def test_a_model_that_is_not_there() -> None:
    version = SIGNS.sha256.hex()[:12]
    known = f"no such model; here are signs {version}, signs.tail {version}"
    old = asked()
    old.model_version = "000000000000"

    async def job(client: Client) -> None:
        assert await client.refused(asked(model="si\ngnz")) == ("NOT_FOUND", f"si\\ngnz: {known}")
        assert await client.refused(old) == ("NOT_FOUND", f"signs.tail 000000000000: {known}")
        with pytest.raises(grpc.aio.AioRpcError, match="no such model"):
            await client.stub.ModelMetadata(pb.ModelMetadataRequest(name=""))
        assert not (await client.stub.ModelReady(pb.ModelReadyRequest(name="nope"))).ready
        assert (await client.stub.ModelReady(pb.ModelReadyRequest(name="signs", version=version))).ready
        assert (await client.stub.ServerReady(pb.ServerReadyRequest())).ready

    served(job)


def test_a_request_waits_no_longer_than_it_says() -> None:
    """By gRPC's deadline, or by Triton's parameter; and one that says nothing waits a second behind whatever runs."""

    async def job(client: Client) -> None:
        hopeless = asked()
        hopeless.parameters["timeout"].int64_param = 1
        assert await client.refused(hopeless) == (
            "DEADLINE_EXCEEDED",
            "it could not be answered in the time that it has",
        )
        client.engine.gate.clear()
        first = asyncio.create_task(client.infer(asked(), 30.0))
        while not client.service._tasks:
            await asyncio.sleep(0.01)
        soon = asked()
        soon.parameters["timeout"].int64_param = 20_000
        waiting = asyncio.create_task(client.refused(soon, 30.0))
        await asyncio.sleep(0.1)
        client.engine.gate.set()
        assert (await waiting)[0] in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
        assert (await first).outputs
        assert not client.service._asked, "nothing is left of any"

    served(job)


def test_a_client_that_goes_away_takes_its_frames_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicer, "MOST_ASKED", 4)

    async def job(client: Client) -> None:
        client.engine.gate.clear()
        first = asyncio.create_task(client.infer(asked(), 30.0))
        while not client.service._tasks:
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(client.infer(asked(np.repeat(FEATURES, 3, 0)), 30.0))
        while client.service._streams.waiting < 3:
            await asyncio.sleep(0.01)
        assert await client.refused(asked()) == ("RESOURCE_EXHAUSTED", "4 frames are asked about already")
        waiting.cancel()
        while client.service._streams.waiting:
            await asyncio.sleep(0.01)
        client.engine.gate.set()
        assert (await first).outputs
        assert (await client.infer(asked())).outputs

    served(job)


def test_a_tail_that_fails_is_no_answer() -> None:
    async def job(client: Client) -> None:
        client.engine.fails = True
        assert await client.refused(asked()) == ("INTERNAL", "tail: failed on this batch")
        client.engine.fails = False
        assert (await client.infer(asked())).outputs

    served(job)


def test_while_it_drains_what_is_asked_already_is_answered() -> None:
    async def job(client: Client) -> None:
        client.engine.gate.clear()
        first = asyncio.create_task(client.infer(asked(), 30.0))
        while not client.service._tasks:
            await asyncio.sleep(0.01)
        draining = asyncio.create_task(client.service.drain(20.0))
        await asyncio.sleep(0.05)
        assert not draining.done()
        assert await client.refused(asked()) == ("UNAVAILABLE", "signs.tail: stopping, or still loading; try again")
        client.engine.gate.set()
        assert (await first).outputs
        await draining

    served(job)


def outside(code: str, *arguments: str) -> str:
    """A program in a process of its own: Triton's client and our messages are of one name, and no process has both."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tritons_client_as_the_documents_show_it() -> None:
    """The example of docs/monitoring.md as it stands there, against a server of the real bundle."""
    pytest.importorskip("rapidjson", reason="tritonclient is not installed")
    (example,) = re.findall(r"```python\n(import json\n.*?tritonclient.*?)```", DOCS.read_text(), re.DOTALL)
    server = subprocess.Popen(
        [sys.executable, "-m", "isthmus.cli", "serve", "--insecure", "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        address = next(word.rstrip(",") for word in server.stdout.readline().split() if ":" in word)
        told = outside(example.replace("edge.local:50551", address))
    finally:
        server.terminate()
        server.communicate(timeout=30)
    assert re.search(r"^\{'label': \d+, 'confidence': 0\.\d+, 'name': '[\w ]+'\}$", told, re.MULTILINE), told


def test_our_messages_are_those_of_the_specification() -> None:
    """Every field of ours is in Triton's own, under its name, number and type."""
    pytest.importorskip("rapidjson", reason="tritonclient is not installed")
    code = """
import importlib, sys
def fields(message, within=""):
    yield from ((f"{within}{message.name}.{f.name}", f.number, f.type) for f in message.fields)
    for inner in message.nested_types:
        yield from fields(inner, f"{within}{message.name}.")
file = importlib.import_module(sys.argv[1]).DESCRIPTOR
for message in file.message_types_by_name.values():
    print(*fields(message), sep="\\n")
for service in file.services_by_name.values():
    print(*((service.full_name, m.name) for m in service.methods), sep="\\n")
"""
    ours = set(outside(code, "isthmus.proto.inference_pb2").splitlines())
    theirs = set(outside(code, "tritonclient.grpc.service_pb2").splitlines())
    assert len(ours) > 50
    assert ours <= theirs
