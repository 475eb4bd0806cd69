use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::row::Amount;

/// A bar on standard error, drawn only on a terminal.
#[derive(Debug, Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar on standard error; nothing when that is not a terminal.
    pub fn stderr() -> Self {
        Self(ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()))
    }

    /// No bar.
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    pub(crate) fn begin(&self, amount: Amount) {
        let (total, shape) = match amount {
            Amount::Bytes(total) => (total, "{bar:40} {bytes}/{total_bytes}, {elapsed} elapsed, {eta} to go"),
            Amount::Rows(total) => (total, "{bar:40} {human_pos}/{human_len} rows, {elapsed} elapsed, {eta} to go"),
        };
        if let Ok(style) = ProgressStyle::with_template(shape) {
            self.0.set_style(style);
        }
        self.0.set_length(total);
        self.0.set_position(0);
    }

    pub(crate) fn advance(&self, by: u64) {
        self.0.inc(by);
    }

    #[cfg(feature = "spark")]
    pub(crate) fn reach(&self, position: u64) {
        self.0.set_position(position);
    }

    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}
