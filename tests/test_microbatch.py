"""Micro-batching: what is gathered, in which bounds, what is dropped and what is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from centroute import DataError, EmbedderError, Router
from centroute.conversation import Conversation
from centroute.embedders import Embedder, load_embedder
from centroute.errors import OverloadError
from centroute.microbatch import Batcher, MicroBatch

TEXTS = [f"what is the capital of country number {number}" for number in range(12)]
WAIT = 30.0
"""Seconds after which a wait has failed."""


class Gate(Embedder):
    """Embeds as another one does, and only while the gate is open; keeps what it was given."""

    tokenizer = "test"

    def __init__(self) -> None:
        self.inner = load_embedder("static-256", runtime="onnx")
        self.description, self.runtime, self.device = self.inner.description, "test", "cpu"
        self.batches: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.refuses: Callable[[str], bool] = lambda _: False

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.batches.append(list(texts))
        self.entered.release()
        assert self.open.wait(WAIT)
        for text in texts:
            if self.refuses(text):
                raise EmbedderError(f"cannot embed {text}")
        return self.inner.embed(texts)

    def tokenize(self, text: str) -> Any:
        return self.inner.tokenize(text)


@pytest.fixture
def gate() -> Gate:
    return Gate()


def held(gate: Gate, options: MicroBatch) -> tuple[Batcher, Future[Any]]:
    """A batcher whose thread is busy with the text "first"."""
    batcher = Batcher(gate, options)
    first = batcher.submit("first")
    assert gate.entered.acquire(timeout=WAIT)
    return batcher, first


def test_texts_that_wait_are_embedded_together(gate: Gate) -> None:
    batcher, first = held(gate, MicroBatch(max_wait_ms=0))
    rows = [batcher.submit(text) for text in TEXTS]
    gate.open.set()
    wanted = gate.inner.embed(TEXTS)
    for row, expected in zip(rows, wanted, strict=True):
        np.testing.assert_allclose(row.result(WAIT), expected, atol=1e-6)
    assert first.result(WAIT).shape == (256,)
    assert gate.batches == [["first"], TEXTS]


def test_a_batch_has_at_most_max_size_texts(gate: Gate) -> None:
    batcher, _ = held(gate, MicroBatch(max_size=5, max_wait_ms=0))
    rows = [batcher.submit(text) for text in TEXTS]
    gate.open.set()
    for row in rows:
        row.result(WAIT)
    assert gate.batches == [["first"], TEXTS[:5], TEXTS[5:10], TEXTS[10:]]


def test_a_batch_keeps_to_the_token_budget(gate: Gate) -> None:
    batcher, _ = held(gate, MicroBatch(max_tokens=60, max_wait_ms=0))
    texts = ["a" * 80, "b" * 80, "c" * 80, "d" * 400, "e" * 40]  # 22, 22, 22, 102 and 12 tokens
    rows = [batcher.submit(text) for text in texts]
    gate.open.set()
    for row in rows:
        row.result(WAIT)
    assert gate.batches == [["first"], texts[:2], texts[2:3], texts[3:4], texts[4:]]


def test_a_full_batch_does_not_wait(gate: Gate) -> None:
    gate.open.set()
    by_size = Batcher(gate, MicroBatch(max_size=2, max_wait_ms=1e6))
    rows = [by_size.submit(text) for text in TEXTS[:4]]
    by_tokens = Batcher(gate, MicroBatch(max_tokens=11, max_wait_ms=1e6))
    rows += [by_tokens.submit(text) for text in TEXTS[:4]]
    for row in rows:
        row.result(WAIT)


def test_a_batch_that_is_not_full_waits_for_others(gate: Gate) -> None:
    gate.open.set()
    batcher = Batcher(gate, MicroBatch(max_size=3, max_wait_ms=1e6))
    rows = [batcher.submit(text) for text in TEXTS[:2]]
    assert not gate.entered.acquire(timeout=0.05)
    rows.append(batcher.submit(TEXTS[2]))
    for row in rows:
        row.result(WAIT)
    assert gate.batches == [TEXTS[:3]]


def test_a_lone_text_waits_its_time_and_no_longer(gate: Gate) -> None:
    gate.open.set()
    batcher = Batcher(gate, MicroBatch(max_wait_ms=1))
    assert batcher.submit("alone").result(WAIT).shape == (256,)


def test_more_than_may_wait_are_refused_and_cancelled_ones_make_room(gate: Gate) -> None:
    batcher, _ = held(gate, MicroBatch(max_queue=3, max_wait_ms=0))
    rows = [batcher.submit(text) for text in TEXTS[:3]]
    with pytest.raises(OverloadError, match=r"embedder static-256: 3 texts wait, as many as may"):
        batcher.submit("one more")
    assert rows[1].cancel()
    last = batcher.submit(TEXTS[3])
    gate.open.set()
    last.result(WAIT)
    with pytest.raises(CancelledError):
        rows[1].result(WAIT)
    assert gate.batches == [["first"], [TEXTS[0], TEXTS[2], TEXTS[3]]]


def test_a_batch_of_which_all_were_cancelled_is_not_run(gate: Gate) -> None:
    batcher, first = held(gate, MicroBatch(max_wait_ms=0))
    for row in [batcher.submit(text) for text in TEXTS]:
        assert row.cancel()
    gate.open.set()
    first.result(WAIT)
    assert batcher.submit("after").result(WAIT).shape == (256,)
    assert gate.batches == [["first"], ["after"]]


def test_a_text_that_is_cancelled_after_a_batch_took_it(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    take = Batcher._next

    def take_and_cancel(batcher: Batcher) -> Any:
        batch = take(batcher)
        for waiting in batch:
            if waiting.text == TEXTS[1]:
                assert waiting.row.cancel()
        return batch

    monkeypatch.setattr(Batcher, "_next", take_and_cancel)
    batcher, _ = held(gate, MicroBatch(max_wait_ms=0))
    rows = [batcher.submit(text) for text in TEXTS[:3]]
    gate.open.set()
    assert rows[0].result(WAIT).shape == rows[2].result(WAIT).shape == (256,)
    assert rows[1].cancelled()
    assert gate.batches == [["first"], [TEXTS[0], TEXTS[2]]]


def test_a_text_that_fails_fails_alone(gate: Gate) -> None:
    gate.refuses = lambda text: text == TEXTS[1]
    batcher, _ = held(gate, MicroBatch(max_wait_ms=0))
    rows = [batcher.submit(text) for text in TEXTS[:3]]
    gate.open.set()
    with pytest.raises(EmbedderError, match="cannot embed"):
        rows[1].result(WAIT)
    for row in (rows[0], rows[2]):
        assert row.result(WAIT).shape == (256,)


def test_two_threads_run_side_by_side(gate: Gate) -> None:
    batcher = Batcher(gate, MicroBatch(max_size=1, max_wait_ms=0, threads=2))
    rows = [batcher.submit(text) for text in TEXTS[:4]]
    for _ in range(2):
        assert gate.entered.acquire(timeout=WAIT)
    assert not gate.entered.acquire(timeout=0.05)
    gate.open.set()
    for row in rows:
        row.result(WAIT)


def test_a_thread_without_work_ends_and_another_takes_its_place(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("centroute.microbatch.IDLE_SECONDS", 0.01)
    before = set(threading.enumerate())
    batcher = Batcher(gate, MicroBatch(max_wait_ms=0))
    one = batcher.submit("one")
    (thread,) = set(threading.enumerate()) - before
    gate.open.set()
    one.result(WAIT)
    thread.join(WAIT)
    assert not thread.is_alive()
    assert batcher.submit("two").result(WAIT).shape == (256,)


@pytest.mark.parametrize(
    "options",
    [{"max_size": 0}, {"max_tokens": 0}, {"max_queue": 0}, {"threads": 0}, {"max_wait_ms": -1},
     {"max_wait_ms": float("inf")}, {"max_wait_ms": float("nan")}],
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"{name}: got"):
        MicroBatch(**options)


# -- in a router -------------------------------------------------------------------------


def router_with(gate: Gate, file: Path, **options: Any) -> Router:
    return Router.load(file, embedder=gate, microbatch=MicroBatch(max_wait_ms=0, **options))


def test_tasks_and_threads_share_batches_and_decide_as_alone(gate: Gate, router_file: Path) -> None:
    router = router_with(gate, router_file)
    wanted = [Router.load(router_file).route(text) for text in TEXTS]

    async def crowd() -> list[Any]:
        tasks = [asyncio.create_task(router.aroute(text)) for text in TEXTS[:6]]
        threads = [asyncio.to_thread(router.route, text) for text in TEXTS[6:]]
        results = asyncio.gather(*tasks, *threads)
        queue = router._loaded.batcher._queue  # type: ignore[union-attr]
        for _ in range(int(1000 * WAIT)):
            if sum(map(len, gate.batches)) + len(queue) == len(TEXTS):
                break
            await asyncio.sleep(0.001)
        gate.open.set()
        return await asyncio.wait_for(results, WAIT)

    for got, decision in zip(asyncio.run(crowd()), wanted, strict=True):
        assert got.model == decision.model
        assert got.similarity == pytest.approx(decision.similarity, abs=2e-6)
    assert len(gate.batches) < len(TEXTS)
    assert sorted(text for batch in gate.batches for text in batch) == sorted(TEXTS)


def test_a_cancelled_task_takes_its_text_back(gate: Gate, router_file: Path) -> None:
    router = router_with(gate, router_file)

    async def crowd() -> None:
        first = asyncio.create_task(router.aroute("first"))
        await asyncio.to_thread(gate.entered.acquire, timeout=WAIT)
        tasks = [asyncio.create_task(router.aroute(text)) for text in TEXTS[:3]]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        gate.open.set()
        await asyncio.wait_for(asyncio.gather(first, tasks[0], tasks[2]), WAIT)

    asyncio.run(crowd())
    assert gate.batches == [["first"], [TEXTS[0], TEXTS[2]]]


def test_overload_reaches_the_caller(gate: Gate, router_file: Path) -> None:
    router = router_with(gate, router_file, max_queue=1)

    async def crowd() -> None:
        first = asyncio.create_task(router.aroute("first"))
        await asyncio.to_thread(gate.entered.acquire, timeout=WAIT)
        second = asyncio.create_task(router.aroute("second"))
        await asyncio.sleep(0)
        with pytest.raises(OverloadError):
            await router.aroute("third")
        gate.open.set()
        await asyncio.wait_for(asyncio.gather(first, second), WAIT)

    asyncio.run(crowd())


def test_texts_without_known_token_are_refused(gate: Gate, router_file: Path) -> None:
    gate.open.set()
    router = router_with(gate, router_file)
    with pytest.raises(DataError, match="text 0 holds nothing that the embedder knows"):
        asyncio.run(router.aroute("🙂"))
    with pytest.raises(DataError, match="text 0 holds only spaces or nothing"):
        router.route("")


def test_system_prompts_are_blended_in(gate: Gate, router_file: Path) -> None:
    gate.open.set()
    conversation = Conversation(system_share=0.3)
    router = Router.load(router_file, embedder=gate, conversation=conversation, microbatch=MicroBatch())
    messages = [{"role": "system", "content": "You know maps."}, {"role": "user", "content": TEXTS[0]}]
    wanted = Router.load(router_file, conversation=conversation).route(messages).similarity
    assert asyncio.run(router.aroute(messages)).similarity == pytest.approx(wanted, abs=2e-6)
    assert router.route(messages).similarity == pytest.approx(wanted, abs=2e-6)


def test_a_static_embedder_has_no_queue(router_file: Path) -> None:
    router = Router.load(router_file, microbatch=MicroBatch())
    assert asyncio.run(router.aroute(TEXTS[0])).model == router.route(TEXTS[0]).model
    assert router._loaded.batcher is None


def test_a_reload_keeps_the_queue_of_the_embedder(gate: Gate, router_file: Path) -> None:
    gate.open.set()
    router = router_with(gate, router_file)
    batcher = router._loaded.batcher
    assert router.reload() == 2
    assert router._loaded.batcher is batcher
    assert router.route(TEXTS[0]).generation == 2
