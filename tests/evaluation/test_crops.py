import numpy as np

from hrn.evaluation.crops import Crop, best_crop
from hrn.evaluation.metrics import rgb_to_y


def test_crop_is_where_the_gain_is():
    hr = np.full((100, 150, 3), 128, np.uint8)
    worse, better = hr.copy(), hr.copy()
    worse[60:70, 100:110] = 0
    better[:, :50] = 140  # a loss, which must not be chosen
    crop, gain = best_crop(hr, worse, better, side=20)
    assert (crop.width, crop.height) == (20, 20)
    assert crop.x <= 100
    assert crop.x + crop.width >= 110
    assert crop.y <= 60
    assert crop.y + crop.height >= 70
    error = [(crop.of(rgb_to_y(image) - rgb_to_y(hr)) ** 2).mean() for image in (worse, better)]
    np.testing.assert_allclose(gain, error[0] - error[1])


def test_crop_of_a_small_image():
    hr = np.full((9, 150, 3), 128, np.uint8)
    assert best_crop(hr, hr, hr, side=20)[0].of(hr).shape == (9, 9, 3)


def test_crops_outside_an_image_are_detected():
    assert Crop(2, 3, 4, 5).lies_in((8, 6))
    for crop in (Crop(2, 3, 5, 5), Crop(2, 3, 4, 6), Crop(-1, 0, 2, 2), Crop(0, 0, 0, 2)):
        assert not crop.lies_in((8, 6))
