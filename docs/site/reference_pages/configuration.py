"""The page of the configuration: every key of each role, from the struct that declares it."""

from __future__ import annotations

import inspect

import msgspec

from isthmus.device.config import AgentConfig
from isthmus.device.frigate.config import FrigateConfig
from isthmus.edge_server.config import ServerConfig
from isthmus.proto import quantities
from reference_pages.structs import Field, fields, prose, source, table

ROLES: dict[str, type[msgspec.Struct]] = {"agent": AgentConfig, "server": ServerConfig, "frigate": FrigateConfig}
EXAMPLES = {"agent": "examples/agent.toml", "server": "examples/server.toml"}
KINDS = {"s": "`2.5`, `100ms`, `5m`", "bytes": "`20000`, `20kB`", "mbps": "`5`, `500kbit/s`"}
"""How a quantity is written, by the unit at the end of its key."""

HEAD = """# Configuration

Each role takes a TOML file (`--config FILE`). Every key of it is also a flag and an environment variable; a flag wins over a
variable, and a variable over the file. `deadline_s = 0.1` in the file is `--deadline 100ms` and `ISTHMUS_AGENT_DEADLINE_S=100ms`.

```sh
isthmus config check agent agent.toml          # is it right?
isthmus config show agent --config agent.toml  # where does each value come from?
isthmus config schema agent                    # JSON Schema, for editors
```

"""


def page() -> str:
    """The whole page, role after role."""
    return HEAD + "\n".join(_role(role, kind) for role, kind in ROLES.items())


def _role(role: str, kind: type[msgspec.Struct]) -> str:
    rows = [(f"`{field.name}`", _type(field), f"`{_toml(field)}`", prose(field.meaning)) for field in fields(kind)]
    told = prose(inspect.cleandoc(kind.__doc__ or ""))
    example = EXAMPLES.get(role)
    file = f"\n`{example}`:\n\n```toml\n{source(example).rstrip()}\n```\n" if example else ""
    shown = table(("key", "type", "default", "meaning"), rows)
    return f"## {role}\n\n{told} Variables begin with `ISTHMUS_{role.upper()}_`.\n\n{shown}{file}"


def _type(field: Field) -> str:
    unit = quantities.unit_of(field.name)
    return KINDS[unit] if unit else f"`{field.type.removesuffix(' | None')}`"


def _toml(field: Field) -> str:
    """The default as a file would say it."""
    plain = {"None": "not set", "True": "true", "False": "false"}
    return "must be given" if field.default is None else plain.get(field.default, field.default.replace("'", '"'))
