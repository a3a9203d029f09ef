"""Load training patches: the batches of one process, from any step on."""

import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from torch.utils.data import DataLoader

from hrn.data.h5 import H5Pairs
from hrn.data.patches import PatchDataset
from hrn.data.resident import ResidentPatches, image_bytes
from hrn.distributed import Processes
from hrn.errors import HRNError
from hrn.memory import free_memory, local_process_count
from hrn.training.learner import Patches
from hrn.training.recipe import Execution, Recipe, micro_batch_size
from hrn.training.signals import ignore_signals

T = TypeVar("T")
PREFETCH = 2
"""Batches that each worker loads ahead."""
SHARED_MEMORY = Path("/dev/shm")
"""Where workers pass batches to the training process on Linux."""
SHARE_FOR_IMAGES = 0.2
"""Share of the free GPU memory that the training images may take by default."""


def worker_count(requested: int, device: torch.device) -> int:
    """Return the number of DataLoader workers. -1 means 4 with a GPU, otherwise 0."""
    return requested if requested >= 0 else (4 if device.type == "cuda" else 0)


class TrainingData:
    """The batches of one process.

    Args:
        pairs: training images at the scales of the network.
        recipe: training settings.
        execution: how the machine is used.
        processes: this process and its place among the processes of the run.

    Raises:
        HRNError: the batch does not divide evenly, an image is smaller than a patch, or /dev/shm or the GPU's memory is
            too small.
    """

    def __init__(self, pairs: H5Pairs, recipe: Recipe, execution: Execution, processes: Processes) -> None:
        self.recipe, self.processes = recipe, processes
        self.accumulate = execution.accumulate
        self.micro_batch_size = micro_batch_size(recipe, processes.count, execution.accumulate)
        self.patches = PatchDataset(
            pairs,
            patch_size=recipe.patch_size,
            batch_size=recipe.batch_size,
            length=recipe.max_steps * recipe.batch_size,
            seed=recipe.seed,
            permute_channels=recipe.permute_channels,
        )
        self.workers = worker_count(execution.workers, processes.device)
        self.on_gpu = False
        """Whether the images are kept in the memory of the GPU."""
        processes.run_on_all(lambda: self._check_memory(execution.data_on_gpu))

    def batches(self, step: int) -> Iterator[list[Patches]]:
        """Yield this process's share of the batch of each step from `step` on, in `accumulate` micro-batches."""
        device = self.processes.device
        sizes = {"micro_batch_size": self.micro_batch_size, "accumulate": self.accumulate}
        if self.on_gpu:
            return cut_batches(ResidentPatches(self.patches, device), self._indices(step), **sizes)
        return load_batches(self.patches, self._indices(step), **sizes, workers=self.workers, device=device)

    def _indices(self, step: int) -> Iterator[int]:
        """Yield the patches of this process from `step` on."""
        share = self.recipe.batch_size // self.processes.count
        for number in range(step, self.recipe.max_steps):
            first = number * self.recipe.batch_size + self.processes.rank * share
            yield from range(first, first + share)

    def _check_memory(self, requested: bool | None) -> None:
        """Decide where the images are kept, and, if workers load them, check the shared memory."""
        pairs, device = self.patches.pairs, self.processes.device
        self.on_gpu = decide_data_on_gpu(requested, device, image_bytes(pairs))
        if self.on_gpu:
            return
        check_shared_memory(
            workers=self.workers,
            micro_batch_size=self.micro_batch_size,
            patch_size=self.recipe.patch_size,
            scale=max(pairs.scales),
            processes=local_process_count(),
        )


def load_batches(
    patches: PatchDataset,
    indices: Iterator[int],
    *,
    micro_batch_size: int,
    accumulate: int,
    workers: int,
    device: torch.device,
) -> Iterator[list[Patches]]:
    """Yield a process's share of each step's batch, in `accumulate` micro-batches of `micro_batch_size` patches.

    Args:
        patches: the data set.
        indices: the patches of this process, in order.
        micro_batch_size: patches that are computed at once.
        accumulate: micro-batches in a step.
        workers: number of DataLoader workers.
        device: device of the training process. For CUDA, the batches are in pinned memory.

    Raises:
        HRNError: an image cannot be read.
    """
    loader = DataLoader(  # one pass is the whole run, so the workers stay alive
        patches,
        micro_batch_size,
        sampler=indices,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=ignore_signals,
        generator=torch.Generator(),  # leaves the global generator unchanged
        prefetch_factor=PREFETCH if workers else None,
    )
    try:
        yield from _chunks((tuple(batch) for batch in loader), accumulate)
    except HRNError as error:  # from a worker, with the traceback in its message
        raise HRNError(str(error).rsplit(f"{HRNError.__name__}: ", 1)[-1].strip()) from None


def cut_batches(
    patches: ResidentPatches, indices: Iterator[int], *, micro_batch_size: int, accumulate: int
) -> Iterator[list[Patches]]:
    """Yield the same as :func:`load_batches`, from images on the device."""
    yield from _chunks((patches.batch(chunk) for chunk in _chunks(indices, micro_batch_size)), accumulate)


def _chunks(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while chunk := list(islice(items, size)):
        yield chunk


def decide_data_on_gpu(requested: bool | None, device: torch.device, needed: int) -> bool:
    """Return whether to keep the training images on the device. None means on CUDA, if they fit in a fifth of its free memory.

    Args:
        requested: value of `--data_on_gpu`.
        device: device of the training process.
        needed: size of the images in bytes.

    Raises:
        HRNError: it is requested, but the images are larger than the free memory.
    """
    if requested is False or (requested is None and device.type != "cuda"):
        return False
    free = free_memory(device)
    if requested and needed > free:
        raise HRNError(
            f"--data_on_gpu needs {needed / 2**20:,.0f} MiB for the training images, but {device} has "
            f"{free / 2**20:,.0f} MiB free. Use --no-data_on_gpu."
        )
    return requested or needed <= SHARE_FOR_IMAGES * free


def check_shared_memory(*, workers: int, micro_batch_size: int, patch_size: int, scale: int, processes: int) -> None:
    """Check that /dev/shm can hold the batches that the workers load ahead. If it is full, they crash with SIGBUS.

    Args:
        workers: DataLoader workers of a training process.
        micro_batch_size: patches in a batch of a worker.
        patch_size: side of an LR patch.
        scale: the largest scale.
        processes: training processes on this machine.

    Raises:
        HRNError: not enough room.
    """
    if not workers or not SHARED_MEMORY.is_dir():
        return
    batch = micro_batch_size * 3 * patch_size**2 * (1 + scale**2)
    needed = processes * (workers * PREFETCH + 1) * batch  # and one that is being copied
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise HRNError(
            f"--workers {workers} needs {needed / 2**20:,.0f} MiB of shared memory for {processes} process(es), but "
            f"{SHARED_MEMORY} has {free / 2**20:,.0f} MiB free. Use fewer workers, or start Docker with a larger --shm-size."
        )
