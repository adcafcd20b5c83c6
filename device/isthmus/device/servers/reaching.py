"""What reaches a device's servers: its certificates, and a transport to each. Imported only where there are servers to be
reached, since gRPC and what lies under it take 12 MB of memory that a device which answers alone has no use for.
"""

from __future__ import annotations

from isthmus.device.certificates import Certificates
from isthmus.device.config import AgentConfig
from isthmus.device.host import Host
from isthmus.device.servers.uplinks import Uplinks
from isthmus.device.transport import Listener, Transport
from isthmus.models.bundle import Bundle
from isthmus.proto import wire
from isthmus.proto.codec import CODEC_VERSION
from isthmus.proto.errors import SecurityError
from isthmus.proto.messages import Hello


def certificates_of(config: AgentConfig) -> Certificates | None:
    """What a device shows its servers; None for plaintext. Raises SecurityError where neither is configured."""
    if config.insecure:
        return None
    if config.certs is None:
        raise SecurityError(
            f"{', '.join(config.servers) or 'discover'}: no certificates named; give --certs FOLDER (see `isthmus certs init`), "
            "or --insecure for plaintext"
        )
    return Certificates(config.certs)


def uplinks_of(config: AgentConfig, bundle: Bundle, certificates: Certificates | None, host: Host) -> Uplinks:
    """The transports to all servers that are configured or will be found; `host` hears them, and has them dialled."""
    hello = Hello(bundle.manifest.name, bundle.sha256, CODEC_VERSION, config.client_id)

    def transport(address: str, listener: Listener) -> Transport:
        return Transport(
            address,
            hello,
            listener,
            expected=wire.Expected(bundle.codec.layers, bundle.codec.max_layer_bytes),
            max_message_bytes=wire.max_message_bytes(bundle.codec),
            certificates=certificates,
        )

    listed = 0 if config.discover else len(config.servers)
    return Uplinks(transport, host, listed=listed)
