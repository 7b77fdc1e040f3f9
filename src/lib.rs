//! obgp-build as a library: from `build.toml` to a published tag. Each module is a stage, and each stage turns one typed value
//! into the next.
//!
//! ```text
//!  build.toml ──config──┐                   ┌─ base ······ the base image of a target: found, pulled, or bootstrapped
//!  flags ───────cli─────┤                   ├─ builders ·· the daemons that build, and their slots
//!                       ▼                   ▼
//!                   Settings ────plan────> Plan: one ImagePlan a distro, one Target a platform
//!                                           │
//!        ┌──────────────────build───────────┘
//!        │  solve (buildkit) ─> Image in the layout ─> Verdict (verify) ─> statements (attest)
//!        ▼
//!  Verified index ──publish──> blobs, manifests, signatures (sign) ──registry──> the tag, set last
//!        │
//!        └─────report──────> text, JSON, HTML
//! ```
//!
//! Only `commands` knows the order of the stages. A module imports modules of the rows above it, and of those only what its row
//! names; `tests/architecture.rs` checks that.
//!
//! | module | what it is | imports |
//! |---|---|---|
//! | [`oci`] | ground types: platform, digest, reference, content, docker's logins | nothing |
//! | [`progress`] | the trait through which stages report progress | nothing |
//! | [`util`] | small tools that know nothing of images | oci |
//! | [`layout`] | the OCI layout: an archive -> canonical blobs, manifest, [`Tree`](layout::Tree) | oci, progress, util |
//! | [`engine`] | the Docker API: endpoints, containers, image export | oci, progress, util |
//! | [`config`] | `build.toml` and the choices of a run, as plain data | oci, engine (addresses) |
//! | [`registry`] | the distribution API: pull, push, referrers, prune, inspect | config, layout and what is above |
//! | [`image`] | one platform of an image, wherever it is, opened lazily; its packages, patches, differences | layout, registry, engine |
//! | [`buildkit`] | one solve on one daemon | engine, config, layout |
//! | [`builders`] | `[[builder]]` -> daemons that answer, and leases on their slots | buildkit, engine, config |
//! | [`base`] | distro and platform -> a base image that a builder can reach | registry, buildkit, engine, config |
//! | [`plan`] | settings -> every input of every target, resolved; starts nothing | base, builders, buildkit, config |
//! | [`verify`] | image and contract -> verdict, remembered, without running the image | image, plan (patches, locks), config |
//! | [`sign`] | key and digest -> signatures as cosign has them, and their check | registry, oci |
//! | [`attest`] | image and plan -> SBOM and provenance statements | sign, plan, image |
//! | [`publish`] | a verified image -> a tag in registries, and promotion | registry, verify |
//! | [`build`](mod@build) | plan -> verified images in the layout, published if asked | every stage above |
//! | [`report`] | results -> terminal, text, HTML | build, plan, publish, verify, registry |
//! | [`doctor`] | this machine -> what is missing, and the command that fixes it | plan, base, builders, engine |
//! | [`cli`] | the command line: flags, their environment variables, their help | config, layout, plan, sign |
//! | [`commands`] | one file per subcommand: reads arguments, calls stages, prints | everything |

pub mod attest;
pub mod base;
pub(crate) mod build;
pub(crate) mod builders;
pub mod buildkit;
pub mod cli;
pub mod commands;
pub mod config;
pub(crate) mod doctor;
pub mod engine;
pub mod image;
pub mod layout;
pub mod oci;
pub mod plan;
pub mod progress;
pub mod publish;
pub mod registry;
pub(crate) mod report;
pub mod sign;
pub mod util;
pub mod verify;
