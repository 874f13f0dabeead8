"""``centroute-edge`` and the C library decide as the Python package does, and refuse what it refuses."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from bad_bundles import FOLDERS, TARS
from edge_checks import BINARY, ROOT, assert_refused, assert_same, edge, wanted_decision

from centroute import Policy, Router
from centroute.artifact import Artifact
from centroute.bundle import pack_bundle, write_bundle, write_bundle_tar
from centroute.calibrate import calibrate
from centroute.datasets import read_outcomes
from centroute.embedders import find_folder

DATA = ROOT.parent / "shared" / "data"
LIBRARY = BINARY.parent
WAIT = 20
"""Seconds after which a test that waits gives up."""

pytestmark = pytest.mark.skipif(
    not BINARY.is_file(), reason=f"{BINARY} is not there: make edge builds it, or CENTROUTE_EDGE names it"
)

TEXTS = [
    "Prove that the square root of two is irrational.",
    "Write a haiku.",
    "def f(x): return x + 1",
    "2 + 2?",
]


def nasty_texts(n):
    """Texts that no user would write, the same ones each time."""
    pick = random.Random(7)  # noqa: S311
    alphabets = [
        "abc xyz",
        "0123456789 .,;:+-*/=<>(){}[]",
        "\x00\x01\x1f\x7f\t\r\n\x0b\x0c\x85\u2028\u2029",
        "éèüßñçøåıİſŉ",
        "\u0301\u0308\u200b\u200d\ufeff\u00ad\u202e\u2066",
        "你好世界日本語テスト한국어",
        "😀👩‍👩‍👧‍👦🏳️‍🌈🇩🇪",
        "العربيةעבריתไทยहिन्दी",
        "\ud800\udfff\udc80",
        "\ufffd\uffff\U0010ffff\ue000",
        "`#$_&|~@\\\"'",
    ]
    texts = [
        "a" * 100_000,
        "word " * 20_000,
        "🙂" * 5_000,
        "{" * 3_000,
        "\n" * 999 + "x",
        "a\x00b",
        "[UNK] [CLS]",
    ]
    while len(texts) < n:
        letters = "".join(pick.sample(alphabets, pick.randint(1, 3)))
        texts.append("".join(pick.choices(letters + " ", k=pick.randint(1, 200))))
    # Two surrogates side by side become one character in JSON, as they do here.
    return [json.loads(json.dumps(text)) for text in texts]


def bundle_of(artifact, folder, *, precision="f32", embedder="static-256"):
    exported = artifact if precision == "f32" else replace(artifact, precision=precision)
    write_bundle(pack_bundle(exported.to_bytes(), embedder=find_folder(embedder)), folder)
    return folder


@pytest.fixture(scope="module")
def rich_artifact(outcomes, embedder):
    """With surface features, standard errors, a threshold, a default policy and an unknown cost."""
    artifact = calibrate(outcomes, embedder=embedder, n_clusters=8, method="learned", surface_weight=0.15)
    cost, prior_cost = artifact.cost.copy(), artifact.prior_cost.copy()
    cost[:, -1] = prior_cost[-1] = np.nan
    assert artifact.quality_se is not None
    return replace(
        artifact,
        cost=cost,
        prior_cost=prior_cost,
        ood_threshold=0.5,
        default_policy=Policy(deny={artifact.models[-1].name}, fallback=artifact.models[1].name, alpha=0.7),
        frontier=artifact.frontier[:0],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("edge")


@pytest.fixture(scope="module")
def bundle(artifact, folder):
    return bundle_of(artifact, folder / "plain")


@pytest.fixture(scope="module", params=["plain f32", "plain i8", "rich f32", "rich f16", "rich i8"])
def pair(request, artifact, rich_artifact, folder):
    """A bundle, and the router of the Python package for it."""
    kind, precision = request.param.split()
    made = folder / request.param.replace(" ", "_")
    chosen = artifact if kind == "plain" else rich_artifact
    if not made.exists():
        bundle_of(chosen, made, precision=precision)
    return made, Router.load(made / "router.safetensors")


def as_jsonl(texts, policies=None):
    rows = [{"query": text} for text in texts]
    if policies is not None:
        rows = [{**row, "policy": policy} for row, policy in zip(rows, policies, strict=True)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def decisions(bundle, texts, *flags, policies=None):
    code, out, err = edge("route", bundle, "--jsonl", *flags, stdin=as_jsonl(texts, policies))
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == len(texts), err[:1000]
    n_faults = sum("error" in row for row in rows)
    assert code == (1 if n_faults else 0)
    assert len(err.splitlines()) == n_faults
    return rows


def test_nasty_texts_are_decided_as_in_python(pair):
    made, router = pair
    texts = nasty_texts(600) + TEXTS
    for text, found in zip(texts, decisions(made, texts), strict=True):
        assert_same(found, wanted_decision(router, text))


@pytest.mark.parametrize("simd", ["serial", "avx2", "avx512", "neon"])
def test_each_instruction_set_decides_as_in_python(bundle, simd, tmp_path):
    texts = nasty_texts(100) + TEXTS
    code, out, err = edge(
        "route", bundle, "--jsonl", stdin=as_jsonl(texts), environment={"CENTROUTE_SIMD": simd}
    )
    if "this machine has" in err:
        pytest.skip(f"no {simd} here")
    assert code in (0, 1), err
    script = (
        "import json, sys\nfrom centroute import DataError, Router\n"
        "from centroute.decision_json import decision_to_json\n"
        "router = Router.load(sys.argv[1])\n"
        "for line in sys.stdin:\n"
        "    try: print(json.dumps(decision_to_json(router.route(json.loads(line)['query']))))\n"
        "    except DataError: print('null')\n"
    )
    wanted = subprocess.run(
        [sys.executable, "-c", script, bundle / "router.safetensors"],
        input=as_jsonl(texts),
        capture_output=True,
        check=True,
        timeout=120,
        env={**os.environ, "CENTROUTE_SIMD": simd},
    ).stdout
    for found, line in zip(out.splitlines(), wanted.splitlines(), strict=True):
        assert_same(json.loads(found), json.loads(line))


POLICIES = [
    {},
    {"alpha": 0.3},
    {"alpha": 1.0},
    {"willingness_to_pay": 0.02},
    {"min_quality": 0.6},
    {"max_cost": 1e9, "willingness_to_pay": 0.5},
]


@pytest.mark.parametrize("fields", POLICIES, ids=str)
def test_policies_by_flag_by_line_and_by_the_server_are_those_of_python(pair, fields):
    made, router = pair
    deny = [router.models[0]]
    policy = Policy(**fields, deny={*deny, *(router.artifact.default_policy or Policy(deny=deny)).deny})
    fields = {**fields, "deny": sorted(policy.deny)}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items() if name != "deny"]
    by_flag = decisions(made, TEXTS, *flags, "--deny", ",".join(fields["deny"]))
    by_line = decisions(made, TEXTS, policies=[fields] * len(TEXTS))
    assert by_flag == by_line
    for text, found in zip(TEXTS, by_flag, strict=True):
        assert_same(found, wanted_decision(router, text, policy))


def test_a_line_may_bring_its_own_policy(bundle, artifact):
    router = Router.from_artifact(artifact)
    own = [{"alpha": 0.0}, None, {"allow": [router.models[1]]}, {"alpha": 0.0}]
    found = decisions(bundle, TEXTS, "--alpha", "1", policies=own)
    for text, policy, row in zip(TEXTS, own, found, strict=True):
        # A line's policy takes the place of the flags as a whole.
        wanted = Policy(alpha=1.0) if policy is None else Policy(**policy)
        assert_same(row, wanted_decision(router, text, wanted))


def test_max_mean_cost_and_required_tags_are_those_of_python(bundle, artifact):
    router = Router.from_artifact(artifact)
    budget = float(artifact.frontier[:, 2].mean())
    found = decisions(bundle, TEXTS, "--max-mean-cost", repr(budget))
    for text, row in zip(TEXTS, found, strict=True):
        assert_same(row, wanted_decision(router, text, Policy(max_mean_cost=budget)))
    assert_refused(
        edge("route", bundle, "text", "--require", "no such tag"), "no model is left", "no such tag"
    )


def test_plain_lines_are_read_as_python_reads_them(bundle, cli):
    stdin = (
        b"What is a prime?\r\nna\xc3\xafve \xff\xfe caf\xe9\n\n   \n\xed\xa0\x80 surrogate\r\r\n"
        b"tab\tand\x00zero\n\xe2\x82 cut\nlast without an end"
    )
    wanted = cli("route", bundle / "router.safetensors", "--json", stdin=stdin)
    code, out, err = edge("route", bundle, stdin=stdin)
    assert (code, wanted.code) == (1, 1)
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == len(wanted.rows) == 8
    for found, row in zip(rows, wanted.rows, strict=True):
        assert_same(found, None if "error" in row else row)
    assert [line.split(" holds")[0] for line in err.splitlines()] == [
        line.split(" holds")[0].replace("centroute:", "centroute-edge:") for line in wanted.err.splitlines()
    ]


def test_texts_can_be_arguments(bundle, artifact):
    router = Router.from_artifact(artifact)
    code, out, _ = edge("route", bundle, *TEXTS, "--", "--alpha", b"caf\xe9")
    assert code == 0
    texts = [*TEXTS, "--alpha", "caf\ufffd"]
    for text, line in zip(texts, out.splitlines(), strict=True):
        assert_same(json.loads(line), wanted_decision(router, text))


def test_broken_lines_are_answered_and_the_rest_goes_on(bundle):
    lines = [
        b'{"query": "first"}',
        b"{",
        b"",
        b"\xff",
        b"[]",
        b'["text"]',
        b'{"query": "x", "policy": [1]}',
        b'{"query": 7}',
        b'{"query": ""}',
        b'{"text": "x"}',
        b'{"query": "x", "policy": {"alhpa": 1}}',
        b'{"query": "x", "policy": {"alpha": 7}}',
        b'{"query": "x", "policy": {"deny": ["nobody"]}}',
        b'{"query": "x", "policy": {"max_cost": 0}}',
        b"[" * 100_000,
        b'{"query": "last"}',
    ]
    code, out, err = edge("route", bundle, "--jsonl", stdin=b"\n".join(lines))
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert ["error" in row for row in rows] == [False, *[True] * 14, False]
    assert len(err.splitlines()) == 14
    for number, row in enumerate(rows[1:-1], start=2):
        assert row["error"].startswith(f"stdin line {number} "), row


def test_a_line_that_is_too_long_is_answered_and_the_rest_goes_on(bundle):
    stdin = b"first\n" + b"x" * (17 << 20) + b"\nlast\n"
    code, out, err = edge("route", bundle, stdin=stdin)
    assert code == 1
    assert ["error" in json.loads(line) for line in out.splitlines()] == [False, True, False]
    assert "stdin line 2 has more than" in err


def test_an_answer_comes_before_the_next_question(bundle):
    with subprocess.Popen(
        [BINARY, "route", bundle], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            for text in TEXTS:
                process.stdin.write(text.encode() + b"\n")
                process.stdin.flush()
                assert "model" in json.loads(process.stdout.readline())
            process.stdin.close()
            assert process.wait(WAIT) == 0
        finally:
            process.kill()


def test_a_reader_that_goes_away_is_no_crash(bundle):
    with subprocess.Popen(
        [BINARY, "route", bundle], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        try:
            process.communicate(b"text\n" * 5000, timeout=WAIT)
        except (BrokenPipeError, ValueError):
            process.stdin = None
        assert process.wait(WAIT) == 1


@pytest.mark.parametrize("name", FOLDERS)
def test_a_spoiled_bundle_is_refused_by_name(bundle, tmp_path, name):
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    damage, word = FOLDERS[name]
    damage(copy)
    assert_refused(edge("route", copy, "a text"), str(copy), word)


@pytest.mark.parametrize("name", TARS)
def test_a_spoiled_tar_file_is_refused_by_name(tmp_path, name):
    make, word = TARS[name]
    file = tmp_path / "b.tar"
    file.write_bytes(make())
    assert_refused(edge("route", file, "a text"), str(file), word)


def test_other_things_than_bundles_are_refused(bundle, tmp_path):
    for place in (tmp_path / "nowhere", bundle / "router.safetensors", "/dev/null", ""):
        assert_refused(edge("route", place, "a text"), str(place))
    for size in (0, 10, 511, 512, 513, 2000):
        (tmp_path / "cut.tar").write_bytes(_tar(bundle, tmp_path)[:size])
        assert_refused(edge("route", tmp_path / "cut.tar", "a text"), "cut.tar")


def _tar(bundle, tmp_path):
    router = (bundle / "router.safetensors").read_bytes()
    write_bundle_tar(pack_bundle(router, embedder=bundle / "embedder"), tmp_path / "whole.tar")
    return (tmp_path / "whole.tar").read_bytes()


def test_a_tar_file_decides_like_its_folder(bundle, tmp_path):
    _tar(bundle, tmp_path)
    assert edge("route", tmp_path / "whole.tar", *TEXTS) == edge("route", bundle, *TEXTS)


def test_an_instruction_set_that_is_not_there_is_refused(bundle):
    wrong = {"CENTROUTE_SIMD": "mmx"}
    assert_refused(edge("route", bundle, "x", environment=wrong), "CENTROUTE_SIMD=mmx", "serial")


def test_random_damage_is_refused_without_a_panic(bundle, tmp_path):
    pick = random.Random(3)  # noqa: S311
    archive = _tar(bundle, tmp_path)
    # The headers, the manifest and the small files: where a fault could be one of reading.
    places = [*range(2500), *range(len(archive) - 40_000, len(archive))]
    n_refused = 0
    for number in range(120):
        damaged = bytearray(archive)
        for place in pick.sample(places, pick.choice([1, 1, 3, 30])):
            damaged[place] = pick.choice([0, 0x20, 0x22, 0x2F, 0x39, 0x7D, 0xFF, pick.randrange(256)])
        if number % 4 == 0:
            del damaged[pick.choice(places) :]
        (tmp_path / "damaged.tar").write_bytes(damaged)
        code, _, err = edge("route", tmp_path / "damaged.tar", "a text")
        assert code in (0, 1), err
        assert len(err.splitlines()) == code, err
        assert "panicked" not in err
        n_refused += code
    assert n_refused >= 100


def test_the_embedder_of_another_router_is_refused(artifact, tmp_path):
    other = replace(artifact, embedder=replace(artifact.embedder, fingerprint="0" * 64))
    assert_refused(edge("route", bundle_of(other, tmp_path / "b"), "a text"), "embedder static-256", "0000")


def test_a_graph_that_needs_onnx_runtime_is_refused_in_one_line(artifact, tmp_path):
    from tiny_embedder import graph, weights

    from centroute.embedders.folder import write_embedder_folder

    model = graph(weights())
    description = write_embedder_folder(
        tmp_path / "graph",
        model=model.SerializeToString() if hasattr(model, "SerializeToString") else model,
        tokenizer=(find_folder("static-256") / "tokenizer.json").read_bytes(),
        name="graph",
        dim=256,
        pooling="mean",
        max_tokens=64,
        provenance={},
    )
    other = replace(artifact, embedder=replace(artifact.embedder, fingerprint=description.fingerprint))
    made = bundle_of(other, tmp_path / "b", embedder=tmp_path / "graph")
    assert_refused(edge("route", made, "a text"), "embedder graph", "ONNX Runtime")
    assert edge("inspect", made)[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["route"],
        ["route", "b", "--alhpa", "1"],
        ["route", "b", "--alpha", "much"],
        ["route", "b", "--alpha"],
        ["route", "b", "--jsonl", "text"],
        ["inspect", "b", "c"],
        ["inspect", "b", "--alpha", "1"],
        ["bench", "b", "--seconds", "0"],
        ["serve", "b"],
        ["serve", "b", "--tcp", "127.0.0.1:0", "--unix", "s"],
        ["serve", "b", "--tcp", "127.0.0.1:0", "--max-connections", "0"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(arguments):
    code, out, err = edge(*arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1


def test_help_and_version_are_printed():
    from centroute import __version__

    assert edge("--version") == (0, f"centroute-edge {__version__}\n", "")
    for arguments in (["--help"], ["-h"], ["route", "--help"]):
        code, out, _ = edge(*arguments)
        assert code == 0
        assert "--willingness-to-pay" in out


def test_wrong_policies_are_refused_before_anything_is_read(bundle):
    assert_refused(edge("route", bundle, "x", "--alpha", "2"), "alpha=2")
    assert_refused(edge("route", bundle, "x", "--alpha", "nan"), "alpha")
    assert_refused(edge("route", bundle, "x", "--alpha", "1", "--min-quality", "1"), "exclude each other")
    assert_refused(edge("route", bundle, "x", "--deny", "nobody"), "nobody")


def test_inspect_tells_what_the_bundle_holds(bundle, artifact):
    code, out, _ = edge("inspect", bundle)
    assert code == 0
    for model in artifact.models:
        assert model.name in out
    code, out, _ = edge("inspect", bundle, "--json")
    assert json.loads(out)["manifest"] == json.loads((bundle / "manifest.json").read_text())
    assert len(json.loads(out)["router"]["models"]) == len(artifact.models)


def test_bench_measures_every_stage(bundle, tmp_path):
    (tmp_path / "texts").write_text("\n".join([*TEXTS, ""]) + "\n")
    code, out, err = edge("bench", bundle, tmp_path / "texts", "--seconds", "0.05", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert set(found["stages"]) == {"tokenize", "embed", "kernel", "total"}
    assert all(0 < times["p50_us"] <= times["p99_us"] for times in found["stages"].values())
    assert found["throughput_qps"] > 0
    assert (found["n_texts"], found["n_left_out"]) == (4, 1)
    code, out, _ = edge("bench", bundle, "--seconds", "0.05")
    assert code == 0
    assert "decisions a second" in out


# The server.


@contextmanager
def serving(bundle, *options):
    """A server; its address or path, and the process."""
    process = subprocess.Popen(
        [BINARY, "serve", bundle, *map(str, options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield json.loads(line)["listening"], process
    finally:
        process.kill()
        process.communicate(timeout=WAIT)


class Client:
    def __init__(self, place):
        if place.startswith("/"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(place)
        else:
            host, port = place.rsplit(":", 1)
            self.socket = socket.create_connection((host.strip("[]"), int(port)))
        self.socket.settimeout(WAIT)
        self.file = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def read(self):
        line = self.file.readline()
        return json.loads(line) if line else None

    def ask(self, request):
        self.send(json.dumps(request).encode() + b"\n")
        return self.read()

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_server_answers_line_by_line_and_ends_at_sigterm(bundle, artifact, folder, kind):
    router = Router.from_artifact(artifact)
    place = ["--tcp", "127.0.0.1:0"] if kind == "tcp" else ["--unix", folder / "socket"]
    with serving(bundle, *place, "--deny", router.models[0]) as (address, process):
        with Client(address) as client, Client(address) as other:
            pong = client.ask({"ping": True})
            assert pong["pong"] is True
            assert pong["models"] == len(router.models)
            for text in TEXTS:
                policy = Policy(deny={router.models[0]})
                assert_same(client.ask({"query": text}), wanted_decision(router, text, policy))
                own = {"allow": [router.models[0]]}
                assert other.ask({"query": text, "policy": own})["model"] == router.models[0]
            for broken in (b"{\n", b"\n", b"\xff\n", b'{"query": ""}\n', b'{"ping": false}\n'):
                client.send(broken)
                assert list(client.read()) == ["error"]
            # Several lines at once, the last of them in two parts.
            client.send(as_jsonl(TEXTS)[:-5])
            found = [client.read() for _ in TEXTS[:-1]]
            client.send(as_jsonl(TEXTS)[-5:])
            found.append(client.read())
            assert [row["model"] for row in found] == [
                router.route(text, policy=Policy(deny={router.models[0]})).model for text in TEXTS
            ]
            if kind == "unix":
                assert (folder / "socket").stat().st_mode & 0o777 == 0o600
            process.send_signal(signal.SIGTERM)
            assert client.read() is None
            assert other.read() is None
        assert process.wait(WAIT) == 0
        assert process.stderr.read() == b""
    assert not (folder / "socket").exists()


def test_half_a_line_is_given_up_and_the_others_go_on(bundle):
    with serving(bundle, "--tcp", "127.0.0.1:0", "--line-seconds", "0.3") as (address, _):  # noqa: SIM117
        with Client(address) as slow, Client(address) as dribbling, Client(address) as good:
            slow.send(b'{"query": "half')
            stop = threading.Event()

            def dribble():
                try:
                    while not stop.is_set():
                        dribbling.send(b" ")
                        time.sleep(0.02)
                except OSError:
                    pass

            thread = threading.Thread(target=dribble)
            thread.start()
            assert "model" in good.ask({"query": TEXTS[0]})
            for client in (slow, dribbling):
                assert "not whole" in client.read()["error"]
            assert slow.read() is None
            stop.set()
            thread.join(WAIT)
            # Silence between lines is no half line.
            time.sleep(0.4)
            assert "model" in good.ask({"query": TEXTS[0]})


def test_a_silent_client_is_hung_up_on(bundle):
    with serving(bundle, "--tcp", "127.0.0.1:0", "--idle-seconds", "0.2") as (address, _):  # noqa: SIM117
        with Client(address) as client:
            assert "pong" in client.ask({"ping": True})
            assert client.read() is None


def test_a_line_without_end_is_given_up(bundle):
    with serving(bundle, "--tcp", "127.0.0.1:0") as (address, _):
        with Client(address) as client:
            try:
                client.send(b"x" * (2 << 20))
            except OSError:
                return  # it was hung up on before all of it was sent
            try:
                answer = client.read()
            except OSError:
                return
            assert answer is None or "more than" in answer["error"]
        with Client(address) as client:
            assert "pong" in client.ask({"ping": True})


def test_too_many_connections_are_turned_away(bundle):
    with serving(bundle, "--tcp", "127.0.0.1:0", "--max-connections", "2") as (address, _):  # noqa: SIM117
        with Client(address) as one, Client(address) as two:
            assert "pong" in one.ask({"ping": True})
            assert "pong" in two.ask({"ping": True})
            with Client(address) as three:
                assert "too many" in three.read()["error"]
            one.close()
            until = time.monotonic() + WAIT
            while time.monotonic() < until:
                with Client(address) as next_one:
                    next_one.send(b'{"ping": true}\n')
                    try:
                        if "pong" in next_one.read():
                            return
                    except OSError:
                        pass
                time.sleep(0.02)
            pytest.fail("the place of a client that left was not free again")


def test_a_server_ends_with_its_standard_input(bundle):
    with serving(bundle, "--tcp", "127.0.0.1:0", "--stop-with-stdin") as (address, process):
        with Client(address) as client:
            process.stdin.write(b"something\n")
            process.stdin.flush()
            assert "pong" in client.ask({"ping": True})
            process.stdin.close()
            assert client.read() is None
        assert process.wait(WAIT) == 0
        process.stdin = None


@pytest.mark.parametrize(
    "address", ["0.0.0.0:0", "192.0.2.1:80", "[::]:0", "localhost", "127.0.0.1", "127.0.0.1:x"]
)
def test_only_loopback_addresses_are_listened_at(bundle, address):
    assert_refused(edge("serve", bundle, "--tcp", address), "--tcp", address)


def test_what_lies_in_the_sockets_place_is_kept_unless_deserted(bundle, folder):
    file = folder / "file"
    file.write_text("mine")
    assert_refused(edge("serve", bundle, "--unix", file), "no socket")
    assert file.read_text() == "mine"
    path = folder / "s"
    with serving(bundle, "--unix", path) as (address, process):
        assert_refused(edge("serve", bundle, "--unix", path), "somebody listens")
        with Client(address) as client:
            assert "pong" in client.ask({"ping": True})
        process.kill()
        process.wait(WAIT)
    assert path.is_socket()
    with serving(bundle, "--unix", path) as (address, _), Client(address) as client:
        assert "pong" in client.ask({"ping": True})


# The C library.


@pytest.fixture(scope="module", params=["libcentroute.so", "libcentroute.a"])
def programs(request, folder):
    """The programs of tests/edge, compiled against the shared or the static library."""
    return compiled(folder, LIBRARY / request.param)


def compiled(folder, library):
    compiler = shutil.which("cc")
    if compiler is None or not library.is_file():
        pytest.skip(f"no C compiler, or no {library}")
    into = folder / library.name
    if into.exists():
        return into
    into.mkdir()
    link = [str(library), "-lpthread", "-ldl", "-lm", f"-Wl,-rpath,{LIBRARY}"]
    for name in ("route", "misuse"):
        source = ROOT / "tests" / "edge" / f"{name}.c"
        flags = ["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1"]
        command = [
            compiler,
            *flags,
            "-I",
            ROOT / "rust" / "edge" / "include",
            source,
            "-o",
            into / name,
            *link,
        ]
        built = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert built.returncode == 0, built.stderr
    return into


def without_surrogates(text):
    return "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)


def route_in_c(programs, bundle, texts, *policy):
    """Lines of numbers and lines of JSON, a pair for each text."""
    encoded = [without_surrogates(text).encode() for text in texts]
    stdin = b"".join(b"%d\n%b" % (len(text), text) for text in encoded)
    done = subprocess.run(
        [programs / "route", bundle, *policy], input=stdin, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().split("\n")
    return list(zip(lines[:-1:2], lines[1::2], strict=True))


def assert_same_in_c(found, wanted):
    numbers, line = found
    if wanted is None:
        assert numbers == line
        assert numbers.startswith("error 3 the text holds ")
        return
    assert_same(json.loads(line), wanted)
    model, *values = numbers.split("\t")
    assert model == wanted["model"]
    for key, value in zip(
        ("quality", "cost_usd", "quality_se", "margin", "similarity"), values, strict=False
    ):
        number = None if np.isnan(float(value)) else np.float32(value)
        assert number == (None if wanted[key] is None else np.float32(wanted[key])), key
    assert int(values[5]) == wanted["in_distribution"]
    assert int(values[6]) == (-1 if wanted["resolved"] is None else wanted["resolved"])


def test_a_c_program_decides_as_python(programs, pair):
    made, router = pair
    texts = nasty_texts(300) + TEXTS
    for text, found in zip(texts, route_in_c(programs, made, texts), strict=True):
        assert_same_in_c(found, wanted_decision(router, text))
    policy = {"alpha": 0.4, "allow": list(router.models[:2])}
    found = route_in_c(programs, made, TEXTS, json.dumps(policy))
    for text, row in zip(TEXTS, found, strict=True):
        assert_same_in_c(row, wanted_decision(router, text, Policy(**policy)))


def test_misuse_and_threads_are_safe(programs, bundle):
    from centroute import __version__

    done = subprocess.run(
        [programs / "misuse", bundle], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == __version__


# Real texts.


@pytest.fixture(scope="module")
def real_texts():
    texts = []
    for name in ("llmrouter9", "routerbench3", "mmlu_pro", "routellm2"):
        path = DATA / f"{name}.jsonl.gz"
        if not path.is_file():
            pytest.skip(f"{path} is not there: real outcomes are not part of the repository")
        texts += read_outcomes(path).queries[:2700]
    assert len(texts) >= 10_000
    return texts[:10_000]


@pytest.fixture(scope="module")
def real_artifact(real_texts):
    return calibrate(
        read_outcomes(DATA / "routerbench3.jsonl.gz"), embedder="static-256", method="learned", n_clusters=64
    )


@pytest.mark.parametrize(
    ("precision", "fields"), [("f32", {}), ("f16", {"willingness_to_pay": 0.01}), ("i8", {"alpha": 0.6})]
)
def test_ten_thousand_real_texts_are_decided_alike(real_texts, real_artifact, folder, precision, fields):
    made = bundle_of(real_artifact, folder / f"real_{precision}", precision=precision)
    router = Router.load(made / "router.safetensors")
    policy = Policy(**fields)
    wanted = [wanted_decision(router, text, policy) for text in real_texts]
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
    for found, row in zip(decisions(made, real_texts, *flags), wanted, strict=True):
        assert_same(found, row)
    if precision == "i8":
        file = LIBRARY / "libcentroute.so"
        for found, row in zip(
            route_in_c(compiled(folder, file), made, real_texts, json.dumps(fields)), wanted, strict=True
        ):
            assert_same_in_c(found, row)


def test_smaller_precisions_decide_alike_on_held_out_texts(folder, embedder):
    path = DATA / "llmrouter9.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there: real outcomes are not part of the repository")
    outcomes = read_outcomes(path)
    order = np.random.default_rng(0).permutation(outcomes.n_queries)
    fit, held_out = outcomes.subset(order[:4200]), outcomes.subset(order[4200:])
    artifact: Artifact = calibrate(fit, embedder=embedder, method="learned", n_clusters=64, refit=True)
    columns = {name: column for column, name in enumerate(held_out.models)}
    chosen, accuracy = {}, {}
    for precision in ("f32", "f16", "i8"):
        made = bundle_of(artifact, folder / f"held_{precision}", precision=precision)
        chosen[precision] = [row["model"] for row in decisions(made, held_out.queries)]
        scores = [held_out.scores[row, columns[model]] for row, model in enumerate(chosen[precision])]
        accuracy[precision] = np.nanmean(scores)
    for precision, least in (("f16", 0.999), ("i8", 0.995)):
        equal = np.mean([one == other for one, other in zip(chosen["f32"], chosen[precision], strict=True)])
        assert equal >= least, (precision, equal)
        assert abs(accuracy[precision] - accuracy["f32"]) <= 0.001
