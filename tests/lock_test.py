"""Two processes and one folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from zcpt_jax.io.lock import lock_folder
from zcpt_jax.io.run_directory import RunDirectory
from zcpt_jax.types import InputError

pytestmark = pytest.mark.unit
ROOT = Path(__file__).resolve().parents[1]
HOLD = """
import sys, time
from pathlib import Path
from zcpt_jax.io.lock import lock_folder
held = lock_folder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_a_folder_has_one_process_until_that_ends(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    piped = {"stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    with subprocess.Popen(command, **piped) as other:
        assert other.stdout.readline() == "held\n"
        for link in (tmp_path, tmp_path / "." / "x" / ".."):
            (tmp_path / "x").mkdir(exist_ok=True)
            with pytest.raises(InputError, match="another process writes to"):
                RunDirectory(link, {"seed": 0})
        assert not (tmp_path / "config.json").exists()
        other.kill()
    run = RunDirectory(tmp_path, {"seed": 0})
    again = RunDirectory(tmp_path, {"seed": 0})  # one process may, as often as it likes
    del run
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert "another process writes to" in done.stderr
    del again
    with subprocess.Popen(command, **piped) as other:
        assert other.stdout.readline() == "held\n"
        other.kill()


def test_what_a_kill_left_is_removed(tmp_path):
    left = [".config.json.abcd_123", ".decisions.jsonl.01234567"]
    others = [".config.json", ".hidden.json.short", "notes.json.abcd_123", "scores.csv"]
    for name in (*left, *others):
        (tmp_path / name).touch()
    lock_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(others)
