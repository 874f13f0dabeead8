"""Run every fuzz target for a share of the time and print what came of it.

The targets are those of ``rust/fuzz``, built by cargo-fuzz on the stable toolchain, and the Python ones of
this folder. What they find out about the code stays in ``target/fuzz``: corpora grow there from run to run,
inputs that failed lie in ``crashes``, and a line of ``runs.jsonl`` says what came of each share of the time;
``--summary`` adds them up.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUST = ROOT / "rust" / "fuzz"
WORK = Path(os.environ.get("CENTROUTE_FUZZ_TARGET") or ROOT / "target" / "fuzz").resolve()
TRIPLE = "x86_64-unknown-linux-gnu"
VERSION = "0.13.2"
"""Of cargo-fuzz, where there is none yet."""
SLICE_SECONDS = 60
"""A target runs this long at a time at most, so that a run that is cut short has seen them all."""
GRACE_SECONDS = 60
"""A process that has not ended this long after its time is ended, and counts as one that failed."""
LIMITS = ["-timeout=5", "-rss_limit_mb=1024", "-malloc_limit_mb=256", "-max_len=16384", "-len_control=20"]
JSON_TARGETS = {"artifact", "bundle", "c_library", "lines", "policy", "serve", "table", "tokenizer_file"}
"""Those whose inputs hold JSON, and that are given its words."""

THREADED_TARGETS = {"bundle", "serve"}
"""Those that start threads: what one still holds while it ends looks like a leak."""


@dataclass(frozen=True)
class Share:
    """What one target did in one share of the time."""

    target: str
    seconds: float
    executions: int
    coverage: int
    failed: bool


def main() -> int:
    """Run as the arguments say; 1 when an input failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0, help="for all targets together (default 5)")
    parser.add_argument("--target", action="append", default=[], help="only this one; repeat it for more")
    parser.add_argument("--summary", action="store_true", help="add up the runs so far, and run nothing")
    given = parser.parse_args()
    if given.summary:
        lines = (WORK / "runs.jsonl").read_text().splitlines()
        return show([Share(**json.loads(line)) for line in lines])
    python = {f"python {path.stem.removeprefix('fuzz_')}": path for path in sorted(HERE.glob("fuzz_*.py"))}
    rust = [path.stem for path in sorted((RUST / "targets").glob("*.rs"))]
    targets = [name for name in [*rust, *python] if name in given.target or not given.target]
    if not targets:
        sys.exit(f"run.py: no such target; there are {', '.join([*rust, *python])}")
    if any(name in rust for name in targets):
        build()
    done = []
    for name, seconds in shares(targets, 60 * given.minutes):
        share = run_python(name, python[name], seconds) if name in python else run_rust(name, seconds)
        done.append(share)
        with (WORK / "runs.jsonl").open("a") as file:
            file.write(json.dumps(asdict(share)) + "\n")
    return show(done)


def shares(targets: list[str], seconds: float) -> Iterator[tuple[str, float]]:
    """Targets one after another, each with its time, until all of it is spent."""
    end = time.monotonic() + seconds
    share = min(SLICE_SECONDS, seconds / len(targets))
    while True:
        for name in targets:
            left = end - time.monotonic()
            if left < 1:
                return
            yield name, min(share, left)


def build() -> None:
    """Build the targets with the sanitizer of the stable toolchain, which it hides behind a variable."""
    own = WORK / "tools" / "bin"
    tool = shutil.which("cargo-fuzz") or shutil.which("cargo-fuzz", path=str(own))
    if tool is None:
        install = ["cargo", "install", "cargo-fuzz", "--version", VERSION, "--locked", "--quiet"]
        subprocess.run([*install, "--root", own.parent], check=True)
        tool = str(own / "cargo-fuzz")
    command: list[str | Path] = [
        tool,
        "fuzz",
        "build",
        "--fuzz-dir",
        RUST,
        "--target",
        TRIPLE,
        "--target-dir",
        WORK,
    ]
    subprocess.run(command, check=True, cwd=RUST, env={**os.environ, "RUSTC_BOOTSTRAP": "1"})


def run_rust(name: str, seconds: float) -> Share:
    """Run a target of ``rust/fuzz`` from its seeds and what it found before."""
    corpus, crashes = WORK / "corpus" / name, WORK / "crashes" / name
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [
        WORK / TRIPLE / "release" / name,
        *LIMITS,
        f"-max_total_time={int(max(seconds, 1))}",
    ]
    command += ["-print_final_stats=1", f"-artifact_prefix={crashes}/"]
    if name in THREADED_TARGETS:
        command.append("-detect_leaks=0")
    if name in JSON_TARGETS:
        command.append(f"-dict={RUST / 'dictionaries' / 'json.dict'}")
    log = WORK / f"{name}.log"
    # Findings are inputs like any other, and lead to their neighbours.
    folders = [corpus, RUST / "seeds" / name, RUST / "findings" / name]
    started = time.monotonic()
    code = run(command + [folder for folder in folders if folder.is_dir()], log, seconds)
    text = log.read_text(errors="replace")
    executions = re.findall(r"^(?:#|stat::number_of_executed_units: *)(\d+)", text, re.MULTILINE)
    coverage = re.findall(r" cov: (\d+)", text)
    return Share(
        name,
        time.monotonic() - started,
        int(executions[-1]) if executions else 0,
        int(coverage[-1]) if coverage else 0,
        code != 0,
    )


def run_python(name: str, path: Path, seconds: float) -> Share:
    """Run a target of this folder, which says how many inputs it tried."""
    log = WORK / f"{name.replace(' ', '-')}.log"
    started = time.monotonic()
    code = run([sys.executable, path, "--seconds", str(int(max(seconds, 1)))], log, seconds)
    inputs = re.findall(r"(\d[\d_,]*) (?:inputs|executions|examples|cases)", log.read_text(errors="replace"))
    n_inputs = int(re.sub(r"[_,]", "", inputs[-1])) if inputs else 0
    return Share(name, time.monotonic() - started, n_inputs, 0, code != 0)


def run(command: list[str | Path], log: Path, seconds: float) -> int:
    """Run a command with its output in a file; its exit code, or -1 where it had to be ended."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT)
        try:
            return process.wait(seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return -1
        finally:
            process.kill()
            process.wait()


def show(done: list[Share]) -> int:
    """Print a line a target; 1 when an input failed."""
    lines = [f"{'target':28} {'minutes':>8} {'executions':>12} {'coverage':>9}  failed"]
    for name in dict.fromkeys(share.target for share in done):
        own = [share for share in done if share.target == name]
        coverage, failed = max(share.coverage for share in own), sum(share.failed for share in own)
        lines.append(f"{name:28} {_spent(own)} {coverage or '-':>9}  {failed or 'none'}")
    lines.append(f"{'all':28} {_spent(done)}")
    has_failed = any(share.failed for share in done)
    if has_failed:
        lines.append(f"inputs that failed: {WORK / 'crashes'}; see rust/fuzz/README.md")
    sys.stdout.write("\n".join(lines) + "\n")
    return int(has_failed)


def _spent(done: list[Share]) -> str:
    minutes, executions = sum(share.seconds for share in done) / 60, sum(share.executions for share in done)
    return f"{minutes:8.1f} {executions:12,}"


if __name__ == "__main__":
    sys.exit(main())
