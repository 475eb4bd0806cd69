//! Flags of a command line that configure.

use std::path::PathBuf;

use clap::Args;

use crate::config::{self, Config, ConfigFault, Faults, Flag, Loaded, Sources};

/// Sections of the file of a region: a program that has no use for one passes over it, so that all share the file.
const SHARED: [&str; 10] =
    ["region", "cql", "kafka", "secrets", "cache", "tls", "identity", "telemetry", "limits", "shutdown"];

/// Flags of the command line that configure.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigFlags {
    /// Configuration file. Without it `echotune` reads config.toml of the data folder, if it is there, and other
    /// programs read none.
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Set one configuration key, such as limits.deadline_max=1m.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the configuration in force as TOML, and end.
    #[arg(long, global = true)]
    pub print_config: bool,
}

impl ConfigFlags {
    /// What `--set` says.
    pub fn settings(&self) -> impl Iterator<Item = Flag> {
        self.set.iter().map(|set| {
            let (key, value) = set.split_once('=').unwrap_or((set, ""));
            Flag { name: format!("--set {key}"), key: key.trim().to_owned(), value: value.to_owned() }
        })
    }

    /// The environment of this process. A name that is no Unicode is passed over: no key is written like that.
    pub fn environment() -> Vec<(String, String)> {
        let all = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        all.map(|(name, value)| (name, value.to_string_lossy().into_owned())).collect()
    }

    /// Loads a configuration from its defaults, the file of these flags, the environment, these flags and `more` of them.
    ///
    /// # Errors
    /// Everything that is wrong, with where it was written. End with [`Faults::EXIT_CODE`].
    pub fn load<C: Config>(&self, defaults: &str, more: Option<Flag>) -> Result<Loaded<C>, Faults> {
        config::load(&self.sources(defaults, more))
    }

    /// Loads a configuration in the same way to be shown, with what is needed and set nowhere.
    ///
    /// # Errors
    /// Everything that is wrong with what is set, with where it was written. End with [`Faults::EXIT_CODE`].
    pub fn look<C: Config>(&self, defaults: &str, more: Option<Flag>) -> Result<(Loaded<C>, Vec<ConfigFault>), Faults> {
        config::look(&self.sources(defaults, more))
    }

    fn sources<'a>(&'a self, defaults: &'a str, more: Option<Flag>) -> Sources<'a> {
        let (env, flags) = (Self::environment(), self.settings().chain(more).collect());
        Sources { defaults, file: self.config.as_deref(), others: &SHARED, env, flags }
    }
}
