"""The commands of the final training, as a user runs them."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from optax import softmax_cross_entropy_with_integer_labels as cross_entropy

from launch import evaluate, retrain
from tests.helpers import killed, on_cpu, run_command, run_in_two_processes
from zcpt_jax.data import load_test_images
from zcpt_jax.io.checkpoints import STATES, read_metrics
from zcpt_jax.training import load_network

ROOT = Path(__file__).resolve().parents[1]
FLAGFILES = sorted((ROOT / "launch" / "flagfiles").glob("retrain_*.flags"))
CELL = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|none~1|nor_conv_3x3~2|"
TINY = {
    "darts": ("channels=4,cells=3", "DARTS_V2"),
    "nasbench201": ("channels=4,cells_per_stage=1", CELL),
    "nasbench_macro": ("channels=4", "20210120"),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An archive of 60 images of two brightnesses."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    pixels = rng.integers(0, 150, (60, 32, 32, 3)) + 100 * labels[:, None, None, None]
    path = tmp_path_factory.mktemp("images") / "two.npz"
    np.savez(path, images=pixels.astype(np.uint8), labels=labels)
    return f"npz:{path}"


def small(images, output, *args):
    return (
        f"--flagfile={ROOT / 'launch' / 'flagfiles' / 'retrain_nasbench201.flags'}",
        "--space_options=channels=4,cells_per_stage=1",
        f"--genotype={CELL}",
        f"--dataset={images}",
        "--image_size=16",
        "--batch_size=16",
        "--epochs=3",
        f"--output_dir={output}",
        *args,
    )


def command(script, *args):
    return [sys.executable, str(ROOT / "launch" / script), *args]


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """An uninterrupted run in a process of its own, and what it printed."""
    output = tmp_path_factory.mktemp("trained") / "run"
    args = command("retrain.py", *small(images, output))
    done = subprocess.run(args, env=on_cpu(1), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output, done


def test_a_run_leaves_everything_and_says_how_good_the_network_is(trained):
    output, done = trained
    assert done.stderr == ""  # quiet when not a terminal
    last = read_metrics(output)[-1]
    assert f"test        top-1 {last['test_top1']:.2f} %" in done.stdout
    assert "parameters" in done.stdout and CELL in done.stdout
    names = {path.name for path in output.iterdir()}
    assert names >= {
        "config.json",
        "metrics.jsonl",
        "network.json",
        "network.msgpack",
        "report.html",
        "tensorboard",
        "timings.json",
        STATES,
    }
    assert "retrain.py" in json.loads((output / "config.json").read_text())["command"]
    page = (output / "report.html").read_text()
    assert "<svg" in page and f"{last['test_top1']:.2f} %" in page
    _, module, variables = load_network(output)
    assert module.apply(variables, np.zeros((1, 16, 16, 3))).shape == (1, 2)


def test_tensorboard_reads_the_curves(trained):
    from tensorboardX.proto import event_pb2

    (file,) = (trained[0] / "tensorboard").iterdir()
    data, points = file.read_bytes(), {}
    while data:
        length = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        for value in event.summary.value:
            points.setdefault(value.tag, []).append((event.step, value.simple_value))
    lines = read_metrics(trained[0])
    expected = [(x["step"], x["test_top1"]) for x in lines if "test_top1" in x]
    np.testing.assert_allclose(points["test/top1"], expected, rtol=1e-5)
    assert set(points) >= {"train/loss", "train/learning_rate", "test/loss"}


@pytest.mark.parametrize("which", ["exported", "last", "best"])
def test_evaluate_reproduces_the_accuracy(capsys, trained, which):
    message, printed = run_command(
        capsys, evaluate, f"--run={trained[0]}", f"--which={which}", "--batch_size=8"
    )
    assert message is None, message
    tests = [x["test_top1"] for x in read_metrics(trained[0]) if "test_top1" in x]
    wanted = max(tests) if which == "best" else tests[-1]
    assert f"top-1 {wanted:.2f} %" in printed
    assert "on 12 test images" in printed


def test_other_images_are_normalised_as_the_network_was_trained(
    capsys, trained, tmp_path
):
    pixels = np.random.default_rng(1).integers(150, 256, (60, 16, 16, 3))
    path = tmp_path / "bright.npz"
    np.savez(path, images=pixels.astype(np.uint8), labels=np.arange(60) % 2)
    message, printed = run_command(
        capsys, evaluate, f"--run={trained[0]}", f"--test_dataset=npz:{path}"
    )
    assert message is None, message
    record, module, variables = load_network(trained[0])
    source = load_test_images(f"npz:{path}", image_size=16).source
    images, labels = zip(*(source.read(i) for i in range(len(source))), strict=True)
    images = (np.stack(images) / 255 - record.mean) / record.std
    logits = module.apply(variables, images)
    loss = cross_entropy(logits, np.array(labels)).mean()
    assert f"loss {loss:.4f} on 60 test images" in printed


def test_a_killed_run_goes_on_to_the_same_result(images, trained, tmp_path):
    args = command("retrain.py", *small(images, tmp_path / "run"))
    process = subprocess.Popen(
        args, env=killed(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not (tmp_path / "run" / "checksums.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = subprocess.run(args, env=on_cpu(1), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_metrics(tmp_path / "run") == read_metrics(trained[0])
    for name in ("network.json", "network.msgpack"):
        whole, again = ((f / name).read_bytes() for f in (trained[0], tmp_path / "run"))
        assert whole == again


def test_sigterm_saves_and_exits_cleanly(images, trained, tmp_path):
    output = tmp_path / "run"
    args = command("retrain.py", *small(images, output, "--epochs=400"))
    process = subprocess.Popen(
        args,
        env=on_cpu(1),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (output / "checksums.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "asked to end after step" in message and "Traceback" not in message
    step = int(message.split("after step ")[1].split()[0])
    assert max(int(state.name) for state in (output / STATES).iterdir()) == step


def test_a_run_directory_of_a_search_is_enough(capsys, images, tmp_path):
    found = {
        "space": "nasbench201",
        "options": {"channels": 16, "cells_per_stage": 5},
        "genotype": CELL,
        "dataset": "cifar10",
        "num_classes": 10,
    }
    (tmp_path / "genotype.json").write_text(json.dumps(found))
    message, printed = run_command(
        capsys,
        retrain,
        f"--genotype={tmp_path}",
        "--space_options=channels=2,cells_per_stage=1",
        f"--dataset={images}",
        "--image_size=8",
        "--epochs=1",
        "--batch_size=16",
        "--cutout=4",
        f"--output_dir={tmp_path / 'out'}",
    )
    assert message is None, message
    assert CELL in printed


# These train the network of retrain_cifar10, or of other tests here, at other rates.
ALIKE = ("retrain_cifar100", "retrain_svhn", "retrain_nasbench201")


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, marks=[pytest.mark.slow] * (file.stem in ALIKE))
        for file in FLAGFILES
    ],
    ids=[file.stem for file in FLAGFILES],
)
def test_every_recipe_runs(capsys, images, tmp_path, file):
    text = file.read_text()
    space = text.split("--space=")[1].split()[0]
    options, genotype = TINY[space]
    size = 32
    if "stem=imagenet" in text:
        options, size = f"{options},stem=imagenet", 224
    message, printed = run_command(
        capsys,
        retrain,
        f"--flagfile={file}",
        f"--space_options={options}",
        f"--genotype={genotype}",
        f"--dataset={images}",
        f"--image_size={size}",
        "--epochs=1",
        "--batch_size=24",
        f"--output_dir={tmp_path}",
    )
    assert message is None, message
    config = json.loads((tmp_path / "config.json").read_text())["config"]
    for line in text.splitlines():
        name, _, value = line.removeprefix("--").partition("=")
        if line.startswith("--") and name in config and value:
            if name in ("epochs", "batch_size", "dataset", "space"):
                continue
            kept = config[name]
            assert kept == (type(kept)(value) if kept is not None else None), line
    assert np.isfinite(read_metrics(tmp_path)[-1]["test_loss"])


def test_two_processes_train_as_one(images, trained, tmp_path):
    printed = run_in_two_processes(
        command("retrain.py", *small(images, tmp_path / "both"))
    )
    assert "trained" in printed[0][0] and "trained" not in printed[1][0]
    for one, two in zip(
        read_metrics(trained[0]), read_metrics(tmp_path / "both"), strict=True
    ):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)


def test_what_a_training_needs_is_said(capsys, images, tmp_path):
    output = f"--output_dir={tmp_path / 'x'}"
    cell = f"--genotype={CELL}"
    base = (output, f"--dataset={images}")
    wrong = {
        "--genotype is needed": base,
        "'nonsense' is no genotype file or run directory": (
            *base,
            "--genotype=nonsense",
        ),
        "(DARTS_V1, DARTS_V2, ": (*base, "--space=darts", "--genotype=V3"),
        "have no auxiliary head": (*base, cell, "--auxiliary=0.4"),
        "drop_path must be": (*base, cell, "--drop_path=2"),
        "--save_every must be at least 1": (*base, cell, "--save_every=0"),
        "unknown dataset": (*base, cell, "--dataset=mnist"),
        "at least 8x8, got 4x4": (
            *base,
            "--space=darts",
            "--space_options=channels=2,cells=3",
            "--genotype=DARTS_V2",
            "--image_size=16",
            "--auxiliary=0.4",
        ),
    }
    for message, args in wrong.items():
        got, _ = run_command(capsys, retrain, *args)
        assert message in str(got), got
    assert not (tmp_path / "x").exists()
    for message, args in {
        "--run is needed": (),
        "holds no network.json": (f"--run={tmp_path}",),
        "is not the folder of a retrained network": (
            f"--run={tmp_path}",
            "--which=last",
        ),
    }.items():
        got, _ = run_command(capsys, evaluate, *args)
        assert message in str(got), got
