"""Shared by the tests: a small sample, a router calibrated on it, and two ways to run the command line."""

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray

from centroute import Artifact
from centroute.datasets import Outcomes, synthetic_outcomes, write_jsonl

DTYPES = {"float16": "F16", "float32": "F32", "float64": "F64", "int32": "I32"}
# Settings of the terminal in which the tests run would change what a pipe gets to see.
TERMINAL_VARIABLES = frozenset(
    {"COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "PY_COLORS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
    | {"GITHUB_ACTIONS", "PYTHONIOENCODING", "PYTHONUTF8", "PYTHONWARNINGS"}
)


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run of the command line left behind."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Standard output read as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    def assert_refused(self, *named: str) -> None:
        """One line on stderr that names all of ``named``, exit code 1, no traceback."""
        assert self.code == 1, (self.code, self.err)
        assert self.err.startswith("centroute: ")
        assert self.err.endswith("\n")
        assert len(self.err.splitlines()) == 1, self.err
        assert "Traceback" not in self.err
        for name in named:
            assert name in self.err, self.err

    def assert_wrong_usage(self, *named: str) -> None:
        """Exit code 2, and a message that names all of ``named``."""
        assert self.code == 2, (self.code, self.err)
        assert self.out == ""
        assert "Traceback" not in self.err
        for name in named:
            assert name in self.err, self.err


Cli = Callable[..., Finished]


@pytest.fixture(scope="session")
def outcomes() -> Outcomes:
    return synthetic_outcomes(n_queries=240)


@pytest.fixture(scope="session")
def outcomes_file(outcomes: Outcomes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("outcomes") / "outcomes.jsonl"
    write_jsonl(outcomes, file)
    return file


@pytest.fixture(scope="session")
def embedder() -> Any:
    from centroute.embedders import load_embedder

    return load_embedder("static-256")


@pytest.fixture(scope="session")
def artifact(outcomes: Outcomes, embedder: Any) -> Artifact:
    """Six clusters, two of them blended for a query."""
    from centroute.calibrate import calibrate

    return calibrate(
        outcomes, embedder=embedder, method="means", n_clusters=6, top_p=2, beta=9.0, surface_weight=0.0
    )


@pytest.fixture(scope="session")
def router_file(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For reading only; a test that changes the file copies it."""
    file = tmp_path_factory.mktemp("router") / "router.safetensors"
    artifact.save(file)
    return file


@pytest.fixture(scope="session")
def pack() -> Callable[[Mapping[str, NDArray[Any]], Any], bytes]:
    """Bytes of a router file with a true digest around any tensors and metadata, valid or not."""
    from safetensors.numpy import save

    def packed(tensors: Mapping[str, NDArray[Any]], metadata: Any) -> bytes:
        contiguous = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
        text = metadata
        if isinstance(metadata, dict):
            blank = "0" * 64
            text = json.dumps({**metadata, "sha256": blank})
            text = text.replace(blank, _digest(text, contiguous))
        return save(contiguous, {"centroute": text})

    return packed


@pytest.fixture(scope="session")
def digest() -> Callable[[str, Mapping[str, NDArray[Any]]], str]:
    """Digest of a router file, from its metadata with 64 zeros for the digest, and its tensors."""
    return _digest


def _digest(metadata: str, tensors: Mapping[str, NDArray[Any]]) -> str:
    # Written down once more from its description: neither the package's writer nor its reader.
    hasher = hashlib.sha256(metadata.encode())
    for name, values in sorted(tensors.items()):
        hasher.update(f"{name}:{DTYPES[values.dtype.name]}:{list(values.shape)}".encode())
        hasher.update(values.tobytes())
    return hasher.hexdigest()


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run ``centroute ARGUMENTS`` in this process."""

    def run(*arguments: object, stdin: bytes = b"") -> Finished:
        from centroute.cli import main

        streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2)]
        argv = ["centroute", *map(str, arguments)]
        standard_input = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
        code = 0
        with (
            mock.patch.object(sys, "argv", argv),
            mock.patch.object(sys, "stdin", standard_input),
            redirect_stdout(streams[0]),
            redirect_stderr(streams[1]),
        ):
            try:
                main()
            except SystemExit as left:
                code = left.code if isinstance(left.code, int) else int(left.code is not None)
        written = []
        for stream in streams:
            stream.flush()
            written.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
        return Finished(code, *written)

    return run


@pytest.fixture(scope="session")
def command() -> str:
    """Path of the installed command."""
    return str(Path(sys.executable).with_name("centroute"))


@pytest.fixture(scope="session")
def plain_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in TERMINAL_VARIABLES}


@pytest.fixture(scope="session")
def process(command: str, plain_environment: dict[str, str]) -> Cli:
    """Run ``centroute ARGUMENTS`` as a process of its own, all its streams pipes."""

    def run(
        *arguments: object, stdin: bytes = b"", cwd: Path | None = None, environment: Any = None
    ) -> Finished:
        done = subprocess.run(
            [command, *(part if isinstance(part, bytes) else str(part) for part in arguments)],
            input=stdin,
            capture_output=True,
            cwd=cwd,
            env={**plain_environment, **(environment or {})},
            timeout=120,
            check=False,
        )
        return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@contextmanager
def _unchanged(folder: Path) -> Iterator[None]:
    before = _contents(folder)
    yield
    assert _contents(folder) == before


def _contents(folder: Path) -> dict[Path, bytes | None]:
    return {place: place.read_bytes() if place.is_file() else None for place in folder.rglob("*")}


@pytest.fixture(scope="session")
def unchanged() -> Callable[[Path], AbstractContextManager[None]]:
    """``with unchanged(folder):`` nothing in it, hidden files included, is made, lost or altered."""
    return _unchanged
