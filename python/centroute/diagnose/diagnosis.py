"""``diagnose``: outcomes in, the split of the oracle's lead and the advice out."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import surface_features
from centroute._shown import show
from centroute.calibrate.fitting import Part
from centroute.calibrate.pipeline import check_each_model, embed_outcomes
from centroute.calibrate.settings import Asked
from centroute.datasets import Outcomes, text_key
from centroute.datasets.check import calibration_fault
from centroute.datasets.observed import observed_means
from centroute.diagnose.advice import Evidence, advise
from centroute.diagnose.cross_fitting import PARTS, PROBES, Split, cross_fit, part_name, shared_choices
from centroute.diagnose.draws import Draws, Estimate, Values, draw_means, z_score
from centroute.diagnose.figures import Comparison, Diagnosis, EmbedderDiagnosis, Noise, Reached
from centroute.diagnose.learning_curve import CurvePoint, LearningCurve, line_at
from centroute.diagnose.noise import MIN_REPEATED, Repeated, chance_oracle, repeated_texts
from centroute.diagnose.table import Embedded, Worth
from centroute.embedders import Embedder, load_embedder
from centroute.errors import DataError
from centroute.evaluate.baselines import oracle
from centroute.evaluate.choice import pick

MIN_TEXTS = 80
"""Distinct texts below which an eighth of the training part is too few for any table."""
MIN_OUTCOMES = 20
"""Outcomes below which a model's mean is noise."""
SURFACE_WEIGHT = 0.15
"""Of the surface features; `calibrate` chooses between this and none."""
N_FOLDS = 4
N_SPLITS = 2
MAX_ROWS = 20_000
SEED_STEP = 1000
"""Between the seeds of two splits."""

Means = Mapping[str, Values]
Progress = Callable[[str, int, int], None]


def diagnose(
    outcomes: Outcomes,
    *,
    embedders: Sequence[Embedder | str] = ("static-256",),
    embeddings: Sequence[NDArray[np.float32]] | None = None,
    willingness_to_pay: float | None = None,
    n_clusters: int | None = None,
    n_folds: int = N_FOLDS,
    n_splits: int = N_SPLITS,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Diagnosis:
    """Split the lead of the oracle over the router into what takes it, and say what would help.

    Parameters
    ----------
    outcomes
        Observed scores and costs.
    embedders
        Embedders, their names or folders. The advice is about the first; others are compared with it.
    embeddings
        Unit rows ``[n_queries, dim]`` of each, without surface features, when they are at hand.
    willingness_to_pay
        USD that one unit of score is worth: a score then counts less its cost over this. Quality alone when
        None.
    n_clusters
        Of the router's tables; chosen by cross-validation when None, as `calibrate` does.
    n_folds, n_splits
        Each row is routed by what the other folds taught, once a split. 3 folds at least, since the linear
        probe chooses among the other folds, and 1 split.
    max_rows
        More rows than this are not looked at: a random part of the texts is. Time grows with their number,
        that of kNN with its square.
    seed
        The same outcomes, settings and seed give the same figures.
    progress
        Told how far the work is.

    Raises
    ------
    DataError
        If the outcomes do not carry a diagnosis; names the model or number at fault.
    EmbedderError
        If an embedder cannot be loaded.

    Examples
    --------
    >>> from centroute.datasets import synthetic_outcomes
    >>> found = diagnose(synthetic_outcomes(n_queries=100), n_folds=3, n_splits=1, n_clusters=4)
    >>> found.noise.basis
    'model'
    """
    _check_numbers(
        {"folds": (n_folds, 3), "splits": (n_splits, 1), "max rows": (max_rows, MIN_TEXTS), "seed": (seed, 0)}
        | ({} if n_clusters is None else {"clusters": (n_clusters, 1)}),
        willingness_to_pay,
    )
    tell = progress or (lambda *_: None)
    if fault := calibration_fault(outcomes):
        raise DataError(fault)
    loaded = [load_embedder(one) if isinstance(one, str) else one for one in embedders]
    _check_embedders(loaded, embeddings, outcomes.n_queries)
    n_given = outcomes.n_queries
    drawn = _drawn_rows(outcomes, max_rows, seed)
    if len(drawn) < n_given:
        outcomes = outcomes.subset(drawn)
        embeddings = None if embeddings is None else [rows[drawn] for rows in embeddings]
    _check_counts(outcomes, Worth.of(outcomes, willingness_to_pay), n_folds)
    tables = embeddings or [
        embed_outcomes(one, outcomes, tell, step_name=f"embedding by {one.name}") for one in loaded
    ]
    routable = np.logical_and.reduce([rows.any(axis=1) for rows in tables])
    if not routable.any():
        raise DataError(f"none of the {len(routable)} queries holds anything that {loaded[0].name} knows")
    outcomes = outcomes.subset(routable)
    features = surface_features(outcomes.queries)
    seen = [
        Embedded(
            one.name,
            Part(np.ascontiguousarray(rows[routable], dtype=np.float32), features, outcomes),
            0.0 if one.fingerprint is None else SURFACE_WEIGHT,
        )
        for one, rows in zip(loaded, tables, strict=True)
    ]
    worth = Worth.of(outcomes, willingness_to_pay)
    # Once more, of what is left.
    _check_counts(outcomes, worth, n_folds)
    folds = [worth.folds(n_folds, seed=seed + SEED_STEP * split) for split in range(n_splits)]
    splits = [
        [
            cross_fit(
                worth,
                one,
                of_split,
                seed=seed + SEED_STEP * split,
                willingness_to_pay=willingness_to_pay,
                asked=Asked(n_clusters=n_clusters, surface_weight=one.surface_weight),
                tell=_counted(tell, f"routing by {one.name}", n_folds * (1 + len(PARTS)), n_splits, split),
            )
            for split, of_split in enumerate(folds)
        ]
        for one in seen
    ]
    found = _Found.of(worth, seen, folds, splits, seed=seed)
    figures = tuple(found.embedder(place) for place in range(len(seen)))
    others = tuple(found.comparison(place) for place in range(1, len(seen)))
    has_labels = worth.dataset_ids is not None
    return Diagnosis(
        n_queries=outcomes.n_queries,
        n_texts=worth.n_texts,
        n_models=outcomes.n_models,
        n_datasets=len(set(outcomes.datasets) - {""}),
        n_left_out=len(drawn) - outcomes.n_queries,
        n_not_drawn=n_given - len(drawn),
        n_folds=n_folds,
        n_splits=n_splits,
        willingness_to_pay=willingness_to_pay,
        best_single_model=outcomes.models[int(np.nanargmax(observed_means(worth.values)))],
        best_single=found.best_single,
        oracle=found.reached("oracle"),
        dataset_labels=found.reached("dataset_labels") if has_labels else None,
        noise=found.noise,
        embedders=figures,
        others=others,
        advice=advise(found.evidence(figures, others)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """What was measured, and the figures made of it.

    Columns of the draws are gains over the best single model; those of an embedder end with its place.
    """

    worth: Worth
    seen: Sequence[Embedded]
    splits: Sequence[Sequence[Split]]
    repeated: Repeated
    draws: Draws
    noise: Noise

    @classmethod
    def of(
        cls,
        worth: Worth,
        seen: Sequence[Embedded],
        folds: Sequence[NDArray[np.intp]],
        splits: Sequence[Sequence[Split]],
        *,
        seed: int,
    ) -> "_Found":
        repeated = repeated_texts(worth.values, worth.text_ids, observed_means(worth.values))
        shared = [shared_choices(worth, of_split) for of_split in folds]
        best_scores, _ = oracle(worth.values, np.full(worth.values.shape, np.nan))
        reached = {
            name: [pick(worth.values, choice[name]).astype(np.float64) for choice in shared]
            for name in shared[0]
        }
        reached["oracle"] = [np.asarray(best_scores, dtype=np.float64)] * len(folds)
        for place in range(len(seen)):
            for name in splits[place][0].reached:
                reached[f"{name} {place}"] = [split.reached[name] for split in splits[place]]
            reached[f"chance {place}"] = [
                chance_oracle(worth.values, split.expected, seed=seed) for split in splits[place]
            ]
        best = reached.pop("best_single")
        columns = {
            name: [one - base for one, base in zip(of_splits, best, strict=True)]
            for name, of_splits in reached.items()
        }
        columns |= {"best_single": best, "kept": [repeated.kept], "repeated lead": [repeated.lead]}
        draws = draw_means(columns, worth.text_ids, n_folds=int(folds[0].max()) + 1, seed=seed)
        return cls(worth, seen, splits, repeated, draws, _noise(seen[0].part.outcomes, draws, repeated))

    @property
    def best_single(self) -> float:
        return float(self.draws.means["best_single"][0])

    def reached(self, name: str) -> Reached:
        gain = self.draws.estimate(lambda means: means[name])
        return Reached(self.best_single + gain.value, gain)

    def lead(self, one: str, other: str) -> Estimate:
        return self.draws.estimate(lambda means: means[one] - means[other])

    def told(self, means: Means, place: int) -> Values:
        """The part of the oracle's lead that is not taken for noise."""
        if self.noise.basis == "repeats":
            return _kept_share(means) * means["oracle"]
        # Chance explains all that the probes leave, but for what it cannot reach.
        beyond_chance = np.maximum(means["oracle"] - means[f"chance {place}"], 0.0)
        return np.asarray(means[f"together {place}"] + beyond_chance)

    def embedder(self, place: int) -> EmbedderDiagnosis:
        one, splits = self.seen[place], self.splits[place]
        together, router = f"together {place}", f"router {place}"
        has_labels = self.worth.dataset_ids is not None
        knn, linear, trees = (self.reached(f"{name} {place}") for name in PROBES)
        return EmbedderDiagnosis(
            name=one.name,
            dim=one.part.embeddings.shape[1],
            surface_weight=one.surface_weight,
            router=self.reached(router),
            knn=knn,
            linear=linear,
            trees=trees,
            together=self.reached(together),
            noise=self.draws.estimate(lambda means: means["oracle"] - self.told(means, place)),
            not_in_embedding=self.draws.estimate(lambda means: self.told(means, place) - means[together]),
            tables=self.lead(together, router),
            labels=self.lead("dataset_labels", together) if has_labels else None,
            learning_curve=self.curve(place),
            apart_z={
                name: z_score([split.apart[name] for split in splits], self.worth.text_ids)
                for name in splits[0].apart
            },
            difficulty_z=z_score([split.difficulty for split in splits], self.worth.text_ids),
        )

    def curve(self, place: int) -> LearningCurve:
        names = [*(f"{part_name(share)} {place}" for share in PARTS), f"router {place}"]
        n_queries = len(self.worth.values)
        n_train = np.mean([split.n_train for split in self.splits[place]], axis=0).tolist()
        gains = np.array([self.draws.means[name] for name in names])
        here, doubled = line_at(n_train, gains, (n_queries, 2 * n_queries))
        points = tuple(
            CurvePoint(round(n), self.reached(name).gain) for n, name in zip(n_train, names, strict=True)
        )
        return LearningCurve(
            points=points,
            doubled=CurvePoint(2 * n_queries, self.draws.estimate(lambda _: doubled)),
            growth=self.draws.estimate(lambda _: doubled - here),
        )

    def comparison(self, place: int) -> Comparison:
        return Comparison(
            name=self.seen[place].name,
            router=self.lead(f"router {place}", "router 0"),
            together=self.lead(f"together {place}", "together 0"),
        )

    def evidence(self, figures: Sequence[EmbedderDiagnosis], others: Sequence[Comparison]) -> Evidence:
        def best(means: Means) -> Values:
            return np.maximum(means["together 0"], means["router 0"])

        has_repeats, has_labels = self.noise.basis == "repeats", self.worth.dataset_ids is not None
        first = figures[0]
        z_scores = [z for one in figures for z in one.apart_z.values()]
        if has_repeats:
            z_scores.append(z_score([self.repeated.consistent], self.worth.text_ids))
        other = max(others, key=lambda one: one.router.value, default=None)
        return Evidence(
            room=float(np.nanmax(self.worth.values)) - self.best_single,
            apart_z=max(z_scores),
            difficulty_z=max(one.difficulty_z for one in figures),
            router=first.router.gain,
            found=self.draws.estimate(best),
            tables=first.tables,
            beyond_nearness=self.draws.estimate(
                lambda means: means["together 0"] - np.maximum(means["router 0"], means["knn 0"])
            ),
            labels=self.draws.estimate(lambda means: means["dataset_labels"] - best(means))
            if has_labels
            else None,
            other_embedder=None if other is None else (other.name, other.router),
            growth=first.learning_curve.growth,
            doubled=first.learning_curve.doubled.gain,
            unseen=self.draws.estimate(lambda means: self.told(means, 0) - best(means))
            if has_repeats
            else None,
        )


def _noise(outcomes: Outcomes, draws: Draws, repeated: Repeated) -> Noise:
    has_repeats = repeated.n_texts >= MIN_REPEATED and draws.means["repeated lead"][0] > 0
    counts = Counter(outcomes.datasets[row] for row in repeated.rows.tolist())
    return Noise(
        basis="repeats" if has_repeats else "model",
        n_repeated_texts=repeated.n_texts,
        n_conflicting_texts=repeated.n_conflicting,
        datasets={name: count for name, count in counts.most_common() if name},
        kept_share=draws.estimate(_kept_share) if has_repeats else None,
        chance_oracle=float(draws.means["best_single"][0] + draws.means["chance 0"][0]),
    )


def _kept_share(means: Means) -> Values:
    """Share of the oracle's lead that the text tells, within 0 and 1."""
    lead = means["repeated lead"]
    return np.clip(means["kept"] / np.where(lead > 0, lead, np.nan), 0.0, 1.0)


def _drawn_rows(outcomes: Outcomes, max_rows: int, seed: int) -> NDArray[np.intp]:
    """All rows, or those of a random part of the texts."""
    if outcomes.n_queries <= max_rows:
        return np.arange(outcomes.n_queries)
    numbers: dict[str, int] = {}
    text_ids = np.array([numbers.setdefault(text_key(query), len(numbers)) for query in outcomes.queries])
    order = np.random.default_rng(seed).permutation(len(numbers))
    n_rows = np.cumsum(np.bincount(text_ids)[order])
    return np.flatnonzero(np.isin(text_ids, order[n_rows <= max_rows]))


def _counted(tell: Progress, step: str, n_fits: int, n_splits: int, split: int) -> Callable[[], None]:
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        tell(step, split * n_fits + done, n_splits * n_fits)

    return one_more


def _check_numbers(least: Mapping[str, tuple[int, int]], willingness_to_pay: float | None) -> None:
    for name, (number, wanted) in least.items():
        if number < wanted:
            raise DataError(f"{name} {number}: wanted {wanted} or more")
    if willingness_to_pay is not None and not 0 < willingness_to_pay < np.inf:
        raise DataError(f"willingness to pay {willingness_to_pay}: wanted a finite number above 0")


def _check_embedders(
    loaded: Sequence[Embedder], embeddings: Sequence[NDArray[np.float32]] | None, n_queries: int
) -> None:
    if not loaded:
        raise DataError("a diagnosis needs at least one embedder, got none")
    names = [one.name for one in loaded]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"the embedder {show(name)} is given twice")
    if embeddings is not None and len(embeddings) != len(loaded):
        raise DataError(f"{len(embeddings)} arrays of embeddings for {len(loaded)} embedders")
    for name, rows in zip(names, embeddings or (), strict=False):
        if len(rows) != n_queries:
            raise DataError(f"{len(rows)} embeddings by {name} for {n_queries} queries")


def _check_counts(outcomes: Outcomes, worth: Worth, n_folds: int) -> None:
    least = max(MIN_TEXTS, 2 * n_folds)
    if worth.n_texts < least:
        raise DataError(
            f"there are {worth.n_texts} distinct texts, and the probes need {least} or more; add outcomes"
        )
    check_each_model(outcomes.models, worth.values, least=MIN_OUTCOMES)
