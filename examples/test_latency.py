"""A latency test of one's own router: ``ROUTER=router.safetensors pytest test_latency.py``.

Budgets are in machine units, the time of a fixed loop in the same run, and so hold on a slow or busy machine.
Set a budget to 0.01 once to be told the figures of your router, and leave room for a half more.
"""

import os

from centroute.testing import RoutingLatency

TEXTS = [
    "What is the capital of France?",
    "Prove that the square root of two is irrational, and explain each step of the proof.",
    "def mean(values): return sum(values) / len(values)",
    "Summarise the following minutes of a meeting in five points. " * 4,
]


def test_a_decision_stays_quick(routing_latency: RoutingLatency) -> None:
    """Total, and the part of it that depends on the router alone."""
    routing_latency(os.environ["ROUTER"], TEXTS, total=0.5, kernel=0.25)
