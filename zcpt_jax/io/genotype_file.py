"""Genotype files: the result of a search and the input of retraining.

:func:`resolve_genotype` also accepts the other ways to specify a genotype.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zcpt_jax.json_text import parse_json
from zcpt_jax.types import InputError, Space

GENOTYPE = "genotype.json"
"""Name of the genotype file in a run directory."""

_LONGEST = 20_000  # Bytes of a file with a genotype written out.


@dataclass(frozen=True)
class GenotypeFile:
    """Content of ``genotype.json``.

    Attributes:
      space: name of the space.
      options: options of the searched space.
      genotype: genotype in the space's usual form; JSON is stored as such in the file.
      dataset: name of the dataset of the search.
      num_classes: number of classes of that dataset.
    """

    space: str
    options: Mapping[str, Any]
    genotype: str
    dataset: str
    num_classes: int


def dump_genotype(record: GenotypeFile) -> str:
    """Format a genotype file as JSON."""
    fields = asdict(record)
    if record.genotype.startswith("{"):
        fields["genotype"] = parse_json(record.genotype)
    return json.dumps(fields, indent=2) + "\n"


def load_genotype(path: str | Path) -> GenotypeFile:
    """Read a genotype file.

    Raises:
      InputError: if the file is missing, empty, damaged or of another format.
    """
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the genotype file {path}: {error}") from error
    try:
        fields: Any = parse_json(text)
    except json.JSONDecodeError as error:
        what = "is empty" if not text.strip() else f"is not JSON ({error})"
        raise InputError(f"the genotype file {path} {what}") from error
    if isinstance(fields, dict) and isinstance(fields.get("genotype"), dict):
        fields["genotype"] = json.dumps(fields["genotype"], separators=(",", ":"))
    kinds: dict[str, type] = {
        "space": str,
        "options": dict,
        "genotype": str,
        "dataset": str,
        "num_classes": int,
    }
    if not isinstance(fields, dict) or set(fields) != set(kinds):
        raise InputError(f"the genotype file {path} must hold exactly {sorted(kinds)}")
    for name, kind in kinds.items():
        if not isinstance(fields[name], kind):
            raise InputError(
                f"the genotype file {path}: {name} must be a {kind.__name__}, got "
                f"{fields[name]!r}"
            )
    return GenotypeFile(**fields)


def resolve_genotype(text: str, space: Space) -> str:
    """Resolve a name, path or text to a genotype.

    A published name takes precedence over a file of that name (``./NAME`` is the file),
    and an existing path takes precedence over a genotype written out.

    Args:
      text: name of a published genotype of the space, path of a genotype file or of a
        run directory, or a genotype in any form that ``space.parse`` accepts.
      space: space of the genotype; its options are ignored.

    Returns:
      The genotype in canonical form.

    Raises:
      InputError: if the text is none of these, or a file of another space.
    """
    published = space.published()
    name = text.strip()
    if name in published:
        return published[name]
    file = find_genotype_file(text)
    if file is not None:
        return _from_file(file, space)
    try:
        return space.parse(text)
    except InputError as error:
        names = ", ".join(published) or "it has none"
        raise InputError(
            f"{_shortened(text)} is no genotype file or run directory, no published "
            f"genotype of the space {space.name} ({names}), and cannot be read as a "
            f"genotype: {error}"
        ) from error


def find_genotype_file(text: str) -> Path | None:
    """Find the genotype file that a text names, a file or a run directory.

    Returns:
      The file's path, or None if the text names neither; a genotype can be too long
      for a path.

    Raises:
      InputError: if the text names a directory without a genotype file.
    """
    try:
        path = Path(text)
        if not text.strip() or not path.exists():
            return None
    except (OSError, ValueError):
        return None
    if path.is_dir():
        path = path / GENOTYPE
        if not path.exists():
            raise InputError(
                f"the directory {path.parent} has no {GENOTYPE}: it is no run "
                "directory, or its search is not finished"
            )
    return path


def _from_file(path: Path, space: Space) -> str:
    written = _written_out(path, space)
    if written is not None:
        return written
    record = load_genotype(path)
    if record.space != space.name:
        raise InputError(
            f"the genotype file {path} holds a genotype of the space {record.space}, "
            f"not of {space.name}"
        )
    return space.parse(record.genotype)


def _written_out(path: Path, space: Space) -> str | None:
    """Genotype of a text or Python file that holds one, None for other files."""
    if path.name == GENOTYPE or path.stat().st_size > _LONGEST:
        return None
    try:
        return space.parse(path.read_text())
    except (InputError, OSError, UnicodeDecodeError):
        return None


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")
