"""The command as a user runs it, in processes of its own where that matters."""

import html
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from launch import _command, correlate, retrain, search, train_supernet
from tests import helpers
from tests.helpers import killed, on_cpu, run_command
from zcpt_jax.io.genotype_file import load_genotype
from zcpt_jax.lowering import using
from zcpt_jax.nn.size import count_params
from zcpt_jax.proxies import PROXIES
from zcpt_jax.spaces import SPACES, get_space
from zcpt_jax.types import Proxy

SLOW = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "--space_options=channels=4,cells_per_stage=1",
    "--num_proposals=2",
    "--num_validation_batches=2",
    "--batch_size=16",
    "--image_size=16",
)
FILES = {"config.json", "decisions.jsonl", "validation.jsonl", "genotype.json"}
FILES |= {"timings.json", "report.html"}


def command(output, *args):
    script = str(ROOT / "launch" / "search.py")
    return [sys.executable, script, *SMALL, f"--output_dir={output}", *args]


def run(output, *args):
    return subprocess.run(
        command(output, *args),
        env=on_cpu(1),
        capture_output=True,
        text=True,
        timeout=300,
    )


def in_process(capsys, *args):
    """Runs the command here; returns its exit message, None for success, and output."""
    return run_command(capsys, search, *args)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run, shared by the tests that look at one.

    They compare its files byte for byte with those of other runs, hence `optimised`.
    """
    output = tmp_path_factory.mktemp("runs") / "whole"
    return output, run(output)


@pytest.mark.optimised
def test_a_run_leaves_everything_and_says_what_it_found(finished):
    output, process = finished
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""  # quiet when not a terminal
    assert {p.name for p in output.iterdir()} == FILES
    genotype = json.loads((output / "genotype.json").read_text())["genotype"]
    assert f"found       {genotype}" in process.stdout
    assert genotype in (output / "report.html").read_text().replace("&lt;", "<")
    lines = [
        json.loads(x) for x in (output / "decisions.jsonl").read_text().splitlines()
    ]
    assert len(lines) == 2 * 6 and all(len(x["scores"][x["edge"]]) == 5 for x in lines)
    for line in lines:
        scores = line["scores"][line["edge"]]
        assert line["kept"] == [line["candidates"][int(np.argmin(scores))]]
    stored = json.loads((output / "config.json").read_text())
    assert stored["config"]["options"] == {"channels": 4, "cells_per_stage": 1}
    assert stored["versions"]["jax"] and "launch/search.py" in stored["command"]
    timings = json.loads((output / "timings.json").read_text())
    seconds = timings["seconds"]
    assert {"imports", "data", "compile", "proposal", "validation"} <= set(seconds)
    assert all(value >= 0 for value in seconds.values())
    # Proposals and their networks are scored by one program.
    (program,) = timings["programs"]
    assert program["name"] == "nwot, supernet" and program["chunk"] == 1
    assert program["trace_seconds"] > 0 and program["compile_seconds"] > 0
    assert 0 < timings["busy_seconds"] < sum(seconds.values())
    assert timings["devices"] in (output / "report.html").read_text()


@pytest.mark.optimised
@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("after the first step", marks=SLOW),
        "after the last decision",
    ],
)
def test_a_killed_run_resumes_and_ends_as_if_nothing_had_been(
    finished, tmp_path, moment
):
    whole, _ = finished
    output = tmp_path / "killed"
    process = subprocess.Popen(
        command(output),
        env=killed(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wanted = 2 if moment == "after the first step" else 12
    decisions = output / "decisions.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if decisions.exists() and decisions.read_text().count("\n") >= wanted:
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert not (output / "genotype.json").exists()
    before = decisions.read_text()
    assert run(output).returncode == 0
    assert decisions.read_text().startswith(before)
    for name in ("decisions.jsonl", "validation.jsonl", "genotype.json"):
        assert (output / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.optimised
def test_a_finished_run_is_not_redone_and_a_changed_one_is_refused(finished, capsys):
    output, process = finished
    before = {p: p.stat().st_mtime_ns for p in output.glob("*.jsonl")}
    message, out = in_process(capsys, *SMALL, f"--output_dir={output}")
    assert message is None and "this search is finished" in out
    found = process.stdout.splitlines()[1]
    assert found.startswith("found ")
    assert found in out
    message, _ = in_process(capsys, *SMALL, f"--output_dir={output}", "--seed=1")
    assert "seed: 0 there, 1 now" in message and "--overwrite" in message
    assert before == {p: p.stat().st_mtime_ns for p in output.glob("*.jsonl")}


@pytest.mark.optimised
def test_an_empty_genotype_file_is_refused_and_repaired(finished, tmp_path, capsys):
    source, _ = finished
    output = tmp_path / "run"
    output.mkdir()
    for name in FILES:
        (output / name).write_bytes((source / name).read_bytes())
    (output / "genotype.json").write_text("")
    message, _ = in_process(capsys, *SMALL, f"--output_dir={output}")
    assert "genotype.json is empty" in message and "--repair" in message
    message, _ = in_process(capsys, *SMALL, f"--output_dir={output}", "--repair")
    assert message is None
    for name in ("genotype.json", "decisions.jsonl", "validation.jsonl"):
        assert (output / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.optimised
def test_the_result_does_not_depend_on_the_chunk_size(finished, tmp_path, capsys):
    source, _ = finished
    output = tmp_path / "run"
    message, _ = in_process(capsys, *SMALL, f"--output_dir={output}", "--chunk_size=3")
    assert message is None
    for name in ("decisions.jsonl", "genotype.json"):
        assert (output / name).read_bytes() == (source / name).read_bytes(), name


def table(path, rows):
    path.write_text("arch_str,cifar10_test\n" + "".join(f"{r},90.0\n" for r in rows))
    return path


@pytest.mark.optimised
def test_a_table_gives_accuracy_regret_and_rank(finished, tmp_path, capsys):
    output, _ = finished
    lines = (output / "validation.jsonl").read_text().splitlines()
    rows = [json.loads(line)["genotype"] for line in lines]
    path = table(tmp_path / "table.csv", rows)
    message, out = in_process(
        capsys, *SMALL, f"--output_dir={output}", f"--table={path}"
    )
    assert message is None
    assert f"cifar10_test         90.00 %  regret 0.00  rank 1 of {len(rows)}" in out
    assert "90.00 %" in (output / "report.html").read_text()
    other = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    path = table(tmp_path / "other.csv", [other])
    message, _ = in_process(capsys, *SMALL, f"--output_dir={output}", f"--table={path}")
    assert "the table has no row for" in message


def one_class(tmp_path):
    (tmp_path / "set" / "a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "set" / "a" / "x.png")
    return f"--dataset=folder:{tmp_path / 'set'}"


def other_table(tmp_path):
    return f"--table={table(tmp_path / 'other.csv', ['22212220'])}"


def under_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    return f"--output_dir={tmp_path / 'file' / 'run'}"


OWN = ROOT / "tests" / "own_space.py"
BAD = {
    "unknown space 'darts2'; known: nasbench201": "--space=darts2",
    "unknown proxy 'naswot'; known: nwot, synflow": "--proxy=naswot",
    "unknown edge order 'best'; known: random, fixed": "--edge_order=best",
    "unknown dataset 'mnist'; known: digits, cifar10": "--dataset=mnist",
    "--num_proposals must be at least 1, got 0": "--num_proposals=0",
    "--num_validation_batches must be at least 1": "--num_validation_batches=-1",
    "--batch_size must be at least 1, got 0": "--batch_size=0",
    "--chunk_size must be at least 1, got 0": "--chunk_size=0",
    "--seed must be from 0 to 2**32 - 1, got -1": "--seed=-1",
    "batch_size must be from 1 to 1797": "--batch_size=1798",
    "image_size must be at least 8, got 2": "--image_size=2",
    "--space_options takes name=value, got 'channels'": "--space_options=channels",
    "has no option 'depth'": "--space_options=depth=3",
    "channels must be a positive integer, got 0": "--space_options=channels=0",
    "prepare it with: python launch/prepare_data.py --dataset=cifar10": (
        "--dataset=cifar10"
    ),
    "table none.csv does not exist": "--table=none.csv",
    "other.csv is not one of nasbench201: malformed": other_table,
    "no network of nasbench201 has at most 9 parameters": "--max_params=9",
    "no network of nasbench201 has at most 1 multiply-adds": "--max_flops=1",
    "there is no file nowhere.py": "--space=nowhere.py:Space",
    "own_space.py defines no Chains": f"--space={OWN}:Chains",
    "must be divisible by 4, got 30x30": "--image_size=30",
    "at least two classes; found ['a']": one_class,
    "cannot create the output directory": under_a_file,
}


@pytest.mark.parametrize("expected", BAD)
def test_bad_input_gives_one_clear_message(expected, tmp_path, capsys):
    flag = BAD[expected]
    flag = flag(tmp_path) if callable(flag) else flag
    message, out = in_process(
        capsys,
        *SMALL,
        f"--output_dir={tmp_path / 'run'}",
        f"--data_dir={tmp_path}",
        flag,
    )
    assert isinstance(message, str) and message.startswith("error: ")
    assert expected in message and out == ""
    assert not (tmp_path / "run").exists()


def test_errors_end_the_process_with_code_1_and_no_traceback(tmp_path):
    process = run(tmp_path / "run", "--proxy=naswot")
    assert process.returncode == 1 and process.stdout == ""
    assert process.stderr.startswith("error: unknown proxy 'naswot'")
    assert "Traceback" not in process.stderr and process.stderr.count("\n") == 1
    process = run(tmp_path / "run", "--colour=red")
    assert process.returncode == 1 and "Unknown command line flag" in process.stderr
    assert run(tmp_path / "run", "stray").returncode == 1


def test_scores_that_are_not_numbers_name_proxy_edge_op_and_minibatch(
    tmp_path, capsys, monkeypatch
):
    def broken(apply_fn, variables, batch, masks):
        return masks["cell"].sum() * np.nan

    proxy = Proxy("broken", broken, "batch", range="nan", reference="none")
    monkeypatch.setitem(PROXIES, "broken", proxy)
    with pytest.warns(UserWarning, match="dropped proposal [01]: no usable score"):
        message, _ = in_process(
            capsys, *SMALL, f"--output_dir={tmp_path / 'run'}", "--proxy=broken"
        )
    expected = "error: proxy broken: all proposals were dropped; the first: no usable "
    assert message.startswith(f"{expected}score for edge ")
    assert "proposal 0, minibatch 0" in message and "'nor_conv_3x3': nan" in message


def test_a_proxy_that_is_better_when_low_is_turned_round(tmp_path, capsys, monkeypatch):
    nwot = PROXIES["nwot"].score

    def negated(*args):
        return -nwot(*args)

    proxy = Proxy("negated", negated, "running", higher_is_better=False)
    monkeypatch.setitem(PROXIES, "negated", proxy)
    for name in ("nwot", "negated"):
        args = (*SMALL, f"--output_dir={tmp_path / name}", f"--proxy={name}")
        assert in_process(capsys, *args)[0] is None
    read = lambda name, file: (tmp_path / name / file).read_text()  # noqa: E731
    assert read("nwot", "genotype.json") == read("negated", "genotype.json")
    first, second = (
        json.loads(read(name, "validation.jsonl").splitlines()[0])["scores"]
        for name in ("nwot", "negated")
    )
    assert first == [-value for value in second]


@pytest.mark.parametrize(
    "proxy",
    [
        "synflow",
        *(pytest.param(n, marks=SLOW) for n in ("l2_norm", "fisher", "grad_norm")),
    ],
)
def test_a_search_runs_with_other_proxies(proxy, tmp_path, capsys):
    args = (*SMALL, f"--output_dir={tmp_path / 'run'}", f"--proxy={proxy}")
    message, out = in_process(capsys, *args, "--num_proposals=1", "--batch_size=8")
    assert message is None and "found       |" in out


TINY = {
    "darts": "channels=4,cells=1",
    "darts_s1": "channels=4,cells=1",
    "darts_s2": "channels=4,cells=1",
    "darts_s3": "channels=4,cells=1",
    "darts_s4": "channels=4,cells=3",
    "nasbench1shot1_1": "channels=4,cells_per_stage=1",
    "nasbench1shot1_2": "channels=4,cells_per_stage=1",
    "nasbench1shot1_3": "channels=4,cells_per_stage=1",
    "nasbench201": "channels=4,cells_per_stage=1",
    "nasbench_macro": "channels=4",
    "mobilenet": "width_multiplier=0.125",
}


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES)
def test_every_space_runs_to_a_report_with_pictures(space, tmp_path, capsys):
    size = 64 if space == "mobilenet" else 16
    args = (
        f"--space={space}",
        f"--space_options={TINY[space]}",
        f"--image_size={size}",
    )
    args += ("--num_proposals=1", "--num_validation_batches=1", "--batch_size=4")
    with using(helpers.QUICK_TO_COMPILE):  # compiles faster, runs slower
        message, out = in_process(capsys, *args, f"--output_dir={tmp_path / 'run'}")
    assert message is None
    stored = load_genotype(tmp_path / "run" / "genotype.json")
    built = get_space(space, **stored.options)
    assert stored.genotype == built.parse(stored.genotype)
    assert f"found       {stored.genotype}" in out
    report = (tmp_path / "run" / "report.html").read_text()
    assert report.count("<figure>") == len(built.drawings(stored.genotype)) >= 1
    for form in built.forms(stored.genotype).values():
        assert form in out and form in html.unescape(report)


def test_a_space_in_a_file_of_the_users_own_is_searched(tmp_path, capsys):
    args = (f"--space={OWN}:Chain", "--space_options=layers=3", "--image_size=8")
    args += ("--num_proposals=2", "--num_validation_batches=1", "--batch_size=8")
    args += ("--max_params=1e3", f"--output_dir={tmp_path / 'run'}")
    message, out = in_process(capsys, *args)
    assert message is None and "found       " in out
    assert load_genotype(tmp_path / "run" / "genotype.json").space == "chain"


# Flags of two commands cannot live in one process: prepare_data runs in its own.
PREPARE = """
import runpy, sys
import tensorflow_datasets
sys.modules["tensorflow"] = None  # as if it were not installed
sys.argv = ["prepare_data.py", *sys.argv[2:]]
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("svhn_cropped", "pip install tensorflow importlib_resources"),
        ("mnist", "--dataset must be one of cifar10, cifar100"),
    ],
)
def test_preparing_data_says_what_it_needs(tmp_path, dataset, expected):
    code = PREPARE.format(script=str(ROOT / "launch" / "prepare_data.py"))
    args = ["-", f"--dataset={dataset}", f"--data_dir={tmp_path}"]
    process = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True
    )
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert expected in process.stderr


def test_preparing_what_is_there_already_says_so(tfds_dir):
    script = str(ROOT / "launch" / "prepare_data.py")
    args = ["--dataset=cifar10", f"--data_dir={tfds_dir}"]
    process = subprocess.run(
        [sys.executable, script, *args], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout == "cifar10 is ready: the search draws from 25,000 images\n"


FLAGFILES = sorted(path.name for path in (ROOT / "launch" / "flagfiles").iterdir())


COMMANDS = {module.__name__ for module in (correlate, retrain, search, train_supernet)}


@pytest.mark.parametrize("name", FLAGFILES)
def test_flagfiles_are_valid_and_say_what_they_are(name):
    path = ROOT / "launch" / "flagfiles" / name
    header = [x for x in path.read_text().splitlines() if x.startswith("#")]
    for word in ("# Source:", "# Hardware and time:", "# Expected:", "# Command:"):
        assert any(line.startswith(word) for line in header), word
    with flagsaver.flagsaver():
        flags.FLAGS(["search.py", f"--flagfile={path}"])
        command = re.search(r"python (launch)/(\w+)\.py", " ".join(header))
        assert ".".join(command.groups()) in COMMANDS
        space, _ = _command.load_space(flags.FLAGS.space, flags.FLAGS.space_options)
        if "retrain" in name:  # what it trains is tested in retrain_launch_test.py
            return
        shape = (flags.FLAGS.image_size or 32,) * 2 + (3,)
        assert count_params(space.supernet(10), shape) > 100_000


def test_every_space_has_a_flagfile():
    texts = [(ROOT / "launch" / "flagfiles" / name).read_text() for name in FLAGFILES]
    for space in SPACES:
        assert any(f"--space={space}\n" in text for text in texts), space
