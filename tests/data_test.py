import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image, ImageOps

from tests.helpers import rng, write_images
from zcpt_jax.data import TFDS, load_dataset, load_splits
from zcpt_jax.data._augment import (
    CropAndFlip,
    ResizedCropFlipJitter,
    fit,
    jitter_colours,
    random_box,
)
from zcpt_jax.data._decode import decode
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


def contents(dataset):
    """Labels and pixels of all images, in an order of their own."""
    source = dataset.source
    read = (source.read(i) for i in range(len(source)))
    return sorted((label, image.tobytes()) for image, label in read)


@pytest.mark.parametrize("test", ["valid", "VAL", "Validation", "test", "Testing"])
@pytest.mark.parametrize("train", ["train", "Train"])
def test_folders_of_splits_are_splits_for_searches_and_trainings(tmp_path, train, test):
    write_images(tmp_path / train, {"ant": 3, "bee": 2})
    write_images(tmp_path / test, {"ant": 1, "bee": 2}, shape=(9, 9))
    (tmp_path / "annotations").mkdir()
    name = f"folder:{tmp_path}"
    alone = load_dataset(f"{name}/{train}")
    searched, splits = load_dataset(name), load_splits(name)
    for data in (searched, splits.train):
        assert contents(data) == contents(alone) and data.mean == alone.mean
    assert contents(splits.test) == contents(load_dataset(f"{name}/{test}"))
    for data in (searched, *splits):  # A trained network is tested by this name.
        assert data.name == name and data.classes == ("ant", "bee")
        assert data.num_classes == 2


@pytest.mark.parametrize("unlabelled", [".", "unknown"])
def test_a_test_folder_without_the_classes_is_passed_over(tmp_path, unlabelled):
    write_images(tmp_path / "train", {"ant": 3, "bee": 2})
    write_images(tmp_path / "val", {"ant": 1, "bee": 1}, shape=(9, 9))
    write_images(tmp_path / "more", {"all": 4})
    (tmp_path / "test").mkdir()
    shutil.copytree(
        tmp_path / "more" / "all", tmp_path / "test" / unlabelled, dirs_exist_ok=True
    )
    shutil.rmtree(tmp_path / "more")
    name = f"folder:{tmp_path}"
    train, test = load_splits(name)
    assert (len(train.source), len(test.source)) == (5, 2)
    assert test.source.read(0)[0].shape == (9, 9, 3)
    write_images(tmp_path / "Testing", {"ant": 1, "bee": 3})
    assert len(load_splits(name).test.source) == 4


def test_a_fifth_is_set_aside_where_the_only_test_has_no_classes(tmp_path):
    write_images(tmp_path / "train", {"ant": 6, "bee": 4})
    write_images(tmp_path, {"test": 3})
    name = f"folder:{tmp_path}"
    assert load_dataset(name).classes == ("ant", "bee")
    train, test = load_splits(name)
    assert (len(train.source), len(test.source)) == (8, 2)
    assert contents(load_dataset(name)) == sorted(contents(train) + contents(test))


def test_hidden_files_and_folders_are_skipped_at_every_level(tmp_path):
    root = write_images(tmp_path / ".sets" / "set", {"ant": 2, "bee": 2})
    clean = contents(load_dataset(f"folder:{root}"))
    for where in (root, root / "ant"):
        for name in (".ipynb_checkpoints", "__MACOSX", ".git"):
            shutil.copytree(root / "bee", where / name)
    shutil.copy(root / "bee" / "0.png", root / "ant" / "._0.png")
    (root / "ant" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    data = load_dataset(f"folder:{root}")
    assert data.classes == ("ant", "bee") and contents(data) == clean


@pytest.mark.parametrize(
    ("suffix", "form"),
    [
        ("jfif", "jpeg"),
        ("JPE", "jpeg"),
        ("jp2", "jpeg2000"),
        ("tga", "tga"),
        ("pcx", "pcx"),
        ("ico", "ico"),
        ("pbm", "ppm"),
        ("dat", "png"),
        ("jpg", "png"),
        ("", "webp"),
    ],
)
def test_images_count_by_their_content(tmp_path, suffix, form):
    root = write_images(tmp_path / "set", {"ant": 2, "bee": 2, "crab": 2}, (32, 32))
    for file in (root / "bee").iterdir():
        to = file.with_suffix(f".{suffix}" if suffix else "")
        picture = Image.open(file)
        file.unlink()
        picture.save(to, form)
    data = load_dataset(f"folder:{root}")
    assert data.classes == ("ant", "bee", "crab") and len(data.source) == 6
    assert [data.source.read(i)[1] for i in range(6)] == [0, 0, 1, 1, 2, 2]


def test_what_is_no_image_is_passed_over_in_a_class(tmp_path):
    root = write_images(tmp_path / "set", {"ant": 2, "bee": 2})
    clean = contents(load_dataset(f"folder:{root}"))
    others = {
        "notes.txt": b"P3 is the best of them",  # begins as a picture in PPM does
        "Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        "features.h5": b"\x89HDF\r\n\x1a\n" + bytes(600),
        "film.mpg": b"\x00\x00\x01\xb3" + bytes(20),
        "empty": b"",
    }
    for name, content in others.items():
        (root / "bee" / name).write_bytes(content)
    assert contents(load_dataset(f"folder:{root}")) == clean
    (root / "bee" / "photo.HEIC").write_bytes(b"\0\0\0\x20ftypheic" + bytes(20))
    with pytest.raises(InputError, match=r"1 of 5 images cannot be read.*photo\.HEIC"):
        load_dataset(f"folder:{root}")


def test_a_class_without_an_image_is_named(tmp_path):
    root = write_images(tmp_path / "set", {"ant": 2, "crab": 2})
    write_images(root, {"bee": 0})
    (root / "bee" / "image.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=f"{root}: no image .* is in bee; .* remove"):
        load_dataset(f"folder:{root}")


def test_the_folder_inside_is_named_where_it_has_the_classes(tmp_path):
    write_images(tmp_path / "train", {"ant": 2, "bee": 2})
    with pytest.raises(
        InputError, match=f"classes; found .*of folder:{tmp_path}/train"
    ):
        load_dataset(f"folder:{tmp_path}")


def grey(shape=(5, 7)):
    """Eight bits that stand for all levels, and the same picture in RGB."""
    levels = rng(4).integers(0, 256, shape, dtype=np.uint8)
    levels[0, :2] = 0, 255
    return levels, np.repeat(levels[..., None], 3, axis=-1)


def write_grey(path, form):
    """Write the levels of :func:`grey` with more than eight bits."""
    levels, _ = grey()
    wide = levels.astype(np.uint16) * 257
    size = f"{wide.shape[1]} {wide.shape[0]}"
    if form == "big-endian.tif":
        picture = Image.frombytes("I;16B", wide.shape[::-1], wide.astype(">u2"))
        picture.save(path)
    elif form == "white-is-zero.tif":
        Image.fromarray(65535 - wide).save(path, tiffinfo={262: 0})
    elif form.endswith("pgm"):
        largest = int(form.split(".")[0])
        pixels = np.rint(levels * (largest / 255)).astype(">u2")
        path.write_bytes(f"P5 {size} {largest}\n".encode() + pixels.tobytes())
    else:
        Image.fromarray(wide).save(path)


@pytest.mark.parametrize(
    "form",
    "png tif jp2 big-endian.tif white-is-zero.tif 65535.pgm 4095.pgm".split(),  # noqa: SIM905
)
def test_sixteen_bits_give_the_pixels_of_eight(tmp_path, form):
    path = tmp_path / f"x.{form}"
    write_grey(path, form)
    np.testing.assert_array_equal(decode(path), grey()[1])


def test_sixteen_bits_are_rounded(tmp_path):
    wide = np.array([[0, 128, 129, 385, 386, 40000, 65406, 65407, 65535]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "x.png")
    expected = [0, 0, 1, 1, 2, 156, 254, 255, 255]  # of v / 257
    assert decode(tmp_path / "x.png")[0, :, 1].tolist() == expected


def test_a_folder_of_sixteen_bits_equals_that_of_eight(tmp_path):
    for label, name in enumerate(("ant", "bee")):
        for bits in ("8", "16"):
            (tmp_path / bits / name).mkdir(parents=True)
        levels = rng(label).integers(0, 256, (9, 9), dtype=np.uint8)
        Image.fromarray(levels).save(tmp_path / "8" / name / "x.png")
        wide = levels.astype(np.uint16) * 257
        Image.fromarray(wide).save(tmp_path / "16" / name / "x.png")
    eight, sixteen = (load_dataset(f"folder:{tmp_path / bits}") for bits in ("8", "16"))
    assert contents(eight) == contents(sixteen)
    assert (eight.mean, eight.std) == (sixteen.mean, sixteen.std)


@pytest.mark.parametrize(("dtype", "mode"), [(np.float32, "F"), (np.int32, "I")])
def test_pixels_of_unknown_range_are_refused(tmp_path, dtype, mode):
    root = write_images(tmp_path / "set", {"ant": 2, "bee": 2})
    Image.fromarray(grey()[0].astype(dtype)).save(root / "bee" / "x.tif")
    message = rf"bee/x\.tif .*unknown range, Pillow's mode {mode}; save it with 8 or 16"
    with pytest.raises(InputError, match=message):
        load_dataset(f"folder:{root}")


@pytest.mark.parametrize("form", ["png", "tif", "jpg"])
def test_folders_are_turned_upright_and_encoded_images_are_not(tmp_path, form):
    root = write_images(tmp_path / "set", {"ant": 1, "bee": 0})
    pixels = rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        path = root / "bee" / f"{orientation}.{form}"
        Image.fromarray(pixels).save(path, exif=exif)
    source = load_dataset(f"folder:{root}").source
    for orientation in range(1, 9):
        path = root / "bee" / f"{orientation}.{form}"
        with Image.open(path) as picture:
            expected = np.asarray(ImageOps.exif_transpose(picture))
        assert expected.shape == ((4, 6, 3) if orientation < 5 else (6, 4, 3))
        np.testing.assert_array_equal(source.read(orientation)[0], expected)
        if form != "tif":  # Pillow turns these itself; TFDS has none.
            assert decode(path.read_bytes()).shape == (4, 6, 3)


def test_datasets_of_one_colour_are_refused(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9), (7, 8, 9)).save(tmp_path / "set" / name / "0.png")
    message = r"all pixels of the 2 images .* same colour, RGB \[7, 8, 9\]"
    with pytest.raises(InputError, match=message):
        load_dataset(f"folder:{tmp_path / 'set'}")
    path = save_npz(tmp_path / "a.npz", **GOOD)
    with pytest.raises(InputError, match=r"all pixels of the 4 images .* \[0, 0, 0\]"):
        load_dataset(f"npz:{path}")
    Image.new("RGB", (9, 9), (7, 8, 10)).save(tmp_path / "set" / "bee" / "0.png")
    assert load_dataset(f"folder:{tmp_path / 'set'}").num_classes == 2


def arrays(names, counts=(12, 4, 6), shape=(8, 8), classes=3):
    """Arrays of splits, named after ``{}_images``, with the labels 0, 1, 2, 0, ..."""
    found = {}
    for seed, (images, labels) in enumerate(names):
        pixels = rng(seed).integers(0, 256, (counts[seed], *shape), dtype=np.uint8)
        found |= {images: pixels, labels: np.arange(counts[seed]) % classes}
    return found


MEDMNIST = [(f"{part}_images", f"{part}_labels") for part in ("train", "val", "test")]
KERAS = [("x_train", "y_train"), ("x_test", "y_test")]


@pytest.mark.parametrize(
    ("names", "tested"),
    [(MEDMNIST, 2), (MEDMNIST[:2], 1), (KERAS, 1)],
    ids=["medmnist", "medmnist without test", "keras"],
)
def test_archives_have_splits_of_medmnist_and_keras(tmp_path, names, tested):
    stored = arrays(names)
    for _, labels in names:
        stored[labels] = stored[labels][:, None]
    name = f"npz:{save_npz(tmp_path / 'a.npz', **stored)}"
    searched, (train, test) = load_dataset(name), load_splits(name)
    for data, part in ((searched, 0), (train, 0), (test, tested)):
        images, labels = (stored[key] for key in names[part])
        assert data.num_classes == 3 and data.mean == searched.mean
        assert len(data.source) == len(images)
        for row in range(len(images)):
            image, label = data.source.read(row)
            np.testing.assert_array_equal(image, images[row][..., None].repeat(3, -1))
            assert label == labels[row, 0]


def test_an_archive_with_training_images_only_is_split(tmp_path):
    stored = arrays(KERAS[:1], counts=(10,)) | {"x_test": np.zeros((3, 8, 8), np.uint8)}
    name = f"npz:{save_npz(tmp_path / 'a.npz', **stored)}"
    train, test = load_splits(name)
    assert (len(train.source), len(test.source)) == (8, 2)
    assert contents(load_dataset(name)) == sorted(contents(train) + contents(test))


def test_a_test_label_that_the_training_lacks_is_refused(tmp_path):
    stored = arrays(KERAS)
    stored["y_test"][0] = 3
    name = f"npz:{save_npz(tmp_path / 'a.npz', **stored)}"
    assert load_dataset(name).num_classes == 3
    with pytest.raises(InputError, match="'y_test' has the labels 3, which 'y_train'"):
        load_splits(name)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, bool])
def test_one_hot_labels_are_taken(tmp_path, dtype):
    stored = arrays([("images", "labels")])
    labels = stored["labels"].tolist()
    stored["labels"] = np.eye(3, dtype=dtype)[labels]
    data = load_dataset(f"npz:{save_npz(tmp_path / 'a.npz', **stored)}")
    assert data.num_classes == 3
    assert [data.source.read(i)[1] for i in range(12)] == labels
    stored["labels"][0] = 1
    path = save_npz(tmp_path / "b.npz", **stored)
    with pytest.raises(InputError, match=r"'labels' is \[12, 3\], but not one-hot"):
        load_dataset(f"npz:{path}")


GAPS = {
    "got 3 different labels, 1, 2, 3. They count from 1: subtract 1": [1, 2, 3],
    "0, 1, 255. Where 255 marks images without a class, leave out": [0, 1, 255],
    "-1, 0, 1. Where -1 marks images without a class, leave out": [-1, 0, 1],
    "100, 200, 1000000000. Number them anew with np.unique": [100, 200, 10**9],
    "0, 2. Number them anew with np.unique": [0, 2],
    "got 12 different labels, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, ...": range(5, 17),
}


@pytest.mark.parametrize("message", GAPS)
def test_labels_with_gaps_are_refused_with_what_to_do(tmp_path, message):
    stored = arrays([("images", "labels")])
    labels = np.resize(list(GAPS[message]), 12)
    path = save_npz(tmp_path / "a.npz", **{**stored, "labels": labels})
    with pytest.raises(InputError) as error:
        load_dataset(f"npz:{path}")
    assert str(error.value).startswith(f"{path}: 'labels' must number the classes")
    assert message in str(error.value)


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
