"""What rounded centroids change on real outcomes: ``python benches/precision.py``.

Calibrates on 70 % of each set and routes the held-out 30 %. "searched" keeps f32 rows in the file and
searches them in the given precision; "stored" rounds the file's rows too. Agreement is with f32 in per cent.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from centroute import Artifact, Router
from centroute.calibrate import calibrate
from centroute.datasets import read_outcomes, split_by_text
from centroute.embedders import load_embedder

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SEEDS = 5


def decide(
    artifact: Artifact, rows: np.ndarray, precision: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Chosen models and clusters, query by query: a batch is always searched in f32."""
    router = Router.from_artifact(artifact, precision=precision)  # type: ignore[arg-type]
    decisions = [router.route_embedding(row) for row in rows]
    clusters = [[cluster for cluster, _ in decision.clusters] for decision in decisions]
    return np.array([decision.model_id for decision in decisions]), np.array(clusters)


def main() -> int:
    """Print the table."""
    embedder = load_embedder("static-256")
    print("| data | rounded | clusters agree | models agree | accuracy - f32, points |")
    print("|---|---|---|---|---|")
    for name in ("llmrouter9", "routerbench3", "mmlu_pro", "routellm2"):
        path = DATA / f"{name}.jsonl.gz"
        if not path.is_file():
            print(f"{path} is not there", file=sys.stderr)
            return 1
        outcomes = read_outcomes(path)
        embeddings = embedder.embed(outcomes.queries)
        agreed: dict[str, list[tuple[float, float, float]]] = {}
        for seed in range(SEEDS):
            artifact = calibrate(
                outcomes, embedder=embedder, embeddings=embeddings, seed=seed, refit=False,
                n_clusters=64, top_p=4, beta=20.0, shrinkage=10.0,
            )  # fmt: skip
            _, held_out = split_by_text(outcomes, holdout=0.3, seed=seed)
            rows, scores = embeddings[held_out], outcomes.scores[held_out]
            wanted, wanted_clusters = decide(artifact, rows)
            reached = np.nanmean(scores[np.arange(len(rows)), wanted])
            for precision in ("f16", "i8"):
                for how, changed in (
                    ("searched", artifact),
                    ("stored", replace(artifact, precision=precision)),
                ):
                    models, clusters = decide(changed, rows, precision)
                    gain = 100 * (np.nanmean(scores[np.arange(len(rows)), models]) - reached)
                    same = (clusters == wanted_clusters).all(axis=1).mean()
                    agreed.setdefault(f"{precision} {how}", []).append(
                        (same, (models == wanted).mean(), gain)
                    )
        for how, figures in agreed.items():
            same, models, gain = np.mean(figures, axis=0)
            print(f"| {name} | {how} | {100 * same:.2f} | {100 * models:.2f} | {gain:+.3f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
