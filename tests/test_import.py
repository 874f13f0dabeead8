"""`import centroute` stays light."""

import json
import subprocess
import sys

HEAVY = ("onnxruntime", "tokenizers", "numba", "click", "rich", "safetensors")


def loaded_by(code):
    script = (
        f"{code}\nimport sys, json; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def test_import_loads_numpy_and_the_extension_and_nothing_heavier():
    assert loaded_by("import centroute") == []
    assert loaded_by("from centroute import Policy, Router") == []
    assert loaded_by("import centroute.policy, centroute.embedders, centroute.datasets") == []


def test_evaluation_needs_no_numba():
    assert "numba" not in loaded_by("import centroute.evaluate")


def test_the_version_stands_in_one_place():
    from importlib.metadata import version

    import centroute

    assert centroute.__version__ == version("centroute")
