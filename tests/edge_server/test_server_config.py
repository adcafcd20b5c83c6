from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.edge_server.config import ServerConfig, split_address
from isthmus.proto import config
from isthmus.proto.errors import ConfigError


def load(tmp_path: Path, text: str) -> ServerConfig:
    path = tmp_path / "server.toml"
    path.write_text(text)
    return config.load(ServerConfig, path, {}, prefix="ISTHMUS_SERVER")


def test_the_defaults_are_safe(tmp_path: Path) -> None:
    found = load(tmp_path, "")
    assert found == ServerConfig()
    assert found.listen.startswith("127.0.0.1:")
    assert not found.insecure


def test_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"server\.toml: unknown key 'bundel'; known: bundle, listen"):
        load(tmp_path, 'bundel = "signs"')


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('listen = "50551"', "listen"),
        ('listen = "localhost:http"', "listen"),
        ('metrics = "localhost:99999"', "metrics"),
        ("max_batch = 0", "max_batch"),
        ("credits = -1", "credits"),
        ("max_fps = 0.0", "max_fps"),
        ("max_mbps = nan", "max_mbps"),
        ("grace_s = -1.0", "grace_s"),
        ("workers = 0", "workers"),
        ('models = "m"\nmax_tails = 0', "max_tails"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} = "):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("threads = 100000", "threads = 100000, expected at most 256: every one of them is started"),
        ("max_batch = 1000000", "max_batch = 1000000, expected at most 1024: a batch of this size is timed"),
    ],
)
def test_what_no_machine_can_do_is_refused_with_the_reason(tmp_path: Path, text: str, why: str) -> None:
    """A hundred thousand threads ended in a SIGSEGV, a million frames a batch in a server that never was ready."""
    with pytest.raises(ConfigError, match=why):
        load(tmp_path, text)


def test_plaintext_beside_certificates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="insecure contradicts certs"):
        load(tmp_path, 'certs = "here"\ninsecure = true')


def test_a_value_of_another_type_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\$\.threads"):
        load(tmp_path, 'threads = "many"')


def test_addresses_are_split() -> None:
    assert split_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert split_address("[::1]:50551") == ("::1", 50551)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('bundle = "signs"\nmodels = "m"', "bundle contradicts models; put the bundle into that folder"),
        ("max_tails = 2", "max_tails goes with models; name a folder of bundles"),
        ("push = true", "push goes with models"),
        ('push_from = "laptop"', "push_from goes with models"),
        ('models = "m"\npush = true', "push: only insecure, and on loopback, where nobody else comes"),
        ('models = "m"\ncerts = "c"\npush = true', "push: only insecure, and on loopback"),
        ('models = "m"\ninsecure = true\npush = true\nlisten = "0.0.0.0:1"', "push: only insecure, and on loopback"),
        ('models = "m"\ninsecure = true\npush_from = "a"', "push_from: names certificates; give certs too"),
        (
            'models = "m"\ncerts = "c"\npush_from = " , "',
            "push_from: names certificates; give certs too, and at least one",
        ),
    ],
)
def test_what_contradicts_itself_about_a_folder_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load(tmp_path, text)


def test_who_may_push_is_named_with_commas(tmp_path: Path) -> None:
    found = load(tmp_path, 'models = "m"\ncerts = "c"\npush_from = "laptop, ci ,"')
    assert found.pushers == {"laptop", "ci"}
    assert load(tmp_path, 'models = "m"\ninsecure = true\npush = true\nlisten = "[::1]:1"').push
