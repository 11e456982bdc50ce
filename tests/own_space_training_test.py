"""Networks of a user's own space are trained and evaluated; files choose no code."""

import json
from pathlib import Path

import pytest

from launch import _command, evaluate, retrain, search
from launch._own_space import load_own_space
from tests.helpers import run_command
from zcpt_jax.types import InputError

CODE = Path(__file__).with_name("own_space.py").read_text()
SMALL = ("--image_size=8", "--batch_size=32")
TOUCH = "import pathlib\npathlib.Path({marker!r}).touch()\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "json.py"  # shadows nothing
    path.write_text(CODE)
    return path


def test_a_network_of_an_own_space_is_trained_and_evaluated(tmp_path, capsys, file):
    space = (f"--space={file}:Chain", "--space_options=layers=2,channels=4")
    found, trained = tmp_path / "found", tmp_path / "trained"
    sizes = ("--num_proposals=1", "--num_validation_batches=1", *SMALL)
    args = (*space, *sizes, f"--output_dir={found}")
    assert run_command(capsys, search, *args)[0] is None
    args = (f"--genotype={found}", "--epochs=1", *SMALL, f"--output_dir={trained}")
    message, out = run_command(capsys, retrain, *space, *args)
    assert message is None, message
    score = out.partition("top-1 ")[2].partition(" %")[0]
    for which in ("exported", "last", "best"):
        args = (f"--run={trained}", f"--which={which}")
        message, out = run_command(capsys, evaluate, *args, f"--space={file}:Chain")
        assert message is None, message
        assert f"top-1 {score} %" in out
        message, _ = run_command(capsys, evaluate, *args)
        assert "'chain', which is not one of this package; name the file" in message
    file.write_text(CODE + "# edited")
    message, _ = run_command(capsys, evaluate, *args, f"--space={file}:Chain")
    assert "the file of the space 'chain' has changed since" in message
    message, _ = run_command(capsys, evaluate, *args, "--space=darts")
    assert "not one of this package" in message


def test_a_genotype_file_chooses_no_code(tmp_path, capsys):
    marker = tmp_path / "executed"
    (tmp_path / "evil.py").write_text(TOUCH.format(marker=str(marker)) + CODE)
    record = {
        "space": f"{tmp_path / 'evil.py'}:Chain",
        "options": {},
        "genotype": "skip skip skip skip",
        "dataset": "digits",
        "num_classes": 10,
    }
    for place in (tmp_path / "genotype.json", tmp_path):
        (tmp_path / "genotype.json").write_text(json.dumps(record))
        message, _ = run_command(capsys, retrain, f"--genotype={place}", *SMALL)
        assert "which is not one of this package (nasbench201, " in message
        assert "name it with --space=FILE.py:CLASS" in message
    assert not marker.exists()


def test_a_long_genotype_is_no_path(capsys):
    """Longer than the name of a file can be."""
    long = f"Genotype(normal=[{'x' * 300}"
    message, _ = run_command(capsys, retrain, "--space=darts", f"--genotype={long}")
    assert "is no genotype file or run directory" in message


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x = (\n", "line 1: SyntaxError"),
        ("\nimport nothing_of_this_name\n", "line 2: ModuleNotFoundError: No module"),
        ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
        ("\n\n1 / 0\n", "line 3: ZeroDivisionError"),
        ("Chain = 3\n", "no space, as it has no name"),
        ("class Chain:\n    name = 'x'\n", "no space, as it has no init_masks"),
        ("", "defines no Chain"),
        (CODE.replace("layers: int = 4", "layers: int"), "TypeError"),
    ],
)
def test_errors_in_a_users_file_are_told_with_their_line(tmp_path, code, expected):
    path = tmp_path / "mine.py"
    path.write_text(code)
    with pytest.raises(InputError, match=expected) as error:
        load_own_space(path, "Chain", {})
    assert str(path) in str(error.value)


def test_a_users_file_replaces_no_module(file):
    assert _command.load_space(f"{file}:Chain", [])[0].name == "chain"
    assert json.loads("[1]") == [1]
