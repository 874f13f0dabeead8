"""How long ``aroute`` holds an event loop: ``python benches/loop_hold.py``.

A task ticks on the loop without pause; its longest gap is how long anything else on the loop, or the
interpreter lock of a worker, kept it from running. Medians and extremes of the longest gaps of several runs,
since other processes of the machine make gaps too: the loop that does nothing is there for comparison. Cold
starts are measured in fresh processes.

The last table is what the bounds in `centroute._loaded` are chosen by: how long one decision takes with texts
as bad as were found.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

from centroute import DataError, Router
from centroute.calibrate import calibrate
from centroute.datasets import synthetic_outcomes

TARGET_MS = 5.0
SECONDS = 0.4
N_RUNS = 9
ENGLISH = "What is the capital city of France and why is it so big? "


async def longest_gap_ms(work: Callable[[], Coroutine[Any, Any, None]]) -> float:
    """Longest gap between two ticks while the work runs, in milliseconds."""
    longest = 0.0
    task = asyncio.ensure_future(work())
    last = time.perf_counter()
    while not task.done():
        await asyncio.sleep(0)
        now = time.perf_counter()
        longest = max(longest, now - last)
        last = now
    await task
    return 1e3 * longest


def repeated(ask: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], Coroutine[Any, Any, None]]:
    """Ask again and again, four at a time."""

    async def work() -> None:
        ends = time.perf_counter() + SECONDS
        while time.perf_counter() < ends:
            await asyncio.gather(*(ask() for _ in range(4)), return_exceptions=True)
            await asyncio.sleep(0.0005)

    return work


COLD = """
import asyncio, json, sys, time
from centroute import Router
sys.path.insert(0, sys.argv[2])
from loop_hold import longest_gap_ms
router = Router.load(sys.argv[1], **json.loads(sys.argv[3]))
async def work():
    await asyncio.sleep(0.05)
    await asyncio.gather(*(router.aroute("What is a prime number?") for _ in range(8)))
print(json.dumps(asyncio.run(longest_gap_ms(work))))
"""


def cold_start(file: Path) -> list[float]:
    """Longest gaps of fresh processes that decide their first texts."""
    arguments = [sys.executable, "-c", COLD, str(file), str(Path(__file__).parent), "{}"]
    runs = [subprocess.run(arguments, check=True, capture_output=True, text=True) for _ in range(N_RUNS)]
    return [json.loads(run.stdout) for run in runs]


def show(name: str, gaps: list[float]) -> None:
    """One line of the table."""
    print(f"  {name:28} {statistics.median(gaps):8.2f}   {min(gaps):.2f} to {max(gaps):.2f}", flush=True)


def worst_texts(router: Router) -> None:
    """One decision on the calling thread, by kind and length of the text."""
    rng = random.Random(0)  # noqa: S311 - texts
    kinds: dict[str, Callable[[int], str]] = {
        "English": lambda n: (ENGLISH * (n // len(ENGLISH) + 1))[:n],
        "emoji alone (refused)": lambda n: "🙂" * n,
        "random characters": lambda n: "".join(chr(rng.randrange(32, 0x3000)) for _ in range(n)),
        "blanks": lambda n: " " * (n - 1) + "a",
    }
    lengths = (1_000, 16_384, 64_000, 1_000_000)
    print(f"\nµs of one decision, static-256, medians of 9\n{'':24}" + "".join(f"{n:>12,}" for n in lengths))
    for kind, make in kinds.items():
        times = []
        for length in lengths:
            runs = []
            for number in range(9):
                text = make(length) + str(number)
                started = time.perf_counter()
                with suppress(DataError):
                    router.route(text)
                runs.append(1e6 * (time.perf_counter() - started))
            times.append(statistics.median(runs))
        print(f"{kind:24}" + "".join(f"{value:12.0f}" for value in times))


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "router.safetensors"
        calibrate(synthetic_outcomes(), method="means").save(file)
        router = Router.load(file)
        router.route("warm")
        million = (ENGLISH * 20_000)[:1_000_000]
        emoji = "🙂" * 1_000_000
        messages = [{"role": "user", "content": [{"type": "text", "text": ENGLISH}] * 5_000}]

        # To encode a text takes time once: each is used but a few times.
        fresh = cycle([emoji[number:] for number in range(60)])

        async def idle() -> None:
            await asyncio.sleep(0)

        scenes: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "idle": idle,
            "12 tokens": lambda: router.aroute("What is the capital of France, and who founded it?"),
            "16,384 characters": lambda: router.aroute(million[:16_384]),
            "16,384 emoji, refused": lambda: router.aroute(emoji[:16_384]),
            "1 MB of English": lambda: router.aroute(million),
            "1,000,000 emoji, refused": lambda: router.aroute(next(fresh)),
            "5,000 parts": lambda: router.aroute(messages),
        }
        print(f"longest gap of a loop, ms, median and extremes of {N_RUNS} runs (target {TARGET_MS:g})")
        for name, ask in scenes.items():
            show(name, [asyncio.run(longest_gap_ms(repeated(ask))) for _ in range(N_RUNS)])
        show("cold start, static-256", cold_start(file))
        worst_texts(router)


if __name__ == "__main__":
    main()
