//! Changes that break the rules of the interpreter, the distributions, their scripts and bytecode.

use crate::support::image::SITE;
use crate::{Break, STATUS, breaks};

pub const BREAKS: &[Break] = &[
    breaks("interpreter", |i| i.link("usr/bin/python3", "python3.11"), "python3").also(&[
        "commands",
        "console-scripts",
        "symlinks",
    ]),
    breaks(
        "interpreter",
        |i| i.elf("usr/local/bin/python3", 0o755),
        "/usr/local/bin/python3",
    ),
    breaks(
        "interpreter",
        |i| i.file("usr/bin/python3.12", 0o755, "#!/bin/bash\n"),
        "ELF executable",
    ),
    breaks(
        "interpreter",
        |i| i.remove("usr/lib/python3.12/os.py"),
        "standard library",
    )
    .also(&["bytecode"]),
    breaks(
        "interpreter",
        |i| i.replace(STATUS, "3.12.3-1ubuntu0.9", "3.13.1-1"),
        "3.12.x",
    ),
    breaks(
        "interpreter",
        |i| i.file(&format!("{SITE}/evil.pth"), 0o644, "import os; os.system('x')\n"),
        "os.system",
    ),
    breaks(
        "python-requirements",
        |i| i.remove(&format!("{SITE}/msgpack-1.1.0.dist-info")),
        "required by oslo-privsep",
    )
    .also(&["python-lock"]),
    breaks(
        "python-requirements",
        |i| {
            i.replace(
                &format!("{SITE}/ovn_bgp_agent-7.0.0.dist-info/METADATA"),
                "privsep>=3.0.0",
                "privsep>=4",
            )
        },
        "oslo-privsep 3.12.0",
    ),
    breaks(
        "python-requirements",
        |i| {
            i.replace(
                &format!("{SITE}/ovn_bgp_agent-7.0.0.dist-info/METADATA"),
                "<'3.10'",
                ">='3.10'",
            )
        },
        "setuptools, required by ovn-bgp-agent",
    ),
    breaks(
        "python-requirements",
        |i| {
            i.replace(
                &format!("{SITE}/msgpack-1.1.0.dist-info/METADATA"),
                "extra == 'loop'",
                "extra == 'speed'\nRequires-Dist: gone; extra == 'speed'",
            )
        },
        "gone, required by msgpack",
    ),
    breaks(
        "python-requirements",
        |i| {
            i.replace(
                &format!("{SITE}/msgpack-1.1.0.dist-info/METADATA"),
                "Version: 1.1.0",
                "Version: 1.1.0\nRequires-Python: <3.12",
            )
        },
        "Python 3.12.3",
    ),
    breaks(
        "python-requirements",
        |i| i.file("usr/lib/python3.12/msgpack.py", 0o644, ""),
        "/usr/lib/python3.12/msgpack.py",
    ),
    breaks(
        "python-requirements",
        |i| {
            i.replace(
                &format!("{SITE}/ovn_bgp_agent-7.0.0.dist-info/METADATA"),
                "Version: 7.0.0",
                "Version: 6.0.0",
            )
        },
        "6.0.0",
    )
    .also(&["python-lock"]),
    breaks(
        "python-requirements",
        |i| i.remove(&format!("{SITE}/oslo.privsep-3.12.0.dist-info/METADATA")),
        "METADATA",
    )
    .also(&["console-scripts", "python-lock"]),
    breaks(
        "python-distributions",
        |i| i.distribution("msgpack", "1.0.0", &[], &["msgpack/fallback.py"]),
        "one distribution msgpack",
    )
    .also(&["python-lock"]),
    breaks(
        "python-distributions",
        |i| i.remove(&format!("{SITE}/ovn_bgp_agent/drivers/__init__.py")),
        "missing",
    ),
    breaks(
        "python-distributions",
        |i| i.file(&format!("{SITE}/oslo_privsep/daemon.py"), 0o644, "changed"),
        "bytes instead of",
    ),
    breaks(
        "python-lock",
        |i| i.lock = i.lock.as_ref().map(|l| l.replace("==1.1.0", "==1.1.2")),
        "msgpack==1.1.2",
    ),
    breaks(
        "python-lock",
        |i| i.distribution("requests", "2.0", &[], &["requests/__init__.py"]),
        "requests 2.0",
    ),
    breaks(
        "python-lock",
        |i| i.lock = i.lock.as_ref().map(|l| format!("{l}more==1\n")),
        "more==1",
    ),
    breaks(
        "python-lock",
        |i| i.lock = i.lock.as_ref().map(|l| format!("{l}loose>=1\n")),
        "not a pin",
    ),
    breaks(
        "python-modules",
        |i| i.uninstall("ovn_bgp_agent-7.0.0", "ovn_bgp_agent/privileged/vtysh.py"),
        "privileged.vtysh",
    ),
    breaks(
        "python-modules",
        |i| i.elf(&format!("{SITE}/msgpack/_other.cpython-311-x86_64-linux-gnu.so"), 0o644),
        "cpython-311",
    ),
    breaks(
        "console-scripts",
        |i| i.remove("usr/local/bin/privsep-helper"),
        "privsep-helper",
    )
    .also(&["python-distributions", "commands"]),
    breaks(
        "console-scripts",
        |i| i.replace("usr/local/bin/ovn-bgp-agent", "/usr/bin/python3", "/opt/uv/bin/python"),
        "/opt/uv/bin/python",
    ),
    breaks(
        "console-scripts",
        |i| i.replace("usr/local/bin/ovn-bgp-agent", "/usr/bin/python3", "/usr/bin/env pypy"),
        "pypy: not found",
    ),
    breaks(
        "console-scripts",
        |i| i.node("usr/local/bin/ovn-bgp-agent", |n| n.mode = 0o644),
        "cannot run it",
    )
    .also(&["commands"]),
    breaks(
        "console-scripts",
        |i| {
            i.replace(
                &format!("{SITE}/oslo.privsep-3.12.0.dist-info/entry_points.txt"),
                "oslo_privsep.daemon",
                "oslo_privsep.gone",
            )
        },
        "oslo_privsep.gone",
    ),
    breaks(
        "bytecode",
        |i| i.node("usr/lib/python3.12/json/__init__.py", |n| n.mtime += 1),
        "; the source has",
    ),
    breaks(
        "bytecode",
        |i| i.file("usr/lib/python3.12/__pycache__/gone.cpython-312.pyc", 0o644, ""),
        "gone.py is missing",
    ),
    breaks(
        "bytecode",
        |i| i.file("usr/lib/python3.12/__pycache__/os.cpython-311.pyc", 0o644, ""),
        "not cpython-312",
    ),
    breaks(
        "bytecode",
        |i| i.file(&format!("{SITE}/x.pyc"), 0o644, ""),
        "in place of a source file",
    ),
    breaks(
        "bytecode",
        |i| i.file("usr/lib/python3.12/__pycache__/os.cpython-312.pyc", 0o644, "short"),
        "5 bytes",
    ),
    breaks(
        "bytecode",
        |i| {
            i.bytes(
                "usr/lib/python3.12/__pycache__/os.cpython-312.pyc",
                0o644,
                b"\xa7\x0d\x0d\x0a\x01\0\0\0\0\0\0\0\0\0\0\0",
            )
        },
        "magic 3495",
    ),
];
