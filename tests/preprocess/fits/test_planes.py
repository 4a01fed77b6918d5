"""A FITS image becomes RGB by Lupton's stretch, north up and east left, or is refused with a reason."""

import io
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits as astrofits
from astropy.visualization import make_lupton_rgb
from astropy.wcs import WCS
from PIL import Image

from preprocess.fits.colour import Stretch, drawn, flux_of
from preprocess.fits.planes import quiet, require_astropy
from tfrecords import symmetries
from tfrecords.errors import ConfigError, ImageError, SettingError
from tfrecords.images import MAX_PIXELS
from tfrecords.symmetries import transformed

STRETCH = Stretch(0.5)
FLUX = np.random.default_rng(0).exponential(0.3, (3, 20, 24)).astype(np.float32)


def _file(*hdus: astrofits.PrimaryHDU | astrofits.ImageHDU) -> bytes:
    buffer = io.BytesIO()
    astrofits.HDUList(list(hdus)).writeto(buffer)
    return buffer.getvalue()


def _read(data: bytes, stretch: Stretch = STRETCH) -> tuple[np.ndarray, bool]:
    """The picture in a FITS file, and whether it is grey."""
    flux = flux_of([("", data)])
    return drawn(flux, stretch), flux.grey


def _decoded(planes: np.ndarray, header: astrofits.Header | None = None, stretch: Stretch = STRETCH) -> np.ndarray:
    with quiet():
        return _read(_file(astrofits.PrimaryHDU(planes, header)), stretch)[0]


def _lupton(planes: np.ndarray, stretch: Stretch = STRETCH) -> np.ndarray:
    """As a FITS viewer shows it: the first row at the bottom."""
    with np.errstate(all="ignore"):
        return make_lupton_rgb(*planes, stretch=stretch.stretch, Q=stretch.q)[::-1]


@pytest.mark.parametrize("stretch", [STRETCH, Stretch(5, 8), Stretch(0.1, 1)])
def test_three_planes_are_red_green_and_blue_in_luptons_stretch(stretch: Stretch) -> None:
    image, grey = _read(_file(astrofits.PrimaryHDU(FLUX)), stretch)
    assert image.dtype == np.uint8 and image.flags.c_contiguous and not grey
    np.testing.assert_array_equal(image, _lupton(FLUX, stretch))
    red = np.stack([FLUX[0], 0 * FLUX[0], 0 * FLUX[0]])
    assert _decoded(red)[..., 0].max() > 200 and _decoded(red)[..., 1:].max() == 0


@pytest.mark.parametrize("shape", [(20, 24), (1, 20, 24)])
def test_one_plane_is_all_three_colours_and_said_to_be_one(shape: tuple[int, ...]) -> None:
    image, grey = _read(_file(astrofits.PrimaryHDU(FLUX[1].reshape(shape))), STRETCH)
    assert grey
    np.testing.assert_array_equal(image, _lupton(FLUX[[1, 1, 1]]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_as_no_light(value: float) -> None:
    holed, empty = FLUX.copy(), FLUX.copy()
    holed[:, 3:5, 7], empty[:, 3:5, 7] = value, 0
    np.testing.assert_array_equal(_decoded(holed), _decoded(empty))


@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4", "f8"])
def test_any_kind_of_number_is_read(kind: str) -> None:
    counts = (FLUX * 30).astype(kind)
    np.testing.assert_array_equal(_decoded(counts, stretch=Stretch(20, 8)), _lupton(counts.astype(float), Stretch(20, 8)))


def test_the_first_hdu_with_an_image_of_two_or_three_axes_is_taken() -> None:
    table = astrofits.BinTableHDU.from_columns([astrofits.Column("id", "J", array=[1, 2])])
    spectrum, image, other = (astrofits.ImageHDU(data) for data in (FLUX[0, 0], FLUX, FLUX[:, ::-1]))
    found, _ = _read(_file(astrofits.PrimaryHDU(), table, spectrum, image, other), STRETCH)
    np.testing.assert_array_equal(found, _lupton(FLUX))


def test_a_tile_compressed_image_is_read() -> None:
    counts = (FLUX[0] * 1000).astype(np.int16)
    packed = _file(astrofits.PrimaryHDU(), astrofits.CompImageHDU(counts))
    image, _ = _read(packed, Stretch(500, 8))
    np.testing.assert_array_equal(image, _lupton(np.stack([counts] * 3).astype(float), Stretch(500, 8)))


# North up, east left


def _header(angle: float, mirrored: bool, planes: int = 2) -> astrofits.Header:
    """For 21 x 21 pixels of 0.36 arcsec centred on RA 150, Dec 60, with north rotated by `angle` degrees."""
    wcs = WCS(naxis=planes)
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    matrix = np.eye(planes)
    matrix[:2, :2] = np.diag([1 if mirrored else -1, 1]) @ np.array([[cos, -sin], [sin, cos]]) * 1e-4
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN", "WAVE"][:planes]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cd = [150.0, 60.0, 1.0][:planes], [11.0, 11.0, 1.0][:planes], matrix
    return wcs.to_header()


def _stars(header: astrofits.Header) -> np.ndarray:
    """Flux (21, 21): a faint star 8 pixels north of the centre, and a bright one 8 pixels east."""
    flux = np.zeros((21, 21), np.float32)
    centre = SkyCoord(150.0, 60.0, unit="deg")
    for light, towards in ((0.1, 0), (2.0, 90)):
        column, row = WCS(header).celestial.world_to_pixel(centre.directional_offset_by(towards * units.deg, 8e-4 * units.deg))
        flux[round(float(row)), round(float(column))] = light
    return flux


def _directions(image: np.ndarray) -> list[tuple[int, int]]:
    """The positions of the faint star and the bright one: pixels down and to the right of the centre."""
    light = image.sum(axis=2).astype(int)
    places = sorted(zip(*np.nonzero(light), strict=True), key=lambda place: light[place])
    return [(int(row) - 10, int(column) - 10) for row, column in places]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [0, 90, 180, 270, 20, -35, 130, 215])
def test_north_is_up_and_east_left_within_45_degrees_whatever_the_camera(angle: float, mirrored: bool) -> None:
    header = _header(angle, mirrored)
    flux = _stars(header)
    north, east = _directions(_decoded(flux, header))
    assert north[0] < 0 and abs(north[1]) < -north[0]
    assert east[1] < 0 and abs(east[0]) < -east[1]
    if angle % 90 == 0:
        assert (north, east) == ((-8, 0), (0, -8))


def test_three_planes_are_turned_as_one() -> None:
    header = _header(90, True, planes=3)
    flux = _stars(_header(90, True))
    assert _directions(_decoded(np.stack([flux] * 3), header)) == [(-8, 0), (0, -8)]


def test_galactic_coordinates_are_turned_to_the_north_of_the_equator() -> None:
    header = _header(0, False)
    header["CTYPE1"], header["CTYPE2"], header["CRVAL1"], header["CRVAL2"] = "GLON-TAN", "GLAT-TAN", 150.0, 60.0
    del header["RADESYS"]
    centre = SkyCoord(150.0, 60.0, unit="deg", frame="galactic").icrs
    flux = np.zeros((21, 21), np.float32)
    for light, towards in ((0.1, 0), (2.0, 90)):
        place = centre.directional_offset_by(towards * units.deg, 8e-4 * units.deg)
        column, row = WCS(header).world_to_pixel(place.galactic)
        flux[round(float(row)), round(float(column))] = light
    north, east = _directions(_decoded(flux, header))
    assert north[0] < 0 and abs(north[1]) < -north[0]
    assert east[1] < 0 and abs(east[0]) < -east[1]


@pytest.mark.parametrize(
    "cards",
    [
        {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"},
        {"CTYPE1": "RA---XXX", "CTYPE2": "DEC--XXX"},
        {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "PC1_1": 0.0, "PC2_2": 0.0},
        {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 1e9, "CDELT1": -1.0, "CDELT2": 1.0},
        {"CTYPE1": "RA---TAN"},
    ],
)
def test_where_the_header_does_not_tell_the_first_row_is_at_the_bottom(cards: dict[str, str | float]) -> None:
    np.testing.assert_array_equal(_decoded(FLUX[0], astrofits.Header(cards)), _lupton(FLUX[[0, 0, 0]]))


# Files that are not images


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a readable FITS image"),
        (b"no fits at all", "not a readable FITS image"),
        (_file(astrofits.PrimaryHDU(FLUX))[:-4000], "not a readable FITS image"),
        (_file(astrofits.PrimaryHDU(FLUX))[:2000], "not a readable FITS image"),
        (_file(astrofits.PrimaryHDU()), "no image of 2 or 3 axes in any of its HDUs"),
        (_file(astrofits.PrimaryHDU(FLUX[None])), "no image of 2 or 3 axes in any of its HDUs"),
        (
            _file(astrofits.PrimaryHDU(FLUX.transpose(1, 2, 0).copy())),
            "its image has the axes 3 x 24 x 20: give width x height, or",
        ),
        (_file(astrofits.PrimaryHDU(FLUX[:2])), "its image has the axes 24 x 20 x 2: give width x height, or"),
        (_file(astrofits.PrimaryHDU(FLUX * np.nan)), "none of its pixels has a finite value"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy's, which `quiet` suppresses for users
        with pytest.raises(ImageError, match=re.escape(reason)) as caught:
            _read(data, STRETCH)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 180


def test_an_absurdly_large_image_is_refused_before_it_is_read() -> None:
    header = astrofits.PrimaryHDU(np.zeros((2, 2), np.uint8)).header
    header["NAXIS1"] = MAX_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ImageError, match="pixels are more than"):
            _read(header.tostring().encode("ascii") + bytes(2880), STRETCH)


@pytest.mark.parametrize("values", [(0, 10), (-1, 10), (0.5, 0), (float("nan"), 10), (0.5, float("inf"))])
def test_a_stretch_that_is_none_is_refused_by_its_flag(values: tuple[float, float]) -> None:
    with pytest.raises(SettingError, match=r"--fits_(stretch|q) .*: must be above 0"):
        Stretch(*values)


def test_without_astropy_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    require_astropy()
    monkeypatch.setitem(sys.modules, "astropy.io.fits", None)
    with pytest.raises(
        ConfigError, match=r"astropy, which is not installed: pip install 'galaxy-zoo-vgg16\[fits\]'$"
    ) as caught:
        require_astropy()
    assert "\n" not in str(caught.value)


def test_astropy_does_not_warn_within_quiet_and_does_after_it() -> None:
    header = astrofits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "MJD-OBS": 55_000.0, "DATE-OBS": "2000-01-01"})
    data = _file(astrofits.PrimaryHDU(FLUX[0], header))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet():
            _read(data, STRETCH)
        assert caught == []
        _read(data, STRETCH)
        assert caught != []


def test_a_real_galaxy_as_fits_looks_as_its_picture(kaggle: Path) -> None:
    path = sorted((kaggle / "images_test_rev1").iterdir())[0]
    picture = np.asarray(Image.open(path))
    # Flux that is stretched to this image: Lupton's formula, solved for the flux.
    light = picture.astype(np.float64)
    mean = light.mean(axis=2, keepdims=True)
    flux_of_mean = np.sinh(mean / 255 * np.arcsinh(0.1 * STRETCH.q) / 0.1) * STRETCH.stretch / STRETCH.q
    flux = light * np.divide(flux_of_mean, mean, out=np.zeros_like(mean), where=mean > 0)
    image = _decoded(np.moveaxis(flux, 2, 0)[:, ::-1])
    unclipped = picture.max(axis=2) < 250
    assert np.abs(image[unclipped].astype(int) - picture[unclipped]).max() <= 1


def test_the_symmetries_are_eight_and_their_steps_are_what_they_do() -> None:
    square = np.arange(12).reshape(2, 2, 3)
    assert len({transformed(square, number).tobytes() for number in range(symmetries.COUNT)}) == 8
    np.testing.assert_array_equal(transformed(square, 0), square)
    rows, columns = np.mgrid[:5, :5]
    places = np.stack([columns, rows], axis=-1)
    for number in range(symmetries.COUNT):
        seen = transformed(places, number)
        right, down = symmetries.steps(number)
        assert (seen[2, 3] - seen[2, 2]).tolist() == right.tolist()
        assert (seen[3, 2] - seen[2, 2]).tolist() == down.tolist()
