"""Same data, seed and version: the same file, byte for byte, whatever runs it.

``benches/determinism.py`` routes whole data sets through every instruction set and counts what differs.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

THREADS = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


@pytest.mark.parametrize("method", ["means", "learned"])
def test_the_same_file_on_one_and_on_two_threads(
    method: str, command: str, plain_environment: dict[str, str], outcomes_file: Path, tmp_path: Path
) -> None:
    """Hash seeds differ as well, so that no order of a set is in it."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one processor")
    files = []
    for n_threads in (1, 2):
        out = tmp_path / str(n_threads)
        environment = {
            **plain_environment,
            **dict.fromkeys(THREADS, str(n_threads)),
            "PYTHONHASHSEED": str(n_threads),
        }
        flags = ("--method", method, "--clusters", "6", "--seed", "3")
        done = subprocess.run(
            [command, "calibrate", str(outcomes_file), "-o", str(out), *flags],
            env=environment,
            capture_output=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        files.append(out.read_bytes())
    assert files[0] == files[1]
