"""Evaluation of a router on outcomes. ``evaluate(router, outcomes)``.

:mod:`~centroute.evaluate.metrics` holds the published metrics with their formulas,
:mod:`~centroute.evaluate.baselines` what a router is compared with,
:mod:`~centroute.evaluate.resampling` intervals and the paired test,
:mod:`~centroute.evaluate.report` the HTML report and :mod:`~centroute.evaluate.plot` the frontier as PNG.
"""

from centroute.evaluate.evaluation import evaluate
from centroute.evaluate.figures import (
    Baseline,
    DatasetMeasured,
    Evaluation,
    FrontierPoint,
    Measured,
    Metrics,
    ModelMeasured,
)

__all__ = [
    "Baseline",
    "DatasetMeasured",
    "Evaluation",
    "FrontierPoint",
    "Measured",
    "Metrics",
    "ModelMeasured",
    "evaluate",
]
