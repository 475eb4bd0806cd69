//! Times of the engine beside those of its peers, in one call: `cargo xtask eval speed`.

mod measure;
mod table;
#[path = "../../../../benches/support/world.rs"]
mod world;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use echotune_engine::Interactions;

use self::{measure::Bench, table::Table};
use crate::{
    arguments::{Output, files_of},
    load,
    python::Python,
};

const SCRIPT: &str = include_str!("peers.py");

/// What is measured, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The exact scan of a million items
    Scan,
    /// The index of a million items
    Million,
    /// Fits of implicit ALS
    Ials,
    /// Single lists, folding in and explanations
    Online,
    /// The graph filter
    Filter,
    /// EASE of a whole catalogue
    Ease,
}

/// Measures times beside those of implicit, NumPy and SciPy
///
/// One measurement after the other, ours and the peer's in turn; leave the machine alone meanwhile.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Folder of the known data sets; gowalla and lastfm-hetrec2011 are used
    #[arg(long, value_name = "DIR", env = "ECHOTUNE_EVAL_DATA", default_value = "data")]
    data: PathBuf,
    /// What to measure [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    parts: Vec<Part>,
    /// Time implicit, NumPy and SciPy as well
    #[arg(long)]
    peers: bool,
    /// Python with numpy, scipy and implicit
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: PathBuf,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let python = arguments.peers.then(|| Python::start(&arguments.python, SCRIPT)).transpose()?;
    let data = |name: &str| -> anyhow::Result<Interactions> { Ok(load::load(&files_of(&arguments.data, name))?.all()) };
    let mut bench = Bench { python, table: Table::new(arguments.output) };
    for part in Part::value_variants() {
        if !arguments.parts.is_empty() && !arguments.parts.contains(part) {
            continue;
        }
        match part {
            Part::Scan => bench.scan()?,
            Part::Million => bench.million()?,
            Part::Ials => bench.ials(&data("gowalla")?)?,
            Part::Online => bench.online(&data("gowalla")?)?,
            Part::Filter => bench.filter(&data("gowalla")?)?,
            Part::Ease => bench.ease(&data("hetrec")?)?,
        }
    }
    bench.table.finish();
    Ok(())
}
