import dataclasses
import hashlib
import os
import pickle
import signal
import struct
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from hrn import checkpoint as checkpoint_module
from hrn.checkpoint import FORMAT, load_checkpoint, load_matching_weights, load_network, save_checkpoint
from hrn.checkpoint.__main__ import main
from hrn.checkpoint.fit import TENSORS_PER_WRAB
from hrn.errors import HRNError, UnreadableError
from hrn.files import file_hash
from hrn.model import HRN, build_model, preset
from hrn.pretrained import read_manifest
from tests.conftest import randomise


@pytest.fixture
def saved(tmp_path, small_config):
    network = randomise(build_model(small_config)).train()
    path = tmp_path / "small.pth"
    save_checkpoint(path, small_config, network.state_dict(), info={"steps": 3})
    return path, network


def test_a_checkpoint_rebuilds_its_own_network(saved, small_config):
    path, network = saved
    checkpoint = load_checkpoint(path)
    assert checkpoint.config == small_config
    assert checkpoint.info == {"steps": 3}
    again = load_network(checkpoint)
    assert not again.training
    lr = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        torch.testing.assert_close(again(lr), network.eval()(lr), atol=1e-5, rtol=1e-5)


def test_loading_leaves_the_random_state_alone(saved):
    before = torch.get_rng_state()
    load_network(load_checkpoint(saved[0]))
    assert torch.equal(before, torch.get_rng_state())


def test_other_model_or_scale(saved):
    checkpoint = load_checkpoint(saved[0])
    with pytest.raises(HRNError, match=r"small\.pth.*x2.*x4"):
        load_network(checkpoint, scale=4)
    with pytest.raises(HRNError, match=r"hrn_light.*body\..*head\.weight.*\(8, 3, 3, 3\).*\(24, 3, 3, 3\)"):
        load_network(checkpoint, model="hrn_light")


def test_weights_that_do_not_fit_name_the_first_keys(tmp_path, small_config):
    weights = dict(build_model(small_config).state_dict())
    weights["surprise"] = weights.pop("head.bias")
    save_checkpoint(tmp_path / "a.pth", small_config, weights, info={})
    with pytest.raises(HRNError, match=r"head\.bias.*surprise"):
        load_network(load_checkpoint(tmp_path / "a.pth"))


def test_matching_weights_are_loaded(saved, small_config):
    path, network = saved
    other = build_model(dataclasses.replace(small_config, scales=(2, 3)))
    missing, unused = load_matching_weights(other, load_checkpoint(path))
    assert missing
    assert all("x3" in name for name in missing)
    assert unused == []
    assert torch.equal(other.head.weight, network.head.weight)
    with pytest.raises(HRNError, match=r"small\.pth"):
        load_matching_weights(torch.nn.Linear(2, 2), load_checkpoint(path))


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, how):
    path = tmp_path / "evil.pth"
    contents = {"format": FORMAT, "config": Evil(tmp_path / "ran"), "weights": {}, "info": {}}
    if how == "torch":
        torch.save(contents, path)
    else:
        path.write_bytes(pickle.dumps(contents))
    with pytest.raises(HRNError, match=r"evil\.pth"):
        load_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_missing_damaged_and_foreign_files(saved, tmp_path):
    with pytest.raises(HRNError, match=r"none\.pth"):
        load_checkpoint(tmp_path / "none.pth")
    data = saved[0].read_bytes()
    for i, broken in enumerate([b"", b"<!DOCTYPE html><html>404</html>", data[: len(data) // 2], data[:1000]]):
        (tmp_path / f"{i}.pth").write_bytes(broken)
        with pytest.raises(HRNError, match=f"{i}.pth"):
            load_checkpoint(tmp_path / f"{i}.pth")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "foreign.pth")
    with pytest.raises(HRNError, match=r"foreign\.pth"):
        load_checkpoint(tmp_path / "foreign.pth")
    torch.save({"format": FORMAT, "config": {"network": "hrn2"}, "weights": {}, "info": {}}, tmp_path / "newer.pth")
    with pytest.raises(HRNError, match=r"newer\.pth.*hrn2"):
        load_checkpoint(tmp_path / "newer.pth")


def test_files_that_may_be_intact(saved, tmp_path, monkeypatch):
    """A state is not skipped for them, because continuing from an older one deletes it."""
    torch.save({"format": "hrn-checkpoint-2"}, tmp_path / "newer.pth")
    with pytest.raises(UnreadableError, match=r"newer\.pth.*hrn-checkpoint-2"):
        load_checkpoint(tmp_path / "newer.pth")
    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ):
        monkeypatch.setattr(torch, "load", Mock(side_effect=error))
        with pytest.raises(UnreadableError, match=r"small\.pth: not enough memory"):
            load_checkpoint(saved[0])


@pytest.fixture
def crafted(tmp_path, small_config):
    """A function that writes a file in this package's format with arbitrary contents."""

    def write(weights=None, **more):
        config = {"network": "hrn", **dataclasses.asdict(small_config), **more.pop("config", {})}
        weights = dict(build_model(small_config).state_dict()) if weights is None else weights
        torch.save({"format": FORMAT, "config": config, "weights": weights, "info": {}, **more}, tmp_path / "a.pth")
        return tmp_path / "a.pth"

    return write


@pytest.mark.parametrize("name", ["channels", "n_dem", "n_wrab", "expansion"])
@pytest.mark.parametrize("size", [10**6, 10**30, 10**400])
def test_a_configuration_larger_than_the_weights_costs_no_memory(crafted, monkeypatch, name, size):
    made = []
    monkeypatch.setattr(checkpoint_module, "build_model", made.append)
    for weights in ({}, None):
        path = crafted(weights, config={name: size})
        with pytest.raises(HRNError, match=r"a\.pth"):
            load_network(load_checkpoint(path))
    assert made == []


def test_empty_tensors_do_not_count(crafted, monkeypatch):
    """A small file with many of them must not start the construction of a large network."""
    made = []
    monkeypatch.setattr(checkpoint_module, "build_model", made.append)
    weights = {f"empty{i}": torch.zeros(0) for i in range(5000)} | {"head.weight": torch.zeros(1000)}
    with pytest.raises(HRNError, match=r"a\.pth"):
        load_network(load_checkpoint(crafted(weights, config={"n_dem": 500, "n_wrab": 1, "channels": 3})))
    assert made == []


def test_the_least_number_of_tensors(small_config):
    variants = {"frequency": "none", "attention": "none", "dense": False}
    config = dataclasses.replace(small_config, n_dem=3, n_wrab=2, **variants)
    per_wrab = sum(name.startswith("body.0.spatial") for name in build_model(config).state_dict()) / 2
    assert per_wrab == TENSORS_PER_WRAB


def test_a_compressed_file_is_refused(saved, tmp_path):
    """It may be a thousand times as large in memory."""
    with zipfile.ZipFile(saved[0]) as source, zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    torch.load(tmp_path / "b.pth", weights_only=True)  # PyTorch reads it
    with pytest.raises(HRNError, match=r"b\.pth.*compressed"):
        load_checkpoint(tmp_path / "b.pth")


def test_overlapping_entries_are_refused(saved, tmp_path):
    """A small file could otherwise claim the same bytes for many tensors."""
    with zipfile.ZipFile(saved[0]) as source:
        entries, start = source.infolist(), source.start_dir
    largest = max(range(len(entries)), key=lambda i: entries[i].file_size)
    contents = saved[0].read_bytes()
    end = contents.rindex(b"PK\x05\x06")  # end of the central directory (APPNOTE.TXT, 4.3.16)
    zip64 = contents.find(b"PK\x06\x06", start)
    directory = contents[start : zip64 if zip64 > 0 else end]
    records = [b"PK\x01\x02" + record for record in directory.split(b"PK\x01\x02")[1:]]
    records += [records[largest]] * (len(contents) // entries[largest].file_size + 1)
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, len(records), len(records), sum(map(len, records)), start, 0)
    (tmp_path / "b.pth").write_bytes(contents[:start] + b"".join(records) + tail)
    with zipfile.ZipFile(tmp_path / "b.pth") as archive:
        assert len(archive.infolist()) == len(records)
    with pytest.raises(HRNError, match=r"b\.pth.*overlap"):
        load_checkpoint(tmp_path / "b.pth")


def test_a_file_that_changes_while_it_is_read(saved, monkeypatch):
    """Its hash would be that of other weights."""
    load = torch.load

    def load_and_replace(path, **options):
        contents = load(path, **options)
        saved[0].write_bytes(saved[0].read_bytes() + b"\0")
        return contents

    monkeypatch.setattr(torch, "load", load_and_replace)
    with pytest.raises(UnreadableError, match="changed"):
        load_checkpoint(saved[0])


def test_the_hash_of_a_file_is_kept(saved):
    assert load_checkpoint(saved[0]).sha256 == hashlib.sha256(saved[0].read_bytes()).hexdigest()


def test_weights_are_compared_before_the_network_is_made(crafted, monkeypatch):
    """A slightly wrong size is found on the meta device, where nothing is allocated."""
    path = crafted(config={"channels": 9})
    devices = []
    initialise = HRN.__init__

    def build(self, config):
        initialise(self, config)
        devices.append(next(self.parameters()).device.type)

    monkeypatch.setattr(HRN, "__init__", build)
    with pytest.raises(HRNError, match=r"head\.weight.*\(8, 3, 3, 3\).*\(9,"):
        load_network(load_checkpoint(path))
    assert devices == ["meta"]


def test_a_tensor_that_claims_to_be_larger_than_its_storage(crafted, small_config):
    state = build_model(small_config).state_dict()
    weights = {name: torch.tensor(0.0).expand(value.shape) for name, value in state.items()}
    with pytest.raises(HRNError, match=r"a\.pth"):
        load_network(load_checkpoint(crafted(weights)))


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize(
    "more",
    [
        {"weights": {3: torch.zeros(1)}},
        {"weights": {"head.weight": 3}},
        {"weights": {"head.weight": torch.zeros(1, device="meta")}},
        {"weights": {"head.weight": torch.zeros(2, 2).to_sparse()}},
        {"weights": {"head.weight": torch.zeros(2, dtype=torch.complex64)}},
        {"weights": {"head.weight": torch.zeros(2, dtype=torch.uint8).view(torch.bits8)}},
        {"training": [1]},
        {"info": 3},
    ],
)
def test_contents_of_the_wrong_type(crafted, more):
    with pytest.raises(HRNError, match=r"a\.pth"):
        load_checkpoint(crafted(**more))


def test_a_foreign_state_dict_without_shapes(tmp_path):
    names = ("b1.body.0.body.3.conv_1x1.weight", "tail.0.0.weight")
    torch.save({name: torch.tensor(1.0) for name in names}, tmp_path / "a.pth")
    with pytest.raises(HRNError, match=r"a\.pth.*x2"):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(("scale", "prefix"), [(2, ""), (3, ""), (4, "module."), (8, "")])
def test_the_scale_of_the_authors_state_dict(tmp_path, scale, prefix):
    with torch.device("meta"):
        weights = build_model(preset("hrn_released", [scale])).state_dict()
    small = {prefix + name: torch.zeros(()).expand(value.shape) for name, value in weights.items()}
    torch.save(small, tmp_path / "a.pth")
    checkpoint = load_checkpoint(tmp_path / "a.pth")
    assert checkpoint.model_name == "hrn_released"
    assert checkpoint.config.scales == (scale,)


def test_the_authors_state_dict_as_pytorch_0_4_0_writes_it(tmp_path):
    """That version does not count the batches of BatchNorm."""
    with torch.device("meta"):
        weights = build_model(preset("hrn_released", [4])).state_dict()
    small = {name: torch.ones(()).expand(value.shape) for name, value in weights.items() if "num_batches" not in name}
    assert len(small) < len(weights)
    torch.save(small, tmp_path / "a.pth")
    checkpoint = load_checkpoint(tmp_path / "a.pth")
    assert checkpoint.model_name == "hrn_released"
    assert checkpoint.weights.keys() == weights.keys()
    assert all(value.numel() == 1 for name, value in checkpoint.weights.items() if name not in small)


@pytest.mark.parametrize("learner", [{"ema": None}, {}])
def test_a_training_state_without_a_running_mean(saved, small_config, learner):
    path, network = saved
    save_checkpoint(path, small_config, network.state_dict(), info={}, training={"learner": learner})
    assert (load_network(load_checkpoint(path)).head.weight == network.head.weight).all()


def test_a_training_state_is_used_with_its_running_mean(saved, small_config):
    path, network = saved
    mean = torch.optim.swa_utils.AveragedModel(build_model(small_config))
    mean.module.head.weight.data += 1
    training = {"learner": {"ema": mean.state_dict()}}
    save_checkpoint(path, small_config, network.state_dict(), info={}, training=training)
    checkpoint = load_checkpoint(path)
    assert (load_network(checkpoint).head.weight == mean.module.head.weight).all()
    other = build_model(small_config)
    load_matching_weights(other, checkpoint)
    assert (other.head.weight == mean.module.head.weight).all()
    assert (checkpoint.weights["head.weight"] == network.head.weight).all()  # what a resumed run continues from


@pytest.mark.parametrize(
    "ema",
    [
        "x",
        torch.zeros(2),
        {},
        {"n_averaged": 1},
        {"module.head.weight": 3},
        {"module.a": torch.zeros(1)},
        {"module.\x1b": torch.zeros(1)},
    ],
)
def test_a_damaged_running_mean(saved, small_config, ema):
    path, network = saved
    save_checkpoint(path, small_config, network.state_dict(), info={}, training={"learner": {"ema": ema}})
    with pytest.raises(HRNError, match=r"small\.pth"):
        load_network(load_checkpoint(path))


def test_the_authors_network_is_built(tmp_path):
    torch.save(build_model(preset("hrn_released", [3])).state_dict(), tmp_path / "a.pth")
    load_network(load_checkpoint(tmp_path / "a.pth"), model="hrn_released", scale=3)


def test_no_write_permission_leaves_nothing(tmp_path, saved, small_config):
    (tmp_path / "file").write_text("not a folder")  # not even root can create a folder below a file
    with pytest.raises(HRNError, match=r"a\.pth"):
        save_checkpoint(tmp_path / "file/a.pth", small_config, {}, info={})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "small.pth"]


def test_a_failed_save_keeps_the_earlier_file(saved, small_config, monkeypatch):
    path, _ = saved
    before = file_hash(path)

    def half_then_full(temporary, data):
        with temporary.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half_then_full)
    with pytest.raises(HRNError, match=r"small\.pth.*No space left on device"):
        save_checkpoint(path, small_config, {}, info={})
    assert file_hash(path) == before
    assert [p.name for p in path.parent.iterdir()] == ["small.pth"]


@pytest.mark.slow
def test_killed_while_saving(tmp_path):
    """SIGKILL at several moments of an endless series of saves: the file is always complete."""
    script = textwrap.dedent(f"""
        import torch
        from hrn.checkpoint import save_checkpoint
        from hrn.model import HRNConfig
        step = 0
        while True:
            step += 1
            save_checkpoint({str(tmp_path / "a.pth")!r}, HRNConfig(), {{"w": torch.full((200_000,), step)}}, info={{"steps": step}})
            print(step, flush=True)
    """)
    for delay in range(6):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(1 + 3 * delay):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        checkpoint = load_checkpoint(tmp_path / "a.pth")
        assert (checkpoint.weights["w"] == checkpoint.info["steps"]).all()


def test_describing_weights(root, tmp_path, capsys):
    shipped = root / "checkpoint/hrn_light/hrn_light_x3.pth"
    released = tmp_path / "hrn_x2.pth"
    torch.save(build_model(preset("hrn_released", [2])).state_dict(), released)
    (tmp_path / "broken.pth").write_bytes(shipped.read_bytes()[:5000])
    assert main([str(shipped), str(tmp_path / "broken.pth"), str(released)]) == 2
    printed = capsys.readouterr()
    facts = {line[2:16].strip(): line[16:] for line in printed.out.split(str(released))[0].splitlines()[1:]}
    assert facts["kind"] == "weights"
    assert (facts["model"], facts["scales"], facts["parameters"]) == ("hrn_light", "x3", "284,043")
    assert "channels 24, n_dem 2" in facts["configuration"]
    assert "batch_size 16" in facts["recipe"]
    assert facts["validation"].startswith("PSNR-Y 28.")
    entry = read_manifest()["checkpoints"]["hrn_light_x3"]
    assert f"Set5 x3 {entry['scores']['Set5']['x3']['psnr_y']:.2f} dB / 0." in facts["scores"]
    origin = load_checkpoint(shipped).info["init_from"]
    assert facts["started from"] == f"{origin['file']} (sha256 {origin['sha256'][:12]}...)"
    assert facts["sha256"] == file_hash(shipped)
    assert "weights of the authors' released code" in printed.out.split(str(released))[1]
    assert "hrn_released" in printed.out.split(str(released))[1]
    assert "x2" in printed.out.split(str(released))[1]
    assert "broken.pth" in printed.err


def test_describing_a_training_state(tmp_path, capsys):
    config = preset("hrn_light", [2, 3])
    recipe = {"max_steps": 10_000, "lr": 0.1, "save_interval": 3}
    training = {"step": 1234, "recipe": recipe, "best": None}
    save_checkpoint(tmp_path / "a.pth", config, build_model(config).state_dict(), info={}, training=training)
    assert main([str(tmp_path / "a.pth")]) == 0
    out = capsys.readouterr().out
    assert "--resume" in out
    assert "x2, x3" in out
    assert "1,234 of 10,000" in out
    assert "recipe        lr 0.1\n" in out


@pytest.mark.parametrize(
    "more",
    [
        {"info": {"recipe": {"lr": 1}, "steps": 3, "validation": {"ssim_y": "?"}, "valid_data": 3}},
        {"info": {"recipe": [1], "versions": "x", "init_from": "x", "steps": "x", "train_data": 3}},
        {"training": {"recipe": {3: 4}, "best": {"psnr_y": None}}},
        {"info": {"train_data": torch.zeros(2), "versions": {"torch": torch.zeros(2)}, "recipe": torch.zeros(2)}},
        {
            "info": dict.fromkeys(("validation", "init_from", "mean_of"), torch.zeros(2)),
            "training": {"best": torch.ones(2)},
        },
    ],
)
def test_describing_a_file_with_unexpected_info(crafted, capsys, more):
    assert main([str(crafted(**more))]) == 0
    assert "  sha256        " in capsys.readouterr().out


def test_control_characters_are_escaped(crafted, capsys):
    assert main([str(crafted(info={"train_data": "a\x1b[2J\r\nb\u202ec é"}))]) == 0
    assert "trained on    a\\x1b[2J\\r\\nb\\u202ec é\n" in capsys.readouterr().out
    assert main([str(crafted({"a\x1b[2J": torch.zeros(10**5)}))]) == 2
    assert "\x1b" not in capsys.readouterr().err
