"""The fast gradient of max pooling on JAX is that of XLA, bit for bit, and training uses it."""

import subprocess
import sys

import pytest

# In a process of its own: Keras has one backend per process.
GRADIENTS = """
import numpy as np
from trainer.backends.startup import load_backend
load_backend()
import jax, keras
from jax import numpy as jnp
from trainer.backends.pooling import _max_pool

def stock(maps):
    return keras.ops.max_pool(maps, 2, 2)

generator = np.random.default_rng(0)
for dtype in ("float32", "bfloat16"):
    for rows, columns in ((8, 8), (7, 10), (5, 3)):
        # Few levels, as after a ReLU in bfloat16, so that many windows hold their maximum more than once.
        maps = jnp.array(generator.integers(0, 4, (3, rows, columns, 5)), dtype)
        pooled, back = jax.vjp(_max_pool(), maps)
        expected, stock_back = jax.vjp(stock, maps)
        assert (pooled == expected).all()
        gradient = jnp.array(generator.normal(size=pooled.shape), dtype)
        assert (back(gradient)[0] == stock_back(gradient)[0]).all(), (dtype, rows, columns)
        assert back(gradient)[0].dtype == maps.dtype
"""
MODELS = """
import numpy as np
from trainer.backends.startup import load_backend
load_backend()
import jax, keras
from trainer.backends.pooling import with_fast_gradients
from trainer.network.model import Design, build_model

model = build_model(Design(32, {backbone!r}), "none", np.full(37, 0.3), "float32", 0)
fast = with_fast_gradients(model)
assert [id(each) for each in fast.variables] == [id(each) for each in model.variables]
assert not any("backends" in type(layer).__module__ for layer in model.layers)
images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
values = [each.value for each in model.trainable_variables], [each.value for each in model.non_trainable_variables]

def text(which):
    def error(trainable):
        return which.stateless_call(trainable, values[1], images, training=True)[0].sum()
    return jax.jit(jax.grad(error)).lower(values[0]).as_text()

print("select_and_scatter" in text(model), "select_and_scatter" in text(fast))
"""


def _printed(code: str) -> str:
    command = [sys.executable, "-c", f'import os; os.environ["KERAS_BACKEND"] = "jax"\n{code}']
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_each_gradient_goes_to_the_first_maximum_of_its_window() -> None:
    pytest.importorskip("jax")
    _printed(GRADIENTS)


@pytest.mark.parametrize(("backbone", "scatters"), [("vgg16", "False"), ("resnet50", "True")])
def test_windows_of_vgg16_do_not_overlap_so_no_gradient_is_scattered(backbone: str, scatters: str) -> None:
    pytest.importorskip("jax")
    assert _printed(MODELS.format(backbone=backbone)) == f"True {scatters}"
