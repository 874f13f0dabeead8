"""A router as a deployment of Ray Serve: ``serve.run(router_app("router.safetensors"))``.

``POST`` takes ``{"query": text}`` or ``{"queries": [text, …]}``, where a text may also be the messages of a
conversation, and ``"policy": {…}`` with the fields of :class:`centroute.Policy`. It answers the decision, or
``{"decisions": […]}``, as ``centroute route --json`` prints it; a request at fault is answered by 400 and
``{"error": line}``. Other deployments call ``handle.route.remote(query)``.

A replica holds the router and its embedder. ``reconfigure`` takes another router file without a restart:
deploy again with another ``user_config``, or let `router_app` do it.
"""

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

from centroute._kernel import Policy
from centroute.decision_json import decision_to_json
from centroute.errors import DataError, PolicyError
from centroute.policy import make_policy
from centroute.ray.engine import import_ray
from centroute.router import Router

MAX_BODY_BYTES = 1 << 20
AUTOSCALING: Mapping[str, Any] = {
    "min_replicas": 1,
    "max_replicas": 8,
    "target_ongoing_requests": 16,
    "upscale_delay_s": 5,
    "downscale_delay_s": 300,
}
"""What `router_app` scales by when not told otherwise; Ray Serve says what the fields mean."""


class RouterReplica:
    """What one replica runs. `router_app` makes a deployment of it."""

    def __init__(self) -> None:
        self._router: Router | None = None

    def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Load the router that the deployment's ``user_config`` names; called at the start and at changes.

        Requests go on with the old one meanwhile. A file that cannot be loaded is refused, and the old one
        stays.
        """
        if self._router is None:
            router = Router.load(config["router"], embedder=config.get("embedder"))
            # Loaded now, and not with the first request.
            router.embedder  # noqa: B018
            self._router = router
        else:
            self._router.reload(config["router"])

    async def route(self, query: Any, policy: Mapping[str, Any] | None = None) -> dict[str, object]:
        """Decide one query; see :meth:`centroute.Router.route` for its errors."""
        return decision_to_json(await self._loaded().aroute(query, policy=_policy(policy)))

    async def route_batch(
        self, queries: list[Any], policy: Mapping[str, Any] | None = None
    ) -> list[dict[str, object]]:
        """Decide many queries, in a worker thread."""
        router, asked = self._loaded(), _policy(policy)
        return await asyncio.to_thread(
            lambda: [decision_to_json(router.route(query, policy=asked)) for query in queries]
        )

    async def __call__(self, request: Any) -> Any:
        """Answer an HTTP request."""
        from starlette.responses import JSONResponse

        try:
            return JSONResponse(await self._answer(await _body(request)))
        except (DataError, PolicyError) as error:
            return JSONResponse({"error": str(error)}, status_code=400)

    async def _answer(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        policy = fields.get("policy")
        if unknown := sorted(set(fields) - {"query", "queries", "policy"}):
            raise DataError(f"{unknown[0]!r} is no field; there are query, queries and policy")
        if ("query" in fields) == ("queries" in fields):
            raise DataError("wanted one of query and queries")
        if policy is not None and not isinstance(policy, Mapping):
            raise DataError("policy: wanted an object")
        try:
            if "query" in fields:
                return await self.route(fields["query"], policy)
            if not isinstance(fields["queries"], list):
                raise DataError("queries: wanted a list")
            return {"decisions": await self.route_batch(fields["queries"], policy)}
        except TypeError as error:
            raise DataError(str(error)) from None

    def _loaded(self) -> Router:
        if self._router is None:
            raise RuntimeError("the deployment has no user_config with a router")
        return self._router


def router_app(
    router: str | os.PathLike[str],
    *,
    embedder: str | None = None,
    autoscaling: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Make an application of Ray Serve that serves a router.

    Parameters
    ----------
    router
        Router file or bundle, which all machines see under this name.
    embedder
        Name or folder of the embedder, where the router's own is elsewhere.
    autoscaling
        Fields of Ray Serve's ``AutoscalingConfig``; `AUTOSCALING` when not given.
    options
        Further options of ``ray.serve.deployment``, such as ``ray_actor_options``.

    Returns
    -------
    ray.serve.Application
        For ``serve.run`` or the command ``serve run``.

    Raises
    ------
    DataError
        Ray Serve is not installed.
    """
    serve = import_ray("ray.serve")
    config = {"router": os.fspath(os.path.abspath(router)), "embedder": embedder}  # noqa: PTH100
    deployment = serve.deployment(
        RouterReplica,
        name="router",
        user_config=config,
        autoscaling_config=dict(AUTOSCALING if autoscaling is None else autoscaling),
        **options,
    )
    return deployment.bind()


def _policy(fields: Mapping[str, Any] | None) -> Policy | None:
    return None if fields is None else make_policy(dict(fields))


async def _body(request: Any) -> Mapping[str, Any]:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MAX_BODY_BYTES:
            raise DataError(f"the body has more than {MAX_BODY_BYTES} bytes")
    try:
        fields = json.loads(bytes(content))
    except (ValueError, RecursionError) as error:
        raise DataError(f"the body is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise DataError("the body: wanted an object")
    return fields
