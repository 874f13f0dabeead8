"""``RouteRows``: a decision on every row of a data set of Ray Data."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from centroute.batch import decisions_of
from centroute.policy import make_policy
from centroute.router import Router


class RouteRows:
    """A callable for ``Dataset.map_batches``: adds the columns of a decision to batches of rows.

    Parameters
    ----------
    router
        Router file or bundle, which the workers see under this name.
    policy
        Fields of a :class:`centroute.Policy`; the router's own default when not given.
    column
        Column of the texts.

    Examples
    --------
    >>> import ray  # doctest: +SKIP
    >>> routed = ray.data.read_parquet("queries").map_batches(  # doctest: +SKIP
    ...     RouteRows,
    ...     fn_constructor_args=("router.safetensors",),
    ...     fn_constructor_kwargs={"policy": {"willingness_to_pay": 0.01}},
    ...     compute=ray.data.ActorPoolStrategy(size=2),
    ... )
    """

    def __init__(
        self,
        router: str | os.PathLike[str],
        *,
        policy: Mapping[str, Any] | None = None,
        column: str = "query",
    ) -> None:
        self._router = Router.load(router)
        self._policy = make_policy(dict(policy or {}))
        self._column = column

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Route one batch in the form of arrays by column.

        Returns
        -------
        dict[str, Any]
            The batch with ``model`` (None where a text holds nothing to route on), ``quality``, ``cost_usd``
            and ``similarity`` (NaN there and where unknown) and ``in_distribution``.
        """
        texts = ["" if text is None else str(text) for text in batch[self._column]]
        decisions, _ = decisions_of(self._router, texts, self._policy, threads=1)

        def numbers(name: str) -> np.ndarray[Any, Any]:
            values = [None if found is None else found[name] for found in decisions]
            return np.array([np.nan if value is None else value for value in values], dtype=np.float32)

        return {
            **batch,
            "model": np.array(
                [None if found is None else found["model"] for found in decisions], dtype=object
            ),
            **{name: numbers(name) for name in ("quality", "cost_usd", "similarity")},
            "in_distribution": np.array([bool(found and found["in_distribution"]) for found in decisions]),
        }
