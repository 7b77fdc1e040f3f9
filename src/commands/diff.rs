//! `obgp-build diff IMAGE IMAGE`.

use super::{Context, Failure};
use crate::cli::DiffArgs;

pub async fn run(_context: &Context, _args: &DiffArgs) -> Result<(), Failure> {
    Ok(())
}
