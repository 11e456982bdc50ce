"""The process of one measurement: ``python benchmarks/child.py JOB.json``.

It imports the framework it measures and not the other, whose memory would count.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.jobs import Job  # noqa: E402


def answer(file: Path) -> None:
    """Reads the job, measures, and writes the answer beside it."""
    job = Job(**json.loads(file.read_text()))
    if job.side == "ours":
        from benchmarks import ours

        found = ours.step(job) if job.kind == "step" else ours.proposal(job)
    else:
        from benchmarks import reference

        found = reference.step(job) if job.kind == "step" else reference.proposal(job)
    found["peak_mb"] = peak_mb()
    file.with_suffix(".answer").write_text(json.dumps(found))


def peak_mb() -> float:
    """The largest resident set of this process so far, in 10^6 bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage also counts what the parent had before exec
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


if __name__ == "__main__":
    answer(Path(sys.argv[1]))
