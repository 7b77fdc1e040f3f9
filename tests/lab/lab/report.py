"""Writes the reports that the host reads: JSON objects, one a line."""

import base64
import json
import pathlib

ARGUMENTS = pathlib.Path("/run/lab/arguments.json")


class Reporter:
    def __init__(self, path):
        # Buffered by line, raw: the terminal must not turn a line feed into two characters.
        self.file = open(path, "w", buffering=1, encoding="utf-8")

    def _send(self, **report):
        self.file.write(json.dumps(report) + "\n")

    def check(self, case, expected, seen, passed, seconds):
        self._send(kind="check", case=case, expected=expected, seen=str(seen)[:300], passed=bool(passed), seconds=round(seconds, 2))

    def figure(self, case, name, value, unit):
        self._send(kind="figure", case=case, name=name, value=value, unit=unit)

    def request(self, text):
        self._send(kind="request", text=text)

    def text(self, text):
        self._send(kind="text", text=text)

    def file_of(self, name, data):
        self._send(kind="file", name=name, data=base64.b64encode(data).decode())

    def done(self):
        self._send(kind="done")
        self.file.flush()
