import dataclasses
import itertools
import multiprocessing
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.helpers import rng, write_images
from zcpt_jax.data import (
    TFDS,
    CropAndFlip,
    ResizedCropFlipJitter,
    Splits,
    load_dataset,
    load_splits,
)
from zcpt_jax.training import (
    Augmentation,
    DeviceData,
    HostData,
    augment,
    epoch_order,
    make_input,
)
from zcpt_jax.training._augment import draw
from zcpt_jax.training._host_data import THREADS
from zcpt_jax.training._order import shuffled_rows
from zcpt_jax.types import InputError

ROOT = Path(__file__).resolve().parents[1]


def contents(dataset):
    source = dataset.source
    return sorted(source.read(i)[0].tobytes() for i in range(len(source)))


def test_every_fifth_image_is_set_aside_always_the_same():
    train, test = load_splits("digits", image_size=8)
    assert (len(train.source), len(test.source)) == (1438, 359)
    whole = load_dataset("digits", image_size=8)
    assert sorted(contents(train) + contents(test)) == contents(whole)
    assert contents(load_splits("digits", image_size=8).test) == contents(test)
    labels = [test.source.read(i)[1] for i in range(359)]
    assert set(labels) == set(range(10))
    assert not train.augment.flip


def test_archives_are_split_too_and_one_image_is_not(tmp_path):
    images, labels = rng().integers(0, 256, (9, 8, 8, 3)) / 255, np.arange(9) % 2
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    train, test = load_splits(f"npz:{tmp_path / 'a.npz'}")
    assert (len(train.source), len(test.source)) == (7, 2) and train.augment.flip
    with pytest.raises(InputError, match="unknown dataset 'cifar'"):
        load_splits("cifar")
    with pytest.raises(InputError, match="at least 8, got 4"):
        load_splits("digits", image_size=4)


@pytest.mark.parametrize("name", ["test", "val"])
def test_folders_may_have_a_test_of_their_own(tmp_path, name):
    write_images(tmp_path / "train", {"a": 3, "b": 4})
    write_images(tmp_path / name, {"a": 1, "b": 2}, shape=(9, 9))
    train, test = load_splits(f"folder:{tmp_path}")
    assert (len(train.source), len(test.source)) == (7, 3)
    assert test.mean == train.mean and test.source.read(0)[0].shape == (9, 9, 3)
    write_images(tmp_path / name, {"c": 1})
    with pytest.raises(InputError, match="same classes.*only one of them has any of c"):
        load_splits(f"folder:{tmp_path}")


def test_folders_of_classes_that_are_called_train_and_test_are_classes(tmp_path):
    write_images(tmp_path, {"train": 5, "test": 5})
    train, test = load_splits(f"folder:{tmp_path}")
    assert (len(train.source), len(test.source)) == (8, 2)
    assert train.num_classes == 2


def test_svhn_is_mirrored_by_searches_and_not_by_trainings(monkeypatch):
    from zcpt_jax.data import _tfds

    opened = []
    monkeypatch.setattr(
        _tfds, "_open", lambda name, spec, where: opened.append(spec.split) or [0]
    )
    train, test = load_splits("svhn_cropped")
    assert opened == ["train", "test"]
    assert train.augment == CropAndFlip(32, flip=False)
    assert load_dataset("svhn_cropped").augment == CropAndFlip(32)
    load_splits("imagenet2012")
    assert opened[-2:] == ["train", "validation"]
    assert TFDS["imagenet16_120"].test_split == "validation"


def test_cifar10_has_all_its_images_and_imagenet_its_validation(tfds_dir):
    train, test = load_splits("cifar10", tfds_dir)
    assert (len(train.source), len(test.source)) == (50_000, 10_000)
    assert train.augment == CropAndFlip(32)
    train, test = load_splits("imagenet2012", tfds_dir, image_size=112)
    assert test.name == "imagenet2012" and len(test.source) < len(train.source)
    image, _ = test.source.read(0)
    assert not np.array_equal(image, train.source.read(0)[0])
    assert test.augment.plain(image).shape == (112, 112, 3)


def test_a_split_that_is_missing_is_named(tfds_dir, tmp_path):
    there = shutil.copytree(f"{tfds_dir}/imagenet2012", tmp_path / "imagenet2012")
    info = next(there.glob("*/dataset_info.json"))
    info.chmod(0o644)
    info.write_text(info.read_text().replace('"validation"', '"other"'))
    with pytest.raises(InputError, match="has no split 'validation', only"):
        load_splits("imagenet2012", str(tmp_path))


def test_a_test_image_is_the_centre_of_the_resized_one():
    image = np.zeros((512, 1024, 3), np.uint8)
    image[32:480, 288:736] = 200  # 224 of 256 pixels, at twice the size
    plain = ResizedCropFlipJitter(224).plain(image)
    assert plain.shape == (224, 224, 3) and plain[1:-1, 1:-1].min() == 200
    image[32:480, 288:736], image[:, 200:288] = 0, 200
    assert ResizedCropFlipJitter(224).plain(image)[1:-1, 1:-1].max() == 0


# From here on: what a training reads.

PLACES = Augmentation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), pad=4, flip=True, cutout=16)


augmented = jax.jit(augment, static_argnums=2)


def pixels(count, size=32, seed=0):
    return rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def slowly(image, draws, how):
    """One image, by loops over what the published transformations do."""
    size = len(image)
    padded = np.zeros((size + 2 * how.pad, size + 2 * how.pad, 3), np.uint8)
    padded[how.pad : how.pad + size, how.pad : how.pad + size] = image
    out = padded[draws.top : draws.top + size, draws.left : draws.left + size]
    if how.flip and draws.mirror:
        out = out[:, ::-1]
    out = (out / 255 - np.array(how.mean)) / np.array(how.std)
    half = how.cutout // 2
    for y in range(draws.row - half, draws.row + half):
        for x in range(draws.column - half, draws.column + half):
            if 0 <= y < size and 0 <= x < size:
                out[y, x] = 0
    return out


@pytest.mark.parametrize(
    "how",
    [
        PLACES,
        PLACES._replace(flip=False),
        PLACES._replace(cutout=0),
        PLACES._replace(cutout=8, pad=0),
    ],
)
def test_augmentation_is_what_the_published_transformations_do(how):
    images, key = pixels(64), jax.random.key(3)
    out = augmented(key, images, how)
    assert out.dtype == np.float32
    draws = draw(key, 64, 32, how)
    for i, image in enumerate(images):
        mine = type(draws)(*(int(numbers[i]) for numbers in draws))
        np.testing.assert_allclose(out[i], slowly(image, mine, how), atol=1e-5)


def test_draws_are_uniform_over_all_their_values():
    count = 20_000
    draws = draw(jax.random.key(0), count, 32, PLACES)
    for numbers, values in zip(draws, (9, 9, 2, 32, 32), strict=True):
        seen = np.bincount(np.asarray(numbers))
        assert len(seen) == values
        expected = count / values
        assert abs(seen - expected).max() < 4.5 * expected**0.5
    among = np.corrcoef(np.stack(draws))
    assert abs(among - np.eye(5)).max() < 0.035


def test_squares_are_smaller_at_the_border():
    """On each axis 16 + (8 + ... + 15 at one end, 15 + ... + 9 at the other)."""
    white = np.full((4000, 32, 32, 3), 255, np.uint8)
    how = Augmentation((0.0,) * 3, (1.0,) * 3, cutout=16)
    areas = (np.asarray(augmented(jax.random.key(1), white, how))[..., 0] == 0).sum(
        (1, 2)
    )
    side = sum(min(c + 8, 32) - max(c - 8, 0) for c in range(32)) / 32
    assert areas.max() == 256 and areas.min() == 64
    assert abs(areas.mean() / side**2 - 1) < 0.02


def test_an_image_s_randomness_follows_from_key_and_position_alone():
    images, key = pixels(8), jax.random.key(0)
    out = augmented(key, images, PLACES)
    np.testing.assert_array_equal(augmented(key, images[:3], PLACES), out[:3])
    assert (augmented(jax.random.key(1), images, PLACES) != out).any()
    same = augmented(key, np.stack([images[0]] * 8), PLACES)
    assert len({one.tobytes() for one in np.asarray(same)}) == 8


def run_in_step(data, feeds, key):
    step = jax.jit(data.train_inputs)
    return [step(data.resident, feed, key) for feed in feeds]


def digits(**options):
    return make_input(load_splits("digits", image_size=16), **options)


@pytest.fixture(scope="module")
def small():
    return digits(cutout=4)


ON_EIGHT = """
import jax, numpy as np, sys
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
from jax.sharding import NamedSharding, PartitionSpec
from zcpt_jax.data import load_splits
from zcpt_jax.training import make_input
from zcpt_jax.types import InputError
kinds = (jax.sharding.AxisType.Auto,)
mesh = jax.make_mesh((8,), ("data",), axis_types=kinds)
batch = NamedSharding(mesh, PartitionSpec("data"))
for number, limit in enumerate((1 << 30, 0)):
    splits = load_splits("digits", image_size=16)
    with make_input(splits, cutout=4, sharding=batch, device_bytes=limit) as data:
        feed = next(data.train_batches(5, 64, 3))
        assert len(feed.data.sharding.device_set) == 8
        assert feed.data.addressable_shards[0].data.shape[0] == 8
        step = jax.jit(data.train_inputs)
        out = step(data.resident, feed, jax.random.key(2))
        # Each device augments what it has, and nothing is sent around.
        assert out.images.addressable_shards[0].data.shape[0] == 8
        compiled = step.lower(data.resident, feed, jax.random.key(2)).compile()
        assert "all-" not in compiled.as_text() and "-permute" not in compiled.as_text()
        test = list(data.test_batches(64))[-1]
        last = jax.jit(data.test_inputs)(data.resident, test)
        np.savez(f"{sys.argv[1]}/{number}.npz", *out, *last)
        try:
            data.train_batches(5, 60)
        except InputError as error:
            assert "multiple of 8" in str(error)
        else:
            raise AssertionError
"""


def test_eight_devices_see_what_one_sees(tmp_path):
    code = [sys.executable, "-c", ON_EIGHT, str(tmp_path)]
    done = subprocess.run(code, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for number, limit in enumerate((1 << 30, 0)):
        with digits(cutout=4, device_bytes=limit) as data:
            assert isinstance(data, DeviceData if limit else HostData)
            (out,) = run_in_step(
                data, [next(data.train_batches(5, 64, 3))], jax.random.key(2)
            )
            test = list(data.test_batches(64))[-1]
            last = data.test_inputs(data.resident, test)
        with np.load(tmp_path / f"{number}.npz") as there:
            for mine, name in zip((*out, *last), there.files, strict=True):
                np.testing.assert_allclose(there[name], mine, atol=1e-6)


TWO_PROCESSES = """
import hashlib, sys
import jax, numpy as np
address, count, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4 // count)
if count > 1:
    jax.distributed.initialize(address, count, number)
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import NamedSharding, PartitionSpec
from zcpt_jax.data import load_splits
from zcpt_jax.training import make_input
kinds = (jax.sharding.AxisType.Auto,)
mesh = jax.make_mesh((4,), ("data",), axis_types=kinds)
batch = NamedSharding(mesh, PartitionSpec("data"))
splits, seen = load_splits("digits", image_size=16), hashlib.sha1()
for limit in (1 << 30, 0):
    with make_input(splits, cutout=4, sharding=batch, device_bytes=limit) as data:
        step, key = jax.jit(data.train_inputs), jax.random.key(1)
        feeds = data.train_batches(5, 64, 2)
        outs = [step(data.resident, next(feeds), key) for _ in range(2)]
        test = jax.jit(data.test_inputs)
        outs += [test(data.resident, feed) for feed in data.test_batches(64)]
        for array in jax.tree.leaves(outs):
            seen.update(np.asarray(process_allgather(array, tiled=True)).tobytes())
print("seen", seen.hexdigest())
"""


@pytest.mark.slow
def test_two_hosts_see_what_one_sees():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, address, str(count), str(number)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for count, number in ((1, 0), (2, 0), (2, 1))
    ]
    try:
        texts = [run.communicate(timeout=300)[0] for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert all(run.returncode == 0 for run in runs), texts
    assert len({text.partition("seen ")[2] for text in texts}) == 1


def test_an_epoch_is_a_permutation_of_its_own():
    order = epoch_order(0, 0, 1000)
    assert order.dtype == np.int32 and sorted(order) == list(range(1000))
    for seed, epoch in ((0, 1), (1, 0)):
        assert (epoch_order(seed, epoch, 1000) != order).mean() > 0.9
    np.testing.assert_array_equal(epoch_order(0, 0, 1000), order)


def test_every_image_counts_once_an_epoch_and_the_rest_fills_up(small):
    steps = small.steps_per_epoch(100)
    assert steps == 15 and small.num_images == 1438
    feeds = list(itertools.islice(small.train_batches(0, 100), steps))
    rows = np.concatenate([feed.data for feed in feeds])
    weights = np.concatenate([feed.weights for feed in feeds])
    assert weights.sum() == 1438 and set(weights) == {0, 1}
    assert sorted(rows[weights == 1]) == list(range(1438))
    np.testing.assert_array_equal(rows[weights == 0], rows[:62])
    tests = list(small.test_batches(100))
    assert [int(feed.weights.sum()) for feed in tests] == [100, 100, 100, 59]
    np.testing.assert_array_equal(tests[1].data, np.arange(100, 200))


def test_a_batch_larger_than_the_dataset_is_filled_up_again_and_again(small):
    feed = next(small.train_batches(0, 4000))
    assert feed.data.shape == (4000,) and feed.weights.sum() == 1438
    assert set(np.asarray(feed.data)) == set(range(1438))


@pytest.mark.parametrize("limit", [1 << 30, 0])
def test_labels_belong_to_images(limit):
    splits = load_splits("digits", image_size=16)
    with make_input(splits, device_bytes=limit) as data:
        feed = next(data.test_batches(50))
        out = data.test_inputs(data.resident, feed)
        rows = epoch_order(7, 0, 1438)[:50]
        train = next(data.train_batches(7, 50))
    mean, std = np.float32(splits.train.mean), np.float32(splits.train.std)
    for i in range(50):
        image, label = splits.test.source.read(i)
        assert out.labels[i] == label
        expected = (image / np.float32(255) - mean) / std
        np.testing.assert_allclose(out.images[i], expected, atol=1e-5)
        assert train.labels[i] == splits.train.source.read(int(rows[i]))[1]


@pytest.mark.parametrize("limit", [1 << 30, 0])
def test_training_goes_on_at_any_step(limit):
    with digits(device_bytes=limit) as data:
        through = list(itertools.islice(data.train_batches(3, 500), 8))
        for start in (1, 3, 7):  # within the first epoch, at its end, in the third
            feeds = data.train_batches(3, 500, start)
            for mine, there in zip(feeds, through[start:], strict=False):
                for a, b in zip(mine, there, strict=True):
                    np.testing.assert_array_equal(a, b)
        assert (through[0].data != through[3].data).any()


@pytest.mark.parametrize("batch_size", [0, -4])
def test_batches_without_images_are_refused(small, batch_size):
    with pytest.raises(InputError, match=f"positive multiple of 1.*{batch_size}"):
        small.train_batches(0, batch_size)
    with pytest.raises(InputError, match=f"positive multiple of 1.*{batch_size}"):
        small.test_batches(batch_size)


def images_of(root, **options):
    """A loader of pictures that are augmented as ImageNet's."""
    train, test = load_splits(f"folder:{root}", image_size=16)
    train = dataclasses.replace(train, augment=ResizedCropFlipJitter(16))
    return HostData(Splits(train, test), **options)


@pytest.fixture
def pictures(tmp_path):
    return write_images(tmp_path / "pictures", {"a": 13, "b": 12})


def take(data, count, **where):
    rows = shuffled_rows(4, 0, data.num_images, 6)
    where = {"process": 0, "processes": 1, **where}
    return list(itertools.islice(data.host_batches(rows, 4, **where), count))


def test_workers_and_processes_have_no_part_in_a_batch(pictures):
    with images_of(pictures, workers=1) as data:
        alone = take(data, 5)
        halves = [take(data, 5, process=i, processes=2) for i in (0, 1)]
    with images_of(pictures, workers=3, ahead=1) as data:
        others = take(data, 5)
    assert alone[0].data.shape == (6, 16, 16, 3) and alone[0].data.dtype == np.uint8
    for one, other, *parts in zip(alone, others, *halves, strict=True):
        for whole, same, *two in zip(one, other, *parts, strict=True):
            np.testing.assert_array_equal(whole, same)
            assert len(two[0]) == 3
            np.testing.assert_array_equal(whole, np.concatenate(two))


def test_an_image_is_augmented_anew_in_each_epoch(pictures):
    with images_of(pictures) as data:
        feeds = take(data, 8)  # two epochs of 20 images
    seen = {}
    for epoch in (0, 1):
        images = np.concatenate([f.data for f in feeds[4 * epoch : 4 * epoch + 4]])
        seen[epoch] = dict(zip(epoch_order(4, epoch, 20), images, strict=False))
    differing = [(seen[0][row] != seen[1][row]).any() for row in range(20)]
    assert len(seen[0]) == 20 and all(differing)


def alive():
    threads = [t for t in threading.enumerate() if t.name.startswith(THREADS)]
    return threads, multiprocessing.active_children()


@pytest.mark.parametrize("processes", [False, True])
def test_worker_processes_give_the_same_and_end_early(pictures, processes):
    with images_of(pictures, workers=1) as data:
        expected = take(data, 1)[0]
    with images_of(pictures, workers=2, processes=processes) as data:
        feeds = data.train_batches(4, 6)
        np.testing.assert_array_equal(next(feeds).data, expected.data)
        assert alive()[processes]
        feeds.close()
    assert alive() == ([], [])


def test_workers_are_a_few_batches_ahead_and_no_more(pictures):
    with images_of(pictures, ahead=2) as data:
        submit, submitted = data._submit, []
        data._submit = lambda job: submitted.extend(job.rows) or submit(job)
        feeds = data.host_batches(shuffled_rows(0, 0, 20, 5), 0, 0, 1)
        next(feeds)
        assert len(submitted) == 15
        next(feeds)
        assert len(submitted) == 20


@pytest.mark.parametrize("processes", [False, True])
def test_a_damaged_image_ends_a_training_with_its_name(pictures, processes):
    with images_of(pictures, workers=2, processes=processes) as data:
        for file in pictures.rglob("*.png"):
            file.write_bytes(file.read_bytes()[:200])
        with pytest.raises(InputError, match=r"cannot read the image .*\.png"):
            list(data.test_batches(4))
        with pytest.raises(InputError, match=r"cannot read the image .*\.png"):
            next(data.train_batches(0, 4))
    assert alive() == ([], [])


def test_a_worker_that_is_killed_ends_a_training(pictures):
    with images_of(pictures, workers=1, processes=True) as data:
        feeds = data.train_batches(0, 4)
        next(feeds)
        for child in multiprocessing.active_children():
            child.kill()
        with pytest.raises(InputError, match="was killed.*fewer than 1 workers"):
            list(feeds)
    assert alive() == ([], [])


def test_what_devices_cannot_augment_is_for_the_host(pictures):
    with images_of(pictures) as data, pytest.raises(TypeError, match="use HostData"):
        DeviceData(data._splits)


def test_cifar10_trains_on_the_device(tfds_dir):
    splits = load_splits("cifar10", tfds_dir)
    few = Splits(splits.train.parts(3000)[0], splits.test.parts(500)[0])
    data = make_input(few, cutout=16)
    assert isinstance(data, DeviceData) and data.image_shape == (32, 32, 3)
    feeds = itertools.islice(data.train_batches(0, 96), 5)
    outs = run_in_step(data, feeds, jax.random.key(0))
    images = np.concatenate([out.images for out in outs])
    blank = (images == 0).all(-1).mean()
    assert 0.17 < blank < 0.22  # 14.06 of 32 pixels on each axis
    plain = jax.jit(data.test_inputs)(data.resident, next(data.test_batches(500)))
    assert abs(plain.images.mean()) < 0.1 and abs(plain.images.std() - 1) < 0.1
    labels = np.bincount(np.asarray(plain.labels), minlength=10)
    assert labels.sum() == 500 and labels.min() > 20


def test_imagenet_trains_from_the_host(tfds_dir):
    splits = load_splits("imagenet2012", tfds_dir, image_size=64)
    with make_input(splits) as data:
        assert isinstance(data, HostData) and data.num_classes == 1000
        feed = next(data.train_batches(0, 16))
        out = jax.jit(data.train_inputs)(data.resident, feed, jax.random.key(0))
        tests = list(data.test_batches(64))
    assert feed.data.dtype == np.uint8 and out.images.shape == (16, 64, 64, 3)
    assert abs(out.images.mean()) < 1 and 0.5 < out.images.std() < 2
    assert sum(float(test.weights.sum()) for test in tests) == data.num_test_images
    image, label = splits.test.source.read(65)
    np.testing.assert_array_equal(tests[1].data[1], splits.test.augment.plain(image))
    assert tests[1].labels[1] == label
