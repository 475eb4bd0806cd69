//! What was made for the programs of a region.

use serde_json::json;

use super::{print_json, say, table};
use crate::commands::Output;

/// The versions of each owner's tables that were applied now.
pub(crate) fn schema(keyspace: &str, applied: &[(&str, Vec<i32>)], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let rows = applied.iter().map(|(owner, versions)| json!({"owner": owner, "applied": versions}));
        return print_json(&json!({"keyspace": keyspace, "tables": rows.collect::<Vec<_>>()}));
    }
    let mut shown = table(&["tables of", "applied now"]);
    for (owner, versions) in applied {
        let versions = versions.iter().map(|version| format!("version {version}")).collect::<Vec<_>>().join(", ");
        shown.add_row([*owner, if versions.is_empty() { "nothing, all is there" } else { versions.as_str() }]);
    }
    say(format_args!("Keyspace {keyspace}\n{shown}"))
}

/// Topics, each with whether it was made now.
pub(crate) fn topics(topics: &[(&str, bool)], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let rows = topics.iter().map(|(name, made)| json!({"topic": name, "made": made}));
        return print_json(&json!({"topics": rows.collect::<Vec<_>>()}));
    }
    let mut shown = table(&["topic", ""]);
    for (name, made) in topics {
        shown.add_row([*name, if *made { "made now" } else { "is there" }]);
    }
    say(shown)
}
