//! The servers of one region: a session with its CQL servers, and the log on its brokers with keys that are kept on the
//! former. What every program has that runs beside others of its kind.

use std::{path::PathBuf, sync::Arc, time::Duration};

use echotune_kit::{
    auth::Token,
    config::Period,
    cql::{CqlConfig, CqlSection, CqlSession, WriteClock},
    keys::{CqlSubjectKeys, HeldKeys, MasterKeys, SubjectKeys},
    process::Failure,
};
use echotune_model::{Clock, Jurisdictions};
use serde::{Deserialize, Serialize};

use crate::{
    dead,
    kafka::{KafkaConfig, KafkaEventLog, TopicSpec},
};

/// The sections of [`RegionConfig`] with their defaults.
pub const DEFAULTS: &str = include_str!("region.toml");

/// Which region this is, and where its servers are. To be flattened into a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionConfig {
    /// The own region and all there are.
    pub region: RegionSection,
    /// CQL servers.
    pub cql: CqlSection,
    /// Brokers.
    pub kafka: KafkaSection,
    /// Files of secrets.
    pub secrets: SecretsSection,
}

/// The own region and all there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionSection {
    /// The own one; the data centre of its CQL servers has this name.
    pub name: String,
    /// All of them, the own one among them.
    pub all: Vec<String>,
    /// Name of this process among those of its kind here.
    pub replica: String,
    /// Regions that what is of their users does not leave, as `NAME=REGION,REGION`.
    pub jurisdictions: Vec<String>,
}

/// Brokers of the own region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaSection {
    /// `HOST:PORT` of some.
    pub bootstrap_servers: Vec<String>,
    /// Partitions of a topic, when it is made.
    pub partitions: i32,
    /// Copies of a partition, when it is made; -1 for what the brokers are set to.
    pub replicas: i32,
    /// For how long topics keep what was not forgotten.
    pub retention: Period,
    /// How long a record is tried to be delivered.
    pub delivery_timeout: Period,
    /// For how long a key may still be used here after it was destroyed elsewhere.
    pub key_life: Period,
    /// How often new partitions and mirrored topics are looked for.
    pub look_every: Period,
}

/// Files of secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsSection {
    /// The token of the platform, the same in every process and region.
    pub token_file: PathBuf,
    /// Master keys, in base64, a line each.
    pub master_keys_file: PathBuf,
    /// The key of names, in base64, where there are jurisdictions.
    pub names_key_file: PathBuf,
}

impl RegionSection {
    fn parted(&self) -> Result<Jurisdictions, Vec<String>> {
        Jurisdictions::parse(&self.jurisdictions, &self.all)
    }
}

impl RegionConfig {
    /// What is wrong for a program that serves: the key at fault and why.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let Self { region, secrets, .. } = self;
        let is_empty = |path: &PathBuf| path.as_os_str().is_empty();
        let checks = [
            (
                !region.replica.is_empty() && region.replica.len() <= 128,
                "region.replica",
                "must name this process among those of its kind, the same after a restart, such as the pod's name"
                    .into(),
            ),
            (
                !is_empty(&secrets.token_file),
                "secrets.token_file",
                "is needed: a file with the platform's token".into(),
            ),
            (
                !is_empty(&secrets.master_keys_file),
                "secrets.master_keys_file",
                "is needed: a file with 32 random bytes in base64".into(),
            ),
        ];
        [self.servers_faults(), failed(checks)].concat()
    }

    /// What is wrong of what tells where the servers are: the key at fault and why.
    pub fn servers_faults(&self) -> Vec<(&'static str, String)> {
        let Self { region, cql, kafka, .. } = self;
        let parted = region.parted();
        let servers = match &parted {
            Ok(parted) => self.cql_of(parted).faults(),
            Err(_) => cql.of(&region.name, &region.all).faults(),
        };
        let parted = parted.err().into_iter().flatten().map(|why| ("region.jurisdictions", why));
        let checks = [
            (
                region.all.contains(&region.name),
                "region.all",
                format!("does not name '{}', the own region", region.name),
            ),
            (!kafka.bootstrap_servers.is_empty(), "kafka.bootstrap_servers", "is empty; name a broker".into()),
            (
                (1..=10_000).contains(&kafka.partitions),
                "kafka.partitions",
                format!("{} is not between 1 and 10000", kafka.partitions),
            ),
        ];
        let servers = servers.into_iter().map(|(field, why)| (key_of(field), why));
        servers.chain(parted).chain(failed(checks)).collect()
    }

    /// What is wrong for who needs the key of names: the key at fault and why.
    pub fn names_faults(&self) -> Vec<(&'static str, String)> {
        let is_missing = !self.region.jurisdictions.is_empty() && self.secrets.names_key_file.as_os_str().is_empty();
        let why =
            "is needed where there are jurisdictions: a file with 32 random bytes in base64, the same in all regions";
        is_missing.then(|| ("secrets.names_key_file", why.to_owned())).into_iter().collect()
    }

    /// The jurisdictions of the regions.
    ///
    /// # Panics
    /// The configuration was not checked, and what it says of them contradicts itself.
    pub fn jurisdictions(&self) -> Jurisdictions {
        self.region.parted().expect("the configuration was checked when it was read")
    }

    /// How the CQL servers are spoken to, where what is of users is kept: in a keyspace of the jurisdiction, when there
    /// are some.
    pub fn cql(&self) -> CqlConfig {
        self.cql_of(&self.jurisdictions())
    }

    fn cql_of(&self, parted: &Jurisdictions) -> CqlConfig {
        let RegionSection { name, all, .. } = &self.region;
        if parted.is_empty() {
            return self.cql.of(name, all);
        }
        let beside: Vec<_> = parted.beside(name, all).into_iter().map(str::to_owned).collect();
        let keyspace = format!("{}_{}", self.cql.keyspace, parted.of(name));
        CqlConfig { keyspace, ..self.cql.of(name, &beside) }
    }

    /// How the CQL servers are spoken to, where that is kept which all jurisdictions agree on; nothing when there are
    /// none.
    pub fn common_cql(&self) -> Option<CqlConfig> {
        let RegionSection { name, all, jurisdictions, .. } = &self.region;
        (!jurisdictions.is_empty()).then(|| self.cql.of(name, all))
    }

    /// How the brokers are spoken to by a program of this name.
    pub fn kafka(&self, program: &str) -> KafkaConfig {
        let KafkaSection { bootstrap_servers, delivery_timeout, key_life, look_every, .. } = self.kafka.clone();
        let region = &self.region;
        let beside = self.jurisdictions().beside(&region.name, &region.all);
        let others = beside.into_iter().filter(|name| *name != region.name);
        KafkaConfig {
            bootstrap_servers,
            region: region.name.clone(),
            mirrored: others.map(str::to_owned).collect(),
            client_id: format!("{program}/{}", region.replica),
            delivery_timeout: delivery_timeout.0,
            key_life: key_life.0,
            look_every: look_every.0,
        }
    }

    /// How a topic is made, when there is none, that keeps records for the time told.
    pub fn topic(&self, name: &str) -> TopicSpec {
        self.kept_for(name, self.kafka.partitions, self.kafka.retention.0, None)
    }

    /// How the topics of a consumer's dead letters and of their replays are made. One partition each: they are few, and
    /// stay in order.
    pub fn letters_topics(&self, topic: &str, consumer: &str) -> [TopicSpec; 2] {
        let names = [dead::letters_topic(topic, consumer), dead::replays_topic(topic, consumer)];
        names.map(|name| self.kept_for(&name, 1, dead::RETENTION, Some(dead::RETENTION_BYTES)))
    }

    fn kept_for(&self, name: &str, partitions: i32, time: Duration, bytes: Option<u64>) -> TopicSpec {
        let settings = [("cleanup.policy", "delete".to_owned()), ("retention.ms", time.as_millis().to_string())];
        let bytes = bytes.map(|bytes| ("retention.bytes", bytes.to_string()));
        TopicSpec {
            name: name.to_owned(),
            partitions,
            replicas: self.kafka.replicas,
            settings: settings.into_iter().chain(bytes).map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }
}

/// Those of the checks that do not hold.
fn failed(checks: impl IntoIterator<Item = (bool, &'static str, String)>) -> Vec<(&'static str, String)> {
    checks.into_iter().filter(|(holds, ..)| !holds).map(|(_, key, why)| (key, why)).collect()
}

/// The key of a field of [`CqlConfig`].
fn key_of(field: &str) -> &'static str {
    match field {
        "contact_points" => "cql.contact_points",
        "keyspace" => "cql.keyspace",
        "replication" => "cql.copies",
        "request_timeout" => "cql.request_timeout",
        "connect_timeout" => "cql.connect_timeout",
        "schema_timeout" => "cql.schema_timeout",
        "in_flight" => "cql.in_flight",
        "page_rows" => "cql.page_rows",
        _ => "region.name",
    }
}

/// What a program of a region works with.
#[derive(Debug, Clone)]
pub struct Region {
    /// Its clock, which all writes take their times from.
    pub clock: Arc<Clock>,
    /// The CQL servers.
    pub session: CqlSession,
    /// The log.
    pub log: KafkaEventLog,
    /// The keys by which the log and what stores keep of somebody are sealed.
    pub keys: HeldKeys,
    /// What seals the keys of stores that make their own.
    pub master: MasterKeys,
    /// The token of the platform.
    pub token: Token,
}

impl Region {
    /// Reads the secrets and connects to the CQL servers; the brokers are connected to when the log is used.
    ///
    /// # Errors
    /// A file cannot be read or holds something else, the servers cannot be reached, the table of keys is not there, or
    /// the keyspace of a jurisdiction has copies in other regions.
    pub async fn connect(config: &RegionConfig, program: &str) -> Result<Self, Failure> {
        let token = Token::read_file(&config.secrets.token_file)?;
        let master = MasterKeys::read(&config.secrets.master_keys_file)?;
        let clock = Arc::new(Clock::default());
        let session = CqlSession::connect(&config.cql()).await?;
        if !config.jurisdictions().is_empty() {
            session.check_copies().await?;
        }
        let keys =
            CqlSubjectKeys::connect(session.clone(), master.clone(), WriteClock::new(Arc::clone(&clock))).await?;
        let keys: Arc<dyn SubjectKeys> = Arc::new(keys);
        let log = KafkaEventLog::new(config.kafka(program), Arc::clone(&keys))?;
        let keys = HeldKeys::new(keys, config.kafka.key_life.0);
        Ok(Self { clock, session, log, keys, master, token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(name: &str, jurisdictions: &[&str]) -> RegionConfig {
        let mut config: RegionConfig = toml_of_defaults();
        config.region.name = name.into();
        config.region.all = ["us", "eu", "north"].map(str::to_owned).into();
        config.region.jurisdictions = jurisdictions.iter().map(|one| (*one).to_owned()).collect();
        config
    }

    fn toml_of_defaults() -> RegionConfig {
        toml::from_str(DEFAULTS).expect("the defaults are a configuration")
    }

    #[test]
    fn without_jurisdictions_everything_is_everywhere_under_the_names_it_had() {
        let config = configured("eu", &[]);
        assert_eq!(config.servers_faults(), []);
        assert_eq!((config.cql().keyspace.as_str(), config.cql().replication.len()), ("echotune", 3));
        assert_eq!(config.kafka("p").mirrored, ["us", "north"]);
        assert_eq!((config.common_cql(), config.names_faults()), (None, Vec::new()));
    }

    #[test]
    fn what_is_of_users_is_kept_and_mirrored_within_the_jurisdiction() {
        let of = |name: &str| {
            let config = configured(name, &["eea=eu,north"]);
            assert_eq!(config.servers_faults(), []);
            let (cql, common) = (config.cql(), config.common_cql().expect("a common keyspace"));
            assert_eq!((common.keyspace.as_str(), common.replication.len()), ("echotune", 3));
            let centres: Vec<_> = cql.replication.into_keys().collect();
            (cql.keyspace, centres.join(","), config.kafka("p").mirrored.join(","))
        };
        let told = |keyspace: &str, centres: &str, mirrored: &str| (keyspace.into(), centres.into(), mirrored.into());
        assert_eq!(of("eu"), told("echotune_eea", "eu,north", "north"));
        assert_eq!(of("north"), told("echotune_eea", "eu,north", "eu"));
        assert_eq!(of("us"), told("echotune_open", "us", ""));
    }

    #[test]
    fn contradictions_are_told_with_all_other_faults() {
        let mut config = configured("eu", &["eea=eu,moon", "other=eu"]);
        config.kafka.bootstrap_servers.clear();
        let faults = config.servers_faults();
        let of = |key: &str| faults.iter().filter(|(at, _)| *at == key).count();
        assert_eq!((of("region.jurisdictions"), of("kafka.bootstrap_servers")), (2, 1), "{faults:?}");
        assert_eq!(config.names_faults().len(), 1, "the key of names is not told either");
        let mut config = configured("eu", &["sixteen_letters_=eu"]);
        config.cql.keyspace = "a".repeat(40);
        assert!(config.servers_faults().iter().any(|(key, _)| *key == "cql.keyspace"), "the name grows too long");
    }
}
