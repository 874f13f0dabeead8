"""Nothing reaches for the network at import, load, calibration or routing; only ``centroute serve`` does."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from centroute import Artifact

REFUSED = (
    "import sys\n"
    "def refuse(event, arguments):\n"
    "    if event in {'socket.connect', 'socket.bind', 'socket.getaddrinfo', 'socket.gethostbyname',\n"
    "                 'socket.sendto', 'socket.sendmsg', 'urllib.Request', 'subprocess.Popen'}:\n"
    "        raise RuntimeError(f'{event} {arguments}')\n"
    "sys.addaudithook(refuse)\n"
)
WORK = (
    "import asyncio\n"
    "import centroute\n"
    "router = centroute.Router.load(sys.argv[1])\n"
    "print(router.route('Prove that 2 is even').model)\n"
    "asyncio.run(router.aroute([{'role': 'user', 'content': 'Prove that 2 is even'}]))\n"
    "router.route_batch(['one', 'two'], threads=2)\n"
)
MORE = (
    "from centroute.embedders import load_embedder\n"
    "load_embedder('static-256', runtime='onnx', device='cpu').embed(['one', 'two'])\n"
    "from centroute.calibrate import calibrate\n"
    "from centroute.datasets import synthetic_outcomes\n"
    "calibrate(synthetic_outcomes(n_queries=60), method='means', n_clusters=2, surface_weight=0.0)\n"
)


def run(code: str, router_file: Path, *before: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-c", code, str(router_file)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("more", ["", MORE], ids=["routing", "embedding and calibrating"])
def test_sockets_are_not_needed(more: str, router_file: Path) -> None:
    done = run(REFUSED + WORK + more, router_file)
    assert done.returncode == 0, done.stderr


def test_a_socket_would_be_noticed(router_file: Path) -> None:
    """The test above could fail."""
    done = run(REFUSED + "import socket; socket.create_connection(('127.0.0.1', 9))", router_file)
    assert done.returncode == 1
    assert "socket." in done.stderr


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_native_code_connects_nowhere(router_file: Path, tmp_path: Path) -> None:
    """What the extension and ONNX Runtime ask of the system, which Python does not see."""
    calls = tmp_path / "calls"
    done = run(
        "import sys\n" + WORK + MORE,
        router_file,
        *("strace", "-f", "-qq", "-e", "trace=connect,bind,sendto,sendmsg", "-o", str(calls)),
    )
    if "ptrace" in done.stderr and done.returncode != 0:
        pytest.skip("tracing is not allowed")
    assert done.returncode == 0, done.stderr
    reached = [line for line in calls.read_text().splitlines() if "AF_INET" in line]
    assert reached == []


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_are_as_private_as_the_user_asks(mask: int, artifact: Artifact, tmp_path: Path) -> None:
    """Router files and logs follow the umask, as any other file does."""
    from centroute.decision_log import DecisionLog

    before = os.umask(mask)
    try:
        artifact.save(tmp_path / "router.safetensors")
        DecisionLog(tmp_path / "log.jsonl").close()
    finally:
        os.umask(before)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
