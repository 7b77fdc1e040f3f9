"""scripts/lab: runs the image in a virtual machine and reports each case."""

import argparse
import base64
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys

import boot
import cache
import table

import image

# The machine emulates its processor, so a limit is long; a hang is what it is for.
LIMIT_S = {"core": 900, "all": 4 * 3600}
MEMORY_MIB = 3072
NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "amd64")
EXAMPLES = """
examples:
  scripts/lab run                                             the core: the image that scripts/quickstart built
  scripts/lab run --image docker:example/ovn-bgp-agent:dev    an image of the engine
  scripts/lab run --case floating-ip --case moved --keep      two cases, then stay for `scripts/lab shell`
  scripts/lab run --all --scale 1000                          everything, and 1,000 floating IPs
"""


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/lab", description="Run the image in a virtual machine with Open vSwitch, OVN, FRR and a leaf switch.",
                                     epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="play cases and print a table; exit 1 if one failed")
    run.add_argument("--image", default="oci:dist/oci:7.0.0-debian_bookworm", metavar="oci:DIR:TAG|docker:NAME", help="the image under test (default: %(default)s)")
    run.add_argument("--frr", choices=sorted(cache.FRR_SUITES), default="10.3", help="the release of FRR in the pod (default: %(default)s)")
    run.add_argument("--platform", choices=["linux/amd64", "linux/arm64"], default=f"linux/{NATIVE}", help="the machine's platform (default: %(default)s)")
    run.add_argument("--case", action="append", default=[], metavar="NAME", help="only this case; may be repeated")
    run.add_argument("--all", action="store_true", help="every case, not only the core")
    run.add_argument("--scale", type=int, default=100, metavar="N", help="floating IPs of the case `scale` (default: %(default)s)")
    run.add_argument("--manifest", type=pathlib.Path, default=boot.PROJECT / "images/ovn-bgp-agent/pod.yaml", metavar="FILE",
                     help="the pod, in the form of images/ovn-bgp-agent/pod.yaml, which is the default; `scripts/test-chart --lab-pod` writes the chart's")
    run.add_argument("--keep", action="store_true", help="leave the machine running for `scripts/lab shell`")
    run.add_argument("--json", action="store_true", help="print the results as JSON on stdout")
    run.add_argument("--output", type=pathlib.Path, default=pathlib.Path("target/lab"), metavar="DIR", help="where logs are written (default: %(default)s)")
    shell = commands.add_parser("shell", help="open a shell in the machine that `run --keep` left")
    shell.add_argument("--output", type=pathlib.Path, default=pathlib.Path("target/lab"), metavar="DIR", help="the --output of that run")
    commands.add_parser("list", help="print the cases")
    return parser.parse_args()


def case_list():
    sys.path.insert(0, str(boot.PROJECT / "tests/lab"))
    from lab import catalogue
    return catalogue.CASES


def list_cases():
    for case in case_list():
        print(f"{case.name:18} {'core ' if case.core else '     '} {case.about}")


def shell(output):
    socket = output / "shell.sock"
    if not socket.exists():
        raise SystemExit(f"opening a shell: no machine at {output}\nhelp: scripts/lab run --keep")
    if not shutil.which("socat"):
        raise SystemExit("opening a shell: the command `socat` is missing\nhelp: apt install socat")
    os.execvp("socat", ["socat", "-,raw,echo=0,escape=0x1d", f"unix-connect:{socket}"])


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(options):
    names = [case.name for case in case_list()]
    for name in options.case:
        if name not in names:
            raise SystemExit(f"no case is called {name}\nhelp: scripts/lab list")
    architecture = options.platform.removeprefix("linux/")
    say(f"==> Lab: {options.image} with FRR {options.frr} on {options.platform}")
    root, kernel = cache.machine(architecture)
    disks = {"root": root, "kernel": kernel, "image": image.disk(options.image, architecture), "frr": cache.frr(options.frr, architecture)}
    wanted = {"cases": options.case, "all": options.all, "scale": options.scale, "keep": options.keep, "factor_here": factor()}
    machine = boot.Machine(architecture, disks, wanted, MEMORY_MIB, options.output, options.manifest)
    results, done = [], False
    try:
        for report in machine.follow(LIMIT_S["all" if options.all or options.case or architecture != NATIVE else "core"]):
            match report["kind"]:
                case "file":
                    keep(options.output, report)
                case "done":
                    done = True
                    if options.keep:
                        say(f"the machine stays: scripts/lab shell --output {options.output}; end it with: kill {machine.process.pid}")
                        break
                case _:
                    results.append(report)
                    say(table.line(report))
    except BaseException:
        machine.stop()
        raise
    if not done:
        say(f"the machine ended before its last report; its console is in {machine.console}")
    failed = [report for report in results if report["kind"] == "check" and not report["passed"]]
    (options.output / "results.json").write_text(json.dumps(results, indent=1))
    print(json.dumps({"image": options.image, "frr": options.frr, "platform": options.platform, "results": results}, indent=1) if options.json else table.table(results))
    say(f"==> {'FAILED: ' + ', '.join(sorted({report['case'] for report in failed})) if failed else 'all passed' if done else 'FAILED'}; logs in {options.output}")
    return 0 if done and not failed else 1


def keep(output, report):
    """A file of the machine: its name is relative, and stays below the output."""
    path = (output / "files" / report["name"]).resolve()
    if path.is_relative_to((output / "files").resolve()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(report["data"]))


def factor():
    """Seconds of a fixed piece of Python on this machine: the machine's own divided by it says how much slower it is."""
    work = "import timeit; print(min(timeit.repeat('sum(i * i for i in range(200000))', number=1, repeat=5)))"
    return float(subprocess.run([sys.executable, "-c", work], capture_output=True, text=True, check=True).stdout)


options = arguments()
match options.command:
    case "list":
        list_cases()
    case "shell":
        shell(options.output)
    case "run":
        try:
            sys.exit(run(options))
        except KeyboardInterrupt:
            sys.exit(130)
