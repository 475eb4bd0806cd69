//! The history of a data folder moves to a platform of several machines.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use echotune_model::{ErrorKind, Fault};

use super::{Arguments, call};
use crate::{
    Config, Connection,
    import::Progress,
    migrate::{self, Destination, Mode, PARALLEL, Request},
    output,
};

const HELP: &str = "\
The folder is the one of --data; no platform may run on it, and nothing in it is changed. The destination is where
connect.services and the other keys of [connect] point to, with the token of an operator in connect.token_file.

What moves, with its ids and times: accounts, profiles, settings (blocked artists, explicit tracks), listens, play counts,
taggings, friendships, libraries, playlists, API tokens (their secrets go on working) and feedback (what was liked and
disliked).
What is made anew there: totals, events, lists, models, what is trending.
What is left behind, and stays in the folder: impressions, experiments and releases, which are about the lists and models of
that folder; runs of workflows and their journals, which belong to the platform that carries them out (the playlists they
made move); idempotency keys, traces and receipts of erasures.

Run again, it sends what is missing and nothing else: after it was cut off, it goes on. What is at the destination is never
overwritten. At the end every account is compared by counts and checksums; differences are told and end the command with
exit code 1.

Example:
  export ECHOTUNE__CONNECT__SERVICES=http://127.0.0.2:7430 ECHOTUNE__CONNECT__RECOMMENDATIONS=http://127.0.0.2:7440
  export ECHOTUNE__CONNECT__TOKEN_FILE=token
  echotune --data FOLDER migrate --from embedded --to distributed --dry-run
  echotune --data FOLDER migrate --from embedded --to distributed";

/// Where a history is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    /// In a data folder.
    Embedded,
}

/// Where a history goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    /// To the programs of a region.
    Distributed,
}

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct MigrateArguments {
    /// Where the history is.
    #[arg(long, value_enum)]
    from: From,
    /// Where it goes.
    #[arg(long, value_enum)]
    to: To,
    /// Move this account alone. Can be given again.
    #[arg(long, value_name = "NAME")]
    user: Vec<String>,
    /// Have an account take another name at the destination, where its own is somebody else's. Can be given again.
    #[arg(long, value_name = "OLD=NEW", value_parser = renamed)]
    rename: Vec<(String, String)>,
    /// Count what would move and see that it can; write nothing.
    #[arg(long, conflicts_with = "verify")]
    dry_run: bool,
    /// Compare both sides again; write nothing.
    #[arg(long)]
    verify: bool,
    /// Requests under way at the most.
    #[arg(long, default_value_t = PARALLEL as u64, value_parser = clap::value_parser!(u64).range(1..=64))]
    parallel: u64,
}

fn renamed(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(old, new)| !old.is_empty() && !new.is_empty());
    let (old, new) = parts.ok_or_else(|| "expected OLD=NEW, such as ann=ann-of-home".to_owned())?;
    Ok((old.to_owned(), new.to_owned()))
}

/// What `echotune migrate` does.
pub(super) async fn run(wanted: &MigrateArguments, arguments: &Arguments, config: &Config) -> anyhow::Result<()> {
    let (From::Embedded, To::Distributed) = (wanted.from, wanted.to);
    if !config.connect.is_elsewhere() {
        let why = "no destination is configured; set connect.services, connect.recommendations and connect.token_file by --set, the environment or --config";
        return Err(Fault::invalid(why).into());
    }
    let connection = Connection::elsewhere(config)?;
    let destination =
        Destination { users: Arc::clone(&connection.users), recommendations: Arc::clone(&connection.recommendations) };
    let mode = match (wanted.dry_run, wanted.verify) {
        (true, _) => Mode::DryRun,
        (false, true) => Mode::Verify,
        (false, false) => Mode::Move,
    };
    let request = Request {
        folder: arguments.data.clone(),
        users: wanted.user.clone(),
        renames: wanted.rename.clone(),
        mode,
        parallel: usize::try_from(wanted.parallel).unwrap_or(PARALLEL),
    };
    let report = migrate::run(destination, &call(), &request, &Progress::stderr()).await.map_err(Fault::from)?;
    output::migration(&report, arguments.output)?;
    if mode == Mode::DryRun || report.is_verified() {
        return Ok(());
    }
    let differing = report.accounts.iter().filter(|account| !account.verified).count();
    let why = format!(
        "the destination differs from the folder in {differing} accounts; if nobody has used them there since, run it again"
    );
    Err(Fault::new(ErrorKind::DataLoss, why).into())
}
