"""What a diagnosis holds; values are in the unit of the scores."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from centroute.diagnose.advice import Advice
from centroute.diagnose.draws import Estimate
from centroute.diagnose.learning_curve import LearningCurve


@dataclass(frozen=True, slots=True)
class Reached:
    """What a way to choose was worth on average, and its gain over the best single model."""

    value: float
    gain: Estimate


@dataclass(frozen=True, slots=True)
class Noise:
    """Outcome noise, see :mod:`centroute.diagnose.noise`.

    Attributes
    ----------
    basis
        ``"repeats"`` or ``"model"``.
    n_repeated_texts, n_conflicting_texts
        Texts in several rows, and those with a model of different scores.
    datasets
        Number of their rows by dataset, most first; they may be unlike the rest.
    kept_share
        Share of the oracle's lead that the best model of one row keeps in another; None where the basis is
        the model.
    chance_oracle
        What an oracle would reach by chance alone, were outcomes independent given the fitted expectations.
    """

    basis: Literal["repeats", "model"]
    n_repeated_texts: int
    n_conflicting_texts: int
    datasets: Mapping[str, int]
    kept_share: Estimate | None
    chance_oracle: float


@dataclass(frozen=True, slots=True)
class EmbedderDiagnosis:
    """What one embedder shows.

    Attributes
    ----------
    name, dim, surface_weight
        The embedder, and the weight of the surface features behind its rows.
    router, knn, linear, trees, together
        The calibrated tables, the three probes, and the probes weighed together.
    noise, not_in_embedding, tables
        Parts of the oracle's lead over the router, which they sum up to: at most chance; told by the text but
        found by no probe (with the model: what chance cannot explain); found by the probes but not by the
        tables.
    labels
        What dataset labels add to the probes together; None without labels.
    learning_curve
        Of the router.
    apart_z
        z-score of how well each probe and the labels tell the models apart.
    difficulty_z
        z-score of how well the linear probe tells hard queries from easy ones.
    """

    name: str
    dim: int
    surface_weight: float
    router: Reached
    knn: Reached
    linear: Reached
    trees: Reached
    together: Reached
    noise: Estimate
    not_in_embedding: Estimate
    tables: Estimate
    labels: Estimate | None
    learning_curve: LearningCurve
    apart_z: Mapping[str, float]
    difficulty_z: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What another embedder adds to the first on the same rows."""

    name: str
    router: Estimate
    together: Estimate


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Figures of :func:`diagnose`; all values in the unit of the scores.

    Attributes
    ----------
    n_queries, n_texts, n_models, n_datasets
        What was measured on.
    n_left_out
        Queries that hold nothing an embedder knows.
    n_not_drawn
        Queries beyond ``max_rows``.
    n_folds, n_splits, willingness_to_pay
        As asked for.
    best_single_model
        The best on all rows.
    best_single, oracle, dataset_labels
        What they reach; None without labels.
    noise
        Its basis.
    embedders
        In the order asked for; the advice is about the first.
    others
        What the further ones add.
    advice
        What to do.
    """

    n_queries: int
    n_texts: int
    n_models: int
    n_datasets: int
    n_left_out: int
    n_not_drawn: int
    n_folds: int
    n_splits: int
    willingness_to_pay: float | None
    best_single_model: str
    best_single: float
    oracle: Reached
    dataset_labels: Reached | None
    noise: Noise
    embedders: tuple[EmbedderDiagnosis, ...]
    others: tuple[Comparison, ...]
    advice: Advice

    def to_json(self) -> Mapping[str, object]:
        """Keys as ``docs/diagnose.md`` names them; what is unknown is null."""
        known: Mapping[str, object] = _known(asdict(self))
        return known


def _known(content: Any) -> Any:
    """The same without NaN."""
    if isinstance(content, dict):
        return {key: _known(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_known(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content
