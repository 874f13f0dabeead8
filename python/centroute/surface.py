r"""Surface features: cheap numbers of a text, put behind its embedding before it is routed.

Static embeddings know words, not form. Length, line breaks or the share of code characters tell kinds of
queries apart that share their words; scripts tell languages apart that an embedder brings together. This
module is the definition; the extension computes the same.

A set begins with the features of the sets before it: ``surface-1`` has the first twelve, ``surface-2`` all of
them. Calibration takes the second where a hundredth of the texts or more are in other letters
(:func:`in_other_letters`), else the first. A router file names its set, and keeps it.

The features are those of the first `MAX_BYTES` bytes of the text in UTF-8, each lone surrogate as U+FFFD.
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
12  latin           share of Latin letters beyond ASCII, U+00C0 to U+02BF and U+1E00 to U+1EFF
13  cyrillic        share of U+0400 to U+053F
14  arabic          share of U+0600 to U+06FF and U+0740 to U+077F
15  han             share of U+3400 to U+4DBF, U+4E00 to U+9FFF, U+F900 to U+FAFF and U+20000 to U+3FFFF
16  kana            share of U+3040 to U+30FF
17  hangul          share of U+1100 to U+11FF and U+AC00 to U+D7BF
18  thai            share of U+0E00 to U+0E7F
19  other_scripts   share of `OTHER_SCRIPTS`: Greek, Hebrew, Devanagari and others
==  ==============  ===================================================================

A script takes whole blocks of 64 characters; a character that is cut off at the end has none. In
``surface-2`` the scale of features 7 and 12 to 19 is at least `LEAST_SCALE`: where the calibration rows are
of one language, a text of another is not set apart by its letters alone.

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

PLAIN, SCRIPTED = "surface-1", "surface-2"
SETS: Final = {PLAIN: 12, SCRIPTED: 20}
"""The feature sets by name, and how many features each has; another definition takes another name."""

FEATURE_NAMES: Final = (
    "characters", "words", "line_breaks", "digits", "upper", "code", "arithmetic", "non_ascii", "dollars",
    "question", "keywords", "distinct_words",
    "latin", "cyrillic", "arabic", "han", "kana", "hangul", "thai", "other_scripts",
)  # fmt: skip
"""Names of the features, in the order of the columns."""

MAX_BYTES: Final = 16_384
"""Bytes of a text that are read."""

MAX_WEIGHT: Final = 10.0
CLIP: Final = 4.0
"""Standard deviations beyond which a feature says no more."""

OTHER_LETTERS: Final = 0.1
"""Share of the characters that are letters beyond ASCII from which on a text is in other letters."""

MIN_TEXTS: Final = 0.01
"""Share of the calibration texts in other letters from which on scripts are told apart."""

LEAST_SCALE: Final = 0.25
"""Least scale of the shares of letters beyond ASCII: a script's deviation among a handful of them."""

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
OTHER_SCRIPTS: Final = (
    (0x0380, 0x03FF), (0x0540, 0x05FF), (0x0700, 0x073F), (0x0780, 0x0DFF), (0x0E80, 0x10FF),
    (0x1200, 0x1DFF), (0x1F00, 0x1FFF), (0x2C00, 0x2DFF), (0xA480, 0xABFF),
)  # fmt: skip
"""First and last characters of the scripts that have no feature of their own."""

SCRIPTS: Final = (
    ((0x00C0, 0x02BF), (0x1E00, 0x1EFF)),
    ((0x0400, 0x053F),),
    ((0x0600, 0x06FF), (0x0740, 0x077F)),
    ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
    ((0x3040, 0x30FF),),
    ((0x1100, 0x11FF), (0xAC00, 0xD7BF)),
    ((0x0E00, 0x0E7F),),
    OTHER_SCRIPTS,
)
"""First and last characters of each script, in the order of the features."""

_LETTERS: Final = tuple(
    re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges) + "]")
    for ranges in SCRIPTS
)
_IS_KEYWORD: Final = re.compile(rb"(?<![A-Za-z_])(?:" + "|".join(KEYWORDS).encode() + rb")(?![A-Za-z_])")
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def surface_features(texts: Sequence[str]) -> NDArray[np.float32]:
    """Features of texts, float32 ``[n, 20]``, finite; the definition is in the module's description.

    Examples
    --------
    >>> [f"{value:.3f}" for value in surface_features(["What is 2 + 2?"])[0, [3, 6, 9]]]
    ['0.143', '0.071', '1.000']
    """
    import numpy as np

    rows = np.array([_counts(text) for text in texts], dtype=np.float64).reshape(-1, len(FEATURE_NAMES))
    logarithms = [0, 1, 2, 8, 10]
    shares = [3, 4, 5, 6, 7, *range(SETS[PLAIN], SETS[SCRIPTED])]
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
    letters = "" if data.isascii() else data.decode(errors="ignore")
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
        *(len(script.findall(letters)) for script in _LETTERS),
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
        Mean and standard deviation of each feature of the set over the calibration rows, of six significant
        digits, so that every JSON reader finds the same number. The scale of a feature that does not vary
        is 1; in ``surface-2`` that of the shares of letters beyond ASCII is at least `LEAST_SCALE`.
    name
        The feature set.
    """

    weight: float
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    name: str = PLAIN

    @classmethod
    def fit(cls, features: NDArray[np.float32], weight: float) -> SurfaceFeatures:
        """Take the statistics of calibration rows ``[n, 20]``, and the set that their letters ask for.

        Raises
        ------
        DataError
            If the weight is not above 0 and at most `MAX_WEIGHT`.
        """
        import numpy as np

        check_weight(weight)
        rows = features.astype(np.float64)
        varies = features.max(axis=0) > features.min(axis=0)
        return cls.from_moments(
            rows.mean(axis=0),
            np.where(varies, rows.std(axis=0), 0.0),
            share_in_other_letters=float(in_other_letters(features).mean()),
            weight=weight,
        )

    @classmethod
    def from_moments(
        cls,
        mean: NDArray[np.float64],
        deviation: NDArray[np.float64],
        *,
        share_in_other_letters: float,
        weight: float,
    ) -> SurfaceFeatures:
        """The same from means and standard deviations ``[20]``, 0 for what does not vary.

        The weight is rounded to four decimals.
        """
        import numpy as np

        name = SCRIPTED if share_in_other_letters >= MIN_TEXTS else PLAIN
        scale = np.where(deviation > 0, deviation, 1.0)
        if name == SCRIPTED:
            lettered = [FEATURE_NAMES.index("non_ascii"), *range(SETS[PLAIN], SETS[SCRIPTED])]
            scale[lettered] = np.maximum(scale[lettered], LEAST_SCALE)
        width = SETS[name]
        return cls(
            weight=round(weight, 4),
            mean=tuple(float(f"{value:.6g}") for value in mean[:width]),
            scale=tuple(float(f"{value:.6g}") for value in scale[:width]),
            name=name,
        )

    @property
    def identity(self) -> str:
        """What the fingerprint says of the features, such as ``surface-1 weight 0.1000``.

        Set and weight only: the statistics come with the artifact, whose digest covers them.
        """
        return f"{self.name} weight {self.weight:.4f}"

    def append(self, embeddings: NDArray[np.float32], features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows to route, float32 ``[n, dim + 12]`` or ``+ 20``, C-contiguous, of norm 1 or zero.

        Parameters
        ----------
        embeddings
            Unit rows ``[n, dim]``; a row of zeros, a text without any known token, stays zero.
        features
            ``[n, 20]`` as of :func:`surface_features`, of the same texts; a set takes those it has.

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
        own = features[:, : len(self.mean)]
        standardised = np.clip((own - np.array(self.mean)) / np.array(self.scale), -CLIP, CLIP)
        rows = np.concatenate([embeddings.astype(np.float64), self.weight * standardised], axis=1)
        rows[~embeddings.any(axis=1)] = 0.0
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return (rows / np.where(norms > 0, norms, 1.0)).astype(np.float32)


def in_other_letters(features: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each text of features ``[n, 20]`` is in other letters than those of ASCII, ``[n]``."""
    return features[:, SETS[PLAIN] :].sum(axis=1) >= OTHER_LETTERS  # type: ignore[no-any-return]


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
    width = embedder.dim + len(surface.mean)
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
