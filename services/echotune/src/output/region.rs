//! What was made for the programs of a region.

use serde_json::json;

use super::{print_json, say, table};
use crate::commands::Output;

/// Whose tables, and the versions of them that were applied now.
pub(crate) type Applied<'o> = (&'o str, Vec<i32>);

/// What was applied now, by keyspace, of which the last is the own one.
pub(crate) fn schema(keyspaces: &[(String, Vec<Applied<'_>>)], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let rows = keyspaces.iter().flat_map(|(keyspace, applied)| {
            let row =
                |(owner, versions): &Applied<'_>| json!({"keyspace": keyspace, "owner": owner, "applied": versions});
            applied.iter().map(row).collect::<Vec<_>>()
        });
        let own = keyspaces.last().map(|(own, _)| own);
        return print_json(&json!({"keyspace": own, "tables": rows.collect::<Vec<_>>()}));
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

/// What MirrorMaker 2 is told of ways between regions.
pub(crate) fn mirrors(flows: &[(&str, &str, bool)], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let rows = flows.iter().map(|(from, to, is_mirrored)| json!({"from": from, "to": to, "mirrored": is_mirrored}));
        return print_json(&json!({"flows": rows.collect::<Vec<_>>()}));
    }
    flows.iter().flat_map(|flow| properties(*flow)).try_for_each(say)
}

/// Lines of mm2.properties. Where nothing is mirrored there are no heartbeats either, which have a way of their own.
fn properties((from, to, is_mirrored): (&str, &str, bool)) -> Vec<String> {
    let enabled = format!("{from}->{to}.enabled={is_mirrored}");
    if is_mirrored { vec![enabled] } else { vec![enabled, format!("{from}->{to}.emit.heartbeats.enabled=false")] }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_mirrored_is_told_to_be_off() {
        assert_eq!(properties(("eu", "north", true)), ["eu->north.enabled=true"]);
        assert_eq!(properties(("eu", "us", false)), ["eu->us.enabled=false", "eu->us.emit.heartbeats.enabled=false"]);
    }
}
