"""``centroute evaluate``."""

from pathlib import Path

from centroute import Router
from centroute.cli import screen
from centroute.cli.output import refuse_unwritable, write_json
from centroute.cli.policy_flags import PolicyFlags
from centroute.datasets import read_outcomes
from centroute.evaluate import evaluate


def run_evaluate(
    router_file: Path, data: Path, *, json_file: Path | None, embedder: str | None, flags: PolicyFlags
) -> None:
    """Measure, print the tables, write the JSON."""
    if json_file is not None and str(json_file) != "-":
        refuse_unwritable(json_file)
    router = Router.load(router_file, embedder=embedder)
    policy = flags.policy(router)
    outcomes = read_outcomes(data)
    evaluation = evaluate(router, outcomes, policy=policy).to_json()
    if json_file is not None:
        write_json(json_file, evaluation)
        if str(json_file) == "-":
            return
    if evaluation["n_left_out"]:
        screen.warn(
            f"{evaluation['n_left_out']} queries hold nothing the embedder knows and are in no figure"
        )
    screen.show_evaluation(evaluation, f"{router_file} on {data}")
