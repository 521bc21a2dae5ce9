"""Somebody's webhook endpoint, as a program of its own. Knows nothing of Klingel; needs the standard library only.

    python receiver.py REQUESTS.jsonl

Its first line says its port. Each request becomes a line of JSON in the file, and is then said by a line. What it answers
is told by lines on its standard input, each acknowledged by a line: `503 1` is 503 with `Retry-After: 1`, `200` is 200.
"""

import base64
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread


class Receiver(ThreadingHTTPServer):
    def __init__(self, file: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: tuple[str, ...] = ("200",)
        self._file = file
        self._lock = Lock()

    def note(self, request: object) -> None:
        with self._lock:
            with self._file.open("a") as file:
                file.write(json.dumps(request) + "\n")
            say("received")

    def obey(self) -> None:
        for line in sys.stdin:
            self.answer = tuple(line.split())
            say(f"answers {line.strip()}")


class Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, *retry_after = self.server.answer
        self.server.note(
            {
                "path": self.path,
                "headers": {name.lower(): value for name, value in self.headers.items()},
                "body": base64.b64encode(body).decode(),
                "answered": int(status),
            }
        )
        self.send_response(int(status))
        for seconds in retry_after:
            self.send_header("Retry-After", seconds)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    receiver = Receiver(Path(sys.argv[1]))
    Thread(target=receiver.obey, daemon=True).start()
    say(str(receiver.server_port))
    receiver.serve_forever()
