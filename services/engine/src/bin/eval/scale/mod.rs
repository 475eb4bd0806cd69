//! How a whole refit grows with the listens: `cargo xtask eval scale`.

mod generate;
mod plot;

use std::{fs, path::PathBuf, process::Command, time::Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use echotune_engine::blend::{Blend, BlendOptions};
use serde::{Deserialize, Serialize};

use self::{generate::listens, plot::Curve};
use crate::arguments::Output;

/// Measures how time and memory of a whole refit grow with the listens
///
/// Listeners, items and their listens are generated, so that no data is needed. What is fitted is the blend as it
/// serves, cut to its strongest links. Each size is a process of its own, whose peak of memory is told.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Listeners of the largest size
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=50_000_000))]
    listeners: u32,
    /// Items of the catalogue, at every size
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    items: u32,
    /// Listens of the largest size
    #[arg(long, default_value_t = 100_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000_000))]
    listens: u64,
    /// Sizes that are measured, each with twice the listeners and listens of the one before
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=12))]
    steps: u32,
    /// Seed of the listens
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to draw the curves, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    /// Measure this size alone, in this process
    #[arg(long, hide = true)]
    alone: bool,
}

/// One size and what it took.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Size {
    listeners: u32,
    items: u32,
    listens: u64,
    /// Pairs of a listener and an item.
    pairs: usize,
    /// Links of the model.
    links: usize,
    generate_s: f64,
    fit_s: f64,
    compile_s: f64,
    /// All of the process, the listens included; none where the system does not tell it.
    peak_mb: Option<f64>,
}

impl Size {
    fn refit(&self) -> f64 {
        self.fit_s + self.compile_s
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.alone {
        println!("{}", serde_json::to_string(&measured(arguments))?);
        return Ok(());
    }
    let mut sizes: Vec<Size> = Vec::new();
    if arguments.output == Output::Table {
        println!(
            "{:>10} {:>12} {:>12} {:>10} {:>10} {:>10} {:>10}",
            "listeners", "listens", "pairs", "fit s", "cut s", "refit s", "peak MB"
        );
    }
    for step in (0..arguments.steps).rev() {
        let size = alone(arguments, step)?;
        match arguments.output {
            Output::Json => println!("{}", serde_json::to_string(&size)?),
            Output::Table => println!(
                "{:>10} {:>12} {:>12} {:>10.1} {:>10.1} {:>10.1} {:>10}",
                size.listeners,
                size.listens,
                size.pairs,
                size.fit_s,
                size.compile_s,
                size.refit(),
                size.peak_mb.map_or_else(|| "?".to_owned(), |peak| format!("{peak:.0}")),
            ),
        }
        sizes.push(size);
    }
    if let Some(path) = &arguments.plot {
        fs::write(path, plotted(&sizes))
            .with_context(|| format!("the plot cannot be written to {}", path.display()))?;
    }
    Ok(())
}

/// A size in a process of its own, halved `step` times.
fn alone(arguments: &Arguments, step: u32) -> anyhow::Result<Size> {
    let (listeners, listens) = ((arguments.listeners >> step).max(1), (arguments.listens >> step).max(1));
    let given = [
        ("--listeners", u64::from(listeners)),
        ("--items", arguments.items.into()),
        ("--listens", listens),
        ("--seed", arguments.seed),
    ];
    let program = std::env::current_exe().context("this program's own file")?;
    let mut command = Command::new(program);
    command.args(["scale", "--alone"]);
    given.iter().for_each(|(name, value)| {
        command.arg(name).arg(value.to_string());
    });
    let output = command.stderr(std::process::Stdio::inherit()).output().context("a process of its own")?;
    ensure!(output.status.success(), "the size of {listens} listens ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("what the process of its own printed")
}

fn measured(arguments: &Arguments) -> Size {
    let Arguments { listeners, items, listens: count, seed, .. } = *arguments;
    let start = Instant::now();
    let (known, listens) = listens(listeners, items, count, seed);
    let generate_s = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let blend = Blend::fit(&known, None, BlendOptions::default()).expect("the options that serve");
    let fit_s = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let graph = blend.compile(&|_| {});
    let compile_s = start.elapsed().as_secs_f64();
    let links = (0..items).map(|item| graph.row(item).len()).sum();
    let pairs = known.len();
    Size { listeners, items, listens, pairs, links, generate_s, fit_s, compile_s, peak_mb: peak() }
}

/// The most memory that this process has held, in megabytes, as Linux tells it.
fn peak() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

#[expect(clippy::cast_precision_loss, reason = "to be drawn")]
fn plotted(sizes: &[Size]) -> String {
    let points = |value: &dyn Fn(&Size) -> Option<f64>| {
        sizes.iter().filter_map(|size| Some((size.listens as f64 / 1e6, value(size)?))).collect()
    };
    plot::svg(
        "million listens",
        &[
            Curve { name: "refit, seconds", points: points(&|size| Some(size.refit())) },
            Curve { name: "peak memory, MB", points: points(&|size| size.peak_mb) },
        ],
    )
}
