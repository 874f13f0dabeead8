"""Outcome data: reading and writing it, splitting it by text, and the bundled synthetic sample."""

from centroute.datasets.answers import Answers
from centroute.datasets.builder import Reading
from centroute.datasets.jsonl import read_jsonl, write_jsonl
from centroute.datasets.outcomes import Outcomes, split_by_text, text_key
from centroute.datasets.reading import read, read_outcomes
from centroute.datasets.synthetic import SYNTHETIC_NOTICE, example_queries, synthetic_outcomes

__all__ = [
    "SYNTHETIC_NOTICE",
    "Answers",
    "Outcomes",
    "Reading",
    "example_queries",
    "read",
    "read_jsonl",
    "read_outcomes",
    "split_by_text",
    "synthetic_outcomes",
    "text_key",
    "write_jsonl",
]
