//! Serving a data folder, and the demonstration.

use std::{path::PathBuf, sync::Arc};

use echotune_api::{RecommendQuery, Recommendations, Users};
use echotune_kit::{
    lifecycle::{self, Exit},
    telemetry::SpanStore,
};
use echotune_model::{ErrorKind, Fault, ItemKind, PageRequest};
use tracing::Instrument as _;

use super::{Arguments, Output, call, now_ms};
use crate::{Config, Platform, demo, import::Progress, output, platform::Flow};

/// Serves until a signal comes.
pub(super) async fn up(arguments: &Arguments, config: &Config, demo: bool, spans: SpanStore) -> anyhow::Result<()> {
    let signals = lifecycle::signals()?;
    let serving = Platform::open_with(config, &arguments.data, spans)?.serve(config.listen).await?;
    let (address, asked, stopping) = (serving.address, serving.platform.asked(), serving.platform.stopping());
    let demo = demo.then(|| Demo::of(&serving.platform, arguments));
    let shown = async {
        if let Some(demo) = demo {
            let span = tracing::info_span!(target: "echotune", "demo", otel.name = "echotune demo");
            demo.show().instrument(span).await.inspect_err(|_| asked.cancel())?;
        }
        let served = format!("EchoTune serves {} on {address}; stop it with Ctrl-C", arguments.data.display());
        match arguments.output {
            Output::Table => output::say(served)?,
            // Programs read nothing but JSON on standard output.
            Output::Json => eprintln!("{served}"),
        }
        anyhow::Ok(())
    };
    // Given up when the platform stops, so that it does not hold the data folder.
    let (exit, shown) = tokio::join!(serving.until(signals), stopping.run_until_cancelled(shown));
    match exit {
        Exit::Clean => shown.unwrap_or(Ok(())),
        Exit::Failed(_) => Err(anyhow::anyhow!("{exit}")),
        Exit::Now(_) => std::process::exit(exit.code().into()),
    }
}

/// Seed of the generated world.
const DEMO_SEED: u64 = 7;

/// What the demonstration needs of a platform; it holds nothing that keeps one from stopping.
struct Demo {
    users: Arc<dyn Users>,
    recommendations: Arc<dyn Recommendations>,
    flow: Flow,
    folder: PathBuf,
    output: Output,
}

impl Demo {
    fn of(platform: &Platform, arguments: &Arguments) -> Self {
        Self {
            users: Arc::clone(&platform.users),
            recommendations: Arc::clone(&platform.recommendations),
            flow: platform.flow(),
            folder: arguments.data.clone(),
            output: arguments.output,
        }
    }

    /// Loads the generated world and shows one listener's recommendations.
    async fn show(self) -> anyhow::Result<()> {
        let Self { users, recommendations, flow, folder, output } = self;
        let first = PageRequest { size: 1, ..PageRequest::default() };
        if !folder.join(demo::MARKER_FILE).exists() && !users.list_users(&call(), &first).await?.rows.is_empty() {
            let message = format!(
                "data folder {} holds accounts, and the demo would put thousands of generated ones beside them; \
                 name an empty folder with --data",
                folder.display()
            );
            return Err(Fault::new(ErrorKind::FailedPrecondition, message).into());
        }
        let shape = demo::Shape::default();
        demo::load(Arc::clone(&users), &call(), &folder, &shape, DEMO_SEED, now_ms(), &Progress::stderr())
            .await
            .map_err(Fault::from)?;
        flow.settle().await?;
        flow.refit().await;
        let listeners = users.list_users(&call(), &first).await?;
        let Some(listener) = listeners.rows.first() else { return Ok(()) };
        let query = RecommendQuery { kind: ItemKind::Track, limit: 10, include_known: false };
        let list = recommendations.recommend(&call(), &listener.name.to_string(), &query).await?;
        if output == Output::Table {
            output::say(format_args!("Recommended to {}, with reasons that add up to each score:", listener.name))?;
        }
        output::recommendations(&list, false, true, output)?;
        if output == Output::Table {
            output::say(format_args!(
                "\nEvery reason:      echotune recommend --user {name} --kind track --explain\n\
             The trace of this: echotune trace {trace}\n\
             Your own history:  echotune import listenbrainz EXPORT.zip --user YOU\n",
                name = listener.name,
                trace = list.trace,
            ))?;
        }
        Ok(())
    }
}
