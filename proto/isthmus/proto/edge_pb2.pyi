from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeviceMessage(_message.Message):
    __slots__ = ("hello", "layer", "cancel", "heartbeat")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    layer: Layer
    cancel: Cancel
    heartbeat: Heartbeat
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., layer: _Optional[_Union[Layer, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("load", "welcome", "ack", "result", "late", "busy", "invalid", "drain", "heartbeat")
    LOAD_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    INVALID_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    load: Load
    welcome: Welcome
    ack: Ack
    result: Result
    late: Late
    busy: Busy
    invalid: Invalid
    drain: Drain
    heartbeat: Heartbeat
    def __init__(self, load: _Optional[_Union[Load, _Mapping]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., late: _Optional[_Union[Late, _Mapping]] = ..., busy: _Optional[_Union[Busy, _Mapping]] = ..., invalid: _Optional[_Union[Invalid, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("bundle_sha256", "codec_version", "client_id", "bundle_name")
    BUNDLE_SHA256_FIELD_NUMBER: _ClassVar[int]
    CODEC_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_NAME_FIELD_NUMBER: _ClassVar[int]
    bundle_sha256: bytes
    codec_version: int
    client_id: str
    bundle_name: str
    def __init__(self, bundle_sha256: _Optional[bytes] = ..., codec_version: _Optional[int] = ..., client_id: _Optional[str] = ..., bundle_name: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("server_id", "credits", "max_layer_bytes", "references")
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    MAX_LAYER_BYTES_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    server_id: str
    credits: int
    max_layer_bytes: int
    references: int
    def __init__(self, server_id: _Optional[str] = ..., credits: _Optional[int] = ..., max_layer_bytes: _Optional[int] = ..., references: _Optional[int] = ...) -> None: ...

class Layer(_message.Message):
    __slots__ = ("frame", "layer", "last", "budget_us", "tail", "reference", "crc", "payload")
    FRAME_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    BUDGET_US_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CRC_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    frame: int
    layer: int
    last: bool
    budget_us: int
    tail: int
    reference: int
    crc: int
    payload: bytes
    def __init__(self, frame: _Optional[int] = ..., layer: _Optional[int] = ..., last: bool = ..., budget_us: _Optional[int] = ..., tail: _Optional[int] = ..., reference: _Optional[int] = ..., crc: _Optional[int] = ..., payload: _Optional[bytes] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("frame",)
    FRAME_FIELD_NUMBER: _ClassVar[int]
    frame: int
    def __init__(self, frame: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("queue", "wait_us", "tail_us")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    WAIT_US_FIELD_NUMBER: _ClassVar[int]
    TAIL_US_FIELD_NUMBER: _ClassVar[int]
    queue: int
    wait_us: int
    tail_us: int
    def __init__(self, queue: _Optional[int] = ..., wait_us: _Optional[int] = ..., tail_us: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("frame", "layer")
    FRAME_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    frame: int
    layer: int
    def __init__(self, frame: _Optional[int] = ..., layer: _Optional[int] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("frame", "layers_used", "outputs", "packed", "receive_us", "queue_us", "tail_us", "send_us")
    FRAME_FIELD_NUMBER: _ClassVar[int]
    LAYERS_USED_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    PACKED_FIELD_NUMBER: _ClassVar[int]
    RECEIVE_US_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    TAIL_US_FIELD_NUMBER: _ClassVar[int]
    SEND_US_FIELD_NUMBER: _ClassVar[int]
    frame: int
    layers_used: int
    outputs: _containers.RepeatedScalarFieldContainer[float]
    packed: bytes
    receive_us: int
    queue_us: int
    tail_us: int
    send_us: int
    def __init__(self, frame: _Optional[int] = ..., layers_used: _Optional[int] = ..., outputs: _Optional[_Iterable[float]] = ..., packed: _Optional[bytes] = ..., receive_us: _Optional[int] = ..., queue_us: _Optional[int] = ..., tail_us: _Optional[int] = ..., send_us: _Optional[int] = ...) -> None: ...

class Late(_message.Message):
    __slots__ = ("frame",)
    FRAME_FIELD_NUMBER: _ClassVar[int]
    frame: int
    def __init__(self, frame: _Optional[int] = ...) -> None: ...

class Busy(_message.Message):
    __slots__ = ("frame", "retry_us", "hint")
    class Hint(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        HINT_NONE: _ClassVar[Busy.Hint]
        HINT_NARROWER: _ClassVar[Busy.Hint]
        HINT_EARLIER_EXIT: _ClassVar[Busy.Hint]
    HINT_NONE: Busy.Hint
    HINT_NARROWER: Busy.Hint
    HINT_EARLIER_EXIT: Busy.Hint
    FRAME_FIELD_NUMBER: _ClassVar[int]
    RETRY_US_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    frame: int
    retry_us: int
    hint: Busy.Hint
    def __init__(self, frame: _Optional[int] = ..., retry_us: _Optional[int] = ..., hint: _Optional[_Union[Busy.Hint, str]] = ...) -> None: ...

class Invalid(_message.Message):
    __slots__ = ("frame", "layer", "why")
    FRAME_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    frame: int
    layer: int
    why: str
    def __init__(self, frame: _Optional[int] = ..., layer: _Optional[int] = ..., why: _Optional[str] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("grace_us",)
    GRACE_US_FIELD_NUMBER: _ClassVar[int]
    grace_us: int
    def __init__(self, grace_us: _Optional[int] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Description(_message.Message):
    __slots__ = ("server_id", "bundle_name", "bundle_sha256", "codec_version", "load", "bundles")
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_NAME_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_SHA256_FIELD_NUMBER: _ClassVar[int]
    CODEC_VERSION_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    server_id: str
    bundle_name: str
    bundle_sha256: bytes
    codec_version: int
    load: Load
    bundles: _containers.RepeatedCompositeFieldContainer[ServedBundle]
    def __init__(self, server_id: _Optional[str] = ..., bundle_name: _Optional[str] = ..., bundle_sha256: _Optional[bytes] = ..., codec_version: _Optional[int] = ..., load: _Optional[_Union[Load, _Mapping]] = ..., bundles: _Optional[_Iterable[_Union[ServedBundle, _Mapping]]] = ...) -> None: ...

class ServedBundle(_message.Message):
    __slots__ = ("name", "version", "sha256", "loaded", "serving", "streams", "load")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    LOADED_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    sha256: bytes
    loaded: bool
    serving: bool
    streams: int
    load: Load
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., sha256: _Optional[bytes] = ..., loaded: bool = ..., serving: bool = ..., streams: _Optional[int] = ..., load: _Optional[_Union[Load, _Mapping]] = ...) -> None: ...

class PushMessage(_message.Message):
    __slots__ = ("begin", "data")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    begin: PushBegin
    data: bytes
    def __init__(self, begin: _Optional[_Union[PushBegin, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class PushBegin(_message.Message):
    __slots__ = ("name", "version", "sha256", "files")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    sha256: bytes
    files: _containers.RepeatedCompositeFieldContainer[PushFile]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., sha256: _Optional[bytes] = ..., files: _Optional[_Iterable[_Union[PushFile, _Mapping]]] = ...) -> None: ...

class PushFile(_message.Message):
    __slots__ = ("name", "size_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_bytes: int
    def __init__(self, name: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class Pushed(_message.Message):
    __slots__ = ("name", "version", "sha256", "already")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    ALREADY_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    sha256: bytes
    already: bool
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., sha256: _Optional[bytes] = ..., already: bool = ...) -> None: ...
