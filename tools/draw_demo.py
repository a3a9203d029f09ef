"""Take the screenshot Figs/demo.webp: the web demo after it has enlarged an example.

    python tools/draw_demo.py

Needs Gradio, Playwright and Chromium.
"""

import io
import shutil
import socket
import subprocess
import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

from PIL import Image

from hrn.cli import run_cli
from hrn.errors import HRNError

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = 2
"""Index of the example image."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Start the demo, take the screenshot and stop the demo.

    Raises:
        HRNError: Playwright, Gradio or Chromium is not installed, or the page does not work.
    """
    try:
        from playwright.sync_api import Error
    except ImportError:
        raise HRNError("Playwright is not installed: pip install playwright") from None
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        raise HRNError("Chromium is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = subprocess.Popen(
        [sys.executable, "-m", "hrn.demo", "--port", port], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        if port not in server.stdout.readline():
            raise HRNError("hrn.demo did not start")
        screenshot = take_screenshot(f"http://127.0.0.1:{port}", browser)
    except Error as error:
        raise HRNError(f"the page of hrn.demo does not work: {error}") from None
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
    Image.open(io.BytesIO(screenshot)).convert("RGB").save(ROOT / "Figs/demo.webp", quality=88, method=6)


def take_screenshot(url: str, executable: str) -> bytes:
    """Enlarge an example on the page and return a PNG of it. Raises playwright's Error."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light")
        page.goto(url)
        page.locator(".gallery-item").nth(EXAMPLE).click()
        page.locator("[data-testid='image'] img").first.wait_for()
        page.get_by_role("button", name="Enlarge").click()
        page.get_by_text("MiB of additional memory").wait_for()
        page.wait_for_timeout(1500)  # the slider's animation
        screenshot = page.screenshot()
        browser.close()
    return screenshot


if __name__ == "__main__":
    sys.exit(run_cli(main))
