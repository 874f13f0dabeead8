"""An index over many rows finds what comparing with all finds, under filters and after changes too."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_instruction_sets import AVAILABLE, forced
from test_kernel import make_artifact

from centroute import Artifact, ArtifactError, DataError, PolicyError, Router
from centroute._kernel import Kernel, RowIndex
from centroute.calibrate import calibrate, pipeline
from centroute.calibrate.index import Index, build_index
from centroute.calibrate.tables import distinct_rows
from centroute.datasets import synthetic_outcomes

N_ROWS, DIM, TOP_P, N_OWNERS = 5000, 48, 8, 100
Pack = Callable[[Mapping[str, NDArray[Any]], Any], bytes]


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def drawn(n: int, seed: int) -> NDArray[np.float32]:
    """Rows around three hundred centres, whose later dimensions say less."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((300, DIM))
    spread = 0.7 ** np.arange(DIM)[None] ** 0.5
    rows = centres[rng.integers(0, 300, n)] + 0.6 * rng.standard_normal((n, DIM))
    return unit(rows * spread)


def exact(
    rows: NDArray[np.float32],
    queries: NDArray[np.float32],
    top_p: int = TOP_P,
    allowed: NDArray[np.bool_] | None = None,
) -> NDArray[np.intp]:
    """Nearest rows by comparison with all, the lower number first among equals."""
    similarities = queries.astype(np.float64) @ rows.astype(np.float64).T
    if allowed is not None:
        similarities[:, ~allowed] = -np.inf
    return np.argsort(-similarities, axis=1, kind="stable")[:, :top_p]


def recall(found: NDArray[np.int32], wanted: NDArray[np.intp]) -> float:
    pairs = zip(found, wanted, strict=True)
    return sum(len(np.intersect1d(got, all_of)) for got, all_of in pairs) / wanted.size


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float32]:
    return drawn(N_ROWS, 0)


@pytest.fixture(scope="module")
def queries() -> NDArray[np.float32]:
    return drawn(400, 1)


@pytest.fixture(scope="module")
def owners() -> NDArray[np.int32]:
    return np.random.default_rng(3).integers(0, N_OWNERS, N_ROWS).astype(np.int32)


@pytest.fixture(scope="module")
def index(rows: NDArray[np.float32]) -> Index:
    built = build_index(rows, seed=0, top_p=TOP_P)
    assert built is not None
    return built


def searched(
    rows: NDArray[np.float32], index: Index | None, owners: NDArray[np.int32] | None = None
) -> RowIndex:
    return RowIndex(rows, index=None if index is None else dict(index), owners=owners)


def everything(index: Index) -> Index:
    """Comparison with the rows of all lists."""
    n_groups, n_lists = len(index["index.groups"]), len(index["index.lists"])
    probes = np.array([[TOP_P, n_groups, n_lists, 4096]], dtype=np.int32)
    return {**index, "index.probes": probes}


# Searching.


def test_nearly_all_neighbours_are_found_by_comparing_few_rows(
    rows: NDArray[np.float32], queries: NDArray[np.float32], index: Index
) -> None:
    found, similarities = searched(rows, index).search_batch(queries, TOP_P)
    assert recall(found, exact(rows, queries)) >= 0.985
    np.testing.assert_allclose(similarities, (queries[:, None] * rows[found]).sum(axis=2), atol=1e-6)
    assert (np.diff(similarities, axis=1) <= 0).all()
    # And few are compared: a probe of everything would find them as well.
    depth, n_groups, n_lists, _ = index["index.probes"][0]
    assert depth == TOP_P
    assert n_lists < len(index["index.lists"]) / 3
    assert n_groups < len(index["index.groups"])


def test_comparing_all_lists_finds_all(
    rows: NDArray[np.float32], queries: NDArray[np.float32], index: Index
) -> None:
    found, _ = searched(rows, everything(index)).search_batch(queries, TOP_P)
    np.testing.assert_array_equal(found, exact(rows, queries))


def test_without_an_index_all_rows_are_compared(
    rows: NDArray[np.float32], queries: NDArray[np.float32]
) -> None:
    found, _ = searched(rows, None).search_batch(queries, TOP_P)
    np.testing.assert_array_equal(found, exact(rows, queries))
    assert build_index(rows[:1000], seed=0) is None


def test_one_query_and_a_batch_on_any_number_of_threads_are_alike(
    rows: NDArray[np.float32], queries: NDArray[np.float32], index: Index
) -> None:
    one = searched(rows, index)
    ids, similarities = one.search_batch(queries, TOP_P)
    for threads in (2, 5):
        other_ids, other = one.search_batch(queries, TOP_P, threads=threads)
        assert (other_ids.tobytes(), other.tobytes()) == (ids.tobytes(), similarities.tobytes())
    for row, query in enumerate(queries[:50]):
        found = one.search(query, TOP_P)
        assert found[0].tobytes() == ids[row].tobytes()
        assert found[1].tobytes() == similarities[row].tobytes()


@pytest.mark.parametrize("scale", [1e-25, 1e-4, 3.0, 1e15])
def test_the_length_of_a_query_changes_nothing(
    rows: NDArray[np.float32], queries: NDArray[np.float32], index: Index, scale: float
) -> None:
    one = searched(rows, index)
    ids, similarities = one.search_batch(queries, TOP_P)
    scaled_ids, scaled = one.search_batch((queries * np.float32(scale)).astype(np.float32), TOP_P)
    assert recall(scaled_ids, ids.astype(np.intp)) > 0.999
    np.testing.assert_allclose(scaled, similarities, atol=1e-6)


def test_every_instruction_set_finds_the_same_rows(
    rows: NDArray[np.float32], queries: NDArray[np.float32], index: Index
) -> None:
    found = []
    for isa in AVAILABLE:
        with forced(isa):
            found.append(searched(rows, index).search_batch(queries, TOP_P))
    for ids, similarities in found[1:]:
        np.testing.assert_array_equal(ids, found[0][0])
        np.testing.assert_allclose(similarities, found[0][1], atol=1e-6)


def test_of_equal_rows_those_of_the_lowest_numbers_are_found(rows: NDArray[np.float32]) -> None:
    repeated = np.ascontiguousarray(np.concatenate([rows[:3000], np.repeat(rows[5:6], 2000, axis=0)]))
    built = build_index(repeated, seed=0)
    assert built is not None
    ids, _ = searched(repeated, built).search(rows[5], TOP_P)
    assert ids.tolist() == [5, *range(3000, 3000 + TOP_P - 1)]


def test_the_same_seed_builds_the_same_index(rows: NDArray[np.float32], index: Index) -> None:
    again = build_index(rows, seed=0, top_p=TOP_P)
    assert again is not None
    for name, values in index.items():
        assert values.tobytes() == again[name].tobytes(), name


# Filters.


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
def test_a_filter_keeps_the_recall(
    rows: NDArray[np.float32],
    queries: NDArray[np.float32],
    owners: NDArray[np.int32],
    index: Index,
    share: float,
) -> None:
    allowed = np.zeros(N_OWNERS, dtype=bool)
    allowed[np.random.default_rng(4).choice(N_OWNERS, round(share * N_OWNERS), replace=False)] = True
    found, _ = searched(rows, index, owners).search_batch(queries, TOP_P, allowed)
    assert allowed[owners[found]].all()
    assert recall(found, exact(rows, queries, allowed=allowed[owners])) >= 0.985


def test_a_filter_that_allows_only_what_is_far_keeps_the_recall(
    rows: NDArray[np.float32], queries: NDArray[np.float32], index: Index
) -> None:
    far = (rows @ queries[0] < 0.1).astype(np.int32)
    allowed = np.array([False, True])
    found, _ = searched(rows, index, far).search_batch(queries[:1], TOP_P, allowed)
    assert recall(found, exact(rows, queries[:1], allowed=far == 1)) == 1.0


def test_a_filter_may_leave_fewer_rows_than_are_asked_for(
    rows: NDArray[np.float32], queries: NDArray[np.float32], index: Index
) -> None:
    allowed = np.zeros(N_ROWS, dtype=bool)
    allowed[[17, 4000, 300]] = True
    one = searched(rows, index)
    ids, similarities = one.search(queries[0], TOP_P, allowed)
    assert sorted(ids.tolist()) == [17, 300, 4000]
    assert len(similarities) == 3
    ids, similarities = one.search_batch(queries[:2], 5, allowed)
    assert (ids[:, 3:] == -1).all()
    assert np.isneginf(similarities[:, 3:]).all()


@pytest.mark.parametrize("is_indexed", [True, False])
def test_a_filter_that_excludes_everyone_is_refused(
    rows: NDArray[np.float32], queries: NDArray[np.float32], index: Index, is_indexed: bool
) -> None:
    owners = np.zeros(N_ROWS, dtype=np.int32)
    one = RowIndex(rows, owners=owners, n_owners=3, index=dict(index) if is_indexed else None)
    for allowed, said in (
        ([False] * 3, "allows 0 of 3 owners"),
        ([False, True, True], "allows 2 of 3 owners"),
    ):
        with pytest.raises(PolicyError, match=rf"^no model is left: the filter {said}, and none of the"):
            one.search(queries[0], TOP_P, np.array(allowed))


# Changes.


@pytest.mark.parametrize("is_indexed", [True, False])
def test_rows_come_and_go_without_a_new_index(
    rows: NDArray[np.float32],
    queries: NDArray[np.float32],
    owners: NDArray[np.int32],
    index: Index,
    is_indexed: bool,
) -> None:
    one = searched(rows, everything(index) if is_indexed else None, owners)
    new = drawn(333, 5)
    assert one.add(new[:300], np.full(300, N_OWNERS, dtype=np.int32)) == N_ROWS
    assert one.add(new[300:], np.full(33, 4, dtype=np.int32)) == N_ROWS + 300
    removed = [*range(0, 600, 3), N_ROWS + 7, N_ROWS + 320]
    one.remove(removed)
    assert (one.n_rows, one.n_live, one.n_owners) == (N_ROWS + 333, N_ROWS + 333 - 202, N_OWNERS + 1)
    live = np.ones(N_ROWS + 333, dtype=bool)
    live[removed] = False
    assert ((one.owners == -1) == ~live).all()
    np.testing.assert_array_equal(one.rows, np.concatenate([rows, new]))
    np.testing.assert_array_equal(one.search_batch(queries, TOP_P)[0], exact(one.rows, queries, allowed=live))
    for chosen in ([N_OWNERS], [4], [4, 50, N_OWNERS], [*range(40)]):
        allowed = np.zeros(N_OWNERS + 1, dtype=bool)
        allowed[chosen] = True
        wanted = exact(one.rows, queries, allowed=live & allowed[one.owners])
        np.testing.assert_array_equal(one.search_batch(queries, TOP_P, allowed)[0], wanted)


def test_what_cannot_be_added_or_removed_is_refused_and_changes_nothing(
    rows: NDArray[np.float32], index: Index
) -> None:
    one = searched(rows, index, np.zeros(N_ROWS, dtype=np.int32))
    owner = np.zeros(1, dtype=np.int32)
    for added, owned, message in (
        (np.zeros((1, DIM), dtype=np.float32), owner, "embedding row 0: its norm is not one"),
        (np.full((1, DIM), np.nan, dtype=np.float32), owner, "embedding row 0: its norm is not one"),
        (rows[:1, :-1].copy(), owner, f"embedding dim: got {DIM - 1}, the router wants {DIM}"),
        (rows[:1], np.array([-1], dtype=np.int32), r"owner of row 0: \d+ is not below 2"),
        (rows[:1], np.array([2], dtype=np.int32), "owner of row 0: 2 is not below 2"),
        (rows[:2], owner, "owners: got 1 for 2 rows"),
    ):
        with pytest.raises(DataError, match=message):
            one.add(added, owned)
    one.remove([3])
    for gone in ([4, N_ROWS], [4, 3], [4, 4]):
        with pytest.raises(DataError, match=r"^row \d+: there is none of this number among 5000, or it"):
            one.remove(gone)
    assert (one.n_rows, one.n_live) == (N_ROWS, N_ROWS - 1)


def test_wrong_questions_are_refused(
    rows: NDArray[np.float32], queries: NDArray[np.float32], index: Index
) -> None:
    one = searched(rows, index)
    with pytest.raises(DataError, match="top_p is 0, wanted 1 to 1024"):
        one.search(queries[0], 0)
    with pytest.raises(DataError, match=rf"embedding dim: got {DIM - 1}, the router wants {DIM}"):
        one.search(queries[0, :-1].copy(), 1)
    with pytest.raises(DataError, match="embedding row 1: it holds NaN"):
        one.search_batch(np.stack([queries[0], np.full(DIM, np.nan, dtype=np.float32)]), 1)
    with pytest.raises(DataError, match="filter: got 2 values for 5000 owners"):
        one.search(queries[0], 1, np.ones(2, dtype=bool))
    with pytest.raises(DataError, match="allowed: got an array of int64"):
        one.search(queries[0], 1, np.ones(N_ROWS, dtype=np.int64))  # type: ignore[arg-type]


# The router file.


@pytest.fixture(scope="module")
def indexed(rows: NDArray[np.float32], index: Index) -> Artifact:
    artifact = make_artifact(n_clusters=N_ROWS, dim=DIM, n_models=3, top_p=TOP_P)
    return replace(artifact, centroids=rows, index=index)


def test_an_index_comes_back_from_its_file(indexed: Artifact, index: Index, tmp_path: Path) -> None:
    indexed.save(tmp_path / "router.safetensors")
    loaded = Artifact.load(tmp_path / "router.safetensors")
    assert loaded.index is not None
    assert set(loaded.index) == set(index)
    for name, values in index.items():
        assert loaded.index[name].dtype == values.dtype
        np.testing.assert_array_equal(loaded.index[name], values)
    assert loaded.to_bytes() == indexed.to_bytes()


def test_a_router_searches_the_index_of_its_file(
    indexed: Artifact, index: Index, queries: NDArray[np.float32]
) -> None:
    compared = Router.from_artifact(indexed, precision="f32").route_embeddings(queries)
    whole = Router.from_artifact(replace(indexed, index=everything(index))).route_embeddings(queries)
    # Two orders of addition tell nearly equal rows apart in their own way.
    differ = whole.cluster_ids != compared.cluster_ids
    assert differ.mean() < 0.01
    similarities = [
        (queries[:, None] * indexed.centroids[batch.cluster_ids]).sum(axis=2) for batch in (whole, compared)
    ]
    np.testing.assert_allclose(*similarities, atol=1e-6)
    np.testing.assert_allclose(whole.quality, compared.quality, atol=1e-5)
    np.testing.assert_array_equal(whole.model_ids, compared.model_ids)

    router = Router.from_artifact(indexed)
    found = router.route_embeddings(queries)
    assert recall(found.cluster_ids, compared.cluster_ids.astype(np.intp)) >= 0.985
    alike = (found.cluster_ids == compared.cluster_ids).all(axis=1)
    np.testing.assert_array_equal(found.model_ids[alike], compared.model_ids[alike])
    np.testing.assert_allclose(found.quality[alike], compared.quality[alike], atol=1e-6)
    for row, query in enumerate(queries[:20]):
        assert router.route_embedding(query).model == found.models[row]
    for precision, is_indexed in ((None, True), ("f32", False), ("i8", False)):
        assert Kernel(indexed.to_bytes(), precision=precision).is_indexed is is_indexed


def test_rows_behind_the_lists_are_found(
    indexed: Artifact, queries: NDArray[np.float32], index: Index
) -> None:
    """The last rows of a file may lie in no list."""
    members, offsets = index["index.members"], index["index.list_offsets"]
    is_listed = members < N_ROWS - 100
    ends = np.concatenate([[0], np.cumsum(is_listed)])[offsets].astype(np.int32)
    shorter = {**everything(index), "index.members": members[is_listed], "index.list_offsets": ends}
    found = Router.from_artifact(replace(indexed, index=shorter)).route_embeddings(queries)
    np.testing.assert_array_equal(found.cluster_ids, exact(indexed.centroids, queries))


def changed(name: str, change: Callable[[NDArray[Any]], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda tensors: {**tensors, name: np.asarray(change(tensors[name].copy()))}


def put(place: Any, value: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def change(values: NDArray[Any]) -> NDArray[Any]:
        values[place] = value
        return values

    return change


HOSTILE = {
    "a member that is no row": (
        changed("index.members", put(5, N_ROWS)),
        rf"tensor 'index.members' at \[5\]: {N_ROWS} is not the number of a centroid",
    ),
    "a negative member": (
        changed("index.members", put(0, -1)),
        r"'index.members' at \[0\]: -1 is not the",
    ),
    "a row in no list": (
        changed("index.members", lambda members: np.where(members == 70, 71, members)),
        "'index.members' at any place: 70 is not missing: every row up to the highest is listed",
    ),
    "a list that ends before it begins": (
        changed("index.list_offsets", put(3, 0)),
        r"'index.list_offsets' at \[3\]: 0 is not as high as the one before",
    ),
    "lists that begin late": (
        changed("index.list_offsets", put(0, 1)),
        r"'index.list_offsets' at \[0\]: 1 is not 0, where the first begins",
    ),
    "lists that end late": (
        changed("index.list_offsets", put(-1, 2**31 - 1)),
        r"'index.list_offsets' at \[\d+\]: 2147483600 is not the number of what is divided, at the end",
    ),
    "groups that end late": (
        changed("index.group_offsets", put(-1, 10**6)),
        r"'index.group_offsets' at \[\d+\]: 1000000 is not the number of what is divided, at the end",
    ),
    "too few offsets": (
        changed("index.group_offsets", lambda offsets: offsets[:-1]),
        r"tensor 'index.group_offsets': got I32 \[\d+\], wanted I32 \[\d+\], at least two",
    ),
    "no groups": (
        changed("index.groups", lambda groups: groups[:0]),
        r"tensor 'index.group_offsets': got I32 \[\d+\], wanted I32 \[1\], at least two",
    ),
    "a centroid that is not a number": (
        changed("index.lists", put((2, 3), np.nan)),
        r"tensor 'index.lists' at \[2, 3\]: NaN is not within -1 to 1",
    ),
    "an infinite direction": (
        changed("index.projection", put((0, 1), np.inf)),
        r"tensor 'index.projection' at \[0, 1\]: inf is not within -1 to 1",
    ),
    "centroids of another width": (
        changed("index.lists", lambda lists: lists[:, :-1]),
        r"tensor 'index.lists': got F32 \[\d+, \d+\], wanted F32 \[any, \d+\]",
    ),
    "more directions than dimensions": (
        changed("index.projection", lambda rows: np.repeat(rows, 9, axis=0)),
        rf"tensor 'index.projection': got \d+ of {DIM}, wanted 1 to {DIM} directions of {DIM} numbers",
    ),
    "no lists to compare": (
        changed("index.probes", put((0, 2), 0)),
        r"tensor 'index.probes' at \[0, 2\]: 0 is not 1 to the number of lists",
    ),
    "more lists to compare than there are": (
        changed("index.probes", put((0, 2), 10**6)),
        r"'index.probes' at \[0, 2\]: 1000000 is not 1 to the number of lists",
    ),
    "no groups to compare": (
        changed("index.probes", put((0, 1), -1)),
        r"'index.probes' at \[0, 1\]: -1 is not 1 to the number of groups",
    ),
    "fewer candidates than neighbours": (
        changed("index.probes", put((0, 3), TOP_P - 1)),
        r"'index.probes' at \[0, 3\]: 7 is not the depth or more",
    ),
    "depths out of order": (
        changed("index.probes", lambda probes: np.concatenate([probes[:1], probes[:1]])),
        r"'index.probes' at \[1, 0\]: 8 is not 1 or more and higher than the one before",
    ),
    "no probes": (
        changed("index.probes", lambda probes: probes[:0]),
        r"tensor 'index.probes': got I32 \[0, 4\], wanted at least one row",
    ),
    "probes for fewer neighbours than are blended": (
        changed("index.probes", lambda _: np.array([[2, 1, 1, 2]], dtype=np.int32)),
        "router metadata: index.probes: for 2 neighbours at most, and top_p is 8",
    ),
    "a tensor missing": (
        lambda tensors: {name: values for name, values in tensors.items() if name != "index.members"},
        "tensor 'index.members' is missing",
    ),
    "a tensor that nobody knows": (
        lambda tensors: {**tensors, "index.graph": np.zeros(3, dtype=np.int32)},
        "router metadata: tensor 'index.graph' is no part of an index that this build knows",
    ),
    "members of another dtype": (
        changed("index.members", lambda members: members.astype(np.float32)),
        r"tensor 'index.members': got F32 \[\d+\], wanted I32 \[any\]",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tensors_are_refused_in_one_line(name: str, indexed: Artifact, pack: Pack) -> None:
    change, message = HOSTILE[name]
    kernel = Kernel(indexed.to_bytes())
    tensors = dict(kernel.tensors())
    tensors.update(tensors.pop("index"))  # type: ignore[call-overload]
    with pytest.raises(ArtifactError, match=message) as caught:
        Kernel(pack(change(tensors), json.loads(kernel.metadata_json)))
    assert len(str(caught.value).splitlines()) == 1


def test_random_tensors_never_break_the_kernel(indexed: Artifact, pack: Pack) -> None:
    """Whatever passes the checks is searched without a fault and finds as many rows as are asked for."""
    rng = np.random.default_rng(0)
    small = replace(indexed, centroids=indexed.centroids[:40], quality=indexed.quality[:40],
                    cost=indexed.cost[:40], count=indexed.count[:40], index=None)  # fmt: skip
    kernel = Kernel(small.to_bytes())
    plain, metadata = dict(kernel.tensors()), json.loads(kernel.metadata_json)
    for _ in range(60):
        width, n_groups, n_lists = (int(n) for n in rng.integers(1, 9, 3))
        members = np.concatenate([rng.permutation(40), rng.integers(0, 40, 20)]).astype(np.int32)
        between = np.sort(rng.integers(0, 61, n_lists - 1))
        groups = np.sort(rng.integers(0, n_lists + 1, n_groups - 1))
        scale = rng.choice([0.0, 1e-30, 0.1])
        probe = rng.integers(1, [n_groups + 1, n_lists + 1])
        tensors = {
            **plain,
            "index.projection": (scale * rng.standard_normal((width, DIM))).astype(np.float32),
            "index.groups": (scale * rng.standard_normal((n_groups, width))).astype(np.float32),
            "index.lists": (scale * rng.standard_normal((n_lists, width))).astype(np.float32),
            "index.group_offsets": np.array([0, *groups, n_lists], dtype=np.int32),
            "index.list_offsets": np.array([0, *between, 60], dtype=np.int32),
            "index.members": members,
            "index.probes": np.array([[TOP_P, *probe, TOP_P]], dtype=np.int32),
        }
        batch = Router.from_artifact(Artifact.from_kernel(Kernel(pack(tensors, metadata)))).route_embeddings(
            indexed.centroids[:30]
        )
        assert ((batch.cluster_ids >= 0) & (batch.cluster_ids < 40)).all()
        assert all(len(set(ids)) == TOP_P for ids in batch.cluster_ids.tolist())


def test_an_indexed_router_is_loaded_without_numpy(indexed: Artifact, tmp_path: Path) -> None:
    indexed.save(tmp_path / "router.safetensors")
    code = (
        "import sys; from centroute import Router; "
        f"Router.load({str(tmp_path / 'router.safetensors')!r}); assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ}, timeout=60)


# Every query a centroid.


@pytest.fixture(scope="module")
def queries_as_centroids() -> Artifact:
    return calibrate(
        synthetic_outcomes(n_queries=300), method="knn", top_p=8, beta=20.0, shrinkage=1.0, surface_weight=0.0
    )


def test_knn_has_a_centroid_for_every_query(queries_as_centroids: Artifact, embedder: Any) -> None:
    artifact, outcomes = queries_as_centroids, synthetic_outcomes(n_queries=300)
    np.testing.assert_array_equal(artifact.centroids, embedder.embed(list(outcomes.queries)))
    assert artifact.method["name"] == "knn"
    # A pseudo-outcome draws each score half the way to the model's mean.
    wanted = (outcomes.scores + artifact.prior_quality) / 2
    np.testing.assert_allclose(artifact.quality, wanted, atol=1e-6)
    assert (artifact.count == 1).all()
    assert artifact.index is None
    assert Router.from_artifact(artifact).route(outcomes.queries[17]).clusters[0][0] == 17
    # An error of nearly nothing would mean that each query had predicted itself.
    assert artifact.quality_se is not None
    assert artifact.quality_se.min() > 0.1


def test_knn_chooses_its_settings_and_is_the_same_again() -> None:
    outcomes = synthetic_outcomes(n_queries=120)
    first, again = (calibrate(outcomes, method="knn", surface_weight=0.0, seed=2) for _ in range(2))
    assert first.to_bytes() == again.to_bytes()
    tried = first.report["tried"]
    assert isinstance(tried, list)
    assert len(tried) == 36
    best = max(tried, key=lambda trial: trial["value"])  # type: ignore[call-overload, index]
    assert {name: first.method[name] for name in ("top_p", "beta", "shrinkage")}.items() <= best.items()  # type: ignore[union-attr]


def test_knn_of_many_queries_has_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "build_index", partial(build_index, min_rows=100))
    artifact = calibrate(
        synthetic_outcomes(n_queries=200), method="knn", top_p=4, beta=20.0, shrinkage=1.0, surface_weight=0.0
    )
    assert artifact.index is not None
    assert Kernel(artifact.to_bytes()).is_indexed


def test_knn_takes_no_number_of_clusters() -> None:
    with pytest.raises(DataError, match=r"^7 clusters: method knn takes every query as one; ask for none$"):
        calibrate(synthetic_outcomes(n_queries=50), method="knn", n_clusters=7)


def test_equal_rows_share_a_centroid() -> None:
    rows = np.array([[1, 0], [0, 1], [1, 0], [0.6, 0.8], [0, 1]], dtype=np.float32)
    centroids, labels = distinct_rows(rows)
    np.testing.assert_array_equal(centroids, rows[[0, 1, 3]])
    assert labels.tolist() == [0, 1, 0, 2, 1]
