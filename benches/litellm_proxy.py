"""What centroute costs a LiteLLM proxy: ``python benches/litellm_proxy.py PYTHON``.

PYTHON is the interpreter of an environment with ``litellm[proxy]`` and centroute. Two proxies, one with the
hook, stand before one upstream on loopback. They take turns under the same load, asked for ``auto`` and for a
model by its name; the table has medians of the blocks and of the ratio to the block beside it without the
hook. A proxy is one process that keeps one core busy: the processor time that it takes a request is what its
requests a second come to, and is less moved by what else the machine does.
"""

import asyncio
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from centroute import Router
from centroute.calibrate import calibrate
from centroute.datasets import synthetic_outcomes

N_CONNECTIONS = 16
BLOCK_SECONDS = 1.0
N_ROUNDS = 60
KEY = f"sk-{secrets.token_hex(32)}"

HOOK = """
from centroute.integrations.litellm import CentrouteHook

hook = CentrouteHook({file!r}, n_fallbacks=2)
"""

UPSTREAM = """
import asyncio, json, sys

async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\\r\\n")[0])
            model = json.loads(await reader.readexactly(length))["model"]
            choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
            body = json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": model,
                "choices": [choice],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}).encode()
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: "
                         + str(len(body)).encode() + b"\\r\\n\\r\\n" + body)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

asyncio.run(main())
"""


def main() -> None:
    """Measure and print."""
    python = sys.argv[1]
    with tempfile.TemporaryDirectory() as name, ExitStack() as processes:
        folder = Path(name)
        file = folder / "router.safetensors"
        calibrate(synthetic_outcomes(n_queries=500), method="means", n_clusters=64, surface_weight=0.0).save(
            file
        )
        (folder / "centroute_hook.py").write_text(HOOK.format(file=str(file)))
        models = Router.load(file).models
        upstream, plain, hooked = _free_port(), _free_port(), _free_port()
        processes.enter_context(_process([sys.executable, "-c", UPSTREAM, str(upstream)], folder))
        pids = {}
        for port, callbacks in ((plain, {}), (hooked, {"callbacks": "centroute_hook.hook"})):
            _configure(folder / f"{port}.yaml", models, upstream, callbacks)
            command = [
                python,
                "-c",
                "from litellm import run_server; run_server()",
                "--config",
                f"{port}.yaml",
            ]
            command += ["--host", "127.0.0.1", "--port", str(port)]
            pids[port] = processes.enter_context(_process(command, folder))
        for port in (plain, hooked):
            _wait_for(port)
        arms = {
            "without the hook, by name": (plain, models[0]),
            "with the hook, auto": (hooked, "auto"),
            "without the hook, again": (plain, models[0]),
        }
        for port, model in arms.values():
            asyncio.run(_load(port, model))
        rates: dict[str, list[float]] = {arm: [] for arm in arms}
        costs: dict[str, list[float]] = {arm: [] for arm in arms}
        for number in range(N_ROUNDS):
            for arm in list(arms) if number % 2 else reversed(arms):
                port, model = arms[arm]
                before = _processor_seconds(pids[port])
                n_answers = asyncio.run(_load(port, model))
                rates[arm].append(n_answers / BLOCK_SECONDS)
                costs[arm].append(1e3 * (_processor_seconds(pids[port]) - before) / n_answers)
        print(f"{N_CONNECTIONS} connections, medians of {N_ROUNDS} blocks of {BLOCK_SECONDS:g} s")
        for arm in arms:
            rate, cost = statistics.median(rates[arm]), statistics.median(costs[arm])
            print(
                f"  {arm:28} {rate:8.1f} requests/s {_change(rates, arm):+6.1f} %"
                f"{cost:10.2f} ms of processor a request {_change(costs, arm):+6.1f} %"
            )


def _change(measured: dict[str, list[float]], arm: str) -> float:
    """By how many per cent an arm exceeds the first, block by block."""
    base = next(iter(measured.values()))
    return 100 * (statistics.median(one / other for one, other in zip(measured[arm], base, strict=True)) - 1)


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _configure(file: Path, models: tuple[str, ...], upstream: int, settings: dict[str, str]) -> None:
    base = f"http://127.0.0.1:{upstream}/v1"
    config = {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {"model": f"openai/{name}", "api_base": base, "api_key": "x"},
            }
            for name in models
        ],
        "litellm_settings": {"telemetry": False, **settings},
    }
    file.write_text(json.dumps(config))


class _process:  # noqa: N801 - used as a function
    """A process that ends with the block."""

    def __init__(self, command: list[str], folder: Path) -> None:
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": KEY}
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> int:
        return self._process.pid

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_for(port: int) -> None:
    stop = time.monotonic() + 120
    while True:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        assert time.monotonic() < stop, f"nothing listens on {port}"
        time.sleep(0.2)


async def _load(port: int, model: str) -> int:
    """Requests that were answered over all connections."""
    stop = time.perf_counter() + BLOCK_SECONDS
    counts = await asyncio.gather(*(_ask_on(port, model, stop) for _ in range(N_CONNECTIONS)))
    return sum(counts)


async def _ask_on(port: int, model: str, stop: float) -> int:
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": "Prove that the root of two is irrational."}],
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    n_answers = 0
    while time.perf_counter() < stop:
        writer.write(head + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        content = await reader.readexactly(length)
        assert answer.startswith(b"HTTP/1.1 200"), (answer, content)
        n_answers += 1
    writer.close()
    return n_answers


if __name__ == "__main__":
    main()
