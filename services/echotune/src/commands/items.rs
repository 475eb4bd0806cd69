//! Items of the catalogue: which one a person means, why it is scored so, and what is like it.

use echotune_api::MAX_LIMIT;
use echotune_model::{ErrorKind, Fault, Item, ItemId, ItemKind, fold};

use super::{Kind, Output, call};
use crate::{Connection, output};

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
        ([], []) => Err(Fault::new(
            ErrorKind::NotFound,
            format!("no {} is called '{}'", output::kind_name(kind), text.escape_debug()),
        )),
        ([], [one]) => Ok(one.id),
        _ => {
            let names = found
                .iter()
                .take(SHOWN)
                .map(|item| format!("\n  {}  {}", item.id, output::label(&item.title, &item.artist)));
            Err(Fault::invalid(format!(
                "'{}' can mean several {}s; name one by its id:{}",
                text.escape_debug(),
                output::kind_name(kind),
                names.collect::<String>()
            )))
        }
    }
}
