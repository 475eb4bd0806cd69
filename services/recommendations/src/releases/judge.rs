//! How good the lists of a model are: NDCG of what is held out, listener by listener.

use echotune_engine::{
    Interactions,
    evaluation::{Fold, Scorer, Training, gains, rank},
};
use echotune_model::ItemKind;

use super::draw::Part;
use crate::{
    model::{Links, Model, placed},
    shelf::heat,
};

/// Length of the lists that are judged.
pub(super) const AT: usize = 10;
/// Listeners judged at the most; as many are drawn at random.
const JUDGED: usize = 3_000;
/// Kinds of lists, as histories are numbered.
pub(super) const KINDS: [ItemKind; 2] = [ItemKind::Artist, ItemKind::Track];

/// (listener, NDCG@10) of each that is judged, ascending, artists first. The same listeners for every model of
/// the part. Time O(listeners × items).
pub(super) fn judge(model: &Model, part: &Part, seed: u64) -> [Vec<(usize, f64)>; 2] {
    let friends = placed(&part.known.people, &part.known.friends);
    let trending = model.release.recipe.trending;
    [0, 1].map(|kind: usize| {
        let links = model.links(KINDS[kind]);
        let items = links.graph().item_count();
        let rows = part.known.people.iter().map(|(_, histories)| {
            #[expect(clippy::cast_possible_truncation, reason = "weights of the engine are f32")]
            let single = |(item, amount): (u32, f64)| (item, amount as f32);
            links.weighted(&histories[kind]).into_iter().map(single).collect::<Vec<_>>()
        });
        let known = Interactions::from_weighted(rows, items).expect("items of the graph with finite weights");
        let found = |places: &Vec<u32>| places.iter().filter_map(|place| links.item(*place)).collect::<Vec<_>>();
        let held = Interactions::from_rows(part.held[kind].iter().map(found), items);
        let popular = popular(part, kind, links, trending);
        let scorer = Lists { links, histories: &known, friends: &friends, popular };
        let tags = Interactions::from_rows(std::iter::empty::<Vec<u32>>(), 0);
        let training = Training { interactions: &known, times: None, social: &[], tags };
        let fold = Fold { training, known: &known, held: &held, judge_unknown: false, only: None, sample: None };
        let fold = fold.sampled(JUDGED, seed);
        gains(&fold, AT, &rank(&fold, AT, &scorer, &|_| {}))
    })
}

/// What popularity adds to each item of the graph, by the histories that are known.
fn popular(part: &Part, kind: usize, links: &Links, trending: f64) -> Vec<f32> {
    let all = || part.known.people.iter().flat_map(|(_, histories)| histories[kind].iter());
    let now_ms = all().map(|known| known.last_ms).max().unwrap_or(0);
    let mut warmth = vec![0.0; links.graph().item_count()];
    for known in all() {
        if let Some(item) = links.item(known.item) {
            warmth[item as usize] += heat(known, now_ms);
        }
    }
    let hottest = warmth.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    #[expect(clippy::cast_possible_truncation, reason = "scores of the engine are f32")]
    let part = |warmth: f64| (trending * warmth / hottest) as f32;
    warmth.into_iter().map(part).collect()
}

/// Lists as they are made: by links, friends and popularity.
struct Lists<'m> {
    links: &'m Links,
    histories: &'m Interactions,
    friends: &'m [Vec<u32>],
    popular: Vec<f32>,
}

impl Scorer for Lists<'_> {
    fn score(&self, users: &[usize], scores: &mut [f32]) {
        for (user, row) in users.iter().zip(scores.chunks_exact_mut(self.popular.len().max(1))) {
            row.copy_from_slice(&self.popular);
            for (item, amount) in self.histories.entries(*user) {
                self.links.graph().row(item).for_each(|(other, link)| row[other as usize] += amount * link);
            }
            if let Some(social) = self.links.social() {
                social.add_scores(self.histories, &self.friends[*user], row);
            }
        }
    }
}
