//! Who serves whom, as far as it can be said without asking anybody.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How often each process looks at who serves whom.
pub const LOOK: Duration = Duration::from_secs(2);
/// For how long what was seen holds, unless looking fails: whoever takes over waits for this.
pub const LAPSE: Duration = Duration::from_secs(10);
/// By how much clocks of two regions may differ, in milliseconds; a change that is older than this and a lapse was
/// seen by everybody who can look.
pub(super) const APART_MS: u64 = 60_000;

/// Which region serves the homes of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The region that serves.
    pub by: String,
    /// How often that was decided; never decided is 0.
    pub epoch: u64,
    /// When it was decided last, in milliseconds since the Unix epoch; 0 when never.
    pub since_ms: u64,
}

/// Where the writes of a home are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// In this region.
    Here,
    /// In this region, once those who served it before know.
    Soon(Duration),
    /// In another.
    To(String),
}

/// What one process has seen of who serves whom.
#[derive(Debug, Clone)]
pub struct Rules {
    here: String,
    lapse: Duration,
    served: BTreeMap<String, Served>,
    /// Since when each decision is known here, by region.
    known: BTreeMap<String, (u64, Instant)>,
    /// When the look began that saw it.
    pub(super) looked: Instant,
}

impl Rules {
    /// What is known before a look that begins now.
    pub fn new(here: &str, lapse: Duration, looked: Instant) -> Self {
        Self { here: here.to_owned(), lapse, served: BTreeMap::new(), known: BTreeMap::new(), looked }
    }

    /// Takes up what a look from `looked` to `now` saw. Decisions are never taken back, so the later one holds.
    pub fn see(&mut self, served: BTreeMap<String, Served>, looked: Instant, now: Instant) {
        for (region, seen) in served {
            let newer = self.served.get(&region).is_none_or(|known| known.epoch < seen.epoch);
            if newer {
                self.known.insert(region.clone(), (seen.epoch, now));
                self.served.insert(region, seen);
            }
        }
        self.looked = self.looked.max(looked);
    }

    /// For how long what was seen holds.
    pub const fn lapse(&self) -> Duration {
        self.lapse
    }

    /// Until when what was seen may be acted on.
    pub fn until(&self) -> Instant {
        self.looked + self.lapse
    }

    /// Whether what was seen is too old to act on.
    pub fn is_lapsed(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.looked) >= self.lapse
    }

    /// Which region serves the homes of one: itself, unless that was decided otherwise.
    pub fn served(&self, region: &str) -> Served {
        let own = || Served { by: region.to_owned(), epoch: 0, since_ms: 0 };
        self.served.get(region).cloned().unwrap_or_else(own)
    }

    /// Where the writes of a home are made.
    pub fn way(&self, home: &str, now: Instant, wall_ms: u64) -> Way {
        let Some(served) = self.served.get(home) else {
            return if home == self.here { Way::Here } else { Way::To(home.to_owned()) };
        };
        if served.by != self.here {
            return Way::To(served.by.clone());
        }
        let lapse_ms = u64::try_from(self.lapse.as_millis()).unwrap_or(u64::MAX);
        if wall_ms > served.since_ms.saturating_add(lapse_ms).saturating_add(APART_MS) {
            return Way::Here;
        }
        let known = self.known.get(home).map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(*since));
        match self.lapse.checked_sub(known) {
            Some(left) if !left.is_zero() => Way::Soon(left),
            _ => Way::Here,
        }
    }

    /// The regions whose events are given out here: the own one unless another serves it, and those that are served
    /// here.
    pub fn relayed(&self) -> Vec<String> {
        let others = self.served.iter().filter(|(region, served)| served.by == self.here && **region != self.here);
        let own = self.served(&self.here).by == self.here;
        own.then(|| self.here.clone()).into_iter().chain(others.map(|(region, _)| region.clone())).collect()
    }

    /// The regions of which a decision is known.
    pub fn decided(&self) -> impl Iterator<Item = &String> {
        self.served.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: u64 = 1_700_000_000_000;

    fn served(by: &str, epoch: u64, since_ms: u64) -> Served {
        Served { by: by.into(), epoch, since_ms }
    }

    fn only(region: &str, by: Served) -> BTreeMap<String, Served> {
        BTreeMap::from([(region.to_owned(), by)])
    }

    #[test]
    fn a_region_serves_its_own_until_another_is_told_to() {
        let now = Instant::now();
        let mut rules = Rules::new("eu", LAPSE, now);
        assert_eq!(rules.way("eu", now, WALL), Way::Here);
        assert_eq!(rules.way("us", now, WALL), Way::To("us".into()));
        assert_eq!(rules.relayed(), ["eu"]);
        rules.see(only("eu", served("ap", 1, WALL)), now, now);
        assert_eq!(rules.way("eu", now, WALL), Way::To("ap".into()), "at once");
        assert!(rules.relayed().is_empty());
        // An answer of an earlier look comes late.
        rules.see(BTreeMap::new(), now, now);
        assert_eq!(rules.way("eu", now, WALL), Way::To("ap".into()));
    }

    #[test]
    fn whoever_takes_over_waits_until_those_before_have_looked_again() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let mut rules = Rules::new("eu", LAPSE, began);
        let seen = began + second * 5;
        rules.see(only("us", served("eu", 1, WALL)), began + second * 4, seen);
        assert_eq!(rules.way("us", seen, WALL), Way::Soon(LAPSE));
        assert_eq!(rules.way("us", seen + second * 9, WALL + 9_000), Way::Soon(second));
        // Seen again, it is the same decision.
        rules.see(only("us", served("eu", 1, WALL)), seen + second * 9, seen + second * 9);
        assert_eq!(rules.way("us", seen + LAPSE, WALL + 10_000), Way::Here);
        assert_eq!(rules.relayed(), ["eu", "us"]);
        // The next decision is another.
        let back = seen + LAPSE;
        rules.see(only("us", served("us", 2, WALL + 10_000)), back, back);
        assert_eq!(rules.way("us", back, WALL + 10_000), Way::To("us".into()));
        rules.see(only("us", served("eu", 3, WALL + 11_000)), back + second, back + second);
        assert_eq!(rules.way("us", back + second, WALL + 11_000), Way::Soon(LAPSE));
    }

    #[test]
    fn a_process_that_starts_long_after_a_decision_does_not_wait() {
        let now = Instant::now();
        let mut rules = Rules::new("eu", LAPSE, now);
        rules.see(only("us", served("eu", 1, WALL)), now, now);
        assert_eq!(rules.way("us", now, WALL + 70_001), Way::Here);
        assert_eq!(rules.way("us", now, WALL + 70_000), Way::Soon(LAPSE), "clocks may be apart by a minute");
        assert_eq!(rules.way("us", now, WALL - 60_000), Way::Soon(LAPSE));
    }

    #[test]
    fn what_was_seen_lapses_from_the_begin_of_the_look() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let mut rules = Rules::new("eu", LAPSE, began);
        rules.see(BTreeMap::new(), began + second, began + second * 9);
        assert!(!rules.is_lapsed(began + second * 10));
        assert!(rules.is_lapsed(began + second * 11));
    }
}
