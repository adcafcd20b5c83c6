"""The error tree, split by whose fault it is. Every message begins with the thing and names the way out.

    IsthmusError                 1
    ├── ConfigError              3   a configuration file, flag or environment variable
    ├── BundleError              4   a bundle: missing, damaged, of another schema
    ├── DataError                5   pictures, labels, traces, records
    ├── SourceError              6   a camera, video or folder that frames come from
    ├── BindError                7   a port that cannot be listened on
    ├── HandshakeError           8   the two halves do not fit each other
    ├── SecurityError            9   certificates, keys, plaintext without --insecure
    ├── LagError                10   real-time emulation fell behind its budget
    ├── CodecError              11   one damaged or hostile layer; costs that layer only
    ├── WireError               12   a message that breaks the protocol; costs that stream only
    └── ModelError              13   a model that cannot be read, or not be cut

The number is the exit code when the error ends a process; 0 is success, 2 a usage error, 130 Ctrl-C.
"""

from __future__ import annotations


class IsthmusError(Exception):
    """Any error that Isthmus raises on purpose."""

    exit_code = 1


class ConfigError(IsthmusError):
    """A configuration value: names the file or flag, and the key."""

    exit_code = 3


class BundleError(IsthmusError):
    """A bundle that cannot be used: names the file and the key."""

    exit_code = 4


class DataError(IsthmusError):
    """Data that cannot be read: names the file and, where there is one, the line."""

    exit_code = 5


class SourceError(IsthmusError):
    """A source of frames that cannot be opened or has gone away."""

    exit_code = 6


class BindError(IsthmusError):
    """An address that cannot be listened on."""

    exit_code = 7


class HandshakeError(IsthmusError):
    """Device and server refuse to mix: both sides' values are named."""

    exit_code = 8


class SecurityError(IsthmusError):
    """Missing or unusable keys and certificates."""

    exit_code = 9


class LagError(IsthmusError):
    """A real-time emulation that could not keep up with its schedule."""

    exit_code = 10


class CodecError(IsthmusError):
    """One layer that cannot be decoded; nothing else is lost."""

    exit_code = 11


class WireError(IsthmusError):
    """A message that breaks the protocol; ends that stream and nothing else."""

    exit_code = 12


class ModelError(IsthmusError):
    """A model that cannot be read or cut: names the file, and the operator where it is one."""

    exit_code = 13
