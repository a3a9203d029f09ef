import numpy as np
import pytest
import torch
from scipy.fft import dctn

from hrn.errors import HRNError
from hrn.evaluation.frequency import BRANCHES, branch_spectra, energy_by_frequency, error_spectrum
from hrn.evaluation.metrics import rgb_to_y
from hrn.model import build_model, preset


def test_a_wave_is_at_its_frequency():
    h, w = 40, 60
    coefficients = np.zeros((h, w))
    coefficients[10, 6] = 3  # a quarter down, a tenth across: the larger frequency counts
    energy = energy_by_frequency(coefficients, bins=20)
    place = int(20 * 10 / h)
    inside = sum(max(u / h, v / w) * 20 // 1 == place for u in range(h) for v in range(w))
    assert energy[place] == pytest.approx(9 / inside)
    assert energy.sum() == energy[place]


def test_no_energy_is_lost(image, rng):
    """Parseval: over all coefficients, the energy is that of the pixels."""
    noisy = np.clip(image + rng.normal(0, 9, image.shape), 0, 255).astype(np.uint8)
    h, w = image.shape[:2]
    spectrum = error_spectrum(noisy, image, bins=8)
    count = np.bincount([int(max(u / h, v / w) * 8) for u in range(h) for v in range(w)])
    assert (spectrum * count).sum() == pytest.approx(((rgb_to_y(noisy) - rgb_to_y(image)) ** 2).sum())


def test_branches_of_a_network(rng):
    network = build_model(preset("hrn_light", [2])).eval()
    lr = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
    whole = []
    hook = network.body[0].fuse2.register_forward_hook(
        lambda fusion, _, out: whole.append(out - fusion.bias[:, None, None])
    )
    with torch.no_grad():
        c = network.config.channels
        for dem in network.body:
            torch.nn.init.normal_(dem.fuse2.weight)
        network.body[1].fuse2.weight[:, 3 * c :] = 0  # the second DEM does not use its frequency branch
        network.body[0].fuse2.weight[:, c:] = 0  # the first DEM uses its input only
    spectra = branch_spectra(network, [lr, lr], 2, bins=4)
    assert spectra.shape == (network.config.n_dem, len(BRANCHES), 4)
    assert spectra[1, 3].max() == 0 < spectra[1, :3].min()
    assert spectra[0, 1:].max() == 0
    expected = energy_by_frequency(dctn(whole[0][0].detach().numpy(), axes=(1, 2), norm="ortho"), 4)
    np.testing.assert_allclose(spectra[0, 0], expected, rtol=1e-4)
    hook.remove()
    assert not any(module._forward_hooks for module in network.modules())  # those of branch_spectra are removed


def test_a_network_without_branches(rng):
    with pytest.raises(HRNError):
        branch_spectra(torch.nn.Identity(), [], 2)
