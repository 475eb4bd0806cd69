//! Reading the layers: a file with its lines, the environment, flags.

use std::{fs, path::Path};

use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

use super::{ConfigFault, ENV_PREFIX, Origin, Setting, get};

/// A configuration file is at most this large.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A value given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// How the flag is named to the user, such as `--listen`.
    pub name: String,
    /// The key that it sets, such as `limits.message_size`.
    pub key: String,
    /// The value, as written.
    pub value: String,
}

/// The layers of a configuration.
#[derive(Debug, Clone, Default)]
pub struct Sources<'a> {
    /// Annotated TOML with every key there is.
    pub defaults: &'a str,
    /// A file that must exist.
    pub file: Option<&'a Path>,
    /// Sections of that file that other programs read: passed over unless the defaults have them too.
    pub others: &'a [&'a str],
    /// Environment variables; those that do not begin with [`ENV_PREFIX`] are passed over.
    pub env: Vec<(String, String)>,
    /// Flags, the last of a key wins.
    pub flags: Vec<Flag>,
}

/// What the layers above the defaults set, in ascending order of precedence, and what is wrong.
pub(super) fn settings(sources: &Sources<'_>, defaults: &Table) -> (Vec<Setting>, Vec<ConfigFault>) {
    let mut reading = Reading { defaults, settings: Vec::new(), faults: Vec::new() };
    if let Some(file) = sources.file {
        reading.file(file, sources.others);
    }
    let mut variables: Vec<_> = sources.env.iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
    variables.sort();
    for (name, value) in variables {
        let origin = Origin::Env(name.clone());
        if *name != name.to_uppercase() {
            reading.fault(origin, format!("write the name in capitals: {}", name.to_uppercase()));
            continue;
        }
        let key = name[ENV_PREFIX.len()..].to_lowercase().replace("__", ".");
        reading.text(origin, &key, value);
    }
    for Flag { name, key, value } in &sources.flags {
        reading.text(Origin::Flag(name.clone()), key, value);
    }
    (reading.settings, reading.faults)
}

struct Reading<'a> {
    defaults: &'a Table,
    settings: Vec<Setting>,
    faults: Vec<ConfigFault>,
}

impl Reading<'_> {
    fn fault(&mut self, origin: Origin, message: impl Into<String>) {
        self.faults.push(ConfigFault::new(origin, message));
    }

    fn file(&mut self, path: &Path, others: &[&str]) {
        let whole = || Origin::File(path.to_owned(), 0);
        match fs::metadata(path) {
            Ok(found) if found.len() > MAX_FILE_BYTES => {
                let message = format!("has {} bytes; at most {MAX_FILE_BYTES} are read", found.len());
                return self.fault(whole(), message);
            }
            _ => {}
        }
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(cause) => return self.fault(whole(), format!("cannot be read: {cause}")),
        };
        let (table, errors) = DeTable::parse_recoverable(&text);
        let at = |offset: usize| Origin::File(path.to_owned(), line(&text, offset));
        let is_toml = errors.is_empty();
        for error in errors {
            self.fault(at(error.span().map_or(0, |span| span.start)), error.message().trim().replace('\n', "; "));
        }
        for (key, value_span, key_offset) in leaves(table.get_ref(), self.defaults, "") {
            match value_span {
                Some(span) => {
                    match literal(&text[span.clone()]) {
                        Ok(value) => self.settings.push(Setting { key, value, origin: at(span.start) }),
                        // A table in two brackets, whose place holds no value.
                        Err(_) if is_toml => {
                            let why = "is to be one value, such as a list in brackets, and not tables of their own";
                            self.fault(at(key_offset), format!("{key}: {why}"));
                        }
                        // A value that is not TOML is among the errors above.
                        Err(_) => {}
                    }
                }
                None if is_section(table.get_ref(), &key) && others.contains(&key.as_str()) => {}
                None => {
                    let message = self.unknown(&key);
                    self.fault(at(key_offset), message);
                }
            }
        }
    }

    /// A value from where everything is text: its type is that of the default.
    fn text(&mut self, origin: Origin, key: &str, text: &str) {
        let value = match get(self.defaults, key) {
            None | Some(Value::Table(_)) => {
                let message = self.unknown(key);
                return self.fault(origin, message);
            }
            Some(Value::String(_)) => Ok(Value::String(text.to_owned())),
            Some(default) => {
                literal(text).map_err(|_| format!("{key}: '{text}' is not of type {}", default.type_str()))
            }
        };
        match value {
            Ok(value) => self.settings.push(Setting { key: key.to_owned(), value, origin }),
            Err(message) => self.fault(origin, message),
        }
    }

    /// Why a key cannot be set, with those that can in the same place.
    fn unknown(&self, key: &str) -> String {
        if let Some(Value::Table(section)) = get(self.defaults, key) {
            let names: Vec<_> = section.keys().map(|name| format!("{key}.{name}")).collect();
            return format!("'{key}' is a section, not a value; its keys are {}", names.join(", "));
        }
        let section = key.rsplit_once('.').map_or("", |(section, _)| section);
        let (place, table) = match get(self.defaults, section) {
            Some(Value::Table(table)) => (format!("section '{section}'"), table),
            _ => ("the configuration".to_owned(), self.defaults),
        };
        let names: Vec<_> = table.keys().map(String::as_str).collect();
        format!("unknown key '{key}'; {place} has {}", names.join(", "))
    }
}

type Range = std::ops::Range<usize>;

/// Every value of a file with its key, where the value is when the key is known, and where the key is.
pub(super) fn leaves(table: &DeTable<'_>, defaults: &Table, prefix: &str) -> Vec<(String, Option<Range>, usize)> {
    let mut found = Vec::new();
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        let known = defaults.get(name.get_ref().as_ref());
        match (known, inner(value)) {
            (Some(Value::Table(section)), Some(inner)) => found.extend(leaves(inner, section, &format!("{key}."))),
            (Some(Value::Table(_)) | None, _) => found.push((key, None, name.span().start)),
            (Some(_), _) => found.push((key, Some(value.span()), name.span().start)),
        }
    }
    found
}

fn is_section(table: &DeTable<'_>, key: &str) -> bool {
    table.get(key).is_some_and(|value| inner(value).is_some())
}

fn inner<'a, 'i>(value: &'a Spanned<DeValue<'i>>) -> Option<&'a DeTable<'i>> {
    value.get_ref().as_table()
}

/// The line of an offset, from 1.
fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn literal(text: &str) -> Result<Value, toml::de::Error> {
    let mut table: Table = format!("value = {text}").parse()?;
    Ok(table.remove("value").expect("the key was just written"))
}
