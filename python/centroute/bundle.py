"""A bundle: router file and embedder in one folder, or one tar file, for places where no Python runs.

::

    bundle/
      manifest.json           versions, precision, size and SHA-256 of every other file
      router.safetensors
      embedder/embedder.json
      embedder/model.onnx
      embedder/tokenizer.json

Nothing else may lie in it, no links either. `docs/edge.md` describes it; `rust/edge` reads the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from centroute._atomic import atomic_file, replace_folder
from centroute._kernel import Kernel, __version__
from centroute._router_file import read_metadata
from centroute.errors import ArtifactError

if TYPE_CHECKING:
    import tarfile

FORMAT_VERSION: Final = 1
"""Version of the manifest that this package writes and reads."""
MANIFEST_FILE: Final = "manifest.json"
ROUTER_FILE: Final = "router.safetensors"
EMBEDDER_FOLDER: Final = "embedder"
FILES: Final = (
    f"{EMBEDDER_FOLDER}/embedder.json",
    f"{EMBEDDER_FOLDER}/model.onnx",
    f"{EMBEDDER_FOLDER}/tokenizer.json",
    ROUTER_FILE,
)
"""What the manifest lists, in its order."""
MAX_MANIFEST_BYTES: Final = 1 << 20
MAX_BYTES: Final = 1 << 34
"""A larger file is refused before it is read."""

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle folder whose files were all found to be those of its manifest."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def router(self) -> Path:
        """The router file."""
        return self.folder / ROUTER_FILE

    @property
    def embedder(self) -> Path:
        """The embedder's folder."""
        return self.folder / EMBEDDER_FOLDER


def read_bundle(folder: str | os.PathLike[str]) -> Bundle:
    """Read the manifest of a bundle and check every file against it.

    Raises
    ------
    ArtifactError
        If a file is missing, extra, a link, or not the one that the manifest lists, or the manifest is
        broken or of another version; one line that names the file.
    """
    root = Path(folder)
    try:
        if not root.is_dir():
            raise ArtifactError(f"{root}: cannot be read (not a folder)")
        if not (root / MANIFEST_FILE).exists():
            raise ArtifactError(
                f"{root}: cannot be read (is a directory): not a bundle, {MANIFEST_FILE} is missing"
            )
        found = _files_below(root)
        manifest = _read_manifest(root / MANIFEST_FILE)
        _check_names(root, found)
        for name in FILES:
            _check_file(root / name, manifest["files"][name])
    except OSError as error:
        raise ArtifactError(f"{error.filename or root}: cannot be read ({_reason(error)})") from error
    return Bundle(folder=root, manifest=manifest)


def pack_bundle(
    router: bytes, *, embedder: Path, agreement: Mapping[str, Json] | None = None
) -> dict[str, bytes]:
    """Return the files of a bundle by name, the manifest first; the same input gives the same bytes.

    Parameters
    ----------
    router
        Bytes of a router file.
    embedder
        Folder of its embedder, as centroute writes it.
    agreement
        What a comparison with the full precision found; it is put into the manifest.

    Raises
    ------
    ArtifactError
        If the router file is not valid or the embedder cannot be read.
    """
    kernel = Kernel(router)
    metadata = read_metadata(kernel)
    contents = {ROUTER_FILE: router}
    try:
        for name in FILES[:-1]:
            contents[name] = (embedder / Path(name).name).read_bytes()
    except OSError as error:
        raise ArtifactError(f"{error.filename}: cannot be read ({_reason(error)})") from error
    description = json.loads(contents[f"{EMBEDDER_FOLDER}/embedder.json"])
    manifest = {
        "format_version": FORMAT_VERSION,
        "centroute_version": __version__,
        "precision": kernel.stored_precision,
        "router": {
            "format_version": metadata["format_version"],
            "sha256": metadata["sha256"],
            "n_clusters": kernel.n_clusters,
            "n_models": len(kernel.models),
        },
        "embedder": {key: description[key] for key in ("name", "dim", "pooling", "fingerprint")},
        "files": {
            name: {"bytes": len(contents[name]), "sha256": hashlib.sha256(contents[name]).hexdigest()}
            for name in FILES
        },
        "agreement": None if agreement is None else dict(agreement),
    }
    text = json.dumps(manifest, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    return {MANIFEST_FILE: text.encode(), **{name: contents[name] for name in FILES}}


def write_bundle(contents: Mapping[str, bytes], folder: str | os.PathLike[str]) -> None:
    """Write the files of `pack_bundle` as a folder: beside, then renamed.

    A bundle that is there already is replaced, as `replace_folder` does it. Anything else that is there
    stays, and is refused.

    Raises
    ------
    ArtifactError
        If something else lies there, or the place cannot be written.
    """
    target = Path(folder)
    check_output(target)
    target = target.absolute()
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    old = beside.with_suffix(".old")
    try:
        for name, data in contents.items():
            place = beside / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(place) as file:
                file.write(data)
        replace_folder(beside, target, beside=old)
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be written ({_reason(error)})") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def check_output(folder: Path) -> None:
    """Refuse a place that holds something other than a bundle, or cannot hold one.

    Raises
    ------
    ArtifactError
        If so.
    """
    if folder.is_symlink() or (folder.exists() and not (folder / MANIFEST_FILE).is_file()):
        is_empty_folder = folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())
        if not is_empty_folder:
            raise ArtifactError(f"{folder}: cannot be written (something that is no bundle is there)")
    if not folder.absolute().parent.is_dir():
        raise ArtifactError(f"{folder}: cannot be written (there is no folder {folder.absolute().parent})")


def write_bundle_tar(contents: Mapping[str, bytes], file: str | os.PathLike[str]) -> None:
    """Write the files of `pack_bundle` as one tar file without compression, the same bytes each time.

    Raises
    ------
    ArtifactError
        If the file cannot be written; nothing is half-written.
    """
    import io
    import tarfile

    try:
        with (
            atomic_file(file) as binary,
            tarfile.open(fileobj=binary, mode="w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for name, data in contents.items():
                # Owner, mode and time of a new TarInfo are always the same: nobody, 0644 and 0.
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    except OSError as error:
        raise ArtifactError(f"{os.fspath(file)}: cannot be written ({_reason(error)})") from error


def unpack_bundle(file: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Bundle:
    """Unpack a tar file of `write_bundle_tar` into a new folder and check it.

    Only the files of a bundle are taken, by their names: no absolute path, ``..``, link or device, and no
    more bytes than the tar file itself has.

    Raises
    ------
    ArtifactError
        If the file is no such tar, or what it holds is no sound bundle; nothing is left behind.
    """
    import tarfile

    check_output(Path(folder))
    try:
        contents = _unpacked(file)
    except ArtifactError:
        raise
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        # The last two are what tarfile makes of numbers in extended headers.
        raise ArtifactError(f"{file}: not a tar file without compression ({error})") from error
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read ({_reason(error)})") from error
    if MANIFEST_FILE not in contents:
        raise ArtifactError(f"{file}: not a bundle, {MANIFEST_FILE} is missing")
    # Judged before it gets its name.
    beside = Path(folder).absolute().with_name(f".{Path(folder).name}.{secrets.token_hex(4)}.unpacked")
    try:
        write_bundle(contents, beside)
        read_bundle(beside)
    except ArtifactError as error:
        raise ArtifactError(str(error).replace(str(beside), str(file))) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    write_bundle(contents, folder)
    return read_bundle(folder)


def _unpacked(file: str | os.PathLike[str]) -> dict[str, bytes]:
    """The files of a tar file by name; what a bundle may not hold is refused."""
    import tarfile

    contents: dict[str, bytes] = {}
    with tarfile.open(file, mode="r:") as archive:
        left = Path(file).stat().st_size
        for member in archive:
            name = _member_name(file, member)
            if name in contents:
                raise ArtifactError(f"{file}: {name!r} stands twice in the tar file")
            left -= member.size
            if member.size < 0 or left < 0:
                raise ArtifactError(f"{file}: {name}: {member.size} bytes are more than the tar file has")
            data = archive.extractfile(member)
            contents[name] = data.read(member.size) if data is not None else b""
    return contents


def _member_name(file: str | os.PathLike[str], member: tarfile.TarInfo) -> str:
    """The name of a member that a bundle may hold."""
    import tarfile

    name = member.name
    if name.startswith("/") or ".." in name.split("/"):
        raise ArtifactError(f"{file}: {name!r} leaves the folder")
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
        raise ArtifactError(f"{file}: {name!r} is a link, a folder or another thing that is no file")
    if name not in (MANIFEST_FILE, *FILES):
        raise ArtifactError(f"{file}: {name!r} is no file of a bundle")
    return name


def _files_below(root: Path) -> set[str]:
    """Names of all files, with ``/`` between their parts; anything else is refused."""
    names: set[str] = set()
    folders = [("", root)]
    while folders:
        prefix, folder = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.is_symlink():
                    raise ArtifactError(f"{root / name}: is a link, which a bundle may not hold")
                if entry.is_dir() and name == EMBEDDER_FOLDER:
                    folders.append((f"{name}/", Path(entry.path)))
                elif entry.is_file():
                    names.add(name)
                else:
                    raise ArtifactError(f"{root / name}: does not belong into a bundle")
    return names


def _read_manifest(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise ArtifactError(f"{path}: more than {MAX_MANIFEST_BYTES} bytes, which no manifest has")
    manifest: Any
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(manifest, dict) or type(version := manifest.get("format_version")) is not int:
        raise ArtifactError(f"{path}: not the manifest of a bundle")
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: format version {version} is not readable here (this build reads {FORMAT_VERSION})"
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or sorted(files) != list(FILES):
        raise ArtifactError(f"{path}: files: wanted exactly {', '.join(FILES)}")
    for name, entry in files.items():
        if not (isinstance(entry, dict) and type(entry.get("bytes")) is int and _is_digest(entry)):
            raise ArtifactError(f"{path}: files: {name} has no bytes or no sha256")
    return manifest


def _is_digest(entry: Mapping[str, Any]) -> bool:
    digest = entry.get("sha256")
    return isinstance(digest, str) and len(digest) == 64 and not set(digest) - set("0123456789abcdef")


def _check_names(root: Path, found: set[str]) -> None:
    wanted = {MANIFEST_FILE, *FILES}
    if missing := sorted(wanted - found):
        raise ArtifactError(f"{root / missing[0]}: file is missing")
    if extra := sorted(found - wanted):
        raise ArtifactError(f"{root / extra[0]}: does not belong into a bundle")


def _check_file(path: Path, entry: Mapping[str, Any]) -> None:
    size = path.stat().st_size
    if size != entry["bytes"] or size > MAX_BYTES:
        raise ArtifactError(f"{path}: {size} bytes, the manifest says {entry['bytes']}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != entry["sha256"]:
        raise ArtifactError(
            f"{path}: is not the file that the manifest lists (SHA-256 {digest[:16]}…, listed "
            f"{entry['sha256'][:16]}…)"
        )


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
