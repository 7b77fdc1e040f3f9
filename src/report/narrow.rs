//! The terminal on stderr for progress bars, some columns narrower than it is.
//!
//! A terminal echoes Ctrl-C as `^C` where the cursor is: after the last bar. Bars fill their lines, so on a bar of the
//! full width the echo would begin another line, and the bar above it would stay when the bars are removed.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use console::Term;
use indicatif::TermLike;

/// Columns for the echo of two Ctrl-C.
const ROOM: u16 = 5;

#[derive(Debug)]
pub(super) struct Narrow {
    terminal: Term,
    /// Whether the last text ended a line.
    complete: AtomicBool,
}

impl Narrow {
    pub fn stderr() -> Self {
        Self {
            terminal: Term::buffered_stderr(),
            complete: AtomicBool::new(false),
        }
    }
}

impl TermLike for Narrow {
    fn width(&self) -> u16 {
        self.terminal.size().1.saturating_sub(ROOM).max(1)
    }

    fn height(&self) -> u16 {
        self.terminal.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.terminal.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.terminal.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.terminal.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.terminal.move_cursor_left(n)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.terminal.write_line(text)
    }

    /// indicatif fills each line with blanks up to the width, so that the next one begins below it. Here a line break does
    /// that, because the terminal is wider.
    fn write_str(&self, text: &str) -> io::Result<()> {
        if text.bytes().all(|byte| byte == b' ') {
            self.complete.store(true, Ordering::Relaxed);
            return Ok(());
        }
        if self.complete.swap(false, Ordering::Relaxed) {
            self.terminal.write_line("")?;
        }
        self.terminal.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.terminal.clear_line()
    }

    /// Ends a drawing.
    fn flush(&self) -> io::Result<()> {
        self.complete.store(false, Ordering::Relaxed);
        self.terminal.flush()
    }
}
