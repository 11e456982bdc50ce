import json
import math
import signal
from dataclasses import replace
from pathlib import Path

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from jax.sharding import NamedSharding, PartitionSpec

from tests import training_golden as golden
from zcpt_jax import get_space
from zcpt_jax.data import CropAndFlip, Dataset, Splits
from zcpt_jax.data._arrays import ArraySource
from zcpt_jax.io.checkpoints import CHECKSUMS, DAMAGED, STATES, read_metrics
from zcpt_jax.io.genotype_file import resolve_genotype
from zcpt_jax.lowering import CPU, GPU, using
from zcpt_jax.nn import layers
from zcpt_jax.nn.capture import DropPath, GlobalAverage, ReLU
from zcpt_jax.nn.train_forward import forward_in_training
from zcpt_jax.sharding import make_mesh
from zcpt_jax.training import (
    Inputs,
    NetworkFile,
    Preempted,
    Recipe,
    Saving,
    initial_state,
    load_checkpoint,
    load_network,
    make_input,
    make_optimiser,
    make_schedule,
    make_train_step,
    save_network,
    train_network,
)
from zcpt_jax.training._step import count
from zcpt_jax.types import InputError, ScoreError

PLAIN = Recipe(
    epochs=2,
    batch_size=16,
    learning_rate=0.05,
    auxiliary=0.0,
    drop_path=0.0,
    cutout=0,
    clip=None,
)
CELL = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|none~1|nor_conv_3x3~2|"
SPACE = get_space("nasbench201", channels=4, cells_per_stage=1)


class Small(nn.Module):
    """A convolution with BatchNorm, a path that can be dropped, a classifier."""

    @nn.compact
    def __call__(self, images, masks=None):
        x = layers.batch_norm(name="norm")(layers.Conv(4, 3, 2, name="conv")(images))
        x = x + DropPath()(layers.Conv(4, 1, name="path")(ReLU()(x)))
        return layers.Linear(3, name="classifier")(GlobalAverage()(x))


def pictures(count=40, size=16, classes=3, seed=0):
    """Images whose brightness says their class, and noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = (
        rng.integers(0, 120, (count, size, size, 3)) + 60 * labels[:, None, None, None]
    )
    source = ArraySource(images.astype(np.uint8), labels.astype(np.int32))
    return Dataset(
        "pictures", source, classes, size, (0.5,) * 3, (0.25,) * 3, CropAndFlip(size)
    )


SPLITS = Splits(pictures(), pictures(24, seed=1))


def run(folder, recipe=PLAIN, mesh=None, module=None, **options):
    mesh = mesh or make_mesh(1, "batch")
    module = module or Small()
    variables = module.init(jax.random.key(recipe.seed), np.zeros((1, 16, 16, 3)))
    sharding = NamedSharding(mesh, PartitionSpec("batch"))
    with make_input(SPLITS, cutout=recipe.cutout, sharding=sharding) as data:
        others = {"fully_sharded", "progress"} & set(options)
        given = {name: options.pop(name) for name in others}
        saving = {"settings": {"x": 1}, "log_every": 2, **options}
        saving = Saving(Path(folder), **saving)
        return train_network(module, variables, data, recipe, mesh, saving, **given)


@pytest.mark.parametrize("name", list(golden.RECIPES))
def test_ten_steps_are_those_of_pytorch(name):
    published = json.loads(Path(__file__).with_name("training_golden.json").read_text())
    options = golden.RECIPES[name]
    recipe = Recipe(
        epochs=golden.STEPS,
        decay=golden.GAMMA,
        decay_epochs=golden.STEPS,
        auxiliary=0.0,
        drop_path=0.0,
        **options,
    )
    module = SPACE.network(golden.CELL, golden.CLASSES)
    shape = (golden.SIZE, golden.SIZE, 3)
    variables = SPACE.init_variables(module, jax.random.key(0), shape)
    flat = traverse_util.flatten_dict(variables["params"], sep="/")
    drawn = golden.draw_weights({name: leaf.shape for name, leaf in flat.items()})
    assert {name: leaf.shape for name, leaf in flat.items()} == golden.shapes()
    variables = {**variables, "params": traverse_util.unflatten_dict(drawn, sep="/")}
    optimiser = make_optimiser(recipe, 1)
    state = initial_state(variables, optimiser, recipe)
    step = jax.jit(make_train_step(module, recipe, optimiser, 1))
    smoothing = options["label_smoothing"]
    losses = []
    for number, (images, labels) in enumerate(golden.draw_batches()):
        logits, _ = forward_in_training(
            lambda v, x, _: module.apply(v, x),
            {"params": state.params, "batch_stats": state.batch_stats},
            images,
        )
        targets = optax.smooth_labels(jax.nn.one_hot(labels, 5), smoothing)
        losses.append(float(optax.softmax_cross_entropy(logits, targets).mean()))
        batch = Inputs(images, jnp.asarray(labels), jnp.ones(len(labels)))
        state = step(state, number, batch, jax.random.key(0))
        if not smoothing:  # the loss that is reported is never smoothed
            found = float(state.seen.loss / state.seen.images)
            assert found == pytest.approx(losses[-1], rel=1e-5)
    np.testing.assert_allclose(losses, published[name]["losses"], rtol=1e-3)
    stats = traverse_util.flatten_dict(state.batch_stats, sep="/")
    means = sum(np.abs(v).sum() for k, v in stats.items() if k.endswith("mean"))
    variances = sum(v.sum() for k, v in stats.items() if k.endswith("var"))
    assert means == pytest.approx(published[name]["mean"], rel=1e-3)
    assert variances == pytest.approx(published[name]["var"], rel=1e-3)


def test_batch_norm_in_groups_is_that_of_each_group():
    images = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype(np.float32)
    module = Small()
    variables = module.init(jax.random.key(0), images)
    apart = [
        forward_in_training(module.apply, variables, images[i : i + 4]) for i in (0, 4)
    ]
    logits, after = forward_in_training(module.apply, variables, images, groups=2)
    np.testing.assert_allclose(
        logits, np.concatenate([apart[0][0], apart[1][0]]), rtol=1e-5, atol=1e-6
    )
    mean = jax.tree.map(
        lambda a, b: (a + b) / 2, apart[0][1]["batch_stats"], apart[1][1]["batch_stats"]
    )
    chex.assert_trees_all_close(after["batch_stats"], mean, rtol=1e-5, atol=1e-7)
    together, _ = forward_in_training(module.apply, variables, images)
    assert not np.allclose(together, logits, rtol=1e-3)


def test_paths_are_dropped_for_whole_images_and_scaled():
    class Path(nn.Module):
        @nn.compact
        def __call__(self, x, masks=None):
            return DropPath()(x)

    images = np.ones((2000, 2, 2, 1), np.float32)
    key = jax.random.key(0)
    out, _ = forward_in_training(
        Path().apply, {}, images, drop_path=jnp.float32(0.2), key=key
    )
    whole = np.asarray(out).reshape(2000, -1)
    assert (whole == whole[:, :1]).all()
    values, counts = np.unique(whole[:, 0], return_counts=True)
    np.testing.assert_allclose(values, [0, 1.25])
    assert abs(counts[0] / 2000 - 0.2) < 0.03
    kept, _ = forward_in_training(
        Path().apply, {}, images, drop_path=jnp.float32(0), key=key
    )
    np.testing.assert_array_equal(kept, images)


def test_the_cosine_falls_after_every_epoch_or_at_every_step():
    recipe = Recipe(epochs=4, learning_rate=0.5)
    by_epoch = [float(make_schedule(recipe, 10)(step)) for step in range(40)]
    expected = [0.25 * (1 + math.cos(math.pi * (s // 10) / 4)) for s in range(40)]
    np.testing.assert_allclose(by_epoch, expected, rtol=1e-6)
    every = Recipe(epochs=4, learning_rate=0.5, every_step=True)
    by_step = [float(make_schedule(every, 10)(step)) for step in range(40)]
    expected = [0.25 * (1 + math.cos(math.pi * s / 40)) for s in range(40)]
    np.testing.assert_allclose(by_step, expected, rtol=1e-5)


def test_fewer_epochs_keep_the_shape_of_the_exponential():
    full = Recipe(epochs=250, schedule="exponential", decay=0.97, learning_rate=0.1)
    rate = make_schedule(full, 7)
    for epoch in (0, 1, 99, 249):
        for step in (0, 6):
            assert float(rate(7 * epoch + step)) == pytest.approx(
                0.1 * 0.97**epoch, rel=1e-5
            )
    short = make_schedule(
        Recipe(epochs=5, schedule="exponential", decay=0.97, learning_rate=0.1), 7
    )
    assert float(short(7)) == pytest.approx(0.1 * 0.97**50, rel=1e-5)


def test_large_batches_have_larger_rates_and_warm_up():
    recipe = Recipe(
        epochs=10,
        batch_size=512,
        accumulate=2,
        learning_rate=0.1,
        reference_batch=256,
        warmup_epochs=2,
        every_step=True,
    )
    rate = make_schedule(recipe, 5)
    np.testing.assert_allclose(
        [float(rate(step)) for step in range(10)], 0.04 * np.arange(1, 11), rtol=1e-5
    )
    assert float(rate(10)) == pytest.approx(0.2 * (1 + math.cos(math.pi * 0.2)))


def test_accumulated_gradients_make_one_update_of_their_mean():
    recipe = Recipe(learning_rate=0.1, clip=None, accumulate=2, weight_decay=0.5)
    params = {"w": jnp.array([2.0, -1.0])}
    gradients = [{"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([0.0, 3.0])}]
    optimiser = make_optimiser(recipe, 10)
    state = optimiser.init(params)
    first, state = optimiser.update(gradients[0], state, params)
    np.testing.assert_array_equal(first["w"], [0, 0])
    second, _ = optimiser.update(gradients[1], state, params)
    np.testing.assert_allclose(second["w"], [-0.1 * (0.5 + 1), -0.1 * (1.5 - 0.5)])


def test_hits_are_counted_by_rank_and_ties_go_to_the_first():
    logits = jnp.array(
        [[3, 1, 2, 0, -1, -2], [0, 0, 0, 0, 0, 0], [6, 5, 4, 3, 2, 1], [jnp.nan] * 6]
    )
    counts = count(logits, jnp.array([0, 1, 5, 0]), jnp.ones(4))
    assert (float(counts.top1), float(counts.top5), float(counts.images)) == (1, 2, 4)
    weighed = count(logits, jnp.array([0, 1, 5, 0]), jnp.array([0.0, 1, 1, 0]))
    assert (float(weighed.top1), float(weighed.top5)) == (0, 1)
    by_hand = np.log(6) + np.log(np.exp(np.arange(1, 7)).sum()) - 1
    assert float(weighed.loss) == pytest.approx(by_hand, rel=1e-5)


def test_images_that_fill_up_a_batch_leave_the_gradient_alone():
    module, recipe = Small(), PLAIN
    images = np.random.default_rng(0).normal(size=(6, 16, 16, 3)).astype(np.float32)
    labels = jnp.array([0, 1, 2, 0, 1, 2])
    variables = module.init(jax.random.key(0), images)
    optimiser = make_optimiser(recipe, 3)
    state = initial_state(variables, optimiser, recipe)
    step = make_train_step(module, recipe, optimiser, 3)
    weights = jnp.array([1.0, 1, 1, 1, 0, 0])
    found = [
        step(state, 0, Inputs(images, labels.at[4].set(n), weights), jax.random.key(0))
        for n in (0, 2)
    ]
    chex.assert_trees_all_equal(found[0], found[1])
    assert float(found[0].seen.images) == 4


def test_it_learns_and_tests_by_running_statistics(tmp_path):
    outcome = run(tmp_path, replace(PLAIN, epochs=20))
    assert outcome.test["test_top1"] > 80
    lines = read_metrics(tmp_path)
    assert lines[-1]["test_top1"] == outcome.test["test_top1"]
    assert lines[-1]["epoch"] == 20 and lines[0]["loss"] > lines[-1]["loss"]
    # Epochs have three steps of 16 images, of which the last holds eight.
    assert [line["step"] for line in lines[:4]] == [2, 3, 4, 6]


@pytest.mark.parametrize("at", [1, 3, 4])
def test_a_run_that_was_asked_to_end_goes_on_to_the_same_result(tmp_path, at):
    recipe = replace(PLAIN, drop_path=0.3, cutout=4, ema=0.5)
    whole = run(tmp_path / "whole", recipe)

    def stop(stage, done, total, note):
        if done == at - 1:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match=f"after step {at} of 6"):
        run(tmp_path / "stopped", recipe, progress=stop)
    assert signal.getsignal(signal.SIGTERM) == before
    again = run(tmp_path / "stopped", recipe)
    chex.assert_trees_all_equal(again.variables, whole.variables)
    assert again.test == whole.test
    assert read_metrics(tmp_path / "stopped") == read_metrics(tmp_path / "whole")
    finished = run(tmp_path / "stopped", recipe)
    chex.assert_trees_all_equal(finished.variables, whole.variables)


def test_a_truncated_newest_state_falls_back_to_the_one_before(tmp_path):
    whole = run(tmp_path / "whole")
    folder = tmp_path / "cut"
    run(folder)
    states = sorted(int(state.name) for state in (folder / STATES).iterdir())
    assert states == [3, 6]
    newest = max(
        (folder / STATES / "6").rglob("*"),
        key=lambda f: f.stat().st_size if f.is_file() else 0,
    )
    newest.write_bytes(newest.read_bytes()[:-10])
    with pytest.warns(UserWarning, match="state after 6 steps is damaged"):
        again = run(folder)
    assert (folder / DAMAGED / "6").is_dir()
    chex.assert_trees_all_equal(again.variables, whole.variables)
    assert read_metrics(folder) == read_metrics(tmp_path / "whole")


def test_the_best_state_is_kept_besides_the_newest(tmp_path):
    recipe = replace(PLAIN, epochs=6, learning_rate=0.3)
    run(tmp_path, recipe, keep=1)
    tests = {
        line["step"]: line["test_top1"]
        for line in read_metrics(tmp_path)
        if "test_top1" in line
    }
    best = max(tests, key=lambda step: (tests[step], step))
    kept = {int(state.name) for state in (tmp_path / STATES).iterdir()}
    assert kept == {best, 18}
    assert set(json.loads((tmp_path / CHECKSUMS).read_text())) >= {str(best)}


@pytest.mark.cpu_only
@pytest.mark.parametrize("sharded", [False, True])
def test_eight_devices_train_as_one_does(tmp_path, sharded):
    recipe = replace(PLAIN, drop_path=0.3, cutout=4, clip=1.0)
    one = run(tmp_path / "one", recipe)
    mesh = make_mesh(8, "batch")
    eight = run(tmp_path / "eight", recipe, mesh, fully_sharded=sharded)
    for a, b in zip(
        read_metrics(tmp_path / "one"), read_metrics(tmp_path / "eight"), strict=True
    ):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    chex.assert_trees_all_close(eight.variables, one.variables, rtol=1e-3, atol=1e-4)


@pytest.mark.cpu_only
def test_statistics_of_each_device_are_those_of_groups(tmp_path):
    mesh = make_mesh(4, "batch")
    recipe = replace(PLAIN, batch_norm="device")
    apart = run(tmp_path / "apart", recipe, mesh)
    together = run(tmp_path / "together", PLAIN, mesh)
    first = [read_metrics(tmp_path / n)[0]["loss"] for n in ("apart", "together")]
    assert first[0] != pytest.approx(first[1], rel=1e-4)
    module = Small()
    variables = module.init(jax.random.key(0), np.zeros((1, 16, 16, 3)))
    optimiser = make_optimiser(recipe, 3)
    state = initial_state(variables, optimiser, recipe)
    step = make_train_step(module, recipe, optimiser, 3, groups=4)
    with make_input(SPLITS) as data:
        feeds = data.train_batches(0, 16)
        for number in range(2):
            keys = jax.random.split(jax.random.fold_in(jax.random.key(0), number))
            batch = data.train_inputs(data.resident, next(feeds), keys[0])
            state = step(state, number, batch, keys[1])
    assert float(state.seen.loss / state.seen.images) == pytest.approx(
        first[0], rel=1e-5
    )
    assert apart.test != together.test


def test_averages_are_what_is_tested_and_exported(tmp_path):
    recipe = replace(PLAIN, ema=0.0, epochs=1)
    same = run(tmp_path / "none", replace(PLAIN, epochs=1))
    chex.assert_trees_all_equal(
        run(tmp_path / "zero", recipe).variables, same.variables
    )
    slow = run(tmp_path / "slow", replace(PLAIN, epochs=1, ema=0.9))
    start = Small().init(jax.random.key(0), np.zeros((1, 16, 16, 3)))["params"]
    moved = jax.tree.map(
        lambda a, b, c: float(np.abs(a - b).sum() / np.abs(c - b).sum()),
        slow.variables["params"],
        start,
        same.variables["params"],
    )
    assert all(0 < share < 0.5 for share in jax.tree.leaves(moved))


def test_bfloat16_trains_with_parameters_in_float32(tmp_path):
    recipe = replace(PLAIN, bfloat16=True)
    low = run(tmp_path / "low", recipe)
    full = run(tmp_path / "full")
    assert {leaf.dtype for leaf in jax.tree.leaves(low.variables)} == {np.dtype("f4")}
    losses = [
        [line["loss"] for line in read_metrics(tmp_path / name)]
        for name in ("low", "full")
    ]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(*losses, rtol=0.03)
    assert full.test["test_loss"] == pytest.approx(low.test["test_loss"], rel=0.1)


def test_a_loss_that_is_no_number_ends_the_training_before_it_is_saved(tmp_path):
    recipe = replace(PLAIN, learning_rate=1e30, epochs=3)
    with pytest.raises(ScoreError, match=r"loss is (nan|inf) by step"):
        run(tmp_path, recipe)


@pytest.mark.cpu_only
def test_settings_and_batches_that_do_not_fit(tmp_path):
    run(tmp_path / "a", replace(PLAIN, epochs=1))
    with pytest.raises(InputError, match="x: 1 there, 2 now"):
        run(tmp_path / "a", replace(PLAIN, epochs=1), settings={"x": 2})
    with pytest.raises(InputError, match="multiple of the 3 devices, got 16"):
        run(tmp_path / "b", mesh=make_mesh(3, "batch"))
    for name, value in {
        "epochs": 0,
        "drop_path": 1.0,
        "learning_rate": 0.0,
        "clip": -1.0,
        "ema": 1.0,
        "warmup_epochs": 600,
        "seed": -1,
        "reference_batch": 0,
        "weight_decay": float("inf"),
        "auxiliary": float("nan"),
        "accumulate": 0,
    }.items():
        with pytest.raises(InputError, match=f"{name} must be .*got {value}"):
            Recipe(**{name: value}).check()


RECORD = NetworkFile(
    "nasbench201",
    {"channels": 4, "cells_per_stage": 1},
    CELL,
    "digits",
    3,
    16,
    [0.5] * 3,
    [0.25] * 3,
)


def test_an_exported_network_is_loaded_by_plain_flax(tmp_path):
    module = RECORD.module()
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    variables = module.init(jax.random.key(0), images)
    save_network(tmp_path, RECORD, variables)
    record, loaded, found = load_network(tmp_path)
    assert record == RECORD
    np.testing.assert_array_equal(
        loaded.apply(found, images), module.apply(variables, images)
    )
    weights = tmp_path / "network.msgpack"
    good = weights.read_bytes()
    for bad in (b"", good[:-7], b"not weights"):
        weights.write_bytes(bad)
        with pytest.raises(InputError, match="network.msgpack"):
            load_network(tmp_path)
    save_network(tmp_path, RECORD, variables)
    written = json.loads((tmp_path / "network.json").read_text())
    (tmp_path / "network.json").write_text(json.dumps({**written, "num_classes": 4}))
    with pytest.raises(InputError, match="not those of the network"):
        load_network(tmp_path)
    flipped = bytearray(good)
    flipped[-3] ^= 1  # in the last weight
    (tmp_path / "network.json").write_text(json.dumps(written))
    weights.write_bytes(bytes(flipped))
    with pytest.raises(InputError, match="its checksum differs"):
        load_network(tmp_path)
    broken = jax.tree.map(lambda leaf: leaf * np.nan, variables)
    save_network(tmp_path, RECORD, broken)
    with pytest.raises(InputError, match="weights that are not finite"):
        load_network(tmp_path)
    for name, bad in (
        ("space", 3),
        ("image_size", "32"),
        ("mean", [0.5, 0.5]),
        ("mean", [0.5, 0.5, float("nan")]),
        ("std", [0.5, 0.0, 0.5]),
        ("weights_sha256", None),
    ):
        changed = {**written, name: bad}
        (tmp_path / "network.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=f"'{name}' in .*network.json must be"):
            load_network(tmp_path)


@pytest.mark.parametrize("ema", [None, 0.5])
def test_checkpoints_give_the_tested_network_back(tmp_path, ema):
    recipe = replace(PLAIN, ema=ema)
    module = SPACE.network(CELL, 3)
    settings = {**vars(RECORD), "auxiliary": 0.0, "ema": ema}
    outcome = run(tmp_path, recipe, module=module, settings=settings)
    record, _, variables = load_checkpoint(tmp_path)
    assert record == RECORD
    chex.assert_trees_all_equal(variables, outcome.variables)
    best = load_checkpoint(tmp_path, best=True)[2]
    assert jax.tree.structure(best) == jax.tree.structure(variables)


NETWORKS = {
    "darts": ({"channels": 4, "cells": 3}, "DARTS_V1", 32),
    "nasbench201": ({"channels": 4}, CELL.replace("none~0", "avg_pool_3x3~0"), 16),
    "nasbench_macro": ({"channels": 4}, "21021012", 32),
}


@pytest.mark.parametrize("use", [True, False])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_all_activations_are_bfloat16_if_asked(name, use):
    options, genotype, size = NETWORKS[name]
    space = get_space(name, **options)
    module = space.network(resolve_genotype(genotype, space), 10)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.bfloat16)
    whole = jax.ShapeDtypeStruct(images.shape, jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), whole)
    low = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), variables["params"]
    )
    found = []

    def watch(next_fun, args, kwargs, context):
        out = next_fun(*args, **kwargs)
        found.append(out.dtype if isinstance(out, jax.Array) else None)
        return out

    def forward(params, stats, images):
        variables = {"params": params, "batch_stats": stats}
        return forward_in_training(
            lambda v, x, _: module.apply(v, x), variables, images
        )[0]

    with nn.intercept_methods(watch), using(CPU if use else GPU):
        logits = jax.eval_shape(forward, low, variables["batch_stats"], images)
    assert logits.dtype == jnp.bfloat16
    assert {kind for kind in found if kind is not None} == {np.dtype(jnp.bfloat16)}
