"""Running an embedder's graph with ONNX Runtime: `OnnxEmbedder`, texts to unit float32 rows.

Tokenize, group texts of like length, pad in NumPy, run, pool where the graph does not, bring
to norm 1. Grouping is by a budget of padded tokens a run, `TOKENS_PER_RUN`; where rows would
depend on what is beside them, as after dynamic quantisation, each text runs alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from centroute._fork import renewed_after_fork
from centroute._kernel import Tokenizer
from centroute.embedders.base import Embedder, check_texts
from centroute.embedders.external_data import has_external_data
from centroute.embedders.folder import DESCRIPTION_FILE, EmbedderDescription, EmbedderFolder, read_sha256
from centroute.embedders.tokenizer import implementation, open_tokenizer
from centroute.errors import EmbedderError

# Telemetry has a thread that a forked child waits for in vain when it ends, and is not for us to send.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
try:
    import onnxruntime
except ModuleNotFoundError as error:
    raise EmbedderError("onnxruntime is not installed: pip install onnxruntime") from error
except (ImportError, OSError) as error:  # a shared library is missing, or of another machine
    raise EmbedderError(f"onnxruntime is installed and cannot be loaded: {error}") from error

Device = Literal["auto", "cpu", "cuda"]
Provider = str | tuple[str, Mapping[str, Any]]

# Padded tokens in one run. On CPU (MiniLM) 64 to 256 give 20 to 25 % more short texts a second
# than one at a time and cost nothing on long ones; larger runs fall out of the cache.
TOKENS_PER_RUN = {"cpu": 128, "cuda": 16_384}
# Texts tokenized before any of them is run: bounds the memory of the token ids.
TEXTS_PER_BLOCK = 1024
# How far a text's row may be from the row that it has alone.
BATCH_TOLERANCE = 1e-5

CPU_PROVIDER = "CPUExecutionProvider"
# TensorFloat-32 keeps 10 bits of the mantissa: rows would differ by more than 1e-5 from the CPU's.
CUDA_PROVIDER: tuple[str, dict[str, Any]] = ("CUDAExecutionProvider", {"use_tf32": "0"})

_TOKEN_IDS, _MASK, _TOKEN_TYPES = "input_ids", "attention_mask", "token_type_ids"
# The first of these is taken where a graph has several outputs.
_OUTPUT_NAMES = ("sentence_embedding", "last_hidden_state", "token_embeddings")


@dataclass(frozen=True, slots=True)
class _Graph:
    """What of a graph is fed and read."""

    session: onnxruntime.InferenceSession
    inputs: tuple[str, ...]
    output: str
    pooling: str | None
    """How ``[n, seq, dim]`` becomes ``[n, dim]``; None where the graph gives ``[n, dim]``."""
    device: str

    def run(self, token_ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Return rows ``[n, dim]`` of ``token_ids`` ``[n, seq]``, of which row i holds ``lengths[i]``."""
        mask = np.ones_like(token_ids)
        if len(lengths) > 1:
            mask[np.arange(token_ids.shape[1]) >= lengths[:, None]] = 0
        arrays = {self.inputs[0]: token_ids, self.inputs[1]: mask}
        if _TOKEN_TYPES in self.inputs:
            arrays[_TOKEN_TYPES] = np.zeros_like(token_ids)
        if self.device == "cuda":
            rows = _run_bound(self.session, arrays, self.output, device=self.device)
        else:
            (rows,) = self.session.run([self.output], arrays)
        return rows if self.pooling is None else _pool(rows, lengths, self.pooling)


class OnnxEmbedder(Embedder):
    """An embedder run by ONNX Runtime. Made by `open_onnx_embedder`.

    Attributes
    ----------
    pools_in_graph
        Whether the graph gives one row a text, so that ``description.pooling`` is its own.
    tokens_per_run
        Budget of padded tokens in one run; 0 where each text runs alone.
    """

    runtime = "onnxruntime"

    def __init__(
        self,
        description: EmbedderDescription,
        *,
        graph: _Graph,
        reopen: Callable[[], _Graph],
        tokenizer: Tokenizer,
        tokens_per_run: int,
        normalise: bool,
    ) -> None:
        self.description = description
        self.device = graph.device
        self.pools_in_graph = graph.pooling is None
        self._tokenizer = tokenizer
        self.tokens_per_run = tokens_per_run
        self._graph: _Graph | None = graph
        self._reopen = reopen
        self._opening = threading.Lock()
        self._normalise = normalise
        # A prefix is the same for every text, so that its tokens say nothing about one.
        self._n_prefix_tokens = int(tokenizer.encode_batch([description.prefix])[2][0])
        renewed_after_fork(self)

    def renew_after_fork(self) -> None:
        """Leave the session and its threads to the parent: the child opens its own when it needs one."""
        if self._graph is not None:
            # Freed, even when the child ends, it would wait for those threads for ever.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._graph.session._sess))  # noqa: SLF001
        self._graph = None
        self._opening = threading.Lock()

    def _opened(self) -> _Graph:
        if (graph := self._graph) is not None:
            return graph
        with self._opening:
            if self._graph is None:
                if self.device != "cpu":
                    raise EmbedderError(
                        f"embedder {self.name}: device {self.device} is lost in a forked process; "
                        "load the embedder after the fork, or start processes by spawn"
                    )
                self._graph = self._reopen()
            return self._graph

    @property
    def tokenizer(self) -> str:
        """What tokenizes: ``"centroute"``, or ``"tokenizers"`` and why."""
        return implementation(self._tokenizer.fallback_reason)

    def tokenize(self, text: str) -> NDArray[np.int64]:
        """Token ids of a text; see `Embedder.tokenize`."""
        return self._tokenizer.encode_batch([self.description.prefix + text])[0]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; see `Embedder.embed`.

        Raises
        ------
        TypeError
            If ``texts`` is one string, or an item is not a string; names index and type.
        EmbedderError
            If the graph fails, as one does on texts longer than it has positions for, or gives
            values that are not finite.
        """
        check_texts(texts)
        rows = np.zeros((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), TEXTS_PER_BLOCK):
            self._embed_block(texts[start : start + TEXTS_PER_BLOCK], rows[start : start + TEXTS_PER_BLOCK])
        return rows

    def _embed_block(self, texts: Sequence[str], rows: NDArray[np.float32]) -> None:
        """Fill ``rows``, which start as zeros, with the embeddings of ``texts``."""
        prefix = self.description.prefix
        prefixed = [prefix + text for text in texts] if prefix else texts
        ids, ends, n_known = self._tokenizer.encode_batch(prefixed)
        has_content = n_known > self._n_prefix_tokens
        if prefix and not has_content.all():
            # The end of the prefix can become one token with the start of a text.
            doubtful = np.flatnonzero(~has_content).tolist()
            has_content[doubtful] = self._tokenizer.encode_batch([texts[i] for i in doubtful])[2] > 0
        if len(texts) == 1:  # the same as below, in a third of the time
            if has_content[0]:
                rows[:] = self._run(ids[None, :], ends)
            return
        starts = np.concatenate(([0], ends[:-1]))
        lengths = np.where(has_content, ends - starts, 0)
        for text_ids in _runs(lengths, self.tokens_per_run):
            n_tokens = lengths[text_ids]
            padded = np.zeros((len(text_ids), n_tokens[-1]), dtype=np.int64)
            for row, text_id in enumerate(text_ids):
                padded[row, : n_tokens[row]] = ids[starts[text_id] : starts[text_id] + n_tokens[row]]
            rows[text_ids] = self._run(padded, n_tokens)

    def _run(self, token_ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
        graph = self._opened()
        try:
            rows = graph.run(token_ids, lengths)
        except Exception as error:
            raise EmbedderError(
                f"embedder {self.name}: cannot be run on a text of {lengths[-1]} tokens: {_first_line(error)}"
            ) from error
        if not np.isfinite(rows).all():
            raise EmbedderError(
                f"embedder {self.name}: values are not finite on a text of {lengths[-1]} tokens"
            )
        return _unit_rows(rows) if self._normalise else rows.astype(np.float32, copy=False)


def open_onnx_embedder(
    folder: EmbedderFolder,
    *,
    threads: int = 1,
    device: Device = "auto",
    providers: Sequence[Provider] | None = None,
) -> OnnxEmbedder:
    """Load an embedder folder with an ONNX graph; see `centroute.embedders.load_embedder`.

    Raises
    ------
    EmbedderError
        If the device or a provider is not there, the graph cannot be read, has not the expected
        inputs and outputs, or does not fit the tokenizer; one line with the file's name.
    """
    description = folder.description
    tokenizer = open_tokenizer(folder.tokenizer, max_tokens=description.max_tokens)
    _check_vocabulary(folder, tokenizer.n_token_ids)
    session, device_taken = _open_session(folder.model, threads=threads, device=device, providers=providers)
    graph = _read_graph(folder, session, device_taken)
    dim, depends_on_batch = _try_graph(folder, graph, n_token_ids=tokenizer.n_token_ids)
    return OnnxEmbedder(
        replace(description, dim=dim, inputs=graph.inputs, output=graph.output),
        graph=graph,
        reopen=partial(_reopen_graph, folder, threads=threads, providers=providers),
        tokenizer=tokenizer,
        tokens_per_run=0 if depends_on_batch else TOKENS_PER_RUN.get(device_taken, TOKENS_PER_RUN["cpu"]),
        normalise=folder.layout != "centroute",
    )


def _reopen_graph(folder: EmbedderFolder, *, threads: int, providers: Sequence[Provider] | None) -> _Graph:
    """Open the graph once more, on the CPU.

    Raises
    ------
    EmbedderError
        If the file is another one by now: its rows would not be those of the parent.
    """
    if read_sha256(folder.model) != folder.description.model_sha256:
        raise EmbedderError(f"{folder.model}: was replaced since it was loaded; load the embedder again")
    session, device = _open_session(folder.model, threads=threads, device="cpu", providers=providers)
    return _read_graph(folder, session, device)


def _check_vocabulary(folder: EmbedderFolder, n_token_ids: int) -> None:
    """Compare with ``config.json``; tables may have a few rows more than there are tokens."""
    n_rows = folder.vocab_size
    if n_rows is None:
        return
    if n_token_ids > n_rows or n_rows - n_token_ids > max(512, n_rows // 50):
        raise EmbedderError(
            f"{folder.tokenizer}: has {n_token_ids} token ids, config.json says vocab_size {n_rows}: "
            "is it the tokenizer of another model?"
        )


# -- the session -------------------------------------------------------------------------


def _open_session(
    path: Path, *, threads: int, device: str, providers: Sequence[Provider] | None
) -> tuple[onnxruntime.InferenceSession, str]:
    """Return a session and the device that it runs on: ``"cpu"``, ``"cuda"``, …."""
    if threads < 1:
        raise EmbedderError(f"threads must be at least 1, got {threads}")
    _refuse_external_data(path)
    available = onnxruntime.get_available_providers()
    if providers is not None:
        return _open_with(path, list(providers), available, threads=threads)
    has_cuda = CUDA_PROVIDER[0] in available
    if device == "cuda" and not has_cuda:
        raise EmbedderError(
            f"device cuda: this onnxruntime has only {', '.join(available)}; "
            "install onnxruntime-gpu in its place (pip install centroute[cuda])"
        )
    if device != "cpu" and has_cuda:
        try:
            return _open_with(path, [CUDA_PROVIDER, CPU_PROVIDER], available, threads=threads)
        except EmbedderError as error:
            if device == "cuda":
                raise EmbedderError(f"device cuda: {error}") from error
    return _open_with(path, [CPU_PROVIDER], available, threads=threads)


def _open_with(
    path: Path, providers: list[Provider], available: list[str], *, threads: int
) -> tuple[onnxruntime.InferenceSession, str]:
    names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
    if not names:
        raise EmbedderError(f"providers: none given, this onnxruntime has {', '.join(available)}")
    for name in names:
        if name not in available:
            raise EmbedderError(
                f"providers: {name} is not in this onnxruntime, which has {', '.join(available)}"
            )
    if CUDA_PROVIDER[0] in names:
        _load_cuda_libraries()
    try:
        # Without fallback: a provider that fails is an error and not a print and another device.
        session = onnxruntime.InferenceSession(
            path, _session_options(threads), providers=providers, enable_fallback=0
        )
    except Exception as error:
        what = "not a readable ONNX model" if names == [CPU_PROVIDER] else f"cannot be opened with {names[0]}"
        raise EmbedderError(f"{path}: {what}: {_first_line(error)}") from error
    taken = session.get_providers()[0]
    if taken != names[0]:
        raise EmbedderError(f"{names[0]} could not be started, onnxruntime would take {taken}")
    return session, taken.removesuffix("ExecutionProvider").lower()


def _session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return what measured best; all else that was tried (optimisation level, memory) is noise or worse."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads win nothing here and take the processor from everybody else.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 4  # fatal only: failures are raised, with the file's name
    return options


def _load_cuda_libraries() -> None:
    """Load CUDA's libraries from pip's nvidia packages where they are; a system-wide CUDA needs nothing."""
    if hasattr(onnxruntime, "preload_dlls"):
        # It prints what it does not find.
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()


def _refuse_external_data(path: Path) -> None:
    """Refuse a graph with weights in another file: the fingerprint would not cover them."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            is_external = has_external_data(content)
    except (OSError, ValueError) as error:  # ValueError: empty, too, which cannot be mapped
        raise EmbedderError(f"{path}: not a readable ONNX model: {error}") from error
    if is_external:
        raise EmbedderError(f"{path}: keeps its weights in another file; save it with all in one file")


def _run_bound(
    session: onnxruntime.InferenceSession, arrays: Mapping[str, NDArray[Any]], output: str, *, device: str
) -> NDArray[Any]:
    """Run with inputs and output bound to the device's memory, and copy the output back."""
    options = session.get_provider_options()[session.get_providers()[0]]
    device_id = int(options.get("device_id", 0))
    binding = session.io_binding()
    for name, array in arrays.items():
        value = onnxruntime.OrtValue.ortvalue_from_numpy(array, device, device_id)
        binding.bind_ortvalue_input(name, value)
    binding.bind_output(output, device, device_id)
    session.run_with_iobinding(binding)
    rows: NDArray[Any] = binding.copy_outputs_to_cpu()[0]
    return rows


# -- the graph ---------------------------------------------------------------------------


def _read_graph(folder: EmbedderFolder, session: onnxruntime.InferenceSession, device: str) -> _Graph:
    inputs = {entry.name: entry.type for entry in session.get_inputs()}
    outputs = {entry.name: entry for entry in session.get_outputs()}
    if folder.layout == "centroute":
        return _read_own_graph(folder, session, device)
    path = folder.model
    if not inputs.keys() >= {_TOKEN_IDS, _MASK} or not inputs.keys() <= {_TOKEN_IDS, _MASK, _TOKEN_TYPES}:
        raise EmbedderError(
            f"{path}: inputs are {list(inputs)}, expected {_TOKEN_IDS}, {_MASK} and at most {_TOKEN_TYPES}"
        )
    if wrong := [name for name, kind in inputs.items() if kind != "tensor(int64)"]:
        raise EmbedderError(f"{path}: input {wrong[0]} is {inputs[wrong[0]]}, expected tensor(int64)")
    named = [name for name in _OUTPUT_NAMES if name in outputs] or list(outputs)
    if len(named) > 1 and named[0] not in _OUTPUT_NAMES:
        raise EmbedderError(
            f"{path}: outputs are {named}, expected one, or one named {', '.join(_OUTPUT_NAMES)}"
        )
    output = outputs[named[0]]
    if output.type not in ("tensor(float)", "tensor(float16)") or len(output.shape) not in (2, 3):
        raise EmbedderError(
            f"{path}: output {output.name} is {output.type} {output.shape}, "
            "expected floats [n, dim] or [n, seq, dim]"
        )
    return _Graph(
        session,
        inputs=(_TOKEN_IDS, _MASK, *(name for name in inputs if name == _TOKEN_TYPES)),
        output=output.name,
        pooling=folder.description.pooling if len(output.shape) == 3 else None,
        device=device,
    )


def _read_own_graph(folder: EmbedderFolder, session: onnxruntime.InferenceSession, device: str) -> _Graph:
    """Compare the graph with ``embedder.json``."""
    path, description = folder.model, folder.description
    for kind, wanted, found in (
        ("inputs", list(description.inputs), [entry.name for entry in session.get_inputs()]),
        ("outputs", [description.output], [entry.name for entry in session.get_outputs()]),
    ):
        if sorted(wanted) != sorted(found):
            raise EmbedderError(f"{path}: {kind} are {found}, {DESCRIPTION_FILE} says {wanted}")
    shape = session.get_outputs()[0].shape
    if len(shape) != 2 or (isinstance(shape[1], int) and shape[1] != description.dim):
        raise EmbedderError(
            f"{path}: output has shape {shape}, {DESCRIPTION_FILE} says dim {description.dim}"
        )
    return _Graph(session, inputs=description.inputs, output=description.output, pooling=None, device=device)


def _try_graph(folder: EmbedderFolder, graph: _Graph, *, n_token_ids: int) -> tuple[int, bool]:
    """Run the graph on two texts, on the largest token id too.

    Returns
    -------
    dim
        Length of a row.
    depends_on_batch
        Whether the row of a text differs by more than `BATCH_TOLERANCE` beside a longer one.
    """
    path = folder.model
    n_long = min(9, folder.description.max_tokens)
    lengths = np.array([n_long, (n_long + 2) // 3])
    ids = np.random.default_rng(0).integers(0, n_token_ids, (2, n_long))
    ids[:, 0] = n_token_ids - 1
    short = ids[1:, : lengths[1]].copy()
    ids[1, lengths[1] :] = 0
    try:
        rows, alone = graph.run(ids, lengths), graph.run(short, lengths[1:])
    except Exception as error:
        raise EmbedderError(
            f"{path}: cannot be run with {n_token_ids} token ids: {_first_line(error)}"
        ) from error
    dim = folder.description.dim or rows.shape[-1]
    if rows.shape != (2, dim) or not np.isfinite(rows).all():
        raise EmbedderError(
            f"{path}: output is {rows.dtype} {list(rows.shape)} for 2 texts, expected finite [2, {dim}]"
        )
    if folder.layout == "centroute" and not _are_unit_or_zero(rows):
        raise EmbedderError(
            f"{path}: its rows have not norm 1, which a graph beside {DESCRIPTION_FILE} gives them"
        )
    difference = np.abs(_unit_rows(rows)[1] - _unit_rows(alone)[0]).max()
    return dim, bool(difference > BATCH_TOLERANCE)


def _pool(
    rows: NDArray[np.floating[Any]], lengths: NDArray[np.int64], pooling: str
) -> NDArray[np.floating[Any]]:
    """Make ``[n, dim]`` of token rows ``[n, seq, dim]``: the mean over tokens, the first or the last."""
    if pooling == "cls":
        return rows[:, 0]
    if pooling == "last":
        return rows[np.arange(len(rows)), lengths - 1]
    return np.array(
        [row[:length].mean(axis=0, dtype=np.float32) for row, length in zip(rows, lengths, strict=True)]
    )


def _unit_rows(rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = rows.astype(np.float32)
    norms = np.linalg.norm(unit, axis=1, keepdims=True)
    if not np.isfinite(norms).all():  # the squares of numbers beyond 1e19 are no float32
        norms = np.linalg.norm(unit.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(unit / np.maximum(norms, 1e-12), dtype=np.float32)


def _are_unit_or_zero(rows: NDArray[np.floating[Any]]) -> bool:
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    return bool((np.isclose(norms, 1, atol=1e-3) | (norms == 0)).all())


def _runs(lengths: NDArray[np.int64], tokens_per_run: int) -> Iterator[NDArray[np.int64]]:
    """Yield the ids of the non-empty texts, shortest first, in groups for one run each.

    Sorted by length so that little is padded; a group's padded size is at most
    ``tokens_per_run``, or it is one text.
    """
    order = np.argsort(lengths, kind="stable")
    order = order[np.searchsorted(lengths[order], 1) :]
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * lengths[order[stop]] <= tokens_per_run:
            stop += 1
        yield order[start:stop]
        start = stop


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
