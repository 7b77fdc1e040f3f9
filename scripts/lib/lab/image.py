"""Turns the image under test into a disk of the machine.

Input: `oci:DIR[:TAG]` or `docker:NAME`, as skopeo reads them, and an architecture. Output: an ext4 image that holds the
image's file tree as `rootfs` and its configuration as `config.json` (OCI image spec), cached by the manifest's digest.
"""

import hashlib
import json
import pathlib
import shutil
import subprocess
import tempfile

import cache


def disk(reference, architecture):
    source = "docker-daemon:" + reference.removeprefix("docker:") if reference.startswith("docker:") else reference
    if not source.startswith(("oci:", "docker-daemon:")):
        raise SystemExit(f"reading the image {reference}: not oci:DIR:TAG or docker:NAME")
    if source.startswith("docker-daemon:") and ":" not in source.removeprefix("docker-daemon:"):
        source += ":latest"
    with tempfile.TemporaryDirectory(prefix="obgp-lab-") as scratch:
        layout = pathlib.Path(scratch) / "oci"
        _run(reference, "skopeo", "--override-arch", architecture, "--override-os", "linux", "--insecure-policy", "copy", "--quiet", source, f"oci:{layout}:image")
        index = json.loads((layout / "index.json").read_text())
        manifest = _blob(layout, index["manifests"][0]["digest"])
        config = _blob(layout, manifest["config"]["digest"])
        if config["architecture"] != architecture:
            raise SystemExit(f"reading the image {reference}: it is for {config['architecture']}, not for {architecture}")
        digest = hashlib.sha256(json.dumps(config["rootfs"]).encode() + json.dumps(config["config"]).encode()).hexdigest()
        path = cache.CACHE / "images" / f"{digest[:24]}.img"
        if not path.exists():
            _make(reference, layout, config, path)
        return path


def _make(reference, layout, config, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    # The images of former builds are of no use.
    for older in sorted(path.parent.glob("*.img"), key=lambda file: file.stat().st_mtime)[:-3]:
        older.unlink()
    bundle = path.with_suffix(".new")
    shutil.rmtree(bundle, ignore_errors=True)
    _run(reference, "umoci", "unpack", "--image", f"{layout}:image", bundle)
    for unneeded in bundle.glob("*"):
        if unneeded.name != "rootfs":
            unneeded.unlink()
    (bundle / "config.json").write_text(json.dumps(config["config"]))
    partial = path.with_suffix(".partial")
    cache.ext4(bundle, partial, "1G")
    shutil.rmtree(bundle)
    partial.rename(path)


def _blob(layout, digest):
    return json.loads((layout / "blobs" / digest.replace(":", "/")).read_text())


def _run(reference, *command):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"reading the image {reference}: {command[0]} failed: {done.stderr.strip()[-500:]}")
