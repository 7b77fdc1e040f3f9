//! How the command line spells the choices of [`crate::config`].

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::config::{BootstrapMode, ProgressMode};

impl ValueEnum for BootstrapMode {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Always, Self::Never]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }))
    }
}

impl ValueEnum for ProgressMode {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Plain, Self::Quiet]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Auto => ("auto", "Progress bars on a terminal, plain lines elsewhere"),
            Self::Plain => ("plain", "One line for each step and each line of build output"),
            Self::Quiet => ("quiet", "Only warnings, errors and results"),
        };
        Some(PossibleValue::new(name).help(help))
    }
}
