"""hrn/sample.py: flags, enlarging of files and scoring of test sets."""

import errno
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hrn import sample
from hrn.checkpoint import save_checkpoint
from hrn.data.image_writer import write_image
from hrn.data.images import read_picture, read_rgb
from hrn.data.resize import imresize
from hrn.distributed import Processes
from hrn.errors import HRNError
from hrn.files import file_hash
from hrn.inference import enlarge_file, methods
from hrn.model import build_model, preset
from hrn.model.summary import summarise
from tests.conftest import randomise, smooth_image

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def main(*args):
    return sample.main([str(arg) for arg in args])


def save_light(path: Path, scales: list[int]) -> Path:
    config = preset("hrn_light", scales)
    save_checkpoint(path, config, build_model(config).state_dict(), info={})
    return path


@pytest.fixture
def light(tmp_path):
    """An untrained hrn_light x2, which enlarges bilinearly."""
    return save_light(tmp_path / "light_x2.pth", [2])


PROBE = """
import importlib.util, json, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    code = ended.code
names = ("torchvision", "h5py", "matplotlib", "skimage", "jinja2")
loaded = [name for name in names if name in sys.modules]
shadowed = [name for name in ("data", "model", "runtime", "files") if importlib.util.find_spec(name)]
print(json.dumps({"code": code, "loaded": loaded, "shadowed": shadowed}))
"""


def test_script_from_another_folder_imports_only_what_it_needs(run, root, image, tmp_path):
    """`hrn/data` must not become a top-level `data`, and enlarging by an included checkpoint needs no other libraries."""
    folder = tmp_path / "elsewhere"
    write_image(folder / "a.png", image)
    (folder / "probe.py").write_text(PROBE)
    flags = ["--input", "a.png", "--scale", "2", "--device", "cpu"]
    out = run("probe.py", root / "hrn/sample.py", *flags, cwd=folder).stdout
    assert json.loads(out.splitlines()[-1]) == {"code": 0, "loaded": [], "shadowed": []}
    assert read_rgb(folder / "sample/hrn_light_x2/x2/SR/a.png").shape == (96, 128, 3)


@pytest.mark.slow
def test_as_module_and_with_safe_path(run, root, tmp_path):
    run("-m", "hrn.sample", "--help", cwd=root)
    run("-P", root / "hrn/sample.py", "--help", cwd=tmp_path, PYTHONPATH=str(root))
    assert run(root / "hrn/sample.py", "--scale", "5", cwd=tmp_path, check=False).returncode == 2


@pytest.mark.slow
def test_without_arguments(run, root, tmp_path):
    """The included checkpoint on photographs: scores, table and figure; it must be better than bicubic."""
    out = run(root / "hrn/sample.py", "--sample_dir", tmp_path, "--device", "cpu", cwd=tmp_path).stdout
    (scores,) = tmp_path.rglob("scores.json")
    document = json.loads(scores.read_text())
    (figure,) = tmp_path.rglob("comparison.png")
    assert read_rgb(figure).std() > 20
    assert len(list(tmp_path.rglob("SR/*.png"))) == 5
    assert "| astronaut |" in out
    bicubic = np.mean([row["bicubic_psnr_y"] for row in document["images"]])
    assert document["mean"]["psnr_y"] > bicubic + 0.7


def test_scores_of_a_test_set(light, hr_folder, tmp_path, capsys):
    args = ("--model", "hrn_light", "--ckpt_path", light, "--test_data_dir", hr_folder, "--scale", 2, "--shave", 5)
    assert main(*args, "--sample_dir", tmp_path / "s") == 0
    folder = tmp_path / "s/light_x2/HR/x2"
    assert sorted(p.name for p in (folder / "SR").iterdir()) == [f"000{i}.png" for i in range(4)]
    document = json.loads((folder / "scores.json").read_text())
    assert f"{document['mean']['psnr_y']:.2f} / {document['mean']['ssim_y']:.4f}" in capsys.readouterr().out
    assert "5 pixels" in document["protocol"]
    assert document["checkpoint_sha256"] == file_hash(light)
    cost = summarise(preset("hrn_light", [2]))[-1]
    assert (document["parameters"], document["multi_adds"]) == (cost.parameters, cost.multi_adds)
    assert (document["model"], document["precision"], document["self_ensemble"]) == ("hrn_light", "fp32", False)
    assert read_rgb(folder / "comparison.png").shape[1] > 100


def test_scores_of_images_in_tiles_are_marked(light, tmp_path, rng, capsys):
    for name, side in (("a", 96), ("b", 400)):
        write_image(tmp_path / f"HR/{name}.png", smooth_image(rng, side, side))
    flags = ("--ckpt_path", light, "--test_data_dir", tmp_path / "HR", "--sample_dir", tmp_path / "s", "--no_images")
    for limit, tiled in (("2G", []), ("60M", ["b"])):
        assert main(*flags, "--max_memory", limit) == 0
        assert json.loads(next((tmp_path / "s").rglob("scores.json")).read_text())["tiled"] == tiled
        assert ("in tiles" in capsys.readouterr().out) == bool(tiled)


def test_bicubic_without_a_checkpoint(hr_folder, tmp_path, capsys):
    main("--model", "bicubic", "--test_data_dir", hr_folder, "--scale", 2, 3, "--sample_dir", tmp_path / "s")
    assert "| bicubic | x3 |" in capsys.readouterr().out
    sr = read_rgb(tmp_path / "s/bicubic/HR/x3/SR/0003.png")
    hr = read_rgb(hr_folder / "0003.png")
    assert (sr == imresize(imresize(hr, scale=1 / 3), scale=3)).all()


def test_several_sets_without_images(light, hr_folder, h5_path, tmp_path, capsys):
    main(
        "--ckpt_path", light, "--test_data_dir", hr_folder, h5_path, "--sample_dir", tmp_path / "s", "--no_images"
    )  # fmt: skip
    assert "| PSNR-Y / SSIM-Y | scale | HR | carn |" in capsys.readouterr().out
    assert list((tmp_path / "s").rglob("*.png")) == []


@pytest.mark.parametrize("kind", ["grey", "palette", "rgba", "exif"])
def test_kinds_of_images(light, tmp_path, image, kind, capsys):
    picture, exif = Image.fromarray(image), Image.Exif()
    if kind == "grey":
        picture = picture.convert("L")
    elif kind == "palette":
        picture = picture.quantize(32)
    elif kind == "rgba":
        picture.putalpha(Image.fromarray(image[..., 0]))
    else:
        exif[0x0112] = 6
    path = tmp_path / "in" / "ein Bild ü.png"
    path.parent.mkdir()
    picture.save(path, exif=exif)
    for source, folder in ((path, "."), (path.parent, "in")):
        assert main("--ckpt_path", light, "--input", source, "--sample_dir", tmp_path / "s") == 0
        sr = read_picture(tmp_path / "s/light_x2" / folder / "x2/SR" / path.name)
        assert sr.rgb.shape == ((128, 96, 3) if kind == "exif" else (96, 128, 3))
        assert sr.grey == (kind == "grey")
        assert (sr.alpha is not None) == (kind == "rgba")
    assert "64x48 -> 128x96" in capsys.readouterr().out or kind == "exif"


def test_bad_images_and_folders(light, hr_folder, tmp_path, image, fails):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("not an image")
    for path in (tmp_path / "none.png", tmp_path / "text.png", tmp_path / "empty"):
        assert str(path) in fails("--ckpt_path", light, "--input", path)
    assert str(tmp_path / "empty") in fails("--ckpt_path", light, "--test_data_dir", tmp_path / "empty")
    truncated = (hr_folder / "0001.png").read_bytes()
    (hr_folder / "0001.png").write_bytes(truncated[: len(truncated) // 2])
    assert "0001.png" in fails("--ckpt_path", light, "--test_data_dir", hr_folder)
    assert list((tmp_path / "s").rglob("scores.*")) == []
    write_image(tmp_path / "good.png", image)
    (tmp_path / "file").write_text("in the way")
    message = fails("--ckpt_path", light, "--input", tmp_path / "good.png", sample_dir=tmp_path / "file")
    assert str(tmp_path / "file") in message


def test_bad_checkpoints(light, hr_folder, tmp_path, fails):
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 broken")
    (tmp_path / "copy.pth").write_bytes(light.read_bytes())
    for name in ("none.pth", "broken.pth"):
        assert name in fails("--ckpt_path", tmp_path / name, "--test_data_dir", hr_folder)
    assert "x4" in fails("--ckpt_path", light, "--test_data_dir", hr_folder, "--scale", 4)
    assert "hrn_light" in fails("--ckpt_path", light, "--model", "hrn", "--test_data_dir", hr_folder)
    two = fails("--ckpt_path", light, tmp_path / "copy.pth")
    assert "light_x2.pth" in two
    assert "copy.pth" in two


def test_bad_values(light, hr_folder, tmp_path, fails):
    photo = hr_folder / "0001.png"
    for flags in (
        ("--input", hr_folder, "--size", "big"),
        ("--input", photo, "--scale", 9),
        ("--input", hr_folder, "--max_memory", "much"),
        ("--input", photo, "--max_memory", "9K"),
        ("--mode", "windows", "--window", 8),
        ("--test_data_dir", hr_folder, "--shave", 60),
    ):
        fails("--ckpt_path", light, *flags)
    message = fails("--ckpt_path", light, "--test_data_dir", hr_folder, "--raw_grey", "0001", "ramp")
    assert "--raw_grey ramp:" in message


@pytest.fixture
def photos(tmp_path, image):
    folder = tmp_path / "photos"
    for name in ("a.png", "b.jpg", "sub/c.webp", "sub/d.png"):
        write_image(folder / name, image)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:300])
    return folder


def test_a_broken_file_does_not_stop_the_others(light, photos, tmp_path, capsys):
    args = ("--ckpt_path", light, "--input", photos, "--sample_dir", tmp_path / "s")
    assert main(*args) == 1
    assert "broken.png" in capsys.readouterr().err
    folder = tmp_path / "s/light_x2/photos/x2/SR"
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert found == ["a.png", "b.png", "sub/c.png", "sub/d.png"]
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*.png")}
    (folder / "b.png").unlink()
    (photos / "broken.png").unlink()
    assert main(*args, "--skip_existing") == 0
    assert [p.name for p in times if p.stat().st_mtime_ns != times[p]] == ["b.png"]


def test_files_of_other_formats_are_counted(light, photos, tmp_path, capsys):
    for name in ("e.HEIC", "sub/f.heic", "g.gif", "notes.txt"):
        (photos / name).touch()
    main("--ckpt_path", light, "--input", photos, "--sample_dir", tmp_path / "s")
    assert "1 .gif, 2 .heic\n" in capsys.readouterr().err


def test_links_to_folders_are_reported(light, photos, tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    (photos / ".hidden").mkdir()
    for path in ("sub/link", ".hidden/link"):
        (photos / path).symlink_to(tmp_path / "elsewhere")
    main("--ckpt_path", light, "--input", photos, "--sample_dir", tmp_path / "s")
    assert f"1 link(s) to folders, such as {photos / 'sub/link'}\n" in capsys.readouterr().err


def test_a_full_disk_ends_a_batch(light, photos, tmp_path, capsys, monkeypatch):
    def fail(path, *args):
        raise HRNError(f"cannot write {path}") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(enlarge_file, "write_png", fail)
    assert main("--ckpt_path", light, "--input", photos, "--scale", 2, 3, "--sample_dir", tmp_path / "s") == 1
    assert "1 image(s) could not be enlarged; the disk is full" in capsys.readouterr().err


def test_results_beside_the_images_are_refused(light, photos, fails):
    """Another checkpoint would enlarge them again."""
    assert "--sample_dir" in fails("--ckpt_path", light, "--input", photos, sample_dir=photos)


def test_enlarged_images_and_scored_ones_do_not_share_a_folder(light, hr_folder, tmp_path, fails):
    """Both would be written to SR/ under the same names."""
    enlarge = ("--ckpt_path", light, "--input", hr_folder)
    score = ("--ckpt_path", light, "--test_data_dir", hr_folder)
    assert main(*enlarge, "--sample_dir", tmp_path / "a") == 0
    assert "images without scores" in fails(*score, sample_dir=tmp_path / "a")
    assert main(*score, "--sample_dir", tmp_path / "b") == 0
    before = [path.read_bytes() for path in sorted((tmp_path / "b").rglob("*.png"))]
    assert "scored images" in fails(*enlarge, sample_dir=tmp_path / "b")
    assert main(*score, "--sample_dir", tmp_path / "b") == 0
    assert [path.read_bytes() for path in sorted((tmp_path / "b").rglob("*.png"))] == before


def test_each_flag_of_the_network_changes_the_result_a_little(light, photos, tmp_path):
    args = ("--ckpt_path", light, "--input", photos / "a.png", "--sample_dir", tmp_path / "s")
    found = {}
    for flags in (
        (),
        ("--mode", "windows", "--window", 24, "--overlap", 8),
        ("--self_ensemble",),
        ("--precision", "bf16"),
    ):
        assert main(*args, *flags) == 0
        found[flags] = read_rgb(tmp_path / "s/light_x2/x2/SR/a.png").astype(int)
    assert all(0 < abs(sr - found[()]).max() <= 4 for flags, sr in found.items() if flags)
    assert main(*args, "--format", "jpg", "--max_memory", "300M") == 0
    assert abs(read_rgb(tmp_path / "s/light_x2/x2/SR/a.jpg") - found[()]).mean() < 5


def test_any_size(light, tmp_path, image):
    write_image(tmp_path / "a.png", image)
    args = ("--ckpt_path", light, "--input", tmp_path / "a.png", "--sample_dir", tmp_path / "s")
    for flags, folder, size in (
        (("--scale", 2.5), "x2.5", (120, 160)),
        ((), "x2", (96, 128)),
        (("--size", "100x90"), "100x90", (90, 100)),
        (("--long_edge", 32), "long_edge32", (24, 32)),
    ):
        assert main(*args, *flags) == 0
        assert read_rgb(tmp_path / "s/light_x2" / folder / "SR/a.png").shape[:2] == size


def test_two_checkpoints_of_one_model(light, hr_folder, tmp_path, capsys):
    args = ("--ckpt_path", light, save_light(tmp_path / "light_x3.pth", [3]), "--sample_dir", tmp_path / "s")
    assert main(*args, "--input", hr_folder / "0001.png", "--scale", 2.9) == 0
    assert "x3" in capsys.readouterr().out
    assert read_rgb(tmp_path / "s/light/x2.9/SR/0001.png").shape[:2] == (290, 282)
    assert main(*args, "--test_data_dir", hr_folder, "--no_images") == 0
    found = {str(p.parent.relative_to(tmp_path / "s")) for p in (tmp_path / "s").rglob("scores.json")}
    assert found == {"light_x2/HR/x2", "light_x3/HR/x3"}
    summary = (tmp_path / "s/light_x2/summary.md").read_text()
    assert "| light_x2 | x2 |" in summary
    assert "| light_x3 | x3 |" in summary


def test_only_the_first_process_looks_for_checkpoints(light, monkeypatch):
    """The others receive the loaded checkpoints."""
    found = methods.load_checkpoints([light], CPU)

    class Second(Processes):
        def run_on_main(self, make):
            return found

    monkeypatch.setattr(methods, "find_checkpoint", None)
    args = sample.parse_args(["--ckpt_path", str(light), "--input", "a.png"])
    (method,) = sample.build_methods(args, Second(rank=1))
    assert method.settings["checkpoint_sha256"] == file_hash(light)


def test_gain_of_the_self_ensemble(hr_folder, tmp_path, capsys):
    network = randomise(build_model(preset("hrn_light", [2])), 0.01)
    save_checkpoint(tmp_path / "a_x2.pth", network.config, network.state_dict(), info={})
    args = (
        "--ckpt_path",
        tmp_path / "a_x2.pth",
        "--test_data_dir",
        hr_folder,
        "--sample_dir",
        tmp_path / "s",
        "--no_images",
    )
    means = {}
    for flags in ((), ("--self_ensemble",)):
        assert main(*args, *flags) == 0
        out = capsys.readouterr().out
        means[flags] = json.loads(next((tmp_path / "s").rglob("scores.json")).read_text())["mean"]["psnr_y"]
    gain = means[("--self_ensemble",)] - means[()]
    assert abs(gain) > 0.001
    assert f"self-ensemble: {gain:+.3f} dB" in out


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not have such names")
def test_scores_of_a_name_that_is_not_utf_8(light, hr_folder, tmp_path):
    (hr_folder / "0001.png").rename(hr_folder / os.fsdecode(b"caf\xe9.png"))
    flags = ("--ckpt_path", light, "--test_data_dir", hr_folder, "--sample_dir", tmp_path / "s", "--report")
    assert main(*flags) == 0
    assert "caf" in next((tmp_path / "s").rglob("scores.csv")).read_text()


def test_bicubic_enlarges_files(hr_folder, tmp_path):
    assert main("--model", "bicubic", "--scale", 2, 3, "--input", hr_folder, "--sample_dir", tmp_path / "s") == 0
    for s in (2, 3):
        sr = read_rgb(tmp_path / f"s/bicubic/HR/x{s}/SR/0001.png")
        assert (sr == imresize(read_rgb(hr_folder / "0001.png"), scale=s)).all()


def test_devices_and_processes(monkeypatch):
    devices, started = [], []

    @contextmanager
    def join(device, timeout):
        devices.append(device)
        yield Processes(count=2)

    monkeypatch.setattr(sample, "join_processes", join)
    monkeypatch.setattr(sample, "launch", lambda script, argv, count: started.append(count) or 7)
    monkeypatch.setattr(sample, "build_methods", lambda *args: [])
    for flags in ((), ("--num_gpu", 0), ("--cuda",)):
        with pytest.raises(HRNError, match="one process"):
            main("--test_data_dir", "a", *flags)
    assert devices == ["auto", "cpu", "cuda"]
    assert main("--input", "a.png", "--num_gpu", 2, "--device", "cpu") == 7
    assert started == [2]
    with pytest.raises(HRNError, match="--num_gpu 64"):
        main("--input", "a.png", "--num_gpu", 64)


@pytest.mark.slow
def test_a_folder_shared_by_two_processes(run, root, light, photos, tmp_path):
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", root / "hrn/sample.py"]
    flags = ["--ckpt_path", light, "--input", photos, "--sample_dir", tmp_path / "s", "--device", "cpu"]
    result = run(*command, *flags, cwd=tmp_path, check=False, OMP_NUM_THREADS="1")
    assert result.returncode == 1
    assert result.stderr.count("1 image(s) could not be enlarged") == 1
    assert len(list((tmp_path / "s/light_x2/photos/x2/SR").rglob("*.png"))) == 4
    assert result.stdout.count("-> 128x96") == 4


@pytest.mark.parametrize(
    "flags",
    [
        "--scale 5",
        "--scale much --input a.png",
        "--size 10x10",
        "--input a.png --long_edge 0",
        "--input a.png --scale auto",
        "--input a.png --no_images",
        "--input a.png --report",
        "--input a.png --raw_grey a",
        "--input a.png --num_gpu -1",
        "--input a.png --num_gpu 0 --cuda",
        "--input a.png --overlap 8",
        "--input a.png --mode full --window 64",
        "--input a.png --test_data_dir a",
        "--num_gpu 2",
        "--model bicubic --scale 2 --report",
        "--model bicubic --scale 2 --ckpt_path a.pth",
        "--model bicubic --scale 2.5 --input a.png",
        "--input a.png --size 9x9 --scale 2",
        "--format jpg",
        "--skip_existing",
        "--size 10x10 --long_edge 9 --input a.png",
        "--model bicubic",
        "--shave -1",
        "--sr_dir a",
        "--sr_dir a --scale 2.5",
        "--sr_dir a --scale 2 --input a.png",
        "--sr_dir a --scale 2 --model hrn",
        "--sr_dir a --scale 2 --ckpt_path a.pth",
        "--sr_dir a --scale 2 --self_ensemble",
        "--sr_dir a --scale 2 --max_memory 2G",
        "--model bicubic --scale 2 --mode full",
        "--model bicubic --scale 2 --precision bf16",
        "--input a.png --shave 4",
        "--input=",
        "--test_data_dir=",
        "--sample_dir=",
    ],
)
def test_a_wrong_flag_exits_with_2(flags, capsys):
    with pytest.raises(SystemExit) as ended:
        main(*flags.split())
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_sets_or_images_of_one_name_are_refused(light, image, tmp_path, fails):
    for name in ("a/set/one.png", "b/set/one.png", "c/two.png", "c/two.bmp"):
        write_image(tmp_path / name, image)
    fails("--ckpt_path", light, "--test_data_dir", tmp_path / "a/set", tmp_path / "b/set")
    assert "two" in fails("--ckpt_path", light, "--test_data_dir", tmp_path / "c")
    assert not (tmp_path / "s").exists()


def test_scores_on_raw_grey(light, tmp_path, capsys):
    folder = tmp_path / "set"
    folder.mkdir()
    Image.fromarray(np.tile(np.arange(60, dtype=np.uint8) * 4, (60, 1))).save(folder / "ramp.png")
    main("--ckpt_path", light, "--test_data_dir", folder, "--sample_dir", tmp_path / "s", "--raw_grey", "ramp")
    assert "raw grey" in json.loads(next((tmp_path / "s").rglob("scores.json")).read_text())["protocol"]
