"""What a wheel of centroute carries, as CycloneDX 1.6: Rust crates and the bundled embedders.

``python .ci/sbom.py -o centroute.cdx.json``. Crates and their checksums are those of ``Cargo.lock``, as
``cargo metadata`` resolves them for the extension, without those of tests and benches. The same sources give
the same file.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CRATE = "centroute-python"
EMBEDDERS = {
    "static-256": "sentence-transformers/all-MiniLM-L6-v2",
    "static-multi": "Google's Universal Sentence Encoder Multilingual 3",
}
"""Bundled embedders, folders of ``models/``, and what each was derived from."""


def main() -> None:
    """Write the list to the file that is asked for, else to standard output."""
    parser = argparse.ArgumentParser(description="List what a wheel carries.")
    parser.add_argument("-o", "--output", type=Path)
    output = parser.parse_args().output
    text = json.dumps(bill(), indent=1, ensure_ascii=False) + "\n"
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")


def bill() -> dict[str, Any]:
    """The list."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = next(package for package in packages.values() if package["name"] == CRATE)
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text(encoding="utf-8"))["package"]
    checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in locked}
    carried, todo = set(), [root["id"]]
    while todo:
        if (crate := todo.pop()) not in carried:
            carried.add(crate)
            # What only builds the others, such as macros, is not in the binary, and is listed all the same.
            todo += [
                dependency["pkg"]
                for dependency in nodes[crate]["deps"]
                if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])
            ]
    crates = sorted(
        (packages[crate] for crate in carried), key=lambda package: (package["name"], package["version"])
    )
    components = [_crate(package, checksums[package["name"], package["version"]]) for package in crates]
    components += [_embedder(ROOT / "models" / name, source) for name, source in EMBEDDERS.items()]
    identity = json.dumps(components, sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, identity)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "name": "centroute",
                "version": root["version"],
                "licenses": [{"expression": "Apache-2.0"}],
                "purl": f"pkg:pypi/centroute@{root['version']}",
            }
        },
        "components": components,
    }


def _crate(package: dict[str, Any], checksum: str | None) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "name": package["name"],
        "version": package["version"],
        "purl": f"pkg:cargo/{package['name']}@{package['version']}",
        # The old way to write "or" is no expression of SPDX.
        "licenses": [{"expression": " OR ".join(part.strip() for part in package["license"].split("/"))}],
    }
    if checksum is not None:
        component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return component


def _embedder(folder: Path, source: str) -> dict[str, Any]:
    description = json.loads((folder / "embedder.json").read_text(encoding="utf-8"))
    files = [
        {"alg": "SHA-256", "content": hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()},
    ]
    if files[0]["content"] != description["model_sha256"]:
        sys.exit(f"{folder / 'model.onnx'}: is not the file that embedder.json describes")
    return {
        "type": "machine-learning-model",
        "name": description["name"],
        "version": description["fingerprint"],
        "description": f"derived from {source}, see NOTICE",
        "licenses": [{"expression": "Apache-2.0"}],
        "hashes": files,
    }


if __name__ == "__main__":
    main()
