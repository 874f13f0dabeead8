"""Running ``centroute-edge``, and comparing what it says with the Python package."""

import os
import subprocess
from pathlib import Path

import numpy as np

from centroute import DataError
from centroute.decision_json import decision_to_json

ROOT = Path(__file__).resolve().parents[1]
BINARY = Path(os.environ.get("CENTROUTE_EDGE") or ROOT / "target" / "release" / "centroute-edge")


def edge(*arguments, stdin=b"", environment=None):
    done = subprocess.run(
        [BINARY, *(part if isinstance(part, bytes) else str(part) for part in arguments)],
        input=stdin,
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def assert_refused(result, *named):
    code, out, err = result
    assert code == 1, result
    assert out == ""
    assert err.startswith("centroute-edge: ")
    assert len(err.splitlines()) == 1, err
    for name in named:
        assert name in err, err


def wanted_decision(router, text, policy=None):
    """What the Python package says, with the keys of the JSON; None for a text that it refuses."""
    try:
        return decision_to_json(router.route(text, policy=policy))
    except DataError:
        return None


def assert_same(found, wanted):
    """Equal to the last bit of single precision, which is far less than a millionth."""
    if wanted is None:
        assert list(found) == ["error"]
        assert " holds " in found["error"]
        return
    assert list(found) == list(wanted)
    for key, value in wanted.items():
        if isinstance(value, float):
            assert np.float32(found[key]) == np.float32(value), (key, found, wanted)
        elif key == "clusters":
            assert [cluster["id"] for cluster in found[key]] == [cluster["id"] for cluster in value]
            weights = [np.float32(cluster["weight"]) for cluster in found[key]]
            assert weights == [np.float32(cluster["weight"]) for cluster in value]
        else:
            assert found[key] == value, (key, found, wanted)
