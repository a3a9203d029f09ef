import h5py
import numpy as np
import pytest
import torch

from hrn.data.h5 import H5Pairs
from hrn.data.patches import PatchDataset
from hrn.data.resident import ResidentPatches, image_bytes
from hrn.errors import HRNError

CPU = torch.device("cpu")


@pytest.fixture
def uneven_pairs(tmp_path, rng):
    """Images of noise. Their sizes differ and are not multiples of the scales."""
    path = tmp_path / "uneven.h5"
    with h5py.File(path, "w") as file:
        for i, (h, w) in enumerate([(97, 121), (150, 96), (101, 103)]):
            file[f"HR/{i}"] = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
            for s in (2, 3, 4):
                file[f"X{s}/{i}"] = rng.integers(0, 256, (h // s, w // s, 3), dtype=np.uint8)
    return lambda scales: H5Pairs(path, scales)


@pytest.mark.parametrize("permute_channels", [False, True])
@pytest.mark.parametrize("scales", [(2,), (2, 3, 4)])
def test_the_same_patches_as_the_data_set(uneven_pairs, scales, permute_channels):
    patches = PatchDataset(
        uneven_pairs(scales), patch_size=16, batch_size=4, length=400, seed=3, permute_channels=permute_channels
    )
    resident, seen = ResidentPatches(patches, CPU), set()
    for first in range(0, 400, 4):
        indices = range(first, first + 4)
        seen |= {(crop.scale, crop.image, crop.symmetry) for crop in map(patches.choice_of, indices)}
        expected = [torch.stack(parts) for parts in zip(*(patches[i] for i in indices), strict=True)]
        assert all(torch.equal(a, b) for a, b in zip(resident.batch(indices), expected, strict=True))
    assert len({symmetry for *_, symmetry in seen}) == 16
    assert {(scale, image) for scale, image, _ in seen} == {(s, i) for s in scales for i in range(3)}


def test_the_size_of_all_images(uneven_pairs):
    pairs = uneven_pairs((2, 3))
    assert image_bytes(pairs) == sum(pairs.read(group, i).nbytes for group in ("HR", "X2", "X3") for i in range(3))


def test_an_unreadable_image(uneven_pairs, monkeypatch):
    patches = PatchDataset(uneven_pairs((2,)), patch_size=16, batch_size=4, length=4, seed=0)

    def fail(group, index):
        raise HRNError(f"cannot read {group}/{index}")

    monkeypatch.setattr(patches.pairs, "read", fail)
    with pytest.raises(HRNError, match="HR/0"):
        ResidentPatches(patches, CPU)
