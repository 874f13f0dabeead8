"""Ways to spoil a bundle, and what the refusal must name; for the Python package and the binary alike."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], None]


def _change_manifest(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _swap(folder: Path) -> None:
    first, second = folder / "embedder" / "model.onnx", folder / "embedder" / "tokenizer.json"
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


def _link_out(folder: Path) -> None:
    outside = folder.parent / "outside.onnx"
    model = folder / "embedder" / "model.onnx"
    shutil.move(model, outside)
    model.symlink_to(outside)


def _link_folder(folder: Path) -> None:
    outside = folder.parent / "outside"
    shutil.move(folder / "embedder", outside)
    (folder / "embedder").symlink_to(outside)


FOLDERS: dict[str, tuple[Damage, str]] = {
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json"),
    "no router": (lambda folder: (folder / "router.safetensors").unlink(), "router.safetensors"),
    "no tokenizer": (lambda folder: (folder / "embedder" / "tokenizer.json").unlink(), "tokenizer.json"),
    "no embedder": (lambda folder: shutil.rmtree(folder / "embedder"), "embedder"),
    "empty folder": (_empty, "manifest.json"),
    "extra file": (lambda folder: (folder / "embedder" / "more").write_text(""), "more"),
    "extra folder": (lambda folder: (folder / "more").mkdir(), "more"),
    "swapped files": (_swap, "model.onnx"),
    "truncated model": (lambda folder: os.truncate(folder / "embedder" / "model.onnx", 1000), "model.onnx"),
    "empty router": (lambda folder: os.truncate(folder / "router.safetensors", 0), "router.safetensors"),
    "altered router": (lambda folder: _flip(folder / "router.safetensors"), "router.safetensors"),
    "altered model": (lambda folder: _flip(folder / "embedder" / "model.onnx"), "model.onnx"),
    "altered description": (lambda folder: _flip(folder / "embedder" / "embedder.json"), "embedder.json"),
    "link that leaves": (_link_out, "link"),
    "folder that is a link": (_link_folder, "link"),
    "manifest that is no JSON": (
        lambda folder: (folder / "manifest.json").write_bytes(b"\xff{"),
        "manifest.json",
    ),
    "manifest that is a list": (lambda folder: (folder / "manifest.json").write_text("[1]"), "manifest.json"),
    "manifest of the future": (
        lambda folder: _change_manifest(folder, lambda manifest: manifest.update(format_version=2)),
        "format version 2",
    ),
    "manifest without a file": (
        lambda folder: _change_manifest(folder, lambda manifest: manifest["files"].pop("router.safetensors")),
        "files",
    ),
    "manifest with a path outside": (
        lambda folder: _change_manifest(
            folder, lambda manifest: manifest["files"].update({"../x": {"bytes": 0, "sha256": "0" * 64}})
        ),
        "files",
    ),
    "manifest of a gigabyte": (
        lambda folder: os.truncate(folder / "manifest.json", 1 << 30),
        "manifest.json",
    ),
    "other digest": (
        lambda folder: _change_manifest(
            folder, lambda manifest: manifest["files"]["router.safetensors"].update(sha256="0" * 64)
        ),
        "router.safetensors",
    ),
    "digest that is none": (
        lambda folder: _change_manifest(
            folder, lambda manifest: manifest["files"]["router.safetensors"].update(sha256=7)
        ),
        "manifest.json",
    ),
}
"""Damage done to a bundle's folder, and a word of the refusal."""


def _member(name: str, data: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    return member, data


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A tar file of these members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for member, data in members:
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def _oversized() -> bytes:
    # The header promises a thousandfold of what follows.
    member = tarfile.TarInfo("router.safetensors")
    member.size = 10_000_000
    return member.tobuf(tarfile.USTAR_FORMAT) + bytes(10_000)


TARS: dict[str, tuple[Callable[[], bytes], str]] = {
    "absolute path": (lambda: tar_of(_member("/etc/centroute")), "leaves the folder"),
    "path above": (lambda: tar_of(_member("embedder/../../up")), "leaves the folder"),
    "symbolic link": (
        lambda: tar_of(_member("router.safetensors", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
        "link",
    ),
    "hard link": (
        lambda: tar_of(_member("router.safetensors", b"", type=tarfile.LNKTYPE, linkname="manifest.json")),
        "link",
    ),
    "device": (lambda: tar_of(_member("router.safetensors", b"", type=tarfile.CHRTYPE)), "no file"),
    "foreign file": (lambda: tar_of(_member("readme.txt")), "readme.txt"),
    "twice": (lambda: tar_of(_member("manifest.json"), _member("manifest.json")), "twice"),
    "thousandfold size": (_oversized, "more than the tar file has"),
    "empty archive": (tar_of, "not a bundle"),
}
"""Tar files, and a word of the refusal."""
