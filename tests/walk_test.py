"""The walk through a search in WORKSPACE.md names the files that a search passes."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRACE = """
import runpy, sys, threading
from pathlib import Path

ROOT = f"{Path.cwd()}/"
SCRIPT = "launch/search.py"
seen = {}


def note(frame, event, arg):
    code = frame.f_code
    path = code.co_filename
    ours = path.removeprefix(ROOT).startswith(("launch/", "zcpt_jax/"))
    if event != "call" or path in seen or not ours or code.co_name[0] == "<":
        return
    while (frame := frame.f_back) is not None:  # what imports call does not count
        outer = frame.f_code
        if outer.co_name == "<module>" and outer.co_filename.startswith(ROOT):
            if not outer.co_filename.endswith(SCRIPT):
                return
    seen[path] = True


threading.setprofile(note)
sys.setprofile(note)
try:
    runpy.run_path(ROOT + SCRIPT, run_name="__main__")
finally:
    sys.setprofile(None)
    for path in seen:
        print("PASSED", path.removeprefix(ROOT))
"""
FLAGS = (
    "--dataset=digits",
    "--image_size=8",
    "--space_options=channels=2,cells_per_stage=1",
    "--num_proposals=2",
    "--num_validation_batches=2",
    "--batch_size=8",
)


def passed(tmp_path):
    folders = (f"--output_dir={tmp_path / 'run'}", f"--compilation_cache={tmp_path}")
    done = subprocess.run(
        [sys.executable, "-c", TRACE, *FLAGS, *folders],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return re.findall(r"(?m)^PASSED (.+)$", done.stdout)


def named():
    text = (ROOT / "WORKSPACE.md").read_text()
    walk = text.split("## One search, file by file\n")[1].split("\n## ")[0]
    files = dict.fromkeys(re.findall(r"`([\w/]+\.py)`", walk))
    return [
        f if f.startswith(("launch/", "tests/")) else f"zcpt_jax/{f}" for f in files
    ]


def test_the_walk_names_every_file_that_a_search_passes_in_order(tmp_path):
    beside = {"launch/search.py", "tests/walk_test.py"}
    there, told = (
        [f for f in fs if f not in beside] for fs in (passed(tmp_path), named())
    )
    assert sorted(set(there) ^ set(told)) == []
    assert there == told
