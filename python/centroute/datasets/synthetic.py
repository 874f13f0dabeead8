"""The bundled sample: synthetic queries, and synthetic outcomes of six invented models on them.

Whether model m solves query i of kind k is drawn from the three-parameter logistic model of item response
theory (Birnbaum 1968, in Lord & Novick, "Statistical Theories of Mental Test Scores", chapter 17)::

    P(right) = guess_k + (1 - guess_k) · sigmoid(discrimination_k · (skill[m, k] - difficulty_i))

The difficulty follows from what the text shows (rare language, number of steps, length) plus noise, so a
router that reads the text can learn which model to trust, and a part stays beyond its reach.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centroute.datasets.outcomes import Outcomes, text_key
from centroute.datasets.synthetic_phrases import KINDS
from centroute.datasets.synthetic_texts import DrawnText, draw_text
from centroute.errors import DataError

SYNTHETIC_NOTICE = (
    "This sample is synthetic: centroute generated its queries from templates and drew the scores and costs "
    "of its invented models from a statistical model, so its numbers say nothing about any real model."
)

MAX_QUERIES = 100_000

# The part of the difficulty that no text shows, in logits.
_HIDDEN_DIFFICULTY = 0.8
_CHARACTERS_PER_TOKEN = 4.0
_LENGTH_SPREAD = 0.35


@dataclass(frozen=True, slots=True)
class SyntheticModel:
    """An invented model: what it costs, how much it writes, and what it can do."""

    name: str
    input_price: float
    """USD for a million input tokens."""
    output_price: float
    """USD for a million output tokens."""
    verbosity: float
    """Answer length as a multiple of the usual one of the kind."""
    skill: Mapping[str, float]
    """Logits per kind; at 0 a query of plain difficulty is solved every second time, guesses apart."""


@dataclass(frozen=True, slots=True)
class _Kind:
    discrimination: float
    guess: float
    answer_tokens: float


_KINDS: dict[str, _Kind] = {
    "code": _Kind(discrimination=1.6, guess=0.02, answer_tokens=320),
    "mathematics": _Kind(discrimination=1.8, guess=0.02, answer_tokens=260),
    "translation": _Kind(discrimination=1.7, guess=0.05, answer_tokens=90),
    "summarisation": _Kind(discrimination=1.4, guess=0.10, answer_tokens=120),
    "facts": _Kind(discrimination=1.6, guess=0.08, answer_tokens=60),
    "writing": _Kind(discrimination=1.4, guess=0.10, answer_tokens=400),
    "logic": _Kind(discrimination=1.7, guess=0.15, answer_tokens=280),
    "extraction": _Kind(discrimination=1.6, guess=0.05, answer_tokens=150),
}


def _skill(*logits: float) -> dict[str, float]:
    return dict(zip(_KINDS, logits, strict=True))


# Skill in the order of _KINDS: code, mathematics, translation, summarisation, facts, writing, logic,
# extraction.
SYNTHETIC_MODELS: tuple[SyntheticModel, ...] = (
    SyntheticModel("oakhollow-grand", 9.0, 30.0, 1.0, _skill(1.5, 1.2, 1.6, 2.0, 1.9, 1.6, 1.2, 1.8)),
    SyntheticModel("tinsmith-code", 1.8, 6.0, 0.9, _skill(2.2, 0.5, -0.4, 0.4, 0.1, -0.4, 0.3, 2.2)),
    SyntheticModel("longdivision-reason", 3.0, 12.0, 2.2, _skill(0.9, 2.2, 0.0, 0.5, 0.5, -0.3, 2.1, 0.8)),
    SyntheticModel("wayfarer-tongues", 2.2, 8.0, 1.0, _skill(-0.6, -0.7, 2.5, 2.1, 0.9, 2.3, -0.6, 0.6)),
    SyntheticModel("pebble-fair", 0.25, 0.9, 0.8, _skill(0.1, 0.0, 0.4, 1.0, 0.4, 0.6, -0.3, 0.9)),
    SyntheticModel("crumb-mini", 0.05, 0.15, 0.6, _skill(-1.0, -1.2, -0.7, 0.2, -0.7, -0.5, -1.2, -0.1)),
)


def synthetic_outcomes(*, n_queries: int = 2400, seed: int = 0) -> Outcomes:
    """Generate the synthetic sample.

    Parameters
    ----------
    n_queries
        Number of queries, 1 to 100,000, all with distinct texts (also after `text_key`).
    seed
        Seed of every draw, 0 or more. The same arguments give the same outcomes on every platform.

    Returns
    -------
    Outcomes
        Scores 0 or 1 of the six `SYNTHETIC_MODELS` on every query, costs in USD from the models' prices, an
        estimate of the query's tokens and a drawn answer length; ``datasets`` holds the kind of task.

    Raises
    ------
    DataError
        ``n_queries`` or ``seed`` is outside its range.

    Examples
    --------
    >>> sample = synthetic_outcomes(n_queries=100, seed=7)
    >>> sample.n_queries, sample.n_models, bool(sample.has_costs.all())
    (100, 6, True)
    """
    if not 1 <= n_queries <= MAX_QUERIES:
        raise DataError(f"n_queries must be between 1 and {MAX_QUERIES}, got {n_queries}")
    if seed < 0:
        raise DataError(f"seed must be 0 or more, got {seed}")
    # PCG64 by name: default_rng may change its generator between NumPy versions.
    text_seed, outcome_seed = np.random.SeedSequence(seed).spawn(2)
    drawn = _distinct_texts(n_queries, np.random.Generator(np.random.PCG64(text_seed)))
    rng = np.random.Generator(np.random.PCG64(outcome_seed))
    return Outcomes(
        queries=tuple(query.text for query in drawn),
        models=tuple(model.name for model in SYNTHETIC_MODELS),
        scores=_scores(drawn, rng),
        costs=_costs(drawn, rng),
        datasets=tuple(query.kind for query in drawn),
        ids=tuple(f"synthetic-{row}" for row in range(n_queries)),
    )


def example_queries() -> tuple[str, ...]:
    """Return six short queries of different kinds, none of them in the sample, to try a router with."""
    return (
        "Write a Rust function that finds the longest run of equal bytes in a slice.",
        "A rectangle is twice as long as it is wide and has a perimeter of 54 cm. What is its area?",
        "Translate into Icelandic: The last bus to the harbour leaves at nine.",
        "Which planet has the shortest day?",
        "Write a limerick about a cat who learns to fly.",
        "Anna is older than Ben, and Ben is older than Cleo. Can Cleo be older than Anna?",
    )


def _distinct_texts(n_queries: int, rng: np.random.Generator) -> list[DrawnText]:
    """Draw queries of all kinds in turn order until ``n_queries`` distinct ones are there."""
    kinds = tuple(KINDS)
    keys = {text_key(text) for text in example_queries()}
    drawn: list[DrawnText] = []
    while len(drawn) < n_queries:
        query = draw_text(kinds[len(drawn) % len(kinds)], rng=rng)
        key = text_key(query.text)
        if key not in keys:
            keys.add(key)
            drawn.append(query)
    return drawn


def _scores(drawn: list[DrawnText], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw right (1) or wrong (0), ``[n_queries, n_models]``, from the response model above."""
    difficulty = np.array([query.difficulty for query in drawn])
    difficulty += _HIDDEN_DIFFICULTY * rng.standard_normal(len(drawn))
    discrimination = np.array([_KINDS[query.kind].discrimination for query in drawn])
    guess = np.array([_KINDS[query.kind].guess for query in drawn])
    skill = np.array([[model.skill[query.kind] for model in SYNTHETIC_MODELS] for query in drawn])
    logits = discrimination[:, None] * (skill - difficulty[:, None])
    right = guess[:, None] + (1 - guess[:, None]) / (1 + np.exp(-logits))
    return np.asarray(rng.random(right.shape) < right, dtype=np.float32)


def _costs(drawn: list[DrawnText], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw answer lengths (log-normal, whole tokens) and return USD a query, ``[n_queries, n_models]``."""
    input_tokens = np.array([np.ceil(len(query.text) / _CHARACTERS_PER_TOKEN) for query in drawn])
    usual_tokens = np.array([_KINDS[query.kind].answer_tokens for query in drawn])
    verbosity = np.array([model.verbosity for model in SYNTHETIC_MODELS])
    spread = np.exp(_LENGTH_SPREAD * rng.standard_normal((len(drawn), len(SYNTHETIC_MODELS))))
    # Whole tokens also make the costs the same where two platforms' exp differ in the last bit.
    output_tokens = np.maximum(1, np.rint(usual_tokens[:, None] * verbosity * spread))
    input_prices = np.array([model.input_price for model in SYNTHETIC_MODELS])
    output_prices = np.array([model.output_price for model in SYNTHETIC_MODELS])
    return np.asarray((input_tokens[:, None] * input_prices + output_tokens * output_prices) / 1e6)
