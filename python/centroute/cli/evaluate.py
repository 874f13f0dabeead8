"""``centroute evaluate``."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from centroute import Policy, Router
from centroute.cli import screen
from centroute.cli.check_data import show_costs
from centroute.cli.output import refuse_unwritable, write_json
from centroute.cli.policy_flags import PolicyFlags
from centroute.datasets import Outcomes, read_outcomes
from centroute.errors import DataError
from centroute.evaluate import Evaluation, evaluate
from centroute.evaluate.ensemble import evaluate_ensemble
from centroute.pool import Pool, apply_pool, read_pool


def run_evaluate(
    router_file: Path,
    data: Path,
    *,
    json_file: Path | None,
    report: Path | None,
    plot: Path | None,
    calibration: Path | None,
    pool_file: Path | None,
    ensemble: int | None,
    embedder: str | None,
    flags: PolicyFlags,
) -> None:
    """Measure, print the tables, write the JSON, the report and the plot."""
    # What can be refused at once is refused before the long work.
    to_stdout = json_file is not None and str(json_file) == "-"
    _check_outputs(
        (None if to_stdout else json_file, report, plot), inputs=(router_file, data, calibration, pool_file)
    )
    if plot is not None:
        from centroute.evaluate.plot import require_matplotlib

        require_matplotlib()
    router = Router.load(router_file, embedder=embedder)
    policy = flags.policy(router)
    pool = Pool() if pool_file is None else read_pool(pool_file)
    outcomes, cost_sources = apply_pool(read_outcomes(data), pool, others=router.models)
    seen = None
    if calibration is not None:
        seen, _ = apply_pool(read_outcomes(calibration), pool, others=router.models)
    rows = router.embed(outcomes.queries, allow_zero_rows=True)
    voted = {} if ensemble is None else _voted(router, outcomes, rows, policy, n_models=ensemble)
    evaluation = evaluate(router, outcomes, policy=policy, embeddings=rows, calibration=seen)
    title = f"{router_file} on {data}"
    if plot is not None:
        from centroute.evaluate.plot import plot_frontier

        plot_frontier(evaluation, plot, title=title)
    if report is not None:
        from centroute.evaluate.report import write_report

        write_report(router, outcomes, evaluation, report, title=title, policy=policy, embeddings=rows)
    if json_file is not None:
        write_json(json_file, {**evaluation.to_json(), **voted})
    _warn(evaluation)
    if to_stdout:
        return
    screen.show_evaluation({**evaluation.to_json(), **voted}, title)
    if pool_file is not None:
        show_costs(cost_sources)
    for what, output in (("report", report), ("plot", plot)):
        if output is not None:
            screen.out.print(f"\nwrote the {what} {output} ({output.stat().st_size} bytes)")


def _voted(
    router: Router, outcomes: Outcomes, rows: NDArray[np.float32], policy: Policy, *, n_models: int
) -> dict[str, object]:
    """What `--ensemble` adds to the figures."""
    measured = evaluate_ensemble(router, outcomes, n_models=n_models, policy=policy, embeddings=rows)
    return {"ensemble": measured.to_json()}


def _warn(evaluation: Evaluation) -> None:
    if evaluation.n_left_out:
        screen.warn(f"{evaluation.n_left_out} queries hold nothing the embedder knows and are in no figure")
    shared = evaluation.calibration.n_shared_texts if evaluation.calibration else 0
    if shared:
        screen.warn(
            f"{shared} of {evaluation.n_queries} queries are in the calibration data too: what was fitted to "
            "it looks better than it is"
        )


def _check_outputs(outputs: tuple[Path | None, ...], *, inputs: tuple[Path | None, ...]) -> None:
    places = [place for place in outputs if place is not None]
    for place in places:
        refuse_unwritable(place)
        for source in inputs:
            if source is not None and place.exists() and source.exists() and place.samefile(source):
                raise DataError(f"{place}: cannot be written (it is an input)")
        if places.count(place) > 1:
            raise DataError(f"{place}: cannot be written (two outputs go there)")
