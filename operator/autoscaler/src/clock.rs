//! How many calls come in each minute of the hour: what is called by clocks comes at the same minutes again.

use libm::{exp, sqrt};

use crate::number::{Short, seconds};

/// Minutes of an hour.
pub(crate) const MINUTES: usize = 60;
/// Periods that are told apart, in minutes: all divide the hour, so that one set of slots serves them.
pub(crate) const PERIODS: [usize; 8] = [2, 3, 5, 10, 15, 20, 30, 60];
/// A slot of which nothing is known.
const UNKNOWN: Short = Short(u16::MAX);
/// What the newest hour weighs against all before it.
const GAIN: f64 = 0.5;
/// Errors are means over about that many minutes.
const MEMORY: u32 = 90;
/// Minutes that a period must have been held against what came, and how often it must have recurred, before it counts.
const JUDGED: u32 = 10;
/// A period counts when its errors are below that part of those of the minute before.
const CLEAR: f32 = 0.5;

/// Calls of a minute are none when fewer than that are told, and so many come all the same before that is known.
const NONE: f64 = 0.5;
const STRAYS: f32 = 0.05;
/// Of calls by chance, roots of a count and of its mean differ by that, squared, on average.
const BY_CHANCE: f64 = 0.25;

/// Calls by minutes of the hour, and how well each period foretells them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Clock {
    pub(crate) slots: [Short; MINUTES],
    /// Minutes that were learned.
    pub(crate) learned: u32,
    /// The minute under way, counted since the origin, and its calls.
    pub(crate) minute: u64,
    pub(crate) calls: f64,
    /// Calls of the minute before.
    pub(crate) before: f64,
    /// Means of the squared differences of roots, told and come: told by the minute before, and by each period. Roots
    /// make calls by chance differ by as much however many there are (Anscombe, Biometrika 1948).
    pub(crate) errors: [f32; PERIODS.len() + 1],
    /// How far a minute is off the one before beyond chance, squared, in parts of it: a mean.
    pub(crate) jumps: f32,
    /// Calls of a minute for which the period that counts says none: a mean.
    pub(crate) strays: f32,
}

impl Default for Clock {
    fn default() -> Self {
        let errors = [0.0; PERIODS.len() + 1];
        Self {
            slots: [UNKNOWN; MINUTES],
            learned: 0,
            minute: 0,
            calls: 0.0,
            before: 0.0,
            errors,
            jumps: 0.0,
            strays: STRAYS,
        }
    }
}

fn place(minute: u64) -> usize {
    usize::try_from(minute % MINUTES as u64).expect("a minute of an hour")
}

impl Clock {
    /// So many calls came up to now.
    pub(crate) fn add(&mut self, now_ms: u64, calls: f64) {
        let minute = now_ms.saturating_sub(1) / 60_000;
        if self.minute == 0 {
            self.minute = minute;
        }
        // Beyond an hour without a look all slots are the same: nothing came.
        let passed = minute.saturating_sub(self.minute);
        self.minute = self.minute.max(minute.saturating_sub(MINUTES as u64));
        for _ in 0..passed.min(MINUTES as u64) {
            self.close();
            (self.before, self.calls) = (self.calls, 0.0);
            self.minute += 1;
        }
        self.calls += calls;
    }

    #[expect(clippy::cast_possible_truncation, reason = "f32 is precise enough for what is compared with noise")]
    fn close(&mut self) {
        if let Some(period) = self.period()
            && self.told(self.minute, period).is_some_and(|told| told < NONE)
        {
            self.strays += (self.calls as f32 - self.strays) / 60.0;
        }
        if self.learned > 0 {
            let (x, y) = (self.calls, self.before);
            let mean = 0.5 * (x + y) + 1.0;
            let off = (((x - y) * (x - y) - (x + y)) / (mean * mean)).clamp(-4.0, 4.0);
            let judged = f64::from(self.learned.min(MEMORY));
            self.jumps = (f64::from(self.jumps) + (off - f64::from(self.jumps)) / judged) as f32;
        }
        let came = sqrt(self.calls);
        let window = (self.learned > 0).then_some(self.before);
        let told = std::iter::once(window).chain(PERIODS.map(|period| self.told(self.minute, period)));
        let told: [Option<f64>; PERIODS.len() + 1] = {
            let mut all = [None; PERIODS.len() + 1];
            all.iter_mut().zip(told).for_each(|(place, told)| *place = told);
            all
        };
        for (at, told) in told.into_iter().enumerate() {
            let Some(told) = told else { continue };
            let from = if at == 0 { 1 } else { PERIODS[at - 1] };
            let judged = self.learned.saturating_sub(crate::number::count(from)) + 1;
            let off = (came - sqrt(told)) * (came - sqrt(told));
            let error = f64::from(self.errors[at]);
            self.errors[at] = (error + (off - error) / f64::from(judged.min(MEMORY))) as f32;
        }
        let slot = &mut self.slots[place(self.minute)];
        let before = if *slot == UNKNOWN { self.calls } else { slot.get() };
        *slot = Short::of(before + GAIN * (self.calls - before));
        self.learned = self.learned.saturating_add(1);
    }

    /// What a period says of a minute: the mean of all minutes of the hour that it makes the same.
    fn told(&self, minute: u64, period: usize) -> Option<f64> {
        let same = self.slots.iter().skip(place(minute) % period).step_by(period);
        let (mut sum, mut known) = (0.0, 0.0);
        same.filter(|slot| **slot != UNKNOWN).for_each(|slot| (sum, known) = (sum + slot.get(), known + 1.0));
        (known > 0.0).then(|| sum / known)
    }

    /// The period that foretells the best, in minutes, if one does so clearly.
    pub(crate) fn period(&self) -> Option<usize> {
        let known = |period: usize| {
            let period = crate::number::count(period);
            self.learned >= 2 * period.min(30) && self.learned >= period + JUDGED
        };
        let able = PERIODS.into_iter().zip(&self.errors[1..]).filter(|(period, _)| known(*period));
        let (period, error) = able.min_by(|one, other| one.1.total_cmp(other.1))?;
        (*error < CLEAR * self.errors[0]).then_some(period)
    }

    /// Calls a second at a moment, as a period says, and now and then one that it does not.
    pub(crate) fn rate(&self, now_ms: u64, at_ms: u64, period: usize) -> f64 {
        let minute = at_ms / 60_000;
        let told = self.told(minute, period).unwrap_or(0.0);
        let stray = f64::from(self.strays) / 60.0;
        if minute != now_ms / 60_000 {
            return (told / 60.0).max(stray);
        }
        // Of the minute under way those that have come are over: all of them where as many come each time, and none
        // where they come by chance.
        let error = PERIODS.iter().position(|one| *one == period).map_or(1.0, |at| self.errors[at + 1].into());
        let chance = (error / BY_CHANCE).min(1.0);
        let left = seconds(60_000 - now_ms % 60_000).max(5.0);
        let came = if minute == self.minute { self.calls } else { 0.0 };
        (chance * told / 60.0 + (1.0 - chance) * (told - came).max(0.0) / left).max(stray)
    }

    /// How far calls of a minute are off those of the one before beyond chance: a standard deviation, in parts of them.
    pub(crate) fn jump(&self) -> f64 {
        sqrt(f64::from(self.jumps).max(0.0))
    }

    /// Whether clearly more calls came in the last minute, `came`, than a period says.
    pub(crate) fn is_surprised(&self, now_ms: u64, came: f64, period: usize) -> bool {
        let part = seconds(now_ms % 60_000) / 60.0;
        let told = |minute: u64| self.told(minute, period).unwrap_or(0.0);
        let minute = now_ms / 60_000;
        // Those of a minute may come at its beginning or at its end.
        let most = told(minute)
            .max(told(minute.saturating_sub(1)))
            .max(part * told(minute) + (1.0 - part) * told(minute.saturating_sub(1)));
        came > most + 2.0 * sqrt(most.max(1.0)) + 1.0
    }

    /// Places that calls will keep busy which come from now on until `ahead_ms` later, when each takes `service`
    /// seconds of a place, exponentially.
    pub(crate) fn ahead(&self, now_ms: u64, ahead_ms: u64, service: f64, period: usize) -> f64 {
        let end = now_ms + ahead_ms.min(3_600_000);
        // What came longer ago than twenty times that is over.
        let oldest = end.saturating_sub(crate::number::ms(20.0 * service).max(1));
        let (mut at, mut load) = (now_ms.max(oldest), 0.0);
        while at < end {
            let next = end.min((at / 60_000 + 1) * 60_000);
            let stay = exp(-seconds(next - at) / service);
            load = load * stay + self.rate(now_ms, at, period) * service * (1.0 - stay);
            at = next;
        }
        load
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks each 2 s, with so many calls in each minute.
    fn run(clock: &mut Clock, minutes: std::ops::Range<u64>, calls: impl Fn(u64) -> f64) {
        for tick in minutes.start * 30..minutes.end * 30 {
            let now = (tick + 1) * 2_000;
            clock.add(now, calls((now - 1) / 60_000) / 30.0);
        }
    }

    #[test]
    fn what_recurs_is_found_with_the_shortest_period_that_tells_it() {
        let mut clock = Clock::default();
        let fifth = |minute: u64| if minute % 5 == 2 { 14.0 } else { 0.0 };
        run(&mut clock, 600..616, fifth);
        assert_eq!(clock.period(), Some(5), "{:?}", clock.errors);
        assert!((clock.rate(0, 617 * 60_000, 5) * 60.0 - 14.0).abs() < 0.1);
        assert!(clock.rate(0, 618 * 60_000, 5) < 0.01);
        // From the next minute on each fifth has nothing, and no period tells that; then it is learned anew.
        run(&mut clock, 616..650, |_| 0.0);
        assert_eq!(clock.period(), None, "{:?}", clock.errors);
    }

    #[test]
    fn steady_calls_have_no_period_and_calls_by_chance_at_most_their_mean() {
        let mut clock = Clock::default();
        run(&mut clock, 600..800, |_| 30.0);
        assert_eq!((clock.period(), clock.jump()), (None, 0.0));
        let mut chance = Clock::default();
        let calls = |minute: u64| f64::from(u32::try_from(minute * 7_919 % 23 * (minute * 104_729 % 7)).expect("few"));
        run(&mut chance, 600..900, calls);
        // The mean of an hour tells more of the next minute than the one before does, and any short period is as good.
        let period = chance.period().unwrap_or(2);
        let told = [0, 1].map(|minute| chance.rate(0, (902 + minute) * 60_000, period) * 60.0);
        assert!(period <= 5 && told.iter().all(|told| (23.0..43.0).contains(told)), "{period} {told:?}");
        assert!(chance.jump() > 0.5, "{}", chance.jump());
    }

    #[test]
    fn by_hand_for_calls_that_last() {
        let mut clock = Clock::default();
        run(&mut clock, 600..720, |minute| if minute % 2 == 0 { 60.0 } else { 0.0 });
        // A call a second of 60 s for a minute: 60 · (1 − e⁻¹); the minute after leaves e⁻¹ of it.
        let full = clock.ahead(720 * 60_000, 60_000, 60.0, 2);
        assert!((full - 37.93).abs() < 0.3, "{full}");
        let after = clock.ahead(720 * 60_000, 120_000, 60.0, 2);
        assert!((after / full - 0.3679).abs() < 0.001, "{after}");
        assert!((clock.ahead(720 * 60_000, 30_000, 0.1, 2) - 0.1).abs() < 0.001);
    }

    #[test]
    fn hours_without_a_look_are_hours_without_calls() {
        let mut clock = Clock::default();
        run(&mut clock, 600..700, |minute| if minute % 10 == 0 { 9.0 } else { 0.0 });
        clock.add(2_000 * 60_000, 3.0);
        assert_eq!((clock.minute, clock.calls), (1_999, 3.0));
        assert!(clock.slots.iter().all(|slot| slot.get() <= 4.6), "each was halved once more");
    }
}
