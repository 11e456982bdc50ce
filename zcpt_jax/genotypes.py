"""Genotype files: the result of a search, and what retraining starts from."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zcpt_jax.types import InputError, Space

GENOTYPE = "genotype.json"


@dataclass(frozen=True)
class GenotypeFile:
    """What ``genotype.json`` holds.

    Attributes:
      space: name of the space.
      options: those of the space it was found in.
      genotype: in the space's usual form; one that is JSON is kept as such in the file.
      dataset: what it was found on.
      num_classes: of that dataset.
    """

    space: str
    options: Mapping[str, Any]
    genotype: str
    dataset: str
    num_classes: int


def dump_genotype(record: GenotypeFile) -> str:
    """The JSON text of a genotype file."""
    fields = asdict(record)
    if record.genotype.startswith("{"):
        fields["genotype"] = json.loads(record.genotype)
    return json.dumps(fields, indent=2) + "\n"


def load_genotype(path: str | Path) -> GenotypeFile:
    """Reads a genotype file.

    Raises:
      InputError: if it is missing, empty, damaged or of another form.
    """
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the genotype file {path}: {error}") from error
    try:
        fields: Any = json.loads(text)
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
    """The genotype that a user means.

    Args:
      text: a genotype file or a folder that holds one, the name of a published
        genotype, or a genotype in any form that the space reads.
      space: the space it is of.

    Returns:
      Its canonical form.

    Raises:
      InputError: if it is none of these, or of another space.
    """
    path = Path(text)
    with contextlib.suppress(OSError):  # a long literal is no file name
        path = path / GENOTYPE if path.is_dir() else path
        if path.is_file():
            record = load_genotype(path)
            if record.space != space.name:
                raise InputError(
                    f"{path} holds a genotype of {record.space}, not of {space.name}; "
                    f"choose --space={record.space}"
                )
            return space.parse(record.genotype)
    published = space.published()
    if text in published:
        return published[text]
    try:
        return space.parse(text)
    except InputError as error:
        names = f", or one of {', '.join(published)}" if published else ""
        raise InputError(
            f"{text!r} is no genotype of {space.name} ({error}); expected a run "
            f"directory or file with one, a literal{names}"
        ) from error
