//! Regions and homes.

use echotune_model::{Home, HomeMove, Moving, RegionStatus};
use serde_json::json;

use super::{accounts::moment, print_json, say, table};
use crate::commands::Output;

/// Regions and who serves each.
pub(crate) fn regions(regions: &[RegionStatus], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let rows = regions.iter().map(|one| {
            let RegionStatus { region, jurisdiction, served_by, epoch, since_ms, newest_write } = one;
            json!({"region": region, "jurisdiction": jurisdiction, "served_by": served_by, "epoch": epoch, "since_ms": since_ms,
                "newest_write": newest_write.0})
        });
        return print_json(&json!({"regions": rows.collect::<Vec<_>>()}));
    }
    let mut shown = table(&["region", "jurisdiction", "served by", "since", "newest write seen here"]);
    let at = |ms: u64| if ms == 0 { String::new() } else { moment(ms) };
    for one in regions {
        let RegionStatus { region, jurisdiction, served_by, since_ms, newest_write, .. } = one.clone();
        shown.add_row([region, jurisdiction, served_by, at(since_ms), at(newest_write.ms())]);
    }
    say(shown)
}

/// Where the writes of a user are made.
pub(crate) fn home(user: &str, home: &Home, output: Output) -> anyhow::Result<()> {
    let Home { region, jurisdiction, served_by, epoch, moving } = home;
    if output == Output::Json {
        let moving = moving.as_ref().map(|Moving { to, since_ms }| json!({"to": to, "since_ms": since_ms}));
        let told = json!({"user": user, "region": region, "jurisdiction": jurisdiction, "served_by": served_by,
            "epoch": epoch, "moving": moving});
        return print_json(&told);
    }
    let elsewhere = if region == served_by { String::new() } else { format!(", which {served_by} serves now") };
    let leaving = moving.as_ref().map(|Moving { to, since_ms }| {
        format!("; on the way to {to} since {}, and cannot write meanwhile", moment(*since_ms))
    });
    let of = if jurisdiction.is_empty() { String::new() } else { format!(", of jurisdiction {jurisdiction}") };
    say(format_args!("{user} is at home in {region}{of}{elsewhere}{}", leaving.unwrap_or_default()))
}

/// Users who move.
pub(crate) fn moves(moves: &[HomeMove], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let rows = moves.iter().map(|one| {
            let HomeMove { user, name, from, to, epoch, since_ms } = one;
            json!({"user_id": user.to_string(), "user": name, "from": from, "to": to, "epoch": epoch,
                "since_ms": since_ms})
        });
        return print_json(&json!({"moves": rows.collect::<Vec<_>>()}));
    }
    let mut shown = table(&["user", "from", "to", "since"]);
    for one in moves {
        let name = if one.name.is_empty() { one.user.to_string() } else { one.name.clone() };
        shown.add_row([name, one.from.clone(), one.to.clone(), moment(one.since_ms)]);
    }
    say(shown)
}
