"""Probes for the patches of the OVN BGP Agent: one per patch, for the defect that the patch fixes.

    python3 tests/patches/probe.py --source DIR [--expect-broken] [--only 0011 ...]

DIR holds the package ovn_bgp_agent, patched or not. The interpreter needs the agent's own requirements. A probe stubs
netlink and OVSDB and runs the agent's code. Exit code 0: every probe passes, or with --expect-broken, every probe fails.
"""

import argparse
import importlib
import logging
import os
import pathlib
import sys
import traceback
import warnings

MODULES = ["probe_reports", "probe_wiring", "probe_scale"]


def load(source):
    """Import the agent from `source`, register its options, return the probes by their patch's number."""
    root = pathlib.Path(source).resolve()
    if not (root / "ovn_bgp_agent" / "agent.py").is_file():
        sys.exit(f"loading the agent from {source}: no package ovn_bgp_agent in it\nhelp: give its parent directory")
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")
    # The package asks for its own version, which a source directory does not have
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
        if (here / f"{name}.py").is_file():
            probes.update(importlib.import_module(name).PROBES)
    return dict(sorted(probes.items()))


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
    parser.add_argument("--only", nargs="+", default=[], metavar="NUMBER", help="run these patches' probes only")
    args = parser.parse_args()

    probes = load(args.source)
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
