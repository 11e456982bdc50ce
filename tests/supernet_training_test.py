"""Training supernets: the recipe, and that what is on disk survives anything."""

import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch import train_supernet as train_supernet_command
from tests import helpers
from tests.helpers import capture_command, on_cpu, tiny_space
from tests.own_space import Chain
from zcpt_jax.data import load_dataset
from zcpt_jax.io.checkpoints import (
    CHECKSUMS,
    DAMAGED,
    STATES,
    Kind,
    TrainingFolder,
)
from zcpt_jax.lowering import using
from zcpt_jax.nn.train_forward import forward_in_training
from zcpt_jax.spaces import get_space
from zcpt_jax.training import Preempted
from zcpt_jax.training.supernet import (
    SupernetConfig,
    _train,
    load_supernet,
    mixture,
    read_metrics,
    train_supernet,
)
from zcpt_jax.training.supernet._step import (
    initial_alphas,
    make_optimisers,
    make_step,
)
from zcpt_jax.types import NOISE, InputError, ScoreError, digest

ROOT = Path(__file__).resolve().parents[1]
DATA = load_dataset("digits", image_size=8)
OPS = ("dense", "skip", "noise")
CONFIG = SupernetConfig(
    batch_size=32,
    max_steps=40,
    learning_rate=0.1,
    alpha_learning_rate=0.01,
    save_every=16,
    log_every=8,
)
TRACES, STEPS = [], {}


class Net(nn.Module):
    """Layers with BatchNorm as in our spaces, skips, and noise."""

    classes: int

    @nn.compact
    def __call__(self, images, masks=None):
        TRACES.append(images.shape)
        x = self._layer(images.reshape(len(images), -1))
        for layer in range(2):
            weights = masks["layers"][layer] if masks else jnp.ones(len(OPS))
            noise = jax.random.normal(self.make_rng(NOISE), x.shape)
            x = weights[0] * self._layer(x) + weights[1] * x + weights[2] * noise
        return nn.Dense(self.classes)(x)

    def _layer(self, x):
        norm = nn.BatchNorm(use_running_average=True, momentum=0.9)
        return nn.relu(norm(nn.Dense(16, use_bias=False)(x)))


@functools.cache
def initialiser(module):
    """Compiled at once, which is faster than layer by layer."""
    return jax.jit(module.init)


@dataclasses.dataclass(frozen=True)
class Normed(Chain):
    """Small enough to compile in seconds; its first layer has no noise."""

    layers: int = 2
    name: str = "normed"

    def init_masks(self):
        return {"layers": np.float32([[1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]])}

    def supernet(self, num_classes):
        return Net(num_classes)

    def init_variables(self, module, key, image_shape):
        return initialiser(module)(key, jnp.zeros((1, *image_shape)))


def equal(a, b):
    """Whether two trees of arrays are the same bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def content(trained):
    return [trained.variables, dict(trained.alphas)]


def train(folder, config=CONFIG, data=DATA, **options):
    """Trainings of one recipe share their compiled step, which saves seconds each."""
    recipe, make = dataclasses.replace(config, save_every=1, log_every=1), make_step

    def remember(*args):
        if recipe not in STEPS:
            STEPS[recipe] = make(*args)
        # States from disk are bound to a device, for which JAX would compile anew.
        return lambda state, *rest: STEPS[recipe](
            jax.device_put(state, jax.devices()[0]), *rest
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_train, "make_step", remember)
        return train_supernet(Normed(), data, config, checkpoints=folder, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted training, and its folder."""
    folder = tmp_path_factory.mktemp("training") / "whole"
    TRACES.clear()
    return folder, train(folder)


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the folder to do harm to."""
    return shutil.copytree(whole[0], tmp_path / "copy")


def start():
    return Normed().init_variables(
        Net(10), jax.random.split(jax.random.key(0))[0], DATA.image_shape
    )


def test_halves_share_no_image_and_are_always_the_same():
    first, second = DATA.halves()
    assert (len(first.source), len(second.source)) == (898, 899)
    rows = np.concatenate([first.source.rows, second.source.rows])
    assert sorted(rows) == list(range(1797))
    again, _ = DATA.halves()
    np.testing.assert_array_equal(first.source.rows, again.source.rows)
    image, label = first.source.read(5)
    expected, expected_label = DATA.source.read(int(first.source.rows[5]))
    np.testing.assert_array_equal(image, expected)
    assert label == expected_label
    for half in (first, second):  # of every class, though sources may be sorted
        counts = np.bincount([half.source.read(i)[1] for i in range(898)])
        assert len(counts) == 10 and counts.min() > 50


def test_whole_datasets_hold_the_images_that_searches_do_not_see(tfds_dir):
    sizes = [
        len(load_dataset("cifar10", tfds_dir, whole=whole).source)
        for whole in (False, True)
    ]
    assert sizes == [25_000, 50_000]


@pytest.mark.parametrize("space", ["mobilenet", "nasbench1shot1_1"])
def test_operation_weights_are_a_softmax_over_candidates(space):
    undecided = get_space(space).init_masks()
    alphas = jax.jit(lambda key: initial_alphas(undecided, key, 1.0))(jax.random.key(0))
    weights = jax.jit(lambda a: mixture(a, undecided))(alphas)
    assert set(weights) == set(undecided)
    for group, masks in undecided.items():
        there = masks != 0
        assert weights[group].shape == alphas[group].shape == masks.shape
        assert weights[group].dtype == alphas[group].dtype == np.float32
        found, logits = np.asarray(weights[group]), np.asarray(alphas[group])
        np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)
        assert ((found != 0) == there).all() and ((logits != 0) == there).all()
        row = np.where(there, np.exp(logits), 0)
        expected = row / row.sum(-1, keepdims=True)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    slopes = jax.jit(
        jax.grad(lambda a: sum((m**2).sum() for m in mixture(a, undecided).values()))
    )(alphas)
    for group, masks in undecided.items():
        slope = np.asarray(slopes[group])
        assert np.isfinite(slope).all() and not slope[masks == 0].any()


class Norm(nn.Module):
    stack: bool = False

    @nn.compact
    def __call__(self, x, masks=None):
        axis = (0, -1) if self.stack else -1
        return nn.BatchNorm(True, axis=axis, momentum=0.9, epsilon=1e-5)(x)


def test_running_statistics_follow_pytorch():
    # Two images of one pixel and two channels: means 2 and 5, biased variances 1 and
    # 9, unbiased 2 and 18.
    x = jnp.float32([1, 2, 3, 8]).reshape(2, 1, 1, 2)
    net = Norm()
    variables = net.init(jax.random.key(0), x)
    logits, after = jax.jit(lambda v, x: forward_in_training(net.apply, v, x, None))(
        variables, x
    )
    stats = after["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(stats["mean"], [0.1 * 2, 0.1 * 5], rtol=1e-6)
    np.testing.assert_allclose(stats["var"], [0.9 + 0.1 * 2, 0.9 + 0.1 * 18], rtol=1e-6)
    np.testing.assert_allclose(logits.ravel(), [-1, -1, 1, 1], rtol=1e-5)
    _, third = forward_in_training(net.apply, after, x, None)
    mean = third["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, 0.19 * np.array([2, 5]), rtol=1e-6)
    assert equal(after["params"], variables["params"])


def test_running_statistics_of_stacked_batchnorm_are_those_of_each_slice():
    x = np.random.default_rng(0).normal(size=(3, 4, 2, 2, 5)).astype(np.float32)
    stacked, single = Norm(stack=True), Norm()
    variables = stacked.init(jax.random.key(0), x)
    _, after = forward_in_training(stacked.apply, variables, x, None)
    stats = after["batch_stats"]["BatchNorm_0"]
    for e in range(3):
        one = single.init(jax.random.key(0), x[e])
        _, expected = forward_in_training(single.apply, one, x[e], None)
        for name, value in expected["batch_stats"]["BatchNorm_0"].items():
            np.testing.assert_allclose(stats[name][e], value, rtol=1e-5)


def test_a_network_without_batchnorm_keeps_its_variables():
    net = nn.Dense(3)
    x = jnp.ones((2, 4))
    variables = net.init(jax.random.key(0), x)
    _, after = forward_in_training(lambda v, x, m: net.apply(v, x), variables, x, None)
    assert equal(after, variables)


def test_optimisers_follow_pytorch():
    config = SupernetConfig(learning_rate=0.5, min_learning_rate=0.1)
    optimisers = make_optimisers(config, 2)
    weights = alphas = jnp.float32([3.0, -4.0])
    gradient = np.float32([6.0, 8.0])  # of norm 10, clipped to 5
    state, momentum, expected = optimisers.weights.init(weights), 0, np.array(weights)
    for rate in (0.5, 0.3, 0.1):
        momentum = 0.9 * momentum + gradient / 2 + 3e-4 * expected
        expected = expected - rate * momentum
        change, state = optimisers.weights.update(gradient, state, weights)
        weights = weights + change
        np.testing.assert_allclose(weights, expected, rtol=1e-5)
    state, first, second, expected = optimisers.alphas.init(alphas), 0, 0, [3.0, -4.0]
    for count in (1, 2):
        slope = gradient + 1e-3 * np.array(expected)
        first = 0.5 * first + 0.5 * slope
        second = 0.999 * second + 0.001 * slope**2
        step = first / (1 - 0.5**count)
        step = step / (np.sqrt(second / (1 - 0.999**count)) + 1e-8)
        expected = expected - 3e-4 * step
        change, state = optimisers.alphas.update(gradient, state, alphas)
        alphas = alphas + change
        np.testing.assert_allclose(alphas, expected, rtol=1e-6)


def test_training_lowers_the_loss_and_moves_everything(whole):
    folder, trained = whole
    assert len(TRACES) == 1 + 2  # initialisation, alphas, weights: compiled once
    lines = read_metrics(folder)
    assert [line["step"] for line in lines] == [8, 16, 24, 32, 40]
    assert set(lines[0]) == {"step", "loss", "accuracy", "alphas_accuracy"}
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    assert min(lines[-1]["accuracy"], lines[-1]["alphas_accuracy"]) > 0.3
    before = start()
    pairs = zip(
        jax.tree.leaves(dict(before)), jax.tree.leaves(trained.variables), strict=True
    )
    for old, new in pairs:
        assert old.shape == new.shape and (old != new).any()
        assert np.isfinite(new).all()
    alphas = trained.alphas["layers"]
    assert alphas[0, 2] == 0 and np.count_nonzero(alphas) == 5
    assert np.abs(alphas).max() > 0.03
    weights = mixture(trained.alphas, Normed().init_masks())["layers"]
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    assert weights[0, 2] == 0 and weights[1, 0] > weights[1, 2]  # noise is no help
    assert not any(value < 0 for value in np.ravel(weights))


def test_trained_statistics_serve_evaluation(whole):
    """With the running statistics the supernet classifies images it has not seen."""
    _, trained = whole
    batch = DATA.halves()[1].batch(np.random.default_rng(7), 200)
    masks = mixture(trained.alphas, Normed().init_masks())
    rngs = {NOISE: jax.random.key(0)}
    logits = jax.jit(Net(10).apply)(trained.variables, batch.images, masks, rngs=rngs)
    assert (logits.argmax(-1) == batch.labels).mean() > 0.4


class Stop(Exception):
    pass


def stop_at(step):
    def progress(stage, done, total, note):
        if done == step:
            raise Stop

    return progress


def test_a_stopped_training_resumes_and_ends_as_if_nothing_had_been(whole, tmp_path):
    folder, trained = whole
    with pytest.raises(Stop):
        train(tmp_path / "stopped", progress=stop_at(25))
    assert steps_in(tmp_path / "stopped") == [16]
    assert len(read_metrics(tmp_path / "stopped")) == 3
    with pytest.raises(InputError, match="is unfinished: 16 of 40 steps"):
        load(tmp_path / "stopped")
    # Neither how often states and metrics are written changes the result.
    file = tmp_path / "stopped" / "metrics.jsonl"
    file.write_text(file.read_text() + '{"step": 25, "lo')  # cut off by a kill
    told = []
    resumed = train(tmp_path / "stopped", progress=lambda *said: told.append(said))
    assert told[0][1:3] == (16, 40) and told[-1][1:3] == (40, 40)
    assert equal(content(resumed), content(trained))
    assert file.read_bytes() == (folder / "metrics.jsonl").read_bytes()
    assert steps_in(tmp_path / "stopped") == [32, 40]


def test_a_training_that_was_asked_to_end_saves_and_goes_on(whole, tmp_path):
    folder, trained = whole

    def stop(stage, done, total, note):
        if done == 20:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="asked to end after step 21 of 40"):
        train(tmp_path / "stopped", progress=stop)
    assert signal.getsignal(signal.SIGTERM) == before
    assert steps_in(tmp_path / "stopped") == [16, 21]
    resumed = train(tmp_path / "stopped")
    assert equal(content(resumed), content(trained))
    metrics = [f / "metrics.jsonl" for f in (folder, tmp_path / "stopped")]
    assert metrics[0].read_bytes() == metrics[1].read_bytes()


def steps_in(folder):
    return sorted(int(path.name) for path in (folder / STATES).iterdir())


def load(folder, space=None, classes=10):
    return load_supernet(folder, space or Normed(), classes, DATA.image_shape)


def test_a_finished_training_is_read_back_and_not_redone(whole, copy):
    _, trained = whole
    before = (copy / "metrics.jsonl").read_bytes()
    told = []
    again = train(copy, progress=lambda *said: told.append(said))
    assert told == [("training", 40, 40, "finished")]
    for found in (again, load(copy)):
        assert equal(content(found), content(trained))
    assert (copy / "metrics.jsonl").read_bytes() == before


def test_a_damaged_state_gives_way_to_the_one_before_it(whole, copy):
    _, trained = whole
    cut_off(copy / STATES / "40")
    with pytest.raises(InputError, match="the state after 40 steps .* cannot be read"):
        load(copy)
    with pytest.warns(UserWarning, match="after 40 steps is damaged.*from step 32"):
        repaired = train(copy)
    assert equal(content(repaired), content(trained))
    assert (copy / DAMAGED / "40").is_dir()
    assert [line["step"] for line in read_metrics(copy)] == [8, 16, 24, 32, 40]
    assert equal(content(load(copy)), content(trained))


def cut_off(state):
    for file in largest(state):
        os.truncate(file, file.stat().st_size // 2)


def flip(state):
    for file in largest(state):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(bytes(data))


def empty(state):
    shutil.rmtree(state)
    state.mkdir()


def cut_metadata(state):
    for file in state.rglob("_METADATA"):
        file.write_text(file.read_text()[:50])


def lose_part(state):
    shutil.rmtree(state / "tree")


def largest(state):
    """The file with the arrays of each part."""
    parts = [part for part in state.iterdir() if (part / "d").is_dir()]
    assert parts
    return [
        max((part / "ocdbt.process_0" / "d").iterdir(), key=lambda f: f.stat().st_size)
        for part in parts
    ]


TREE = {
    "tree": {
        "a": jnp.float32(np.random.default_rng(0).random(999)),
        "b": jnp.float32(3),
    }
}


def folder(path, **options):
    kind = Kind("a trained supernet", "launch/train_supernet.py")
    return TrainingFolder(path, {"x": 1}, kind=kind, steps=2, **options)


@pytest.mark.parametrize("harm", [cut_off, flip, empty, cut_metadata, lose_part])
def test_every_kind_of_damage_is_noticed(harm, tmp_path):
    with folder(tmp_path) as run:
        assert run.restore(TREE) is None
        run.save(1, TREE)
        run.save(2, jax.tree.map(lambda x: 1 - x, TREE))
    harm(tmp_path / STATES / "2")
    with folder(tmp_path) as run:
        with pytest.warns(UserWarning, match="after 2 steps is damaged"):
            step, found = run.restore(TREE)
        run.save(2, TREE)
    assert step == 1 and equal(found, TREE)
    with folder(tmp_path) as run:
        assert run.restore(TREE)[0] == 2
    for number in (1, 2):
        harm(tmp_path / STATES / str(number))
    message = "no state in .* can be read .*--overwrite"
    with folder(tmp_path) as run, pytest.raises(InputError, match=message):
        run.restore(TREE)
    with folder(tmp_path, overwrite=True) as run:
        assert run.restore(TREE) is None
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", STATES}


def test_a_state_whose_checksums_were_not_noted_is_read(tmp_path):
    """As after a kill at that moment."""
    with folder(tmp_path) as run:
        run.save(1, TREE)
    for text in (None, "{", "[]", "{}"):
        (tmp_path / CHECKSUMS).unlink(missing_ok=True)
        if text is not None:
            (tmp_path / CHECKSUMS).write_text(text)
        with folder(tmp_path) as run:
            step, found = run.restore(TREE)
        assert step == 1 and equal(found, TREE)
    cut_metadata(tmp_path / STATES / "1")  # this Orbax notices
    with folder(tmp_path) as run, pytest.raises(InputError, match="no state in"):
        run.restore(TREE)


def test_other_settings_are_refused_and_named(copy):
    with pytest.raises(InputError) as caught:
        train(copy, dataclasses.replace(CONFIG, seed=3, batch_size=8))
    assert "batch_size: 32 there, 8 now; seed: 0 there, 3 now" in str(caught.value)
    assert "--overwrite" in str(caught.value)
    other = dataclasses.replace(DATA, std=[0.5] * 3)
    with pytest.raises(InputError, match=r"std: \[.*\] there, \[0.5, 0.5, 0.5\] now"):
        train(copy, data=other)
    often = dataclasses.replace(CONFIG, save_every=1, log_every=1)
    train(copy, often)  # these decide nothing


def test_damaged_and_missing_settings_are_refused(copy):
    text = (copy / "config.json").read_text()
    for bad in (text[:50], "[]", '{"config": {}}', '{"config": 1, "steps": 3}'):
        (copy / "config.json").write_text(bad)
        for use in (train, load):
            with pytest.raises(
                InputError, match=r"config.json is damaged, or not that"
            ):
                use(copy)
    (copy / "config.json").unlink()
    for use in (train, load):
        with pytest.raises(InputError, match="it has no config.json; train one"):
            use(copy)


def test_supernets_of_others_are_not_loaded(copy, tmp_path):
    with pytest.raises(InputError, match=r"space: 'normed' there, 'chain' wanted"):
        load(copy, Chain(layers=2))
    with pytest.raises(InputError, match="options: .*'channels': 8.*'channels': 4"):
        load(copy, Normed(channels=4))
    with pytest.raises(InputError, match="num_classes: 10 there, 5 wanted"):
        load(copy, classes=5)
    with pytest.raises(InputError, match="is not the folder of a trained supernet"):
        load(tmp_path / "nowhere")
    shutil.rmtree(copy / STATES)
    with pytest.raises(InputError, match="holds no checkpoints"):
        load(copy)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seed": -1}, r"seed must be from 0 to 2\*\*32 - 1, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"save_every": 0}, "save_every must be at least 1"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0, got -1.0"),
        ({"clip": 0.0}, "clip must be positive and finite, got 0.0"),
        ({"alpha_learning_rate": float("nan")}, "alpha_learning_rate must be positive"),
        ({"alpha_betas": (0.5, 1.0)}, "alpha_betas must be from 0 to below 1"),
        ({"learning_rate": 1e-4}, "learning rates must be positive and fall"),
        ({"batch_size": 899}, "from 1 to 898, half of the images of digits.*got 899"),
    ],
)
def test_settings_out_of_range_are_refused(change, expected, tmp_path):
    with pytest.raises(InputError, match=expected):
        train(tmp_path / "run", dataclasses.replace(CONFIG, **change))
    assert not (tmp_path / "run").exists()


def test_steps_are_counted_over_the_first_half():
    assert SupernetConfig().steps(25_000) == 50 * 391
    assert SupernetConfig(max_steps=100).steps(25_000) == 100
    assert SupernetConfig(epochs=2, batch_size=100).steps(150) == 4


def test_a_loss_that_is_not_a_number_ends_the_training(tmp_path):
    broken = dataclasses.replace(DATA, mean=[np.nan] * 3)
    with pytest.raises(ScoreError, match="the loss is nan at step 1 of 40; train with"):
        train(tmp_path / "run", data=broken)
    assert steps_in(tmp_path / "run") == []


def test_without_a_folder_nothing_is_written_and_the_result_is_the_same(
    whole, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert equal(content(train(None)), content(whole[1]))
    assert not list(tmp_path.iterdir())


def command(capsys, *args):
    """Runs the command here; returns its exit message, None for success, and output."""
    return capture_command(capsys, train_supernet_command, *args)


def test_the_command_trains_resumes_and_refuses(capsys, tmp_path):
    good = [f"--space={ROOT / 'tests' / 'own_space.py'}:Chain"]
    good += ["--space_options=layers=1,channels=4", "--image_size=8"]
    good += ["--batch_size=16", "--max_steps=3", f"--output_dir={tmp_path / 'run'}"]
    first = command(capsys, *good)
    assert first[0] is None and first[1].err == ""
    where, *summary = first[1].out.splitlines()
    assert where.startswith("runs on     1 ")
    assert summary[0] == f"trained     the supernet of chain, in {tmp_path / 'run'}"
    assert summary[1].startswith("last step   3: loss ") and "(alphas)" in summary[1]
    space = Chain(layers=1, channels=4)
    made_from = digest((ROOT / "tests" / "own_space.py").read_bytes())
    trained = load_supernet(tmp_path / "run", space, 10, DATA.image_shape, made_from)
    weights = mixture(trained.alphas, space.init_masks())["layers"]
    op = ("conv3x3", "conv1x1", "skip")[int(weights[0].argmax())]
    assert summary[2] == f"layer 0     {op} {weights[0].max():.3f}"
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["versions"]["jax"] and record["steps"] == 3
    assert command(capsys, *good) == first
    for expected, bad in {
        "--max_steps must be at least 1, got 0": "--max_steps=0",
        "--seed must be from 0 to 2**32 - 1, got -1": "--seed=-1",
        "batch_size must be from 1 to 898, half of the": "--batch_size=899",
        "seed: 0 there, 1 now": "--seed=1",
        "unknown space 'darts2'; known: nasbench201": "--space=darts2",
        "unknown dataset 'mnist'": "--dataset=mnist",
    }.items():
        message, said = command(capsys, *good, bad)
        assert message.startswith("error: ") and expected in message
        assert "trained" not in said.out


@pytest.mark.slow
def test_a_killed_command_resumes_and_ends_as_if_nothing_had_been(tmp_path):
    def arguments(name):
        script = str(ROOT / "launch" / "train_supernet.py")
        args = ["--space_options=channels=4,cells_per_stage=1", "--image_size=8"]
        args += ["--batch_size=32", "--max_steps=200", "--save_every=10"]
        return [sys.executable, script, *args, f"--output_dir={tmp_path / name}"]

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    quiet["env"] = on_cpu(1)
    subprocess.run(arguments("whole"), check=True, **quiet)
    process = subprocess.Popen(
        arguments("killed"), **{**quiet, "env": helpers.killed(tmp_path)}
    )
    deadline = time.monotonic() + 200
    wanted = [tmp_path / "killed" / STATES / str(step) for step in range(30, 200, 10)]
    while time.monotonic() < deadline and not any(path.exists() for path in wanted):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    again = subprocess.run(
        arguments("killed"), env=on_cpu(1), capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    found = [
        load_supernet(tmp_path / name, tiny_space(), 10, DATA.image_shape)
        for name in ("whole", "killed")
    ]
    assert equal(content(found[0]), content(found[1]))
    texts = [(tmp_path / n / "metrics.jsonl").read_text() for n in ("whole", "killed")]
    assert texts[0] == texts[1]


TINY = {
    "nasbench201": {"channels": 4, "cells_per_stage": 1},
    "darts_s1": {"channels": 4, "cells": 1},
    "darts_s4": {"channels": 4, "cells": 3},
    "nasbench1shot1_1": {"channels": 4, "cells_per_stage": 1},
    "nasbench_macro": {"channels": 4},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_every_kind_of_space_trains(name, tmp_path):
    space = get_space(name, **TINY[name])
    data = load_dataset("digits", image_size=16)
    config = SupernetConfig(batch_size=16, max_steps=30, log_every=1)
    with using(helpers.QUICK_TO_COMPILE):  # compiles faster, runs slower
        trained = train_supernet(space, data, config, checkpoints=tmp_path)
    losses = [line["loss"] for line in read_metrics(tmp_path)]
    assert np.mean(losses[-8:]) < np.mean(losses[:8])
    loaded = load_supernet(tmp_path, space, 10, data.image_shape)
    assert equal(content(trained), content(loaded))
    undecided = space.init_masks()
    for group, weights in mixture(trained.alphas, undecided).items():
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
        assert ((weights != 0) == (undecided[group] != 0)).all()
    assert max(np.abs(alphas).max() for alphas in trained.alphas.values()) > 2e-3
