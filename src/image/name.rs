//! The name of an image on the command line -> where the image is.

use std::str::FromStr;

use crate::config::file::ConfigError;
use crate::layout::LayoutReference;
use crate::oci::ImageReference;

/// `oci:DIR[:TAG]`, `docker:NAME` or `HOST/PATH:TAG`.
#[derive(Clone, Debug)]
pub enum ImageName {
    Layout(LayoutReference),
    Engine(String),
    Registry(ImageReference),
}

impl FromStr for ImageName {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text.split_once(':') {
            Some(("oci", rest)) if !rest.is_empty() => {
                let Ok(reference) = rest.parse();
                Ok(ImageName::Layout(reference))
            }
            Some(("docker", rest)) if !rest.is_empty() => Ok(ImageName::Engine(rest.to_string())),
            _ => text.parse().map(ImageName::Registry).map_err(|_| {
                ConfigError::Invalid(format!(
                    "{text:?} does not say where the image is: oci:DIR[:TAG] for a layout, docker:NAME for an engine, \
                     HOST/PATH:TAG for a registry"
                ))
            }),
        }
    }
}
