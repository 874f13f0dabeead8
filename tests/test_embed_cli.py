"""``centroute embed``: what list and check print, their JSON and their exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_embedder import DIM, graph, weights, write_folder, write_json

from centroute.embedders import load_embedder
from centroute.embedders.check import check_embedder

CHECK_KEYS = {
    "name", "folder", "layout", "runtime", "device", "tokenizer", "dim", "pooling", "max_tokens", "prefix",
    "fingerprint", "speed", "norms", "batch_difference", "notes", "findings",
}  # fmt: skip


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a user of this machine exported does not count."""
    monkeypatch.setenv("CENTROUTE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time little: the figures are not looked at."""
    monkeypatch.setattr("centroute.embedders.check._TIME_PER_LENGTH_S", 0.01)


def like_words(**options: Any) -> Any:
    """A graph whose rows do not depend on places, so that texts with words in common are alike."""
    table = weights(**options)
    table.positions[:] = 0
    return graph(table)


def test_check_of_the_bundled_one(cli: Callable[..., Any]) -> None:
    finished = cli("embed", "check", "static-256")
    assert (finished.code, finished.err) == (0, "")
    for word in ("static-256", "256", "sum", load_embedder("static-256").fingerprint, "µs at 64 tokens"):
        assert word in finished.out
    assert finished.out.endswith("nothing is off\n")


def test_check_json(cli: Callable[..., Any]) -> None:
    finished = cli("embed", "check", "static-256", "--json", "--device", "cpu")
    assert finished.code == 0
    found = json.loads(finished.out)
    assert found.keys() == CHECK_KEYS
    assert (found["name"], found["dim"], found["findings"], found["device"]) == ("static-256", 256, [], "cpu")
    assert [round(speed["n_tokens"], -1) for speed in found["speed"]] == [10, 60, 260]
    assert all(speed["median_us"] > 0 for speed in found["speed"])
    assert found["batch_difference"] <= 1e-5
    assert found["norms"] == pytest.approx([1, 1], abs=1e-5)


def test_check_of_a_folder_of_another_tool(cli: Callable[..., Any], tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "query: "}}
    folder = write_folder(tmp_path / "theirs", like_words(), config_sentence_transformers=prompts)
    found = json.loads(cli("embed", "check", folder, "--json").out)
    assert (found["layout"], found["pooling"], found["prefix"]) == ("onnx", "mean", "query: ")
    assert (found["name"], found["dim"], found["max_tokens"]) == ("theirs", DIM, 32)
    assert [speed["n_tokens"] for speed in found["speed"]][-1] <= 32
    assert found["fingerprint"] == load_embedder(folder).fingerprint
    out = cli("embed", "check", folder).out
    assert "theirs" in out
    assert "'query: '" in out


def notes_of(folder: Path) -> list[str]:
    """Notes but the one on meaning, of which random graphs have none."""
    return [note for note in check_embedder(folder).notes if "alike" not in note]


def test_check_says_what_was_assumed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "bare", like_words(), pooling=None, modules=None)
    (note,) = notes_of(folder)
    assert "the mean was taken" in note
    write_json(folder / "embedder.json", {"pooling": "cls"})
    assert notes_of(folder) == []
    pooled = write_folder(tmp_path / "pooled", graph(outputs=("pooled",)), pooling=None, modules=None)
    assert check_embedder(pooled).pooling == "in the graph"
    assert notes_of(pooled) == []


def test_check_says_that_texts_run_alone(tmp_path: Path) -> None:
    (note,) = notes_of(write_folder(tmp_path / "quantised", graph(quantised=True)))
    assert "each text runs alone" in note


def test_check_finds_positions_that_are_missing(cli: Callable[..., Any], tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "short", like_words(n_positions=20))
    finished = cli("embed", "check", folder)
    finished.assert_refused("short: 1 thing is off")
    assert "max_tokens is 32, but a text of that length fails" in " ".join(finished.out.split())
    finished = cli("embed", "check", folder, "--json")
    assert finished.code == 1
    assert len(json.loads(finished.out)["findings"]) == 1


def test_check_finds_rows_that_are_alike(tmp_path: Path) -> None:
    table = weights()
    for rows in (table.tokens, table.positions, table.types):
        rows[:] = 1
    (finding,) = check_embedder(write_folder(tmp_path, graph(table))).findings
    assert finding.startswith("rows of different texts are all alike (cosine 1.0")


def test_check_finds_a_tokenizer_that_knows_nothing(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, like_words())
    file = json.loads((folder / "tokenizer.json").read_text())
    # Every token is renamed to characters that English has not.
    vocabulary = file["model"]["vocab"]
    file["model"]["vocab"] = {
        token if token.startswith("[") and len(token) > 2 else "\u4e00" * (1 + number): number
        for token, number in vocabulary.items()
    }
    (folder / "tokenizer.json").write_text(json.dumps(file))
    findings = check_embedder(folder).findings
    assert any("the tokenizer knows only 0 of" in finding for finding in findings)
    assert any("no known token in 'How do I sort" in finding for finding in findings)


def test_check_notes_a_scrambled_vocabulary(tmp_path: Path) -> None:
    """As many tokens as the table, but other ones."""
    from centroute.embedders import bundled_folder

    source = bundled_folder("static-256")
    file = json.loads((source / "tokenizer.json").read_text())
    tokens = [token for token in file["model"]["vocab"] if not token.startswith("[")]
    others = np.random.default_rng(0).permutation(tokens)
    renamed = dict(zip(tokens, others.tolist(), strict=True))
    file["model"]["vocab"] = {
        renamed.get(token, token): number for token, number in file["model"]["vocab"].items()
    }
    (tmp_path / "model.onnx").write_bytes((source / "model.onnx").read_bytes())
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    *_, note = check_embedder(tmp_path).notes
    assert "hardly more alike than others" in note
    assert not any("alike" in note for note in check_embedder("static-256").notes)


def test_check_of_what_cannot_be_loaded(cli: Callable[..., Any], tmp_path: Path) -> None:
    cli("embed", "check", tmp_path).assert_refused("model.onnx: file is missing")
    cli("embed", "check", "nothing").assert_refused("no embedder named 'nothing'", "static-256")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("minilm-l6", "centroute embed export minilm-l6"),
        ("minilm-l6-int8", "centroute embed export minilm-l6 --precision int8"),
    ],
)
def test_embedder_that_can_be_exported(
    cli: Callable[..., Any], name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finished = cli("embed", "check", name)
    finished.assert_refused(f"no embedder named {name!r}")
    assert finished.err.endswith(f"run: {command}\n")


def test_list(cli: Callable[..., Any]) -> None:
    finished = cli("embed", "list")
    assert (finished.code, finished.err) == (0, "")
    for word in (
        "static-256",
        "bundled",
        "8.4 MB",
        "minilm-l6 is not here yet; run: centroute embed export minilm-l6",
    ):
        assert word in finished.out


def test_list_json(cli: Callable[..., Any], empty_cache: Path) -> None:
    write_folder(empty_cache / "embedders" / "damaged")
    write_json(empty_cache / "embedders" / "damaged" / "embedder.json", {"format_version": 9})
    listed = json.loads(cli("embed", "list", "--json").out)
    assert listed["can_be_exported"].keys() == {"minilm-l6", "minilm-l6-int8"}
    bundled, multi, damaged = listed["embedders"]
    assert (multi["name"], multi["dim"], multi["error"]) == ("static-multi", 128, None)
    assert (bundled["name"], bundled["dim"], bundled["error"]) == ("static-256", 256, None)
    assert (damaged["name"], damaged["origin"], damaged["dim"]) == ("damaged", "exported", None)
    assert "file is missing" in damaged["error"] or "format_version is 9" in damaged["error"]
    assert "damaged: " in cli("embed", "list").out


def test_help(cli: Callable[..., Any]) -> None:
    finished = cli("embed", "--help")
    assert finished.code == 0
    for word in ("list", "check", "export"):
        assert word in finished.out
    for command, options in (("list", ("--json",)), ("check", ("--json", "--device"))):
        out = cli("embed", command, "-h").out
        assert all(option in out for option in options)
    out = cli("embed", "export", "-h").out
    assert all(option in out for option in ("--precision", "--output", "--source"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("check",), "NAME|DIR"),
        (("check", "static-256", "--device", "tpu"), "--device"),
        (("export",), "NAME"),
        (("export", "minilm-l6", "--precision", "f8"), "--precision"),
        (("nonsense",), "nonsense"),
    ],
)
def test_wrong_usage(cli: Callable[..., Any], arguments: tuple[str, ...], named: str) -> None:
    cli("embed", *arguments).assert_wrong_usage(named)
