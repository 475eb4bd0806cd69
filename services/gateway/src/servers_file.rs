//! The file of servers: tables `[[servers]]`, read anew while the program runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use echotune_autoscaler::Policy;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use self::table::Table;
use crate::{
    Gateway, Reach, ServerConfig, Unusable,
    metering::{Metering, Tariff},
    upstream::{Started, start_program},
};

mod oauth;
mod table;

/// Longest file of servers, in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// Servers in it at the most.
const MAX_SERVERS: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    servers: Vec<Table>,
}

/// What servers of a file may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileRules {
    /// Whether calls are metered; else none may cost anything.
    pub is_metered: bool,
    /// Names that are others' already.
    pub reserved: Vec<String>,
    /// Whether there are no servers where there is no file; else it has to be there.
    pub may_lack: bool,
    /// Files and folders that no program gets at unless its table says so; the file itself is one anyway.
    pub hidden: Vec<PathBuf>,
}

/// A server of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    pub(crate) server: ServerConfig,
    /// How many processes it has, where they come and go with its calls.
    pub(crate) policy: Option<Policy>,
    /// What its calls cost; nothing without.
    pub(crate) tariff: Option<Tariff>,
}

impl Listed {
    /// Reads servers from a text that stands in no file, by the rules for those of one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str, rules: &FileRules) -> io::Result<Vec<Self>> {
        parse_for(text, rules).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
    }

    /// The same, which of the paths that its arguments and variables name reads those alone that are among `texts`:
    /// what else they name was written by somebody who is not to be trusted with that.
    #[must_use]
    pub fn meaning(mut self, texts: Vec<String>) -> Self {
        if let Reach::Process(process) = &mut self.server.reach {
            process.meant = Some(texts);
        }
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.server.name
    }

    /// What its table says.
    pub const fn server(&self) -> &ServerConfig {
        &self.server
    }

    /// Starts a process of it as a gateway does, limited and confined as its table says, for one who speaks with it
    /// alone. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// It is no program, its table is wrong, or the program cannot be started, which the text names.
    pub fn start(&self) -> io::Result<Started> {
        let unusable = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        let Reach::Process(config) = &self.server.reach else {
            return Err(unusable("it is no program that could be started; ask it at its url".to_owned()));
        };
        let faults = self.server.check();
        if !faults.is_empty() {
            return Err(unusable(faults.join("; ")));
        }
        let command = config.command.display();
        let named = |cause: io::Error| io::Error::new(cause.kind(), format!("'{command}' cannot be started: {cause}"));
        start_program(&self.server.name, config).map_err(named)
    }

    /// Serves it from now on, and charges for it what the file says.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn serve(self, gateway: &Gateway) -> Result<(), Unusable> {
        self.serve_anew(None, gateway)
    }

    fn put(self, gateway: &Gateway) -> Result<(), Unusable> {
        match self.policy {
            Some(policy) => gateway.host(self.server, policy),
            None => gateway.put(self.server),
        }
    }

    /// Serves it in the place of what was of its name before, and charges for it from then on. What differs in its
    /// price alone goes on with its processes.
    fn serve_anew(self, before: Option<&Self>, gateway: &Gateway) -> Result<(), Unusable> {
        let is_served = before.is_some_and(|before| before.server == self.server && before.policy == self.policy);
        let (name, tariff) = (self.server.name.clone(), self.tariff.clone());
        if !is_served {
            self.put(gateway)?;
        }
        charge(gateway.hub.metering.as_ref(), &name, tariff).map_err(|why| Unusable(vec![why]))
    }
}

/// Lets calls of a server cost what its tariff says, where they are metered.
fn charge(metering: Option<&Metering>, server: &str, tariff: Option<Tariff>) -> Result<(), String> {
    match (metering, tariff) {
        (Some(metering), Some(tariff)) => metering.set_tariff(server, tariff).map_err(|wrong| wrong.to_string()),
        (Some(metering), None) => {
            metering.clear_tariff(server);
            Ok(())
        }
        (None, Some(_)) => Err(unmetered(server)),
        (None, None) => Ok(()),
    }
}

fn unmetered(server: &str) -> String {
    let shown = server.escape_debug();
    format!("server '{shown}': has a tariff, and calls are not metered; set metering.folder, or leave it out")
}

/// Reads servers from a text.
fn parse(text: &str) -> Result<Vec<Listed>, String> {
    let file: File = toml::from_str(text).map_err(|cause| cause.to_string())?;
    if file.servers.len() > MAX_SERVERS {
        return Err(format!("it has {} servers, and {MAX_SERVERS} are taken", file.servers.len()));
    }
    // Programs do not read by which keys the gateway gets tokens.
    let keys: Vec<_> = file.servers.iter().filter_map(Table::key_file).collect();
    let mut known = BTreeSet::new();
    let mut servers = Vec::new();
    for table in file.servers {
        if !known.insert(table.name.clone()) {
            return Err(format!("server '{}': the name comes twice", table.name.escape_debug()));
        }
        servers.push(table.listed()?);
    }
    hide(&mut servers, &keys);
    Ok(servers)
}

/// Keeps files and folders from programs.
fn hide(servers: &mut [Listed], paths: &[PathBuf]) {
    for listed in servers {
        if let Reach::Process(process) = &mut listed.server.reach {
            process.hidden.extend_from_slice(paths);
        }
    }
}

/// Reads servers for a gateway by its rules.
fn parse_for(text: &str, rules: &FileRules) -> Result<Vec<Listed>, String> {
    let mut servers = parse(text)?;
    hide(&mut servers, &rules.hidden);
    if let Some(listed) = servers.iter().find(|listed| listed.tariff.is_some() && !rules.is_metered) {
        return Err(unmetered(&listed.server.name));
    }
    match servers.iter().find(|listed| rules.reserved.contains(&listed.server.name)) {
        Some(listed) => Err(format!("server '{}': the name is that of another server; choose another", listed.name())),
        None => Ok(servers),
    }
}

/// A file of servers, as it was read last.
pub struct ServersFile {
    path: PathBuf,
    text: String,
    known: BTreeMap<String, Listed>,
    rules: FileRules,
}

impl ServersFile {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or is wrong; the text names it.
    pub fn read(path: &Path, mut rules: FileRules) -> io::Result<(Self, Vec<Listed>)> {
        rules.hidden.push(path.to_owned());
        let text = read(path, rules.may_lack)?;
        let servers = parse_for(&text, &rules).map_err(|why| wrong(path, &why))?;
        let known = by_name(&servers);
        Ok((Self { path: path.to_owned(), text, known, rules }, servers))
    }

    /// Reads it again and again until the stop, and changes the gateway's servers as it says. Those that were read at
    /// first are taken to be served.
    pub async fn watch(mut self, gateway: Gateway, every: Duration, stop: CancellationToken) {
        let mut fault = String::new();
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            let (path, may_lack) = (self.path.clone(), self.rules.may_lack);
            let text = match tokio::task::spawn_blocking(move || read(&path, may_lack)).await {
                Ok(Ok(text)) => text,
                Ok(Err(cause)) => {
                    told(&mut fault, &cause.to_string());
                    continue;
                }
                Err(_) => continue,
            };
            if text != self.text {
                match parse_for(&text, &self.rules) {
                    Ok(servers) => {
                        fault.clear();
                        self.apply(servers, &gateway);
                    }
                    Err(why) => told(&mut fault, &wrong(&self.path, &why).to_string()),
                }
                self.text = text;
            }
        }
    }

    fn apply(&mut self, servers: Vec<Listed>, gateway: &Gateway) {
        let mut next = by_name(&servers);
        for gone in self.known.keys().filter(|name| !next.contains_key(*name)) {
            gateway.remove(gone);
            if let Some(metering) = &gateway.hub.metering {
                metering.clear_tariff(gone);
            }
        }
        for listed in servers {
            let (name, before) = (listed.server.name.clone(), self.known.get(&listed.server.name));
            if before == Some(&listed) {
                continue;
            }
            if let Err(wrong) = listed.serve_anew(before, gateway) {
                tracing::error!(file = %self.path.display(), %wrong, "a server is left as it was");
                // Nor is it taken for served when the file is read next.
                match before {
                    Some(before) => drop(next.insert(name, before.clone())),
                    None => drop(next.remove(&name)),
                }
            }
        }
        tracing::info!(file = %self.path.display(), servers = next.len(), "the servers were read anew");
        self.known = next;
    }
}

fn by_name(servers: &[Listed]) -> BTreeMap<String, Listed> {
    servers.iter().map(|listed| (listed.server.name.clone(), listed.clone())).collect()
}

/// A fault is told once, not each time that it is found.
fn told(before: &mut String, fault: &str) {
    if before != fault {
        tracing::error!(fault, "the servers cannot be read anew; those before go on");
        *before = fault.to_owned();
    }
}

fn wrong(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
}

fn read(path: &Path, may_lack: bool) -> io::Result<String> {
    let named = |cause: io::Error| io::Error::new(cause.kind(), format!("{}: {cause}", path.display()));
    let bytes = match fs::metadata(path) {
        Err(cause) if may_lack && cause.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        about => about.map_err(named)?.len(),
    };
    if bytes > MAX_BYTES {
        return Err(wrong(path, &format!("it has {bytes} bytes, more than the {MAX_BYTES} that are read")));
    }
    fs::read_to_string(path).map_err(named)
}

#[cfg(test)]
mod tests {
    use echotune_kit::{auth::Callers, config::Secret, telemetry::metrics::Meter};

    use super::*;
    use crate::{
        AccessConfig, Confinement, Effect, EraChoice, GatewayConfig, Keys, Limits, ProcessConfig, RegionsConfig,
        Sharing, metering::MeteringConfig, servers::Source,
    };

    #[test]
    fn servers_of_both_kinds_are_read_with_what_they_say_and_nothing_else_changed() {
        let text = r#"
            [[servers]]
            name = "time"
            command = "uvx"
            args = ["mcp-server-time"]
            sharing = "all"
            memory = "512MiB"
            confinement = "required"
            reads = ["~/.gitconfig"]
            writes = ["/data"]
            connects = [443]
            unix_sockets = true
            file_size = "1GiB"
            effects = { now = "reads" }
            [servers.env]
            TZ = "UTC"

            [[servers]]
            name = "far"
            url = "https://far.example.org/mcp"
            authorization = "Bearer secret"
            era = "legacy"
            deadline = "5s"
        "#;
        let servers = parse(text).expect("right");
        let mut program = ProcessConfig::new("uvx", ["mcp-server-time"]);
        program.sharing = Sharing::All;
        program.memory = Some(512 << 20);
        program.confinement = Confinement::Required;
        (program.reads, program.writes) = (vec!["~/.gitconfig".into()], vec!["/data".into()]);
        (program.connects, program.unix_sockets, program.file_size) = (Some(vec![443]), true, Some(1 << 30));
        program.env.insert("TZ".to_owned(), "UTC".to_owned());
        let mut time = ServerConfig::new("time", Reach::Process(program));
        time.effects.insert("now".to_owned(), Effect::Reads);
        let authorization = Some(Secret::from("Bearer secret".to_owned()));
        let endpoints = vec!["https://far.example.org/mcp".to_owned()];
        let mut far = ServerConfig::new("far", Reach::Http { endpoints, authorization });
        (far.era, far.deadline) = (EraChoice::Legacy, Duration::from_secs(5));
        let fixed = |server| Listed { server, policy: None, tariff: None };
        assert_eq!(servers, [time, far].map(fixed));
        let text = "[[servers]]\nname = \"a\"\ncommand = \"b\"\nsharing = \"all\"\nchildren = 3\ncalls_per_child = 2\n";
        let policy = parse(text).expect("right").pop().and_then(|listed| listed.policy).expect("it comes and goes");
        assert_eq!((policy.max_pods, policy.calls_per_pod), (3, 2));
    }

    #[test]
    fn what_is_wrong_is_told_by_the_server() {
        for (text, why) in [
            ("[[servers]]\nname = \"a\"\n", "neither 'url' nor 'command'"),
            ("[[servers]]\nname = \"a\"\nurl = \"http://x/\"\ncommand = \"b\"\n", "keep one of them"),
            ("[[servers]]\nname = \"a\"\nurl = \"http://x/\"\nargs = [\"b\"]\n", "are for a 'command'"),
            ("[[servers]]\nname = \"a\"\nurl = \"http://x/\"\nwrites = [\"/b\"]\n", "are for a 'command'"),
            ("[[servers]]\nname = \"a\"\ncommand = \"b\"\nauthorization = \"c\"\n", "use 'env'"),
            ("[[servers]]\nname = \"a\"\ncommand = \"b\"\n[[servers]]\nname = \"a\"\ncommand = \"b\"\n", "comes twice"),
            ("[[servers]]\nname = \"a\"\ncommmand = \"b\"\n", "commmand"),
            ("[[servers]]\nname = \"a\"\ncommand = \"b\"\neffects = { t = \"perhaps\" }\n", "perhaps"),
            ("[[servers]]\nname = \"a\"\ncommand = \"b\"\ncalls_per_child = 1\n", "needs sharing"),
            ("[[servers]]\nname = \"a\"\nurl = \"https://x/\"\n[servers.oauth]\nkey = 1\n", "key"),
            ("[[servers]\n", "line 1"),
        ] {
            let told = parse(text).expect_err("wrong");
            assert!(told.contains(why), "{why} is not in {told}");
        }
    }

    #[test]
    fn what_is_no_program_or_is_wrong_is_not_started() {
        let relative = "[[servers]]\nname = \"a\"\ncommand = \"b\"\nreads = [\"c\"]\n";
        for (text, why) in [(SERVER, "no program"), (relative, "'c' is neither absolute nor below ~/")] {
            let listed = Listed::read(text, &FileRules::default()).expect("right").remove(0);
            let told = listed.start().err().expect("not started").to_string();
            assert!(told.contains(why), "{told}");
        }
    }

    fn metered(is_metered: bool) -> FileRules {
        FileRules { is_metered, ..FileRules::default() }
    }

    const SERVER: &str = "[[servers]]\nname = \"a\"\nurl = \"http://127.0.0.1:9/mcp\"\n";

    #[test]
    fn what_calls_cost_is_right_and_written_down_or_the_file_is_wrong() {
        let priced = |tariff: &str| parse_for(&format!("{SERVER}[servers.tariff]\n{tariff}"), &metered(true));
        let listed = priced("unit_price_micros = 5\ncurrency = \"EUR\"\nplan = \"all\"\n").expect("right");
        let tariff = listed[0].tariff.as_ref().expect("a tariff");
        assert_eq!((tariff.unit_price_micros, tariff.currency.as_str(), tariff.plan.as_str()), (5, "EUR", "all"));
        for (tariff, why) in [("unit_price_micros = 5\n", "'a': tariff: currency"), ("price = 5\n", "price")] {
            let told = priced(tariff).expect_err("wrong");
            assert!(told.contains(why), "{why} is not in {told}");
        }
        let unmetered = parse_for(&format!("{SERVER}[servers.tariff]\nplan = \"free\"\n"), &metered(false));
        let told = unmetered.expect_err("nobody would write it down");
        assert!(told.contains("'a'") && told.contains("metering.folder"), "{told}");
        assert_eq!(parse_for(SERVER, &metered(false)).map(|servers| servers.len()), Ok(1));
    }

    #[test]
    fn names_of_others_are_not_taken_and_a_file_that_may_lack_has_no_servers() {
        let rules = FileRules { reserved: vec!["a".to_owned()], may_lack: true, ..FileRules::default() };
        let told = parse_for(SERVER, &rules).expect_err("another's");
        assert!(told.contains("'a'") && told.contains("choose another"), "{told}");
        assert_eq!(parse_for(&SERVER.replace("\"a\"", "\"b\""), &rules).map(|servers| servers.len()), Ok(1));
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("servers.toml");
        let (_, servers) = ServersFile::read(&path, rules).expect("none");
        assert!(servers.is_empty());
        let command = "[[servers]]\nname = \"b\"\ncommand = \"b\"\n";
        fs::write(&path, command).expect("written");
        let rules = FileRules { hidden: vec!["/data".into()], ..FileRules::default() };
        let (_, servers) = ServersFile::read(&path, rules).expect("one");
        let Reach::Process(program) = &servers[0].server.reach else { panic!("a program") };
        assert_eq!(program.hidden, [PathBuf::from("/data"), path.clone()], "what is the gateway's own");
        fs::remove_file(&path).expect("removed");
        let told = ServersFile::read(&path, FileRules::default()).err().expect("it has to be there").to_string();
        assert!(told.contains("servers.toml"), "{told}");
    }

    fn gateway(metering: Option<Metering>, stop: &CancellationToken) -> Gateway {
        let config = GatewayConfig {
            servers: Vec::new(),
            callers: Callers::new("t".repeat(32).into(), None),
            access: AccessConfig::default(),
            keys: Keys::random().expect("random"),
            advertise: String::new(),
            hosts: Vec::new(),
            origins: Vec::new(),
            authorities: None,
            limits: Limits::default(),
            regions: RegionsConfig::default(),
            meter: Meter::default(),
            metering,
        };
        Gateway::start(config, stop.clone()).expect("usable")
    }

    fn file(is_metered: bool) -> ServersFile {
        let rules = metered(is_metered);
        ServersFile { path: "servers.toml".into(), text: String::new(), known: BTreeMap::new(), rules }
    }

    #[tokio::test]
    async fn what_could_not_be_served_is_tried_again_with_the_next_file() {
        let stop = CancellationToken::new();
        let (gateway, mut file) = (gateway(None, &stop), file(false));
        let servers = || parse(SERVER).expect("right");
        let source = || gateway.hub.servers.named("a").map(|server| server.source);
        gateway.hub.put(Source::Operator, servers().remove(0).server).expect("free");
        file.apply(servers(), &gateway);
        assert_eq!(source(), Some(Source::Operator), "it is another's");
        assert!(gateway.hub.remove(Source::Operator, "a"));
        file.apply(servers(), &gateway);
        assert_eq!(source(), Some(Source::Configured));
        stop.cancel();
        assert!(gateway.close(Duration::from_secs(20)).await);
    }

    #[tokio::test]
    async fn what_calls_cost_follows_the_file() {
        let folder = tempfile::tempdir().expect("folder");
        let metering = Metering::open(MeteringConfig::new(folder.path())).expect("a ledger");
        let stop = CancellationToken::new();
        let (gateway, mut file) = (gateway(Some(metering.clone()), &stop), file(true));
        let mut price = |text: &str| {
            file.apply(parse_for(text, &metered(true)).expect("right"), &gateway);
            metering.tariff("a").unit_price_micros
        };
        let priced =
            |price: u32| format!("{SERVER}[servers.tariff]\nunit_price_micros = {price}\ncurrency = \"EUR\"\n");
        let prices = [priced(5), priced(7), SERVER.to_owned(), priced(9), String::new()];
        assert_eq!(prices.map(|text| price(&text)), [5, 7, 0, 9, 0]);
        stop.cancel();
        assert!(gateway.close(Duration::from_secs(20)).await);
    }
}
