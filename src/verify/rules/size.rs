//! Rule about the image's size, compressed and unpacked, against the platform's budget.

use super::Rule;
use crate::verify::Context;
use crate::verify::verdict::Evidence;

pub const SIZE: Rule = Rule {
    id: "size",
    title: "The image is within its platform's size budget",
    check: size,
};

const MIB: u64 = 1 << 20;

fn size(context: &Context, evidence: &mut Evidence) {
    let platform = context.platform;
    let Some(budget) = context.terms.size.get(&platform) else {
        return evidence.finding(
            "manifest.layers",
            None,
            format_args!("a budget for {platform} in the contract"),
            "none",
        );
    };
    // An image that is only in an engine is not compressed yet.
    evidence.checked(if context.image.compressed > 0 { 2 } else { 1 }, "sizes");
    for (what, found, budget) in [
        ("compressed", context.image.compressed, budget.compressed_mib),
        ("uncompressed", context.image.uncompressed, budget.uncompressed_mib),
    ] {
        if found > budget * MIB {
            evidence.finding(
                "manifest.layers",
                None,
                format_args!("at most {budget} MiB {what}"),
                format_args!("{:.1} MiB", found as f64 / MIB as f64),
            );
        }
    }
}
