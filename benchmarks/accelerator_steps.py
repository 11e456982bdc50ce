"""One step of a stay: ``python benchmarks/accelerator_steps.py STEP.json ROWS.jsonl``.

Every function writes numbers of its row as soon as it knows them. Each imports the
framework that it measures and not the other.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import card  # noqa: E402
from benchmarks.jobs import Job, Tell, Training  # noqa: E402


def where(step: dict[str, Any], tell: Tell) -> None:
    """Devices and what the driver says.

    Where JAX falls back to the CPU, though there is an accelerator, nothing else is
    worth its time.
    """
    tell({"driver": card.describe() or "no nvidia-smi"})
    import jax

    from launch._accelerators import open_devices
    from zcpt_jax.types import InputError

    try:
        open_devices()
    except InputError as error:
        tell({"error": str(error), "stop": True})
        return
    devices = jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    tell(
        {
            "device": f"{len(devices)} x {', '.join(kinds)}",
            "platform": devices[0].platform,
            "runtime": devices[0].client.platform_version.replace("\n", ", "),
        }
    )


def step(step: dict[str, Any], tell: Tell) -> None:
    """A step of a search, this library's side; leaves its masks to the other."""
    from benchmarks import ours, rows

    job = Job(**step["options"]["job"])
    if job.masks_file:
        rows.write_first_step(job)
    found = ours.step(job)
    found["ours_ms"] = _median(found.pop("ms"))
    found["ours_device"] = found.pop("device")
    tell(found)


def reference(step: dict[str, Any], tell: Tell) -> None:
    """The same step, PyTorch's side."""
    from benchmarks import reference

    found = reference.step(Job(**step["options"]["job"]))
    tell({"reference_ms": _median(found["ms"]), "reference_device": found["device"]})


def search(step: dict[str, Any], tell: Tell) -> None:
    """A whole search by ``launch/search.py``; the cold one fills the cache."""
    from benchmarks.searches import run_search

    options = step["options"]
    folder, cache = Path(options["folder"]), options["cache"]
    if cache == "warm" and not (folder / "done").exists():
        tell({"error": "warm: the cold search did not end"})
        return
    args = [*options["args"], f"--output_dir={folder / cache}"]
    with card.Usage() as usage:
        patience = max(1.0, step["seconds"] - 3)
        found = run_search(args, str(folder / "cache"), patience)
    row = {f"{cache}_{name}": value for name, value in _of_search(found).items()}
    if usage.share is not None:
        row[f"{cache}_card_busy"] = usage.share
    if "error" in found:
        row["error"] = f"{cache}: {found['error']}"
    else:
        (folder / "done").touch()
    tell(row)


def _of_search(found: dict[str, Any]) -> dict[str, Any]:
    """What a row says of a search, as far as it came."""
    row: dict[str, Any] = {"wall_seconds": found["wall_seconds"]}
    phases = found.get("seconds")
    if phases:
        total = sum(phases.values())
        row |= {"seconds": total, "phases": phases}
        row |= {"busy": found["busy_seconds"] / total}
        row |= {"programs": len(found["programs"]), "compiled": found["programs"]}
    return row


def golden(step: dict[str, Any], tell: Tell) -> None:
    """Differences from the published code's scores."""
    from benchmarks import golden

    golden.measure(step["options"]["file"], step["options"]["proxies"], tell)


def training(step: dict[str, Any], tell: Tell) -> None:
    """Training steps of this library."""
    from benchmarks import training

    training.measure(Training(**step["options"]["job"]), tell)


def eager(step: dict[str, Any], tell: Tell) -> None:
    """Training steps of PyTorch as it comes."""
    _torch_training(step, tell, compiled=False)


def compiled(step: dict[str, Any], tell: Tell) -> None:
    """Training steps of PyTorch by ``torch.compile``."""
    _torch_training(step, tell, compiled=True)


def _torch_training(step: dict[str, Any], tell: Tell, compiled: bool) -> None:
    from benchmarks import torch_training

    torch_training.measure(Training(**step["options"]["job"]), compiled, tell)


def _median(values: list[float]) -> float:
    import numpy as np

    return float(np.median(values))


KINDS: dict[str, Callable[[dict[str, Any], Tell], None]] = {
    kind.__name__: kind
    for kind in (where, step, reference, search, golden, training, eager, compiled)
}
"""The functions by the kind of a step."""


def main(step_file: str, rows_file: str) -> None:
    """Run one step; its rows are lines of JSON."""
    one = json.loads(Path(step_file).read_text())

    def tell(row: dict[str, Any]) -> None:
        with Path(rows_file).open("a") as file:
            file.write(json.dumps(row) + "\n")

    KINDS[one["kind"]](one, tell)


if __name__ == "__main__":
    main(*sys.argv[1:])
