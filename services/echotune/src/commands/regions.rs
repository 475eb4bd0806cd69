//! Which region makes the writes of which users.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::{ArgGroup, Subcommand};
use echotune_api::{Regions, Users};
use echotune_model::{Call, ErrorKind, Fault, Home, PageRequest, RegionStatus, User};
use futures::{StreamExt as _, stream};

use super::{Output, call};
use crate::{
    Connection,
    output::{self, AllMoved},
};

#[derive(Debug, Subcommand)]
pub(super) enum RegionAction {
    /// List all regions and who serves each, as the region that is asked sees them.
    List,
    /// Show where the writes of a user are made.
    Home {
        /// Whose.
        user: String,
    },
    /// Have the region that is asked make the writes of the users of another, which is lost. What had not come here by
    /// then is missing until the other is back.
    FailOver {
        /// The lost region.
        region: String,
        /// The region that is asked.
        #[arg(long)]
        to: String,
    },
    /// Move the home of a user to the region that is asked, or go on with a move that was cut off. Nobody writes for the
    /// user meanwhile: a quarter of a minute, and longer for long histories.
    #[command(group = ArgGroup::new("who").required(true).args(["user", "list", "all_from"]))]
    Move {
        /// Whose.
        user: Option<String>,
        /// The region that is asked.
        #[arg(long, required_unless_present_any = ["list", "abort"])]
        to: Option<String>,
        /// Take back a move that has not ended.
        #[arg(long, conflicts_with_all = ["to", "list", "all_from"])]
        abort: bool,
        /// List users who move, as far as the region that is asked knows.
        #[arg(long, conflicts_with = "to")]
        list: bool,
        /// Move all users who are at home in this region, a few at once.
        #[arg(long, value_name = "REGION")]
        all_from: Option<String>,
    },
    /// Have the region that is asked make the writes of its own users again, once it has caught up.
    FailBack {
        /// The region that is asked.
        region: String,
    },
}

/// For how long a move is waited for, which is shorter than regions let a call take unless they are told otherwise.
const PATIENCE: Duration = Duration::from_secs(240);
/// Users who move at once. Each waits more than it works.
const AT_ONCE: usize = 16;
/// Users who are listed at a time.
const PAGE: u32 = 500;

/// What `echotune region` does.
pub(super) async fn manage(connection: &Connection, action: &RegionAction, output: Output) -> anyhow::Result<()> {
    let regions: &Arc<dyn Regions> = connection.regions.as_ref().ok_or_else(|| {
        let message = "the platform on a data folder is one region alone; connect.services tells where others are";
        Fault::new(ErrorKind::FailedPrecondition, message)
    })?;
    match action {
        RegionAction::List => output::regions(&regions.list_regions(&call()).await?, output),
        RegionAction::Home { user } => output::home(user, &regions.get_home(&call(), user).await?, output),
        RegionAction::FailOver { region, to } => {
            output::regions(&[regions.fail_over(&call(), region, to).await?], output)
        }
        RegionAction::Move { list: true, .. } => output::moves(&regions.list_moves(&call()).await?, output),
        RegionAction::Move { user: Some(user), abort: true, .. } => {
            output::home(user, &regions.abort_move(&call(), user).await?, output)
        }
        RegionAction::Move { user: Some(user), to: Some(to), .. } => {
            output::home(user, &regions.move_home(&patient(), user, to).await?, output)
        }
        RegionAction::Move { all_from: Some(from), to: Some(to), .. } => {
            move_all(connection, regions.as_ref(), (from, to), output).await
        }
        // The parser lets none of these through.
        RegionAction::Move { .. } => bail!("name a user and --to, or --list"),
        RegionAction::FailBack { region } => output::regions(&[regions.fail_back(&call(), region).await?], output),
    }
}

fn patient() -> Call {
    Call { deadline: Some(Instant::now() + PATIENCE), ..call() }
}

/// Moves all users of one region to another; one that cannot move does not keep the others.
async fn move_all(
    connection: &Connection,
    regions: &dyn Regions,
    (from, to): (&str, &str),
    output: Output,
) -> anyhow::Result<()> {
    // Users of another jurisdiction are not listed here, and none would move.
    check_same(&regions.list_regions(&call()).await?, from, to)?;
    let mut all = AllMoved::default();
    let listed = move_listed(connection.users.as_ref(), regions, (from, to), output, &mut all).await;
    if output == Output::Json {
        // Whoever has moved is told of, also when the others cannot be listed.
        output::all_moved((from, to), &all)?;
    }
    listed?;
    let (moved, failed) = (all.moved.len(), all.failed.len());
    eprintln!("{moved} users moved from {from} to {to}");
    if failed > 0 {
        bail!("{failed} users did not move; the same command goes on with them");
    }
    Ok(())
}

/// Moves users as they are listed, and adds to `all` what becomes of them. For people each is told as soon as it moved.
async fn move_listed(
    users: &dyn Users,
    regions: &dyn Regions,
    (from, to): (&str, &str),
    output: Output,
    all: &mut AllMoved,
) -> anyhow::Result<()> {
    let mut page = PageRequest { size: PAGE, token: String::new() };
    loop {
        let listed = users.list_users(&call(), &page).await?;
        let moves = listed.rows.into_iter().map(|user| move_one(regions, user, (from, to)));
        let mut moves = stream::iter(moves).buffer_unordered(AT_ONCE);
        while let Some((user, made)) = moves.next().await {
            let name = user.name.to_string();
            match made {
                Ok(None) => {}
                Ok(Some(home)) => {
                    if output == Output::Table {
                        output::home(&name, &home, output)?;
                    }
                    all.moved.push((name, home));
                }
                Err(cause) => {
                    eprintln!("{name} did not move: {cause}");
                    all.failed.push((name, cause.to_string()));
                }
            }
        }
        if listed.next.is_empty() {
            return Ok(());
        }
        page.token = listed.next;
    }
}

/// Refuses regions that are not known, or of two jurisdictions.
fn check_same(regions: &[RegionStatus], from: &str, to: &str) -> Result<(), Fault> {
    let of = |name: &str| {
        let found = regions.iter().find(|one| one.region == name).map(|one| one.jurisdiction.as_str());
        found.ok_or_else(|| Fault::new(ErrorKind::NotFound, format!("region '{}' is not known", name.escape_debug())))
    };
    let (left, entered) = (of(from)?, of(to)?);
    if left == entered {
        return Ok(());
    }
    let why =
        format!("users of '{from}' stay in jurisdiction '{left}', and '{to}' is of '{entered}'; nothing was changed");
    Err(Fault::new(ErrorKind::FailedPrecondition, why))
}

/// Moves a user of a region; nothing for the users of others. One who is on the way there counts as one of it.
async fn move_one(regions: &dyn Regions, user: User, (from, to): (&str, &str)) -> (User, Result<Option<Home>, Fault>) {
    let name = user.name.as_str();
    let made = async {
        if regions.get_home(&call(), name).await?.region != from {
            return Ok(None);
        }
        regions.move_home(&patient(), name, to).await.map(Some)
    };
    let made = made.await;
    (user, made)
}

#[cfg(test)]
mod tests {
    use echotune_model::Hlc;

    use super::*;

    #[test]
    fn users_of_a_region_move_within_its_jurisdiction() {
        let status = |(region, jurisdiction): (&str, &str)| RegionStatus {
            region: region.into(),
            jurisdiction: jurisdiction.into(),
            served_by: region.into(),
            epoch: 0,
            since_ms: 0,
            newest_write: Hlc::default(),
        };
        let regions = [("us", "open"), ("eu", "eea"), ("north", "eea")].map(status);
        assert!(check_same(&regions, "eu", "north").is_ok());
        let refused = check_same(&regions, "eu", "us").expect_err("across");
        assert!(refused.message.contains("'eea'") && refused.message.contains("'open'"), "{refused}");
        assert_eq!(check_same(&regions, "moon", "us").expect_err("unknown").kind, ErrorKind::NotFound);
        assert!(check_same(&[("us", ""), ("eu", "")].map(status), "eu", "us").is_ok(), "there are none");
    }
}
