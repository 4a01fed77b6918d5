"""What one unit of a FITS image is in nanomaggies per pixel, from its header: then bands, cameras and surveys agree."""

import math
import re
from typing import Any

# 1 nanomaggy is 3.631 microjansky: AB magnitude 22.5.
_JANSKY = 1 / 3.631e-6
_ZERO_POINT = 22.5
_PER_PIXEL = re.compile(r"(\s*/\s*pix(el)?|[\s.*]pix(el)?\s*(\^|\*\*)?\s*\(?-1\)?)$", re.IGNORECASE)
_MAGGIES = {"nanomaggy": 1.0, "nanomaggies": 1.0, "nmgy": 1.0, "maggy": 1e9, "maggies": 1e9, "mgy": 1e9}
# The AB magnitude of one unit: Euclid and DES, Pan-STARRS, cutouts of other surveys.
_ZERO_POINTS = ("PHOTZP", "MAGZERO", "MAGZP", "ZP")
# A zero point outside this range is a mistake, or something else.
_PLAUSIBLE = (5.0, 45.0)


def nanomaggies(header: Any, pixel_area: float) -> float | None:
    """Nanomaggies per pixel in one unit of the image; None if the header does not tell.

    BUNIT counts first, then FLUXMAG0 (the flux of magnitude 0), then a zero point (AB). pixel_area: in steradian, or NaN; for
    units of surface brightness.
    """
    for scale in (_of_unit(str(header.get("BUNIT", "")), pixel_area), _of_zero_point(header)):
        if scale is not None and math.isfinite(scale) and scale > 0:
            return scale
    return None


def _of_unit(text: str, pixel_area: float) -> float | None:
    name = _PER_PIXEL.sub("", text.strip())
    if name.lower() in _MAGGIES:
        return _MAGGIES[name.lower()]
    from astropy import units

    try:
        unit = units.Unit(name)
        if unit.is_equivalent(units.Jy):
            return float(unit.to(units.Jy)) * _JANSKY
        if unit.is_equivalent(units.Jy / units.sr):
            return float(unit.to(units.Jy / units.sr)) * pixel_area * _JANSKY
    except (ValueError, TypeError):  # counts, electrons, or a misspelling
        pass
    return None


def _number(header: Any, key: str) -> float:
    try:
        return float(header.get(key, "nan"))
    except (ValueError, TypeError):
        return math.nan


def _of_zero_point(header: Any) -> float | None:
    flux = _number(header, "FLUXMAG0")
    if flux > 0 and math.isfinite(flux):
        return 1e9 / flux
    for key in _ZERO_POINTS:
        if _PLAUSIBLE[0] <= (magnitude := _number(header, key)) <= _PLAUSIBLE[1]:
            return float(10 ** (-0.4 * (magnitude - _ZERO_POINT)))
    return None
