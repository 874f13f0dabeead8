"""Calibration and batch routing over shards: the same numbers as in memory, going on, and what is refused."""

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from centroute import Artifact, DataError, Policy, Router
from centroute._kernel import surface_features
from centroute.batch import route_shards
from centroute.calibrate import partials, streaming
from centroute.calibrate.assignment import nearest_clusters, softmax_weights
from centroute.calibrate.kmeans import MAX_ITERATIONS, TOLERANCE, refine
from centroute.calibrate.ridge import learned_tables
from centroute.calibrate.settings import Settings
from centroute.calibrate.streaming import calibrate_shards
from centroute.calibrate.streaming_sample import TakeSample
from centroute.calibrate.tables import mean_tables
from centroute.calibrate.uncertainty import quality_errors
from centroute.datasets import Outcomes, write_jsonl
from centroute.datasets.shards import find_shards, read_blocks, shard_models
from centroute.errors import ArtifactError
from centroute.pool import read_pool
from centroute.surface import SurfaceFeatures

FIXED: dict[str, Any] = {
    "method": "means", "n_clusters": 4, "top_p": 2, "beta": 9.0, "shrinkage": 3.0, "surface_weight": 0.0
}  # fmt: skip
TABLES = ("centroids", "quality", "cost", "count", "prior_quality", "prior_cost", "quality_se")

Progress = Callable[[str, int, int], None]


class StopError(Exception):
    """Ends a run from its progress, as a killed process would."""


@pytest.fixture(scope="module")
def gappy(outcomes: Outcomes) -> Outcomes:
    """A third of the scores and costs are missing, not the same ones; each model keeps some."""
    rng = np.random.default_rng(3)
    scores, costs = outcomes.scores.copy(), outcomes.costs.copy()
    gaps = rng.random(scores.shape) < 1 / 3
    gaps[np.arange(len(gaps)), rng.integers(0, scores.shape[1], len(gaps))] = False
    scores[gaps] = np.nan
    costs[rng.random(costs.shape) < 1 / 3] = np.nan
    return replace(outcomes, scores=scores, costs=costs, allow_unobserved=False)


@pytest.fixture(scope="module")
def made(gappy: Outcomes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and the checkpoint of a run over them that was stopped while it measured; to be copied."""
    folder = tmp_path_factory.mktemp("made")
    shards = written(gappy, folder / "shards")
    with pytest.raises(StopError):
        calibrate_shards([shards], **FIXED, checkpoint=folder / "kept", progress=stop_at("measuring", 0))
    return folder


@pytest.fixture
def shards(made: Path, tmp_path: Path) -> Path:
    """Three shards of 80 rows, of the same age in every test."""
    return Path(shutil.copytree(made / "shards", tmp_path / "shards"))


def written(outcomes: Outcomes, folder: Path, *, suffix: str = ".jsonl", n_shards: int = 3) -> Path:
    folder.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(outcomes.n_queries), n_shards)):
        write_jsonl(outcomes.subset(rows), folder / f"part-{number}{suffix}")
    return folder


def parquet_of(file: Path, *, lacks: Sequence[str] = (), **changed: Any) -> Path:
    """A Parquet shard with the rows of a shard of JSON lines, of which columns may be changed."""
    arrow = pytest.importorskip("pyarrow", reason="needs centroute[parquet]")
    import pyarrow.parquet as parquet

    rows = [json.loads(line) for line in file.read_text().splitlines()]
    columns = {
        name: [row.get(name) for row in rows] for name in ("query", "scores", "costs", "dataset", "id")
    }
    table = arrow.table({**{k: v for k, v in columns.items() if k not in lacks}, **changed})
    target = file.with_suffix(".parquet")
    parquet.write_table(table, target)
    file.unlink()
    return target


def assert_close(one: Artifact, other: Artifact) -> None:
    for name in TABLES:
        np.testing.assert_allclose(
            getattr(one, name), getattr(other, name), rtol=1e-5, atol=1e-5, err_msg=name
        )


def stop_at(step: str, done: int) -> Progress:
    def tell(now: str, is_done: int, _total: int) -> None:
        if now == step and is_done == done:
            raise StopError

    return tell


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("weight", [0.0, 0.15])
def test_streamed_numbers_are_those_in_memory(
    learned: bool,
    weight: float,
    gappy: Outcomes,
    shards: Path,
    embedder: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(partials, "BLOCK_ROWS", 37)
    rows, surface = embedder.embed(gappy.queries), None
    if weight:
        features = surface_features(gappy.queries)
        surface = SurfaceFeatures.fit(features, weight)
        rows = surface.append(rows, features)
    start = rows[[5, 50, 120, 7, 200]].copy()
    start[3] = -rows[7]  # no row is near it: an empty cluster to be filled
    settings = Settings(5, 3, 9.0, 3.0, weight, learned)
    clustering = refine(rows, start, max_iterations=MAX_ITERATIONS, tolerance=TOLERANCE)
    order = np.argsort(-np.bincount(clustering.labels, minlength=5), kind="stable")
    centroids = clustering.centroids[order]
    ids, similarities = nearest_clusters(rows, centroids, 3)
    weights = softmax_weights(similarities, 9.0)
    options: dict[str, Any] = {
        "n_clusters": 5, "shrinkage": settings.shrinkage, "cost_shrinkage": settings.cost_shrinkage
    }  # fmt: skip
    tables = (
        learned_tables(ids, weights, gappy.scores, gappy.costs, **options)
        if learned
        else mean_tables(ids[:, 0].copy(), gappy.scores, gappy.costs, **options)
    )
    streamed = calibrate_shards(
        [shards],
        method="learned" if learned else "means",
        n_clusters=5,
        top_p=3,
        beta=9.0,
        shrinkage=3.0,
        surface_weight=weight,
        holdout=0.0,
        initial_centroids=start,
    )
    assert streamed.report["streaming"]["iterations"] == [clustering.n_iterations]
    assert streamed.embedder.surface == surface
    np.testing.assert_allclose(streamed.centroids, centroids, atol=1e-5)
    for name in ("quality", "cost", "count", "prior_quality", "prior_cost"):
        np.testing.assert_allclose(
            getattr(streamed, name), getattr(tables, name), rtol=1e-5, atol=1e-5, err_msg=name
        )
    errors = quality_errors(ids, weights, gappy.scores, tables.quality, shrinkage=3.0)
    np.testing.assert_allclose(streamed.quality_se, errors, rtol=1e-5)


def test_one_shard_or_many_make_no_difference(gappy: Outcomes, tmp_path: Path) -> None:
    one = calibrate_shards([written(gappy, tmp_path / "one", n_shards=1)], **FIXED)
    many = calibrate_shards([written(gappy, tmp_path / "many", n_shards=7, suffix=".jsonl.gz")], **FIXED)
    assert_close(one, many)
    np.testing.assert_allclose(one.frontier, many.frontier, atol=1e-5)
    assert one.report["n_holdout"] == many.report["n_holdout"] > 0
    measured = [artifact.report["streaming"]["measured"] for artifact in (one, many)]
    assert measured[0]["accuracy"] == pytest.approx(measured[1]["accuracy"])
    assert [model["share"] for model in measured[0]["models"]] == [
        model["share"] for model in measured[1]["models"]
    ]


def test_settings_are_chosen_and_the_whole_holdout_is_measured(shards: Path) -> None:
    artifact = calibrate_shards([shards], sample_rows=10_000, seed=1)
    report = artifact.report
    assert report["n_calibration"] + report["n_holdout"] == 240
    assert report["tried"]
    # With all rows in the sample, the code that measures in memory sees the same rows.
    measured, evaluation = report["streaming"]["measured"], report["evaluation"]
    for name in ("accuracy", "mean_cost_usd", "n_queries"):
        assert measured[name] == pytest.approx(evaluation[name])
    for name in ("best_single", "oracle", "random"):
        assert measured[name]["accuracy"] == pytest.approx(evaluation[name]["accuracy"])
    router = Router.from_artifact(artifact)
    assert router.route("What is 2 + 2?").model in router.models
    assert artifact.ood_threshold is not None
    assert -1 < artifact.ood_threshold < 1


def test_equal_texts_are_on_one_side(outcomes: Outcomes, tmp_path: Path) -> None:
    twins = replace(
        outcomes,
        queries=tuple(
            text if number % 2 else text.upper() for number, text in enumerate(outcomes.queries[:120] * 2)
        ),
    )
    stream = calibrate_shards([written(twins, tmp_path / "twins")], **FIXED)
    assert stream.report["n_holdout"] % 2 == 0
    assert 30 < stream.report["n_holdout"] < 120


def test_the_sample_is_bounded_and_uniform(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    true_call = TakeSample.__call__

    def counted(self: TakeSample, shard: Any) -> Any:
        found = true_call(self, shard)
        taken.append(sum(len(block.keys) for block in found.blocks))
        return found

    monkeypatch.setattr(TakeSample, "__call__", counted)
    artifact = calibrate_shards([shards], **FIXED, sample_rows=120)
    assert len(taken) == 3
    assert all(20 < count < 60 for count in taken)
    assert artifact.report["streaming"]["n_sampled"] == sum(taken)
    assert artifact.report["evaluation"]["n_queries"] < artifact.report["n_holdout"]


def test_a_model_that_the_sample_lacks_is_fitted_all_the_same(outcomes: Outcomes, tmp_path: Path) -> None:
    scores = outcomes.scores.copy()
    scores[::2, 1] = np.nan
    scores[10:, 5] = np.nan
    rare = written(replace(outcomes, scores=scores), tmp_path / "rare")
    edit_line(rare / "part-1.jsonl", 0, lambda fields: fields["scores"].update({outcomes.models[5]: 1.0}))
    options: dict[str, Any] = {"sample_rows": 25, "method": "learned", "n_clusters": 1, "seed": 12}
    artifact = calibrate_shards([rare], **options)
    # No curve of a pair with it: nobody in the sample was answered by both.
    assert artifact.pairs is not None
    assert np.isnan(artifact.pairs[-1]).all()
    assert artifact.count[:, 5].sum() == pytest.approx(11)
    assert not np.isnan(artifact.prior_quality).any()


def test_long_texts_make_short_blocks(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("centroute.datasets.shards.BLOCK_BYTES", 2000)
    first = find_shards([shards])[0]
    blocks = list(read_blocks(first, shard_models(first), first=first))
    assert sum(block.n_queries for block in blocks) == 80
    assert all(sum(map(len, block.queries)) < 5000 for block in blocks)
    assert len(blocks) > 5


def test_costs_follow_from_the_pool(outcomes: Outcomes, tmp_path: Path) -> None:
    without = replace(outcomes, costs=np.full(outcomes.costs.shape, np.nan))
    pool_file = tmp_path / "pool.toml"
    prices = "input_usd_per_million = 1.0\noutput_usd_per_million = 2.0\noutput_tokens = 100\n"
    pool_file.write_text("".join(f"[models.{name}]\n{prices}" for name in outcomes.models))
    artifact = calibrate_shards([written(without, tmp_path / "x")], **FIXED, pool=read_pool(pool_file))
    assert not np.isnan(artifact.cost).any()
    assert artifact.report["cost_sources"][outcomes.models[0]]["estimate"] == 240
    assert artifact.models[0].input_usd_per_million == 1.0
    unpriced = calibrate_shards([tmp_path / "x"], **FIXED)
    assert np.isnan(unpriced.cost).all()
    assert len(unpriced.frontier) == 0


def test_parquet_shards_are_read_like_json_lines(shards: Path) -> None:
    as_lines = calibrate_shards([shards], **FIXED)
    first = find_shards([shards])[0]
    lines = list(read_blocks(first, shard_models(first), first=first))
    parquet_of(shards / "part-0.jsonl")
    parquet_of(shards / "part-2.jsonl")
    found = find_shards([shards])
    assert [shard.path.suffix for shard in found] == [".parquet", ".jsonl", ".parquet"]
    blocks = list(read_blocks(found[0], shard_models(found[0]), first=found[0], n_rows=33))
    assert [block.n_queries for block in blocks] == [33, 33, 14]
    assert sum((block.queries for block in blocks), ()) == lines[0].queries
    np.testing.assert_array_equal(np.concatenate([block.scores for block in blocks]), lines[0].scores)
    assert calibrate_shards([shards], **FIXED).to_bytes() != as_lines.to_bytes()  # another data_sha256
    assert_close(calibrate_shards([shards], **FIXED), as_lines)


@pytest.mark.parametrize(
    "stop", [("embed", 2), ("fitting tables", 0), ("clusters, pass 2", 1), ("measuring", 3)], ids=str
)
def test_a_stopped_run_goes_on_to_the_same_bytes(
    stop: tuple[str, int], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    expected = calibrate_shards([shards], **FIXED).to_bytes()
    with pytest.raises(StopError):
        calibrate_shards([shards], **FIXED, checkpoint=kept, progress=stop_at(*stop))
    (kept / "embedded" / ".000002.dead.part").mkdir()  # of a worker that was killed
    read: list[Path] = []
    true_blocks = streaming.Embedding.__call__

    def counted(self: Any, numbered: Any) -> Any:
        read.append(numbered[1].path)
        return true_blocks(self, numbered)

    monkeypatch.setattr(streaming.Embedding, "__call__", counted)
    assert calibrate_shards([shards], **FIXED, checkpoint=kept).to_bytes() == expected
    assert len(read) == (1 if stop[0] == "embed" else 0)


def test_settings_that_were_chosen_are_kept(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {**FIXED, "n_clusters": None, "checkpoint": tmp_path / "kept"}
    with pytest.raises(StopError):
        calibrate_shards([shards], **options, progress=stop_at("measuring", 0))
    monkeypatch.setattr(streaming, "choose_settings", None)
    assert calibrate_shards([shards], **options).report["tried"]


# Bad input: one line that says what and where.


def refused(places: Sequence[Path], *named: str, **options: Any) -> None:
    with pytest.raises(DataError) as caught:
        calibrate_shards(places, **{**FIXED, **options})
    for name in named:
        assert name in str(caught.value), str(caught.value)


def edit_line(file: Path, number: int, change: Callable[[dict[str, Any]], None]) -> None:
    lines = file.read_text().splitlines()
    fields = json.loads(lines[number])
    change(fields)
    lines[number] = json.dumps(fields)
    file.write_text("\n".join(lines) + "\n")


def test_a_shard_that_names_another_model_is_refused(shards: Path) -> None:
    edit_line(shards / "part-1.jsonl", 6, lambda fields: fields["scores"].update(stranger=1.0))
    refused([shards], "part-1.jsonl, line 7", "'stranger'", "part-0.jsonl")


def test_a_shard_that_lacks_a_model_is_refused(shards: Path) -> None:
    lines = [json.loads(line) for line in (shards / "part-2.jsonl").read_text().splitlines()]
    for line in lines:
        line["scores"].pop("crumb-mini", None)
    lines = [line for line in lines if any(score is not None for score in line["scores"].values())]
    (shards / "part-2.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    refused([shards], "part-2.jsonl", "another schema", "'crumb-mini'")


def test_parquet_shards_of_other_columns_are_refused(shards: Path) -> None:
    parquet_of(shards / "part-0.jsonl")
    parquet_of(shards / "part-1.jsonl", lacks=["costs"])
    refused([shards], "part-1.parquet", "part-0.parquet", "'costs'")


def test_parquet_shards_of_other_models_are_refused(shards: Path) -> None:
    models = shard_models(find_shards([shards])[0])
    parquet_of(shards / "part-1.jsonl", scores=[dict.fromkeys([*models[:-1], "stranger"], 0.5)] * 80)
    refused([shards], "part-1.parquet", "another schema", repr(models[-1]))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"scores": ["high"] * 80}, "of structs"),
        ({"scores": [{"a": "high"}] * 80}, "'scores.a' is of string"),
        ({"query": list(range(80))}, "'query' is of int64"),
        ({"scores": [{"a": 0.5, "b": 1.0}] * 79 + [{"a": 0.5, "b": 1.5}]}, "row 80, scores['b']: 1.5"),
        ({"scores": [{"a": 0.5, "b": 1.0}] * 79 + [{"a": None, "b": None}]}, "row 80, scores: holds no"),
        ({"query": ["x"] * 41 + [" "] + ["x"] * 38}, "row 42, query: is empty"),
    ],
    ids=["not-structs", "text", "query", "range", "no-score", "empty"],
)
def test_bad_values_of_parquet_are_refused(changed: dict[str, Any], named: str, shards: Path) -> None:
    file = parquet_of(shards / "part-0.jsonl", lacks=["costs"], **changed)
    refused([file], "part-0.parquet", named)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_shard_is_refused(content: bytes, shards: Path) -> None:
    (shards / "part-1.jsonl").write_bytes(content)
    refused([shards], "part-1.jsonl", "holds no query")


def test_an_empty_parquet_shard_is_refused(shards: Path) -> None:
    import pyarrow.parquet as parquet

    table = parquet.read_table(parquet_of(shards / "part-0.jsonl"))
    parquet.write_table(table, shards / "part-0.parquet")
    parquet.write_table(table.slice(0, 0), shards / "part-3.parquet")
    refused([shards], "part-3.parquet", "holds no query")


@pytest.mark.parametrize("change", ["unlink", "append"])
def test_a_shard_that_disappears_or_changes_midway_is_refused(change: str, shards: Path) -> None:
    def tell(step: str, done: int, _total: int) -> None:
        if (step, done) == ("embed", 1):
            last = shards / "part-2.jsonl"
            if change == "unlink":
                last.unlink()
            else:
                last.write_text(last.read_text() * 2)

    named = "was there when the run began" if change == "unlink" else "has changed since the run began"
    refused([shards], "part-2.jsonl", named, progress=tell)


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("none.jsonl", "none.jsonl: cannot be read"),
        ("nothing-*.jsonl", "no file matches"),
        ("shards/notes.txt", "unknown suffix '.txt'"),
        ("empty", "holds no shard"),
    ],
)
def test_places_without_shards_are_refused(place: str, named: str, shards: Path, tmp_path: Path) -> None:
    (shards / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    refused([tmp_path / place], named)


def test_a_shard_given_twice_is_refused(shards: Path) -> None:
    refused([shards, shards / "part-1.jsonl"], "part-1.jsonl", "given twice")


def test_patterns_and_files_are_found_in_their_order(shards: Path) -> None:
    found = find_shards([shards / "part-2.jsonl", shards / "part-[01].jsonl"])
    assert [shard.path.name for shard in found] == ["part-2.jsonl", "part-0.jsonl", "part-1.jsonl"]


@pytest.fixture
def stopped(made: Path, tmp_path: Path) -> Iterator[Path]:
    """The checkpoint of a run over the shards that was stopped while it measured."""
    kept = Path(shutil.copytree(made / "kept", tmp_path / "kept"))
    yield kept
    assert (kept / "centroute-checkpoint.json").exists()  # what is refused is left alone


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seed": 1}, "another seed"),
        ({"beta": 8.0}, "another set of settings"),
        ({"holdout": 0.2}, "holdout"),
    ],
    ids=["seed", "settings", "holdout"],
)
def test_the_checkpoint_of_another_run_is_refused(
    options: dict[str, Any], named: str, stopped: Path, shards: Path
) -> None:
    refused([shards], str(stopped), "of another run", named, checkpoint=stopped, **options)


def test_the_checkpoint_of_other_shards_is_refused(stopped: Path, shards: Path) -> None:
    (shards / "part-2.jsonl").unlink()
    refused([shards], str(stopped), "another set of shards", checkpoint=stopped)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("centroute-checkpoint.json", lambda file: file.write_text("{")),
        ("centroute-checkpoint.json", lambda file: file.write_text("[1]")),
        ("embedded/000001/shard.json", lambda file: file.write_text('{"n_rows": -1}')),
        ("embedded/000001/shard.json", Path.unlink),
        ("embedded/000001/embeddings", lambda file: file.write_bytes(file.read_bytes()[:-1])),
        ("embedded/000001/embeddings", flip),
        ("embedded/000002/keys", Path.unlink),
        ("states/clusters-calibration.npz", flip),
        ("states/settings.npz", lambda file: file.write_bytes(b"")),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    file: str, damage: Callable[[Path], Any], stopped: Path, shards: Path
) -> None:
    damage(stopped / file)
    refused([shards], str(stopped / file), "damaged", checkpoint=stopped)


def test_a_checkpoint_of_another_version_is_refused(stopped: Path, shards: Path) -> None:
    file = stopped / "centroute-checkpoint.json"
    file.write_text(file.read_text().replace('"centroute_checkpoint": 1', '"centroute_checkpoint": 2'))
    refused([shards], "version 2", checkpoint=stopped)


def test_a_folder_of_other_files_is_no_checkpoint(shards: Path) -> None:
    refused([shards], str(shards), "is no checkpoint", checkpoint=shards)


def test_a_checkpoint_in_use_is_refused(stopped: Path, shards: Path) -> None:
    with (stopped / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused([shards], "in use by another process", checkpoint=stopped)


def test_a_checkpoint_is_never_taken_for_a_router(stopped: Path) -> None:
    for place in (stopped, *stopped.rglob("*")):
        if place.name != "lock":
            with pytest.raises(ArtifactError):
                Router.load(place)


def test_too_many_clusters_and_other_centroids_are_refused(shards: Path) -> None:
    refused([shards], "1000 clusters", n_clusters=1000)
    start = np.eye(3, 256, dtype=np.float32)
    refused([shards], "[3, 256]", "[4, 256]", initial_centroids=start)


def test_a_model_without_outcomes_is_refused(outcomes: Outcomes, tmp_path: Path) -> None:
    scores = outcomes.scores.copy()
    scores[1:, 2] = np.nan
    lonely = replace(outcomes, scores=scores)
    written(lonely, tmp_path / "x")
    edit_line(tmp_path / "x" / "part-1.jsonl", 0, lambda f: f["scores"].update({outcomes.models[2]: None}))
    refused([tmp_path / "x"], repr(outcomes.models[2]), "has 1 outcome")


# The command line.


def test_calibrate_takes_a_folder(shards: Path, tmp_path: Path, cli: Any) -> None:
    router = tmp_path / "router.safetensors"
    fixed = ("--method", "means", "--clusters", 4, "--top-p", 2, "--beta", 9, "--surface-weight", 0)
    done = cli("calibrate", shards, "-o", router, *fixed, "--checkpoint", tmp_path / "kept")
    assert (done.code, done.err) == (0, "")
    assert "3 shards: 240 queries, 6 models" in done.out
    assert "all of the holdout" in done.out
    assert not (tmp_path / "kept").exists()
    again = tmp_path / "again.safetensors"
    assert cli("calibrate", f"{shards}/*.jsonl", "-o", again, *fixed, "--engine", "local").code == 0
    assert again.read_bytes() == router.read_bytes()
    assert cli("inspect", router).code == 0


def test_calibrate_refuses_in_one_line(shards: Path, tmp_path: Path, cli: Any) -> None:
    router = tmp_path / "router.safetensors"
    (shards / "part-1.jsonl").write_text("")
    cli("calibrate", shards, "-o", router, "--clusters", 4).assert_refused("part-1.jsonl")
    assert not router.exists()
    files = sorted(shards.iterdir())
    cli("calibrate", *files, "--check").assert_wrong_usage("--check")
    cli("calibrate", shards, "--check").assert_wrong_usage("--check")
    cli("calibrate", shards, "-o", router, "--workers", 2).assert_wrong_usage("--engine ray")
    cli("calibrate", files[0], "-o", router, "--address", "x:1").assert_wrong_usage("--engine ray")
    cli("calibrate", *files, "-o", files[0]).assert_refused("it is the data")


def test_a_single_file_is_calibrated_in_memory(outcomes_file: Path, tmp_path: Path, cli: Any) -> None:
    router = tmp_path / "router.safetensors"
    assert cli("calibrate", outcomes_file, "-o", router, "--method", "means", "--clusters", 4).code == 0
    assert "streaming" not in Artifact.load(router).report


# Batch routing.


@pytest.fixture
def queries(gappy: Outcomes, tmp_path: Path) -> Path:
    folder = written(gappy, tmp_path / "queries", suffix=".jsonl.gz", n_shards=2)
    (folder / "part-2.jsonl").write_text('{"query": "What is 2 + 2?", "of": [1, "ä"]}\n{"query": " "}\n')
    return folder


def decided(file: Path) -> list[dict[str, Any]]:
    import gzip

    content = file.read_bytes()
    text = (gzip.decompress(content) if file.suffix == ".gz" else content).decode()
    return [json.loads(line) for line in text.splitlines()]


def test_every_row_of_shards_gets_its_decision(
    queries: Path, router_file: Path, tmp_path: Path, gappy: Outcomes
) -> None:
    policy = Policy(willingness_to_pay=0.01)
    done = route_shards(router_file, [queries], tmp_path / "out", policy=policy)
    assert (done.n_shards, done.n_kept, done.n_queries, done.n_unroutable) == (3, 0, 242, 1)
    rows = [row for file in sorted(queries.iterdir()) for row in decided(tmp_path / "out" / file.name)]
    assert [row["query"] for row in rows[:240]] == list(gappy.queries)
    router = Router.load(router_file)
    for row in rows[:241:16]:
        decision = router.route(row["query"], policy=policy)
        assert row["decision"]["model"] == decision.model
        assert row["decision"]["quality"] == pytest.approx(decision.quality)
        assert row["decision"]["cost_usd"] == pytest.approx(decision.cost)
        assert row["decision"]["in_distribution"] == decision.in_distribution
    assert rows[240]["of"] == [1, "ä"]
    assert rows[241] == {"query": " ", "decision": None}


def test_parquet_shards_get_a_column(queries: Path, router_file: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    source = parquet_of(shutil.copy(queries / "part-2.jsonl", tmp_path / "p.jsonl"))
    route_shards(router_file, [source], tmp_path / "out")
    before, after = parquet.read_table(source), parquet.read_table(tmp_path / "out" / "p.parquet")
    assert after.drop_columns(["decision"]) == before
    first, second = after.column("decision").to_pylist()
    assert first["model"] == Router.load(router_file).route("What is 2 + 2?").model
    assert second is None


def test_a_stopped_batch_goes_on(queries: Path, router_file: Path, tmp_path: Path, unchanged: Any) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    with pytest.raises(StopError):
        route_shards(router_file, [queries], out, progress=stop_at("route", 2))
    assert len(list(out.glob("part-*"))) == 2
    done = route_shards(router_file, [queries], out)
    assert (done.n_kept, done.n_queries) == (2, 2)
    route_shards(router_file, [queries], whole)
    for file in queries.iterdir():
        assert (out / file.name).read_bytes() == (whole / file.name).read_bytes()
    with unchanged(out):
        assert route_shards(router_file, [queries], out).n_kept == 3
        with pytest.raises(DataError, match="another policy"):
            route_shards(router_file, [queries], out, policy=Policy(alpha=0.5))


def test_a_batch_is_refused_in_one_line(queries: Path, router_file: Path, tmp_path: Path, cli: Any) -> None:
    def refused_batch(*named: str, places: Sequence[Path] = (queries,), out: Path = tmp_path / "out") -> None:
        given = [part for place in places for part in ("--shards", place)]
        cli("route", router_file, *given, "-o", out).assert_refused(*named)

    refused_batch("holds other files", out=queries)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(queries / "part-2.jsonl", other / "part-2.jsonl")
    refused_batch("part-2.jsonl", "has the name of", places=(queries, other))
    (queries / "part-2.jsonl").write_text('{"query": "x"}\n{"text": "x"}\n')
    refused_batch("part-2.jsonl, line 2, query", "missing")
    (queries / "part-2.jsonl").write_text('{"query": "x", "decision": null}\n')
    refused_batch("part-2.jsonl, line 1, decision", "there already")
    (queries / "part-2.jsonl").write_text("")
    refused_batch("part-2.jsonl", "holds no query")
    assert not (tmp_path / "out" / "part-2.jsonl").exists()
    assert not list((tmp_path / "out").glob(".*.part"))


def test_route_shards_on_the_command_line(queries: Path, router_file: Path, tmp_path: Path, cli: Any) -> None:
    out = tmp_path / "out"
    done = cli("route", router_file, "--shards", queries, "-o", out, "--willingness-to-pay", 0.01)
    assert (done.code, done.err) == (0, "")
    assert "3 shards; 242 queries routed now" in done.out
    assert "1 queries" in done.out
    assert (
        "3 of them from before"
        in cli("route", router_file, "--shards", queries, "-o", out, "--willingness-to-pay", 0.01).out
    )
    cli("route", router_file, "--shards", queries).assert_wrong_usage("-o")
    cli("route", router_file, "text", "--shards", queries, "-o", out).assert_wrong_usage("TEXT")
    cli("route", router_file, "text", "-o", out).assert_wrong_usage("--shards")
