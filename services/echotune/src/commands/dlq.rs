//! Records that consumers could not apply, and handing them over again.

use std::sync::Arc;

use clap::{ArgGroup, Args, Subcommand};
use echotune_api::DeadLetters;
use echotune_model::DeadLetterFilter;

use super::{Output, call};
use crate::{Connection, output};

const AFTER_REPLAY: &str = "\
A letter is replayed once, unless --again says otherwise, and only its own consumer gets it. Replay what was set aside by a \
program that did not understand it, once a newer one runs. What it says takes effect as if it came now: play counts that \
came after it are overwritten, newer settings are not.";

#[derive(Debug, Args)]
pub(super) struct DlqArguments {
    /// Work with the brokers that [kafka] tells of, in place of a platform.
    #[arg(long, global = true)]
    pub(super) servers: bool,
    #[command(subcommand)]
    action: DlqAction,
}

#[derive(Debug, Subcommand)]
enum DlqAction {
    /// List dead letters, newest first: where from, why, when, how often tried.
    List {
        #[command(flatten)]
        which: Which,
        /// How many at the most: 1 to 10000.
        #[arg(short = 'n', long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Hand dead letters to their consumers again.
    #[command(after_help = AFTER_REPLAY, group = ArgGroup::new("letters").args(["id", "all"]).required(true))]
    Replay {
        #[command(flatten)]
        which: Which,
        /// The letters with these ids.
        #[arg(long, value_name = "ID")]
        id: Vec<String>,
        /// All of them.
        #[arg(long)]
        all: bool,
        /// Also those that were replayed before.
        #[arg(long)]
        again: bool,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// Only of this topic.
    #[arg(long, default_value = "", hide_default_value = true)]
    topic: String,
    /// Only of this consumer.
    #[arg(long, default_value = "", hide_default_value = true)]
    consumer: String,
}

impl Which {
    fn filter(&self, ids: &[String]) -> DeadLetterFilter {
        DeadLetterFilter { topic: self.topic.clone(), consumer: self.consumer.clone(), ids: ids.to_vec() }
    }
}

impl DlqArguments {
    /// What `echotune dlq` does on a platform. In a folder that this opened, replays take effect before it is left.
    pub(super) async fn run(&self, connection: &mut Connection, output: Output) -> anyhow::Result<()> {
        let letters = Arc::clone(&connection.dead_letters);
        self.run_on(&*letters, output).await?;
        connection.settle().await
    }

    /// What `echotune dlq` does.
    pub(super) async fn run_on(&self, letters: &dyn DeadLetters, output: Output) -> anyhow::Result<()> {
        match &self.action {
            DlqAction::List { which, limit } => {
                output::dead_letters(&letters.list_dead_letters(&call(), &which.filter(&[]), *limit).await?, output)
            }
            DlqAction::Replay { which, id, all: _, again } => {
                output::replayed(letters.replay_dead_letters(&call(), &which.filter(id), *again).await?, output)
            }
        }
    }
}
