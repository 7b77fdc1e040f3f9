//! What the rules found. The JSON of these types is user interface: scripts read it.

use std::fmt::Display;

use serde::Serialize;

use super::Rule;
use crate::platform::Platform;

/// A broken image can break a rule in every file; a report is for reading.
const MAX_FINDINGS: usize = 200;

/// All rules' reports on one platform's image. Only [`Contract::check`](super::Contract::check) makes one.
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
    /// How many more findings there were than are listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub omitted: usize,
}

/// The evidence that a rule looked at something: `{"count": 812, "of": "ELF files"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    pub count: usize,
    pub of: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where: `/usr/bin/x`, `/etc/sudoers:12`, or a part of the image configuration such as `config.Env.PATH`.
    pub path: String,
    /// The layer that put it there, counted from 0 at the base.
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

/// Something that passed. It cannot be made otherwise than from verdicts that did.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    value: T,
    verdicts: Vec<Verdict>,
}

impl<T> Verified<T> {
    /// `value` with the verdicts on all of its platforms; refused when one did not pass, or when there is none.
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

    /// What stands for the same image, as an index does for its manifests.
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

/// What a rule gathers while it looks.
#[derive(Default)]
pub(crate) struct Evidence {
    checked: Checked,
    findings: Vec<Finding>,
    omitted: usize,
}

impl Evidence {
    pub fn checked(&mut self, count: usize, of: &'static str) {
        self.checked = Checked { count, of };
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

    /// A finding about a path of the tree, given as the tree has it.
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
