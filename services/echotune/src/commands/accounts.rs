//! Accounts and what they heard.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand, ValueEnum};
use echotune_api::RecommendQuery;
use echotune_model::{
    ErrorKind, ExplicitContent, Fault, Hlc, ItemKind, Listen, Page, PageRequest, Recommendations, fold,
};

use super::{
    Output, call, now_ms, runs,
    tokens::{self, TokenAction},
};
use crate::{Connection, import::ensure, output};

/// Items in the list that a listen changes.
const LIST: u32 = 10;
/// How long a listen may take to show.
const SHOWS_WITHIN: Duration = Duration::from_secs(30);
/// How often the list is asked for meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(5);

#[derive(Debug, Subcommand)]
pub(super) enum UserAction {
    /// List accounts, by creation.
    List {
        /// How many at the most.
        #[arg(short = 'n', default_value_t = 100)]
        limit: u32,
    },
    /// Make an account, for somebody who is to come in by a JWT; a listen or an import makes one too.
    Create {
        /// Its name: 1 to 64 letters, digits, '.', '_' or '-'.
        name: String,
    },
    /// Show how a person wants to be served, and change it.
    Settings(SettingsChange),
    /// Secrets with which programs call for one person.
    Token {
        #[command(subcommand)]
        action: TokenAction,
    },
    /// Print everything held about a person, one JSON object per line.
    Export {
        /// Whose data.
        name: String,
    },
    /// Erase everything held about a person, and print the receipt.
    Erase {
        /// Whose data.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct SettingsChange {
    /// Whose settings.
    name: String,
    /// Never recommend this artist. Can be given again.
    #[arg(long, value_name = "ARTIST")]
    block: Vec<String>,
    /// Recommend this artist again.
    #[arg(long, value_name = "ARTIST")]
    unblock: Vec<String>,
    /// Keep listens out of what others see (trending, similar).
    #[arg(long, value_name = "true|false")]
    private: Option<bool>,
    /// Which tracks to recommend by what is known of their content.
    #[arg(long, value_enum)]
    explicit: Option<Explicit>,
}

/// Which tracks are recommended by what is known of their content.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Explicit {
    /// All.
    Allow,
    /// All but those marked as explicit.
    Hide,
    /// Only those marked as clean.
    Strict,
}

impl From<Explicit> for ExplicitContent {
    fn from(explicit: Explicit) -> Self {
        match explicit {
            Explicit::Allow => Self::Allow,
            Explicit::Hide => Self::Hide,
            Explicit::Strict => Self::Strict,
        }
    }
}

/// What `echotune user` does.
pub(super) async fn account(connection: &mut Connection, action: &UserAction, output: Output) -> anyhow::Result<()> {
    match action {
        UserAction::List { limit } => {
            let page = PageRequest { size: *limit, ..PageRequest::default() };
            output::users(&connection.users.list_users(&call(), &page).await?.rows, output)
        }
        UserAction::Create { name } => {
            let made = connection.users.create_user(&call(), name).await?;
            connection.settle().await?;
            output::users(&[made], output)
        }
        UserAction::Settings(change) => settings(connection, change, output).await,
        UserAction::Token { action } => tokens::manage(connection, action, output).await,
        UserAction::Export { name } => export(connection, name).await,
        UserAction::Erase { name, yes } => {
            if !yes && !confirmed(name)? {
                anyhow::bail!("nothing was erased; type the name, or pass --yes");
            }
            let receipt = connection.users.erase_user(&call(), name).await?;
            connection.settle().await?;
            output::erasure(&receipt, output)
        }
    }
}

/// Prints everything that users, recommendations and agents hold about a person.
async fn export(connection: &mut Connection, name: &str) -> anyhow::Result<()> {
    let (users, recommendations) = (Arc::clone(&connection.users), Arc::clone(&connection.recommendations));
    every_page(
        async |page| users.export_user(&call(), name, &page).await,
        |record| output::say(format_args!("{{\"kind\":\"{}\",\"record\":{}}}", record.kind, record.json)),
    )
    .await?;
    every_page(
        async |page| recommendations.export_user(&call(), name, &page).await,
        |record| output::say(format_args!("{{\"kind\":\"{}\",\"record\":{}}}", record.kind, record.json)),
    )
    .await?;
    let agents = connection.start_agents(false).await?;
    let mut runs = Vec::new();
    every_page(
        async |page| agents.list_runs(&call(), name, &page).await,
        |run| {
            runs.push(run);
            Ok(())
        },
    )
    .await?;
    for run in runs {
        output::exported_run(&run, &runs::journal(&*agents, &run).await?)?;
    }
    Ok(())
}

/// Asks for page after page and hands over the rows.
async fn every_page<T>(
    ask: impl AsyncFn(PageRequest) -> Result<Page<T>, Fault>,
    mut row: impl FnMut(T) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut page = PageRequest::default();
    loop {
        let answer = ask(page.clone()).await?;
        answer.rows.into_iter().try_for_each(&mut row)?;
        if answer.next.is_empty() {
            return Ok(());
        }
        page.token = answer.next;
    }
}

async fn settings(connection: &mut Connection, change: &SettingsChange, output: Output) -> anyhow::Result<()> {
    let SettingsChange { name, block, unblock, private, explicit } = change;
    let held = connection.users.get_settings(&call(), name).await?;
    let mut wanted = held.clone();
    wanted.private = private.unwrap_or(held.private);
    wanted.explicit = explicit.map_or(held.explicit, Into::into);
    wanted.blocked_artists.retain(|artist| unblock.iter().chain(block).all(|named| fold(named) != fold(artist)));
    wanted.blocked_artists.extend(block.iter().cloned());
    if wanted != held {
        wanted = connection.users.update_settings(&call(), name, wanted).await?;
        connection.settle().await?;
    }
    output::settings(&wanted, output)
}

/// Whether a person types the name of what is to be erased.
fn confirmed(name: &str) -> anyhow::Result<bool> {
    eprint!("This erases everything held about {name} and cannot be undone. Type the name to go on: ");
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed)?;
    Ok(typed.trim() == name)
}

/// Records one listen and shows what it changes.
pub(super) async fn record(
    connection: &mut Connection,
    user: &str,
    listen: Listen,
    output: Output,
) -> anyhow::Result<()> {
    // Before anything is written: a listen that is refused makes no account.
    let now_ms = u64::try_from(now_ms()).unwrap_or_default();
    listen.check(now_ms).map_err(|reason| Fault::invalid(format!("the listen was not recorded: {reason}")))?;
    ensure(&*connection.users, &call(), user).await?;
    let before = list(connection, user).await.ok();
    let receipt = connection.users.record_listens(&call(), user, vec![listen]).await?;
    if let Some(rejection) = receipt.rejections.first() {
        return Err(Fault::invalid(format!("the listen was not recorded: {}", rejection.reason)).into());
    }
    connection.settle().await?;
    let after = list_after(connection, user, receipt.written_at).await?;
    output::receipt(&receipt, before.as_ref(), &after, output)
}

async fn list(connection: &Connection, user: &str) -> Result<Recommendations, Fault> {
    let query = RecommendQuery { kind: ItemKind::Artist, limit: LIST, include_known: false };
    connection.recommendations.recommend(&call(), user, &query).await
}

/// The list once it has seen what was written at `seen`.
async fn list_after(connection: &Connection, user: &str, seen: Hlc) -> Result<Recommendations, Fault> {
    let started = Instant::now();
    loop {
        match list(connection, user).await {
            Ok(list) if list.watermark >= seen => return Ok(list),
            // A new account is not known to recommendations before its first event has arrived.
            Ok(_) => {}
            Err(fault) if fault.kind == ErrorKind::NotFound => {}
            Err(fault) => return Err(fault),
        }
        if started.elapsed() > SHOWS_WITHIN {
            let message = "the listen is recorded, but does not show in the list yet; ask again later";
            return Err(Fault::new(ErrorKind::Unavailable, message));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
