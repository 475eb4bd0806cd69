//! Items of the catalogue: which one a person means, why it is scored so, and what is like it.

use clap::ValueEnum;
use echotune_api::{MAX_LIMIT, RecommendQuery};
use echotune_model::{ErrorKind, Fault, Feedback, Item, ItemId, ItemKind, Signal, TraceId, fold};

use super::{Kind, Output, call};
use crate::{Connection, output};

/// Items in the list that feedback changes.
const LIST: u32 = 10;

/// What a listener makes of an item.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Opinion {
    /// Liked it: it counts as known.
    Liked,
    /// Does not want it: it is never recommended again.
    Disliked,
    /// Skipped it.
    Skipped,
    /// Played it.
    Played,
}

/// Names shown when several items could be meant.
const SHOWN: usize = 10;

/// Shows one item's score with every reason.
pub(super) async fn explain(
    connection: &Connection,
    user: &str,
    item: &str,
    kind: Kind,
    output: Output,
) -> anyhow::Result<()> {
    let id = item_of(connection, item, kind.into()).await?;
    let list = connection.recommendations.explain(&call(), user, id).await?;
    output::recommendations(&list, true, connection.is_remote(), output)
}

/// Shows the items nearest to one.
pub(super) async fn similar(
    connection: &Connection,
    item: &str,
    kind: Kind,
    limit: u32,
    output: Output,
) -> anyhow::Result<()> {
    let id = item_of(connection, item, kind.into()).await?;
    let of = connection.recommendations.get_item(&call(), id).await?;
    let items = connection.recommendations.similar(&call(), id, limit).await?;
    output::similar(&of, &items, output)
}

/// Notes what a listener makes of an item, and shows what the list becomes.
pub(super) async fn feedback(
    connection: &Connection,
    user: &str,
    item: &str,
    opinion: Opinion,
    kind: Kind,
    output: Output,
) -> anyhow::Result<()> {
    let item = item_of(connection, item, kind.into()).await?;
    let signal = match opinion {
        Opinion::Liked => Signal::Liked,
        Opinion::Disliked => Signal::Disliked,
        Opinion::Skipped => Signal::Skipped,
        Opinion::Played => Signal::Played,
    };
    let feedback = Feedback { item, signal, trace: TraceId::default() };
    connection.recommendations.record_feedback(&call(), user, feedback).await?;
    let query = RecommendQuery { kind: kind.into(), limit: LIST, include_known: false };
    let list = connection.recommendations.recommend(&call(), user, &query).await?;
    output::recommendations(&list, false, connection.is_remote(), output)
}

/// The item that a person means by an id, an artist, a title, or "Artist – Title".
async fn item_of(connection: &Connection, text: &str, kind: ItemKind) -> Result<ItemId, Fault> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let items = &connection.recommendations;
    // The catalogue is searched by artist and title with a space between them.
    let wanted = text.replacen(" – ", " ", 1).replacen(" - ", " ", 1);
    let mut found = items.find_items(&call(), kind, &wanted, MAX_LIMIT).await?;
    if found.is_empty() && wanted != text {
        found = items.find_items(&call(), kind, text, MAX_LIMIT).await?;
    }
    let same = |item: &&Item| {
        let label = output::label(&item.title, &item.artist);
        let names = [
            &label,
            &label.replacen(" – ", " - ", 1),
            if kind == ItemKind::Track { &item.title } else { &item.artist },
        ];
        names.iter().any(|name| fold(name) == fold(text))
    };
    let exact: Vec<&Item> = found.iter().filter(same).collect();
    match (exact.as_slice(), found.as_slice()) {
        ([one], _) => Ok(one.id),
        ([], []) => {
            Err(Fault::new(ErrorKind::NotFound, format!("no {} is called '{}'", kind.name(), text.escape_debug())))
        }
        ([], [one]) => Ok(one.id),
        _ => {
            let names = found
                .iter()
                .take(SHOWN)
                .map(|item| format!("\n  {}  {}", item.id, output::label(&item.title, &item.artist)));
            Err(Fault::invalid(format!(
                "'{}' can mean several {}s; name one by its id:{}",
                text.escape_debug(),
                kind.name(),
                names.collect::<String>()
            )))
        }
    }
}
