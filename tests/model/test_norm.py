import pytest
import torch
from torch import nn

from hrn.model import build_model, preset
from hrn.model.norm import BatchNorm, set_norm


@pytest.fixture
def norms():
    plain, grouped = nn.BatchNorm2d(3), BatchNorm(3)
    with torch.no_grad():
        plain.weight.uniform_(0.5, 2)
        plain.bias.normal_()
    grouped.load_state_dict(plain.state_dict())
    return plain, grouped


def test_without_a_group_equals_torch(norms):
    plain, grouped = norms
    x = torch.randn(6, 3, 5, 1)
    assert torch.equal(plain(x), grouped(x))
    assert torch.equal(plain.running_var, grouped.running_var)


def test_each_group_has_its_own_statistics(norms):
    """Each group as torch normalises it alone. Running statistics are the mean over the groups."""
    plain, grouped = norms
    grouped.group_size = 2
    x = torch.randn(6, 3, 5, 4, requires_grad=True)
    y = grouped(x)
    start = plain.state_dict()["running_mean"].clone(), plain.state_dict()["running_var"].clone()
    means, variances = [], []
    for i in range(3):
        plain.running_mean.copy_(start[0])
        plain.running_var.copy_(start[1])
        torch.testing.assert_close(y[2 * i : 2 * i + 2], plain(x[2 * i : 2 * i + 2]))
        means.append(plain.running_mean.clone())
        variances.append(plain.running_var.clone())
    torch.testing.assert_close(grouped.running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(grouped.running_var, torch.stack(variances).mean(0))
    (gradient,) = torch.autograd.grad(y[0].square().sum(), x)
    assert gradient[:2].abs().min() > 0
    assert (gradient[2:] == 0).all()


def test_groups_have_no_effect_in_eval_mode(norms):
    plain, grouped = norms
    grouped.group_size = 4
    x = torch.randn(6, 3, 5, 4)
    assert torch.equal(plain.eval()(x), grouped.eval()(x))


def test_uneven_groups_are_refused(norms):
    norms[1].group_size = 4
    with pytest.raises(ValueError, match=r"6.*4"):
        norms[1](torch.randn(6, 3, 5, 4))


def test_frozen_training_equals_torchs_inference(norms):
    """The same output and gradients; the statistics stay as they are."""
    plain, frozen = norms
    for norm in norms:
        norm.running_mean.copy_(torch.tensor([0.5, -1.0, 2.0]))
        norm.running_var.copy_(torch.tensor([0.1, 1.0, 4.0]))
    frozen.frozen, frozen.group_size = True, 4  # the group has no effect: 6 is not a multiple of 4
    x = torch.randn(6, 3, 5, 4, requires_grad=True)
    wanted, got = plain.eval()(x), frozen.train()(x)
    assert torch.equal(got, wanted)
    for a, b in zip(
        *(torch.autograd.grad(y.square().sum(), [x, n.weight, n.bias]) for y, n in ((got, frozen), (wanted, plain))),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    assert torch.equal(frozen.running_mean, plain.running_mean)
    assert torch.equal(frozen.running_var, plain.running_var)


def test_every_norm_of_a_network_is_set():
    network = build_model(preset("hrn_light", [2]))
    set_norm(network, group_size=5, frozen=True)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [(m.group_size, m.frozen) for m in norms] == [(5, True)] * 12
