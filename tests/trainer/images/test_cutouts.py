"""Every readable image comes once, in order, cropped as the training images were; few are in memory at a time."""

import functools
import sys
import threading
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits as astrofits
from PIL import Image

from tfrecords import images as pixels
from tfrecords.errors import ConfigError, SourceError
from tfrecords.fits.look import Look, Stretch
from trainer.images import ranges
from trainer.images.cutouts import Crop, Cutouts, listed, stream
from trainer.images.photometry import photometry

LOOK = Look(stretch=Stretch(0.5))
HALF, WHOLE_SMALL = Crop(0.5, 32), Crop(1.0, 16)


def _picture(seed: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def _folder(folder: Path, count: int) -> Path:
    """PNGs of noise, 1.png to COUNT.png, each with different pixels."""
    folder.mkdir()
    for galaxy_id in range(1, count + 1):
        Image.fromarray(_picture(galaxy_id)).save(folder / f"{galaxy_id}.png")
    return folder


def outside(*radii: tuple[int, ranges.Range]) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """The function that finds galaxies at another scale. radii: (index into crops, range of half-light radii)."""
    return functools.partial(
        ranges.outside, trained=[ranges.Trained(crop, ranges.Ranges(ends, None, None)) for crop, ends in radii]
    )


def _streamed(path: Path, crops: Sequence[Crop] = (HALF,), batch_size: int = 8, look: Look = LOOK) -> list[Cutouts]:
    with listed(path) as images:
        return list(stream(images, crops, batch_size, look))


@pytest.mark.parametrize("batch_size", [1, 7, 8, 30, 64])
def test_every_image_comes_once_in_the_order_of_ids_whatever_the_batches(tmp_path: Path, batch_size: int) -> None:
    batches = _streamed(_folder(tmp_path / "images", 30), batch_size=batch_size)
    assert [len(batch.galaxy_ids) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert np.concatenate([batch.galaxy_ids for batch in batches]).tolist() == list(range(1, 31))
    found = np.concatenate([batch.crops[0] for batch in batches])
    np.testing.assert_array_equal(found, [_picture(galaxy_id)[16:48, 16:48] for galaxy_id in range(1, 31)])


def test_each_crop_asked_for_is_that_of_preprocessing(tmp_path: Path) -> None:
    (batch,) = _streamed(_folder(tmp_path / "images", 5), [HALF, WHOLE_SMALL])
    for crop, made in zip((HALF, WHOLE_SMALL), batch.crops, strict=True):
        np.testing.assert_array_equal(made, [pixels.crop(_picture(galaxy_id), *crop) for galaxy_id in range(1, 6)])
    assert not batch.enlarged.any() and not batch.notes and not batch.outside.any()


@pytest.mark.parametrize("packed", ["zip", "stored zip in a zip", "deflated zip in a zip"])
def test_images_in_zips_are_those_of_the_folder(tmp_path: Path, packed: str) -> None:
    folder = _folder(tmp_path / "images", 20)
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for image in folder.iterdir():
            file.write(image, image.name)
    if packed != "zip":
        method = zipfile.ZIP_STORED if "stored" in packed else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(tmp_path / "outer.zip", "w", method) as file:
            file.write(path, path.name)
        path = tmp_path / "outer.zip"
    for expected, found in zip(_streamed(folder), _streamed(path), strict=True):
        np.testing.assert_array_equal(found.galaxy_ids, expected.galaxy_ids)
        np.testing.assert_array_equal(found.crops[0], expected.crops[0])


def test_images_that_cannot_be_read_are_named_with_the_reason_and_the_others_come(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "images", 12)
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:200])
    (folder / "NGC 7.jpg").write_text("a letter")
    (folder / "13.fits").write_bytes(b"SIMPLE")
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(folder / "14.png")
    batches = _streamed(folder, batch_size=4)
    rejected = {image.path: image for batch in batches for image in batch.rejected}
    assert np.concatenate([batch.galaxy_ids for batch in batches]).tolist() == [*range(1, 3), *range(4, 13)]
    assert {image.galaxy for image in rejected.values()} == {"3", "13", "14", "NGC 7"}
    assert "not a readable image" in rejected["3.png"].reason
    assert "not a readable FITS image" in rejected["13.fits"].reason
    assert "more than 8 bits" in rejected["14.png"].reason
    for batch in batches:
        expected = [_picture(galaxy_id)[16:48, 16:48] for galaxy_id in batch.galaxy_ids]
        np.testing.assert_array_equal(batch.crops[0], np.reshape(expected, (-1, 32, 32, 3)))


def test_an_image_that_goes_or_changes_while_others_are_read_is_named_too(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "images", 4)
    with listed(folder) as images:
        (folder / "2.png").unlink()
        (folder / "3.png").write_bytes(b"longer" * 10_000)
        (batch,) = stream(images, [HALF], 8, LOOK)
    assert batch.galaxy_ids.tolist() == [1, 4]
    assert [image.reason.partition(": ")[2][:8] for image in batch.rejected] == ["has disa", "has chan"]


def test_a_batch_of_nothing_but_damaged_images_is_empty(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "images", 2)
    for path in folder.iterdir():
        path.write_bytes(b"")
    with listed(folder) as images:
        (batch,) = stream(images, [HALF, WHOLE_SMALL], 8, LOOK, outside((1, (1.0, 2.0))))
    assert [made.shape for made in batch.crops] == [(0, 32, 32, 3), (0, 16, 16, 3)]
    assert len(batch.galaxy_ids) == len(batch.outside) == 0 and len(batch.rejected) == 2


def test_images_of_fewer_pixels_are_marked_and_what_was_done_with_planes_is_counted(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "images", 1)
    Image.fromarray(_picture(2, 62)).save(folder / "2.png")
    flux = np.random.default_rng(3).exponential(0.1, (3, 64, 64)).astype(np.float32)
    astrofits.PrimaryHDU(flux[0]).writeto(folder / "3.fits")
    astrofits.PrimaryHDU(flux).writeto(folder / "4.fit")
    (batch,) = _streamed(folder, [HALF, WHOLE_SMALL])
    assert batch.galaxy_ids.tolist() == [1, 2, 3, 4]
    assert batch.enlarged.tolist() == [False, True, False, False]
    assert batch.notes == {
        "one plane, drawn in grey; give three bands if possible": 1,
        "no names of bands, so the planes are red, green and blue in this order; if not, give --bands": 1,
    }


def test_the_stretch_of_fits_images_is_the_one_given(tmp_path: Path) -> None:
    flux = np.random.default_rng(0).exponential(0.5, (3, 64, 64)).astype(np.float32)
    astrofits.PrimaryHDU(flux).writeto(tmp_path / "1.fits")
    levels = [int(_streamed(tmp_path, look=Look(stretch=Stretch(value)))[0].crops[0].mean()) for value in (5, 1, 0.5)]
    assert levels == sorted(levels) and levels[0] < levels[1] < levels[2]


def test_galaxies_outside_the_range_of_half_light_radii_are_marked(tmp_path: Path) -> None:
    y, x = np.mgrid[:64, :64] - 31.5
    for galaxy_id, radius in enumerate((3, 6, 12, 20), 1):
        light = np.exp(-np.hypot(x, y) / radius * 1.678) * 220
        Image.fromarray(np.repeat(light[..., None], 3, axis=2).astype(np.uint8)).save(tmp_path / f"{galaxy_id}.png")
    crop = Crop(1.0, 64)
    radii = photometry(_streamed(tmp_path, [crop])[0].crops[0]).half_light_radius
    assert np.all(np.diff(radii) > 0)
    with listed(tmp_path) as images:
        middle = (float(radii[1]), float(radii[2]))
        (batch,) = stream(images, [WHOLE_SMALL, crop], 8, LOOK, outside((1, middle)))
        (nothing,) = stream(images, [WHOLE_SMALL, crop], 8, LOOK, outside())
        (either,) = stream(images, [crop], 8, LOOK, outside((0, middle), (0, (float(radii[2]), float(radii[3])))))
    assert batch.outside.tolist() == ["scale", "", "", "scale"]
    assert nothing.outside.tolist() == [""] * 4
    assert either.outside.tolist() == ["scale", "scale", "", "scale"]


def test_no_more_than_two_batches_are_read_ahead(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "images", 40)
    with listed(folder) as images:
        batches = stream(images, [HALF], 4, LOOK)
        first = next(batches)
        for thread in [thread for thread in threading.enumerate() if thread.name.startswith("decode")]:
            thread.join(0.5)  # long enough to read all of them, if there were no bound
        for galaxy_id in range(1, 41):
            (folder / f"{galaxy_id}.png").unlink()
        later = list(batches)
    assert first.galaxy_ids.tolist() == [1, 2, 3, 4]
    read = [galaxy_id for batch in later for galaxy_id in batch.galaxy_ids.tolist()]
    assert set(read) <= set(range(5, 13))
    assert len(read) + sum(len(batch.rejected) for batch in later) == 36


def test_whoever_stops_early_leaves_no_threads_behind(tmp_path: Path) -> None:
    with listed(_folder(tmp_path / "images", 40)) as images:
        batches = stream(images, [HALF], 4, LOOK)
        next(batches)
        batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_a_folder_with_fits_images_says_at_once_that_astropy_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "astropy.io.fits", None)
    folder = _folder(tmp_path / "images", 2)
    assert len(_streamed(folder)) == 1
    (folder / "3.fits").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"pip install .*\[fits\]"), listed(folder):
        pass


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no images"), listed(tmp_path):
        pass


def test_real_galaxies_are_cropped_as_preprocessing_crops_them(kaggle: Path) -> None:
    crop = Crop(0.5, 64)
    with listed(kaggle / "images_test_rev1") as images:
        batch = next(stream(images, [crop], 16, LOOK))
    for galaxy_id, found in zip(batch.galaxy_ids, batch.crops[0], strict=True):
        data = (kaggle / "images_test_rev1" / f"{galaxy_id}.jpg").read_bytes()
        stored = pixels.store(data, pixels.CropSettings(*crop, "png", 95))
        np.testing.assert_array_equal(found, pixels.decode_stored(stored.data, "png", crop.size))
