"""Surface features: their definition by hand, the rows they make, and what calibration does with them."""

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centroute import Artifact, ArtifactError, DataError, Router, _kernel
from centroute._kernel import Kernel
from centroute.artifact import EmbedderId
from centroute.calibrate import calibrate
from centroute.datasets import Outcomes, split_by_text, synthetic_outcomes
from centroute.embedders import fingerprint
from centroute.surface import (
    CLASSES,
    FEATURE_NAMES,
    KEYWORDS,
    LEAST_SCALE,
    MAX_BYTES,
    SCRIPTS,
    SETS,
    SurfaceFeatures,
    routed_identity,
    surface_features,
)

DIM = 6
N_FEATURES = len(FEATURE_NAMES)
ODD_TEXTS = [
    "", " ", "\x00", "\n\n", "\ud800", "a\udfff?", "\ud83d\ude00", "ß", "\U0001f600" * 5000, "é" * 20_000,
    "x" * 1_000_000, "1 " * 500_000, "a\x0bb\x0cc\x1cd\x85e\u00a0f\u2028g", "$" * 40,
    "def" * 3, "\t def\tdef_ _def def1",
]  # fmt: skip
texts = st.text(st.characters(exclude_categories=()), max_size=80)


def features_of(text):
    return dict(zip(FEATURE_NAMES, surface_features([text])[0].tolist(), strict=True))


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def surface():
    rng = np.random.default_rng(5)
    return SurfaceFeatures.fit(rng.uniform(0, 3, (40, N_FEATURES)).astype(np.float32), 0.1)


# The definition


def test_every_feature_by_hand():
    text = "def f(x):\n    return x * 2  # Größe in $?\nPrint A1 A1"
    n_characters, n_words = 53, 13
    assert len(text) == n_characters
    assert len(text.split()) == n_words
    wanted = {
        "characters": np.log(1 + n_characters),
        "words": np.log(1 + n_words),
        "line_breaks": np.log(3),
        "digits": 3 / n_characters,
        "upper": 4 / n_characters,
        "code": 3 / n_characters,
        "arithmetic": 1 / n_characters,
        "non_ascii": 2 / n_characters,
        "dollars": np.log(2),
        "question": 1,
        "keywords": np.log(3),
        "distinct_words": 12 / 13,
        "latin": 2 / n_characters,
    }
    wanted |= dict.fromkeys(FEATURE_NAMES[SETS["surface-1"] + 1 :], 0)
    assert features_of(text) == pytest.approx(wanted, rel=1e-6)


def test_nothing_has_no_features():
    assert not surface_features([""]).any()
    assert surface_features([]).shape == (0, N_FEATURES)
    blank = features_of("  \n")
    assert blank.pop("characters") == pytest.approx(np.log(4))
    assert blank.pop("line_breaks") == pytest.approx(np.log(2))
    assert not any(blank.values())


def test_classes_are_disjoint_and_ascii_letters_in_lower_case_have_none():
    members = b"".join(CLASSES.values())
    assert len(set(members)) == len(members)
    assert not set(members) & set(b"abcdefghijklmnopqrstuvwxyz \t\r\x0b\x0c\x00\x7f!\"',.:")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("def", 1), ("def def", 2), ("def_ _def Def DEF defdef", 0), ("def1 2def", 2), ("édefé", 1),
        ("def\x00def", 2), ("None none False", 2), (" ".join(KEYWORDS), len(KEYWORDS)),
    ],
)  # fmt: skip
def test_keywords_are_whole_names_in_their_case(text, count):
    assert features_of(text)["keywords"] == pytest.approx(np.log(1 + count))


def test_words_end_at_the_six_bytes_of_ascii_white_space_only():
    assert features_of("a\tb\nc\x0bd\x0ce\rf g")["words"] == pytest.approx(np.log(8))
    # NEL, the no-break space and the file separator are white space to str.split() and not here.
    assert features_of("a\x85b\u00a0c\u2028d\x1ce")["words"] == pytest.approx(np.log(2))
    assert features_of("A a A")["distinct_words"] == pytest.approx(2 / 3)


def test_a_lone_surrogate_is_read_as_one_replacement_character():
    assert features_of("a\ud800b") == features_of("a\ufffdb")
    assert features_of("\ud83d\ude00") == features_of("\ufffd\ufffd")


def test_bytes_beyond_the_limit_are_not_read():
    whole = surface_features(["a" * MAX_BYTES, "a" * MAX_BYTES + "? 9", "a" * 1_000_000])
    assert (whole == whole[0]).all()
    # The limit is in bytes: of the last character, cut in half, the first byte counts.
    cut = features_of("a" * (MAX_BYTES - 1) + "é")
    assert cut["characters"] == pytest.approx(np.log(1 + MAX_BYTES))
    assert cut["non_ascii"] == pytest.approx(1 / MAX_BYTES)
    assert features_of("é" * MAX_BYTES)["characters"] == pytest.approx(np.log(1 + MAX_BYTES // 2))


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("Größe", {"latin": 2 / 5}), ("Việt", {"latin": 1 / 4}), ("да?", {"cyrillic": 2 / 3}),
        ("نعم", {"arabic": 1}), ("解x", {"han": 1 / 2}), ("𠀀", {"han": 1}),
        ("かなカナ漢字", {"kana": 4 / 6, "han": 2 / 6}), ("한국", {"hangul": 1}), ("ไทย ", {"thai": 3 / 4}),
        ("αβ", {"other_scripts": 1}), ("नमस्ते", {"other_scripts": 1}), ("שלום", {"other_scripts": 1}),
        ("x² “…” 🙂 。", {}), ("abc", {}),
    ],
)  # fmt: skip
def test_shares_of_scripts(text, shares):
    found = features_of(text)
    wanted = {name: shares.get(name, 0) for name in FEATURE_NAMES[SETS["surface-1"] :]}
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)


def test_a_character_that_is_cut_off_has_no_script():
    whole = features_of("a" * (MAX_BYTES - 3) + "解")
    assert whole["han"] == pytest.approx(1 / (MAX_BYTES - 2))
    for n_bytes in (1, 2):
        assert features_of("a" * (MAX_BYTES - n_bytes) + "解")["han"] == 0


def test_a_script_takes_whole_blocks_of_64_and_none_twice():
    ranges = sorted(between for script in SCRIPTS for between in script)
    assert all(first % 64 == 0 and last % 64 == 63 for first, last in ranges)
    assert all(before < first for (_, before), (first, _) in itertools.pairwise(ranges))


def test_the_extension_computes_the_definition():
    ranges = [between for script in SCRIPTS for between in script]
    edges = [chr(code) for first, last in ranges for code in (first - 1, first, last, last + 1)]
    both = [*ODD_TEXTS, *edges]
    np.testing.assert_allclose(_kernel.surface_features(both), surface_features(both), rtol=1e-6)


@given(st.lists(texts, max_size=8))
@settings(max_examples=60, deadline=None)
def test_a_batch_is_the_same_as_one_by_one(batch):
    together = surface_features(batch)
    alone = [surface_features([text])[0] for text in batch]
    np.testing.assert_array_equal(together, np.array(alone, dtype=np.float32).reshape(-1, N_FEATURES))


@given(texts)
@settings(max_examples=200, deadline=None)
def test_features_stay_in_their_ranges(text):
    features = surface_features([text])
    assert features.dtype == np.float32
    assert ((features >= 0) & np.isfinite(features)).all()
    columns = [FEATURE_NAMES.index(name) for name in ("digits", "upper", "code", "arithmetic", "non_ascii")]
    assert features[0, columns].sum() <= 1 + 1e-6
    assert features[0, SETS["surface-1"] :].sum() <= features[0, FEATURE_NAMES.index("non_ascii")] + 1e-6
    assert features[0, 9:10] in (0, 1)
    assert features[0, 11] <= 1


def test_odd_texts_have_finite_features():
    features = surface_features(ODD_TEXTS)
    assert features.shape == (len(ODD_TEXTS), N_FEATURES)
    assert np.isfinite(features).all()
    assert features[:, 0].max() <= np.log(1 + MAX_BYTES) + 1e-6


# Rows to route


def test_statistics_are_mean_and_deviation_and_a_constant_feature_has_scale_1():
    features = np.zeros((4, N_FEATURES), dtype=np.float32)
    features[:, 0] = [1, 2, 3, 4]
    features[:, 1] = 0.1
    surface = SurfaceFeatures.fit(features, 0.5)
    assert surface.mean[:3] == (2.5, 0.1, 0.0)
    assert surface.scale[:3] == (1.11803, 1.0, 1.0)
    assert len(surface.mean) == len(surface.scale) == SETS["surface-1"]


def test_shares_of_letters_have_a_least_scale():
    features = np.zeros((4, N_FEATURES), dtype=np.float32)
    features[0, 3:] = 0.02
    surface = SurfaceFeatures.fit(features, 0.5)
    lettered = [FEATURE_NAMES.index("non_ascii"), *range(SETS["surface-1"], N_FEATURES)]
    assert {surface.scale[place] for place in lettered} == {LEAST_SCALE}
    assert surface.scale[3] == pytest.approx(0.02 * np.sqrt(3) / 4, rel=1e-5)
    assert SurfaceFeatures.fit(features * 50, 0.5).scale[15] == pytest.approx(np.sqrt(3) / 4, rel=1e-5)


@pytest.mark.parametrize(("n_others", "name"), [(0, "surface-1"), (1, "surface-1"), (2, "surface-2")])
def test_scripts_are_told_apart_where_a_hundredth_of_the_texts_ask_for_it(n_others, name):
    english = ["What is the capital of France?", "naïve café: π ≈ 3.14159, and so on and so forth"]
    queries = [english[place % 2] for place in range(200 - n_others)] + ["Какая столица Франции?"] * n_others
    surface = SurfaceFeatures.fit(surface_features(queries), 0.15)
    assert (surface.name, len(surface.mean), len(surface.scale)) == (name, SETS[name], SETS[name])


def test_a_router_for_several_scripts_knows_them_and_routes_texts_as_rows(embedder):
    english = synthetic_outcomes(n_queries=300, seed=3)
    question = "Какая столица у этой страны и почему? "
    queries = tuple(text if place % 3 else question + text for place, text in enumerate(english.queries))
    outcomes = replace(english, queries=queries)
    artifact = calibrate(outcomes, embedder=embedder, n_clusters=6, surface_weight=0.15, method="means")
    assert artifact.embedder.surface.name == "surface-2"
    assert artifact.centroids.shape == (6, 256 + SETS["surface-2"])
    router = Router.from_artifact(artifact, embedder=embedder)
    rows = router.embed(queries[:20])
    wanted = artifact.embedder.surface.append(embedder.embed(queries[:20]), surface_features(queries[:20]))
    np.testing.assert_allclose(rows, wanted, atol=1e-6)
    for text, row in zip(queries, rows, strict=False):
        assert router.route(text).ranking == router.route_embedding(row).ranking


@pytest.mark.parametrize(("name", "n_features"), SETS.items())
def test_appended_rows_by_hand(name, n_features):
    surface = SurfaceFeatures(weight=0.5, mean=(1.0,) * n_features, scale=(2.0,) * n_features, name=name)
    features = np.array([[1.0, 3.0, 99.0, -99.0] + [1.0] * (N_FEATURES - 4)], dtype=np.float32)
    row = surface.append(np.array([[0.6, 0.8]], dtype=np.float32), features)[0]
    wanted = np.array([0.6, 0.8, 0, 0.5, 2, -2] + [0] * (n_features - 4))
    np.testing.assert_allclose(row, wanted / np.linalg.norm(wanted), atol=1e-7)


@given(n=st.integers(0, 9), dim=st.sampled_from((1, 3, 16, 17)), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_appended_rows_are_unit_rows_of_float32(n, dim, seed):
    rng = np.random.default_rng(seed)
    features = rng.uniform(0, 9, (n + 2, N_FEATURES)).astype(np.float32)
    surface = SurfaceFeatures.fit(features, 0.2)
    embeddings = unit(rng.standard_normal((n, dim)))
    rows = surface.append(embeddings, features[:n])
    assert rows.shape == (n, dim + N_FEATURES)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    # The embedding keeps its direction.
    lengths = np.linalg.norm(rows[:, :dim], axis=1, keepdims=True)
    np.testing.assert_allclose(rows[:, :dim], embeddings * lengths, atol=1e-6)
    alone = [surface.append(embeddings[row : row + 1], features[row : row + 1])[0] for row in range(n)]
    np.testing.assert_array_equal(rows, np.array(alone, dtype=np.float32).reshape(n, dim + N_FEATURES))


def test_an_embedding_of_zeros_stays_a_row_of_zeros(surface):
    embeddings = np.zeros((2, DIM), dtype=np.float32)
    embeddings[1, 0] = 1
    rows = surface.append(embeddings, surface_features(["", "a"]))
    assert not rows[0].any()
    assert rows[1].any()


@pytest.mark.parametrize("shape", [(2, 20), (3, 12), (3, 19), (3, 21), (60,)])
def test_features_of_another_shape_are_refused(surface, shape):
    with pytest.raises(DataError, match=r"surface features \[.*\]: wanted \[3, 20\]"):
        surface.append(np.ones((3, DIM), dtype=np.float32), np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize("weight", [0.0, -0.1, 0.00001, 10.1, np.nan, np.inf])
def test_weights_that_no_artifact_holds_are_refused(weight):
    with pytest.raises(DataError, match="surface weight"):
        SurfaceFeatures.fit(np.ones((2, N_FEATURES), dtype=np.float32), weight)


# Identity


def embedder_of(fingerprint_):
    return SimpleNamespace(
        dim=DIM,
        fingerprint=fingerprint_,
        description=SimpleNamespace(
            model_sha256="0" * 64, tokenizer_sha256="1" * 64, pooling="sum", max_tokens=9, prefix="q: "
        ),
    )


def test_the_identity_names_set_and_weight(surface):
    assert surface.identity == "surface-2 weight 0.1000"
    assert replace(surface, weight=10.0).identity == "surface-2 weight 10.0000"
    ones = np.ones((2, N_FEATURES), dtype=np.float32)
    assert SurfaceFeatures.fit(ones, 0.12345).identity.endswith(" 0.1235")


def test_the_routed_identity_is_the_embedders_with_the_features(surface):
    own = fingerprint("0" * 64, tokenizer_sha256="1" * 64, pooling="sum", max_tokens=9, prefix="q: ")
    assert routed_identity(embedder_of(own), None) == (DIM, own)
    dim, with_features = routed_identity(embedder_of(own), surface)
    assert dim == DIM + N_FEATURES
    assert with_features == fingerprint(
        "0" * 64, tokenizer_sha256="1" * 64, pooling="sum", max_tokens=9, prefix="q: ",
        surface_features="surface-2 weight 0.1000",
    )  # fmt: skip
    assert with_features != own
    assert routed_identity(embedder_of(own), replace(surface, weight=0.2))[1] != with_features
    assert routed_identity(embedder_of(None), surface) == (DIM + N_FEATURES, None)


# The router file


@pytest.fixture
def with_surface(artifact, surface):
    """An artifact whose rows have surface features."""
    tail = np.zeros((len(artifact.centroids), N_FEATURES), dtype=np.float32)
    return replace(
        artifact,
        embedder=EmbedderId("static-256", 256 + N_FEATURES, "ab" * 32, surface),
        centroids=np.concatenate([artifact.centroids, tail], axis=1),
    )


def test_surface_features_come_back_from_the_router_file(with_surface, tmp_path):
    file = tmp_path / "router.safetensors"
    with_surface.save(file)
    loaded = Artifact.load(file)
    assert loaded.embedder == with_surface.embedder
    assert loaded.to_bytes() == with_surface.to_bytes() == file.read_bytes()
    stored = json.loads(Kernel(file.read_bytes()).metadata_json)["embedder"]
    assert set(stored["surface_features"]) == {"name", "weight", "mean", "scale"}
    assert stored["surface_features"]["name"] == "surface-2"
    assert len(stored["surface_features"]["mean"]) == N_FEATURES


@pytest.fixture
def before(artifact, surface):
    """An artifact of the first set, as it was calibrated before there was another."""
    first = replace(surface, mean=surface.mean[:12], scale=surface.scale[:12], name="surface-1")
    tail = np.zeros((len(artifact.centroids), 12), dtype=np.float32)
    return replace(
        artifact,
        embedder=EmbedderId("static-256", 256 + 12, "ab" * 32, first),
        centroids=np.concatenate([artifact.centroids, tail], axis=1),
    )


def test_a_router_file_of_surface_1_keeps_its_features(before, embedder, tmp_path):
    file = tmp_path / "router.safetensors"
    dim, own = routed_identity(embedder, before.embedder.surface)
    before = replace(before, embedder=replace(before.embedder, fingerprint=own))
    before.save(file)
    assert Artifact.load(file).embedder == before.embedder
    assert dim == 256 + 12
    router = Router.load(file)
    queries = ["What is 2 + 2?", "Где библиотека?", "def f():\n    return 東京"]
    rows = router.embed(queries)
    assert rows.shape == (3, 268)
    plain = embedder.embed(queries)
    wanted = before.embedder.surface.append(plain, surface_features(queries))
    np.testing.assert_allclose(rows, wanted, atol=1e-6)


@pytest.mark.parametrize(("name", "n_features", "wanted"), [("surface-2", 12, 20), ("surface-1", 20, 12)])
def test_statistics_of_another_set_are_refused(with_surface, pack, name, n_features, wanted, tmp_path):
    from safetensors.numpy import load

    data = with_surface.to_bytes()
    metadata = json.loads(Kernel(data).metadata_json)
    metadata["embedder"]["surface_features"] = {
        "name": name, "weight": 0.1, "mean": [0.0] * n_features, "scale": [1.0] * n_features
    }  # fmt: skip
    file = tmp_path / "router.safetensors"
    file.write_bytes(pack(load(data), metadata))
    with pytest.raises(ArtifactError, match=f"mean has {n_features} numbers, {name} has {wanted} features"):
        Artifact.load(file)


def test_an_artifact_without_surface_features_says_so(artifact):
    kernel = Kernel(artifact.to_bytes())
    assert json.loads(kernel.metadata_json)["embedder"]["surface_features"] is None
    assert Artifact.from_kernel(kernel).embedder.surface is None


@pytest.mark.parametrize(
    "entry", ["surface-1", 3, [1], {}, {"name": "surface-1", "weight": "much", "mean": [], "scale": []}]
)
def test_surface_features_that_are_none_are_refused(with_surface, pack, entry, tmp_path):
    from safetensors.numpy import load

    data = with_surface.to_bytes()
    metadata = json.loads(Kernel(data).metadata_json)
    metadata["embedder"]["surface_features"] = entry
    file = tmp_path / "router.safetensors"
    file.write_bytes(pack(load(data), metadata))
    with pytest.raises(ArtifactError, match=r"router\.safetensors: .*(surface_features|metadata)"):
        Artifact.load(file)


# Calibration


def made_up(n=400, *, by_form, seed=0):
    """Two models; which is right is told by digits in the text alone, or by the embedding alone."""
    rng = np.random.default_rng(seed)
    has_digits, side = rng.integers(0, 2, (2, n)).astype(bool)
    # A word of its own for each query: equal texts would stay in one part.
    words = [f"{'x' * (i % 9)}{chr(97 + i % 26)}{'y' * (i // 26)}" for i in rng.permutation(n)]
    queries = [
        f"{rng.integers(10**7, 10**8)} {word}" if digits else f"{word} and all of this in words"
        for digits, word in zip(has_digits, words, strict=True)
    ]
    centres = unit(rng.standard_normal((2, 256)))
    embeddings = unit(centres[side.astype(int)] + 0.05 * rng.standard_normal((n, 256)))
    right = has_digits if by_form else side
    outcomes = Outcomes(
        queries=tuple(queries), models=("a", "b"),
        scores=np.stack([right, ~right], axis=1).astype(np.float32),
        costs=np.full((n, 2), np.nan), datasets=("",) * n, ids=tuple(map(str, range(n))),
    )  # fmt: skip
    return outcomes, embeddings


def test_calibration_picks_a_weight_where_only_the_form_tells_which_model_is_right(embedder):
    outcomes, embeddings = made_up(by_form=True)
    artifact = calibrate(outcomes, embedder=embedder, embeddings=embeddings, refit=False)
    surface = artifact.embedder.surface
    assert surface is not None
    assert artifact.method["surface_weight"] == surface.weight > 0
    assert artifact.report["evaluation"]["accuracy"] > 0.9
    assert (artifact.embedder.dim, artifact.embedder.fingerprint) == routed_identity(embedder, surface)

    # The report is what routing the same rows again reaches, with statistics of the calibration part alone.
    calibration_rows, rows = split_by_text(outcomes, holdout=0.3, seed=0)
    features = surface_features(outcomes.queries)
    assert surface == SurfaceFeatures.fit(features[calibration_rows], surface.weight)
    routed = surface.append(embeddings[rows], features[rows])
    chosen = Router.from_artifact(artifact).route_embeddings(routed).model_ids
    reached = outcomes.scores[rows, chosen].mean()
    assert reached == pytest.approx(artifact.report["evaluation"]["accuracy"])

    refitted = calibrate(outcomes, embedder=embedder, embeddings=embeddings)
    assert refitted.embedder.surface == SurfaceFeatures.fit(features, surface.weight)
    assert refitted.report["evaluation"] == artifact.report["evaluation"]


def test_calibration_picks_no_weight_where_the_form_tells_nothing(embedder):
    outcomes, embeddings = made_up(by_form=False)
    artifact = calibrate(outcomes, embedder=embedder, embeddings=embeddings)
    assert artifact.method["surface_weight"] == 0
    assert artifact.embedder == EmbedderId("static-256", 256, embedder.fingerprint)
    assert {trial["surface_weight"] for trial in artifact.report["tried"]} > {0.0}


def test_a_weight_can_be_fixed(embedder):
    outcomes, embeddings = made_up(by_form=True)
    options = {"embedder": embedder, "embeddings": embeddings, "n_clusters": 8}
    without = calibrate(outcomes, surface_weight=0, **options)
    assert without.embedder.surface is None
    assert {trial["surface_weight"] for trial in without.report["tried"]} == {0}
    fixed = calibrate(outcomes, surface_weight=0.5, **options)
    assert fixed.embedder.surface.weight == 0.5
    assert fixed.centroids.shape == (8, 256 + SETS["surface-1"])
    with pytest.raises(DataError, match="surface weight -1"):
        calibrate(outcomes, surface_weight=-1, **options)


def test_avengers_pro_has_surface_features_only_where_asked(embedder):
    outcomes, embeddings = made_up(by_form=True)
    options = {"embedder": embedder, "embeddings": embeddings, "method": "avengers-pro"}
    assert calibrate(outcomes, **options).embedder.surface is None
    assert calibrate(outcomes, surface_weight=0.2, **options).embedder.surface.weight == 0.2


def test_embeddings_from_outside_have_surface_features_only_where_asked():
    outcomes, embeddings = made_up(by_form=True)
    outside = SimpleNamespace(name="outside", dim=256, fingerprint=None)
    options = {"embedder": outside, "embeddings": embeddings, "n_clusters": 8}
    assert calibrate(outcomes, **options).embedder == EmbedderId("outside", 256, None)
    asked = calibrate(outcomes, surface_weight=0.2, **options).embedder
    assert (asked.dim, asked.fingerprint) == (256 + SETS["surface-1"], None)


def test_the_same_seed_gives_the_same_bytes_with_surface_features(embedder):
    outcomes, embeddings = made_up(by_form=True)
    first, again = (
        calibrate(outcomes, embedder=embedder, embeddings=embeddings, seed=3).to_bytes() for _ in range(2)
    )
    assert first == again


def test_texts_without_any_token_are_left_out_whatever_their_form(embedder):
    outcomes, embeddings = made_up(by_form=True)
    embeddings[:5] = 0
    report = calibrate(outcomes, embedder=embedder, embeddings=embeddings, surface_weight=0.2).report
    assert (report["n_left_out"], report["n_queries"]) == (5, 395)
