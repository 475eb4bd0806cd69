//! Serving a data folder, and the demonstration.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use echotune_api::{RecommendQuery, Users};
use echotune_kit::{
    lifecycle::{self, Exit},
    telemetry::Telemetry,
};
use echotune_model::{ErrorKind, Fault, ItemKind, NewRun, PageRequest, Recommendations, Run, TraceId};
use tracing::Instrument as _;

use super::{Arguments, DATA, Output, call, now_ms, runs};
use crate::{Config, Connection, Platform, Serving, demo, import::Progress, output, platform::Flow};

/// Serves until a signal comes.
pub(super) async fn up(
    arguments: &Arguments,
    config: &Config,
    demo: bool,
    telemetry: &Telemetry,
) -> anyhow::Result<()> {
    let signals = lifecycle::signals()?;
    let serving = Platform::open_with(config, &arguments.data, telemetry.spans.clone())?.metered(telemetry.meter());
    let serving = serving.serve(config.process.listen).await?;
    let (address, mcp) = (serving.address, serving.mcp);
    let tls = serving.tls.map(|at| format!(", gRPC over TLS on {at}")).unwrap_or_default();
    let (asked, stopping) = (serving.platform.asked(), serving.platform.stopping());
    let demo = demo.then(|| Demo::of(&serving, arguments));
    let shown = async {
        if let Some(demo) = demo {
            demo.show().await.inspect_err(|_| asked.cancel())?;
        }
        let data = arguments.data.display();
        let served =
            format!("EchoTune serves {data}: gRPC on {address}{tls}, MCP on http://{mcp}/mcp; stop it with Ctrl-C");
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

/// What the agent of the demonstration does.
const WORKFLOW: &str = "weekly-discovery";

/// Seed of the generated world.
const DEMO_SEED: u64 = 7;

/// What the demonstration needs of a platform; it holds nothing that keeps one from stopping.
struct Demo {
    users: Arc<dyn Users>,
    flow: Flow,
    folder: PathBuf,
    address: SocketAddr,
    output: Output,
}

impl Demo {
    fn of(serving: &Serving, arguments: &Arguments) -> Self {
        Self {
            users: Arc::clone(&serving.platform.users),
            flow: serving.platform.flow(),
            folder: arguments.data.clone(),
            address: serving.address,
            output: arguments.output,
        }
    }

    /// Loads the generated world, shows what one listener is recommended, and has an agent make a
    /// playlist of it: over gRPC, as any client.
    async fn show(self) -> anyhow::Result<()> {
        let span = tracing::info_span!(target: "echotune", "demo", otel.name = "echotune demo load");
        self.load().instrument(span).await?;
        let to = Connection::remote(&self.folder, self.address).await?;
        let page = PageRequest { size: 1, ..PageRequest::default() };
        let listeners = to.users.list_users(&call(), &page).await?;
        let Some(listener) = listeners.rows.first() else { return Ok(()) };
        let name = listener.name.to_string();
        let span = tracing::info_span!(target: "echotune", "demo", otel.name = "echotune recommend");
        let list = self.recommend(&to, &name).instrument(span).await?;
        self.trace(&to, list.trace).await?;
        let run = self.run(&to, &name).await?;
        self.trace(&to, run.trace).await?;
        if self.output == Output::Json {
            return Ok(());
        }
        output::say(further(&name, run.trace, &self.folder))
    }

    async fn load(&self) -> anyhow::Result<()> {
        let Self { users, flow, folder, .. } = self;
        let page = PageRequest { size: 1, ..PageRequest::default() };
        if !folder.join(demo::MARKER_FILE).exists() && !users.list_users(&call(), &page).await?.rows.is_empty() {
            let message = format!(
                "data folder {} holds accounts, and the demo would put thousands of generated ones beside them; \
                 name an empty folder with --data",
                folder.display()
            );
            return Err(Fault::new(ErrorKind::FailedPrecondition, message).into());
        }
        let (shape, progress) = (demo::Shape::default(), Progress::stderr());
        demo::load(Arc::clone(users), &call(), folder, &shape, DEMO_SEED, now_ms(), &progress)
            .await
            .map_err(Fault::from)?;
        flow.settle().await?;
        // The first list need not wait for the whole model.
        flow.refit_quickly().await;
        Ok(())
    }

    fn heading(&self, text: &str) -> anyhow::Result<()> {
        if self.output == Output::Table { output::say(format_args!("\n{text}")) } else { Ok(()) }
    }

    async fn recommend(&self, to: &Connection, name: &str) -> anyhow::Result<Recommendations> {
        let query = RecommendQuery { kind: ItemKind::Track, limit: 10, include_known: false };
        let list = to.recommendations.recommend(&call(), name, &query).await?;
        self.heading(&format!("Recommended to {name}, with reasons that add up to each score:"))?;
        output::recommendations(&list, false, true, self.output)?;
        Ok(list)
    }

    async fn run(&self, to: &Connection, name: &str) -> anyhow::Result<Run> {
        let agents = to.agents.as_ref().context("the platform has no agents")?;
        let new = NewRun { workflow: WORKFLOW.into(), user: name.into(), input: r#"{"count": 10}"#.into() };
        let span = tracing::info_span!(target: "echotune", "demo", otel.name = "echotune run");
        let run = async { agents.start_run(&call(), new).await }.instrument(span).await?;
        let run = runs::follow(Arc::clone(agents), run.id).await?;
        self.heading(&format!("A playlist that the agent '{WORKFLOW}' made with MCP tools:"))?;
        output::run(&run, self.output)?;
        Ok(run)
    }

    async fn trace(&self, to: &Connection, trace: TraceId) -> anyhow::Result<()> {
        self.heading("Its trace:")?;
        output::trace(&to.operations.trace(&call(), trace).await?, self.output)
    }
}

/// What may be asked next, of the same folder. Listeners who exist have a folder of their own: beside generated ones they
/// would be recommended what nobody plays.
fn further(name: &str, trace: TraceId, folder: &Path) -> String {
    let of = if folder == Path::new(DATA) { String::new() } else { format!("--data {} ", quoted(folder)) };
    format!(
        "\n\
         Every reason:      echotune {of}recommend --user {name} --kind track --explain\n\
         A trace again:     echotune {of}trace {trace}\n\
         The playlist:      echotune {of}run {WORKFLOW} --user {name} --export FOLDER\n\
         Your own history:  echotune --data mine import listenbrainz EXPORT.zip --user YOU\n"
    )
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn what_is_hinted_at_is_understood_and_an_own_history_gets_a_folder_of_its_own() {
        let told = further("ann", TraceId(1), Path::new("data"));
        let hints: Vec<_> = told.lines().filter_map(|line| line.split_once(":  ")).collect();
        assert_eq!(hints.len(), 4, "{told}");
        for (_, command) in &hints {
            let understood = Arguments::try_parse_from(command.split_whitespace());
            assert!(understood.is_ok(), "{command}: {understood:?}");
        }
        let (_, own) = hints.into_iter().find(|(what, _)| *what == "Your own history").expect("a hint");
        let own = Arguments::try_parse_from(own.split_whitespace()).expect("understood");
        assert_eq!(own.data, Path::new("mine"), "and not that of the demonstration");
    }

    #[test]
    fn hints_name_the_folder_that_is_served_unless_it_is_the_usual_one() {
        let hint =
            |folder: &str| further("ann", TraceId(1), Path::new(folder)).lines().nth(1).unwrap_or_default().to_owned();
        assert!(hint("data").contains("echotune recommend"), "{}", hint("data"));
        assert!(hint("/tmp/d").contains("echotune --data /tmp/d recommend"), "{}", hint("/tmp/d"));
        assert!(hint("my 'data").contains(r"--data 'my '\''data' recommend"), "{}", hint("my 'data"));
    }
}
