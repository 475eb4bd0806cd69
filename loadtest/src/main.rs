//! The command `echotune-loadtest`.

use std::{fs, path::PathBuf, process::Command, thread};

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};
use comfy_table::Table;
use echotune_loadtest::{
    drive::{Measured, closed, open, paced},
    scenario::{Arrivals, Scenario},
    target::{Place, Target},
};
use serde_json::{Value, json};

/// Puts a load on a running platform and prints what was measured.
#[derive(Debug, Parser)]
struct Arguments {
    /// A file such as loadtest/scenarios/recommend.toml.
    scenario: PathBuf,
    /// Data folder of the running platform.
    #[arg(long, default_value = "data")]
    data: PathBuf,
    /// Where users are served, such as http://127.0.0.2:7430, instead of a platform in one process.
    #[arg(long, requires = "recommendations", requires = "token_file")]
    users: Option<String>,
    /// Where recommendations are served then.
    #[arg(long, requires = "users")]
    recommendations: Option<String>,
    /// The file with their token.
    #[arg(long, requires = "users")]
    token_file: Option<PathBuf>,
    /// Process id of the platform, to print its memory.
    #[arg(long)]
    pid: Option<u32>,
    /// How to print the result.
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let text = fs::read_to_string(&arguments.scenario)
        .with_context(|| format!("{} cannot be read", arguments.scenario.display()))?;
    let scenario = Scenario::read(&text).map_err(anyhow::Error::msg)?;
    let at = match (&arguments.users, &arguments.recommendations, &arguments.token_file) {
        (Some(users), Some(recommendations), Some(token)) => Place::elsewhere(users, recommendations, token)?,
        _ => Place::of_folder(&arguments.data)?,
    };
    let target = Target::prepare(at, &scenario).await?;
    let request = move |number| target.clone().send(number);
    let measured = match scenario.arrivals {
        Arrivals::Open { per_second, requests, in_flight } => {
            open(paced(per_second, requests), in_flight, request).await
        }
        Arrivals::Closed { callers, each } => closed(callers, each, request).await,
    };
    let rss = arguments.pid.map(resident_kib).transpose()?;
    let result = result(&arguments, &measured, rss);
    if arguments.output == Output::Json {
        println!("{result:#}");
    } else {
        let mut table = Table::new();
        for (name, value) in result.as_object().into_iter().flatten() {
            table.add_row([name.clone(), value.to_string()]);
        }
        println!("{table}");
    }
    ensure!(measured.errors == 0, "{} requests failed: {}", measured.errors, measured.first_error.unwrap_or_default());
    Ok(())
}

fn result(arguments: &Arguments, measured: &Measured, rss_kib: Option<u64>) -> Value {
    json!({
        "scenario": arguments.scenario.file_stem().map(|name| name.to_string_lossy()),
        "answers": measured.latencies.len(),
        "errors": measured.errors,
        "per_second": measured.rate(),
        "p50_ms": measured.quantile_ms(0.5),
        "p90_ms": measured.quantile_ms(0.9),
        "p99_ms": measured.quantile_ms(0.99),
        "p999_ms": measured.quantile_ms(0.999),
        "max_ms": measured.quantile_ms(1.0),
        "rss_kib": rss_kib,
        "commit": said_by("git", &["rev-parse", "HEAD"]),
        "machine": said_by("uname", &["-srm"]),
        "cores": thread::available_parallelism().map(usize::from).ok(),
    })
}

fn said_by(program: &str, arguments: &[&str]) -> Option<String> {
    let said = Command::new(program).args(arguments).output().ok().filter(|said| said.status.success())?;
    Some(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// Resident memory of a process (proc_pid_status(5)).
fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("the memory of process {pid} cannot be read"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the process has no memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
