"""The step as a user might write it in PyTorch: VGG16's layers, the same head, Adam, bfloat16, channels_last.

The step alone, on random images in GPU memory, augmented with the same symmetries as ours.
"""

import statistics
import time
from typing import Any

from benchmarks.gpu.settings import Settings, Skip

_CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0: pooling


def _network(size: int) -> Any:
    """float (batch, 3, size, size) -> logits (batch, 37)."""
    from torch import nn

    layers: list[Any] = []
    before = 3
    for channels in _CHANNELS:
        if channels:
            layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU(inplace=True)]
            before = channels
        else:
            layers.append(nn.MaxPool2d(2))
    hidden = [nn.Linear(512 * (size // 32) ** 2, 1024), nn.ReLU(), nn.Dropout(0.5), nn.Linear(1024, 1024), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), *hidden, nn.Linear(1024, 37))


def _time_step(settings: Settings, device: str, batch_size: int, precision: str, compiled: bool) -> None:
    import torch

    size, rounds, steps = settings.size, *((1, 1) if settings.small else (5, 20))
    network = _network(size).to(device, memory_format=torch.channels_last)
    adam = torch.optim.Adam(network.parameters(), 1e-5)
    images = torch.randint(0, 256, (batch_size, 3, size, size), dtype=torch.uint8, device=device)
    targets, chosen = torch.rand(batch_size, 37, device=device), torch.rand(3, batch_size, 1, 1, 1, device=device) < 0.5

    def loss(images: Any, targets: Any, chosen: Any) -> Any:
        images = torch.where(chosen[0], images.transpose(2, 3), images)
        images = torch.where(chosen[1], images.flip(2), images)
        images = torch.where(chosen[2], images.flip(3), images)
        scaled = ((images.float() - 100) / 58).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(scaled)
        return (torch.sigmoid(logits.float()) - targets).square().mean()

    timed_loss = torch.compile(loss) if compiled else loss

    def rate() -> float:
        """Images per second in one round of steps."""
        began = time.perf_counter()
        for _ in range(steps):
            adam.zero_grad(set_to_none=True)
            timed_loss(images, targets, chosen).backward()
            adam.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return round(steps * batch_size / (time.perf_counter() - began), 1)

    rates = [rate() for _ in range(1 + rounds)][1:]  # the first round compiles, and selects the fastest algorithms
    values: dict[str, Any] = {"batch_size": batch_size, "precision": precision, "compiled": compiled}
    values |= {"images_per_second": statistics.median(rates), "slowest": min(rates), "fastest": max(rates)}
    if device == "cuda":
        values["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        torch.cuda.reset_peak_memory_stats()
    settings.record("torch", **values)


def measure(settings: Settings, seconds: float, how: str) -> None:
    """how: "eager" or "compiled"."""
    try:
        import torch
    except ImportError as error:
        raise Skip(f"PyTorch is not installed ({error}): give an interpreter that has it with --torch PYTHON") from error

    device, compiled = "cuda" if torch.cuda.is_available() else "cpu", how == "compiled"
    if device == "cpu" and not settings.small:
        raise Skip("PyTorch finds no GPU")
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as JAX does by default
    for batch_size in (4,) if settings.small else (64, 128) if compiled else (64, 128, 32, 256):
        _time_step(settings, device, batch_size, "bfloat16", compiled)
    if not compiled:
        _time_step(settings, device, 4 if settings.small else 64, "float32", compiled)
