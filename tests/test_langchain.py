"""The LangChain chat model that is chosen for each input."""

import asyncio
from pathlib import Path

import pytest

from centroute import DataError, Policy, PolicyError, Router

pytest.importorskip("langchain_core", reason="needs langchain-core")

from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate

from centroute.integrations.langchain import chat_router

TEXTS = ["What is the capital of France?", "Prove that the square root of two is irrational."]


class Failing(FakeListChatModel):
    def _call(self, *_, **__) -> str:
        raise RuntimeError("this one is down")


@pytest.fixture
def router(router_file: Path) -> Router:
    return Router.load(router_file)


@pytest.fixture
def models(router: Router) -> dict[str, FakeListChatModel]:
    return {name: FakeListChatModel(responses=[name]) for name in router.models}


def test_the_chosen_model_answers_whatever_form_the_input_has(router: Router, models) -> None:
    chat = chat_router(router, models)
    for text in TEXTS:
        chosen = router.route(text).model
        prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{text}")])
        for query in (
            text,
            [HumanMessage(text)],
            [SystemMessage("Be brief."), HumanMessage(text)],
            [("human", text)],
            [HumanMessage([{"type": "text", "text": text}])],
            prompt.invoke({"text": text}),
        ):
            assert chat.invoke(query).content == chosen
        assert (prompt | chat).invoke({"text": text}).content == chosen


def test_it_answers_async_in_batches_and_as_a_stream(router: Router, models) -> None:
    chat = chat_router(router, models)
    chosen = [router.route(text).model for text in TEXTS]
    assert [asyncio.run(chat.ainvoke(text)).content for text in TEXTS] == chosen
    assert [answer.content for answer in chat.batch(TEXTS)] == chosen
    pieces = [piece.content for piece in chat.stream(TEXTS[0])]
    assert len(pieces) > 1
    assert "".join(pieces) == chosen[0]

    async def streamed() -> str:
        return "".join([piece.content async for piece in chat.astream(TEXTS[1])])

    assert asyncio.run(streamed()) == chosen[1]


def test_only_models_that_are_there_are_chosen_under_the_policy(router: Router, models) -> None:
    chosen = router.route(TEXTS[0]).model
    rest = {name: model for name, model in models.items() if name != chosen}
    second = router.route(TEXTS[0], policy=Policy(deny={chosen})).model
    assert chat_router(router, rest).invoke(TEXTS[0]).content == second
    policy = Policy(allow={chosen, second}, deny={second})
    assert chat_router(router, models, policy=policy).invoke(TEXTS[0]).content == chosen
    with pytest.raises(PolicyError):
        chat_router(router, rest, policy=Policy(allow={chosen})).invoke(TEXTS[0])


def test_the_next_best_answers_where_the_chosen_one_fails(router: Router, models) -> None:
    ranking = router.route(TEXTS[0]).ranking
    models = models | {ranking[0]: Failing(responses=[""])}
    assert chat_router(router, models, n_fallbacks=1).invoke(TEXTS[0]).content == ranking[1]
    with pytest.raises(RuntimeError, match="this one is down"):
        chat_router(router, models).invoke(TEXTS[0])


def test_the_decision_is_in_the_metadata_of_the_run(router: Router, models) -> None:
    from langchain_core.callbacks import BaseCallbackHandler

    seen: list[dict] = []

    class Watching(BaseCallbackHandler):
        def on_chat_model_start(self, *_, metadata: dict, **__) -> None:
            seen.append(metadata)

    chat_router(router, models).invoke(TEXTS[0], config={"callbacks": [Watching()]})
    decision = router.route(TEXTS[0])
    [metadata] = seen
    assert metadata["centroute.model"] == decision.model
    assert metadata["centroute.quality"] == decision.quality


def test_faults_are_told(router: Router, models) -> None:
    with pytest.raises(DataError, match=r"models nobody: not in the pool \("):
        chat_router(router, models | {"nobody": models[router.models[0]]})
    with pytest.raises(DataError, match="give at least one"):
        chat_router(router, {})
    with pytest.raises(DataError, match="only spaces or nothing"):
        chat_router(router, models).invoke("  ")
