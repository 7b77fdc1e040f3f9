//! Results of the rules. The JSON of these types is part of the user interface: scripts read it.

use std::borrow::Cow;
use std::fmt::Display;

use serde::{Deserialize, Serialize};

use super::RULES;
use super::rules::Rule;
use crate::oci::Platform;

/// Maximum number of listed findings: a defect can break a rule in every file.
const MAX_FINDINGS: usize = 200;

/// The reports of all rules on one platform's image, created by [`Contract::check`](super::Contract::check), or by
/// [`Passed::of`] from the cache.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    platform: Platform,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    passed: bool,
    rules: Vec<RuleReport>,
}

#[derive(Clone, Debug, Serialize)]
pub struct RuleReport {
    pub id: &'static str,
    pub title: &'static str,
    pub passed: bool,
    pub checked: Checked,
    pub findings: Vec<Finding>,
    /// The number of findings that are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub omitted: usize,
}

/// Evidence of what a rule checked: `{"count": 812, "of": "ELF files"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    pub count: usize,
    pub of: Cow<'static, str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The place: `/usr/bin/x`, `/etc/sudoers:12`, or a part of the image configuration such as `config.Env.PATH`.
    pub path: String,
    /// The layer that added it, counted from 0 at the base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    pub expected: String,
    pub found: String,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl Verdict {
    pub(super) fn new(platform: Platform, digest: Option<String>, rules: Vec<RuleReport>) -> Self {
        Self {
            platform,
            digest,
            passed: rules.iter().all(|r| r.passed),
            rules,
        }
    }

    pub fn platform(&self) -> Platform {
        self.platform
    }

    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    pub fn passed(&self) -> bool {
        self.passed
    }

    pub fn rules(&self) -> &[RuleReport] {
        &self.rules
    }

    pub fn broken(&self) -> impl Iterator<Item = &RuleReport> {
        self.rules.iter().filter(|r| !r.passed)
    }
}

/// A passed verdict for the cache: what each rule checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed(Vec<(String, Checked)>);

impl Passed {
    /// `None` if the verdict did not pass: failures are reported in full, so they are never cached.
    pub fn new(verdict: &Verdict) -> Option<Self> {
        let rules = verdict.rules.iter().map(|r| (r.id.to_string(), r.checked.clone()));
        verdict.passed.then(|| Passed(rules.collect()))
    }

    /// The verdict for the manifest with this digest. `None` if it was made with another set of rules.
    pub fn of(self, platform: Platform, digest: String) -> Option<Verdict> {
        if !self.0.iter().map(|(id, _)| id.as_str()).eq(super::rule_ids()) {
            return None;
        }
        let reports = RULES.iter().zip(self.0).map(|(rule, (_, checked))| {
            let evidence = Evidence {
                checked,
                ..Evidence::default()
            };
            evidence.report(rule)
        });
        Some(Verdict::new(platform, Some(digest), reports.collect()))
    }
}

/// A value that passed verification. It can only be created from passed verdicts.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    value: T,
    verdicts: Vec<Verdict>,
}

impl<T> Verified<T> {
    /// Returns `value` if the verdicts of all its platforms passed; fails if one did not pass, or if there are none.
    pub fn admit(value: T, verdicts: Vec<Verdict>) -> Result<Self, Refused> {
        if !verdicts.is_empty() && verdicts.iter().all(Verdict::passed) {
            Ok(Self { value, verdicts })
        } else {
            Err(Refused { verdicts })
        }
    }

    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// Converts to another value for the same image, such as an index for its manifests.
    pub fn map<U>(self, to: impl FnOnce(T) -> U) -> Verified<U> {
        Verified {
            value: to(self.value),
            verdicts: self.verdicts,
        }
    }

    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> std::ops::Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

#[derive(Debug)]
pub struct Refused {
    pub verdicts: Vec<Verdict>,
}

impl std::error::Error for Refused {}

impl Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.verdicts.is_empty() {
            return write!(f, "nothing was verified");
        }
        write!(f, "the image breaks its contract:")?;
        for verdict in self.verdicts.iter().filter(|v| !v.passed) {
            let rules: Vec<&str> = verdict.broken().map(|r| r.id).collect();
            write!(f, " {} ({})", verdict.platform, rules.join(", "))?;
        }
        Ok(())
    }
}

/// Collects the evidence of a rule.
#[derive(Default)]
pub(crate) struct Evidence {
    checked: Checked,
    findings: Vec<Finding>,
    omitted: usize,
}

impl Evidence {
    pub fn checked(&mut self, count: usize, of: &'static str) {
        self.checked = Checked { count, of: of.into() };
    }

    pub fn finding(&mut self, path: impl Display, layer: Option<usize>, expected: impl Display, found: impl Display) {
        if self.findings.len() == MAX_FINDINGS {
            self.omitted += 1;
            return;
        }
        self.findings.push(Finding {
            path: path.to_string(),
            layer,
            expected: expected.to_string(),
            found: found.to_string(),
        });
    }

    /// A finding about a path of the tree, as in the tree.
    pub fn file(&mut self, path: &str, layer: usize, expected: impl Display, found: impl Display) {
        self.finding(format_args!("/{path}"), Some(layer), expected, found);
    }

    pub fn report(self, rule: &Rule) -> RuleReport {
        RuleReport {
            id: rule.id,
            title: rule.title,
            passed: self.findings.is_empty(),
            checked: self.checked,
            findings: self.findings,
            omitted: self.omitted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(finding: bool) -> Verdict {
        let reports = RULES.iter().enumerate().map(|(i, rule)| {
            let mut evidence = Evidence::default();
            evidence.checked(i, "things");
            if finding && i == 3 {
                evidence.finding("/x", None, "a", "b");
            }
            evidence.report(rule)
        });
        let platform = "linux/arm64".parse().unwrap();
        Verdict::new(platform, Some("sha256:x".into()), reports.collect())
    }

    #[test]
    fn what_is_remembered_of_a_verdict_is_all_of_it() {
        let verdict = verdict(false);
        let back = Passed::new(&verdict).unwrap().of(verdict.platform(), "sha256:x".into());
        let json = |verdict: &Verdict| serde_json::to_string(verdict).unwrap();
        assert_eq!(json(&back.unwrap()), json(&verdict));
    }

    #[test]
    fn neither_a_refusal_nor_other_rules_verdict_is_remembered() {
        assert!(Passed::new(&verdict(true)).is_none());
        let platform = verdict(false).platform();
        let mut fewer = Passed::new(&verdict(false)).unwrap();
        fewer.0.pop();
        assert!(fewer.of(platform, "sha256:x".into()).is_none());
        let mut other = Passed::new(&verdict(false)).unwrap();
        other.0.swap(0, 1);
        assert!(other.of(platform, "sha256:x".into()).is_none());
    }
}
