//! Times of the engine beside those of its peers, in one call: `cargo xtask eval speed`.

mod measure;
mod table;
#[path = "../../../../benches/support/world.rs"]
mod world;

use std::path::PathBuf;

use anyhow::bail;
use clap::Parser;

use self::{measure::Bench, table::Table};
use crate::{
    arguments::{Output, files_of},
    load,
    python::Python,
};

const SCRIPT: &str = include_str!("peers.py");

/// A part of the measurements.
type Part = (&'static str, fn(&mut Bench, &mut Table) -> anyhow::Result<()>);

/// In the order they are measured.
const PARTS: [Part; 6] = [
    ("scan", Bench::scan),
    ("million", Bench::million),
    ("ials", Bench::ials),
    ("online", Bench::online),
    ("filter", Bench::filter),
    ("ease", Bench::ease),
];

/// Measures times of fits, lists, folding in and explanations, and with --peers those of implicit, NumPy and
/// SciPy beside them. One measurement after the other, ours and the peer's in turn; leave the machine alone
/// meanwhile.
#[derive(Debug, Parser)]
#[command(name = "echotune-eval speed", bin_name = "cargo xtask eval speed", about)]
pub(crate) struct Arguments {
    /// Folder of the known data sets; gowalla and lastfm-hetrec2011 are used
    #[arg(long, value_name = "DIR", env = "ECHOTUNE_EVAL_DATA", default_value = "data")]
    data: PathBuf,
    /// What to measure: scan, million, ials, online, filter, ease [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    parts: Vec<String>,
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
    for wanted in &arguments.parts {
        if !PARTS.iter().any(|(name, _)| name == wanted) {
            let names = PARTS.map(|(name, _)| name).join(", ");
            bail!("no part is named '{wanted}'; there are {names}");
        }
    }
    let python = arguments.peers.then(|| Python::start(&arguments.python, SCRIPT)).transpose()?;
    let load = |name: &str| load::load(&files_of(&arguments.data, name));
    let mut bench = Bench { gowalla: load("gowalla")?.all(), hetrec: load("hetrec")?.all(), python };
    let mut table = Table::new(arguments.output);
    for (name, part) in PARTS {
        if arguments.parts.is_empty() || arguments.parts.iter().any(|wanted| wanted == name) {
            part(&mut bench, &mut table)?;
        }
    }
    table.finish();
    Ok(())
}
