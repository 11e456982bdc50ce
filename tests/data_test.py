import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.helpers import rng, write_images
from zcpt_jax.data import TFDS, load_dataset
from zcpt_jax.data._augment import (
    CropAndFlip,
    ResizedCropFlipJitter,
    fit,
    jitter_colours,
    random_box,
)
from zcpt_jax.types import InputError

pytestmark = pytest.mark.unit


def save_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_digits_are_real_normalised_and_reproducible():
    data = load_dataset("digits")
    assert len(data.source) == 1797 and data.num_classes == 10
    images, labels, _ = data.batch(rng(), 1000)
    assert images.shape == (1000, 32, 32, 3) and images.dtype == np.float32
    assert labels.dtype == np.int32 and set(labels) == set(range(10))
    assert abs(images.mean()) < 0.1 and abs(images.std() - 1) < 0.1
    again, _, _ = data.batch(rng(), 1000)
    np.testing.assert_array_equal(images, again)
    assert (data.batch(rng(1), 8).images != images[:8]).any()
    assert load_dataset("digits", image_size=16).batch(rng(), 2).images.shape[1] == 16


def test_a_batch_holds_distinct_images():
    data = load_dataset("digits")
    drawn = []
    source = data.source
    read = source.read
    source.read = lambda index: (drawn.append(index), read(index))[1]
    data.batch(rng(), 500)
    assert len(set(drawn)) == 500


@pytest.mark.parametrize("size", [0, -1, 1798])
def test_batches_that_cannot_be_drawn_are_refused(size):
    with pytest.raises(InputError, match=f"from 1 to 1797.*got {size}"):
        load_dataset("digits").batch(rng(), size)


def test_crop_and_flip_shifts_by_an_eighth_at_most_and_mirrors_half():
    image = np.zeros((32, 32, 3), np.uint8)
    image[16, 10] = 255
    seen = set()
    generator = rng()
    for _ in range(400):
        rows, columns = np.nonzero(CropAndFlip(32)(generator, image)[..., 0])
        seen.add((int(rows[0]) - 16, int(columns[0])))
    assert {dy for dy, _ in seen} == set(range(-4, 5))
    straight, mirrored = set(range(6, 15)), set(range(17, 26))
    assert {x for _, x in seen} == straight | mirrored
    for _ in range(50):
        plain = CropAndFlip(32, flip=False)(generator, image)
        assert np.nonzero(plain[..., 0])[1][0] in straight


def test_fit_keeps_the_centre_and_the_aspect():
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 20:60] = 200
    fitted = fit(image, 20)
    assert fitted.shape == (20, 20, 3) and fitted[:, 1:-1].min() == 200
    same = rng().integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert fit(same, 32) is same


def test_random_boxes_have_the_area_and_ratio_of_the_recipe():
    generator = rng()
    for _ in range(500):
        left, top, right, bottom = random_box(generator, 200, 150)
        w, h = right - left, bottom - top
        assert left >= 0 and top >= 0 and right <= 200 and bottom <= 150
        assert 0.07 < w * h / (200 * 150) <= 1
        assert 0.7 < w / h < 1.4
    # No box fits a strip: the largest one of ratio 4/3 from its middle.
    assert random_box(rng(), 1000, 10)[3] <= 10


def test_colour_jitter_keeps_grey_grey_and_changes_colours():
    grey = Image.new("RGB", (4, 4), (100, 100, 100))
    out = np.asarray(jitter_colours(rng(), grey))
    assert (out == out[..., :1]).all() and 55 <= out[0, 0, 0] <= 145
    red = Image.new("RGB", (4, 4), (200, 40, 40))
    turned = [
        np.asarray(jitter_colours(rng(s), red, 0.0, 0.2))[0, 0] for s in range(40)
    ]
    assert len({tuple(t) for t in turned}) > 10
    assert all(abs(int(t.max()) - 200) <= 6 for t in turned)  # hue keeps the value
    augment = ResizedCropFlipJitter(24)
    assert augment(
        rng(), rng().integers(0, 256, (50, 70, 3), dtype=np.uint8)
    ).shape == (
        24,
        24,
        3,
    )


def test_folder_reads_images_of_any_size_with_classes_in_order(tmp_path):
    root = write_images(tmp_path / "set", {"b": 3, "a": 2})
    write_images(tmp_path / "more", {"c": 2}, shape=(64, 48))
    shutil.move(tmp_path / "more" / "c", root / "c")
    (root / "notes.txt").write_text("not an image")
    data = load_dataset(f"folder:{root}")
    assert data.num_classes == 3 and len(data.source) == 7
    images, labels, _ = data.batch(rng(), 7)
    assert images.shape == (7, 32, 32, 3)
    assert sorted(labels.tolist()) == [0, 0, 1, 1, 1, 2, 2]
    assert np.isfinite(images).all()


def test_npz_takes_grey_and_float_images(tmp_path):
    labels = np.arange(6) % 3
    grey = rng().integers(0, 256, (6, 28, 28), dtype=np.uint8)
    a = load_dataset(f"npz:{save_npz(tmp_path / 'a.npz', images=grey, labels=labels)}")
    floats = {"images": grey[..., None] / 255, "labels": labels}
    b = load_dataset(f"npz:{save_npz(tmp_path / 'b.npz', **floats)}")
    assert a.num_classes == b.num_classes == 3
    for x, y in zip(a.batch(rng(), 6)[:2], b.batch(rng(), 6)[:2], strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)


GOOD = {"images": np.zeros((4, 8, 8, 3), np.uint8), "labels": np.array([0, 1, 0, 1])}
BAD_NPZ = {
    "no array 'labels'|no array labels": {"images": GOOD["images"]},
    r"'images' must be \[N, H, W\]": {**GOOD, "images": np.zeros((4, 8), np.uint8)},
    "'labels' must be 4 integers": {**GOOD, "labels": np.zeros(3, int)},
    "must be uint8, or floats": {**GOOD, "images": np.full((4, 8, 8, 3), 7.0)},
    "at least two classes": {**GOOD, "labels": np.zeros(4, int)},
    "is not a readable .npz": {**GOOD, "images": np.array([{}] * 4, object)},
}


@pytest.mark.parametrize("message", BAD_NPZ)
def test_bad_archives_are_refused(tmp_path, message):
    path = save_npz(tmp_path / "bad.npz", **BAD_NPZ[message])
    with pytest.raises(InputError, match=message):
        load_dataset(f"npz:{path}")


def test_missing_and_truncated_archives_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_dataset(f"npz:{tmp_path / 'none.npz'}")
    path = save_npz(tmp_path / "a.npz", **GOOD)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="may be cut off"):
        load_dataset(f"npz:{path}")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY garbage")
        archive.writestr("labels.npy", b"")
    with pytest.raises(InputError, match="may be cut off"):
        load_dataset(f"npz:{path}")


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        load_dataset(f"folder:{tmp_path / 'none'}")
    root = write_images(tmp_path / "set", {"only": 2})
    with pytest.raises(InputError, match=r"at least two classes; found \['only'\]"):
        load_dataset(f"folder:{root}")
    (root / "broken").mkdir()
    (root / "broken" / "x.jpg").write_bytes(b"nothing like a picture")
    with pytest.raises(InputError, match=r"1 of 3 images cannot be read.*x\.jpg"):
        load_dataset(f"folder:{root}")
    # A picture whose end is missing opens, and fails when it is read.
    whole = (root / "only" / "0.png").read_bytes()
    (root / "broken" / "x.jpg").unlink()
    (root / "broken" / "x.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cannot read the image .*x\.png"):
        load_dataset(f"folder:{root}").batch(rng(), 3)


@pytest.mark.parametrize("name", ["cifar", "folder:", "npz:", ""])
def test_unknown_datasets_are_refused_with_the_known_ones(name):
    with pytest.raises(InputError, match="unknown dataset .* known: digits, cifar10"):
        load_dataset(name)


@pytest.mark.parametrize("name", TFDS)
def test_a_missing_dataset_says_how_to_prepare_it(tmp_path, name):
    command = f"launch/prepare_data.py --dataset={name} --data_dir={tmp_path}"
    with pytest.raises(InputError, match=command):
        load_dataset(name, str(tmp_path))


def test_cifar10_comes_from_the_first_half_of_its_training_images(tfds_dir):
    data = load_dataset("cifar10", tfds_dir)
    assert len(data.source) == 25_000 and data.num_classes == 10
    images, labels, _ = data.batch(rng(), 256)
    assert images.shape == (256, 32, 32, 3) and labels.max() == 9
    assert abs(images.mean()) < 0.4 and 0.8 < images.std() < 1.3
    source = tfds.data_source("cifar10", split="train", data_dir=tfds_dir)
    image, label = data.source.read(24_999)
    np.testing.assert_array_equal(image, source[24_999]["image"])
    assert label == source[24_999]["label"]


def test_imagenet_is_cropped_to_size(tfds_dir):
    data = load_dataset("imagenet2012", tfds_dir, image_size=64)
    assert data.batch(rng(), 4).images.shape == (4, 64, 64, 3)
    assert load_dataset("imagenet2012", tfds_dir).image_size == 224


def test_a_truncated_tfds_file_is_refused(tfds_dir, tmp_path):
    shutil.copytree(Path(tfds_dir) / "cifar100", tmp_path / "cifar100")
    file = next((tmp_path / "cifar100").glob("*/*train*"))
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match="is damaged or cut off"):
        load_dataset("cifar100", str(tmp_path))


def test_imagenet16_keeps_the_first_120_classes(monkeypatch):
    """On a data source that answers as TFDS does: encoded images, all classes."""

    class Records:
        def __len__(self):
            return 600

        def __getitem__(self, row):
            return {"image": PNG, "label": row % 1000}

    import io

    from zcpt_jax.data import _tfds

    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (10, 20, 30)).save(buffer, "png")
    PNG = buffer.getvalue()
    monkeypatch.setattr(_tfds, "_open", lambda *args: Records())
    data = load_dataset("imagenet16_120")
    assert len(data.source) == 120 and data.num_classes == 120
    images, labels, _ = data.batch(rng(), 120)
    assert images.shape == (120, 16, 16, 3) and sorted(labels) == list(range(120))
