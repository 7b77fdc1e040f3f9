//! A plan as a person reads it.

use std::fmt::Write as _;

use crate::base::resolve::{BasePlan, Origin};
use crate::oci::Platform;
use crate::plan::runtime_binary::RuntimePlan;
use crate::plan::source::Source;
use crate::plan::{BuilderKind, BuilderPlan, ImagePlan, Plan};

pub fn text(plan: &Plan) -> String {
    let mut text = plan.builders.iter().map(builder).collect::<String>();
    for absent in &plan.absent {
        let _ = writeln!(text, "builder {} at {} is left out", absent.name, absent.endpoint);
    }
    for image in &plan.images {
        let source = match &image.source {
            Source::PyPI { version } => format!("{version} from PyPI"),
            Source::Git { url, commit } => format!("{} from {url}, commit {commit}", image.reference),
        };
        let _ = writeln!(text, "\n{}", image.name);
        let _ = writeln!(text, "  project      {source}");
        let _ = writeln!(
            text,
            "  lock         {} ({} distributions for Python {})",
            image.lock.name, image.lock.distributions, image.python
        );
        let _ = writeln!(text, "  constraints  OpenStack {}", image.constraints);
        for patch in &image.patches {
            let _ = writeln!(
                text,
                "  patch        {} (sha256:{}): {}",
                patch.name,
                &patch.sha256[..12],
                patch.summary
            );
        }
        let _ = writeln!(text, "  context      {}", image.context_digest);
        let _ = writeln!(
            text,
            "  dates        no later than {}",
            image.labels["org.opencontainers.image.created"]
        );
        for line in build_bases(image) {
            let _ = writeln!(text, "  stages on    {line}");
        }
        for line in runtimes(image) {
            let _ = writeln!(text, "  runtime      {line}");
        }
        for target in &image.targets {
            let how = if target.emulated { ", its apt step emulated" } else { "" };
            let mut at = String::new();
            if plan.builders.len() > 1 {
                at = format!(" by {}", target.builder);
            }
            let platform = target.platform.to_string();
            let _ = writeln!(text, "  {platform:<12} {}{at}{how}", base(&target.base));
            let keeps = |b: &&BuilderPlan| b.name == target.builder && b.kind == BuilderKind::Engine;
            if plan.builders.iter().any(|b| keeps(&b)) {
                let _ = writeln!(text, "{:15}-> {}", "", target.engine_tag);
            }
        }
    }
    text
}

fn builder(builder: &BuilderPlan) -> String {
    let emulated: Vec<String> = builder
        .platforms
        .iter()
        .filter(|p| **p != builder.native)
        .map(Platform::to_string)
        .collect();
    let emulated = match emulated.is_empty() {
        true => String::new(),
        false => format!(", emulates {}", emulated.join(", ")),
    };
    let store = builder.store.iter().map(|store| format!("{store} store, "));
    // The address says which builder it is, if build.toml names any.
    format!(
        "{} at {} ({}{}{emulated}, {} at a time)\n",
        builder.title(),
        builder.endpoint,
        store.collect::<String>(),
        builder.native,
        builder.slots
    )
}

/// What the build stages run on; once for targets that have the same.
fn build_bases(image: &ImagePlan) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for target in &image.targets {
        let line = base(&target.build_base);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// Where obgp-runtime comes from; once for platforms that have it from the same place.
fn runtimes(image: &ImagePlan) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for target in &image.targets {
        let line = match &target.runtime {
            RuntimePlan::Compiled {
                base: on,
                sources_digest,
            } => {
                format!("compiled from {sources_digest} on {}", base(on))
            }
            RuntimePlan::Prebuilt(given) => {
                format!("{} for {}, {}", given.path.display(), target.platform, given.digest)
            }
        };
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

fn base(base: &BasePlan) -> String {
    let whence = match base.origin {
        Origin::Engine => "the engine has it",
        Origin::Registry => "from its registry",
        Origin::Bootstrap => "bootstrapped from the archive",
    };
    match &base.digest {
        Some(digest) => format!("{}@{digest} ({whence})", base.name),
        None => format!("{} ({whence})", base.name),
    }
}
