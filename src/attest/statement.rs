//! Writes a predicate about an image as an in-toto statement: the bytes to sign.
//!
//! <https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>

use std::collections::BTreeMap;

use serde::Serialize;

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// `_type` is first, as human readers of the bytes expect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement<'a, P> {
    #[serde(rename = "_type")]
    statement_type: &'static str,
    subject: [Subject; 1],
    predicate_type: &'a str,
    predicate: P,
}

/// The image, or one platform of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// The repository, without tag or digest: `docker.io/openstackhelm/ovn-bgp-agent`.
    pub name: String,
    /// By algorithm, in hexadecimal.
    pub digest: BTreeMap<String, String>,
}

impl Subject {
    /// `digest` is `sha256:…` of a manifest or an index, as OCI writes it.
    pub fn new(name: &str, digest: &oci_spec::image::Digest) -> Self {
        Subject {
            name: name.to_string(),
            digest: BTreeMap::from([(digest.algorithm().to_string(), digest.digest().to_string())]),
        }
    }
}

impl<'a, P: Serialize> Statement<'a, P> {
    pub fn new(subject: Subject, predicate_type: &'a str, predicate: P) -> Self {
        Statement {
            statement_type: STATEMENT_TYPE,
            subject: [subject],
            predicate_type,
            predicate,
        }
    }

    /// Equal statements have equal bytes.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_names_its_subject_by_digest() {
        let digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        let statement = Statement::new(
            Subject::new("r/i", &digest),
            "https://example.org/p",
            serde_json::json!({"x": 1}),
        );
        assert_eq!(
            String::from_utf8(statement.to_bytes().unwrap()).unwrap(),
            format!(
                r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"r/i","digest":{{"sha256":"{}"}}}}],"predicateType":"https://example.org/p","predicate":{{"x":1}}}}"#,
                "a".repeat(64)
            )
        );
    }
}
