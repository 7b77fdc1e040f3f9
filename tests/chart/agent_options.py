"""Runs in the agent's image: {name: ovn-bgp-agent.conf} on stdin -> {name: [problem]} on stdout.

A problem is an option that the agent has not registered with oslo.config, or a value that oslo.config cannot parse.
"""

import json
import sys
import tempfile

from oslo_config import cfg
from oslo_log import log
from ovn_bgp_agent import config

config.register_opts()
log.register_options(cfg.CONF)


def problems(text):
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(text)
        file.flush()
        sections = {}
        cfg.ConfigParser(file.name, sections).parse()
        try:
            cfg.CONF(["--config-file", file.name], project="bgp-agent")
        except (cfg.Error, ValueError, SystemExit) as error:
            yield f"oslo.config does not read it: {error}"
            return
        for section, options in sections.items():
            yield from unknown(section, options)


def unknown(section, options):
    known = cfg.CONF._opts if section == "DEFAULT" else getattr(cfg.CONF._groups.get(section), "_opts", None)
    if known is None:
        yield f"[{section}]: the agent has no such section"
        return
    for name in options:
        if name not in known:
            yield f"[{section}] {name}: the agent has no such option"
            continue
        try:
            getattr(cfg.CONF if section == "DEFAULT" else cfg.CONF[section], name)
        except (cfg.ConfigFileValueError, ValueError) as error:
            yield f"[{section}] {name}: {error}"


json.dump({name: list(problems(text)) for name, text in json.load(sys.stdin).items()}, sys.stdout)
