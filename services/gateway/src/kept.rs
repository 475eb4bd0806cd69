//! Bounded tables: what was used longest ago gives way to what is new, and what is in use never does.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How many of those that were in use when they were looked at last are looked at again for one newcomer: a table of
/// which all are in use for long must not be gone through for each.
const LOOKS: usize = 64;

/// What may be in somebody's use at a moment.
pub(crate) trait InUse: Clone {
    fn is_in_use(&self) -> bool;
}

/// There are as many as there may be, and all of them are in use, as far as so many looks tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AllInUse;

/// As many as there may be, each until nobody has used it for a while.
#[derive(Debug)]
pub(crate) struct Kept<K, V> {
    inner: Mutex<Inner<K, V>>,
    most: usize,
    idle: Duration,
}

#[derive(Debug)]
struct Inner<K, V> {
    held: HashMap<K, Held<V>>,
    /// By their turns, those first that were used longest ago.
    by_turn: BTreeMap<u64, K>,
    /// The same of those that were in use when they were looked at last, and that nobody has asked for since.
    busy: BTreeMap<u64, K>,
    turn: u64,
    /// Places for what is being made.
    reserved: usize,
}

#[derive(Debug)]
struct Held<V> {
    value: V,
    turn: u64,
    used: Instant,
    is_busy: bool,
}

impl<K: Copy + Eq + Hash, V: InUse> Inner<K, V> {
    /// Takes one to the end of its order, or of the other, as used just now.
    fn last(&mut self, key: &K, is_busy: bool) -> Option<&Held<V>> {
        let held = self.held.get_mut(key)?;
        self.turn += 1;
        let from = if held.is_busy { &mut self.busy } else { &mut self.by_turn };
        from.remove(&held.turn);
        let to = if is_busy { &mut self.busy } else { &mut self.by_turn };
        to.insert(self.turn, *key);
        (held.turn, held.used, held.is_busy) = (self.turn, Instant::now(), is_busy);
        Some(held)
    }

    fn touch(&mut self, key: &K) -> Option<V> {
        self.last(key, false).map(|held| held.value.clone())
    }

    fn take(&mut self, key: &K) -> Option<V> {
        let held = self.held.remove(key)?;
        let order = if held.is_busy { &mut self.busy } else { &mut self.by_turn };
        order.remove(&held.turn);
        Some(held.value)
    }

    fn put(&mut self, key: K, value: V) -> Option<V> {
        let before = self.take(&key);
        self.turn += 1;
        self.by_turn.insert(self.turn, key);
        self.held.insert(key, Held { value, turn: self.turn, used: Instant::now(), is_busy: false });
        before
    }

    fn is_in_use(&self, key: &K) -> bool {
        self.held.get(key).is_some_and(|held| held.value.is_in_use())
    }

    /// The one that was used longest ago of those that are not in use. Those that are count as used just now and are
    /// set aside, so that each is looked at once for each time that it was asked for, and a few again each time.
    fn oldest(&mut self) -> Option<K> {
        let mut idle = None;
        while let Some((turn, key)) = self.by_turn.first_key_value() {
            let (turn, key) = (*turn, *key);
            if !self.is_in_use(&key) {
                idle = Some((turn, key));
                break;
            }
            self.last(&key, true);
        }
        // One that is in use no more may have been used longer ago than that.
        let before = idle.map_or(u64::MAX, |(turn, _)| turn);
        for _ in 0..LOOKS.min(self.busy.len()) {
            let Some((_, key)) = self.busy.first_key_value().filter(|(turn, _)| **turn < before) else { break };
            let key = *key;
            if !self.is_in_use(&key) {
                return Some(key);
            }
            self.last(&key, true);
        }
        idle.map(|(_, key)| key)
    }

    /// Makes room for one more: what had to go for it.
    fn make_room(&mut self, most: usize) -> Result<Option<V>, AllInUse> {
        if self.held.len() + self.reserved < most {
            return Ok(None);
        }
        let oldest = self.oldest().ok_or(AllInUse)?;
        Ok(self.take(&oldest))
    }
}

impl<K: Copy + Eq + Hash, V: InUse> Kept<K, V> {
    /// At most `most`, at least one, each for `idle` after its last use.
    pub(crate) fn new(most: u64, idle: Duration) -> Self {
        let (by_turn, busy) = (BTreeMap::new(), BTreeMap::new());
        let inner = Inner { held: HashMap::new(), by_turn, busy, turn: 0, reserved: 0 };
        Self { inner: Mutex::new(inner), most: usize::try_from(most).unwrap_or(usize::MAX).max(1), idle }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner<K, V>) -> T) -> T {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.with(|inner| inner.touch(key))
    }

    /// What is there, or is made: a value, and what had to go for it.
    pub(crate) fn get_or_make(&self, key: K, make: impl FnOnce() -> V) -> Result<(V, Option<V>), AllInUse> {
        self.with(|inner| {
            if let Some(value) = inner.touch(&key) {
                return Ok((value, None));
            }
            let gone = inner.make_room(self.most)?;
            let value = make();
            inner.put(key, value.clone());
            Ok((value, gone))
        })
    }

    /// A place for what is about to be made, and what had to go for it.
    pub(crate) fn reserve(&self) -> Result<(Room<'_, K, V>, Option<V>), AllInUse> {
        let gone = self.with(|inner| {
            let gone = inner.make_room(self.most)?;
            inner.reserved += 1;
            Ok::<_, AllInUse>(gone)
        })?;
        Ok((Room { kept: self, is_taken: false }, gone))
    }

    /// Whether there is room for one more.
    pub(crate) fn has_room(&self) -> bool {
        self.with(|inner| inner.held.len() + inner.reserved < self.most || inner.oldest().is_some())
    }

    pub(crate) fn take(&self, key: &K) -> Option<V> {
        self.with(|inner| inner.take(key))
    }

    /// Takes one out if it is the one that is meant, for another may have come in its place.
    pub(crate) fn take_if(&self, key: &K, is_meant: impl FnOnce(&V) -> bool) -> Option<V> {
        self.with(|inner| {
            let is_meant = inner.held.get(key).is_some_and(|held| is_meant(&held.value));
            if is_meant { inner.take(key) } else { None }
        })
    }

    pub(crate) fn take_all(&self) -> Vec<V> {
        self.with(|inner| {
            inner.by_turn.clear();
            inner.busy.clear();
            inner.held.drain().map(|(_, held)| held.value).collect()
        })
    }

    /// Takes out what nobody has used for long. What is in use is used until now.
    pub(crate) fn take_idle(&self) -> Vec<V> {
        self.with(|inner| {
            let mut gone = Vec::new();
            for _ in 0..inner.held.len() {
                let firsts = [inner.by_turn.first_key_value(), inner.busy.first_key_value()];
                let Some((_, key)) = firsts.into_iter().flatten().min_by_key(|(turn, _)| **turn) else { break };
                let key = *key;
                let Some(held) = inner.held.get(&key).filter(|held| held.used.elapsed() >= self.idle) else { break };
                if held.value.is_in_use() {
                    inner.last(&key, true);
                } else {
                    gone.extend(inner.take(&key));
                }
            }
            gone
        })
    }
}

/// A place in a table, given back when it is not taken.
#[derive(Debug)]
pub(crate) struct Room<'a, K: Copy + Eq + Hash, V: InUse> {
    kept: &'a Kept<K, V>,
    is_taken: bool,
}

impl<K: Copy + Eq + Hash, V: InUse> Room<'_, K, V> {
    /// Puts something here; what was there under its key.
    pub(crate) fn put(mut self, key: K, value: V) -> Option<V> {
        self.is_taken = true;
        self.kept.with(|inner| {
            inner.reserved -= 1;
            inner.put(key, value)
        })
    }
}

impl<K: Copy + Eq + Hash, V: InUse> Drop for Room<'_, K, V> {
    fn drop(&mut self) {
        if !self.is_taken {
            self.kept.with(|inner| inner.reserved -= 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    impl InUse for Arc<char> {
        fn is_in_use(&self) -> bool {
            Arc::strong_count(self) > 1
        }
    }

    const IDLE: Duration = Duration::from_secs(10);

    fn kept(most: u64, names: &[(u8, char)]) -> Kept<u8, Arc<char>> {
        let kept = Kept::new(most, IDLE);
        for (key, name) in names {
            drop(kept.get_or_make(*key, || Arc::new(*name)).expect("room"));
        }
        kept
    }

    #[test]
    fn what_is_in_use_stays_and_the_oldest_of_the_others_goes() {
        let kept = kept(3, &[(1, 'a'), (2, 'b'), (3, 'c')]);
        let (a, b, c) = (kept.get(&1), kept.get(&2), kept.get(&3));
        assert!(!kept.has_room());
        assert_eq!(kept.get_or_make(4, || Arc::new('d')).map(|_| ()), Err(AllInUse));
        assert_eq!(kept.get_or_make(2, || Arc::new('d')).map(|(value, _)| *value), Ok('b'), "no newcomer");
        drop(c);
        assert!(kept.has_room());
        let (_, gone) = kept.get_or_make(4, || Arc::new('d')).expect("room");
        assert_eq!(gone.map(|gone| *gone), Some('c'), "though the others were used longer ago");
        assert!(kept.get(&3).is_none());
        drop((a, b));
        assert!(kept.get(&2).is_some());
        let (_, gone) = kept.get_or_make(5, || Arc::new('e')).expect("room");
        assert_eq!(gone.map(|gone| *gone), Some('a'), "the one that was used longest ago");
    }

    /// Counts how often it is looked at.
    #[derive(Clone)]
    struct Looked {
        looks: Arc<AtomicUsize>,
        used: Arc<()>,
    }

    impl InUse for Looked {
        fn is_in_use(&self) -> bool {
            self.looks.fetch_add(1, Ordering::Relaxed);
            Arc::strong_count(&self.used) > 1
        }
    }

    #[test]
    fn a_table_of_which_all_are_in_use_is_not_gone_through_for_each_newcomer() {
        const MANY: u32 = 10_000;
        let (kept, looks) = (Kept::new(MANY.into(), IDLE), Arc::<AtomicUsize>::default());
        let make = || Looked { looks: Arc::clone(&looks), used: Arc::default() };
        let mut held: Vec<_> = (0..MANY).map(|key| kept.get_or_make(key, make).expect("room").0).collect();
        assert!(!kept.has_room());
        let before = looks.swap(0, Ordering::Relaxed);
        assert!(before >= held.len(), "each was looked at once: {before}");
        for key in 0..100 {
            assert!(kept.get_or_make(MANY + key, make).is_err());
        }
        assert!(looks.load(Ordering::Relaxed) <= 100 * LOOKS);
        // One that is not in use any more is found, by who comes first or by one of those after.
        drop(held.swap_remove(5_000));
        let tries = (0..).position(|_| kept.has_room()).expect("found");
        assert!(tries <= held.len() / LOOKS + 1, "{tries}");
        let (_, gone) = kept.get_or_make(MANY, make).expect("room");
        assert!(gone.is_some() && kept.get(&5_000).is_none());
    }

    #[test]
    fn a_place_for_what_is_being_made_is_nobody_elses() {
        let kept = kept(2, &[(1, 'a')]);
        let (room, gone) = kept.reserve().expect("room");
        assert_eq!(gone, None);
        let (other, gone) = kept.reserve().expect("room");
        assert_eq!(gone.map(|gone| *gone), Some('a'));
        assert!(kept.reserve().is_err());
        drop(other);
        assert_eq!(room.put(2, Arc::new('b')), None);
        assert!(kept.get_or_make(3, || Arc::new('c')).expect("room").1.is_none());
        assert!(kept.take_if(&2, |value| **value == 'c').is_none());
        assert_eq!(kept.take_all().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_uses_goes_and_time_counts_from_the_end_of_its_use() {
        let kept = kept(3, &[(1, 'a'), (2, 'b')]);
        let a = kept.get(&1).expect("there");
        tokio::time::sleep(IDLE).await;
        assert_eq!(kept.take_idle().iter().map(|gone| **gone).collect::<Vec<_>>(), ['b']);
        drop(a);
        assert_eq!(kept.take_idle().len(), 0);
        tokio::time::sleep(IDLE).await;
        assert_eq!(kept.take_idle().len(), 1);
    }
}
