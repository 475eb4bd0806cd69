//! What was served to whom, until it is shown: in memory, bounded, the oldest goes first. After a restart,
//! lists made before it are shown without an experiment; that hits all variants alike.

use std::collections::{HashMap, VecDeque};

use echotune_model::{ItemId, TraceId, UserId};

use crate::store::Served;

/// Lists held at the most.
const MAX_LISTS: usize = 100_000;
/// Items of all of them together.
const MAX_ITEMS: usize = 1_000_000;
/// Lists of one listener: nobody pushes the others out.
const MAX_OF_ONE: usize = 64;

struct Listed {
    trace: TraceId,
    items: Vec<ItemId>,
    served: Served,
}

#[derive(Default)]
pub(super) struct ServedLog {
    lists: HashMap<UserId, VecDeque<Listed>>,
    /// Whose list is the oldest; some are gone already.
    order: VecDeque<UserId>,
    items: usize,
}

impl ServedLog {
    pub(super) fn add(&mut self, user: UserId, trace: TraceId, items: Vec<ItemId>, served: Served) {
        if self.lists.get(&user).is_some_and(|lists| lists.len() >= MAX_OF_ONE) {
            self.drop_oldest(user);
        }
        self.items += items.len();
        self.order.push_back(user);
        self.lists.entry(user).or_default().push_back(Listed { trace, items, served });
        while self.items > MAX_ITEMS || self.order.len() > MAX_LISTS {
            let Some(oldest) = self.order.pop_front() else { break };
            self.drop_oldest(oldest);
        }
    }

    fn drop_oldest(&mut self, user: UserId) {
        let Some(lists) = self.lists.get_mut(&user) else { return };
        self.items -= lists.pop_front().map_or(0, |list| list.items.len());
        if lists.is_empty() {
            self.lists.remove(&user);
        }
    }

    /// Of the newest list of the trace that has everything that was shown.
    pub(super) fn find(&self, user: UserId, trace: TraceId, shown: &[ItemId]) -> Option<Served> {
        let lists = self.lists.get(&user)?.iter().rev().filter(|list| list.trace == trace);
        lists.filter_map(|list| list.served.of(&list.items, shown)).next()
    }

    pub(super) fn forget(&mut self, user: UserId) {
        let lists = self.lists.remove(&user).unwrap_or_default();
        self.items -= lists.iter().map(|list| list.items.len()).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(experiment: &str) -> Served {
        let (propensities, teams) = (vec![1.0, 0.25, 0.5], Vec::new());
        let explored = vec![(1, [1; 5]), (2, [2; 5])];
        Served { experiment: experiment.into(), variant: 1, share: 0.5, propensities, teams, explored }
    }

    fn items() -> Vec<ItemId> {
        ["a", "b", "c"].into_iter().map(ItemId::artist).collect()
    }

    #[test]
    fn what_was_shown_of_a_list_has_its_own_propensities_in_its_own_order() {
        let (mut log, user, items) = (ServedLog::default(), UserId::new(1), items());
        log.add(user, TraceId(1), items.clone(), served("one"));
        log.add(user, TraceId(1), items[..1].to_vec(), served("two"));
        let found = log.find(user, TraceId(1), &[items[2], items[0]]).expect("served");
        assert_eq!((found.experiment.as_str(), found.propensities), ("one", vec![0.5, 1.0]));
        assert_eq!(found.explored, [(0, [2; 5])]);
        assert_eq!(log.find(user, TraceId(1), &items[..1]).expect("served").experiment, "two");
        assert_eq!(log.find(user, TraceId(2), &items), None);
        assert_eq!(log.find(UserId::new(2), TraceId(1), &items), None);
        assert_eq!(log.find(user, TraceId(1), &[ItemId::artist("d")]), None, "it was not in the list");
        log.forget(user);
        assert!(log.find(user, TraceId(1), &items).is_none() && log.items == 0);
    }

    #[test]
    fn the_oldest_go_and_nobody_pushes_others_out() {
        let (mut log, busy, calm) = (ServedLog::default(), UserId::new(1), UserId::new(2));
        log.add(calm, TraceId(1), items(), served("one"));
        for trace in 1..=1_000 {
            log.add(busy, TraceId(trace), items(), served("one"));
        }
        assert_eq!(log.items, 3 * (MAX_OF_ONE + 1));
        assert!(log.find(busy, TraceId(1), &items()).is_none() && log.find(calm, TraceId(1), &items()).is_some());
        let long: Vec<ItemId> = (0..500).map(|n| ItemId::artist(&n.to_string())).collect();
        for n in 0..3_000_u64 {
            log.add(UserId(uuid::Uuid::from_u128(u128::from(n) + 9)), TraceId(1), long.clone(), served("one"));
        }
        assert!(log.items <= MAX_ITEMS && log.find(calm, TraceId(1), &items()).is_none());
    }
}
