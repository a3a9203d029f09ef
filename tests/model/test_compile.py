"""Each network compiles to one graph: `torch.compile(fullgraph=True)` raises at a graph break."""

import pytest
import torch

from hrn.model import build_model, preset
from hrn.model.norm import set_norm
from tests.conftest import randomise


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend"), [("hrn_light", "aot_eager"), ("hrn", "aot_eager"), ("hrn_released", "eager")]
)
def test_training_is_one_graph_with_the_same_result(name, backend):
    """`aot_eager` also captures the backward pass. That of the deep released network takes a minute and is left out."""
    torch.compiler.reset()
    network = randomise(build_model(preset(name, [2])), 0.02).train()
    set_norm(network, group_size=1, frozen=False)
    x = torch.rand(2, 3, 12, 12)
    wanted = network(x)
    wanted.mean().backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad(set_to_none=True)
    got = torch.compile(network, fullgraph=True, dynamic=False, backend=backend)(x)
    got.mean().backward()
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
    if backend == "aot_eager":
        assert all(gradient.abs().max() > 0 for gradient in gradients.values())  # otherwise nothing is compared
    for name, gradient in gradients.items():
        torch.testing.assert_close(network.get_parameter(name).grad, gradient, atol=1e-5, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("length", [48, 97])
def test_the_dct_inside_a_graph(length):
    """As a matrix that is part of the graph, and by FFT."""
    from hrn.model.dct import dct, idct

    torch.compiler.reset()
    x = torch.rand(1, 2, length, 5)
    compiled = torch.compile(lambda x: (dct(x), idct(x)), fullgraph=True, backend="aot_eager")
    for got, wanted in zip(compiled(x), (dct(x), idct(x)), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
