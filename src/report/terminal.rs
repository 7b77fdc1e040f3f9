//! Prints progress on stderr: one bar per target on a terminal, plain lines elsewhere.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use console::style;
use indicatif::{
    HumanBytes, HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
    WeakProgressBar,
};
use jiff::Timestamp;

use super::narrow::Narrow;
use crate::config::ProgressMode;
use crate::progress::{Lines, Progress, SharedProgress};

/// Creates a [`Progress`] per target; all share the terminal.
#[derive(Clone)]
pub struct Terminal {
    mode: Mode,
    bars: MultiProgress,
    /// The bars that may be drawn.
    shown: Arc<Mutex<Vec<WeakProgressBar>>>,
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
        /// Drawings per second.
        const RATE: u8 = 20;
        let target = match mode {
            Mode::Bars => ProgressDrawTarget::term_like_with_hz(Box::new(Narrow::stderr()), RATE),
            Mode::Plain | Mode::Quiet => ProgressDrawTarget::hidden(),
        };
        Terminal {
            mode,
            bars: MultiProgress::with_draw_target(target),
            shown: Arc::default(),
        }
    }

    /// A new bar below the others.
    fn bar(&self, style: ProgressStyle, name: &str, tick: Duration) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.set_style(style);
        bar.set_prefix(name.to_string());
        bar.enable_steady_tick(tick);
        let mut shown = self.shown.lock().unwrap_or_else(|e| e.into_inner());
        shown.retain(|bar| bar.upgrade().is_some());
        shown.push(bar.downgrade());
        bar
    }

    /// A progress line under `name`, e.g. `debian_bookworm linux/arm64`.
    pub fn line(&self, name: &str) -> SharedProgress {
        let line = Line {
            name: name.to_string(),
            started: Instant::now(),
            last: Mutex::default(),
            seen: Mutex::default(),
            printed: AtomicU64::new(0),
            count: Mutex::default(),
        };
        match self.mode {
            Mode::Quiet => Arc::new(Quiet {
                line,
                terminal: self.clone(),
            }),
            Mode::Plain => Arc::new(Plain { line }),
            Mode::Bars => {
                let bar = self.bar(steps_style(), name, Duration::from_millis(120));
                Arc::new(Bar {
                    line,
                    bar,
                    terminal: self.clone(),
                })
            }
        }
    }

    /// A line with the seconds that are left; it disappears at the end.
    fn count_down(&self, name: &str, time: Duration) {
        let end = Instant::now() + time;
        let left = move |_: &ProgressState, text: &mut dyn std::fmt::Write| {
            let left = end.saturating_duration_since(Instant::now()).as_secs_f32().ceil();
            let _ = write!(text, "{left:.0}");
        };
        let style = ProgressStyle::with_template("{spinner} {prefix:.bold} waiting, {left} s left");
        let style = style.expect("the template is constant").with_key("left", left);
        let bar = self.bar(style, name, Duration::from_millis(200));
        std::thread::spawn(move || {
            std::thread::sleep(time);
            bar.finish_and_clear();
        });
    }

    /// Removes all bars for good: after an interruption no task is left to do it. A bar that is not finished could be
    /// drawn again by its own thread.
    pub fn close(&self) {
        let shown = std::mem::take(&mut *self.shown.lock().unwrap_or_else(|e| e.into_inner()));
        shown
            .iter()
            .filter_map(WeakProgressBar::upgrade)
            .for_each(|bar| bar.finish_and_clear());
        let _ = self.bars.clear();
        self.bars.set_draw_target(ProgressDrawTarget::hidden());
    }

    /// Prints a line above the bars, also with `--progress quiet`.
    pub fn say(&self, text: &str) {
        let columns = console::Term::stderr()
            .size_checked()
            .map(|(_, columns)| columns.into());
        let text = columns.map_or_else(|| text.to_string(), |columns| wrapped(text, columns));
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
    /// The current step.
    last: Mutex<String>,
    /// The printed steps: parallel steps take turns as the current one, and a log needs each step once.
    seen: Mutex<HashSet<String>>,
    /// The last printed byte count: a plain log gets a line per 64 MiB, not per chunk.
    printed: AtomicU64,
    /// Finished steps, and all steps.
    count: Mutex<(usize, usize)>,
}

impl Line {
    /// Sets the current step; returns it on one line, and whether it is new.
    fn enter(&self, step: &str) -> (String, bool) {
        let mut last = self.last.lock().unwrap_or_else(|e| e.into_inner());
        if *last != step {
            *last = step.to_string();
            self.printed.store(0, Ordering::Relaxed);
        }
        let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        (on_one_line(step), seen.insert(step.to_string()))
    }

    /// `3/14 [final 2/7] RUN install-python …`; mounts and PATH would take the room of the command.
    fn current(&self) -> String {
        let step = on_one_line(&self.last.lock().unwrap_or_else(|e| e.into_inner()));
        let words = step
            .split(' ')
            .filter(|word| !word.starts_with("--mount=") && !word.starts_with("PATH="));
        let step = words.collect::<Vec<_>>().join(" ");
        match *self.count.lock().unwrap_or_else(|e| e.into_inner()) {
            (_, 0) => step,
            (finished, all) => format!("{finished}/{all} {step}"),
        }
    }

    /// `2026-11-28T13:24:05Z    12.3s ubuntu_noble linux/amd64`: the time of day, and since the line began.
    fn head(&self) -> String {
        format!(
            "{:.0} {:>7.1}s {}",
            Timestamp::now(),
            self.started.elapsed().as_secs_f32(),
            self.name
        )
    }

    fn rate(&self, done: u64) -> u64 {
        (done as f64 / self.started.elapsed().as_secs_f64().max(0.001)) as u64
    }

    fn result(&self, text: &str) -> String {
        let elapsed = duration(self.started.elapsed().as_secs_f64());
        format!("{} {text} ({elapsed})", style(&self.name).bold())
    }
}

struct Plain {
    line: Line,
}

impl Progress for Plain {
    fn step(&self, text: &str) {
        if let (text, true) = self.line.enter(text) {
            eprintln!("{}: {text}", self.line.head());
        }
    }

    fn bytes(&self, done: u64, total: Option<u64>) {
        // Print one line per 64 MiB and the last, not one per chunk.
        const EVERY: u64 = 64 << 20;
        let printed = self.line.printed.load(Ordering::Relaxed);
        if done / EVERY > printed / EVERY || (total == Some(done) && printed != done) {
            self.line.printed.store(done, Ordering::Relaxed);
            eprintln!("{}: {}{}", self.line.head(), HumanBytes(done), of(done, total, " of "));
        }
    }

    fn log(&self, text: &str) {
        eprintln!("{}: | {text}", self.line.head());
    }

    fn note(&self, text: &str) {
        eprintln!("{}: {text}", self.line.head());
    }
}

struct Bar {
    line: Line,
    bar: ProgressBar,
    terminal: Terminal,
}

impl Progress for Bar {
    fn step(&self, text: &str) {
        self.line.enter(text);
        self.bar.set_message(self.line.current());
    }

    fn cached(&self, _: &str) {}

    fn count(&self, finished: usize, all: usize) {
        *self.line.count.lock().unwrap_or_else(|e| e.into_inner()) = (finished, all);
        self.bar.set_message(self.line.current());
    }

    fn bytes(&self, done: u64, total: Option<u64>) {
        self.bar.set_message(format!(
            "{}{}  {}/s  {}",
            HumanBytes(done),
            of(done, total, " / "),
            HumanBytes(self.line.rate(done)),
            self.line.current(),
        ));
    }

    fn log(&self, _: &str) {}

    fn note(&self, text: &str) {
        self.terminal.say(&format!("{} {text}", style(&self.line.name).bold()));
    }

    fn wait(&self, what: &str, time: Duration) {
        self.note(what);
        self.terminal.count_down(&self.line.name, time);
    }

    fn finish(&self, result: &str) {
        self.bar.finish_and_clear();
        self.terminal.say(&self.line.result(result));
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

/// Breaks long lines between words. Indented lines are tables and commands, and `help:` may contain a command: a line
/// break would end it where it is pasted.
fn wrapped(text: &str, columns: usize) -> String {
    /// Narrower terminals break the words themselves.
    const NARROWEST: usize = 20;
    let options = textwrap::Options::new(columns.max(NARROWEST))
        .subsequent_indent("  ")
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    let lines = text
        .lines()
        .map(|line| match line.starts_with("  ") || line.starts_with("help: ") {
            true => line.to_string(),
            false => textwrap::fill(line, &options),
        });
    lines.collect::<Vec<_>>().join("\n")
}

/// A RUN can have several lines.
fn on_one_line(step: &str) -> String {
    step.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The total after `before`. An estimate that was exceeded is not shown.
fn of(done: u64, total: Option<u64>, before: &str) -> String {
    let total = total.filter(|total| *total >= done);
    total
        .map(|total| format!("{before}{}", HumanBytes(total)))
        .unwrap_or_default()
}

/// Formats a duration: `1 min 4 s`.
pub fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        HumanDuration(Duration::from_secs_f64(seconds)).to_string()
    }
}

/// The same for a column of a table: `12.3 s`, `7 min`.
pub fn compact(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{:.0} min", (seconds / 60.0).max(1.0))
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
    fn wait(&self, what: &str, time: Duration) {
        let seconds = time.as_secs_f32().ceil();
        match self.0.mode {
            Mode::Bars => {
                self.note(what);
                self.0.count_down("", time);
            }
            Mode::Plain | Mode::Quiet => self.note(&format!("{what} in {seconds:.0} s")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            name: "noble linux/amd64".into(),
            started: Instant::now(),
            last: Mutex::default(),
            seen: Mutex::default(),
            printed: AtomicU64::new(0),
            count: Mutex::default(),
        }
    }

    #[test]
    fn a_plain_line_has_the_time_of_day_and_the_whole_command() {
        let line = line();
        let head = line.head();
        let (time, rest) = head.split_once(' ').unwrap();
        assert!(
            time.parse::<Timestamp>().is_ok() && time.len() == "2026-11-28T13:24:05Z".len(),
            "{head}"
        );
        assert!(rest.trim_start().starts_with("0.0s noble linux/amd64"), "{head}");
        let command = format!("RUN --mount=type=bind {}\n  end", "word ".repeat(100));
        let (text, new) = line.enter(&command);
        assert!(
            new && text.starts_with("RUN --mount=type=bind word") && text.ends_with("word end"),
            "{text}"
        );
        assert!(!line.enter(&command).1);
    }

    #[test]
    fn long_lines_break_between_words_and_commands_stay_whole() {
        let path = "/a".repeat(30);
        let text = format!(
            "warning: the tag in {path} has linux/arm64\nhelp: obgp-build --platform linux/amd64\n  cosign verify --key cosign.pub x"
        );
        assert_eq!(
            wrapped(&text, 30),
            format!(
                "warning: the tag in\n  {path}\n  has linux/arm64\nhelp: obgp-build --platform linux/amd64\n  cosign verify --key \
                 cosign.pub x"
            )
        );
        let bold = style("noble linux/amd64").bold().force_styling(true).to_string();
        assert_eq!(wrapped(&format!("{bold} has 12"), 24), format!("{bold} has 12"));
    }

    #[test]
    fn a_live_line_has_the_number_of_the_step_and_no_more_than_the_total() {
        let line = line();
        line.enter("[final 2/7] RUN --mount=type=bind PATH=/a:/b install");
        *line.count.lock().unwrap() = (3, 14);
        assert_eq!(line.current(), "3/14 [final 2/7] RUN install");
        assert_eq!(
            (of(1, Some(1024), " / "), of(2048, Some(1024), " / ")),
            (" / 1.00 KiB".into(), String::new())
        );
    }
}
