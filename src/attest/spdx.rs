//! Writes an [`Sbom`] as SPDX 2.3 JSON. <https://spdx.github.io/spdx-spec/v2.3/>
//!
//! The module defines structs for the used fields: `spdx-rs` would add chrono, nom 7 and a random namespace.

use std::collections::BTreeMap;

use serde::Serialize;

use super::component::{Change, Component, Kind, Party, uuid_of, web_address};
use super::sbom::Sbom;
use super::statement::{Statement, Subject};

/// The predicate type of `cosign attest --type spdxjson`.
pub const PREDICATE_TYPE: &str = "https://spdx.dev/Document";

const DOCUMENT_ID: &str = "SPDXRef-DOCUMENT";
const IMAGE_ID: &str = "SPDXRef-image";
const SYSTEM_ID: &str = "SPDXRef-operating-system";
const TOOL: &str = concat!("Tool: obgp-build-", env!("CARGO_PKG_VERSION"));
const UNKNOWN: &str = "NOASSERTION";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: String,
    document_namespace: String,
    creation_info: CreationInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    packages: Vec<Package>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    has_extracted_licensing_infos: Vec<ExtractedLicense>,
    relationships: Vec<Relationship>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExtractedLicense {
    license_id: String,
    name: String,
    extracted_text: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CreationInfo {
    created: String,
    creators: Vec<String>,
    /// `3.26`
    license_list_version: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    name: String,
    #[serde(rename = "SPDXID")]
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<String>,
    download_location: String,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    homepage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<String>,
    license_concluded: &'static str,
    license_declared: String,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_package_purpose: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalRef>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    annotations: Vec<Annotation>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Annotation {
    annotation_date: String,
    annotation_type: &'static str,
    annotator: &'static str,
    comment: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

/// The statement that `subject` has this SBOM, as bytes.
pub fn statement(subject: Subject, sbom: &Sbom) -> serde_json::Result<Vec<u8>> {
    Statement::new(subject, PREDICATE_TYPE, document(sbom)?).to_bytes()
}

/// The document. Its namespace is derived from its content.
pub fn document(sbom: &Sbom) -> serde_json::Result<Document> {
    let mut packages = vec![image(sbom), system(sbom)];
    packages.extend(sbom.components.iter().map(|c| package(c, &sbom.created())));
    let mut document = Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        id: DOCUMENT_ID,
        name: sbom.document_name(),
        document_namespace: String::new(),
        creation_info: CreationInfo {
            created: sbom.created(),
            creators: vec![TOOL.to_string()],
            license_list_version: license_list_version(),
        },
        comment: (!sbom.gaps.is_empty()).then(|| format!("Not complete. {}", sbom.gaps.join("; "))),
        packages,
        has_extracted_licensing_infos: extracted_licenses(sbom),
        relationships: relationships(sbom),
    };
    let uuid = uuid_of(&serde_json::to_vec(&document)?);
    document.document_namespace = format!("https://spdx.org/spdxdocs/{}-{uuid}", document.name);
    Ok(document)
}

/// SPDX requires major and minor version.
fn license_list_version() -> String {
    let version = spdx::license_version().trim_start_matches('v');
    version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

fn image(sbom: &Sbom) -> Package {
    let image = &sbom.image;
    Package {
        version_info: image.digest.clone().or_else(|| image.version.clone()),
        supplier: image
            .vendor
            .as_deref()
            .map(|v| format!("Organization: {}", one_line(v))),
        homepage: image.homepage.as_deref().and_then(web_address),
        checksums: image
            .sha256()
            .map(|hex| Checksum {
                algorithm: "SHA256",
                checksum_value: hex.to_string(),
            })
            .into_iter()
            .collect(),
        external_refs: vec![ExternalRef::purl(&image.purl)],
        ..Package::named(&image.name, IMAGE_ID.to_string(), Some("CONTAINER"))
    }
}

fn system(sbom: &Sbom) -> Package {
    Package {
        version_info: Some(sbom.system.version.clone()).filter(|v| !v.is_empty()),
        comment: Some(sbom.system.pretty_name.clone()),
        ..Package::named(&sbom.system.id, SYSTEM_ID.to_string(), Some("OPERATING_SYSTEM"))
    }
}

fn package(component: &Component, created: &str) -> Package {
    let found = format!("found in /{}", component.location);
    let source_info = match &component.source {
        Some((name, version)) => format!("built from the source package {name} {version}; {found}"),
        None => found,
    };
    let purpose = match component.kind {
        Kind::Program => Some("APPLICATION"),
        Kind::Crate => Some("LIBRARY"),
        // Either type contains both.
        Kind::Deb | Kind::Python => None,
    };
    let license = component.license.expression.as_deref();
    Package {
        version_info: Some(component.version.clone()),
        supplier: Some(component.supplier.as_ref().map_or(UNKNOWN.to_string(), supplier)),
        download_location: component.download.clone().unwrap_or_else(|| UNKNOWN.to_string()),
        homepage: component.homepage.as_deref().and_then(web_address),
        source_info: Some(source_info),
        license_declared: license.unwrap_or(UNKNOWN).to_string(),
        comment: component
            .partial
            .then(|| "Some files of this package only.".to_string()),
        external_refs: vec![ExternalRef::purl(&component.purl)],
        annotations: component.patches.iter().map(|c| annotation(c, created)).collect(),
        ..Package::named(&component.name, spdx_id(component), purpose)
    }
}

/// A patch of a package, as an annotation: SPDX 2.3 has no field for it.
fn annotation(change: &Change, created: &str) -> Annotation {
    Annotation {
        annotation_date: created.to_string(),
        annotation_type: "OTHER",
        annotator: TOOL,
        comment: format!(
            "Patched: {} (sha256:{}): {}",
            change.name,
            change.sha256,
            one_line(&change.description)
        ),
    }
}

/// The names of licences that are not on SPDX's list. Their texts are in the image.
fn extracted_licenses(sbom: &Sbom) -> Vec<ExtractedLicense> {
    let mut all = BTreeMap::new();
    for component in &sbom.components {
        for reference in &component.license.references {
            let text = format!(
                "\"{}\", as /{} in the image says",
                reference.name, component.license_from
            );
            all.insert(&reference.id, (&reference.name, text));
        }
    }
    all.into_iter()
        .map(|(id, (name, extracted_text))| ExtractedLicense {
            license_id: id.clone(),
            name: name.clone(),
            extracted_text,
        })
        .collect()
}

/// `Organization: Debian Foo Team (foo@example.org)`. Persons and teams cannot be distinguished reliably; most are
/// teams.
fn supplier(party: &Party) -> String {
    const TEAMS: [&str; 9] = [
        "team",
        "developers",
        "maintainers",
        "group",
        "project",
        "debian",
        "ubuntu",
        "openstack",
        "foundation",
    ];
    let lower = party.name.to_lowercase();
    let kind = match TEAMS.iter().any(|word| lower.contains(word)) {
        true => "Organization",
        false => "Person",
    };
    // Parentheses enclose the address.
    let name = one_line(&party.name).replace(['(', ')'], "");
    match &party.address {
        Some(address) => format!("{kind}: {name} ({})", one_line(address)),
        None => format!("{kind}: {name}"),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn spdx_id(component: &Component) -> String {
    format!("SPDXRef-{}", component.id)
}

fn relationships(sbom: &Sbom) -> Vec<Relationship> {
    let relationship = |from: &str, relationship_type, to: &str| Relationship {
        spdx_element_id: from.to_string(),
        relationship_type,
        related_spdx_element: to.to_string(),
    };
    let mut all = vec![
        relationship(DOCUMENT_ID, "DESCRIBES", IMAGE_ID),
        relationship(IMAGE_ID, "CONTAINS", SYSTEM_ID),
    ];
    let ids: Vec<String> = sbom.components.iter().map(spdx_id).collect();
    for id in &ids {
        all.push(relationship(IMAGE_ID, "CONTAINS", id));
    }
    for (component, id) in sbom.components.iter().zip(&ids) {
        for at in &component.depends_on {
            all.push(relationship(id, "DEPENDS_ON", &ids[*at]));
        }
    }
    all
}

impl Package {
    fn named(name: &str, id: String, purpose: Option<&'static str>) -> Self {
        Package {
            name: name.to_string(),
            id,
            version_info: None,
            supplier: None,
            download_location: UNKNOWN.to_string(),
            files_analyzed: false,
            homepage: None,
            source_info: None,
            license_concluded: UNKNOWN,
            license_declared: UNKNOWN.to_string(),
            copyright_text: UNKNOWN,
            comment: None,
            primary_package_purpose: purpose,
            checksums: Vec::new(),
            external_refs: Vec::new(),
            annotations: Vec::new(),
        }
    }
}

impl ExternalRef {
    fn purl(purl: &str) -> Self {
        ExternalRef {
            reference_category: "PACKAGE-MANAGER",
            reference_type: "purl",
            reference_locator: purl.to_string(),
        }
    }
}
