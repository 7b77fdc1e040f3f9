//! Converts BuildKit's status stream into [`Progress`], and records what is needed to explain a failure.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog, VertexStatus};

use crate::progress::Progress;

/// Last output lines of a step that are kept for the error message.
const KEPT_LINES: usize = 40;

/// Longer lines are cut: a step may print megabytes without a line break.
const LINE_LIMIT: usize = 4096;

/// The name of the step that reads a cache, before the cache's reference. BuildKit goes on if it fails.
const CACHE_IMPORT: &str = "importing cache manifest from ";

/// The state of one solve. Steps are BuildKit's vertices, identified by digest.
pub(super) struct Tracker<'p> {
    progress: &'p dyn Progress,
    steps: HashMap<String, Step>,
    /// Digests of the running steps, the latest last.
    running: Vec<String>,
}

#[derive(Default)]
pub(super) struct Step {
    pub name: String,
    cached: bool,
    completed: bool,
    pub error: String,
    pub log: VecDeque<String>,
    /// Output after the last line break.
    partial: Vec<u8>,
    /// Done and total bytes per transfer: a layer, the context.
    transfers: BTreeMap<String, (u64, u64)>,
}

impl<'p> Tracker<'p> {
    pub fn new(progress: &'p dyn Progress) -> Self {
        Self {
            progress,
            steps: HashMap::new(),
            running: Vec::new(),
        }
    }

    pub fn update(&mut self, update: StatusResponse) {
        for vertex in update.vertexes {
            self.vertex(vertex);
        }
        for transfer in update.statuses {
            self.transfer(transfer);
        }
        for log in update.logs {
            self.log(log);
        }
        for warning in update.warnings {
            let text = String::from_utf8_lossy(&warning.short);
            tracing::debug!(warning = %text.trim(), "BuildKit's linter");
        }
    }

    fn vertex(&mut self, vertex: Vertex) {
        let step = self.steps.entry(vertex.digest.clone()).or_default();
        step.name = vertex.name;
        step.error = vertex.error;
        let ends = vertex.completed.is_some() && !step.completed;
        step.completed |= ends;
        let newly_cached = vertex.cached && !step.cached;
        step.cached |= vertex.cached;
        let runs = vertex.started.is_some() && !step.completed;

        if newly_cached {
            self.progress.cached(&step.name);
        } else if runs && !self.running.contains(&vertex.digest) {
            self.progress.step(&step.name);
            self.running.push(vertex.digest.clone());
        }
        if ends && !step.error.is_empty() && step.name.starts_with(CACHE_IMPORT) {
            let cache = step.name.strip_prefix(CACHE_IMPORT).unwrap_or_default();
            self.progress
                .note(&format!("warning: the cache {cache} is not used: {}", step.error));
        }
        if ends {
            if !step.partial.is_empty() {
                let rest = std::mem::take(&mut step.partial);
                step.keep_line(&rest, self.progress);
            }
            let was_last = self.running.last() == Some(&vertex.digest);
            self.running.retain(|digest| *digest != vertex.digest);
            if was_last && let Some(step) = self.running.last().and_then(|digest| self.steps.get(digest)) {
                self.progress.step(&step.name);
            }
            let (finished, all) = self.finished();
            self.progress.count(finished, all);
        }
    }

    fn transfer(&mut self, status: VertexStatus) {
        let Some(step) = self.steps.get_mut(&status.vertex) else {
            return;
        };
        let bytes = |n: i64| u64::try_from(n).unwrap_or(0);
        let (done, total) = (bytes(status.current), bytes(status.total));
        if (done, total) == (0, 0) {
            return;
        }
        step.transfers.insert(status.id, (done, total));
        let (done, total) = step
            .transfers
            .values()
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        // The line shows one step: the bytes of another one would be taken for its own.
        if self.running.last() == Some(&status.vertex) {
            self.progress.bytes(done, Some(total).filter(|total| *total >= done));
        }
    }

    fn log(&mut self, log: VertexLog) {
        let step = self.steps.entry(log.vertex).or_default();
        step.partial.extend_from_slice(&log.msg);
        while let Some(end) = step.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = step.partial.drain(..=end).collect();
            step.keep_line(&line[..end], self.progress);
        }
        if step.partial.len() > LINE_LIMIT {
            let line = std::mem::take(&mut step.partial);
            step.keep_line(&line, self.progress);
        }
    }

    /// The step that caused the failure. Steps that were cancelled because of it have errors too.
    pub fn failed(&self) -> Option<&Step> {
        let by_itself = |step: &&Step| !step.error.is_empty() && !step.error.to_lowercase().contains("context cancel");
        self.steps.values().find(by_itself)
    }

    pub fn by_digest(&self, digest: &str) -> Option<&Step> {
        self.steps.get(digest)
    }

    /// The number of finished steps and of all known steps, without BuildKit's internal steps.
    fn finished(&self) -> (usize, usize) {
        (self.own().filter(|step| step.completed).count(), self.own().count())
    }

    fn own(&self) -> impl Iterator<Item = &Step> {
        let own = |step: &&Step| step.name.starts_with('[') && !step.name.starts_with("[internal]");
        self.steps.values().filter(own)
    }

    /// The number of cached steps and of all steps, without BuildKit's internal steps.
    pub fn counts(&self) -> (usize, usize) {
        (self.own().filter(|step| step.cached).count(), self.own().count())
    }
}

impl Step {
    fn keep_line(&mut self, line: &[u8], progress: &dyn Progress) {
        // For a progress bar that redraws its line, keep what a terminal would show last.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let shown = line.rsplit(|byte| *byte == b'\r').next().unwrap_or(line);
        let text = String::from_utf8_lossy(&shown[..shown.len().min(LINE_LIMIT)]);
        // A build's output must not control the terminal.
        let text: String = console::strip_ansi_codes(&text)
            .chars()
            .filter(|c| !c.is_control() || *c == '\t')
            .collect();
        progress.log(&text);
        if self.log.len() == KEPT_LINES {
            self.log.pop_front();
        }
        self.log.push_back(text);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bollard_buildkit_proto::google::protobuf::Timestamp;

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Progress for Heard {
        fn step(&self, text: &str) {
            self.0.lock().unwrap().push(format!("step {text}"));
        }
        fn bytes(&self, done: u64, total: Option<u64>) {
            self.0.lock().unwrap().push(format!("bytes {done} {total:?}"));
        }
        fn log(&self, line: &str) {
            self.0.lock().unwrap().push(format!("log {line}"));
        }
        fn note(&self, text: &str) {
            self.0.lock().unwrap().push(format!("note {text}"));
        }
        fn cached(&self, step: &str) {
            self.0.lock().unwrap().push(format!("cached {step}"));
        }
        fn count(&self, finished: usize, all: usize) {
            self.0.lock().unwrap().push(format!("count {finished}/{all}"));
        }
    }

    fn vertex(digest: &str, started: bool, completed: bool) -> Vertex {
        let at = |yes: bool| yes.then(Timestamp::default);
        Vertex {
            digest: digest.into(),
            name: format!("[{digest}] RUN it"),
            started: at(started),
            completed: at(completed),
            ..Vertex::default()
        }
    }

    fn log(vertex: &str, text: &str) -> VertexLog {
        VertexLog {
            vertex: vertex.into(),
            msg: text.into(),
            ..VertexLog::default()
        }
    }

    #[test]
    fn steps_and_lines_are_told_once() {
        let heard = Heard::default();
        let mut tracker = Tracker::new(&heard);
        let update = |vertexes, logs| StatusResponse {
            vertexes,
            logs,
            ..StatusResponse::default()
        };
        tracker.update(update(
            vec![vertex("a", false, false), vertex("b", false, false)],
            vec![],
        ));
        tracker.update(update(vec![vertex("a", true, false)], vec![log("a", "one\ntw")]));
        tracker.update(update(
            vec![vertex("b", true, false)],
            vec![log("a", "o\r\n10%\r99%\nrest")],
        ));
        tracker.update(update(vec![vertex("b", true, true)], vec![]));
        tracker.update(update(vec![vertex("a", true, true)], vec![]));
        assert_eq!(
            *heard.0.lock().unwrap(),
            [
                "step [a] RUN it",
                "log one",
                "step [b] RUN it",
                "log two",
                "log 99%",
                "step [a] RUN it",
                "count 1/2",
                "log rest",
                "count 2/2"
            ]
        );
        assert_eq!(tracker.counts(), (0, 2));
    }

    #[test]
    fn a_cache_that_cannot_be_read_is_reported() {
        let heard = Heard::default();
        let mut tracker = Tracker::new(&heard);
        let mut vertex = vertex("c", true, true);
        vertex.name = "importing cache manifest from foo".into();
        vertex.error = "docker.io/library/foo: not found".into();
        tracker.vertex(vertex.clone());
        tracker.vertex(vertex);
        assert_eq!(
            *heard.0.lock().unwrap(),
            [
                "note warning: the cache foo is not used: docker.io/library/foo: not found",
                "count 0/0"
            ]
        );
    }

    #[test]
    fn a_cached_step_and_another_steps_bytes_do_not_replace_the_running_step() {
        let heard = Heard::default();
        let mut tracker = Tracker::new(&heard);
        tracker.vertex(vertex("a", true, false));
        tracker.vertex(vertex("b", true, false));
        let mut cached = vertex("c", true, true);
        cached.cached = true;
        tracker.vertex(cached);
        for (vertex, current, total) in [("a", 1, 9), ("b", 2, 9), ("b", 10, 9)] {
            tracker.transfer(VertexStatus {
                vertex: vertex.into(),
                current,
                total,
                ..VertexStatus::default()
            });
        }
        assert_eq!(
            *heard.0.lock().unwrap(),
            [
                "step [a] RUN it",
                "step [b] RUN it",
                "cached [c] RUN it",
                "count 1/3",
                "bytes 2 Some(9)",
                "bytes 10 None",
            ]
        );
    }

    #[test]
    fn escape_sequences_do_not_get_through() {
        let mut tracker = Tracker::new(&crate::progress::Silent);
        tracker.log(log("a", "\x1b[31mred\x1b[0m\tand \x07bell\x1b]0;title\x07\n"));
        assert_eq!(tracker.by_digest("a").unwrap().log, ["red\tand bell"]);
    }

    #[test]
    fn a_line_without_end_does_not_grow() {
        let heard = Heard::default();
        let mut tracker = Tracker::new(&heard);
        for _ in 0..100 {
            tracker.log(log("a", &"x".repeat(10_000)));
        }
        let step = tracker.by_digest("a").unwrap();
        assert!(step.partial.len() <= LINE_LIMIT && step.log.len() <= KEPT_LINES);
        assert!(step.log.iter().all(|line| line.len() <= LINE_LIMIT));
    }

    #[test]
    fn the_step_that_failed_is_not_one_that_was_stopped() {
        let mut tracker = Tracker::new(&crate::progress::Silent);
        for (digest, error) in [
            ("a", "context canceled"),
            ("b", "exit code: 3"),
            ("c", "failed: context canceled"),
        ] {
            let mut vertex = vertex(digest, true, true);
            vertex.error = error.into();
            tracker.vertex(vertex);
        }
        assert_eq!(tracker.failed().unwrap().name, "[b] RUN it");
    }
}
