//! What was made for the programs of a region.

use serde_json::{Value, json};

use super::{print_json, say, table};
use crate::commands::Output;

/// Whose tables, and the versions of them that were applied now.
pub(crate) type Applied<'o> = (&'o str, Vec<i32>);

fn schema_json(keyspaces: &[(String, Vec<Applied<'_>>)]) -> Value {
    let rows = keyspaces.iter().flat_map(|(keyspace, applied)| {
        let row = |(owner, versions): &Applied<'_>| json!({"keyspace": keyspace, "owner": owner, "applied": versions});
        applied.iter().map(row).collect::<Vec<_>>()
    });
    let own = keyspaces.last().map(|(own, _)| own);
    json!({"keyspace": own, "tables": rows.collect::<Vec<_>>()})
}

/// What was applied now, by keyspace, of which the last is the own one.
pub(crate) fn schema(keyspaces: &[(String, Vec<Applied<'_>>)], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&schema_json(keyspaces));
    }
    for (name, applied) in keyspaces {
        let mut shown = table(&["tables of", "applied now"]);
        for (owner, versions) in applied {
            let versions = versions.iter().map(|version| format!("version {version}")).collect::<Vec<_>>().join(", ");
            shown.add_row([*owner, if versions.is_empty() { "nothing, all is there" } else { versions.as_str() }]);
        }
        say(format_args!("Keyspace {name}\n{shown}"))?;
    }
    Ok(())
}

fn mirrors_json(flows: &[(&str, &str, bool)]) -> Value {
    let rows = flows.iter().map(|(from, to, is_mirrored)| json!({"from": from, "to": to, "mirrored": is_mirrored}));
    json!({"flows": rows.collect::<Vec<_>>()})
}

/// What MirrorMaker 2 is told of ways between regions.
pub(crate) fn mirrors(flows: &[(&str, &str, bool)], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&mirrors_json(flows));
    }
    flows.iter().flat_map(|flow| properties(*flow)).try_for_each(say)
}

/// Lines of mm2.properties. Where nothing is mirrored there are no heartbeats either, which have a way of their own.
fn properties((from, to, is_mirrored): (&str, &str, bool)) -> Vec<String> {
    let enabled = format!("{from}->{to}.enabled={is_mirrored}");
    if is_mirrored { vec![enabled] } else { vec![enabled, format!("{from}->{to}.emit.heartbeats.enabled=false")] }
}

fn topics_json(topics: &[(&str, bool)]) -> Value {
    let rows = topics.iter().map(|(name, made)| json!({"topic": name, "made": made}));
    json!({"topics": rows.collect::<Vec<_>>()})
}

/// Topics, each with whether it was made now.
pub(crate) fn topics(topics: &[(&str, bool)], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&topics_json(topics));
    }
    let mut shown = table(&["topic", ""]);
    for (name, made) in topics {
        shown.add_row([*name, if *made { "made now" } else { "is there" }]);
    }
    say(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::page;

    #[test]
    fn json_of_what_was_made_has_the_shape_that_the_page_tells() {
        let common = ("echotune".to_owned(), vec![("all jurisdictions", vec![1])]);
        let own = ("echotune_eea".to_owned(), vec![("keys", vec![1, 2]), ("users", vec![7])]);
        let told = schema_json(&[common, own]);
        page::check("schema", &told);
        assert_eq!((&told["keyspace"], told["tables"].as_array().map(Vec::len)), (&"echotune_eea".into(), Some(3)));
        page::check("topics", &topics_json(&[("users.v1", true), ("users.v1.agents.dlq", false)]));
        page::check("topics --mirrors", &mirrors_json(&[("eu", "north", true), ("eu", "us", false)]));
    }

    #[test]
    fn what_is_not_mirrored_is_told_to_be_off() {
        assert_eq!(properties(("eu", "north", true)), ["eu->north.enabled=true"]);
        assert_eq!(properties(("eu", "us", false)), ["eu->us.enabled=false", "eu->us.emit.heartbeats.enabled=false"]);
    }
}
