//! Two lists in one.

use std::collections::HashMap;

use echotune_engine::trials::interleave::{POSITIONS, Team, team_draft};
use echotune_model::{ItemId, Recommendation};

/// An item, and the list that drew it: 0 or 1.
pub(super) type Drawn = (Recommendation, u8);

/// Drafts at most `limit` items from two lists, and ranks them anew. An item that both have is told as by
/// the one that drew it.
pub(super) fn draft(lists: [Vec<Recommendation>; 2], limit: usize, seed: u64) -> Vec<Drawn> {
    let mut numbers: HashMap<ItemId, u32> = HashMap::new();
    let mut number = |item: &Recommendation| {
        let next = u32::try_from(numbers.len()).expect("lists are short");
        *numbers.entry(item.id).or_insert(next)
    };
    let numbered = lists.map(|list| list.into_iter().map(|item| (number(&item), item)).collect::<Vec<_>>());
    let [first, second] = [0, 1].map(|team: usize| numbered[team].iter().map(|(n, _)| *n).collect::<Vec<u32>>());
    let picked = team_draft(&first, &second, limit.min(POSITIONS), seed).expect("few positions are asked for");
    let mut told = numbered.map(|list| list.into_iter().collect::<HashMap<u32, Recommendation>>());
    let drawn = picked.into_iter().filter_map(|picked| {
        let team = usize::from(picked.team == Team::B);
        Some((told[team].remove(&picked.item)?, u8::from(team == 1)))
    });
    (1..).zip(drawn).map(|(rank, (item, team))| (Recommendation { rank, ..item }, team)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use echotune_model::ItemKind;

    use super::*;

    fn list(artists: std::ops::Range<u32>, score: f64) -> Vec<Recommendation> {
        let item = |n: u32| Recommendation {
            rank: n,
            id: ItemId::artist(&n.to_string()),
            kind: ItemKind::Artist,
            title: String::new(),
            artist: n.to_string(),
            score,
            base: score,
            reasons: Vec::new(),
            propensity: 1.0,
            drawn_from: String::new(),
            score_before: None,
        };
        artists.map(item).collect()
    }

    #[test]
    fn both_lists_draw_as_often_nothing_twice_and_each_tells_its_own() {
        for seed in 0..50 {
            let drawn = draft([list(0..20, 1.0), list(10..30, 2.0)], 10, seed);
            let ids: HashSet<ItemId> = drawn.iter().map(|(item, _)| item.id).collect();
            assert_eq!((ids.len(), drawn.iter().filter(|(_, team)| *team == 1).count()), (10, 5));
            assert!((1..).zip(&drawn).all(|(rank, (item, _))| item.rank == rank));
            assert!(drawn.iter().all(|(item, team)| item.score == f64::from(*team) + 1.0));
        }
        assert_eq!(draft([list(0..5, 1.0), list(0..5, 1.0)], 10, 1).len(), 5);
        assert_eq!(draft([list(0..1, 1.0), list(5..9, 1.0)], 10, 1).iter().filter(|(_, team)| *team == 1).count(), 4);
        assert!(draft([Vec::new(), Vec::new()], 10, 1).is_empty());
    }
}
