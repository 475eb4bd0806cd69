//! What the programs of a region need before they start: tables and topics.

use clap::Args;
use echotune_kit::process::ConfigFlags;

use super::{Output, dlq::DlqArguments};

/// How commands are told of servers.
pub(super) const WHERE: &str = "With --servers the brokers of a region are told by --config FILE with the sections [region] \
    and [kafka] of a program of the region, by --set, or by the environment; no keys are needed.";

/// Where the servers of a region are.
#[derive(Debug, Args)]
#[command(after_help = "Where the servers are is told by --config FILE with the sections [region], [cql] and [kafka] \
    of a program of the region, by --set, or by the environment. --print-config prints all keys.\nWhere there are \
    jurisdictions (region.jurisdictions) it is run in one region of each, one after the other: it makes the keyspace of \
    that one and the common one, and records which region is of which.")]
pub(super) struct Servers;

/// What is to be done with topics.
#[derive(Debug, Args)]
#[command(
    after_help = "Where the brokers are is told by --config FILE with the sections [region] and [kafka] of a program \
    of the region, by --set, or by the environment. --print-config prints all keys.\nWithin jurisdictions topics are mirrored; \
    from one to another they are not: MirrorMaker 2 is to have A->B.enabled=false for regions A and B of two. --mirrors \
    prints that."
)]
pub(super) struct TopicArguments {
    /// Print the lines for mm2.properties that tell MirrorMaker 2 which regions to mirror from and to, and make
    /// nothing.
    #[arg(long)]
    pub(super) mirrors: bool,
}

#[cfg(feature = "region")]
mod made {
    use anyhow::Context as _;
    use echotune_agents::CqlRunStore;
    use echotune_api::events::{CONSUMERS, USERS_TOPIC};
    use echotune_eventlog::{
        kafka::{KafkaEventLog, TopicSpec},
        region::{DEFAULTS, RegionConfig},
    };
    use echotune_kit::{
        config::{Config, Loaded},
        cql::{CqlSession, KeptDb},
        keys::CqlSubjectKeys,
    };
    use echotune_recommendations::DeadLettersService;
    use echotune_users::{CqlUserStore, program::residency};
    use serde::{Deserialize, Serialize};

    use super::{ConfigFlags, DlqArguments, Output, TopicArguments};
    use crate::output;

    #[derive(Debug, Clone, Serialize, Deserialize)]
    #[serde(transparent)]
    struct ServersConfig(RegionConfig);

    impl Config for ServersConfig {
        fn check(&self) -> Vec<(&'static str, String)> {
            self.0.servers_faults()
        }
    }

    /// The configuration, unless it was only to be printed.
    fn load(flags: &ConfigFlags) -> anyhow::Result<Option<RegionConfig>> {
        let loaded: Loaded<ServersConfig> = flags.load(DEFAULTS, None)?;
        if flags.print_config {
            output::say(loaded.to_toml()?.trim_end())?;
            return Ok(None);
        }
        Ok(Some(loaded.config.0))
    }

    fn wait<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::runtime::Runtime::new().context("threads cannot be started")?.block_on(work)
    }

    pub(in super::super) fn schema(flags: &ConfigFlags, output: Output) -> anyhow::Result<()> {
        let Some(config) = load(flags)? else { return Ok(()) };
        if let Some((key, why)) = config.names_faults().first() {
            anyhow::bail!("{key}: {why}");
        }
        let residency = residency(&config)?;
        let applied = wait(async {
            let session = CqlSession::connect(&config.cql()).await?;
            // Before anything is kept where it may not be.
            let (world, users) = match (&residency, config.common_cql()) {
                (Some(residency), Some(common)) => {
                    let common = CqlSession::connect(&common).await?;
                    let (world, users) = CqlUserStore::migrate_apart(&common, &session, residency).await?;
                    (Some(world), users)
                }
                _ => (None, CqlUserStore::migrate(&session).await?),
            };
            let own = [
                ("keys", CqlSubjectKeys::migrate(&session).await?),
                ("users", users),
                ("runs", CqlRunStore::migrate(&session).await?),
                ("views", KeptDb::migrate(&session).await?),
            ];
            Ok((world, own.to_vec()))
        })?;
        let (world, own) = applied;
        let common = world.map(|world| (config.cql.keyspace.clone(), vec![("all jurisdictions", world)]));
        let keyspaces: Vec<_> = common.into_iter().chain([(config.cql().keyspace, own)]).collect();
        output::schema(&keyspaces, output)
    }

    pub(in super::super) fn topics(flags: &ConfigFlags, asked: &TopicArguments, output: Output) -> anyhow::Result<()> {
        let Some(config) = load(flags)? else { return Ok(()) };
        if asked.mirrors {
            return output::mirrors(&config.jurisdictions().flows(&config.region.all), output);
        }
        let wanted = wanted(&config);
        let made = wait(async { Ok(config.kafka("echotune").create_topics(&wanted).await?) })?;
        let rows: Vec<_> = wanted.into_iter().map(|topic| (made.contains(&topic.name), topic)).collect();
        output::topics(&rows.iter().map(|(is_new, topic)| (topic.name.as_str(), *is_new)).collect::<Vec<_>>(), output)
    }

    pub(in super::super) fn dlq(flags: &ConfigFlags, wanted: &DlqArguments, output: Output) -> anyhow::Result<()> {
        let Some(config) = load(flags)? else { return Ok(()) };
        wait(async {
            let log = KafkaEventLog::without_keys(config.kafka("echotune"))?;
            wanted.run_on(&DeadLettersService::new(log), output).await
        })
    }

    /// The topics of a region.
    fn wanted(config: &RegionConfig) -> Vec<TopicSpec> {
        let letters = CONSUMERS.iter().flat_map(|(topic, consumer)| config.letters_topics(topic, consumer));
        std::iter::once(config.topic(USERS_TOPIC)).chain(letters).collect()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn each_consumer_has_topics_of_dead_letters_and_replays_that_are_kept_for_two_weeks() {
            let flags = ConfigFlags { set: vec!["kafka.replicas=2".into()], ..ConfigFlags::default() };
            let topics = wanted(&load(&flags).expect("loaded").expect("a configuration"));
            let names: Vec<_> = topics.iter().map(|one| (one.name.as_str(), one.partitions, one.replicas)).collect();
            let own = |name| (name, 1, 2);
            let recommendations = ["users.v1.recommendations.dlq", "users.v1.recommendations.replay"].map(own);
            let agents = ["users.v1.agents.dlq", "users.v1.agents.replay"].map(own);
            assert_eq!(names, [&[("users.v1", 12, 2)], &recommendations[..], &agents].concat());
            let kept = ("retention.ms".to_owned(), "1209600000".to_owned());
            assert!(topics[1..].iter().all(|one| one.settings.contains(&kept)), "{topics:?}");
        }
    }
}

#[cfg(not(feature = "region"))]
mod made {
    use super::{ConfigFlags, DlqArguments, Output, TopicArguments};

    const WHY: &str = "this program was built without the servers of a region; build it with the feature 'region'";

    pub(in super::super) fn schema(_: &ConfigFlags, _: Output) -> anyhow::Result<()> {
        anyhow::bail!(WHY)
    }

    pub(in super::super) fn topics(_: &ConfigFlags, _: &TopicArguments, _: Output) -> anyhow::Result<()> {
        anyhow::bail!(WHY)
    }

    pub(in super::super) fn dlq(_: &ConfigFlags, _: &DlqArguments, _: Output) -> anyhow::Result<()> {
        anyhow::bail!(WHY)
    }
}

pub(super) use made::{dlq, schema, topics};
