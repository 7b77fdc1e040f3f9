//! Waiting for others with one deadline for all of it, and lines that say for what.

use std::time::{Duration, Instant};

use super::{AgentError, say};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// Between two lines about the same thing.
const SILENCE: Duration = Duration::from_secs(10);

pub struct Waiting {
    begun: Instant,
    patience: Duration,
}

impl Waiting {
    pub fn new(patience: Duration) -> Self {
        Self {
            begun: Instant::now(),
            patience,
        }
    }

    /// Tries until it succeeds or the time is up; `what` is the complaint then, with the last reason.
    pub fn until<T>(
        &mut self,
        what: &'static str,
        mut attempt: impl FnMut() -> Result<T, String>,
    ) -> Result<T, AgentError> {
        let mut told: Option<Instant> = None;
        loop {
            let reason = match attempt() {
                Ok(value) => return Ok(value),
                Err(reason) => reason,
            };
            let elapsed = self.begun.elapsed();
            let seconds = self.patience.as_secs();
            if elapsed >= self.patience {
                return Err(AgentError::Deadline { what, seconds, reason });
            }
            if told.is_none_or(|last| last.elapsed() >= SILENCE) {
                say(&format!("waiting ({} s of {seconds} s): {reason}", elapsed.as_secs()));
                told = Some(Instant::now());
            }
            std::thread::sleep(PAUSE.min(self.patience - elapsed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_deadline_is_for_everything() {
        let mut waiting = Waiting::new(Duration::from_millis(500));
        let mut tries = 0;
        let mut third = || {
            tries += 1;
            if tries == 3 {
                Ok(tries)
            } else {
                Err("not yet".to_string())
            }
        };
        assert_eq!(waiting.until("nothing", &mut third).unwrap(), 3);
        let begin = Instant::now();
        let error = waiting
            .until("FRR does not answer", || Err::<(), _>("nobody there".into()))
            .unwrap_err();
        assert_eq!(error.to_string(), "FRR does not answer after 0 s: nobody there");
        assert!(
            begin.elapsed() < Duration::from_millis(400),
            "what the first wait took is gone"
        );
    }
}
