"""A page that counts its visits in Redis, and passes on what it is asked to: /to/HOST:PORT/PATH."""

import http.server
import os
import socket
import urllib.request


def visits():
    """What Redis answers: how often the page was asked for."""
    host, port = os.environ["REDIS"].split(":")
    with socket.create_connection((host, int(port)), 5) as redis:
        redis.sendall(b"INCR visits-of-the-page\r\n")
        return redis.recv(100).decode().strip().lstrip(":")


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        try:
            if self.path.startswith("/to/"):
                with urllib.request.urlopen("http://" + self.path[len("/to/") :], timeout=5) as answer:
                    status, text = answer.status, answer.read().decode()
            elif "REDIS" in os.environ:
                status, text = 200, f"visit {visits()} of {self.headers['Host']}\n"
            else:
                status, text = 200, f"hello {self.headers['Host']}\n"
        except Exception as error:
            status, text = 502, f"{error}\n"
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Page).serve_forever()
