"""Evaluation of a router on outcomes. ``evaluate(router, outcomes)``."""

from centroute.evaluate.evaluation import Evaluation, FrontierPoint, Measured, evaluate

__all__ = ["Evaluation", "FrontierPoint", "Measured", "evaluate"]
