"""Reload: at once, for whole requests, with a generation; a bad file changes nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_router_async import needs_fork, run

from centroute import Artifact, ArtifactError, DataError, EmbedderError, Policy, Router, embedders
from centroute.calibrate import calibrate
from centroute.datasets import Outcomes
from centroute.embedders import bundled_folder, fingerprint, load_embedder
from centroute.microbatch import MicroBatch

TEXT = "What is the capital of France?"
WAIT = 30.0
"""Seconds after which a wait has failed."""


@pytest.fixture(scope="module")
def other(artifact: Artifact) -> Artifact:
    """The same pool under other names, and with another quality everywhere."""
    models = tuple(replace(model, name=f"new-{model.name}") for model in artifact.models)
    return replace(artifact, models=models, quality=artifact.quality * 0.5, default_policy=None)


@pytest.fixture(scope="module")
def with_features(outcomes: Outcomes) -> Artifact:
    """Wants surface features: the same embedder has another width here."""
    return calibrate(outcomes, method="means", n_clusters=6, top_p=2, surface_weight=0.15)


@pytest.fixture
def file(router_file: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(router_file, tmp_path / "router.safetensors"))


def put(artifact: Artifact, file: Path) -> None:
    """Replace a file by renaming, as `Artifact.save` does."""
    artifact.save(file)


def spoil(file: Path) -> None:
    beside = file.with_suffix(".bad")
    beside.write_bytes(file.read_bytes()[:-1] + b"\xff")
    beside.replace(file)


# -- reload ------------------------------------------------------------------------------


def test_decisions_carry_the_generation(file: Path, artifact: Artifact, other: Artifact) -> None:
    router = Router.load(file)
    before = router.route(TEXT)
    assert (before.generation, router.generation) == (1, 1)
    put(other, file)
    assert router.reload() == 2
    after = router.route(TEXT)
    assert (after.generation, router.generation) == (2, 2)
    assert (after.model, after.quality) == (f"new-{before.model}", pytest.approx(before.quality / 2))
    assert router.models == artifact_names(other)
    assert router.route_batch([TEXT]).generation == 2
    assert asyncio.run(router.aroute(TEXT)).generation == 2
    assert before.model in artifact_names(artifact)
    assert before.generation == 1


def artifact_names(artifact: Artifact) -> tuple[str, ...]:
    return tuple(model.name for model in artifact.models)


def test_another_file_becomes_the_routers(file: Path, other: Artifact, tmp_path: Path) -> None:
    router = Router.load(file)
    put(other, tmp_path / "other.safetensors")
    assert router.reload(tmp_path / "other.safetensors") == 2
    assert router.models == artifact_names(other)
    assert router.reload() == 3
    assert router.models == artifact_names(other)
    assert router.source is not None
    assert router.source[0] == tmp_path / "other.safetensors"


def test_a_bad_file_leaves_the_old_one_serving(file: Path, tmp_path: Path) -> None:
    router = Router.load(file)
    before = router.route(TEXT)
    spoil(file)
    for path in (None, tmp_path / "missing.safetensors", tmp_path):
        with pytest.raises(ArtifactError, match=str(tmp_path)):
            router.reload(path)
        after = router.route(TEXT)
        assert (after.model, after.similarity, after.generation) == (before.model, before.similarity, 1)


def test_a_router_without_file_must_name_one(artifact: Artifact, file: Path) -> None:
    router = Router.from_artifact(artifact)
    with pytest.raises(ArtifactError, match="reload: this router was not loaded from a file"):
        router.reload()
    with pytest.raises(ArtifactError, match="watch: this router was not loaded from a file"):
        router.watch()
    assert router.reload(file) == 2
    assert router.reload() == 3


def test_a_cold_router_stays_cold(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who brings embeddings needs no embedder."""
    router = Router.load(file)

    def never(name: str) -> Any:
        raise AssertionError(name)

    with monkeypatch.context() as patch:
        patch.setattr(embedders, "load_embedder", never)
        assert router.reload() == 2
    assert router.route(TEXT).generation == 2


def test_the_embedder_is_kept_where_it_fits(file: Path, other: Artifact) -> None:
    router = Router.load(file)
    embedder = router.embedder
    put(other, file)
    router.reload()
    assert router.embedder is embedder


@pytest.fixture
def two_embedders(tmp_path: Path, outcomes: Outcomes) -> tuple[Path, Path, Path, Path]:
    """Two router files, each with the folder of its embedder; the embedders read other lengths of a text."""
    made = []
    for name, max_tokens in (("short", 8), ("long", 64)):
        folder = Path(shutil.copytree(bundled_folder("static-256"), tmp_path / name))
        description = json.loads((folder / "embedder.json").read_text())
        description |= {"name": name, "max_tokens": max_tokens}
        description["fingerprint"] = fingerprint(
            description["model_sha256"],
            tokenizer_sha256=description["tokenizer_sha256"],
            pooling=description["pooling"],
            max_tokens=max_tokens,
        )
        (folder / "embedder.json").write_text(json.dumps(description))
        router_file = tmp_path / f"{name}.safetensors"
        calibrate(
            outcomes,
            embedder=load_embedder(folder),
            method="means",
            n_clusters=6,
            top_p=2,
            surface_weight=0.0,
        ).save(router_file)
        made += [router_file, folder]
    return tuple(made)  # type: ignore[return-value]


def test_another_embedder_is_loaded_before_the_swap(
    two_embedders: tuple[Path, Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, first_folder, second, second_folder = two_embedders
    router = Router.load(first, embedder=load_embedder(first_folder))
    seen = []

    def load(name: str) -> Any:
        seen.append((name, router.generation, router.route(TEXT).generation))
        return load_embedder(second_folder)

    monkeypatch.setattr(embedders, "load_embedder", load)
    assert router.reload(second) == 2
    assert seen == [("long", 1, 1)]
    assert router.embedder.name == "long"
    assert router.route("word " * 50).generation == 2


def test_an_embedder_that_is_not_found_leaves_the_old_one_serving(
    two_embedders: tuple[Path, Path, Path, Path],
) -> None:
    first, first_folder, second, _ = two_embedders
    router = Router.load(first, embedder=str(first_folder))
    with pytest.raises(EmbedderError, match="the router was calibrated with long"):
        router.reload(second)
    assert router.route(TEXT).generation == 1
    router = Router.load(first, embedder=load_embedder(first_folder))
    with pytest.raises(EmbedderError, match="no embedder named 'long'"):
        router.reload(second)
    assert router.route(TEXT).generation == 1


def test_a_folder_that_changed_with_its_router_is_read_again(
    two_embedders: tuple[Path, Path, Path, Path],
) -> None:
    first, first_folder, second, second_folder = two_embedders
    router = Router.load(first, embedder=first_folder)
    shutil.rmtree(first_folder)
    second_folder.rename(first_folder)
    assert router.reload(second) == 2
    assert router.embedder.name == "long"


def test_surface_features_come_and_go(file: Path, with_features: Artifact, artifact: Artifact) -> None:
    router = Router.load(file)
    router.route(TEXT)
    for wanted in (with_features, artifact, with_features):
        put(wanted, file)
        router.reload()
        fresh = Router.from_artifact(wanted)
        assert router.route(TEXT).similarity == fresh.route(TEXT).similarity
        assert router.embed([TEXT]).shape == fresh.embed([TEXT]).shape


def test_the_precision_is_kept(file: Path) -> None:
    router = Router.load(file, precision="i8")
    router.reload()
    assert router.precision == "i8"


def test_reloads_at_the_same_time_count_one_by_one(file: Path) -> None:
    router = Router.load(file)
    generations: list[int] = []
    threads = [threading.Thread(target=lambda: generations.append(router.reload())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert sorted(generations) == list(range(2, 10))
    assert router.generation == 9


def test_a_cold_start_and_a_reload_at_the_same_time(file: Path, other: Artifact) -> None:
    """Whichever comes second, nothing of the first is lost."""
    for _ in range(10):
        router = Router.load(file)
        start = threading.Barrier(2)

        def asks(router: Router = router, start: threading.Barrier = start) -> None:
            start.wait(WAIT)
            router.route(TEXT)

        thread = threading.Thread(target=asks)
        thread.start()
        start.wait(WAIT)
        router.reload()
        thread.join(WAIT)
        assert (router.generation, router.route(TEXT).generation) == (2, 2)


@pytest.mark.parametrize("microbatch", [None, MicroBatch()], ids=["alone", "batches"])
def test_a_reload_in_the_middle_of_a_request(
    file: Path, tmp_path: Path, with_features: Artifact, microbatch: MicroBatch | None
) -> None:
    """The text is being embedded when a router of another width takes over."""
    with_features.save(tmp_path / "other.safetensors")
    embedder = load_embedder("static-256", runtime="onnx")
    embed, reloads = embedder.embed, [tmp_path / "other.safetensors", file] * 3
    wanted = {generation: Router.load(path) for generation, path in enumerate([file, *reloads], start=1)}
    router = Router.load(file, embedder=embedder, microbatch=microbatch)

    def meanwhile(texts: Sequence[str]) -> Any:
        router.reload(reloads.pop(0))
        return embed(texts)

    embedder.embed = meanwhile  # type: ignore[method-assign]
    for generation, ask in enumerate(
        (
            lambda: router.route(TEXT),
            lambda: asyncio.run(router.aroute(TEXT)),
            lambda: router.route([{"role": "user", "content": TEXT}]),
        ),
        start=1,
    ):
        decision = ask()
        assert decision.generation == generation
        alone = wanted[generation].route(TEXT)
        assert decision.similarity == pytest.approx(alone.similarity, abs=2e-6)
    batch = router.route_batch([TEXT, TEXT])
    assert (batch.generation, router.generation) == (4, 5)
    assert batch.similarity[1] == pytest.approx(wanted[4].route(TEXT).similarity, abs=2e-6)


def facts(decision: Any) -> tuple[Any, ...]:
    return decision.model, decision.quality, decision.similarity, decision.ranking


def keep_asking(work: Callable[[], object], stop: threading.Event, counts: list[int]) -> None:
    number = 0
    while not stop.is_set():
        work()
        number += 1
    counts.append(number)


@pytest.mark.parametrize("runtime", ["auto", "onnx"])
def test_under_load_no_request_fails_or_sees_a_mixture(
    file: Path, tmp_path: Path, artifact: Artifact, other: Artifact, with_features: Artifact, runtime: Any
) -> None:
    """Three routers in turn, of other names, other qualities, another width: each answer is one router's."""
    files = [tmp_path / f"{number}.safetensors" for number in range(3)]
    expected = []
    for each, path in zip((artifact, other, with_features), files, strict=True):
        each.save(path)
        alone = Router.load(path, embedder=load_embedder("static-256", runtime=runtime))
        expected.append(facts(alone.route(TEXT)))
    router = Router.load(files[0], embedder=load_embedder("static-256", runtime=runtime))
    stop, answers, counts = threading.Event(), list[Any](), list[int]()

    def one_by_one() -> None:
        answers.append(router.route(TEXT))
        batch = router.route_batch([TEXT, TEXT])
        assert batch.models[1] == expected[(batch.generation - 1) % 3][0]

    async def together() -> None:
        answers.extend(await asyncio.gather(*(router.aroute(TEXT) for _ in range(3))))

    threads = [
        threading.Thread(target=keep_asking, args=(work, stop, counts))
        for work in (one_by_one, lambda: asyncio.run(together()))
    ]
    for thread in threads:
        thread.start()
    for number in range(1, 61):
        assert router.reload(files[number % 3]) == number + 1
    stop.set()
    for thread in threads:
        thread.join(WAIT)
    # A thread that fails leaves no count.
    assert len(counts) == 2
    assert min(counts) > 0
    for decision in answers:
        assert facts(decision) == expected[(decision.generation - 1) % 3]


# -- watch -------------------------------------------------------------------------------


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


@pytest.fixture
def watched(file: Path) -> Iterator[Router]:
    router = Router.load(file)
    with router.watch(interval=0.005):
        yield router


def test_a_file_that_changes_is_loaded(watched: Router, file: Path, other: Artifact) -> None:
    time.sleep(0.05)
    assert watched.generation == 1
    put(other, file)
    until(lambda: watched.generation == 2)
    assert watched.models == artifact_names(other)


def test_a_bad_file_is_logged_once_and_the_next_good_one_serves(
    watched: Router, file: Path, other: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    def errors() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.levelno >= logging.ERROR]

    spoil(file)
    until(lambda: bool(errors()))
    time.sleep(0.1)
    (record,) = errors()
    assert (record.name, record.levelno) == ("centroute", logging.ERROR)
    assert record.getMessage().startswith(f"{file}: ")
    assert record.getMessage().endswith("generation 1 goes on serving")
    assert "\n" not in record.getMessage()
    assert watched.route(TEXT).generation == 1
    file.unlink()
    until(lambda: len(errors()) == 2)
    put(other, file)
    until(lambda: watched.generation == 2)
    assert len(errors()) == 2


def test_a_change_before_the_watch_is_seen(file: Path, other: Artifact) -> None:
    router = Router.load(file)
    put(other, file)
    with router.watch(interval=0.005):
        until(lambda: router.generation == 2)


def test_what_was_reloaded_by_hand_is_not_loaded_twice(watched: Router, file: Path, other: Artifact) -> None:
    time.sleep(0.05)
    put(other, file)
    watched.reload()
    generation = watched.generation
    time.sleep(0.1)
    assert watched.generation <= generation + 1
    settled = watched.generation
    time.sleep(0.1)
    assert watched.generation == settled


def test_another_path_is_watched(file: Path, tmp_path: Path, other: Artifact, caplog: Any) -> None:
    router = Router.load(file)
    put(other, tmp_path / "other.safetensors")
    with router.watch(tmp_path / "other.safetensors", interval=0.005):
        until(lambda: router.generation == 2)
        assert router.models == artifact_names(other)


def test_another_file_that_is_loaded_by_hand_stays(
    watched: Router, file: Path, tmp_path: Path, artifact: Artifact, other: Artifact
) -> None:
    time.sleep(0.05)
    put(other, tmp_path / "other.safetensors")
    watched.reload(tmp_path / "other.safetensors")
    time.sleep(0.05)
    assert watched.models == artifact_names(other)
    put(artifact, file)
    until(lambda: watched.generation == 3)
    assert watched.models == artifact_names(artifact)


def test_a_watch_that_was_stopped_sees_nothing(file: Path, other: Artifact) -> None:
    router = Router.load(file)
    watch = router.watch(interval=0.001)
    watch.stop()
    watch.stop()
    assert not watch._thread.is_alive()
    put(other, file)
    time.sleep(0.05)
    assert router.generation == 1


def test_a_watch_survives_what_nobody_thought_of(
    file: Path, other: Artifact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    router = Router.load(file)

    def fails(*arguments: object, **options: object) -> None:
        raise MemoryError("no room")

    with router.watch(interval=0.005):
        with monkeypatch.context() as patch:
            patch.setattr("centroute.router.load_kernel", fails)
            put(other, file)
            until(lambda: bool(caplog.records))
        os.utime(file)
        until(lambda: router.generation == 2)


@pytest.mark.parametrize("interval", [0, -1.0, float("nan")])
def test_an_interval_that_is_none_is_refused(file: Path, interval: float) -> None:
    with pytest.raises(ValueError, match="interval: got"):
        Router.load(file).watch(interval=interval)


@needs_fork
def test_a_forked_process_goes_on_watching(file: Path, other: Artifact, tmp_path: Path) -> None:
    """As gunicorn's workers do when the application is loaded before they are forked."""
    put(other, tmp_path / "new.safetensors")
    code = """
router = Router.load(sys.argv[1])
watch = router.watch(interval=0.01)
def work():
    os.replace(sys.argv[2], sys.argv[1])
    deadline = time.monotonic() + 30
    while router.generation == 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    print(router.route(TEXT).generation, flush=True)
print(in_child(work))
watch.stop()
def idle():
    print(watch._thread.is_alive(), flush=True)
print(in_child(idle))
"""
    assert run(code, file, tmp_path / "new.safetensors").split() == ["2", "0", "False", "0"]


def test_a_policy_of_the_old_pool_says_so_after_a_reload(file: Path, other: Artifact) -> None:
    """A policy is compiled anew for each generation."""
    router = Router.load(file)
    policy = Policy(allow={router.models[0]})
    assert router.route(TEXT, policy=policy).model == router.models[0]
    put(other, file)
    router.reload()
    with pytest.raises(ValueError, match="allow"):
        router.route(TEXT, policy=policy)
    with pytest.raises(DataError):
        router.route("")
