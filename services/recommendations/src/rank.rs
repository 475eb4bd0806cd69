//! From a history to a list with reasons: pure.

use echotune_model::{ItemKind, Reason, ReasonKind, Recommendation};

use crate::state::Shelf;

/// Reasons told one by one; the rest of the history is one reason.
const REASONS: usize = 5;
/// Weight of popularity beside co-listening: breaks ties, and is all there is at a cold start.
const TRENDING: f32 = 1e-3;

/// A list, and whether the history had anything to say.
pub(crate) struct Ranked {
    pub(crate) items: Vec<Recommendation>,
    pub(crate) cold_start: bool,
}

/// The best `limit` items for a user. Time O(items + Σ neighbours of the history).
pub(crate) fn rank(shelf: &Shelf, kind: ItemKind, user: usize, limit: usize, include_known: bool) -> Ranked {
    let history: Vec<(u32, f32)> = shelf.histories[user].keys().map(|item| (*item, 1.0)).collect();
    let trending = trending(shelf);
    let mut scores = trending.clone();
    shelf.graph.add_scores(&history, &mut scores);
    let known = |item: u32| shelf.histories[user].contains_key(&item);
    let mut best: Vec<u32> =
        (0..u32::try_from(scores.len()).unwrap_or(u32::MAX)).filter(|item| include_known || !known(*item)).collect();
    // Ties go by identity, which a restart does not change.
    let id = |item: u32| shelf.items[item as usize].id;
    let order =
        |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]).then_with(|| id(*a).cmp(&id(*b)));
    if best.len() > limit {
        best.select_nth_unstable_by(limit, order);
        best.truncate(limit);
    }
    best.sort_unstable_by(order);
    let cold_start = history.iter().all(|(item, _)| shelf.graph.row(*item).next().is_none());
    let items = (1..).zip(best).map(|(rank, item)| explain(shelf, kind, &history, &trending, rank, item)).collect();
    Ranked { items, cold_start }
}

#[expect(clippy::cast_precision_loss, reason = "counts of listeners are far below 2^24")]
fn trending(shelf: &Shelf) -> Vec<f32> {
    let most = shelf.listeners.iter().copied().max().unwrap_or(0).max(1) as f32;
    shelf.listeners.iter().map(|listeners| TRENDING * *listeners as f32 / most).collect()
}

fn explain(
    shelf: &Shelf,
    kind: ItemKind,
    history: &[(u32, f32)],
    trending: &[f32],
    rank: u32,
    item: u32,
) -> Recommendation {
    let mut parts: Vec<(u32, f64)> = history
        .iter()
        .map(|(past, amount)| (*past, f64::from(amount * shelf.graph.weight(*past, item))))
        .filter(|(_, part)| *part != 0.0)
        .collect();
    parts.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let rest = parts.split_off(parts.len().min(REASONS));
    let mut reasons: Vec<Reason> = parts
        .into_iter()
        .map(|(past, contribution)| Reason {
            kind: ReasonKind::Listen,
            of: shelf.items[past as usize].label(),
            contribution,
        })
        .collect();
    if !rest.is_empty() {
        let contribution = rest.iter().map(|(_, part)| part).sum();
        reasons.push(Reason { kind: ReasonKind::OtherListens, of: format!("{} more", rest.len()), contribution });
    }
    let prior = f64::from(trending[item as usize]);
    reasons.push(Reason { kind: ReasonKind::Trending, of: "all listeners".into(), contribution: prior });
    let score = reasons.iter().map(|reason| reason.contribution).sum();
    let of = &shelf.items[item as usize];
    Recommendation {
        rank,
        id: of.id,
        kind,
        title: of.title.clone(),
        artist: of.artist.clone(),
        score,
        base: 0.0,
        reasons,
    }
}
