"""A local image server for the tests of the web demo."""

import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image


@pytest.fixture
def image_server():
    """The URL of an image on a local HTTP server, and the list of paths that were requested from it."""
    requests: list[str] = []
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content.getvalue())

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/a.png", requests
    server.shutdown()
    server.server_close()
