//! How often one may call: the generic cell rate algorithm (ITU-T I.371, appendix I), which needs one number for each
//! who is counted. Whoever has been silent for as long as a full burst takes is forgotten; that changes nothing.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use moka::sync::Cache;

use super::config::{Rate, RatesConfig};
use crate::caller::{Digest, digest};

/// Callers, and callers with tools, that are counted at once; beyond them who calls least begins anew.
const COUNTED: u64 = 200_000;

/// How often callers may call.
pub(super) struct Rates {
    caller: Option<Cells>,
    caller_and_tool: Option<Cells>,
    tools: HashMap<(String, String), Cells>,
    begun: Instant,
}

/// Those who are counted by one rate.
struct Cells {
    /// Between two calls, in nanoseconds.
    each: u64,
    /// How far a burst may be ahead of its time.
    ahead: u64,
    /// When the next call would be due if all came evenly.
    due: Cache<Digest, Arc<AtomicU64>>,
}

impl Cells {
    fn new(rate: Rate) -> Self {
        let whole = |time: u128| u64::try_from(time).unwrap_or(u64::MAX);
        let each = whole(rate.per.0.as_nanos() / u128::from(rate.calls)).max(1);
        let ahead = each.saturating_mul(u64::from(rate.burst) - 1);
        let idle = Duration::from_nanos(ahead.saturating_add(each)).max(Duration::from_secs(1));
        Self { each, ahead, due: Cache::builder().max_capacity(COUNTED).time_to_idle(idle).build() }
    }

    /// Takes a call at `now`, or says in how many nanoseconds one can be taken.
    fn take(&self, who: Digest, now: u64) -> Result<(), u64> {
        let due = self.due.get_with(who, Arc::default);
        let next = |due: u64| (due <= now.saturating_add(self.ahead)).then(|| due.max(now).saturating_add(self.each));
        match due.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) {
            Ok(_) => Ok(()),
            Err(due) => Err(due.saturating_sub(now.saturating_add(self.ahead))),
        }
    }
}

impl Rates {
    pub(super) fn new(config: &RatesConfig) -> Self {
        let tools = config.tools.iter().map(|one| ((one.server.clone(), one.tool.clone()), Cells::new(one.rate)));
        Self {
            caller: config.caller.map(Cells::new),
            caller_and_tool: config.caller_and_tool.map(Cells::new),
            tools: tools.collect(),
            begun: Instant::now(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes a request of a caller that is about nothing single, or says how long to wait.
    pub(super) fn take(&self, owner: Digest) -> Result<(), Duration> {
        let Some(cells) = &self.caller else { return Ok(()) };
        cells.take(owner, self.now()).map_err(Duration::from_nanos)
    }

    /// Takes a call of something of a server, or says how long to wait.
    pub(super) fn take_call(&self, owner: Digest, server: &str, kind: &str, name: &str) -> Result<(), Duration> {
        self.take(owner)?;
        let own = (!self.tools.is_empty() && kind == "tool").then(|| (server.to_owned(), name.to_owned()));
        let cells = own.and_then(|key| self.tools.get(&key)).or(self.caller_and_tool.as_ref());
        let Some(cells) = cells else { return Ok(()) };
        let who = digest(&[&owner, server.as_bytes(), kind.as_bytes(), name.as_bytes()]);
        cells.take(who, self.now()).map_err(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use echotune_kit::config::Period;
    use proptest::prelude::*;

    use super::*;
    use crate::access::config::ToolRate;

    const SECOND: u64 = 1_000_000_000;

    fn rate(calls: u32, per: Duration, burst: u32) -> Rate {
        Rate { calls, per: Period(per), burst }
    }

    /// Cells that forget nobody: the time that the test tells is not that by which those are forgotten who are silent.
    fn cells(calls: u32, burst: u32) -> Cells {
        Cells { due: Cache::new(COUNTED), ..Cells::new(rate(calls, Duration::from_secs(1), burst)) }
    }

    #[test]
    fn a_burst_is_taken_and_then_one_each_time() {
        let cells = cells(10, 3);
        let taken = |now| cells.take([1; 16], now).is_ok();
        assert_eq!((0..10).filter(|_| taken(SECOND)).count(), 3);
        assert_eq!(cells.take([1; 16], SECOND), Err(SECOND / 10));
        assert!(!taken(SECOND + SECOND / 10 - 1));
        assert!(taken(SECOND + SECOND / 10));
        assert_eq!(
            (0..10).filter(|_| taken(SECOND * 9)).count(),
            3,
            "no more than a burst however long one was silent"
        );
        assert!(cells.take([2; 16], SECOND).is_ok(), "another is not counted with it");
    }

    #[test]
    fn a_tool_of_its_own_rate_is_counted_by_that() {
        let hour = Duration::from_secs(3_600);
        let one = |tool: &str, rate| ToolRate { server: "mail".to_owned(), tool: tool.to_owned(), rate };
        let rates = Rates::new(&RatesConfig {
            caller: Some(rate(1, hour, 5)),
            caller_and_tool: Some(rate(1, hour, 2)),
            tools: vec![one("send", rate(1, hour, 1))],
        });
        let take = |tool: &str| rates.take_call([1; 16], "mail", "tool", tool).is_ok();
        assert_eq!([take("send"), take("send"), take("read"), take("read")], [true, false, true, true]);
        assert_eq!([take("read"), take("list")], [false, false], "the caller has none left at all");
        assert!(rates.take([1; 16]).expect_err("none left") > hour / 2);
        assert!(rates.take([2; 16]).is_ok());
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_a_burst(
            calls in 1..50_u32, burst in 1..20_u32, gaps in proptest::collection::vec(0..SECOND / 5, 1..200),
        ) {
            let cells = cells(calls, burst);
            let (mut now, mut taken) = (0, 0_u64);
            for gap in gaps {
                now += gap;
                taken += u64::from(cells.take([0; 16], now).is_ok());
                let most = u64::from(burst) + now / cells.each;
                prop_assert!(taken <= most, "{taken} of {most} by {now}");
            }
        }
    }
}
