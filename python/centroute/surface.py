r"""Surface features: twelve cheap numbers of a text, put behind its embedding before it is routed.

Static embeddings know words, not form. Length, line breaks or the share of code characters tell kinds of
queries apart that share their words. This module is the definition; the extension computes the same.

The set ``surface-1`` reads the first `MAX_BYTES` bytes of the text in UTF-8, each lone surrogate as U+FFFD.
Every byte has one class:

==========  ===================================================================
class       bytes
==========  ===================================================================
digit       ``0`` to ``9``
upper       ``A`` to ``Z``
code        ``{ } [ ] ( ) ; _ # & | ~ @ \``, the backtick
arithmetic  ``+ - * / = ^ < > %``
line break  0x0A
dollar      ``$``
question    ``?``
continued   0x80 to 0xBF
lead        0xC0 to 0xFF
other       all others
==========  ===================================================================

*Characters* are the bytes that are not ``continued``. *Words* are the longest runs of bytes other than the
six of ASCII whitespace (0x09 to 0x0D and 0x20). *Names* are the longest runs of ``A`` to ``Z``, ``a`` to
``z`` and ``_``. With ``ln`` the natural logarithm, and shares of the characters (0 where there are none):

==  ==============  ===================================================================
    name            definition
==  ==============  ===================================================================
0   characters      ln(1 + characters)
1   words           ln(1 + words)
2   line_breaks     ln(1 + bytes of class line break)
3   digits          share of class digit
4   upper           share of class upper
5   code            share of class code
6   arithmetic      share of class arithmetic
7   non_ascii       share of class lead
8   dollars         ln(1 + bytes of class dollar)
9   question        1 where there is a byte of class question, else 0
10  keywords        ln(1 + names that are one of `KEYWORDS`, case as it is)
11  distinct_words  number of different words, byte for byte, over words; 0 without words
==  ==============  ===================================================================

Computed in float64 and rounded to float32. A row that is routed is

    [embedding, weight · clip((feature − mean) / scale, −4, 4)]

scaled to norm 1, computed in float64 and rounded to float32; an embedding of zeros stays a row of zeros.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from centroute.errors import DataError

# NumPy is loaded where it computes: a router that has features in the extension starts without it.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from centroute.embedders import Embedder

NAME: Final = "surface-1"
"""Name of the feature set; another definition takes another name."""

FEATURE_NAMES: Final = (
    "characters", "words", "line_breaks", "digits", "upper", "code", "arithmetic", "non_ascii", "dollars",
    "question", "keywords", "distinct_words",
)  # fmt: skip
"""Names of the features, in the order of the columns."""

MAX_BYTES: Final = 16_384
"""Bytes of a text that are read."""

MAX_WEIGHT: Final = 10.0
CLIP: Final = 4.0
"""Standard deviations beyond which a feature says no more."""

KEYWORDS: Final = (
    "assert", "break", "class", "const", "def", "elif", "else", "false", "function", "import", "int",
    "lambda", "new", "null", "public", "return", "self", "static", "str", "struct", "true", "var", "void",
    "while", "False", "None", "True",
)  # fmt: skip

CLASSES: Final = {
    b"d": b"0123456789",
    b"u": b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    b"p": b"{}[]();_#&|~@\\`",
    b"a": b"+-*/=^<>%",
    b"n": b"\n",
    b"$": b"$",
    b"?": b"?",
    b"c": bytes(range(0x80, 0xC0)),
    b"l": bytes(range(0xC0, 0x100)),
}
"""Bytes of each class but ``other``, by the letter that stands for it in the byte class table."""


def _class_table() -> bytes:
    table = bytearray(b"." * 256)
    for letter, members in CLASSES.items():
        for byte in members:
            table[byte] = letter[0]
    return bytes(table)


_CLASS_OF_BYTE: Final = _class_table()
_IS_KEYWORD: Final = re.compile(rb"(?<![A-Za-z_])(?:" + "|".join(KEYWORDS).encode() + rb")(?![A-Za-z_])")
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def surface_features(texts: Sequence[str]) -> NDArray[np.float32]:
    """Features of texts, float32 ``[n, 12]``, finite; the definition is in the module's description.

    Examples
    --------
    >>> [f"{value:.3f}" for value in surface_features(["What is 2 + 2?"])[0, [3, 6, 9]]]
    ['0.143', '0.071', '1.000']
    """
    import numpy as np

    rows = np.array([_counts(text) for text in texts], dtype=np.float64).reshape(-1, len(FEATURE_NAMES))
    logarithms = [0, 1, 2, 8, 10]
    shares = [3, 4, 5, 6, 7]
    rows[:, shares] /= np.maximum(rows[:, :1], 1)
    rows[:, 11] /= np.maximum(rows[:, 1], 1)
    rows[:, logarithms] = np.log(1 + rows[:, logarithms])
    return rows.astype(np.float32)


def _counts(text: str) -> tuple[int, ...]:
    """Whole numbers behind the features, in their order."""
    # A character has at least one byte, so that no more characters than bytes are needed.
    start = text[:MAX_BYTES]
    if not start.isascii():
        start = _LONE_SURROGATE.sub("\ufffd", start)
    data = start.encode()[:MAX_BYTES]
    classes = data.translate(_CLASS_OF_BYTE)
    words = data.split()
    return (
        len(data) - classes.count(b"c"),
        len(words),
        classes.count(b"n"),
        classes.count(b"d"),
        classes.count(b"u"),
        classes.count(b"p"),
        classes.count(b"a"),
        classes.count(b"l"),
        classes.count(b"$"),
        b"?" in classes,
        len(_IS_KEYWORD.findall(data)),
        len(set(words)),
    )


@dataclass(frozen=True, slots=True)
class SurfaceFeatures:
    """How an artifact puts features behind embeddings.

    Attributes
    ----------
    weight
        Norm of a row's part for one standard deviation of one feature, above 0 and at most `MAX_WEIGHT`,
        with at most four decimals.
    mean, scale
        Mean and standard deviation of each feature over the calibration rows, 12 numbers each of six
        significant digits, so that every JSON reader finds the same number. The scale of a feature that
        does not vary is 1.
    name
        The feature set.
    """

    weight: float
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    name: str = NAME

    @classmethod
    def fit(cls, features: NDArray[np.float32], weight: float) -> SurfaceFeatures:
        """Take the statistics of calibration rows ``[n, 12]``; the weight is rounded to four decimals.

        Raises
        ------
        DataError
            If the weight is not above 0 and at most `MAX_WEIGHT`.
        """
        import numpy as np

        check_weight(weight)
        rows = features.astype(np.float64)
        varies = features.max(axis=0) > features.min(axis=0)
        return cls(
            weight=round(weight, 4),
            mean=tuple(float(f"{value:.6g}") for value in rows.mean(axis=0)),
            scale=tuple(float(f"{value:.6g}") for value in np.where(varies, rows.std(axis=0), 1.0)),
        )

    @property
    def identity(self) -> str:
        """What the fingerprint says of the features, such as ``surface-1 weight 0.1000``.

        Set and weight only: the statistics come with the artifact, whose digest covers them.
        """
        return f"{self.name} weight {self.weight:.4f}"

    def append(self, embeddings: NDArray[np.float32], features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows to route, float32 ``[n, dim + 12]``, C-contiguous, of norm 1 or zero.

        Parameters
        ----------
        embeddings
            Unit rows ``[n, dim]``; a row of zeros, a text without any known token, stays zero.
        features
            ``[n, 12]`` as of :func:`surface_features`, of the same texts.

        Raises
        ------
        DataError
            If the shapes do not fit each other.

        Examples
        --------
        >>> import numpy as np
        >>> texts = ["Add 2 and 2.", "Write a poem about the sea."]
        >>> features = surface_features(texts)
        >>> surface = SurfaceFeatures.fit(features, 0.1)
        >>> surface.append(np.eye(2, 3, dtype=np.float32), features).shape
        (2, 15)
        """
        import numpy as np

        wanted = (len(embeddings), len(FEATURE_NAMES))
        if features.shape != wanted:
            raise DataError(f"surface features {list(features.shape)}: wanted {list(wanted)}")
        standardised = np.clip((features - np.array(self.mean)) / np.array(self.scale), -CLIP, CLIP)
        rows = np.concatenate([embeddings.astype(np.float64), self.weight * standardised], axis=1)
        rows[~embeddings.any(axis=1)] = 0.0
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return (rows / np.where(norms > 0, norms, 1.0)).astype(np.float32)


def check_weight(weight: float) -> None:
    """Refuse a weight that no artifact can hold: it has four decimals, the fingerprint's.

    Raises
    ------
    DataError
        If it is not within 0.0001 to `MAX_WEIGHT` when rounded.
    """
    if not 0 < round(weight, 4) <= MAX_WEIGHT:
        raise DataError(f"surface weight {weight}: wanted 0.0001 to {MAX_WEIGHT:g}, or 0 for none")


def routed_identity(embedder: Embedder, surface: SurfaceFeatures | None) -> tuple[int, str | None]:
    """Width and fingerprint of the rows that are routed, as an artifact holds them for its embedder.

    Without features these are the embedder's own. The fingerprint is ``None`` for embeddings from outside.
    """
    if surface is None:
        return embedder.dim, embedder.fingerprint
    width = embedder.dim + len(FEATURE_NAMES)
    if embedder.fingerprint is None:
        return width, None
    # Imported here and not above: the router file is read without any embedder.
    from centroute.embedders.fingerprint import fingerprint

    description = embedder.description
    return width, fingerprint(
        description.model_sha256,
        tokenizer_sha256=description.tokenizer_sha256,
        pooling=description.pooling,
        max_tokens=description.max_tokens,
        surface_features=surface.identity,
        prefix=description.prefix,
    )
