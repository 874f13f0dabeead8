"""Start and memory of a process that routes one text: ``make bench`` or ``python benches/start.py``.

Fresh processes, one after another: import, load of a router file, first decision, and all three with the
interpreter's own start. Medians; memory is what is resident after 1,000 decisions, and the peak.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from centroute.calibrate import calibrate
from centroute.datasets import synthetic_outcomes

N_PROCESSES = 15
TARGET_MS, TARGET_MB = 120, 80

CHILD = """
import time
started = time.perf_counter()
import resource, sys
from centroute import Router
imported = time.perf_counter()
router = Router.load(sys.argv[1])
loaded = time.perf_counter()
router.route("Prove that the square root of two is irrational.")
decided = time.perf_counter()
for number in range(1000):
    router.route(f"What is {number} times {number + 1}?")
try:
    resident = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
    peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
except OSError:
    resident = peak = float("nan")
import json
print(json.dumps({
    "import": 1e3 * (imported - started), "load": 1e3 * (loaded - imported),
    "first decision": 1e3 * (decided - loaded), "resident": resident,
    "peak": peak,
}))
"""


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "router.safetensors"
        calibrate(synthetic_outcomes(), method="means").save(file)
        runs = []
        for _ in range(N_PROCESSES + 1):
            bare = time.perf_counter()
            subprocess.run([sys.executable, "-c", ""], check=True)
            bare = 1e3 * (time.perf_counter() - bare)
            output = subprocess.run(
                [sys.executable, "-c", CHILD, str(file)], check=True, capture_output=True, text=True
            ).stdout
            run = json.loads(output)
            run["interpreter"] = bare
            run["start"] = bare + run["import"] + run["load"] + run["first decision"]
            runs.append(run)
    # The first run fills the page cache.
    median = {name: statistics.median(run[name] for run in runs[1:]) for name in runs[0]}
    print(f"start of a process that routes with static-256, medians of {N_PROCESSES} fresh processes")
    for name in ("interpreter", "import", "load", "first decision"):
        print(f"  {name:24} {median[name]:7.1f} ms")
    print(f"  {'all of it':24} {median['start']:7.1f} ms   (target {TARGET_MS})")
    print(f"  {'resident afterwards':24} {median['resident']:7.1f} MB   (target {TARGET_MB})")
    print(f"  {'peak':24} {median['peak']:7.1f} MB")


if __name__ == "__main__":
    main()
