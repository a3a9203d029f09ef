"""Enlarge any image with bounded memory."""

import copy
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from hrn.data.upscaler import Upscaler
from hrn.errors import HRNError
from hrn.inference.ensemble import VIEWS_AT_ONCE, self_ensemble
from hrn.inference.local import make_local
from hrn.inference.memory import SHARE_OF_FREE, bytes_per_pixel
from hrn.inference.mode import Mode, default_mode
from hrn.inference.tiling import Blender, Layout
from hrn.memory import empty_cache, free_memory, is_out_of_memory
from hrn.runtime import PRECISIONS, check_precision, inference_convolutions, missing_for_compile, warm_up_kernels

ENSEMBLE_BYTES = 3 * 3 * 4
"""Bytes per HR pixel of the self-ensemble: 3 float32 channels of the sum, of the latest result, and of its flipped copy."""
BATCH_PIXELS = {"cpu": 2 * 64 * 64, "cuda": 64 * 64 * 64}
"""Number of LR pixels in a batch of windows, by device type: they fit into the caches of a CPU, or keep a GPU busy."""
STRIP_BYTES = 2 * 3 * 4
"""Bytes per HR pixel of a strip: 3 float32 channels, once for the strip that is being blended and once for the rows that it
passes to the next one."""
HOST_STRIP_BYTES = 2 * 3
"""Bytes per HR pixel of a strip on the host: 3 uint8 channels, once for the strip and once for the copy that is being
written."""


def scales_of(network: nn.Module) -> tuple[int, ...]:
    """Return the scales of a network of :func:`hrn.load_model`. Raises HRNError for another module."""
    if not hasattr(network, "config"):
        raise HRNError(f"{type(network).__name__} is not a network of hrn.load_model")
    return network.config.scales


class Enlarger(Upscaler):
    """Enlarges images with one network at one scale.

    Args:
        network: a network in eval mode, for example from :func:`hrn.inference.upscale.load_model`.
        scale: one of the network's scales; the first one by default.
        mode: how an image is processed; :func:`default_mode` by default.
        ensemble: average over the eight flips and rotations of the image, at eight times the cost.
        precision: precision of the convolutions: `fp32`, `bf16`, `fp16` (GPU only) or `tf32` (NVIDIA only). The DCT always
            runs in float32.
        compile: compile the network. This takes about a minute and pays off for many images of few sizes, as in mode
            windows.
        max_memory: memory budget in bytes for each process, in addition to memory already in use. By default a share of
            the free memory.

    Raises:
        HRNError: the network does not have the scale, is in training mode, is compiled or is not in float32, the device
            does not support the precision or compilation, or a compiler is missing.
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
        scales = scales_of(network)
        self.config, self.scale = network.config, scale or scales[0]
        if self.scale not in scales:
            raise HRNError(f"this network enlarges by {', '.join(f'x{s}' for s in scales)}, not x{self.scale}")
        check_eval_mode(network)
        if hasattr(network, "_orig_mod"):
            raise HRNError("the network is compiled; pass the network itself, with compile=True")
        if (dtype := next(network.parameters()).dtype) != torch.float32:
            raise HRNError(
                f"the network's weights are {dtype}; keep float32 weights and use precision='fp16' or 'bf16'"
            )
        self.device = next(network.parameters()).device
        check_precision(precision, self.device)
        if compile and self.device.type == "mps":
            raise HRNError("compilation is not supported on mps, which lacks float64")
        if compile and (missing := missing_for_compile(self.device)):
            raise HRNError(f"compilation needs {missing}")
        warm_up_kernels()
        self.mode = mode or default_mode(network.config)
        self.precision, self.ensemble, self.compiled = precision, ensemble, compile
        self._size = (0, 0)
        """Height and width of the image that is processed."""
        self._retiled: set[tuple[int, int]] = set()
        """Sizes of images for which memory ran out, so that they were processed in smaller tiles than planned."""
        self._max_memory = max_memory
        self.update_budget()
        self.bytes_per_pixel = bytes_per_pixel(network, self.scale) + ensemble * ENSEMBLE_BYTES * self.scale**2
        if self.mode.name == "local":
            network = make_local(network, self.mode.window)
        self._module = network
        self._network = torch.compile(network) if compile else network

    def update_budget(self) -> None:
        """Set the memory budgets from the memory that is free now, unless `max_memory` was given."""
        self.memory_budget = self._max_memory or int(SHARE_OF_FREE * free_memory(self.device))
        self.host_memory_budget = self._max_memory or int(SHARE_OF_FREE * free_memory(torch.device("cpu")))

    def without_ensemble(self) -> "Enlarger":
        """Return a copy that processes each image once."""
        other = copy.copy(self)
        other.ensemble, other._retiled = False, set()
        return other

    def strips(self, lr: np.ndarray) -> Iterator[np.ndarray]:
        """Enlarge an image (H, W, 3) uint8 and yield strips of rows (h, scale*W, 3) uint8 from top to bottom.

        Raises:
            HRNError: the image has the wrong shape or type, the result is not finite, or memory is too small.
        """
        check_image(lr)
        self._size = lr.shape[:2]
        image = torch.from_numpy(np.require(lr, requirements=["C_CONTIGUOUS", "WRITEABLE"]))
        for strip in self._strips(image, self.layout(lr.shape[:2])):
            rounded = _to_uint8(strip).cpu().numpy()
            del strip  # frees the float32 strip while the caller uses the uint8 one
            yield rounded

    @torch.no_grad()
    def enlarge_tensor(self, lr: Tensor) -> Tensor:
        """Enlarge a batch of images.

        Args:
            lr: (B, 3, H, W) floating point, in [0, 1].

        Returns:
            (B, 3, scale*H, scale*W) float32 on the network's device, clamped to [0, 1].

        Raises:
            HRNError: the tensor has the wrong shape or type, it or the result is not finite, or memory is too small.
        """
        if lr.ndim != 4 or lr.shape[1] != 3 or not lr.is_floating_point() or not lr.numel():
            raise HRNError(f"expected a (B, 3, H, W) floating-point tensor, got {tuple(lr.shape)} {lr.dtype}")
        size = self._size = tuple(lr.shape[2:])
        images = lr.to(self.device, torch.float32).permute(0, 2, 3, 1)
        layout = self.layout(size)
        if layout.is_single(size):
            batch_size = min(self._max_pixels(size), self._batch_pixels) // self.mode.padded_pixels(size)
            sr = torch.cat([self._enlarge_windows(batch) for batch in images.split(max(1, batch_size))])
        else:
            sr = torch.stack([torch.cat(list(self._strips(image, layout))) for image in images])
        return sr.permute(0, 3, 1, 2).clamp_(0, 1)

    def layout(self, size: tuple[int, int]) -> Layout:
        """Return the windows or tiles of an image of height and width `size` within the memory budget.

        Raises:
            HRNError: the budget is too small.
        """
        return self.mode.layout(size, self._max_pixels(size), self._batch_pixels)

    def is_tiled(self, size: tuple[int, int]) -> bool:
        """Whether an image of height and width `size` is processed in tiles, or was because memory ran out.

        Windows of mode windows do not count as tiles.
        """
        return size in self._retiled or (self.mode.name != "windows" and not self.layout(size).is_single(size))

    @property
    def _batch_pixels(self) -> int:
        return BATCH_PIXELS.get(self.device.type, 1)

    def _max_pixels(self, size: tuple[int, int]) -> int:
        """Return the number of LR pixels that may be processed at once for an image of this size."""
        area, padded, hr = size[0] * size[1], self.mode.padded_pixels(size), self.scale**2
        # a strip of tiles is blended in float32 while a tile is processed:
        # tile**2 * bytes_per_pixel + tile * width * hr * STRIP_BYTES <= memory_budget
        a, b = self.bytes_per_pixel, size[1] * hr * STRIP_BYTES
        tile = int((-b + (b * b + 4 * a * self.memory_budget) ** 0.5) / (2 * a))
        if self.device.type != "cpu" and area * hr * HOST_STRIP_BYTES > self.host_memory_budget:
            tile = min(tile, self.host_memory_budget // (size[1] * hr * HOST_STRIP_BYTES))
            return min(tile**2, padded - 1)
        max_single_pass = (self.memory_budget - area * hr * STRIP_BYTES) // a  # if one strip has all rows of the image
        return max_single_pass if padded <= max_single_pass else max(max_single_pass, min(tile**2, padded - 1))

    def _strips(self, image: Tensor, layout: Layout) -> Iterator[Tensor]:
        """Enlarge an image (H, W, 3) and yield strips (h, scale*W, 3) float32 on the device."""
        size = tuple(image.shape[:2])
        if layout.is_single(size):
            yield self._enlarge_windows(image[None])[0]
            return
        blender = Blender(size, self.scale, layout, self.device)
        for group in blender.groups():
            blender.start(group)
            for windows in blender.batches(group):
                blender.add(windows, self._enlarge_windows(blender.cut(image, windows)))
            yield blender.finish(group)

    def _enlarge_windows(self, windows: Tensor) -> Tensor:
        """Enlarge windows (B, h, w, 3); if memory runs out, in smaller batches and then in smaller tiles."""
        try:
            return self._forward(windows)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error, possibly=True):
                raise
            failure = error.with_traceback(None)  # the traceback would keep the tensors of the failed pass alive
        empty_cache(self.device)
        if len(windows) > 1:
            return torch.cat([self._enlarge_windows(half) for half in windows.split(-(-len(windows) // 2))])
        size = tuple(windows.shape[1:3])
        mode = Mode("full") if self.mode.name == "windows" else self.mode
        try:
            layout = mode.layout(size, self.mode.padded_pixels(size) // 4)  # tiles of half the side
        except HRNError:
            if is_out_of_memory(failure):
                raise
            raise failure from None
        self._retiled.add(self._size)
        return torch.cat(list(self._strips(windows[0], layout)))[None]

    @torch.inference_mode()
    def _forward(self, windows: Tensor) -> Tensor:
        """One pass over windows (B, h, w, 3) in uint8, or in float32 in [0, 1]; returns (B, scale*h, scale*w, 3) float32."""
        check_eval_mode(self._module)  # modes full and windows use the caller's network, which may have changed
        x = windows.to(self.device).permute(0, 3, 1, 2)
        if x.dtype == torch.uint8:
            x = x.float().div_(255)
        dtype = PRECISIONS[self.precision]
        autocast = torch.autocast(self.device.type, dtype) if dtype else nullcontext()
        with inference_convolutions(self.device, tf32=self.precision == "tf32"), autocast:
            if self.ensemble:
                views = VIEWS_AT_ONCE * len(x) * self.mode.padded_pixels(tuple(x.shape[2:]))
                batched = views <= min(self._batch_pixels, self.memory_budget // self.bytes_per_pixel)
                sr = self_ensemble(self._run, x, batched)
            else:
                sr = self._run(x)
        if not torch.isfinite(sr).all():
            if not torch.isfinite(x).all():
                raise HRNError("the image contains values that are not finite")
            cause = "the checkpoint may be damaged" if self.precision != "fp16" else "try --precision bf16 or fp32"
            raise HRNError(f"the network returned non-finite values: {cause}")
        return sr.permute(0, 2, 3, 1)

    def _run(self, x: Tensor) -> Tensor:
        return self._network(x, self.scale).float()


@torch.inference_mode()
def _to_uint8(strip: Tensor) -> Tensor:
    """Round values in [0, 1] to uint8, overwriting the float32 strip."""
    return strip.mul_(255).round_().clamp_(0, 255).byte()


def check_eval_mode(network: nn.Module) -> None:
    """Raise HRNError if the network is in training mode, in which BatchNorm would use and update the statistics of the image."""
    if network.training:
        raise HRNError("the network is in training mode; call its eval() first")


def check_image(image: np.ndarray) -> None:
    """Check that `image` is a non-empty (H, W, 3) uint8 array. Raises HRNError if not."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise HRNError(f"expected an (H, W, 3) uint8 array, got {image.shape} {image.dtype}")
