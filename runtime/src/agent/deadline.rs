//! Waits for conditions with one common deadline, and logs the reason while it waits.

use std::time::{Duration, Instant};

use super::{AgentError, log};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// Between two log lines about one condition.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

pub struct Deadline {
    begun: Instant,
    timeout: Duration,
}

impl Deadline {
    pub fn new(timeout: Duration) -> Self {
        Self {
            begun: Instant::now(),
            timeout,
        }
    }

    pub fn end(&self) -> Instant {
        self.begun + self.timeout
    }

    /// Repeats `attempt` until it succeeds. At the deadline the error is `what` with the reason of the last attempt.
    pub fn wait_until<T>(
        &mut self,
        what: &'static str,
        mut attempt: impl FnMut() -> Result<T, String>,
    ) -> Result<T, AgentError> {
        let mut logged: Option<Instant> = None;
        loop {
            let reason = match attempt() {
                Ok(value) => return Ok(value),
                Err(reason) => reason,
            };
            let elapsed = self.begun.elapsed();
            let seconds = self.timeout.as_secs();
            if elapsed >= self.timeout {
                return Err(AgentError::Deadline { what, seconds, reason });
            }
            if logged.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
                log(&format!("waiting ({} s of {seconds} s): {reason}", elapsed.as_secs()));
                logged = Some(Instant::now());
            }
            std::thread::sleep(PAUSE.min(self.timeout - elapsed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_waits_share_one_deadline() {
        let mut deadline = Deadline::new(Duration::from_millis(500));
        let mut tries = 0;
        let mut third = || {
            tries += 1;
            if tries == 3 {
                Ok(tries)
            } else {
                Err("not yet".to_string())
            }
        };
        assert_eq!(deadline.wait_until("nothing", &mut third).unwrap(), 3);
        let begin = Instant::now();
        let error = deadline
            .wait_until("FRR does not answer", || Err::<(), _>("no answer".into()))
            .unwrap_err();
        assert_eq!(error.to_string(), "FRR does not answer after 0 s: no answer");
        assert!(
            begin.elapsed() < Duration::from_millis(400),
            "the first wait used up the time"
        );
    }
}
