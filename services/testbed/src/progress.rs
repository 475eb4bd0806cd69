//! What is told while something takes long.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time;

/// Between two words about the same thing.
const PAUSE: Duration = Duration::from_millis(200);

/// Whoever wants to know how far a testbed is.
pub trait Progress: Send + Sync {
    /// Something is done.
    fn done(&self, what: &str, took: Duration);
    /// Something is waited for since this long. Called several times a second.
    fn waiting(&self, what: &str, since: Duration);
    /// Nothing is waited for any more.
    fn end(&self);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn done(&self, _: &str, _: Duration) {}
    fn waiting(&self, _: &str, _: Duration) {}
    fn end(&self) {}
}

/// Lines on standard error, and below them on a terminal what is waited for.
#[derive(Debug, Clone)]
pub struct Terminal(ProgressBar);

impl Terminal {
    /// On standard error.
    pub fn stderr() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }
}

impl Progress for Terminal {
    fn done(&self, what: &str, took: Duration) {
        let line = format!("{what} ({:.1} s)", took.as_secs_f64());
        if self.0.is_hidden() {
            eprintln!("{line}");
        } else {
            self.0.println(line);
        }
    }

    fn waiting(&self, what: &str, since: Duration) {
        self.0.set_message(format!("{what}, {} s", since.as_secs()));
        self.0.tick();
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// Tells what is waited for until it is done.
pub(crate) async fn telling<T>(progress: &dyn Progress, what: &str, work: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let mut work = pin!(work);
    loop {
        progress.waiting(what, start.elapsed());
        if let Ok(done) = time::timeout(PAUSE, work.as_mut()).await {
            return done;
        }
    }
}
