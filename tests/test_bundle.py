"""Bundles: the same bytes each time, decisions of the router they came from, refused when anything is off."""

import gzip
import json
import pickle
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from bad_bundles import FOLDERS, TARS

from centroute import ArtifactError, Router
from centroute.artifact import Artifact
from centroute.bundle import FILES, MANIFEST_FILE, pack_bundle, read_bundle, unpack_bundle, write_bundle

TEXTS = [
    "Prove that the square root of two is irrational.",
    "Write a haiku.",
    "def f(x): return x + 1",
    "2 + 2?",
]


@pytest.fixture(scope="module")
def bundle(router_file, cli, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    done = cli("export", router_file, "-o", folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "bundle")


def test_the_manifest_lists_every_file_and_nothing_lies_beside_them(bundle, artifact):
    names = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert names == {MANIFEST_FILE, *FILES}
    manifest = read_bundle(bundle).manifest
    assert manifest["precision"] == "f32"
    assert manifest["agreement"] is None
    for name, entry in manifest["files"].items():
        assert (bundle / name).stat().st_size == entry["bytes"]
    assert Artifact.load(bundle / "router.safetensors").models == artifact.models
    assert [path for path in bundle.parent.iterdir() if path != bundle] == []


@pytest.mark.parametrize("precision", ["f32", "f16", "i8"])
@pytest.mark.parametrize("tar", [False, True])
def test_the_same_input_gives_the_same_bytes(router_file, cli, tmp_path, precision, tar):
    for name in ("one", "two"):
        arguments = ["--tar"] if tar else []
        assert (
            cli("export", router_file, "-o", tmp_path / name, "--precision", precision, *arguments).code == 0
        )
    files = [MANIFEST_FILE, *FILES] if not tar else [""]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    if not tar:
        assert read_bundle(tmp_path / "one").manifest["precision"] == precision
        assert Artifact.load(tmp_path / "one" / "router.safetensors").precision == precision


def test_a_tar_file_holds_the_same_bundle(bundle, router_file, cli, tmp_path):
    assert cli("export", router_file, "--tar", "-o", tmp_path / "bundle.tar").code == 0
    with tarfile.open(tmp_path / "bundle.tar") as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == [MANIFEST_FILE, *FILES]
    assert {(member.mtime, member.uid, member.gid, member.mode) for member in members} == {(0, 0, 0, 0o644)}
    unpacked = unpack_bundle(tmp_path / "bundle.tar", tmp_path / "unpacked")
    for name in (MANIFEST_FILE, *FILES):
        assert (unpacked.folder / name).read_bytes() == (bundle / name).read_bytes()


def test_check_tells_how_far_the_precision_agrees(router_file, outcomes_file, cli, tmp_path):
    done = cli("export", router_file, "-o", tmp_path / "b", "--precision", "i8", "--check", outcomes_file)
    assert done.code == 0, done.err
    agreement = read_bundle(tmp_path / "b").manifest["agreement"]
    full, exported = Router.load(router_file), Router.load(tmp_path / "b" / "router.safetensors")
    assert exported.precision == "i8"
    from centroute.datasets import read_outcomes

    outcomes = read_outcomes(outcomes_file)
    columns = {name: column for column, name in enumerate(outcomes.models)}
    chosen = [[router.route(text).model for text in outcomes.queries] for router in (full, exported)]
    equal = np.mean([one == other for one, other in zip(*chosen, strict=True)])
    assert agreement["equal_decisions"] == pytest.approx(equal, abs=1e-6)
    for side, models in zip(("full", "exported"), chosen, strict=True):
        scores = [outcomes.scores[row, columns[model]] for row, model in enumerate(models)]
        assert agreement[side]["accuracy"] == pytest.approx(np.nanmean(scores))
    assert f"{100 * equal:.2f} % of {outcomes.n_queries} decisions" in done.out
    assert "accuracy" in done.out
    assert "mean cost" in done.out


def test_what_is_there_is_replaced_only_where_it_is_a_bundle(bundle, router_file, cli, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    assert cli("export", router_file, "-o", place).code == 0  # an empty folder holds nothing to lose
    assert cli("export", router_file, "-o", place, "--precision", "i8").code == 0
    assert read_bundle(place).manifest["precision"] == "i8"
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    cli("export", router_file, "-o", other).assert_refused("other", "no bundle")
    assert (other / "mine.txt").read_text() == "mine"
    cli("export", router_file, "-o", other / "mine.txt").assert_refused("mine.txt")
    cli("export", router_file, "-o", tmp_path / "no" / "b").assert_refused("there is no folder")
    cli("export", bundle, "-o", bundle).assert_refused("is an input")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "place"]


def test_nothing_is_left_behind_where_it_cannot_be_written(bundle, tmp_path):
    contents = {name: (bundle / name).read_bytes() for name in (MANIFEST_FILE, *FILES)}
    with pytest.raises(ArtifactError, match="cannot be written"):
        write_bundle({**contents, "embedder": b"in the way of the folder"}, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_can_be_exported_again(bundle, cli, tmp_path):
    assert cli("export", bundle, "-o", tmp_path / "again").code == 0
    for name in (MANIFEST_FILE, *FILES):
        assert (tmp_path / "again" / name).read_bytes() == (bundle / name).read_bytes()


def test_an_embedder_laid_out_by_another_tool_is_refused(router_file, cli, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    done = cli("export", router_file, "-o", tmp_path / "b", "--embedder", folder)
    done.assert_refused("other")


def test_an_embedder_that_the_router_does_not_know_is_refused(router_file, cli, tmp_path):
    folder = shutil.copytree("models/static-256", tmp_path / "other")
    description = json.loads((folder / "embedder.json").read_text())
    from centroute.embedders.folder import write_embedder_folder

    write_embedder_folder(
        folder,
        model=(folder / "model.onnx").read_bytes(),
        tokenizer=(folder / "tokenizer.json").read_bytes(),
        name="other",
        dim=256,
        pooling="sum",
        max_tokens=128,
        provenance=description["provenance"],
    )
    cli("export", router_file, "-o", tmp_path / "b", "--embedder", folder).assert_refused("fingerprint")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", FOLDERS)
def test_a_spoiled_bundle_is_refused_by_name(copy, cli, name):
    damage, word = FOLDERS[name]
    damage(copy)
    with pytest.raises(ArtifactError, match=word):
        read_bundle(copy)
    cli("route", copy, "a text", "--json").assert_refused(word)


@pytest.mark.parametrize("name", TARS)
def test_a_spoiled_tar_file_is_refused_and_leaves_nothing(tmp_path, name):
    make, word = TARS[name]
    (tmp_path / "b.tar").write_bytes(make())
    with pytest.raises(ArtifactError, match=word):
        unpack_bundle(tmp_path / "b.tar", tmp_path / "unpacked")
    assert [path.name for path in tmp_path.iterdir()] == ["b.tar"]


def test_a_compressed_tar_file_is_refused_unread(bundle, router_file, cli, tmp_path):
    assert cli("export", router_file, "--tar", "-o", tmp_path / "b.tar").code == 0
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(bytes(50_000_000) + (tmp_path / "b.tar").read_bytes()))
    with pytest.raises(ArtifactError, match="without compression"):
        unpack_bundle(tmp_path / "b.tar.gz", tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


def test_a_bundle_routes_like_the_router_it_came_from(bundle, router_file, cli):
    original, bundled = Router.load(router_file), Router.load(bundle)
    for text in TEXTS:
        one, other = original.route(text), bundled.route(text)
        assert (one.model, one.quality, one.cost, one.clusters) == (
            other.model,
            other.quality,
            other.cost,
            other.clusters,
        )
    stdin = "\n".join(TEXTS).encode()
    assert (
        cli("route", bundle, "--json", stdin=stdin).out
        == cli("route", router_file, "--json", stdin=stdin).out
    )


def test_a_bundle_brings_its_own_embedder(bundle):
    router = Router.load(bundle)
    router.route("a text")
    # The same table as static-256, and not found by that name.
    assert (
        router.embedder.fingerprint
        == json.loads((bundle / "manifest.json").read_text())["embedder"]["fingerprint"]
    )
    script = (
        "import sys, centroute.embedders as embedders\n"
        "def refuse(name): raise SystemExit(f'looked up {name!r}')\n"
        "embedders.bundled_folder = refuse\n"
        "from centroute import Router\n"
        "print(Router.load(sys.argv[1]).route('a text').model)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(bundle)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == router.route("a text").model


def test_a_bundle_is_pickled_and_reloaded_by_its_folder(bundle, router_file, cli, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "b")
    router = Router.load(folder)
    model = router.route(TEXTS[0]).model
    assert pickle.loads(pickle.dumps(router)).route(TEXTS[0]).model == model
    before = router.source
    assert cli("export", router_file, "-o", folder, "--precision", "i8").code == 0
    assert router.reload() == 2
    assert router.source != before
    assert router.artifact.precision == "i8"
    assert router.route(TEXTS[0]).generation == 2


def test_commands_take_a_bundle(bundle, outcomes_file, cli, tmp_path):
    for arguments in (
        ("inspect", bundle),
        ("evaluate", bundle, outcomes_file),
        ("bench", bundle, "--seconds", "0.05"),
    ):
        done = cli(*arguments)
        assert done.code == 0, done.err
    model = Router.load(bundle).models[0]
    cli("edit", bundle, "drop-model", model).assert_refused("it is a folder")
    assert cli("edit", bundle, "drop-model", model, "-o", tmp_path / "less.safetensors").code == 0
    assert model not in Router.load(tmp_path / "less.safetensors").models


def test_a_router_file_is_loaded_without_what_bundles_need(router_file):
    script = (
        "import sys\nfrom centroute import Router\nRouter.load(sys.argv[1]).route('a text')\n"
        "print('centroute.bundle' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(router_file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "False"


def test_packing_needs_a_sound_router(tmp_path):
    with pytest.raises(ArtifactError):
        pack_bundle(b"nothing", embedder=tmp_path)
