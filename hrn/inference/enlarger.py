"""Enlarge any image with bounded memory.

The network's DCT and attention pools see the whole feature map, so that an image in parts is not the image as a whole, and
a whole image is not what the network was trained on. There are three modes:

    local    the network with pools and transforms of the size that it was trained on (hrn.inference.local)
    windows  overlapping windows of about that size
    full     as it stands

Images larger than a tile are computed in tiles in modes local and full. `benchmarks/modes.py` measures what each costs and
brings; the default is chosen by its table.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hrn.errors import HRNError
from hrn.inference.ensemble import self_ensemble
from hrn.inference.local import make_local
from hrn.inference.memory import SHARE_OF_FREE, bytes_per_pixel, free_memory, is_out_of_memory
from hrn.inference.tiling import Layout, assemble, strips
from hrn.model.config import Config, HRNConfig
from hrn.runtime import check_gpu_generation, empty_cache, inference_convolutions

TILE = 752
"""Side of the largest tile in LR pixels: beyond it memory grows and time a pixel does not fall."""
TILE_OVERLAP = 32
"""LR pixels that a tile shares with the next."""
BATCH_PIXELS = {"cpu": 2 * 64 * 64, "cuda": 64 * 64 * 64}
"""LR pixels of windows that are computed at once: what stays in the caches of a CPU, or fills a GPU."""
PRECISIONS = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Of convolutions; PyTorch itself takes TF32 for float32 unless told otherwise."""


@dataclass(frozen=True)
class Mode:
    """How an image is given to the network.

    Raises:
        HRNError: an unknown mode, or windows that are smaller than their overlap.
    """

    name: str = "local"
    window: int = 48
    """LR pixels that the network sees: the side of a window, or how wide pools and blocks are in mode local."""
    overlap: int = 16
    """LR pixels that a window shares with the next, in mode windows."""

    def __post_init__(self) -> None:
        if self.name not in MODES:
            raise HRNError(f"the mode must be one of {', '.join(MODES)}, not {self.name}")
        if self.window < 1:
            raise HRNError(f"what the network sees at once must be 1 pixel or more, not {self.window}")
        if self.name == "windows" and not 0 <= self.overlap < self.window:
            raise HRNError(f"windows of {self.window} cannot overlap by {self.overlap}")

    def __str__(self) -> str:
        return {
            "full": "full",
            "windows": f"windows of {self.window}, overlap {self.overlap}",
            "local": f"local, {self.window}",
        }[self.name]

    def computed(self, size: tuple[int, int]) -> int:
        """The LR pixels that are computed of an image or a tile: in mode local, whole blocks."""
        step = self.window if self.name == "local" else 1
        return math.prod(-(-side // step) * step for side in size)

    def layout(self, size: tuple[int, int], pixels: int, batch_pixels: int) -> Layout:
        """How an image is cut so that no more than `pixels` are computed at once.

        Args:
            size: height and width of the image.
            pixels: the most LR pixels that memory allows.
            batch_pixels: the LR pixels that are quickest.

        Raises:
            HRNError: `pixels` are too few.
        """
        if self.name == "windows":
            window = (min(size[0], self.window), min(size[1], self.window))
            if window[0] * window[1] > pixels:
                raise HRNError(f"not enough memory for a window of {self.window} pixels; give more, or smaller windows")
            at_once = max(1, min(pixels, batch_pixels) // (window[0] * window[1]))
            return Layout((self.window, self.window), self.overlap, at_once=at_once)
        if size[0] * size[1] <= TILE * TILE and self.computed(size) <= pixels:
            return Layout(size, 0)
        step = self.window if self.name == "local" else 1  # blocks of neighbouring tiles then coincide
        least = max(step, 16)
        fitting = int(pixels**0.5) - -(-TILE_OVERLAP // step) * step  # the overlap too takes whole blocks
        apart = min(max(TILE - TILE_OVERLAP, least), fitting) // step * step
        if apart < least:
            instead = ", or a smaller window" if self.name == "local" else ""
            raise HRNError(f"not enough memory for a tile of {least + TILE_OVERLAP} pixels; give more{instead}")
        return Layout((apart + TILE_OVERLAP,) * 2, TILE_OVERLAP, aligned=self.name == "local")


MODES = ("local", "windows", "full")


class Enlarger:
    """Enlarges images by one network at one scale, in one way.

    Args:
        network: from :func:`hrn.inference.upscale.load_model`.
        scale: one of the network's scales; its first one by default.
        mode: how the image is given to the network; by default as the table of modes says for this kind of network.
        ensemble: average over the eight flips and quarter turns of the image, at eight times the cost.
        precision: of the convolutions: `fp32`, `bf16`, on a GPU `fp16`, on NVIDIA's `tf32`; the DCT stays float32.
        compile: compile the network; worth its minute for many images in mode windows, whose sizes are few.
        max_memory: bytes to stay within, besides what is held already, for each process; by default what is free, less a
            margin.

    Raises:
        HRNError: a scale that the network does not have, or what the device does not have: the precision, or compiling.
    """

    def __init__(
        self,
        network: nn.Module,
        scale: int | None = None,
        mode: Mode | None = None,
        *,
        ensemble: bool = False,
        precision: str = "fp32",
        compile: bool = False,
        max_memory: int | None = None,
    ) -> None:
        scales = network.config.scales
        self.scale = scale or scales[0]
        if self.scale not in scales:
            raise HRNError(f"this network enlarges by {', '.join(f'x{s}' for s in scales)}, not x{self.scale}")
        self.device = next(network.parameters()).device
        check_precision(precision, self.device)
        if compile and self.device.type == "mps":
            raise HRNError("PyTorch cannot compile the DCT for mps, which has no float64")
        self.mode = mode or default_mode(network.config)
        self.precision, self.ensemble = precision, ensemble
        self.max_memory = max_memory or int(SHARE_OF_FREE * free_memory(self.device))
        self.host_memory = max_memory or int(SHARE_OF_FREE * free_memory(torch.device("cpu")))
        self.bytes_per_pixel = bytes_per_pixel(network, self.scale)
        if self.mode.name == "local":
            network = make_local(network, self.mode.window)
        self._network = torch.compile(network) if compile else network

    def __call__(self, lr: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 to (scale*H, scale*W, 3) uint8; errors as :meth:`strips`."""
        return assemble(self.strips(lr), self.size_of(lr.shape[:2]))

    def describe(self, size: tuple[int, int]) -> str:
        """How the size is reached, for people."""
        return f"x{self.scale}"

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the result for an image of height and width `size`."""
        return size[0] * self.scale, size[1] * self.scale

    def without_ensemble(self) -> "Enlarger":
        """The same, once over each image."""
        other = copy.copy(self)
        other.ensemble = False
        return other

    def strips(self, lr: np.ndarray) -> Iterator[np.ndarray]:
        """Enlarge from the top to the bottom: strips of rows (h, scale*W, 3) uint8 that follow one another.

        Raises:
            HRNError: wrong shape or type, values that are not finite, or too little memory.
        """
        check_image(lr)
        size = lr.shape[:2]
        layout = self.mode.layout(size, self._pixels(size), BATCH_PIXELS.get(self.device.type, 1))
        for strip in strips(self._windows, lr, self.scale, layout):
            with torch.inference_mode():
                done = strip.mul_(255).round_().clamp_(0, 255).byte().numpy()
            del strip
            yield done

    def _pixels(self, size: tuple[int, int]) -> int:
        """The most LR pixels that may be computed at once in an image of this size."""
        # an image of n rows of tiles holds a strip of tiles in float32 while it is filled, and what it carries on
        strip = 2 * 12 * self.scale**2
        area, computed = size[0] * size[1], self.mode.computed(size)
        if self.device.type == "cuda":  # strips are assemble off the GPU
            most, held = self.max_memory // self.bytes_per_pixel, self.host_memory // strip
            return most if area <= held else min(most, held, (held // size[1]) ** 2)
        beside = (self.max_memory - area * strip) // self.bytes_per_pixel  # where a strip has all rows of the image
        if computed <= beside:
            return beside
        # tile**2 * bytes_per_pixel + tile * width * strip <= max_memory
        a, b = self.bytes_per_pixel, size[1] * strip
        tile = int((-b + (b * b + 4 * a * self.max_memory) ** 0.5) / (2 * a))
        return max(beside, min(tile**2, computed - 1))

    def _windows(self, batch: np.ndarray) -> Tensor:
        """Enlarge windows; where memory does not suffice, fewer or smaller ones at once."""
        try:
            return self._forward(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        empty_cache(self.device)
        if len(batch) > 1:
            half = len(batch) // 2
            return torch.cat([self._windows(batch[:half]), self._windows(batch[half:])])
        size = batch.shape[1:3]
        smaller = Mode("full").layout(size, size[0] * size[1] // 4, 1)  # tiles of half the side
        return torch.cat(list(strips(self._windows, batch[0], self.scale, smaller)))[None]

    @torch.inference_mode()
    def _forward(self, batch: np.ndarray) -> Tensor:
        x = torch.tensor(batch, device=self.device).permute(0, 3, 1, 2).float().div_(255)
        dtype = PRECISIONS[self.precision]
        autocast = torch.autocast(self.device.type, dtype) if dtype else nullcontext()
        with inference_convolutions(self.device, tf32=self.precision == "tf32"), autocast:
            sr = self_ensemble(self._run, x) if self.ensemble else self._run(x)
        if not torch.isfinite(sr).all():
            why = "the checkpoint is damaged" if self.precision != "fp16" else "try --precision bf16 or fp32"
            raise HRNError(f"the network gave values that are not finite: {why}")
        return sr.permute(0, 2, 3, 1).cpu()

    def _run(self, x: Tensor) -> Tensor:
        return self._network(x, self.scale).float()


def check_precision(precision: str, device: torch.device) -> None:
    """Raises HRNError unless a device computes in one of PRECISIONS."""
    if precision not in PRECISIONS:
        raise HRNError(f"the precision must be one of {', '.join(PRECISIONS)}, not {precision}")
    if precision == "fp16" and device.type == "cpu":
        raise HRNError("fp16 is for GPUs; a CPU takes bf16 or fp32")
    if precision == "tf32" and (device.type != "cuda" or torch.version.hip):
        raise HRNError("tf32 is for NVIDIA's GPUs; others take bf16, fp16 or fp32, and a CPU bf16 or fp32")
    check_gpu_generation(precision, device)


def check_image(image: np.ndarray) -> None:
    """Raises HRNError unless an array is (H, W, 3) uint8 with pixels."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise HRNError(f"an image must be an (H, W, 3) array of uint8, not {image.shape} of {image.dtype}")


def default_mode(config: Config) -> Mode:
    """Local for the paper's network; the released one is not made for it."""
    return Mode("local" if isinstance(config, HRNConfig) else "full")
