//! Releases of models: train, look at, promote, roll back.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use echotune_api::Models;
use echotune_kit::config::Period;
use echotune_model::{ErrorKind, Fault, ModelJob, ModelJobState, TrainingSpec};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Kind, Output, call};
use crate::{Connection, output};

/// How often it is looked how far a job is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

const TRAIN_HELP: &str = "\
Recipes are tried on histories of this platform with a part held out, one option at a time. The best is compared with
the one that serves on another part, and kept as a candidate; nothing serves by it before it is promoted. Ctrl-C
leaves it going on where a platform runs; `echotune model cancel` ends it.

Example:
  echotune model train --budget 10m
  echotune model train --trials 1 --option blend.filter=0.5";

#[derive(Debug, Subcommand)]
pub(super) enum ModelAction {
    /// Look for a better recipe on the platform's own histories.
    #[command(after_help = TRAIN_HELP)]
    Train(TrainArguments),
    /// List releases, that which serves first, and what was decided on them.
    List,
    /// Show a release with what was measured and decided.
    Show {
        /// Its version; the one that serves when not given.
        #[arg(default_value = "")]
        version: String,
    },
    /// Hold a release to the gates, and serve by it if they let it pass.
    Promote {
        /// Its version.
        version: String,
        /// Serve by it although a gate does not let it pass; the reason is recorded.
        #[arg(long, requires = "reason")]
        force: bool,
        /// Why, for those who read it later.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Serve by the release before, or by another that served.
    Rollback {
        /// Its version; the one that served before when not given.
        #[arg(default_value = "")]
        version: String,
        /// Why, for those who read it later.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// End the training or promotion that runs.
    Cancel,
    /// Show the model card of what serves, in Markdown.
    Card {
        /// Of which lists.
        #[arg(long, value_enum, default_value = "artist")]
        kind: Kind,
    },
    /// Write the model that serves as an ONNX file.
    Export {
        /// Where to.
        #[arg(long, value_name = "FILE")]
        onnx: PathBuf,
        /// Of which lists.
        #[arg(long, value_enum, default_value = "artist")]
        kind: Kind,
    },
    /// Show how far what is asked for is from what the serving model was fitted on.
    Drift,
}

/// What a training may take.
#[derive(Debug, Args)]
pub(super) struct TrainArguments {
    /// Time after which no further recipe is tried.
    #[arg(long, value_name = "TIME", default_value = "1m")]
    budget: Period,
    /// Recipes tried at the most; 0 for no limit but the time.
    #[arg(long, value_name = "N", default_value_t = 0)]
    trials: u32,
    /// An option that is given and not chosen, such as blend.ease=0.5. Can be given again.
    #[arg(long = "option", value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// Of the draw of what is held out.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl ModelAction {
    /// What `echotune model` does.
    pub(super) async fn run(&self, connection: &Connection, output: Output) -> anyhow::Result<()> {
        let models = &*connection.models;
        match self {
            Self::Train(arguments) => {
                let begun = models.train(&call(), spec(arguments)?).await?;
                output::model_job(&ended(models, begun).await?, output)
            }
            Self::Promote { version, force, reason } => {
                let begun = models.promote(&call(), version, *force, reason).await?;
                output::model_job(&ended(models, begun).await?, output)
            }
            Self::Rollback { version, reason } => {
                let begun = models.rollback(&call(), version, reason).await?;
                output::model_job(&ended(models, begun).await?, output)
            }
            Self::Cancel => {
                let job = models.cancel_job(&call(), 0).await?;
                output::model_job(&until_ended(models, job, |_| {}).await?, output)
            }
            Self::List => {
                let (releases, decisions) = models.releases(&call()).await?;
                output::releases(&releases, &decisions, output)
            }
            Self::Show { version } => {
                let (release, decisions) = models.release(&call(), version).await?;
                output::release(&release, &decisions, output)
            }
            Self::Card { kind } => output::model_card(&models.card(&call(), (*kind).into()).await?, output),
            Self::Export { onnx, kind } => {
                let bytes = models.export(&call(), (*kind).into()).await?;
                fs::write(onnx, &bytes).with_context(|| format!("{} cannot be written", onnx.display()))?;
                output::model_export(onnx, bytes.len(), output)
            }
            Self::Drift => output::drift(&models.drift(&call()).await?, output),
        }
    }
}

fn spec(arguments: &TrainArguments) -> Result<TrainingSpec, Fault> {
    let option = |text: &String| {
        let parsed = text.split_once('=').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        parsed.ok_or_else(|| Fault::invalid(format!("--option '{text}' is not NAME=VALUE, such as blend.ease=0.5")))
    };
    let budget_ms = u64::try_from(arguments.budget.0.as_millis()).unwrap_or(u64::MAX);
    let options = arguments.options.iter().map(option).collect::<Result<_, _>>()?;
    Ok(TrainingSpec { budget_ms: budget_ms.max(1), max_trials: arguments.trials, options, seed: arguments.seed })
}

/// Waits for the end of a job, with its progress on standard error; one that did not do what was asked is an error.
async fn ended(models: &dyn Models, begun: ModelJob) -> anyhow::Result<ModelJob> {
    let style = ProgressStyle::with_template("{bar:24} {percent:>3} %  {msg}").expect("a template");
    let bar = ProgressBar::new(1_000).with_style(style);
    let shown = |job: &ModelJob| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
        bar.set_position((1_000.0 * job.progress.clamp(0.0, 1.0)) as u64);
        bar.set_message(job.message.clone());
    };
    let ended = until_ended(models, begun, shown).await;
    bar.finish_and_clear();
    let ended = ended?;
    match ended.state {
        ModelJobState::Failed | ModelJobState::Cancelled => {
            Err(Fault::new(ErrorKind::FailedPrecondition, ended.message).into())
        }
        ModelJobState::Running | ModelJobState::Done => Ok(ended),
    }
}

async fn until_ended(models: &dyn Models, mut job: ModelJob, shown: impl Fn(&ModelJob)) -> Result<ModelJob, Fault> {
    while job.state == ModelJobState::Running {
        shown(&job);
        tokio::time::sleep(LOOK_EVERY).await;
        job = models.job(&call(), job.id).await?;
    }
    Ok(job)
}
