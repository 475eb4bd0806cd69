//! Regions and homes.

use echotune_model::{Home, RegionStatus};
use serde_json::json;

use super::{accounts::moment, print_json, say, table};
use crate::commands::Output;

/// Regions and who serves each.
pub(crate) fn regions(regions: &[RegionStatus], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let rows = regions.iter().map(|one| {
            let RegionStatus { region, served_by, epoch, since_ms, newest_write } = one;
            json!({"region": region, "served_by": served_by, "epoch": epoch, "since_ms": since_ms,
                "newest_write": newest_write.0})
        });
        return print_json(&json!({"regions": rows.collect::<Vec<_>>()}));
    }
    let mut shown = table(&["region", "served by", "since", "newest write seen here"]);
    let at = |ms: u64| if ms == 0 { String::new() } else { moment(ms) };
    for one in regions {
        shown.add_row([one.region.clone(), one.served_by.clone(), at(one.since_ms), at(one.newest_write.ms())]);
    }
    say(shown)
}

/// Where the writes of a user are made.
pub(crate) fn home(user: &str, home: &Home, output: Output) -> anyhow::Result<()> {
    let Home { region, served_by } = home;
    if output == Output::Json {
        return print_json(&json!({"user": user, "region": region, "served_by": served_by}));
    }
    let elsewhere = if region == served_by { String::new() } else { format!(", which {served_by} serves now") };
    say(format_args!("{user} is at home in {region}{elsewhere}"))
}
