"""``centroute embed list`` and ``centroute embed check``; ``export`` is in ``embed_export``."""

import json
import sys
from typing import Any

from rich.table import Table

from centroute.cli import screen
from centroute.embedders import EXPORT_COMMANDS, bundled_names, cached_names, find_folder, read_folder
from centroute.embedders.check import Check, check_embedder
from centroute.errors import EmbedderError


def run_embed_list(*, as_json: bool) -> None:
    """Show the embedders that can be named, and those that can be made."""
    entries = [
        *(_entry(name, "bundled") for name in bundled_names()),
        *(_entry(name, "exported") for name in cached_names()),
    ]
    found = {entry["name"] for entry in entries}
    missing = {name: command for name, command in EXPORT_COMMANDS.items() if name not in found}
    if as_json:
        sys.stdout.write(json.dumps({"embedders": entries, "can_be_exported": missing}, indent=1) + "\n")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("embedder")
    table.add_column("dim", justify="right")
    table.add_column("size", justify="right")
    table.add_column("run by")
    table.add_column("from")
    for entry in entries:
        if entry["error"] is not None:
            table.add_row(entry["name"], "", "", "", f"damaged: {entry['error']}")
            continue
        size = f"{entry['bytes'] / 1e6:.1f} MB"
        table.add_row(entry["name"], str(entry["dim"]), size, entry["runtime"], entry["origin"])
    screen.out.print(table, soft_wrap=False)
    screen.out.print()
    for name, command in missing.items():
        screen.out.print(f"{name} is not here yet; run: {command}")
    screen.out.print(
        "A folder with an ONNX graph or a model2vec table can be named too: centroute embed check DIR"
    )


def _entry(name: str, origin: str) -> dict[str, Any]:
    entry = {
        "name": name,
        "origin": origin,
        "folder": None,
        "dim": None,
        "bytes": None,
        "runtime": None,
        "error": None,
    }
    try:
        folder = read_folder(find_folder(name))
        n_bytes = sum(file.stat().st_size for file in folder.path.rglob("*") if file.is_file())
    except (EmbedderError, OSError) as error:
        return {**entry, "error": str(error)}
    return {
        **entry,
        "folder": str(folder.path),
        "dim": folder.description.dim or None,
        "bytes": n_bytes,
        "runtime": "centroute" if folder.is_static else "onnxruntime",
    }


def run_embed_check(name_or_dir: str, *, device: str, as_json: bool) -> None:
    """Try an embedder out and show what it is and what is off.

    Raises
    ------
    EmbedderError
        If it cannot be loaded, or something is off.
    """
    found = check_embedder(name_or_dir, device=device)  # type: ignore[arg-type]
    if as_json:
        sys.stdout.write(json.dumps(found.to_json(), indent=1) + "\n")
    else:
        _show(found)
    if found.findings:
        raise EmbedderError(f"{name_or_dir}: {_n_things(len(found.findings))} off")


def _show(found: Check) -> None:
    screen.out.print(f"{found.name} ({found.folder})")
    speeds = ", ".join(
        f"{_microseconds(speed.median_us)} at {speed.n_tokens} tokens" for speed in found.speed
    )
    rows = "none"
    if found.norms is not None and found.batch_difference is not None:
        low, high = found.norms
        rows = f"norm {low:.6f} to {high:.6f}; alone and in a batch differ by {found.batch_difference:.1e}"
    facts = {
        "layout": found.layout,
        "run by": f"{found.runtime} on {found.device}",
        "tokenizer": found.tokenizer,
        "dim": found.dim,
        "pooling": found.pooling,
        "max tokens": found.max_tokens,
        "prefix": repr(found.prefix) if found.prefix else "none",
        "fingerprint": found.fingerprint,
        "one text": speeds or "not measured",
        "rows": rows,
    }
    for name, fact in facts.items():
        screen.out.print(f"  {name:12} {fact}")
    for note in found.notes:
        screen.out.print(f"  {'note':12} {note}")
    for finding in found.findings:
        screen.out.print(f"  {'off':12} {finding}", style="bold")
    if not found.findings:
        screen.out.print("nothing is off")


def _microseconds(value: float) -> str:
    return f"{value:.0f} µs" if value >= 100 else f"{value:.1f} µs"


def _n_things(number: int) -> str:
    return "1 thing is" if number == 1 else f"{number} things are"
