"""Convert a published benchmark to a small CSV table.

``python launch/convert_table.py --input=PATH --output=FILE.csv.gz``
"""

import sys
from pathlib import Path

if not __package__:  # Run as a file of a checkout.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "launch"

from absl import flags  # noqa: E402

from zcpt_jax.tables import load_table, save_table  # noqa: E402
from zcpt_jax.types import InputError  # noqa: E402

from . import _command  # noqa: E402

_INPUT = flags.DEFINE_string(
    "input",
    None,
    "table to convert: NAS-Bench-201's .pth, NATS-Bench's topology folder or "
    ".pickle.pbz2, NAS-Bench-101's .tfrecord, or any other form that --table of "
    "search.py takes",
)
_OUTPUT = flags.DEFINE_string("output", None, "file to write, ending in .csv.gz")


def main(argv: list[str]) -> None:
    """Read a table, and write it once it is complete."""
    _command.no_arguments(argv)
    source, target = _INPUT.value, _OUTPUT.value
    if not source or not target:
        raise InputError("--input and --output are needed")
    _check_output(target)
    name = Path(source).name

    with _command.Bar(on_step=lambda: None) as bar:
        table = load_table(
            source, lambda done, total: bar.update("reading", done, total, name)
        )
    save_table(table, target)
    others = f"; no accuracies: {', '.join(table.others)}" if table.others else ""
    listed = f"columns {', '.join(table.columns)}{others}"
    print(f"{target}: {len(table.rows):,} rows, {listed}")


def _check_output(target: str) -> None:
    """Check that the result can be written, before reading for up to an hour."""
    if not target.endswith(".csv.gz"):
        raise InputError(f"--output must end in .csv.gz, got {target}")
    if Path(target).exists():
        raise InputError(f"{target} exists already; remove it or name another file")
    if not Path(target).parent.is_dir():
        raise InputError(f"the folder of {target} does not exist")


if __name__ == "__main__":
    _command.run(main)
