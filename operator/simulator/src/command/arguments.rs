//! What can be asked.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    sim::{Setting, Spread},
    study::{Class, Part, Plan, Policy},
};

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 a trace or ledger is not as it should be, 3 a file does not \
                          exist, 64 an argument is not as it should be.";

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Replays traces of demand through autoscalers: EchoTune's own decisions and ports of Knative's, Kubernetes' and
/// KEDA's.
#[derive(Debug, Parser)]
#[command(name = "echotune-simulator", version, after_help = EXIT_CODES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Replays a trace under policies as they are
    Replay(Asked),
    /// Replays a trace under each policy over its whole range, and compares each with the frontier of the first but
    /// ours
    Frontier(Asked),
    /// Ledgers of decisions
    Ledger {
        #[command(subcommand)]
        action: LedgerAction,
    },
    /// Prints completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum LedgerAction {
    /// Makes every decision of a ledger again, and names the first that differs by as little as a bit
    Replay {
        /// The ledger: JSON lines
        file: PathBuf,
    },
    /// Replays one service of a trace and writes the ledger of ours
    Record {
        #[command(flatten)]
        demand: Demand,
        /// Which service of those asked for, from 1
        #[arg(long, default_value_t = 1)]
        service: usize,
        /// Price of a slow call in pod-seconds, unless that of the default policy
        #[arg(long)]
        price: Option<u32>,
        /// Seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where to write it
        file: PathBuf,
    },
}

/// A time such as `6s` or `1500ms`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time(Duration);

impl FromStr for Time {
    type Err = humantime::DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text).map(Self)
    }
}

impl Time {
    fn ms(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Spreading {
    Poisson,
    Even,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ClassName {
    Rare,
    Quiet,
    Mid,
    Busy,
    Series,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Table,
    Json,
    Svg,
}

/// Which calls come, and what pods are like.
#[derive(Debug, Clone, Args)]
pub(super) struct Demand {
    /// A folder or a file: calls per minute and service, a time per call, or timestamp,value; standard error tells what
    /// was taken so without being said
    #[arg(long)]
    pub(super) trace: PathBuf,
    /// Only services of one class: by calls a day fewer than 10, up to 300, up to 5,000, more; or series. Without it
    /// all but the rare, and the rare where there are no others
    #[arg(long)]
    class: Option<ClassName>,
    /// At most so many services of each class, the first of the trace
    #[arg(long)]
    limit: Option<usize>,
    /// Only one part of the services, such as 2/2: the second of each two
    #[arg(long, default_value = "1/1")]
    part: Part,
    /// Counts are multiplied by it
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Only so many days from the beginning
    #[arg(long)]
    days: Option<f64>,
    /// From the creation of a pod to its readiness, up to a day
    #[arg(long, default_value = "6s")]
    start_delay: Time,
    /// Shape of a Pareto tail of that delay, such as 1.5; fixed without it
    #[arg(long)]
    start_tail: Option<f64>,
    /// Calls that a pod works on at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: u32,
    /// Pods of a service at the most, under any policy
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    most_pods: u32,
    /// Mean duration of calls where the trace knows none
    #[arg(long, default_value = "500ms")]
    call_mean: Time,
    /// Longer calls are ended there
    #[arg(long, default_value = "5m")]
    call_limit: Time,
    /// A longer wait is slow; from 1ms to 1h
    #[arg(long, default_value = "1s")]
    slow: Time,
    /// Mean calls of a session that is pinned to a pod; calls have no sessions without it
    #[arg(long)]
    session_calls: Option<f64>,
    /// How calls are spread over a minute
    #[arg(long, default_value = "poisson")]
    arrivals: Spreading,
}

/// What is replayed, and how it is told.
#[derive(Debug, Clone, Args)]
pub(super) struct Asked {
    #[command(flatten)]
    pub(super) demand: Demand,
    /// Policies: ours, kpa, hpa, keda; with a price, a target or minutes to keep such as ours-p60, kpa-t55-keep5,
    /// hpa-t60
    #[arg(long, value_delimiter = ',', default_value = "ours,kpa,kpa-keep5,hpa,keda")]
    pub(super) policy: Vec<Policy>,
    /// Seeds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(super) seeds: u64,
    /// Threads; 0 for as many as there are cores
    #[arg(long, default_value_t = 0)]
    pub(super) threads: usize,
    /// How it is told
    #[arg(long, default_value = "table")]
    pub(super) output: Output,
}

fn sound(holds: bool, what: &str) -> Result<(), super::Fault> {
    if holds { Ok(()) } else { Err(super::Fault::Usage(what.to_owned())) }
}

impl Demand {
    pub(super) fn plan(&self, policies: Vec<Policy>, seeds: u64) -> anyhow::Result<Plan> {
        sound(self.scale > 0.0 && self.scale.is_finite(), "--scale must be above 0")?;
        sound(self.days.is_none_or(|days| days > 0.0), "--days must be above 0")?;
        sound(self.start_tail.is_none_or(|shape| shape > 0.0), "--start-tail must be above 0")?;
        sound(self.session_calls.is_none_or(|calls| calls >= 1.0), "--session-calls must be 1 or more")?;
        sound(self.limit != Some(0), "--limit must be 1 or more")?;
        sound(self.start_delay.ms() <= DAY_MS, "--start-delay must be a day at the most")?;
        sound(self.call_mean.ms() <= DAY_MS, "--call-mean must be a day at the most")?;
        sound(self.call_limit.ms() <= 7 * DAY_MS, "--call-limit must be a week at the most")?;
        sound((1..=HOUR_MS).contains(&self.slow.ms()), "--slow must be from 1ms to 1h")?;
        for (at, policy) in policies.iter().enumerate() {
            sound(!policies[..at].contains(policy), &format!("--policy names {policy} twice"))?;
        }
        let spread = match self.arrivals {
            Spreading::Poisson => Spread::Poisson,
            Spreading::Even => Spread::Even,
        };
        let setting = Setting {
            start_delay_ms: self.start_delay.ms(),
            start_tail: self.start_tail,
            concurrency: self.concurrency,
            most_pods: self.most_pods,
            call_mean_ms: self.call_mean.ms(),
            call_limit_ms: self.call_limit.ms(),
            slow_ms: self.slow.ms(),
            session_calls: self.session_calls,
            spread,
            ..Setting::default()
        };
        let class = self.class.map(|class| match class {
            ClassName::Rare => Class::Rare,
            ClassName::Quiet => Class::Quiet,
            ClassName::Mid => Class::Mid,
            ClassName::Busy => Class::Busy,
            ClassName::Series => Class::Series,
        });
        Ok(Plan {
            policies,
            seeds,
            setting,
            limit: self.limit,
            part: self.part,
            class,
            scale: self.scale,
            days: self.days,
        })
    }
}
