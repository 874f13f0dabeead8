"""The synthetic sample: varied, deterministic, and with something in it for a router to learn."""

import re
from collections import Counter

import numpy as np
import pytest

from centroute.datasets import (
    SYNTHETIC_NOTICE,
    Outcomes,
    example_queries,
    read_jsonl,
    synthetic_outcomes,
    text_key,
    write_jsonl,
)
from centroute.datasets.synthetic import SYNTHETIC_MODELS
from centroute.datasets.synthetic_phrases import CLOSINGS, KINDS, OPENINGS, SLOTS
from centroute.datasets.synthetic_vocabulary import Passage, Vocabulary
from centroute.errors import DataError


@pytest.fixture(scope="module")
def sample() -> Outcomes:
    return synthetic_outcomes()


def accuracy_by_kind(sample: Outcomes) -> np.ndarray:
    """``[n_kinds, n_models]``."""
    kinds = np.array(sample.datasets)
    return np.array([sample.scores[kinds == kind].mean(axis=0) for kind in KINDS])


def entries(vocabulary: Vocabulary) -> tuple[str, ...]:
    if isinstance(vocabulary, Passage):
        return vocabulary.sentences
    return () if isinstance(vocabulary, range) else tuple(vocabulary)


def test_size(sample: Outcomes) -> None:
    assert sample.n_queries >= 2000
    assert sample.n_models == 6
    assert set(sample.datasets) == set(KINDS)
    assert len(KINDS) == 8
    assert min(Counter(sample.datasets).values()) >= 200
    assert len(set(sample.ids)) == sample.n_queries


def test_texts_are_distinct_and_varied(sample: Outcomes) -> None:
    assert len({text_key(query) for query in sample.queries}) == sample.n_queries
    n_characters = np.array([len(query) for query in sample.queries])
    assert n_characters.min() < 40
    assert n_characters.max() > 800
    assert sum("\n\n" in query for query in sample.queries) > 300
    words = Counter(word for query in sample.queries for word in query.lower().split())
    assert len(words) > 5000


def test_every_slot_is_known_used_and_filled(sample: Outcomes) -> None:
    slot = re.compile(r"\{([a-z]+(?:_[a-z]+)*)(?:_\d+)?\}")
    vocabularies = [*KINDS.values(), *SLOTS.values(), OPENINGS, CLOSINGS]
    named = {name for table in vocabularies for entry in entries(table) for name in slot.findall(entry)}
    assert named == set(SLOTS)
    assert not [query for query in sample.queries if slot.search(query)]


def test_every_kind_has_many_templates_and_no_entry_is_empty() -> None:
    assert all(len(templates) >= 12 for templates in KINDS.values())
    for table in [*KINDS.values(), *SLOTS.values(), OPENINGS, CLOSINGS]:
        assert all(entry.strip() for entry in entries(table))


def test_no_text_has_a_wrong_article(sample: Outcomes) -> None:
    wrong = re.compile(r"\b[Aa] (?!one)[aeio]\w+")
    assert not [found[0] for query in sample.queries if (found := wrong.search(query))]


def test_the_same_seed_gives_the_same_sample(sample: Outcomes) -> None:
    again = synthetic_outcomes()
    assert again.queries == sample.queries
    np.testing.assert_array_equal(again.scores, sample.scores)
    np.testing.assert_array_equal(again.costs, sample.costs)


def test_another_seed_gives_another_sample(sample: Outcomes) -> None:
    other = synthetic_outcomes(seed=1)
    assert len(set(other.queries) & set(sample.queries)) < sample.n_queries / 4


def test_scores_are_binary_and_costs_positive(sample: Outcomes) -> None:
    assert set(np.unique(sample.scores)) == {0.0, 1.0}
    assert sample.has_costs.all()
    assert np.isfinite(sample.costs).all()
    assert (sample.costs > 0).all()
    assert sample.costs.max() < 0.1


def test_prices_differ_and_the_best_single_is_the_dearest(sample: Outcomes) -> None:
    mean_costs = sample.costs.mean(axis=0)
    accuracy = sample.scores.mean(axis=0)
    assert mean_costs.max() > 100 * mean_costs.min()
    assert accuracy.argmax() == mean_costs.argmax()
    assert accuracy.argmin() == mean_costs.argmin()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_there_is_headroom_for_a_router(seed: int) -> None:
    sample = synthetic_outcomes(seed=seed)
    best_single = sample.scores.mean(axis=0).max()
    by_kind = accuracy_by_kind(sample)
    assert sample.scores.max(axis=1).mean() > best_single + 0.1
    assert by_kind.max(axis=1).mean() > best_single + 0.04
    assert len(set(by_kind.argmax(axis=1))) >= 3


def test_difficulty_can_be_read_from_the_text(sample: Outcomes) -> None:
    kinds = np.array(sample.datasets)
    rare = np.array([any(word in q for word in ("Tigrinya", "Faroese", "Yoruba")) for q in sample.queries])
    common = np.array([any(word in q for word in ("Spanish", "French", "German")) for q in sample.queries])
    translation = kinds == "translation"
    easy = sample.scores[translation & common & ~rare].mean()
    assert easy > sample.scores[translation & rare & ~common].mean() + 0.2


def test_model_names_are_distinct_and_every_kind_has_a_skill() -> None:
    assert len({model.name for model in SYNTHETIC_MODELS}) == len(SYNTHETIC_MODELS)
    assert all(set(model.skill) == set(KINDS) for model in SYNTHETIC_MODELS)


def test_examples_are_not_in_the_sample(sample: Outcomes) -> None:
    examples = {text_key(text) for text in example_queries()}
    assert len(examples) == 6
    assert not examples & {text_key(query) for query in sample.queries}


def test_the_notice_says_synthetic() -> None:
    assert "synthetic" in SYNTHETIC_NOTICE
    assert "\n" not in SYNTHETIC_NOTICE


def test_the_sample_survives_its_file(sample: Outcomes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("sample") / "sample.jsonl.gz"
    write_jsonl(sample, path)
    again = read_jsonl(path)
    assert (again.queries, again.models, again.ids) == (sample.queries, sample.models, sample.ids)
    np.testing.assert_array_equal(again.costs, sample.costs)


def test_a_small_sample() -> None:
    assert synthetic_outcomes(n_queries=1).n_queries == 1


@pytest.mark.parametrize(("n_queries", "seed"), [(0, 0), (-5, 0), (1_000_000, 0), (10, -1)])
def test_refuses_arguments_outside_their_range(n_queries: int, seed: int) -> None:
    with pytest.raises(DataError, match=r"n_queries must be between|seed must be 0 or more"):
        synthetic_outcomes(n_queries=n_queries, seed=seed)
