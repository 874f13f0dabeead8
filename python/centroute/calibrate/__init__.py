"""Calibration: outcomes in, a router artifact out. ``calibrate(outcomes, embedder="static-256")``.

Steps, each a module: :mod:`~centroute.calibrate.kmeans` clusters the embeddings,
:mod:`~centroute.calibrate.tables` averages outcomes per cluster,
:mod:`~centroute.calibrate.selection` chooses what was left open by cross-validation, and
:mod:`~centroute.calibrate.pipeline` puts them together with the holdout and the report.
"""

from typing import TYPE_CHECKING

from centroute.calibrate.settings import METHODS

if TYPE_CHECKING:
    from centroute.calibrate.kmeans import Clustering, spherical_kmeans
    from centroute.calibrate.pipeline import calibrate

__all__ = ["METHODS", "Clustering", "calibrate", "spherical_kmeans"]


def __getattr__(name: str) -> object:
    """Load numba with what needs it, so that the names of the methods cost nothing."""
    if name == "calibrate":
        from centroute.calibrate.pipeline import calibrate

        return calibrate
    if name in {"Clustering", "spherical_kmeans"}:
        from centroute.calibrate import kmeans

        return getattr(kmeans, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
