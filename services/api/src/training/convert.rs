use echotune_model::{Fault, ItemId, UserId};
use echotune_proto::recommendations::v1 as pb;
use uuid::Uuid;

use super::{KnownItem, ListenerHistory};
use crate::{
    convert::missing,
    recommendations::convert::{kind_from_pb, kind_to_pb},
};

pub(super) fn history_to_pb(history: ListenerHistory) -> pb::ListenerHistory {
    let item = |known: KnownItem| pb::KnownItem {
        item_id: known.item.0.as_bytes().to_vec(),
        plays: known.plays,
        last_listened_at_ms: known.last_listened_at_ms,
    };
    pb::ListenerHistory {
        user_id: history.user.0.as_bytes().to_vec(),
        kind: kind_to_pb(history.kind),
        items: history.items.into_iter().map(item).collect(),
    }
}

pub(super) fn history_from_pb(history: pb::ListenerHistory) -> Result<ListenerHistory, Fault> {
    let uuid = |bytes: &[u8], field| Uuid::from_slice(bytes).map_err(|_| missing(field));
    let item = |known: pb::KnownItem| {
        Ok(KnownItem {
            item: ItemId(uuid(&known.item_id, "item_id")?),
            plays: known.plays,
            last_listened_at_ms: known.last_listened_at_ms,
        })
    };
    Ok(ListenerHistory {
        user: UserId(uuid(&history.user_id, "user_id")?),
        kind: kind_from_pb(history.kind)?,
        items: history.items.into_iter().map(item).collect::<Result<_, Fault>>()?,
    })
}
