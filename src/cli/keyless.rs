//! Keyless signing flags, in builds with the feature `keyless`.

use std::path::PathBuf;

use clap::Args;
use url::Url;

use super::values;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Keyless signing")]
pub struct KeylessArgs {
    /// Sign with a short-lived Fulcio certificate instead of a key
    ///
    /// The certificate contains the identity from the token. The signature is recorded in Rekor's public log.
    #[arg(long)]
    pub keyless: bool,
    /// Read the OIDC identity token (a JWT) from FILE [default: $SIGSTORE_ID_TOKEN]
    #[arg(long, value_name = "FILE", requires = "keyless", value_parser = values::existing_file)]
    pub identity_token: Option<PathBuf>,
    /// URL of the certificate authority (Fulcio)
    #[arg(
        long,
        value_name = "URL",
        requires = "keyless",
        default_value = "https://fulcio.sigstore.dev"
    )]
    pub fulcio_url: Url,
    /// URL of the transparency log (Rekor)
    #[arg(
        long,
        value_name = "URL",
        requires = "keyless",
        default_value = "https://rekor.sigstore.dev"
    )]
    pub rekor_url: Url,
}
