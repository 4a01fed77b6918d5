"""The versions that determine a dataset's bytes: those of this tool and its codecs, in this process."""

from functools import cache
from importlib import metadata

from PIL import __version__ as pillow_version
from PIL import features as pillow_features

from tfrecords import __version__


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


@cache
def tool(fits: bool = False) -> dict[str, str]:
    """Name -> version, as in the manifest. fits: with that of astropy, which draws FITS images."""
    return {
        **({"astropy": _version("astropy")} if fits else {}),
        "galaxy-zoo-vgg16": __version__,
        "pillow": pillow_version,
        "jpeg": str(pillow_features.version("libjpeg_turbo") or pillow_features.version("jpg")),
        "turbojpeg": _version("turbojpeg"),
        "zlib": str(pillow_features.version("zlib")),
    }


def difference(there: dict[str, str] | None, here: dict[str, str]) -> str:
    """The differences between the versions of two processes, in words; empty if there are none."""
    there = there or {}
    names = sorted({*there, *here})
    return "; ".join(
        f"{name} {there.get(name)} instead of {here.get(name)}" for name in names if there.get(name) != here.get(name)
    )
