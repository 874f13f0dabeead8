"""Bad input of every kind, one named test each: refused in one clear line, and nothing left half-written."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from centroute import Artifact, ArtifactError, DataError, EmbedderError, Policy, PolicyError, Router
from centroute._kernel import Kernel
from centroute.artifact import FORMAT_VERSION, EmbedderId
from centroute.calibrate import calibrate
from centroute.datasets import Outcomes, read_outcomes, synthetic_outcomes, write_jsonl
from centroute.embedders import Embedder

Unchanged = Callable[[Path], AbstractContextManager[None]]
Row = dict[str, Any]

GOOD: Row = {"query": "What is a prime number?", "scores": {"large": 1, "small": 0}}


class Run(Protocol):
    """A run of the command line, in this process or another."""

    def __call__(self, *arguments: object, stdin: bytes = b"", **more: Any) -> Any: ...


@pytest.fixture(scope="session")
def router(router_file: Path) -> Router:
    return Router.load(router_file)


@pytest.fixture
def refuses(cli: Run, tmp_path: Path, unchanged: Unchanged) -> Callable[..., None]:
    """Run the command line; it must refuse in one line that names ``named``, and touch no file."""

    def run(*arguments: object, named: tuple[str, ...], stdin: bytes = b"") -> None:
        with unchanged(tmp_path):
            finished = cli(*arguments, stdin=stdin)
        finished.assert_refused(*named)
        assert finished.out == ""

    return run


@pytest.fixture
def refuses_data(refuses: Callable[..., None], tmp_path: Path) -> Callable[..., None]:
    """``calibrate`` on lines of JSONL (rows or text) must refuse; the file is named in the message."""

    def run(lines: list[Row | str], *flags: object, named: tuple[str, ...], names_file: bool = True) -> None:
        data = tmp_path / "data.jsonl"
        data.write_text(
            "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        )
        named = (*named, str(data)) if names_file else named
        refuses("calibrate", data, "-o", tmp_path / "router.safetensors", *flags, named=named)

    return run


def rows(n_rows: int) -> list[Row]:
    """Rows with different texts that can be calibrated on."""
    sample = synthetic_outcomes(n_queries=n_rows)
    return [
        {"query": query, "scores": {"large": 1, "small": n % 2}} for n, query in enumerate(sample.queries)
    ]


# Query texts.


@pytest.mark.parametrize("text", ["", " ", " \t\n\u3000\u00a0 "], ids=["empty", "space", "white_space"])
def test_empty_text(text: str, refuses: Callable[..., None], router_file: Path, router: Router) -> None:
    refuses("route", router_file, text, named=("holds only spaces or nothing",))
    with pytest.raises(DataError, match="holds only spaces or nothing"):
        router.route(text)


def test_empty_text_among_others_is_told_with_its_index(router: Router) -> None:
    with pytest.raises(DataError, match="text 2 holds only spaces or nothing: ' '"):
        router.route_batch(["one", "two", " ", ""])


def test_one_text_in_place_of_a_list(router: Router) -> None:
    with pytest.raises(DataError, match="got one string, wanted a sequence"):
        router.route_batch("one")


def test_text_of_unknown_characters_only(
    refuses: Callable[..., None], router_file: Path, router: Router
) -> None:
    refuses("route", router_file, "\U0001f642", named=("nothing that the embedder knows", "\U0001f642"))
    with pytest.raises(DataError, match="nothing that the embedder knows"):
        router.route("\U0001f642")


@pytest.mark.parametrize("word", ["word ", "\u6f22\u5b57 ", "x\u0301 ", "(\U0001f642) "])
def test_text_of_one_megabyte(word: str, cli: Run, router_file: Path) -> None:
    text = (word * (2**20 // len(word.encode()) + 1)).encode()
    finished = cli("route", router_file, "--json", stdin=text)
    assert (finished.code, finished.err) == (0, "")
    assert len(finished.rows) == 1
    # People see the beginning of it.
    assert len(cli("route", router_file, stdin=text).out) < 1000


def test_endless_word_is_refused_without_repeating_it(cli: Run, router_file: Path) -> None:
    finished = cli("route", router_file, stdin=b"x" * 2**20)
    finished.assert_refused("line 1", "nothing that the embedder knows")
    assert len(finished.err) < 300


def test_lone_surrogate_within_a_text(cli: Run, process: Run, router_file: Path, router: Router) -> None:
    expected = router.route("caf\ufffd au lait").model
    assert router.route("caf\ud800 au lait").model == expected
    # Bytes that are no UTF-8, on stdin and as an argument.
    text = b"caf\xe9 au lait"
    for finished in (
        cli("route", router_file, "--json", stdin=text),
        process("route", router_file, text, "--json"),
    ):
        assert (finished.code, finished.err) == (0, "")
        assert finished.rows[0]["model"] == expected
    shown = cli("route", router_file, stdin=text)
    assert (shown.code, shown.err) == (0, "")


def test_nul_within_a_text(cli: Run, router_file: Path, router: Router) -> None:
    assert router.route("What\0is this?").model
    finished = cli("route", router_file, "--json", stdin=b"What\0is this?\n\0and that?")
    assert (finished.code, finished.err) == (0, "")
    assert len(finished.rows) == 2


def test_emoji_within_a_text(cli: Run, process: Run, router_file: Path) -> None:
    text = "Explain this joke \U0001f602\U0001f468\u200d\U0001f469\u200d\U0001f467 please"
    for finished in (cli("route", router_file, text), process("route", router_file, stdin=text.encode())):
        assert (finished.code, finished.err) == (0, "")
        assert "\U0001f602" in finished.out


# Calibration data.


def test_broken_line(refuses_data: Callable[..., None]) -> None:
    refuses_data([GOOD, GOOD, '{"query": "x", '], named=("line 3", "not valid JSON"))


def test_truncated_last_line(refuses_data: Callable[..., None]) -> None:
    refuses_data([GOOD, json.dumps(GOOD)[:-9]], named=("line 2", "not valid JSON"))


def test_missing_field(refuses_data: Callable[..., None]) -> None:
    refuses_data([GOOD, {"query": "x"}], named=("line 2", "scores: is missing"))
    refuses_data([GOOD, {"scores": {"large": 1}}], named=("line 2", "query: is missing"))


def test_empty_query_in_the_data(refuses_data: Callable[..., None]) -> None:
    refuses_data([{**GOOD, "query": "  "}], named=("line 1", "query: is empty"))


@pytest.mark.parametrize("score", [1.01, -0.5, 87, float("inf")])
def test_score_outside_0_to_1(score: float, refuses_data: Callable[..., None]) -> None:
    refuses_data(
        [GOOD, {**GOOD, "scores": {"large": score}}], named=("line 2", "scores['large']", "outside 0..1")
    )


def test_nan_score(refuses_data: Callable[..., None]) -> None:
    refuses_data(
        [GOOD, {**GOOD, "scores": {"large": float("nan")}}], named=("line 2", "scores['large']", "nan")
    )


def test_negative_cost(refuses_data: Callable[..., None]) -> None:
    refuses_data([GOOD, {**GOOD, "costs": {"small": -0.001}}], named=("line 2", "costs['small']", "-0.001"))


def test_nan_cost(refuses_data: Callable[..., None]) -> None:
    refuses_data(
        [GOOD, {**GOOD, "costs": {"small": float("nan")}}], named=("line 2", "costs['small']", "nan")
    )


def test_empty_data(refuses_data: Callable[..., None]) -> None:
    refuses_data([], named=("holds no query",))


def test_model_seen_once(refuses_data: Callable[..., None]) -> None:
    lines: list[Row | str] = [*rows(10), {"query": "What else?", "scores": {"large": 1, "rare": 1}}]
    refuses_data(lines, named=("'rare'", "1 outcome"), names_file=False)


def test_model_with_costs_and_no_score(refuses_data: Callable[..., None]) -> None:
    refuses_data([*rows(10), {**GOOD, "costs": {"ghost": 1}}], named=("'ghost'", "no score"))


def test_one_query_only(refuses_data: Callable[..., None]) -> None:
    refuses_data([GOOD], named=("1 outcome",), names_file=False)
    refuses_data([GOOD], "--holdout", 0, named=("1 outcome",), names_file=False)


def test_two_queries(refuses_data: Callable[..., None], cli: Run, tmp_path: Path) -> None:
    refuses_data(list(rows(2)), "--clusters", 2, named=("2 clusters", "1 different"), names_file=False)
    file = tmp_path / "router.safetensors"
    assert cli("calibrate", tmp_path / "data.jsonl", "-o", file, "--holdout", 0).code == 0
    assert Router.load(file).n_clusters == 1


def test_fewer_queries_than_clusters(refuses_data: Callable[..., None]) -> None:
    named = ("50 clusters", "7 different queries", "fewer")
    refuses_data(list(rows(10)), "--clusters", 50, named=named, names_file=False)
    refuses_data(
        list(rows(10)), "--clusters", 50, "--method", "means", "--holdout", 0,
        named=("50 clusters", "10 different queries"), names_file=False,
    )  # fmt: skip
    # Sixty is what the paper says, and too many for ten queries all the same.
    refuses_data(list(rows(10)), "--method", "avengers-pro", named=("60 clusters",), names_file=False)


def test_all_texts_equal(refuses_data: Callable[..., None], cli: Run, tmp_path: Path) -> None:
    lines: list[Row | str] = [{**GOOD, "scores": {"large": 1, "small": n % 2}} for n in range(10)]
    refuses_data(lines, named=("1 distinct text", "holdout"), names_file=False)
    refuses_data(
        lines, "--holdout", 0, "--clusters", 2, named=("2 clusters", "1 different"), names_file=False
    )
    file = tmp_path / "router.safetensors"
    assert cli("calibrate", tmp_path / "data.jsonl", "-o", file, "--holdout", 0).code == 0
    np.testing.assert_array_equal(Artifact.load(file).quality, [[1.0, 0.5]])


def test_texts_that_the_embedder_does_not_know(refuses_data: Callable[..., None]) -> None:
    lines: list[Row | str] = [{**GOOD, "query": "\U0001f642" * n} for n in range(1, 9)]
    refuses_data(lines, named=("none of the 8 queries", "static-256"), names_file=False)


def test_missing_data(refuses: Callable[..., None], router_file: Path, tmp_path: Path) -> None:
    missing = tmp_path / "none.jsonl"
    refuses("calibrate", missing, "-o", tmp_path / "r", named=(str(missing), "o such file"))
    refuses("evaluate", router_file, missing, named=(str(missing), "o such file"))


def test_folder_in_place_of_data(refuses: Callable[..., None], tmp_path: Path) -> None:
    refuses("calibrate", tmp_path, "-o", tmp_path / "r", named=(str(tmp_path), "directory"))


def test_data_of_another_kind(refuses: Callable[..., None], router_file: Path, tmp_path: Path) -> None:
    table = tmp_path / "data.csv"
    table.write_text("a,b\n1,2\n")
    refuses("calibrate", table, "-o", tmp_path / "r", named=(str(table), ".jsonl"))
    refuses("evaluate", router_file, router_file, named=(str(router_file), ".jsonl"))


def test_damaged_gzip(refuses: Callable[..., None], outcomes: Outcomes, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl.gz"
    write_jsonl(outcomes, data)
    data.write_bytes(data.read_bytes()[:-100])
    refuses("calibrate", data, "-o", tmp_path / "r", named=(str(data), "gzip"))


def test_no_model_in_common(refuses: Callable[..., None], router_file: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps(GOOD))
    refuses("evaluate", router_file, data, named=("no model in common", "large, small", "crumb-mini"))


# Router files.


def spoilt_routers(router_file: Path, pack: Callable[..., bytes]) -> dict[str, tuple[bytes, str]]:
    whole = router_file.read_bytes()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    kernel = Kernel(whole)
    future = {**json.loads(kernel.metadata_json), "format_version": FORMAT_VERSION + 1}
    return {
        "truncated": (whole[:-7], "not a readable safetensors file"),
        "one_byte_flipped": (bytes(flipped), "digest mismatch"),
        "of_a_future_version": (pack(kernel.tensors(), future), f"format version {FORMAT_VERSION + 1}"),
        "empty": (b"", "not a readable safetensors file"),
        "some_text": (b"this is no router file\n" * 100, "not a readable safetensors file"),
    }


@pytest.mark.parametrize(
    "fault", ["truncated", "one_byte_flipped", "of_a_future_version", "empty", "some_text"]
)
def test_router_file(
    fault: str,
    refuses: Callable[..., None],
    router_file: Path,
    outcomes_file: Path,
    pack: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    data, message = spoilt_routers(router_file, pack)[fault]
    file = tmp_path / "router.safetensors"
    file.write_bytes(data)
    named = (str(file), message)
    refuses("route", file, "text", named=named)
    refuses("route", file, "--json", stdin=b"text\n", named=named)
    refuses("inspect", file, named=named)
    refuses("evaluate", file, outcomes_file, "--json", tmp_path / "figures.json", named=named)
    with pytest.raises(ArtifactError, match=message):
        Router.load(file)


def test_router_for_another_embedder(
    refuses: Callable[..., None],
    artifact: Artifact,
    embedder: Embedder,
    outcomes_file: Path,
    cli: Run,
    tmp_path: Path,
) -> None:
    file = tmp_path / "router.safetensors"
    replace(artifact, embedder=EmbedderId("static-256", 256, "f0" * 32)).save(file)
    named = ("static-256", embedder.fingerprint[:16], "f0" * 8)
    refuses("route", file, "text", named=named)
    refuses("route", file, stdin=b"text\n", named=named)
    refuses("evaluate", file, outcomes_file, "--json", tmp_path / "figures.json", named=named)
    refuses("route", file, "text", "--embedder", "static-256", named=named)
    with pytest.raises(EmbedderError):
        Router.load(file).route("text")
    # It can still be looked at.
    assert cli("inspect", file).code == 0


def test_unknown_embedder(
    refuses: Callable[..., None], router_file: Path, outcomes_file: Path, tmp_path: Path
) -> None:
    named = ("'nonsense'", "static-256")
    refuses("route", router_file, "text", "--embedder", "nonsense", named=named)
    refuses("calibrate", outcomes_file, "-o", tmp_path / "r", "--embedder", "nonsense", named=named)


def test_missing_router(refuses: Callable[..., None], outcomes_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "none.safetensors"
    for arguments in (("route", file, "text"), ("inspect", file), ("inspect", file, "--json")):
        refuses(*arguments, named=(str(file), "no such file"))
    refuses("evaluate", file, outcomes_file, named=(str(file), "no such file"))
    refuses("inspect", tmp_path, named=(str(tmp_path), "is a directory"))


# Places to write to.


def test_output_in_a_missing_folder(
    refuses: Callable[..., None], router_file: Path, outcomes_file: Path, tmp_path: Path
) -> None:
    place = tmp_path / "none" / "file"
    refuses("calibrate", outcomes_file, "-o", place, named=(str(place), "cannot be written"))
    refuses("evaluate", router_file, outcomes_file, "--json", place, named=(str(place), "cannot be written"))


def test_output_that_is_a_folder(
    refuses: Callable[..., None], router_file: Path, outcomes_file: Path, tmp_path: Path
) -> None:
    refuses("calibrate", outcomes_file, "-o", tmp_path, named=(str(tmp_path), "cannot be written", "folder"))
    refuses("evaluate", router_file, outcomes_file, "--json", tmp_path, named=(str(tmp_path), "folder"))


def test_output_below_a_file(refuses: Callable[..., None], outcomes_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "router"
    refuses("calibrate", outcomes_file, "-o", place, named=(str(place), "cannot be written"))


def test_output_is_refused_before_the_long_work(
    refuses: Callable[..., None], outcomes_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("centroute.cli.calibrate.calibrate", lambda *_, **__: pytest.fail("began"))
    refuses("calibrate", outcomes_file, "-o", tmp_path / "none" / "r", named=("cannot be written",))


def test_full_disk(
    refuses: Callable[..., None],
    router_file: Path,
    outcomes_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "there-already"
    file.write_bytes(b"the old one")
    monkeypatch.setattr("os.fsync", fail)
    flags = ("--clusters", 2, "--method", "means")
    refuses("calibrate", outcomes_file, "-o", file, *flags, named=(str(file), "cannot be written"))
    refuses("evaluate", router_file, outcomes_file, "--json", file, named=(str(file), "cannot be written"))


def test_output_that_is_the_data(cli: Run, outcomes_file: Path, tmp_path: Path, unchanged: Unchanged) -> None:
    data = tmp_path / "data.jsonl"
    data.write_bytes(outcomes_file.read_bytes())
    with unchanged(tmp_path):
        cli("calibrate", data, "-o", data, "--clusters", 2, "--method", "means")


# Policies.


@pytest.mark.parametrize("flag", ["--allow", "--deny"])
def test_unknown_model(
    flag: str,
    refuses: Callable[..., None],
    router_file: Path,
    outcomes_file: Path,
    router: Router,
    tmp_path: Path,
) -> None:
    named = (f"policy {flag[2:]}: unknown model 'nobody'", "crumb-mini")
    refuses("route", router_file, "text", flag, "nobody", named=named)
    refuses("route", router_file, "text", flag, "crumb-mini,nobody", named=named)
    refuses("evaluate", router_file, outcomes_file, "--json", tmp_path / "f", flag, "nobody", named=named)
    with pytest.raises(PolicyError, match="unknown model 'nobody'"):
        router.route("text", policy=Policy(**{flag[2:]: {"nobody"}}))


def test_unknown_model_on_stdin_is_told_once(refuses: Callable[..., None], router_file: Path) -> None:
    refuses("route", router_file, "--deny", "nobody", stdin=b"one\ntwo\nthree\n", named=("'nobody'",))


def test_unknown_model_without_any_query(cli: Run, router_file: Path) -> None:
    finished = cli("route", router_file, "--deny", "nobody", stdin=b"")
    assert finished.code in (0, 1)
    assert finished.out == ""


def test_every_model_denied(
    refuses: Callable[..., None], router_file: Path, outcomes: Outcomes, router: Router
) -> None:
    named = ("no model is left: deny excludes", *outcomes.models)
    refuses("route", router_file, "text", "--deny", ",".join(outcomes.models), named=named)
    with pytest.raises(PolicyError, match="no model is left"):
        router.route("text", policy=Policy(deny=outcomes.models))


def test_limits_that_leave_nobody_name_each_other(refuses: Callable[..., None], router_file: Path) -> None:
    refuses(
        "route", router_file, "text", "--allow", "crumb-mini", "--deny", "crumb-mini",
        named=("no model is left", "allow excludes oakhollow-grand", "deny excludes crumb-mini"),
    )  # fmt: skip
    refuses("route", router_file, "text", "--max-cost", 0, named=("no model is left", "max_cost"))
    refuses("route", router_file, "text", "--require", "vision", named=("no model is left", "require vision"))


def test_context_that_is_no_number(refuses: Callable[..., None], router_file: Path) -> None:
    refuses(
        "route", router_file, "text", "--require", "context>=much", named=("context>=much", "whole number")
    )


def test_two_objectives_at_once(refuses: Callable[..., None], router_file: Path) -> None:
    named = ("alpha and min_quality exclude each other",)
    refuses("route", router_file, "text", "--alpha", 0.5, "--min-quality", 0.5, named=named)
    with pytest.raises(PolicyError, match="exclude each other"):
        Policy(willingness_to_pay=1, max_mean_cost=1)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--alpha", "2"),
        ("--alpha", "-0.1"),
        ("--min-quality", "1.5"),
        ("--willingness-to-pay", "-1"),
        ("--willingness-to-pay", "inf"),
        ("--max-mean-cost", "-1"),
        ("--max-cost", "-1"),
        ("--max-cost", "1e300"),
    ],
)
def test_number_out_of_range(
    flag: str,
    value: str,
    refuses: Callable[..., None],
    router_file: Path,
    outcomes_file: Path,
    tmp_path: Path,
) -> None:
    named = (f"policy {flag[2:].replace('-', '_')}=", "wanted")
    refuses("route", router_file, "text", f"{flag}={value}", named=named)
    refuses("evaluate", router_file, outcomes_file, "--json", tmp_path / "f", f"{flag}={value}", named=named)


@pytest.mark.parametrize(
    "flag", ["--alpha", "--willingness-to-pay", "--max-mean-cost", "--min-quality", "--max-cost"]
)
def test_nan_for_a_number(flag: str, refuses: Callable[..., None], router_file: Path) -> None:
    refuses("route", router_file, "text", flag, "nan", named=(f"policy {flag[2:].replace('-', '_')}=NaN",))


def test_budget_below_the_cheapest(refuses: Callable[..., None], router_file: Path) -> None:
    refuses("route", router_file, "text", "--max-mean-cost", "1e-9", named=("max_mean_cost", "cheapest"))


@pytest.mark.parametrize("value", ["nan", "inf", "1e300"])
def test_beta_that_is_no_sharpness(
    value: str, cli: Run, outcomes_file: Path, embedder: Embedder, tmp_path: Path, unchanged: Unchanged
) -> None:
    with unchanged(tmp_path):
        finished = cli("calibrate", outcomes_file, "-o", tmp_path / "r", "--clusters", 2, "--beta", value)
    assert finished.code in (1, 2)
    assert "beta" in finished.err
    with pytest.raises(DataError, match="beta"):
        calibrate(synthetic_outcomes(n_queries=20), embedder=embedder, n_clusters=2, beta=float(value))


def test_nan_holdout(cli: Run, outcomes_file: Path, tmp_path: Path, unchanged: Unchanged) -> None:
    with unchanged(tmp_path):
        finished = cli("calibrate", outcomes_file, "-o", tmp_path / "r", "--holdout", "nan")
    assert finished.code in (1, 2)
    assert "holdout" in finished.err


def test_more_clusters_than_a_number_has_digits(
    cli: Run, outcomes_file: Path, tmp_path: Path, unchanged: Unchanged
) -> None:
    with unchanged(tmp_path):
        finished = cli("calibrate", outcomes_file, "-o", tmp_path / "r", "--clusters", "9" * 40)
    finished.assert_refused("9" * 40)


def test_unknown_method(cli: Run, outcomes_file: Path, tmp_path: Path, unchanged: Unchanged) -> None:
    with unchanged(tmp_path):
        finished = cli("calibrate", outcomes_file, "-o", tmp_path / "r", "--method", "magic")
    finished.assert_wrong_usage("magic", "auto", "means", "avengers-pro")
    with pytest.raises(DataError, match="method 'magic': wanted one of auto"):
        calibrate(synthetic_outcomes(n_queries=20), method="magic")


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        ("colour=blue", ("colour=blue", "willingness_to_pay")),
        ("deny", ("'deny'", "field=value")),
        ("alpha=much", ("alpha", "'much'", "number")),
        ("alpha=2", ("alpha=2", "0 to 1")),
        ("alpha=nan", ("alpha=NaN",)),
        ("alpha=0.5; min-quality=0.5", ("exclude each other",)),
        ("deny=nobody", ("default_policy", "deny", "'nobody'", "crumb-mini")),
        ("fallback=nobody", ("default_policy", "fallback", "'nobody'")),
        ("allow=crumb-mini; deny=crumb-mini", ("default_policy", "no model is left")),
        ("require=vision", ("default_policy", "no model is left", "vision")),
    ],
)
def test_default_policy(
    policy: str, named: tuple[str, ...], refuses: Callable[..., None], outcomes_file: Path, tmp_path: Path
) -> None:
    place = tmp_path / "router.safetensors"
    flags = ("--clusters", 2, "--method", "means", "--default-policy", policy)
    refuses("calibrate", outcomes_file, "-o", place, *flags, named=named)


# Costs and scores that are not known.


@pytest.fixture(scope="session")
def costless(outcomes: Outcomes, embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Router whose last two models have no known cost."""
    costs = outcomes.costs.copy()
    costs[:, -2:] = np.nan
    file = tmp_path_factory.mktemp("costless") / "router.safetensors"
    calibrate(replace(outcomes, costs=costs), embedder=embedder, method="means", n_clusters=4).save(file)
    return file


@pytest.mark.parametrize(
    "flag",
    [
        "--willingness-to-pay=0.01",
        "--alpha=0.5",
        "--min-quality=0.5",
        "--max-cost=1",
        "--max-mean-cost=0.003",
    ],
)
def test_policy_that_needs_an_unknown_cost(flag: str, refuses: Callable[..., None], costless: Path) -> None:
    field = flag[2:].partition("=")[0].replace("-", "_")
    named = (f"policy {field}", "pebble-fair, crumb-mini")
    if field == "max_mean_cost":
        named = (f"policy {field}", "costs were unknown")
    refuses("route", costless, "text", flag, named=named)


def test_unknown_cost_is_null_and_its_model_can_be_denied(cli: Run, costless: Path) -> None:
    (row,) = cli("route", costless, "text", "--json", "--allow", "crumb-mini").rows
    assert (row["model"], row["cost_usd"]) == ("crumb-mini", None)
    (row,) = cli("route", costless, "text", "--json", "--alpha=0", "--deny=crumb-mini,pebble-fair").rows
    assert row["cost_usd"] > 0
    (row,) = cli("route", costless, "text", "--json", "--alpha=1").rows
    assert row["model"]


# Three queries of one kind, three of another, and what can be summed by hand.
HAND_ROWS: list[Row] = [
    {"query": "Add 3 and 4.", "scores": {"a": 1, "b": 0, "c": 0.5}, "costs": {"a": 0.01, "b": 0.002}},
    {"query": "Add 5 and 12.", "scores": {"a": 0, "b": 1}, "costs": {"a": 0.03}},
    {"query": "Add 8 and 9.", "scores": {"a": 1}, "costs": {"a": 0.02, "b": 0.004}},
    {"query": "Name a river in France.", "scores": {"b": 1, "c": 0.25}, "costs": {"a": 0.04, "b": None}},
    {"query": "Name a river in Spain.", "scores": {"a": 0, "c": 1, "b": None}},
    {"query": "Name a river in Italy.", "scores": {"a": 1, "b": 0}, "costs": {"b": 0.0}},
]
HAND_QUALITY = [3 / 5, 2 / 4, 1.75 / 3]
HAND_COST = [0.1 / 4, 0.006 / 3, np.nan]


@pytest.fixture
def by_hand(tmp_path: Path) -> Path:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in HAND_ROWS))
    return data


@pytest.mark.parametrize("flags", [("--holdout", 0), ("--holdout", 0.2), ("--holdout", 0.2, "--seed", 3)])
@pytest.mark.parametrize("method", ["avengers-pro", "means"])
def test_means_are_taken_over_what_was_observed(
    method: str, flags: tuple[object, ...], cli: Run, by_hand: Path, tmp_path: Path
) -> None:
    file = tmp_path / "router.safetensors"
    finished = cli("calibrate", by_hand, "-o", file, "--method", method, "--clusters", 1, *flags)
    assert (finished.code, finished.err) == (0, "")
    loaded = Artifact.load(file)
    assert [model.name for model in loaded.models] == ["a", "b", "c"]
    for table in (loaded.quality[0], loaded.prior_quality):
        np.testing.assert_allclose(table, HAND_QUALITY, rtol=1e-6)
    for table in (loaded.cost[0], loaded.prior_cost):
        np.testing.assert_allclose(table, HAND_COST, rtol=1e-6)
    np.testing.assert_array_equal(loaded.count, [[5, 4, 3]])
    assert loaded.report["outcomes_per_model"] == {"a": 5, "b": 4, "c": 3}


def test_cost_missing_on_some_rows_is_never_zero_in_routing(cli: Run, by_hand: Path, tmp_path: Path) -> None:
    file = tmp_path / "router.safetensors"
    cli("calibrate", by_hand, "-o", file, "--method", "avengers-pro", "--clusters", 1, "--holdout", 0)
    (row,) = cli("route", file, "Add 1 and 1.", "--json", "--allow", "b").rows
    assert row["cost_usd"] == pytest.approx(0.002)
    (row,) = cli("route", file, "Add 1 and 1.", "--json", "--allow", "c").rows
    assert row["cost_usd"] is None
    # With the prices that are known, b is the cheapest and a the best.
    for flag, model in (("--willingness-to-pay=0.1", "b"), ("--willingness-to-pay=1", "a")):
        (row,) = cli("route", file, "Add 1 and 1.", "--json", "--deny", "c", flag).rows
        assert row["model"] == model


def test_evaluation_counts_only_what_was_observed(cli: Run, by_hand: Path, tmp_path: Path) -> None:
    file = tmp_path / "router.safetensors"
    cli("calibrate", by_hand, "-o", file, "--method", "avengers-pro", "--clusters", 1, "--holdout", 0)
    figures = json.loads(cli("evaluate", file, by_hand, "--json", "-").out)
    assert figures["n_queries"] == 6
    # One cluster: everything goes to a, the best by the means above.
    assert figures["accuracy"] == pytest.approx(3 / 5)
    assert figures["mean_cost_usd"] == pytest.approx(0.1 / 4)
    assert figures["best_single"]["model"] == "a"
    assert figures["headroom_captured"] == 0
    assert figures["oracle"]["accuracy"] == 1
    by_name = {model["name"]: model for model in figures["models"]}
    assert by_name["b"]["accuracy"] == pytest.approx(2 / 4)
    assert by_name["b"]["mean_cost_usd"] == pytest.approx(0.006 / 3)
    assert by_name["c"]["mean_cost_usd"] is None


def test_cell_without_outcome_takes_the_models_mean(embedder: Embedder, by_hand: Path) -> None:
    outcomes = read_outcomes(by_hand)
    scores: NDArray[np.float32] = outcomes.scores.copy()
    scores[3:, 1] = np.nan  # b is seen on additions only
    loaded = calibrate(
        replace(outcomes, scores=scores), embedder=embedder, method="avengers-pro", n_clusters=2, holdout=0
    )
    empty = loaded.count[:, 1] == 0
    assert empty.sum() == 1
    np.testing.assert_allclose(loaded.quality[empty, 1], 0.5)
    assert loaded.prior_quality[1] == pytest.approx(0.5)


def test_one_bad_run_as_a_process(
    process: Run, router_file: Path, tmp_path: Path, unchanged: Unchanged
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps(GOOD) + '\n{"query": \n')
    with unchanged(tmp_path):
        process("calibrate", data, "-o", tmp_path / "r").assert_refused("line 2", str(data))
        process("route", router_file, "text", "--deny", "nobody").assert_refused("'nobody'")
        process("inspect", data).assert_refused(str(data))
