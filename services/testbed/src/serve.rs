//! The command that has the platform's programs serve in all regions, for whoever wants to try them or put a load on them.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use comfy_table::{Table, presets};
use echotune_testbed::{
    Network, Testbed,
    drive::{Program, Programs},
};
use serde_json::{Map, Value, json};

use crate::faults;

/// What is started.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Folder of echotune and the programs of a region, built with the feature `region`.
    #[arg(long)]
    programs: PathBuf,
}

impl Serve {
    /// Serves until Ctrl-C or SIGTERM.
    pub(crate) async fn run(self, testbed: &Testbed, is_json: bool) -> anyhow::Result<ExitCode> {
        if testbed.plan().network == Network::Namespaces && !faults::is_outside() {
            return faults::outside();
        }
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let stopped = async {
            tokio::select! {
                interrupted = tokio::signal::ctrl_c() => interrupted.context("signals cannot be awaited"),
                _ = terminated.recv() => Ok(()),
            }
        };
        let serving = async {
            let programs = Programs::start(testbed, &self.programs, &|line| eprintln!("{line}")).await?;
            tell(&programs, is_json)?;
            std::future::pending::<anyhow::Result<()>>().await
        };
        // Programs end with what holds them.
        tokio::select! {
            stopped = stopped => stopped?,
            served = serving => served?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn tell(programs: &Programs, is_json: bool) -> anyhow::Result<()> {
    let token_file = programs.token_file().display().to_string();
    let mut out = io::stdout();
    if is_json {
        let region = |region| {
            let program =
                |program: Program| (program.to_string(), json!(programs.address(region, program).to_string()));
            Value::Object(Program::ALL.into_iter().map(program).collect())
        };
        let regions: Map<_, _> = programs.regions().iter().map(|name| (name.to_string(), region(*name))).collect();
        writeln!(out, "{:#}", json!({ "regions": regions, "token_file": token_file }))?;
    } else {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header(["region", "program", "address"]);
        for region in programs.regions() {
            for program in Program::ALL {
                let address = programs.address(*region, program).to_string();
                table.add_row([region.to_string(), program.to_string(), address]);
            }
        }
        writeln!(out, "{table}\ntoken: {token_file}\nCtrl-C ends them")?;
    }
    Ok(out.flush()?)
}
