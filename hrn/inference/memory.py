"""Estimate of the memory that a network needs."""

from torch import nn

from hrn.model.config import HRNConfig

SHARE_OF_FREE = 0.8
"""Default memory budget, as a share of the free memory."""
SCRATCH = 1.45
"""Factor for the scratch memory of convolutions and the allocator, relative to the feature maps."""


def bytes_per_pixel(network: nn.Module, scale: int) -> int:
    """Peak memory of a float32 forward pass in bytes for each LR pixel: live feature maps and scratch memory.

    `benchmarks/inference.py` prints measured peaks.
    """
    config = network.config
    channels, wide, dense = (
        (config.channels, config.expansion, config.n_wrab) if isinstance(config, HRNConfig) else (64, 1, 1)
    )
    body = channels * (8 + dense + 2 * wide)
    direct = isinstance(config, HRNConfig) and config.upsampler == "direct"
    tail = 2 * scale**2 * (3 if direct else channels) + (2 * channels)
    return int(4 * SCRATCH * (max(body, tail) + 3 * scale**2))
