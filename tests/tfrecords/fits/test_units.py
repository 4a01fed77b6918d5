"""Flux in one unit or another is the same picture: headers give nanomaggies per pixel."""

import numpy as np
import pytest
from astropy import units
from astropy.io import fits as astrofits

from tests.tfrecords.fits.files import cube, file_of, flux, galaxy, header, picture
from tfrecords.fits.planes import quiet
from tfrecords.fits.units import nanomaggies

NAN = float("nan")
# An AB magnitude of 22.5 is one nanomaggy, by the definition of SDSS; AB magnitude 0 is 3631 Jy (Oke & Gunn 1983).
NANOMAGGY = 3631e-9  # Jy
PIXEL = ((0.396 * units.arcsec) ** 2).to_value(units.sr)
# Of 0.396 arcsec, north up.
SKY = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 24.5, "CRPIX2": 24.5,
       "CD1_1": -0.396 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.396 / 3600}  # fmt: skip
FLUX = galaxy()


def _in_nanomaggies(unit: units.UnitBase) -> float:
    return float((1 * unit).to_value(units.Jy) / NANOMAGGY)


def _zero_point(magnitude: float) -> float:
    """Nanomaggies of a count of 1, by astropy's magnitudes, whose zero is at 3630.78 Jy."""
    return float((magnitude * units.ABmag).to_value(units.Jy) / NANOMAGGY * 3631 / 3630.78)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nanomaggy", 1.0), ("nanomaggies", 1.0), ("NMGY", 1.0), ("nanomaggy/pixel", 1.0), ("nanomaggies / pix", 1.0),
        ("maggies", 1e9), ("Jy", _in_nanomaggies(units.Jy)), ("uJy", _in_nanomaggies(units.uJy)),
        ("mJy/pixel", _in_nanomaggies(units.mJy)), ("nJy", _in_nanomaggies(units.nJy)),
        ("nJy pix-1", _in_nanomaggies(units.nJy)),
        ("uJy.pixel**-1", _in_nanomaggies(units.uJy)),
        ("10**-6 Jy", _in_nanomaggies(units.uJy)),
        ("erg/s/cm2/Hz", _in_nanomaggies(units.erg / units.s / units.cm**2 / units.Hz)),
    ],
)  # fmt: skip
def test_a_unit_of_flux_is_that_many_nanomaggies(text: str, expected: float) -> None:
    with quiet():
        assert nanomaggies(header(BUNIT=text), NAN) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("text", "unit"), [("MJy/sr", units.MJy / units.sr), ("uJy/arcsec2", units.uJy / units.arcsec**2)])
def test_a_surface_brightness_is_multiplied_by_the_area_of_a_pixel(text: str, unit: units.UnitBase) -> None:
    expected = _in_nanomaggies(unit * PIXEL * units.sr)
    assert nanomaggies(header(BUNIT=text), PIXEL) == pytest.approx(expected, rel=1e-6)
    assert nanomaggies(header(BUNIT=text), NAN) is None
    assert flux(cube(FLUX, BUNIT=text, **SKY)).colours.max() == pytest.approx(FLUX.max() * expected, rel=1e-4)


@pytest.mark.parametrize(
    "text", ["", "counts", "count/s", "electron/s", "DN", "ADU", "Jy/beam", "mag", "galaxies", "1", "K", "/"]
)
def test_counts_and_other_units_tell_nothing_without_a_zero_point(text: str) -> None:
    with quiet():
        assert nanomaggies(header(BUNIT=text), PIXEL) is None
        assert nanomaggies(header(BUNIT=text, MAGZERO=25.0), PIXEL) == pytest.approx(_zero_point(25.0), rel=1e-5)


@pytest.mark.parametrize("key", ["PHOTZP", "MAGZERO", "MAGZP", "ZP"])
@pytest.mark.parametrize("magnitude", [22.5, 23.9, 27.0, 30.0])
def test_a_zero_point_is_the_magnitude_of_one_count(key: str, magnitude: float) -> None:
    assert nanomaggies(header(**{key: magnitude}), NAN) == pytest.approx(_zero_point(magnitude), rel=1e-5)
    assert nanomaggies(header(**{key: str(magnitude)}), NAN) == pytest.approx(_zero_point(magnitude), rel=1e-5)


def test_the_flux_of_magnitude_0_is_that_of_hsc() -> None:
    assert nanomaggies(header(FLUXMAG0=63095734448.0194), NAN) == pytest.approx(_zero_point(27.0), rel=1e-5)


@pytest.mark.parametrize(
    "cards", [{"ZP": 0.0}, {"ZP": 99.0}, {"ZP": "none"}, {"FLUXMAG0": 0.0}, {"FLUXMAG0": -1.0}, {"ZP": True}]
)
def test_a_number_that_is_no_zero_point_is_ignored(cards: dict[str, object]) -> None:
    assert nanomaggies(header(**cards), NAN) is None


# Cards of surveys, and what a nanomaggy is in their unit.
SURVEYS = {
    "SDSS": ({"BUNIT": "nanomaggy"}, 1.0),
    "Euclid in uJy": ({"BUNIT": "uJy"}, 3.631),
    "Euclid by its zero point": ({"MAGZERO": 23.9}, 10 ** (0.4 * (23.9 - 22.5))),
    "HSC": ({"FLUXMAG0": 63095734448.0194}, 63.095734448),
    "LSST": ({"BUNIT": "nJy"}, 3631.0),
    "DES": ({"MAGZERO": 30.0}, 1000.0),
    "Webb": ({"BUNIT": "MJy/sr", **SKY}, 3.631e-12 / PIXEL),
}


@pytest.mark.parametrize("survey", SURVEYS)
def test_the_same_galaxy_in_the_unit_of_any_survey_is_the_same_picture(survey: str) -> None:
    cards, unit = SURVEYS[survey]
    turned = picture(cube(FLUX, **SKY)) if "CTYPE1" in cards else picture(cube(FLUX))
    found = picture(cube((FLUX * unit).astype(np.float32), **cards))
    assert np.abs(found.astype(int) - turned).max() <= 1


def test_a_zero_point_in_the_first_hdu_counts_for_all() -> None:
    extension = astrofits.ImageHDU(FLUX * np.float32(63.095734448), name="IMAGE")
    data = file_of(astrofits.PrimaryHDU(header=header(FLUXMAG0=63095734448.0194)), extension)
    assert np.abs(picture(data).astype(int) - picture(cube(FLUX))).max() <= 1


def test_a_unit_of_the_image_itself_counts_before_that_of_the_first_hdu() -> None:
    extension = astrofits.ImageHDU(FLUX, header(BUNIT="nanomaggy"), name="IMAGE")
    np.testing.assert_array_equal(
        picture(file_of(astrofits.PrimaryHDU(header=header(ZP=30.0)), extension)), picture(cube(FLUX))
    )


def test_bands_of_different_units_agree_and_without_all_units_none_counts() -> None:
    def hdus(*cards: dict[str, object]) -> bytes:
        planes = (FLUX[2], FLUX[1] * np.float32(3.631), FLUX[0] * np.float32(1000))
        images = (
            astrofits.ImageHDU(plane, header(**card), name=f"SCI_{band}")
            for band, plane, card in zip("GRZ", planes, cards, strict=True)
        )
        return file_of(astrofits.PrimaryHDU(), *images)

    agreeing = hdus({"BUNIT": "nanomaggy"}, {"BUNIT": "uJy"}, {"MAGZERO": 30.0})
    assert np.abs(picture(agreeing).astype(int) - picture(cube(FLUX))).max() <= 1
    assert flux(hdus({"BUNIT": "nanomaggy"}, {"BUNIT": "uJy"}, {})).colours[..., 0].max() == pytest.approx(1000 * FLUX[0].max())
