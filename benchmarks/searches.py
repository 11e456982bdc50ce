"""Whole searches by ``launch/search.py``, compiled anew and from a warm cache."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.jobs import explain
from benchmarks.targets import SEARCH_PROXY

ROOT = Path(__file__).resolve().parents[1]
_FLAGFILE = ROOT / "launch" / "flagfiles" / "nasbench201_cifar10.flags"
_SMOKE = (
    "--space_options=channels=4,cells_per_stage=1",
    "--num_proposals=1",
    "--num_validation_batches=1",
    "--batch_size=8",
)


def measure_search(data_dir: str | None, smoke: bool) -> dict[str, Any]:
    """NAS-Bench-201 with the settings of its flagfile, twice.

    Both share a compilation cache, which is empty at first. The seconds are those of
    the run's ``timings.json``, imports included.

    Args:
      data_dir: where CIFAR-10 is; without it the digits take its place.
      smoke: a search of seconds, to see that all is well.

    Returns:
      The row.
    """
    dataset = "cifar10" if data_dir else "digits"
    args = [
        f"--flagfile={_FLAGFILE}",
        f"--dataset={dataset}",
        f"--proxy={SEARCH_PROXY}",
    ]
    args += [f"--data_dir={data_dir}"] if data_dir else []
    args += _SMOKE if smoke else ()
    row: dict[str, Any] = {"space": "nasbench201", "proxy": SEARCH_PROXY}
    row["dataset"] = dataset
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("cold", "warm"):
            output = Path(folder, cache)
            found = run_search([*args, f"--output_dir={output}"], f"{folder}/cache")
            if "error" in found:
                return {**row, "error": f"{cache} cache: {found['error']}"}
            row[f"{cache}_seconds"] = sum(found["seconds"].values())
            row[f"{cache}_phases"] = found["seconds"]
            row[f"{cache}_busy"] = found["busy_seconds"]
            row[f"{cache}_programs"] = len(found["programs"])
    return row


def run_search(
    args: list[str], cache: str, patience: float | None = None
) -> dict[str, Any]:
    """Run ``launch/search.py`` with a compilation cache of its own.

    Args:
      args: flags, the last of them ``--output_dir``.
      cache: folder of the compilation cache.
      patience: seconds after which the search is killed; None to wait for its end.

    Returns:
      The run's ``timings.json`` and ``wall_seconds`` of the process, with ``error``
      where the search failed or was killed; the timings are then those so far.
    """
    environment = {
        **os.environ,
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, str(ROOT / "launch" / "search.py"), *args]
    found: dict[str, Any] = {}
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=patience
        )
        if done.returncode:
            found["error"] = explain(done)
    except subprocess.TimeoutExpired:
        found["error"] = f"not done after {patience:.0f} s"
    found["wall_seconds"] = time.perf_counter() - start
    file = Path(args[-1].partition("=")[2], "timings.json")
    timings = json.loads(file.read_text()) if file.exists() else {}
    return {**timings, **found}
