"""The model card of a Hugging Face Hub repository."""

from collections.abc import Mapping, Sequence
from typing import Any

from hrn.checkpoint import Checkpoint
from hrn.data.benchmark import STANDARD_SETS
from hrn.errors import HRNError

DATASET_IDS = {"B100": "eugenesiow/BSD100"} | {name: f"eugenesiow/{name}" for name in ("Set5", "Set14", "Urban100")}
"""The identifiers of the test sets on the Hub. Other sets are listed under their own name."""

CARD = """\
---
{header}---

# HRN: single image super-resolution

Weights of [HRN](https://doi.org/10.1016/j.neunet.2022.02.008), the cross-domain heterogeneous residual network (L. Ji et
al., Neural Networks 149, 2022), trained with an independent PyTorch implementation.

```python
from hrn import load_model, upscale

model = load_model("hf://OWNER/REPO/{file}")  # replace OWNER/REPO with the name of this repository
upscale(model, "photo.jpg").save("photo_upscaled.png")
```

{files}

## Scores

PSNR in dB / SSIM on the Y channel, with `scale` pixels of border left out. LR images are made by MATLAB's bicubic.

{scores}

## Licence

The code is under the BSD 2-Clause licence. Training images such as those of DIV2K, BSDS500 and T91 are for research use.
Check the terms of the training data before you use the weights for anything else.
"""


def check_yaml() -> None:
    """Raise HRNError if PyYAML is missing, which writes the card's header."""
    try:
        import yaml  # noqa: F401
    except ImportError as error:
        raise HRNError(f"writing a model card needs PyYAML ({error}); run: pip install huggingface_hub") from None


def model_card(
    checkpoints: Mapping[str, Checkpoint], entries: Mapping[str, Mapping[str, Any]], datasets: Sequence[str]
) -> str:
    """Return the text of a model card.

    Args:
        checkpoints: the checkpoints by name.
        entries: their manifest entries. Those without scores are not in the result list.
        datasets: Hub identifiers of the training data.
    """
    import yaml  # a dependency of huggingface_hub

    return CARD.format(
        header=yaml.safe_dump(_header(entries, datasets), sort_keys=False),
        file=f"{next(iter(checkpoints))}.safetensors",
        files=_file_table(checkpoints, entries),
        scores=_score_table(entries),
    )


def _header(entries: Mapping[str, Mapping[str, Any]], datasets: Sequence[str]) -> dict[str, Any]:
    """Return the metadata that the Hub reads from a model card."""
    return {
        "license": "other",
        "license_name": "research-use",
        "library_name": "hrn",
        "pipeline_tag": "image-to-image",
        "tags": ["super-resolution", "pytorch"],
        **({"datasets": list(datasets)} if datasets else {}),
        "metrics": ["psnr", "ssim"],
        "model-index": [
            {"name": name, "results": _results(entry["scores"])} for name, entry in entries.items() if entry["scores"]
        ],
    }


def _results(scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Return the manifest's scores of one checkpoint as results of a model index."""
    return [
        {
            "task": {"type": "image-to-image", "name": f"super-resolution {scale}"},
            "dataset": {"type": DATASET_IDS.get(name, name), "name": f"{name} {scale}"},
            "metrics": [
                {"type": "psnr", "name": "PSNR-Y", "value": mean["psnr_y"]},
                {"type": "ssim", "name": "SSIM-Y", "value": mean["ssim_y"]},
            ],
        }
        for name, by_scale in scores.items()
        for scale, mean in by_scale.items()
    ]


def _file_table(checkpoints: Mapping[str, Checkpoint], entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a Markdown table of the files."""
    rows = ["| file | model | scales | training |", "|---|---|---|---|"]
    for stem, checkpoint in checkpoints.items():
        scales = ", ".join(f"x{s}" for s in checkpoint.config.scales)
        trained_on = entries[stem].get("trained_on") or checkpoint.info.get("train_data") or ""
        rows.append(f"| {stem}.safetensors | {checkpoint.model_name} | {scales} | {trained_on} |")
    return "\n".join(rows)


def _score_table(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a Markdown table of the scores on the standard test sets."""
    sets = [name for name in STANDARD_SETS if any(name in entry["scores"] for entry in entries.values())]
    if not sets:
        return "No scores are available."
    rows = [f"| file | scale | {' | '.join(sets)} |", "|---" * (len(sets) + 2) + "|"]
    for stem, entry in entries.items():
        for scale in sorted({scale for by_scale in entry["scores"].values() for scale in by_scale}):
            means = [entry["scores"].get(name, {}).get(scale) for name in sets]
            cells = [f"{mean['psnr_y']:.2f} / {mean['ssim_y']:.4f}" if mean else "-" for mean in means]
            rows.append(f"| {stem} | {scale} | {' | '.join(cells)} |")
    return "\n".join(rows)
