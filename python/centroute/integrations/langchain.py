"""A LangChain chat model that is chosen by centroute for each input: ``pip install langchain-core``.

    from centroute import Router
    from centroute.integrations.langchain import chat_router

    router = Router.load("router.safetensors")
    chat = chat_router(router, {"large": ChatOpenAI(...), "small": ChatOpenAI(...)})
    chat.invoke("Prove that √2 is irrational")

What comes back is a Runnable like any other: it is invoked, streamed, batched and piped, sync and async. The
decision stands in the run's metadata (``centroute.model``, ``centroute.quality``, ``centroute.generation``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from centroute import Decision, Policy, Router
from centroute.errors import DataError

if TYPE_CHECKING:
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable

Chat: TypeAlias = "Runnable[LanguageModelInput, BaseMessage]"


def chat_router(
    router: Router,
    models: Mapping[str, Chat],
    *,
    policy: Policy | None = None,
    n_fallbacks: int = 0,
) -> Chat:
    """Make a chat model that is another one for each input.

    Parameters
    ----------
    router
        Who decides.
    models
        Chat models by their names in the pool; others of the pool are never chosen.
    policy
        What the requests want; the artifact's default when not given.
    n_fallbacks
        To how many next best models LangChain turns, one after another, where the chosen one fails.

    Raises
    ------
    DataError
        If a name is not in the pool, there is none, or LangChain is not installed.
    """
    try:
        from langchain_core.runnables import RunnableLambda
    except ImportError as error:
        raise DataError("LangChain is not installed: pip install langchain-core") from error
    if unknown := models.keys() - set(router.models):
        raise DataError(f"models {', '.join(sorted(unknown))}: not in the pool ({', '.join(router.models)})")
    if not models:
        raise DataError("models: give at least one")
    policy = policy or Policy()
    limited = policy.replace(allow=models.keys() if policy.allow is None else policy.allow & models.keys())

    def choose(query: LanguageModelInput) -> Chat:
        return _chat(router.route(_messages(query), policy=limited), models, n_fallbacks)

    async def achoose(query: LanguageModelInput) -> Chat:
        return _chat(await router.aroute(_messages(query), policy=limited), models, n_fallbacks)

    # A Runnable that a function returns is run on the function's input.
    return RunnableLambda(choose, achoose, name="centroute")  # type: ignore[arg-type]


def _chat(decision: Decision, models: Mapping[str, Chat], n_fallbacks: int) -> Chat:
    chat: Chat = models[decision.model]
    if others := [models[name] for name in decision.ranking[1 : 1 + n_fallbacks]]:
        chat = chat.with_fallbacks(others)
    return chat.with_config(
        metadata={
            "centroute.model": decision.model,
            "centroute.quality": decision.quality,
            "centroute.generation": decision.generation,
        }
    )


def _messages(query: LanguageModelInput) -> str | list[dict[str, object]]:
    from langchain_core.messages import convert_to_messages, convert_to_openai_messages
    from langchain_core.prompt_values import PromptValue

    if isinstance(query, str):
        return query
    messages = query.to_messages() if isinstance(query, PromptValue) else convert_to_messages(query)
    return convert_to_openai_messages(messages)
