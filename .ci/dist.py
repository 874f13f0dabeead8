"""Build what is released into ``dist/``, with SHA-256 sums, then install and run each piece in a clean place.

``make dist`` runs this in an environment with maturin, zig and cargo-zigbuild. Wheel, command and
C library are linked by zig against the glibc of manylinux_2_28, without a container, and run on
x86-64 Linux with glibc 2.28 or newer.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
MACHINE = platform.machine()
TARGET = f"{MACHINE}-unknown-linux-gnu"
GLIBC = (2, 28)
"""Newest glibc that the compiled files may ask for."""
BUILD = ROOT / "target" / "dist"
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
SUMS = "SHA256SUMS"
TEXTS = ["Prove that the square root of two is irrational.", "Write a haiku.", "2 + 2?"]


def run(*command: object, cwd: Path = ROOT, env: dict[str, str] | None = None, stdin: str = "") -> str:
    """Run a command and return what it printed; where it fails, show all that it said and end."""
    words = [str(part) for part in command]
    done = subprocess.run(
        words,
        cwd=cwd,
        env=env,
        input=stdin,
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"dist: {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def say(text: str) -> None:
    """Print a line of progress at once."""
    print(text, flush=True)


def build() -> None:
    """Fill ``dist/``: wheel, sdist, command, C library, sums."""
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    glibc = "_".join(map(str, GLIBC))
    env = {**os.environ, "CARGO_TARGET_DIR": str(BUILD)}
    say("wheel")
    maturin = Path(sys.executable).with_name("maturin")
    wheel = [
        "build",
        "--release",
        "--locked",
        "--zig",
        "--target",
        TARGET,
        "--compatibility",
        f"manylinux_{glibc}",
    ]
    run(maturin, *wheel, "--out", DIST, env=env)
    say("sdist")
    run(maturin, "sdist", "--out", DIST, env=env)
    say("command and C library")
    suffix = ".".join(map(str, GLIBC))
    cargo = ["cargo", "zigbuild", "--release", "--locked", "--package", "centroute-edge"]
    run(*cargo, "--target", f"{TARGET}.{suffix}", env=env)
    built = BUILD / TARGET / "release"
    papers = [ROOT / "LICENSE", ROOT / "NOTICE", ROOT / "docs" / "edge.md"]
    pack("centroute-edge", [built / "centroute-edge", *papers])
    library = [built / "libcentroute.so", built / "libcentroute.a"]
    pack("libcentroute", [*library, ROOT / "rust" / "edge" / "include" / "centroute.h", *papers])
    lines = [f"{sha256(path)}  {path.name}\n" for path in sorted(DIST.iterdir())]
    (DIST / SUMS).write_text("".join(lines))


def pack(name: str, files: list[Path]) -> None:
    """Write ``dist/NAME-VERSION-MACHINE-linux.tar.gz`` with the files in a folder of that name."""
    folder = f"{name}-{VERSION}-{MACHINE}-linux"
    with tarfile.open(DIST / f"{folder}.tar.gz", "w:gz") as archive:
        for path in files:
            archive.add(path, f"{folder}/{path.name}")


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def only(pattern: str) -> Path:
    """Return the one file of ``dist/`` that fits."""
    found = sorted(DIST.glob(pattern))
    if len(found) != 1:
        sys.exit(f"dist: {pattern}: {len(found)} files fit, 1 is wanted")
    return found[0]


def check(place: Path) -> None:
    """Install and run every piece below ``place``, in an environment that does not know this checkout."""
    env = {"PATH": os.environ["PATH"], "HOME": str(place), "LC_ALL": "C.UTF-8"}
    run("sha256sum", "--check", "--strict", SUMS, cwd=DIST)
    check_glibc(place)

    say("wheel: installed, demo, export")
    python = install(only("*.whl"), place / "wheel", env)
    centroute = python.with_name("centroute")
    run(centroute, "demo", "-o", place / "router.safetensors", cwd=place, env=env)
    routed = [
        json.loads(run(centroute, "route", "router.safetensors", text, "--json", cwd=place, env=env))
        for text in TEXTS
    ]
    run(centroute, "export", "router.safetensors", "-o", "bundle", cwd=place, env=env)

    say("sdist: built, installed, route")
    # The machine's own cargo compiles it; its settings lie below the user's home.
    homes = {name: os.environ.get(name, str(Path.home() / default)) for name, default in CARGO_HOMES.items()}
    python = install(only(f"centroute-{VERSION}.tar.gz"), place / "sdist", {**env, **homes})
    line = run(python.with_name("centroute"), "route", "bundle", TEXTS[0], "--json", cwd=place, env=env)
    expect_equal("the sdist's decision", json.loads(line), routed[0])

    say("command: route")
    folder = unpack("centroute-edge", place)
    lines = run(folder / "centroute-edge", "route", "bundle", cwd=place, env={}, stdin="\n".join(TEXTS))
    for line, wanted in zip(lines.splitlines(), routed, strict=True):
        expect_equal("the command's model", json.loads(line)["model"], wanted["model"])

    say("C library: compiled against, shared and static, route")
    folder = unpack("libcentroute", place)
    source = ROOT / "tests" / "edge" / "route.c"
    stdin = "".join(f"{len(text.encode())}\n{text}" for text in TEXTS)
    links = {
        "shared": ["-L", folder, "-lcentroute"],
        "static": [folder / "libcentroute.a", "-lpthread", "-ldl", "-lm"],
    }
    for name, link in links.items():
        run("cc", "-I", folder, source, *link, "-o", place / name, cwd=place, env=env)
        lines = run(place / name, "bundle", cwd=place, env={"LD_LIBRARY_PATH": str(folder)}, stdin=stdin)
        models = [line.split("\t")[0] for line in lines.splitlines()[::2]]
        expect_equal(f"models of the {name} library", models, [wanted["model"] for wanted in routed])


CARGO_HOMES = {"CARGO_HOME": ".cargo", "RUSTUP_HOME": ".rustup"}


def install(package: Path, folder: Path, env: dict[str, str]) -> Path:
    """Make a new environment with the package and what it depends on; return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(
        python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package, cwd=folder, env=env
    )
    return python


def unpack(name: str, place: Path) -> Path:
    """Unpack ``dist/NAME-*.tar.gz`` and return its folder."""
    archive = only(f"{name}-*-linux.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(place, filter="data")
    return place / archive.name.removesuffix(".tar.gz")


def check_glibc(place: Path) -> None:
    """Refuse compiled files that ask for a newer glibc than promised."""
    with zipfile.ZipFile(only("*.whl")) as wheel:
        extension = Path(wheel.extract("centroute/_kernel.abi3.so", place / "extension"))
    command = unpack("centroute-edge", place) / "centroute-edge"
    library = unpack("libcentroute", place) / "libcentroute.so"
    for path in (extension, command, library):
        symbols = run("readelf", "--version-info", "--wide", path)
        newest = max(tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_([\d.]+)", symbols))
        say(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, glibc {'.'.join(map(str, newest))} or newer")
        if newest > GLIBC:
            sys.exit(f"dist: {path.name} asks for glibc {newest}, promised is {GLIBC}")


def expect_equal(what: str, found: object, wanted: object) -> None:
    """End with both values where they differ."""
    if found != wanted:
        sys.exit(f"dist: {what}: {found}, the wheel says {wanted}")


if __name__ == "__main__":
    build()
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder))
    say(f"\n{(DIST / SUMS).read_text()}all installed and run")
