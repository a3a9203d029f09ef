import numpy as np
import pytest
import torch

from hrn.data.augment import augment


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flips", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_is_numpys_flips_and_turns(image, flips, turns):
    expected = image
    expected = np.flipud(expected) if flips[0] else expected
    expected = np.fliplr(expected) if flips[1] else expected
    expected = np.rot90(expected, turns)
    got = augment(torch.from_numpy(image).permute(2, 0, 1), *flips, turns)
    assert (got.permute(1, 2, 0).numpy() == expected).all()
