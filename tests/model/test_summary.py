import sys

import pytest

from hrn.model import PRESETS, preset
from hrn.model.__main__ import main
from hrn.model.summary import presets_table, summarise


def conv_multi_adds(channels_in, channels_out, kernel, pixels):
    return channels_in * channels_out * kernel**2 * pixels


@pytest.mark.parametrize(
    ("name", "parameters", "giga"),
    [("hrn", 11.5e6, 690), ("hrn_light", 0.29e6, 17), ("hrn_released", 18_719_835, 1093)],
)
def test_totals_of_the_presets(name, parameters, giga):
    total = summarise(preset(name, [4]))[-1]
    assert total.parameters == pytest.approx(parameters, rel=0.005)
    assert total.multi_adds / 1e9 == pytest.approx(giga, rel=0.05)


def test_parts_equal_hand_computed_costs():
    parts = {p.name: p for p in summarise(preset("hrn_light", [4]))}
    lr_pixels = 320 * 180
    assert parts["head"].multi_adds == conv_multi_adds(3, 24, 3, lr_pixels)
    assert parts["head"].parameters == 24 * (3 * 9 + 1)
    assert parts["tail x4"].multi_adds == conv_multi_adds(24, 48, 3, lr_pixels)
    whole = sum(p.multi_adds for p in parts.values()) - parts["total"].multi_adds
    assert whole == parts["total"].multi_adds


def test_presets_table():
    rows = {line.split("|")[1].strip(" `"): line for line in presets_table(4).splitlines()[2:]}
    assert rows.keys() == PRESETS.keys()
    assert "| 64 | 4 | 3 | 4 | 11,503,331 | 686.84 G |" in rows["hrn"]


def test_command_prints_the_total(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hrn.model", "hrn", "--scale", "4"])
    main()
    assert "| total | 11,503,331 | 686.84 G |" in capsys.readouterr().out
