"""Code that tests run in separate processes: other backends, several devices, several hosts. `children.py NAME ARGUMENTS`."""

import functools
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

BATCH_SIZE = 8


def _two_devices_on_tensorflow() -> None:
    """Split the CPU into two devices. On JAX, XLA_FLAGS does the same."""
    import tensorflow as tf

    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def _training(dataset: Any, devices: Any, make_optimizer: Any, dropout: float, kind: str) -> Any:
    from tests.trainer import small
    from tests.trainer.objective import objective
    from tfrecords.reader import votes_of
    from trainer.network import model

    small.register()
    with devices.scope():
        means = votes_of(dataset, "train", 0).targets.mean(axis=0)
        network = model.build_model(
            model.Design(dataset.size, small.SMALL, scaling="random"), "none", means, devices.precision, seed=3
        )
        network.get_layer("dropout").rate = dropout
        kernel = network.get_layer("vote_fractions").kernel  # zeros would block the gradient of the layers below
        kernel.assign(np.random.default_rng(0).normal(0, 0.03, kernel.shape))
        return devices.steps(network, make_optimizer(network.trainable_variables), objective(kind))


def _batches(dataset: Any, training: Any, devices: Any, skip: int = 0) -> Any:
    from trainer.input.training import TrainingInput

    source = TrainingInput(dataset, BATCH_SIZE, seed=3, share=devices.share)
    return iter(training.ready(source.batches(0, 2, skip)))


def _save(path: Path, arrays: list[np.ndarray]) -> None:
    np.savez(path, **{f"{index:04d}": array for index, array in enumerate(arrays)})


def gradient(folder: str, out: str, dropout: str) -> None:
    """Write OUT/predicted.npz for the test split, OUT/before.npz and OUT/after.npz for one step of gradient descent at rate 1.

    Repeated from the state before it, the step must end with the same bits.
    """
    import keras

    from tfrecords.dataset import open_dataset
    from tfrecords.symmetries import COUNT, transformed
    from trainer.backends.base import WHOLE
    from trainer.backends.choose import choose
    from trainer.input.evaluation import predicted_batches

    def sgd(variables: Any) -> Any:
        made = keras.optimizers.SGD(1.0)
        made.build(variables)
        return made

    dataset, devices = open_dataset(Path(folder)), choose("float32", require_gpu=False)
    training = _training(dataset, devices, sgd, float(dropout), "dihedral")
    parts = list(predicted_batches(training.predict, dataset, "test", BATCH_SIZE, 0, WHOLE))
    np.savez(
        Path(out) / "predicted.npz", ids=np.concatenate([p[0] for p in parts]), votes=np.concatenate([p[1] for p in parts])
    )
    images = np.random.default_rng(1).integers(0, 256, (BATCH_SIZE, dataset.size, dataset.size, 3), np.uint8)
    for number in range(COUNT):  # the symmetries on the devices are those of NumPy, to the last bit
        turned = training.predict(np.ascontiguousarray(transformed(images, number)))()
        assert training._predictor(images, number)().tobytes() == turned.tobytes()
    before = training.state()
    training.train(next(_batches(dataset, training, devices)))
    after = training.state()
    training.restore(before)
    training.train(next(_batches(dataset, training, devices)))
    assert [array.tobytes() for array in training.state()] == [array.tobytes() for array in after]
    _save(Path(out) / "before.npz", before)
    _save(Path(out) / "after.npz", after)
    print(devices.replicas, "devices")


def host(folder: str, out: str, hosts: str, index: str) -> None:
    """Train three steps as one of several processes; write its images, predictions and final state to OUT/INDEX.npz."""
    from tfrecords.dataset import open_dataset
    from trainer.backends.choose import choose
    from trainer.backends.hosts import joined
    from trainer.input.evaluation import predicted_batches
    from trainer.input.training import TrainingInput
    from trainer.network.optimizer import Rate, build_optimizer

    dataset = open_dataset(Path(folder))
    with joined(hosts, int(index), Path(out) / "run") as share:
        devices = choose("float32", require_gpu=False, share=share)
        training = _training(
            dataset, devices, lambda variables: build_optimizer(variables, Rate(3e-4, 2), "float32"), 0.5, "none"
        )
        batches = _batches(dataset, training, devices)
        for _ in range(3):
            training.train(next(batches))
        parts = list(predicted_batches(training.predict, dataset, "test", BATCH_SIZE, 0, share))
        state = training.state()
        targets = [np.asarray(part) for _, part, _ in TrainingInput(dataset, BATCH_SIZE, 3, share=share).batches(0, 1)]
        np.savez(
            Path(out) / f"{index}.npz",
            own=np.concatenate(targets),
            ids=np.concatenate([part[0] for part in parts]),
            votes=np.concatenate([part[1] for part in parts]),
            **{f"state-{place:04d}": array for place, array in enumerate(state)},
        )


def devices() -> None:
    """Join the run that the cluster manager started; print which GPUs JAX may use, and how many devices there are.

    MACHINE stands for the machine.
    """
    import jax

    from trainer.backends import hosts
    from trainer.backends.choose import choose

    hosts.machine_id = lambda: os.environ["MACHINE"]
    with hosts.joined("auto", None, Path(os.environ["OUT"])) as share:
        used = choose("float32", require_gpu=False, share=share)
        allowed = jax.config.read("jax_cuda_visible_devices")
        print(f"{used.replicas} devices, GPUs {allowed}, {hosts.processes_here(share)} processes here", flush=True)


def statistics() -> None:
    """Assert that batch statistics after a step on two devices are those of the whole batch on one."""
    import keras
    import tensorflow as tf

    from tests.trainer.objective import objective
    from trainer.backends.choose import choose
    from trainer.network import backbones, model
    from trainer.network.optimizer import Rate, build_optimizer

    devices = choose("float32", require_gpu=False)
    assert devices.replicas == 2
    layers = [keras.layers.Rescaling(1 / 32), keras.layers.BatchNormalization(), keras.layers.GlobalAveragePooling2D()]
    alone = keras.Sequential([keras.Input((32, 32, 3)), *layers, keras.layers.Dense(37, "sigmoid")])
    with devices.scope():
        resnet = model.architecture(model.Design(32, "resnet50"), "float32", synchronized=devices.splits_batches)
        shared = keras.models.clone_model(alone, clone_function=functools.partial(backbones._stock, synchronized=True))
        training = devices.steps(shared, build_optimizer(shared.trainable_variables, Rate(1e-9), "float32"), objective())
    found = [layer for layer in resnet._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(found) == 53 and all(layer.synchronized for layer in found)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    images[4:] //= 8  # so that the two devices get different statistics
    batches = tf.data.Dataset.from_tensors((images, np.full((8, 37), 0.3, np.float32), np.zeros((8, 7), np.float32)))
    training.train(next(iter(training.ready(batches.unbatch().batch(8)))))
    training.error_sum()
    alone(images, training=True)
    expected = [np.asarray(value) for value in (alone.layers[1].moving_mean, alone.layers[1].moving_variance)]
    assert abs(expected[0]).min() > 0.01
    np.testing.assert_allclose(training.weights()[2:4], expected, rtol=1e-4)
    print("the same")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    if os.environ.get("TENSORFLOW_DEVICES") == "2":
        _two_devices_on_tensorflow()
    {"gradient": gradient, "host": host, "devices": devices, "statistics": statistics}[sys.argv[1]](*sys.argv[2:])
