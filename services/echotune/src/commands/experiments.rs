//! Experiments: begin, list, look at, stop.

use clap::{Args, Subcommand, ValueEnum};
use echotune_kit::config::Period;
use echotune_model::{
    ExperimentKind, ExperimentSpec, Fault, Guardrail, Metric, PARTS, PolicyChange, ServedModel, Variant,
};

use super::{Output, call};
use crate::{Connection, output};

const CONTROL: &str = "control";

const CREATE_HELP: &str = "\
Variants: NAME:SETTING=VALUE,… beside the control, which makes lists as they are made now. Settings:
  weight=N              its part of 10000 [default: an even part; the control has the rest]
  trending_weight=X     what the most popular item gains beside co-listening, 0 to 1
  max_per_artist=N      tracks of one artist in a list at the most; 0 for no limit
  exploration_slots=N   last places of a list given to items further down, 0 to 10
  model=current|previous
  diversity_weight=X    what an item gains at the most for evening a list out, as a share of the best score, 0 to 1

What the control does is configured: recommendations.trending_weight, max_per_artist and diversity_weight. A
winner is adopted by setting them.

Example:
  echotune experiment create fewer-repeats --hypothesis 'two tracks of one artist are enough' \\
    --variant two:max_per_artist=2 --guardrail refusal=0.02 --max-listeners 5000";

#[derive(Debug, Subcommand)]
pub(super) enum ExperimentAction {
    /// Begin an experiment: the next lists of those who take part are made by it.
    #[command(after_help = CREATE_HELP)]
    Create(Box<NewExperiment>),
    /// List experiments, the newest first.
    List,
    /// Show what an experiment has found, and what that says.
    Status {
        /// The experiment.
        name: String,
    },
    /// End an experiment: the next list of everybody is made as before it.
    Stop {
        /// The experiment.
        name: String,
        /// Why, for those who read it later.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// An experiment to begin.
#[derive(Debug, Args)]
pub(super) struct NewExperiment {
    /// Unique for ever: lower-case letters, digits and hyphens.
    name: String,
    /// What is expected, and why.
    #[arg(long)]
    hypothesis: String,
    /// A way to make lists beside the control. Can be given again, up to seven times.
    #[arg(long = "variant", value_name = "NAME:SETTING=VALUE,…", required = true)]
    variants: Vec<String>,
    /// Mix the lists of the control and of one variant, and see whose items are accepted. Needs far fewer
    /// listeners than a split.
    #[arg(long)]
    interleave: bool,
    /// Listeners that take part, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 100.0)]
    share: f64,
    /// What decides.
    #[arg(long, value_enum, default_value = "acceptance")]
    metric: MetricName,
    /// What must not become worse by more than this, such as refusal=0.02. Can be given again.
    #[arg(long = "guardrail", value_name = "METRIC=MARGIN")]
    guardrails: Vec<String>,
    /// The chance of a false alarm over the whole experiment.
    #[arg(long, default_value_t = 0.05)]
    alpha: f64,
    /// Listeners before which nothing is decided but harm and a bad ratio.
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_listeners: u64,
    /// Listeners whose windows have passed at which it ends; 0 for no end.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_listeners: u64,
    /// Time before which nothing is decided but harm and a bad ratio.
    #[arg(long, value_name = "TIME", default_value = "0s")]
    min_duration: Period,
    /// Time after which it ends; 0s for no end.
    #[arg(long, value_name = "TIME", default_value = "90days")]
    max_duration: Period,
    /// How long from the first list on what a listener does counts. With 0s it counts at once, and
    /// intervals are only approximate.
    #[arg(long, value_name = "TIME", default_value = "1day")]
    window: Period,
    /// From when on a list is slow.
    #[arg(long, value_name = "TIME", default_value = "100ms")]
    slow_list: Period,
    /// Do not end by itself at a decision.
    #[arg(long)]
    no_auto_stop: bool,
}

/// What is measured, over listeners.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum MetricName {
    /// Part of the items shown that is liked or played afterwards.
    Acceptance,
    /// Part of the items shown that is disliked or skipped afterwards.
    Refusal,
    /// Part of the lists with nothing in them.
    #[value(name = "empty_lists")]
    EmptyLists,
    /// Part of the lists that are slow.
    #[value(name = "slow_lists")]
    SlowLists,
}

impl From<MetricName> for Metric {
    fn from(name: MetricName) -> Self {
        match name {
            MetricName::Acceptance => Self::Acceptance,
            MetricName::Refusal => Self::Refusal,
            MetricName::EmptyLists => Self::EmptyLists,
            MetricName::SlowLists => Self::SlowLists,
        }
    }
}

/// What `echotune experiment` does.
pub(super) async fn manage(connection: &Connection, action: &ExperimentAction, output: Output) -> anyhow::Result<()> {
    let experiments = &connection.experiments;
    match action {
        ExperimentAction::Create(new) => {
            let begun = experiments.create_experiment(&call(), spec(new)?).await?;
            output::experiment_begun(&begun, connection.is_remote(), output)
        }
        ExperimentAction::List => output::experiments(&experiments.list_experiments(&call()).await?, output),
        ExperimentAction::Status { name } => {
            let (experiment, evidence) = experiments.get_experiment(&call(), name).await?;
            output::experiment(&experiment, &evidence, output)
        }
        ExperimentAction::Stop { name, reason } => {
            let (experiment, evidence) = experiments.stop_experiment(&call(), name, reason).await?;
            output::experiment(&experiment, &evidence, output)
        }
    }
}

fn spec(new: &NewExperiment) -> Result<ExperimentSpec, Fault> {
    let share = new.share * f64::from(PARTS) / 100.0;
    if !(0.0..=f64::from(PARTS)).contains(&share) {
        return Err(Fault::invalid(format!("--share {} is not a percentage; write a number up to 100", new.share)));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the parts")]
    let share = share.round() as u32;
    let slow_list_ms = u32::try_from(ms(new.slow_list)).unwrap_or(u32::MAX);
    Ok(ExperimentSpec {
        name: new.name.clone(),
        hypothesis: new.hypothesis.clone(),
        kind: if new.interleave { ExperimentKind::Interleaving } else { ExperimentKind::Split },
        variants: variants(&new.variants)?,
        share,
        primary: new.metric.into(),
        guardrails: new.guardrails.iter().map(|one| guardrail(one)).collect::<Result<_, _>>()?,
        alpha: new.alpha,
        min_listeners: new.min_listeners,
        max_listeners: new.max_listeners,
        min_duration_ms: ms(new.min_duration),
        max_duration_ms: ms(new.max_duration),
        slow_list_ms,
        window_ms: ms(new.window),
        auto_stop: !new.no_auto_stop,
    })
}

fn ms(period: Period) -> u64 {
    u64::try_from(period.0.as_millis()).unwrap_or(u64::MAX)
}

/// The control, with what the others leave of the weights, and the others.
fn variants(texts: &[String]) -> Result<Vec<Variant>, Fault> {
    let even = PARTS / u32::try_from(texts.len() + 1).unwrap_or(u32::MAX);
    let others = texts.iter().map(|text| variant(text, even)).collect::<Result<Vec<_>, _>>()?;
    let taken = others.iter().fold(0_u32, |sum, one| sum.saturating_add(one.weight));
    let rest = PARTS.checked_sub(taken).filter(|rest| *rest > 0).ok_or_else(|| {
        Fault::invalid(format!("the variants weigh {taken} of {PARTS} parts and leave nothing to the control"))
    })?;
    let control = Variant { name: CONTROL.to_owned(), weight: rest, change: PolicyChange::default() };
    Ok([vec![control], others].concat())
}

fn variant(text: &str, even: u32) -> Result<Variant, Fault> {
    let (name, settings) = text.split_once(':').unwrap_or((text, ""));
    let mut variant = Variant { name: name.to_owned(), weight: even, change: PolicyChange::default() };
    for setting in settings.split(',').filter(|setting| !setting.is_empty()) {
        let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
        let wrong = || Fault::invalid(format!("--variant {name}: '{value}' is no value of {key}; see --help"));
        let change = &mut variant.change;
        match key {
            "weight" => variant.weight = value.parse().map_err(|_| wrong())?,
            "trending_weight" => change.trending_weight = Some(value.parse().map_err(|_| wrong())?),
            "max_per_artist" => change.max_per_artist = Some(value.parse().map_err(|_| wrong())?),
            "exploration_slots" => change.exploration_slots = Some(value.parse().map_err(|_| wrong())?),
            "diversity_weight" => change.diversity_weight = Some(value.parse().map_err(|_| wrong())?),
            "model" => {
                let models = [ServedModel::Current, ServedModel::Previous];
                change.model = Some(models.into_iter().find(|one| one.name() == value).ok_or_else(wrong)?);
            }
            _ => {
                let known = "weight, trending_weight, max_per_artist, exploration_slots, model, diversity_weight";
                return Err(Fault::invalid(format!(
                    "--variant {name}: no setting is named '{key}'; there are {known}"
                )));
            }
        }
    }
    Ok(variant)
}

fn guardrail(text: &str) -> Result<Guardrail, Fault> {
    let known = || Metric::ALL.map(Metric::name).join(", ");
    let parsed = text.split_once('=').and_then(|(name, margin)| {
        let metric = Metric::ALL.into_iter().find(|metric| metric.name() == name)?;
        Some(Guardrail { metric, margin: margin.parse().ok()? })
    });
    parsed.ok_or_else(|| {
        Fault::invalid(format!(
            "--guardrail '{text}' is not METRIC=MARGIN, such as refusal=0.02; metrics are {}",
            known()
        ))
    })
}
