"""This library beside a PyTorch reference: ``python benchmarks/run.py``.

For every space and proxy it prints

* a decision step of the undecided supernet: seconds to compile, milliseconds a
  perturbation of this library (the step as a search of N=10 proposals has it, chunked
  as there) and of the reference (one perturbation at a time, eager, as the published
  code; see ``torch_reference``), their ratio, and the largest resident memory of each;
* for nwot, the same averaged over a whole proposal: this library decides all edges in
  random order, and the reference is timed on one mask of each of those steps; that
  time stands for the step's other masks, and the ratio is that of the sums;
* a whole NAS-Bench-201 search by ``launch/search.py``, compiled and from a warm cache;

and each target beside what was measured. Every measurement has a process of its own;
both sides take turns. Images are normally distributed, 32x32, in batches of 64: neither
side's time depends on their values. Weights are each side's own draw from PyTorch's
default initialisation. Run it where nothing else runs.

The published search of NAS-Bench-201 also copies the network for every score and runs
with anomaly detection. The reference does not, so that it is faster than what it
stands for.
"""

import importlib.util
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import app, flags  # noqa: E402

from benchmarks import jobs, rows, table  # noqa: E402
from benchmarks.searches import measure_search  # noqa: E402
from benchmarks.targets import SEARCH_PROXY, judge  # noqa: E402
from launch import _command, _flags  # noqa: E402
from zcpt_jax.io.files import make_folder, write_atomically  # noqa: E402
from zcpt_jax.types import InputError  # noqa: E402

SPACES = ("nasbench201", "darts")
PROXIES = ("nwot", "snip", "synflow", "jacob_cov")
_SMALL = {
    "nasbench201": {"channels": 4, "cells_per_stage": 1},
    "darts": {"channels": 4, "cells": 3},
}
_PACKAGES = ("jax", "jaxlib", "flax", "torch")
_VARIABLES = ("GLIBC_TUNABLES", "XLA_FLAGS", "OMP_NUM_THREADS")

_SPACES = flags.DEFINE_list("spaces", list(SPACES), f"of {', '.join(SPACES)}")
_PROXIES = flags.DEFINE_list("proxies", list(PROXIES), f"of {', '.join(PROXIES)}")
_REFERENCE = flags.DEFINE_bool("reference", True, "measure the PyTorch reference too")
_SEARCHES = flags.DEFINE_bool("searches", True, "measure a whole proposal and search")
_DATA_DIR = _flags.text("data_dir")
_THREADS = flags.DEFINE_integer("threads", 0, "cores for each side, 0 for all")
_REPEATS = flags.DEFINE_integer("repeats", 5, "timings in a process")
_ROUNDS = flags.DEFINE_integer("rounds", 2, "processes of each side, in turn")
_SMOKE = flags.DEFINE_bool("smoke", False, "small networks: does it run at all?")
_OUTPUT = flags.DEFINE_string(
    "output", None, "the report; default: runs/benchmarks/<utc time>.json"
)
_COMPARE = flags.DEFINE_string("compare", None, "an older report: print new / old")


def main(argv: list[str]) -> None:
    """Flags to measurements to a report."""
    _command.no_arguments(argv)
    _check()
    old = _read_old()
    _use_cores(_THREADS.value)
    _warn_if_busy()
    output = Path(_OUTPUT.value or _default_output())
    make_folder(output.parent)
    reference = _REFERENCE.value and _torch_is_there()
    report: dict[str, Any] = {
        "environment": _environment(),
        "settings": _settings(),
        "steps": [],
        "proposals": [],
        "searches": [],
    }
    try:
        _measure(report, output, reference)
    except KeyboardInterrupt:
        print(f"interrupted; the rows measured so far are in {output}")
    print(f"\n{table.render(report)}\n\nreport     {output}")
    if old is not None:
        print(f"\n{table.compare(old, report)}")


def _measure(report: dict[str, Any], output: Path, reference: bool) -> None:
    """Fills the report, which is on disk after every row."""

    def add(section: str, row: dict[str, Any]) -> None:
        report[section].append(row)
        device = row.get("ours_device")
        if device:
            report["environment"]["device"] = device
        report["targets"] = judge(report) if not _SMOKE.value else []
        write_atomically(output, json.dumps(report, indent=1) + "\n")

    for space in _SPACES.value:
        for proxy in _PROXIES.value:
            _tell(f"{space} {proxy}: a step")
            job = _job("step", space, proxy)
            add("steps", rows.measure_step(job, _ROUNDS.value, reference))
        if _SEARCHES.value and SEARCH_PROXY in _PROXIES.value:
            _tell(f"{space} {SEARCH_PROXY}: a proposal")
            job = _job("proposal", space, SEARCH_PROXY)
            add("proposals", rows.measure_proposal(job, _ROUNDS.value, reference))
    if _SEARCHES.value and "nasbench201" in _SPACES.value:
        _tell("nasbench201: a whole search, twice")
        add("searches", measure_search(_DATA_DIR.value, _SMOKE.value))


def _job(kind: Any, space: str, proxy: str) -> jobs.Job:
    return jobs.Job(
        side="ours",
        kind=kind,
        space=space,
        proxy=proxy,
        options=_SMALL[space] if _SMOKE.value else {},
        batch_size=8 if _SMOKE.value else 64,
        repeats=_REPEATS.value,
    )


def _check() -> None:
    for flag, known in ((_SPACES, SPACES), (_PROXIES, PROXIES)):
        unknown = sorted(set(flag.value) - set(known))
        if unknown:
            raise InputError(
                f"--{flag.name}: unknown {unknown[0]!r}; known: {', '.join(known)}"
            )
    _flags.check_counts(_REPEATS, _ROUNDS)


def _use_cores(count: int) -> None:
    """Keeps this process, and those it starts, to the first cores; 0 is all."""
    if not count:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise InputError("--threads pins processes to cores, which needs Linux")
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= count <= len(cores):
        raise InputError(f"--threads must be from 0 to {len(cores)}, got {count}")
    os.sched_setaffinity(0, cores[:count])


def _read_old() -> Any:
    if not _COMPARE.value:
        return None
    path = Path(_COMPARE.value)
    if not path.is_file():
        raise InputError(f"--compare={path}: there is no such file")
    try:
        old = json.loads(path.read_text())
    except ValueError:
        old = None
    if not isinstance(old, dict) or "steps" not in old:
        raise InputError(f"--compare={path} is not a report of this command")
    return old


def _warn_if_busy() -> None:
    """Threads that wait for each other suffer most from what else is running."""
    load = os.getloadavg()[0]
    if load > jobs.cores_in_use() / 4:
        print(
            f"warning: something else is running here (load {load:.1f} before the "
            "start): both sides will be slower, and not by the same factor"
        )


def _torch_is_there() -> bool:
    if importlib.util.find_spec("torch") is not None:
        return True
    print(
        "PyTorch is not installed, so the reference is left out; to measure it, run "
        f"{sys.executable} -m pip install torch"
    )
    return False


def _environment() -> dict[str, Any]:
    versions = {name: _command.version(name) for name in _PACKAGES}
    settings = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return {
        "device": None,
        "processor": jobs.processor(),
        "cores": jobs.cores_in_use(),
        "python": platform.python_version(),
        **versions,
        **settings,
    }


def _settings() -> dict[str, Any]:
    holders = (_SPACES, _PROXIES, _THREADS, _REPEATS, _ROUNDS, _SMOKE)
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load_before": os.getloadavg()[0],
        **{holder.name: holder.value for holder in holders},
    }


def _default_output() -> str:
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return str(Path("runs", "benchmarks", f"{name}.json"))


def _tell(text: str) -> None:
    print(f"measuring {text}", flush=True)


if __name__ == "__main__":
    app.run(_command.without_traceback(main))
