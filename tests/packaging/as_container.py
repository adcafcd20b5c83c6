"""Runs both halves as a container engine would, and prints what was seen as JSON; the first process of its namespaces.

unshare --mount --net --pid --fork python as_container.py '{"roots": …, "health": …}'
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

USER = 10001
STATE = "var/lib/isthmus"
FRAMES = 60


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def prepare(root: str) -> None:
    mount("--bind", root, root)
    mount("-t", "proc", "proc", f"{root}/proc")
    mount("--rbind", "/dev", f"{root}/dev")
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", f"{root}/tmp")
    mount("-t", "tmpfs", "-o", f"uid={USER},gid={USER},mode=700", "tmpfs", f"{root}/{STATE}")
    mount("-o", "remount,ro,bind", root)


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP


def started(root: str, command: list[str], **more: Any) -> subprocess.Popen[str]:
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **more.pop("env", {})}
    within = (
        f"import os, warnings; os.chroot({root!r}); os.chdir('/{STATE}'); "
        f"os.setgroups([]); os.setgid({USER}); os.setuid({USER}); "
        f"os.environ.clear(); os.environ.update({environ}); os.execvp({command[0]!r}, {command})"
    )
    return subprocess.Popen([sys.executable, "-c", within], text=True, **more)


def main() -> None:
    told = json.loads(sys.argv[1])
    roots: dict[str, str] = told["roots"]
    loopback_up()
    for root in roots.values():
        prepare(root)
    serve = ["isthmus", "serve", "--bundle", "signs", "--insecure", "--listen", "0.0.0.0:50551"]
    server = started(roots["server"], serve, env={"ISTHMUS_SERVER_METRICS": "127.0.0.1:9464"}, stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()
    observe = ["isthmus", "agent", "--bundle", "signs", "--insecure", "--server", "127.0.0.1:50551"]
    observe += ["--source", "generated:1", "--deadline", "5s", "--policy", "always-offload"]
    observe += ["--fps", "10", "--frames", str(FRAMES), "--record", "answers.jsonl"]
    agent = started(roots["agent"], observe, env={"ISTHMUS_AGENT_PAGE": "127.0.0.1:8070"}, stdout=subprocess.PIPE)
    assert agent.stdout is not None
    sources = [json.loads(agent.stdout.readline())["source"]]
    healthy = {half: started(roots[half], told["health"][half]).wait() for half in roots}
    sources += [json.loads(line)["source"] for line in agent.stdout]
    assert agent.wait() == 0
    server.terminate()
    assert server.wait() == 0
    read_only = started(
        roots["agent"], ["python3", "-c", "open('/etc/isthmus/new', 'w')"], stderr=subprocess.DEVNULL
    ).wait()
    print(json.dumps({
        "healthy": healthy,
        "sources": sorted(set(sources[5:])),  # the first ones may come before the server is there
        "written": sorted(path.name for path in Path(roots["agent"], STATE).iterdir()),
        "root_is_read_only": read_only != 0,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
