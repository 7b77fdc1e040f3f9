//! Output for people and scripts: progress on the terminal, results as text, JSON and HTML.

pub mod html;
pub mod terminal;
pub mod text;
