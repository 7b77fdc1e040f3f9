//! Tests SBOMs and provenance: they pass the formats' own validators, are reproducible, and list everything that the
//! running image lists.

mod provenance;
mod running;
#[path = "../support/mod.rs"]
mod support;
mod validators;

use std::collections::BTreeSet;
use std::process::Command;

use obgp_build::attest::{Sbom, Subject, cyclonedx, spdx};
use serde_json::{Value, json};
use support::image::{SITE, TestImage};
use support::patch::{AGENT, PATCH, PATCH_NAME, patch};
use validators::{Kind, Validators};

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn sbom_of(image: &TestImage, digest: Option<&str>) -> Sbom {
    Sbom::of(&image.image(digest)).unwrap()
}

fn spdx_of(sbom: &Sbom) -> Value {
    serde_json::to_value(spdx::document(sbom).unwrap()).unwrap()
}

fn cyclonedx_of(sbom: &Sbom) -> Value {
    serde_json::to_value(cyclonedx::document(sbom).unwrap()).unwrap()
}

/// An image with every kind of metadata: clear and unclear licences, sources, a commit, a Rust program.
fn image() -> TestImage {
    let mut image = TestImage::good("linux/amd64");
    image.replace(
        "var/lib/dpkg/status",
        "Package: sudo\n",
        "Package: sudo\nSource: sudo-src (1:1.9.15+x)\nDepends: libnothing | iptables (>= 1), procps\nMaintainer: Sudo \
         Maintainers (of it) <sudo@example.org>\nHomepage: https://www.sudo.ws/\n",
    );
    image.file(
        "usr/share/doc/sudo/copyright",
        0o644,
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: ISC\n\n\
         Files: x\nLicense: GPL-2+ or BSLA\n",
    );
    let metadata = |name: &str| format!("{SITE}/{name}.dist-info/METADATA");
    for (name, fields) in [
        (
            "msgpack-1.1.0",
            "License: Apache 2.0\nAuthor: A\nAuthor-email: a@example.org\n",
        ),
        (
            "oslo.privsep-3.12.0",
            "Classifier: License :: OSI Approved :: BSD License\nHome-page: not a URL\n",
        ),
    ] {
        image.replace(
            &metadata(name),
            "Metadata-Version: 2.1\n",
            &format!("Metadata-Version: 2.1\n{fields}"),
        );
    }
    image.file(
        &format!("{SITE}/ovn_bgp_agent-7.0.0.dist-info/direct_url.json"),
        0o644,
        &json!({"url": "https://example.org/agent", "vcs_info": {"vcs": "git", "commit_id": "0".repeat(40)}})
            .to_string(),
    );
    let program = auditable_program(&json!({"packages": [
        {"name": "clap", "version": "4.6.9", "source": "crates.io", "dependencies": [1]},
        {"name": "clap_builder", "version": "4.6.9", "source": "crates.io"},
        {"name": "obgp-runtime", "version": "0.1.0", "source": "local", "dependencies": [0, 3], "root": true},
        {"name": "serde_derive", "version": "1.0.0", "source": "crates.io", "kind": "build"},
    ]}));
    image.bytes("usr/local/bin/obgp-runtime", 0o755, &program);
    image
}

/// A program of this host with the section that `cargo auditable` adds.
fn auditable_program(list: &Value) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, list.to_string().as_bytes()).unwrap();
    std::fs::write(dir.path().join("list"), encoder.finish().unwrap()).unwrap();
    let output = Command::new("objcopy")
        .args(["--add-section", ".dep-v0=list", "/bin/true", "program"])
        .current_dir(dir.path())
        .output()
        .expect("objcopy is installed with the linker, in binutils");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(dir.path().join("program")).unwrap()
}

fn find<'a>(list: &'a Value, name: &str) -> &'a Value {
    let found = list.as_array().unwrap().iter().find(|c| c["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}"))
}

/// The SPDX package of the agent's Python distribution.
fn python_agent(spdx: &Value) -> &Value {
    let mut packages = spdx["packages"].as_array().unwrap().iter();
    let id = |package: &Value| package["SPDXID"].as_str().unwrap().starts_with("SPDXRef-python-ovn");
    packages.find(|package| id(package)).unwrap()
}

/// Returns a copy with one field set.
fn with(object: &Value, field: &str, value: Value) -> Value {
    let mut changed = object.clone();
    changed[field] = value;
    changed
}

#[test]
fn both_formats_pass_their_validators() {
    let Some(validators) = Validators::get() else { return };
    let sbom = sbom_of(&image(), Some(DIGEST));
    assert_eq!(sbom.gaps, Vec::<String>::new());
    let good = spdx_of(&sbom);
    let breaks = [
        ("/packages/2/licenseDeclared", json!("LicenseRef-of-nothing")),
        ("/packages/2/licenseDeclared", json!("Nothing-1.0")),
        ("/packages/2/SPDXID", json!("SPDXRef-under_score")),
        ("/packages/2/supplier", json!("Somebody")),
        ("/packages/2/downloadLocation", json!("nowhere")),
        ("/relationships/2/relatedSpdxElement", json!("SPDXRef-nothing")),
        ("/creationInfo/created", json!("yesterday")),
        ("/documentNamespace", json!("no URI")),
        // The SPDX library ignores an unknown field, the schema does not.
        ("/packages/2", with(&good["packages"][2], "flavour", json!("salty"))),
    ];
    validators.assert_rejects(Kind::Spdx, &good, &breaks);

    let good = cyclonedx_of(&sbom);
    let components = good["components"].as_array().unwrap();
    let sudo = components.iter().position(|c| c["name"] == "sudo").unwrap();
    let licenses = format!("/components/{sudo}/licenses");
    let breaks = [
        ("/components/0/type", json!("thing")),
        (&licenses, json!([{"expression": "MIT"}, {"expression": "ISC"}])),
        ("/metadata/timestamp", json!("yesterday")),
        ("/serialNumber", json!("1")),
        ("/metadata/component", json!({"type": "container"})),
    ];
    validators.assert_rejects(Kind::CycloneDx, &good, &breaks);

    // Schemas do not check that references are unique and resolve.
    let references: BTreeSet<&str> = components.iter().filter_map(|c| c["bom-ref"].as_str()).collect();
    assert_eq!(references.len(), components.len());
    for dependency in good["dependencies"].as_array().unwrap() {
        let named = dependency["dependsOn"].as_array().unwrap().iter();
        for reference in named.chain([&dependency["ref"]]) {
            let reference = reference.as_str().unwrap();
            assert!(reference == "image" || references.contains(reference), "{reference}");
        }
    }
}

#[test]
fn debian_metadata_is_in_both_formats() {
    let sbom = sbom_of(&image(), Some(DIGEST));
    let (spdx, cyclonedx) = (spdx_of(&sbom), cyclonedx_of(&sbom));

    let sudo = find(&spdx["packages"], "sudo");
    assert_eq!(
        sudo["externalRefs"][0]["referenceLocator"],
        "pkg:deb/ubuntu/sudo@1.9.15p5-3ubuntu5?arch=amd64&distro=ubuntu-noble&upstream=sudo-src%401:1.9.15%2Bx"
    );
    assert_eq!(
        sudo["licenseDeclared"],
        "(GPL-2.0-or-later OR LicenseRef-deb-sudo-BSLA) AND ISC"
    );
    assert_eq!(
        spdx["hasExtractedLicensingInfos"][0]["licenseId"],
        "LicenseRef-deb-sudo-BSLA"
    );
    assert_eq!(
        sudo["supplier"],
        "Organization: Sudo Maintainers of it (sudo@example.org)"
    );
    let sudo = find(&cyclonedx["components"], "sudo");
    assert_eq!(sudo["supplier"]["contact"][0]["email"], "sudo@example.org");
    assert_eq!(sudo["externalReferences"][0]["url"], "https://www.sudo.ws/");
}

#[test]
fn a_dependency_with_alternatives_is_the_installed_package() {
    let cyclonedx = cyclonedx_of(&sbom_of(&image(), Some(DIGEST)));
    let depends = |name: &str| {
        let reference = &find(&cyclonedx["components"], name)["bom-ref"];
        let all = cyclonedx["dependencies"].as_array().unwrap();
        let of = all.iter().find(|d| d["ref"] == *reference).unwrap();
        let named = of["dependsOn"].as_array().unwrap().iter().map(|r| {
            let components = cyclonedx["components"].as_array().unwrap();
            let found = components.iter().find(|c| c["bom-ref"] == *r).unwrap();
            found["name"].as_str().unwrap().to_string()
        });
        named.collect::<Vec<_>>()
    };
    assert_eq!(depends("sudo"), ["iptables", "procps"]);
    assert_eq!(depends("ovn-bgp-agent"), ["oslo-privsep"]);
    assert_eq!(depends("obgp-runtime"), ["clap"]);
}

#[test]
fn python_metadata_is_in_both_formats() {
    let sbom = sbom_of(&image(), Some(DIGEST));
    let (spdx, cyclonedx) = (spdx_of(&sbom), cyclonedx_of(&sbom));

    assert_eq!(find(&spdx["packages"], "msgpack")["licenseDeclared"], "Apache-2.0");
    assert_eq!(
        find(&spdx["packages"], "msgpack")["supplier"],
        "Person: A (a@example.org)"
    );
    let privsep = find(&cyclonedx["components"], "oslo-privsep");
    assert_eq!(privsep["licenses"], json!([{"license": {"name": "BSD License"}}]));
    assert_eq!(
        privsep["externalReferences"],
        Value::Null,
        "a value that is not a URL is omitted"
    );

    assert_eq!(
        python_agent(&spdx)["downloadLocation"],
        format!("git+https://example.org/agent@{}", "0".repeat(40))
    );
}

#[test]
fn patches_are_in_both_formats() {
    let sbom = sbom_of(&image(), Some(DIGEST));
    let (spdx, cyclonedx) = (spdx_of(&sbom), cyclonedx_of(&sbom));

    let patched = find(&cyclonedx["components"], "ovn-bgp-agent");
    let all = cyclonedx["components"].as_array().unwrap();
    assert_eq!(all.iter().filter(|c| !c["pedigree"].is_null()).count(), 1);
    let patches = &patched["pedigree"]["patches"];
    assert_eq!(patches.as_array().unwrap().len(), 1);
    assert_eq!(patches[0]["type"], "unofficial");
    assert_eq!(patches[0]["diff"]["text"]["content"], PATCH);
    assert_eq!(patches[0]["resolves"][0]["name"], "Say hello");
    assert_eq!(
        python_agent(&spdx)["annotations"][0]["comment"],
        format!(
            "Patched: {PATCH_NAME} (sha256:{}): Say hello Nothing was said.",
            patch().sha256
        )
    );
}

#[test]
fn a_partly_installed_package_is_marked() {
    let spdx = spdx_of(&sbom_of(&image(), Some(DIGEST)));
    assert_eq!(
        find(&spdx["packages"], "ovn-common")["comment"],
        "Some files of this package only."
    );
}

#[test]
fn crates_are_listed_without_build_dependencies() {
    let cyclonedx = cyclonedx_of(&sbom_of(&image(), Some(DIGEST)));
    let of_program: Vec<(&str, &str)> = cyclonedx["components"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["evidence"]["occurrences"][0]["location"] == "/usr/local/bin/obgp-runtime")
        .map(|c| (c["type"].as_str().unwrap(), c["purl"].as_str().unwrap()))
        .collect();
    assert_eq!(
        of_program,
        [
            ("library", "pkg:cargo/clap@4.6.9"),
            ("library", "pkg:cargo/clap_builder@4.6.9"),
            ("application", "pkg:generic/obgp-runtime@0.1.0"),
        ]
    );
}

#[test]
fn the_same_image_gives_the_same_document() {
    let bytes = |digest| {
        let sbom = sbom_of(&image(), digest);
        (spdx_of(&sbom).to_string(), cyclonedx_of(&sbom).to_string())
    };
    assert_eq!(bytes(Some(DIGEST)), bytes(Some(DIGEST)));
    let (one, other) = (sbom_of(&image(), Some(DIGEST)), sbom_of(&image(), None));
    assert_ne!(spdx_of(&one)["documentNamespace"], spdx_of(&other)["documentNamespace"]);
    assert_ne!(cyclonedx_of(&one)["serialNumber"], cyclonedx_of(&other)["serialNumber"]);
    // The documents have the date of the image.
    assert_eq!(spdx_of(&one)["creationInfo"]["created"], "2026-01-01T00:00:00Z");
    assert_eq!(cyclonedx_of(&one)["metadata"]["timestamp"], "2026-01-01T00:00:00Z");
}

#[test]
fn an_sbom_is_the_predicate_of_a_valid_statement() {
    let Some(validators) = Validators::get() else { return };
    let sbom = sbom_of(&image(), Some(DIGEST));
    let subject = || Subject::new("docker.io/openstackhelm/ovn-bgp-agent", &DIGEST.parse().unwrap());
    for (bytes, predicate_type, predicate) in [
        (
            spdx::statement(subject(), &sbom),
            "https://spdx.dev/Document",
            spdx_of(&sbom),
        ),
        (
            cyclonedx::statement(subject(), &sbom),
            "https://cyclonedx.org/bom",
            cyclonedx_of(&sbom),
        ),
    ] {
        let statement: Value = serde_json::from_slice(&bytes.unwrap()).unwrap();
        assert_eq!(statement["predicateType"], predicate_type);
        assert_eq!(statement["predicate"], predicate);
        assert_eq!(statement["subject"][0]["digest"]["sha256"], DIGEST["sha256:".len()..]);
        let breaks = [
            ("/_type", json!("x")),
            ("/subject", json!([])),
            ("/predicate", json!({})),
        ];
        validators.assert_rejects(Kind::Statement, &statement, &breaks);
    }
}

#[test]
fn the_type_of_a_patch_follows_its_origin_field() {
    for (origin, kind) in [
        ("backport, https://review.example.org/1", "backport"),
        ("upstream, https://review.example.org/1", "cherry-pick"),
        ("vendor", "unofficial"),
    ] {
        let mut image = image();
        let path = format!("{AGENT}/patches/{PATCH_NAME}.patch");
        image.replace(&path, "Author: a test", &format!("Origin: {origin}"));
        let document = cyclonedx_of(&sbom_of(&image, Some(DIGEST)));
        let agent = find(&document["components"], "ovn-bgp-agent");
        assert_eq!(agent["pedigree"]["patches"][0]["type"], kind);
    }
}

#[test]
fn an_unreadable_patch_is_a_gap() {
    let mut image = image();
    image.remove(&format!("{AGENT}/patches/{PATCH_NAME}.patch"));
    let sbom = sbom_of(&image, Some(DIGEST));
    assert!(sbom.gaps.iter().any(|gap| gap.contains(PATCH_NAME)), "{:?}", sbom.gaps);
}

#[test]
fn unreadable_metadata_is_recorded_in_the_documents() {
    let Some(validators) = Validators::get() else { return };
    let mut image = image();
    // A program without a list of its crates, and metadata that is not text.
    image.bytes(
        "usr/local/bin/obgp-runtime",
        0o755,
        &std::fs::read("/bin/true").unwrap(),
    );
    image.bytes(&format!("{SITE}/msgpack-1.1.0.dist-info/METADATA"), 0o644, b"\xff\xfe");
    let sbom = sbom_of(&image, Some(DIGEST));
    assert_eq!(sbom.gaps.len(), 2, "{:?}", sbom.gaps);
    let (spdx, cyclonedx) = (spdx_of(&sbom), cyclonedx_of(&sbom));
    let comment = spdx["comment"].as_str().unwrap();
    assert!(
        comment.contains("obgp-runtime") && comment.contains("msgpack"),
        "{comment}"
    );
    assert_eq!(cyclonedx["compositions"][0]["aggregate"], "incomplete");
    validators.assert_valid(Kind::Spdx, &spdx);
    validators.assert_valid(Kind::CycloneDx, &cyclonedx);
}

#[test]
fn an_image_without_a_package_list_is_an_error() {
    for (path, expected) in [
        ("var/lib/dpkg/status", "/var/lib/dpkg/status is missing"),
        ("usr/lib/os-release", "no /etc/os-release"),
    ] {
        let mut image = image();
        image.remove(path);
        let error = Sbom::of(&image.image(None)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
