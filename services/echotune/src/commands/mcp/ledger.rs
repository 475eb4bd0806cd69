//! `echotune mcp ledger`: entries of calls.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use echotune_gateway::metering::{Column, PublicKey, sum, verify};
use echotune_model::Fault;

use super::Output;
use crate::{commands::moment, output};

const AFTER_VERIFY: &str = "\
Every line's digest, place and signature are proven. Lines that were taken off the very end leave no trace in what is \
left: note what this prints as head, and give it again with --head.";

#[derive(Debug, Subcommand)]
pub(crate) enum LedgerAction {
    /// Prove that a ledger is whole.
    #[command(after_help = AFTER_VERIFY)]
    Verify {
        #[command(flatten)]
        which: Which,
        /// A line that was there before, and must still be: its place and digest.
        #[arg(long, value_name = "PLACE:DIGEST", value_parser = head)]
        head: Option<(u64, String)>,
    },
    /// Add up calls, units and amounts. Calls that two ledgers have under one key are billed once.
    Sum {
        #[command(flatten)]
        which: Which,
        /// By what: tenant, publisher, server, tool, caller, plan, region, outcome.
        #[arg(long, value_delimiter = ',', default_value = "tenant,publisher")]
        by: Vec<Column>,
        /// Only calls that ended at this time or later: seconds since the Unix epoch, or such as 2026-11-01T00:00:00Z.
        #[arg(long, value_name = "TIME", value_parser = moment)]
        from: Option<i64>,
        /// Only calls that ended before this time.
        #[arg(long, value_name = "TIME", value_parser = moment)]
        until: Option<i64>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Folders of ledgers.
    #[arg(required = true)]
    ledgers: Vec<PathBuf>,
    /// The public key of all of them, as hexadecimal digits; that beside each when not given.
    #[arg(long, value_name = "KEY")]
    key: Option<PublicKey>,
}

impl Which {
    fn key(&self, folder: &Path) -> anyhow::Result<PublicKey> {
        Ok(self.key.map_or_else(|| PublicKey::read(folder), Ok)?)
    }
}

fn head(text: &str) -> Result<(u64, String), String> {
    let parts = text.split_once(':').and_then(|(place, digest)| Some((place.parse().ok()?, digest.to_owned())));
    parts.ok_or_else(|| "expected PLACE:DIGEST, as `echotune mcp ledger verify` prints it".to_owned())
}

impl LedgerAction {
    pub(super) fn run(&self, output: Output) -> anyhow::Result<()> {
        match self {
            Self::Verify { which, head } => {
                if head.is_some() && which.ledgers.len() > 1 {
                    return Err(Fault::invalid("--head is of one ledger; name one").into());
                }
                let noted = head.as_ref().map(|(place, digest)| (*place, digest.as_str()));
                let mut reports = Vec::new();
                for folder in &which.ledgers {
                    reports.push((folder.clone(), verify(folder, &which.key(folder)?, noted)?));
                }
                output::ledgers_verified(&reports, output)?;
                let broken = reports.iter().filter(|(_, report)| !report.is_whole()).count();
                anyhow::ensure!(broken == 0, "{broken} of {} ledgers are not whole", reports.len());
                Ok(())
            }
            Self::Sum { which, by, from, until } => {
                let at = |moment: Option<i64>, otherwise: u64| {
                    moment.map_or(otherwise, |moment| u64::try_from(moment).unwrap_or(0))
                };
                let ledgers = which.ledgers.iter().map(|folder| Ok((folder.clone(), which.key(folder)?)));
                let ledgers = ledgers.collect::<anyhow::Result<Vec<_>>>()?;
                let sums = sum(&ledgers, by, (at(*from, 0), at(*until, u64::MAX)))?;
                output::ledgers_summed(&sums, by, output)?;
                let broken: Vec<_> =
                    which.ledgers.iter().zip(&sums.ledgers).filter(|(_, one)| !one.is_whole()).collect();
                if let Some((folder, _)) = broken.first() {
                    let folder = folder.display();
                    anyhow::bail!(
                        "not all of it could be added up; `echotune mcp ledger verify {folder}` tells what is wrong"
                    );
                }
                Ok(())
            }
        }
    }
}
