"""Crash-safe files: atomic replacement, and appending of lines."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zcpt_jax.json_text import parse_json
from zcpt_jax.types import InputError

CONFIG = "config.json"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file under another name and rename it into place.

    Raises:
      InputError: if that fails; a previous file is then unchanged.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise InputError(
            f"cannot write {path}: {error.strerror}; what was written before is still "
            "there, run again once there is room or permission"
        ) from error


def append(path: Path, text: str) -> None:
    """Add complete lines to a file.

    A kill can leave the last line incomplete; :func:`complete_lines` drops it.

    Raises:
      InputError: if that fails; the file is then unchanged.
    """
    before = path.stat().st_size if path.exists() else 0
    try:
        with path.open("a") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            os.truncate(path, before)
        raise InputError(
            f"cannot write {path}: {error.strerror}; what was written before is still "
            "there, run again once there is room or permission"
        ) from error


def complete_lines(path: Path) -> Iterator[str]:
    """Iterate over the lines of a file, and remove an incomplete last line from it."""
    if not path.exists():
        return
    text = path.read_text(errors="replace")
    end = text.rfind("\n") + 1
    if end < len(text):
        write_atomically(path, text[:end])
    yield from text[:end].splitlines()


def make_folder(path: Path) -> None:
    """Create a folder for output.

    Raises:
      InputError: if that fails.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot create the output directory {path}: {error.strerror}; "
            "choose another with --output_dir"
        ) from error


def read_json(file: Path, repair: bool = False) -> Any:
    """Read a JSON file; return None if it does not exist.

    Args:
      file: path of the file.
      repair: whether to move a damaged file aside, as if it did not exist.

    Raises:
      InputError: if the file is damaged.
    """
    if not file.exists():
        return None
    try:
        return parse_json(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        if repair:
            file.replace(file.with_suffix(".damaged"))
            return None
        raise InputError(
            f"{file} is damaged ({error}); run again with the same flags and "
            "--repair: the scores made so far are kept in the other files"
        ) from error


def open_config(
    folder: Path,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    progress: str,
    repair: bool = False,
) -> None:
    """Write a folder's ``config.json``, or check that it has the same settings.

    Args:
      folder: path of an existing folder.
      config: everything that determines the result.
      environment: versions, command and the like, stored beside the configuration.
      progress: name of the file whose presence means that work has begun.
      repair: whether to replace a damaged or missing ``config.json``.

    Raises:
      InputError: if the folder was made with other settings, which are listed.
    """
    old = read_json(folder / CONFIG, repair)
    config = json.loads(json.dumps(dict(config)))
    if old is None:
        if (folder / progress).exists() and not repair:
            raise InputError(
                f"{folder} holds {progress} and no {CONFIG}; run again with "
                "--repair if the flags are the same, use another --output_dir, or "
                "--overwrite to start anew"
            )
        record = {"config": config, **environment}
        write_atomically(folder / CONFIG, json.dumps(record, indent=2) + "\n")
        return
    before = old.get("config") if isinstance(old, dict) else None
    if not isinstance(before, dict):
        raise InputError(f"{folder / CONFIG} has no entry 'config'")
    changed = [
        f"{key}: {before.get(key)!r} there, {config.get(key)!r} now"
        for key in sorted({*before, *config})
        if before.get(key) != config.get(key)
    ]
    if changed:
        raise InputError(
            f"{folder} was made with other settings ({'; '.join(changed)}); use "
            "another --output_dir, or --overwrite to start anew"
        )
