"""North is up and east left, to within 45 degrees, whatever the camera: so are the images of training."""

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits as astrofits
from astropy.wcs import WCS

from tests.tfrecords.fits.files import file_of, galaxy, lupton, picture
from tfrecords import symmetries
from tfrecords.symmetries import transformed

FLUX = galaxy()


def _decoded(planes: np.ndarray, header: astrofits.Header) -> np.ndarray:
    return picture(file_of(astrofits.PrimaryHDU(planes, header)))


def _header(angle: float, mirrored: bool, planes: int = 2) -> astrofits.Header:
    """For 21 x 21 pixels of 0.36 arcsec centred on RA 150, Dec 60, with north rotated by `angle` degrees."""
    wcs = WCS(naxis=planes)
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    matrix = np.eye(planes)
    matrix[:2, :2] = np.diag([1 if mirrored else -1, 1]) @ np.array([[cos, -sin], [sin, cos]]) * 1e-4
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN", "WAVE"][:planes]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cd = [150.0, 60.0, 1.0][:planes], [11.0, 11.0, 1.0][:planes], matrix
    return wcs.to_header()


def _sky() -> np.ndarray:
    """Flux (21, 21) too faint to be seen, of no one value: a plane of one value is refused."""
    return np.random.default_rng(0).uniform(0, 1e-6, (21, 21)).astype(np.float32)


def _stars(header: astrofits.Header) -> np.ndarray:
    """Flux (21, 21): a faint star 8 pixels north of the centre, and a bright one 8 pixels east."""
    flux = _sky()
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
    flux = _sky()
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
    np.testing.assert_array_equal(_decoded(FLUX[0], astrofits.Header(cards)), lupton(FLUX[[0, 0, 0]]))


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
