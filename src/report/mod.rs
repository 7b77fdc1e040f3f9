//! What people and scripts read of a run: progress on the terminal, the result as text, JSON and HTML.

pub mod files;
pub mod html;
pub mod inspect;
pub mod plan;
pub mod prune;
pub mod terminal;
pub mod text;
