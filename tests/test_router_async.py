"""One router for threads, tasks and processes: what runs where, cold start once, forks and pickles."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from centroute import (
    Artifact,
    DataError,
    EmbedderError,
    Policy,
    PolicyError,
    Router,
    _loaded,
    _workers,
    embedders,
)
from centroute.conversation import Conversation
from centroute.embedders import Embedder, load_embedder
from centroute.microbatch import MicroBatch
from centroute.session import Session

TEXT = "What is the capital of France?"
LONG = "What is the capital of France? " * 40_000
MESSAGES = [{"role": "system", "content": "You know maps."}, {"role": "user", "content": TEXT}]
WAIT = 30.0
"""Seconds after which a wait has failed."""


@pytest.fixture
def router(router_file: Path) -> Router:
    """Its embedder is loaded."""
    router = Router.load(router_file)
    assert router.embedder.name == "static-256"
    return router


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids of the threads that took work off the loop."""
    threads: list[int] = []
    in_worker = _workers.in_worker

    async def noting(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        def noted() -> Any:
            threads.append(threading.get_ident())
            return function(*arguments, **options)

        return await in_worker(noted)

    monkeypatch.setattr(_workers, "in_worker", noting)
    return threads


# -- where it runs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "query", [TEXT, MESSAGES, "x y " * 4096], ids=["text", "messages", "16,384 characters"]
)
def test_what_takes_microseconds_is_decided_on_the_loop(router: Router, moved: list[int], query: Any) -> None:
    policy = Policy(willingness_to_pay=0.01)
    got = asyncio.run(router.aroute(query, policy=policy))
    assert moved == []
    wanted = router.route(query, policy=policy)
    assert (got.model, got.similarity, got.ranking) == (wanted.model, wanted.similarity, wanted.ranking)


@pytest.mark.parametrize(
    "query",
    [
        "x y " * 4096 + "z",
        LONG,
        [{"role": "user", "content": LONG}],
        [{"role": "user", "content": TEXT}] * 129,
        [{"role": "user", "content": [{"type": "text", "text": "x y "}] * 129}],
    ],
    ids=["16,385 characters", "1 MB", "1 MB message", "129 messages", "129 parts"],
)
def test_what_takes_longer_is_decided_by_a_worker(router: Router, moved: list[int], query: Any) -> None:
    got = asyncio.run(router.aroute(query))
    assert len(moved) == 1
    assert threading.get_ident() not in moved
    assert got.similarity == router.route(query).similarity


def test_a_large_table_is_searched_by_a_worker(
    router: Router, moved: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_loaded, "QUICK_CENTROIDS", 100)
    assert asyncio.run(router.aroute(TEXT)).model == router.route(TEXT).model
    assert len(moved) == 1


def test_a_system_prompt_with_a_share_is_embedded_by_a_worker(router_file: Path, moved: list[int]) -> None:
    router = Router.load(router_file, conversation=Conversation(system_share=0.3))
    router.route(TEXT)
    asyncio.run(router.aroute(TEXT))
    assert moved == []
    got = asyncio.run(router.aroute(MESSAGES))
    assert len(moved) == 1
    assert got.similarity == router.route(MESSAGES).similarity


def test_onnx_runtime_is_run_by_a_worker(router_file: Path, moved: list[int]) -> None:
    router = Router.load(router_file, embedder=load_embedder("static-256", runtime="onnx"))
    got = asyncio.run(router.aroute(TEXT))
    assert len(moved) == 1
    assert threading.get_ident() not in moved
    assert got.similarity == router.route(TEXT).similarity


def test_batched_texts_are_embedded_off_the_loop(router_file: Path) -> None:
    class Noting(Embedder):
        tokenizer = "test"

        def __init__(self) -> None:
            self.inner = load_embedder("static-256", runtime="onnx")
            self.description, self.runtime, self.device = self.inner.description, "test", "cpu"
            self.threads: set[int] = set()

        def embed(self, texts: Any) -> Any:
            self.threads.add(threading.get_ident())
            return self.inner.embed(texts)

        def tokenize(self, text: str) -> Any:
            return self.inner.tokenize(text)

    embedder = Noting()
    router = Router.load(router_file, embedder=embedder, microbatch=MicroBatch())
    asyncio.run(router.aroute(TEXT))
    assert embedder.threads
    assert threading.get_ident() not in embedder.threads


def test_sessions_and_errors_are_those_of_route(router: Router) -> None:
    worst = router.route(TEXT).ranking[-1]
    session = Session(model=worst, switch_quality=1.0, switch_cost_usd=9.0)
    for query in (TEXT, LONG):
        assert asyncio.run(router.aroute(query, session=session)).model == worst
    for query in ("", " " * 20_000):
        with pytest.raises(DataError, match="only spaces or nothing"):
            asyncio.run(router.aroute(query))
    with pytest.raises(DataError, match=r"messages\[0\]: no role"):
        asyncio.run(router.aroute([{}]))
    with pytest.raises(TypeError, match="got int"):
        asyncio.run(router.aroute(7))  # type: ignore[call-overload]
    with pytest.raises(PolicyError):
        asyncio.run(router.aroute(LONG, policy=Policy(allow={"nobody"})))


def test_a_worker_sees_the_context_of_the_task() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="outside")

    async def main() -> str:
        variable.set("inside")
        return await _workers.in_worker(variable.get)

    assert asyncio.run(main()) == "inside"


def test_threads_and_tasks_share_a_router(router: Router) -> None:
    texts = [f"question {number} about {'law' if number % 3 else 'code'}" for number in range(200)]
    wanted = [router.route(text).similarity for text in texts]
    got: list[list[float]] = []

    def in_thread() -> None:
        got.append([router.route(text).similarity for text in texts])

    def in_loop() -> None:
        async def main() -> list[float]:
            return [decision.similarity for decision in await asyncio.gather(*map(router.aroute, texts))]

        got.append(asyncio.run(main()))

    def in_batch() -> None:
        got.append([float(value) for value in router.route_batch(texts).similarity])

    threads = [threading.Thread(target=kind) for kind in (in_thread, in_loop, in_batch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert len(got) == 9
    for similarities in got:
        np.testing.assert_allclose(similarities, wanted, rtol=1e-6)


# -- cold start --------------------------------------------------------------------------


class Loading:
    """Takes the place of `load_embedder`: loads when it is told to, and counts."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.entered = threading.Event()
        self.go = threading.Event()
        self.fails = False

    def __call__(self, name: str) -> Embedder:
        self.threads.append(threading.get_ident())
        self.entered.set()
        assert self.go.wait(WAIT)
        if self.fails:
            raise EmbedderError(f"{name} is away")
        return load_embedder(name)


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Loading:
    loading = Loading()
    monkeypatch.setattr(embedders, "load_embedder", loading)
    return loading


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(int(WAIT * 1000)):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("waited in vain")


def test_cold_start_is_done_once_and_off_the_loop(router_file: Path, loading: Loading) -> None:
    router = Router.load(router_file)

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(router.aroute(TEXT)) for _ in range(20)]
        threads = [asyncio.create_task(asyncio.to_thread(router.route, TEXT)) for _ in range(3)]
        await until(loading.entered.is_set)
        # The loop runs while the embedder is being loaded: it is this line that lets it go on.
        loading.go.set()
        return await asyncio.wait_for(asyncio.gather(*tasks, *threads), WAIT)

    decisions = asyncio.run(main())
    assert len(decisions) == 23
    assert len(loading.threads) == 1
    assert threading.get_ident() not in loading.threads


def test_a_cancelled_task_leaves_the_cold_start_to_the_others(router_file: Path, loading: Loading) -> None:
    router = Router.load(router_file)

    async def main() -> Any:
        first, second = asyncio.create_task(router.aroute(TEXT)), asyncio.create_task(router.aroute(TEXT))
        await until(loading.entered.is_set)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert first.cancelled()
        loading.go.set()
        return await asyncio.wait_for(second, WAIT)

    assert asyncio.run(main()).model in router.models
    assert len(loading.threads) == 1


def test_a_cold_start_that_fails_is_tried_once_by_a_crowd_and_again_later(
    router_file: Path, loading: Loading
) -> None:
    router = Router.load(router_file)
    loading.fails = True
    errors: list[str] = []

    def ask() -> None:
        try:
            router.route(TEXT)
        except EmbedderError as error:
            errors.append(str(error))

    lock, came = router._changing, threading.Semaphore(0)

    class Noting:
        def __enter__(self) -> None:
            came.release()
            lock.acquire()

        def __exit__(self, *error: object) -> None:
            lock.release()

    router._changing = Noting()  # type: ignore[assignment]
    crowd = [threading.Thread(target=ask) for _ in range(5)]
    for thread in crowd:
        thread.start()
    for _ in crowd:
        assert came.acquire(timeout=WAIT)
    loading.go.set()
    for thread in crowd:
        thread.join(WAIT)
    assert errors == ["static-256 is away"] * 5
    assert len(loading.threads) == 1
    loading.fails = False
    assert router.route(TEXT).model in router.models


def test_a_cold_start_with_batches(router_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedders, "load_embedder", lambda name: load_embedder(name, runtime="onnx"))
    router = Router.load(router_file, microbatch=MicroBatch())

    async def main() -> list[Any]:
        return await asyncio.gather(*(router.aroute(TEXT) for _ in range(5)))

    assert {decision.model for decision in asyncio.run(main())} == {router.route(TEXT).model}
    assert router._loaded.batcher is not None


def test_loading_imports_what_the_first_text_will_need(router_file: Path) -> None:
    """An import in a worker would hold the loop; a static embedder needs neither NumPy nor ONNX Runtime."""
    code = """
router = Router.load(sys.argv[1])
before = {name for name in sys.modules if name.startswith("centroute")}
router.route(TEXT)
print(sorted({name for name in sys.modules if name.startswith("centroute")} - before), "numpy" in sys.modules)
"""
    assert run(code, router_file).split() == ["[]", "False"]


# -- processes ---------------------------------------------------------------------------

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def run(code: str, *arguments: object) -> str:
    """Output of a script; a child of it that hangs is ended by its alarm."""
    prelude = """
import asyncio, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")  # Python 3.12 and newer warn of every fork beside threads
from centroute import Router
TEXT = "What is the capital of France?"

def in_child(work):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        work()
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", prelude + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_fork
def test_a_fork_during_the_cold_start(router_file: Path) -> None:
    """Another thread holds the router's lock when the process is forked."""
    code = """
from centroute import embedders
load, entered, go = embedders.load_embedder, threading.Event(), threading.Event()
def slowly(name):
    entered.set()
    assert go.wait(60)
    return load(name)
embedders.load_embedder = slowly
router = Router.load(sys.argv[1])
thread = threading.Thread(target=router.route, args=(TEXT,))
thread.start()
assert entered.wait(60)
def work():
    embedders.load_embedder = load
    print(router.route(TEXT).model, flush=True)
print(in_child(work))
go.set()
thread.join()
"""
    model = Router.load(router_file).route(TEXT).model
    assert run(code, router_file).split() == [model, "0"]


@needs_fork
def test_the_workers_of_a_forked_process(router_file: Path) -> None:
    code = """
router = Router.load(sys.argv[1])
long = TEXT * 1000
asyncio.run(router.aroute(long))
def work():
    print(asyncio.run(router.aroute(long)).model, router.route(TEXT).generation, flush=True)
print(in_child(work))
"""
    model = Router.load(router_file).route("What is the capital of France?" * 1000).model
    assert run(code, router_file).split() == [model, "1", "0"]


@needs_fork
@pytest.mark.parametrize("threads", [1, 2])
def test_onnx_runtime_in_a_forked_process(router_file: Path, threads: int) -> None:
    """The child opens a session of its own, alone and in batches, and ends."""
    code = """
from centroute.embedders import load_embedder
from centroute.microbatch import MicroBatch
embedder = load_embedder("static-256", runtime="onnx", threads=int(sys.argv[2]))
router = Router.load(sys.argv[1], embedder=embedder)
batched = Router.load(sys.argv[1], embedder=embedder, microbatch=MicroBatch())
wanted = router.route(TEXT).similarity
assert batched.route(TEXT).similarity == wanted
session = embedder._graph.session
def work():
    assert router.route(TEXT).similarity == wanted
    assert batched.route(TEXT).similarity == wanted
    assert asyncio.run(batched.aroute(TEXT)).similarity == wanted
    assert embedder._graph.session is not session
    print("routed", flush=True)
print(in_child(work))
assert embedder._graph.session is session
assert router.route(TEXT).similarity == wanted
"""
    assert run(code, router_file, threads).split() == ["routed", "0"]


@needs_fork
def test_a_graph_that_was_replaced_is_not_opened_by_a_child(router_file: Path, tmp_path: Path) -> None:
    code = """
import shutil
from pathlib import Path
from centroute import EmbedderError
from centroute.embedders import bundled_folder, load_embedder
folder = Path(shutil.copytree(bundled_folder("static-256"), sys.argv[2]))
router = Router.load(sys.argv[1], embedder=load_embedder(folder, runtime="onnx"))
(folder / "model.onnx").write_bytes(b"another")
def work():
    try:
        router.route(TEXT)
    except EmbedderError as error:
        print(error, flush=True)
in_child(work)
"""
    assert "model.onnx: was replaced since it was loaded" in run(code, router_file, tmp_path / "embedder")


def test_a_device_does_not_survive_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder: Any = load_embedder("static-256", runtime="onnx")
    embedder.renew_after_fork()
    monkeypatch.setattr(embedder, "device", "cuda")
    with pytest.raises(
        EmbedderError, match="device cuda is lost in a forked process; load the embedder after"
    ):
        embedder.embed([TEXT])
    monkeypatch.setattr(embedder, "device", "cpu")
    assert embedder.embed([TEXT]).any()


def _route(router: Router) -> tuple[str, float]:
    decision = router.route(TEXT)
    return decision.model, decision.similarity


@pytest.mark.parametrize("method", sorted(set(multiprocessing.get_all_start_methods()) - {"fork"}))
def test_routers_reach_processes_that_are_spawned(router_file: Path, artifact: Artifact, method: str) -> None:
    router, wanted = Router.load(router_file), _route(Router.load(router_file))
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(_route, (router,)) == wanted
        assert pool.apply(_route, (Router.from_artifact(artifact),)) == wanted


def test_pickles_keep_the_options(router_file: Path, artifact: Artifact) -> None:
    conversation, microbatch = Conversation(system_share=0.2), MicroBatch(max_size=3)
    for router in (
        Router.load(router_file, precision="i8", conversation=conversation, microbatch=microbatch),
        Router.from_artifact(artifact, precision="i8", conversation=conversation, microbatch=microbatch),
    ):
        for again in (pickle.loads(pickle.dumps(router)), copy.copy(router)):
            assert again.precision == "i8"
            assert again.conversation == conversation
            assert again._loaded.microbatch == microbatch
            assert again.models == router.models
            assert _route(again) == _route(router)


def test_pickles_name_the_file_and_the_embedder(
    router_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(router_file.parent)
    router = Router.load(router_file.name, embedder="static-256")
    pickled = pickle.dumps(router)
    assert len(pickled) < 1000
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(pickled)
    assert again._loaded.static is not None
    assert _route(again) == _route(router)
