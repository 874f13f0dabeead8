"""Faults of the machine: full disks, killed processes, too little memory, missing libraries, clocks."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from centroute import Artifact, EmbedderError, Router
from centroute.bundle import read_bundle, write_bundle, write_bundle_tar
from centroute.datasets import Outcomes, write_jsonl
from centroute.decision_log import DecisionLog
from centroute.embedders import Embedder, bundled_folder
from centroute.embedders.cache import whole_folder
from centroute.logged_decisions import read_decisions
from centroute.session import Session

OLD = b"the old one"
FIT = ("--clusters", 2, "--method", "means", "--holdout", 0, "--surface-weight", 0)


@pytest.fixture(scope="module")
def router(router_file: Path) -> Router:
    return Router.load(router_file)


def arguments(
    command: str, folder: Path, router_file: Path, outcomes_file: Path, artifact: Artifact
) -> list[str]:
    """A command line that writes ``folder / "out"``."""
    out = folder / "out"
    lines: dict[str, list[object]] = {
        "calibrate": ["calibrate", outcomes_file, "-o", out, *FIT],
        "edit": ["edit", router_file, "drop-model", artifact.models[-1].name, "-o", out],
        "export": ["export", router_file, "-o", out],
    }
    return [str(part) for part in lines[command]]


COMMANDS = ["calibrate", "edit", "export"]


def run_limited(code: str, argv: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, after some code."""
    text = f"import sys\n{code}\nfrom centroute.cli import main\nmain()\n"
    return subprocess.run(
        [sys.executable, "-c", text, *argv], capture_output=True, text=True, timeout=100, check=False, **more
    )


def assert_one_line(done: subprocess.CompletedProcess[str], *named: str) -> None:
    assert done.returncode == 1, (done.returncode, done.stderr[-2000:])
    assert len(done.stderr.splitlines()) == 1, done.stderr[-2000:]
    assert done.stderr.startswith("centroute: ")
    for name in named:
        assert name in done.stderr


# Disks.


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_may_not_grow(
    command: str, router_file: Path, outcomes_file: Path, artifact: Artifact, tmp_path: Path
) -> None:
    """A limit of the system on the size of files fails within a write, as a full disk does."""
    out = tmp_path / "out"
    if command == "export":
        shutil.copytree(bundled_folder("static-256"), tmp_path / "kept")
    else:
        out.write_bytes(OLD)
    done = run_limited(
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))",
        arguments(command, tmp_path, router_file, outcomes_file, artifact),
    )
    assert_one_line(done, str(out), "cannot be written", "too large")
    assert sorted(path.name for path in tmp_path.iterdir()) == (["kept"] if command == "export" else ["out"])
    if command != "export":
        assert out.read_bytes() == OLD


def can_mount() -> bool:
    found = shutil.which("unshare") is not None
    return (
        found and subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not can_mount(), reason="no user may mount a small disk here")
@pytest.mark.parametrize(("options", "reason"), [("size=16k", "no space left"), ("size=4m,ro", "read-only")])
def test_a_full_and_a_read_only_disk(
    options: str, reason: str, router_file: Path, artifact: Artifact, command: str, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    # Written before the disk is full or read-only, and read before it is gone.
    steps = [
        f"mount -t tmpfs -o {options.replace(',ro', '')} tmpfs {disk}",
        f"printf '{OLD.decode()}' > {disk}/out",
        f"mount -o remount,{options} {disk}",
        f"{command} edit {router_file} drop-model {artifact.models[-1].name} -o {disk}/out",
        "code=$?",
        f"ls -A {disk}; cat {disk}/out; exit $code",
    ]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", "\n".join(steps)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert_one_line(done, f"{disk}/out: cannot be written", reason)
    assert done.stdout == f"out\n{OLD.decode()}"


def test_a_log_on_a_full_disk_loses_decisions_and_nothing_else(
    router: Router, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    decision = router.route("2 + 2?")
    with caplog.at_level(logging.ERROR), DecisionLog("/dev/full") as log:
        for _ in range(10):
            log.record(decision)
    assert (log.n_written, log.n_dropped) == (0, 10)
    assert [record.getMessage() for record in caplog.records] == [
        "/dev/full: decisions are lost: No space left on device"
    ]


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_line_that_a_full_disk_cut_off_is_left_out_of_the_log(
    router: Router, tmp_path: Path, cut: int
) -> None:
    """Wherever it is cut: behind a bracket, too."""
    path = tmp_path / "log.jsonl"
    decision = router.route("2 + 2?")
    with DecisionLog(path) as log:
        log.record(decision, decision_id="first")
    line = path.read_bytes()
    path.write_bytes(line + line[: -cut * 4])
    with DecisionLog(path) as log:
        log.record(decision, decision_id="last")
    found = [entry.decision_id for entry in read_decisions(path)]
    assert found in (["first", "last"], ["first", "first", "last"])


def test_a_line_that_is_whole_but_for_its_end_is_kept(router: Router, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with DecisionLog(path) as log:
        log.record(router.route("2 + 2?"), decision_id="first")
    path.write_bytes(path.read_bytes().rstrip())
    with DecisionLog(path) as log:
        log.record(router.route("2 + 2?"), decision_id="last")
    assert [entry.decision_id for entry in read_decisions(path)] == ["first", "last"]


# Killed processes and power cuts.


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _patched(point: str, n_calls: int) -> Any:
    """Kill this process at the n-th call of a function of the system, before or after its work."""
    module, name = (shutil, "rmtree") if point == "rmtree" else (os, point.removeprefix("after_"))
    real, calls = getattr(module, name), iter(range(10_000))

    def call(*given: Any, **named: Any) -> Any:
        is_last = next(calls) == n_calls
        if is_last and not point.startswith("after_"):
            _die()
        result = real(*given, **named)
        if is_last:
            _die()
        return result

    return mock.patch.object(module, name, call)


def _in_child(action: Callable[[], object]) -> int:
    """How a forked child ended that did something; it never comes back."""
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("point", ["fsync", "replace", "after_replace"])
def test_killed_while_a_router_is_written(
    point: str, artifact: Artifact, router_file: Path, tmp_path: Path
) -> None:
    """Calibrate and edit write through this: the old file or the new one, and a name that nothing reads."""
    from dataclasses import replace

    out = tmp_path / "router.safetensors"
    shutil.copy(router_file, out)
    other = replace(artifact, beta=artifact.beta + 1)

    def save() -> None:
        with _patched(point, 0):
            other.save(out)

    assert _in_child(save) == -signal.SIGKILL
    loaded = Artifact.load(out)
    assert loaded.beta == (other.beta if point == "after_replace" else artifact.beta)
    beside = [path.name for path in tmp_path.iterdir() if path != out]
    assert all(name.startswith(".") and name.endswith(".part") for name in beside)
    other.save(out)
    assert Artifact.load(out).beta == other.beta


def test_killed_within_a_write(artifact: Artifact, router_file: Path, tmp_path: Path) -> None:
    """Half of a file is on the disk and has another name."""
    from centroute._atomic import atomic_file

    out = tmp_path / "router.safetensors"
    shutil.copy(router_file, out)

    def write() -> None:
        with atomic_file(out) as file:
            file.write(artifact.to_bytes()[:1000])
            file.flush()
            _die()

    assert _in_child(write) == -signal.SIGKILL
    assert out.read_bytes() == router_file.read_bytes()


@pytest.fixture(scope="module")
def bundles(router_file: Path, artifact: Artifact) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Files of two bundles, made as export makes them."""
    from dataclasses import replace

    from centroute.bundle import pack_bundle

    folder = bundled_folder("static-256")
    other = replace(artifact, beta=artifact.beta + 1).to_bytes()
    return pack_bundle(router_file.read_bytes(), embedder=folder), pack_bundle(other, embedder=folder)


@pytest.mark.parametrize("tar", [False, True])
@pytest.mark.parametrize("point", ["fsync", "replace", "after_replace", "rename", "after_rename", "rmtree"])
def test_killed_while_a_bundle_is_replaced(
    point: str, tar: bool, bundles: tuple[dict[str, bytes], dict[str, bytes]], tmp_path: Path
) -> None:
    """At every call of its kind: one of the two bundles is there, whole, under its name."""
    place = tmp_path / "bundle"
    write = write_bundle_tar if tar else write_bundle
    old, new = bundles
    write(old, place)
    n_killed = 0
    for n_calls in range(30):

        def replace_it(n_calls: int = n_calls) -> None:
            with _patched(point, n_calls):
                write(new, place)

        code = _in_child(replace_it)
        assert code in (0, -signal.SIGKILL)
        if tar:
            content = place.read_bytes()
            assert old["router.safetensors"] in content or new["router.safetensors"] in content
        else:
            found = read_bundle(place).router.read_bytes()
            assert found in (old["router.safetensors"], new["router.safetensors"])
        for left in tmp_path.iterdir():
            assert left == place or left.name.startswith(".")
        if code == 0:
            break
        n_killed += 1
        write(old, place)
    else:
        pytest.fail("it never came to an end")
    uses_it = not (tar and ("rename" in point or point == "rmtree"))
    assert (n_killed > 0) == uses_it


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is asked of the disk, in order: which file is synced, and which name is given."""
    recorded: list[tuple[str, str]] = []
    real = {name: getattr(os, name) for name in ("fsync", "replace", "rename")}

    def fsync(handle: int) -> None:
        recorded.append(("fsync", Path(f"/proc/self/fd/{handle}").readlink().name))
        real["fsync"](handle)

    def renamed(name: str) -> Callable[..., None]:
        def call(source: Any, target: Any, **more: Any) -> None:
            recorded.append(("rename", Path(target).name))
            real[name](source, target, **more)

        return call

    monkeypatch.setattr(os, "fsync", fsync)
    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, renamed(name))
    return recorded


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no names of open files")
def test_order_in_which_a_power_cut_finds_things(
    calls: list[tuple[str, str]],
    artifact: Artifact,
    outcomes: Outcomes,
    bundles: tuple[dict[str, bytes], dict[str, bytes]],
    tmp_path: Path,
) -> None:
    """The content is on the disk before it has its name, and the name before anybody is told."""
    for write in (
        lambda: artifact.save(tmp_path / "file"),
        lambda: write_jsonl(outcomes, tmp_path / "file.jsonl"),
        lambda: write_bundle_tar(bundles[0], tmp_path / "file.tar"),
    ):
        calls.clear()
        write()
        (first, part), (second, name), (third, folder) = calls
        assert (first, second, third) == ("fsync", "rename", "fsync")
        assert part == f".{name}.{part[-13:-5]}.part"
        assert folder == tmp_path.name

    for write_folder in (
        lambda: write_bundle(bundles[0], tmp_path / "bundle"),
        lambda: _cached(tmp_path / "bundle"),
    ):
        calls.clear()
        write_folder()
        assert calls[-2:] == [("rename", "bundle"), ("fsync", tmp_path.name)]
        files = [name for kind, name in calls[:-2] if kind == "rename"]
        assert len(files) >= 1
        shutil.rmtree(tmp_path / "bundle")


def _cached(folder: Path) -> None:
    from centroute._atomic import write_atomic

    with whole_folder(folder) as new:
        write_atomic(new / "file", b"content")


def test_a_disk_that_cannot_exchange_names(
    monkeypatch: pytest.MonkeyPatch, bundles: tuple[dict[str, bytes], dict[str, bytes]], tmp_path: Path
) -> None:
    monkeypatch.setattr("centroute._atomic._exchange", lambda *_: False)
    place = tmp_path / "bundle"
    write_bundle(bundles[0], place)
    write_bundle(bundles[1], place)
    assert read_bundle(place).router.read_bytes() == bundles[1]["router.safetensors"]
    assert list(tmp_path.iterdir()) == [place]


# Memory.

LIMIT = (
    "import resource, pathlib, centroute.cli.{module}\n"
    "most = 4096 * int(pathlib.Path('/proc/self/statm').read_text().split()[0]) + {more}\n"
    "resource.setrlimit(resource.RLIMIT_AS, (most, most))"
)


def test_too_little_memory_for_a_router(router_file: Path, tmp_path: Path) -> None:
    """Its header is sound, and its tensors would be gigabytes, none of which is read."""
    data = router_file.read_bytes()
    big = tmp_path / "router.safetensors"
    big.write_bytes(data)
    with big.open("r+b") as file:
        file.truncate(3 << 30)
    done = run_limited(LIMIT.format(module="inspect", more=256 << 20), ["inspect", str(big)])
    assert_one_line(done, str(big), "not enough memory", str(3 << 30))


def test_too_little_memory_for_outcomes(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    row = {"query": "x" * 500_000, "scores": {"a": 1, "b": 0}}
    data.write_text("".join(json.dumps({**row, "id": str(number)}) + "\n" for number in range(120)))
    done = run_limited(
        LIMIT.format(module="calibrate", more=30 << 20),
        ["calibrate", str(data), "-o", str(tmp_path / "out"), *map(str, FIT)],
    )
    assert_one_line(done, "not enough memory")
    assert list(tmp_path.iterdir()) == [data]


# Libraries and devices.


@pytest.mark.parametrize(
    ("package", "content", "argv", "named"),
    [
        (
            "onnxruntime",
            None,
            ["embed", "check", "{folder}"],
            "onnxruntime is not installed: pip install onnxruntime",
        ),
        (
            "onnxruntime",
            "raise ImportError('libonnx.so: cannot open shared object file')",
            ["embed", "check", "{folder}"],
            "onnxruntime is installed and cannot be loaded: libonnx.so: cannot open shared object file",
        ),
        (
            "onnxruntime",
            "raise OSError('bad ELF')",
            ["embed", "check", "{folder}"],
            "cannot be loaded: bad ELF",
        ),
        (
            "pyarrow",
            "raise ImportError('libarrow.so')",
            ["calibrate", "{data}", "--check"],
            "cannot be loaded: libarrow.so",
        ),
    ],
)
def test_a_library_that_is_missing_or_broken(
    package: str, content: str | None, argv: list[str], named: str, tmp_path: Path
) -> None:
    tiny_embedder = pytest.importorskip("tiny_embedder")
    folder, data = tmp_path / "embedder", tmp_path / "data.parquet"
    folder.mkdir()
    data.write_bytes(b"PAR1")
    (folder / "model.onnx").write_bytes(tiny_embedder.graph().SerializeToString())
    (folder / "tokenizer.json").write_text(tiny_embedder.tokenizer().to_str())
    code = f"sys.modules[{package!r}] = None"
    if content is not None:
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / f"{package}.py").write_text(content)
        code = f"sys.path.insert(0, {str(tmp_path / 'broken')!r})"
    done = run_limited(code, [part.format(folder=folder, data=data) for part in argv])
    assert_one_line(done, named)


def test_a_device_that_goes_away(tmp_path: Path) -> None:
    """The call that meets it says so; the next one works where the device is back."""
    tiny_embedder = pytest.importorskip("tiny_embedder")
    from centroute.embedders import load_embedder

    (tmp_path / "model.onnx").write_bytes(tiny_embedder.graph().SerializeToString())
    (tmp_path / "tokenizer.json").write_text(tiny_embedder.tokenizer().to_str())
    embedder: Any = load_embedder(tmp_path, device="cpu")
    rows = embedder.embed(["river"])

    def lost(*_: object) -> None:
        raise RuntimeError(
            "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 719: unspecified launch failure\nat line 2"
        )

    with mock.patch.object(type(embedder._graph), "run", lost), pytest.raises(EmbedderError) as refused:
        embedder.embed(["river"])
    assert str(refused.value) == (
        f"embedder {embedder.name}: cannot be run on a text of 3 tokens: [ONNXRuntimeError] : 1 : FAIL : "
        "CUDA failure 719: unspecified launch failure"
    )
    assert np.array_equal(embedder.embed(["river"]), rows)


# Clocks.


@pytest.mark.parametrize("jump", [-1e9, 1e9, 1e15, -1e15, float("inf")])
def test_a_clock_that_jumps(jump: float, router: Router, embedder: Embedder, tmp_path: Path) -> None:
    """Decisions, sessions and the log go on; a time that no calendar has costs the one line, not the log."""
    path = tmp_path / "log.jsonl"
    expected = router.route("2 + 2?").model
    session = Session(switch_cost_usd=0.002)
    real = time.time
    with DecisionLog(path) as log:
        with mock.patch("time.time", side_effect=lambda: real() + jump):
            decision = router.route("2 + 2?", session=session)
            assert decision.model == expected
            log.record(decision, decision_id="jumped")
        wait_until(lambda: log.n_written + log.n_dropped == 1)
        log.record(decision, decision_id="after")
    found = [entry.decision_id for entry in read_decisions(path)]
    assert found == (["jumped", "after"] if abs(jump) < 1e10 else ["after"])


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for ten seconds at most."""
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_router_file_of_an_earlier_time_is_still_noticed(
    artifact: Artifact, router_file: Path, embedder: Embedder, tmp_path: Path
) -> None:
    """As after a jump of the clock, or where an old file is put back with its times."""
    from dataclasses import replace

    path = tmp_path / "router.safetensors"
    shutil.copy(router_file, path)
    watched = Router.load(path)
    other = tmp_path / "other"
    replace(artifact, beta=artifact.beta + 1).save(other)
    os.utime(other, (0, 0))
    with watched.watch(interval=0.01):
        other.replace(path)
        wait_until(lambda: watched.generation == 2)
    assert watched.beta == artifact.beta + 1


def test_a_log_told_what_is_no_text(router: Router, tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.jsonl", with_text=True) as log:
        with pytest.raises(TypeError, match="text must be str, got list"):
            log.record(router.route("2 + 2?"), text=["2 + 2?"])  # type: ignore[arg-type]
        log.record(router.route("2 + 2?"), text="2 + 2?")
    assert log.n_written == 1


# Clients.

N_SLOW = 300


def test_hundreds_of_slow_clients(
    command: str, plain_environment: dict[str, str], router_file: Path, tmp_path: Path
) -> None:
    """They send a head and no body: others are answered, the slow ones are told and let go."""
    pytest.importorskip("uvicorn")
    from test_gateway_process import serving

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4 * N_SLOW:
        pytest.skip(f"only {hard} files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4 * N_SLOW), hard))
    config = 'port = 0\n[limits]\nbody_seconds = 1\n[upstreams.default]\nbase_url = "http://127.0.0.1:9/v1"\n'
    with serving(command, plain_environment, router_file, tmp_path, config) as served, ExitStack() as stack:
        import httpx

        def decide() -> int:
            return httpx.post(f"{served.url}/route", json={"input": "2 + 2?"}, timeout=20).status_code

        assert decide() == 200
        handles = Path(f"/proc/{served.process.pid}/fd")
        n_before = len(list(handles.iterdir())) if handles.exists() else 0
        clients = []
        for _ in range(N_SLOW):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=20))
            client.sendall(b"POST /v1/route HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            clients.append(client)
        assert decide() == 200
        for client in clients:
            assert client.recv(100).startswith(b"HTTP/1.1 408 ")
            client.close()
        if n_before:
            wait_until(lambda: len(list(handles.iterdir())) <= n_before + 5)
        assert served.end() == 0
        assert "Traceback" not in served.log_file.read_text()
