"""What the fuzzers found in the past stays mended, and the fuzzers themselves still run.

The inputs lie under ``fuzz/findings``, named by fuzzer and fault. ``make fuzz MINUTES=n`` looks for new ones.
"""

from __future__ import annotations

import importlib
import random
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).resolve().parent / "fuzz"
FINDINGS = sorted((HERE / "findings").iterdir())
FUZZERS = sorted(path.stem for path in HERE.glob("fuzz_*.py"))
N_INPUTS = {"fuzz_gateway": 60, "fuzz_text": 3, "fuzz_kernel": 20, "fuzz_bundle": 20}


@pytest.fixture
def fuzzer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module(request.param)


@pytest.mark.parametrize(
    ("fuzzer", "finding"),
    [(f"fuzz_{path.name.partition('-')[0]}", path) for path in FINDINGS],
    ids=[path.name for path in FINDINGS],
    indirect=["fuzzer"],
)
def test_past_findings(fuzzer: ModuleType, finding: Path) -> None:
    fuzzer.check(finding.read_bytes())


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("fuzzer", FUZZERS, indirect=True)
def test_fuzzers_run(fuzzer: ModuleType) -> None:
    for number in range(N_INPUTS.get(fuzzer.__name__, 40)):
        fuzzer.check(fuzzer.make(random.Random(f"smoke/{number}")))  # noqa: S311


@pytest.mark.parametrize(
    ("key", "value"), [("size", "../x"), ("mtime", "x"), ("size", "9" * 30), ("size", "-1")]
)
def test_numbers_in_extended_headers_of_a_tar_file(key: str, value: str, tmp_path: Path) -> None:
    """Found by ``fuzz_bundle``: a ValueError of tarfile's own."""
    from centroute import ArtifactError
    from centroute.bundle import unpack_bundle

    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("manifest.json")
        member.size, member.pax_headers = 2, {key: value}
        archive.addfile(member, BytesIO(b"{}"))
    (tmp_path / "bundle.tar").write_bytes(packed.getvalue())
    with pytest.raises(ArtifactError, match=r"bundle\.tar"):
        unpack_bundle(tmp_path / "bundle.tar", tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.tar"]


def test_the_harness_tells_what_it_finds(tmp_path: Path) -> None:
    """A fuzzer that can find nothing would pass all the same."""
    import subprocess

    broken = (
        "import sys\n"
        f"sys.path.insert(0, {str(HERE)!r})\n"
        "from harness import main\n"
        "def check(data):\n"
        "    if data == b'7':\n"
        "        raise KeyError('seven')\n"
        "main('broken', lambda chance: str(chance.randrange(20)).encode(), check)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", broken, "--seconds", "10", "--seed", "1", "--save", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "1 findings" in done.stdout
    assert "KeyError" in done.stderr
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"7"]
