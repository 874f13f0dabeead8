"""The router file: what is written comes back, and everything else is refused with a clear message."""

import json
import os
import re
import resource
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from centroute import Artifact, ArtifactError, EmbedderError, Policy, Router, _router_file
from centroute._kernel import Kernel
from centroute.artifact import FORMAT_VERSION, EmbedderId, PoolModel, load_kernel
from centroute.embedders import Embedder

Tensors = dict[str, NDArray[Any]]
Pack = Callable[[Mapping[str, NDArray[Any]], Any], bytes]
Unchanged = Callable[[Path], AbstractContextManager[None]]

TENSORS = ("centroids", "cost", "count", "frontier", "prior_cost", "prior_quality", "quality")
N_CLUSTERS, N_MODELS, DIM = 3, 4, 8


@pytest.fixture(scope="module")
def small() -> Artifact:
    """Every field set, and the last model's cost unknown."""
    rng = np.random.default_rng(0)
    centroids = rng.standard_normal((N_CLUSTERS, DIM))
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    cost = rng.uniform(0.001, 0.01, (N_CLUSTERS, N_MODELS))
    cost[:, -1] = np.nan
    quality = rng.uniform(size=(N_CLUSTERS, N_MODELS))
    frontier = [[0.0, 0.4, 0.001], [0.01, 0.5, 0.002], [0.1, 0.6, 0.004]]
    return Artifact(
        models=(
            PoolModel("größte", 2.5, 10.0, frozenset({"vision", "tools"}), 128_000),
            PoolModel("org/model:7b@high", tags=frozenset({"tools"})),
            PoolModel("a, b", input_usd_per_million=0.0),
            PoolModel("costless"),
        ),
        embedder=EmbedderId("somewhere-else", DIM, "ab" * 32),
        centroids=centroids.astype(np.float32),
        quality=quality.astype(np.float32),
        cost=cost.astype(np.float32),
        count=rng.integers(0, 50, (N_CLUSTERS, N_MODELS)).astype(np.float32),
        prior_quality=quality.mean(axis=0).astype(np.float32),
        prior_cost=cost.mean(axis=0).astype(np.float32),
        frontier=np.array(frontier, dtype=np.float32),
        top_p=2,
        beta=9.1,
        method={"name": "means", "shrinkage": 3.0, "nested": [1, None, "√2", True]},
        ood_threshold=0.123456789,
        default_policy=Policy(min_quality=0.3, deny={"costless", "a, b"}, require={"tools"}),
        alpha_score="min-max",
        report={"seed": 7, "text": 'a "quoted" line\nand another', "none": None},
    )


@pytest.fixture(scope="module")
def data(small: Artifact) -> bytes:
    return small.to_bytes()


@pytest.fixture
def tensors(small: Artifact) -> Tensors:
    """Tensors of the small artifact, to be spoilt."""
    return {name: getattr(small, name).copy() for name in TENSORS}


@pytest.fixture
def metadata(data: bytes) -> dict[str, Any]:
    """Metadata of the small artifact, to be spoilt."""
    read: dict[str, Any] = json.loads(Kernel(data).metadata_json)
    return read


def refused(data: bytes, message: str, file: Path) -> None:
    """Loading says ``message``, names the file, and leaves the file as it is."""
    file.write_bytes(data)
    with pytest.raises(ArtifactError, match=message) as caught:
        Artifact.load(file)
    said = str(caught.value)
    assert said.startswith(f"{file}: ")
    assert len(said.splitlines()) == 1
    assert file.read_bytes() == data


# Round trip.


def test_every_field_comes_back(small: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "router.safetensors"
    small.save(file)
    loaded = Artifact.load(file)
    for field in fields(Artifact):
        saved, read = getattr(small, field.name), getattr(loaded, field.name)
        if field.name in TENSORS:
            assert read.dtype == np.float32
            assert read.shape == saved.shape
            np.testing.assert_array_equal(read.view(np.uint32), saved.view(np.uint32))
        else:
            assert read == saved, field.name
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "policy",
    [
        None,
        Policy(),
        Policy(alpha=0.0),
        Policy(alpha=1.0, deny={"costless"}, fallback="a, b"),
        Policy(willingness_to_pay=0.0123, deny={"costless"}, max_cost=0.5),
        Policy(max_mean_cost=0.003, allow={"größte", "a, b"}),
        Policy(require={"tools", "context>=1000"}),
    ],
    ids=repr,
)
def test_the_default_policy_comes_back(small: Artifact, policy: Policy | None) -> None:
    if policy is not None and policy.alpha == 0.0:
        # A pool whose cost is not wholly known cannot have it.
        policy = policy.replace(deny={"costless"})
    loaded = Artifact.from_kernel(Kernel(replace(small, default_policy=policy).to_bytes()))
    assert loaded.default_policy == policy


def test_fields_that_may_be_open_come_back_open(small: Artifact) -> None:
    bare = replace(
        small,
        embedder=EmbedderId("outside", DIM, None),
        frontier=np.zeros((0, 3), dtype=np.float32),
        ood_threshold=None,
        default_policy=None,
        report={},
    )
    loaded = Artifact.from_kernel(Kernel(bare.to_bytes()))
    assert loaded.embedder == bare.embedder
    assert loaded.frontier.shape == (0, 3)
    assert loaded.ood_threshold is None
    assert loaded.default_policy is None
    assert loaded.report == {}


def test_the_same_artifact_gives_the_same_bytes(small: Artifact, data: bytes) -> None:
    assert small.to_bytes() == data
    assert Artifact.from_kernel(Kernel(data)).to_bytes() == data


def test_tensors_that_are_not_contiguous_are_written_by_value(small: Artifact, data: bytes) -> None:
    assert replace(small, quality=np.asfortranarray(small.quality)).to_bytes() == data


def test_another_tensor_or_setting_gives_another_digest(small: Artifact) -> None:
    others = (small, replace(small, top_p=1), replace(small, count=small.count + 1))
    digests = {json.loads(Kernel(other.to_bytes()).metadata_json)["sha256"] for other in others}
    assert len(digests) == 3


def test_the_digest_is_the_described_one(
    data: bytes, tensors: Tensors, digest: Callable[[str, Tensors], str]
) -> None:
    text = Kernel(data).metadata_json
    stored = json.loads(text)["sha256"]
    assert stored == digest(text.replace(stored, "0" * 64), tensors)


def test_a_file_written_by_others_is_read(
    data: bytes, tensors: Tensors, metadata: dict[str, Any], pack: Pack
) -> None:
    packed = pack(tensors, {name: metadata[name] for name in reversed(metadata)})
    assert packed != data
    assert Artifact.from_kernel(Kernel(packed)).to_bytes() == data


def test_a_calibrated_artifact_comes_back(artifact: Artifact, router_file: Path) -> None:
    loaded = Artifact.load(router_file)
    assert loaded.to_bytes() == artifact.to_bytes() == router_file.read_bytes()
    assert loaded.report == artifact.report
    assert Router.load(router_file).artifact.to_bytes() == artifact.to_bytes()


# Damage.


def test_truncated_anywhere(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(ArtifactError):
            Kernel(data[:length])


@pytest.mark.parametrize("more", [b"\0", b"{}", b"\0" * 4096])
def test_bytes_after_the_end(data: bytes, more: bytes, tmp_path: Path) -> None:
    refused(data + more, "not a readable safetensors file", tmp_path / "router.safetensors")


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_one_byte_changed_anywhere(data: bytes, mask: int) -> None:
    # Lengths, header, metadata and every tensor: refused, or it says the same (white space of the header).
    changed = bytearray(data)
    n_same = 0
    for place in range(len(data)):
        changed[place] ^= mask
        try:
            same = Artifact.from_kernel(Kernel(bytes(changed))).to_bytes() == data
        except ArtifactError:
            same = True
        except BaseException as error:  # noqa: BLE001, a panic of the kernel is no Exception
            pytest.fail(f"byte {place}: {error!r}")
        else:
            n_same += 1
        assert same, f"byte {place} was changed and the file reads otherwise"
        changed[place] ^= mask
    assert n_same <= 8


def test_one_byte_changed_in_a_calibrated_file(router_file: Path, tmp_path: Path) -> None:
    data = bytearray(router_file.read_bytes())
    places = {0, 8, 9, len(data) - 1, *range(0, len(data), 101)}
    file = tmp_path / "router.safetensors"
    for place in places:
        data[place] ^= 0x10
        file.write_bytes(data)
        with pytest.raises(ArtifactError, match=re.escape(str(file))):
            Router.load(file)
        data[place] ^= 0x10


def test_two_tensors_exchanged(
    data: bytes, tensors: Tensors, metadata: dict[str, Any], tmp_path: Path
) -> None:
    from safetensors.numpy import save

    tensors["quality"], tensors["count"] = tensors["count"], tensors["quality"]
    exchanged = save(tensors, {"centroute": Kernel(data).metadata_json})
    refused(exchanged, "digest mismatch.*altered or damaged", tmp_path / "router.safetensors")


def test_metadata_edited_by_hand(data: bytes, tmp_path: Path) -> None:
    edited = data.replace(b'\\"top_p\\": 2', b'\\"top_p\\": 1')
    assert edited != data
    refused(edited, "digest mismatch", tmp_path / "router.safetensors")


def test_empty_file(tmp_path: Path) -> None:
    refused(b"", "not a readable safetensors file", tmp_path / "router.safetensors")


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    refused(
        rng.bytes(int(rng.integers(1, 5000))), "not a readable safetensors", tmp_path / "router.safetensors"
    )


def test_a_safetensors_file_that_is_no_router(tensors: Tensors, tmp_path: Path) -> None:
    from safetensors.numpy import save

    for other in (None, {}, {"format": "pt"}):
        refused(
            save(tensors, other), "metadata key 'centroute': not a router", tmp_path / "router.safetensors"
        )


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40, 2**31, 100_000_001, 0])
def test_header_length_far_beyond_the_file(data: bytes, length: int, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    claimed = length.to_bytes(8, "little") + data[8:]
    refused(claimed, "not a readable safetensors file", tmp_path / "router.safetensors")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "memory was set aside for it"


@pytest.mark.parametrize(
    "shape", ["[1099511627776, 1099511627776]", "[9223372036854775807]", "[0, 18446744073709551615]"]
)
def test_tensor_shape_far_beyond_the_file(shape: str, tmp_path: Path) -> None:
    tensor = f'{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}'
    header = f'{{"__metadata__":{{"centroute":"{{}}"}},"centroids":{tensor}}}'
    data = len(header).to_bytes(8, "little") + header.encode()
    refused(data, "router metadata|not a readable safetensors", tmp_path / "router.safetensors")


# Files that are whole and do not say what a router says.


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, 999_999])
def test_another_format_version(
    version: int, tensors: Tensors, metadata: dict[str, Any], pack: Pack, tmp_path: Path
) -> None:
    # A file of the future may differ in everything else: its version is what is said.
    data = pack({"something": tensors["count"]}, {"format_version": version, "new": metadata})
    refused(
        data, rf"format version {version} is not readable.*reads version {FORMAT_VERSION}", tmp_path / "r"
    )


@pytest.mark.parametrize("version", ["1", None, -1, 1.5, True])
def test_format_version_that_is_no_number(
    version: object, tensors: Tensors, metadata: dict[str, Any], pack: Pack, tmp_path: Path
) -> None:
    refused(
        pack(tensors, {**metadata, "format_version": version}), "router metadata: invalid", tmp_path / "r"
    )


@pytest.mark.parametrize("name", TENSORS)
def test_missing_tensor(
    name: str, tensors: Tensors, metadata: dict[str, Any], pack: Pack, tmp_path: Path
) -> None:
    del tensors[name]
    refused(pack(tensors, metadata), f"tensor '{name}' is missing", tmp_path / "r")


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32"])
@pytest.mark.parametrize("name", TENSORS)
def test_wrong_dtype(
    name: str, dtype: str, tensors: Tensors, metadata: dict[str, Any], pack: Pack, tmp_path: Path
) -> None:
    if (name, dtype) == ("centroids", "float16"):
        dtype = "float64"  # centroids may be float16
    tensors[name] = np.nan_to_num(tensors[name]).astype(dtype)
    refused(pack(tensors, metadata), rf"tensor '{name}': got [FI]\d+ \[.*wanted F32 \[", tmp_path / "r")


@pytest.mark.parametrize("name", TENSORS)
def test_wrong_shape(
    name: str, tensors: Tensors, metadata: dict[str, Any], pack: Pack, tmp_path: Path
) -> None:
    whole = tensors[name]
    for spoilt in (whole[..., :-1], whole[None], whole.reshape(-1, 1), whole.ravel()[:1]):
        tensors[name] = spoilt
        refused(pack(tensors, metadata), rf"tensor '{name}': got F32 \[.*wanted F32 \[", tmp_path / "r")


def test_no_cluster(tensors: Tensors, metadata: dict[str, Any], pack: Pack, tmp_path: Path) -> None:
    for name in ("centroids", "quality", "cost", "count"):
        tensors[name] = tensors[name][:0]
    refused(pack(tensors, metadata), "holds no cluster", tmp_path / "r")


SPOILT_VALUES: dict[str, tuple[str, tuple[int, ...], float, str]] = {
    "nan_in_quality": ("quality", (1, 2), np.nan, r"'quality' at \[1, 2\]: NaN is not within 0 to 1"),
    "quality_above_1": ("quality", (0, 0), 1.5, r"'quality' at \[0, 0\]: 1\.5 is not within"),
    "negative_quality": ("quality", (2, 3), -0.25, r"'quality' at \[2, 3\]: -0\.25 is not within"),
    "infinite_quality": ("quality", (2, 3), np.inf, r"'quality' at \[2, 3\]: inf is not within"),
    "nan_in_prior_quality": ("prior_quality", (1,), np.nan, r"'prior_quality' at .*1\]: NaN is not within"),
    "prior_quality_above_1": ("prior_quality", (1,), 2, r"'prior_quality' at .*1\]: 2 is not within"),
    "negative_count": ("count", (0, 1), -1, r"'count' at \[0, 1\]: -1 is not finite and 0 or more"),
    "nan_in_count": ("count", (0, 1), np.nan, r"'count' at \[0, 1\]: NaN is not finite"),
    "infinite_count": ("count", (0, 1), np.inf, r"'count' at \[0, 1\]: inf is not finite"),
    "negative_cost": ("cost", (2, 0), -0.5, r"'cost' at \[2, 0\]: -0\.5 is not finite and 0 or more"),
    "infinite_cost": ("cost", (2, 0), np.inf, r"'cost' at \[2, 0\]: inf is not finite and 0 or more"),
    "cost_column_partly_nan": ("cost", (1, 1), np.nan, r"'cost' at \[1, 1\]: NaN is not known or"),
    "unknown_cost_partly_known": ("cost", (1, 3), 0.5, r"'cost' at \[1, 3\]: 0\.5 is not known or"),
    "prior_cost_nan": ("prior_cost", (0,), np.nan, r"'cost' at \[0, 0\]: 0\.\d+ is not known or"),
    "negative_prior_cost": ("prior_cost", (2,), -1, r"'prior_cost' at .*2\]: -1 is not finite"),
    "infinite_prior_cost": ("prior_cost", (2,), np.inf, r"'prior_cost' at .*2\]: inf is not finite"),
    "centroid_not_unit": ("centroids", (1, 0), 3, r"'centroids' at row 1, its norm: 3\.\d+ is not one"),
    "nan_in_centroid": ("centroids", (2, 7), np.nan, "'centroids' at row 2, its norm: NaN is not one"),
    "infinite_centroid": ("centroids", (0, 7), np.inf, "'centroids' at row 0, its norm: inf is not one"),
    "nan_in_frontier": ("frontier", (1, 1), np.nan, r"'frontier' at \[1, 1\]: NaN is not finite"),
    "negative_frontier": ("frontier", (0, 2), -1, r"'frontier' at \[0, 2\]: -1 is not finite"),
    "frontier_not_ascending": ("frontier", (1, 0), 0.5, "'frontier' at row 2: 0.1 is not ascending"),
    "frontier_cost_descending": ("frontier", (1, 2), 0.5, "'frontier' at row 2: 0.1 is not ascending"),
    "frontier_repeats": ("frontier", (1, 0), 0, "'frontier' at row 1: 0 is not ascending"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT_VALUES)
def test_value_out_of_range(
    case: str, tensors: Tensors, metadata: dict[str, Any], pack: Pack, tmp_path: Path
) -> None:
    name, place, value, message = SPOILT_VALUES[case]
    tensors[name][place] = value
    refused(pack(tensors, metadata), f"tensor {message}", tmp_path / "r")


def test_zero_centroid(tensors: Tensors, metadata: dict[str, Any], pack: Pack, tmp_path: Path) -> None:
    tensors["centroids"][2] = 0
    refused(pack(tensors, metadata), "'centroids' at row 2, its norm: 0 is not one", tmp_path / "r")


SPOILT_METADATA: dict[str, tuple[dict[str, Any], str]] = {
    "top_p_above_clusters": ({"top_p": 4}, "top_p 4 exceeds the 3 clusters"),
    "top_p_0": ({"top_p": 0}, "top_p is 0"),
    "top_p_huge": ({"top_p": 2**62}, "top_p is 4611686018427387904"),
    "top_p_negative": ({"top_p": -1}, "router metadata: invalid"),
    "top_p_fraction": ({"top_p": 1.5}, "router metadata: invalid"),
    "beta_negative": ({"beta": -1.0}, "beta is -1"),
    "beta_null": ({"beta": None}, "router metadata: invalid"),
    "beta_beyond_float32": ({"beta": 1e300}, "router metadata: beta is inf|number out of range"),
    "duplicate_model": ({"models": [{"name": n} for n in ("a", "b", "c", "a")]}, "model 'a' stands twice"),
    "empty_model_name": ({"models": [{"name": n} for n in ("a", "", "c", "d")]}, "empty name"),
    "empty_pool": ({"models": []}, "the pool is empty"),
    "pool_shorter_than_columns": ({"models": [{"name": "a"}]}, r"tensor 'quality': got F32 \[3, 4\]"),
    "model_without_name": ({"models": [{}]}, "missing field `name`"),
    "negative_context_length": ({"models": [{"name": "a", "context_length": -5}]}, "router metadata: inv"),
    "dim_0": ({"embedder": {"name": "x", "dim": 0, "fingerprint": None}}, "embedder dim is 0"),
    "dim_of_other_centroids": (
        {"embedder": {"name": "x", "dim": 16, "fingerprint": None}},
        r"tensor 'centroids': got F32 \[3, 8\], wanted F32 \[any, 16\]",
    ),
    "alpha_score_unknown": ({"alpha_score": "best"}, "unknown variant `best`, expected one of `cost-by-max"),
    "ood_threshold_above_1": ({"ood_threshold": 2.0}, "ood_threshold is 2, wanted -1 to 1"),
    "policy_unknown_model": ({"default_policy": {"deny": ["nobody"]}}, "default_policy: .*model 'nobody'"),
    "policy_unknown_fallback": ({"default_policy": {"fallback": "nobody"}}, "default_policy: .*'nobody'"),
    "policy_unknown_field": ({"default_policy": {"colour": "blue"}}, "unknown field `colour`"),
    "policy_out_of_range": ({"default_policy": {"alpha": 2}}, "default_policy: policy alpha=2: wanted"),
    "policy_two_objectives": (
        {"default_policy": {"alpha": 0.5, "min_quality": 0.5}},
        "default_policy: policy: alpha and min_quality exclude each other",
    ),
    "policy_needs_unknown_cost": (
        {"default_policy": {"willingness_to_pay": 0.1}},
        "default_policy: policy willingness_to_pay needs the cost .* costless is unknown",
    ),
    "policy_denies_everybody": ({"default_policy": {"allow": []}}, "default_policy: no model is left"),
    "policy_is_text": ({"default_policy": "alpha=1"}, "router metadata: invalid"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT_METADATA)
def test_metadata_that_no_router_has(
    case: str, tensors: Tensors, metadata: dict[str, Any], pack: Pack, tmp_path: Path
) -> None:
    changes, message = SPOILT_METADATA[case]
    refused(pack(tensors, {**metadata, **changes}), message, tmp_path / "r")


@pytest.mark.parametrize("key", ["format_version", "models", "top_p", "beta", "embedder"])
def test_missing_metadata_key(
    key: str, tensors: Tensors, metadata: dict[str, Any], pack: Pack, tmp_path: Path
) -> None:
    del metadata[key]
    refused(pack(tensors, metadata), f"router metadata: missing field `{key}`", tmp_path / "r")


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "3", '"text"', "{", "{'a': 1}", "[" * 100_000, '{"a":' * 100_000]
)
def test_metadata_that_is_no_json_object(text: str, tensors: Tensors, pack: Pack, tmp_path: Path) -> None:
    refused(pack(tensors, text), "router metadata: ", tmp_path / "r")


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 64, "g" * 64, "Ä" * 32])
def test_digest_that_is_none(digest: str, tensors: Tensors, metadata: dict[str, Any], tmp_path: Path) -> None:
    from safetensors.numpy import save

    text = json.dumps({**metadata, "sha256": digest}, ensure_ascii=False)
    refused(save(tensors, {"centroute": text}), "digest", tmp_path / "r")


# Keys that the kernel does not read, of a file that it takes: shown or refused, never a traceback.
ODD_METADATA: dict[str, dict[str, Any]] = {
    "another_key_of_a_model": {"models": [{"name": name, "colour": "blue"} for name in "abcd"]},
    "models_with_names_only": {"models": [{"name": name} for name in "abcd"]},
    "another_key_of_the_embedder": {"embedder": {"name": "x", "dim": DIM, "fingerprint": None, "n": 1}},
    "method_is_text": {"method": "means"},
    "report_is_a_list": {"report": [1, 2]},
    "evaluation_is_empty": {"report": {"evaluation": {}}},
    "evaluation_is_incomplete": {"report": {"measured_on": "holdout", "evaluation": {"n_queries": 3}}},
    "written_by_others": {"centroute_version": None},
}  # fmt: skip


@pytest.mark.parametrize("case", ODD_METADATA)
def test_odd_metadata(
    case: str, tensors: Tensors, metadata: dict[str, Any], pack: Pack, cli: Callable[..., Any], tmp_path: Path
) -> None:
    changed = {**metadata, "default_policy": None, **ODD_METADATA[case]}
    if changed["centroute_version"] is None:
        del changed["centroute_version"]
    file = tmp_path / "router.safetensors"
    file.write_bytes(pack(tensors, changed))
    try:
        Artifact.load(file)
    except ArtifactError as error:
        assert str(file) in str(error)  # noqa: PT017, either is fine
    for flags in ((), ("--json",)):
        finished = cli("inspect", file, *flags)
        if finished.code:
            finished.assert_refused(str(file))


# What cannot be read as a file at all.


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none\.safetensors: cannot be read \(no such file"):
        Artifact.load(tmp_path / "none.safetensors")


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cannot be read \(is a directory\)"):
        Artifact.load(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "router.safetensors"
    file.write_bytes(data)
    file.chmod(0)
    with pytest.raises(ArtifactError, match=r"cannot be read \(permission denied\)"):
        Artifact.load(file)


def test_oversized_file_is_refused_before_it_is_read(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "router.safetensors"
    file.write_bytes(data)
    monkeypatch.setattr(_router_file, "MAX_BYTES", 100)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("was read"))
    with pytest.raises(ArtifactError, match=f"{len(data)} bytes, a router file has at most 100"):
        load_kernel(file)


# Another embedder.


def test_artifact_for_another_embedder_names_both(
    artifact: Artifact, embedder: Embedder, tmp_path: Path
) -> None:
    file = tmp_path / "router.safetensors"
    replace(artifact, embedder=EmbedderId("static-256", 256, "f0" * 32)).save(file)
    router = Router.load(file)
    with pytest.raises(EmbedderError, match="static-256") as caught:
        router.route("text")
    assert embedder.fingerprint[:16] in str(caught.value)
    assert "f0" * 8 in str(caught.value)
    # Embeddings from outside are the caller's own business.
    assert router.route_embedding(embedder.embed(["text"])[0]).model in router.models


def test_wrong_embedder_is_refused_at_loading(
    artifact: Artifact, router_file: Path, embedder: Embedder, tmp_path: Path
) -> None:
    assert Router.load(router_file, embedder=embedder).route("text").model
    file = tmp_path / "router.safetensors"
    replace(artifact, embedder=EmbedderId("my-own", 256, "f0" * 32)).save(file)
    for chosen in (embedder, "static-256"):
        with pytest.raises(EmbedderError, match=r"static-256: fingerprint .* calibrated with my-own f0f0"):
            Router.load(file, embedder=chosen)


def test_embedder_of_another_dim(small: Artifact, embedder: Embedder, data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "router.safetensors"
    file.write_bytes(data)
    with pytest.raises(EmbedderError, match="static-256: dim 256, the router wants 8"):
        Router.load(file, embedder=embedder)
    replace(small, embedder=EmbedderId("static-256", DIM, None)).save(file)
    with pytest.raises(EmbedderError, match="static-256: dim 256, the router wants 8"):
        Router.load(file).route("text")


def test_embedder_that_is_not_there(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "router.safetensors"
    file.write_bytes(data)
    with pytest.raises(EmbedderError, match="somewhere-else"):
        Router.load(file).route("text")


def test_embeddings_from_outside_need_no_fingerprint(
    artifact: Artifact, embedder: Embedder, tmp_path: Path
) -> None:
    file = tmp_path / "router.safetensors"
    replace(artifact, embedder=EmbedderId("outside", 256, None)).save(file)
    assert Router.load(file, embedder=embedder).route("text").model


# Writing.


@pytest.mark.parametrize(
    "changes",
    [
        {"top_p": 9},
        {"beta": -1.0},
        {"models": (PoolModel("a"),) * N_MODELS},
        {"default_policy": Policy(deny={"nobody"})},
        {"default_policy": Policy(willingness_to_pay=1.0)},
        {"quality": np.full((N_CLUSTERS, N_MODELS), np.nan)},
        {"ood_threshold": 1.5},
        {"embedder": EmbedderId("x", 0, None)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_would_not_load_is_not_written(
    small: Artifact, changes: dict[str, Any], tmp_path: Path, unchanged: Unchanged
) -> None:
    file = tmp_path / "router.safetensors"
    file.write_bytes(b"the old one")
    with unchanged(tmp_path), pytest.raises(ArtifactError):
        replace(small, **changes).save(file)


@pytest.mark.parametrize(
    "changes",
    [
        {"beta": float("nan")},
        {"beta": float("inf")},
        {"ood_threshold": float("nan")},
        {"report": {"x": float("nan")}},
        {"models": (PoolModel("lone \ud800"), PoolModel("b"), PoolModel("c"), PoolModel("costless"))},
    ],
    ids=["beta_nan", "beta_inf", "ood_threshold_nan", "report_nan", "lone_surrogate"],
)
def test_values_that_json_cannot_hold_are_artifact_errors(small: Artifact, changes: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError):
        replace(small, **changes).to_bytes()


def test_saving_into_a_missing_folder(small: Artifact, tmp_path: Path, unchanged: Unchanged) -> None:
    file = tmp_path / "none" / "router.safetensors"
    with (
        unchanged(tmp_path),
        pytest.raises(ArtifactError, match=r"cannot be written \(no such file") as caught,
    ):
        small.save(file)
    assert str(file) in str(caught.value)


def test_saving_onto_a_folder(small: Artifact, tmp_path: Path, unchanged: Unchanged) -> None:
    folder = tmp_path / "Folder"
    folder.mkdir()
    with unchanged(tmp_path), pytest.raises(ArtifactError, match=r"Folder: cannot be written \(.*folder\)"):
        small.save(folder)


def test_the_message_about_a_folder_spells_the_path_once(small: Artifact, tmp_path: Path) -> None:
    folder = tmp_path / "Folder"
    folder.mkdir()
    with pytest.raises(ArtifactError) as caught:
        small.save(folder)
    assert str(caught.value).lower().count("/folder") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_saving_into_a_folder_without_permission(small: Artifact, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(ArtifactError, match=r"cannot be written \(permission denied\)"):
        small.save(folder / "router.safetensors")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "stopped"]
)
def test_failed_saving_keeps_the_old_file(
    small: Artifact,
    step: str,
    error: BaseException,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unchanged: Unchanged,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    file = tmp_path / "router.safetensors"
    file.write_bytes(b"the old one")
    monkeypatch.setattr(step, fail)
    wanted = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ArtifactError
    with unchanged(tmp_path), pytest.raises(wanted):
        small.save(file)


def test_saving_replaces_and_leaves_nothing_beside(small: Artifact, data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "router.safetensors"
    file.write_bytes(b"the old one")
    small.save(str(file))
    assert file.read_bytes() == data
    assert list(tmp_path.iterdir()) == [file]


def test_a_saved_file_has_the_permissions_of_any_other(small: Artifact, tmp_path: Path) -> None:
    file, other = tmp_path / "router.safetensors", tmp_path / "other"
    small.save(file)
    other.touch()
    assert file.stat().st_mode == other.stat().st_mode
