import pickle
from dataclasses import replace
from itertools import permutations

import h5py
import numpy as np
import pytest
import torch

from hrn.data.h5 import H5Pairs
from hrn.data.patches import PatchDataset, augment
from hrn.errors import HRNError


@pytest.mark.parametrize("quarter_turns", range(4))
@pytest.mark.parametrize("flips", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_augmentation_equals_numpys_flips_and_turns(image, flips, quarter_turns):
    expected = np.flipud(image) if flips[0] else image
    expected = np.fliplr(expected) if flips[1] else expected
    expected = np.rot90(expected, quarter_turns)
    found = augment(torch.from_numpy(image).permute(2, 0, 1), *flips, quarter_turns)
    assert (found.permute(1, 2, 0).numpy() == expected).all()


def patches(path, scales=(2,), patch_size=16, seed=0, length=60, batch_size=4, **options):
    return PatchDataset(
        H5Pairs(path, scales), patch_size=patch_size, batch_size=batch_size, length=length, seed=seed, **options
    )


def test_lr_and_hr_patches_belong_together(h5_path):
    """In the fixture, LR is every s-th pixel of HR. The same holds for a pair of patches, up to their common flips."""
    for s in (2, 3, 4):
        dataset = patches(h5_path, (s,))
        for i in range(30):
            lr, hr = (p.permute(1, 2, 0).numpy() for p in dataset[i])
            assert lr.shape == (16, 16, 3)
            assert hr.shape == (16 * s, 16 * s, 3)
            # a flip moves the pixel that LR keeps to another corner of each s x s block
            corners = [hr[y::s, x::s] for y in (0, s - 1) for x in (0, s - 1)]
            assert any((lr == corner).all() for corner in corners)


def test_patches_are_a_function_of_seed_and_index(h5_path):
    a, b, other = patches(h5_path), patches(h5_path), patches(h5_path, seed=1)
    order = [7, 3, 59, 3, 0]
    assert all((a[i][1] == b[i][1]).all() for i in order)
    assert any((a[i][1].shape != other[i][1].shape) or (a[i][1] != other[i][1]).any() for i in range(10))


def test_every_pass_takes_each_image_once(h5_path):
    dataset = patches(h5_path)
    passes = [[dataset.image_of(12 * p + i) for i in range(12)] for p in range(3)]
    assert all(sorted(p) == list(range(12)) for p in passes)
    assert passes[0] != passes[1] != passes[2]


def test_a_batch_shares_its_scale_and_all_scales_occur(h5_path):
    dataset = patches(h5_path, (2, 3, 4), length=400)
    scales = [[dataset.scale_of(4 * b + i) for i in range(4)] for b in range(100)]
    assert all(len(set(batch)) == 1 for batch in scales)
    counts = [sum(batch[0] == s for batch in scales) for s in (2, 3, 4)]
    assert min(counts) > 15
    assert dataset[0][1].shape[1] == 16 * dataset.scale_of(0)


def test_all_eight_orientations_occur(tmp_path):
    """With one image of the size of the patch, only the orientation is random."""
    image = np.arange(16 * 16 * 3, dtype=np.uint32).reshape(16, 16, 3).astype(np.uint8)
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["HR/0"], file["X2/0"] = image, image[::2, ::2]
    dataset = patches(tmp_path / "one.h5", (2,), patch_size=8, length=200)
    oriented = [np.rot90(m, k) for m in (image, np.fliplr(image)) for k in range(4)]
    found = [
        next(i for i, o in enumerate(oriented) if (dataset[j][1].permute(1, 2, 0).numpy() == o).all())
        for j in range(200)
    ]
    assert min(found.count(i) for i in range(8)) > 8


def test_permuted_channels(h5_path):
    """LR and HR get the same order, every order occurs, and the other random choices stay the same."""
    plain, permuted = patches(h5_path, length=120), patches(h5_path, length=120, permute_channels=True)
    orders = set()
    for i in range(120):
        choice = permuted.choice_of(i)
        orders.add(choice.channels)
        assert replace(choice, channels=(0, 1, 2)) == plain.choice_of(i)
        for found, expected in zip(permuted[i], plain[i], strict=True):
            assert all(torch.equal(found[j], expected[channel]) for j, channel in enumerate(choice.channels))
    assert orders == set(permutations(range(3)))


def test_can_be_pickled_while_the_file_is_open(h5_path):
    dataset = patches(h5_path)
    first = dataset[5]
    copy = pickle.loads(pickle.dumps(dataset))
    assert (copy[5][0] == first[0]).all()


def test_image_smaller_than_the_patch(h5_path):
    with pytest.raises(HRNError, match=r"HR/0.*120x96.*48.*--patch_size 24"):
        patches(h5_path, (2, 4), patch_size=48)
