//! Tests the verification rules: a good image passes, and an image that breaks a rule in any way is rejected for it.

mod accounts;
mod config;
mod configuration_files;
mod contents;
mod origins;
mod patches;
mod permissions;
mod python;
mod remains;
mod sudoers;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use obgp_build::verify::rule_ids;
use obgp_build::verify::{Verdict, Verified};
use serde_json::json;
use support::image::{TestImage, repository};

const STATUS: &str = "var/lib/dpkg/status";

/// One way to break one rule.
struct Break {
    rule: &'static str,
    how: fn(&mut TestImage),
    /// Text in one of the rule's findings.
    finding: &'static str,
    /// Other rules that the change breaks too.
    also: &'static [&'static str],
}

const fn breaks(rule: &'static str, how: fn(&mut TestImage), finding: &'static str) -> Break {
    Break {
        rule,
        how,
        finding,
        also: &[],
    }
}

impl Break {
    const fn also(mut self, rules: &'static [&'static str]) -> Self {
        self.also = rules;
        self
    }
}

fn tables() -> impl Iterator<Item = &'static Break> {
    [
        accounts::BREAKS,
        sudoers::BREAKS,
        configuration_files::BREAKS,
        python::BREAKS,
        patches::BREAKS,
        contents::BREAKS,
        origins::BREAKS,
        permissions::BREAKS,
        remains::BREAKS,
        config::BREAKS,
    ]
    .into_iter()
    .flatten()
}

/// Formats the findings of a verdict.
fn findings_of(verdict: &Verdict) -> String {
    let findings = verdict.broken().flat_map(|r| r.findings.iter().map(move |f| (r.id, f)));
    findings
        .map(|(id, f)| format!("  {id}: {}: expected {}, found {}\n", f.path, f.expected, f.found))
        .collect()
}

#[test]
fn a_good_image_passes_on_both_platforms() {
    for platform in ["linux/amd64", "linux/arm64"] {
        let verdict = TestImage::good(platform).check();
        assert!(verdict.passed(), "{platform}: {}", findings_of(&verdict));
        assert!(
            verdict.rules().iter().all(|r| r.checked.count > 0),
            "a rule checks nothing: {verdict:?}"
        );
    }
}

#[test]
fn each_broken_image_fails_exactly_its_rules() {
    let mut wrong = Vec::new();
    for case in tables() {
        let mut image = TestImage::good("linux/amd64");
        (case.how)(&mut image);
        let verdict = image.check();
        let is_expected = |rule: &str| case.rule == rule || case.also.contains(&rule);
        let broken = verdict.broken().map(|r| r.id);
        let broken: BTreeSet<&str> = broken
            .filter(|rule| is_expected(rule) || !origins::RECORDS.contains(rule))
            .collect();
        let expected: BTreeSet<&str> = case.also.iter().copied().chain([case.rule]).collect();
        let evidence = verdict
            .broken()
            .filter(|r| r.id == case.rule)
            .flat_map(|r| &r.findings)
            .any(|f| {
                [&f.path, &f.expected, &f.found]
                    .into_iter()
                    .any(|text| text.contains(case.finding))
            });
        if broken != expected || !evidence {
            wrong.push(format!(
                "{} ({:?}), also {:?}:\n{}",
                case.rule,
                case.finding,
                case.also,
                findings_of(&verdict)
            ));
        }
        wrong.extend(
            Verified::admit((), vec![verdict])
                .ok()
                .map(|_| format!("{} was admitted", case.rule)),
        );
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        tables().count(),
        wrong.join("\n\n")
    );
}

#[test]
fn every_rule_has_an_image_that_breaks_it() {
    let broken: BTreeSet<&str> = tables().map(|b| b.rule).collect();
    let rules: BTreeSet<&str> = rule_ids().collect();
    assert_eq!(rules, broken);
}

/// The image's sudoers file and the contract are separate files that must agree.
#[test]
fn the_contract_allows_the_sudoers_file_of_the_image() {
    let path = repository().join("images/ovn-bgp-agent/sudoers");
    let text = std::fs::read_to_string(path)
        .unwrap()
        .replace("@USER_NAME@", "ovn-bgp-agent");
    let mut image = TestImage::good("linux/arm64");
    image.file("etc/sudoers", 0o440, &text);
    image.built("etc/sudoers");
    let verdict = image.check();
    assert!(verdict.passed(), "{}", findings_of(&verdict));
}

#[test]
fn the_contract_names_every_rule() {
    let contract = std::fs::read_to_string(repository().join("images/ovn-bgp-agent.toml")).unwrap();
    let named: BTreeSet<&str> = contract
        .lines()
        .filter(|l| l.starts_with('#'))
        .filter_map(|l| l.split_once("Rule: ").or_else(|| l.split_once("Rules: ")))
        .flat_map(|(_, names)| names.split([',', ' ', '.']))
        .collect();
    let missing: Vec<&str> = rule_ids().filter(|id| !named.contains(id)).collect();
    assert!(
        missing.is_empty(),
        "the contract's comments do not name these rules: {missing:?}"
    );
}

#[test]
fn an_image_is_verified_only_if_every_platform_passes() {
    let good = TestImage::good("linux/amd64").check();
    let mut image = TestImage::good("linux/arm64");
    image.config["config"]["User"] = json!("0");
    let bad = image.check();
    assert!(Verified::admit("image", vec![good.clone()]).is_ok());
    assert!(Verified::admit("image", vec![]).is_err());
    let error = Verified::admit("image", vec![good, bad]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the image breaks its contract: linux/arm64 (config-process)"
    );
}

#[test]
fn a_verdict_is_stable_json() {
    let mut image = TestImage::good("linux/amd64");
    image.elf("usr/bin/mount", 0o4755);
    let report = serde_json::to_value(image.check()).unwrap();
    let rule = report["rules"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["id"] == "privileged-files")
        .unwrap();
    assert_eq!(rule["checked"]["of"], "files");
    insta::assert_json_snapshot!(rule["findings"], @r#"
    [
      {
        "expected": "no setuid, no setgid",
        "found": "mode 4755, owner 0:0",
        "layer": 0,
        "path": "/usr/bin/mount"
      }
    ]
    "#);
    assert_eq!(report["platform"], "linux/amd64");
    assert_eq!(report["passed"], false);
}

#[test]
fn findings_are_capped_and_counted() {
    let mut image = TestImage::good("linux/amd64");
    for n in 0..1000 {
        image.file(&format!("var/log/{n}"), 0o644, "");
    }
    let verdict = image.check();
    let rule = verdict.broken().next().unwrap();
    assert_eq!((rule.findings.len(), rule.omitted), (200, 800));
}
