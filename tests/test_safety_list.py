"""``docs/safety.md`` lists every ``unsafe`` of the Rust code, so that a new one is argued for there too."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNSAFE = re.compile(r"\bunsafe (?:\{|fn|impl|extern)")
ROW = re.compile(r"^\| `(rust/[^`]+)` \| (\d+) \|", re.MULTILINE)


def test_every_unsafe_is_listed() -> None:
    found: Counter[str] = Counter()
    for path in sorted((ROOT / "rust").rglob("*.rs")):
        code = re.sub(r"//.*", "", path.read_text())
        if n := len(UNSAFE.findall(code)):
            found[path.relative_to(ROOT).as_posix()] = n
    listed: Counter[str] = Counter()
    for file, n in ROW.findall((ROOT / "docs" / "safety.md").read_text()):
        listed[file] += int(n)
    assert listed == found
    assert found.total() > 40
