"""The script that is written beside an export: predictions for a folder of images, with nothing but the runtime of the model.

It reads the image recipe from the model, so it depends only on the format and on the name of the model's file.
"""

_SCRIPT = '''"""Predict a folder of galaxy images: python {script} FOLDER OUT.csv (needs numpy, Pillow and {package})."""
import csv, json, re, sys
from pathlib import Path
import numpy as np
{imports}
from PIL import Image

here = Path(__file__).resolve().parent
{load}

def crop(path):  # the centred square of the training images, resized as they were; transparent pixels are black
    image = Image.open(path)
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
        raise ValueError(f"its pixels are of type {{image.mode}}: save it with 8 bits")
    image = (image.convert("RGB") if image.mode in ("CMYK", "YCbCr") else image).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    side, size = int(recipe["crop_fraction"] * min(image.size) + 0.5), recipe["size"]
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    return np.asarray(image if side == size else image.resize((size, size), Image.LANCZOS), np.float32)

folder, suffixes = Path(sys.argv[1]), (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".webp", ".bmp")
paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix.lower() in suffixes]
paths = [path for path in paths if not any(part.startswith((".", "__")) for part in path.relative_to(folder).parts)]
named = {{path.stem: path for path in paths}}
if len(named) < len(paths):
    sys.exit(f"{{folder}}: two images have the same name: predict their folders one by one")
numbered = all(re.fullmatch(r"0|[1-9][0-9]{{0,18}}", name) for name in named)
rows, names = [], sorted(named, key=int if numbered else str)
for start in range(0, len(names), 64):
    batch = {{}}
    for name in names[start : start + 64]:
        try:
            batch[name] = crop(named[name])
        except (OSError, ValueError) as error:
            print(f"{{named[name]}} is left out: {{error}}", file=sys.stderr)
    if batch:
        votes = predict(np.stack([*batch.values()]))
        rows += [[name, *(f"{{value:.9f}}" for value in row)] for name, row in zip(batch, votes)]
with open(sys.argv[2], "w", newline="", encoding="utf-8") as file:
    width = 1 + len(recipe["columns"])
    csv.writer(file, lineterminator="\\n").writerows([[recipe["id"], *recipe["columns"]], *(row[:width] for row in rows)])
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
