"""train.py and sample.py as people call them: from any folder, with good input and with bad."""

import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image

from hrn import sample
from hrn.checkpoint import save_checkpoint
from hrn.cli import run_cli
from hrn.data.images import read_picture, read_rgb
from hrn.data.resize import imresize
from hrn.distributed import Processes
from hrn.files import file_hash
from hrn.model import build_model, config_to_dict, preset
from hrn.pretrained import find_checkpoint, read_manifest


def run(*command, cwd, check=True, **env):
    result = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, env={**os.environ, **env}
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result


@pytest.fixture
def light(tmp_path):
    """A new hrn_light x2, which enlarges bilinearly."""
    config = preset("hrn_light", [2])
    path = tmp_path / "light_x2.pth"
    save_checkpoint(path, config, build_model(config).state_dict(), info={})
    return path


def test_as_modules_and_with_safe_path(root, h5_path, tmp_path):
    run("-m", "hrn.sample", "--help", cwd=root)


def test_scripts_do_not_shadow_other_modules(root, tmp_path):
    """`hrn/data` must not become a top-level `data` because hrn/sample.py was run."""
    probe = "import runpy, sys\nsys.argv = ['sample.py', '--help']\ntry:\n    runpy.run_path(sys.argv.pop(0) and PATH, run_name='__main__')\nexcept SystemExit:\n    pass\nimport importlib.util\nprint([m for m in ('data', 'model', 'runtime', 'files') if importlib.util.find_spec(m)])"
    script = tmp_path / "probe.py"
    script.write_text(probe.replace("PATH", repr(str(root / "hrn/sample.py"))))
    assert run(script, cwd=tmp_path).stdout.strip().endswith("[]")


def test_no_arguments_do_the_main_job(root, tmp_path):
    """On the shipped checkpoint: photographs, table, figure; and the checkpoint must be worth it."""
    out = run(root / "hrn/sample.py", "--sample_dir", tmp_path, cwd=tmp_path).stdout
    (scores,) = tmp_path.rglob("scores.json")
    mean = json.loads(scores.read_text())["mean"]
    (figure,) = tmp_path.rglob("comparison.png")
    assert read_rgb(figure).std() > 20
    assert len(list(tmp_path.rglob("SR/*.png"))) == 5
    assert "| astronaut |" in out
    bicubic = [float(line.split("|")[2].split("/")[0]) for line in out.splitlines() if line.startswith("| **mean**")]
    assert mean["psnr_y"] > bicubic[0] + 0.7


def test_bicubic_needs_no_checkpoint(hr_folder, tmp_path, capsys):
    sample.main(
        [
            "--model",
            "bicubic",
            "--test_data_dir",
            str(hr_folder),
            "--scale",
            "2",
            "3",
            "--sample_dir",
            str(tmp_path / "s"),
        ]
    )
    assert "| bicubic | x3 |" in capsys.readouterr().out
    sr = read_rgb(tmp_path / "s/bicubic/HR/x3/SR/0003.png")
    hr = read_rgb(hr_folder / "0003.png")
    assert (sr == imresize(imresize(hr, scale=1 / 3), scale=3)).all()


def test_several_sets_and_no_images(light, hr_folder, h5_path, tmp_path, capsys):
    args = ["--ckpt_path", light, "--test_data_dir", hr_folder, h5_path, "--sample_dir", tmp_path / "s", "--no_images"]
    sample.main([str(a) for a in args])
    assert "| PSNR-Y / SSIM-Y | scale | HR | carn |" in capsys.readouterr().out
    assert list((tmp_path / "s").rglob("*.png")) == []


@pytest.mark.parametrize("kind", ["grey", "palette", "rgba", "exif"])
def test_images_without_an_original(light, tmp_path, image, kind, capsys):
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
        sample.main(["--ckpt_path", str(light), "--input", str(source), "--sample_dir", str(tmp_path / "s")])
        sr = read_picture(tmp_path / "s/light_x2" / folder / "x2/SR" / path.name)
        assert sr.rgb.shape == ((128, 96, 3) if kind == "exif" else (96, 128, 3))
        assert sr.grey == (kind == "grey")
        assert (sr.alpha is not None) == (kind == "rgba")
    assert "64x48 -> 128x96" in capsys.readouterr().out or kind == "exif"


def in_words(main, args, capsys):
    """Exit code 2 and one message on stderr."""
    assert run_cli(lambda: main([str(a) for a in args])) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message
    return message


def test_bad_input_to_sample(light, hr_folder, tmp_path, image, capsys):
    s = ("--sample_dir", tmp_path / "s")

    def fails(*args):
        return in_words(sample.main, [*args, *s], capsys)

    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 broken")
    assert "no such image file" in fails("--ckpt_path", light, "--input", tmp_path / "none.png")
    assert "not an image" in fails("--ckpt_path", light, "--input", tmp_path / "text.png")
    assert "no images in" in fails("--ckpt_path", light, "--input", tmp_path / "empty")
    assert "no test images for x2" in fails("--ckpt_path", light, "--test_data_dir", tmp_path / "empty")
    assert "is for x2, not x4" in fails("--ckpt_path", light, "--test_data_dir", hr_folder, "--scale", 4)
    assert "holds hrn_light, not hrn;" in fails("--ckpt_path", light, "--model", "hrn", "--test_data_dir", hr_folder)
    assert "damaged" in fails("--ckpt_path", tmp_path / "broken.pth", "--test_data_dir", hr_folder)
    assert "no such checkpoint" in fails("--ckpt_path", tmp_path / "none.pth")
    assert "a size is written as" in fails("--ckpt_path", light, "--input", hr_folder, "--size", "big")
    assert "too much for 3 passes of x2" in fails("--ckpt_path", light, "--input", hr_folder / "0001.png", "--scale", 9)
    assert "memory must be given as" in fails("--ckpt_path", light, "--input", hr_folder, "--max_memory", "much")
    assert "not enough memory for a tile" in fails(
        "--ckpt_path", light, "--input", hr_folder / "0001.png", "--max_memory", "9K"
    )
    (tmp_path / "copy.pth").write_bytes(light.read_bytes())
    assert "light_x2.pth and" in (two := fails("--ckpt_path", light, tmp_path / "copy.pth"))
    assert "copy.pth are both for x2; leave one out" in two
    assert "--raw_grey ramp: no such image in HR" in fails(
        "--ckpt_path", light, "--test_data_dir", hr_folder, "--raw_grey", "0001", "ramp"
    )
    assert "cannot overlap" in fails("--ckpt_path", light, "--mode", "windows", "--window", 8)
    assert "nothing is left" in fails("--ckpt_path", light, "--test_data_dir", hr_folder, "--shave", 60)
    truncated = (hr_folder / "0001.png").read_bytes()
    (hr_folder / "0001.png").write_bytes(truncated[: len(truncated) // 2])
    assert "0001.png: damaged or truncated" in fails("--ckpt_path", light, "--test_data_dir", hr_folder)
    assert list((tmp_path / "s").rglob("scores.*")) == []
    Image.fromarray(image).save(tmp_path / "good.png")
    (tmp_path / "file").write_text("in the way")
    message = in_words(
        sample.main, ["--ckpt_path", light, "--input", tmp_path / "good.png", "--sample_dir", tmp_path / "file"], capsys
    )
    assert "cannot write" in message


@pytest.fixture
def photos(tmp_path, image):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "sub/c.webp", "sub/d.png"):
        Image.fromarray(image).save(folder / name)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:300])
    return folder


def test_a_broken_file_does_not_stop_the_others(light, photos, tmp_path, capsys):
    args = ["--ckpt_path", light, "--input", photos, "--sample_dir", tmp_path / "s"]
    assert sample.main([str(a) for a in args]) == 1
    said = capsys.readouterr()
    assert "1 of the images could not be enlarged:" in said.err
    assert "broken.png: damaged or truncated" in said.err
    folder = tmp_path / "s/light_x2/photos/x2/SR"
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert found == ["a.png", "b.png", "sub/c.png", "sub/d.png"]
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*.png")}
    (folder / "b.png").unlink()
    (photos / "broken.png").unlink()
    assert sample.main([str(a) for a in [*args, "--skip_existing"]]) == 0
    assert "3 done already, 1 to do" in capsys.readouterr().out
    assert [p.name for p in times if p.stat().st_mtime_ns != times[p]] == ["b.png"]


def test_ways_of_enlarging(light, photos, tmp_path):
    """Each flag changes the result a little, and is told in what the scores depend on."""
    found = {}
    for flags in (
        (),
        ("--mode", "windows", "--window", 24, "--overlap", 8),
        ("--self_ensemble",),
        ("--precision", "bf16"),
    ):
        args = ["--ckpt_path", light, "--input", photos / "a.png", "--sample_dir", tmp_path / "s", *flags]
        assert sample.main([str(a) for a in args]) == 0
        found[flags] = read_rgb(tmp_path / "s/light_x2/x2/SR/a.png").astype(int)
    assert all(0 < abs(sr - found[()]).max() <= 4 for flags, sr in found.items() if flags)
    args = ["--ckpt_path", light, "--input", photos / "a.png", "--sample_dir", tmp_path / "s", "--format", "jpg"]
    assert sample.main([str(a) for a in [*args, "--max_memory", "300M"]]) == 0
    assert abs(read_rgb(tmp_path / "s/light_x2/x2/SR/a.jpg") - found[()]).mean() < 5


def test_any_size_on_the_command_line(light, tmp_path, image, capsys):
    Image.fromarray(image).save(tmp_path / "a.png")
    args = ["--ckpt_path", light, "--input", tmp_path / "a.png", "--sample_dir", tmp_path / "s"]
    for flags, folder, size, said in (
        (["--scale", 2.5], "x2.5", (120, 160), "x2, then x2, then bicubic down"),
        (["--scale", "auto"], "x2", (96, 128), "(x2)"),
        (["--size", "100x90"], "100x90", (90, 100), "x2, then bicubic down, then width stretched by 0.83"),
        (["--long_edge", 32], "long_edge32", (24, 32), "bicubic down"),
    ):
        assert sample.main([str(a) for a in (*args, *flags)]) == 0
        assert read_rgb(tmp_path / "s/light_x2" / folder / "SR/a.png").shape[:2] == size
        assert said in capsys.readouterr().out


def test_two_files_of_one_model(light, hr_folder, tmp_path, capsys):
    config = preset("hrn_light", [3])
    other = tmp_path / "light_x3.pth"
    save_checkpoint(other, config, build_model(config).state_dict(), info={})
    args = ["--ckpt_path", light, other, "--sample_dir", tmp_path / "s"]
    assert sample.main([str(a) for a in (*args, "--input", hr_folder / "0001.png", "--scale", 2.9)]) == 0
    assert "(x3, then bicubic down)" in capsys.readouterr().out
    assert sample.main([str(a) for a in (*args, "--test_data_dir", hr_folder, "--no_images")]) == 0
    found = {str(p.parent.relative_to(tmp_path / "s")) for p in (tmp_path / "s").rglob("scores.json")}
    assert found == {"light_x2/HR/x2", "light_x3/HR/x3"}
    summary = (tmp_path / "s/light_x2/summary.md").read_text()
    assert "| light_x2 | x2 |" in summary
    assert "| light_x3 | x3 |" in summary


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Two models in a manifest: hrn at x4, hrn_light at every scale, some twice; of files there is one, of hrn_light x2."""
    folder = tmp_path / "checkpoint"
    path = folder / "hrn_light_x2.pth"
    config = preset("hrn_light", [2])
    save_checkpoint(path, config, build_model(config).state_dict(), info={})
    entries = {}
    for model, scales in (
        ("hrn_light", [2, 3, 4]), ("hrn_light", [2]), ("hrn_light", [4]), ("hrn_light", [8]), ("hrn", [4]),
    ):  # fmt: skip
        name = f"{model}_{''.join(f'x{s}' for s in scales)}"
        entries[name] = {
            "file": f"{name}.pth", "bytes": 1, "sha256": file_hash(path), "scores": {},
            "config": config_to_dict(preset(model, scales)),
        }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps({"address": None, "checkpoints": entries}))
    monkeypatch.setattr(sample, "read_manifest", partial(read_manifest, folder))
    monkeypatch.setattr(sample, "find_checkpoint", partial(find_checkpoint, folder=folder))
    monkeypatch.delenv("HRN_CHECKPOINT_URL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path


LIGHT = {2: "hrn_light_x2", 3: "hrn_light_x2x3x4", 4: "hrn_light_x4", 8: "hrn_light_x8"}


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ("", {4: "hrn_x4"}),
        ("--model hrn_light", {4: "hrn_light_x4"}),
        ("--scale 4", {4: "hrn_x4"}),
        ("--scale 2", {2: "hrn_light_x2"}),
        ("--scale 2 --input a.png", {2: "hrn_light_x2"}),
        ("--scale 3 4", {3: "hrn_light_x2x3x4", 4: "hrn_light_x4"}),
        ("--scale 2.5 --input a.png", {4: "hrn_x4"}),
        ("--scale 2.5 --input a.png --model hrn_light", LIGHT),
        ("--size 9x9 --input a.png", {4: "hrn_x4"}),
        ("--long_edge 9 --input a.png --model hrn_light", LIGHT),
    ],
)
def test_which_shipped_checkpoints_serve(shipped, flags, names):
    assert sample.shipped_checkpoints(sample.parse_args(flags.split())) == names


def test_a_shipped_checkpoint_is_the_manifest_s(shipped, hr_folder, tmp_path, capsys):
    args = ["--test_data_dir", hr_folder, "--sample_dir", tmp_path / "s", "--no_images", "--scale"]
    assert sample.main([str(a) for a in [*args, 2]]) == 0
    assert "| hrn_light_x2 | x2 |" in capsys.readouterr().out
    assert "hrn_x4 is neither at" in in_words(sample.main, [*args, 4], capsys)
    assert "no checkpoint of hrn is shipped for that" in in_words(sample.main, [*args, 2, "--model", "hrn"], capsys)
    shipped.write_bytes(shipped.read_bytes() + b"x")
    assert "is not the hrn_light_x2 of the manifest" in in_words(sample.main, [*args, 2], capsys)


def test_only_the_first_process_looks_for_checkpoints(light, monkeypatch):
    """The others are handed what it found."""
    args = sample.parse_args(["--ckpt_path", str(light), "--input", "a.png"])
    found = Processes().run_on_main(lambda: sample.load_served(args))

    class Second(Processes):
        def run_on_main(self, make):
            return found

    monkeypatch.setattr(sample, "find_checkpoint", None)
    (way,) = sample.make_ways(args, Second(rank=1))
    assert way.header["checkpoint_sha256"] == file_hash(light)


def test_self_ensemble_says_what_it_brings(light, hr_folder, tmp_path, capsys):
    args = ["--ckpt_path", light, "--test_data_dir", hr_folder, "--sample_dir", tmp_path / "s", "--no_images"]
    means = {}
    for flags in ((), ("--self_ensemble",)):
        assert sample.main([str(a) for a in (*args, *flags)]) == 0
        told = capsys.readouterr().out
        means[flags] = json.loads(next((tmp_path / "s").rglob("scores.json")).read_text())["mean"]["psnr_y"]
    gain = means[("--self_ensemble",)] - means[()]
    assert f"self-ensemble: {gain:+.3f} dB PSNR-Y" in told


def test_a_folder_shared_out_over_two_processes(root, light, photos, tmp_path):
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", root / "hrn/sample.py"]
    flags = ["--ckpt_path", light, "--input", photos, "--sample_dir", tmp_path / "s", "--device", "cpu"]
    result = run(*command, *flags, cwd=tmp_path, check=False, OMP_NUM_THREADS="1")
    assert result.returncode == 1
    assert result.stderr.count("1 of the images could not be enlarged:") == 1
    assert len(list((tmp_path / "s/light_x2/photos/x2/SR").rglob("*.png"))) == 4
    assert result.stdout.count("-> 128x96") == 4


@pytest.mark.parametrize(
    ("door", "flags"),
    [
        (sample, "--scale 5"),
        (sample, "--scale much --input a.png"),
        (sample, "--size 10x10"),
        (sample, "--input a.png --long_edge 0"),
        (sample, "--input a.png --scale 2 auto"),
        (sample, "--input a.png --no_images"),
        (sample, "--input a.png --report"),
        (sample, "--input a.png --raw_grey a"),
        (sample, "--input a.png --num_gpu -1"),
        (sample, "--model bicubic --scale 2 --report"),
        (sample, "--skip_existing"),
        (sample, "--size 10x10 --long_edge 9 --input a.png"),
        (sample, "--model bicubic"),
    ],
)
def test_a_wrong_flag_ends_with_2(door, flags, capsys):
    with pytest.raises(SystemExit) as ended:
        door.main(flags.split())
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_wrong_flag_ends_the_script_with_2(root, tmp_path):
    assert run(root / "hrn/sample.py", "--scale", "5", cwd=tmp_path, check=False).returncode == 2


def test_results_of_two_sets_or_images_of_one_name_are_not_mixed(light, image, tmp_path, capsys):
    for name in ("a/set/one.png", "b/set/one.png", "c/two.png", "c/two.bmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / name)
    args = ["--ckpt_path", light, "--sample_dir", tmp_path / "s", "--test_data_dir"]
    assert "two test sets are called set" in in_words(
        sample.main, [*args, tmp_path / "a/set", tmp_path / "b/set"], capsys
    )
    assert "two images are called two" in in_words(sample.main, [*args, tmp_path / "c"], capsys)
    assert not (tmp_path / "s").exists()


def test_sizes_and_scores_of_a_grey_set(light, tmp_path, capsys):
    folder = tmp_path / "set"
    folder.mkdir()
    Image.fromarray(np.tile(np.arange(60, dtype=np.uint8) * 4, (60, 1))).save(folder / "ramp.png")
    args = ["--ckpt_path", light, "--test_data_dir", folder, "--sample_dir", tmp_path / "s", "--raw_grey", "ramp"]
    sample.main([str(a) for a in args])
    assert "ramp scored on raw grey" in capsys.readouterr().out
