"""The README, docs/ and the model cards: generated tables, links, commands and numbers."""

import argparse
import contextlib
import functools
import importlib
import importlib.util
import io
import re
import shlex
import sys
from pathlib import Path

import pytest

from hrn.checkpoint import load_checkpoint
from hrn.evaluation.tables import SETS
from hrn.files import file_hash
from hrn.pretrained import read_manifest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = tuple(read_manifest()["checkpoints"])
README_LIMIT = 12 * 1024
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(ROOT.glob("checkpoint/*/README.md")),
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "dataset", "sample")),
]
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
FIGURE_KINDS = ("compare", "curve", "schedules", "spectrum", "tradeoff")
FOREIGN_FLAGS = {"--nproc_per_node", "--max_restarts", "--shm-size", "--cpus-per-task"}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def load_script(path: Path):
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _search_path(monkeypatch):
    """Scripts put the repository on the search path."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="module")
def tool():
    """tools/make_figures.py; each table is made once."""
    module = load_script(ROOT / "tools/make_figures.py")
    module.make_table = functools.cache(module.make_table)
    return module


# tables


def test_tables_are_generated(tool):
    for page in tool.pages():
        text = page.read_text()
        assert tool.fill(text) == text, named(page)
        by_hand = re.findall(r"^(\|.*\|)\n\|---", tool.TABLE.sub("", text), re.MULTILINE)
        assert not [header for header in by_hand if "PSNR" in header or "| s |" in header], named(page)


def test_a_source_without_a_file_stands_for_a_pending_table(tool):
    """A misspelled source would otherwise freeze its table."""
    for page in tool.pages():
        for match in tool.TABLE.finditer(page.read_text()):
            assert tool.make_table(match["source"]) or "|" not in match["table"], f"{named(page)}: {match['source']}"


# links


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_relative_links_resolve(page):
    for link, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", page.read_text()):
        target = page.parent / link if link else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), f"{link}#{anchor}"


def test_the_readme_is_short_and_links_every_page():
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) <= README_LIMIT
    for page in (ROOT / "docs").glob("*.md"):
        assert f"](docs/{page.name})" in text


# commands


def commands(page: Path) -> list[list[str]]:
    """The Python commands in a page's code blocks, as words from `python` on."""
    found = []
    code = [match["code"] for match in BLOCK.finditer(page.read_text()) if not match["language"]]
    for line in "".join(code).replace("\\\n", " ").splitlines():
        if line.startswith(("python ", "torchrun ")):
            words = shlex.split(line, comments=True)
            script = next(i for i, word in enumerate(words) if word == "-m" or word.endswith(".py"))
            found.append(["python", *words[script:]])
    return found


def script(words: list[str]) -> list[str]:
    """The part of a command that names the program."""
    return words[: 3 if words[1] == "-m" else 2]


COMMANDS = {" ".join(words): words for page in PAGES for words in commands(page)}
WITH_ARGUMENTS = {command: words for command, words in COMMANDS.items() if words != script(words)}


def entry_point(words: list[str]):
    """The `main` that a command calls, and the words that it sees."""
    if words[1] != "-m":
        return load_script(ROOT / words[1]).main, words[1:]
    package = importlib.util.find_spec(words[2]).submodule_search_locations
    return importlib.import_module(f"{words[2]}.__main__" if package else words[2]).main, words[2:]


def test_programs_exist():
    for words in COMMANDS.values():
        assert (ROOT / words[1]).is_file() if words[1] != "-m" else importlib.util.find_spec(words[2]), words


@pytest.mark.parametrize("command", WITH_ARGUMENTS)
def test_commands_parse(command, monkeypatch):
    class Parsed(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser, *args, **kwargs):
        parse(parser, *args, **kwargs)
        raise Parsed

    main, words = entry_point(WITH_ARGUMENTS[command])
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", words)
    if check := main.__globals__.get("parse_args"):  # which also checks how flags go together

        def check_only(*args):
            check(*args)
            raise Parsed

        monkeypatch.setitem(main.__globals__, "parse_args", check_only)
    else:
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    with pytest.raises(Parsed):
        main()


def help_text(words: list[str], monkeypatch) -> str:
    main, words = entry_point(words)
    monkeypatch.setattr(sys, "argv", [*words, "--help"])
    with contextlib.redirect_stdout(io.StringIO()) as text, pytest.raises(SystemExit):
        main()
    return text.getvalue()


def test_batches_divide_among_processes():
    several = [line for page in PAGES for line in page.read_text().splitlines() if "hrn/train.py" in line]
    several = [line for line in several if "--num_gpu" in line or "--nproc_per_node" in line]
    assert several
    for line in several:
        count, batch = (
            int(re.search(rf"--(?:{flag})[ =](\d+)", line)[1]) for flag in ("num_gpu|nproc_per_node", "batch_size")
        )
        assert batch % count == 0, line


def test_flags_in_the_text_exist(monkeypatch):
    programs = {tuple(script(words)) for words in WITH_ARGUMENTS.values()} | {("python", "-m", "hrn.demo")}
    programs |= {("python", "-m", "hrn.evaluation.figures", kind) for kind in FIGURE_KINDS}
    texts = [help_text(list(program), monkeypatch) for program in sorted(programs)]
    flags = set(re.findall(r"--\w[\w-]*", "\n".join(texts))) | FOREIGN_FLAGS
    for page in PAGES:
        text = re.sub(r"^#SBATCH .*", "", page.read_text(), flags=re.MULTILINE)
        used = set(re.findall(r"(?<![\w<-])--[a-z]\w[\w-]*", text))
        assert used <= flags, f"{named(page)}: {used - flags}"


def test_recipe_files_exist():
    files = [words[i + 1] for words in COMMANDS.values() for i, word in enumerate(words) if word == "--config"]
    assert files
    assert [file for file in files if not (ROOT / file).is_file()] == []


# numbers


def test_the_manifest_holds_what_sample_wrote():
    """Rounded as in the summary of the model."""
    for name, entry in read_manifest()["checkpoints"].items():
        lines = (ROOT / "checkpoint" / entry["file"]).with_name("summary.md").read_text().splitlines()
        columns = [cell.strip() for cell in lines[0].split("|")]
        for scale in (f"x{s}" for s in entry["config"]["scales"]):
            (row,) = [line.split("|") for line in lines if line.startswith(f"| {name} | {scale} |")]
            found = dict(zip(columns, map(str.strip, row), strict=True))
            for test_set in SETS:
                mean = entry["scores"][test_set][scale]
                assert found[test_set] == f"{mean['psnr_y']:.2f} / {mean['ssim_y']:.4f}"


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_matches_the_checkpoint(name):
    path = ROOT / "checkpoint" / read_manifest()["checkpoints"][name]["file"]
    card = (path.parent / "README.md").read_text()
    assert file_hash(path) in card
    info = load_checkpoint(path).info
    if "mean_of" in info:
        assert all(f"{source['sha256'][:12]}..." in card for source in info["mean_of"])
    else:
        assert f"{info['validation']['psnr_y']:.3f} dB at step {info['steps']:,}" in card


@pytest.mark.parametrize("name", SHIPPED)
def test_included_weights_score_what_the_manifest_states(shared, name):
    from hrn import load_model
    from hrn.data.benchmark import find_test_set
    from hrn.evaluation.metrics import mean_scores, score
    from hrn.inference.enlarger import Enlarger

    entry = read_manifest()["checkpoints"][name]
    network = load_model(name, device="cpu")
    for scale in entry["config"]["scales"]:
        enlarger = Enlarger(network, scale)
        pairs = [image.load(scale) for image in find_test_set(shared / "data/benchmark/Set5", scale).images]
        mean = mean_scores([score(enlarger(pair.lr), pair.hr, scale) for pair in pairs])
        stated = entry["scores"]["Set5"][f"x{scale}"]
        assert mean["psnr_y"] == pytest.approx(stated["psnr_y"], abs=1e-3)
        assert mean["ssim_y"] == pytest.approx(stated["ssim_y"], abs=6e-5)
        assert mean["psnr_y"] > {2: 36.8, 3: 33.0, 4: 31.2, 8: 25.9}[scale]
