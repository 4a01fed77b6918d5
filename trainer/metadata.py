"""What a model needs to be used elsewhere: how its images are made and what its outputs are.

It is in `model.keras` (the entry `galaxy_zoo` of its metadata.json) and in every export, as JSON:

columns          names of the vote fractions, in the order of the outputs
concentrations   keys of the questions whose concentrations follow them, for head dirichlet
id               name of the column of galaxies in tables of predictions
tree, citation   the decision tree, as the text of its TOML file, and the papers to cite
crop_fraction    side of the centred square that is cut from an image, as a fraction of the image's shorter side
size             side to which the square is resized, in pixels
resize_filter, channels, value_range
run              folder, fingerprint of the dataset, settings and version of the training
"""

from typing import Any

from tfrecords.tree import Tree

KEY = "galaxy_zoo"


def model_metadata(folder: str, config: dict[str, Any], tree: Tree) -> dict[str, Any]:
    """The metadata of the model of a run: its folder, the content of its config.json, and its tree."""
    settings, dataset = config["settings"], config["dataset"]
    sure = {"concentrations": [question.key for question in tree.questions]} if settings.get("head") == "dirichlet" else {}
    return {
        "columns": list(tree.columns),
        **sure,
        "id": tree.table_id,
        "tree": tree.text,
        "citation": tree.citation,
        "crop_fraction": dataset.get("crop_fraction"),
        "size": dataset.get("size"),
        "resize_filter": "Lanczos",
        "channels": "RGB",
        "value_range": "0..255 or 0..1, uint8 or float",
        "run": {
            "folder": folder,
            "dataset": dataset.get("fingerprint"),
            "settings": settings,
            "version": config.get("tool", {}).get("galaxy-zoo-vgg16"),
        },
    }
