//! Regions and homes.

use echotune_model::{Home, HomeMove, Moving, RegionStatus};
use serde_json::{Value, json};

use super::{accounts::moment, print_json, say, table};
use crate::commands::Output;

fn regions_json(regions: &[RegionStatus]) -> Value {
    let rows = regions.iter().map(|one| {
        let RegionStatus { region, jurisdiction, served_by, epoch, since_ms, newest_write } = one;
        json!({"region": region, "jurisdiction": jurisdiction, "served_by": served_by, "epoch": epoch,
            "since_ms": since_ms, "newest_write": newest_write.0})
    });
    json!({"regions": rows.collect::<Vec<_>>()})
}

/// Regions and who serves each.
pub(crate) fn regions(regions: &[RegionStatus], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&regions_json(regions));
    }
    let mut shown = table(&["region", "jurisdiction", "served by", "since", "newest write seen here"]);
    let at = |ms: u64| if ms == 0 { String::new() } else { moment(ms) };
    for one in regions {
        let RegionStatus { region, jurisdiction, served_by, since_ms, newest_write, .. } = one.clone();
        shown.add_row([region, jurisdiction, served_by, at(since_ms), at(newest_write.ms())]);
    }
    say(shown)
}

fn home_json(user: &str, home: &Home) -> Value {
    let Home { region, jurisdiction, served_by, epoch, moving } = home;
    let moving = moving.as_ref().map(|Moving { to, since_ms }| json!({"to": to, "since_ms": since_ms}));
    json!({"user": user, "region": region, "jurisdiction": jurisdiction, "served_by": served_by, "epoch": epoch,
        "moving": moving})
}

/// Where the writes of a user are made.
pub(crate) fn home(user: &str, home: &Home, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&home_json(user, home));
    }
    let Home { region, jurisdiction, served_by, moving, .. } = home;
    let elsewhere = if region == served_by { String::new() } else { format!(", which {served_by} serves now") };
    let leaving = moving.as_ref().map(|Moving { to, since_ms }| {
        format!("; on the way to {to} since {}, and cannot write meanwhile", moment(*since_ms))
    });
    let of = if jurisdiction.is_empty() { String::new() } else { format!(", of jurisdiction {jurisdiction}") };
    say(format_args!("{user} is at home in {region}{of}{elsewhere}{}", leaving.unwrap_or_default()))
}

/// What became of the users of a region who were all to move, by their names.
#[derive(Debug, Default)]
pub(crate) struct AllMoved {
    /// Those who moved, with their homes now.
    pub(crate) moved: Vec<(String, Home)>,
    /// Those who did not move, with why.
    pub(crate) failed: Vec<(String, String)>,
}

fn all_moved_json((from, to): (&str, &str), AllMoved { moved, failed }: &AllMoved) -> Value {
    let moved = moved.iter().map(|(user, home)| home_json(user, home));
    let failed = failed.iter().map(|(user, why)| json!({"user": user, "why": why}));
    json!({"from": from, "to": to, "moved": moved.collect::<Vec<_>>(), "failed": failed.collect::<Vec<_>>()})
}

/// What became of users who were all to move, for programs; people are told of each when it moved.
pub(crate) fn all_moved(ways: (&str, &str), all: &AllMoved) -> anyhow::Result<()> {
    print_json(&all_moved_json(ways, all))
}

fn moves_json(moves: &[HomeMove]) -> Value {
    let rows = moves.iter().map(|one| {
        let HomeMove { user, name, from, to, epoch, since_ms } = one;
        json!({"user_id": user.to_string(), "user": name, "from": from, "to": to, "epoch": epoch, "since_ms": since_ms})
    });
    json!({"moves": rows.collect::<Vec<_>>()})
}

/// Users who move.
pub(crate) fn moves(moves: &[HomeMove], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&moves_json(moves));
    }
    let mut shown = table(&["user", "from", "to", "since"]);
    for one in moves {
        let name = if one.name.is_empty() { one.user.to_string() } else { one.name.clone() };
        shown.add_row([name, one.from.clone(), one.to.clone(), moment(one.since_ms)]);
    }
    say(shown)
}

#[cfg(test)]
mod tests {
    use echotune_model::{Hlc, UserId};

    use super::*;
    use crate::output::page;

    fn leaving() -> Home {
        Home {
            region: "eu".into(),
            jurisdiction: "eea".into(),
            served_by: "north".into(),
            epoch: 3,
            moving: Some(Moving { to: "north".into(), since_ms: 1_700_000_000_000 }),
        }
    }

    #[test]
    fn json_of_regions_and_homes_has_the_shape_that_the_page_tells() {
        let region = RegionStatus {
            region: "eu".into(),
            jurisdiction: "eea".into(),
            served_by: "north".into(),
            epoch: 1,
            since_ms: 1_700_000_000_000,
            newest_write: Hlc(1_700_000_000_000 << 16),
        };
        page::check("region list, region fail-over, region fail-back", &regions_json(&[region]));
        page::check("region home, region move", &home_json("ann", &leaving()));
        assert!(home_json("ann", &Home { moving: None, ..leaving() })["moving"].is_null());
        let one = HomeMove {
            user: UserId::new(1_700_000_000_000),
            name: "ann".into(),
            from: "eu".into(),
            to: "north".into(),
            epoch: 3,
            since_ms: 1_700_000_000_000,
        };
        page::check("region home, region move --list", &moves_json(&[one]));
    }

    #[test]
    fn json_of_all_who_moved_is_one_object_with_the_shape_that_the_page_tells() {
        let why = "ben is moving to us already".to_owned();
        let moved = ["ann", "cat"].map(|name| (name.to_owned(), leaving())).to_vec();
        let told = all_moved_json(("eu", "north"), &AllMoved { moved, failed: vec![("ben".to_owned(), why)] });
        page::check("region home, region move --all-from", &told);
        assert_eq!((&told["moved"][1]["user"], &told["failed"][0]["user"]), (&"cat".into(), &"ben".into()), "{told}");
        let nobody = all_moved_json(("eu", "north"), &AllMoved::default());
        assert_eq!(nobody, json!({"from": "eu", "to": "north", "moved": [], "failed": []}));
    }
}
