//! What people and scripts read of a run: progress on the terminal, the result as text, JSON and HTML.

pub mod html;
pub mod terminal;
pub mod text;
