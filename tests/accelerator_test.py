"""benchmarks/accelerator.py: it ends in time, its rows grow, a toy run writes them."""

import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import accelerator_steps, card
from benchmarks.accelerator_children import run_step
from benchmarks.accelerator_plan import FORMS, ITEMS, SPACES, Choice, Step, plan
from benchmarks.accelerator_report import Report, describe
from benchmarks.jobs import Job, Training
from tests import helpers
from zcpt_jax import lowering
from zcpt_jax.spaces import get_space

ROOT = Path(__file__).resolve().parents[1]


def choice(**changes):
    settings = {
        "items": ITEMS,
        "spaces": SPACES,
        "forms": list(FORMS),
        "data": "digits",
        "golden_dir": None,
        "folder": "folder",
    }
    return Choice(**{**settings, **changes})


def run_script(tmp_path, source, seconds):
    """Rows of a step whose child runs ``source``, and how long it took."""
    child = tmp_path / "child.py"
    child.write_text(source)
    rows, start = [], time.monotonic()
    run_step(Step("a step", "step", 60, "steps"), seconds, rows.append, child)
    return rows, time.monotonic() - start


def is_alive(pid):
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().split()[2] != "Z"


TELL = "import sys, os, time\nopen(sys.argv[2], 'a').write('{\"ours_ms\": 1.0}\\n')\n"


def test_a_step_that_hangs_is_killed_and_leaves_its_rows(tmp_path):
    helper = "import subprocess\np = subprocess.Popen(['sleep', '60'])\n"
    note = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid))\ntime.sleep(60)\n"
    rows, seconds = run_script(tmp_path, TELL + helper + note, 3)
    assert rows == [{"ours_ms": 1.0}, {"error": "step: not done after 3 s"}]
    assert seconds < 20
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 20
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(pid)


def test_an_abort_ends_its_step_only_and_says_why(tmp_path):
    text = "sys.stderr.write('F1 x.cc:1] Check failed: a == b\\n*** trace')\n"
    rows, _ = run_script(tmp_path, f"{TELL}{text}sys.stderr.flush()\nos.abort()\n", 60)
    assert rows[0] == {"ours_ms": 1.0}
    assert "Check failed: a == b" in rows[1]["error"]


def test_the_plan_has_the_most_important_first_and_arguments_that_fit(tmp_path):
    (tmp_path / "nasbench201_dev.npz").touch()
    (tmp_path / "darts_dev.npz").touch()
    steps = plan(choice(golden_dir=str(tmp_path)))
    sections = list(dict.fromkeys(step.section for step in steps))
    assert sections == [
        *("environment", "steps", "searches", "golden", "trainings", "forms")
    ]
    assert {step.kind for step in steps} == set(accelerator_steps.KINDS)
    for step in steps:
        job = step.options.get("job")
        if job is not None:
            (Training if step.section == "trainings" else Job)(**job)
    assert all(step.kind == "where" for step in plan(choice(items=["where"])))


def test_the_card_is_sampled_while_a_context_lasts(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    lines = "for n in [50, 100] * 9:\n    print(n)\n    time.sleep(0.01)\n"
    program.write_text(f"#!{sys.executable}\nimport time\n{lines}time.sleep(60)\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with card.Usage() as usage:
        deadline = time.monotonic() + 20
        while usage._text.count("\n") < 18 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert (usage.samples, usage.share) == (18, 0.75)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with card.Usage() as usage:
        pass
    assert usage.share is None


@pytest.mark.parametrize("name", FORMS)
def test_forms_are_records(name):
    lowering.GPU.replace(**FORMS[name])


def test_numbers_of_a_row_arrive_in_parts():
    report = Report({"smoke": True})
    row = {"space": "darts", "proxy": "nwot"}
    report.add("environment", {"device": "1 x card"})
    report.add("steps", {**row, "ours_ms": 2.0, "chunk": 7})
    report.add("steps", {**row, "reference_ms": 200.0})
    report.add("steps", {**row, "proxy": "snip", "ours_ms": 9.0})
    report.add("forms", {**row, "variant": "chunk=1", "ours_ms": 5.0})
    report.add("forms", {**row, "variant": "skips=none", "error": "step: too slow"})
    report.add("searches", {**row, "warm_seconds": 30.0, "error": "cold: killed"})
    report.add("searches", {**row, "error": "warm: killed"})
    bfloat16 = {"space": "darts", "proxy": "", "variant": "bfloat16"}
    report.add("trainings", {**bfloat16, "ours_images": 300.0})
    report.add("trainings", {**bfloat16, "eager_images": 150.0})
    assert len(report.content["steps"]) == 2
    assert report.content["steps"][0]["ratio"] == 100
    assert report.content["forms"][0]["beside"] == 2.5
    met = {row["target"]: row["met"] for row in report.content["targets"]}
    assert met == {
        "step ratio >= 60 (nwot, darts)": True,
        "search warm_seconds < 40 (nwot, darts)": True,
        "training ratio >= 1.5 (darts, bfloat16)": True,
    }
    text = str(report)
    assert "cold: killed; warm: killed" in text
    assert "darts nwot skips=none: step: too slow" in text
    json.dumps(report.content)


def test_numbers_are_told_in_one_line():
    part = {"space": "darts", "ours_ms": 2.03456, "phases": {"data": 1.5}, "list": []}
    assert describe(part) == "ours_ms 2.035; phases (data 1.5)"


def test_the_training_in_pytorch_is_of_the_same_network():
    pytest.importorskip("torch")
    from benchmarks.torch_reference.darts_evaluation import DartsV2

    space = get_space("darts", channels=4, cells=6)
    genotype = space.published()["DARTS_V2"]
    module = space.evaluation_network(genotype, 10, auxiliary=True)
    init = lambda: space.init_variables(module, jax.random.key(0), (32, 32, 3))  # noqa: E731
    ours = jax.eval_shape(init)["params"]
    sizes = []
    for path, leaf in jax.tree.leaves_with_path(ours):
        stack = leaf.shape[0] if "kernels" in str(path[-1]) else 1
        sizes += [leaf.size // stack] * stack
    theirs = [parameter.numel() for parameter in DartsV2(4, 6, 10).parameters()]
    assert sum(sizes) == sum(theirs)


def test_images_are_written_as_the_commands_read_them(tmp_path, tfds_dir):
    from benchmarks.accelerator import make_data
    from zcpt_jax.data import load_dataset

    file = tmp_path / "images.npz"
    make_data(str(file), tfds_dir, 30)
    with np.load(file) as archive:
        assert archive["images"].shape == (30, 32, 32, 3)
        assert archive["images"].dtype == np.uint8
    assert len(load_dataset(f"npz:{file}").source) == 30


@pytest.mark.slow
@pytest.mark.optimised
def test_a_toy_run_writes_its_rows(tmp_path):
    output = tmp_path / "report.json"
    command = [sys.executable, "benchmarks/accelerator.py", "--smoke"]
    command += ["--only=where,steps,searches,forms", "--spaces=nasbench201"]
    command += ["--forms=chunk=2,pooling=shifted", f"--output={output}", "--minutes=6"]
    # The packages that such a machine lacks.
    for name in ("tensorflow_datasets", "tensorboardX"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not here')\n")
    environment = helpers.on_cpu(1, tmp_path / "cache")  # what it times, it compiles
    environment["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(output.read_text())
    assert report["environment"]["platform"] == "cpu"
    assert not report["not_begun"]
    (step,) = report["steps"]
    assert step["ours_ms"] > 0 and step["compile_seconds"] > step["trace_seconds"] > 0
    (search,) = report["searches"]
    assert search["cold_seconds"] > 0 and search["warm_seconds"] > 0
    assert search["cold_programs"] >= 1 and "compile" in search["cold_phases"]
    form, same = report["forms"]
    assert same["same"] and same["beside"] == 1
    assert form["chunk"] == 2 and form["beside"] > 0
    assert "targets, on an H200" in done.stdout


def test_it_ends_within_its_minutes(tmp_path):
    output = tmp_path / "report.json"
    command = [sys.executable, "benchmarks/accelerator.py", "--smoke", "--minutes=0.1"]
    done = subprocess.run(
        [*command, f"--output={output}"],
        cwd=ROOT,
        env=helpers.on_cpu(1),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(output.read_text())
    assert "where it runs" in report["not_begun"]
