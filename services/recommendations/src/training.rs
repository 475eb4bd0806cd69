//! Histories for those who train elsewhere: a snapshot, read a part at a time.

use async_trait::async_trait;
use echotune_api::{Histories, KnownItem, ListenerHistory, MAX_HISTORY_ROWS, Training};
use echotune_model::{Call, Fault, ItemKind, UserId};
use futures::{StreamExt as _, stream};
use tracing::instrument;

use crate::{
    RecommendationsService,
    serve::{person, readable},
    shelf::History,
};

const KINDS: [ItemKind; 2] = [ItemKind::Artist, ItemKind::Track];

/// Listeners whose histories are still to be told. What is told is copied a part at a time: the histories
/// themselves are shared with the view, which makes a copy of one that changes meanwhile.
struct Parts {
    service: RecommendationsService,
    people: std::vec::IntoIter<(UserId, [History; 2])>,
    /// The listener at hand, the kind, and how many of its items have been told.
    at: Option<(UserId, [History; 2], usize, usize)>,
}

impl Parts {
    /// The next items, as many as a part may hold.
    fn next(&mut self) -> Option<Vec<ListenerHistory>> {
        let service = self.service.clone();
        service.read(|state| {
            let (mut told, mut room) = (Vec::new(), MAX_HISTORY_ROWS);
            while room > 0 {
                let next = || self.people.next().map(|(user, histories)| (user, histories, 0, 0));
                let Some((user, histories, kind, from)) = self.at.take().or_else(next) else { break };
                let rest = &histories[kind][from..];
                let taken = rest.len().min(room);
                if taken > 0 {
                    let kind = KINDS[kind];
                    let items = rest[..taken].iter().map(|known| KnownItem {
                        item: state.shelf(kind).entries[known.item as usize].id,
                        plays: known.plays().max(1),
                        last_listened_at_ms: known.last_ms,
                    });
                    told.push(ListenerHistory { user, kind, items: items.collect() });
                    room -= taken;
                }
                self.at = match (taken == rest.len(), kind) {
                    (false, _) => Some((user, histories, kind, from + taken)),
                    (true, 0) => Some((user, histories, 1, 0)),
                    (true, _) => None,
                };
            }
            (!told.is_empty()).then_some(told)
        })
    }
}

#[async_trait]
impl Training for RecommendationsService {
    #[instrument(name = "recommendations.export_histories", skip_all, err(level = "debug"))]
    async fn export_histories(&self, call: &Call, user: Option<&str>) -> Result<Histories, Fault> {
        call.may_operate()?;
        let name = user.map(|name| readable(call, name)).transpose()?;
        call.check_deadline()?;
        let (watermark, mut people) = self.read(|state| {
            let people = match &name {
                Some(name) => {
                    let (id, person) = person(state, call, name)?;
                    vec![(id, KINDS.map(|kind| History::clone(person.history(kind))))]
                }
                None => state.public_histories(),
            };
            Ok::<_, Fault>((state.watermark, people))
        })?;
        people.sort_unstable_by_key(|(user, _)| *user);
        let rows = people.iter().flat_map(|(_, histories)| histories).map(|history| history.len() as u64).sum();
        let listeners = people.len() as u64;
        let parts = Parts { service: self.clone(), people: people.into_iter(), at: None };
        let parts = stream::unfold(parts, |mut parts| async move { parts.next().map(|part| (Ok(part), parts)) });
        Ok(Histories { watermark, listeners, rows, parts: parts.boxed() })
    }
}
