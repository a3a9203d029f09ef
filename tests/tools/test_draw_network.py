import pytest

from tools import draw_network
from hrn.model import build_model, preset
from hrn.model.summary import presets_table, summarise


def boxes(svg: str, label: str) -> int:
    return svg.count(f">{label}</text>")


@pytest.mark.parametrize("model", ["hrn", "hrn_light"])
@pytest.mark.parametrize("scale", [2, 3, 8])
def test_the_network_is_drawn_as_it_is_built(model, scale):
    network = build_model(preset(model, [scale]))
    svg = draw_network.drawing_of(model, scale)
    n_dem, wrdb = len(network.body), network.body[0].spatial1
    assert [boxes(svg, f"DEM {i}") for i in range(n_dem + 2)] == [0, *[1] * n_dem, 0]
    assert boxes(svg, "WRAB") == len(wrdb.blocks)
    widen = wrdb.blocks[0].widen
    assert boxes(svg, f"{widen.in_channels} to {widen.out_channels}") >= 1
    last = [m for m in network.tails[f"x{scale}"] if hasattr(m, "out_channels")][-1]
    assert boxes(svg, f"{last.in_channels} to {last.out_channels}") == 1


def test_maps_that_are_joined_are_all_drawn():
    fuse = build_model(preset("hrn_light", [2])).body[0].fuse2
    with pytest.raises(ValueError, match="4 feature maps are joined, but 2 drawn"):
        draw_network.joined(draw_network.Drawing("x"), fuse, 100, 0, [(0, 10)])


def test_the_readme_shows_this_drawing(root):
    assert (root / "Figs/network.svg").read_text() == draw_network.drawing_of()


def test_presets_as_the_summary_has_them():
    rows = {line.split("|")[1].strip(" `"): line for line in presets_table(4).splitlines()[2:]}
    assert set(rows) == {"hrn", "hrn_light", "hrn_released"}
    assert "| 64 | 4 | 3 | 4 | 11,503,331 | 686.84 G |" in rows["hrn"]
    for name, row in rows.items():
        assert f"{summarise(preset(name, [4]))[-1].parameters:,}" in row
