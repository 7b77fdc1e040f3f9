"""Runs commands in the machine and in its network namespaces."""

import os
import pathlib
import subprocess
import time

LOGS = pathlib.Path("/run/logs")


class Failed(Exception):
    """A command of the lab itself failed: the fault is the lab's or the machine's."""


def run(command, netns=None, check=True, timeout=120, stdin=None, env=None):
    """The command's output, both streams. `command` is a string of words without quoting, or a list."""
    words = command.split() if isinstance(command, str) else [str(word) for word in command]
    if netns:
        words = ["ip", "netns", "exec", netns, *words]
    done = subprocess.run(words, input=stdin or "", capture_output=True, text=True, timeout=timeout, check=False,
                          env={**os.environ, **(env or {})})
    output = done.stdout + done.stderr
    if check and done.returncode:
        raise Failed(f"{' '.join(words)[:300]}: exit {done.returncode}: {output.strip()[-500:]}")
    return output if check else Result(done.returncode, output)


class Result:
    def __init__(self, code, output):
        self.code, self.output = code, output.strip()

    def __str__(self):
        return f"exit {self.code}: {self.output}"


def daemon(name, command, netns=None, env=None):
    """A process that goes on; its output is in the logs."""
    words = command.split() if isinstance(command, str) else [str(word) for word in command]
    if netns:
        words = ["ip", "netns", "exec", netns, *words]
    LOGS.mkdir(parents=True, exist_ok=True)
    with open(LOGS / f"{name}.log", "ab") as log:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **(env or {})})


def until(what, probe, timeout, interval=0.2):
    """The first truthy answer of the probe; Failed after `timeout` seconds."""
    began = time.monotonic()
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() - began > timeout:
            raise Failed(f"{what}: not within {timeout} s")
        time.sleep(interval)
