"""Decide a whole Parquet file.

    python offline_batch.py router.safetensors queries.parquet decisions.parquet --willingness-to-pay 0.01

The column ``query`` holds the texts. What comes out has all columns and four more: ``model``, ``quality``,
``cost_usd`` and ``in_distribution``, null where a text holds nothing to route on. Rows go through in batches,
so that memory does not grow with the file.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from centroute import Policy, Router

ADDED = pa.schema(
    [
        ("model", pa.string()),
        ("quality", pa.float32()),
        ("cost_usd", pa.float32()),
        ("in_distribution", pa.bool_()),
    ]
)


def main() -> None:
    """Read, decide, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("router", type=Path)
    parser.add_argument("queries", type=Path)
    parser.add_argument("decisions", type=Path)
    parser.add_argument("--willingness-to-pay", type=float, help="USD that one right answer is worth")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    router = Router.load(arguments.router)
    policy = Policy(willingness_to_pay=arguments.willingness_to_pay)
    n_rows = 0
    source = pq.ParquetFile(arguments.queries)
    schema = pa.schema([*source.schema_arrow, *ADDED])
    with pq.ParquetWriter(arguments.decisions, schema) as writer:
        for batch in decided(source, router, policy, threads=arguments.threads):
            writer.write_batch(batch)
            n_rows += len(batch)
    print(f"{n_rows} rows")


def decided(
    source: pq.ParquetFile, router: Router, policy: Policy, *, threads: int
) -> Iterator[pa.RecordBatch]:
    """Each batch of rows with its decisions beside it."""
    for batch in source.iter_batches(batch_size=16_384):
        texts = [text or "" for text in batch.column("query").to_pylist()]
        rows = router.embed(texts, allow_zero_rows=True)
        routable = rows.any(axis=1)
        decisions = router.route_embeddings(rows[routable], policy=policy, threads=threads)
        # Where each routable row's decision stands among the decisions; null for the others.
        place = pa.array(np.cumsum(routable) - 1, mask=~routable)
        values = (
            pa.array(decisions.models, pa.string()),
            pa.array(decisions.quality),
            pa.array(decisions.cost, from_pandas=True),  # NaN, an unknown cost, becomes null
            pa.array(decisions.in_distribution),
        )
        columns = [*batch.columns, *(column.take(place) for column in values)]
        yield pa.record_batch(columns, schema=pa.schema([*batch.schema, *ADDED]))


if __name__ == "__main__":
    main()
