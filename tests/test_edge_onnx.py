"""``centroute-edge`` and the C library with ONNX Runtime: a bundle of a graph decides as in Python."""

import json
import os
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from edge_checks import BINARY, ROOT, assert_refused, assert_same, wanted_decision
from edge_checks import edge as run_edge
from tiny_embedder import DIM, graph, tokenizer, weights

from centroute import Policy, Router
from centroute.bundle import pack_bundle, write_bundle
from centroute.calibrate import calibrate
from centroute.embedders import load_embedder
from centroute.embedders.folder import write_embedder_folder

onnx = pytest.importorskip("onnx", reason="the package onnx builds the graphs of this test")
from onnx import TensorProto, helper  # noqa: E402

RUNTIME = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"), None)
RUNS = {"ORT_DYLIB_PATH": str(RUNTIME)}

WORDS = [
    "river",
    "prime",
    "banana",
    "law",
    "what",
    "is",
    "the",
    "capital",
    "of",
    "france",
    "42",
    "x;",
    "é",
    "你",
]


def unit_graph(n_positions=64, *, output="embedding", norm=True):
    """The tiny graph with a row of norm one a text, as centroute's own folders have it."""
    model = graph(
        weights(n_positions=n_positions), inputs=("input_ids", "attention_mask"), outputs=("pooled",)
    )
    name = output if norm else "unused"
    model.graph.node.append(helper.make_node("LpNormalization", ["pooled"], [name], axis=1, p=2))
    if not norm:
        model.graph.node.append(helper.make_node("Identity", ["pooled"], [output]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", DIM]))
    return model


def write_embedder(folder, model, *, prefix="", max_tokens=32, dim=DIM):
    write_embedder_folder(
        folder,
        model=model.SerializeToString(),
        tokenizer=tokenizer().to_str().encode(),
        name="tiny",
        dim=dim,
        pooling="mean",
        max_tokens=max_tokens,
        prefix=prefix,
        provenance={},
    )
    return folder


def bundle_of(artifact, embedder, folder):
    write_bundle(pack_bundle(artifact.to_bytes(), embedder=embedder), folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("edge_onnx")


@pytest.fixture(scope="module")
def embedder(folder):
    return write_embedder(folder / "tiny", unit_graph(), prefix="what is ")


@pytest.fixture(scope="module", params=["plain", "surface"])
def pair(request, outcomes, embedder, folder):
    """A bundle, and the router of the Python package for it."""
    made = folder / request.param
    if not made.exists():
        weight = 0.15 if request.param == "surface" else 0.0
        artifact = calibrate(
            outcomes, embedder=load_embedder(embedder), method="means", n_clusters=6, surface_weight=weight
        )
        bundle_of(artifact, embedder, made)
    return made, Router.load(made)


@pytest.fixture(scope="module")
def bundle(outcomes, embedder, folder):
    artifact = calibrate(
        outcomes, embedder=load_embedder(embedder), method="means", n_clusters=2, surface_weight=0.0
    )
    return bundle_of(artifact, embedder, folder / "bundle")


@pytest.fixture(scope="module", autouse=True)
def _needs_the_feature(bundle):
    """Skips where the command is missing or built without ONNX Runtime."""
    if not BINARY.is_file():
        pytest.skip(f"{BINARY} is not there: make edge builds it, or CENTROUTE_EDGE names it")
    if RUNTIME is None:
        pytest.skip("this onnxruntime has no shared library of its own")
    if "which this build does not have" in edge("route", bundle, "river")[2]:
        pytest.skip(f"{BINARY} is built without the feature onnxruntime")


def edge(*arguments, stdin=b"", **environment):
    return run_edge(*arguments, stdin=stdin, environment={**RUNS, **environment})


def texts(n=300):
    pick = random.Random(5)  # noqa: S311
    made = [" ".join(pick.choices(WORDS, k=pick.randint(1, 60))) for _ in range(n)]
    # Nothing known, and nothing that is known beside the prefix.
    return [*made, "你你", "", " \n", "what is ", "[UNK] [CLS]", "a" * 5000, "river " * 900]


def test_texts_are_decided_as_in_python(pair):
    made, router = pair
    stdin = "".join(json.dumps({"query": text}) + "\n" for text in texts()).encode()
    code, out, err = edge("route", made, "--jsonl", stdin=stdin)
    found = [json.loads(line) for line in out.splitlines()]
    wanted = [wanted_decision(router, text) for text in texts()]
    n_refused = sum(row is None for row in wanted)
    assert 3 <= n_refused <= 5
    assert (code, len(err.splitlines())) == (1, n_refused), err
    for row, other in zip(found, wanted, strict=True):
        assert_same(row, other)


def test_a_c_program_decides_as_python(pair, folder):
    made, router = pair
    compiler, library = shutil.which("cc"), BINARY.parent / "libcentroute.so"
    if compiler is None or not library.is_file():
        pytest.skip(f"no C compiler, or no {library}")
    program = folder / "route"
    source, include = ROOT / "tests" / "edge" / "route.c", ROOT / "rust" / "edge" / "include"
    flags = ["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-I", include, f"-Wl,-rpath,{library.parent}"]
    subprocess.run([compiler, *flags, source, library, "-o", program], check=True, timeout=120)
    encoded = [text.encode() for text in texts(100)]
    policy = {"alpha": 0.4}
    done = subprocess.run(
        [program, made, json.dumps(policy)],
        input=b"".join(b"%d\n%b" % (len(text), text) for text in encoded),
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, **RUNS},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().split("\n")[1::2]
    for text, line in zip(texts(100), lines, strict=True):
        wanted = wanted_decision(router, text, Policy(**policy))
        if wanted is None:
            assert line.startswith("error 3 the text holds ")
        else:
            assert_same(json.loads(line), wanted)


def test_several_threads_give_the_same_decisions(bundle):
    one, two = (edge("route", bundle, *WORDS[:4], CENTROUTE_ONNX_THREADS=n) for n in ("", "2"))
    assert one[0] == two[0] == 0
    models = [[json.loads(line)["model"] for line in out.splitlines()] for _, out, _ in (one, two)]
    assert models[0] == models[1]
    for wrong in ("0", "many", "-1"):
        assert_refused(
            edge("route", bundle, "river", CENTROUTE_ONNX_THREADS=wrong), f"CENTROUTE_ONNX_THREADS={wrong}"
        )


def test_a_library_that_is_not_there_or_another_one_is_refused(bundle, tmp_path):
    (tmp_path / "text.so").write_text("no library")
    other = BINARY.parent / "libcentroute.so"
    for place, why in (
        (tmp_path / "nowhere.so", "No such file"),
        (tmp_path / "text.so", "text.so"),
        (other, "OrtGetApiBase"),
    ):
        if place is other and not other.is_file():
            continue
        result = edge("route", bundle, "river", ORT_DYLIB_PATH=str(place))
        assert_refused(result, "embedder tiny", "ONNX Runtime", "ORT_DYLIB_PATH", why)
    assert edge("inspect", bundle, ORT_DYLIB_PATH="")[0] == 0


def test_telemetry_is_off_and_no_thread_is_left_behind(bundle):
    # One that sends has a thread of its own, which the process waits for when it ends.
    with subprocess.Popen(
        [BINARY, "route", bundle],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **RUNS},
    ) as process:
        process.stdin.write(b"river\n")
        process.stdin.flush()
        assert "model" in json.loads(process.stdout.readline())
        names = [(task / "comm").read_text().strip() for task in Path(f"/proc/{process.pid}/task").iterdir()]
        process.stdin.close()
        assert process.wait(20) == 0
    assert len(names) == 1, names


def external():
    model = unit_graph()
    put_elsewhere(model.graph.initializer[0])
    return model


def external_in_a_branch():
    model = unit_graph()
    branch = helper.make_node("Constant", [], ["rows"], value=weights_tensor())
    put_elsewhere(branch.attribute[0].t)
    inner = helper.make_graph(
        [branch], "branch", [], [helper.make_tensor_value_info("rows", TensorProto.FLOAT, None)]
    )
    model.graph.node.append(helper.make_node("If", ["yes"], ["either"], then_branch=inner, else_branch=inner))
    return model


def weights_tensor():
    return onnx.numpy_helper.from_array(weights().types, "types")


def put_elsewhere(tensor):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights")


def few_tokens():
    model = unit_graph()
    for tensor in model.graph.initializer:
        if tensor.name == "tokens":
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights(n_tokens=9).tokens, "tokens"))
    return model


def not_finite():
    model = unit_graph()
    for tensor in model.graph.initializer:
        if tensor.name == "positions":
            broken = weights().positions.copy()
            broken[0] = np.nan
            tensor.CopyFrom(onnx.numpy_helper.from_array(broken, "positions"))
    return model


def broken():
    model = unit_graph()
    model.graph.node[0].op_type = "Nothing"
    return model


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (external, "another file"),
        (external_in_a_branch, "another file"),
        (few_tokens, "token ids"),
        (not_finite, "not finite"),
        (broken, "not a readable ONNX model"),
        (lambda: unit_graph(output="other"), "embedder.json"),
        (lambda: unit_graph(norm=False), "norm"),
    ],
    ids=[
        "external data",
        "external data within",
        "few tokens",
        "not finite",
        "unknown operator",
        "other output",
        "norm",
    ],
)
def test_graphs_that_do_not_fit_are_refused_in_one_line(bundle, tmp_path, make, named):
    made = spoiled(bundle, tmp_path, make())
    assert_refused(edge("route", made, "river"), str(made), "model.onnx", named)


def test_rows_of_another_width_are_refused(bundle, tmp_path):
    made = spoiled(bundle, tmp_path, unit_graph(), dim=DIM + 1)
    assert_refused(edge("route", made, "river"), "dim")


def test_a_text_on_which_the_graph_fails_is_answered_and_the_rest_goes_on(bundle, tmp_path):
    made = spoiled(bundle, tmp_path, unit_graph(n_positions=8), prefix="what is ")
    code, out, err = edge("route", made, "river", "river " * 20, "law")
    rows = [json.loads(line) for line in out.splitlines()]
    assert ["error" in row for row in rows] == [False, True, False]
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "text 2 has 24 tokens, on which embedder tiny fails" in rows[1]["error"]


def spoiled(bundle, tmp_path, model, **description):
    """A bundle that is sound but for its graph."""
    router = Router.load(bundle)
    folder = write_embedder(tmp_path / "embedder", model, **description)
    fingerprint = json.loads((folder / "embedder.json").read_text())["fingerprint"]
    artifact = replace(router.artifact, embedder=replace(router.artifact.embedder, fingerprint=fingerprint))
    return bundle_of(artifact, folder, tmp_path / "bundle")
