//! Typed configuration in four layers: defaults compiled in, a file, the environment, flags.
//!
//! The defaults are the schema: a key that they do not have is unknown. Every setting is tried
//! alone on top of the defaults, so that all faults are reported at once, each with the file and
//! line, the variable or the flag it comes from.

mod print;
mod read;
mod values;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

pub use read::{Flag, MAX_FILE_BYTES, Sources};
pub use values::{Period, Secret, Size};

/// How the name of an environment variable that sets a key begins: `ECHOTUNE__SECTION__KEY`.
pub const ENV_PREFIX: &str = "ECHOTUNE__";

/// A configuration. Serialising it must give back the keys and texts that it was read from.
pub trait Config: Serialize + DeserializeOwned {
    /// What is wrong between values that are each right: the key at fault (`section.key`) and why.
    fn check(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The defaults compiled in.
    Default,
    /// A file, at a line counted from 1; 0 stands for the file as a whole.
    File(PathBuf, usize),
    /// An environment variable.
    Env(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in defaults"),
            Self::File(path, 0) => write!(f, "{}", path.display()),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// Where it was written.
    pub origin: Origin,
    /// What is wrong, naming the key.
    pub message: String,
}

impl ConfigFault {
    fn new(origin: Origin, message: impl Into<String>) -> Self {
        Self { origin, message: message.into() }
    }
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

/// Everything wrong with the configuration, one per line when printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<ConfigFault>);

impl Faults {
    /// With which code a program ends that cannot start for these: `EX_USAGE` of sysexits.h.
    pub const EXIT_CODE: u8 = 64;
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "the configuration has {} fault{plural}", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for Faults {}

/// A configuration that was loaded, and where each value that is not a default comes from.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The values.
    pub config: T,
    defaults: String,
    origins: BTreeMap<String, Origin>,
}

impl<T: Config> Loaded<T> {
    /// Where the value of a key (`section.key`) comes from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// The values that are in force, as the annotated defaults with these values put in. Loads
    /// again to the same configuration, except for secrets: they are left out.
    ///
    /// # Errors
    /// The configuration cannot be written as TOML, which is a fault of its type.
    pub fn to_toml(&self) -> Result<String, Faults> {
        print::annotated(&self.defaults, &self.config, &self.origins)
    }
}

/// One value of one layer, as it was read.
struct Setting {
    key: String,
    value: Value,
    origin: Origin,
}

/// Loads a configuration from all its layers; later layers win: defaults, file, environment, flags.
///
/// # Errors
/// Every fault of every layer, also of values that a later layer would have replaced.
pub fn load<T: Config>(sources: &Sources<'_>) -> Result<Loaded<T>, Faults> {
    let (loaded, wrong, missing) = layered(sources)?;
    let faults = [wrong, missing].concat();
    if faults.is_empty() { Ok(loaded) } else { Err(Faults(faults)) }
}

/// Loads a configuration that is only to be shown: what is needed, but set nowhere, is told beside it.
///
/// # Errors
/// Every fault of what is set.
pub fn look<T: Config>(sources: &Sources<'_>) -> Result<(Loaded<T>, Vec<ConfigFault>), Faults> {
    let (loaded, wrong, missing) = layered(sources)?;
    if wrong.is_empty() { Ok((loaded, missing)) } else { Err(Faults(wrong)) }
}

/// What can be read of all layers, what is wrong, and what is missing.
type Layered<T> = (Loaded<T>, Vec<ConfigFault>, Vec<ConfigFault>);

fn layered<T: Config>(sources: &Sources<'_>) -> Result<Layered<T>, Faults> {
    let broken = |cause: toml::de::Error| Faults(vec![ConfigFault::new(Origin::Default, cause.to_string())]);
    let defaults: Table = sources.defaults.parse().map_err(broken)?;
    let _: T = parse(defaults.clone()).map_err(|cause| Faults(vec![ConfigFault::new(Origin::Default, cause)]))?;
    let (settings, mut wrong) = read::settings(sources, &defaults);
    let mut effective = defaults.clone();
    let mut origins = BTreeMap::new();
    for Setting { key, value, origin } in settings {
        let mut alone = defaults.clone();
        set(&mut alone, &key, value.clone());
        match parse::<T>(alone) {
            Ok(_) => {
                set(&mut effective, &key, value);
                origins.insert(key, origin);
            }
            Err(cause) => wrong.push(ConfigFault::new(origin, format!("{key}: {cause}"))),
        }
    }
    // What could be read is checked even where something else could not: all faults are told at once.
    let config: T = parse(effective).map_err(|cause| Faults(vec![ConfigFault::new(Origin::Default, cause)]))?;
    let loaded = Loaded { config, defaults: sources.defaults.to_owned(), origins };
    let unread = !wrong.is_empty();
    let mut missing = Vec::new();
    for (key, why) in loaded.config.check() {
        let origin = loaded.origin(key);
        let is_default = origin == Origin::Default;
        let fault = ConfigFault::new(origin, format!("{key}: {why}"));
        match (is_default, unread) {
            // A default beside a value that could not be read is nobody's fault.
            (true, true) => {}
            (true, false) if is_nothing(get(&defaults, key)) => missing.push(fault),
            _ => wrong.push(fault),
        }
    }
    Ok((loaded, wrong, missing))
}

/// Whether a default stands for nothing at all: whoever needs the setting has to give it.
fn is_nothing(default: Option<&Value>) -> bool {
    match default {
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(values)) => values.is_empty(),
        _ => false,
    }
}

fn parse<T: Config>(table: Table) -> Result<T, String> {
    table.try_into().map_err(|cause: toml::de::Error| cause.message().trim().replace('\n', "; "))
}

/// Sets a key that the table is known to have.
fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        Some((section, rest)) => {
            if let Some(Value::Table(section)) = table.get_mut(section) {
                set(section, rest, value);
            }
        }
        None => {
            table.insert(key.to_owned(), value);
        }
    }
}

/// The value of a key.
fn get<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((section, rest)) => get(table.get(section)?.as_table()?, rest),
        None => table.get(key),
    }
}

#[cfg(test)]
mod tests;
