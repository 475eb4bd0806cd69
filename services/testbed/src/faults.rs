//! The command that drives the platform's programs while parts fail.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::Args;
use comfy_table::{Table, presets};
use echotune_testbed::{
    Network, Testbed,
    drive::{Drive, Fault, Report},
};

/// The namespace of a client outside of all regions, and the variable that says one is there.
const OUTSIDE: (&str, &str) = ("echotune-hub", "ECHOTUNE_TESTBED_OUTSIDE");

/// How it is driven.
#[derive(Debug, Args)]
pub(crate) struct Faults {
    /// Folder of echotune and the programs of a region, built with the features `region` and `failpoints`.
    #[arg(long)]
    programs: PathBuf,
    /// Seconds that each fault lasts.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Seconds of quiet between two faults.
    #[arg(long, default_value_t = 12)]
    rest: u64,
    /// Listeners in each region.
    #[arg(long, default_value_t = 6)]
    listeners: u64,
    /// Milliseconds that a listener rests between two listens.
    #[arg(long, default_value_t = 20)]
    pause: u64,
    /// How often all faults are gone through.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Operations at the least: listeners go on after the last fault until there are so many.
    #[arg(long, default_value_t = 0)]
    operations: usize,
    /// Only the faults that take little time.
    #[arg(long)]
    quick: bool,
    /// Only faults whose name holds one of these texts, parted by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Folder of HetRec 2011, of which each region imports a part before anything fails.
    #[arg(long)]
    hetrec: Option<PathBuf>,
    /// Seed of what is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for report.json and history.jsonl [default: faults in the run folder].
    #[arg(long)]
    report: Option<PathBuf>,
}

impl Faults {
    pub(crate) async fn run(self, testbed: &Testbed, is_json: bool) -> anyhow::Result<ExitCode> {
        let plan = testbed.plan();
        let mirror = plan
            .mirror
            .as_ref()
            .context("regions that are not mirrored never agree; start the testbed with mirrors")?;
        ensure!(
            mirror.jurisdictions.is_empty(),
            "regions of several jurisdictions never agree; start the testbed without --jurisdictions"
        );
        if plan.network == Network::Namespaces && !is_outside() {
            return outside();
        }
        let faults = if self.quick { Fault::quick(plan) } else { Fault::all(plan) };
        let is_wanted = |fault: &Fault| {
            let name = fault.to_string();
            self.only.is_empty() || self.only.iter().any(|text| name.contains(text))
        };
        let faults: Vec<_> = faults.into_iter().filter(is_wanted).collect();
        ensure!(!faults.is_empty(), "no fault has a name with '{}' in it", self.only.join("' or '"));
        let drive = Drive {
            programs: self.programs,
            fault: Duration::from_secs(self.seconds),
            rest: Duration::from_secs(self.rest),
            listeners: self.listeners,
            pause: Duration::from_millis(self.pause),
            faults: std::iter::repeat_n(faults, self.rounds).flatten().collect(),
            operations: self.operations,
            hetrec: self.hetrec,
            seed: self.seed,
        };
        let folder = self.report.unwrap_or_else(|| plan.run.join("faults"));
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        eprintln!("seed {}", drive.seed);
        let (report, history) = drive.run(testbed, &|line| eprintln!("{line}")).await?;
        history.write(BufWriter::new(File::create(folder.join("history.jsonl"))?))?;
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(folder.join("report.json"), &text)?;
        if is_json {
            writeln!(io::stdout(), "{text}")?
        } else {
            show(&report)?
        }
        eprintln!("history and report are in {}", folder.display());
        Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Whether this runs where a client outside of all regions stands.
pub(crate) fn is_outside() -> bool {
    env::var_os(OUTSIDE.1).is_some()
}

/// Runs the same command where a client outside of all regions stands.
pub(crate) fn outside() -> anyhow::Result<ExitCode> {
    let mut command = std::process::Command::new("ip");
    command.args(["netns", "exec", OUTSIDE.0]).arg(env::current_exe()?).args(env::args_os().skip(1));
    // In the place of this process: signals are for whoever does the work.
    Err(command.env(OUTSIDE.1, "1").exec()).context("ip netns exec")
}

fn show(report: &Report) -> anyhow::Result<()> {
    if let Some(imported) = &report.imported {
        let told = |of: &BTreeMap<String, usize>| {
            of.iter().map(|(region, count)| format!("{region} {count}")).collect::<Vec<_>>().join(", ")
        };
        writeln!(io::stdout(), "imported in {:.0} s: {} listeners", imported.seconds, told(&imported.listeners))?;
        let (lists, after) = (told(&imported.recommended), imported.served_after_s);
        writeln!(io::stdout(), "items that each region recommends to listeners of all: {lists}, {after:.1} s later")?;
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["fault", "for", "ok", "failed", "unknown", "p50", "p99", "felt afterwards"]);
    for told in &report.faults {
        table.add_row([
            told.fault.clone(),
            format!("{:.1} s", told.seconds),
            told.ok.to_string(),
            told.failed.to_string(),
            told.unknown.to_string(),
            format!("{:.0} ms", told.p50_ms),
            format!("{:.0} ms", told.p99_ms),
            format!("{:.1} s", told.felt_after_s),
        ]);
    }
    for (fault, lost) in report.faults.iter().filter_map(|told| Some((&told.fault, told.lost.as_ref()?))) {
        let (missing, acknowledged) = (lost.missing, lost.acknowledged);
        let (point, time) = (lost.recovery_point_s, lost.recovery_time_s);
        writeln!(
            io::stdout(),
            "{fault}: of {acknowledged} listens acknowledged there {missing} were nowhere else, the oldest {point:.2} s old; \
             {time:.1} s after the command another region had made a write for it"
        )?;
    }
    if let Some(why) = &report.unasked {
        writeln!(io::stdout(), "not everything was looked at: {why}")?;
    }
    let (seconds, converged) = (report.seconds, report.converged_after_s);
    let verdict = &report.verdict;
    Ok(writeln!(io::stdout(), "{table}\n{seconds:.0} s; regions agreed after {converged:.1} s\n{verdict}")?)
}
