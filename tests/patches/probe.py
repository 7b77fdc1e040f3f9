"""Probes for the patches of the OVN BGP Agent: one per patch, for the defect that the patch fixes.

    python3 tests/patches/probe.py --source DIR [--list] [--expect-broken] [--only 0011 ...]

DIR holds the package ovn_bgp_agent, patched or not. The interpreter needs the agent's own requirements. A probe stubs
netlink and OVSDB and runs the agent's code. A probe is skipped if its patch does not apply to the release in DIR. Exit code
0: every probe passes, or with --expect-broken, every probe fails.
"""

import argparse
import importlib
import importlib.metadata
import logging
import os
import pathlib
import re
import sys
import traceback
import warnings

PATCHES = pathlib.Path(__file__).parents[2] / "images" / "ovn-bgp-agent" / "patches"
MODULES = ["probe_reports", "probe_wiring", "probe_scale"]


def load(source):
    """Import the agent from `source`, register its options, return the probes by their patch's number."""
    root = pathlib.Path(source).resolve()
    if not (root / "ovn_bgp_agent" / "agent.py").is_file():
        sys.exit(f"loading the agent from {source}: no package ovn_bgp_agent in it\nhelp: give its parent directory")
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")
    # The package looks up its own version, which a source directory does not have
    os.environ.setdefault("PBR_VERSION", "0")
    sys.path.insert(0, str(root))
    here = pathlib.Path(__file__).parent
    sys.path.insert(0, str(here))

    from oslo_config import cfg
    from ovn_bgp_agent import config

    config.register_opts()
    cfg.CONF([], project="ovn-bgp-agent", default_config_files=[])
    cfg.CONF.set_override("bgp_AS", "64999")
    logging.disable(logging.CRITICAL)

    probes = {}
    for name in MODULES:
        probes.update(importlib.import_module(name).PROBES)
    missing = [patch.name for patch in PATCHES.glob("*.patch") if patch.name.split("-")[0] not in probes]
    if missing:
        sys.exit(f"loading probes: no probe for {' '.join(missing)}\nhelp: add one to tests/patches")
    return {number: probes[number] for number in sorted(probes) if applies(number, root)}


def applies(number, root):
    """Whether the patch applies to the release in `root`; a source without a version counts as the latest."""
    from packaging.specifiers import SpecifierSet

    found = importlib.metadata.distributions(name="ovn-bgp-agent", path=[str(root)])
    version = next((distribution.version for distribution in found), "99999")
    heads = [patch.read_text() for patch in PATCHES.glob(f"{number}-*.patch")]
    specifiers = [re.search("^Applies-To: (.*)$", head, re.MULTILINE)[1] for head in heads]
    return all(SpecifierSet(specifier).contains(version, prereleases=True) for specifier in specifiers)


def run(probe):
    """Run one probe; return None, or the reason why it fails."""
    from oslo_config import cfg

    try:
        probe()
    except Exception as e:  # a defect may show as any exception of the agent
        frame = traceback.extract_tb(e.__traceback__)[-1]
        where = f"{pathlib.Path(frame.filename).name}:{frame.lineno}"
        return " ".join(f"{type(e).__name__}: {e} ({where})".split())
    finally:
        cfg.CONF.clear_override("exposing_method")
        cfg.CONF.clear_override("expose_tenant_networks")
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", required=True, help="directory that holds ovn_bgp_agent")
    parser.add_argument("--expect-broken", action="store_true", help="succeed if every probe fails")
    parser.add_argument("--list", action="store_true", help="print the names of the patches for the release in DIR, and exit")
    parser.add_argument("--only", nargs="+", default=[], metavar="NUMBER", help="run these patches' probes only")
    args = parser.parse_args()

    probes = load(args.source)
    if args.list:
        print("\n".join(patch.stem for patch in sorted(PATCHES.glob("*.patch")) if patch.name.split("-")[0] in probes))
        return
    unknown = [number for number in args.only if number not in probes]
    if unknown:
        sys.exit(f"choosing probes: unknown {' '.join(unknown)}\nhelp: known are {' '.join(probes)}")
    unexpected = 0
    for number, probe in probes.items():
        if args.only and number not in args.only:
            continue
        reason = run(probe)
        passed = reason is None
        unexpected += passed == args.expect_broken
        summary = (probe.__doc__ or "").strip().splitlines()[0]
        print(f"{number} {'pass' if passed else 'fail'}  {summary}" + ("" if passed else f"\n          {reason}"))
    sys.exit(1 if unexpected else 0)


if __name__ == "__main__":
    main()
