"""Bundles: manifests and tar files that are changed, with true digests where another file is changed."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import random
import shutil
import tarfile
import tempfile
from pathlib import Path

from fuzz_artifact import valid
from harness import main, mutated_bytes, mutated_json, tried

from centroute import Router
from centroute.bundle import FILES, MANIFEST_FILE, pack_bundle, read_bundle, unpack_bundle

NAMES = [
    "manifest.json",
    *FILES,
    "../x",
    "/etc/x",
    "embedder",
    "a" * 300,
    "x\ny",
    "embedder/../manifest.json",
    "",
]


@functools.cache
def _work() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-bundle-"))


@functools.cache
def contents() -> dict[str, bytes]:
    """Files of a valid bundle."""
    from fuzz_embedder_folder import folders

    return pack_bundle(valid(0), embedder=folders()["centroute"])


def make(chance: random.Random) -> bytes:  # noqa: C901 - one branch a kind of change
    """Return ``manifest`` and the text of one, or ``tar`` and the bytes of one."""
    if chance.random() < 0.4:
        manifest = contents()[MANIFEST_FILE]
        if chance.random() < 0.7:
            return b"manifest\n" + mutated_json(chance, json.loads(manifest)).encode()
        return b"manifest\n" + mutated_bytes(chance, manifest)
    files = dict(contents())
    if chance.random() < 0.5:
        name = chance.choice(list(files))
        files[name] = mutated_bytes(chance, files[name])
        if chance.random() < 0.7:
            manifest = json.loads(contents()[MANIFEST_FILE])
            for entry in FILES:
                manifest["files"][entry] = {
                    "bytes": len(files[entry]),
                    "sha256": hashlib.sha256(files[entry]).hexdigest(),
                }
            files[MANIFEST_FILE] = json.dumps(manifest).encode()
    packed = io.BytesIO()
    form = chance.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if chance.random() < 0.05 and form != tarfile.USTAR_FORMAT:
                member.name = chance.choice(NAMES)
            if chance.random() < 0.05:
                member.type = chance.choice(b"0123456789LKxgSV").to_bytes(1, "big")
                member.linkname = "/etc/passwd"
            if chance.random() < 0.05 and form == tarfile.PAX_FORMAT:
                key = chance.choice(("size", "path", "GNU.sparse.size", "GNU.sparse.map", "mtime", "uid"))
                member.pax_headers = {key: chance.choice(("-1", "9" * 30, "x", "0", "../x", "1,2,3"))}
            archive.addfile(member, io.BytesIO(data))
    data = packed.getvalue()
    if chance.random() < 0.5:
        # Headers are what there is to parse: most changes fall on one.
        place = 512 * chance.choice((0, 0, 0, chance.randrange(len(data) // 512)))
        data = data[:place] + mutated_bytes(chance, data[place : place + 512]) + data[place + 512 :]
        if chance.random() < 0.6:
            data = _with_checksum(data, place)
    return b"tar\n" + data


def _with_checksum(data: bytes, place: int) -> bytes:
    """The tar file with a true checksum in the header at ``place``."""
    header = bytearray(data[place : place + 512])
    if len(header) < 512:
        return data
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:place] + bytes(header) + data[place + 512 :]


def check(data: bytes) -> None:
    """A bundle that is accepted is whole; one that is refused leaves nothing behind."""
    kind, _, content = data.partition(b"\n")
    work = _work() / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    folder = work / "bundle"
    if kind == b"manifest":
        for name, file in contents().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content if name == MANIFEST_FILE else file)
        bundle = tried(lambda: read_bundle(folder))
    else:
        (work / "bundle.tar").write_bytes(content)
        bundle = tried(lambda: unpack_bundle(work / "bundle.tar", folder))
        left = sorted(path.name for path in work.iterdir())
        assert left == (["bundle.tar"] if bundle is None else ["bundle", "bundle.tar"]), left
    if bundle is not None:
        assert sorted(
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        ) == sorted([MANIFEST_FILE, *FILES])
        tried(lambda: Router.load(folder))


if __name__ == "__main__":
    main("bundle", make, check)
