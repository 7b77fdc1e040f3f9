//! Signing without a key of one's own. In builds with the feature `keyless`.

use std::path::PathBuf;

use clap::Args;
use url::Url;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Keyless signing")]
pub struct KeylessArgs {
    /// Sign with a certificate of Fulcio's instead of a key: it names who the identity token is for, and Rekor's log shows it to everybody
    #[arg(long)]
    pub keyless: bool,
    /// The identity token (OIDC, a JWT) [default: what SIGSTORE_ID_TOKEN holds]
    #[arg(long, value_name = "FILE", requires = "keyless")]
    pub identity_token: Option<PathBuf>,
    /// Who certifies
    #[arg(
        long,
        value_name = "URL",
        requires = "keyless",
        default_value = "https://fulcio.sigstore.dev"
    )]
    pub fulcio_url: Url,
    /// Who records
    #[arg(
        long,
        value_name = "URL",
        requires = "keyless",
        default_value = "https://rekor.sigstore.dev"
    )]
    pub rekor_url: Url,
}
