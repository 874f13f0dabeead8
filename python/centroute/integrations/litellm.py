"""centroute chooses the model in a LiteLLM proxy or Router. Needs LiteLLM: ``pip install 'litellm[proxy]'``.

For the proxy, a file beside its ``config.yaml``, ``centroute_hook.py``::

    from centroute import Policy
    from centroute.integrations.litellm import CentrouteHook

    hook = CentrouteHook("router.safetensors", policy=Policy(willingness_to_pay=0.01), n_fallbacks=2)

and in the configuration, whose ``model_list`` names the models as the pool does::

    litellm_settings:
      callbacks: centroute_hook.hook

Requests for the model ``auto`` then get the chosen one; all others pass untouched. Who may ask for ``auto``
may thereby get any model of the pool: LiteLLM checks what a key may use before the hook runs.

For a ``litellm.Router``::

    choose_through(litellm_router, router, policy=Policy(willingness_to_pay=0.01))
    await litellm_router.acompletion(model="auto", messages=messages)

Balancing between the deployments of a model, cooldowns and retries stay LiteLLM's.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from centroute import Decision, Policy, Router
from centroute.errors import DataError, PolicyError

try:
    import litellm  # type: ignore[import-not-found]
    from litellm.integrations.custom_logger import CustomLogger  # type: ignore[import-not-found]
    from litellm.types.router import CustomRoutingStrategyBase  # type: ignore[import-not-found]
except ImportError:
    # The module can be looked at without LiteLLM; what is used of it says what is missing.
    litellm, CustomLogger, CustomRoutingStrategyBase = None, object, object

AUTO: Final = "auto"
"""The model that requests ask for to have one chosen."""

_CHATS: Final = frozenset({"completion", "acompletion"})


class CentrouteHook(CustomLogger):  # type: ignore[misc]
    """A callback of the LiteLLM proxy that puts the chosen model in the place of ``auto``.

    Parameters
    ----------
    router
        The router, or its file.
    policy
        What the requests want; the artifact's default when not given.
    model
        The name that asks for a choice.
    n_fallbacks
        To how many next best models LiteLLM turns, one after another, where the chosen one fails.

    Raises
    ------
    ArtifactError
        If the file cannot be used.
    DataError
        If LiteLLM is not installed.
    """

    def __init__(
        self,
        router: Router | str | os.PathLike[str],
        *,
        policy: Policy | None = None,
        model: str = AUTO,
        n_fallbacks: int = 0,
    ) -> None:
        _check_installed()
        super().__init__()
        self._router = router if isinstance(router, Router) else Router.load(router)
        self._policy = policy
        self._model = model
        self._n_fallbacks = n_fallbacks

    async def async_pre_call_hook(
        self,
        user_api_key_dict: object,  # noqa: ARG002 - the names are LiteLLM's
        cache: object,  # noqa: ARG002
        data: dict[str, Any],
        call_type: str,
    ) -> dict[str, Any]:
        """Choose the model of one request."""
        if data.get("model") != self._model or call_type not in _CHATS:
            return data
        decision = await _decide(self._router, data.get("messages"), self._policy, self._model)
        data["model"] = decision.model
        if self._n_fallbacks and "fallbacks" not in data:
            data["fallbacks"] = list(decision.ranking[1 : 1 + self._n_fallbacks])
        return data


def choose_through(
    litellm_router: "litellm.Router",
    router: Router,
    *,
    policy: Policy | None = None,
    model: str = AUTO,
) -> None:
    """Let a ``litellm.Router`` choose through centroute where ``model`` is asked for.

    Parameters
    ----------
    litellm_router
        Its ``model_list`` names the models as the pool does.
    router, policy, model
        As of :class:`CentrouteHook`.

    Raises
    ------
    DataError
        If LiteLLM is not installed.
    """
    _check_installed()
    litellm_router.set_custom_routing_strategy(_Strategy(litellm_router, router, policy, model))


class _Strategy(CustomRoutingStrategyBase):  # type: ignore[misc]
    """Decides, and hands over to LiteLLM's own choice of a deployment."""

    def __init__(
        self, litellm_router: "litellm.Router", router: Router, policy: Policy | None, model: str
    ) -> None:
        self._sync = litellm_router.get_available_deployment
        self._async = litellm_router.async_get_available_deployment
        self._router, self._policy, self._model = router, policy, model

    def get_available_deployment(
        self, model: str, messages: Sequence[Mapping[str, Any]] | None = None, **options: Any
    ) -> object:
        """Choose a deployment."""
        if model == self._model:
            _check_messages(messages, model)
            try:
                model = self._router.route(messages, policy=self._policy).model  # type: ignore[arg-type]
            except (DataError, PolicyError) as error:
                raise _refusal(error, model) from error
        return self._sync(model=model, messages=messages, **options)

    async def async_get_available_deployment(
        self, model: str, messages: Sequence[Mapping[str, Any]] | None = None, **options: Any
    ) -> object:
        """Choose a deployment."""
        if model == self._model:
            model = (await _decide(self._router, messages, self._policy, model)).model
        return await self._async(model=model, messages=messages, **options)


async def _decide(router: Router, messages: Any, policy: Policy | None, model: str) -> Decision:
    _check_messages(messages, model)
    try:
        return await router.aroute(messages, policy=policy)
    except (DataError, PolicyError) as error:
        raise _refusal(error, model) from error


def _check_installed() -> None:
    if litellm is None:
        raise DataError("LiteLLM is not installed: pip install 'litellm[proxy]'")


def _check_messages(messages: object, model: str) -> None:
    if not isinstance(messages, list) or not messages:
        raise _refusal(DataError("a model can be chosen only for messages, and there are none"), model)


def _refusal(error: ValueError, model: str) -> Exception:
    """The error that clients of LiteLLM expect where a request is at fault."""
    refusal: Exception = litellm.BadRequestError(message=str(error), model=model, llm_provider="centroute")
    return refusal
