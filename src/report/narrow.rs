//! The terminal on stderr for progress bars, some columns narrower than it is.
//!
//! A terminal echoes Ctrl-C as `^C` where the cursor is: after the last bar. Bars fill their lines, so on a bar of the
//! full width the echo would begin another line, and the bar above it would stay when the bars are removed.

use std::io;

use console::Term;
use indicatif::TermLike;

/// Columns for the echo of two Ctrl-C.
const ROOM: u16 = 5;

#[derive(Debug)]
pub(super) struct Narrow(Term);

impl Narrow {
    pub fn stderr() -> Self {
        Self(Term::buffered_stderr())
    }
}

impl TermLike for Narrow {
    fn width(&self) -> u16 {
        self.0.size().1.saturating_sub(ROOM).max(1)
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_left(n)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}
