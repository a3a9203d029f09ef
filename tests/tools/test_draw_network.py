import pytest

from hrn.model import build_model, preset
from tools import draw_network


def count_boxes(svg: str, label: str) -> int:
    return svg.count(f">{label}</text>")


@pytest.mark.parametrize("model", ["hrn", "hrn_light"])
@pytest.mark.parametrize("scale", [2, 3, 8])
def test_drawing_matches_the_network(model, scale):
    network = build_model(preset(model, [scale]))
    svg = draw_network.draw_network(model, scale)
    n_dem, wrdb = len(network.body), network.body[0].spatial1
    assert [count_boxes(svg, f"DEM {i}") for i in range(n_dem + 2)] == [0, *[1] * n_dem, 0]
    assert count_boxes(svg, "WRAB") == len(wrdb.blocks)
    widen = wrdb.blocks[0].widen
    assert count_boxes(svg, f"{widen.in_channels} to {widen.out_channels}") >= 1
    last = [m for m in network.tails[f"x{scale}"] if hasattr(m, "out_channels")][-1]
    assert count_boxes(svg, f"{last.in_channels} to {last.out_channels}") == 1


def test_all_inputs_of_a_fusion_must_be_drawn():
    fusion = build_model(preset("hrn_light", [2])).body[0].fuse2
    with pytest.raises(ValueError, match=r"4 .* 2 "):
        draw_network.draw_inputs(draw_network.Drawing("x"), fusion, 100, 0, [(0, 10)])


def test_figure_in_the_repository_is_current(root, tmp_path):
    draw_network.main(["--out", str(tmp_path / "network.svg")])
    assert (tmp_path / "network.svg").read_bytes() == (root / "Figs/network.svg").read_bytes()
