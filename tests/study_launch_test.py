"""The commands of the study, on a space of nine networks in a file of its own."""

import itertools
import json

import numpy as np
import pytest

from launch import correlate, score
from tests import helpers
from tests.helpers import run_command
from tests.own_space import SIZES
from zcpt_jax.proxies import PROXIES

OPS = tuple(SIZES)
NAMES = [" ".join(pair) for pair in itertools.product(OPS, OPS)]
SPACE = (
    "--space=tests/own_space.py:Chain",
    "--space_options=layers=2,channels=4",
    "--image_size=8",
    "--batch_size=8",
)


@pytest.fixture
def table(tmp_path):
    rows = [f"{name},{50 + 3 * row}" for row, name in enumerate(NAMES)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["arch_str,test", *rows]) + "\n")
    return f"--table={path}"


def test_a_study_resumes_grows_and_ends_alike(capsys, tmp_path, table):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    args = (*SPACE, table, "--scorers=zc-pt(nwot),best-acc,random")
    two, one = "--seeds=0,1", "--seeds=0"
    message, out = run_command(capsys, correlate, *args, two, f"--output_dir={whole}")
    assert message is None, message
    assert "zc-pt(nwot)" in out and "best-acc" in out and "74.00 %" in out
    run_command(
        capsys, correlate, *args[:-1], "--scorers=random", one, f"--output_dir={parts}"
    )
    trials = parts / "trials.jsonl"
    trials.write_text(trials.read_text() + '{"cut')
    message, _ = run_command(capsys, correlate, *args, two, f"--output_dir={parts}")
    assert message is None
    for name in ("study.csv", "study.json"):
        assert (whole / name).read_text() == (parts / name).read_text()
    assert (whole / "study.png").read_bytes()[:4] == b"\x89PNG"
    before = trials.read_text()
    run_command(capsys, correlate, *args, two, f"--output_dir={parts}")
    assert trials.read_text() == before  # nothing is made twice
    message, _ = run_command(
        capsys, correlate, *args, two, f"--output_dir={parts}", "--batch_size=4"
    )
    assert "batch_size: 8 there, 4 now" in message


def test_what_a_study_needs_is_said(capsys, tmp_path, table):
    output = f"--output_dir={tmp_path / 'x'}"
    wrong = {
        "--table is needed": SPACE,
        "unknown operation score 'zcpt'": (*SPACE, table, "--scorers=zcpt(nwot)"),
        "--seeds takes integers": (*SPACE, table, "--seeds=a"),
        "no column 'val'; it has test": (*SPACE, table, "--column=val"),
        "darts needs a trained supernet": (*SPACE, table, "--scorers=darts"),
        "look all of them up": ("--space=darts", table),
    }
    for message, args in wrong.items():
        got, _ = run_command(capsys, correlate, *args, output)
        assert message in got, got


def test_scores_of_all_networks_resume_and_are_compared(capsys, tmp_path, table):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    args = (*SPACE, "--proxies=nwot,synflow,l2_norm", table)
    message, out = run_command(capsys, score, *args, f"--output_dir={whole}")
    assert message is None, message
    assert "9 networks of chain" in out and "rank" in out
    assert (whole / "scores.png").exists()
    lines = (whole / "scores.csv").read_text().splitlines()
    assert lines[0] == "genotype,nwot,synflow,l2_norm" and len(lines) == 10
    assert [line.split(",")[0] for line in lines[1:]] == NAMES
    # Killed after four networks, in the middle of the fifth.
    parts.mkdir()
    (parts / "config.json").write_text((whole / "config.json").read_text())
    (parts / "scores.csv").write_text("\n".join([*lines[:5], lines[5][:-4]]))
    message, _ = run_command(capsys, score, *args, f"--output_dir={parts}")
    assert message is None
    found = np.loadtxt((parts / "scores.csv"), str, delimiter=",", skiprows=1)
    expected = np.loadtxt((whole / "scores.csv"), str, delimiter=",", skiprows=1)
    assert (found[:, 0] == expected[:, 0]).all() and (found[:4] == expected[:4]).all()
    np.testing.assert_allclose(
        found[:, 1:].astype(float), expected[:, 1:].astype(float), rtol=1e-5
    )
    # Numbers that are no accuracies serve those who name them.
    more = tmp_path / "more.csv"
    rows = [f"{name},{row},{99 - row}" for row, name in enumerate(NAMES)]
    more.write_text("\n".join(["arch_str,params,test", *rows]) + "\n")
    args = (*args[:-1], f"--table={more}", f"--output_dir={whole}")
    for extra, column, unit in (
        ([], "test", True),
        (["--column=params"], "params", False),
    ):
        message, out = run_command(capsys, score, *args, *extra)
        assert message is None, message
        assert f"rank correlation with {column}:" in out and (" %," in out) == unit


def test_a_list_is_scored_with_weights_of_its_own_or_the_supernets(capsys, tmp_path):
    names = tmp_path / "names.txt"
    cells = (
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|",
        "|none~0|+|skip_connect~0|none~1|+|avg_pool_3x3~0|none~1|none~2|",
    )
    names.write_text("\n".join([cells[0], "", cells[1]]))
    space = ("--space_options=channels=4,cells_per_stage=1", "--image_size=8")
    args = (*space, "--batch_size=8", "--proxies=nwot", f"--networks={names}")
    found = {}
    for weights in ("supernet", "network"):
        output = tmp_path / weights
        message, _ = run_command(
            capsys, score, *args, f"--weights={weights}", f"--output_dir={output}"
        )
        assert message is None, message
        rows = (output / "scores.csv").read_text().splitlines()[1:]
        found[weights] = [float(row.rsplit(",", 1)[1]) for row in rows]
        assert found[weights][0] > found[weights][1]
    assert found["supernet"] != found["network"]
    names.write_text("|none~0|")
    message, _ = run_command(capsys, score, *args, f"--output_dir={tmp_path / 'y'}")
    assert "line 1: malformed NAS-Bench-201 genotype" in message


def test_what_cannot_be_scored_is_said(capsys, tmp_path, table):
    output = f"--output_dir={tmp_path / 'x'}"
    wrong = {
        "an ensemble ranks what it compares": (*SPACE, "--proxies=nwot,nwot+snip"),
        "needs a number, got 'x'": (*SPACE, "--networks=sample:x"),
        "has 9 networks; cannot draw 10": (*SPACE, "--networks=sample:10"),
        "cannot be read": (*SPACE, "--networks=nowhere.txt"),
        "--networks=sample:N draws": ("--space=darts",),
        "--num_batches must be at least 1": (*SPACE, "--num_batches=0"),
        "the table has the columns test": (*SPACE, table, "--column=val"),
    }
    for message, args in wrong.items():
        got, _ = run_command(capsys, score, *args, output)
        assert message in got, got


SMALL = {
    "nasbench201": "channels=4,cells_per_stage=1",
    "nasbench1shot1_1": "channels=4,cells_per_stage=1",
    "nasbench_macro": "channels=4",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_quick_proxy_scores_a_sample(name, capsys, tmp_path):
    """The others are compiled in their own tests; all together take many minutes."""
    names = [
        n
        for n, proxy in PROXIES.items()
        if not proxy.members and n not in helpers.SLOW_TO_COMPILE
    ]
    message, _ = run_command(
        capsys,
        score,
        f"--space={name}",
        f"--space_options={SMALL[name]}",
        "--image_size=16",
        "--networks=sample:2",
        "--batch_size=8",
        f"--proxies={','.join(names)}",
        f"--output_dir={tmp_path}",
    )
    assert message is None, message
    rows = (tmp_path / "scores.csv").read_text().splitlines()
    assert rows[0].split(",") == ["genotype", *names] and len(rows) == 3


def test_the_classes_of_a_folder_are_printed_and_stored(capsys, tmp_path):
    helpers.write_images(tmp_path / "train", {"bee": 5, "ant": 4})
    helpers.write_images(tmp_path / "valid", {"bee": 1, "ant": 1})
    images, output = f"--dataset=folder:{tmp_path}", f"--output_dir={tmp_path / 'run'}"
    args = (*SPACE, "--networks=sample:1", images, output)
    message, out = run_command(capsys, score, *args)
    assert message is None, message
    first, second, *_ = out.splitlines()
    assert first.startswith("runs on     ") and second == "classes     2: ant, bee"
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert config["classes"] == ["ant", "bee"] and config["num_images"] == 9
    run_command(capsys, score, *args[:-2], "--dataset=digits", output, "--overwrite")
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert config["dataset"] == "digits" and "classes" not in config
