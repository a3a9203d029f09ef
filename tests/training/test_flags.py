import json

import pytest

from hrn.checkpoint import load_checkpoint
from hrn.cli import run_cli
from hrn.errors import HRNError
from hrn.training.flags import parse_args
from hrn.training.recipe import Recipe
from hrn.training.schedule import lr_at

VALUES = {
    "model": "hrn",
    "ckpt_name": "a",
    "scale": 2,
    "lr": 1,
    "compile": True,
    "dry_run": True,
    "valid_data_path": ["a.h5", "b.h5"],
}


@pytest.fixture
def config(tmp_path):
    def write(text, suffix=".toml"):
        path = tmp_path / f"recipe{suffix}"
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return str(path)

    return write


def test_json_equals_flags(config):
    from_file = vars(parse_args(["--config", config(VALUES, ".json")]))
    flags = "--model hrn --ckpt_name a --scale 2 --lr 1 --compile --dry_run --valid_data_path a.h5 b.h5"
    assert {**from_file, "config": None} == vars(parse_args(flags.split()))


def test_the_command_line_wins(config):
    path = config('model = "hrn"\nckpt_name = "a"\ncompile = true\nworkers = 2\nresume = true\n')
    args = parse_args([f"--config={path}", "--model", "hrn_light", "--no-compile"])
    assert (args.model, args.ckpt_name, args.compile, args.workers, args.resume) == ("hrn_light", "a", False, 2, True)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("learning_rate = 1.0", "learning_rate"),
        ('config = "other.toml"', "config"),
        ("no-compile = true", "no-compile"),
        ('lr = "1e-3"', "lr"),
        ("batch_size = 1.5", "batch_size"),
        ("batch_size = true", "batch_size"),
        ("compile = 1", "compile"),
        ("dry_run = 'yes'", "dry_run"),
        ("train_data_path = 3", "train_data_path"),
        ("valid_data_path = [1]", "valid_data_path"),
        ("valid_data_path = ['']", "valid_data_path"),
        ("set = [1]", "set"),
        ('model = "edsr"', "model"),
        ("scale = 5", "scale"),
        ('optimizer = "sgd"', "optimizer"),
        ("[recipe]\nlr = 1.0", "recipe"),
        ("lr = ", "Invalid value"),
    ],
)
def test_bad_recipe_files_are_refused_by_name(config, text, name, capsys):
    path = config(text)
    assert run_cli(lambda: parse_args(["--config", path, "--model", "hrn", "--ckpt_name", "a"])) == 2
    assert name in capsys.readouterr().err.split(path, 1)[1]


def test_files_that_cannot_be_read(config, tmp_path):
    with pytest.raises(HRNError, match=r"none\.toml"):
        parse_args(["--config", str(tmp_path / "none.toml")])
    for text in ("{", "[1]"):
        with pytest.raises(HRNError, match=r"recipe\.json"):
            parse_args(["--config", config(text, ".json")])


def test_set_adds_to_the_recipe_files(config):
    path = config({"set": ["channels=28", "gates=add"]}, ".json")
    args = parse_args(
        ["--config", path, "--model", "hrn", "--ckpt_name", "a", "--set", "channels=20", "--set", "skip=false"]
    )
    assert args.set == ["channels=28", "gates=add", "channels=20", "skip=false"]


def test_required_flags_may_come_from_either(config):
    assert parse_args(["--config", config('model = "hrn"'), "--ckpt_name", "a"]).model == "hrn"
    with pytest.raises(SystemExit):
        parse_args(["--config", config('model = "hrn"')])


def recipe_of(path):
    args = parse_args(["--config", str(path), "--dry_run"])
    return args, Recipe(**{name: getattr(args, name) for name in Recipe.__dataclass_fields__})


STOPPED_EARLY = {"hrn_base_x4_stage4", "hrn_base_x2_stage2"}
"""Stages whose run ended before its last step."""


@pytest.mark.parametrize("model", ["hrn_light", "hrn_base", "hrn"])
def test_included_recipes_equal_the_recipes_in_the_checkpoints(root, model):
    """Each file has the rates of the log beside it, and the last stage of each network the recipe in its checkpoint."""
    folder = root / "checkpoint" / model
    recipes = {path.stem: recipe_of(path) for path in (folder / "recipes").glob("*.toml")}
    assert recipes.keys() == {path.stem for path in folder.glob("*.jsonl")}
    for name, (args, recipe) in recipes.items():
        scale = {"x2": 2, "x3": 3, "x4": 4, "x8": 8}.get(name.split("_")[-2], 0)
        assert (args.model, args.dry_run, args.scale) == (model, True, scale)
        last = json.loads((folder / f"{name}.jsonl").read_text().splitlines()[-1])
        assert last["step"] < recipe.max_steps if name in STOPPED_EARLY else last["step"] == recipe.max_steps
        assert last["lr"] == pytest.approx(recipe.lr_at(last["step"] - 1), rel=1e-6)
        first = json.loads((folder / f"{name}.jsonl").read_text().splitlines()[0])
        rate = lr_at(
            first["step"] - 1, base=recipe.lr, max_steps=recipe.max_steps, schedule="cosine", warmup=recipe.warmup
        )
        assert first["lr"] == pytest.approx(rate, rel=1e-6)
    for path in folder.glob("*.pth"):
        stages = {int(n.removeprefix(f"{path.stem}_stage")): n for n in recipes if n.startswith(f"{path.stem}_stage")}
        name = stages[max(stages)]
        written = load_checkpoint(path).info["recipe"]
        assert recipes[name][1].differences({**written, "norm_batch": 0}) == "", name
        assert recipes[name][1].max_steps == written["max_steps"]
