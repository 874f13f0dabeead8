"""Ray: calibration and batch routing on a cluster, and a deployment for Ray Serve. Needs ``centroute[ray]``.

``RayEngine`` is what ``--engine ray`` runs on::

    from centroute.calibrate.streaming import calibrate_shards
    from centroute.ray import RayEngine

    with RayEngine(address="head:6379") as engine:
        artifact = calibrate_shards(["/data/shards"], checkpoint="/data/run", engine=engine)

``RouteRows`` routes the rows of a data set of Ray Data, and :mod:`centroute.ray.serve` serves a router.
Shards and checkpoint lie where all machines see them under one name. Nothing of Ray is loaded before it is
used.
"""

from centroute.ray.engine import RayEngine
from centroute.ray.rows import RouteRows

__all__ = ["RayEngine", "RouteRows"]
