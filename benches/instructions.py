"""Instruction counts of kernel and embedder against stored ones: ``make instructions`` (``--update`` stores).

    python benches/instructions.py [--update]

Counts with valgrind's callgrind, which gives the same figure whatever else the machine does. The work is run
a number of times and twice as often; the difference leaves the start out. Fails when a figure grows by more
than the tolerance. Another compiler makes other code: then the figures are shown and nothing is judged.
AVX-512 is not known to valgrind; the portable and the AVX2 loops are counted, and all that is around them.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "benches" / "instructions.json"
EXAMPLES = ROOT / "target" / "release" / "examples"
WORK = {
    "instructions": {"one-f32": 200, "one-f16": 100, "one-i8": 200, "batch": 4, "compile": 500},
    "embed_instructions": {"tokenize": 50, "embed": 50, "surface": 50, "scripts": 50},
}
"""How often each work is done, by the example that does it."""
INSTRUCTION_SETS = ("serial", "avx2")
TOLERANCE = 0.03


def count(example: str, isa: str, work: str, times: int) -> int:
    """Instructions of one process."""
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command = [*valgrind, EXAMPLES / example, isa, work, str(times)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode != 0 or not found:
        raise SystemExit(f"{isa} {work}: callgrind failed\n{run.stderr}")
    return int(found.group(1))


def measure() -> dict[str, int]:
    """Instructions of one time of each work on each instruction set."""
    figures = {}
    for example, works in WORK.items():
        for isa in INSTRUCTION_SETS:
            for work, times in works.items():
                each = (count(example, isa, work, 2 * times) - count(example, isa, work, times)) / times
                figures[f"{isa} {work}"] = round(each)
    return figures


def main() -> int:
    """Compare or store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", action="store_true", help="store what is measured")
    update = parser.parse_args().update
    if shutil.which("valgrind") is None:
        print("instructions: valgrind is not installed; not counted")
        return 0
    crates = ("--package", "centroute-core", "--package", "centroute-embed")
    build = ["cargo", "build", "--release", "--locked", "--quiet", *crates, "--examples"]
    subprocess.run(build, cwd=ROOT, check=True)
    compiler = subprocess.run(
        ["rustc", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    figures = measure()
    if update:
        STORED.write_text(json.dumps({"compiler": compiler, "instructions": figures}, indent=1) + "\n")
    stored = json.loads(STORED.read_text())
    comparable = stored["compiler"] == compiler
    n_failed = 0
    for name, figure in figures.items():
        before = stored["instructions"].get(name)
        growth = figure / before - 1 if before else 0.0
        failed = comparable and (before is None or growth > TOLERANCE)
        n_failed += failed
        print(f"{'FAIL' if failed else 'ok':5} {name:16} {figure:>10,} instructions, {100 * growth:+.1f} %")
    if not comparable:
        print(f"stored with {stored['compiler']}, this is {compiler}: not judged")
    return int(n_failed > 0)


if __name__ == "__main__":
    sys.exit(main())
