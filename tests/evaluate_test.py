"""Networks are tested on what was asked for, with classes matched by name."""

import json

import numpy as np
import pytest
from PIL import Image

from launch import evaluate, retrain
from tests.helpers import run_command
from zcpt_jax.data import load_splits, load_test_images
from zcpt_jax.training import load_network
from zcpt_jax.types import InputError

CELL = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|nor_conv_1x1~1|skip_connect~2|"


def write_images(folder, classes, count, seed=0):
    """Images whose brightness says the class: of 'ant' dark, of 'crab' bright."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        level = {"ant": 0, "bee": 90, "crab": 180, "dog": 250}[name]
        for number in range(count):
            pixels = rng.integers(level // 2, level // 2 + 60, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def test_test_images_are_all_or_those_set_aside(tmp_path):
    write_images(tmp_path / "flat", ("ant", "bee"), 5)
    write_images(tmp_path / "split" / "train", ("ant", "bee"), 5)
    write_images(tmp_path / "split" / "valid", ("ant", "bee"), 2)
    flat, split = (f"folder:{tmp_path / name}" for name in ("flat", "split"))
    assert len(load_test_images(flat, image_size=8).source) == 10
    assert len(load_test_images(split, image_size=8).source) == 4
    assert len(load_splits(flat, image_size=8).test.source) == 2
    assert len(load_test_images("digits", image_size=8).source) == 1797


def test_classes_are_matched_by_name(tmp_path):
    write_images(tmp_path, ("bee", "crab"), 2)
    some = load_test_images(f"folder:{tmp_path}", image_size=8)
    assert [some.source.read(i)[1] for i in range(4)] == [0, 0, 1, 1]
    named = some.with_classes(["crab", "ant", "bee"])
    assert [named.source.read(i)[1] for i in range(4)] == [2, 2, 0, 0]
    assert named.num_classes == 3 and named.classes == ("crab", "ant", "bee")
    with pytest.raises(InputError, match="has the class 'crab', which is none of ant"):
        some.with_classes(["ant", "bee"])


def test_a_trained_network_is_tested_by_names(tmp_path, capsys):
    write_images(tmp_path / "data" / "train", ("ant", "bee", "crab"), 12)
    write_images(tmp_path / "data" / "val", ("ant", "bee", "crab"), 4, seed=1)
    write_images(tmp_path / "other", ("bee", "crab"), 3, seed=2)
    write_images(tmp_path / "foreign", ("bee", "dog"), 3)
    output = tmp_path / "run"
    message, out = run_command(
        capsys,
        retrain,
        f"--dataset=folder:{tmp_path / 'data'}",
        "--image_size=8",
        "--batch_size=8",
        "--epochs=2",
        f"--genotype={CELL}",
        "--space_options=channels=2,cells_per_stage=1",
        "--cutout=0",
        f"--output_dir={output}",
    )
    assert message is None, message
    assert "classes     3: ant, bee, crab" in out
    for name in ("network.json", "config.json"):
        record = json.loads((output / name).read_text())
        assert record.get("config", record)["classes"] == ["ant", "bee", "crab"]
    score = out.partition("top-1 ")[2].partition(" %")[0]
    message, out = run_command(capsys, evaluate, f"--run={output}")
    assert f"top-1 {score} %" in out and "on 12 test images" in out

    record, module, variables = load_network(output)
    images, labels = load_test_images(f"folder:{tmp_path / 'other'}", None, 8).decode()
    pixels = (images / 255 - record.mean) / record.std
    chosen = np.argmax(module.apply(variables, pixels.astype(np.float32)), axis=1)
    expected = 100 * float(np.mean(chosen == labels + 1))  # bee is 1 there, 0 here
    other = f"--test_dataset=folder:{tmp_path / 'other'}"
    message, out = run_command(capsys, evaluate, f"--run={output}", other)
    assert f"top-1 {expected:.2f} %" in out and "on 6 test images" in out
    foreign = f"--test_dataset=folder:{tmp_path / 'foreign'}"
    message, _ = run_command(capsys, evaluate, f"--run={output}", foreign)
    assert "has the class 'dog', which is none of ant, bee, crab" in message
