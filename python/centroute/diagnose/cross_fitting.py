"""Cross-fitting: every row is routed by what the other folds taught, several times over with other folds.

Nothing that decides on a row has seen its text: not the tables nor their settings (`calibrate`'s selection
runs inside the training folds), not the probes nor their settings and weights, not the best single model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centroute.calibrate import selection
from centroute.calibrate.fitting import Part, fit_tables
from centroute.calibrate.frontier import predict
from centroute.calibrate.kmeans import count_distinct
from centroute.calibrate.settings import Asked
from centroute.datasets.observed import observed_means
from centroute.diagnose.probes import (
    LinearProbe,
    Predicted,
    dataset_means,
    nearest_neighbors,
    residuals,
    weights,
)
from centroute.diagnose.table import Embedded, Worth
from centroute.diagnose.trees import predict_by_forest
from centroute.evaluate.choice import pick

PARTS = (0.125, 0.25, 0.5)
"""Shares of the training texts that the learning curve is measured at, besides all of them."""
N_TREES = 60
LEAST_ROWS = (5, 20)
ROWS_PER_LEAST = 100
"""A leaf has a hundredth of the rows at least, within `LEAST_ROWS`."""
PROBES = ("knn", "linear", "trees")

Values = NDArray[np.float64]
Tell = Callable[[], None]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One split into folds, all of them predicted.

    Attributes
    ----------
    reached
        What each way to choose was worth, by its name, ``[n]``; NaN where that was not observed.
    n_train
        Mean number of rows behind each part of `PARTS` and behind all of the training folds.
    apart
        Agreement of predicted with observed residuals (their products' sum over the models), by probe,
        ``[n]``: above zero on average where rows tell the models apart.
    difficulty
        The same for the level of all models of a row, ``[n]``.
    expected
        Predicted value of every pair, ``[n, n_models]``.
    """

    reached: Mapping[str, Values]
    n_train: tuple[float, ...]
    apart: Mapping[str, Values]
    difficulty: Values
    expected: Values


def shared_choices(worth: Worth, folds: NDArray[np.intp]) -> dict[str, NDArray[np.intp]]:
    """What needs no embedder: model ids of the best single model and of the best by dataset label."""
    n = len(worth.values)
    chosen = {"best_single": np.zeros(n, dtype=np.intp)}
    if worth.dataset_ids is not None:
        chosen["dataset_labels"] = np.zeros(n, dtype=np.intp)
    for fold in range(int(folds.max()) + 1):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        prior = observed_means(worth.values[train])
        chosen["best_single"][test] = np.nanargmax(prior)
        if worth.dataset_ids is not None:
            targets = residuals(worth.values, prior)
            predicted = _drawn(targets[train], dataset_means(worth.dataset_ids, targets, train, test))
            chosen["dataset_labels"][test] = _best(prior, predicted.of_test)
    return chosen


def cross_fit(
    worth: Worth,
    embedded: Embedded,
    folds: NDArray[np.intp],
    *,
    seed: int,
    asked: Asked,
    willingness_to_pay: float | None,
    tell: Tell,
) -> Split:
    """Route every row by the other folds.

    Parameters
    ----------
    worth, embedded
        The rows.
    folds
        Fold of each row, ``[n]``.
    seed
        Of forests, clusterings and parts.
    asked
        Settings of the tables that are not left to cross-validation.
    willingness_to_pay
        What the tables' costs are divided by; quality alone where it is None.
    tell
        Called after each fit of tables.
    """
    values = worth.values
    n, n_models = values.shape
    n_folds = int(folds.max()) + 1
    names = [*PROBES, "together", "router", *(part_name(share) for share in PARTS)]
    chosen = {name: np.zeros(n, dtype=np.intp) for name in names}
    apart = {name: np.zeros(n) for name in (*PROBES, "together", *_labels(worth))}
    difficulty, expected = np.zeros(n), np.zeros((n, n_models))
    n_train = np.zeros(len(PARTS) + 1)
    known = ~np.isnan(residuals(values, np.zeros(n_models)))
    linear = LinearProbe.of(embedded.rows, folds, known)
    level_probe = LinearProbe.of(embedded.rows, folds, np.ones((n, 1), dtype=np.bool_))
    for fold in range(n_folds):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        prior = observed_means(values[train])
        targets = residuals(values, prior)
        probed = _probe(worth, embedded, targets, (train, test), seed=seed * n_folds + fold)
        probed["linear"] = linear.predict(targets, fold)
        together = _blend(targets[train], [probed[name] for name in PROBES])
        predicted = {name: _drawn(targets[train], one) for name, one in probed.items()}
        for name, one in (predicted | {"together": together}).items():
            products = np.where(np.isnan(targets[test]), 0.0, one.of_test * targets[test])
            apart[name][test] = products.sum(axis=1)
            if name in chosen:
                chosen[name][test] = _best(prior, one.of_test)
        level = _level(values, prior)
        of_level = _drawn(level[train], level_probe.predict(level, fold))
        difficulty[test] = of_level.of_test[:, 0] * level[test, 0]
        expected[test] = prior + of_level.of_test + together.of_test
        for place, rows in enumerate(_parts(worth.text_ids, train, np.random.default_rng([seed, fold]))):
            value = _by_tables(
                embedded.part, rows, test, seed=seed, asked=asked, willingness_to_pay=willingness_to_pay
            )
            name = part_name(PARTS[place]) if place < len(PARTS) else "router"
            chosen[name][test] = np.nan_to_num(value, nan=-np.inf).argmax(axis=1)
            n_train[place] += len(rows) / n_folds
            tell()
    return Split(
        reached={name: np.asarray(pick(values, choice), dtype=np.float64) for name, choice in chosen.items()},
        n_train=tuple(n_train.tolist()),
        apart=apart,
        difficulty=difficulty,
        expected=expected,
    )


def _probe(
    worth: Worth,
    embedded: Embedded,
    targets: Values,
    parts: tuple[NDArray[np.intp], NDArray[np.intp]],
    *,
    seed: int,
) -> dict[str, Predicted]:
    """Residuals by kNN, trees and dataset labels; the linear probe keeps its sums for all folds."""
    train, test = parts
    of_train, of_test = predict_by_forest(
        embedded.binned,
        targets,
        worth.text_ids,
        train,
        test,
        n_trees=N_TREES,
        least=int(np.clip(len(train) // ROWS_PER_LEAST, *LEAST_ROWS)),
        seed=seed,
    )
    found = {
        "knn": nearest_neighbors(embedded.neighbors, targets, worth.text_ids, train, test),
        "trees": Predicted(of_train, of_test),
    }
    if worth.dataset_ids is not None:
        found["dataset_labels"] = dataset_means(worth.dataset_ids, targets, train, test)
    return found


def _parts(
    text_ids: NDArray[np.intp], train: NDArray[np.intp], rng: np.random.Generator
) -> list[NDArray[np.intp]]:
    """Training rows of a share of the texts for each of `PARTS`, each part within the next; then all."""
    texts = rng.permutation(np.unique(text_ids[train]))
    counts = [max(2, round(share * len(texts))) for share in PARTS]
    return [*(train[np.isin(text_ids[train], texts[:count])] for count in counts), train]


def part_name(share: float) -> str:
    """Name of the tables that were fitted to a share of the training texts."""
    return f"router_{share:g}"


def _labels(worth: Worth) -> tuple[str, ...]:
    return () if worth.dataset_ids is None else ("dataset_labels",)


def _best(prior: Values, predicted: Values) -> NDArray[np.intp]:
    """Model of the highest expectation, ``[n]``; one without any outcome is not chosen."""
    return np.asarray((np.nan_to_num(prior, nan=-np.inf) + predicted).argmax(axis=1))


def _level(values: Values, prior: Values) -> Values:
    """How much better all models did on a row than they usually do, ``[n, 1]``."""
    return observed_means((values - prior).T)[:, None]


def _drawn(targets: Values, predicted: Predicted) -> Predicted:
    """A probe on its own, drawn towards the means as far as its training rows say."""
    return _blend(targets, [predicted])


def _blend(targets: Values, predictions: list[Predicted]) -> Predicted:
    shares = weights(targets, [one.of_train for one in predictions])
    return Predicted(
        sum((share * one.of_train for share, one in zip(shares, predictions, strict=True)), np.zeros(1)),
        sum((share * one.of_test for share, one in zip(shares, predictions, strict=True)), np.zeros(1)),
    )


def _by_tables(
    part: Part,
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    *,
    seed: int,
    asked: Asked,
    willingness_to_pay: float | None,
) -> Values:
    """Predicted values ``[n_test, n_models]`` of tables that are calibrated on the training rows."""
    rest = part.subset(train)
    n_distinct = count_distinct(rest.embeddings)
    choices = selection.candidates("auto", n_distinct, asked)
    weight = choices[0].surface_weight
    surface = rest.surface(weight)
    routed = rest.routed(surface)
    settings = choices[0]
    if len(choices) > 1 and n_distinct >= selection.N_FOLDS:
        trials = selection.cross_validate(
            {weight: routed},
            rest.outcomes.scores,
            rest.outcomes.costs,
            rest.folds(selection.N_FOLDS, seed=seed),
            choices,
            seed=seed,
            progress=lambda *_: None,
        )
        settings = selection.select(trials)
    centroids, tables = fit_tables(routed, rest.outcomes, settings, seed=seed, n_restarts=1, allow_fewer=True)
    quality, cost = predict(part.subset(test).routed(surface), centroids, tables, settings)
    return quality if willingness_to_pay is None else quality - cost / willingness_to_pay
