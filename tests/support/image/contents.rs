//! The files of the good test image, one function for each area.

use md5::{Digest as _, Md5};

use super::elf::{elf_header, static_elf_header};
use super::{SITE, SUDOERS, TestImage};

/// A certificate in PEM with these lines of Base64.
pub fn certificate(body: &str) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

impl TestImage {
    pub(super) fn directories(&mut self) {
        self.dir("", 0o755);
        for dir in ["bin", "lib", "sbin"] {
            self.link(dir, &format!("usr/{dir}"));
        }
        for dir in [
            "dev",
            "etc",
            "proc",
            "root",
            "run",
            "sys",
            "usr/bin",
            "usr/sbin",
            "usr/local/bin",
            "usr/local/sbin",
            "var/cache",
            "var/log",
            "var/lib/apt/lists",
            "etc/ovn-bgp-agent",
            "etc/iproute2",
        ] {
            self.dir(dir, 0o755);
        }
        for dir in ["tmp", "var/tmp", "run/lock"] {
            self.dir(dir, 0o1777);
        }
    }

    pub(super) fn loader(&mut self) {
        let loader = match self.platform.architecture().name() {
            "amd64" => "usr/lib64/ld-linux-x86-64.so.2",
            _ => "usr/lib/ld-linux-aarch64.so.1",
        };
        self.elf(loader, 0o755);
        if loader.starts_with("usr/lib64") {
            self.link("lib64", "usr/lib64");
        }
    }

    pub(super) fn configuration(&mut self) {
        self.link("etc/mtab", "/proc/self/mounts");
        self.file("usr/lib/os-release", 0o644, "ID=ubuntu\nVERSION_CODENAME=noble\n");
        self.link("etc/os-release", "../usr/lib/os-release");
        self.file(
            "etc/iproute2/rt_tables",
            0o644,
            "# reserved\n255\tlocal\n254\tmain\n253\tdefault\n0\tunspec\n",
        );
        self.file("etc/nsswitch.conf", 0o644, "passwd: files\nsudoers: files\n");
        self.file("etc/security/pam_env.conf", 0o644, "# nothing\n");
        self.file("etc/machine-id", 0o444, "");
        self.file(
            "etc/apt/sources.list.d/ubuntu.sources",
            0o644,
            "Types: deb\nURIs: http://archive.ubuntu.com/ubuntu/\n",
        );
        // As in Ubuntu's base-files.
        self.file(
            "etc/apt/apt.conf.d/01-vendor-ubuntu",
            0o644,
            "Acquire::http::User-Agent-Non-Interactive \"true\";\n",
        );
    }

    pub(super) fn certificates(&mut self) {
        let mut sums = String::new();
        let mut bundle = String::new();
        for (name, body) in [("A", "MIIA"), ("B", "MIIB\nAAAB")] {
            let certificate = certificate(body);
            let path = format!("usr/share/ca-certificates/mozilla/{name}.crt");
            sums += &format!("{}  {path}\n", hex::encode(Md5::digest(&certificate)));
            bundle += &certificate;
            self.file(&path, 0o644, &certificate);
            self.link(&format!("etc/ssl/certs/{name}.pem"), &format!("/{path}"));
        }
        self.file("etc/ssl/certs/ca-certificates.crt", 0o644, &bundle);
        self.file("var/lib/dpkg/info/ca-certificates.md5sums", 0o644, &sums);
        self.link("usr/lib/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt");
    }

    pub(super) fn accounts(&mut self) {
        self.file(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/bash\nsync:x:4:65534:sync:/bin:/bin/sync\n\
             ovn-bgp-agent:x:42494:42494:OVN BGP Agent:/var/lib/ovn-bgp-agent:/usr/sbin/nologin\n",
        );
        self.file(
            "etc/group",
            0o644,
            "root:x:0:\nsudo:x:27:\nshadow:x:42:\nopenvswitch:x:42424:ovn-bgp-agent\novn-bgp-agent:x:42494:\nnogroup:x:65534:\n",
        );
        self.file(
            "etc/shadow",
            0o640,
            "root:*:20000:0:99999:7:::\nsync:*:20000:0:99999:7:::\novn-bgp-agent:!:::::::\n",
        );
        self.file(
            "etc/gshadow",
            0o640,
            "root:*::\nsudo:*::\nshadow:*::\nopenvswitch:!::ovn-bgp-agent\novn-bgp-agent:!::\nnogroup:*::\n",
        );
        for path in ["etc/shadow", "etc/gshadow"] {
            self.node(path, |n| n.gid = 42);
        }
        self.dir("var/lib/ovn-bgp-agent", 0o750);
        self.node("var/lib/ovn-bgp-agent", |n| (n.uid, n.gid) = (42494, 42494));
        self.file("etc/sudoers", 0o440, SUDOERS);
        self.dir("etc/sudoers.d", 0o755);
    }

    pub(super) fn packages(&mut self) {
        let arch = self.platform.architecture().name();
        let mut status = String::new();
        for (name, version) in [
            ("base-files", "13ubuntu10"),
            ("ca-certificates", "20240203"),
            ("gcc-14-base", "14.2.0"),
            ("iproute2", "6.1.0"),
            ("iptables", "1.8.10"),
            ("iputils-ping", "3:20240117"),
            ("jq", "1.7.1"),
            ("procps", "2:4.0.4"),
            ("python3", "3.12.3-0ubuntu2"),
            ("python3-minimal", "3.12.3-0ubuntu2"),
            ("python3.12", "3.12.3-1ubuntu0.9"),
            ("python3.12-minimal", "3.12.3-1ubuntu0.9"),
            ("sudo", "1.9.15p5-3ubuntu5"),
        ] {
            status +=
                &format!("Package: {name}\nStatus: install ok installed\nArchitecture: {arch}\nVersion: {version}\n\n");
        }
        self.file("var/lib/dpkg/status", 0o644, &status);
        self.file(
            "var/lib/dpkg/status.d/ovn-common",
            0o644,
            &format!("Package: ovn-common\nVersion: 24.03\nArchitecture: {arch}\n"),
        );
    }

    pub(super) fn commands(&mut self) {
        for name in [
            "bash",
            "sync",
            "ip",
            "jq",
            "ovs-vsctl",
            "ovs-ofctl",
            "ovs-appctl",
            "ovn-nbctl",
            "ping",
            "python3.12",
        ] {
            self.elf(&format!("usr/bin/{name}"), 0o755);
        }
        let runtime = static_elf_header(self.platform.architecture().elf_machine());
        self.bytes("usr/local/bin/obgp-runtime", 0o755, &runtime);
        self.link("usr/bin/vtysh", "../local/bin/obgp-runtime");
        self.link("usr/local/sbin/sysctl", "../bin/obgp-runtime");
        self.elf("usr/bin/sudo", 0o4755);
        self.elf("usr/sbin/sysctl", 0o755);
        self.elf("usr/sbin/xtables-nft-multi", 0o755);
        for name in ["iptables", "ip6tables"] {
            self.link(&format!("etc/alternatives/{name}"), &format!("/usr/sbin/{name}-nft"));
            self.link(&format!("usr/sbin/{name}-nft"), "xtables-nft-multi");
            self.link(&format!("usr/sbin/{name}"), &format!("/etc/alternatives/{name}"));
        }
        self.link("usr/bin/python3", "python3.12");
        // eBPF objects are ELF files of machine 247 on every platform.
        let mut bpf = elf_header(247);
        bpf.resize(300, 0);
        self.bytes("usr/lib/bpf/xdp.o", 0o644, &bpf);
    }

    pub(super) fn standard_library(&mut self) {
        for module in [
            "os.py",
            "encodings/__init__.py",
            "json/__init__.py",
            "asyncio/__init__.py",
        ] {
            self.file(&format!("usr/lib/python3.12/{module}"), 0o644, "# library\n");
        }
        self.bytecode("usr/lib/python3.12/os.py", 0b11);
        self.bytecode("usr/lib/python3.12/json/__init__.py", 0);
        self.file("etc/python3.12/sitecustomize.py", 0o644, "# as Debian has it\n");
        self.link(
            "usr/lib/python3.12/sitecustomize.py",
            "/etc/python3.12/sitecustomize.py",
        );
        self.bytecode("usr/lib/python3.12/sitecustomize.py", 0b01);
    }

    pub(super) fn distributions(&mut self) {
        let gnu = self.platform.architecture().gnu_name();
        self.distribution(
            "ovn-bgp-agent",
            "7.0.0",
            &["oslo.privsep>=3.0.0", "setuptools; python_version<'3.10'"],
            &[
                "ovn_bgp_agent/__init__.py",
                "ovn_bgp_agent/hello.py",
                "ovn_bgp_agent/cmd/agent.py",
                "ovn_bgp_agent/cmd/__init__.py",
                "ovn_bgp_agent/privileged/__init__.py",
                "ovn_bgp_agent/privileged/ovs_vsctl.py",
                "ovn_bgp_agent/privileged/vtysh.py",
                "ovn_bgp_agent/drivers/__init__.py",
                "ovn_bgp_agent/drivers/openstack/__init__.py",
                "ovn_bgp_agent/drivers/openstack/ovn_bgp_driver.py",
                "ovn_bgp_agent/drivers/openstack/nb_ovn_bgp_driver.py",
                "ovn_bgp_agent/drivers/openstack/ovn_evpn_driver.py",
            ],
        );
        self.distribution(
            "oslo.privsep",
            "3.12.0",
            &["msgpack[speed]>=0.6.0"],
            &["oslo_privsep/__init__.py", "oslo_privsep/daemon.py"],
        );
        let extension = format!("msgpack/_cmsgpack.cpython-312-{gnu}-linux-gnu.so");
        self.distribution(
            "msgpack",
            "1.1.0",
            &["oslo.privsep; extra == 'loop'"],
            &["msgpack/__init__.py", &extension],
        );
        self.script(
            "ovn-bgp-agent",
            "ovn_bgp_agent",
            "7.0.0",
            "ovn_bgp_agent.cmd.agent:start",
        );
        self.script(
            "privsep-helper",
            "oslo.privsep",
            "3.12.0",
            "oslo_privsep.daemon:helper_main",
        );
        self.bytecode(&format!("{SITE}/ovn_bgp_agent/cmd/agent.py"), 0b01);
    }
}
