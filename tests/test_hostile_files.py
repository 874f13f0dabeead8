"""Files made to hurt: each is refused in one line, before memory is taken in proportion to what it claims.

All of them are read in one process of its own that may take `MEMORY_BYTES` more than it has at the start.
Spoiled bundles are in ``bad_bundles.py``, and what is wrong with a router file by accident in
``test_artifact.py``.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MEMORY_BYTES = 700 << 20
SECONDS = 5.0
HUGE = 2**62
DEEP = "[" * 200_000 + "]" * 200_000
DIGITS = "9" * 100_000


@dataclass(frozen=True, slots=True)
class Case:
    """How a file is made and read, and what the refusal must name."""

    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    error: str
    named: tuple[str, ...]


CASES: dict[str, Case] = {}

Make = Callable[[Path], Path]


def case(read: Callable[[Path], object], error: str, *named: str) -> Callable[[Make], Make]:
    """Take up a function that makes a file, under its own name."""

    def take(make: Make) -> Make:
        CASES[make.__name__] = Case(make, read, error, named)
        return make

    return take


def written(folder: Path, name: str, content: bytes | str) -> Path:
    place = folder / name
    place.write_bytes(content if isinstance(content, bytes) else content.encode())
    return place


# -- router files -------------------------------------------------------------------------


def load_router(path: Path) -> object:
    from centroute import Artifact, Router

    first = _error_of(lambda: Router.load(path))
    assert type(_error_of(lambda: Artifact.load(path))) is type(first)
    if first is not None:
        raise first
    return None


def load_artifact(path: Path) -> object:
    """Read the report too, which deciding does not need."""
    from centroute import Artifact

    return Artifact.load(path)


def _error_of(action: Callable[[], object]) -> Exception | None:
    try:
        action()
    except Exception as error:  # noqa: BLE001 - handed on
        return error
    return None


def parts() -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Header, metadata and tensors of a valid small router."""
    from centroute import Artifact
    from centroute.artifact import EmbedderId, PoolModel

    rows = np.eye(3, 4, dtype=np.float32)
    table = np.full((3, 2), 0.5, dtype=np.float32)
    data = Artifact(
        models=(PoolModel("large"), PoolModel("small")),
        embedder=EmbedderId("outside", 4, None),
        centroids=rows,
        quality=table,
        cost=table / 100,
        count=table * 20,
        prior_quality=table[0],
        prior_cost=table[0] / 100,
        frontier=np.array([[0, 0.2, 0.001]], dtype=np.float32),
        top_p=2,
        beta=9.0,
        method={"name": "means"},
    ).to_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    return header, json.loads(header["__metadata__"]["centroute"]), data[end:]


def packed(header: str, body: bytes) -> bytes:
    return struct.pack("<Q", len(header.encode())) + header.encode() + body


def router_with(change: Callable[[dict[str, Any]], None], folder: Path, *, body: bytes | None = None) -> Path:
    """A router whose header is changed; its digest is that of the metadata and no more true of the rest."""
    header, _, own = parts()
    change(header)
    return written(folder, "router.safetensors", packed(json.dumps(header), own if body is None else body))


def router_of(metadata: str, folder: Path, tensors: dict[str, Any] | None = None) -> Path:
    """A router of any metadata and tensors, with a true digest."""
    header, _, body = parts()
    del header["__metadata__"]
    if tensors is None:
        tensors = {
            name: np.frombuffer(body[slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
            for name, entry in header.items()
        }
    from safetensors.numpy import save

    blank = "0" * 64
    hasher = hashlib.sha256(metadata.encode())
    for name, values in sorted(tensors.items()):
        hasher.update(f"{name}:F32:{list(values.shape)}".encode() + np.ascontiguousarray(values).tobytes())
    text = metadata.replace(blank, hasher.hexdigest())
    contiguous = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    return written(folder, "router.safetensors", save(contiguous, {"centroute": text}))


def blank_metadata(**changes: Any) -> str:
    _, metadata, _ = parts()
    return json.dumps({**metadata, **changes, "sha256": "0" * 64})


@case(load_router, "ArtifactError", "header")
def router_header_of_exabytes(folder: Path) -> Path:
    return written(folder, "r", struct.pack("<Q", HUGE) + b"{}")


@case(load_router, "ArtifactError", "safetensors")
def router_header_of_negative_length(folder: Path) -> Path:
    return written(folder, "r", struct.pack("<q", -1) + b"{}" * 600_000)


@case(load_router, "ArtifactError", "header")
def router_of_gigabytes_of_nothing(folder: Path) -> Path:
    place = written(folder, "r", b"")
    with place.open("r+b") as file:
        file.truncate((1 << 34) - 1)  # takes no room on the disk
    return place


@case(load_router, "ArtifactError", "safetensors")
def router_with_overlapping_tensors(folder: Path) -> Path:
    def change(header: dict[str, Any]) -> None:
        header["quality"]["data_offsets"] = header["cost"]["data_offsets"]

    return router_with(change, folder)


@case(load_router, "ArtifactError", "safetensors")
def router_with_a_gap_between_tensors(folder: Path) -> Path:
    header, _, body = parts()
    for name, entry in header.items():
        if name != "__metadata__":
            entry["data_offsets"] = [place + 64 for place in entry["data_offsets"]]
    return written(folder, "r", packed(json.dumps(header), bytes(64) + body))


@case(load_router, "ArtifactError", "safetensors")
def router_with_offsets_beyond_everything(folder: Path) -> Path:
    return router_with(lambda header: header["cost"].update(data_offsets=[HUGE, HUGE + 24]), folder)


@case(load_router, "ArtifactError", "safetensors")
def router_with_negative_offsets(folder: Path) -> Path:
    return router_with(lambda header: header["cost"].update(data_offsets=[-24, 0]), folder)


@case(load_router, "ArtifactError", "safetensors")
def router_with_offsets_that_run_backwards(folder: Path) -> Path:
    return router_with(
        lambda header: header["cost"].update(data_offsets=header["cost"]["data_offsets"][::-1]), folder
    )


@case(load_router, "ArtifactError", "safetensors")
def router_with_2_to_the_62_clusters(folder: Path) -> Path:
    return router_with(lambda header: header["centroids"].update(shape=[HUGE, 4]), folder)


@case(load_router, "ArtifactError", "safetensors")
def router_with_a_shape_that_overflows(folder: Path) -> Path:
    return router_with(lambda header: header["centroids"].update(shape=[2**33, 2**33]), folder)


@case(load_router, "ArtifactError", "safetensors")
def router_with_a_million_axes(folder: Path) -> Path:
    return router_with(lambda header: header["centroids"].update(shape=[1] * 1_000_000 + [12]), folder)


@case(load_router, "ArtifactError", "safetensors")
def router_with_an_unknown_dtype(folder: Path) -> Path:
    return router_with(lambda header: header["cost"].update(dtype="F128"), folder)


@case(load_router, "ArtifactError", "digest")
def router_with_strings_for_numbers(folder: Path) -> Path:
    return router_with(lambda header: header["cost"].update(dtype="U32"), folder)


@case(load_router, "ArtifactError", "quality")
def router_of_nan(folder: Path) -> Path:
    header, _, body = parts()
    start, end = header["quality"]["data_offsets"]
    nan = np.full((end - start) // 4, np.nan, "<f4").tobytes()
    tensors = {
        name: np.frombuffer((body[:start] + nan + body[end:])[slice(*entry["data_offsets"])], "<f4").reshape(
            entry["shape"]
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }
    return router_of(blank_metadata(), folder, tensors)


@case(load_artifact, "ArtifactError", "metadata")
def router_with_a_report_nested_without_end(folder: Path) -> Path:
    return router_of(blank_metadata(report="MARK").replace('"MARK"', '{"a":' + DEEP + "}"), folder)


@case(load_artifact, "ArtifactError", "metadata")
def router_with_a_report_of_a_number_of_100_000_digits(folder: Path) -> Path:
    return router_of(blank_metadata(report={"n": "MARK"}).replace('"MARK"', DIGITS), folder)


@case(load_router, "ArtifactError", "metadata")
def router_with_a_pool_nested_without_end(folder: Path) -> Path:
    return router_of(blank_metadata(models="MARK").replace('"MARK"', DEEP), folder)


@case(load_router, "ArtifactError", "metadata")
def router_with_a_number_of_100_000_digits(folder: Path) -> Path:
    return router_of(blank_metadata(top_p="MARK").replace('"MARK"', DIGITS), folder)


@case(load_router, "ArtifactError", "metadata")
def router_with_a_key_twice(folder: Path) -> Path:
    return router_of(blank_metadata().replace('"top_p":', '"top_p": 1, "top_p":', 1), folder)


@case(load_router, "ArtifactError", "top_p")
def router_that_blends_2_to_the_62_clusters(folder: Path) -> Path:
    return router_of(blank_metadata(top_p=HUGE), folder)


@case(load_router, "ArtifactError")
def router_of_an_embedding_of_2_to_the_62(folder: Path) -> Path:
    _, metadata, _ = parts()
    return router_of(blank_metadata(embedder={**metadata["embedder"], "dim": HUGE}), folder)


# -- outcomes -----------------------------------------------------------------------------

ROW = '{"query": "Who?", "scores": {"a": 1, "b": 0}}\n'


def read_data(path: Path) -> object:
    from centroute.datasets import read_outcomes

    return read_outcomes(path)


@case(read_data, "DataError", "line 1", "bytes")
def gzip_bomb_of_one_line(folder: Path) -> Path:
    return written(folder, "x.jsonl.gz", gzip.compress(b"[" * (1 << 24), 1) * 60)


@case(read_data, "DataError", "unpacks to more than 100 times")
def gzip_bomb_of_many_lines(folder: Path) -> Path:
    block = (ROW[:-2] + ', "x": "' + "x" * 4_000_000 + '"}\n').encode() * 4
    return written(folder, "x.jsonl.gz", gzip.compress(block, 9) * 40)


@case(read_data, "DataError", "bytes")
def table_with_a_quote_that_is_never_closed(folder: Path) -> Path:
    return written(folder, "x.csv", b'prompt,a\n"' + (b"x" * 50_000 + b"\n") * 800)


@case(read_data, "DataError", "fields")
def table_with_a_million_fields(folder: Path) -> Path:
    return written(folder, "x.csv", b"prompt,a\n" + b"," * 1_000_000 + b"\n")


@case(read_data, "DataError", "line 1", "more than once")
def line_with_100_000_keys_one_of_them_twice(folder: Path) -> Path:
    keys = ", ".join(f'"k{number}": 1' for number in range(100_000))
    return written(folder, "x.jsonl", f'{{"query": "a", "scores": {{{keys}, "k7": 0}}}}\n')


@case(read_data, "DataError", "line 2", "not valid JSON")
def line_nested_without_end(folder: Path) -> Path:
    return written(folder, "x.jsonl", ROW + '{"query": ' + DEEP + "}\n")


@case(read_data, "DataError", "line 2", "not valid JSON")
def line_with_a_number_of_100_000_digits(folder: Path) -> Path:
    return written(folder, "x.jsonl", ROW + ROW.replace("1", DIGITS))


@case(read_data, "DataError", "models", "scores")
def outcomes_of_thousands_of_models_each_seen_once(folder: Path) -> Path:
    # Four dense matrices of 12,000 by 4,000 would take one and a half gigabytes.
    lines = [json.dumps({"query": f"q{row}", "scores": {f"m{row % 4000}": 1}}) for row in range(12_000)]
    return written(folder, "x.jsonl", "\n".join(lines))


def _parquet(rows: int) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pa.table({"prompt": ["Who?"] * rows, "a": [1.0] * rows, "b": [0.5] * rows}), file)
    return file.getvalue()


@case(read_data, "DataError", "Parquet")
def parquet_that_claims_a_footer_of_gigabytes(folder: Path) -> Path:
    return written(folder, "x.parquet", _parquet(2)[:-8] + struct.pack("<I", 0x7FFF_FFF0) + b"PAR1")


# -- embedders ----------------------------------------------------------------------------


def load_folder(path: Path) -> object:
    from centroute.embedders import load_embedder

    return load_embedder(path, device="cpu").embed(["river", "what is the capital of france"])


def onnx_folder(folder: Path, **files: bytes | str) -> Path:
    """A folder with graph and tokenizer, of which some files are others."""
    import tiny_embedder as tiny

    content: dict[str, bytes | str] = {
        "model.onnx": tiny.graph().SerializeToString(),
        "tokenizer.json": tiny.tokenizer().to_str(),
    }
    for name, data in {**content, **files}.items():
        written(folder, name, data)
    return folder


def tokenizer_with(change: Callable[[dict[str, Any]], None]) -> str:
    import tiny_embedder as tiny

    tokenizer = json.loads(tiny.tokenizer().to_str())
    change(tokenizer)
    return json.dumps(tokenizer)


def graph_with_external_data(
    *, value_first: bool = False, padded: bool = False, where: bytes = b"weights.bin"
) -> bytes:
    """A graph whose token table is in another file, written as no library does but every one reads."""
    import tiny_embedder as tiny

    model = tiny.graph()
    tensor = next(entry for entry in model.graph.initializer if entry.name == "tokens")
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    key, value = _field(1, b"location", padded=padded), _field(2, where)
    body = tensor.SerializeToString() + _field(13, value + key if value_first else key + value)
    model.graph.initializer.remove(tensor)
    graph = model.graph.SerializeToString() + _field(5, body)
    model.ClearField("graph")
    return model.SerializeToString() + _field(7, graph)


def _field(number: int, content: bytes, *, padded: bool = False) -> bytes:
    length, rest = bytearray(), len(content)
    while rest >= 0x80:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest | (0x80 if padded else 0))
    return bytes([number << 3 | 2, *length, *([0x80, 0x00] if padded else [])]) + content


@case(load_folder, "EmbedderError", "another file")
def graph_with_weights_in_another_file(folder: Path) -> Path:
    written(folder, "weights.bin", bytes(100_000))
    return onnx_folder(folder, **{"model.onnx": graph_with_external_data()})


@case(load_folder, "EmbedderError", "another file")
def graph_that_hides_its_weights_elsewhere_by_order(folder: Path) -> Path:
    written(folder, "weights.bin", bytes(100_000))
    return onnx_folder(folder, **{"model.onnx": graph_with_external_data(value_first=True)})


@case(load_folder, "EmbedderError", "another file")
def graph_that_hides_its_weights_elsewhere_by_padding(folder: Path) -> Path:
    written(folder, "weights.bin", bytes(100_000))
    return onnx_folder(folder, **{"model.onnx": graph_with_external_data(padded=True)})


@case(load_folder, "EmbedderError", "another file")
def graph_with_weights_out_of_its_folder(folder: Path) -> Path:
    return onnx_folder(folder, **{"model.onnx": graph_with_external_data(where=b"../../etc/passwd")})


@case(load_folder, "EmbedderError", "model.onnx")
def graph_with_an_operator_of_its_own(folder: Path) -> Path:
    import tiny_embedder as tiny

    model = tiny.graph()
    model.graph.node[0].domain, model.graph.node[0].op_type = "evil", "Run"
    model.opset_import.add().domain = "evil"
    return onnx_folder(folder, **{"model.onnx": model.SerializeToString()})


@case(load_folder, "EmbedderError", "model.onnx")
def graph_with_a_tensor_of_2_to_the_62_rows(folder: Path) -> Path:
    import tiny_embedder as tiny

    model = tiny.graph()
    model.graph.initializer[0].dims[0] = HUGE
    return onnx_folder(folder, **{"model.onnx": model.SerializeToString()})


@case(load_folder, "EmbedderError", "model.onnx")
def graph_that_is_cut_off_within_a_number(folder: Path) -> Path:
    return onnx_folder(folder, **{"model.onnx": b"\x3a" + b"\xff" * 12})


@case(load_folder, "EmbedderError", "tokenizer.json")
def tokenizer_nested_without_end(folder: Path) -> Path:
    text = tokenizer_with(lambda tokenizer: tokenizer.update(normalizer="MARK"))
    return onnx_folder(folder, **{"tokenizer.json": text.replace('"MARK"', DEEP)})


@case(load_folder, "EmbedderError", "4294967296 token ids")
def tokenizer_with_a_token_id_of_2_to_the_32(folder: Path) -> Path:
    text = tokenizer_with(lambda tokenizer: tokenizer["model"]["vocab"].update(river=2**32 - 1))
    return onnx_folder(folder, **{"tokenizer.json": text})


@case(load_folder, "EmbedderError", "tokenizer.json")
def tokenizer_that_makes_its_reader_panic(folder: Path) -> Path:
    text = tokenizer_with(lambda tokenizer: tokenizer.update(decoder="MARK")).replace('"MARK"', "Infinity")
    return onnx_folder(folder, **{"tokenizer.json": text})


@case(load_folder, "EmbedderError", "tokenizer.json")
def tokenizer_with_an_expression_of_gigabytes(folder: Path) -> Path:
    pattern = {"Regex": "(a{1,1000}){1,1000}"}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    text = tokenizer_with(lambda tokenizer: tokenizer.update(pre_tokenizer=split))
    return onnx_folder(folder, **{"tokenizer.json": text})


@case(load_folder, "EmbedderError", "config.json", "bytes")
def config_of_gigabytes(folder: Path) -> Path:
    with (folder / "config.json").open("wb") as file:
        file.truncate(1 << 33)
    return onnx_folder(folder)


@case(load_folder, "EmbedderError", "model.onnx", "bytes")
def graph_of_terabytes(folder: Path) -> Path:
    onnx_folder(folder)
    with (folder / "model.onnx").open("r+b") as file:
        file.truncate(1 << 40)
    return folder


@case(load_folder, "EmbedderError", "config.json")
def config_nested_without_end(folder: Path) -> Path:
    return onnx_folder(folder, **{"config.json": '{"vocab_size": ' + DEEP + "}"})


@case(load_folder, "EmbedderError", "embedder.json", "max_tokens")
def settings_of_more_tokens_than_there_are(folder: Path) -> Path:
    return onnx_folder(folder, **{"embedder.json": json.dumps({"max_tokens": 10**30})})


@case(load_folder, "EmbedderError", "config_sentence_transformers.json")
def prompt_with_half_a_character(folder: Path) -> Path:
    return onnx_folder(folder, **{"config_sentence_transformers.json": '{"prompts": {"query": "\\ud800"}}'})


def table_folder(folder: Path, header: dict[str, Any], body: bytes) -> Path:
    import tiny_embedder as tiny

    written(folder, "tokenizer.json", tiny.tokenizer(special=False).to_str())
    written(folder, "model.safetensors", packed(json.dumps(header), body))
    return folder


@case(load_folder, "EmbedderError", "model.safetensors")
def table_of_2_to_the_62_rows(folder: Path) -> Path:
    return table_folder(
        folder, {"embeddings": {"dtype": "F32", "shape": [HUGE, 4], "data_offsets": [0, 64]}}, bytes(64)
    )


@case(load_folder, "EmbedderError", "model.safetensors")
def table_with_offsets_beyond_everything(folder: Path) -> Path:
    entry = {"dtype": "F32", "shape": [4, 4], "data_offsets": [HUGE, HUGE + 64]}
    return table_folder(folder, {"embeddings": entry}, bytes(64))


@case(load_folder, "EmbedderError", "model.safetensors")
def table_of_nan(folder: Path) -> Path:
    import tiny_embedder as tiny

    shape = [len(tiny.VOCABULARY), 4]
    body = np.full(shape, np.nan, "<f4").tobytes()
    return table_folder(
        folder, {"embeddings": {"dtype": "F32", "shape": shape, "data_offsets": [0, len(body)]}}, body
    )


# -- configs ------------------------------------------------------------------------------


def read_gateway(path: Path) -> object:
    from centroute.gateway.config import read_config

    return read_config(path)


def read_pool_file(path: Path) -> object:
    from centroute.pool import read_pool

    return read_pool(path)


@case(read_gateway, "DataError", "cannot be read")
def gateway_config_nested_without_end(folder: Path) -> Path:
    return written(folder, "gateway.toml", "a = " + DEEP)


@case(read_gateway, "DataError", "cannot be read")
def gateway_config_with_100_000_digits(folder: Path) -> Path:
    return written(folder, "gateway.toml", "port = " + DIGITS)


@case(read_pool_file, "DataError", "TOML")
def pool_with_one_model_twice(folder: Path) -> Path:
    return written(folder, "pool.toml", "[models.a]\n[models.a]\n")


@case(read_pool_file, "DataError", "context_length")
def pool_with_a_context_of_2_to_the_64(folder: Path) -> Path:
    return written(folder, "pool.toml", f"[models.a]\ncontext_length = {2**64}")


# -- logs ---------------------------------------------------------------------------------


def read_log(path: Path) -> object:
    from centroute.logged_decisions import read_decisions

    return list(read_decisions(path))


@case(read_log, "DataError", "line 1", "not valid JSON")
def log_nested_without_end(folder: Path) -> Path:
    return written(folder, "log.jsonl", '{"id": ' + DEEP + "}\n")


@case(read_log, "DataError", "line 1", "bytes")
def log_of_one_endless_line(folder: Path) -> Path:
    return written(folder, "log.jsonl.gz", gzip.compress(b"x" * 100_000_000, 1))


# -- the tests ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcomes_of_cases() -> dict[str, dict[str, Any]]:
    """What became of each case, all of them read in one process with little memory."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, timeout=120, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
    told = {line["name"]: line for line in lines}
    assert done.returncode == 0, (sorted(CASES.keys() - told.keys())[:1], done.stderr[-2000:])
    return told


@pytest.mark.parametrize("name", list(CASES))
def test_is_refused(name: str, outcomes_of_cases: dict[str, dict[str, Any]]) -> None:
    told, wanted = outcomes_of_cases[name], CASES[name]
    assert told["error"] == wanted.error, told
    assert len(told["message"].splitlines()) == 1
    assert len(told["message"]) < 2500
    for word in wanted.named:
        assert word in told["message"], told
    assert told["seconds"] < SECONDS, told


def _run() -> Iterator[dict[str, Any]]:
    import onnx
    import pyarrow.parquet

    import centroute.embedders.onnx
    import centroute.gateway.config
    import centroute.pool

    del onnx, pyarrow, centroute
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * 4096 + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for name, hostile in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = hostile.make(Path(folder))
            started = time.perf_counter()
            error = _error_of(lambda hostile=hostile, path=path: hostile.read(path))
            yield {
                "name": name,
                "error": type(error).__name__,
                "message": str(error),
                "seconds": time.perf_counter() - started,
            }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    for told in _run():
        print(json.dumps(told), flush=True)  # noqa: T201 - read by the tests
