//! Prints progress on stderr: one bar per target on a terminal, plain lines elsewhere.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use console::style;
use indicatif::{HumanBytes, HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

use crate::config::ProgressMode;
use crate::progress::{Lines, Progress, SharedProgress};

/// Creates a [`Progress`] per target; all share the terminal.
#[derive(Clone)]
pub struct Terminal {
    mode: Mode,
    bars: MultiProgress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Bars,
    Plain,
    Quiet,
}

impl Terminal {
    pub fn new(mode: ProgressMode) -> Self {
        let mode = match mode {
            ProgressMode::Auto if std::io::stderr().is_terminal() => Mode::Bars,
            ProgressMode::Auto | ProgressMode::Plain => Mode::Plain,
            ProgressMode::Quiet => Mode::Quiet,
        };
        Terminal {
            mode,
            bars: MultiProgress::new(),
        }
    }

    /// A progress line under `name`, e.g. `debian_bookworm linux/arm64`.
    pub fn line(&self, name: &str) -> SharedProgress {
        let line = Line {
            name: name.to_string(),
            started: Instant::now(),
            last: Mutex::default(),
            seen: Mutex::default(),
            printed: AtomicU64::new(0),
        };
        match self.mode {
            Mode::Quiet => Arc::new(Quiet {
                line,
                terminal: self.clone(),
            }),
            Mode::Plain => Arc::new(Plain { line }),
            Mode::Bars => {
                let bar = self.bars.add(ProgressBar::new_spinner());
                bar.set_style(steps_style());
                bar.set_prefix(name.to_string());
                bar.enable_steady_tick(Duration::from_millis(120));
                Arc::new(Bar {
                    line,
                    bar,
                    terminal: self.clone(),
                })
            }
        }
    }

    /// Prints a line above the bars, also with `--progress quiet`.
    pub fn say(&self, text: &str) {
        self.bars.suspend(|| eprintln!("{text}"));
    }

    /// Prints a line above the bars, except with `--progress quiet`.
    pub fn tell(&self, text: &str) {
        if self.mode != Mode::Quiet {
            self.say(text);
        }
    }
}

impl Lines for Terminal {
    fn line(&self, name: &str) -> SharedProgress {
        Terminal::line(self, name)
    }
}

fn steps_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix:.bold} {elapsed:>4} {wide_msg}").expect("the template is constant")
}

struct Line {
    name: String,
    started: Instant,
    /// The last printed step.
    last: Mutex<String>,
    /// The printed steps: parallel steps take turns as the current one, and a log needs each step once.
    seen: Mutex<HashSet<String>>,
    /// The last printed byte count: a plain log gets a line per 64 MiB, not per chunk.
    printed: AtomicU64,
}

impl Line {
    /// Sets the current step; returns it shortened, and whether it is new.
    fn enter(&self, step: &str) -> (String, bool) {
        let mut last = self.last.lock().unwrap_or_else(|e| e.into_inner());
        if *last != step {
            *last = step.to_string();
            self.printed.store(0, Ordering::Relaxed);
        }
        let first = self
            .seen
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .insert(step.to_string());
        (shorten(step), first)
    }

    fn seconds(&self) -> String {
        format!("{:>6.1}s", self.started.elapsed().as_secs_f32())
    }

    fn rate(&self, done: u64) -> u64 {
        (done as f64 / self.started.elapsed().as_secs_f64().max(0.001)) as u64
    }
}

struct Plain {
    line: Line,
}

impl Progress for Plain {
    fn step(&self, text: &str) {
        if let (text, true) = self.line.enter(text) {
            eprintln!("{} {}: {text}", self.line.seconds(), self.line.name);
        }
    }

    fn bytes(&self, done: u64, total: Option<u64>) {
        // Print one line per 64 MiB and the last, not one per chunk.
        const EVERY: u64 = 64 << 20;
        let printed = self.line.printed.load(Ordering::Relaxed);
        if done / EVERY > printed / EVERY || (total == Some(done) && printed != done) {
            self.line.printed.store(done, Ordering::Relaxed);
            let of = total.map(|t| format!(" of {}", HumanBytes(t))).unwrap_or_default();
            eprintln!("{} {}: {}{of}", self.line.seconds(), self.line.name, HumanBytes(done));
        }
    }

    fn log(&self, text: &str) {
        eprintln!("{} {}: | {text}", self.line.seconds(), self.line.name);
    }

    fn note(&self, text: &str) {
        eprintln!("{} {}: {text}", self.line.seconds(), self.line.name);
    }
}

struct Bar {
    line: Line,
    bar: ProgressBar,
    terminal: Terminal,
}

impl Progress for Bar {
    fn step(&self, text: &str) {
        self.bar.set_message(self.line.enter(text).0);
    }

    fn bytes(&self, done: u64, total: Option<u64>) {
        let step = shorten(&self.line.last.lock().unwrap_or_else(|e| e.into_inner()));
        let of = total.map(|t| format!(" / {}", HumanBytes(t))).unwrap_or_default();
        self.bar.set_message(format!(
            "{step}  {}{of}  {}/s",
            HumanBytes(done),
            HumanBytes(self.line.rate(done))
        ));
    }

    fn log(&self, _: &str) {}

    fn note(&self, text: &str) {
        self.terminal.say(&format!("{} {text}", style(&self.line.name).bold()));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

struct Quiet {
    line: Line,
    terminal: Terminal,
}

impl Progress for Quiet {
    fn step(&self, _: &str) {}
    fn bytes(&self, _: u64, _: Option<u64>) {}
    fn log(&self, _: &str) {}
    fn note(&self, text: &str) {
        self.terminal.say(&format!("{}: {text}", self.line.name));
    }
}

/// Shortens a step to one line: a RUN can be a page long.
fn shorten(step: &str) -> String {
    const MOST: usize = 110;
    let words = step.split_whitespace().filter(|word| !word.starts_with("--mount="));
    let line = words.collect::<Vec<_>>().join(" ");
    console::truncate_str(&line, MOST, "…").into_owned()
}

/// Formats a duration: `1 min 4 s`.
pub fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        HumanDuration(Duration::from_secs_f64(seconds)).to_string()
    }
}

/// Prints notes only, and has no line of its own.
pub struct Notes(pub Terminal);

impl Progress for Notes {
    fn step(&self, _: &str) {}
    fn bytes(&self, _: u64, _: Option<u64>) {}
    fn log(&self, _: &str) {}
    fn note(&self, text: &str) {
        self.0.say(text);
    }
}
