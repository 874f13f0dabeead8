"""Diagnosis: why a router stays below the oracle, and what would help. ``diagnose(outcomes)``.

:mod:`~centroute.diagnose.cross_fitting` routes every row by what other rows taught: the calibrated tables,
dataset labels and the :mod:`~centroute.diagnose.probes`. :mod:`~centroute.diagnose.noise` says what chance
takes, :mod:`~centroute.diagnose.learning_curve` what more outcomes would give,
:mod:`~centroute.diagnose.draws` how sure that is, and :mod:`~centroute.diagnose.advice` what to do.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from centroute.diagnose.diagnosis import diagnose
    from centroute.diagnose.figures import Diagnosis

__all__ = ["Diagnosis", "diagnose"]


def __getattr__(name: str) -> object:
    """Load numba with what needs it."""
    if name == "diagnose":
        from centroute.diagnose.diagnosis import diagnose

        return diagnose
    if name == "Diagnosis":
        from centroute.diagnose.figures import Diagnosis

        return Diagnosis
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
