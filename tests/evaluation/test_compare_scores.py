"""The table that compares several runs of hrn/sample.py."""

import json

import pytest

from hrn.errors import HRNError
from hrn.evaluation.compare_scores import main


def write(folder, scale, name, psnr, ssim, protocol="Y", **header):
    path = folder / name / f"x{scale}" / "scores.json"
    path.parent.mkdir(parents=True)
    path.write_text(
        json.dumps(
            {**header, "set": name, "scale": scale, "protocol": protocol, "mean": {"psnr_y": psnr, "ssim_y": ssim}}
        )
    )


def test_rows_are_compared_with_the_first_of_their_scale(tmp_path, capsys):
    write(tmp_path / "two", 2, "Set5", 37.5, 0.95)
    write(tmp_path / "four", 4, "Set5", 31.5, 0.88)
    write(tmp_path / "four", 4, "Set14", 28.25, 0.77)
    write(tmp_path / "all", 2, "Set5", 37.375, 0.949)
    write(tmp_path / "all", 4, "Set5", 31.75, 0.889)
    main([f"single={tmp_path}/two", f"single={tmp_path}/four", str(tmp_path / "all")])
    assert capsys.readouterr().out.splitlines() == [
        "| PSNR-Y / SSIM-Y | scale | Set5 | Set14 |",
        "|---|---|---|---|",
        "| single | x2 | 37.50 / 0.9500 |  |",
        "| all | x2 | 37.38 / 0.9490 (-0.12) |  |",
        "| single | x4 | 31.50 / 0.8800 | 28.25 / 0.7700 |",
        "| all | x4 | 31.75 / 0.8890 (+0.25) |  |",
    ]


def test_scores_of_different_protocols_are_not_subtracted(tmp_path, capsys):
    write(tmp_path / "a", 4, "Set14", 28.0, 0.77)
    write(tmp_path / "b", 4, "Set14", 28.5, 0.78, protocol="raw grey")
    main([str(tmp_path / "a"), str(tmp_path / "b")])
    assert capsys.readouterr().out.splitlines()[-1] == "| b | x4 | 28.50 / 0.7800 (other protocol) |"


def test_perfect_scores_have_no_difference(tmp_path, capsys):
    for name, psnr in (("a", "Infinity"), ("b", "Infinity"), ("c", 40.0)):
        write(tmp_path / name, 2, "Set5", psnr, 1.0)
    main([str(tmp_path / name) for name in "abc"])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[2].strip(" |") for row in rows] == [
        "inf / 1.0000",
        "inf / 1.0000",
        "40.00 / 1.0000 (-inf)",
    ]


def test_labels(tmp_path, capsys, monkeypatch):
    write(tmp_path / "lr=1e-3", 2, "Set5", 37.5, 0.95)
    main([str(tmp_path / "lr=1e-3")])
    monkeypatch.chdir(tmp_path / "lr=1e-3")
    main(["."])
    main(["a=b=."])
    labels = [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines() if "37.50" in line]
    assert labels == ["| lr=1e-3", "| lr=1e-3", "| a=b"]


def test_results_of_one_name_are_not_mixed(tmp_path):
    write(tmp_path / "a/net", 2, "Set5", 37.5, 0.95)
    write(tmp_path / "b/net", 2, "Set5", 37.0, 0.94)
    with pytest.raises(HRNError) as refused:
        main([str(tmp_path / "a/net"), str(tmp_path / "b/net")])
    for name in ("a/net", "b/net"):
        assert str(tmp_path / name) in str(refused.value)


def test_a_folder_of_two_checkpoints_is_not_mixed(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, 2, "Set5", 37.5, 0.95)
    with pytest.raises(HRNError):
        main([str(tmp_path)])


@pytest.mark.parametrize(
    ("key", "values"), [("checkpoint_sha256", "ab"), ("mode", ["full", "local, 48"]), ("self_ensemble", [True, False])]
)
def test_scores_of_other_weights_or_settings_are_not_mixed(tmp_path, capsys, key, values):
    """For example, if the file was trained further between two scorings. Other scales may have other files."""
    write(tmp_path / "net", 2, "Set5", 37.5, 0.95, **{key: values[0]})
    write(tmp_path / "net", 4, "Set5", 31.5, 0.88, **{key: values[1]})
    write(tmp_path / "net", 2, "B100", 32.0, 0.89)  # of an earlier version, without the key
    main([str(tmp_path / "net")])
    assert "| net | x2 | 37.50 / 0.9500 | 32.00 / 0.8900 |" in capsys.readouterr().out
    write(tmp_path / "net", 2, "Set14", 33.5, 0.91, **{key: values[1]})
    with pytest.raises(HRNError, match=key):
        main([str(tmp_path / "net")])


def test_folders_without_results_are_refused(tmp_path):
    with pytest.raises(HRNError):
        main([str(tmp_path)])
    (tmp_path / "scores.json").write_text("[]")
    with pytest.raises(HRNError):
        main([str(tmp_path)])
