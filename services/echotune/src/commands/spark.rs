//! Training past one machine: histories out to Apache Spark, factors back as a candidate, and lists from it.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use echotune_api::MAX_LIMIT;
use echotune_model::{Fault, Item, ItemId, Reason, ReasonKind, Recommendation, Recommendations};
use echotune_recommendations::candidate::{self, Candidate, Listed};
use futures::TryStreamExt as _;

use super::{Kind, Output, call};
use crate::{Connection, output};

/// Items of the history told one by one of each item when not all are asked for.
const REASONS: usize = 5;

const AFTER_EXPORT: &str = "\
The folder then holds listens/kind=K/part=N/rows.parquet to train on, held-out/… to judge by, and manifest.json. It
is written whole or not at all. What is written about listeners is personal: keep it as the data folder is kept, and
remove it when the factors are there.";

#[derive(Debug, Subcommand)]
pub(super) enum SparkAction {
    /// Write the histories of all listeners who are not private as partitioned Parquet.
    #[command(after_help = AFTER_EXPORT)]
    Export(ExportArguments),
    /// Take factors of the job als.py as a candidate, which does not serve yet.
    Import(ImportArguments),
    /// List the candidates, newest first.
    Candidates,
    /// Show what a candidate would recommend, by its links alone: without friends, popularity and refusals.
    Recommend(ListArguments),
}

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// Folder to be made; one that is there must be empty.
    folder: PathBuf,
    /// Partitions of each kind, by listener: 1 to 256.
    #[arg(long, default_value_t = 16)]
    partitions: u64,
    /// Per cent of the listeners of whom a tenth of the items is held out to judge by: 0 to 50.
    #[arg(long, default_value_t = 10, value_name = "PERCENT")]
    hold_out: u64,
}

#[derive(Debug, Clone, Args)]
pub(super) struct ImportArguments {
    /// Folder that the job wrote.
    factors: PathBuf,
    /// The export that it was trained on.
    #[arg(long, value_name = "FOLDER")]
    export: PathBuf,
    /// Share of the blend's NDCG@10 that the candidate has to reach; 0 takes anything.
    #[arg(long, default_value_t = 0.9)]
    min_share: f64,
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// For whom.
    #[arg(long)]
    user: String,
    /// Number of the candidate [default: the newest of the kind].
    #[arg(long)]
    candidate: Option<u64>,
    /// What to recommend.
    #[arg(long, value_enum, default_value = "artist")]
    kind: Kind,
    /// How many.
    #[arg(short = 'n', default_value_t = 10)]
    limit: u32,
    /// Show every reason below each item.
    #[arg(long)]
    explain: bool,
}

/// What `echotune spark` does.
pub(super) async fn manage(
    connection: &Connection,
    data: &Path,
    action: &SparkAction,
    output: Output,
) -> anyhow::Result<()> {
    match action {
        SparkAction::Export(wanted) => files::export(connection, wanted, output).await,
        SparkAction::Import(wanted) => files::import(connection, data, wanted, output).await,
        SparkAction::Candidates => {
            let folder = candidate::folder(data).map_err(Fault::from)?;
            let mut found = Vec::new();
            for stored in folder.list().map_err(candidate::CandidateError::from).map_err(Fault::from)? {
                let candidate = Candidate::read(&stored).map_err(Fault::from)?;
                found.push((stored.number, candidate.version, candidate.about));
            }
            output::candidates(&found, output)
        }
        SparkAction::Recommend(wanted) => recommend(connection, data, wanted, output).await,
    }
}

async fn recommend(connection: &Connection, data: &Path, wanted: &ListArguments, output: Output) -> anyhow::Result<()> {
    let ListArguments { user, candidate, kind, limit, explain } = wanted;
    if !(1..=MAX_LIMIT).contains(limit) {
        return Err(Fault::invalid(format!("limit is {limit}; ask for 1 to {MAX_LIMIT} items")).into());
    }
    let kind = (*kind).into();
    let mut histories = connection.training.export_histories(&call(), Some(user)).await?;
    let mut history = Vec::new();
    while let Some(part) = histories.parts.try_next().await? {
        let of_kind = part.into_iter().filter(|part| part.kind == kind);
        history.extend(of_kind.flat_map(|part| part.items).map(|known| (known.item, known.plays)));
    }
    let folder = candidate::folder(data).map_err(Fault::from)?;
    let candidate = candidate::find(&folder, *candidate, kind).map_err(Fault::from)?;
    let listed = candidate.list(&history, *limit as usize);
    let told = if *explain { usize::MAX } else { REASONS };
    let mut names = Names { connection, found: HashMap::new() };
    let mut items = Vec::new();
    for (rank, one) in (1..).zip(listed) {
        // An item that nobody knows any more cannot be named, and is not listed.
        if let Some(item) = names.item(one.item).await? {
            items.push(names.told(rank, item, one, told).await?);
        }
    }
    let list = Recommendations {
        model_version: candidate.version,
        watermark: histories.watermark,
        trace: call().trace,
        cold_start: false,
        items,
        exposure: None,
        changes: Vec::new(),
    };
    output::recommendations(&list, *explain, connection.is_remote(), output)
}

/// Names of items, each asked for once.
struct Names<'c> {
    connection: &'c Connection,
    found: HashMap<ItemId, Option<Item>>,
}

impl Names<'_> {
    async fn item(&mut self, id: ItemId) -> Result<Option<Item>, Fault> {
        if let Some(found) = self.found.get(&id) {
            return Ok(found.clone());
        }
        let found = match self.connection.recommendations.get_item(&call(), id).await {
            Ok(item) => Some(item),
            Err(fault) if fault.kind == echotune_model::ErrorKind::NotFound => None,
            Err(fault) => return Err(fault),
        };
        self.found.insert(id, found.clone());
        Ok(found)
    }

    /// An item with its strongest reasons, and the others as one.
    async fn told(&mut self, rank: u32, item: Item, listed: Listed, told: usize) -> Result<Recommendation, Fault> {
        let Item { id, kind, title, artist, .. } = item;
        let Listed { score, parts, .. } = listed;
        let (named, others) = parts.split_at(parts.len().min(told));
        let mut reasons = Vec::new();
        for (past, contribution) in named {
            let of = self.item(*past).await?;
            let of = of.map_or_else(|| past.to_string(), |item| output::label(&item.title, &item.artist));
            reasons.push(Reason { kind: ReasonKind::Listen, of, contribution: *contribution });
        }
        if !others.is_empty() {
            let contribution = others.iter().map(|(_, part)| part).sum();
            let of = format!("{} more", others.len());
            reasons.push(Reason { kind: ReasonKind::OtherListens, of, contribution });
        }
        let drawn_from = String::new();
        Ok(Recommendation {
            rank,
            id,
            kind,
            title,
            artist,
            score,
            score_before: None,
            base: 0.0,
            reasons,
            propensity: 1.0,
            drawn_from,
        })
    }
}

/// What reads and writes Parquet.
#[cfg(feature = "spark")]
mod files {
    use anyhow::Context as _;
    use echotune_recommendations::spark::{Export, ExportOptions, Import, ImportOptions, Present};

    use super::*;
    use crate::import::{Amount, Progress};

    pub(super) async fn export(
        connection: &Connection,
        wanted: &ExportArguments,
        output: Output,
    ) -> anyhow::Result<()> {
        let ExportArguments { folder, partitions, hold_out } = wanted;
        let options = ExportOptions { partitions: *partitions, held_out_percent: *hold_out };
        let mut histories = connection.training.export_histories(&call(), None).await?;
        let progress = Progress::stderr();
        progress.begin(Amount::Rows(histories.rows));
        // Nothing else runs in this command while it writes.
        let mut export = Export::begin(folder, options, &histories).map_err(Fault::from)?;
        while let Some(part) = histories.parts.try_next().await? {
            for history in part {
                export.add(&history).map_err(Fault::from)?;
                progress.advance(history.items.len() as u64);
            }
        }
        let manifest = export.finish().map_err(Fault::from)?;
        progress.end();
        output::listens_exported(folder, &manifest, output)
    }

    pub(super) async fn import(
        connection: &Connection,
        data: &Path,
        wanted: &ImportArguments,
        output: Output,
    ) -> anyhow::Result<()> {
        let ImportArguments { factors, export, min_share } = wanted.clone();
        if !(0.0..=1.0).contains(&min_share) {
            return Err(Fault::invalid(format!("--min-share is {min_share}; it is from 0 to 1")).into());
        }
        let read = tokio::task::spawn_blocking(move || Import::read(&export, &factors));
        let import = read.await?.map_err(Fault::from)?;
        let histories = connection.training.export_histories(&call(), None).await?;
        let kind = import.kind();
        let present = Present::collect(histories, kind).await?;
        let folder = candidate::folder(data).map_err(Fault::from)?;
        let progress = Progress::stderr();
        progress.begin(Amount::Rows(PARTS));
        let finish = move || {
            let imported = import.finish(&present, &folder, ImportOptions { min_share }, &|share| {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a thousand")]
                progress.reach((share.clamp(0.0, 1.0) * 1_000.0) as u64);
            });
            progress.end();
            imported
        };
        let imported = tokio::task::spawn_blocking(finish).await.context("the import ended early")?;
        let imported = imported.map_err(Fault::from)?;
        // Whoever left while the model was made is not to be in it.
        let histories = connection.training.export_histories(&call(), None).await?;
        imported.confirm(&Present::collect(histories, kind).await?).map_err(Fault::from)?;
        output::factors_imported(&imported, output)
    }

    /// Steps of the bar of an import.
    const PARTS: u64 = 1_000;
}

#[cfg(not(feature = "spark"))]
mod files {
    use echotune_model::ErrorKind;

    use super::*;

    fn missing() -> anyhow::Error {
        let message = "this program was built without Parquet, which is how Spark is spoken to; build it with \
                       `cargo build --release --features spark`";
        Fault::new(ErrorKind::FailedPrecondition, message).into()
    }

    pub(super) async fn export(_: &Connection, _: &ExportArguments, _: Output) -> anyhow::Result<()> {
        Err(missing())
    }

    pub(super) async fn import(_: &Connection, _: &Path, _: &ImportArguments, _: Output) -> anyhow::Result<()> {
        Err(missing())
    }
}
