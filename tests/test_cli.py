"""The command line: what it writes where, its exit codes, and its flags."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from centroute import Artifact, Policy, Router, __version__
from centroute.artifact import PoolModel
from centroute.datasets import Outcomes, example_queries, read_outcomes, write_jsonl
from centroute.evaluate import evaluate

Unchanged = Callable[[Path], AbstractContextManager[None]]

QUERY = "Write a Python function that reverses a linked list."
QUERIES = (QUERY, "Translate into French: where is the station?", "What is the capital of Peru?")

# As the design names them.
ROUTE_KEYS = {
    "model", "quality", "quality_se", "cost_usd", "margin", "resolved", "similarity", "in_distribution",
    "clusters", "ranking", "generation",
}  # fmt: skip
EVALUATE_KEYS = {
    "n_queries", "n_left_out", "accuracy", "mean_cost_usd", "best_single", "oracle", "random",
    "headroom_captured", "models", "frontier", "budgets", "interval_95", "metrics", "gain_over_best_single",
    "macro_accuracy", "datasets", "best_per_dataset", "alpha_rule", "knn", "avengers_pro", "calibration",
    "axes",
}  # fmt: skip
POLICY_FLAGS = (
    "--alpha", "--willingness-to-pay", "--max-mean-cost", "--min-quality", "--max-cost", "--allow", "--deny",
    "--require",
)  # fmt: skip
OPTIONS = {
    "demo": ("--output", "--data"),
    "calibrate": (
        "--output", "--embedder", "--method", "--clusters", "--top-p", "--holdout", "--seed", "--no-refit",
        "--default-policy",
    ),
    "evaluate": ("--json", "--report", "--plot", "--calibration", *POLICY_FLAGS),
    "route": ("--json", "--n-models", *POLICY_FLAGS),
    "plan": ("--json", "--roles", *POLICY_FLAGS),
    "inspect": ("--json",),
}  # fmt: skip


class Run(Protocol):
    """A run of the command line, in this process or another."""

    def __call__(self, *arguments: object, stdin: bytes = b"", **more: Any) -> Any: ...


@pytest.fixture(scope="session")
def router(router_file: Path) -> Router:
    return Router.load(router_file)


@pytest.fixture(scope="session")
def calibrated(cli: Run, outcomes_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Router file that the command wrote."""
    file = tmp_path_factory.mktemp("calibrated") / "router.safetensors"
    finished = cli("calibrate", outcomes_file, "-o", file, "--clusters", 6, "--method", "means")
    assert finished.code == 0, finished.err
    return file


def quiet(finished: Any) -> str:
    """Standard output of a run that did what it should and had nothing to tell."""
    assert finished.code == 0, finished.err
    assert finished.err == ""
    assert "\x1b" not in finished.out
    assert "\r" not in finished.out
    text: str = finished.out
    return text


# Calibrate.


def test_calibrate_reports_and_writes(
    process: Run, outcomes_file: Path, tmp_path: Path, calibrated: Path
) -> None:
    out = quiet(
        process(
            "calibrate",
            outcomes_file,
            "-o",
            "r.safetensors",
            "--clusters",
            6,
            "--method",
            "means",
            cwd=tmp_path,
        )
    )
    for word in (
        "240 queries",
        "6 models",
        "6 clusters",
        "holdout",
        "72 queries",
        "centroute",
        "best single",
        "oracle",
    ):
        assert word in out
    assert "wrote r.safetensors" in out
    assert [file.name for file in tmp_path.iterdir()] == ["r.safetensors"]
    assert (tmp_path / "r.safetensors").read_bytes() == calibrated.read_bytes()


def test_calibrate_refits_on_all_rows(calibrated: Path) -> None:
    loaded = Artifact.load(calibrated)
    assert loaded.report["n_calibration"] == 168
    assert loaded.report["n_holdout"] == 72
    assert loaded.report["measured_on"] == "holdout"
    assert loaded.report["refit"] is True
    assert loaded.count.sum() == 240 * 6


def test_no_refit_keeps_the_first_fit(
    cli: Run, outcomes_file: Path, calibrated: Path, tmp_path: Path
) -> None:
    file = tmp_path / "router.safetensors"
    quiet(cli("calibrate", outcomes_file, "-o", file, "--clusters", 6, "--method", "means", "--no-refit"))
    loaded, refitted = Artifact.load(file), Artifact.load(calibrated)
    assert loaded.report["refit"] is False
    assert loaded.count.sum() == 168 * 6
    assert loaded.report["evaluation"] == refitted.report["evaluation"]


def test_no_holdout_is_told(cli: Run, outcomes_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "router.safetensors"
    out = quiet(cli("calibrate", outcomes_file, "-o", file, "--clusters", 3, "--holdout", 0))
    assert "calibration data itself" in " ".join(out.split())
    loaded = Artifact.load(file)
    assert loaded.report["n_holdout"] == 0
    assert loaded.report["measured_on"] == "calibration"
    assert loaded.count.sum() == 240 * 6


def test_settings_that_are_given_are_taken(cli: Run, outcomes_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "router.safetensors"
    quiet(
        cli(
            "calibrate",
            outcomes_file,
            "-o",
            file,
            "--clusters",
            5,
            "--top-p",
            3,
            "--beta",
            12.5,
            "--holdout",
            0.5,
            "--surface-weight",
            0.25,
        )
    )
    loaded = Artifact.load(file)
    assert loaded.centroids.shape == (5, 268)
    assert loaded.embedder.surface is not None
    assert loaded.embedder.surface.weight == 0.25
    assert (loaded.top_p, loaded.beta) == (3, 12.5)
    assert loaded.report["n_holdout"] == 120


def test_avengers_pro_is_as_published(cli: Run, outcomes_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "router.safetensors"
    quiet(cli("calibrate", outcomes_file, "-o", file, "--method", "avengers-pro"))
    loaded = Artifact.load(file)
    assert loaded.method["name"] == "avengers-pro"
    assert len(loaded.centroids) == 60
    assert (loaded.top_p, loaded.beta, loaded.ood_threshold) == (4, 9.0, None)


def test_auto_chooses_by_itself(cli: Run, outcomes_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "router.safetensors"
    quiet(cli("calibrate", outcomes_file, "-o", file))
    loaded = Artifact.load(file)
    assert loaded.method["requested"] == "auto"
    assert loaded.report["tried"]


def test_the_same_seed_gives_the_same_bytes(
    process: Run, outcomes_file: Path, tmp_path: Path, calibrated: Path
) -> None:
    # In another process with another hash seed, so that no order of a set or dict can matter.
    finished = process(
        "calibrate", outcomes_file, "-o", tmp_path / "again", "--clusters", 6, "--method", "means",
        environment={"PYTHONHASHSEED": "12345"},
    )  # fmt: skip
    assert finished.code == 0
    assert (tmp_path / "again").read_bytes() == calibrated.read_bytes()


def test_another_seed_gives_another_fit(
    cli: Run, outcomes_file: Path, calibrated: Path, tmp_path: Path
) -> None:
    quiet(
        cli(
            "calibrate",
            outcomes_file,
            "-o",
            tmp_path / "other",
            "--clusters",
            6,
            "--method",
            "means",
            "--seed",
            1,
        )
    )
    loaded, first = Artifact.load(tmp_path / "other"), Artifact.load(calibrated)
    assert loaded.report["seed"] == 1
    assert not np.array_equal(loaded.centroids, first.centroids)


def test_compressed_data_gives_the_same_file(
    cli: Run, outcomes: Outcomes, calibrated: Path, tmp_path: Path
) -> None:
    write_jsonl(outcomes, tmp_path / "data.jsonl.gz")
    file = tmp_path / "router.safetensors"
    quiet(cli("calibrate", tmp_path / "data.jsonl.gz", "-o", file, "--clusters", 6, "--method", "means"))
    assert file.read_bytes() == calibrated.read_bytes()


def test_calibrate_replaces_an_older_file(
    cli: Run, outcomes_file: Path, calibrated: Path, tmp_path: Path
) -> None:
    file = tmp_path / "router.safetensors"
    file.write_bytes(b"old")
    quiet(cli("calibrate", outcomes_file, "-o", file, "--clusters", 6, "--method", "means"))
    assert file.read_bytes() == calibrated.read_bytes()
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("willingness-to-pay=0.002; deny=crumb-mini,pebble-fair", Policy(
            willingness_to_pay=0.002, deny={"crumb-mini", "pebble-fair"})),
        ("alpha=0", Policy(alpha=0.0)),
        (" min_quality = 0.5 ;; max_cost=0.01 ;", Policy(min_quality=0.5, max_cost=0.01)),
        ("allow=crumb-mini; fallback=crumb-mini", Policy(allow={"crumb-mini"}, fallback="crumb-mini")),
        ("max-mean-cost=0.003", Policy(max_mean_cost=0.003)),
    ],
)  # fmt: skip
def test_the_default_policy_is_stored_and_used(
    text: str, policy: Policy, cli: Run, outcomes_file: Path, router: Router, tmp_path: Path
) -> None:
    file = tmp_path / "router.safetensors"
    common = (
        "calibrate",
        outcomes_file,
        "-o",
        file,
        "--method",
        "means",
        "--clusters",
        6,
        "--top-p",
        2,
        "--beta",
        9,
        "--surface-weight",
        0,
    )
    quiet(cli(*common, "--default-policy", text))
    assert Artifact.load(file).default_policy == policy
    for query in QUERIES:
        (row,) = cli("route", file, query, "--json").rows
        # `router` has the same tables and no default.
        assert row["model"] == router.route(query, policy=policy).model
    described = json.loads(quiet(cli("inspect", file, "--json")))
    assert described["default_policy"]


def test_a_query_that_the_embedder_does_not_know_is_left_out_and_told(
    cli: Run, outcomes_file: Path, tmp_path: Path
) -> None:
    data, file = tmp_path / "data.jsonl", tmp_path / "router.safetensors"
    data.write_text(
        outcomes_file.read_text() + '{"query": "\U0001f642", "scores": {"crumb-mini": 1}}\n', encoding="utf-8"
    )
    out = quiet(cli("calibrate", data, "-o", file, "--clusters", 3, "--method", "means"))
    assert "left out: 1 quer" in " ".join(out.split())
    assert Artifact.load(file).report["n_left_out"] == 1
    finished = cli("evaluate", file, data, "--json", tmp_path / "figures.json")
    assert finished.code == 0
    assert finished.err.startswith("centroute: 1 quer")
    assert json.loads((tmp_path / "figures.json").read_text())["n_left_out"] == 1


def test_a_path_with_square_brackets_is_told_as_it_is(cli: Run, outcomes_file: Path, tmp_path: Path) -> None:
    finished = cli(
        "calibrate", outcomes_file, "-o", tmp_path / "[red]r", "--clusters", 2, "--method", "means"
    )
    assert finished.code == 0
    assert "[red]r" in finished.out.replace("\n", "")


@pytest.mark.parametrize("name", ["crumb[mini]", "crumb[/b]", ":cat:"])
def test_a_model_name_is_shown_as_it_is(name: str, cli: Run, artifact: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "router.safetensors"
    replace(artifact, models=(PoolModel(name), *artifact.models[1:])).save(file)
    assert name in cli("inspect", file).out


def test_a_long_path_is_told_on_one_line(process: Run, outcomes_file: Path, tmp_path: Path) -> None:
    file = tmp_path / ("long " * 30 + "name")
    out = quiet(process("calibrate", outcomes_file, "-o", file, "--clusters", 2, "--method", "means"))
    assert f"wrote {file} (" in out


# Evaluate.


def test_evaluate_json_has_the_keys_of_the_design(
    cli: Run, router_file: Path, outcomes_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    quiet(cli("evaluate", router_file, outcomes_file, "--json", file))
    figures = json.loads(file.read_text())
    assert set(figures) == EVALUATE_KEYS
    assert set(figures["best_single"]) == {"model", "accuracy", "mean_cost_usd"}
    assert [set(model) for model in figures["models"]] == [{"name", "accuracy", "mean_cost_usd", "share"}] * 6
    assert set(figures["oracle"]) == set(figures["random"]) == {"accuracy", "mean_cost_usd"}
    assert figures["frontier"]
    for point in figures["frontier"]:
        assert set(point) == {"willingness_to_pay", "accuracy", "mean_cost_usd"}
    assert set(figures["interval_95"]) == {"accuracy", "mean_cost_usd"}
    low, high = figures["interval_95"]["accuracy"]
    assert low <= figures["accuracy"] <= high
    assert list(tmp_path.iterdir()) == [file]


def test_evaluate_json_is_what_the_library_measures(
    cli: Run, router: Router, router_file: Path, outcomes: Outcomes, outcomes_file: Path
) -> None:
    finished = cli("evaluate", router_file, outcomes_file, "--json", "-", "--willingness-to-pay", 0.002)
    measured = evaluate(router, outcomes, policy=Policy(willingness_to_pay=0.002)).to_json()
    assert json.loads(quiet(finished)) == json.loads(json.dumps(measured))


def test_evaluate_json_on_stdout_is_pure(
    process: Run, router_file: Path, outcomes_file: Path, tmp_path: Path
) -> None:
    out = quiet(process("evaluate", router_file, outcomes_file, "--json", "-", cwd=tmp_path))
    assert json.loads(out)["n_queries"] == 240
    assert list(tmp_path.iterdir()) == []


def test_evaluate_shows_the_figures(process: Run, router_file: Path, outcomes_file: Path) -> None:
    out = quiet(process("evaluate", router_file, outcomes_file))
    for word in ("240 queries", "centroute", "best single", "oracle", "Frontier", "●"):
        assert word in out
    assert max(len(line) for line in out.splitlines()) <= 200


def test_evaluate_takes_policy_flags(cli: Run, router_file: Path, outcomes_file: Path) -> None:
    def shares(*flags: object) -> dict[str, float]:
        figures = json.loads(quiet(cli("evaluate", router_file, outcomes_file, "--json", "-", *flags)))
        return {model["name"]: model["share"] for model in figures["models"] if model["share"]}

    assert shares("--alpha", 0) == shares("--willingness-to-pay", 0) == {"crumb-mini": 1.0}
    assert set(shares("--allow", "pebble-fair,crumb-mini")) <= {"pebble-fair", "crumb-mini"}
    assert "oakhollow-grand" in shares()
    assert "oakhollow-grand" not in shares("--deny", "oakhollow-grand")


def test_without_costs_figures_are_null_and_never_zero(
    cli: Run, outcomes: Outcomes, outcomes_file: Path, router_file: Path, tmp_path: Path
) -> None:
    data, file = tmp_path / "data.jsonl", tmp_path / "router.safetensors"
    write_jsonl(replace(outcomes, costs=np.full_like(outcomes.costs, np.nan)), data)
    out = quiet(cli("calibrate", data, "-o", file, "--clusters", 3, "--method", "means"))
    assert "unknown" in out
    assert "$0" not in out
    # Neither router nor data knows a cost; the data alone does; the router alone does.
    for chosen, observed in ((file, data), (router_file, data)):
        figures = json.loads(quiet(cli("evaluate", chosen, observed, "--json", "-")))
        costs = [figures[name]["mean_cost_usd"] for name in ("best_single", "oracle", "random")]
        assert [figures["mean_cost_usd"], *costs, figures["interval_95"]["mean_cost_usd"]] == [None] * 5
        assert figures["frontier"] == []
    figures = json.loads(quiet(cli("evaluate", file, outcomes_file, "--json", "-")))
    assert figures["mean_cost_usd"] > 0
    assert figures["frontier"] == []
    (row,) = cli("route", file, QUERY, "--json").rows
    assert row["cost_usd"] is None
    assert "cost unknown" in cli("route", file, QUERY).out


def test_data_may_lack_models_and_have_others(
    cli: Run, outcomes: Outcomes, router_file: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data.jsonl"
    renamed = ("oakhollow-grand", "newcomer", *outcomes.models[2:])
    write_jsonl(replace(outcomes, models=renamed), data)
    figures = json.loads(quiet(cli("evaluate", router_file, data, "--json", "-")))
    by_name = {model["name"]: model for model in figures["models"]}
    assert "newcomer" not in by_name
    assert by_name["tinsmith-code"]["accuracy"] is None
    assert by_name["tinsmith-code"]["mean_cost_usd"] is None


# Route.


def test_route_json_has_the_keys_of_the_design(cli: Run, router_file: Path, router: Router) -> None:
    finished = cli("route", router_file, *QUERIES, "--json")
    quiet(finished)
    assert len(finished.rows) == len(QUERIES)
    for query, row in zip(QUERIES, finished.rows, strict=True):
        decision = router.route(query)
        assert set(row) == ROUTE_KEYS
        assert row["model"] == decision.model == row["ranking"][0]
        assert row["ranking"] == list(decision.ranking)
        assert row["quality"] == decision.quality
        assert row["cost_usd"] == decision.cost
        assert row["in_distribution"] is decision.in_distribution
        assert row["generation"] == 1
        assert [set(cluster) for cluster in row["clusters"]] == [{"id", "weight"}] * 2
        assert sum(cluster["weight"] for cluster in row["clusters"]) == pytest.approx(1)


def test_route_explains_itself(process: Run, router_file: Path, router: Router) -> None:
    out = quiet(process("route", router_file, QUERY))
    assert out.startswith(f"› {QUERY}\n{router.route(QUERY).model}  quality 0.")
    assert len(out.splitlines()) == 3


def test_the_only_candidate_has_no_margin(cli: Run, router_file: Path) -> None:
    (row,) = cli("route", router_file, QUERY, "--json", "--allow", "crumb-mini").rows
    assert row["margin"] is None
    assert row["ranking"] == ["crumb-mini"]
    assert "no second candidate" in cli("route", router_file, QUERY, "--allow", "crumb-mini").out


def test_a_query_is_shown_as_it_was_given(cli: Run, router_file: Path) -> None:
    finished = cli("route", router_file, "is [bold]x[/bold] in a[0] or b[/i]")
    assert "is [bold]x[/bold] in a[0] or b[/i]" in " ".join(finished.out.split())


def test_a_name_between_colons_is_shown_as_it_was_given(cli: Run, router_file: Path) -> None:
    assert "feed the :cat: now" in cli("route", router_file, "feed the :cat: now").out


def test_control_characters_of_a_query_do_not_reach_the_terminal(cli: Run, router_file: Path) -> None:
    finished = cli("route", router_file, "a \x1b[31mred\x1b]0;title\x07 word \x9b1m")
    assert finished.code == 0
    assert not {"\x1b", "\x07", "\x9b"} & set(finished.out)


def test_stdin_is_a_query_a_line(cli: Run, router_file: Path, router: Router) -> None:
    finished = cli("route", router_file, "--json", stdin="\r\n".join(QUERIES).encode())
    quiet(finished)
    assert [row["model"] for row in finished.rows] == [router.route(query).model for query in QUERIES]


def test_stdin_answers_each_line_as_it_comes(
    command: str, router_file: Path, plain_environment: dict[str, str]
) -> None:
    arguments = [command, "route", str(router_file), "--json"]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=plain_environment
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        for query in QUERIES:
            running.stdin.write(query.encode() + b"\n")
            running.stdin.flush()
            assert set(json.loads(running.stdout.readline())) == ROUTE_KEYS
        running.stdin.close()
        assert running.wait(timeout=30) == 0


def test_faulty_lines_are_told_and_the_others_answered(process: Run, router_file: Path) -> None:
    finished = process("route", router_file, stdin=f"{QUERY}\n   \nhello there\n\nlast one".encode())
    assert finished.code == 1
    shown = [line for line in finished.out.splitlines() if line.startswith("›")]
    assert shown == [f"› {QUERY}", "› hello there", "› last one"]
    told = finished.err.splitlines()
    assert [line.split(" holds ")[0].rstrip(":") for line in told] == [
        "centroute: stdin line 2",
        "centroute: stdin line 4",
    ]


def test_faulty_lines_keep_the_answers_beside_their_questions(cli: Run, router_file: Path) -> None:
    finished = cli("route", router_file, "--json", stdin=b"one\n \nthree\n")
    assert finished.code == 1
    assert [set(row) == ROUTE_KEYS for row in finished.rows] == [True, False, True]
    assert set(finished.rows[1]) == {"error"}
    assert "line 2" in finished.rows[1]["error"]


def test_empty_stdin_answers_nothing(cli: Run, router_file: Path) -> None:
    assert quiet(cli("route", router_file, "--json")) == ""


def test_a_faulty_text_is_told_by_its_place(cli: Run, router_file: Path) -> None:
    finished = cli("route", router_file, "one", "two", " ", "four")
    assert finished.code == 1
    assert "text 0" not in finished.err


# Policy flags.


def routed(cli: Run, file: Path, *flags: object) -> dict[str, Any]:
    finished = cli("route", file, QUERY, "--json", *flags)
    quiet(finished)
    (row,) = finished.rows
    return dict(row)


@pytest.mark.parametrize(
    ("flags", "policy"),
    [
        (("--alpha", "0"), Policy(alpha=0.0)),
        (("--alpha", "0.3"), Policy(alpha=0.3)),
        (("--alpha", "1"), Policy(alpha=1.0)),
        (("--willingness-to-pay", "0"), Policy(willingness_to_pay=0.0)),
        (("--willingness-to-pay", "1e-3"), Policy(willingness_to_pay=0.001)),
        (("--max-mean-cost", "0.002"), Policy(max_mean_cost=0.002)),
        (("--min-quality", "0.4"), Policy(min_quality=0.4)),
        (("--max-cost", "0.001"), Policy(max_cost=0.001)),
        (("--max-cost", "0.001", "--alpha", "0.9"), Policy(max_cost=0.001, alpha=0.9)),
        (("--allow", "crumb-mini,pebble-fair"), Policy(allow={"crumb-mini", "pebble-fair"})),
        (("--allow", "crumb-mini", "--allow", "pebble-fair"), Policy(allow={"crumb-mini", "pebble-fair"})),
        (("--deny", " oakhollow-grand , crumb-mini,"), Policy(deny={"oakhollow-grand", "crumb-mini"})),
        (
            ("--deny", "oakhollow-grand,crumb-mini", "--deny", "tinsmith-code"),
            Policy(deny={"oakhollow-grand", "crumb-mini", "tinsmith-code"}),
        ),
        (("--deny=crumb-mini", "--min-quality=0"), Policy(deny={"crumb-mini"}, min_quality=0.0)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_policy_flag(
    flags: tuple[str, ...], policy: Policy, cli: Run, router_file: Path, router: Router
) -> None:
    row, decision = routed(cli, router_file, *flags), router.route(QUERY, policy=policy)
    assert row["model"] == decision.model
    assert row["ranking"] == list(decision.ranking)


def test_policy_flags_do_what_they_say(cli: Run, router_file: Path, outcomes: Outcomes) -> None:
    assert routed(cli, router_file, "--alpha", 0)["model"] == "crumb-mini"
    assert routed(cli, router_file, "--max-cost", 0.001)["cost_usd"] <= 0.001
    assert routed(cli, router_file, "--min-quality", 0.4)["quality"] >= 0.4
    assert set(routed(cli, router_file, "--deny", "crumb-mini")["ranking"]) == set(outcomes.models) - {
        "crumb-mini"
    }


def test_require_looks_at_tags_and_context_length(cli: Run, artifact: Artifact, tmp_path: Path) -> None:
    tagged = {
        "oakhollow-grand": PoolModel(
            "oakhollow-grand", tags=frozenset({"vision", "tools"}), context_length=1000
        ),
        "pebble-fair": PoolModel("pebble-fair", tags=frozenset({"vision"}), context_length=200_000),
        "crumb-mini": PoolModel("crumb-mini", tags=frozenset({"tools"})),
    }
    file = tmp_path / "router.safetensors"
    replace(artifact, models=tuple(tagged.get(model.name, model) for model in artifact.models)).save(file)
    for flags, wanted in (
        (("--require", "vision"), {"oakhollow-grand", "pebble-fair"}),
        (("--require", "vision,tools"), {"oakhollow-grand"}),
        (("--require", "vision", "--require", "tools"), {"oakhollow-grand"}),
        (("--require", "context>=1001"), {"pebble-fair"}),
        (("--require", "context>=1000", "--require", "vision"), {"oakhollow-grand", "pebble-fair"}),
    ):
        assert set(routed(cli, file, *flags)["ranking"]) == wanted


def test_a_model_name_with_a_comma_is_one_name(cli: Run, artifact: Artifact, tmp_path: Path) -> None:
    models = (PoolModel("grand, the"), *artifact.models[1:])
    file = tmp_path / "router.safetensors"
    replace(artifact, models=models).save(file)
    assert routed(cli, file, "--allow", "grand, the")["ranking"] == ["grand, the"]


# Inspect.


def test_inspect_json_describes_the_file(cli: Run, router_file: Path, artifact: Artifact) -> None:
    described = json.loads(quiet(cli("inspect", router_file, "--json")))
    assert described["file"] == str(router_file)
    assert described["bytes"] == router_file.stat().st_size
    assert described["format_version"] == 1
    assert [model["name"] for model in described["models"]] == [model.name for model in artifact.models]
    assert described["top_p"] == 2
    assert described["embedder"]["fingerprint"] == artifact.embedder.fingerprint
    assert described["tensors"]["centroids"] == [6, 256]
    assert described["report"]["n_queries"] == 240


def test_inspect_shows_pool_and_provenance(process: Run, router_file: Path, artifact: Artifact) -> None:
    out = quiet(process("inspect", router_file.name, cwd=router_file.parent))
    for model in artifact.models:
        assert model.name in out
    for word in ("static-256", "6, top-p 2, beta 9", "means", "quality first", "holdout", "format version 1"):
        assert word in out


# Pipes, usage and help.


@pytest.fixture(scope="session")
def many_queries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough of them that the answers overflow a pipe."""
    file = tmp_path_factory.mktemp("queries") / "queries"
    file.write_text(f"{QUERY}\n" * 2000)
    return file


def test_head_leaves_no_traceback(
    command: str, router_file: Path, many_queries: Path, plain_environment: dict[str, str]
) -> None:
    arguments = [command, "route", str(router_file), "--json"]
    with (
        many_queries.open("rb") as queries,
        subprocess.Popen(
            arguments, stdin=queries, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=plain_environment
        ) as running,
    ):
        assert running.stdout is not None
        assert running.stderr is not None
        assert set(json.loads(running.stdout.readline())) == ROUTE_KEYS
        running.stdout.close()
        told = running.stderr.read()
        running.wait(timeout=30)
    assert told == b""
    assert running.returncode in (0, 1)


@pytest.fixture
def closed_pipe() -> Iterator[int]:
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("what", ["route", "inspect", "evaluate"])
def test_nobody_reads(
    what: str,
    command: str,
    router_file: Path,
    outcomes_file: Path,
    closed_pipe: int,
    plain_environment: dict[str, str],
) -> None:
    arguments = {"route": (QUERY,), "inspect": ("--json",), "evaluate": (str(outcomes_file), "--json", "-")}[
        what
    ]
    finished = subprocess.run(
        [command, what, str(router_file), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=closed_pipe,
        stderr=subprocess.PIPE,
        env=plain_environment,
        timeout=60,
        check=False,
    )
    assert finished.stderr == b""
    assert finished.returncode in (0, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_behind_stdout_is_one_line(
    command: str, router_file: Path, plain_environment: dict[str, str]
) -> None:
    with Path("/dev/full").open("wb") as full:
        finished = subprocess.run(
            [command, "inspect", str(router_file), "--json"],
            stdout=full, stderr=subprocess.PIPE, env=plain_environment, timeout=60, check=False,
        )  # fmt: skip
    assert finished.returncode == 1
    assert len(finished.stderr.splitlines()) == 1


def test_a_terminal_that_knows_only_ascii_gets_an_answer(process: Run, router_file: Path) -> None:
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    finished = process("route", router_file, "caf\u00e9 \U0001f642", environment=environment)
    assert finished.code == 0, finished.err
    assert "Traceback" not in finished.err


def test_version(process: Run) -> None:
    assert quiet(process("--version")) == f"centroute {__version__}\n"


@pytest.mark.parametrize("command_name", OPTIONS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_option(
    command_name: str, flag: str, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    finished = cli(command_name, flag)
    assert finished.code == 0
    assert finished.err == ""
    for option in (*OPTIONS[command_name], "--help"):
        assert option in finished.out


def test_help_names_every_command(cli: Run) -> None:
    finished = cli("--help")
    assert finished.code == 0
    for name in (*OPTIONS, "--version"):
        assert name in finished.out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("route",), "ROUTER"),
        (("inspect",), "ROUTER"),
        (("evaluate", "r"), "DATA"),
        (("calibrate", "d"), "output"),
        (("calibrate", "-o", "r"), "DATA"),
        (("nonsense",), "nonsense"),
        (("inspect", "r", "--nonsense"), "--nonsense"),
        (("route", "r", "x", "--alpha", "much"), "--alpha"),
        (("calibrate", "d", "-o", "r", "--clusters", "0"), "--clusters"),
        (("calibrate", "d", "-o", "r", "--clusters", "many"), "--clusters"),
        (("calibrate", "d", "-o", "r", "--clusters", "-3"), "--clusters"),
        (("calibrate", "d", "-o", "r", "--top-p", "0"), "--top-p"),
        (("calibrate", "d", "-o", "r", "--seed", "-1"), "--seed"),
        (("calibrate", "d", "-o", "r", "--beta", "-1"), "--beta"),
        (("calibrate", "d", "-o", "r", "--holdout", "1"), "--holdout"),
        (("calibrate", "d", "-o", "r", "--holdout", "-0.1"), "--holdout"),
        (("calibrate", "d", "-o", "r", "--method", "magic"), "--method"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage(
    arguments: tuple[str, ...],
    named: str,
    cli: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unchanged: Unchanged,
) -> None:
    monkeypatch.chdir(tmp_path)
    with unchanged(tmp_path):
        cli(*arguments).assert_wrong_usage(named)


def test_wrong_usage_as_a_process(process: Run) -> None:
    process("route").assert_wrong_usage("ROUTER")


# Demo.


def test_demo_shows_the_whole_path(process: Run, tmp_path: Path) -> None:
    out = quiet(process("demo", "-o", "router.safetensors", "--data", "sample.jsonl", cwd=tmp_path))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["router.safetensors", "sample.jsonl"]
    assert "synthetic" in out.lower()
    for word in ("centroute", "best single", "oracle", "●", "└──"):
        assert word in out
    flat = " ".join(out.split())
    for query in example_queries():
        assert flat.count(query) == 2
    sample, router = read_outcomes(tmp_path / "sample.jsonl"), Router.load(tmp_path / "router.safetensors")
    assert router.models == sample.models
    assert router.route(example_queries()[0]).model in out


def test_demo_refuses_a_missing_folder(
    cli: Run, small_demo: None, tmp_path: Path, unchanged: Unchanged
) -> None:
    with unchanged(tmp_path):
        finished = cli("demo", "-o", tmp_path / "none" / "router.safetensors")
    finished.assert_refused("router.safetensors: cannot be written")


def test_a_refused_demo_leaves_no_sample(
    cli: Run, small_demo: None, tmp_path: Path, unchanged: Unchanged
) -> None:
    with unchanged(tmp_path):
        cli("demo", "-o", tmp_path / "none" / "router.safetensors", "--data", tmp_path / "sample.jsonl")


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch, outcomes: Outcomes) -> None:
    import centroute.cli.demo

    monkeypatch.setattr(centroute.cli.demo, "synthetic_outcomes", lambda: outcomes)
