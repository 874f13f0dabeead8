r"""Feedback folded into the tables: scores and costs of decisions that were made, without a new calibration.

A log tells for each decision its clusters and weights ``w``, so that no text is needed. For the column of
one model, with its present cells ``t`` known at the precision ``N``, the new cells minimise

    Σᵢ (yᵢ - wᵢ · t')² + (t' - t)ᵀ N (t' - t),    t' = t + (N + WᵀW)⁻¹ Wᵀ (y - W t)

over the outcomes ``yᵢ`` of the decisions that chose the model: Bayesian linear regression with the present
table as its prior (Rasmussen & Williams 2006, chapter 2). ``N`` is the ``WᵀW`` of the outcomes behind the
table, and the shrinkage that they were fitted with. The router file holds of it the counts, which are its row
sums; its form is taken from all decisions of the log (:func:`prior_precision`). Where each decision belongs
wholly to one cluster, ``N`` is ``diag(count)``, and the cells are running means,
``(count · t + Σ y) / (count + n)``. Costs are folded in alike where the model's cost is known; a model's mean
moves with its cells, weighted by the calibration's use of the clusters.

What this cannot mend: only the model that was chosen is observed. A model that is thought too good is tried
and corrected; one that is thought too bad is never tried, and stays so. Scores that users give when they
please come from the pleased and the angry. So let a few requests in a hundred go to a model drawn at random
(``Policy(allow={name})``), score by one rule, and calibrate anew from time to time, above all when
``centroute drift`` says so.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from centroute.artifact import Artifact, Json
from centroute.calibrate.frontier import willingness_amounts
from centroute.drift import assignment, calibrated_shares
from centroute.edit import MIN_FRONTIER_QUERIES, model_names, recorded
from centroute.errors import DataError
from centroute.logged_decisions import Feedback, LoggedDecision

MAX_FRONTIER_QUERIES: Final = 100_000
"""Decisions, the latest of the log, that a frontier is predicted on."""

LEAST_PRECISION: Final = 1e-3
"""Outcomes that the least known mixture of cells is worth at least, so that there is one solution."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Absorbed:
    """An artifact with feedback in its tables, and what became of the feedback.

    Attributes
    ----------
    artifact
        The edited router.
    n_scores, n_costs
        Outcomes that were folded in.
    n_repeated
        Feedback on a decision that had some already: the last counts, once.
    n_unmatched
        Feedback on decisions that the log does not have of this router file.
    n_without_cost
        Costs of models whose cost is unknown throughout; they are left out, since one cell cannot be known
        alone.
    """

    artifact: Artifact
    n_scores: int
    n_costs: int
    n_repeated: int
    n_unmatched: int
    n_without_cost: int


def absorb(
    artifact: Artifact,
    decisions: Iterable[LoggedDecision],
    feedback: Iterable[Feedback],
    *,
    sha256: str,
) -> Absorbed:
    """Fold feedback into the tables; see the module's description.

    The frontier is predicted anew on the decisions of the log, where there are `MIN_FRONTIER_QUERIES` of them
    and all costs are known, and is dropped otherwise. Another file with another digest comes of it, so that
    the same log is not absorbed twice.

    Parameters
    ----------
    artifact
        The router that made the decisions.
    decisions
        Its log.
    feedback
        What came of them.
    sha256
        Digest of the router's file. Decisions of other files are left out.

    Raises
    ------
    ArtifactError
        If the default policy does not hold with the new tables.
    DataError
        If no feedback belongs to a decision of this router, or a decision names a model or cluster that the
        router lacks.
    """
    told: dict[str, Feedback] = {}
    n_feedback = 0
    for entry in feedback:
        told[entry.decision_id] = entry
        n_feedback += 1
    names = model_names(artifact)
    n_clusters = len(artifact.centroids)
    columns = [_Column(n_clusters) for _ in names]
    matched: set[str] = set()
    n_other_router = 0
    recent: list[_Floats] = []
    in_use = np.zeros((n_clusters, n_clusters))
    stream = iter(decisions)
    while chunk := list(islice(stream, 4096)):
        own = [decision for decision in chunk if decision.sha256 == sha256]
        n_other_router += len(chunk) - len(own)
        weights = assignment(own, n_clusters)
        in_use += weights.T @ weights
        recent = [*recent, weights][-(MAX_FRONTIER_QUERIES // 4096) :]
        for decision, row in zip(own, weights, strict=True):
            if decision.model not in names:
                raise DataError(
                    f"line {decision.line}, model: {decision.model!r} is not in the pool; it has "
                    f"{', '.join(names)}"
                )
            if decision.decision_id in told and decision.decision_id not in matched:
                matched.add(decision.decision_id)
                columns[names.index(decision.model)].add(row, told[decision.decision_id])
    if not matched:
        raise DataError(
            f"no feedback on a decision of this router file (sha256 {sha256[:16]}…): {n_feedback} lines of "
            f"feedback, {n_other_router} decisions of other files"
        )
    edited, entries = _updated(artifact, columns, in_use)
    edited = replace(edited, frontier=_predicted_frontier(edited, recent), pairs=None)
    n_scores, n_all_costs = sum(c.n_scores for c in columns), sum(c.n_costs for c in columns)
    known = ~np.isnan(artifact.prior_cost)
    n_costs = sum(column.n_costs for column, is_known in zip(columns, known, strict=True) if is_known)
    n_repeated, n_unmatched = n_feedback - len(told), len(told) - len(matched)
    edit: dict[str, Json] = {
        "edit": "absorb",
        "n_outcomes": n_scores,
        "n_costs": n_costs,
        "n_repeated": n_repeated,
        "n_unmatched": n_unmatched,
        "n_frontier_queries": sum(map(len, recent)) if len(edited.frontier) else 0,
        "models": entries,
    }
    return Absorbed(
        artifact=recorded(edited, edit),
        n_scores=n_scores,
        n_costs=n_costs,
        n_repeated=n_repeated,
        n_unmatched=n_unmatched,
        n_without_cost=n_all_costs - n_costs,
    )


class _Sums:
    """What regression needs of rows ``w`` and values ``y``: ``Σ w wᵀ``, ``Σ w y`` and ``Σ w``."""

    def __init__(self, n_clusters: int) -> None:
        self.gram = np.zeros((n_clusters, n_clusters))
        self.moment = np.zeros(n_clusters)
        self.weight = np.zeros(n_clusters)

    def add(self, row: _Floats, value: float) -> None:
        self.gram += np.outer(row, row)
        self.moment += value * row
        self.weight += row


class _Column:
    """Feedback on one model."""

    def __init__(self, n_clusters: int) -> None:
        self.scores, self.costs = _Sums(n_clusters), _Sums(n_clusters)
        self.n_scores = self.n_costs = 0

    def add(self, row: _Floats, feedback: Feedback) -> None:
        if feedback.score is not None:
            self.scores.add(row, feedback.score)
            self.n_scores += 1
        if feedback.cost_usd is not None:
            self.costs.add(row, feedback.cost_usd)
            self.n_costs += 1


def prior_precision(count: _Floats, in_use: _Floats, shrinkage: float) -> _Floats:
    """How well a column is known, ``[n_clusters, n_clusters]``, in outcomes.

    Parameters
    ----------
    count
        Outcomes behind each cell ``[n_clusters]``.
    in_use
        ``WᵀW`` of the log, whose form the outcomes are taken to have had, as far as the counts bear it; what
        the counts have beyond that is taken to have belonged wholly to its cluster.
    shrinkage
        Pseudo-outcomes of each cell in calibration.

    Examples
    --------
    >>> prior_precision(np.array([20.0, 5.0]), np.diag([3.0, 1.0]), 0.0)
    array([[20.,  0.],
           [ 0.,  5.]])
    """
    uses = in_use.sum(axis=1)
    # Scaled to the outcomes of the whole column, then down where the log uses a cluster more than they did.
    gram = in_use * (count.sum() / uses.sum())
    wanted = gram.sum(axis=1)
    scale = np.sqrt(np.minimum(1.0, np.divide(count, wanted, out=np.ones_like(count), where=wanted > 0)))
    gram *= np.outer(scale, scale)
    precision = gram + np.diag(np.maximum(count - gram.sum(axis=1), 0.0) + shrinkage)
    # A cell without outcomes holds a guess, which is worth one.
    precision[np.diag_indices_from(precision)] += np.where(count + shrinkage < 1, 1.0, 0.0)
    # A log whose clusters always come in one mixture says nothing of what each is worth apart.
    least = np.linalg.eigvalsh(precision)[0]
    if least < LEAST_PRECISION:
        precision[np.diag_indices_from(precision)] += LEAST_PRECISION - least
    return np.asarray(precision)


def _updated(artifact: Artifact, columns: list[_Column], in_use: _Floats) -> tuple[Artifact, dict[str, Json]]:
    """The artifact with new cells, and what the report says of each model that has feedback."""
    quality, cost, count = (
        table.astype(np.float64) for table in (artifact.quality, artifact.cost, artifact.count)
    )
    prior_quality, prior_cost = (
        prior.astype(np.float64) for prior in (artifact.prior_quality, artifact.prior_cost)
    )
    errors = None if artifact.quality_se is None else artifact.quality_se.astype(np.float64)
    (shares, _), shrinkage = calibrated_shares(artifact), _shrinkage(artifact)
    entries: dict[str, Json] = {}
    for model, (name, column) in enumerate(zip(model_names(artifact), columns, strict=True)):
        if column.n_scores == 0 and column.n_costs == 0:
            continue
        precision = prior_precision(count[:, model], in_use, shrinkage)
        quality_before, cost_before = prior_quality[model], prior_cost[model]
        cells, ratio = _posterior(quality[:, model], precision, column.scores)
        cells = np.clip(cells, 0, 1)
        prior_quality[model] = np.clip(quality_before + shares @ (cells - quality[:, model]), 0, 1)
        quality[:, model] = cells
        if errors is not None:
            errors[:, model] *= np.sqrt(ratio)
        if not np.isnan(cost_before):
            cells = np.maximum(_posterior(cost[:, model], precision, column.costs)[0], 0)
            prior_cost[model] = max(0.0, cost_before + shares @ (cells - cost[:, model]))
            cost[:, model] = cells
        count[:, model] += column.scores.weight
        entries[name] = {
            "n_outcomes": column.n_scores,
            "n_costs": column.n_costs,
            "mean_quality_before": float(quality_before),
            "mean_quality": float(prior_quality[model]),
            "mean_cost_usd_before": None if np.isnan(cost_before) else float(cost_before),
            "mean_cost_usd": None if np.isnan(cost_before) else float(prior_cost[model]),
        }
    with np.errstate(over="ignore"):  # a cost beyond float32 is refused by name when the router is made
        edited = replace(
            artifact,
            quality=quality.astype(np.float32),
            cost=cost.astype(np.float32),
            count=count.astype(np.float32),
            prior_quality=prior_quality.astype(np.float32),
            prior_cost=prior_cost.astype(np.float32),
            quality_se=None if errors is None else errors.astype(np.float32),
        )
    return edited, entries


def _posterior(cells: _Floats, precision: _Floats, sums: _Sums) -> tuple[_Floats, _Floats]:
    """The new cells, and by what factor the variance of each falls, ``[n_clusters]`` each."""
    before, after = np.linalg.inv(precision), np.linalg.inv(precision + sums.gram)
    return cells + after @ (sums.moment - sums.gram @ cells), np.diag(after) / np.diag(before)


def _shrinkage(artifact: Artifact) -> float:
    value = artifact.method.get("shrinkage")
    return float(value) if isinstance(value, int | float) else 0.0


def _predicted_frontier(artifact: Artifact, weights: list[_Floats]) -> NDArray[np.float32]:
    """Rows (willingness to pay, mean quality, mean cost) as predicted for the decisions of the log."""
    if np.isnan(artifact.prior_cost).any() or sum(map(len, weights)) < MIN_FRONTIER_QUERIES:
        return np.zeros((0, 3), dtype=np.float32)
    rows = np.concatenate(weights)
    quality, cost = rows @ artifact.quality.astype(np.float64), rows @ artifact.cost.astype(np.float64)
    each = np.arange(len(rows))
    points = []
    for amount in willingness_amounts(quality, cost):
        chosen = (amount * quality - cost).argmax(axis=1)
        points.append((amount, quality[each, chosen].mean(), cost[each, chosen].mean()))
    table = np.array(points, dtype=np.float32)
    table[:, 2] = np.maximum.accumulate(table[:, 2])
    return table
