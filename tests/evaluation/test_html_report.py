"""The HTML report: its contents, and its behaviour in a browser."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hrn.data.benchmark import find_test_set
from hrn.data.resize import Bicubic
from hrn.evaluation import html_report
from hrn.evaluation.evaluate import evaluate
from hrn.evaluation.html_report import HtmlReport
from hrn.evaluation.report import set_report


def add_set(page, test_set, nearest):
    """Score nearest-neighbour enlargement at x2 and add it to the report."""
    results = []
    page.begin({"device": "cpu", "nothing": None, "versions": {"a": 1}})
    for result in evaluate(nearest, test_set, bicubic=Bicubic(2)):
        page.add(result)
        results.append(result)
    page.end(set_report(test_set, "nearest", results, shave=2))


@pytest.fixture
def report(hr_folder, nearest, tmp_path):
    """The report of nearest-neighbour enlargement of a small set; one name needs escaping."""
    (hr_folder / "0003.png").rename(hr_folder / "<b>&.png")
    test_set = find_test_set(hr_folder, 2)
    page = HtmlReport(len(test_set.images))
    add_set(page, test_set, nearest)
    page.write(tmp_path / "report.html", "nearest")
    return tmp_path / "report.html"


def pictures(text, kind):
    for code in re.findall(rf'class="{kind}" src="data:image/jpeg;base64,([^"]+)"', text):
        yield Image.open(io.BytesIO(base64.b64decode(code)))


def test_report_loads_no_other_files(report):
    text = report.read_text()
    assert re.findall(r'(?:src|href)="([^"]{0,5})', text)
    assert all(link.startswith(("data:", "#")) for link in re.findall(r'(?:src|href)="([^"]*)"', text))
    assert "http" not in re.sub(r"base64,[^\"]+", "", text)
    assert "<b>&" not in text
    assert "&lt;b&gt;&amp;" in text
    assert [im.size for im in pictures(text, "after")] == [(120, 96), (96, 100), (96, 120), (96, 96)]


def test_pictures_are_the_enlarged_images(report, nearest, hr_folder):
    (hr, *_), (first, *_) = sorted(hr_folder.iterdir()), pictures(report.read_text(), "after")
    expected = nearest(find_test_set(hr_folder, 2).images[0].load(2).lr)
    assert hr.name == "0000.png"
    assert np.abs(np.asarray(first.convert("RGB")).astype(int) - expected).mean() < 4


def test_pictures_share_a_budget(hr_folder, nearest, monkeypatch):
    monkeypatch.setattr(html_report, "BUDGET", 40_000)
    test_set, bicubic = find_test_set(hr_folder, 2), Bicubic(2)
    page = HtmlReport(4)
    page.begin({})
    for result in evaluate(nearest, test_set, bicubic=bicubic):
        page.add(result)
    sliders = page.sections[0].sliders
    assert sum(len(s.before) + len(s.after) for s in sliders) < 40_000 + 8 * len("data:image/jpeg;base64,xxx")
    assert all(64 <= max(s.size) < max(s.full_size) for s in sliders)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_report_fits_the_screen(report, chromium, width, scheme):
    view = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    asked: list[str] = []
    view.on("request", lambda request: asked.append(request.url))
    view.goto(report.as_uri())
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    ink, paper = view.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    bright = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
    assert (bright[0] < bright[1]) == (scheme == "light")
    zoom = view.locator(".three img").first.bounding_box()
    assert zoom["width"] == pytest.approx(zoom["height"], abs=1)
    assert view.evaluate("[...document.images].every(image => image.alt && image.complete && image.naturalWidth)")
    view.close()


@pytest.mark.slow
def test_sliders_move_by_mouse_and_by_keyboard(report, chromium):
    view = chromium.new_page(viewport={"width": 1280, "height": 800})
    view.goto(report.as_uri())
    slider = view.locator(".slider").first
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()

    def shown():
        """The visible share of the upper picture."""
        return view.evaluate(
            "getComputedStyle(document.querySelector('.slider .edge')).left.slice(0, -2) / document.querySelector('.slider').clientWidth"
        )

    assert shown() == pytest.approx(0.5, abs=0.01)
    view.mouse.click(box["x"] + box["width"] * 0.2, box["y"] + box["height"] / 2)
    assert shown() == pytest.approx(0.2, abs=0.03)
    pictures = []
    for display in ("block", "none"):
        view.evaluate(f"document.querySelector('.before').style.display = '{display}'")
        pictures.append(np.asarray(Image.open(io.BytesIO(slider.screenshot())).convert("RGB")).astype(int))
    differ = np.flatnonzero(abs(pictures[0] - pictures[1]).max(axis=(0, 2))) / pictures[0].shape[1]
    assert differ.min() < 0.05
    assert 0.15 < differ.max() < 0.25  # the upper picture is visible only left of the edge
    before = shown()
    view.keyboard.press("ArrowRight")
    view.keyboard.press("ArrowRight")
    assert shown() == pytest.approx(before + 0.02, abs=0.001)
    view.close()


@pytest.mark.slow
def test_tables_sort(report, chromium):
    view = chromium.new_page()
    view.goto(report.as_uri())

    def column(n):
        return view.locator(f".sortable tbody tr td:nth-child({n})").all_inner_texts()

    def names():
        return view.locator(".sortable tbody th").all_inner_texts()

    gain = view.get_by_role("columnheader", name="gain, dB").nth(1)
    gain.get_by_role("button").click()
    gains = [float(x) for x in column(4)]
    assert gains == sorted(gains, reverse=True)
    assert len(set(gains)) > 1
    assert gain.get_attribute("aria-sort") == "descending"
    gain.get_by_role("button").press("Enter")
    assert [float(x) for x in column(4)] == gains[::-1]
    view.get_by_role("columnheader", name="image", exact=True).get_by_role("button").click()
    assert names() == ["<b>&", "0000", "0001", "0002"]
    view.get_by_role("columnheader", name="image", exact=True).get_by_role("button").click()
    assert names() == ["0002", "0001", "0000", "<b>&"]
    view.close()


@pytest.mark.slow
def test_each_table_sorts_by_its_own_heads_only(hr_folder, nearest, tmp_path, chromium):
    test_set, page = find_test_set(hr_folder, 2), HtmlReport(8)
    for name in ("one", "two"):
        add_set(page, replace(test_set, name=name), nearest)
    page.write(tmp_path / "report.html", "nearest")
    view, errors = chromium.new_page(), []
    view.on("pageerror", lambda error: errors.append(str(error)))
    view.goto((tmp_path / "report.html").as_uri())
    assert errors == []
    first, second = (view.locator(".sortable").nth(i) for i in range(2))
    head = second.get_by_role("columnheader", name="image", exact=True)
    for _ in range(2):
        head.get_by_role("button").click()
    assert second.locator("tbody th").all_inner_texts() == ["0003", "0002", "0001", "0000"]
    assert first.locator("tbody th").all_inner_texts() == ["0000", "0001", "0002", "0003"]
    second.get_by_role("link", name="0001").click()
    assert view.url.endswith("#set2-2")
    assert view.locator("[aria-sort]").count() == 1
    assert head.get_attribute("aria-sort") == "descending"
    view.close()
