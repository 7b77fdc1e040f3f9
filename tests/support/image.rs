//! A small image that keeps the contract, in memory: what the tests of the rules break, one thing at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use obgp_build::config::BuildFile;
use obgp_build::image::{Contents, Image};
use obgp_build::layout::tree::{self, File, Node, NodeKind, Tree};
use obgp_build::oci::Platform;
use obgp_build::plan::patches::Patch;
use obgp_build::verify::{Contract, Expectation, Verdict, keeps};
use oci_spec::image::{Descriptor, Digest, MediaType};
use serde_json::{Value, json};

use super::patch::patch;

pub const SITE: &str = "usr/local/lib/python3.12/dist-packages";

pub const SUDOERS: &str = r#"# Only what starts the helpers of oslo.privsep.
Defaults env_reset
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Defaults !use_pty
Defaults !syslog, !fqdn, !lecture

ovn-bgp-agent ALL = (root) NOPASSWD: /usr/local/bin/obgp-runtime privsep *
"#;

pub struct TestImage {
    pub platform: Platform,
    pub tree: Tree,
    /// The image configuration, as JSON so that a test can break any part of it.
    pub config: Value,
    pub compressed: u64,
    pub uncompressed: u64,
    pub lock: Option<String>,
    pub patches: Option<Vec<Patch>>,
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

impl TestImage {
    /// An image of Ubuntu noble that keeps every rule.
    pub fn good(platform: &str) -> Self {
        let mut image = Self {
            platform: platform.parse().unwrap(),
            tree: Tree::default(),
            config: Value::Null,
            compressed: 70 << 20,
            uncompressed: 250 << 20,
            lock: Some("# made by a test\noslo.privsep==3.12.0 \\\n    --hash=sha256:00\nmsgpack==1.1.0\novn-bgp-agent==7.0.0\nsetuptools==80.9.0 ; python_version < '3.10'\n".into()),
            patches: Some(vec![patch()]),
        };
        image.config = config(image.platform.architecture().name());
        image.base();
        image.accounts();
        image.packages();
        image.commands();
        image.python();
        image.patched();
        image
    }

    fn base(&mut self) {
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
        let loader = match self.platform.architecture().name() {
            "amd64" => "usr/lib64/ld-linux-x86-64.so.2",
            _ => "usr/lib/ld-linux-aarch64.so.1",
        };
        self.elf(loader, 0o755);
        if loader.starts_with("usr/lib64") {
            self.link("lib64", "usr/lib64");
        }
        self.link("etc/mtab", "/proc/self/mounts");
        self.file("usr/lib/os-release", 0o644, "ID=ubuntu\nVERSION_CODENAME=noble\n");
        self.link("etc/os-release", "../usr/lib/os-release");
        self.file(
            "etc/iproute2/rt_tables",
            0o644,
            "# reserved\n255\tlocal\n254\tmain\n253\tdefault\n0\tunspec\n",
        );
        self.file("etc/nsswitch.conf", 0o644, "passwd: files\nsudoers: files\n");
        self.file("etc/machine-id", 0o444, "");
        self.file(
            "etc/apt/sources.list.d/ubuntu.sources",
            0o644,
            "Types: deb\nURIs: http://archive.ubuntu.com/ubuntu/\n",
        );
        // Ubuntu's base-files has one like it, which sets no proxy.
        self.file(
            "etc/apt/apt.conf.d/01-vendor-ubuntu",
            0o644,
            "Acquire::http::User-Agent-Non-Interactive \"true\";\n",
        );
        let certificate = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n";
        self.file("usr/share/ca-certificates/mozilla/A.crt", 0o644, certificate);
        self.file("etc/ssl/certs/ca-certificates.crt", 0o644, certificate);
        self.link("etc/ssl/certs/A.pem", "/usr/share/ca-certificates/mozilla/A.crt");
    }

    fn accounts(&mut self) {
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

    fn packages(&mut self) {
        let arch = self.platform.architecture().name();
        let mut status = String::new();
        for (name, version) in [
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

    fn commands(&mut self) {
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
        // eBPF objects are ELF of machine 247 everywhere.
        let mut bpf = elf_header(247);
        bpf.resize(300, 0);
        self.bytes("usr/lib/bpf/xdp.o", 0o644, &bpf);
    }

    fn python(&mut self) {
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
        let gnu = self.platform.architecture().gnu_name();
        self.distribution(
            "ovn-bgp-agent",
            "7.0.0",
            &["oslo.privsep>=3.0.0", "setuptools; python_version<'3.10'"],
            &[
                "ovn_bgp_agent/__init__.py",
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

    /// A distribution with its metadata, as an installer leaves it.
    pub fn distribution(&mut self, name: &str, version: &str, requires: &[&str], files: &[&str]) {
        let info = format!("{SITE}/{}-{version}.dist-info", name.replace('-', "_"));
        let mut metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
        for requirement in requires {
            metadata += &format!("Requires-Dist: {requirement}\n");
        }
        self.file(
            &format!("{info}/METADATA"),
            0o644,
            &format!("{metadata}\nRequires-Dist: not a header\n"),
        );
        let mut record = String::new();
        for file in files {
            let path = format!("{SITE}/{file}");
            match file.ends_with(".so") {
                true => self.elf(&path, 0o644),
                false => self.file(&path, 0o644, &format!("# {file}\n")),
            }
            record += &format!("{file},,{}\n", self.size(&path));
        }
        self.file(&format!("{info}/RECORD"), 0o644, &record);
    }

    /// Takes a file away as an installer would: out of RECORD too.
    pub fn uninstall(&mut self, distribution: &str, file: &str) {
        self.remove(&format!("{SITE}/{file}"));
        self.edit(&format!("{SITE}/{distribution}.dist-info/RECORD"), |record| {
            record
                .lines()
                .filter(|l| !l.starts_with(file))
                .map(|l| format!("{l}\n"))
                .collect()
        });
    }

    pub fn script(&mut self, name: &str, distribution: &str, version: &str, target: &str) {
        self.file(
            &format!("usr/local/bin/{name}"),
            0o755,
            &format!("#!/usr/bin/python3\nimport sys  # {target}\n"),
        );
        let info = format!("{SITE}/{distribution}-{version}.dist-info");
        self.file(
            &format!("{info}/entry_points.txt"),
            0o644,
            &format!("[console_scripts]\n{name} = {target}\n"),
        );
        self.edit(&format!("{info}/RECORD"), |r| format!("{r}../../../bin/{name},,\n"));
    }

    /// `flags` 0 makes a timestamp-based file that is valid for its source.
    pub fn bytecode(&mut self, source: &str, flags: u32) {
        let (dir, name) = source.rsplit_once('/').unwrap();
        let path = format!("{dir}/__pycache__/{}.cpython-312.pyc", name.trim_end_matches(".py"));
        let mut content = 3531u16.to_le_bytes().to_vec();
        content.extend(b"\r\n");
        content.extend(flags.to_le_bytes());
        content.extend((self.tree.get(source).unwrap().mtime as u32).to_le_bytes());
        content.extend((self.size(source) as u32).to_le_bytes());
        self.bytes(&path, 0o644, &content);
    }

    fn insert(&mut self, path: &str, kind: NodeKind, mode: u32) {
        // Parents as a layer would have them.
        for (end, _) in path.match_indices('/') {
            if self.tree.get(&path[..end]).is_none() {
                self.dir(&path[..end], 0o755);
            }
        }
        let node = Node {
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 1_767_225_600,
            xattrs: BTreeMap::new(),
            layer: 0,
        };
        self.tree.insert(path, node);
    }

    pub fn dir(&mut self, path: &str, mode: u32) {
        self.insert(path, NodeKind::Directory, mode);
    }

    pub fn link(&mut self, path: &str, target: &str) {
        self.insert(path, NodeKind::Symlink(target.to_string()), 0o777);
    }

    pub fn file(&mut self, path: &str, mode: u32, content: &str) {
        self.bytes(path, mode, content.as_bytes());
    }

    pub fn bytes(&mut self, path: &str, mode: u32, content: &[u8]) {
        let kept = keeps(path, content.len() as u64);
        let file = File {
            size: content.len() as u64,
            head: tree::head(content).into(),
            content: kept.then(|| content.into()),
            sha256: None,
            hard_link_to: None,
        };
        self.insert(path, NodeKind::File(file), mode);
    }

    /// An executable of the platform that asks for a loader.
    pub fn elf(&mut self, path: &str, mode: u32) {
        let header = elf_header(self.platform.architecture().elf_machine());
        self.bytes(path, mode, &header);
    }

    pub fn device(&mut self, path: &str) {
        self.insert(path, NodeKind::CharDevice { major: 1, minor: 1 }, 0o600);
    }

    pub fn remove(&mut self, path: &str) {
        assert!(self.tree.get(path).is_some(), "{path}");
        self.tree.remove(path);
    }

    pub fn node(&mut self, path: &str, change: impl FnOnce(&mut Node)) {
        let mut node = self.tree.get(path).unwrap_or_else(|| panic!("{path}")).clone();
        let below: Vec<(String, Node)> = self.tree.below(path).map(|(p, n)| (p.to_string(), n.clone())).collect();
        change(&mut node);
        self.tree.insert(path, node);
        for (path, node) in below {
            self.tree.insert(&path, node);
        }
    }

    /// Changes a text file.
    pub fn edit(&mut self, path: &str, change: impl FnOnce(&str) -> String) {
        let before = self.tree.get(path).unwrap_or_else(|| panic!("{path}")).clone();
        let text = String::from_utf8(self.tree.content(path).unwrap_or_else(|| panic!("{path}")).to_vec()).unwrap();
        let changed = change(&text);
        assert_ne!(text, changed, "the edit of {path} changes nothing");
        self.file(path, before.mode, &changed);
        self.node(path, |n| (n.uid, n.gid) = (before.uid, before.gid));
    }

    pub fn append(&mut self, path: &str, line: &str) {
        self.edit(path, |text| format!("{text}{line}\n"));
    }

    pub fn replace(&mut self, path: &str, from: &str, to: &str) {
        self.edit(path, |text| text.replace(from, to));
    }

    fn size(&self, path: &str) -> u64 {
        match &self.tree.get(path).unwrap().kind {
            NodeKind::File(f) => f.size,
            _ => 0,
        }
    }

    /// The image as the stages take it. Its manifest exists only as this digest.
    pub fn image(&self, digest: Option<&str>) -> Image {
        let contents = Contents {
            config: serde_json::from_value(self.config.clone()).unwrap(),
            tree: self.tree.clone(),
            compressed: self.compressed,
            uncompressed: self.uncompressed,
        };
        let manifest =
            digest.map(|digest| Descriptor::new(MediaType::ImageManifest, 0, digest.parse::<Digest>().unwrap()));
        Image::in_memory(self.platform, manifest, contents)
    }

    pub fn check(&self) -> Verdict {
        self.check_as("ubuntu_noble")
    }

    pub fn check_as(&self, distro: &str) -> Verdict {
        let file = BuildFile::load(&repository().join("build.toml")).unwrap();
        let contract = Contract::load(&repository().join("images/ovn-bgp-agent.toml")).unwrap();
        let labels = BTreeMap::from([(
            "org.opencontainers.image.title".to_string(),
            "ovn-bgp-agent".to_string(),
        )]);
        let expected = Expectation {
            identity: &file.user,
            distro: &file.distros[distro],
            project: "ovn-bgp-agent",
            reference: Some("7.0.0"),
            labels: &labels,
            lock: self.lock.as_deref(),
            patches: self.patches.as_deref(),
        };
        contract.check(&self.image(None), &expected).unwrap()
    }
}

/// 64-bit, little-endian, with one program header: PT_INTERP.
pub fn elf_header(machine: u16) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(64 + 56, 0);
    header[18..20].copy_from_slice(&machine.to_le_bytes());
    header[32] = 64;
    header[54] = 56;
    header[56] = u8::from(machine != 247);
    header[64] = 3;
    header
}

/// The same, with PT_LOAD in its place: a static program.
pub fn static_elf_header(machine: u16) -> Vec<u8> {
    let mut header = elf_header(machine);
    header[64] = 1;
    header
}

fn config(architecture: &str) -> Value {
    let label = |name: &str| format!("org.opencontainers.image.{name}");
    let labels: BTreeMap<String, String> = [
        ("authors", "openstack-discuss@lists.openstack.org"),
        ("base.digest", &format!("sha256:{}", "a".repeat(64))),
        ("base.name", "docker.io/library/ubuntu:24.04"),
        ("created", "2026-01-01T00:00:00Z"),
        ("description", "An agent"),
        ("documentation", "https://docs.openstack.org/ovn-bgp-agent/latest/"),
        ("licenses", "Apache-2.0"),
        ("ref.name", "7.0.0-ubuntu_noble"),
        ("revision", "7.0.0"),
        ("source", "https://opendev.org/openstack/ovn-bgp-agent"),
        ("title", "ovn-bgp-agent"),
        ("url", "https://opendev.org/openstack/ovn-bgp-agent"),
        ("vendor", "OpenStack-Helm"),
        ("version", "7.0.0"),
    ]
    .into_iter()
    .map(|(name, value)| (label(name), value.to_string()))
    .collect();
    json!({
        "created": "2026-01-01T00:00:00Z",
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": "42494",
            "Env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "OS_PRIVSEP__HELPER_COMMAND=sudo obgp-runtime privsep",
                "OS_PRIVSEP_OVS_VSCTL__HELPER_COMMAND=sudo obgp-runtime privsep",
                "OS_PRIVSEP_VTYSH__HELPER_COMMAND=sudo obgp-runtime privsep",
            ],
            "Entrypoint": ["ovn-bgp-agent"],
            "Labels": labels,
        },
        "rootfs": { "type": "layers", "diff_ids": ["sha256:00"] },
        "history": [
            { "created_by": "base" },
            { "created_by": "RUN --mount=type=secret,id=pip_index packages install", "empty_layer": true },
        ],
    })
}
