"""TOML files of users: ``pool.toml`` and ``gateway.toml``, changed as values and as text."""

from __future__ import annotations

import copy
import functools
import json
import math
import random
import tempfile
from pathlib import Path
from typing import Any

from harness import main, mutated_bytes, tried

from centroute.gateway.config import read_config
from centroute.pool import read_pool

POOL: dict[str, Any] = {
    "models": {
        "gpt-5": {"input_usd_per_million": 1.25, "output_usd_per_million": 10.0, "tags": ["vision", "tools"],
                  "context_length": 400_000, "output_tokens": 350},
        "gpt-5@high": {"output_tokens": {"gsm8k": 2100, "mmlu": 900}, "effort": "high"},
    },
    "datasets": {"arc": {"output_tokens": 40}},
}  # fmt: skip
GATEWAY: dict[str, Any] = {
    "host": "127.0.0.1", "port": 8080, "workers": 2, "reload_seconds": 1.5, "api_keys_env": "KEYS",
    "policy": {"willingness_to_pay": 0.01, "deny": ["a"], "require": ["context>=100"], "fallback": "b"},
    "conversation": {"user_messages": 2, "system_share": 0.25},
    "session": {"switch_cost_usd": 0.1, "switch_quality": 0.02},
    "log": {"path": "decisions.jsonl", "sample": 0.5, "with_text": False},
    "limits": {"max_body_bytes": 1000, "body_seconds": 3.0, "max_concurrent": 5, "max_fallbacks": 1,
               "drain_seconds": 3},
    "upstreams": {
        "default": {"base_url": "https://api.example.com/v1", "api_key_env": "KEY", "retries": 2,
                    "retry_seconds": 0.1,
                    "connect_seconds": 1, "first_byte_seconds": 2, "read_seconds": 3, "max_connections": 4,
                    "breaker_failures": 3, "breaker_seconds": 9},
    },
    "models": {"a": {"upstream": "default", "as": "b"}},
}  # fmt: skip
ODD = [
    "true", "-1", "0",
    "1e400", "nan", "inf", "-inf", "9" * 30, "9" * 5000, '""', '" "', '"a\\nb"', '"\\u0000"',
    "[]",
    "{}", "[[[]]]", '["a", 1]', "1979-05-27T07:32:00Z", "07:32:00", "1979-05-27", "0x10", "0b1", "1_000",
    "[" * 2000 + "]" * 2000, "[" * 940 + "]" * 940, "{a=" * 300 + "1" + "}" * 300, '"' + "x" * 5000 + '"',
    '"http://user:pass@x/v1"', '"http://[::1"', '"http://x:99999/"', '"http://x:0/"', '"ftp://x"', '"http://\u00e9/"',
]  # fmt: skip


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-config-"))


def make(chance: random.Random) -> bytes:
    """Return ``pool`` or ``gateway``, a line feed, and a TOML file."""
    name, content = chance.choice((("pool", POOL), ("gateway", GATEWAY)))
    content = copy.deepcopy(content)
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        _change(chance, content)
    text = _toml(content).encode()
    return name.encode() + b"\n" + (mutated_bytes(chance, text) if chance.random() < 0.4 else text)


class Raw(str):
    """A value as TOML writes it."""

    __slots__ = ()


def _change(chance: random.Random, table: dict[str, Any]) -> None:
    key = chance.choice(list(table)) if table else "x"
    if isinstance(table.get(key), dict) and chance.random() < 0.85:
        _change(chance, table[key])
    elif chance.random() < 0.1:
        table.pop(key, None)
    elif chance.random() < 0.15:
        table[chance.choice(("", "x", "a.b", "é", "a\nb", "x" * 300))] = Raw(chance.choice(ODD))
    else:
        table[key] = Raw(chance.choice(ODD))


def _toml(table: dict[str, Any], prefix: str = "") -> str:
    lines = [
        f"{json.dumps(key)} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict)
    ]
    for key, value in table.items():
        if isinstance(value, dict):
            name = f"{prefix}.{json.dumps(key)}" if prefix else json.dumps(key)
            lines += [f"[{name}]", _toml(value, name)]
    return "\n".join(lines)


def _value(value: object) -> str:
    return str(value) if isinstance(value, Raw) else json.dumps(value)


def check(data: bytes) -> None:
    """What is read is within its limits."""
    kind, _, content = data.partition(b"\n")
    path = _folder() / "file.toml"
    path.write_bytes(content)
    if kind == b"pool":
        pool = tried(lambda: read_pool(path))
        for name in pool.entries if pool is not None else ():
            model = pool.model(name)
            for price in (model.input_usd_per_million, model.output_usd_per_million):
                assert price is None or 0 <= price < math.inf
            assert model.context_length is None or 0 < model.context_length < 2**63
        return
    config = tried(lambda: read_config(path))
    if config is not None:
        assert config.upstreams
        assert 0 <= config.port <= 65_535
        assert 1 <= config.workers <= 1024
        tried(lambda: config.check_models(("a", "b")))
        for upstream in config.upstreams.values():
            for seconds in (upstream.connect_seconds, upstream.first_byte_seconds, upstream.read_seconds):
                assert 0 < seconds < math.inf


if __name__ == "__main__":
    main("config", make, check)
