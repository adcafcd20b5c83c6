"""The Open Inference Protocol with a folder of bundles: each by its name, and by its version as long as it is there."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from isthmus.edge_server.engines import Tail
from isthmus.edge_server.inference.offers import Offers, version_of
from isthmus.edge_server.inference.servicer import Inference
from isthmus.edge_server.repository import catalogue, repository
from isthmus.edge_server.repository.loading import Loader
from isthmus.edge_server.repository.repository import Repository
from isthmus.edge_server.server import bind, run
from isthmus.edge_server.service import EdgeService
from isthmus.models import bundle as bundles
from isthmus.models.bundle import Bundle
from isthmus.proto import inference_pb2 as pb
from isthmus.proto import inference_pb2_grpc
from live_server import live

PATIENCE_S = 30.0


@contextlib.asynccontextmanager
async def serving(root: Path, copies: Path) -> AsyncIterator[tuple[Any, EdgeService]]:
    """A client of a server of this folder, and the server."""
    service = EdgeService()
    loader = Loader(1, "onnx", 2, service.max_message_bytes, copies)
    kept = Repository(root, service, loader)
    await kept.begin()
    inference = Inference(service, Offers(lambda: service.offered, loader.copied), max_batch=8)
    server, status, address = bind(service, "127.0.0.1:0", None, inference=inference)
    up = asyncio.Event()
    task = asyncio.create_task(run(service, server, status, grace_s=5.0, ready=up.set, repository=kept))
    await up.wait()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield inference_pb2_grpc.GRPCInferenceServiceStub(channel), service
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def asked(bundle: Bundle, version: str = "") -> tuple[pb.ModelInferRequest, dict[str, Any]]:
    """A request for a bundle's tail, and the answer to it."""
    codec = bundle.codec
    values = np.random.default_rng(1).normal(size=(1, codec.height, codec.width, codec.channels)).astype(np.float32)
    request = pb.ModelInferRequest(model_name=f"{bundle.manifest.name}.tail", model_version=version)
    request.inputs.add(name="features", datatype="FP32", shape=values.shape)
    request.raw_input_contents.append(values.tobytes())
    (logits,) = Tail(bundle, 1).run(list(values))
    assert isinstance(logits, tuple)
    return request, {"label": int(np.argmax(logits))}


async def answer(stub: Any, request: pb.ModelInferRequest) -> dict[str, Any]:
    reply = await stub.ModelInfer(request, timeout=PATIENCE_S)
    raw: bytes = reply.raw_output_contents[0]
    return {"label": json.loads(raw[4:])["label"]}


def next_of(folder: Path, target: Path) -> Bundle:
    """The same networks under another hash."""
    shutil.copytree(folder, target)
    manifest = target / "bundle.toml"
    manifest.write_text(manifest.read_text() + "# the next version\n")
    (target / "bundle.sha256").write_text(f"{hashlib.sha256(manifest.read_bytes()).hexdigest()}  bundle.toml\n")
    return bundles.load(str(target))


def test_every_bundle_of_a_folder_is_offered_as_long_as_it_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "LOOK_S", 0.02)
    monkeypatch.setattr(catalogue, "SETTLE_S", 0.0)
    root, both = tmp_path / "models", [bundles.load(name) for name in ("signs", "cifar10")]
    for bundle in both:
        shutil.copytree(bundle.folder, root / bundle.manifest.name / "1")

    async def check() -> None:
        async with serving(root, tmp_path / "copies") as (stub, service):

            async def until_offered(*bundles_: Bundle) -> None:
                async def wait() -> None:
                    while {served.sha256 for served in service.offered} != {each.sha256 for each in bundles_}:
                        await asyncio.sleep(0.01)

                await asyncio.wait_for(wait(), PATIENCE_S)

            for bundle in both:
                request, right = asked(bundle)
                assert await answer(stub, request) == right
                name = pb.ModelReadyRequest(name=f"{bundle.manifest.name}.tail")
                assert (await stub.ModelReady(name)).ready
            signs, cifar10 = both
            newer = next_of(signs.folder, tmp_path / "next")
            shutil.copytree(newer.folder, root / "signs" / "2")
            await until_offered(signs, newer, cifar10)
            metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="signs.tail"))
            assert list(metadata.versions) == [version_of(newer.sha256)], "the newest, where none is asked for"
            for bundle in (signs, newer):
                request, right = asked(bundle, version_of(bundle.sha256))
                assert await answer(stub, request) == right
            shutil.rmtree(root / "signs" / "1")
            await until_offered(newer, cifar10)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await stub.ModelInfer(asked(signs, version_of(signs.sha256))[0])
            assert error.value.code() is grpc.StatusCode.NOT_FOUND
            assert "cifar10.tail" in (error.value.details() or ""), "and what there is"

    live(check)
