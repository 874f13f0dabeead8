"""Messages: which part is embedded, how a system prompt is blended in, and sessions that do not flap."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from centroute import Artifact, DataError, Decision, Policy, PolicyError, Router
from centroute.calibrate import calibrate
from centroute.conversation import ROLES, Conversation, is_short
from centroute.datasets import Outcomes, read_jsonl
from centroute.embedders import Embedder, load_embedder
from centroute.session import KeptDecision, Session, stay_or_switch
from centroute.surface import SurfaceFeatures, surface_features

QUESTION = "What is the capital of France?"
OTHER = "Write a Python function that sorts a list"


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def text_part(text: Any) -> dict[str, Any]:
    return {"type": "text", "text": text}


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.fixture(scope="module")
def router(router_file: Path) -> Router:
    return Router.load(router_file)


# -- reading -----------------------------------------------------------------------------


def test_the_last_user_message_is_read() -> None:
    messages = [
        {"role": "developer", "content": "You are terse."},
        user("first"),
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "42", "tool_call_id": "1"},
        {"role": "assistant", "content": "an answer"},
        user([text_part("second"), IMAGE, text_part("half")]),
        {"role": "assistant", "content": ""},
    ]
    assert Conversation().read(messages) == ("second\nhalf", "")
    assert Conversation().read(tuple(messages)) == ("second\nhalf", "")
    assert Conversation(user_messages=2).read(messages) == ("second\nhalf\nfirst", "")
    assert Conversation(user_messages=9, system_share=0.1).read(messages) == (
        "second\nhalf\nfirst",
        "You are terse.",
    )


def test_messages_without_text_are_passed_over() -> None:
    messages = [user("the question"), user([IMAGE]), user(" \n"), user([])]
    assert Conversation().read(messages) == ("the question", "")


def test_system_and_developer_prompts_are_read_together() -> None:
    messages = [
        {"role": "system", "content": "one"},
        user("q"),
        {"role": "developer", "content": [text_part("two")]},
    ]
    assert Conversation(system_share=0.5).read(messages) == ("q", "one\ntwo")


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "messages: no user message among them"),
        ([{"role": "system", "content": "x"}], "messages: no user message among them"),
        ([user([IMAGE])], "messages: no user message holds text"),
        ([user("x"), {"role": "usr", "content": "x"}], r"messages\[1\]: role 'usr', wanted one of system"),
        ([{"role": ["user"], "content": "x"}], r"messages\[0\]: role \"\['user'\]\", wanted one of"),
        ([{"content": "x"}], r"messages\[0\]: no role"),
        ([user("x"), "x"], r"messages\[1\]: wanted a mapping with role and content, got str"),
        ([user("x"), None], r"messages\[1\]: wanted a mapping with role and content, got NoneType"),
        ([user(7)], r"messages\[0\]: content of type int, wanted a string or a list of parts"),
        ([user({"type": "text"})], r"messages\[0\]: content of type dict"),
        ([user(None)], r"messages\[0\]: no content"),
        ([{"role": "user"}], r"messages\[0\]: no content"),
        ([{"role": "assistant", "content": 7}, user("x")], r"messages\[0\]: content of type int"),
        ([user(["x"])], r"messages\[0\].content\[0\]: wanted a mapping with a type, got str"),
        ([user([{"text": "x"}])], r"messages\[0\].content\[0\]: wanted a mapping with a type, got dict"),
        ([user([IMAGE, text_part(None)])], r"messages\[0\].content\[1\]: text of type NoneType"),
    ],
)
def test_what_is_no_conversation_is_refused(router: Router, messages: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        router.route(messages)


def test_a_long_role_is_shown_in_part(router: Router) -> None:
    with pytest.raises(DataError) as caught:
        router.route([{"role": "x" * 100_000, "content": ""}])
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("query", [7, None, b"text", {"role": "user", "content": "x"}])
def test_what_is_no_query_is_refused(router: Router, query: Any) -> None:
    with pytest.raises(TypeError, match="a query must be str or a sequence of messages"):
        router.route(query)


@pytest.mark.parametrize("options", [{"user_messages": 0}, {"system_share": 1.0}, {"system_share": -0.1}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"{name}: got"):
        Conversation(**options)


def test_every_role_is_known() -> None:
    messages = [{"role": role, "content": role} for role in ROLES]
    assert Conversation().read(messages) == ("user", "")


def test_conversations_that_take_long_to_read_are_told() -> None:
    assert is_short("x" * 10**6)
    assert is_short([user("x" * 10**6)] * 128)
    assert not is_short([user("x")] * 129)
    assert not is_short([user([text_part("x")] * 129)])
    assert is_short(7)  # type: ignore[arg-type]
    assert is_short(["x", None])  # type: ignore[list-item]


# -- routing -----------------------------------------------------------------------------


def same(left: Decision | KeptDecision, right: Decision | KeptDecision) -> bool:
    names = ("model", "quality", "cost", "margin", "similarity", "clusters", "ranking")
    return all(getattr(left, name) == getattr(right, name) for name in names)


def test_a_conversation_is_decided_as_its_last_question(router: Router) -> None:
    messages = [{"role": "system", "content": "You write poems."}, user(OTHER), user(QUESTION)]
    assert same(router.route(messages), router.route(QUESTION))
    assert same(router.route([user([text_part(QUESTION)])]), router.route(QUESTION))


def test_a_string_of_another_class_is_a_text(router: Router) -> None:
    class Text(str):
        __slots__ = ()

    assert same(router.route(Text(QUESTION)), router.route(QUESTION))


def test_batches_take_texts_and_conversations(router: Router) -> None:
    queries = [QUESTION, [user(OTHER), user(QUESTION)], OTHER, [user(OTHER)]]
    batch = router.route_batch(queries)
    wanted = router.route_batch([QUESTION, QUESTION, OTHER, OTHER])
    np.testing.assert_array_equal(batch.similarity, wanted.similarity)
    with pytest.raises(DataError, match=r"queries\[1\]: messages\[0\]: role 'x'"):
        router.route_batch([QUESTION, [{"role": "x", "content": ""}]])
    with pytest.raises(DataError, match=r"queries\[0\] is one message"):
        router.route_batch([user(QUESTION)])


@pytest.mark.parametrize("runtime", ["auto", "onnx"])
@pytest.mark.parametrize("surface_weight", [0.0, 0.15])
def test_the_system_prompt_has_its_share_of_the_row(
    outcomes: Outcomes, runtime: Any, surface_weight: float
) -> None:
    artifact = calibrate(outcomes, method="means", n_clusters=6, top_p=2, surface_weight=surface_weight)
    embedder = load_embedder("static-256", runtime=runtime)
    router = Router.from_artifact(artifact, embedder=embedder, conversation=Conversation(system_share=0.25))
    system = "You are a careful lawyer."
    messages = [{"role": "system", "content": system}, user(QUESTION)]
    question, prompt = embedder.embed([QUESTION, system])
    row = 0.75 * question + 0.25 * prompt
    row /= np.linalg.norm(row)
    if surface_weight:
        stored = router._kernel.surface_features
        assert stored is not None
        name, weight, mean, scale = stored
        surface = SurfaceFeatures(weight=weight, mean=tuple(mean), scale=tuple(scale), name=name)
        row = surface.append(row[None], surface_features([QUESTION]))[0]
    wanted = router.route_embedding(row)
    got = router.route(messages)
    assert got.similarity == pytest.approx(wanted.similarity, abs=1e-6)
    assert got.quality == pytest.approx(wanted.quality, abs=1e-6)
    assert got.similarity != pytest.approx(router.route(QUESTION).similarity, abs=1e-4)
    batch = router.route_batch([messages, QUESTION])
    assert batch.similarity[0] == pytest.approx(got.similarity, abs=1e-6)
    assert batch.similarity[1] == pytest.approx(router.route(QUESTION).similarity, abs=1e-6)


@pytest.mark.parametrize("system", ["", "🙂🚀", " "])
def test_a_system_prompt_without_known_token_has_no_share(router_file: Path, system: str) -> None:
    router = Router.load(router_file, conversation=Conversation(system_share=0.5))
    got = router.route([{"role": "system", "content": system}, user(QUESTION)])
    assert got.similarity == pytest.approx(router.route(QUESTION).similarity, abs=1e-6)
    with pytest.raises(DataError, match="text 0 holds nothing that the embedder knows"):
        router.route([{"role": "system", "content": "You are kind."}, user("🙂")])


def test_a_system_prompt_that_comes_again_is_embedded_once(artifact: Artifact) -> None:
    class Counting(Embedder):
        def __init__(self) -> None:
            self.inner = load_embedder("static-256")
            self.description, self.runtime, self.device = self.inner.description, "test", "cpu"
            self.seen: list[str] = []

        tokenizer = "test"

        def embed(self, texts: Any) -> Any:
            self.seen += texts
            return self.inner.embed(texts)

        def tokenize(self, text: str) -> Any:
            return self.inner.tokenize(text)

    embedder = Counting()
    router = Router.from_artifact(artifact, embedder=embedder, conversation=Conversation(system_share=0.2))
    for question in (QUESTION, OTHER):
        router.route([{"role": "system", "content": "prompt"}, user(question)])
    assert sorted(embedder.seen) == sorted([QUESTION, "prompt", OTHER])


# -- sessions ----------------------------------------------------------------------------

CODE = "Write a Python function that returns item {} of list {}"
TRIVIA = "Who was the king of country number {} in the year {}?"


@pytest.fixture(scope="module")
def two_topics(tmp_path_factory: pytest.TempPathFactory) -> Router:
    """The coder is a little better at code, the scholar at trivia; the scholar is a little dearer."""
    rng = random.Random(0)  # noqa: S311 - numbers in texts
    lines = []
    for number in range(200):
        is_code = number % 2
        text = (CODE if is_code else TRIVIA).format(rng.randrange(99), rng.randrange(1000, 2000))
        scores = {"coder": 0.82 if is_code else 0.78, "scholar": 0.78 if is_code else 0.82, "cheap": 0.3}
        costs = {"coder": 0.010, "scholar": 0.011, "cheap": 0.0001}
        lines.append(json.dumps({"query": text, "scores": scores, "costs": costs}))
    file = tmp_path_factory.mktemp("topics") / "outcomes.jsonl"
    file.write_text("\n".join(lines))
    artifact = calibrate(read_jsonl(file), method="means", n_clusters=2, top_p=1, surface_weight=0.0)
    return Router.from_artifact(artifact)


def turns(n: int = 12) -> list[list[dict[str, Any]]]:
    """A conversation that asks for code and for kings in turn, with ever more history."""
    messages: list[dict[str, Any]] = []
    conversations = []
    for number in range(n):
        messages.append(user((CODE if number % 2 else TRIVIA).format(number, 1500)))
        conversations.append(list(messages))
        messages.append({"role": "assistant", "content": "Certainly."})
    return conversations


def models(router: Router, session: Session | None, policy: Policy | None = None) -> list[str]:
    chosen = []
    for messages in turns():
        if session is None:
            chosen.append(router.route(messages, policy=policy).model)
        else:
            decision = router.route(messages, policy=policy, session=session)
            session = session.after(decision)
            chosen.append(decision.model)
    return chosen


def n_switches(chosen: list[str]) -> int:
    return sum(left != right for left, right in pairwise(chosen))


POLICIES = [
    None,
    Policy(willingness_to_pay=0.5),
    Policy(alpha=0.95),
    Policy(min_quality=0.8),
]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_conversation_that_oscillates_does_not_flap(two_topics: Router, policy: Policy | None) -> None:
    assert n_switches(models(two_topics, None, policy)) == 11
    assert n_switches(models(two_topics, Session(), policy)) == 11
    sticky = Session(switch_quality=0.05, switch_cost_usd=0.002)
    assert models(two_topics, sticky, policy) == ["scholar"] * 12


def test_budgets_keep_the_model_too(two_topics: Router) -> None:
    frontier = two_topics.artifact.frontier
    assert frontier is not None
    budget = Policy(max_mean_cost=float(frontier[-1, 2]))
    free = models(two_topics, None, budget)
    assert n_switches(free) > 0
    sticky = Session(switch_quality=0.05, switch_cost_usd=0.002)
    assert n_switches(models(two_topics, sticky, budget)) == 0


@pytest.mark.parametrize("amount", [0.2, 0.5, 2.0])
@pytest.mark.parametrize("switch_cost_usd", [0.0, 0.005, 0.02, 0.1])
@pytest.mark.parametrize("switch_quality", [0.0, 0.01, 0.05])
def test_the_switch_comes_where_the_gain_beats_its_cost(
    two_topics: Router, amount: float, switch_cost_usd: float, switch_quality: float
) -> None:
    text, policy = TRIVIA.format(3, 1700), Policy(willingness_to_pay=amount)
    quality, cost = (row[0].tolist() for row in two_topics.predict(two_topics.embed([text])))
    value = [amount * q - c for q, c in zip(quality, cost, strict=True)]
    for index, model in enumerate(two_topics.models):
        session = Session(model=model, switch_cost_usd=switch_cost_usd, switch_quality=switch_quality)
        gain = max(value) - value[index]
        switches = gain > switch_cost_usd + amount * switch_quality
        got = two_topics.route(text, policy=policy, session=session)
        best = two_topics.route(text, policy=policy)
        assert got.model == (best.model if switches else model)
        if got.model != best.model:
            assert isinstance(got, KeptDecision)
            assert got.margin == pytest.approx(-gain, rel=1e-4)


def test_quality_first_switches_for_quality_and_not_for_less(two_topics: Router) -> None:
    text = TRIVIA.format(3, 1700)
    for threshold, wanted in ((0.03, "scholar"), (0.05, "coder")):
        assert (
            two_topics.route(text, session=Session(model="coder", switch_quality=threshold)).model == wanted
        )


def test_a_kept_decision_explains_itself(two_topics: Router) -> None:
    text = TRIVIA.format(3, 1700)
    best = two_topics.route(text)
    kept = two_topics.route(text, session=Session(model="coder", switch_quality=0.5, switch_cost_usd=1))
    alone = two_topics.route(text, policy=Policy(allow={"coder"}))
    assert isinstance(kept, KeptDecision)
    assert (kept.model, kept.best.model) == ("coder", "scholar")
    assert kept.ranking == ("coder", "scholar", "cheap")
    assert kept.margin == pytest.approx(alone.quality - best.quality, abs=1e-6)
    assert kept.resolved is None
    for name in ("model_id", "quality", "quality_se", "cost"):
        assert getattr(kept, name) == getattr(alone, name)
    for name in ("similarity", "in_distribution", "clusters", "generation"):
        assert getattr(kept, name) == getattr(best, name)
    public = {name for name in dir(Decision) if not name.startswith("_")}
    assert public <= set(dir(kept))


@pytest.mark.parametrize(
    "policy", [Policy(deny={"coder"}), Policy(allow={"scholar", "cheap"}), Policy(max_cost=0.005)], ids=str
)
def test_a_model_that_the_policy_excludes_is_left(two_topics: Router, policy: Policy) -> None:
    sticky = Session(model="coder", switch_quality=1.0, switch_cost_usd=9.0)
    got = two_topics.route(TRIVIA.format(3, 1700), policy=policy, session=sticky)
    assert same(got, two_topics.route(TRIVIA.format(3, 1700), policy=policy))


def test_a_model_that_left_the_pool_is_left(two_topics: Router) -> None:
    sticky = Session(model="gone", switch_quality=1.0, switch_cost_usd=9.0)
    assert two_topics.route(TRIVIA.format(3, 1700), session=sticky).model == "scholar"


def test_limits_hold_for_the_kept_model_too(two_topics: Router) -> None:
    policy = Policy(max_cost=0.0105)
    text = TRIVIA.format(3, 1700)
    sticky = Session(model="cheap", switch_quality=1.0, switch_cost_usd=9.0)
    assert two_topics.route(text, policy=policy, session=sticky).model == "cheap"
    with pytest.raises(PolicyError):
        two_topics.route(text, policy=Policy(max_cost=1e-9), session=sticky)


def test_out_of_distribution_the_model_is_kept(two_topics: Router) -> None:
    strange = "zebra xylophone quark"
    policy = Policy(fallback="cheap")
    best = two_topics.route(strange, policy=policy)
    assert not best.in_distribution
    assert best.model == "cheap"
    kept = two_topics.route(strange, policy=policy, session=Session(model="coder"))
    assert kept.model == "coder"
    assert kept.margin is None
    assert not kept.in_distribution
    # In distribution the fallback changes nothing.
    text = TRIVIA.format(3, 1700)
    kept = two_topics.route(text, policy=policy, session=Session(model="coder", switch_quality=0.5))
    assert kept.margin == pytest.approx(-0.04, abs=0.005)


def test_the_artifacts_default_policy_holds_in_sessions(two_topics: Router) -> None:
    artifact = replace(two_topics.artifact, default_policy=Policy(willingness_to_pay=0.5, deny={"cheap"}))
    router = Router.from_artifact(artifact)
    text = TRIVIA.format(3, 1700)
    # 0.5 USD x 0.04 of quality less 0.001 USD of cost: a gain of 0.019 USD.
    for switch_cost, wanted in ((0.018, "scholar"), (0.020, "coder")):
        assert router.route(text, session=Session(model="coder", switch_cost_usd=switch_cost)).model == wanted
    assert router.route(text, session=Session(model="cheap", switch_cost_usd=9)).model == "scholar"


def test_the_artifacts_fallback_does_not_exclude_the_kept_model(two_topics: Router) -> None:
    artifact = replace(two_topics.artifact, default_policy=Policy(fallback="cheap"))
    router = Router.from_artifact(artifact)
    sticky = Session(model="coder", switch_quality=0.5)
    for text in (TRIVIA.format(3, 1700), "zebra xylophone quark"):
        assert router.route(text, session=sticky).model == "coder"


def test_an_unknown_cost_is_no_saving() -> None:
    class Stub:
        def __init__(self, model: str, quality: float, cost: float | None) -> None:
            self.model, self.quality, self.cost = model, quality, cost
            self.margin, self.ranking = 0.1, ("new", "old")

    def decide(policy: Policy | None) -> Any:
        only_old = policy is not None and policy.allow == {"old"}
        return Stub("old", 0.5, None) if only_old else Stub("new", 0.51, 0.0)

    session = Session(model="old", switch_quality=0.05)
    kept = stay_or_switch(decide, session, policy=None, default=Policy())
    assert kept.model == "old"


@pytest.mark.parametrize("name", ["switch_cost_usd", "switch_quality"])
@pytest.mark.parametrize("amount", [-1.0, float("nan"), float("inf")])
def test_amounts_out_of_range_are_refused(name: str, amount: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: got"):
        Session(**{name: amount})  # type: ignore[arg-type]


def test_a_text_is_embedded_once_for_a_session(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = load_embedder("static-256", runtime="onnx")
    calls = []
    embed = embedder.embed
    monkeypatch.setattr(embedder, "embed", lambda texts: calls.append(texts) or embed(texts))
    router = Router.from_artifact(artifact, embedder=embedder)
    worst = router.route(QUESTION).ranking[-1]
    calls.clear()
    kept = router.route(QUESTION, session=Session(model=worst, switch_quality=1.0, switch_cost_usd=9.0))
    assert kept.model == worst
    assert calls == [[QUESTION]]
