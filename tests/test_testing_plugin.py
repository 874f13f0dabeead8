"""The pytest plugin, in a pytest of its own: passes with room, fails without, says why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from centroute.testing import machine_unit

pytest.importorskip("pytest_benchmark", reason="needs centroute[testing]")

PLUGINS = ("pytest_benchmark.plugin", "centroute.testing")
TEST = """
TEXTS = ["What is the capital of France?", "Prove that the square root of two is irrational."] * 4

def test_it(routing_latency):
    units = routing_latency({file!r}, TEXTS, seconds=0.2, {budgets})
    {then}
"""


@pytest.fixture
def check(tmp_path: Path, router_file: Path):
    """Run a test with these budgets; the finished process."""

    def run(
        budgets: str, *options: str, then: str = "pass", plugins: tuple[str, ...] = PLUGINS
    ) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "test_it.py"
        file.write_text(TEST.format(file=str(router_file), budgets=budgets, then=then))
        asked = [part for plugin in plugins for part in ("-p", plugin)]
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *asked, *options, str(file)],
            capture_output=True,
            text=True,
            # A worker of pytest-xdist tells its children so, and pytest-benchmark then measures nothing.
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")},
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            },
            cwd=tmp_path,
            timeout=60,
            check=False,
        )

    return run


def test_a_test_passes_within_its_budgets(check) -> None:
    # Ten milliseconds a text on the slowest of machines; a decision takes microseconds.
    then = "assert set(units) == {'tokenize', 'embed', 'kernel', 'total'} and min(units.values()) > 0"
    done = check("total=1000, kernel=1000, tokenize=1000, embed=1000", then=then)
    assert done.returncode == 0, done.stdout
    assert "1 tests" in done.stdout


def test_a_test_fails_over_its_budget_and_says_by_how_much(check) -> None:
    done = check("total=1000, kernel=0.0001")
    assert done.returncode == 1
    assert "over budget, in machine units a text: kernel " in done.stdout
    assert "(budget 0.0001)" in done.stdout
    assert "total " in done.stdout
    assert "µs here" in done.stdout


def test_nothing_is_asserted_where_benchmarks_are_disabled(check) -> None:
    done = check("total=0.0001", "--benchmark-disable", then="assert units == {}")
    assert done.returncode == 0, done.stdout


def test_without_pytest_benchmark_the_extra_is_named(check) -> None:
    done = check("total=1", plugins=PLUGINS[1:])
    assert done.returncode == 1
    assert "centroute[testing]" in done.stdout


@pytest.mark.parametrize(
    ("budgets", "told"),
    [("", "no budget: give at least one of tokenize"), ("total=0", "total 0: wanted a budget above 0")],
)
def test_faults_of_the_budgets_are_told(check, budgets: str, told: str) -> None:
    done = check(budgets)
    assert done.returncode == 1
    assert told in done.stdout


def test_the_unit_is_the_same_work_everywhere() -> None:
    state = 1
    for _ in range(100):
        state = (state * 1_103_515_245 + 12_345) % 2**31
    assert machine_unit() == state
