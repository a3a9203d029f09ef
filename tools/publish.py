"""Prepare trained checkpoints for publication.

    python tools/publish.py manifest checkpoint/hrn_light/hrn_light_x4.pth sample/hrn_light_x4 --trained_on "838 images"
    python tools/publish.py hub hrn_light_x2 hrn_light_x4 --out hub/
    python tools/publish.py hub checkpoint/mine/mine_x4.pth --scores sample/mine_x4 --out hub/
    python tools/publish.py half checkpoint/mine/hrn_x4.pth checkpoint/hrn/hrn_x4.pth
    python tools/publish.py mean checkpoint/stage1/hrn_x4.pth checkpoint/stage2/hrn_x4.pth --out checkpoint/mine/hrn_x4.pth

`half` writes a copy with most parameters in float16, half the size. `mean` averages the weights of a network before and after a
stage of training. Score the result of either before you publish it. `manifest` adds a checkpoint and its scores, as written by
hrn/sample.py, to checkpoint/manifest.json. `hub` writes a folder for the Hugging Face Hub: safetensors files, config.json and a
model card. It uploads nothing; `hf upload OWNER/REPO hub/` does. It needs `pip install ".[export,hub]"`.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import torch

from hrn.checkpoint import Checkpoint, load_checkpoint, load_network, save_checkpoint
from hrn.cli import path_argument, run_cli
from hrn.errors import HRNError
from hrn.evaluation.score_files import read_scores
from hrn.files import check_not_input, write_text
from hrn.inference.export import export_safetensors
from hrn.inference.mode import default_mode
from hrn.model import config_to_dict
from hrn.pretrained import CHECKPOINT_DIR, find_checkpoint, read_manifest
from tools.model_card import check_yaml, model_card


def scores_of(checkpoint: Checkpoint, results: Sequence[Path]) -> dict[str, Any]:
    """Read the scores of a checkpoint by test set and scale, as the manifest stores them.

    Args:
        checkpoint: the checkpoint.
        results: folders with scores.json files, written by hrn/sample.py.

    Raises:
        HRNError: there are no scores of this file, or they are not finite, were not computed with the settings of the result tables, or occur twice.
    """
    scores: dict[str, Any] = {}
    for found in [found for folder in results for found in read_scores(folder)]:
        if found.header.get("checkpoint_sha256") != checkpoint.sha256:
            continue
        if not (math.isfinite(found.psnr_y) and math.isfinite(found.ssim_y)):
            raise HRNError(
                f"{found.file}: the mean scores are {found.psnr_y} dB and {found.ssim_y}, which a table cannot hold"
            )
        if deviations := found.deviations(str(default_mode(checkpoint.config))):
            raise HRNError(f"{found.file}: settings differ from those of the result tables: {deviations}")
        by_scale = scores.setdefault(found.name, {})
        if f"x{found.scale}" in by_scale:
            raise HRNError(f"{found.file}: second scores.json for {found.name} x{found.scale}; remove one")
        by_scale[f"x{found.scale}"] = {"psnr_y": round(found.psnr_y, 4), "ssim_y": round(found.ssim_y, 4)}
    if not scores:
        folders = ", ".join(map(str, results))
        raise HRNError(f"{folders}: no scores.json of {checkpoint.path.name} with SHA-256 {checkpoint.sha256}")
    return scores


def add_to_manifest(path: Path, results: Path, trained_on: str, folder: Path = CHECKPOINT_DIR) -> str:
    """Add a checkpoint and its scores to the manifest under the file's stem. An entry of the same file is updated.

    Args:
        path: the checkpoint, inside `folder`.
        results: a folder with scores.json files of this checkpoint, written by hrn/sample.py.
        trained_on: the data and the effort, in a few words for tables.
        folder: the checkpoint folder.

    Returns:
        The name in the manifest.

    Raises:
        HRNError: the file is not a checkpoint or not in `folder`, another file has its name in the manifest, it has no
            scores, or the scores were not computed with the settings of the result tables.
    """
    path = path.resolve()
    if folder.resolve() not in path.parents:
        raise HRNError(f"{path} is not in {folder}")
    file = path.relative_to(folder.resolve()).as_posix()
    manifest = read_manifest(folder)
    earlier = manifest["checkpoints"].get(path.stem, {"file": file})
    if earlier["file"] != file:
        raise HRNError(
            f"{path}: the manifest has {earlier['file']} under the name {path.stem}; rename one of the files"
        )
    checkpoint = load_checkpoint(path)
    sha256 = checkpoint.sha256
    scores = scores_of(checkpoint, [results])
    if earlier.get("sha256") == sha256:  # the same weights: keep the scores of other sets and scales
        for name, by_scale in earlier["scores"].items():
            scores[name] = {**by_scale, **scores.get(name, {})}
    manifest["checkpoints"][path.stem] = {
        "file": file,
        "bytes": path.stat().st_size,
        "sha256": sha256,
        "config": config_to_dict(checkpoint.config),
        "steps": checkpoint.inference_info.get("steps"),
        "trained_on": trained_on,
        "scores": scores,
    }
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return path.stem


def write_half(source: Path, target: Path) -> None:
    """Copy a checkpoint with its kernels and matrices in float16; the network is still built in float32.

    The copy does not have the validation scores. Biases and BatchNorm's tensors stay in float32, because they take little
    space. Rounding the biases of `hrn_base_x2` too would cost 0.003 dB.

    Raises:
        HRNError: the file is not a checkpoint, a parameter does not fit into float16, or the copy cannot be written or would
            replace the file.
    """
    check_not_input(target, [source])
    checkpoint = load_checkpoint(source)
    parameters = dict(load_network(checkpoint).named_parameters())
    weights = {k: v.half() if k in parameters and v.ndim > 1 else v for k, v in checkpoint.inference_weights.items()}
    if large := [name for name, weight in weights.items() if not weight.isfinite().all()]:
        raise HRNError(f"{source}: float16 cannot hold {', '.join(large[:3])}")
    info = {key: value for key, value in checkpoint.inference_info.items() if key != "validation"}
    save_checkpoint(target, checkpoint.config, weights, info={**info, "weights": "float16"})


def write_mean(sources: Sequence[Path], target: Path) -> None:
    """Write the mean of the weights of several checkpoints of one network.

    The mean of a network before and after a stage of training can keep what either does well (M. Wortsman et al., "Robust
    fine-tuning of zero-shot models", CVPR 2022). Integer buffers and the facts about the training are those of the last
    checkpoint, without its validation scores.

    Raises:
        HRNError: a file is not a checkpoint or is damaged, the networks differ, or the mean cannot be written or would replace
            one of the files.
    """
    check_not_input(target, sources)
    checkpoints = [load_checkpoint(path) for path in sources]
    last = checkpoints[-1]
    for checkpoint in checkpoints:
        if checkpoint.config != last.config:
            raise HRNError(f"{checkpoint.path} and {last.path} hold different networks")
        load_network(checkpoint)  # checks the weights
    weights = [checkpoint.inference_weights for checkpoint in checkpoints]
    mean = {
        name: torch.stack([w[name].float() for w in weights]).mean(0) if value.is_floating_point() else value
        for name, value in weights[-1].items()
    }
    info = {key: value for key, value in last.inference_info.items() if key not in ("validation", "weights")}
    info["mean_of"] = [{"file": c.path.name, "sha256": c.sha256} for c in checkpoints]
    save_checkpoint(target, last.config, mean, info=info)


def write_hub_folder(
    out: Path,
    names: Sequence[str | Path],
    datasets: Sequence[str] = (),
    results: Sequence[Path] = (),
    folder: Path = CHECKPOINT_DIR,
) -> None:
    """Write the files of a Hugging Face Hub repository.

    Args:
        out: the folder to write.
        names: checkpoints by path or name (:func:`hrn.pretrained.find_checkpoint`).
        datasets: Hub identifiers of the training data, for the model card.
        results: folders with scores.json files, written by hrn/sample.py, for checkpoints that the manifest does not have.
        folder: the checkpoint folder, whose manifest has the scores of the included weights.

    Raises:
        HRNError: a package is missing, see :func:`scores_of`, a checkpoint cannot be read, two have the same name, or a file cannot be written.
    """
    check_yaml()
    entries = {entry["sha256"]: entry for entry in read_manifest(folder)["checkpoints"].values()}
    checkpoints: dict[str, Checkpoint] = {}
    known: dict[str, Mapping[str, Any]] = {}
    for name in names:
        checkpoint = load_checkpoint(find_checkpoint(name, folder))
        stem = checkpoint.path.stem
        if stem in checkpoints:
            raise HRNError(f"two checkpoints have the name {stem}: {checkpoints[stem].path} and {checkpoint.path}")
        checkpoints[stem] = checkpoint
        scores = scores_of(checkpoint, results) if results and checkpoint.sha256 not in entries else {}
        known[stem] = entries.get(checkpoint.sha256, {"scores": scores})
    config = {
        stem: {"file": f"{stem}.safetensors", **config_to_dict(checkpoint.config)}
        for stem, checkpoint in checkpoints.items()
    }
    for stem, checkpoint in checkpoints.items():
        export_safetensors(out / f"{stem}.safetensors", checkpoint)
    write_text(out / "config.json", json.dumps({"model_type": "hrn", "checkpoints": config}, indent=2) + "\n")
    write_text(out / "README.md", model_card(checkpoints, known, datasets))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    manifest = commands.add_parser("manifest", help="add a checkpoint and its scores to checkpoint/manifest.json")
    manifest.add_argument("file", type=path_argument, help="a checkpoint in checkpoint/")
    manifest.add_argument(
        "results", type=path_argument, help="a folder with scores of the checkpoint, written by hrn/sample.py"
    )
    manifest.add_argument("--trained_on", required=True, help="data and effort, in a few words for tables")
    hub = commands.add_parser("hub", help="write the folder to upload to the Hugging Face Hub")
    hub.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="a file, or a name such as hrn_light_x4")
    hub.add_argument("--out", type=path_argument, required=True, metavar="FOLDER", help="the folder to write")
    hub.add_argument(
        "--datasets",
        nargs="+",
        default=[],
        metavar="ID",
        help="Hub identifiers of the training data, for the card",
    )
    text = "outputs of hrn/sample.py with the scores of checkpoints that are not in the manifest, for the card"
    hub.add_argument("--scores", type=path_argument, nargs="+", default=[], metavar="FOLDER", help=text)
    half = commands.add_parser("half", help="copy a checkpoint with its kernels in float16")
    half.add_argument("source", type=path_argument, help="a checkpoint")
    half.add_argument("target", type=path_argument, help="the copy to write")
    mean = commands.add_parser("mean", help="average the weights of checkpoints of one network")
    mean.add_argument("sources", type=path_argument, nargs="+", help="checkpoints, the newest last")
    mean.add_argument("--out", type=path_argument, required=True, metavar="FILE", help="the checkpoint to write")
    args = parser.parse_args(argv)
    if args.command == "mean":
        write_mean(args.sources, args.out)
        print(f"wrote {args.out}")
    elif args.command == "half":
        write_half(args.source, args.target)
        print(f"wrote {args.target}")
    elif args.command == "manifest":
        name = add_to_manifest(args.file, args.results, args.trained_on)
        print(f"added {name} to {CHECKPOINT_DIR / 'manifest.json'}")
    else:
        write_hub_folder(args.out, args.checkpoints, args.datasets, args.scores)
        print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
