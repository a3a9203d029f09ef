"""Muon against `torch.optim.Muon`, and its Adam part against `torch.optim.Adam`."""

import copy

import pytest
import torch
from torch import nn

from hrn.training.muon import MIN_SIDE, Muon, orthogonalise

SHAPES = [(16, 12), (12, 40), (40, 12), (16, 12)]


def parameters(*shapes):
    return [nn.Parameter(torch.randn(shape) * 0.1) for shape in shapes]


def set_gradients(*lists):
    """The same random gradients for each list of parameters."""
    for group in zip(*lists, strict=True):
        gradient = torch.randn(group[0].shape)
        for p in group:
            p.grad = gradient.reshape(p.shape).clone()


def relative_gap(moved, expected, start):
    return float(((moved - expected).norm() / (expected - start).norm()).detach())


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_matrices_move_as_in_torch(weight_decay):
    start = parameters(*SHAPES)
    ours, theirs = (copy.deepcopy(start) for _ in range(2))
    one = Muon(ours, 0.02, weight_decay)
    other = torch.optim.Muon(theirs, 0.02, weight_decay, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        set_gradients(ours, theirs)
        one.step()
        other.step()
    for a, b, s in zip(ours, theirs, start, strict=True):
        assert relative_gap(a, b, s) < 0.05  # torch computes in bfloat16


def test_convolutions_are_matrices_of_outputs_by_inputs():
    """Also in channels_last memory."""
    flat = parameters((16, 8 * 9))
    conv = [nn.Parameter(flat[0].detach().view(16, 8, 3, 3).to(memory_format=torch.channels_last))]
    one, other = Muon(conv, 0.02), Muon(flat, 0.02)
    for _ in range(3):
        set_gradients(flat, conv)
        one.step()
        other.step()
    torch.testing.assert_close(conv[0].flatten(1), flat[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("ratio", [1.0, 0.25])
def test_other_parameters_move_as_in_adam(ratio):
    """Vectors, and matrices with a short side, without weight decay."""
    ours = parameters((12,), (MIN_SIDE - 1, 100), (3, 4, 3, 3), (16, 16))
    theirs = copy.deepcopy(ours[:3])
    one = Muon(ours, 0.02, 0.5, adam_lr_ratio=ratio)
    other = torch.optim.Adam(theirs, 0.02 * ratio)
    for _ in range(4):
        set_gradients(ours[:3], theirs)
        set_gradients(ours[3:])
        one.step()
        other.step()
    for a, b in zip(ours[:3], theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_with_found_inf_changes_nothing(bad):
    weights = parameters((16, 12), (12,))
    optimizer = Muon(weights, 0.02, 0.5)
    for _ in range(2):
        set_gradients(weights)
        optimizer.found_inf = torch.tensor(0.0)
        optimizer.step()
    before = [p.detach().clone() for p in weights]
    state = copy.deepcopy(optimizer.state_dict()["state"])
    for p in weights:
        p.grad = torch.full_like(p, bad)
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))
    after = optimizer.state_dict()["state"]
    assert all(torch.equal(value, after[i][name]) for i, values in state.items() for name, value in values.items())


def test_continues_bit_for_bit_from_its_state():
    straight = parameters((16, 12), (16, 8, 3, 3), (12,))
    stopped = copy.deepcopy(straight)
    one, other = (Muon(p, 0.02, 0.1, adam_lr_ratio=0.5) for p in (straight, stopped))
    for step in range(6):
        if step == 3:
            state = copy.deepcopy(other.state_dict())
            other = Muon(stopped, 1.0)
            other.load_state_dict(state)
        set_gradients(straight, stopped)
        one.step()
        other.step()
    assert all(torch.equal(a, b) for a, b in zip(straight, stopped, strict=True))
    assert [group["lr"] for group in other.param_groups] == [0.02, 0.01]


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("shape", [(2, 12, 40), (3, 40, 12), (1, 16, 16)])
def test_orthogonalise_keeps_singular_vectors_and_levels_singular_values(shape, dtype, error):
    matrices = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    projected = u.mT @ orthogonalise(matrices.to(dtype)).float() @ v.mT
    values = projected.diagonal(dim1=1, dim2=2)
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert (projected - torch.diag_embed(values)).abs().max() < error
