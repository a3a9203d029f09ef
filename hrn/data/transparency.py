"""Colours of transparent pixels."""

from dataclasses import replace

import numpy as np
from scipy.ndimage import distance_transform_edt

from hrn.data.images import Picture
from hrn.errors import HRNError

REACH = 32
"""The number of rows above and below in which :func:`fill_transparent` always looks for visible pixels."""
_BAND_PIXELS = 2**20
"""The number of pixels to fill at once."""


def fill_transparent(picture: Picture) -> Picture:
    """Give fully transparent pixels the colour of the nearest visible one.

    Their own colours are hidden, and would bleed into the visible ones when the image is enlarged. Those with a visible pixel
    within REACH rows are always filled; others may be.

    Raises:
        HRNError: memory runs out.
    """
    if picture.alpha is None or picture.alpha.all():
        return picture
    try:
        return replace(picture, rgb=_filled(picture.rgb, picture.alpha))
    except MemoryError:
        raise HRNError("the image is too large for the available memory") from None


def _filled(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Implement :func:`fill_transparent` in bands of rows, which limits memory."""
    h, w = alpha.shape
    rgb, rows = colours.copy(), max(REACH, _BAND_PIXELS // w)
    for top in range(0, h, rows):
        first, bottom = max(0, top - REACH), min(top + rows, h)
        band = slice(first, bottom + REACH)
        hidden = alpha[band] == 0
        if hidden.any() and not hidden.all():
            nearest = distance_transform_edt(hidden, return_distances=False, return_indices=True)
            rgb[top:bottom] = colours[band][tuple(nearest)][top - first : bottom - first]
    return rgb
