"""hrn/train.py as a user calls it."""

import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from hrn import train
from hrn.checkpoint import load_checkpoint, load_network, save_checkpoint
from hrn.cli import run_cli
from hrn.distributed import Processes
from hrn.errors import HRNError
from hrn.model import build_model, preset
from hrn.training.learner import Learner
from hrn.training.run_files import RunFiles, read_log
from hrn.training.setup import resume_command


def training_flags(h5_path, out, **more):
    flags = {
        "model": "hrn_light", "ckpt_name": "a", "ckpt_dir": out, "scale": 2, "train_data_path": h5_path, "patch_size": 8,
        "batch_size": 2, "max_steps": 3, "print_interval": 1, "save_interval": 1, "device": "cpu", **more,
    }  # fmt: skip
    return [str(x) for name, value in flags.items() for x in (f"--{name}", value)]


def weights_of(path):
    return {name: value for name, value in load_checkpoint(path).weights.items() if value.is_floating_point()}


@pytest.mark.slow
def test_as_a_script_from_another_folder(run, root, h5_path, tmp_path):
    here = tmp_path / "elsewhere"
    here.mkdir()
    log = run(root / "hrn/train.py", *training_flags(h5_path, "ck", valid_data_path=h5_path), cwd=here).stderr
    for word in ("step 3/3", "loss", "lr 1.00e-04", "images/s", "PSNR-Y"):
        assert word in log
    assert sorted(p.name for p in (here / "ck").iterdir()) == [
        *(f"a_x2.0000000{step}.train.pth" for step in (1, 2, 3)),
        "a_x2.jsonl",
        "a_x2.pth",
    ]


@pytest.mark.slow
def test_as_a_module_and_with_safe_path(run, root, h5_path, tmp_path):
    run("-m", "hrn.train", *training_flags(h5_path, tmp_path / "a"), cwd=root)
    run("-P", root / "hrn/train.py", *training_flags(h5_path, tmp_path / "b"), cwd=tmp_path, PYTHONPATH=str(root))


@pytest.mark.slow
def test_stop_and_resume_by_the_printed_command(run, root, h5_path, tmp_path):
    flags = training_flags(h5_path, tmp_path / "ck", max_steps=100_000)
    process = subprocess.Popen([sys.executable, str(root / "hrn/train.py"), *flags], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "ck/a_x2.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    stderr = process.communicate()[1]
    assert process.returncode == 128 + signal.SIGTERM
    files = RunFiles(tmp_path / "ck", "a_x2")
    step = files.load_newest_state().training["step"]
    (line,) = [line for line in stderr.splitlines() if "--resume" in line]
    command = shlex.split(line.partition("continue: ")[2])[1:]
    command[command.index("--max_steps") + 1] = str(step + 2)
    run(*command, cwd=root)
    assert files.load_newest_state().training["step"] == step + 2


CLAIM = """
import sys
from pathlib import Path
from hrn.training.run_files import RunFiles
with RunFiles(Path(sys.argv[1]), "a_x2").claim():
    print("claimed", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file locks")
@pytest.mark.parametrize("prepared", [False, True])
def test_a_run_that_another_process_writes_is_refused(h5_path, tmp_path, monkeypatch, prepared):
    """Also if the other process has started after the first check."""
    command = [sys.executable, "-c", CLAIM, str(tmp_path)]
    if prepared:
        monkeypatch.setattr(RunFiles, "check_unclaimed", lambda self: None)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "claimed\n"
        for more in ([], ["--resume"]):
            with pytest.raises(HRNError, match="another process is writing the run a_x2"):
                train.main([*training_flags(h5_path, tmp_path), *more])
        assert train.main([*training_flags(h5_path, tmp_path), "--dry_run"]) == 0
        other.kill()
    assert train.main(training_flags(h5_path, tmp_path)) == 0
    assert not (tmp_path / ".a_x2.lock").exists()


def test_runs_and_writes_its_files(h5_path, tmp_path):
    assert train.main(training_flags(h5_path, tmp_path / "ck", valid_data_path=h5_path)) == 0
    files = RunFiles(tmp_path / "ck", "a_x2")
    assert [line["step"] for line in read_log(files.log)] == [1, 2, 3]
    assert load_checkpoint(files.weights).info["shave"] == [2]
    assert [p.name for p in files.states()] == [f"a_x2.0000000{step}.train.pth" for step in (3, 2, 1)]


def test_an_earlier_state_is_resumed_only_if_no_newer_one_exists(h5_path, tmp_path):
    flags = training_flags(h5_path, tmp_path)
    train.main(flags)
    with pytest.raises(HRNError, match="--resume"):  # refuses to overwrite
        train.main(flags)
    first, *_, last = sorted(tmp_path.glob("*.train.pth"))
    with pytest.raises(HRNError, match=r"a_x2\.00000003\.train\.pth"):
        train.main([*flags, "--resume", str(first)])
    moved = tmp_path / "elsewhere" / first.name
    moved.parent.mkdir()
    first.rename(moved)
    flags[flags.index("--ckpt_dir") + 1] = str(moved.parent)
    train.main([*flags, "--init_from", str(last), "--resume", str(moved)])  # --resume wins
    assert load_checkpoint(moved.parent / last.name).training["step"] == 3


def test_a_state_in_another_folder_does_not_replace_the_weights_of_a_run(h5_path, tmp_path):
    for name in "ab":
        train.main(training_flags(h5_path, tmp_path / name))
    for state in (tmp_path / "b").glob("*.train.pth"):
        state.unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    flags = training_flags(h5_path, tmp_path / "b", max_steps=5)
    with pytest.raises(HRNError, match="move it to"):
        train.main([*flags, "--resume", str(tmp_path / "a/a_x2.00000003.train.pth")])
    assert {path: path.read_bytes() for path in (tmp_path / "b").iterdir()} == before


def test_a_restarted_run_replaces_only_its_own_files(h5_path, tmp_path, monkeypatch):
    """torchrun also restarts a run that was refused because of earlier files."""
    flags, weights, marker = training_flags(h5_path, tmp_path), tmp_path / "a_x2.pth", tmp_path / ".a_x2.running"
    weights.write_text("kept")
    marker.touch()  # of an earlier run that was killed
    for count in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        with pytest.raises(HRNError, match=r"a_x2\.pth"):
            train.main(flags)
    assert weights.read_text() == "kept"
    marker.touch()
    assert train.main(flags) == 0
    assert load_checkpoint(weights).info["steps"] == 3
    assert not marker.exists()


def test_gpu_flags_reach_cudnn(h5_path, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(train, "tune_convolutions", lambda **flags: asked.append(flags))
    flags = [*training_flags(h5_path, tmp_path), "--dry_run"]
    train.main(flags)
    train.main([*flags, "--deterministic", "--no-tf32"])
    assert asked == [{"tf32": True, "deterministic": False}, {"tf32": False, "deterministic": True}]


def test_training_on_mps_is_refused(h5_path, tmp_path, monkeypatch):
    devices = []

    @contextmanager
    def join(device):
        devices.append(device)
        yield Processes(device=torch.device("mps"))

    monkeypatch.setattr(train, "join_processes", join)
    for device, more in (("mps", []), ("auto", ["--num_gpu", "0"])):
        with pytest.raises(HRNError, match="--device mps"):
            train.main([*training_flags(h5_path, tmp_path, device=device), *more])
    assert devices == ["mps", "cpu"]


def test_unusable_validation_images_are_found_at_the_start(h5_path, hr_folder, tmp_path):
    flags = training_flags(h5_path, tmp_path / "ck", valid_data_path=hr_folder)
    with pytest.raises(HRNError, match="at least 131x131"):
        train.main([*flags, "--shave", "60"])
    path = hr_folder / "0003.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(HRNError, match=r"0003\.png"):
        train.main(flags)
    assert not list((tmp_path / "ck").iterdir())


def test_a_state_of_another_run_does_not_replace_files(h5_path, tmp_path):
    """A state keeps its name when it is copied. One of another name must not continue the log of this run."""
    train.main(training_flags(h5_path, tmp_path, ckpt_name="other", max_steps=1))
    state = tmp_path / "other_x2.00000001.train.pth"
    flags = training_flags(h5_path, tmp_path / "mine")
    (tmp_path / "mine").mkdir()
    log = tmp_path / "mine/a_x2.jsonl"
    log.write_text("kept")
    with pytest.raises(HRNError, match=r"--resume .*other_x2.*a_x2\.STEP"):
        train.main([*flags, "--resume", str(state)])
    assert log.read_text() == "kept"
    log.unlink()
    assert train.main([*flags, "--resume", str(state)]) == 0


def test_memory_that_runs_out_is_an_error(h5_path, tmp_path, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Learner, "step", fail)
    for more in ([], ["--dry_run"]):
        with pytest.raises(HRNError, match=r"cpu.*--accumulate"):
            train.main([*training_flags(h5_path, tmp_path), *more])


@pytest.mark.parametrize("name", ["a_x2.pth", "a_x2.jsonl"])
def test_files_of_an_earlier_run_are_not_overwritten(h5_path, tmp_path, name):
    flags = training_flags(h5_path, tmp_path)
    (tmp_path / name).write_text("kept")
    with pytest.raises(HRNError, match=name):
        train.main(flags)
    assert train.main([*flags, "--dry_run"]) == 0
    with pytest.raises(HRNError, match=r"a_x2\.\*\.train\.pth"):
        train.main([*flags, "--resume"])
    assert (tmp_path / name).read_text() == "kept"


def test_a_run_is_resumed_with_its_own_data(h5_path, tmp_path):
    flags = training_flags(h5_path, tmp_path, valid_data_path=h5_path)
    train.main(flags)
    other = h5_path.with_name("other.h5")
    h5_path.rename(other)
    assert train.main([*training_flags(other, tmp_path), "--resume"]) == 0  # a new name alone does not count
    other.rename(h5_path)
    backup = h5_path.read_bytes()
    with h5py.File(h5_path, "a") as file:
        for group in file.values():
            del group["0"]
    with pytest.raises(HRNError, match=r"--train_data_path carn\.h5 of 12 images"):
        train.main([*flags, "--resume"])
    h5_path.write_bytes(backup)
    with h5py.File(h5_path, "a") as file:
        file["HR/0"].write_direct(np.zeros((96, 120, 3), np.uint8))
    with pytest.raises(HRNError, match=r"--train_data_path carn\.h5, with other images"):
        train.main([*flags, "--resume"])
    h5_path.write_bytes(backup)
    train.main([*flags, "--resume", "--max_steps", "4", "--shave", "5"])
    assert load_checkpoint(tmp_path / "a_x2.pth").info["shave"] == [5]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["train.py", "--lr", "1"], "train.py --lr 1 --resume"),
        (["train.py", "--resume", "--lr", "1"], "train.py --lr 1 --resume"),
        (["train.py", "--resume", "a b.pth", "--ckpt_name", "c d"], "train.py --ckpt_name 'c d' --resume"),
    ],
)
def test_resume_command(typed, expected):
    assert shlex.join(resume_command(typed)) == expected


def test_dry_run_prints_the_plan_and_writes_nothing(h5_path, tmp_path, capsys):
    flags = training_flags(h5_path, tmp_path / "ck", max_steps=1000, batch_size=4, warmup=10)
    assert train.main([*flags, "--dry_run"]) == 0
    plan = {line[:15].strip(): line[15:] for line in capsys.readouterr().out.splitlines()}
    assert plan["network"].startswith("280,788 parameters, ")
    assert plan["batch"] == "4 patches of 8x8: 1 process(es), 4 each, 4 at once; BatchNorm over groups of 4"
    assert plan["steps"] == "1,000 (333.3 epochs)"
    assert plan["learning rate"].startswith("1.00e-05 at step 0, 1.00e-04 at step 10")
    seconds = float(re.match(r"([\d.]+) s \(not compiled\), [\d.]+ s of it waiting for data", plan["step time"])[1])
    hours, minutes, rest = (int(x) for x in plan["total time"].split()[0].split(":"))
    assert hours * 3600 + minutes * 60 + rest == pytest.approx(1000 * seconds, abs=2 + 1000 * 0.0006)
    assert not (tmp_path / "ck").exists()


def test_tensorboard_on_request(h5_path, tmp_path):
    pytest.importorskip("tensorboard")
    train.main([*training_flags(h5_path, tmp_path, valid_data_path=h5_path), "--tensorboard"])
    (events,) = (tmp_path / "a_x2.tensorboard").iterdir()
    assert b"grad_norm" in events.read_bytes()


def test_a_damaged_image_stops_the_run_before_its_first_step(h5_path, tmp_path):
    with h5py.File(h5_path, "a") as file:
        del file["X2/3"]
        data = file.create_dataset("X2/3", data=np.ones((48, 60, 3), np.uint8), chunks=True, fletcher32=True)
        where = data.id.get_chunk_info(0)
    with h5_path.open("r+b") as raw:
        raw.seek(where.byte_offset)
        raw.write(b"x")
    with pytest.raises(HRNError, match="X2/3"):
        train.main(training_flags(h5_path, tmp_path / "ck"))
    assert not list(tmp_path.rglob("*.jsonl"))


def test_auto_resume_starts_and_then_continues(h5_path, tmp_path):
    flags = [*training_flags(h5_path, tmp_path), "--auto_resume"]
    assert train.main(flags) == 0
    assert train.main([*flags, "--max_steps", "4"]) == 0
    assert load_checkpoint(tmp_path / "a_x2.00000004.train.pth").training["step"] == 4


def test_auto_resume_starts_again_after_a_kill_before_the_first_state(h5_path, tmp_path):
    """But it does not overwrite a finished run whose states were deleted."""
    flags = [*training_flags(h5_path, tmp_path), "--auto_resume"]
    train.main(flags)
    files = RunFiles(tmp_path, "a_x2")
    for state in files.states():
        state.unlink()
    files.marker.touch()
    with pytest.raises(HRNError, match="from an earlier run"):
        train.main(flags)
    files.weights.unlink()
    files.marker.touch()
    assert train.main(flags) == 0
    assert not files.marker.exists()


def test_auto_resume_continues_after_a_kill_between_a_validation_and_the_first_state(h5_path, tmp_path, monkeypatch):
    validation = {"valid_data_path": h5_path, "valid_interval": 1}
    flags = [*training_flags(h5_path, tmp_path, max_steps=4, save_interval=4, **validation), "--auto_resume"]
    step = Learner.step

    def kill(self, *args):
        if kill.steps == 2:
            raise KeyboardInterrupt
        kill.steps += 1
        return step(self, *args)

    kill.steps = 0
    monkeypatch.setattr(Learner, "step", kill)
    with pytest.raises(KeyboardInterrupt):
        train.main(flags)
    monkeypatch.setattr(Learner, "step", step)
    assert [load_checkpoint(state).training["step"] for state in RunFiles(tmp_path, "a_x2").states()] == [1]
    assert train.main(flags) == 0
    assert RunFiles(tmp_path, "a_x2").load_newest_state().training["step"] == 4


def test_the_newest_state_wins_over_a_file_after_a_restart(h5_path, tmp_path):
    """The file that the first start was given may be older, or deleted."""
    flags = training_flags(h5_path, tmp_path / "first", max_steps=2, save_interval=1)
    train.main(flags)
    start = tmp_path / "first/a_x2.00000001.train.pth"
    again = training_flags(h5_path, tmp_path / "second", max_steps=3, save_interval=1, resume=start)
    train.main([*again, "--auto_resume"])
    start.unlink()
    assert train.main([*again, "--auto_resume", "--max_steps", "4"]) == 0
    assert RunFiles(tmp_path / "second", "a_x2").load_newest_state().training["step"] == 4


def test_scale_0_trains_three_scales(h5_path, tmp_path):
    train.main(training_flags(h5_path, tmp_path, scale=0))
    assert load_checkpoint(tmp_path / "a_x2x3x4.pth").config.scales == (2, 3, 4)


def test_init_from_and_grow_from(h5_path, tmp_path):
    config = preset("hrn_light", [2])
    save_checkpoint(tmp_path / "light.pth", config, build_model(config).state_dict(), info={})
    for flag, model in (("init_from", "hrn_light"), ("grow_from", "hrn_base")):
        more = {"model": model, flag: tmp_path / "light.pth", "max_steps": 1, "lr": 1e-12}
        train.main(training_flags(h5_path, tmp_path / flag, **more))
        assert load_checkpoint(tmp_path / flag / "a_x2.pth").info[flag]["file"] == "light.pth"
    start, same = weights_of(tmp_path / "light.pth"), weights_of(tmp_path / "init_from/a_x2.pth")
    assert all((same[name] - value).abs().max() < 1e-6 for name, value in start.items() if "running" not in name)


def test_frozen_statistics_are_those_of_the_initial_weights(h5_path, tmp_path):
    """Also after a resume. A run is resumed with the statistics that it started with."""
    train.main(training_flags(h5_path, tmp_path / "first"))
    start = weights_of(tmp_path / "first/a_x2.pth")
    flags = training_flags(h5_path, tmp_path / "second", init_from=tmp_path / "first/a_x2.pth", ema=0.9)
    train.main([*flags, "--freeze_norm"])
    train.main([*flags, "--freeze_norm", "--resume", "--max_steps", "5"])
    end = weights_of(tmp_path / "second/a_x2.pth")
    running = [name for name in start if "running" in name]
    assert len(running) == 2 * 12
    for name, value in start.items():
        assert torch.equal(value, end[name]) == (name in running), name
    with pytest.raises(HRNError, match=r"with .*--freeze_norm"):
        train.main([*flags, "--resume", "--max_steps", "6"])
    with pytest.raises(HRNError, match=r"with .*--no-freeze_norm"):
        train.main([*training_flags(h5_path, tmp_path / "first"), "--freeze_norm", "--resume", "--max_steps", "6"])


def test_muon_by_flags(h5_path, tmp_path):
    flags = training_flags(h5_path, tmp_path, optimizer="muon", adam_lr_ratio=0.5, weight_decay=0.01)
    train.main(flags)
    train.main([*flags, "--resume", "--max_steps", "4"])
    with pytest.raises(HRNError, match=r"--adam_lr_ratio 0\.5"):
        train.main([*flags, "--resume", "--max_steps", "5", "--adam_lr_ratio", "1"])


def test_a_recipe_file_with_flags_that_win(h5_path, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'model = "hrn_light"\nckpt_name = "a"\nckpt_dir = "{tmp_path}/ck"\nscale = 2\ntrain_data_path = "{h5_path}"\n'
        'patch_size = 8\nbatch_size = 2\nmax_steps = 100\nlr = 1\ndevice = "cpu"\n'
    )
    train.main(["--config", str(recipe), "--max_steps", "2", "--lr", "1e-4"])
    state = load_checkpoint(tmp_path / "ck/a_x2.00000002.train.pth").training
    assert (state["step"], state["recipe"]["lr"], state["recipe"]["patch_size"]) == (2, 1e-4, 8)


def test_set_trains_a_variant_that_rebuilds_itself(h5_path, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"set": ["channels=6", "frequency=fft"]}')
    flags = ["--config", str(recipe), *training_flags(h5_path, tmp_path / "ck"), "--set", "frequency=none", "n_dem=1"]
    train.main(flags)
    train.main([*flags, "--resume", "--max_steps", "4"])
    checkpoint = load_checkpoint(tmp_path / "ck/a_x2.pth")
    expected = replace(preset("hrn_light", [2]), channels=6, frequency="none", n_dem=1)
    assert checkpoint.config == load_network(checkpoint).config == expected
    assert checkpoint.info["model"] == "hrn_light channels=6 frequency=fft frequency=none n_dem=1"
    with pytest.raises(HRNError):  # another network
        train.main([*flags, "--resume", "--max_steps", "5", "--set", "dense=false"])


def error_of(main, args, capsys):
    """Exit code 2 and one message on stderr."""
    assert run_cli(lambda: main([str(a) for a in args])) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message
    return message


def test_bad_input(h5_path, tmp_path, capsys):
    def fails(**flags):
        return error_of(train.main, training_flags(flags.pop("h5", h5_path), tmp_path / "ck", **flags), capsys)

    assert "none.h5" in fails(h5=tmp_path / "none.h5")
    assert "'X8'" in fails(scale=8)
    assert "--patch_size 48" in fails(patch_size=64)
    assert "--batch_size" in fails(batch_size=0)
    assert "--shave" in fails(shave=-1)
    assert "nowhere" in fails(valid_data_path=tmp_path / "nowhere")
    assert "hrn_released" in fails(model="hrn_released", scale=0)
    assert "none.pth" in fails(resume=tmp_path / "none.pth")
    assert "none.pth" in fails(init_from=tmp_path / "none.pth")
    assert "--grow_from" in fails(init_from="a.pth", grow_from="b.pth")
    message = error_of(train.main, [*training_flags(h5_path, tmp_path / "ck"), "--freeze_norm"], capsys)
    assert "--init_from" in message
    assert "--ckpt_name" in fails(ckpt_name="a/b")
    for setting in ("width=3", "channels=0", "channels=many", "gates=max", "scales=2", "dense"):
        assert f"--set {setting}" in fails(set=setting)
    assert "--set channels=3" in fails(model="hrn_released", set="channels=3")
    assert "--norm_batch" in fails(set="norm=false", norm_batch=2)
    assert "--num_gpu" in fails(num_gpu=-1)
    assert "--device cuda:99" in fails(device="cuda:99")
    assert "--device cuda" in fails(device="cuda", num_gpu=0)
    assert "--adam_lr_ratio" in fails(adam_lr_ratio=2)
    assert not (tmp_path / "ck").exists()
    (tmp_path / "file").write_text("in the way")
    assert "--ckpt_dir" in error_of(train.main, training_flags(h5_path, tmp_path / "file/ck"), capsys)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs a folder in which no file can be created")
def test_a_folder_that_cannot_be_written_is_found_at_the_start(h5_path, capsys):
    """Not even the superuser can create files in this one."""
    assert "--ckpt_dir" in error_of(train.main, training_flags(h5_path, "/proc/self/task"), capsys)


@pytest.mark.parametrize(
    "flags",
    [
        "--model edsr --ckpt_name a",
        "--model hrn",
        "--ckpt_name a",
        "--nonsense",
        "--ckpt_dir= --model hrn --ckpt_name a",
    ],
)
def test_a_wrong_flag_exits_with_2(flags, capsys):
    with pytest.raises(SystemExit) as ended:
        train.main(flags.split())
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err
