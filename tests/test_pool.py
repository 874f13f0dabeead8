"""Pool files, the costs that follow from prices and lengths, and what of it reaches a router."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from centroute import Artifact, DataError, Policy, Router
from centroute.datasets import Outcomes, write_jsonl
from centroute.pool import Pool, PoolEntry, apply_pool, count_tokens, read_pool, requirements_as_names

Text = Callable[[str], Path]
NAN = np.nan


@pytest.fixture
def toml(tmp_path: Path) -> Text:
    def written(content: str) -> Path:
        path = tmp_path / "pool.toml"
        path.write_bytes(content.encode())
        return path

    return written


def made(**changes: Any) -> Outcomes:
    fields: dict[str, Any] = {
        "queries": ("Who wrote Faust?", "Name a river.", "2 + 2?"),
        "models": ("large", "small"),
        "scores": np.array([[1, 0], [1, NAN], [0, 1]]),
        "costs": np.full((3, 2), NAN),
        "datasets": ("a", "b", ""),
        "ids": ("1", "2", "3"),
    }
    return Outcomes(**(fields | changes))


def priced(**more: Any) -> PoolEntry:
    return PoolEntry(input_usd_per_million=1.0, output_usd_per_million=10.0, **more)


# The file.


def test_reads_every_field(toml: Text) -> None:
    path = toml(
        """
        [models."gpt-5"]
        input_usd_per_million = 1.25
        output_usd_per_million = 10
        tags = ["vision", "tools"]
        context_length = 400_000
        effort = "medium"
        output_tokens = {gsm8k = 2100}
        [datasets."arc.easy"]
        output_tokens = 40
        """
    )
    pool = read_pool(path)
    assert pool.source == str(path)
    assert pool.output_tokens == {"arc.easy": 40}
    assert pool.entries == {
        "gpt-5": PoolEntry(1.25, 10.0, frozenset({"vision", "tools"}), 400_000, "medium", {"gsm8k": 2100})
    }
    model = pool.model("gpt-5")
    assert model.tags == {"vision", "tools", "effort=medium"}
    assert (model.input_usd_per_million, model.output_usd_per_million) == (1.25, 10.0)
    assert model.context_length == 400_000


def test_an_empty_file_is_a_pool_that_adds_nothing(toml: Text) -> None:
    pool = read_pool(toml(""))
    assert (pool.entries, pool.output_tokens) == ({}, {})
    assert pool.model("any@high").tags == frozenset()


def test_byte_order_mark_and_line_ends(toml: Text) -> None:
    assert read_pool(toml("\ufeff[models.a]\r\ncontext_length = 10\r\n")).entry("a").context_length == 10


def test_an_effort_takes_from_its_model_what_it_does_not_state(toml: Text) -> None:
    pool = read_pool(
        toml(
            """
            [models.m]
            input_usd_per_million = 1
            output_usd_per_million = 2
            tags = ["tools"]
            effort = "medium"
            output_tokens = 100
            [models."m@high"]
            output_tokens = 900
            [models."m@free"]
            input_usd_per_million = 0
            output_usd_per_million = 0
            tags = []
            """
        )
    )
    assert pool.entry("m@high") == PoolEntry(1, 2, frozenset({"tools"}), None, "high", 900)
    assert pool.entry("m@low") == PoolEntry(1, 2, frozenset({"tools"}), None, "low", 100)
    assert pool.entry("m@free") == PoolEntry(0, 0, frozenset(), None, "free", 100)
    assert pool.entry("other@high") == PoolEntry()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[models.a", "is no valid TOML: Expected"),
        ("[models.a]\n[models.a]", "is no valid TOML: Cannot declare"),
        ("models = 5", "'models': must be a table, got 5"),
        ("[pool]", "'pool': is not known; there are models, datasets"),
        ("[models]\na = 5", "models.'a': must be a table, got 5"),
        ("[models.a]\nprice = 5", "models.'a'.'price': is not known; there are input_usd_per_million"),
        ("[models.gpt-4.1]\ncontext_length = 5", "models.'gpt-4'.'1': is not known; .*stands in quotes"),
        ("[models.a]\ninput_usd_per_million = 1", "models.'a'.output_usd_per_million: is missing"),
        (
            "[models.a]\ninput_usd_per_million = 1\noutput_usd_per_million = -1",
            "models.'a'.output_usd_per_million: must be a finite number of 0 or more, got -1",
        ),
        (
            "[models.a]\ninput_usd_per_million = nan\noutput_usd_per_million = 1",
            "models.'a'.input_usd_per_million: must be a finite number of 0 or more, got nan",
        ),
        ("[models.a]\ninput_usd_per_million = inf", "must be a finite number of 0 or more, got inf"),
        ('[models.a]\ninput_usd_per_million = "1"', "must be a number, got '1'"),
        ("[models.a]\ninput_usd_per_million = true", "must be a number, got True"),
        (f"[models.a]\ninput_usd_per_million = {'9' * 400}", "must be a finite number"),
        ("[models.a]\ncontext_length = 0", "models.'a'.context_length: must be a whole number of tokens"),
        ("[models.a]\ncontext_length = 1e5", "models.'a'.context_length: must be a whole number of tokens"),
        (f"[models.a]\ncontext_length = {2**64}", "models.'a'.context_length: must be a whole number"),
        ('[models.a]\ntags = "vision"', "models.'a'.tags: must be a list of texts, got 'vision'"),
        ("[models.a]\ntags = [5]", "models.'a'.tags: 5 is no tag"),
        ('[models.a]\ntags = ["a,b"]', "models.'a'.tags: 'a,b' is no tag"),
        ('[models.a]\ntags = ["context>=5"]', "models.'a'.tags: 'context>=5' is no tag"),
        ("[models.a]\neffort = 5", "models.'a'.effort: must be a text, got 5"),
        ('[models."a@low"]\neffort = "high"', "'high' contradicts the name, which ends in '@low'"),
        ("[models.a]\noutput_tokens = -5", "models.'a'.output_tokens: must be a finite number"),
        ("[models.a]\noutput_tokens = {b = true}", "models.'a'.'output_tokens'.b: must be a number"),
        ('[models." a"]', "models: the model name ' a' begins or ends with white space"),
        ("[datasets.a]\ntokens = 5", "datasets.'a'.'tokens': is not known; there are output_tokens"),
    ],
)
def test_pool_file_refuses(content: str, message: str, toml: Text) -> None:
    path = toml(content)
    with pytest.raises(DataError, match=message) as raised:
        read_pool(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_pool_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.toml: cannot be read: No such file"):
        read_pool(tmp_path / "none.toml")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_pool(tmp_path)
    (tmp_path / "bad.toml").write_bytes(b"[models.caf\xe9]")
    with pytest.raises(DataError, match=r"bad\.toml: not UTF-8: byte 0xe9"):
        read_pool(tmp_path / "bad.toml")


# Costs.


def test_the_sources_of_costs_in_their_order() -> None:
    tokens = np.full((3, 2, 2), NAN)
    tokens[:2, 0] = 1000, 200
    costs = np.full((3, 2), NAN)
    costs[0, 0] = 0.5
    outcomes, sources = apply_pool(
        made(costs=costs, tokens=tokens), Pool({"large": priced(output_tokens=300), "small": priced()})
    )
    n_tokens = count_tokens(["2 + 2?"])[0]
    assert n_tokens == 4
    from_counts, estimate = 1e-6 * (1000 + 10 * 200), 1e-6 * (n_tokens + 10 * 300)
    np.testing.assert_allclose(outcomes.costs[:, 0], [0.5, from_counts, estimate], rtol=1e-12)
    assert np.isnan(outcomes.costs[:, 1]).all()
    assert sources == {
        "large": {"data": 1, "token_counts": 1, "estimate": 1, "unknown": 0},
        "small": {"data": 0, "token_counts": 0, "estimate": 0, "unknown": 2},
    }


def test_without_prices_nothing_changes() -> None:
    before = made(costs=np.array([[0.1, 0.0], [NAN, NAN], [NAN, NAN]]))
    outcomes, sources = apply_pool(before, Pool())
    np.testing.assert_array_equal(outcomes.costs, before.costs)
    assert sources["large"] == {"data": 1, "token_counts": 0, "estimate": 0, "unknown": 2}
    # The second row of the small model holds no score: no outcome, and no cost to miss.
    assert sources["small"] == {"data": 1, "token_counts": 0, "estimate": 0, "unknown": 1}


def test_an_unknown_length_leaves_the_cost_unknown_never_0() -> None:
    outcomes, _ = apply_pool(made(), Pool({"large": priced()}))
    assert np.isnan(outcomes.costs).all()


def test_stated_lengths_by_model_and_dataset() -> None:
    entries = {"large": priced(output_tokens={"a": 100}), "small": priced(output_tokens=50)}
    outcomes, sources = apply_pool(made(), Pool(entries, {"a": 7, "b": 30}))
    n_input = count_tokens(outcomes.queries)
    np.testing.assert_allclose(
        outcomes.costs * 1e6,
        [[n_input[0] + 1000, n_input[0] + 500], [n_input[1] + 300, NAN], [NAN, n_input[2] + 500]],
    )
    assert sources["large"]["unknown"] == 1


def test_input_tokens_of_the_data_are_used_where_the_output_is_stated() -> None:
    tokens = np.full((3, 2, 2), NAN)
    tokens[:, :, 0] = 5000
    outcomes, sources = apply_pool(made(tokens=tokens), Pool({"large": priced(output_tokens=0)}))
    np.testing.assert_allclose(outcomes.costs[:, 0], 0.005)
    assert sources["large"]["estimate"] == 3


def test_what_is_free_costs_nothing_whatever_its_length() -> None:
    free = PoolEntry(input_usd_per_million=0.0, output_usd_per_million=0.0)
    outcomes, sources = apply_pool(made(), Pool({"large": free}))
    np.testing.assert_array_equal(outcomes.costs[:, 0], 0)
    assert sources["large"] == {"data": 0, "token_counts": 3, "estimate": 0, "unknown": 0}


def test_efforts_have_costs_of_their_own() -> None:
    entries = {"m": priced(), "m@low": PoolEntry(output_tokens=10), "m@high": PoolEntry(output_tokens=1000)}
    outcomes, _ = apply_pool(made(models=("m@low", "m@high")), Pool(entries))
    assert (outcomes.costs[0] * 1e6 - count_tokens(outcomes.queries[:1])).tolist() == pytest.approx(
        [100, 10_000]
    )


def test_a_pool_that_names_a_model_which_the_data_lack() -> None:
    with pytest.raises(DataError, match="the model 'huge' is not in the data; there are large, small"):
        apply_pool(made(), Pool({"large": priced(), "huge": priced()}))
    with pytest.raises(DataError, match="the model 'large@high' is not in the data"):
        apply_pool(made(), Pool({"large@high": priced()}))


def test_counted_tokens_are_at_least_one_and_not_cut() -> None:
    counts = count_tokens(["one two three", "\U0001f642", "", "x" * 10_000, "word " * 5000] * 100)
    assert counts[:5].tolist() == [3, 1, 1, 1, 5000]
    assert counts[-1] == 5000
    assert count_tokens([]).shape == (0,)


# Requirements before the router knows the tags.


def test_requirements_become_names() -> None:
    pool = Pool(
        {
            "a": PoolEntry(tags=frozenset({"vision"}), context_length=8000),
            "b": PoolEntry(tags=frozenset({"vision"}), context_length=200_000),
        }
    )
    names = ("a", "b", "c")
    for require, wanted in (
        ({"vision"}, {"a", "b"}),
        ({"vision", "context>=10000"}, {"b"}),
        ({"context>= 8000"}, {"a", "b"}),
    ):
        policy = requirements_as_names(Policy(require=require, alpha=0.5), pool, names)
        assert policy == Policy(allow=wanted, alpha=0.5)
    policy = Policy(require={"vision"}, allow={"b", "c"})
    assert requirements_as_names(policy, pool, names) == Policy(allow={"b"})
    for untouched in (
        Policy(alpha=1.0),
        Policy(require={"audio"}),
        Policy(require={"context>=much"}),
        Policy(require={"vision"}, allow={"c"}),
    ):
        assert requirements_as_names(untouched, pool, names) == untouched


# On the command line.

POOL = """
[models."{0}"]
input_usd_per_million = 2
output_usd_per_million = 8
output_tokens = 100
tags = ["vision"]
context_length = 128000
[models."{1}"]
input_usd_per_million = 0.1
output_usd_per_million = 0.4
output_tokens = 100
"""


@pytest.fixture(scope="module")
def costless(outcomes: Outcomes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("costless") / "data.jsonl"
    without = Outcomes(
        queries=outcomes.queries,
        models=outcomes.models,
        scores=outcomes.scores,
        costs=np.full_like(outcomes.costs, NAN),
        datasets=outcomes.datasets,
        ids=outcomes.ids,
    )
    write_jsonl(without, file)
    return file


def test_a_pool_reaches_report_and_router(
    cli: Any, costless: Path, outcomes: Outcomes, toml: Text, tmp_path: Path
) -> None:
    first, second = outcomes.models[:2]
    path = toml(POOL.format(first, second))
    file = tmp_path / "router.safetensors"
    flags = ("--clusters", 2, "--method", "means", "--pool", path)
    finished = cli("calibrate", costless, "-o", file, *flags, "--default-policy", "require=vision")
    assert (finished.code, finished.err) == (0, "")
    told = "costs estimated from prices, counted input tokens and stated lengths: "
    assert f"  {told}{first}, {second}; unknown: {outcomes.models[2]}" in finished.out

    artifact = Artifact.load(file)
    counts = artifact.report["cost_sources"]
    assert isinstance(counts, dict)
    n_scores = int((~np.isnan(outcomes.scores[:, 0])).sum())
    assert counts[first] == {"data": 0, "token_counts": 0, "estimate": n_scores, "unknown": 0}
    assert artifact.models[0].tags == {"vision"}
    assert artifact.models[0].context_length == 128_000
    assert artifact.default_policy == Policy(require={"vision"})
    assert np.isnan(artifact.cost[:, 2]).all()
    assert (artifact.cost[:, 0] > 100 * 8e-6).all()

    router = Router.load(file)
    assert router.route("Name a river").model == first
    assert router.route("Name a river", policy=Policy(require={"context>=100000"})).model == first
    refused = cli("route", file, "Name a river", "--require", "audio")
    refused.assert_refused("no model is left", "audio")


def test_the_source_of_every_cost_is_in_the_report_without_a_pool(
    cli: Any, outcomes_file: Path, outcomes: Outcomes, tmp_path: Path
) -> None:
    file = tmp_path / "router.safetensors"
    finished = cli("calibrate", outcomes_file, "-o", file, "--clusters", 2, "--method", "means")
    assert finished.code == 0
    counts = Artifact.load(file).report["cost_sources"]
    assert isinstance(counts, dict)
    assert set(counts) == set(outcomes.models)
    for column, name in enumerate(outcomes.models):
        assert counts[name]["data"] == int((~np.isnan(outcomes.costs[:, column])).sum())  # type: ignore[index, call-overload]


def test_efforts_are_chosen_between(cli: Any, toml: Text, tmp_path: Path, outcomes: Outcomes) -> None:
    data = tmp_path / "data.jsonl"
    lines = [
        {"query": query, "scores": {"m@low": row % 2, "m@high": 1}}
        for row, query in enumerate(outcomes.queries)
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = toml(
        "[models.m]\ninput_usd_per_million = 1\noutput_usd_per_million = 10\n"
        '[models."m@low"]\noutput_tokens = 50\n[models."m@high"]\noutput_tokens = 5000\n'
    )
    file, figures = tmp_path / "router.safetensors", tmp_path / "figures.json"
    assert cli("calibrate", data, "-o", file, "--clusters", 1, "--method", "means", "--pool", path).code == 0
    router = Router.load(file)
    assert router.route("Name a river", policy=Policy(willingness_to_pay=1.0)).model == "m@high"
    assert router.route("Name a river", policy=Policy(willingness_to_pay=0.01)).model == "m@low"
    assert router.route("Name a river", policy=Policy(require={"effort=low"})).model == "m@low"
    finished = cli("evaluate", file, data, "--pool", path, "--json", figures)
    assert (finished.code, finished.err) == (0, "")
    assert "costs estimated from prices" in finished.out
    found = json.loads(figures.read_text())
    assert {model["name"] for model in found["models"]} == {"m@low", "m@high"}
    spent = [point["mean_cost_usd"] for point in found["frontier"]]
    assert (spent[0], spent[-1]) == pytest.approx((0.0005, 0.05), rel=0.1), "from one effort to the other"
    assert cli("evaluate", file, data, "--json", figures).code == 0
    assert json.loads(figures.read_text())["mean_cost_usd"] is None, "unknown without prices"


def test_bad_pools_are_refused_before_the_long_work(
    cli: Any,
    outcomes_file: Path,
    router_file: Path,
    toml: Text,
    tmp_path: Path,
    unchanged: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("centroute.cli.calibrate.calibrate", lambda *_, **__: pytest.fail("began"))
    path = toml("[models.nobody]\ncontext_length = 5\n")
    with unchanged(tmp_path):
        finished = cli("calibrate", outcomes_file, "-o", tmp_path / "r", "--pool", path)
        checked = cli("calibrate", outcomes_file, "--check", "--pool", path)
        missing = cli("calibrate", outcomes_file, "-o", tmp_path / "r", "--pool", tmp_path / "none.toml")
        measured = cli("evaluate", router_file, outcomes_file, "--pool", path)
    measured.assert_refused(str(path), "'nobody'")
    finished.assert_refused(str(path), "'nobody'", "crumb-mini")
    checked.assert_refused(str(path), "'nobody'")
    missing.assert_refused("none.toml", "No such file")


def test_costs_of_some_models_with_a_policy_that_needs_them(
    cli: Any, costless: Path, outcomes: Outcomes, toml: Text, tmp_path: Path, unchanged: Any
) -> None:
    path = toml(POOL.format(*outcomes.models[:2]))
    flags = ("--clusters", 2, "--method", "means", "--pool", path)
    with unchanged(tmp_path):
        finished = cli(
            "calibrate", costless, "-o", tmp_path / "r", *flags, "--default-policy", "willingness-to-pay=0.01"
        )
    finished.assert_refused("willingness_to_pay", *outcomes.models[2:])


def test_check_with_a_pool(cli: Any, costless: Path, outcomes: Outcomes, toml: Text) -> None:
    finished = cli("calibrate", costless, "--check", "--pool", toml(POOL.format(*outcomes.models[:2])))
    assert (finished.code, finished.err) == (0, "")
    assert "costs estimated from prices" in finished.out
