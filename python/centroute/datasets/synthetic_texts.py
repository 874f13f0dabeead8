"""Draws the query texts of the synthetic sample from the phrase tables: a small random grammar.

A table entry is text with slots in braces. ``{city}`` is filled from the vocabulary ``city``; the same
slot twice in one query is the same choice, ``{city_2}`` is another choice than ``{city}`` (numbers may
coincide). Slots may hold slots. A `Passage` slot becomes several sentences. What a choice adds to the
difficulty of the query is part of the table, so that difficulty follows from what the text shows.
"""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from centroute.datasets.synthetic_phrases import CLOSINGS, KINDS, OPENINGS, SLOTS
from centroute.datasets.synthetic_vocabulary import Passage, Vocabulary

_SLOT = re.compile(r"\{([a-z]+(?:_[a-z]+)*)(_\d+)?\}")

# A query of this many characters adds nothing for its length; each doubling adds _PER_DOUBLING.
_PLAIN_LENGTH = 160
_PER_DOUBLING = 0.12

_OPENING_SHARE = 0.18
_CLOSING_SHARE = 0.28


@dataclass(frozen=True, slots=True)
class DrawnText:
    """One query of the sample: its kind of task, its text, and its visible difficulty in logits."""

    kind: str
    text: str
    difficulty: float


def draw_text(kind: str, *, rng: np.random.Generator) -> DrawnText:
    """Draw one query of a kind.

    Parameters
    ----------
    kind
        A key of ``KINDS``.
    rng
        Source of every choice. Only uniform draws are taken, which are the same on every platform.
    """
    draw = _Draw(rng)
    template = draw.one_of(KINDS[kind])
    text = draw.filled(template)
    if rng.random() < _OPENING_SHARE:
        text = draw.filled(draw.one_of(OPENINGS)) + text
    if rng.random() < _CLOSING_SHARE:
        text += ("\n\n" if "\n" in text else " ") + draw.filled(draw.one_of(CLOSINGS))
    length_difficulty = _PER_DOUBLING * math.log2(len(text) / _PLAIN_LENGTH)
    return DrawnText(kind=kind, text=text, difficulty=draw.difficulty + length_difficulty)


class _Draw:
    """The choices made so far within one query."""

    __slots__ = ("_filled", "_rng", "_taken", "difficulty")

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._filled: dict[str, str] = {}
        self._taken: dict[str, set[str]] = {}
        self.difficulty = 0.0

    def filled(self, text: str) -> str:
        return _SLOT.sub(self._slot, text)

    def one_of(self, vocabulary: Vocabulary, avoided: Collection[str] = ()) -> str:
        """Choose an entry, not an avoided one where there is another; add its difficulty."""
        if isinstance(vocabulary, Passage):
            return self._passage(vocabulary)
        if isinstance(vocabulary, range):
            return str(vocabulary[self._below(len(vocabulary))])
        # A small vocabulary can be used up (five log levels on seven lines): then repeat.
        entries = [entry for entry in vocabulary if entry not in avoided] or list(vocabulary)
        entry = entries[self._below(len(entries))]
        if isinstance(vocabulary, dict):
            self.difficulty += vocabulary[entry]
        return entry

    def _slot(self, match: re.Match[str]) -> str:
        name, slot = match[1], match[0]
        if slot not in self._filled:
            taken = self._taken.setdefault(name, set())
            entry = self.one_of(SLOTS[name], taken)
            taken.add(entry)
            self._filled[slot] = self.filled(entry)
        return self._filled[slot]

    def _passage(self, passage: Passage) -> str:
        n_sentences = passage.fewest + self._below(passage.most - passage.fewest + 1)
        left = list(passage.sentences)
        parts = [left.pop(self._below(len(left))) for _ in range(n_sentences)]
        self.difficulty += passage.per_sentence * (n_sentences - passage.fewest)
        pieces = [parts[0]]
        for position, part in enumerate(parts[1:], start=1):
            pieces += ["\n\n" if position % passage.paragraph == 0 else passage.separator, part]
        return "".join(pieces)

    def _below(self, limit: int) -> int:
        return int(self._rng.random() * limit)
