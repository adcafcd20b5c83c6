"""What a server says of its bundles to tools, as it crosses."""

from __future__ import annotations

from isthmus.edge_server.repository.lane import Served
from isthmus.proto import edge_pb2, wire
from isthmus.proto.messages import ServerHeartbeat
from isthmus.proto.vocabulary import Load


def load_pb(load: Load) -> edge_pb2.Load:
    """How busy it is."""
    return wire.to_server_pb(ServerHeartbeat(0, load)).load


def unloaded(served: Served) -> edge_pb2.ServedBundle:
    """A bundle whose tail is loaded when a device asks for it."""
    return edge_pb2.ServedBundle(name=served.name, version=served.version, sha256=served.sha256, loaded=False)


def loaded(served: Served, *, serving: bool, streams: int, load: Load) -> edge_pb2.ServedBundle:
    """A bundle whose tail is loaded, and whether it works."""
    described = unloaded(served)
    described.loaded, described.serving, described.streams = True, serving, streams
    described.load.CopyFrom(load_pb(load))
    return described
