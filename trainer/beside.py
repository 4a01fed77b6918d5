"""The script that is written beside an export: predictions for a folder of images, with nothing but the runtime of the model.

It reads the image recipe from the model, so it depends only on the format and on the name of the model's file.
"""

_SCRIPT = '''"""Predict a folder of galaxy images: python {script} FOLDER OUT.csv (needs numpy, Pillow and {package})."""
import csv, json, sys
from pathlib import Path
import numpy as np
{imports}
from PIL import Image

here = Path(__file__).resolve().parent
{load}

def crop(path):  # the centred square of the training images, resized as they were; transparent pixels are black
    image = Image.open(path)
    image = (image.convert("RGB") if image.mode == "CMYK" else image).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    side, size = int(recipe["crop_fraction"] * min(image.size) + 0.5), recipe["size"]
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    return np.asarray(image if side == size else image.resize((size, size), Image.LANCZOS), np.float32)

folder = Path(sys.argv[1])
suffixes = {{".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp"}}
paths = {{path.relative_to(folder).with_suffix(""): path for path in folder.rglob("*") if path.suffix.lower() in suffixes}}
numbered = all(name.name.isdecimal() for name in paths)
names = sorted(paths, key=lambda name: int(name.name) if numbered else name.as_posix())
with open(sys.argv[2], "w", newline="") as file:
    table = csv.writer(file)
    table.writerow([recipe["id"], *recipe["columns"]])
    for start in range(0, len(names), 64):
        batch = names[start : start + 64]
        votes = predict(np.stack([crop(paths[name]) for name in batch]))[:, : len(recipe["columns"])]
        table.writerows([name.name if numbered else name.as_posix(), *row] for name, row in zip(batch, votes.tolist()))
'''
_RUNTIMES = {
    "savedmodel": (
        "tensorflow",
        "import tensorflow as tf",
        """model = tf.saved_model.load(str(here))
recipe = json.loads((here / "assets" / "recipe.json").read_text("utf-8"))
predict = lambda images: model.signatures["serving_default"](image=tf.constant(images))["vote_fractions"].numpy()""",
    ),
    "onnx": (
        "onnxruntime",
        "import onnxruntime",
        """session = onnxruntime.InferenceSession(here / {name!r}, providers=["CPUExecutionProvider"])
recipe = json.loads(session.get_modelmeta().custom_metadata_map["recipe"])
predict = lambda images: session.run(["vote_fractions"], {{"image": images}})[0]""",
    ),
    "litert": (
        "ai-edge-litert",
        "from ai_edge_litert.interpreter import Interpreter",
        """runner = Interpreter(str(here / {name!r})).get_signature_runner("serving_default")
recipe = json.loads((here / {beside!r}).read_text("utf-8"))
predict = lambda images: runner(image=images)["vote_fractions"]""",
    ),
}


def recipe_name(model: str) -> str:
    """The name of the file beside a LiteRT model that holds its metadata."""
    return f"{model}.json"


def script_names(model: str) -> tuple[str, str]:
    """Names for the script beside a model, the first if it is free."""
    return "predict.py", f"predict-{model}.py"


def predicting_script(kind: str, model: str, script: str) -> str:
    """The text of the script, for a format and the name of the model's file or folder."""
    package, imports, load = _RUNTIMES[kind]
    load = load.format(name=model, beside=recipe_name(model))
    return _SCRIPT.format(script=script, package=package, imports=imports, load=load)
