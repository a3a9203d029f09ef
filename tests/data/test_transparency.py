import numpy as np
from scipy.ndimage import distance_transform_edt

from hrn.data import transparency
from hrn.data.images import Picture
from hrn.data.transparency import fill_transparent


def test_transparent_pixels_are_filled_across_bands(rng, monkeypatch):
    """Those near visible pixels, as in a single band. All others keep their colours or get a visible one."""
    rgb = rng.integers(0, 256, (200, 20, 3), dtype=np.uint8)
    alpha = np.where(rng.random((200, 20)) < 0.02, 255, 0).astype(np.uint8)
    alpha[90:170] = 0
    whole = fill_transparent(Picture(rgb, alpha, grey=False)).rgb
    monkeypatch.setattr(transparency, "_BAND_PIXELS", 1)
    bands = fill_transparent(Picture(rgb, alpha, grey=False)).rgb
    assert (bands[alpha > 0] == rgb[alpha > 0]).all()
    near = distance_transform_edt(alpha == 0) < 20
    assert (alpha[near] == 0).sum() > 1000
    assert (bands[near] == whole[near]).all()
    assert (whole[near & (alpha == 0)] != rgb[near & (alpha == 0)]).any(-1).mean() > 0.9
