"""``centroute demo``: the whole path on the bundled synthetic sample."""

import time
from collections.abc import Callable
from pathlib import Path

from centroute import Policy, Router
from centroute.calibrate import calibrate
from centroute.cli import screen
from centroute.cli.output import refuse_unwritable
from centroute.cli.route import explanation
from centroute.datasets import SYNTHETIC_NOTICE, example_queries, synthetic_outcomes, write_jsonl
from centroute.embedders import load_embedder

N_TIMED = 200


def run_demo(output: Path, data: Path | None) -> None:
    """Calibrate, evaluate and route; writes the router file, and the sample where asked."""
    refuse_unwritable(output)
    outcomes = synthetic_outcomes()
    kinds = ", ".join(sorted(set(outcomes.datasets)))
    screen.out.print("Synthetic sample", style="bold")
    screen.out.print(SYNTHETIC_NOTICE)
    screen.out.print(
        f"{outcomes.n_queries} queries of {len(set(outcomes.datasets))} kinds ({kinds}), "
        f"{outcomes.n_models} models\n"
    )
    if data is not None:
        write_jsonl(outcomes, data)
        screen.out.print(f"wrote the sample to {data}\n")
    embedder = load_embedder("static-256")
    started = time.perf_counter()
    with screen.progress_bar() as progress:
        artifact = calibrate(outcomes, embedder=embedder, progress=progress)
    artifact.save(output)
    screen.out.print(
        f"calibrated in {time.perf_counter() - started:.1f} s: {artifact.method['n_clusters']} clusters, "
        f"wrote {output} ({output.stat().st_size} bytes)"
    )
    title = "Measured on the holdout of the synthetic sample"
    screen.show_evaluation(artifact.report["evaluation"], title)  # type: ignore[arg-type]

    router = Router.load(output, embedder=embedder)
    screen.out.print("\nRouted, quality first:")
    for text in example_queries():
        _route(router, text, None)
    policy = Policy(willingness_to_pay=0.01)
    screen.out.print("\nThe same where a right answer is worth one cent:")
    for text in example_queries():
        _route(router, text, policy)
    screen.out.print(
        f"\nNext: centroute route {output} 'your own query', centroute inspect {output}, centroute --help"
    )


def _route(router: Router, text: str, policy: Policy | None) -> None:
    decision = router.route(text, policy=policy)
    embedding = router.embed([text])[0]
    total_us = _median_us(lambda: router.route(text, policy=policy))
    kernel_us = _median_us(lambda: router.route_embedding(embedding, policy=policy))
    screen.out.print(f"› {text}", style="dim")
    screen.out.print(
        f"{explanation(decision)}; {total_us:.0f} µs from the text, {kernel_us:.1f} µs of it deciding"
    )


def _median_us(call: Callable[[], object]) -> float:
    times = []
    for _ in range(N_TIMED):
        started = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - started)
    return sorted(times)[N_TIMED // 2] / 1e3
