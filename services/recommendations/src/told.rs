//! From the parts of a score to an item with its reasons: pure.

use echotune_model::{Reason, ReasonKind, Recommendation, UserName};

use crate::{diversity::CALIBRATION, rank::Ranking};

/// What a score is made of, beside popularity.
pub(crate) struct Parts<'p> {
    /// By item of the graph.
    pub(crate) history: Vec<(u32, f64)>,
    /// By friend, largest first.
    pub(crate) friends: Vec<(&'p UserName, f64)>,
    /// By tag.
    pub(crate) tags: &'p [(u32, f64)],
    /// What the stage after scoring adds.
    pub(crate) stage: f64,
}

fn sum<T>(parts: &[(T, f64)]) -> f64 {
    parts.iter().map(|(_, part)| part).sum()
}

impl Ranking<'_> {
    /// An item with its reasons, as the first of a list; `most` of the history and of the friends are told one by
    /// one. Its score does not depend on how many are told.
    pub(crate) fn told(&self, item: u32, parts: Parts<'_>, most: usize) -> Recommendation {
        let Parts { mut history, friends, tags, stage } = parts;
        // Items of the graph are numbered by identity.
        history.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let prior = self.trending(item);
        let score = sum(&history) + sum(&friends) + sum(tags) + prior + stage;
        let (friends, others) = friends.split_at(friends.len().min(most));
        let rest = history.split_off(history.len().min(most));
        let reason = |kind, of: String, contribution| Reason { kind, of, contribution };
        let links = self.model.links(self.kind);
        let place = |past: u32| links.place(past).expect("what a history knows is on the shelf");
        let label = |past: u32| self.entry(place(past)).label();
        let listens = history.into_iter().map(|(past, part)| reason(ReasonKind::Listen, label(past), part));
        let mut reasons: Vec<Reason> = listens.collect();
        reasons.extend(friends.iter().map(|(name, part)| reason(ReasonKind::Friend, name.to_string(), *part)));
        let tags = tags.iter();
        reasons.extend(tags.map(|(tag, part)| reason(ReasonKind::Tag, self.state.tags.name(*tag).to_owned(), *part)));
        if prior > 0.0 {
            reasons.push(reason(ReasonKind::Trending, "all listeners".into(), prior));
        }
        if stage != 0.0 {
            reasons.push(reason(ReasonKind::Stage, CALIBRATION.into(), stage));
        }
        // What has a name comes first; the rest of friends and history closes the list, however much it weighs.
        reasons.sort_by(|a, b| b.contribution.total_cmp(&a.contribution));
        if !others.is_empty() {
            reasons.push(reason(ReasonKind::Friend, format!("{} more", others.len()), sum(others)));
        }
        if !rest.is_empty() {
            reasons.push(reason(ReasonKind::OtherListens, format!("{} more", rest.len()), sum(&rest)));
        }
        let entry = self.entry(item);
        Recommendation {
            rank: 1,
            id: entry.id,
            kind: self.kind,
            title: entry.title.clone(),
            artist: entry.artist.clone(),
            score,
            base: 0.0,
            reasons,
            propensity: 1.0,
            drawn_from: String::new(),
            score_before: None,
        }
    }
}
