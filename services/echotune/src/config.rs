//! What the platform can be told: `defaults.toml` beside this file is the reference.

use std::{
    io,
    path::{Path, PathBuf},
};

use echotune_agents::AgentsConfig;
use echotune_gateway::metering::MeteringSection;
use echotune_kit::{
    auth::Token,
    config::{self, Faults, Flag, Loaded, Secret, Sources},
    process::{ConfigFlags, Settings, check_upstream},
};
use echotune_mcp_servers::McpConfig;
use echotune_recommendations::FittingConfig;
use serde::{Deserialize, Serialize};

use crate::gateway::GatewaySection;

/// Name of the configuration in a data folder; it need not exist.
pub const CONFIG_FILE: &str = "config.toml";

const DEFAULTS: &str = concat!(
    include_str!("defaults.toml"),
    "\n",
    include_str!("../../mcp-servers/src/defaults.toml"),
    "\n",
    include_str!("gateway.toml"),
    include_str!("../../gateway/src/metering/defaults.toml"),
    "\n",
    include_str!("../../agents/src/defaults.toml"),
    "\n",
    include_str!("../../recommendations/src/defaults.toml"),
    "\n",
    include_str!("../../kit/src/process/defaults.toml")
);

/// The configuration of the whole platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Where it answers, and how it lives.
    #[serde(flatten)]
    pub process: Settings,
    /// Fitting and lists, and releases of models.
    #[serde(flatten)]
    pub fitting: FittingConfig,
    /// A tracking server.
    pub mlflow: MlflowConfig,
    /// Services that run elsewhere.
    pub connect: ConnectConfig,
    /// The MCP servers.
    pub mcp: McpConfig,
    /// The gateway before them, and further servers.
    pub gateway: GatewaySection,
    /// What is written down of calls of tools.
    pub metering: MeteringSection,
    /// Runs of workflows.
    pub agents: AgentsConfig,
}

/// An MLflow tracking server that releases are told to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MlflowConfig {
    /// Its address; empty for none.
    pub tracking_uri: String,
    /// The experiment that runs belong to.
    pub experiment: String,
    /// User name; without one the password is a bearer token.
    pub user: String,
    /// Password or token; empty sends none.
    pub password: Secret,
}

/// Services that run elsewhere, which commands work with in place of a data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectConfig {
    /// Where all are that have no address of their own; empty, as all addresses are, for a data folder.
    pub services: String,
    /// Where users are.
    pub users: String,
    /// Where recommendations are, with experiments, models and training.
    pub recommendations: String,
    /// Where agents are.
    pub agents: String,
    /// File with the token to show.
    pub token_file: PathBuf,
    /// The token itself, in place of a file.
    pub token: Secret,
}

impl ConnectConfig {
    /// Whether commands work with services elsewhere.
    pub const fn is_elsewhere(&self) -> bool {
        !(self.services.is_empty()
            && self.users.is_empty()
            && self.recommendations.is_empty()
            && self.agents.is_empty())
    }

    /// Where a service is that may have an address of its own.
    pub(crate) const fn address<'a>(&'a self, own: &'a str) -> &'a str {
        if own.is_empty() { self.services.as_str() } else { own }
    }

    fn faults(&self, process: &Settings) -> Vec<(&'static str, String)> {
        if !self.is_elsewhere() {
            return Vec::new();
        }
        let addresses = [
            ("connect.services", &self.services),
            ("connect.users", &self.users),
            ("connect.recommendations", &self.recommendations),
            ("connect.agents", &self.agents),
        ];
        let is_whole = !self.services.is_empty() || addresses.iter().skip(1).all(|(_, address)| !address.is_empty());
        let lacks = (!is_whole).then(|| {
            let why = "is needed for services that have no address of their own: say it, or all three";
            ("connect.services", why.to_owned())
        });
        let wrong = addresses.into_iter().filter(|(_, address)| !address.is_empty());
        let wrong = wrong.filter_map(|(key, address)| Some((key, check_upstream(address, process).err()?)));
        let shown = (!self.token_file.as_os_str().is_empty(), self.token.reveal().is_some());
        let why = match shown {
            (false, false) => Some("is needed where services are elsewhere"),
            (true, true) => Some("stands beside connect.token; keep one of them"),
            _ => None,
        };
        wrong.chain(lacks).chain(why.map(|why| ("connect.token_file", why.to_owned()))).collect()
    }

    /// What services elsewhere are shown.
    pub(crate) fn credentials(&self) -> io::Result<Token> {
        match self.token.reveal() {
            Some(token) => Ok(Token::from(token.to_owned())),
            None => Token::read_file(&self.token_file),
        }
    }
}

impl MlflowConfig {
    /// Where releases are told, if anywhere.
    #[cfg(feature = "mlflow")]
    pub(crate) fn tracking(&self) -> Result<Option<echotune_recommendations::Tracking>, String> {
        use echotune_recommendations::{Tracking, mlflow};

        if self.tracking_uri.is_empty() {
            return Ok(None);
        }
        let Self { tracking_uri, experiment, user, password } = self.clone();
        let config = mlflow::MlflowConfig { url: tracking_uri, user, password, ..mlflow::MlflowConfig::default() };
        Tracking::new(config, &experiment).map(Some).map_err(|cause| cause.to_string())
    }

    #[cfg(feature = "mlflow")]
    fn fault(&self) -> Option<String> {
        let nameless =
            || (!self.tracking_uri.is_empty() && self.experiment.is_empty()).then_some("mlflow.experiment is empty");
        self.tracking().err().or_else(|| nameless().map(ToOwned::to_owned))
    }

    #[cfg(not(feature = "mlflow"))]
    fn fault(&self) -> Option<String> {
        let why =
            "this program was built without MLflow; build it with the feature 'mlflow', or leave the address empty";
        (!self.tracking_uri.is_empty()).then(|| why.to_owned())
    }
}

impl config::Config for Config {
    fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut demand = |holds: bool, key, why: String| {
            if !holds {
                faults.push((key, why));
            }
        };
        let no_address =
            self.mcp.address(self.process.listen).is_none().then(|| format!("'{}' is no address", self.mcp.listen));
        demand(no_address.is_none(), "mcp.listen", no_address.unwrap_or_default());
        faults.extend(self.gateway.faults());
        faults.extend(self.metering.faults());
        faults.extend(self.agents.faults(self.process.allow_plaintext));
        faults.extend(self.fitting.faults());
        faults.extend(self.process.faults());
        faults.extend(self.connect.faults(&self.process));
        faults.extend(self.mlflow.fault().map(|why| ("mlflow.tracking_uri", why)));
        faults
    }
}

impl Default for Config {
    fn default() -> Self {
        let sources = Sources { defaults: DEFAULTS, ..Sources::default() };
        config::load(&sources).map(|loaded| loaded.config).expect("a test loads the defaults")
    }
}

impl Config {
    /// Loads the configuration of a data folder from defaults, file, the environment of this
    /// process, the flags, and `more` flags of the command that have a name of their own.
    ///
    /// # Errors
    /// Everything that is wrong, with where it was written. End with [`Faults::EXIT_CODE`].
    pub fn load(data: &Path, flags: &ConfigFlags, more: Vec<Flag>) -> Result<Loaded<Self>, Faults> {
        Self::load_from(data, flags, more, ConfigFlags::environment())
    }

    /// [`Config::load`] with an environment of one's own.
    ///
    /// # Errors
    /// As there.
    pub fn load_from(
        data: &Path,
        flags: &ConfigFlags,
        more: Vec<Flag>,
        env: Vec<(String, String)>,
    ) -> Result<Loaded<Self>, Faults> {
        let own = data.join(CONFIG_FILE);
        let file = flags.config.as_deref().or_else(|| own.exists().then_some(own.as_path()));
        let flags = flags.settings().chain(more).collect();
        config::load(&Sources { defaults: DEFAULTS, file, env, flags, ..Sources::default() })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use echotune_kit::config::Period;

    use super::*;

    fn load(set: &[&str], env: &[(&str, &str)]) -> Result<Loaded<Config>, Faults> {
        let folder = tempfile::tempdir().unwrap();
        let flags = ConfigFlags { set: set.iter().map(|set| (*set).to_owned()).collect(), ..ConfigFlags::default() };
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::load_from(folder.path(), &flags, Vec::new(), env)
    }

    #[test]
    fn the_defaults_load_and_print_as_they_are() {
        let loaded = load(&[], &[]).unwrap();
        assert_eq!(loaded.to_toml().unwrap(), DEFAULTS);
        assert!(loaded.config.process.telemetry.options().otlp.is_none());
    }

    #[test]
    fn the_file_of_the_data_folder_is_read_and_a_flag_wins() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG_FILE), "[limits]\ndeadline_max = \"90s\"\n").unwrap();
        let listen = Flag { name: "--listen".into(), key: "listen".into(), value: "127.0.0.1:0".into() };
        let loaded =
            Config::load_from(folder.path(), &ConfigFlags::default(), vec![listen], Vec::new()).unwrap().config;
        assert_eq!(loaded.process.limits.deadline_max, Period(Duration::from_secs(90)));
        assert_eq!(loaded.process.listen.port(), 0);
        let elsewhere = ConfigFlags { config: Some(folder.path().join("none.toml")), ..ConfigFlags::default() };
        assert!(Config::load_from(folder.path(), &elsewhere, Vec::new(), Vec::new()).is_err());
    }

    #[test]
    fn servers_of_agents_are_named_once_and_are_none_of_the_platform() {
        let told = |names: &str| {
            let set = format!("gateway.agent_servers={names}");
            load(&[set.as_str()], &[]).map(|loaded| loaded.config).map_err(|faults| faults.to_string())
        };
        assert_eq!(told(r#"["time", "files"]"#).expect("right").gateway.agent_servers, ["time", "files"]);
        for (names, why) in [(r#"["time", "time"]"#, "twice"), (r#"["listening"]"#, "the platform's own")] {
            let told = told(names).expect_err("wrong");
            assert!(told.contains("gateway.agent_servers") && told.contains(why), "{told}");
        }
        let told = load(&["gateway.servers_reload_every=0s", "metering.queue=0"], &[]).unwrap_err().to_string();
        assert!(told.contains("gateway.servers_reload_every") && told.contains("metering.queue"), "{told}");
    }

    #[test]
    fn values_out_of_bounds_are_refused_together() {
        let faults = load(
            &[
                "limits.deadline_default=10m",
                "telemetry.spans_kept=0",
                "recommendations.trending_weight=2",
                "recommendations.diversity_weight=-1",
            ],
            &[("ECHOTUNE__TELEMETRY__LOG", "=,="), ("ECHOTUNE__TELEMETRY__OTLP_ENDPOINT", "collector:4317")],
        )
        .unwrap_err();
        let text = faults.to_string();
        for part in [
            "--set limits.deadline_default: limits.deadline_default: 10m is longer",
            "--set telemetry.spans_kept",
            "variable ECHOTUNE__TELEMETRY__LOG",
            "variable ECHOTUNE__TELEMETRY__OTLP_ENDPOINT",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert_eq!(faults.0.len(), 6, "{text}");
        let faults =
            load(&["recommendations.fit_memory_max=1MiB", "recommendations.audit_share=1.5"], &[]).unwrap_err();
        assert!(faults.to_string().contains("1MiB is less than 64MiB"), "{faults}");
        assert_eq!(faults.0.len(), 2, "{faults}");
        let elsewhere = ["connect.services=http://127.0.0.1:7420"];
        assert!(load(&elsewhere, &[]).unwrap_err().to_string().contains("connect.token_file: is needed"));
        let token = ("ECHOTUNE__CONNECT__TOKEN", "a token that nobody has written to a file");
        let alone = load(&["connect.users=http://127.0.0.1:7430"], &[token]).unwrap_err().to_string();
        assert!(alone.contains("connect.services: is needed"), "not the data folder: {alone}");
        let loaded = load(&elsewhere, &[token]).unwrap();
        assert!(!loaded.to_toml().unwrap().contains("nobody has written"));
        let both = load(&[elsewhere[0], "connect.token_file=token"], &[token]).unwrap_err().to_string();
        assert!(both.contains("keep one of them"), "{both}");
        let faults = load(&["limits.deadline_max=soon", "telemetry.spans_kept=0"], &[]).unwrap_err();
        assert_eq!(faults.0.len(), 2, "a value that cannot be read hides no other: {faults}");
    }
}
