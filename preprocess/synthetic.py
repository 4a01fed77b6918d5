"""Draw synthetic galaxy cutouts as the Sloan survey makes them: light, seeing, sky, stretch, resampling.

The light of a galaxy is put together as flux on the camera's pixel grid, in the bands i, r, g (shown as red, green, blue). It
is blurred by the seeing, given neighbours and sky noise, and stretched to colours. Only then is it enlarged to the cutout,
which makes the sky of real cutouts blotchy. Flux is in units of the sky noise per camera pixel.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image

SIDE = 424
Kind = Literal["spheroid", "disk", "edge-on", "star", "trail"]
BLUE_LIGHT = np.array([0.82, 0.93, 1.25])  # i, r, g of young stars over their mean
RED_LIGHT = np.array([1.30, 1.02, 0.68])  # the same of old stars
# Stretch: levels (of 255) per unit of flux near the sky, how soon it bends, and the level of an empty sky.
SLOPE = 4.6 / 255
SOFTENING = 5.0
SKY_LEVEL = np.array([2.2, 2.5, 0.3]) / 255


@dataclass(frozen=True)
class Galaxy:
    """How a galaxy is drawn. Lengths in pixels of the 424 x 424 cutout, angles in degrees; all others from 0 to 1
    unless stated otherwise.

    `radius`: half-light radius along the long axis (of a star or trail: half its width); `axis_ratio`: short over long axis
    as seen; `position_angle`: of the long axis, from the rows down; `brightness`: mean surface brightness inside `radius`, in
    sky noise; `redness`: 0 young and blue, 1 old and red; `bulge`: its share of the light;
    `sersic_index`: 0.5 to 6, of the spheroid or bulge; `arms`: their number, 0 if none; `pitch`: of the arms, small is
    tightly wound; `fuzziness`: how far the arms are broken up; `disturbance`: a lopsided disk with a tail; `clumps`:
    irregular patches instead of an ordered disk; `companion`: a merging neighbour; `arc`: a lensed blue arc.
    """

    kind: Kind
    radius: float
    axis_ratio: float
    position_angle: float
    brightness: float
    redness: float
    bulge: float = 0.0
    sersic_index: float = 4.0
    boxiness: float = 0.0
    arms: int = 0
    pitch: float = 20.0
    arm_contrast: float = 0.0
    fuzziness: float = 0.0
    bar: float = 0.0
    ring: float = 0.0
    dust: float = 0.0
    disturbance: float = 0.0
    clumps: float = 0.0
    companion: float = 0.0
    arc: float = 0.0


@dataclass(frozen=True)
class Frame:
    """A frame of the camera: `side` camera pixels, each `zoom` cutout pixels wide and turned by `rotation` degrees;
    `seeing`: full width at half maximum of a star in camera pixels; `tint`: (3,) residual sky, in levels of 0 to 1."""

    side: int
    zoom: float
    rotation: float
    seeing: float
    tint: np.ndarray

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y of every camera pixel from the centre, in cutout pixels: two arrays (side, side), float32."""
        line = ((np.arange(self.side) - (self.side - 1) / 2) * self.zoom).astype(np.float32)
        x, y = np.meshgrid(line, line)
        return x, y


def colour_of(redness: float) -> np.ndarray:
    """i, r, g shares of a stellar population, (3, 1, 1), mean 1: redness 0 is blue, 1 is red."""
    colour: np.ndarray = (BLUE_LIGHT * (1 - redness) + RED_LIGHT * redness).astype(np.float32)
    return colour[:, None, None]


def sersic(radius: np.ndarray, index: float) -> np.ndarray:
    """Surface brightness at `radius` (in half-light radii) over that at 1: Sersic 1963, with the constant b_n of
    Ciotti & Bertin 1999 (A&A 352, 447), good to 1e-4 for index >= 0.5."""
    b = 2 * index - 1 / 3 + 4 / (405 * index) + 46 / (25515 * index**2)
    return np.exp(-b * (radius ** (1 / index) - 1))


def moffat(squared_radius: np.ndarray, fwhm: float | np.ndarray, beta: float = 3.0) -> np.ndarray:
    """The image of a star, peak 1 (Moffat 1969): a core like a Gaussian's, with wider wings. Both lengths in one unit."""
    return (1 + squared_radius * (4 * (2 ** (1 / beta) - 1) / fwhm**2)) ** -beta


def stretch(light: np.ndarray, sky: np.ndarray) -> np.ndarray:
    """Flux (3, H, W) of i, r, g -> uint8 (H, W, 3) by the asinh stretch that keeps colours (Lupton et al. 2004, PASP 116, 133).

    `sky`: (3,) the level of an empty sky, 0 to 1. A colour brighter than white is dimmed equally in all bands.
    """
    intensity = np.maximum(light.mean(axis=0), 1e-3)
    faint = SLOPE * SOFTENING * intensity
    levels = light * (np.arcsinh(faint) / (SOFTENING * intensity)) + sky[:, None, None].astype(np.float32)
    levels /= np.maximum(levels.max(axis=0), 1)
    return (levels.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)


def _turn(x: np.ndarray, y: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (x * np.float32(cos) + y * np.float32(sin)), (y * np.float32(cos) - x * np.float32(sin))


def _share(light: np.ndarray, total: float) -> np.ndarray:
    return light * np.float32(total / light.sum())


def _patches(frame: Frame, cells: int, generator: np.random.Generator) -> np.ndarray:
    """A random field (side, side) of mean 0 and deviation about 0.7 whose patches are about side / cells wide."""
    coarse = Image.fromarray(generator.normal(size=(cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((frame.side, frame.side), Image.Resampling.BICUBIC))


def _spheroid(galaxy: Galaxy, x: np.ndarray, y: np.ndarray, radius: float, ratio: float) -> np.ndarray:
    along, across = _turn(x, y, galaxy.position_angle)
    power = 2 + 1.6 * galaxy.boxiness
    distance = (np.abs(along) ** power + np.abs(across / ratio) ** power) ** (1 / power)
    return sersic(np.hypot(distance, 0.5) / radius, galaxy.sersic_index)


def _tail(galaxy: Galaxy, x: np.ndarray, y: np.ndarray, patches: np.ndarray, start: float, sweep: float) -> np.ndarray:
    """A tidal tail: one open arm that leaves the galaxy in the direction `start` (radians) and fades over `sweep`."""
    distance = np.hypot(x, y) / galaxy.radius + 1e-3
    turned = (np.arctan2(y, x) - start) % (2 * np.pi)
    spine = 0.8 + 0.9 * turned + 0.2 * patches
    return np.exp(-(((distance - spine) / (0.30 + 0.12 * turned)) ** 2) - (turned / sweep) ** 2 * 1.5 + 0.5 * patches)


def _disk(galaxy: Galaxy, frame: Frame, total: float, generator: np.random.Generator) -> np.ndarray:
    """A disk with arms, bar, ring and knots of young stars, or with patches, seen at an inclination: (3, side, side)."""
    x, y = _turn(*frame.grid(), galaxy.position_angle)
    y = y / galaxy.axis_ratio
    patches = _patches(frame, 14, generator) + 0.6 * _patches(frame, 34, generator)
    bar_angle = generator.uniform(0, 360)
    along, across = _turn(x, y, bar_angle)
    scale, bar_length = galaxy.radius / 1.68, 0.95 * galaxy.radius
    angle = np.arctan2(across, along)
    distance = np.hypot(x, y) * (1 - 0.35 * galaxy.disturbance * np.cos(angle - 1)) + 0.5
    smooth = np.exp(-distance / scale - (distance / (5.2 * scale)) ** 6)
    start = bar_length if galaxy.bar > 0.3 else 0.4 * galaxy.radius
    arms = np.zeros_like(smooth)
    if galaxy.arms:
        # Real arms are not perfect spirals: without this wander they look artificial.
        wander = (0.35 + 1.9 * galaxy.fuzziness) * patches
        phase = galaxy.arms * (angle - np.log(distance / start) / np.tan(np.radians(galaxy.pitch))) + wander
        inside = 1 / (1 + np.exp(-(distance - start) / (0.08 * galaxy.radius)))
        ends = np.exp(-((distance / (2.75 * galaxy.radius)) ** 6))
        ridge = np.exp((1.7 + 0.5 * galaxy.arms**0.5) * (np.cos(phase) - 1))
        arms = np.exp(-distance / (1.75 * scale)) * inside * ends * ridge * np.exp(0.45 * patches)
        smooth = smooth * (1 - 0.5 * galaxy.arm_contrast * inside)
    in_arms = 0.50 * galaxy.arm_contrast if galaxy.arms else 0.0
    in_bar, in_ring = 0.30 * galaxy.bar, 0.42 * galaxy.ring
    smooth = smooth * np.exp((0.10 + 1.7 * galaxy.clumps) * patches)
    light = _share(smooth, total * (1 - in_arms - in_bar - in_ring)) * colour_of(galaxy.redness)
    young = 0.4 * galaxy.redness
    if in_arms:
        light += _share(arms, total * in_arms) * colour_of(young)
    if in_bar:
        box = ((np.abs(along) / bar_length) ** 3 + (np.abs(across) / (0.25 * bar_length)) ** 3) ** (1 / 3)
        light += _share(np.exp(-1.2 * box**2.5), total * in_bar) * colour_of(0.5 + 0.5 * galaxy.redness)
    if in_ring:
        ring = np.exp(-(((distance - 1.75 * galaxy.radius) / (0.20 * galaxy.radius)) ** 2) + 0.3 * patches)
        light += _share(ring, total * in_ring) * colour_of(young)
    if galaxy.disturbance:
        tail = _tail(galaxy, x, y, patches, generator.uniform(0, 2 * np.pi), 2.4)
        light += _share(tail, 0.30 * total * galaxy.disturbance) * colour_of(galaxy.redness)
    birthplaces = arms if in_arms else smooth
    knots = int(40 * max(galaxy.arm_contrast * (1 - galaxy.redness), 0.7 * galaxy.clumps))
    places = generator.choice(smooth.size, knots, p=(birthplaces / birthplaces.sum(dtype=np.float64)).ravel())
    flux = 0.0020 * total * generator.exponential(size=knots)
    for band, strength in enumerate(colour_of(-0.2).ravel()):
        np.add.at(light[band].reshape(-1), places, flux * strength)
    return light


def _edge_on(galaxy: Galaxy, frame: Frame, total: float, generator: np.random.Generator) -> np.ndarray:
    """A disk seen edge-on: exponential along, sech^2 across (van der Kruit & Searle 1981), (3, side, side)."""
    along, across = _turn(*frame.grid(), galaxy.position_angle)
    across = across + generator.normal(0, 0.0012) * along**2 / galaxy.radius * 10  # a slight warp
    scale, height = galaxy.radius / 1.4, 0.85 * galaxy.axis_ratio * galaxy.radius
    reach = np.hypot(along, 0.35 * scale)
    disk = np.exp(-reach / scale - (reach / (4.2 * scale)) ** 8) / np.cosh(np.clip(across / height, -30, 30)) ** 2
    disk *= np.exp(0.28 * _patches(frame, 30, generator))
    return _share(disk, total) * colour_of(galaxy.redness)


def _dust(galaxy: Galaxy, frame: Frame, generator: np.random.Generator) -> np.ndarray:
    """The light that a lane of dust along the long axis lets through, 0 to 1, least in blue: (3, side, side)."""
    along, across = _turn(*frame.grid(), galaxy.position_angle)
    width = np.maximum(0.10 * galaxy.radius, 2.0)
    offset = generator.normal(0, 0.35) * width
    depth = np.exp(-(((across - offset) / width) ** 2) - (along / (1.6 * galaxy.radius)) ** 4)
    depth *= np.exp(0.3 * _patches(frame, 40, generator))
    return np.exp(-1.6 * galaxy.dust * np.array([0.75, 1.0, 1.35], np.float32)[:, None, None] * depth)


def galaxy_light(galaxy: Galaxy, frame: Frame, generator: np.random.Generator) -> np.ndarray:
    """The galaxy's light above the atmosphere: flux in i, r, g per camera pixel, float32 (3, side, side)."""
    x, y = frame.grid()
    total = galaxy.brightness * 2 * np.pi * (galaxy.radius / frame.zoom) ** 2 * galaxy.axis_ratio
    if galaxy.kind == "spheroid":
        halo = _spheroid(galaxy, x, y, galaxy.radius, galaxy.axis_ratio)
        light = _share(halo, total) * colour_of(galaxy.redness)
    else:
        body = _disk if galaxy.kind == "disk" else _edge_on
        light = body(galaxy, frame, total * (1 - galaxy.bulge), generator)
        if galaxy.bulge:
            flattening = 0.75 if galaxy.kind == "edge-on" else 0.35 + 0.65 * galaxy.axis_ratio
            core = _spheroid(galaxy, x, y, galaxy.radius * (0.16 + 0.42 * galaxy.bulge), flattening)
            light = light + _share(core, total * galaxy.bulge) * colour_of(0.55 + 0.45 * galaxy.redness)
    if galaxy.dust:
        light = light * _dust(galaxy, frame, generator)
    direction = generator.uniform(0, 2 * np.pi)
    if galaxy.companion:
        shift = galaxy.radius * generator.uniform(1.3, 2.1)
        beside = x - shift * np.cos(direction), y - shift * np.sin(direction)
        other = _spheroid(galaxy, *_turn(*beside, generator.uniform(0, 180)), 0.7 * galaxy.radius, generator.uniform(0.4, 0.9))
        light = light + _share(other, 0.6 * total * galaxy.companion) * colour_of(galaxy.redness * generator.uniform(0.5, 1))
        tail = _tail(galaxy, x, y, _patches(frame, 14, generator), direction + generator.uniform(0, 2 * np.pi), 2.0)
        light = light + _share(tail, 0.25 * total) * colour_of(0.7 * galaxy.redness)
    if galaxy.arc:
        turned = (np.arctan2(y, x) - direction + np.pi) % (2 * np.pi) - np.pi
        arc = np.exp(-(((np.hypot(x, y) - 2.1 * galaxy.radius) / 4.5) ** 2) - (turned / 0.75) ** 4)
        light = light + _share(arc, 0.14 * total * galaxy.arc) * colour_of(-0.3)
    return light.astype(np.float32)


def blur(light: np.ndarray, fwhm: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Convolve (bands, side, side) with a Moffat point spread of unit sum, by FFT: the flux is kept.

    `fwhm`: (bands,) and `shift`: (bands, 2), in pixels. Seeing and position differ slightly between bands, which gives
    the cores of real cutouts their coloured rims.
    """
    side = light.shape[-1]
    line = ((np.arange(side) + side // 2) % side - side // 2).astype(np.float32)
    places = line - shift[:, :, None].astype(np.float32)
    kernel = moffat(places[:, 1, :, None] ** 2 + places[:, 0, None, :] ** 2, fwhm[:, None, None].astype(np.float32))
    transfer = np.fft.rfft2(kernel / kernel.sum(axis=(1, 2), keepdims=True))
    return np.fft.irfft2(np.fft.rfft2(light) * transfer, s=(side, side)).astype(np.float32)


def _add_source(light: np.ndarray, column: float, row: float, flux: np.ndarray, fwhm: float, ratio: float, turn: float) -> None:
    """Add a star, or a small galaxy if ratio < 1, of peak `flux` (3,) at a camera pixel, in place."""
    reach = int(6 * fwhm) + 1
    last_row, last_column = light.shape[1], light.shape[2]
    rows = slice(max(0, int(row) - reach), min(last_row, int(row) + reach))
    columns = slice(max(0, int(column) - reach), min(last_column, int(column) + reach))
    y, x = np.mgrid[rows, columns]
    along, across = _turn(x - column, y - row, turn)
    image = moffat(along**2 + (across / ratio) ** 2, fwhm, 3.0 if ratio == 1 else 2.4)
    light[:, rows, columns] += image * flux[:, None, None]


def _add_bright_star(light: np.ndarray, frame: Frame, column: float, row: float, peak: float, redness: float) -> None:
    """Add a star bright enough to show its halo and the diffraction spikes of the telescope, in place."""
    y, x = np.mgrid[: frame.side, : frame.side]
    x, y = _turn((x - column).astype(np.float32), (y - row).astype(np.float32), 45)
    squared = x**2 + y**2
    halo = 0.0012 * (1 + squared / (6 * frame.seeing) ** 2) ** -1.5
    spikes = sum(np.exp(-((u / (0.4 * frame.seeing)) ** 2) - np.abs(v) / (5 * frame.seeing)) for u, v in ((x, y), (y, x)))
    light += peak * (moffat(squared, frame.seeing, 2.6) + halo + 0.002 * spikes) * colour_of(redness)


def _noise(side: int, generator: np.random.Generator) -> np.ndarray:
    """Sky noise (3, side, side) of deviation about 1.2: partly the same in all bands, and smoother than white noise, because
    the survey's images were resampled and stored as JPEG before the cutouts were made from them."""
    white = generator.standard_normal((4, side + 1, side + 1), np.float32)
    bands = (white[:3] + white[3]) * np.array([0.43, 0.38, 0.46], np.float32)[:, None, None]
    return bands[:, 1:, 1:] + bands[:, :-1, 1:] + bands[:, 1:, :-1] + bands[:, :-1, :-1]


def draw_frame(generator: np.random.Generator) -> Frame:
    """A random camera frame: pixel scale, orientation and seeing vary as in the survey, and a few skies are tinted."""
    zoom, rotation = generator.uniform(1.7, 3.3), generator.uniform(-45, 45)
    turned = abs(np.cos(np.radians(rotation))) + abs(np.sin(np.radians(rotation)))
    side = int(np.ceil((SIDE * turned / zoom + 6) / 16)) * 16  # FFTs of multiples of 16 are fast
    tint = SKY_LEVEL * generator.lognormal(0, 0.3) * generator.lognormal(0, 0.12, 3)
    if generator.random() < 0.06:
        hues = np.array([(1, 0.4, 0.2), (0.5, 1, 0.4), (0.3, 0.6, 1)])
        tint = tint + generator.uniform(0.01, 0.06) * generator.permutation(hues)[0]
    return Frame(side, zoom, rotation, generator.uniform(2.7, 3.9), tint)


def _add_field(light: np.ndarray, frame: Frame, generator: np.random.Generator) -> None:
    """Add the stars and distant galaxies that share the image, few near the centre, in place."""
    for is_star in [True] * generator.poisson(6) + [False] * generator.poisson(13):
        column, row = generator.uniform(0, frame.side, 2)
        peak = (12 + 45 * generator.pareto(0.9)) if is_star else 5 + 12 * generator.pareto(1.6)
        centre = np.hypot(column - frame.side / 2, row - frame.side / 2) * frame.zoom
        if centre < 75 and (peak > 80 or generator.random() < 0.5):
            continue  # volunteers would take a bright object in the centre for the galaxy in question
        redness = generator.uniform(-0.6, 1.9) if is_star else generator.uniform(0.1, 1.4)
        flux = min(peak, 900.0) * colour_of(redness).ravel()
        if is_star:
            _add_source(light, column, row, flux, frame.seeing, 1.0, 0.0)
        else:
            fwhm = frame.seeing * generator.uniform(1.1, 2.0)
            _add_source(light, column, row, flux, fwhm, generator.uniform(0.5, 0.99), generator.uniform(0, 180))
    if generator.random() < 0.07:
        angle, distance = generator.uniform(0, 2 * np.pi), generator.uniform(150, 260) / frame.zoom
        column, row = frame.side / 2 + distance * np.cos(angle), frame.side / 2 + distance * np.sin(angle)
        _add_bright_star(light, frame, column, row, generator.uniform(2e3, 1e4), generator.uniform(-0.2, 1.3))


def draw_cutout(galaxy: Galaxy, generator: np.random.Generator) -> Image.Image:
    """Draw the cutout of `galaxy`: RGB, 424 x 424, the galaxy in the centre. The same generator state gives the same pixels."""
    frame = draw_frame(generator)
    galaxy = replace(galaxy, position_angle=galaxy.position_angle + frame.rotation)  # as the turned camera sees it
    middle = (frame.side - 1) / 2 + generator.normal(0, 0.4, 2)
    if galaxy.kind in ("star", "trail"):
        light = np.zeros((3, frame.side, frame.side), np.float32)
        if galaxy.kind == "star":
            _add_bright_star(light, frame, middle[0], middle[1], 40 * galaxy.brightness, galaxy.redness)
        else:
            _, across = _turn(*frame.grid(), galaxy.position_angle)
            light += galaxy.brightness * np.exp(-((across / galaxy.radius) ** 2)) * colour_of(galaxy.redness)
    else:
        fwhm, shift = frame.seeing * generator.normal(1, 0.06, 3), generator.normal(0, 0.12, (3, 2))
        light = blur(galaxy_light(galaxy, frame, generator), fwhm, shift)
    _add_field(light, frame, generator)
    light += _noise(frame.side, generator) * np.sqrt(1 + np.maximum(light, 0) / 45)
    picture = Image.fromarray(stretch(light, frame.tint))
    cos, sin = (f(np.radians(frame.rotation)) / frame.zoom for f in (np.cos, np.sin))
    offsets = (frame.side - SIDE * (cos - sin)) / 2, (frame.side - SIDE * (sin + cos)) / 2
    to_camera = (cos, -sin, offsets[0], sin, cos, offsets[1])
    return picture.transform((SIDE, SIDE), Image.Transform.AFFINE, to_camera, Image.Resampling.BICUBIC)
