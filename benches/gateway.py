"""The gateway under load: ``python benches/gateway.py [--seconds S] [--reload-seconds S]``.

One ``centroute serve`` process, one upstream that answers at once, and the load generator share the machine.
Decisions a second and their latency come from wrk where it is installed, else from
a client of our own. The time that the gateway adds is the difference between the
same request sent to the upstream and through the gateway, one after the other on one connection each.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from centroute import Router
from centroute.calibrate import calibrate
from centroute.datasets import synthetic_outcomes

TEXT = "Write a Python function that returns the third item of a list, please"
CONNECTIONS = 32
KEY = "BENCH_UPSTREAM_KEY"


def main() -> None:
    """Measure all of it and print a table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=5.0, help="of load for each of the five runs")
    arguments.add_argument("--reload-seconds", type=float, default=60.0, help="of load with reloads")
    arguments.add_argument("--workers", type=int, default=1)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name, upstream_process() as upstream_port:
        folder = Path(name)
        router_file = write_router(folder)
        with gateway_process(folder, router_file, upstream_port, workers=given.workers) as port:
            decisions(port, router_file, seconds=given.seconds)
            added_latency(port, upstream_port)
            if given.reload_seconds:
                reloads(port, router_file, seconds=given.reload_seconds)


def write_router(folder: Path) -> Path:
    artifact = calibrate(
        synthetic_outcomes(n_queries=400), embedder="static-256", method="means",
        n_clusters=8, top_p=4, beta=9.0, surface_weight=0.0,
    )  # fmt: skip
    artifact.save(folder / "router.safetensors")
    return folder / "router.safetensors"


def decisions(port: int, router_file: Path, *, seconds: float) -> None:
    """Decisions a second, their latency, and how much of a request the router takes."""
    runs = [load(port, seconds=seconds) for _ in range(5)]
    for name, unit in (("requests_a_second", ""), ("p50_ms", " ms"), ("p99_ms", " ms")):
        values = [run[name] for run in runs]
        print(f"/v1/route, {CONNECTIONS} connections, {name}: {median(values):,.2f}{unit}  {spread(values)}")
    print(f"  failed requests: {sum(run['n_failed'] for run in runs):.0f}; by {runs[0]['by']}")
    routing_us = median(asyncio.run(times_ns(Router.load(router_file)))) / 1e3
    # With more connections than cores the gateway is never idle: a request takes it the inverse of the rate.
    request_us = 1e6 / median([run["requests_a_second"] for run in runs])
    print(f"  router: {routing_us:.1f} µs of {request_us:.0f} µs a request, {routing_us / request_us:.1%}")


async def times_ns(router: Router) -> list[int]:
    """Nanoseconds of single decisions, as the gateway asks for them."""
    times = []
    await router.aroute(TEXT)
    for _ in range(20_000):
        started = time.perf_counter_ns()
        await router.aroute(TEXT)
        times.append(time.perf_counter_ns() - started)
    return times


def added_latency(port: int, upstream_port: int, *, n_pairs: int = 2000) -> None:
    """What the gateway adds to one request, whole and to the first byte of a stream."""
    for name, body in (("whole answer", chat_body()), ("first byte of a stream", chat_body(stream=True))):
        with (
            socket.create_connection(("127.0.0.1", upstream_port)) as direct,
            socket.create_connection(("127.0.0.1", port)) as through,
        ):
            connections = {"direct": direct, "through": through}
            times: dict[str, list[float]] = {"direct": [], "through": []}
            for round_number in range(n_pairs + 50):
                for way, connection in connections.items():
                    first_ms, whole_ms = exchange(connection, body)
                    if round_number >= 50:
                        times[way].append(whole_ms if name == "whole answer" else first_ms)
        added = median(times["through"]) - median(times["direct"])
        p99 = np.percentile(times["through"], 99) - np.percentile(times["direct"], 99)
        print(
            f"added to a {name}: {added:.2f} ms (direct {median(times['direct']):.2f}, "
            f"through {median(times['through']):.2f}; at the 99th percentile {p99:+.2f})"
        )


def reloads(port: int, router_file: Path, *, seconds: float) -> None:
    """Replace the router file every 100 ms under load; no request may fail."""
    first = generation(port)
    done = threading.Event()
    artifact = Router.load(router_file).artifact

    def replace() -> None:
        due = time.monotonic()
        while not done.wait(max(0.0, due - time.monotonic())):
            artifact.save(router_file)
            due += 0.1

    replacing = threading.Thread(target=replace)
    replacing.start()
    run = load(port, seconds=seconds)
    done.set()
    replacing.join()
    print(
        f"reloads: {generation(port) - first} in {seconds:g} s, {run['requests_a_second']:,.0f} requests/s, "
        f"p99 {run['p99_ms']:.1f} ms, failed requests: {run['n_failed']:.0f}"
    )


def load(port: int, *, seconds: float) -> dict[str, float | str]:
    """Ask for decisions from ``CONNECTIONS`` connections at once."""
    if shutil.which("wrk"):
        return wrk(port, seconds=seconds)
    return own_load(port, seconds=seconds)


WRK_DONE = """
done = function(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format("FIGURES %d %d %d %d %d %d\\n", summary.requests, summary.duration,
        latency:percentile(50), latency:percentile(99), errors.status,
        errors.connect + errors.read + errors.write + errors.timeout))
end
"""


def wrk(port: int, *, seconds: float) -> dict[str, float | str]:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f"wrk.method = 'POST'\nwrk.body = '{json.dumps({'input': TEXT})}'\n")
        script.write(WRK_DONE)
        script.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "-s", script.name]
        out = subprocess.run(
            [*command, f"http://127.0.0.1:{port}/v1/route"], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"FIGURES (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", out)
    assert found, out
    n, duration_us, p50_us, p99_us, n_status, n_socket = map(int, found.groups())
    return {
        "requests_a_second": n / duration_us * 1e6,
        "p50_ms": p50_us / 1e3,
        "p99_ms": p99_us / 1e3,
        "n_failed": n_status + n_socket,
        "by": "wrk",
    }


def own_load(port: int, *, seconds: float) -> dict[str, float | str]:
    """The same by threads of this process, which take more of the machine than wrk does."""
    request = post("/v1/route", json.dumps({"input": TEXT}).encode())
    times: list[float] = []
    failed: list[str] = []
    until = time.perf_counter() + seconds

    def ask() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            while (started := time.perf_counter()) < until:
                connection.sendall(request)
                head, _ = read_answer(connection)
                times.append((time.perf_counter() - started) * 1e3)
                if b" 200 " not in head[:20]:
                    failed.append(head.decode("latin-1"))

    threads = [threading.Thread(target=ask) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "requests_a_second": len(times) / seconds,
        "p50_ms": float(np.percentile(times, 50)),
        "p99_ms": float(np.percentile(times, 99)),
        "n_failed": len(failed),
        "by": "threads of the bench itself",
    }


def chat_body(*, stream: bool = False) -> bytes:
    return json.dumps(
        {"model": "auto", "messages": [{"role": "user", "content": TEXT}], "stream": stream}
    ).encode()


def post(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def exchange(connection: socket.socket, body: bytes) -> tuple[float, float]:
    """Milliseconds to the first byte of the answer's body and to its end."""
    started = time.perf_counter()
    connection.sendall(post("/v1/chat/completions", body))
    head, first_at = read_answer(connection)
    assert b" 200 " in head[:20], head
    return (first_at - started) * 1e3, (time.perf_counter() - started) * 1e3


def read_answer(connection: socket.socket) -> tuple[bytes, float]:
    """Head of an answer, and when the first byte of its body was here; reads to its end."""
    received = b""
    first_at = 0.0
    while True:
        chunk = connection.recv(65_536)
        assert chunk, "the connection was closed"
        received += chunk
        head, separator, body = received.partition(b"\r\n\r\n")
        if body and not first_at:
            first_at = time.perf_counter()
        length = re.search(rb"content-length: (\d+)", head)
        if separator and (len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")):
            return head, first_at


def generation(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(post("/v1/route", json.dumps({"input": TEXT}).encode()))
        head, _ = read_answer(connection)
    found = re.search(rb"x-centroute-generation: (\d+)", head)
    assert found, head
    return int(found[1])


@contextmanager
def gateway_process(folder: Path, router_file: Path, upstream_port: int, *, workers: int) -> Iterator[int]:
    """``centroute serve``, and its port."""
    config = folder / "gateway.toml"
    config.write_text(
        f"port = 0\nworkers = {workers}\nreload_seconds = 0.05\n[upstreams.default]\n"
        f'base_url = "http://127.0.0.1:{upstream_port}/v1"\napi_key_env = "{KEY}"\n'
    )
    command = [
        str(Path(sys.executable).with_name("centroute")),
        "serve",
        str(router_file),
        "--config",
        str(config),
    ]
    environment = {**os.environ, KEY: "sk-bench-000000"}
    with (folder / "log.txt").open("w") as log:
        # Reloads are logged, a line each.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    try:
        assert process.stdout
        line = process.stdout.readline()
        found = re.search(r":(\d+)$", line.strip())
        assert found, line
        yield int(found[1])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=40)


@contextmanager
def upstream_process() -> Iterator[int]:
    """A server that answers every request at once, whole or as a stream, and its port."""
    process = subprocess.Popen([sys.executable, "-c", UPSTREAM], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(timeout=10)


UPSTREAM = r"""
import asyncio, json, re

message = {"role": "assistant", "content": "word " * 60}
answer = json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 20, "completion_tokens": 60, "total_tokens": 80}}).encode()
head = b"HTTP/1.1 200 OK\r\ncontent-type: "
whole = head + b"application/json\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer
event = b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
chunk = b"%x\r\n%s\r\n" % (len(event), event)
start = head + b"text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + chunk
rest = chunk * 19 + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"

class Upstream(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.received = transport, b""

    def data_received(self, data):
        self.received += data
        lines, separator, body = self.received.partition(b"\r\n\r\n")
        if separator and len(body) >= int(re.search(rb"content-length: (\d+)", lines.lower())[1]):
            self.received = b""
            if b'"stream": true' in body:
                self.transport.write(start)
                asyncio.get_running_loop().call_later(0.002, self.transport.write, rest)
            else:
                self.transport.write(whole)

async def main():
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

try:
    import uvloop
    uvloop.run(main())
except ImportError:
    asyncio.run(main())
"""


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: list[float]) -> str:
    return f"({min(values):,.2f} to {max(values):,.2f} in {len(values)} runs)"


if __name__ == "__main__":
    main()
