"""Take Figs/demo.webp: the page of `make demo` with an example enlarged. Needs Gradio, Playwright and Chromium.

python tools/draw_demo.py
"""

import io
import shutil
import socket
import subprocess
import sys
from pathlib import Path

sys.path[:1] = [str(Path(__file__).resolve().parents[1])]

from PIL import Image

from hrn.errors import HRNError

FIGS = Path(__file__).resolve().parents[1] / "Figs"
EXAMPLE = 2
"""Which of the examples is clicked on."""


def main() -> None:
    """Raises HRNError without Playwright, Gradio or Chromium, or where the page does not do as it should."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise HRNError("Playwright is not installed") from None

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        raise HRNError("Chromium is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "hrn.demo", "--port", port]
    server = subprocess.Popen(command, cwd=FIGS.parent, stdout=subprocess.PIPE, text=True)
    try:
        if "HRN is on" not in server.stdout.readline():
            raise HRNError("the page of hrn.demo did not start")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light")
            page.goto(f"http://127.0.0.1:{port}")
            page.locator(".gallery-item").nth(EXAMPLE).click()
            page.locator("[data-testid='image'] img").first.wait_for()
            page.get_by_role("button", name="Enlarge").click()
            page.get_by_text("MiB more than before").wait_for()
            page.wait_for_timeout(1500)  # until the slider has moved to its place
            picture = Image.open(io.BytesIO(page.screenshot()))
            browser.close()
    except Error as error:
        raise HRNError(f"the page of hrn.demo could not be used ({error})") from None
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
    picture.convert("RGB").save(FIGS / "demo.webp", quality=88, method=6)


if __name__ == "__main__":
    main()
