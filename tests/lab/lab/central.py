"""OVN's databases and northd, as on a controller; reachable from the nodes at 10.9.0.1."""

import pathlib

from . import ovsdb
from .shell import daemon, run, until

HOME = pathlib.Path("/run/central")
ADDRESS = "10.9.0.1"
SCHEMAS = {"nb": ("OVN_Northbound", "/usr/share/ovn/ovn-nb.ovsschema", 6641), "sb": ("OVN_Southbound", "/usr/share/ovn/ovn-sb.ovsschema", 6642)}


class Central:
    def __init__(self):
        self.processes = {}

    def start(self):
        HOME.mkdir(parents=True, exist_ok=True)
        for name in SCHEMAS:
            self.start_database(name)
        self.nb = ovsdb.Client(HOME / "nb.sock", "OVN_Northbound")
        self.sb = ovsdb.Client(HOME / "sb.sock", "OVN_Southbound")
        for name, (_, _, port) in SCHEMAS.items():
            database = f"unix:{HOME}/{name}.sock"
            # The emulated machine is slow; a probe every 5 s, the default, would end sessions.
            command = [f"ovn-{name}ctl", "--no-leader-only", f"--db={database}"]
            run([*command, "set-connection", f"ptcp:{port}:0.0.0.0", "--", "set", "connection", ".", "inactivity_probe=60000"], netns="control")
        self.processes["northd"] = daemon("northd", f"ovn-northd --ovnnb-db=unix:{HOME}/nb.sock --ovnsb-db=unix:{HOME}/sb.sock --unixctl={HOME}/northd.ctl",
                                          netns="control")
        until("the northbound database has its global row", lambda: self.nb.rows("NB_Global", []), 60)

    def start_database(self, name):
        database, schema, _ = SCHEMAS[name]
        file, table = HOME / f"{name}.db", f"{name.upper()}_Global"
        if not file.exists():
            run(f"ovsdb-tool create {file} {schema}")
        self.processes[name] = daemon(name, f"ovsdb-server --remote=punix:{HOME}/{name}.sock --remote=db:{database},{table},connections "
                                            f"--unixctl={HOME}/{name}.ctl {file}", netns="control")
        until(f"the {name} database answers", lambda: (HOME / f"{name}.sock").exists(), 60)

    def restart_database(self, name):
        self.processes[name].kill()
        self.processes[name].wait()
        (HOME / f"{name}.sock").unlink(missing_ok=True)
        self.start_database(name)
