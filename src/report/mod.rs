//! Output for people and scripts: progress on the terminal, results as text, JSON and HTML.

pub mod files;
pub mod html;
pub mod inspect;
mod narrow;
pub mod plan;
pub mod prune;
pub mod terminal;
pub mod text;
