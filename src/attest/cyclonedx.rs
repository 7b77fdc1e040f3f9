//! Writes an [`Sbom`] as CycloneDX 1.6 JSON. <https://cyclonedx.org/docs/1.6/json/>
//!
//! The module defines structs for the used fields: `serde-cyclonedx` generates the models of three versions at compile
//! time, with an unmaintained generator.

use serde::Serialize;

use super::component::{Change, Component as Found, Kind, Party, uuid_of, web_address};
use super::license::License;
use super::sbom::Sbom;
use super::statement::{Statement, Subject};

/// The predicate type of `cosign attest --type cyclonedx`.
pub const PREDICATE_TYPE: &str = "https://cyclonedx.org/bom";

const IMAGE_REF: &str = "image";
const SYSTEM_REF: &str = "operating-system";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    bom_format: &'static str,
    spec_version: &'static str,
    serial_number: String,
    version: u32,
    metadata: Metadata,
    components: Vec<Component>,
    dependencies: Vec<Dependency>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    compositions: Vec<Composition>,
}

#[derive(Debug, Serialize)]
struct Metadata {
    timestamp: String,
    tools: Tools,
    component: Component,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property>,
}

#[derive(Debug, Serialize)]
struct Tools {
    components: Vec<Component>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "bom-ref", skip_serializing_if = "Option::is_none")]
    bom_ref: Option<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<Organization>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<LicenseChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_references: Vec<ExternalReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pedigree: Option<Pedigree>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<Evidence>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property>,
}

#[derive(Debug, Serialize)]
struct Organization {
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    contact: Vec<Contact>,
}

#[derive(Debug, Serialize)]
struct Contact {
    email: String,
}

#[derive(Debug, Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

/// The schema accepts one expression, or names.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum LicenseChoice {
    Expression(String),
    License(Name),
}

#[derive(Debug, Serialize)]
struct Name {
    name: String,
}

#[derive(Debug, Serialize)]
struct ExternalReference {
    #[serde(rename = "type")]
    kind: &'static str,
    url: String,
}

#[derive(Debug, Serialize)]
struct Pedigree {
    patches: Vec<Patch>,
}

#[derive(Debug, Serialize)]
struct Patch {
    #[serde(rename = "type")]
    kind: &'static str,
    diff: Diff,
    resolves: Vec<Issue>,
}

#[derive(Debug, Serialize)]
struct Diff {
    text: Text,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    content_type: &'static str,
    content: String,
}

#[derive(Debug, Serialize)]
struct Issue {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    name: String,
    description: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    references: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Evidence {
    occurrences: Vec<Occurrence>,
}

#[derive(Debug, Serialize)]
struct Occurrence {
    location: String,
}

#[derive(Debug, Serialize)]
struct Property {
    name: &'static str,
    value: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency {
    r#ref: String,
    depends_on: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Composition {
    aggregate: &'static str,
    assemblies: Vec<&'static str>,
}

/// The statement that `subject` has this SBOM, as bytes.
pub fn statement(subject: Subject, sbom: &Sbom) -> serde_json::Result<Vec<u8>> {
    Statement::new(subject, PREDICATE_TYPE, document(sbom)?).to_bytes()
}

/// The document. Its serial number is derived from its content.
pub fn document(sbom: &Sbom) -> serde_json::Result<Document> {
    let mut components = vec![system(sbom)];
    components.extend(sbom.components.iter().map(component));
    let complete = sbom.gaps.is_empty();
    let gap = |value: &String| Property {
        name: "obgp-build:gap",
        value: value.clone(),
    };
    let mut document = Document {
        bom_format: "CycloneDX",
        spec_version: "1.6",
        serial_number: String::new(),
        version: 1,
        metadata: Metadata {
            timestamp: sbom.created(),
            tools: Tools {
                components: vec![Component {
                    kind: "application",
                    name: "obgp-build".to_string(),
                    version: Some(env!("CARGO_PKG_VERSION").to_string()),
                    ..Component::default()
                }],
            },
            component: image(sbom),
            properties: sbom.gaps.iter().map(gap).collect(),
        },
        components,
        dependencies: dependencies(sbom),
        compositions: (!complete)
            .then_some(Composition {
                aggregate: "incomplete",
                assemblies: vec![IMAGE_REF],
            })
            .into_iter()
            .collect(),
    };
    document.serial_number = format!("urn:uuid:{}", uuid_of(&serde_json::to_vec(&document)?));
    Ok(document)
}

fn image(sbom: &Sbom) -> Component {
    let image = &sbom.image;
    Component {
        kind: "container",
        bom_ref: Some(IMAGE_REF.to_string()),
        name: image.name.clone(),
        version: image.digest.clone().or_else(|| image.version.clone()),
        supplier: image.vendor.clone().map(|name| Organization {
            name,
            contact: Vec::new(),
        }),
        hashes: image
            .sha256()
            .map(|hex| Hash {
                alg: "SHA-256",
                content: hex.to_string(),
            })
            .into_iter()
            .collect(),
        purl: Some(image.purl.clone()),
        external_references: reference("website", image.homepage.as_deref().and_then(web_address)),
        properties: vec![Property {
            name: "obgp-build:platform",
            value: image.platform.to_string(),
        }],
        ..Component::default()
    }
}

fn system(sbom: &Sbom) -> Component {
    Component {
        kind: "operating-system",
        bom_ref: Some(SYSTEM_REF.to_string()),
        name: sbom.system.id.clone(),
        version: Some(sbom.system.version.clone()).filter(|v| !v.is_empty()),
        description: Some(sbom.system.pretty_name.clone()),
        ..Component::default()
    }
}

fn component(found: &Found) -> Component {
    let mut properties = Vec::new();
    if let Some((name, version)) = &found.source {
        properties.push(Property {
            name: "obgp-build:source-package",
            value: format!("{name} {version}"),
        });
    }
    if found.partial {
        properties.push(Property {
            name: "obgp-build:partial",
            value: "some files of this package only".to_string(),
        });
    }
    let mut external_references = reference("website", found.homepage.as_deref().and_then(web_address));
    external_references.extend(reference("vcs", found.download.clone()));
    Component {
        kind: match found.kind {
            Kind::Program => "application",
            Kind::Deb | Kind::Python | Kind::Crate => "library",
        },
        bom_ref: Some(found.id.clone()),
        name: found.name.clone(),
        version: Some(found.version.clone()),
        supplier: found.supplier.as_ref().map(organization),
        licenses: licenses(&found.license).into_iter().collect(),
        purl: Some(found.purl.clone()),
        external_references,
        pedigree: pedigree(&found.patches),
        evidence: Some(Evidence {
            occurrences: vec![Occurrence {
                location: format!("/{}", found.location),
            }],
        }),
        properties,
        ..Component::default()
    }
}

/// The patches of a component. <https://cyclonedx.org/docs/1.6/json/#components_items_pedigree_patches>
fn pedigree(changes: &[Change]) -> Option<Pedigree> {
    let kind = |change: &Change| match change.origin.as_deref().and_then(|o| o.split([',', ':']).next()) {
        Some("backport") => "backport",
        Some("upstream") => "cherry-pick",
        _ => "unofficial",
    };
    let patches: Vec<Patch> = changes
        .iter()
        .map(|change| Patch {
            kind: kind(change),
            diff: Diff {
                text: Text {
                    content_type: "text/x-diff",
                    content: change.text.clone(),
                },
            },
            resolves: vec![Issue {
                kind: "defect",
                id: change.name.clone(),
                name: change.summary.clone(),
                description: change.description.clone(),
                references: change.bug.as_deref().and_then(web_address).into_iter().collect(),
            }],
        })
        .collect();
    (!patches.is_empty()).then_some(Pedigree { patches })
}

fn organization(party: &Party) -> Organization {
    let contact = party.address.iter().map(|email| Contact { email: email.clone() });
    Organization {
        name: party.name.clone(),
        contact: contact.collect(),
    }
}

fn licenses(license: &License) -> Option<LicenseChoice> {
    let expression = license.expression.clone()?;
    // A licence with a name needs no reference here.
    Some(match license.references.as_slice() {
        [only] if only.id == expression => LicenseChoice::License(Name {
            name: only.name.clone(),
        }),
        _ => LicenseChoice::Expression(expression),
    })
}

fn reference(kind: &'static str, url: Option<String>) -> Vec<ExternalReference> {
    url.map(|url| ExternalReference { kind, url }).into_iter().collect()
}

/// The image depends on every component; the components depend on each other as their metadata says.
fn dependencies(sbom: &Sbom) -> Vec<Dependency> {
    let ids = || sbom.components.iter().map(|c| c.id.clone());
    let image = Dependency {
        r#ref: IMAGE_REF.to_string(),
        depends_on: std::iter::once(SYSTEM_REF.to_string()).chain(ids()).collect(),
    };
    let each = sbom.components.iter().map(|component| Dependency {
        r#ref: component.id.clone(),
        depends_on: component
            .depends_on
            .iter()
            .map(|at| sbom.components[*at].id.clone())
            .collect(),
    });
    std::iter::once(image).chain(each).collect()
}
