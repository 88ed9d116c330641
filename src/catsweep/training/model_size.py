"""Measure how large and how fast a generator is, before it is trained: what a sweep may bound.

None of it depends on what the weights are, so a trial that is beyond a bound ends before it has cost anything.
"""

import statistics
import tempfile
import time
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn

from catsweep.models.generator import Generator, draw_latents, evaluating
from catsweep.schema.noted import MILLISECONDS, ONNX_MB, WEIGHTS

WARM_UP, TIMES = 3, 15


def measure(model: Generator, wanted: Collection[str] = ()) -> dict[str, float]:
    """Measure a model on the CPU: its weights, and of the other names of `catsweep.schema.noted` those in `wanted`.

    Returns:
        By name: the numbers that drawing reads (as `generator.onnx` holds them), the median milliseconds in which one
        image is drawn by one thread of this machine, and the megabytes (1e6 bytes) of `generator.onnx`.

    Raises:
        ExportError: ONNX cannot express the model.
    """
    found: dict[str, float] = {WEIGHTS: count_weights(model)}
    if MILLISECONDS in wanted:
        found[MILLISECONDS] = milliseconds(model)
    if ONNX_MB in wanted:
        from catsweep.export.graphs import write_onnx  # seconds, and what it imports

        with tempfile.TemporaryDirectory() as folder:
            write_onnx(model, file := Path(folder) / "generator.onnx")
            found[ONNX_MB] = file.stat().st_size / 1e6
    return found


def count_weights(model: Generator) -> int:
    """Count the numbers in the state of the modules that run when a model draws."""
    assert isinstance(model, nn.Module)
    used: dict[nn.Module, None] = {}
    with ExitStack() as hooks, evaluating(model):
        for module in model.modules():
            hooks.enter_context(module.register_forward_pre_hook(lambda module, _: used.setdefault(module)))
        model.decode(torch.zeros(1, model.latent_size))
    numbers = [tensor for module in used for tensor in (*module.parameters(False), *module.buffers(False))]
    return sum(tensor.numel() for tensor in {id(tensor): tensor for tensor in numbers}.values())


def milliseconds(model: Generator) -> float:
    """Measure the median milliseconds in which one thread draws one image; other threads of torch wait meanwhile."""
    assert isinstance(model, nn.Module)
    latent, threads, taken = draw_latents(1, model.latent_size, seed=0), torch.get_num_threads(), []
    try:
        torch.set_num_threads(1)
        with evaluating(model):
            for _ in range(WARM_UP + TIMES):
                began = time.perf_counter()
                model.decode(latent)
                taken.append(1000 * (time.perf_counter() - began))
    finally:
        torch.set_num_threads(threads)
    return statistics.median(taken[WARM_UP:])
