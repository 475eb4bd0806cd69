//! What a valid entry is: the registry's form of `server.json` (revision 2025-12-11), and what this platform asks beside.

use std::{collections::BTreeSet, fmt};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    runtime::{self, RUNTIME, TARIFF},
    version::is_range,
};

mod package;

/// Longest entry in bytes, as JSON.
pub const MAX_ENTRY_BYTES: usize = 256 << 10;
/// Faults of one entry that are told at the most.
const MAX_FAULTS: usize = 50;
/// Elements of an array at the most.
const MAX_ELEMENTS: usize = 100;
/// Longest text that the registry's form does not limit itself, in characters.
const MAX_CHARS: usize = 4_096;
const ICON_TYPES: [&str; 5] = ["image/png", "image/jpeg", "image/jpg", "image/svg+xml", "image/webp"];

/// Something wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// Where, such as `packages[0].version`; empty for the entry as a whole.
    pub path: String,
    /// What is wrong, and what it has to be.
    pub why: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "server.json" } else { &self.path };
        write!(f, "{path}: {}", self.why)
    }
}

/// Everything that is wrong with an entry, up to a number that one can read; nothing when it is valid.
pub fn validate(entry: &Value) -> Vec<Wrong> {
    let mut faults = Faults(Vec::new());
    let size = entry.to_string().len();
    if size > MAX_ENTRY_BYTES {
        faults.add("", format!("it has {size} bytes; at most {MAX_ENTRY_BYTES} are taken"));
        return faults.0;
    }
    let Some(server) = entry.as_object() else {
        faults.add("", "it is not an object");
        return faults.0;
    };
    let at = At { path: String::new(), object: server };
    faults.name(&at);
    faults.text(&at, "description", true, 100);
    faults.text(&at, "title", false, 100);
    faults.text(&at, "version", true, 255);
    faults.version(&at);
    for (name, schemes) in [("websiteUrl", HTTPS), ("$schema", HTTPS)] {
        faults.url(&at, name, schemes, false);
    }
    faults.repository(&at);
    faults.each(&at, "icons", Faults::icon);
    faults.each(&at, "packages", Faults::package);
    faults.each(&at, "remotes", Faults::remote);
    faults.meta(&at);
    faults.0.truncate(MAX_FAULTS);
    faults.0
}

const HTTPS: &[&str] = &["https://"];
const WEB: &[&str] = &["https://", "http://"];

/// An object and where it is.
struct At<'v> {
    path: String,
    object: &'v Map<String, Value>,
}

impl<'v> At<'v> {
    fn of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn get(&self, name: &str) -> Option<&'v Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> &'v str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some(&Value::Bool(true))
    }
}

struct Faults(Vec<Wrong>);

impl Faults {
    fn add(&mut self, path: impl Into<String>, why: impl Into<String>) {
        if self.0.len() <= MAX_FAULTS {
            self.0.push(Wrong { path: path.into(), why: why.into() });
        }
    }

    /// A member that is text of a length.
    fn text(&mut self, at: &At<'_>, name: &str, is_needed: bool, most: usize) {
        match at.get(name) {
            None if is_needed => self.add(at.of(name), "is missing"),
            None => {}
            Some(Value::String(text)) => {
                let chars = text.chars().count();
                if chars > most {
                    self.add(at.of(name), format!("has {chars} characters; at most {most} are taken"));
                } else if text.trim().is_empty() {
                    self.add(at.of(name), "is empty");
                } else if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
                    self.add(at.of(name), "has control characters");
                }
            }
            Some(_) => self.add(at.of(name), "is not a string"),
        }
    }

    fn boolean(&mut self, at: &At<'_>, name: &str) {
        if at.get(name).is_some_and(|value| !value.is_boolean()) {
            self.add(at.of(name), "is neither true nor false");
        }
    }

    /// A text that is one of some.
    fn one_of(&mut self, at: &At<'_>, name: &str, known: &[&str]) {
        match at.get(name) {
            None => {}
            Some(Value::String(text)) if known.contains(&text.as_str()) => {}
            Some(other) => {
                let other = shown(&other.to_string());
                self.add(at.of(name), format!("is {other}, and not one of {}", known.join(", ")));
            }
        }
    }

    fn name(&mut self, at: &At<'_>) {
        self.text(at, "name", true, 200);
        let name = at.text("name");
        if name.is_empty() {
            return;
        }
        let inner = |text: &str, also: &[u8]| {
            let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
            let bytes = text.as_bytes();
            edge(bytes.first())
                && edge(bytes.last())
                && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || also.contains(byte))
        };
        let right = name.split_once('/').is_some_and(|(space, own)| {
            inner(space, b".-") && space.contains('.') && !space.contains("..") && inner(own, b"._-")
        });
        if !right {
            let why = format!("'{}' is not REVERSE.DNS/NAME, such as com.example/weather", shown(name));
            self.add("name", why);
        }
    }

    fn version(&mut self, at: &At<'_>) {
        let version = at.text("version");
        if version == "latest" {
            self.add(at.of("version"), "'latest' is a question, and no version");
        } else if is_range(version) {
            let why = format!("'{}' stands for several versions; name one, such as 1.0.2", shown(version));
            self.add(at.of("version"), why);
        }
    }

    fn url(&mut self, at: &At<'_>, name: &str, schemes: &[&str], is_needed: bool) {
        self.text(at, name, is_needed, MAX_CHARS);
        let url = at.text(name);
        if url.is_empty() {
            return;
        }
        let rest = schemes.iter().find_map(|scheme| url.strip_prefix(scheme));
        let has_host = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#']));
        if !has_host || url.contains(char::is_whitespace) {
            self.add(at.of(name), format!("'{}' is not {}HOST/…", shown(url), schemes.join("HOST/… or ")));
        }
    }

    /// Every element of an array of objects.
    fn each(&mut self, at: &At<'_>, name: &str, check: fn(&mut Self, &At<'_>)) {
        let Some(value) = at.get(name) else { return };
        let Some(elements) = value.as_array() else {
            return self.add(at.of(name), "is not an array");
        };
        if elements.len() > MAX_ELEMENTS {
            return self.add(at.of(name), format!("has {} elements; at most {MAX_ELEMENTS} are taken", elements.len()));
        }
        for (index, element) in elements.iter().enumerate() {
            let path = format!("{}[{index}]", at.of(name));
            match element.as_object() {
                Some(object) => check(self, &At { path, object }),
                None => self.add(path, "is not an object"),
            }
        }
    }

    fn repository(&mut self, at: &At<'_>) {
        let Some(value) = at.get("repository") else { return };
        let Some(object) = value.as_object() else {
            return self.add("repository", "is not an object");
        };
        // The registry writes an empty one where there is none.
        if object.is_empty() {
            return;
        }
        let at = At { path: "repository".to_owned(), object };
        self.url(&at, "url", HTTPS, true);
        self.text(&at, "source", true, 100);
        self.text(&at, "id", false, 200);
        self.text(&at, "subfolder", false, 500);
        let folder = at.text("subfolder");
        let is_clean = |folder: &str| folder.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !folder.is_empty() && !is_clean(folder) {
            self.add(
                "repository.subfolder",
                format!("'{}' is no clean relative path such as src/server", shown(folder)),
            );
        }
    }

    fn icon(&mut self, at: &At<'_>) {
        self.url(at, "src", HTTPS, true);
        if at.text("src").chars().count() > 255 {
            self.add(at.of("src"), "has more than 255 characters");
        }
        self.one_of(at, "mimeType", &ICON_TYPES);
        self.one_of(at, "theme", &["light", "dark"]);
        let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_size = |size: &Value| {
            let size = size.as_str().unwrap_or_default();
            size == "any" || size.split_once('x').is_some_and(|(width, height)| number(width) && number(height))
        };
        let sizes = at.get("sizes").map(|sizes| sizes.as_array().is_some_and(|sizes| sizes.iter().all(is_size)));
        if sizes == Some(false) {
            self.add(at.of("sizes"), "is not an array of WIDTHxHEIGHT or any");
        }
    }

    fn meta(&mut self, at: &At<'_>) {
        let Some(value) = at.get("_meta") else { return };
        let Some(object) = value.as_object() else {
            return self.add("_meta", "is not an object");
        };
        if object.len() > MAX_ELEMENTS {
            return self.add("_meta", format!("has {} members; at most {MAX_ELEMENTS} are taken", object.len()));
        }
        for key in object.keys().filter(|key| !key.split('/').next().is_some_and(|space| space.contains('.'))) {
            self.add(format!("_meta.{}", shown(key)), "is not named REVERSE.DNS/NAME");
        }
        if let Some(block) = object.get(RUNTIME) {
            for (path, why) in runtime::faults(block) {
                self.add(format!("_meta.{RUNTIME}{path}"), why);
            }
        }
        if let Some(block) = object.get(TARIFF)
            && let Err(why) = runtime::read_tariff(block)
        {
            self.add(format!("_meta.{TARIFF}"), why);
        }
    }
}

/// Names that braces of a text refer to.
fn references(text: &str) -> BTreeSet<&str> {
    let names = text.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name);
    names.collect()
}

/// A text of others as a message shows it.
fn shown(text: &str) -> String {
    text.chars().take(80).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests;
