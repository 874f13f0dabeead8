"""``centroute route --shards``."""

from collections.abc import Sequence
from pathlib import Path

from centroute import Router
from centroute.batch import route_shards
from centroute.cli import screen
from centroute.cli.engines import opened_engine
from centroute.cli.policy_flags import PolicyFlags


def run_route_shards(
    router_file: Path,
    *,
    shards: Sequence[Path],
    output: Path,
    engine: str | None,
    address: str | None,
    n_workers: int | None,
    embedder: str | None,
    flags: PolicyFlags,
) -> None:
    """Route shards into a folder of shards with decisions; those that are there are not made again."""
    policy = flags.policy(Router.load(router_file, embedder=embedder))
    with (
        opened_engine(engine, address=address, n_workers=n_workers) as workers,
        screen.progress_bar() as progress,
    ):
        done = route_shards(
            router_file, shards, output, policy=policy, embedder=embedder, engine=workers, progress=progress
        )
    kept = f", {done.n_kept} of them from before" if done.n_kept else ""
    screen.out.print(f"{output}: {done.n_shards} shards{kept}; {done.n_queries} queries routed now")
    if done.n_unroutable:
        screen.out.print(f"  without a decision: {done.n_unroutable} queries that hold nothing to route on")
