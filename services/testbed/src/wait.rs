//! Waits until a part is ready, for a limited time, and tells why it is not.

use std::{
    fmt::Display,
    path::Path,
    time::{Duration, Instant},
};

use tokio::time;

use crate::{
    Progress, TestbedError,
    process::{Process, tail},
};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(200);

/// Something that a started part is to become.
pub(crate) struct Wait<'a> {
    pub(crate) part: &'a (dyn Display + Sync),
    pub(crate) process: Process,
    pub(crate) log: &'a Path,
    /// What it is to become, for messages.
    pub(crate) what: &'a str,
    pub(crate) limit: Duration,
    pub(crate) progress: &'a dyn Progress,
}

impl Wait<'_> {
    /// Asks until the answer is yes, the part ends or the limit is reached.
    pub(crate) async fn until(&self, mut ready: impl AsyncFnMut() -> bool) -> Result<Duration, TestbedError> {
        let start = Instant::now();
        let what = format!("{}: {}", self.part, self.what);
        loop {
            self.progress.waiting(&what, start.elapsed());
            if ready().await {
                return Ok(start.elapsed());
            }
            if !self.process.alive() {
                return Err(TestbedError::Died {
                    part: self.part.to_string(),
                    log: self.log.to_owned(),
                    tail: tail(self.log),
                });
            }
            if start.elapsed() > self.limit {
                return Err(TestbedError::NotReady {
                    part: self.part.to_string(),
                    what: self.what.to_owned(),
                    limit: self.limit,
                    log: self.log.to_owned(),
                    tail: tail(self.log),
                });
            }
            time::sleep(PAUSE).await;
        }
    }
}
