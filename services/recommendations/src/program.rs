//! The program that serves recommendations in one region: the view kept on CQL servers, the log on Kafka. One process
//! of a region serves; another waits until it has gone.

use std::{path::PathBuf, sync::Arc, time::Duration};

use echotune_api::{
    FILE_DESCRIPTOR_SET, Recommendations, RegionsClient, Residents, UsersClient, accounts, authenticator,
    dead_letters_server, experiments_server, models_server, recommendations_server, training_server,
};
use echotune_eventlog::region::{Region, RegionConfig};
use echotune_kit::{
    cache::{self, CacheSection},
    config,
    cql::{KeptDb, KeptOptions, Sealing},
    edge::{Credentials, Edge},
    identity::remembered,
    lifecycle::Exit,
    process::{About, Configured, Failure, Process, Settings, check_upstream, upstream},
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    DeadLettersService, EmbeddedRecommendationStore, FittingConfig, RecommendationsService,
    residents::ResidentRecommendations,
};

const NAME: &str = "echotune-recommendations";
/// Folder in the data folder for the copy of the view.
const COPY: &str = "view";
/// How long the rows may take at the end to come level with the journal; what is missing is repeated at the next start.
const LEVEL: Duration = Duration::from_secs(10);

/// What the program is.
pub const ABOUT: About = About {
    name: NAME,
    version: env!("CARGO_PKG_VERSION"),
    about: "Serves recommendations with their reasons in one region, on CQL servers and Kafka.",
    defaults: concat!(
        include_str!("program.toml"),
        "\n",
        include_str!("defaults.toml"),
        "\n",
        include_str!("../../eventlog/src/region.toml"),
        "\n",
        include_str!("../../kit/src/cache/cache.toml"),
        "\n",
        include_str!("../../kit/src/process/defaults.toml")
    ),
};

/// What it can be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Where it answers, and how it lives.
    #[serde(flatten)]
    pub process: Settings,
    /// Where it is, and its servers.
    #[serde(flatten)]
    pub region: RegionConfig,
    /// Lists that are kept near, and the tier that users share.
    pub cache: CacheSection,
    /// Fitting, lists and releases.
    #[serde(flatten)]
    pub fitting: FittingConfig,
    /// Where users are served.
    pub users: String,
    /// Folder for what can be made anew.
    pub data: PathBuf,
}

impl config::Config for Config {
    fn check(&self) -> Vec<(&'static str, String)> {
        let users = check_upstream(&self.users, &self.process).err().map(|why| ("users", why));
        let cache = self.cache.faults(self.process.allow_plaintext);
        let faults = [self.process.faults(), self.region.faults(), cache, self.fitting.faults()].concat();
        faults.into_iter().chain(users).collect()
    }
}

impl Configured for Config {
    fn settings(&self) -> &Settings {
        &self.process
    }
}

/// Serves until it is told to stop, once no other process of the region does.
///
/// # Errors
/// The servers of the region cannot be reached at the start, keys of listeners cannot be had, or the tables are not
/// there.
pub async fn serve(config: Config, mut process: Process) -> Result<Exit, Failure> {
    let Region { session, log, keys, token, .. } = Region::connect(&config.region, NAME).await?;
    let channel = upstream(&config.users, &config.process, process.life.stop())?;
    let credentials = Credentials { token: token.clone() };
    let users = Arc::new(UsersClient::new(channel.clone(), credentials.clone()));
    let name = format!("recommendations/{}", config.region.region.name);
    let sealing = Sealing { keys: Arc::new(keys), subject: EmbeddedRecommendationStore::subject };
    let (folder, options, never) = (config.data.join(COPY), KeptOptions::default(), CancellationToken::new());
    let (db, kept) = KeptDb::open_sealed(&session, &name, &folder, sealing, options, never).await?;
    let (failed, stop, whole) = (db.failed(), process.life.stop(), kept.is_whole());
    process.life.consumer("the view on the CQL servers", async move {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            error = failed => Err(error),
        }
    });
    let settings = &config.fitting.recommendations;
    let store = EmbeddedRecommendationStore::new(db);
    // What went with the key of a listener may have gone before the news of the erasure. Sums hold those who are left
    // out while the region is cut off, and friends keep them.
    if whole {
        store.mend().await?;
    }
    let service = RecommendationsService::load_with(
        store,
        settings.policy(),
        config.fitting.models.limits(),
        &settings.fitting(&config.data),
    )?;
    let meter = process.telemetry.meter();
    service.keep_lists(&config.cache, &meter);
    if let Some(tier) = cache::shared(&config.cache, &mut process.life, &meter)? {
        service.tell_changes_to(tier);
    }
    service.follow(&mut process.life, log.clone(), settings.refit_debounce.0);
    service.watch(&mut process.life, log.clone(), &process.telemetry.meter());
    // Ready means with a model: nobody is a stranger because of a restart. The whole one follows.
    service.refit_quickly().await;
    let tokens = remembered(authenticator(users.clone()), config.process.identity.remember.0);
    let callers = config.process.callers(token, tokens, accounts(users), &mut process.life, &meter).await?;
    let edge = Edge::knowing(callers, config.process.limits.patience());
    let lists = lists(&config.region, service.clone(), RegionsClient::new(channel, credentials));
    let (shared, letters) = (Arc::new(service), Arc::new(DeadLettersService::new(log)));
    let exit = process.serve(&edge, FILE_DESCRIPTOR_SET, |face| {
        let face = face.with(recommendations_server(lists.clone())).with(experiments_server(shared.clone()));
        let face = face.with(training_server(shared.clone())).with(models_server(shared.clone()));
        face.with(dead_letters_server(letters.clone()))
    });
    let exit = exit.await?;
    if !matches!(exit, Exit::Now(_)) {
        kept.close(LEVEL).await;
    }
    Ok(exit)
}

/// The lists, of users of the own jurisdiction when there are some.
fn lists(config: &RegionConfig, service: RecommendationsService, regions: RegionsClient) -> Arc<dyn Recommendations> {
    let parted = config.jurisdictions();
    if parted.is_empty() {
        return Arc::new(service);
    }
    let residents = Residents::new(Arc::new(regions), parted.of(&config.region.name));
    Arc::new(ResidentRecommendations::new(service, residents))
}

#[cfg(test)]
mod tests {
    use echotune_kit::config::{Flag, Sources, load};

    use super::*;

    #[test]
    fn what_a_region_needs_is_told_at_once() {
        let flags =
            [("users", "users:1"), ("recommendations.audit_share", "2.0"), ("cache.redis", "redis://10.0.0.7:6379")];
        let flags = flags.map(|(key, value)| Flag { name: key.into(), key: key.into(), value: value.into() });
        let sources = Sources { defaults: ABOUT.defaults, flags: flags.into(), ..Sources::default() };
        let faults = load::<Config>(&sources).expect_err("not enough").to_string();
        for key in ["cache.redis", "users: 'users:1'", "audit_share", "region.replica", "secrets.token_file"] {
            assert!(faults.contains(key), "{key} is not in {faults}");
        }
    }
}
