//! What demand is like at one time of a period, such as the minutes of an hour.

use crate::number::Short;

/// A slot of which nothing is known.
const UNKNOWN: Short = Short(u16::MAX);
/// What the newest period weighs against all before it.
const GAIN: f64 = 0.3;
/// The level of demand is compared with the profile's over about that long, in s.
const LEVEL_S: f64 = 900.0;
/// Demand and profile are taken for higher by so many places when they are compared: of next to nothing no ratio is to
/// be had.
const FLOOR: f64 = 0.02;

/// The mean of busy places in each slot of a period.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Profile<const N: usize> {
    pub(crate) slots: [Short; N],
    /// Slots that were learned, over all periods.
    pub(crate) learned: u32,
    /// The slot under way, counted since the origin: its number, place-seconds and seconds.
    pub(crate) current: u64,
    pub(crate) area: f64,
    pub(crate) length: f64,
    /// Decayed means of demand, and of what the profile says of the same time.
    pub(crate) real: f64,
    pub(crate) told: f64,
}

impl<const N: usize> Default for Profile<N> {
    fn default() -> Self {
        Self { slots: [UNKNOWN; N], learned: 0, current: 0, area: 0.0, length: 0.0, real: 0.0, told: 0.0 }
    }
}

impl<const N: usize> Profile<N> {
    fn number(at_ms: u64, period_ms: u64) -> u64 {
        at_ms / (period_ms / N as u64).max(1)
    }

    fn slot(number: u64) -> usize {
        usize::try_from(number % N as u64).expect("a slot of a period")
    }

    /// So many places were busy for `length` seconds up to now.
    pub(crate) fn add(&mut self, now_ms: u64, period_ms: u64, load: f64, length: f64) {
        let number = Self::number(now_ms.saturating_sub(1), period_ms);
        if number != self.current {
            if self.length > 0.0 {
                self.close();
            }
            (self.current, self.area, self.length) = (number, 0.0, 0.0);
        }
        self.area += load * length;
        self.length += length;
        if let Some(told) = self.known(number) {
            let share = (length / LEVEL_S).min(1.0);
            self.real += share * (load - self.real);
            self.told += share * (told - self.told);
        }
    }

    fn close(&mut self) {
        let mean = self.area / self.length;
        let slot = &mut self.slots[Self::slot(self.current)];
        let before = if *slot == UNKNOWN { mean } else { slot.get() };
        *slot = Short::of(before + GAIN * (mean - before));
        self.learned = self.learned.saturating_add(1);
    }

    fn known(&self, number: u64) -> Option<f64> {
        let slot = self.slots[Self::slot(number)];
        (slot != UNKNOWN).then(|| slot.get())
    }

    /// Periods that are learned.
    pub(crate) fn periods(&self) -> u32 {
        self.learned / crate::number::count(N)
    }

    /// What the profile says of a moment, at the present level of demand: never more than four times of what it was.
    pub(crate) fn at(&self, at_ms: u64, period_ms: u64) -> Option<f64> {
        let ratio = ((self.real + FLOOR) / (self.told + FLOOR)).clamp(0.25, 4.0);
        Some(self.known(Self::number(at_ms, period_ms))? * ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    /// Ticks of 2 s, with a level by the minute.
    fn run(profile: &mut Profile<60>, from: u64, hours: u64, level: impl Fn(u64) -> f64) {
        for tick in from * HOUR / 2_000..(from + hours) * HOUR / 2_000 {
            let now = (tick + 1) * 2_000;
            profile.add(now, HOUR, level((now - 1) / 60_000 % 60), 2.0);
        }
    }

    #[test]
    fn minutes_of_the_hour_are_learned_and_scaled_to_the_level() {
        let mut profile = Profile::<60>::default();
        assert_eq!(profile.at(0, HOUR), None);
        let spike = |minute| if minute == 30 { 8.0 } else { 1.0 };
        run(&mut profile, 0, 3, spike);
        assert_eq!(profile.periods(), 2, "the last minute is under way");
        let told = |profile: &Profile<60>, minute: u64| profile.at(100 * HOUR + minute * 60_000, HOUR).expect("known");
        assert!((told(&profile, 30) - 8.0).abs() < 0.3 && (told(&profile, 31) - 1.0).abs() < 0.05);
        // From then on twice as much: the profile is scaled within minutes, before its slots have learned it.
        run(&mut profile, 3, 1, |minute| 2.0 * spike(minute));
        let scaled = told(&profile, 30) / told(&profile, 29);
        assert!(scaled > 6.0, "the shape stays: {scaled}");
        assert!(told(&profile, 30) > 13.0, "{}", told(&profile, 30));
    }
}
