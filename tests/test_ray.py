"""Ray: the same numbers as in one process, workers that die, and what is refused. Real clusters on loopback.

Runs where Ray is importable, or where CENTROUTE_RAY_PYTHON names the interpreter of an environment that has
Ray and centroute (``make test-ray``). What needs no Ray runs everywhere.
"""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from centroute import Artifact, DataError, Policy, Router
from centroute.batch import route_shards
from centroute.calibrate.streaming import calibrate_shards
from centroute.datasets import Outcomes, write_jsonl
from centroute.ray import RayEngine

PYTHON = os.environ.get("CENTROUTE_RAY_PYTHON") or (
    sys.executable if importlib.util.find_spec("ray") else None
)
needs_ray = pytest.mark.skipif(
    PYTHON is None, reason="Ray is not installed here, and CENTROUTE_RAY_PYTHON names no other place"
)
EXAMPLE = Path(__file__).parents[1] / "examples" / "ray_serve.py"
N_SHARDS = 6
FIXED: dict[str, Any] = {
    "method": "learned", "n_clusters": 4, "top_p": 2, "beta": 9.0, "shrinkage": 3.0, "surface_weight": 0.15
}  # fmt: skip
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from centroute import DataError, Policy
from centroute.batch import route_shards
from centroute.calibrate.streaming import calibrate_shards
from centroute.ray import RayEngine, RouteRows

folder, fixed = Path(sys.argv[1]), json.loads(sys.argv[2])
shards, start = folder / "shards", np.load(folder / "start.npy")
SLOW_PID = "(__import__('time').sleep(0.2), __import__('os').getpid())[1]"
killed = []


def own_workers(name):
    # Worker processes of the cluster that this process started, by their title.
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            title = (entry / "cmdline").read_bytes()
            above = int(entry.name)
            while above > 1 and above != os.getpid():
                above = int((Path("/proc") / str(above) / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if above == os.getpid() and title.startswith(name):
            found.append(int(entry.name))
    return found


def kill_once(step, done, _total):
    for at, name in ((("embed", 2), b"ray::MapWorker"), (("clusters, pass 1", 1), b"ray::")):
        if (step, done) == at and at not in killed:
            workers = [pid for pid in own_workers(name) if name != b"ray::" or is_task(pid)]
            os.kill(workers[0], signal.SIGKILL)
            killed.append(at)


def is_task(pid):
    title = Path(f"/proc/{pid}/cmdline").read_bytes()
    return title.startswith((b"ray::_run", b"ray::IDLE"))


def fault(call):
    try:
        call()
    except DataError as error:
        return str(error)


with RayEngine(n_workers=2) as engine:
    pids = set(engine.scatter(eval, [SLOW_PID] * 8))
    ordered = list(engine.map(eval, ["__import__('time').sleep(0.3) or 0", "1", "2", "3", "4", "5"]))
    options = {**fixed, "initial_centroids": start, "engine": engine}
    calibrate_shards([shards], **options).save(folder / "ray.safetensors")
    calibrate_shards([shards], **options, progress=kill_once).save(folder / "killed.safetensors")
    policy = Policy(willingness_to_pay=0.01)
    router = folder / "ray.safetensors"
    routed = route_shards(router, [shards], folder / "routed", policy=policy, engine=engine)
    (folder / "bad").mkdir()
    for file in shards.iterdir():
        (folder / "bad" / file.name).write_bytes(file.read_bytes())
    (folder / "bad" / "part-3.jsonl").write_text("[]")
    faults = [fault(lambda: calibrate_shards([folder / "bad"], **options))]
    import ray

    rows = ray.data.from_items([{"query": "What is 2 + 2?"}, {"query": " "}]).map_batches(
        RouteRows,
        fn_constructor_args=(str(router),),
        fn_constructor_kwargs={"policy": {"willingness_to_pay": 0.01}},
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    models = {row["query"]: row["model"] for row in rows.take_all()}
print(json.dumps({
    "n_pids": len(pids), "ordered": ordered, "killed": killed, "n_routed": routed.n_queries,
    "faults": faults, "models": models,
}))
"""


SERVE_SCRIPT = """
import json, signal, socket, subprocess, sys, urllib.error, urllib.request

example, router = sys.argv[1:]
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
command = [sys.executable, example, router, "--port", str(port)]
answers = []
with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
    try:
        assert process.stdout.readline() == f"routing on http://127.0.0.1:{port}\\n"
        for body in json.load(sys.stdin):
            request = urllib.request.Request(f"http://127.0.0.1:{port}", body.encode(), method="POST")
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    answers.append((answer.status, json.load(answer)))
            except urllib.error.HTTPError as error:
                answers.append((error.code, json.load(error)))
    finally:
        process.send_signal(signal.SIGINT)
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
print(json.dumps({"answers": answers, "code": code}))
"""


@pytest.fixture(scope="module")
def folder(outcomes: Outcomes, embedder: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards and initial centroids; what Ray makes of them comes beside."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "shards").mkdir()
    for number, rows in enumerate(np.array_split(np.arange(outcomes.n_queries), N_SHARDS)):
        write_jsonl(outcomes.subset(rows), folder / "shards" / f"part-{number}.jsonl")
    start = np.random.default_rng(0).standard_normal((4, embedder.dim + 12)).astype(np.float32)
    np.save(folder / "start.npy", start / np.linalg.norm(start, axis=1, keepdims=True))
    return folder


def environment(home: Path) -> dict[str, str]:
    # Ray keeps the token of its clusters in the home folder.
    return {**os.environ, "HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0", "OPENBLAS_NUM_THREADS": "1"}


def run_in_ray(folder: Path, script: str, *arguments: object, stdin: str = "") -> dict[str, Any]:
    """The JSON that a script prints last in the environment of Ray, in a network that is only loopback."""
    alone = ("unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    can = subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0
    done = subprocess.run(
        [*(alone if can else ()), str(PYTHON), "-c", script, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        env=environment(folder),
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    """What the script saw."""
    return run_in_ray(folder, SCRIPT, folder, json.dumps(FIXED))


@pytest.fixture(scope="module")
def alone(folder: Path) -> Artifact:
    """The same calibration in this process."""
    return calibrate_shards([folder / "shards"], **FIXED, initial_centroids=np.load(folder / "start.npy"))


def assert_equal(one: Artifact, other: Artifact) -> None:
    for name in ("centroids", "quality", "cost", "count", "prior_quality", "prior_cost", "quality_se"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-5, err_msg=name)
    np.testing.assert_allclose(one.frontier, other.frontier, rtol=1e-4, atol=1e-5)


@needs_ray
def test_two_workers_find_what_one_process_finds(
    found: dict[str, Any], folder: Path, alone: Artifact
) -> None:
    assert found["n_pids"] == 2
    assert found["ordered"] == [0, 1, 2, 3, 4, 5]
    assert_equal(Artifact.load(folder / "ray.safetensors"), alone)


@needs_ray
def test_a_killed_worker_costs_a_retry(found: dict[str, Any], folder: Path) -> None:
    assert found["killed"] == [["embed", 2], ["clusters, pass 1", 1]]
    assert (folder / "killed.safetensors").read_bytes() == (folder / "ray.safetensors").read_bytes()


@needs_ray
def test_batches_are_routed_as_in_one_process(found: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    assert found["n_routed"] == 240
    router, policy = folder / "ray.safetensors", Policy(willingness_to_pay=0.01)
    route_shards(router, [folder / "shards"], tmp_path / "out", policy=policy)
    for number in range(N_SHARDS):
        name = f"part-{number}.jsonl"
        assert (folder / "routed" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    chosen = Router.load(router).route("What is 2 + 2?", policy=policy).model
    assert found["models"] == {"What is 2 + 2?": chosen, " ": None}


@needs_ray
def test_faults_of_the_data_come_back_as_they_are(found: dict[str, Any]) -> None:
    (fault,) = found["faults"]
    assert "part-3.jsonl, line 1" in fault
    assert "must be a JSON object" in fault
    assert "\n" not in fault


@needs_ray
def test_no_cluster_at_the_address_is_one_line(folder: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # not listening: a connection is refused
        address = f"127.0.0.1:{held.getsockname()[1]}"
        command = "from centroute.cli import main; main()"
        options = ("-o", folder / "x.safetensors", "--checkpoint", folder / "kept")
        arguments = ("calibrate", folder / "shards", *options, "--engine", "ray", "--address", address)
        done = subprocess.run(
            [str(PYTHON), "-c", command, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment(folder),
            timeout=120,
            check=False,
        )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"centroute: no Ray cluster at {address}")


@needs_ray
def test_ray_serve_answers_like_the_router(folder: Path, router_file: Path) -> None:
    router, policy = Router.load(router_file), Policy(willingness_to_pay=0.01)
    texts = ["What is 2 + 2?", "Prove that the square root of two is irrational."]
    messages = [{"role": "user", "content": texts[1]}]
    good = [
        {"query": texts[0], "policy": {"willingness_to_pay": 0.01}},
        {"query": messages},
        {"queries": texts},
    ]
    bad = {
        "{": "no JSON",
        "[]": "wanted an object",
        "{}": "one of query and queries",
        '{"query": " "}': "only spaces",
        '{"query": 5}': "must be str",
        '{"queries": "x"}': "queries: wanted a list",
        '{"query": "x", "polcy": {}}': "'polcy' is no field",
        '{"query": "x", "policy": []}': "policy: wanted an object",
        '{"query": "x", "policy": {"alpha": 2}}': "alpha",
        '{"query": "x", "policy": {"allow": ["nobody"]}}': "nobody",
        '{"query": "' + "x" * (1 << 20) + '"}': "more than",
    }
    bodies = [*map(json.dumps, good), *bad]
    answers = run_in_ray(folder, SERVE_SCRIPT, EXAMPLE, router_file, stdin=json.dumps(bodies))
    assert answers["code"] == 0
    (status, first), (_, second), (_, both) = answers["answers"][:3]
    decision = router.route(texts[0], policy=policy)
    assert (status, first["model"]) == (200, decision.model)
    assert first["quality"] == pytest.approx(decision.quality)
    assert second["model"] == router.route(messages).model
    assert [one["model"] for one in both["decisions"]] == [router.route(text).model for text in texts]
    for body, (status, answer) in zip(bad, answers["answers"][3:], strict=True):
        assert (status, list(answer)) == (400, ["error"]), body[:40]
        assert bad[body] in answer["error"]


def test_ray_that_is_not_installed_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, folder: Path, cli: Any, router_file: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for address in (None, "127.0.0.1:6379"):
        with pytest.raises(DataError, match=r"centroute\[ray\]"), RayEngine(address=address):
            pass
    output = folder / "never.safetensors"
    ray = ("--engine", "ray")
    cli("calibrate", folder / "shards", "-o", output, *ray).assert_refused("centroute[ray]")
    cli("route", router_file, "--shards", folder / "shards", "-o", folder / "never", *ray).assert_refused(
        "centroute[ray]"
    )
    assert not output.exists()
    assert not (folder / "never").exists()


def test_an_address_needs_a_checkpoint_that_all_machines_see(folder: Path, cli: Any) -> None:
    output = folder / "never.safetensors"
    arguments = ("calibrate", folder / "shards", "-o", output, "--engine", "ray", "--address", "x:1")
    cli(*arguments).assert_wrong_usage("--checkpoint")


def test_the_engine_is_entered_before_it_works() -> None:
    with pytest.raises(RuntimeError, match="enter it first"):
        next(RayEngine().map(int, ["1"]))
