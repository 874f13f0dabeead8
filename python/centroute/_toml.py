"""TOML files of users: what every reader of one does, and says when something is wrong."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from centroute.errors import DataError


def read_toml(path: Path) -> dict[str, Any]:
    """Content of a file in UTF-8.

    Raises
    ------
    DataError
        If it cannot be read or is no TOML; names it.
    """
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8: byte 0x{error.object[error.start]:02x}") from None
    except (OSError, ValueError, RecursionError) as error:
        # ValueError: no TOML, or a null byte in the path.
        kind = "is no valid TOML" if isinstance(error, tomllib.TOMLDecodeError) else "cannot be read"
        raise DataError(f"{path}: {kind}: {getattr(error, 'strerror', None) or error}") from None


@dataclass(frozen=True, slots=True)
class TomlTable:
    """A table of the file and its name, so that every complaint can say where it stands."""

    source: str
    name: str
    content: Mapping[str, object]

    def fail(self, key: str, fault: str) -> NoReturn:
        """Refuse what stands under a key.

        Raises
        ------
        DataError
            Names the file, the table and the key.
        """
        raise DataError(f"{self.source}, {f'{self.name}.' if self.name else ''}{key}: {fault}")
