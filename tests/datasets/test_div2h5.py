import argparse
import errno
import multiprocessing
import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.context import ForkProcess
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from hrn.data import h5
from hrn.data.h5 import H5Pairs
from hrn.data.image_writer import write_image
from hrn.data.images import read_rgb
from hrn.data.resize import bicubic_lr, imresize, modcrop
from hrn.errors import HRNError
from hrn.model.config import SCALES


@pytest.fixture
def div2h5(root, load_script):
    return load_script(root / "datasets/div2h5.py")


def div2k(folder, rng, parts=("train", "valid"), scales=(2, 3, 4)):
    """Write DIV2K's folders, with random LR images that bicubic cannot produce."""
    for part in parts:
        (folder / f"DIV2K_{part}_HR").mkdir(parents=True)
        for i in (1, 2, 10):
            Image.fromarray(rng.integers(0, 256, (48, 24 * i, 3), dtype=np.uint8)).save(
                folder / f"DIV2K_{part}_HR/{i:04d}.png"
            )
            for s in scales:
                lr = folder / f"DIV2K_{part}_LR_bicubic/X{s}/{i:04d}x{s}.png"
                lr.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (48 // s, 24 * i // s, 3), dtype=np.uint8)).save(lr)


def test_div2k_by_command(tmp_path, rng, root):
    div2k(tmp_path / "DIV2K", rng)
    command = [sys.executable, "div2h5.py", "--root", str(tmp_path / "DIV2K")]
    subprocess.run(command, cwd=root / "datasets", check=True, capture_output=True)
    for part in ("train", "valid"):
        with h5py.File(tmp_path / f"DIV2K_{part}.h5") as file:
            assert sorted(file) == ["HR", "X2", "X3", "X4"]
            for key, name in enumerate(("0001", "0002", "0010")):
                assert (file[f"HR/{key}"][:] == read_rgb(tmp_path / f"DIV2K/DIV2K_{part}_HR/{name}.png")).all()
                for s in (2, 3, 4):
                    lr = read_rgb(tmp_path / f"DIV2K/DIV2K_{part}_LR_bicubic/X{s}/{name}x{s}.png")
                    assert (file[f"X{s}/{key}"][:] == lr).all()
        H5Pairs(tmp_path / f"DIV2K_{part}.h5", (2, 3, 4))


def test_a_folder_without_lr(div2h5, hr_folder, tmp_path):
    out = tmp_path / "new/a.h5"
    div2h5.main(["--hr", str(hr_folder), "--out", str(out), "--scales", "3", "4", "--workers", "2"])
    with h5py.File(out) as file:
        assert sorted(file) == ["HR", "X3", "X4"]
        hr = read_rgb(hr_folder / "0001.png")[:96, :96]  # multiples of 12
        assert (file["HR/1"][:] == hr).all()
        assert (file["X4/1"][:] == bicubic_lr(hr, 4)).all()
    assert [p.name for p in out.parent.iterdir()] == ["a.h5"]


def test_a_folder_with_lr_at_some_scales(div2h5, hr_folder, tmp_path):
    hr = read_rgb(hr_folder / "0001.png")
    for path in hr_folder.iterdir():
        write_image(tmp_path / "LR/X2" / path.name, bicubic_lr(modcrop(read_rgb(path), 2), 2))
    out = tmp_path / "a.h5"
    folders = ["--hr", str(hr_folder), "--lr", str(tmp_path / "LR")]
    div2h5.main([*folders, "--out", str(out), "--scales", "2", "8", "--workers", "1"])
    with h5py.File(out) as file:
        assert (file["HR/1"][:] == hr).all()
        assert (file["X8/1"][:] == bicubic_lr(modcrop(hr, 8), 8)).all()
    assert len(H5Pairs(out, (2, 8))) == len(list(hr_folder.iterdir()))


def test_small_images_can_be_skipped(div2h5, hr_folder, tmp_path, capsys):
    Image.fromarray(np.zeros((40, 300, 3), np.uint8)).save(hr_folder / "0002.png")
    div2h5.main(["--hr", str(hr_folder), "--out", str(tmp_path / "a.h5"), "--scales", "2", "--min_size", "96"])
    assert len(H5Pairs(tmp_path / "a.h5", (2,))) == 3
    assert "--min_size" in capsys.readouterr().out
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(hr_folder / "0002.png")  # too small for x2 to x8 together
    flags = ["--scales", "2", "3", "4", "8", "--min_size", "96", "--workers", "1"]
    div2h5.main(["--hr", str(hr_folder), "--out", str(tmp_path / "c.h5"), *flags])
    assert len(H5Pairs(tmp_path / "c.h5", (2,))) == 3
    with pytest.raises(HRNError, match="--min_size 1000"):
        div2h5.main(["--hr", str(hr_folder), "--out", str(tmp_path / "b.h5"), "--min_size", "1000"])
    assert not (tmp_path / "b.h5").exists()


def test_reduced_copies(div2h5, hr_folder, tmp_path, capsys):
    """Each image is followed by its copies, whose LR images are made. Those below --min_size are left out."""
    out = tmp_path / "a.h5"
    flags = ["--scales", "2", "4", "--copies", "0.8", "0.5", "--workers", "1"]
    div2h5.main(["--hr", str(hr_folder), "--out", str(out), *flags, "--min_size", "50"])
    pairs = H5Pairs(out, (2, 4))
    sizes = [read_rgb(path).shape[:2] for path in sorted(hr_folder.iterdir())]
    kept = [
        f"000{i}{tag}"
        for i, size in enumerate(sizes)
        for tag, f in (("", 1), ("_0.8", 0.8), ("_0.5", 0.5))
        if min(size) * f >= 50
    ]
    assert [pairs.name(i) for i in range(len(pairs))] == kept
    assert 0 < len(kept) < 3 * len(sizes)
    assert f"{3 * len(sizes) - len(kept)} too small" in capsys.readouterr().out
    copy = modcrop(imresize(read_rgb(hr_folder / "0001.png"), scale=0.8), 4)
    assert (pairs.read("HR", kept.index("0001_0.8")) == copy).all()
    assert (pairs.read("X4", kept.index("0001_0.8")) == bicubic_lr(copy, 4)).all()


def test_copies_that_are_too_small_are_skipped(div2h5, hr_folder, tmp_path, capsys):
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(hr_folder / "small.png")
    flags = ["--scales", "2", "3", "4", "--copies", "0.5", "--workers", "1"]
    div2h5.main(["--hr", str(hr_folder), "--out", str(tmp_path / "a.h5"), *flags])
    pairs = H5Pairs(tmp_path / "a.h5", (2, 3, 4))
    assert [pairs.name(i) for i in range(len(pairs))][-2:] == ["0003_0.5", "small"]
    assert "9 images and copies" in capsys.readouterr().out


def test_a_scale_without_lr_images_is_made_by_bicubic(div2h5, tmp_path, rng):
    div2k(tmp_path / "DIV2K", rng)
    div2h5.main(["--root", str(tmp_path / "DIV2K"), "--scales", "8", "--workers", "1"])
    pairs = H5Pairs(tmp_path / "DIV2K_train.h5", (8,))
    assert (pairs.read("X8", 0) == bicubic_lr(pairs.read("HR", 0), 8)).all()


@pytest.mark.parametrize(("folder", "div2k_root"), [("DIV2K", "."), ("DIV2K/DIV2K_train_HR", "..")])
def test_the_files_are_beside_a_relative_root(div2h5, tmp_path, rng, monkeypatch, folder, div2k_root):
    div2k(tmp_path / "DIV2K", rng)
    monkeypatch.chdir(tmp_path / folder)
    div2h5.main(["--root", div2k_root, "--scales", "2", "--workers", "1"])
    assert sorted(p.name for p in tmp_path.glob("**/*.h5")) == ["DIV2K_train.h5", "DIV2K_valid.h5"]
    assert (tmp_path / "DIV2K_train.h5").is_file()


def test_a_full_disk_is_an_error(div2h5, tmp_path, rng, monkeypatch):
    div2k(tmp_path / "DIV2K", rng)
    free = iter([100, 70, 64])  # MiB
    monkeypatch.setattr(h5.shutil, "disk_usage", lambda path: argparse.Namespace(free=next(free) * 2**20))
    with pytest.raises(HRNError, match=r"cannot write .*DIV2K_train\.h5: the disk is nearly full"):
        div2h5.main(["--root", str(tmp_path / "DIV2K"), "--workers", "1"])
    assert [p.name for p in tmp_path.iterdir()] == ["DIV2K"]


def test_copies_of_div2ks_training_images_only(div2h5, tmp_path, rng):
    """Their LR images are made by bicubic, as DIV2K's are. The validation images get no copies."""
    div2k(tmp_path / "DIV2K", rng)
    div2h5.main(["--root", str(tmp_path / "DIV2K"), "--copies", "0.5", "--workers", "1"])
    train, valid = (H5Pairs(tmp_path / f"DIV2K_{part}.h5", (2, 3, 4)) for part in ("train", "valid"))
    assert [train.name(i) for i in range(6)] == ["0001", "0001_0.5", "0002", "0002_0.5", "0010", "0010_0.5"]
    assert len(valid) == 3
    assert (train.read("X3", 0) == read_rgb(tmp_path / "DIV2K/DIV2K_train_LR_bicubic/X3/0001x3.png")).all()
    assert (train.read("X3", 1) == bicubic_lr(train.read("HR", 1), 3)).all()


@pytest.mark.parametrize(
    "flags",
    [
        ["--copies", "1"],
        ["--copies", "0.01"],
        ["--copies", "0.5", "0.5"],
        ["--copies", "0.5", "--hr", "a", "--lr", "b", "--out", "c.h5"],
    ],
)
def test_copies_that_are_refused(div2h5, capsys, flags):
    with pytest.raises(SystemExit):
        div2h5.main(flags)
    assert "error: --copies" in capsys.readouterr().err


def test_bad_input_is_named_and_nothing_is_left(div2h5, hr_folder, tmp_path, rng):
    out = tmp_path / "a.h5"

    def fails(names, *args):
        with pytest.raises(HRNError, match=names):
            div2h5.main([*args, "--workers", "1"])
        assert list(tmp_path.glob("*.h5")) == []
        assert list(tmp_path.glob(".*.part")) == []

    (tmp_path / "empty").mkdir()
    fails("DIV2K_train_HR", "--root", str(tmp_path / "DIV2K"))
    fails("nowhere", "--hr", str(tmp_path / "nowhere"), "--out", str(out))
    fails("empty", "--hr", str(tmp_path / "empty"), "--out", str(out))
    fails(
        "empty.*X2",
        "--hr",
        str(hr_folder),
        "--lr",
        str(tmp_path / "empty"),
        "--out",
        str(out),
        "--scales",
        "2",
    )
    lr = tmp_path / "LR/X2"
    lr.mkdir(parents=True)
    common = ("--hr", str(hr_folder), "--lr", str(tmp_path / "LR"), "--out", str(out), "--scales", "2")
    fails(r"0000\.png.*X2.*0000x2", *common)
    Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(lr / "0000x2.png")
    fails(r"0000x2\.png.*10x10.*0000\.png.*120x96.*60x48", *common)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(hr_folder / "0002.png")
    fails(r"0002\.png: too small", "--hr", str(hr_folder), "--out", str(out), "--scales", "2", "3", "4", "8")
    (hr_folder / "0003.png").write_bytes((hr_folder / "0003.png").read_bytes()[:300])
    fails(r"0003\.png", "--hr", str(hr_folder), "--out", str(out))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not have such names")
def test_a_name_that_is_not_utf_8(div2h5, hr_folder, tmp_path):
    (hr_folder / "0000.png").rename(hr_folder / os.fsdecode(b"caf\xe9.png"))
    div2h5.main(["--hr", str(hr_folder), "--out", str(tmp_path / "a.h5"), "--scales", "2", "--workers", "1"])
    assert len(H5Pairs(tmp_path / "a.h5", (2,))) == 4


def test_several_folders(div2h5, hr_folder, tmp_path):
    other = hr_folder.rename(tmp_path / "other")
    shutil.copytree(other, hr_folder)
    flags = ["--out", str(tmp_path / "a.h5"), "--scales", "2", "--workers", "1"]
    div2h5.main(["--hr", str(hr_folder), str(other), *flags])
    pairs = H5Pairs(tmp_path / "a.h5", (2,))
    assert [pairs.name(i) for i in range(8)] == [f"000{i}" for i in range(4)] * 2


@pytest.mark.parametrize("flags", [["--hr", "photos"], ["--out", "a.h5"], ["--lr", "LR"]])
def test_flags_that_need_each_other(div2h5, capsys, flags):
    with pytest.raises(SystemExit):
        div2h5.main(flags)
    assert flags[0] in capsys.readouterr().err.splitlines()[-1]


def test_names_are_those_of_the_images(div2h5, hr_folder, tmp_path):
    div2h5.main(["--hr", str(hr_folder), "--out", str(tmp_path / "a.h5"), "--scales", "2", "--workers", "1"])
    pairs = H5Pairs(tmp_path / "a.h5", (2,))
    assert [pairs.name(i) for i in range(4)] == ["0000", "0001", "0002", "0003"]


def test_images_are_loaded_a_few_ahead(div2h5):
    items, loaded = [(Path(f"{i}"), 1.0) for i in range(20)], []
    with ThreadPoolExecutor(1) as pool:
        results = div2h5.load_ahead(pool, 3, items, lambda *item: loaded.append(item) or item)
        assert next(results) == items[0]
        pool.submit(lambda: None).result()  # all that were submitted are loaded
        assert loaded == items[:4]
        assert [*results] == items[1:]


def test_a_killed_process_is_an_error(div2h5):
    with (
        ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool,
        pytest.raises(HRNError, match="--workers"),
    ):
        list(div2h5.load_ahead(pool, 1, [(1,)], os._exit))


@pytest.mark.parametrize("workers", ["0", "-1"])
def test_no_workers(div2h5, capsys, workers):
    with pytest.raises(SystemExit):
        div2h5.main(["--workers", workers])
    assert "--workers" in capsys.readouterr().err.splitlines()[-1]


def test_scales_are_those_of_the_networks(div2h5):
    assert div2h5.SCALES == SCALES


def test_no_write_permission(div2h5, hr_folder, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(HRNError, match=r"a\.h5"):
        div2h5.main(["--hr", str(hr_folder), "--out", str(tmp_path / "file/a.h5")])


def test_two_hr_images_of_one_name_cannot_share_lr_images(div2h5, hr_folder, tmp_path):
    shutil.copytree(hr_folder, tmp_path / "other")
    (tmp_path / "LR/X2").mkdir(parents=True)
    folders = ["--hr", str(hr_folder), str(tmp_path / "other"), "--lr", str(tmp_path / "LR")]
    with pytest.raises(HRNError, match="0000: several"):
        div2h5.main([*folders, "--out", str(tmp_path / "a.h5"), "--scales", "2", "--workers", "1"])


def test_a_folder_as_output_is_refused_before_the_work(div2h5, hr_folder, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(HRNError, match="out: it is a folder"):
        div2h5.main(["--hr", str(hr_folder), "--out", str(tmp_path / "out"), "--scales", "2", "--workers", "1"])
    assert not list((tmp_path / "out").iterdir())


def test_a_process_that_cannot_be_started_is_an_error(div2h5, hr_folder, tmp_path, monkeypatch):
    """And those that have started are ended, so that the program ends."""
    start, started = ForkProcess.start, []

    def refuse_the_third(self):
        if len(started) == 2:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        start(self)
        started.append(self)

    monkeypatch.setattr(ForkProcess, "start", refuse_the_third)
    with pytest.raises(HRNError, match="--workers"):
        div2h5.main(["--hr", str(hr_folder), "--out", str(tmp_path / "a.h5"), "--scales", "2", "--workers", "4"])
    for process in started:
        process.join(10)
        assert process.exitcode
    assert not (tmp_path / "a.h5").exists()
