//! Packages that a server is started from, and addresses where it runs.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{At, Faults, MAX_CHARS, WEB, references, shown};

/// Kinds of packages.
const REGISTRIES: [&str; 6] = ["npm", "pypi", "cargo", "oci", "nuget", "mcpb"];
/// Those whose version stands beside the name, and not in it.
const VERSIONED: [&str; 4] = ["npm", "pypi", "cargo", "nuget"];
const FORMATS: [&str; 4] = ["string", "number", "boolean", "filepath"];
const HASH_CHARS: usize = 64;

impl Faults {
    pub(super) fn package(&mut self, at: &At<'_>) {
        self.text(at, "registryType", true, 50);
        self.one_of(at, "registryType", &REGISTRIES);
        self.text(at, "identifier", true, 500);
        if at.text("identifier").contains(char::is_whitespace) {
            self.add(at.of("identifier"), "has blanks");
        }
        let kind = at.text("registryType");
        self.text(at, "version", VERSIONED.contains(&kind), 255);
        self.version(at);
        self.url(at, "registryBaseUrl", WEB, false);
        self.text(at, "runtimeHint", false, 100);
        let hash = at.text("fileSha256");
        let is_hash = hash.len() == HASH_CHARS && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if at.get("fileSha256").is_some() && !is_hash {
            self.add(at.of("fileSha256"), format!("is not {HASH_CHARS} hexadecimal digits in lower case"));
        } else if kind == "mcpb" && !is_hash {
            self.add(at.of("fileSha256"), "is missing: a file that is downloaded is checked by it");
        }
        self.each(at, "runtimeArguments", Self::argument);
        self.each(at, "packageArguments", Self::argument);
        self.each(at, "environmentVariables", Self::named_value);
        let names = declared(at);
        self.transport(at, &names);
    }

    pub(super) fn remote(&mut self, at: &At<'_>) {
        self.text(at, "type", true, 50);
        self.one_of(at, "type", &["streamable-http", "sse"]);
        let names = at.get("variables").and_then(Value::as_object).map(|map| map.keys().map(String::as_str).collect());
        self.variables(at);
        self.address(at, &names.unwrap_or_default());
        self.each(at, "headers", Self::named_value);
    }

    fn transport(&mut self, at: &At<'_>, names: &BTreeSet<&str>) {
        let object = match at.get("transport") {
            Some(Value::Object(object)) => object,
            Some(_) => return self.add(at.of("transport"), "is not an object"),
            None => return self.add(at.of("transport"), "is missing"),
        };
        let transport = At { path: at.of("transport"), object };
        self.text(&transport, "type", true, 50);
        self.one_of(&transport, "type", &["stdio", "streamable-http", "sse"]);
        if transport.text("type") == "stdio" {
            if !transport.text("url").is_empty() {
                self.add(transport.of("url"), "has no place where the transport is stdio");
            }
        } else {
            self.address(&transport, names);
        }
        self.each(&transport, "headers", Self::named_value);
    }

    /// An address, in which names in braces stand for values that are declared.
    fn address(&mut self, at: &At<'_>, names: &BTreeSet<&str>) {
        let url = at.text("url");
        if !url.starts_with('{') {
            self.url(at, "url", WEB, true);
        }
        for name in references(url).iter().filter(|name| !names.contains(*name)) {
            self.add(at.of("url"), format!("nothing declares '{}', which stands in braces", shown(name)));
        }
    }

    fn argument(&mut self, at: &At<'_>) {
        self.one_of(at, "type", &["positional", "named"]);
        match at.text("type") {
            "" => self.add(at.of("type"), "is missing"),
            "named" => {
                self.text(at, "name", true, 200);
                let name = at.text("name");
                if name.contains(['<', '>', ' ', '$']) {
                    let why =
                        format!("'{}' is more than a flag, such as --port; its value stands in 'value'", shown(name));
                    self.add(at.of("name"), why);
                }
            }
            _ if at.get("value").is_none() && at.get("valueHint").is_none() => {
                self.add(at.of("value"), "is missing, and so is 'valueHint'");
            }
            _ => self.text(at, "valueHint", false, 200),
        }
        self.boolean(at, "isRepeated");
        self.input(at);
    }

    fn named_value(&mut self, at: &At<'_>) {
        self.text(at, "name", true, 200);
        let name = at.text("name");
        if name.contains(|c: char| c.is_whitespace() || matches!(c, '=' | ':' | '\0')) {
            self.add(at.of("name"), format!("'{}' is no name", shown(name)));
        }
        self.input(at);
    }

    /// What somebody gives, or what is given already.
    fn input(&mut self, at: &At<'_>) {
        self.text(at, "description", false, MAX_CHARS);
        self.one_of(at, "format", &FORMATS);
        self.boolean(at, "isRequired");
        self.boolean(at, "isSecret");
        for name in ["value", "default"] {
            match at.get(name) {
                None | Some(Value::String(_)) => {}
                Some(_) => self.add(at.of(name), "is not a string"),
            }
            // One that refers to others holds none itself.
            if at.is_true("isSecret") && !at.text(name).is_empty() && references(at.text(name)).is_empty() {
                self.add(at.of(name), "holds a secret for all to read; whoever adds the server gives it");
            }
        }
        let choices = at
            .get("choices")
            .map(|choices| choices.as_array().is_some_and(|choices| choices.iter().all(Value::is_string)));
        if choices == Some(false) {
            self.add(at.of("choices"), "is not an array of strings");
        }
        self.variables(at);
    }

    fn variables(&mut self, at: &At<'_>) {
        let Some(value) = at.get("variables") else { return };
        let Some(variables) = value.as_object() else {
            return self.add(at.of("variables"), "is not an object");
        };
        for (name, input) in variables {
            let path = format!("{}.{}", at.of("variables"), shown(name));
            match input.as_object() {
                // A variable of a variable refers to nothing.
                Some(object) if object.contains_key("variables") => self.add(path, "has variables of its own"),
                Some(object) => self.input(&At { path, object }),
                None => self.add(path, "is not an object"),
            }
        }
    }
}

/// Names that the address of a package may refer to.
fn declared<'v>(at: &At<'v>) -> BTreeSet<&'v str> {
    let lists = ["runtimeArguments", "packageArguments", "environmentVariables"];
    let elements = lists.into_iter().filter_map(|list| at.get(list)?.as_array()).flatten();
    let names = elements.flat_map(|element| {
        let own = ["name", "valueHint"].map(|key| element.get(key).and_then(Value::as_str));
        let variables = element.get("variables").and_then(Value::as_object);
        own.into_iter().flatten().chain(variables.into_iter().flat_map(|map| map.keys().map(String::as_str)))
    });
    // A flag is meant with and without its hyphens.
    names.flat_map(|name| [name, name.trim_start_matches('-')]).collect()
}
