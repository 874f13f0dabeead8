"""Calibration: outcomes in, a router artifact out. ``calibrate(outcomes, embedder="static-256")``.

Steps, each a module: :mod:`~centroute.calibrate.kmeans` clusters the embeddings,
:mod:`~centroute.calibrate.tables` averages outcomes per cluster,
:mod:`~centroute.calibrate.selection` chooses what was left open by cross-validation, and
:mod:`~centroute.calibrate.pipeline` puts them together with the holdout and the report.
"""

from centroute.calibrate.kmeans import Clustering, spherical_kmeans
from centroute.calibrate.pipeline import calibrate
from centroute.calibrate.settings import METHODS

__all__ = ["METHODS", "Clustering", "calibrate", "spherical_kmeans"]
