"""``gateway.toml`` and ``centroute serve`` before it listens: one clear line for all that is wrong."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from centroute import DataError, Policy
from centroute.conversation import Conversation
from centroute.gateway.config import (
    GatewayConfig,
    Limits,
    LogConfig,
    ModelConfig,
    UpstreamConfig,
    read_client_keys,
    read_config,
    read_key,
)
from centroute.session import Session

REPOSITORY = Path(__file__).parent.parent
SMALLEST = """
host = "127.0.0.1"
port = 8080

[upstreams.default]
base_url = "https://api.openai.com/v1/"
api_key_env = "UPSTREAM_KEY"
"""


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def written(text: str | bytes) -> Path:
        file = tmp_path / "gateway.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return written


def test_the_smallest_config(written: Any) -> None:
    file = written(SMALLEST)
    upstreams = {"default": UpstreamConfig("https://api.openai.com/v1", api_key_env="UPSTREAM_KEY")}
    config = read_config(file)
    assert config == GatewayConfig(upstreams, source=str(file))
    assert config.place("any model") == ModelConfig("default", "any model")


def test_a_config_with_all_keys(written: Any) -> None:
    file = written(
        """
        host = "::1"
        port = 0
        workers = 2
        reload_seconds = 0
        api_keys_env = "CLIENT_KEYS"
        [policy]
        willingness-to-pay = 0.01
        deny = ["gpt-4"]
        [limits]
        max_body_bytes = 1
        body_seconds = 1.5
        max_concurrent = 2
        max_fallbacks = 0
        drain_seconds = 3
        [conversation]
        user_messages = 2
        system_share = 0.1
        [session]
        switch_cost_usd = 0.002
        switch_quality = 0.05
        [log]
        path = "decisions.jsonl"
        sample = 0.5
        with_text = true
        [upstreams.one]
        base_url = "http://localhost:1/v1"
        connect_seconds = 1
        first_byte_seconds = 2
        read_seconds = 3
        retries = 4
        retry_seconds = 0.5
        max_connections = 6
        breaker_failures = 7
        breaker_seconds = 8
        [models."gpt-5@high"]
        upstream = "one"
        as = "gpt-5"
        """
    )
    upstream = UpstreamConfig(
        "http://localhost:1/v1",
        connect_seconds=1,
        first_byte_seconds=2,
        read_seconds=3,
        retries=4,
        retry_seconds=0.5,
        max_connections=6,
        breaker_failures=7,
        breaker_seconds=8,
    )
    assert read_config(file) == GatewayConfig(
        {"one": upstream},
        models={"gpt-5@high": ModelConfig("one", "gpt-5")},
        policy=Policy(willingness_to_pay=0.01, deny={"gpt-4"}),
        limits=Limits(max_body_bytes=1, body_seconds=1.5, max_concurrent=2, max_fallbacks=0, drain_seconds=3),
        conversation=Conversation(user_messages=2, system_share=0.1),
        session=Session(switch_cost_usd=0.002, switch_quality=0.05),
        log=LogConfig(file.parent / "decisions.jsonl", sample=0.5, with_text=True),
        host="::1",
        port=0,
        workers=2,
        reload_seconds=0,
        api_keys_env="CLIENT_KEYS",
        source=str(file),
    )


UPSTREAM = '[upstreams.default]\nbase_url = "http://h/v1"\n'


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", ("upstreams", "base_url")),
        ("port = = 1", ("TOML", "line 1")),
        (b"\xff", ("UTF-8", "0xff")),
        ("prot = 1", ("'prot'", "port")),
        (UPSTREAM + "retires = 1", ("upstreams.default", "'retires'", "retries")),
        (f"[limits]\nmax_body = 1\n{UPSTREAM}", ("limits", "'max_body'")),
        (f"[models.a]\nname = 'b'\n{UPSTREAM}", ("models.a", "'name'")),
        (f"[policy]\nalhpa = 1\n{UPSTREAM}", ("policy", "alhpa")),
        (f"[policy]\nalpha = 7\n{UPSTREAM}", ("policy", "alpha")),
        (f"[policy]\nalpha = 1\nmin_quality = 1\n{UPSTREAM}", ("policy", "alpha", "min_quality")),
        (f"[conversation]\nuser_messages = 0\n{UPSTREAM}", ("conversation.user_messages",)),
        (f"[conversation]\nsystem_share = 1\n{UPSTREAM}", ("conversation.system_share",)),
        (f"[session]\nmodel = 'x'\n{UPSTREAM}", ("session", "'model'")),
        (f"[session]\nswitch_quality = -1\n{UPSTREAM}", ("session.switch_quality",)),
        (f"[log]\nsample = 0.5\n{UPSTREAM}", ("log.path", "missing")),
        (f"[log]\npath = 'x'\nsample = 2\n{UPSTREAM}", ("log.sample",)),
        (f"[log]\npath = 'x'\nwith_text = 1\n{UPSTREAM}", ("log.with_text",)),
        ("upstreams = 1", ("upstreams", "table")),
        ("[upstreams]\ndefault = 'x'", ("upstreams.default", "table")),
        ("[upstreams.default]", ("upstreams.default.base_url", "missing")),
        ("[upstreams.default]\nbase_url = 'h/v1'", ("base_url", "http://")),
        ("[upstreams.default]\nbase_url = 'ftp://h'", ("base_url", "http://")),
        ("[upstreams.default]\nbase_url = 'http://h:99999'", ("base_url",)),
        ("[upstreams.default]\nbase_url = 'http://h/v1?key=1'", ("base_url",)),
        ('[upstreams.default]\nbase_url = "http://h/v1\\r\\nx: y"', ("base_url",)),
        (f"port = 70000\n{UPSTREAM}", ("port", "65535")),
        (f"port = true\n{UPSTREAM}", ("port", "True")),
        (f"port = '1'\n{UPSTREAM}", ("port", "'1'")),
        (f"host = ''\n{UPSTREAM}", ("host",)),
        (f"workers = 0\n{UPSTREAM}", ("workers",)),
        (f"reload_seconds = -1\n{UPSTREAM}", ("reload_seconds",)),
        (UPSTREAM + "connect_seconds = 0", ("connect_seconds",)),
        (UPSTREAM + "read_seconds = inf", ("read_seconds",)),
        (UPSTREAM + "retries = 99", ("retries",)),
        (f"{UPSTREAM}[models.a]\nupstream = 'nope'", ("models.a.upstream", "nope", "default")),
        (f"{UPSTREAM}[models.nobody]", ("models", "nobody", "not in the router")),
        ("[upstreams.one]\nbase_url = 'http://h/v1'", ("nobody to ask", "oakhollow-grand", "default")),
        (f"[policy]\ndeny = ['nobody']\n{UPSTREAM}", ("policy", "nobody")),
        (f"[policy]\nrequire = ['vision']\n{UPSTREAM}", ("policy", "vision")),
        (f"[log]\npath = 'no/such/folder/log.jsonl'\n{UPSTREAM}", ("no/such/folder/log.jsonl", "written")),
        (f"host = 'not.a.host.invalid'\n{UPSTREAM}", ("not.a.host.invalid",)),
    ],
)
def test_a_config_that_is_refused(
    cli: Any, router_file: Path, written: Any, text: str | bytes, named: tuple[str, ...]
) -> None:
    finished = cli("serve", router_file, "--config", written(text))
    finished.assert_refused(*named)
    assert finished.out == ""


def test_a_password_in_an_address_is_not_repeated(cli: Any, router_file: Path, written: Any) -> None:
    finished = cli(
        "serve", router_file, "--config", written("[upstreams.x]\nbase_url = 'http://me:hush@h/v1'")
    )
    finished.assert_refused("upstreams.x.base_url", "api_key_env")
    assert "hush" not in finished.err


def test_a_missing_config(cli: Any, router_file: Path, tmp_path: Path) -> None:
    cli("serve", router_file, "--config", tmp_path / "none.toml").assert_refused("none.toml", "No such file")
    cli("serve", router_file, "--config", tmp_path).assert_refused(str(tmp_path))
    cli("serve", router_file).assert_wrong_usage("--config")


def test_a_router_that_is_none(cli: Any, tmp_path: Path, written: Any) -> None:
    config = written(UPSTREAM)
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "cat.png").write_bytes(b"\x89PNG")
    cli("serve", folder, "--config", config).assert_refused(str(folder))
    cli("serve", tmp_path / "none.safetensors", "--config", config).assert_refused("none.safetensors")
    cli("serve", config, "--config", config).assert_refused(str(config))


@pytest.mark.parametrize(
    "value",
    [None, "", "  ", "hush\r\nx-evil: 1", "hush hush", "hush-ü"],
    ids=["unset", "empty", "blank", "header", "space", "letter"],
)
def test_a_key_that_is_none(
    cli: Any, router_file: Path, written: Any, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("UPSTREAM_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("UPSTREAM_KEY", value)
    finished = cli("serve", router_file, "--config", written(SMALLEST))
    finished.assert_refused("upstreams.default.api_key_env", "UPSTREAM_KEY")
    assert "hush" not in finished.err


def test_keys(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = read_config(
        written('api_keys_env = "CLIENT_KEYS"\n' + SMALLEST.replace('host = "127.0.0.1"', ""))
    )
    monkeypatch.setenv("UPSTREAM_KEY", "sk-one\n")
    assert read_key(config, "default") == "sk-one"
    monkeypatch.setenv("CLIENT_KEYS", "a,b")
    assert read_client_keys(config) == (b"a", b"b")
    monkeypatch.setenv("CLIENT_KEYS", ",")
    with pytest.raises(DataError, match="CLIENT_KEYS holds no key"):
        read_client_keys(config)


@pytest.mark.parametrize("package", ["starlette", "httpx", "uvicorn"])
def test_a_missing_extra(
    cli: Any, router_file: Path, written: Any, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr("centroute.cli.serve.find_spec", lambda name: None if name == package else object())
    finished = cli("serve", router_file, "--config", written(UPSTREAM))
    finished.assert_refused(package, "pip install 'centroute[serve]'")


def test_every_key_is_described() -> None:
    described = (REPOSITORY / "docs" / "gateway.md").read_text()
    for kind in (GatewayConfig, UpstreamConfig, Limits, LogConfig, Conversation, Session):
        for key in fields(kind):
            assert (
                key.name in {"source", "name", "model"}
                or f"{key.name}`" in described
                or f"[{key.name}" in described
            ), key


def test_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = REPOSITORY / "examples" / "gateway"
    config = read_config(folder / "gateway.toml")
    compose = (folder / "compose.yaml").read_text()
    for variable in ("OPENAI_API_KEY", "GATEWAY_KEYS"):
        monkeypatch.setenv(variable, "key")
        assert f"{variable}: ${{{variable}:?" in compose
    assert (read_key(config, "default"), read_client_keys(config)) == ("key", (b"key",))
    assert f'"{config.port}:{config.port}"' in compose
    assert int(re.findall(r"stop_grace_period: (\d+)s", compose)[0]) > config.limits.drain_seconds


def test_help(cli: Any) -> None:
    finished = cli("serve", "--help")
    assert finished.code == 0
    assert "--config" in finished.out


def test_the_command_line_stays_light(plain_environment: dict[str, str]) -> None:
    loaded = (
        "import sys, centroute.cli; sys.exit(bool({'starlette', 'httpx', 'uvicorn'} & sys.modules.keys()))"
    )
    finished = subprocess.run([sys.executable, "-c", loaded], check=False, timeout=60, env=plain_environment)
    assert finished.returncode == 0
