import shutil

import numpy as np
import pytest
from PIL import Image

from zcpt_jax.data import TFDS, CropAndFlip, load_dataset, load_splits
from zcpt_jax.data._augment import ResizedCropFlipJitter
from zcpt_jax.types import InputError


def rng(seed=0):
    return np.random.default_rng(seed)


def write_images(root, per_class, shape=(20, 30)):
    for name, count in per_class.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng(i).integers(0, 256, (*shape, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


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
