"""The extension's tokenizer gives the ids of the package ``tokenizers``.

``python tests/test_tokenizer.py 400000`` compares that many made-up texts.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from centroute._kernel import Tokenizer
from centroute.embedders import bundled_folder
from centroute.errors import EmbedderError

MAX_TOKENS = 256
REAL_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
FILE = bundled_folder("static-256") / "tokenizer.json"

# First and last character of what a made-up text is mixed of.
BLOCKS = [
    (0x20, 0x7E), (0x20, 0x7E), (0x61, 0x7A), (0x00, 0x1F), (0x7F, 0xFF), (0x100, 0x24F), (0x250, 0x2FF),
    (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F),
    (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1AB0, 0x1AFF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x20A0, 0x20FF),
    (0x2100, 0x22FF), (0x3000, 0x30FF), (0x3400, 0x3420), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
    (0xE000, 0xE010), (0xF900, 0xFAFF), (0xFE00, 0xFE0F), (0xFE20, 0xFE2F), (0xFF00, 0xFFEF),
    (0x10400, 0x1044F), (0x1D15E, 0x1D1AD), (0x1F300, 0x1F64F), (0x1F900, 0x1F9FF), (0x20000, 0x20020),
    (0x2F800, 0x2FA1F), (0xE0020, 0xE007F), (0x10FFF0, 0x10FFFF),
]  # fmt: skip
FRAGMENTS = [
    "the", " ", "  ", "\n", "ing", "un", "[CLS]", "[SEP", "]", "##", "é", "\u0301", "\u0345", "x" * 99,
    "y" * 101, "don't", "http://", "3.14", "_", "\u200d", "\ufffd", "\x00", "İ", "ß", "ﬁ", "I\u0307",
    "한", "漢",
]  # fmt: skip


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return Tokenizer(FILE.read_bytes(), max_tokens=MAX_TOKENS)


@pytest.fixture(scope="module")
def theirs() -> tokenizers.Tokenizer:
    return open_theirs()


def open_theirs() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer.from_file(str(FILE))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def made_up_texts(n_texts: int, *, seed: int) -> list[str]:
    """Texts of a few blocks and fragments each, so that whatever meets, meets often."""
    chance = random.Random(seed)  # noqa: S311 - texts, no secrets
    texts = []
    for _ in range(n_texts):
        blocks = chance.sample(BLOCKS, chance.randint(1, 4))
        pieces = []
        for _ in range(chance.randint(0, 40)):
            if chance.random() < 0.25:
                pieces.append(chance.choice(FRAGMENTS))
            else:
                pieces.append(chr(chance.randint(*chance.choice(blocks))))
        texts.append("".join(pieces))
    return texts


def compare(ours: Tokenizer, theirs: tokenizers.Tokenizer, texts: list[str]) -> None:
    ids, ends, _ = ours.encode_batch(texts)
    for text, found, wanted in zip(
        texts, np.split(ids, ends[:-1]), theirs.encode_batch_fast(texts), strict=True
    ):
        assert found.tolist() == wanted.ids, repr(text)


def test_the_bundled_tokenizer_needs_no_fallback(ours: Tokenizer, theirs: tokenizers.Tokenizer) -> None:
    assert ours.fallback_reason is None
    assert ours.n_token_ids == theirs.get_vocab_size()


@pytest.mark.parametrize("name", ["llmrouter9", "routerbench3", "mmlu_pro", "routellm2"])
def test_every_real_text(ours: Tokenizer, theirs: tokenizers.Tokenizer, name: str) -> None:
    path = REAL_DATA / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip("no real queries beside the repository")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        compare(ours, theirs, [json.loads(line)["query"] for line in file])


@pytest.mark.parametrize("seed", range(4))
def test_made_up_texts(ours: Tokenizer, theirs: tokenizers.Tokenizer, seed: int) -> None:
    compare(ours, theirs, made_up_texts(15_000, seed=seed))


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(st.text(max_size=300), min_size=1, max_size=8))
def test_any_texts(ours: Tokenizer, theirs: tokenizers.Tokenizer, texts: list[str]) -> None:
    compare(ours, theirs, [text.encode("utf-8", "replace").decode() for text in texts])


def test_long_words_and_megabytes(ours: Tokenizer, theirs: tokenizers.Tokenizer) -> None:
    units = ["word ", "a", "漢字", ".", "🙂", "\x00", "e\u0301", "\n", "\u302f\u302e", "unaffable"]
    compare(ours, theirs, [unit * (100_000 // len(unit)) for unit in units])


@pytest.mark.parametrize("seed", range(25))
def test_the_start_of_a_long_text(ours: Tokenizer, theirs: tokenizers.Tokenizer, seed: int) -> None:
    pieces = ["word", "antidisestablishment", "[CLS]", "[SE", "P]", "é", "\u0301", "漢", "-", "\x00", "🙂"]
    pieces += ["\u200d", "y" * 90, "z" * 3000, " ", "\t", "\n", "\u3000", "\u00a0", "  ", "##ing", "İ", "ß"]
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(len(pieces), 0.3))
    compare(ours, theirs, ["".join(rng.choice(pieces, size=3000, p=weights))])


def test_no_texts(ours: Tokenizer) -> None:
    assert [values.tolist() for values in ours.encode_batch([])] == [[], [], []]


def test_known_tokens_are_counted(ours: Tokenizer) -> None:
    ids, ends, n_known = ours.encode_batch(["red fox", "", "[CLS] red 🙂", "\ud800"])
    assert ends.tolist() == [2, 2, 5, 5]
    assert n_known.tolist() == [2, 0, 1, 0]
    assert ids.dtype == ends.dtype == n_known.dtype == np.int64


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"normalizer": None},
        {
            "model": {
                "type": "WordLevel",
                "unk_token": "[UNK]",
                "vocab": {"[PAD]": 0, "[UNK]": 1, "red": 2, "fox": 3},
            }
        },
    ],
    ids=["lowercase", "whitespace", "no normalizer", "word level"],
)
def test_other_tokenizers_fall_back_and_say_so(change: dict) -> None:
    content = json.loads(FILE.read_text(encoding="utf-8")) | change
    if "model" in change:
        content["added_tokens"] = []
    data = json.dumps(content).encode()
    fallback = Tokenizer(data, max_tokens=16)
    assert fallback.fallback_reason
    theirs = tokenizers.Tokenizer.from_str(data.decode())
    theirs.enable_truncation(16)
    compare(fallback, theirs, ["red fox", "Red FOX, " * 20, "é 漢 🙂"])


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"model": 7}', b"\xff"])
def test_what_is_no_tokenizer_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(EmbedderError, match="not a tokenizer") as caught:
        Tokenizer(data, max_tokens=16)
    assert "\n" not in str(caught.value)


def test_a_limit_without_room_is_refused() -> None:
    with pytest.raises(EmbedderError, match="max_tokens 0"):
        Tokenizer(FILE.read_bytes(), max_tokens=0)


def test_texts_must_be_strings(ours: Tokenizer) -> None:
    with pytest.raises(TypeError, match="got one str"):
        ours.encode_batch("text")
    with pytest.raises(TypeError, match=r"texts\[1\] must be str, got int"):
        ours.encode_batch(["text", 7])  # type: ignore[list-item]


if __name__ == "__main__":
    wanted = int(sys.argv[1])
    for part in range(0, wanted, 20_000):
        compare(
            Tokenizer(FILE.read_bytes(), max_tokens=MAX_TOKENS),
            open_theirs(),
            made_up_texts(20_000, seed=1000 + part),
        )
    sys.stdout.write(f"{wanted} made-up texts: all ids equal\n")
