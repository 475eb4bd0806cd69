//! From an entry to a server that can be started or reached: its command, or its address, with what it has to be given.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::{runtime, text};

/// How a server is started or reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "transport", rename_all = "snake_case")]
pub enum Launched {
    /// As a child process that speaks on its standard input and output.
    Stdio {
        /// The program.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// Its environment, beside `PATH` and `HOME`.
        env: BTreeMap<String, String>,
    },
    /// By streamable HTTP, where it runs already.
    Http {
        /// Its endpoint.
        url: String,
        /// Headers that it wants.
        headers: BTreeMap<String, String>,
    },
}

/// Something that whoever adds a server gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its name: of an environment variable, a flag without its hyphens, a place in the command line, a header, or what
    /// stands in braces.
    pub name: String,
    /// What it is, for people.
    pub description: String,
    /// Whether the server does nothing without it.
    pub is_required: bool,
    /// Whether it must not be shown.
    pub is_secret: bool,
    /// What it is when nobody says.
    pub default: Option<String>,
    /// What it may be; anything when empty.
    pub choices: Vec<String>,
}

/// Why an entry cannot be started with what was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Settings are not there that it needs.
    #[error("{}", .0.iter().map(told).collect::<Vec<_>>().join("\n"))]
    Settings(Vec<Setting>),
    /// A setting was given that the entry does not know.
    #[error("it has no setting '{name}'; it has {}", list(.known))]
    Unknown {
        /// As it was given.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A setting is none of what it may be.
    #[error("setting '{name}' is one of {}", list(.choices))]
    Choice {
        /// Which one.
        name: String,
        /// What it may be.
        choices: Vec<String>,
    },
    /// The entry tells of no package that can be started here, and of no address.
    #[error(
        "it can neither be started nor reached: it has no package of npm or PyPI that speaks stdio, and no remote by streamable HTTP"
    )]
    Nothing,
}

fn told(setting: &Setting) -> String {
    let what = if setting.description.is_empty() { String::new() } else { format!(" ({})", setting.description) };
    format!("setting '{0}'{what} is needed; give it with --with {0}=VALUE", setting.name)
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// An entry on its way to being started.
#[derive(Debug)]
pub struct Launch<'e> {
    server: &'e Value,
    way: Way<'e>,
}

#[derive(Debug, Clone, Copy)]
enum Way<'e> {
    Package(&'e Value),
    Remote(&'e Value),
}

impl<'e> Launch<'e> {
    /// The way in which an entry is started, or reached where it cannot be.
    ///
    /// # Errors
    /// There is none.
    pub fn of(server: &'e Value) -> Result<Self, Missing> {
        let all = |name: &str| server.get(name).and_then(Value::as_array).into_iter().flatten();
        let is_startable = |package: &&Value| {
            package.get("transport").is_some_and(|transport| text(transport, "type") == "stdio")
                && matches!(text(package, "registryType"), "npm" | "pypi")
        };
        let remote = || all("remotes").find(|remote| text(remote, "type") == "streamable-http").map(Way::Remote);
        let way = all("packages").find(is_startable).map(Way::Package).or_else(remote);
        way.map(|way| Self { server, way }).ok_or(Missing::Nothing)
    }

    /// By what it is spoken to: `stdio` or `streamable-http`.
    pub const fn transport(&self) -> &'static str {
        match self.way {
            Way::Package(_) => "stdio",
            Way::Remote(_) => "streamable-http",
        }
    }

    /// What can be given.
    pub fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        for input in self.inputs() {
            input.settings(&mut settings);
        }
        let mut known = BTreeSet::new();
        settings.retain(|setting: &Setting| known.insert(setting.name.clone()));
        settings
    }

    /// Starts or reaches it with what was given.
    ///
    /// # Errors
    /// Something is missing, unknown, or not what it may be.
    pub fn with(&self, given: &BTreeMap<String, String>) -> Result<Launched, Missing> {
        let settings = self.settings();
        if let Some(name) = given.keys().find(|name| !settings.iter().any(|setting| setting.name == **name)) {
            let known = settings.iter().map(|setting| setting.name.clone()).collect();
            return Err(Missing::Unknown { name: name.clone(), known });
        }
        for setting in settings.iter().filter(|setting| !setting.choices.is_empty()) {
            if given.get(&setting.name).is_some_and(|value| !setting.choices.contains(value)) {
                return Err(Missing::Choice { name: setting.name.clone(), choices: setting.choices.clone() });
            }
        }
        let is_missing =
            |setting: &Setting| setting.is_required && setting.default.is_none() && !given.contains_key(&setting.name);
        let missing: Vec<Setting> = settings.into_iter().filter(is_missing).collect();
        if !missing.is_empty() {
            return Err(Missing::Settings(missing));
        }
        Ok(match self.way {
            Way::Package(package) => self.started(package, given),
            Way::Remote(remote) => reached(remote, given),
        })
    }

    fn started(&self, package: &Value, given: &BTreeMap<String, String>) -> Launched {
        let (name, version) = (text(package, "identifier"), text(package, "version"));
        let program = runtime(self.server).program;
        let is_npm = text(package, "registryType") == "npm";
        let hint = text(package, "runtimeHint");
        let command = match (hint, is_npm) {
            ("", true) => "npx",
            ("", false) => "uvx",
            (hint, _) => hint,
        };
        let mut args: Vec<String> = inputs(package, "runtimeArguments").flat_map(|input| input.words(given)).collect();
        match (is_npm, program) {
            (true, None) => args.extend(["-y".to_owned(), format!("{name}@{version}")]),
            (true, Some(program)) => {
                args.extend(["-y", "-p", &format!("{name}@{version}"), &program].map(str::to_owned))
            }
            (false, None) => args.push(format!("{name}@{version}")),
            (false, Some(program)) => {
                args.extend(["--from", &format!("{name}=={version}"), &program].map(str::to_owned))
            }
        }
        args.extend(inputs(package, "packageArguments").flat_map(|input| input.words(given)));
        let env = inputs(package, "environmentVariables").filter_map(|input| input.pair(given)).collect();
        Launched::Stdio { command: command.to_owned(), args, env }
    }

    fn inputs(&self) -> Vec<Input<'e>> {
        match self.way {
            Way::Package(package) => ["runtimeArguments", "packageArguments", "environmentVariables"]
                .into_iter()
                .flat_map(|list| inputs(package, list))
                .collect(),
            Way::Remote(remote) => {
                let variables = remote.get("variables").and_then(Value::as_object).into_iter().flatten();
                let own = variables.map(|(name, of)| Input { name: name.as_str(), of });
                own.chain(inputs(remote, "headers")).collect()
            }
        }
    }
}

fn reached(remote: &Value, given: &BTreeMap<String, String>) -> Launched {
    let url = filled(text(remote, "url"), remote, given);
    let headers = inputs(remote, "headers").filter_map(|input| input.pair(given)).collect();
    Launched::Http { url, headers }
}

/// An argument, a variable or a header.
#[derive(Debug, Clone, Copy)]
struct Input<'e> {
    name: &'e str,
    of: &'e Value,
}

fn inputs<'e>(of: &'e Value, list: &str) -> impl Iterator<Item = Input<'e>> {
    let elements = of.get(list).and_then(Value::as_array).into_iter().flatten();
    elements.map(|of| {
        let name = if text(of, "name").is_empty() { text(of, "valueHint") } else { text(of, "name") };
        Input { name: name.trim_start_matches('-'), of }
    })
}

fn is_true(of: &Value, name: &str) -> bool {
    of.get(name).and_then(Value::as_bool) == Some(true)
}

impl Input<'_> {
    fn settings(&self, to: &mut Vec<Setting>) {
        let variables = self.of.get("variables").and_then(Value::as_object).into_iter().flatten();
        to.extend(variables.map(|(name, of)| Input { name, of }.setting()));
        // What has a value is not asked for.
        if self.of.get("value").is_none() && !self.name.is_empty() && !self.is_flag() {
            to.push(self.setting());
        }
    }

    fn setting(&self) -> Setting {
        let choices = self.of.get("choices").and_then(Value::as_array).into_iter().flatten();
        Setting {
            name: self.name.to_owned(),
            description: text(self.of, "description").to_owned(),
            is_required: is_true(self.of, "isRequired"),
            is_secret: is_true(self.of, "isSecret"),
            default: self.of.get("default").and_then(Value::as_str).map(str::to_owned),
            choices: choices.filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }

    /// A flag that stands there alone: nothing says that it takes a value.
    fn is_flag(&self) -> bool {
        let says = ["value", "default", "valueHint", "isRequired", "format", "choices", "isSecret"];
        text(self.of, "type") == "named" && says.iter().all(|name| self.of.get(*name).is_none())
    }

    fn value(&self, given: &BTreeMap<String, String>) -> Option<String> {
        if let Some(value) = self.of.get("value").and_then(Value::as_str) {
            return Some(filled(value, self.of, given));
        }
        given.get(self.name).cloned().or_else(|| self.of.get("default")?.as_str().map(str::to_owned))
    }

    /// As words of a command line.
    fn words(&self, given: &BTreeMap<String, String>) -> Vec<String> {
        let flag = (text(self.of, "type") == "named").then(|| text(self.of, "name").to_owned());
        match (flag, self.value(given)) {
            (Some(flag), Some(value)) => vec![flag, value],
            (Some(flag), None) if self.is_flag() => vec![flag],
            (None, Some(value)) => vec![value],
            (_, None) => Vec::new(),
        }
    }

    /// As a variable or a header.
    fn pair(&self, given: &BTreeMap<String, String>) -> Option<(String, String)> {
        Some((self.name.to_owned(), self.value(given)?))
    }
}

/// A text with the values of its variables. Names that nothing declares stay as they are.
fn filled(text_of: &str, of: &Value, given: &BTreeMap<String, String>) -> String {
    let variables = of.get("variables").and_then(Value::as_object).into_iter().flatten();
    variables.fold(text_of.to_owned(), |filled, (name, variable)| {
        let default = || text(variable, "default").to_owned();
        filled.replace(&format!("{{{name}}}"), &given.get(name).cloned().unwrap_or_else(default))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn given<const N: usize>(of: [(&str, &str); N]) -> BTreeMap<String, String> {
        of.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn words(launched: Launched) -> (String, BTreeMap<String, String>) {
        match launched {
            Launched::Stdio { command, args, env } => (format!("{command} {}", args.join(" ")), env),
            Launched::Http { url, headers } => (url, headers),
        }
    }

    #[test]
    fn a_package_becomes_a_command() {
        let server = json!({"packages": [
            {"registryType": "oci", "identifier": "x", "transport": {"type": "stdio"}},
            {"registryType": "pypi", "identifier": "mcp-server-git", "version": "1.2.3", "transport": {"type": "stdio"},
             "runtimeArguments": [{"type": "named", "name": "--with", "value": "mcp<2"}],
             "packageArguments": [
                {"type": "named", "name": "--read-only"},
                {"type": "named", "name": "--repository", "isRequired": true, "format": "filepath"},
                {"type": "positional", "value": "{mode}", "variables": {"mode": {"default": "fast", "choices": ["fast", "safe"]}}}],
             "environmentVariables": [{"name": "TOKEN", "isSecret": true}, {"name": "LOG", "value": "off"}]}]});
        let launch = Launch::of(&server).expect("a way");
        let names: Vec<_> = launch.settings().into_iter().map(|setting| setting.name).collect();
        assert_eq!(names, ["repository", "mode", "TOKEN"]);
        let missing = launch.with(&given([])).expect_err("missing").to_string();
        assert!(missing.contains("--with repository=VALUE"), "{missing}");
        let (line, env) = words(launch.with(&given([("repository", "/repo")])).expect("whole"));
        assert_eq!(line, "uvx --with mcp<2 mcp-server-git@1.2.3 --read-only --repository /repo fast");
        assert_eq!(env, given([("LOG", "off")]));
        let all = given([("repository", "/r"), ("mode", "safe"), ("TOKEN", "s")]);
        let (line, env) = words(launch.with(&all).expect("whole"));
        assert!(line.ends_with("/r safe") && env["TOKEN"] == "s", "{line} {env:?}");
        let unknown = launch.with(&given([("repo", "/r")])).expect_err("unknown").to_string();
        assert!(unknown.contains("'repo'") && unknown.contains("repository"), "{unknown}");
        let choice = launch.with(&given([("repository", "/r"), ("mode", "slow")])).expect_err("no choice").to_string();
        assert!(choice.contains("fast, safe"), "{choice}");
    }

    #[test]
    fn programs_of_other_names_and_addresses_are_known() {
        let package = |kind: &str| {
            json!({"packages": [{"registryType": kind, "identifier": "p", "version": "1.0.0", "transport": {"type": "stdio"}}],
                   "_meta": {"internal.echotune/runtime": {"program": "other"}}})
        };
        let line = |server: &Value| words(Launch::of(server).expect("a way").with(&given([])).expect("whole")).0;
        assert_eq!(line(&package("pypi")), "uvx --from p==1.0.0 other");
        assert_eq!(line(&package("npm")), "npx -y -p p@1.0.0 other");
        let remote = json!({"remotes": [
            {"type": "sse", "url": "https://old.example/sse"},
            {"type": "streamable-http", "url": "{base}/mcp", "variables": {"base": {"isRequired": true}},
             "headers": [{"name": "Authorization", "value": "Bearer {token}", "variables": {"token": {"isSecret": true, "isRequired": true}}}]}]});
        let launch = Launch::of(&remote).expect("a way");
        let (url, headers) =
            words(launch.with(&given([("base", "http://127.0.0.1:1"), ("token", "t")])).expect("whole"));
        assert_eq!((url.as_str(), headers["Authorization"].as_str()), ("http://127.0.0.1:1/mcp", "Bearer t"));
        assert_eq!(Launch::of(&json!({"packages": []})).expect_err("none"), Missing::Nothing);
    }
}
