//! A registry in memory that follows the distribution specification 1.1, with the referrers API.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LINK, LOCATION, RANGE};
use http::{HeaderMap, HeaderName, Method};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Answer, error, reply};

const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A request whose body has arrived.
pub struct Call {
    pub method: Method,
    pub path: String,
    pub query: HashMap<String, String>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Call {
    pub fn new(parts: http::request::Parts, body: Bytes) -> Self {
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        Self {
            path: parts.uri.path().to_string(),
            query: url::form_urlencoded::parse(query).into_owned().collect(),
            method: parts.method,
            headers: parts.headers,
            body,
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

#[derive(Default)]
pub struct Store {
    repositories: HashMap<String, Repository>,
    uploads: HashMap<String, Upload>,
    sessions: usize,
    /// The time until a tag becomes visible.
    late: Duration,
}

#[derive(Default)]
struct Repository {
    blobs: HashMap<String, Bytes>,
    /// Media type and content, by digest.
    manifests: HashMap<String, (String, Bytes)>,
    tags: BTreeMap<String, Tag>,
}

struct Tag {
    digest: String,
    before: Option<String>,
    set: Instant,
}

#[derive(Default)]
struct Upload {
    bytes: Vec<u8>,
    first_chunk: usize,
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The repository, the kind of object and its name, from a path below `/v2/`.
fn split(path: &str) -> Option<(&str, &str, &str)> {
    let path = path.strip_prefix("/v2/")?;
    let kinds = ["/blobs/uploads/", "/blobs/", "/manifests/", "/referrers/", "/tags/"];
    kinds.into_iter().find_map(|kind| {
        let (name, rest) = path.split_once(kind)?;
        Some((name, kind, rest))
    })
}

impl Store {
    pub fn respond(&mut self, call: &Call) -> Answer {
        let Some((name, kind, rest)) = split(&call.path) else {
            return reply(200, &[], "{}");
        };
        match (kind, call.method.as_str()) {
            ("/blobs/uploads/", "POST") => self.begin(call, name),
            ("/blobs/uploads/", _) if !self.uploads.contains_key(rest) => error(404, "BLOB_UPLOAD_UNKNOWN"),
            ("/blobs/uploads/", "DELETE") => {
                self.uploads.remove(rest);
                reply(204, &[], "")
            }
            ("/blobs/uploads/", "GET") => self.standing(name, rest, 204),
            ("/blobs/uploads/", _) => self.receive(call, name, rest),
            ("/blobs/", _) => match self.repository(name).blobs.get(rest) {
                Some(bytes) => reply(200, &[(DIGEST, rest.to_string())], bytes.clone()),
                None => error(404, "BLOB_UNKNOWN"),
            },
            ("/manifests/", "PUT") => self.put_manifest(call, name, rest),
            ("/manifests/", "DELETE") => self.delete_manifest(name, rest),
            ("/manifests/", _) => self.get_manifest(name, rest),
            ("/referrers/", _) => self.referrers(call, name, rest),
            _ if !self.repositories.contains_key(name) => error(404, "NAME_UNKNOWN"),
            _ => {
                let tags = self.repositories[name].tags.keys().cloned();
                let tags = tags.filter(|tag| self.target(name, tag).is_some()).collect();
                let (page, link) = page(call, tags);
                reply(200, &link, json!({"name": name, "tags": page}).to_string())
            }
        }
    }

    pub fn all_tags(&self, name: &str) -> BTreeMap<String, String> {
        let tags = self
            .repositories
            .get(name)
            .into_iter()
            .flat_map(|repository| &repository.tags);
        tags.map(|(tag, set)| (tag.clone(), set.digest.clone())).collect()
    }

    pub fn put_blob(&mut self, name: &str, bytes: Bytes) -> String {
        let digest = sha256(&bytes);
        self.repository(name).blobs.insert(digest.clone(), bytes);
        digest
    }

    pub fn blob(&self, name: &str, digest: &str) -> Option<Bytes> {
        self.repositories.get(name)?.blobs.get(digest).cloned()
    }

    pub fn document(&self, name: &str, digest: &str) -> Option<Value> {
        serde_json::from_slice(&self.repositories.get(name)?.manifests.get(digest)?.1).ok()
    }

    pub fn tags_are_late_by(&mut self, delay: Duration) {
        self.late = delay;
    }

    /// Whether the path of a manifest's digest exists.
    pub fn has_manifest(&self, path: &str) -> bool {
        let found = split(path).and_then(|(name, _, digest)| self.document(name, digest));
        found.is_some()
    }

    /// Whether a repository has something, by the path of an object in it.
    pub fn has_repository(&self, path: &str) -> bool {
        let repository = split(path).and_then(|(name, ..)| self.repositories.get(name));
        repository.is_some_and(|repository| !repository.manifests.is_empty() || !repository.blobs.is_empty())
    }

    /// Whether a tag, or another manifest, names the path of a manifest's digest.
    pub fn is_named(&self, path: &str) -> bool {
        let Some((name, _, digest)) = split(path) else {
            return false;
        };
        let manifests = self
            .repositories
            .get(name)
            .into_iter()
            .flat_map(|repository| &repository.manifests);
        let mut documents = manifests.filter(|(named, _)| *named != digest);
        self.is_tagged(path) || documents.any(|(_, (_, bytes))| String::from_utf8_lossy(bytes).contains(digest))
    }

    /// Whether a tag points to the path of a manifest's digest.
    pub fn is_tagged(&self, path: &str) -> bool {
        split(path).is_some_and(|(name, _, digest)| self.all_tags(name).values().any(|tagged| tagged == digest))
    }

    /// Replaces the tag in a path by its digest.
    pub fn use_digest(&self, path: &mut String) {
        if let (Some(digest), Some((_, _, tag))) = (self.digest_of(path), split(path)) {
            let at = path.len() - tag.len();
            path.replace_range(at.., &digest);
        }
    }

    /// The digest of the tag in a path.
    pub fn digest_of(&self, path: &str) -> Option<String> {
        let (name, _, tag) = split(path)?;
        self.target(name, tag)
    }

    /// The end of the first chunk of an upload.
    pub fn first_chunk(&self, path: &str) -> Option<usize> {
        let (_, _, session) = split(path)?;
        Some(self.uploads.get(session)?.first_chunk)
    }

    fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_string()).or_default()
    }

    /// The digest that a tag shows now.
    fn target(&self, name: &str, tag: &str) -> Option<String> {
        let set = self.repositories.get(name)?.tags.get(tag)?;
        match set.set.elapsed() < self.late {
            true => set.before.clone(),
            false => Some(set.digest.clone()),
        }
    }

    pub fn put(&mut self, name: &str, tag: Option<&str>, media_type: &str, bytes: Bytes) -> String {
        let digest = sha256(&bytes);
        let before = tag.and_then(|tag| self.target(name, tag));
        let repository = self.repository(name);
        repository
            .manifests
            .insert(digest.clone(), (media_type.to_string(), bytes));
        if let Some(tag) = tag {
            let set = Tag {
                digest: digest.clone(),
                before,
                set: Instant::now(),
            };
            repository.tags.insert(tag.to_string(), set);
        }
        digest
    }

    fn get_manifest(&mut self, name: &str, reference: &str) -> Answer {
        let digest = match reference.contains(':') {
            true => Some(reference.to_string()),
            false => self.target(name, reference),
        };
        let found = digest.and_then(|digest| {
            let (media_type, bytes) = self.repository(name).manifests.get(&digest)?.clone();
            Some(reply(200, &[(CONTENT_TYPE, media_type), (DIGEST, digest)], bytes))
        });
        found.unwrap_or_else(|| error(404, "MANIFEST_UNKNOWN"))
    }

    fn put_manifest(&mut self, call: &Call, name: &str, reference: &str) -> Answer {
        let Ok(document) = serde_json::from_slice::<Value>(&call.body) else {
            return error(400, "MANIFEST_INVALID");
        };
        let layers = document["layers"].as_array().into_iter().flatten();
        for blob in layers.chain(document.get("config")) {
            let digest = blob["digest"].as_str().unwrap_or_default();
            if !self.repository(name).blobs.contains_key(digest) {
                return error(404, "MANIFEST_BLOB_UNKNOWN");
            }
        }
        if reference.contains(':') && reference != sha256(&call.body) {
            return error(400, "DIGEST_INVALID");
        }
        let tag = (!reference.contains(':')).then_some(reference);
        let media_type = call.header("content-type").unwrap_or_default();
        let digest = self.put(name, tag, media_type, call.body.clone());
        let mut headers = vec![(LOCATION, format!("/v2/{name}/manifests/{digest}")), (DIGEST, digest)];
        let subject = document["subject"]["digest"].as_str();
        headers.extend(subject.map(|digest| (SUBJECT, digest.to_string())));
        reply(201, &headers, "")
    }

    /// Deletes a tag, or a manifest with each tag that points to it.
    fn delete_manifest(&mut self, name: &str, reference: &str) -> Answer {
        let repository = self.repository(name);
        let found = match reference.contains(':') {
            true => {
                repository.tags.retain(|_, tag| tag.digest != reference);
                repository.manifests.remove(reference).is_some()
            }
            false => repository.tags.remove(reference).is_some(),
        };
        match found {
            true => reply(202, &[], ""),
            false => error(404, "MANIFEST_UNKNOWN"),
        }
    }

    fn referrers(&mut self, call: &Call, name: &str, subject: &str) -> Answer {
        let mut entries = BTreeMap::new();
        for (digest, (media_type, bytes)) in &self.repository(name).manifests {
            let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
            if document["subject"]["digest"] == subject {
                let artifact_type = document.get("artifactType").unwrap_or(&document["config"]["mediaType"]);
                let mut entry = json!({"mediaType": media_type, "size": bytes.len(), "digest": digest});
                entry["artifactType"] = artifact_type.clone();
                entry["annotations"] = document["annotations"].clone();
                entry.as_object_mut().unwrap().retain(|_, value| !value.is_null());
                entries.insert(digest.clone(), entry);
            }
        }
        let (page, mut headers) = page(call, entries.keys().cloned().collect());
        let page: Vec<Value> = page.iter().filter_map(|digest| entries.remove(digest)).collect();
        headers.push((CONTENT_TYPE, INDEX.to_string()));
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": page});
        reply(200, &headers, index.to_string())
    }

    fn begin(&mut self, call: &Call, name: &str) -> Answer {
        if let (Some(digest), Some(from)) = (call.query.get("mount"), call.query.get("from"))
            && let Some(bytes) = self.repository(from).blobs.get(digest).cloned()
        {
            self.repository(name).blobs.insert(digest.clone(), bytes);
            return reply(201, &[(LOCATION, format!("/v2/{name}/blobs/{digest}"))], "");
        }
        self.sessions += 1;
        let session = format!("session-{}", self.sessions);
        self.uploads.insert(session.clone(), Upload::default());
        self.standing(name, &session, 202)
    }

    /// Where an upload stands.
    fn standing(&self, name: &str, session: &str, status: u16) -> Answer {
        let end = self.uploads[session].bytes.len().saturating_sub(1);
        let location = format!("/v2/{name}/blobs/uploads/{session}");
        reply(status, &[(LOCATION, location), (RANGE, format!("0-{end}"))], "")
    }

    fn receive(&mut self, call: &Call, name: &str, session: &str) -> Answer {
        let upload = self.uploads.get_mut(session).unwrap();
        let range = call.header("content-range");
        let start = range.and_then(|range| range.split('-').next()?.parse().ok());
        if start.is_some_and(|start: usize| start != upload.bytes.len()) {
            return self.standing(name, session, 416);
        }
        upload.bytes.extend_from_slice(&call.body);
        if upload.first_chunk == 0 {
            upload.first_chunk = upload.bytes.len();
        }
        if call.method == Method::PATCH {
            return self.standing(name, session, 202);
        }
        let upload = self.uploads.remove(session).unwrap();
        let digest = call.query.get("digest").cloned().unwrap_or_default();
        if sha256(&upload.bytes) != digest {
            return error(400, "DIGEST_INVALID");
        }
        let location = format!("/v2/{name}/blobs/{digest}");
        self.repository(name).blobs.insert(digest, upload.bytes.into());
        reply(201, &[(LOCATION, location)], "")
    }
}

/// At most `n` items after `last`, and the link to the next page.
fn page(call: &Call, items: Vec<String>) -> (Vec<String>, Vec<(HeaderName, String)>) {
    let n = call.query.get("n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
    let last = call.query.get("last").cloned().unwrap_or_default();
    let mut rest = items.into_iter().filter(|item| *item > last);
    let page: Vec<String> = rest.by_ref().take(n).collect();
    let next = rest.next().and(page.last());
    let link = next.map(|last| (LINK, format!("<{}?n={n}&last={last}>; rel=\"next\"", call.path)));
    let link = link.into_iter().collect();
    (page, link)
}
