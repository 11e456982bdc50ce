"""What decides a result is part of its settings: other contents are refused."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from launch import correlate, score, search
from tests.helpers import run_command
from tests.own_space import SIZES
from zcpt_jax.scoring import ScoringConfig
from zcpt_jax.search import SearchConfig
from zcpt_jax.search.operation_scores import Trained
from zcpt_jax.types import InputError

CODE = Path(__file__).with_name("own_space.py").read_text()
NAMES = [" ".join(ops) for ops in itertools.product(SIZES, SIZES)]


@pytest.fixture
def space(tmp_path):
    """The arguments of a space of nine networks in a file of the user's own."""
    file = tmp_path / "mine.py"
    file.write_text(CODE)
    options = "--space_options=layers=2,channels=4"
    return (f"--space={file}:Chain", options, "--image_size=8", "--batch_size=8")


def write_table(path, best):
    rows = [f"{name},{90.0 if name == best else 50.0}" for name in NAMES]
    path.write_text("\n".join(["arch_str,test", *rows]) + "\n")
    return f"--table={path}"


def test_another_table_decides_anew(tmp_path, capsys, space):
    """Where the table decides; where it is only looked up, it may grow."""
    sizes = ("--num_proposals=1", "--num_validation_batches=1")
    args = (*space, *sizes, "--operation_score=best-acc", f"--output_dir={tmp_path}/a")
    for best in (NAMES[3], NAMES[5]):
        table = write_table(tmp_path / "table.csv", best)
        message, _ = run_command(capsys, search, *args, table)
        if best == NAMES[3]:
            assert message is None
            found = json.loads((tmp_path / "a" / "genotype.json").read_text())
            assert found["genotype"] == best
        else:
            assert "was made with other settings (evidence: '" in message
    args = (*space, *sizes, f"--output_dir={tmp_path}/b")
    for best in (NAMES[3], NAMES[5]):
        table = write_table(tmp_path / "table.csv", best)
        assert run_command(capsys, search, *args, table)[0] is None


@pytest.mark.parametrize("command", [search, score, correlate])
def test_an_edited_space_file_is_noticed(tmp_path, capsys, space, command):
    args = [*space, f"--output_dir={tmp_path}/run"]
    if command is search:
        args += ["--num_proposals=1", "--num_validation_batches=1"]
    if command is correlate:
        table = write_table(tmp_path / "table.csv", NAMES[1])
        args += [table, "--scorers=random", "--seeds=0"]
    assert run_command(capsys, command, *args)[0] is None
    (tmp_path / "mine.py").write_text(
        CODE.replace("total += weight", "total -= weight")
    )
    message, _ = run_command(capsys, command, *args)
    assert "was made with other settings (space_file: '" in message


def test_a_supernet_is_known_by_its_weights():
    made = [
        Trained({"params": {"w": np.full(3, w)}}, {"cell": np.full((2, 2), a)})
        for w, a in ((0.5, 1.0), (0.5, 1.0), (0.6, 1.0), (0.5, 2.0))
    ]
    digests = [trained.digest() for trained in made]
    assert digests[0] == digests[1] and len(set(digests)) == 3


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (ScoringConfig, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (ScoringConfig, {"score_batches": -1}, "score_batches must be at least 1"),
        (ScoringConfig, {"seed": 2**32}, "seed must be from 0 to 2"),
        (ScoringConfig, {"initialisations": "two"}, "must be one or each, got 'two'"),
        (SearchConfig, {"seed": -1}, "seed must be from 0 to 2"),
        (SearchConfig, {"num_proposals": 0}, "num_proposals must be at least 1"),
        (SearchConfig, {"num_validation_batches": 0}, "must be at least 1, got 0"),
        (SearchConfig, {"edge_order": "x"}, "unknown edge order 'x'"),
        (SearchConfig, {"operation_score": "x"}, "unknown operation score 'x'"),
        (SearchConfig, {"max_flops": 0.0}, "max_flops must be positive, got 0.0"),
        (SearchConfig, {"max_params": float("nan")}, "must be positive, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(kind, settings, message):
    kind().check()
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        kind(**settings).check()
