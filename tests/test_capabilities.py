"""Capabilities: agents found by what they can do, under policies, changed without a rebuild, in a file."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from centroute import ArtifactError, DataError, EmbedderError, Policy, PolicyError
from centroute.capabilities import Agent, Capabilities, read_agents
from centroute.capabilities.agents import newest, version_order
from centroute.datasets import synthetic_outcomes
from centroute.embedders import load_embedder

AGENTS = (
    Agent(
        "weather", "1", ("forecast of rain, wind and sun for a city",), tags=frozenset({"eu"}), cost_usd=0.001
    ),
    Agent("storms", "3", ("warns of storms and heavy rain",), tags=frozenset({"eu", "beta"}), cost_usd=0.004),
    Agent("ledger", "2.1", ("books invoices", "finds unpaid bills"), tags=frozenset({"us"}), cost_usd=0.002),
    Agent("chef", "1", ("recipes and shopping lists for dinner",)),
)
RAIN = "Will it rain in Oslo tomorrow?"


@pytest.fixture
def capabilities(embedder: Any) -> Capabilities:
    return Capabilities.build(AGENTS, embedder=embedder)


@pytest.fixture(scope="module")
def many(embedder: Any) -> tuple[Capabilities, np.ndarray, list[Agent]]:
    """As many agents as an index is made for, each with a text of the synthetic sample."""
    texts = synthetic_outcomes(n_queries=6000, seed=5).queries
    rows = embedder.embed(texts)
    agents = [
        Agent(
            f"agent-{number}",
            vectors=rows[number : number + 1],
            tags=frozenset({"rare"} if number % 100 == 1 else ()),
            cost_usd=None if number % 7 == 0 else number / 1000,
        )
        for number in range(5500)
    ]
    return Capabilities.build(agents, embedder=embedder), rows[5500:], agents


def names(matches: Any) -> list[str]:
    return [match.agent for match in matches]


def lines(file: Path, *entries: Any) -> Path:
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return file


# -- found --------------------------------------------------------------------------------------------


def test_the_nearest_agent_comes_first_with_its_nearest_text(capabilities: Capabilities) -> None:
    found = capabilities.match(RAIN, n=4)
    assert set(names(found)) == {agent.id for agent in AGENTS}
    assert names(found)[0] in {"weather", "storms"}
    assert [match.similarity for match in found] == sorted(
        (match.similarity for match in found), reverse=True
    )
    rows = capabilities.embedder.embed([RAIN, "books invoices", "finds unpaid bills"])
    ledger = next(match for match in found if match.agent == "ledger")
    assert ledger.similarity == pytest.approx(float((rows[1:] @ rows[0]).max()), abs=1e-5)
    assert (ledger.version, ledger.cost_usd) == ("2.1", 0.002)


def test_policies_leave_agents_out(capabilities: Capabilities) -> None:
    def of(**fields: Any) -> set[str]:
        return set(names(capabilities.match(RAIN, policy=Policy(**fields), n=9)))

    assert of(require={"eu"}) == {"weather", "storms"}
    assert of(require={"eu", "beta"}) == {"storms"}
    assert of(allow={"chef", "ledger"}, deny={"ledger"}) == {"chef"}
    # A cost that is unknown is below no limit.
    assert of(max_cost=0.002) == {"weather", "ledger"}
    assert of(willingness_to_pay=1.0) == {"weather", "storms", "ledger"}


def test_a_price_weighs_nearness_against_cost(capabilities: Capabilities) -> None:
    agents = {match.agent: match for match in capabilities.match(RAIN, n=4)}
    for amount in (0.001, 0.01, 10.0):
        known = [match for match in agents.values() if match.cost_usd is not None]
        wanted = sorted(known, key=lambda match: match.cost_usd - amount * match.similarity)  # type: ignore[operator]
        found = capabilities.match(RAIN, policy=Policy(willingness_to_pay=amount), n=4)
        assert names(found) == [match.agent for match in wanted]
    least = min(agents["weather"].similarity, agents["storms"].similarity) - 1e-3
    assert names(capabilities.match(RAIN, policy=Policy(min_quality=least)))[0] == "weather"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"allow": {"nobody"}}, "policy allow: there is no agent 'nobody'"),
        ({"deny": {"nobody"}}, "policy deny: there is no agent 'nobody'"),
        ({"require": {"mars"}}, "policy require: no agent has the tag 'mars'"),
        (
            {"require": {"us"}, "max_cost": 0.001},
            "capabilities: require={us} max_cost=$0.00100 leaves none of 4",
        ),
        ({"alpha": 0.5}, "policy alpha: it says nothing of capabilities; give willingness_to_pay"),
        ({"max_mean_cost": 0.5}, "policy max_mean_cost: it says nothing of capabilities; give max_cost"),
    ],
)
def test_policies_that_cannot_be_are_one_line(capabilities: Capabilities, fields: Any, says: str) -> None:
    with pytest.raises(PolicyError) as caught:
        capabilities.match(RAIN, policy=Policy(**fields))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_text_that_says_nothing_is_refused(capabilities: Capabilities) -> None:
    with pytest.raises(DataError, match="holds nothing that the embedder knows"):
        capabilities.match("   ")


def test_many_agents_are_found_as_by_comparing_all(many: Any) -> None:
    capabilities, queries, agents = many
    rows = np.concatenate([agent.vectors for agent in agents])
    rare = np.flatnonzero(["rare" in agent.tags for agent in agents])
    hits = {"all": 0, "rare": 0}
    for query in queries[:100]:
        similarities = rows @ query
        wanted = {f"agent-{number}" for number in np.argsort(-similarities)[:8]}
        hits["all"] += len(wanted & set(names(capabilities.match_embedding(query, n=8))))
        wanted = {f"agent-{rare[place]}" for place in np.argsort(-similarities[rare])[:8]}
        found = capabilities.match_embedding(query, policy=Policy(require={"rare"}), n=8)
        hits["rare"] += len(wanted & set(names(found)))
    assert hits["all"] >= 0.99 * 800
    assert hits["rare"] >= 0.99 * 800


# -- changed ------------------------------------------------------------------------------------------


def test_agents_are_added_replaced_and_removed(capabilities: Capabilities) -> None:
    assert (
        capabilities.add([Agent("umbrella", capabilities=("says whether rain calls for an umbrella",))]) == 0
    )
    assert "umbrella" in names(capabilities.match("Do I need an umbrella in the rain?", n=1))
    assert (
        capabilities.add([Agent("weather", "1.1", ("tells jokes about cheese",)), Agent("weather", "1.0.5")])
        == 1
    )
    assert capabilities.version("weather") == "1.1"
    assert names(capabilities.match("a joke about cheese", n=1)) == ["weather"]
    capabilities.remove(["umbrella", "storms"])
    assert len(capabilities) == 3
    assert capabilities.n_rows == 4
    assert "storms" not in names(capabilities.match(RAIN, n=9))
    with pytest.raises(PolicyError, match="there is no agent 'storms'"):
        capabilities.match(RAIN, policy=Policy(allow={"storms"}))


@pytest.mark.parametrize(
    ("agent", "says"),
    [
        (Agent("ledger", "2.1", ("x y",)), "agent 'ledger': version 2.1 is there already"),
        (Agent("ledger", "2.0", ("x y",)), "agent 'ledger': version 2.0 is older than 2.1, which is there"),
        (Agent("new", "1", ()), "agent 'new': says nothing of what it can do"),
        (Agent("new", "1", ("   ",)), "agent 'new': '   ' holds nothing that embedder static-256 knows"),
        (
            Agent("new", vectors=np.ones((1, 8), dtype=np.float32)),
            "agent 'new': vectors of 8 numbers, embedder static-256 gives 256",
        ),
    ],
)
def test_agents_that_cannot_be_added_change_nothing(
    capabilities: Capabilities, agent: Agent, says: str
) -> None:
    with pytest.raises(DataError) as caught:
        capabilities.add([Agent("fine", capabilities=("fine weather",)), agent])
    assert str(caught.value).startswith(says)
    assert len(capabilities) == 4
    assert "fine" not in capabilities


def test_what_cannot_be_removed_changes_nothing(capabilities: Capabilities) -> None:
    with pytest.raises(DataError, match="there is no agent 'nobody'"):
        capabilities.remove(["chef", "nobody"])
    with pytest.raises(DataError, match="no agent would be left"):
        capabilities.remove([agent.id for agent in AGENTS])
    assert len(capabilities) == 4


def test_changes_keep_an_index_and_come_back_from_its_file(many: Any, embedder: Any, tmp_path: Path) -> None:
    built, queries, _ = many
    built.save(tmp_path / "built")
    capabilities = Capabilities.load(tmp_path / "built", embedder=embedder)
    capabilities.remove([f"agent-{number}" for number in range(0, 5500, 5)])
    rng = np.random.default_rng(0)
    turned = embedder.embed(synthetic_outcomes(n_queries=6200, seed=6).queries[6000:])
    capabilities.add(
        [
            Agent(f"agent-{number}", "2", vectors=turned[place : place + 1])
            for place, number in enumerate(rng.choice(np.arange(1, 5500, 5), 150, replace=False))
        ]
    )
    assert capabilities.n_behind == 150
    file = tmp_path / "agents.safetensors"
    capabilities.save(file)
    again = Capabilities.load(file, embedder=embedder)
    assert (len(again), again.n_rows, again.n_behind) == (len(capabilities), capabilities.n_rows, 150)
    for policy in (None, Policy(max_cost=2.0), Policy(require={"rare"})):
        for query in queries[:30]:
            assert again.match_embedding(query, policy=policy) == capabilities.match_embedding(
                query, policy=policy
            )
    assert again.rebuilt().n_behind == 0
    again.save(tmp_path / "same")
    assert (tmp_path / "same").read_bytes() == file.read_bytes()


def test_searches_go_on_while_agents_change(capabilities: Capabilities) -> None:
    faults: list[BaseException] = []
    done = threading.Event()

    def search() -> None:
        try:
            while not done.is_set():
                found = capabilities.match(RAIN, policy=Policy(require={"eu"}), n=3)
                assert "weather" in names(found)
                assert len(set(names(found))) == len(found)
        except BaseException as error:  # noqa: BLE001
            faults.append(error)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for version in range(2, 200):
        capabilities.add([Agent("storms", f"3.{version}", ("storms and rain",), tags=frozenset({"eu"}))])
        capabilities.add([Agent(f"more-{version}", "1", ("rain in the mountains",))])
    done.set()
    for thread in threads:
        thread.join(60)
    assert not faults


# -- files --------------------------------------------------------------------------------------------


def test_versions_are_ordered_by_their_numbers() -> None:
    ordered = ["0.9", "1", "1.0", "1.0.1", "1.9", "1.10-rc1", "1.10", "2-beta", "2"]
    assert sorted(set(ordered), key=version_order) == ordered
    agents = [Agent("a", version) for version in ("1.9", "1.10", "1.10-rc1")]
    assert [agent.version for agent in newest(agents)] == ["1.10"]


def test_agents_are_read_from_lines(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "agents.jsonl",
        {"id": "a", "description": "one", "capabilities": ["two", "one"], "tags": ["x"], "cost_usd": 0},
        {"id": "b", "version": 3, "vectors": [[3.0, 4.0], [3e300, 4e300]], "cost_usd": None},
    )
    first, second = read_agents(file)
    assert (first.version, first.capabilities, first.tags, first.cost_usd) == (
        "1",
        ("one", "two"),
        {"x"},
        0.0,
    )
    assert (second.version, second.cost_usd) == ("3", None)
    assert second.vectors is not None
    assert second.vectors.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]] * 2


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (({"description": "x"},), "line 1, id: is missing"),
        (({"id": " ", "description": "x"},), "line 1, id: must be a name"),
        (({"id": "a"},), "line 1: 'a' says nothing of what it can do"),
        (({"id": "a", "description": " "},), "line 1, description: holds an empty text"),
        (({"id": "a", "capabilities": "x"},), "line 1, capabilities: must be a list of texts"),
        (({"id": "a", "description": "x", "tag": ["y"]},), "line 1, tag: is not known"),
        (({"id": "a", "description": "x", "cost_usd": -1},), "line 1, cost_usd: -1.0 is not a finite amount"),
        (({"id": "a", "description": "x", "vectors": [[1]]},), "line 1, vectors: are given beside texts"),
        (({"id": "a", "vectors": [[1, 2], [1]]},), "line 1, vectors: must be of one length, got 1, 2"),
        (
            ({"id": "a", "vectors": [[0, 0]]},),
            "line 1, vectors[0]: must be finite numbers that are not all 0",
        ),
        (
            ({"id": "a", "vectors": [[1, 2]]}, {"id": "b", "vectors": [[1, 2, 3]]}),
            "line 2, vectors: have 3 numbers, those before have 2",
        ),
        (
            (
                {"id": "a", "version": "2", "description": "x"},
                {"id": "a", "version": "2", "description": "y"},
            ),
            "line 2, version: 'a' '2' is there twice, first in line 1",
        ),
        ((), "holds no agent"),
    ],
)
def test_agents_at_fault_are_one_line(entries: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_agents(lines(tmp_path / "agents.jsonl", *entries))
    assert says in str(caught.value)
    assert "agents.jsonl" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_at_fault_are_one_line(capabilities: Capabilities, tmp_path: Path) -> None:
    file = tmp_path / "agents.safetensors"
    capabilities.save(file)

    def refused(says: str, path: Path = file) -> None:
        with pytest.raises(ArtifactError) as caught:
            Capabilities.load(path, embedder=capabilities.embedder)
        assert str(caught.value).startswith(f"{path}: ")
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)

    refused("no such file", tmp_path / "none")
    with safe_open(file, framework="numpy") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    bad = tmp_path / "bad"
    save_file({**tensors, "costs": tensors["costs"] + 1}, bad, metadata)
    refused("the SHA-256 differs", bad)
    save_file(tensors, bad)
    refused("is no file of capabilities", bad)
    save_file(
        tensors, bad, {"centroute_capabilities": metadata["centroute_capabilities"].replace("1", "9", 1)}
    )
    refused("is of format 9", bad)
    save_file(tensors, bad, {"centroute_capabilities": "[" * 100_000})
    refused("metadata cannot be read", bad)
    save_file({name: value for name, value in tensors.items() if name != "owners"}, bad, metadata)
    refused("tensor owners: wanted int32 of 1 dimensions", bad)
    bad.write_bytes(file.read_bytes()[:-9])
    refused("not a readable safetensors file", bad)


def test_another_embedder_is_refused(capabilities: Capabilities, tmp_path: Path) -> None:
    file = tmp_path / "agents.safetensors"
    capabilities.save(file)

    class Other:
        """Stands for an embedder of another fingerprint."""

        name, dim, fingerprint = "other", 256, "f" * 64

    with pytest.raises(EmbedderError, match="embedder other is not the one that its rows are of"):
        Capabilities.load(file, embedder=Other())  # type: ignore[arg-type]


def test_the_commands(cli: Any, tmp_path: Path) -> None:
    agents = lines(
        tmp_path / "agents.jsonl",
        {"id": "weather", "description": "forecast of rain", "cost_usd": 0.001},
        {"id": "ledger", "version": "1.0", "description": "books invoices", "tags": ["us"]},
        {"id": "ledger", "version": "1.1", "description": "books invoices and bills", "tags": ["us"]},
    )
    file = tmp_path / "agents.safetensors"
    built = cli("capabilities", "build", agents, "-o", file)
    assert built.code == 0
    assert "1 of 3 entries are older versions" in built.err
    assert "(2 agents, 2 rows," in built.out
    assert "not in the index" not in built.out
    more = lines(tmp_path / "more.jsonl", {"id": "chef", "description": "cooks dinner"})
    assert "1 added, 0 replaced" in cli("capabilities", "add", file, more).out
    again = cli("capabilities", "add", file, more)
    assert (again.code, again.err) == (1, "centroute: agent 'chef': version 1 is there already\n")
    found = json.loads(cli("capabilities", "match", file, RAIN, "--json", "-n", 2).out)
    assert found["matches"][0]["agent"] == "weather"
    assert set(found["matches"][0]) == {"agent", "version", "similarity", "cost_usd"}
    shown = cli("capabilities", "match", file, "an unpaid invoice", "--require", "us")
    assert "ledger  version 1.1" in shown.out
    assert cli("capabilities", "remove", file, "chef").code == 0
    facts = json.loads(cli("capabilities", "inspect", file, "--json").out)
    assert (facts["n_agents"], facts["n_rows"], facts["embedder"]) == (2, 2, "static-256")
    refused = cli("capabilities", "match", file, RAIN, "--deny", "weather,ledger")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "leaves none of 2 agents" in refused.err


def test_the_default_embedder_is_loaded_by_the_name_in_the_file(
    capabilities: Capabilities, tmp_path: Path
) -> None:
    capabilities.save(tmp_path / "agents")
    again = Capabilities.load(tmp_path / "agents")
    assert again.embedder.fingerprint == load_embedder("static-256").fingerprint
