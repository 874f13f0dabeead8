"""What all fuzzers share: a bounded run, a watch for hangs, mutations, and what counts as refused.

A fuzzer is a module with two functions: ``make(chance) -> bytes`` makes an input, ``check(data)`` fails on a
wrong answer. Any exception that leaves ``check`` is a finding, and so is an input that takes longer than
`SECONDS_AN_INPUT`. Input number ``i`` of seed ``S`` is always the same. A finding is saved, and ``--replay
FILE`` runs it again; ``tests/test_fuzz_findings.py`` replays those of the past, which lie under ``findings``.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import faulthandler
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # the tests, whose builders are used here

from centroute.errors import ArtifactError, DataError, EmbedderError, PolicyError  # noqa: E402

REFUSALS = (ArtifactError, DataError, EmbedderError, PolicyError)
"""What bad input may raise."""
LONGEST_MESSAGE = 4000
SECONDS_AN_INPUT = 20
MEMORY_BYTES = 8 << 30

Result = TypeVar("Result")
Make = Callable[[random.Random], bytes]
Check = Callable[[bytes], None]


class Hang(Exception):  # noqa: N818 - what happened
    """An input took too long."""


def tried(action: Callable[[], Result], *also: type[Exception]) -> Result | None:
    """Return the result of ``action``, or ``None`` where it refuses in one clear line."""
    try:
        return action()
    except (*REFUSALS, *also) as refused:
        _check_message(str(refused))
        return None


def _check_message(message: str) -> None:
    assert message.strip(), "no message"
    assert len(message.splitlines()) == 1, f"a message of several lines: {message!r}"
    assert len(message) <= LONGEST_MESSAGE, f"a message of {len(message)} characters: {message[:300]!r}"
    message.encode("utf-8", "surrogateescape")


# -- mutations ----------------------------------------------------------------------------

DEEP = "\x00deep\x00"
DIGITS = "\x00digits\x00"
ODD = [
    None, True, False, 0, 1, -1, 2**31, 2**53 + 1, 2**62, 2**63, 2**64, 10**30, -(10**30), 0.5, -0.0, 1e-300,
    1e39, 1e300, "", " ", "x", "\ud800", "\x00", "a\nb", "../../x", "/etc/passwd", "0", "nan", "x" * 5000, [],
    {}, [[]], {"": {}}, [None], [1, 2], {"a": 1}, DEEP, DIGITS, float("inf"), float("nan"),
]  # fmt: skip
"""Values that stand where others are meant; `DEEP` and `DIGITS` become texts that Python cannot make."""


def mutated_json(chance: random.Random, value: Any, *, n_changes: int | None = None) -> str:
    """JSON text of ``value`` after a few changes somewhere within."""
    value = json.loads(json.dumps(value))
    for _ in range(n_changes if n_changes is not None else chance.choice((0, 1, 1, 1, 2, 3, 6))):
        value = _changed(chance, value)
    ascii_only = chance.random() < 0.5
    try:
        text = json.dumps(value, ensure_ascii=ascii_only)
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value)
    n_deep = chance.choice((50, 120, 200, 500, *range(880, 990, 7), 3000, 100_000))
    begin, end = chance.choice((("[", "]"), ('{"a":', "}")))
    text = text.replace(json.dumps(DEEP), begin * n_deep + "1" + end * n_deep)
    text = text.replace(json.dumps(DIGITS), "9" * chance.choice((20, 400, 4299, 4301, 50_000)))
    if chance.random() < 0.1:
        text = _with_repeated_key(chance, text)
    return text


def _changed(chance: random.Random, value: Any) -> Any:
    if not isinstance(value, dict | list) or not value or chance.random() < 0.12:
        return copy.deepcopy(chance.choice(ODD))
    if isinstance(value, list):
        index = chance.randrange(len(value))
        kind = chance.random()
        if kind < 0.1:
            del value[index]
        elif kind < 0.2:
            value.insert(index, copy.deepcopy(chance.choice(value)))
        elif kind < 0.25:
            value.extend(copy.deepcopy(value) * chance.choice((1, 10)))
        else:
            value[index] = _changed(chance, value[index])
        return value
    key = chance.choice(list(value))
    kind = chance.random()
    if kind < 0.12:
        del value[key]
    elif kind < 0.2:
        value[chance.choice(("", "x", "\ud800", "name", *value))] = copy.deepcopy(chance.choice(ODD))
    elif kind < 0.25:
        value[key] = copy.deepcopy(value[chance.choice(list(value))])
    else:
        value[key] = _changed(chance, value[key])
    return value


def _with_repeated_key(chance: random.Random, text: str) -> str:
    place = text.find("{")
    key = text[place + 1 : text.find(":", place)] if place >= 0 else ""
    if not key.startswith('"'):
        return text
    return f"{text[: place + 1]}{key}:{chance.choice(('1', 'null', '{}', '[]'))},{text[place + 1 :]}"


def mutated_bytes(chance: random.Random, data: bytes, *, n_changes: int | None = None) -> bytes:
    """Bytes with a few changes: flipped, put in, taken out, repeated, cut off."""
    content = bytearray(data)
    for _ in range(n_changes if n_changes is not None else chance.choice((0, 1, 1, 2, 3, 8, 30))):
        place = chance.randrange(len(content) + 1)
        kind = chance.randrange(8)
        if kind == 0 and place < len(content):
            content[place] ^= 1 << chance.randrange(8)
        elif kind == 1 and place < len(content):
            content[place] = chance.choice(
                (0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x5C, 0x0A, 0x0D, chance.randrange(256))
            )
        elif kind == 2:
            content[place:place] = chance.randbytes(chance.randint(1, 9))
        elif kind == 3:
            del content[place : place + chance.choice((1, 2, 4, 16, 200))]
        elif kind == 4:
            content[place:place] = content[place : place + chance.randint(1, 64)]
        elif kind == 5:
            n_bytes = chance.choice((2, 4, 8))
            number = chance.choice(
                (0, 1, -1, 2 ** (8 * n_bytes - 1) - 1, -(2 ** (8 * n_bytes - 1)), 255, 65_536 - 1)
            )
            number = max(min(number, 2 ** (8 * n_bytes - 1) - 1), -(2 ** (8 * n_bytes - 1)))
            content[place : place + n_bytes] = number.to_bytes(
                n_bytes, chance.choice(("little", "big")), signed=True
            )
        elif kind == 6:
            other = chance.randrange(len(content) + 1)
            content[place : place + 16] = content[other : other + 16]
        elif chance.random() < 0.2:
            del content[place:]
    return bytes(content)


# -- running ------------------------------------------------------------------------------


def main(name: str, make: Make, check: Check) -> NoReturn:
    """Run a fuzzer from the command line."""
    parser = argparse.ArgumentParser(description=f"Fuzz {name}; exits with 1 where something was found.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--seed", type=int, default=None, help="of all inputs; another one each time by default"
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--inputs", type=int, default=None, help="stop after this many")
    parser.add_argument(
        "--save", type=Path, default=Path("fuzz-findings"), help="folder for inputs that were found"
    )
    parser.add_argument("--replay", type=Path, help="check this saved input and nothing else")
    parser.add_argument("--keep-going", action="store_true", help="go on after a finding of a new kind")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGALRM, _too_long)
    if given.replay is not None:
        with within(SECONDS_AN_INPUT):
            check(given.replay.read_bytes())
        sys.exit(0)
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(2**32)
    given.save.mkdir(parents=True, exist_ok=True)
    current = given.save / f"{name}-{os.getpid()}.current"
    found: dict[str, str] = {}
    number = given.first
    started = time.monotonic()
    while time.monotonic() - started < given.seconds and (given.inputs is None or number < given.inputs):
        data = make(random.Random(f"{seed}/{number}"))  # noqa: S311 - inputs, no secrets
        current.write_bytes(data)  # what is here after a crash is what crashed
        try:
            with within(SECONDS_AN_INPUT):
                check(data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a panic in the extension is a BaseException
            kind = _kind(error)
            if kind not in found:
                found[kind] = f"{name}-{seed}-{number}"
                (given.save / found[kind]).write_bytes(data)
                print(f"{name}: seed {seed} input {number}: {kind}", file=sys.stderr, flush=True)  # noqa: T201
                traceback.print_exc(limit=-4)
                if not given.keep_going:
                    break
        number += 1
    current.unlink(missing_ok=True)
    seconds = time.monotonic() - started
    print(  # noqa: T201
        f"{name}: {number - given.first} inputs in {seconds:.0f} s, seed {seed}, {len(found)} findings"
        + "".join(f"\n  {file}: {kind}" for kind, file in found.items()),
        flush=True,
    )
    sys.exit(1 if found else 0)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise `Hang` where the block takes longer; end the process where even that cannot be raised."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(3 * seconds, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


def _too_long(*_: object) -> NoReturn:
    raise Hang(f"took longer than {SECONDS_AN_INPUT} s")


def _kind(error: BaseException) -> str:
    """Type and place of a finding: two of one kind are told once."""
    frames = traceback.extract_tb(error.__traceback__)
    inner = next((frame for frame in reversed(frames) if "centroute" in frame.filename), frames[-1])
    message = " ".join(str(error).split())[:160]
    kind = f"{type(error).__name__} at {Path(inner.filename).name}:{inner.lineno}"
    return f"{kind}: {message}" if isinstance(error, AssertionError) else f"{kind} ({message})"
