"""The images and the table of votes that a user has, wherever they lie. The only door to this folder."""

from preprocess.sources.find import (
    IMAGE_SUFFIXES,
    SOLUTIONS_NAMES,
    Source,
    VotesTable,
    find_images,
    find_source,
    solutions_table,
)
from preprocess.sources.listing import PLAIN, ImageReader, Listing

__all__ = [
    "IMAGE_SUFFIXES",
    "PLAIN",
    "SOLUTIONS_NAMES",
    "ImageReader",
    "Listing",
    "Source",
    "VotesTable",
    "find_images",
    "find_source",
    "solutions_table",
]
