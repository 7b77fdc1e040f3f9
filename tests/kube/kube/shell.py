"""Runs commands on this machine."""

import subprocess
import time


class Failed(Exception):
    """Something did not happen that a case is built on."""


class Result:
    def __init__(self, code, output, errors):
        self.code, self.output, self.errors = code, output, errors

    def __str__(self):
        return f"exit {self.code}: {(self.errors or self.output).strip()[-400:]}"


def run(*words, stdin=None, timeout=120):
    """The command's stdout; Failed if it fails."""
    done = attempt(*words, stdin=stdin, timeout=timeout)
    if done.code:
        raise Failed(f"{' '.join(map(str, words))[:200]}: {done}")
    return done.output


def attempt(*words, stdin=None, timeout=120):
    """The command's Result, also of one that fails."""
    try:
        done = subprocess.run([str(word) for word in words], input=stdin or "", capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(map(str, words))[:200]}: no end within {timeout} s") from error
    return Result(done.returncode, done.stdout, done.stderr)


def until(what, probe, timeout=60, interval=0.25):
    """The first truthy answer of the probe; Failed after `timeout` seconds."""
    began, trouble = time.monotonic(), ""
    while True:
        try:
            answer = probe()
        except (Failed, ValueError, LookupError) as error:
            answer, trouble = None, f" ({error})"
        if answer:
            return answer
        if time.monotonic() - began > timeout:
            raise Failed(f"{what}: not within {timeout} s{trouble}")
        time.sleep(interval)
