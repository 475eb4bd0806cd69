//! Users whose events wait while those of others are given out: something of theirs cannot be read, or cannot be seen
//! yet.
//!
//! Their events stay where they are. They are left out of what is read until they have rested, and are then read from
//! the oldest on, in a look at all minutes, so that none passes another. The mark of their shard stays before them
//! where it is kept and not in this process, so that minutes which hold nothing else are not read again and again.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use echotune_model::ErrorKind;
use tokio::time::Instant;
use uuid::Uuid;

use super::schema::shard;

/// For how long somebody rests at first; twice as long after each look in vain.
const FIRST: Duration = Duration::from_secs(2);
/// For how long at the most, when servers that are away can be the cause.
const PASSING: Duration = Duration::from_secs(10);
/// For how long at the most, when they cannot.
const LASTING: Duration = Duration::from_secs(300);
/// How often the same user is told of.
const AGAIN: Duration = Duration::from_secs(600);
/// Users who are told of in one [`SPELL`] at the most; how many there are is told by the metric.
const LINES: u32 = 16;
/// See [`LINES`].
const SPELL: Duration = Duration::from_secs(60);

/// Who is held back in one outbox.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    users: HashMap<Uuid, Held>,
    /// Since when lines are counted, and how many there were.
    lines: Option<(Instant, u32)>,
}

#[derive(Debug)]
struct Held {
    /// In which minute the oldest event waits.
    from: i64,
    until: Instant,
    /// The last rest; zero when nothing failed and what an event tells of is only not seen yet.
    pause: Duration,
    told: Option<Instant>,
}

/// Whether a cause may be gone in a moment.
fn may_pass(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unavailable | ErrorKind::DeadlineExceeded | ErrorKind::Indeterminate | ErrorKind::ResourceExhausted
    )
}

/// Whether servers answered, and this is what they have.
pub(super) fn is_answer(kind: ErrorKind) -> bool {
    !may_pass(kind)
}

impl HeldBack {
    /// Whether an event of a user in a minute is left alone by a look of this moment, which goes through all minutes or
    /// reads the latest alone.
    pub(super) fn rests(&mut self, user: Uuid, minute: i64, (at, through): (Instant, bool)) -> bool {
        let Some(held) = self.users.get_mut(&user) else { return false };
        // It may have appeared late.
        held.from = held.from.min(minute);
        !through || held.until > at
    }

    pub(super) fn holds(&self, user: Uuid) -> bool {
        self.users.contains_key(&user)
    }

    /// Who has rested, and from which minute on events of each are to be read.
    pub(super) fn rested(&self, at: Instant) -> Vec<(Uuid, i64)> {
        let rested = self.users.iter().filter(|(_, held)| held.until <= at);
        rested.map(|(user, held)| (*user, held.from)).collect()
    }

    /// Takes up who has rested, and with them whoever of the same shards has for half of the time: their minutes may be
    /// many, and would be read again soon for each of them alone.
    pub(super) fn take_up(&mut self, at: Instant) -> Vec<(Uuid, i64)> {
        let shards: HashSet<i32> = self.rested(at).iter().map(|(user, _)| shard(*user)).collect();
        for (user, held) in &mut self.users {
            if shards.contains(&shard(*user)) && held.until <= at + held.pause / 2 {
                held.until = held.until.min(at);
            }
        }
        self.rested(at)
    }

    /// The minute of the oldest event in a shard of those who are held back.
    pub(super) fn oldest(&self, of: i32) -> Option<i64> {
        self.users.iter().filter(|(user, _)| shard(**user) == of).map(|(_, held)| held.from).min()
    }

    /// How many users there are of whom something cannot be read.
    pub(super) fn failing(&self) -> u32 {
        let failing = self.users.values().filter(|held| !held.pause.is_zero()).count();
        u32::try_from(failing).unwrap_or(u32::MAX)
    }

    /// Holds a user back whose events wait from a minute on, by what cannot be read; nothing when it is only not seen
    /// yet. Whether that is to be told.
    pub(super) fn hold(&mut self, user: Uuid, from: i64, cause: Option<ErrorKind>, at: Instant) -> bool {
        let new = Held { from, until: at, pause: Duration::ZERO, told: None };
        let held = self.users.entry(user).or_insert(new);
        held.from = from;
        let Some(kind) = cause else {
            // The next look that goes through all minutes may see it.
            (held.until, held.pause) = (at, Duration::ZERO);
            return false;
        };
        held.pause = (held.pause * 2).clamp(FIRST, if may_pass(kind) { PASSING } else { LASTING });
        held.until = at + held.pause;
        let (since, lines) = match self.lines {
            Some((since, lines)) if at.duration_since(since) < SPELL => (since, lines),
            _ => (at, 0),
        };
        let is_told = held.told.is_some_and(|told| at.duration_since(told) < AGAIN);
        if is_told || lines >= LINES {
            return false;
        }
        held.told = Some(at);
        self.lines = Some((since, lines + 1));
        true
    }

    /// Has a user rest no longer, and wait for the next look at all minutes alone.
    pub(super) fn wake(&mut self, user: Uuid, at: Instant) {
        if let Some(held) = self.users.get_mut(&user) {
            held.until = held.until.min(at);
        }
    }

    /// Holds a user back no longer; whether it was told that this user was.
    pub(super) fn release(&mut self, user: Uuid) -> bool {
        self.users.remove(&user).is_some_and(|held| held.told.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Uuid = Uuid::from_u128(1);
    const LOST: Option<ErrorKind> = Some(ErrorKind::DataLoss);

    #[test]
    fn who_is_held_back_rests_longer_each_time_and_is_read_from_the_oldest_event_on() {
        let (mut held, mut at) = (HeldBack::default(), Instant::now());
        assert!(!held.rests(ANN, 7, (at, true)), "nobody is held back");
        let mut rests = Vec::new();
        for _ in 0..12 {
            held.hold(ANN, 7, LOST, at);
            let began = at;
            while held.rests(ANN, 7, (at, true)) {
                assert!(held.rested(at).is_empty());
                at += Duration::from_secs(1);
            }
            rests.push(at.duration_since(began).as_secs());
        }
        assert_eq!(rests, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]);
        assert_eq!(held.rested(at), [(ANN, 7)]);
        assert!(held.rests(ANN, 9, (at, false)), "what is newer does not pass what a look at the latest leaves out");
        held.rests(ANN, 5, (at, true));
        assert_eq!((held.rested(at), held.oldest(shard(ANN))), (vec![(ANN, 5)], Some(5)), "one that appeared late");
        assert_eq!(held.oldest(shard(Uuid::from_u128(2))), None, "another shard");
        assert!(held.release(ANN) && !held.holds(ANN) && !held.release(ANN));
        assert!(!held.rests(ANN, 9, (at, false)));
    }

    #[test]
    fn those_of_a_shard_who_rest_for_long_are_soon_taken_up_together_however_they_began() {
        let (mut held, mut at) = (HeldBack::default(), Instant::now());
        // They fail a second after each other, until each rests for as long as it may.
        let users: Vec<_> = (0..40_u8).map(|n| Uuid::from_u128(u128::from(n) * 4)).collect();
        for _ in 0..12 {
            for user in &users {
                held.hold(*user, 7, LOST, at);
                at += Duration::from_secs(1);
            }
        }
        held.hold(Uuid::from_u128(1), 7, LOST, at);
        let (mut looks, end) = (Vec::new(), at + LASTING * 4);
        while at < end {
            let taken = held.take_up(at);
            let of_shard: Vec<_> = taken.iter().filter(|(user, _)| users.contains(user)).collect();
            if !of_shard.is_empty() {
                looks.push(of_shard.len());
            }
            for (user, from) in taken {
                assert!(!held.rests(user, from, (at, true)), "who is taken up is read");
                held.hold(user, from, LOST, at);
            }
            at += Duration::from_secs(1);
        }
        assert_eq!(looks, [40, 40, 40, 40], "one look for all of them at a time");
    }

    #[test]
    fn what_may_pass_is_looked_for_more_often_and_what_is_not_seen_yet_at_each_look() {
        let (mut held, at) = (HeldBack::default(), Instant::now());
        for _ in 0..10 {
            held.hold(ANN, 7, Some(ErrorKind::Unavailable), at);
        }
        assert_eq!((held.rested(at).len(), held.rested(at + PASSING)), (0, vec![(ANN, 7)]));
        assert_eq!(held.failing(), 1);
        assert!(!held.hold(ANN, 8, None, at), "there is nothing to tell");
        assert_eq!((held.rested(at), held.failing()), (vec![(ANN, 8)], 0));
        assert!(held.rests(ANN, 8, (at, false)) && !held.rests(ANN, 8, (at, true)));
    }

    #[test]
    fn each_user_is_told_of_once_in_a_while_and_not_more_than_can_be_read() {
        let (mut held, at) = (HeldBack::default(), Instant::now());
        let told =
            |held: &mut HeldBack, at| (0..40).filter(|user| held.hold(Uuid::from_u128(*user), 1, LOST, at)).count();
        assert_eq!([told(&mut held, at), told(&mut held, at)], [16, 0]);
        let minute = at + SPELL;
        assert_eq!(
            [told(&mut held, minute), told(&mut held, minute + SPELL)],
            [16, 8],
            "the others come in their turn"
        );
        assert_eq!(told(&mut held, minute + SPELL * 2), 0, "all were told of");
        assert_eq!(told(&mut held, at + AGAIN), 16);
        assert!(is_answer(ErrorKind::DataLoss) && !is_answer(ErrorKind::Unavailable));
    }
}
