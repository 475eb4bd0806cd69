//! What a child reads and writes. Whatever is not named here or by its configuration is out of its reach: the rest of
//! the home folder with its keys, the platform's data, the configuration of this program, and what others left in the
//! folder for temporary files.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs, iter,
    path::{Path, PathBuf},
};

use crate::config::ProcessConfig;

/// Programs of the system and what they need, and what tells of it.
const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix",
    "/gnu",
    "/snap",
    "/home/linuxbrew/.linuxbrew",
    "/run/current-system",
    // It may be a link to where nothing else is let at.
    "/etc/resolv.conf",
    "/run/opengl-driver",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/var/lib/ca-certificates",
    "/var/cache/fontconfig",
    // Of processes outside, their environment and memory stay hidden in it.
    "/proc",
    "/sys",
];
/// Folders of the system where this platform has its own too, of which nothing is shown.
const SHARED: [&str; 2] = ["/etc", "/opt"];
/// Of a folder that holds what is hidden, entries that are let at one by one; where there are more, it is not.
const ENTRIES: usize = 1_000;
/// How what is this platform's is called in them.
const OURS: &str = "echotune";
/// Files that are devices, which everybody reads and writes.
pub(super) const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// Where the system answers who is called how.
pub(super) const SOCKETS: [&str; 3] = ["/run/systemd/resolve", "/run/nscd", "/var/run/nscd"];
/// What is read of the home folder: programs that were installed there, and settings that hold no secret.
const HOME: &[&str] = &[
    ".nvm",
    ".fnm",
    ".volta",
    ".asdf",
    ".asdfrc",
    ".tool-versions",
    ".pyenv",
    ".bun",
    ".deno",
    ".nix-profile",
    ".local/lib",
    ".local/share/fnm",
    ".local/share/mise",
    ".local/share/pipx",
    ".local/share/pnpm",
    ".local/share/uv",
    ".gitconfig",
    ".config/git/config",
    ".config/git/ignore",
];
/// What stands beside a folder `bin` in an installation of its own.
const BESIDE: [&str; 4] = ["lib", "lib64", "libexec", "pyvenv.cfg"];
/// Folders that hold much of others: they are not let at for the sake of something in them.
const WIDE: &[&str] = &["/", "/home", "/root", "/run", "/srv", "/tmp", "/var", "/etc", "/opt"];
/// Those of the home folder.
const WIDE_HOME: [&str; 4] = [".config", ".local", ".local/share", ".local/state"];

/// What a child may; whatever it writes it reads as well.
#[derive(Debug, Default)]
pub(super) struct Allowed {
    pub(super) reads: BTreeSet<PathBuf>,
    pub(super) writes: BTreeSet<PathBuf>,
}

impl Allowed {
    /// Of these, what is not there is nothing that can be let at.
    /// `own` are folders that it writes whatever its configuration says.
    pub(super) fn of(config: &ProcessConfig, own: &[PathBuf]) -> Self {
        let ground = Ground::of(config);
        let home = HOME.iter().filter_map(|name| ground.below_home(name));
        let folder = config.folder.as_ref().and_then(|_| fs::canonicalize(&ground.here).ok());
        let folder = folder.filter(|folder| !ground.is_wide(folder));
        let mut wanted: BTreeSet<_> = SYSTEM.iter().chain(&SHARED).map(PathBuf::from).chain(home).collect();
        wanted.extend(ground.named().into_iter().chain(ground.program()).chain(folder.clone()));
        wanted.extend(ground.path().flat_map(|folder| ground.around(&folder)));
        let mut reads: BTreeSet<_> = wanted.into_iter().flat_map(|path| ground.shown(path)).collect();
        reads.extend(config.reads.iter().filter_map(|path| ground.expanded(path)));
        let mut writes: BTreeSet<_> = folder.into_iter().filter(|folder| !ground.holds_hidden(folder)).collect();
        writes.extend(own.iter().cloned());
        writes.extend(config.writes.iter().filter_map(|path| ground.expanded(path)));
        Self { reads, writes }
    }
}

/// What of a folder of the system is this platform's.
fn ours(folder: &str) -> Vec<PathBuf> {
    let is_ours =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(OURS.as_bytes()));
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_ours).collect()
}

/// Where a child stands.
pub(super) struct Ground<'c> {
    config: &'c ProcessConfig,
    home: Option<PathBuf>,
    here: PathBuf,
    hidden: Vec<PathBuf>,
}

impl<'c> Ground<'c> {
    pub(super) fn of(config: &'c ProcessConfig) -> Self {
        let own = env::current_dir().unwrap_or_default();
        let here = config.folder.as_ref().map_or_else(|| own.clone(), |folder| own.join(folder));
        let home = variable(config, "HOME").and_then(|home| fs::canonicalize(home).ok());
        let hidden = config.hidden.iter().filter(|path| !path.as_os_str().is_empty()).map(|path| own.join(path));
        let hidden = hidden.map(|path| fs::canonicalize(&path).unwrap_or(path));
        let hidden = hidden.chain(SHARED.into_iter().flat_map(ours)).collect();
        Self { config, home, here, hidden }
    }

    pub(super) fn below_home(&self, name: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(name))
    }

    fn expanded(&self, path: &Path) -> Option<PathBuf> {
        match path.strip_prefix("~") {
            Ok(rest) => self.home.as_ref().map(|home| home.join(rest)),
            Err(_) => Some(path.to_owned()),
        }
    }

    /// Whether its configuration says that it writes there.
    pub(super) fn is_written(&self, path: &Path) -> bool {
        self.config.writes.iter().filter_map(|said| self.expanded(said)).any(|said| path.starts_with(said))
    }

    fn holds_hidden(&self, path: &Path) -> bool {
        self.hidden.iter().any(|hidden| hidden.starts_with(path))
    }

    /// A path; of a folder that holds what is hidden, all else in it. A link in it is read as one, and what it leads to
    /// is not let at by it.
    fn shown(&self, path: PathBuf) -> Vec<PathBuf> {
        let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        if !self.holds_hidden(&real) {
            return vec![path];
        }
        if self.hidden.contains(&real) {
            return Vec::new();
        }
        let entries: Vec<_> = fs::read_dir(&real).into_iter().flatten().take(ENTRIES + 1).flatten().collect();
        if entries.len() > ENTRIES {
            return Vec::new();
        }
        let others = entries.iter().filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()));
        others.flat_map(|entry| self.shown(entry.path())).collect()
    }

    /// Whether it holds much beside what one is after.
    fn is_wide(&self, path: &Path) -> bool {
        let of_home = |home: &Path| home.starts_with(path) || WIDE_HOME.iter().any(|name| home.join(name) == path);
        let of_home = self.home.as_deref().is_some_and(of_home);
        of_home || path == env::temp_dir() || WIDE.iter().any(|wide| path == Path::new(wide))
    }

    /// What its arguments and variables name: whoever wrote them means it to be read, unless it is said what is meant.
    fn named(&self) -> Vec<PathBuf> {
        let args = self.config.args.iter().map(String::as_str);
        let args = args.flat_map(|arg| iter::once(arg).chain(arg.split_once('=').map(|(_, value)| value)));
        let values = self.config.env.values().map(String::as_str).filter(|value| value.starts_with('/'));
        let there = |text: &str| fs::canonicalize(self.here.join(text)).ok();
        let said = args.filter(|arg| arg.contains('/')).chain(values).filter(|text| is_meant(self.config, text));
        let found = said.filter_map(there);
        found.filter(|path| !self.is_wide(path)).collect()
    }

    /// The folders with programs.
    fn path(&self) -> impl Iterator<Item = PathBuf> {
        let path = variable(self.config, "PATH").unwrap_or_default();
        let folders: Vec<_> = env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
        folders.into_iter().filter_map(|folder| fs::canonicalize(folder).ok())
    }

    /// The program, and where it is installed.
    fn program(&self) -> Vec<PathBuf> {
        let command = &self.config.command;
        let is_path = command.components().count() > 1;
        let found = if is_path {
            Some(self.here.join(command))
        } else {
            self.path().map(|folder| folder.join(command)).find(|file| file.is_file())
        };
        let real = found.as_ref().and_then(|file| fs::canonicalize(file).ok());
        let files: Vec<_> = found.into_iter().chain(real).collect();
        // What is found by `PATH` stands where it should.
        let has_around = !is_path || is_meant(self.config, &command.to_string_lossy());
        let folders = files.iter().filter(|_| has_around).filter_map(|file| file.parent());
        let around: Vec<_> = folders.flat_map(|at| self.around(at)).collect();
        files.into_iter().chain(around).collect()
    }

    /// A folder with programs, and what they need beside it.
    fn around(&self, folder: &Path) -> Vec<PathBuf> {
        let whole = folder.parent().filter(|_| folder.ends_with("bin"));
        let beside = whole.into_iter().flat_map(|whole| BESIDE.map(|name| whole.join(name)));
        iter::once(folder.to_owned()).filter(|folder| !self.is_wide(folder)).chain(beside).collect()
    }
}

fn variable(config: &ProcessConfig, name: &str) -> Option<OsString> {
    let said = config.env.get(name).filter(|value| is_meant(config, value));
    said.map(OsString::from).or_else(|| env::var_os(name))
}

/// Whether what its configuration says comes from whoever starts it.
fn is_meant(config: &ProcessConfig, text: &str) -> bool {
    config.meant.as_ref().is_none_or(|meant| meant.iter().any(|one| one == text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A home folder with secrets, and a program that is started in it.
    fn at_home(command: &str, args: &[&str]) -> (tempfile::TempDir, ProcessConfig) {
        let home = tempfile::tempdir().expect("a folder");
        for folder in [".ssh", ".aws", ".config/gcloud", ".local/share/echotune", "notes", "venv/bin", "venv/lib"] {
            fs::create_dir_all(home.path().join(folder)).expect("made");
        }
        let mut config = ProcessConfig::new(command, args.iter().copied());
        config.env.insert("HOME".to_owned(), home.path().display().to_string());
        config.env.insert("PATH".to_owned(), "/usr/bin:/bin".to_owned());
        (home, config)
    }

    fn covers(paths: &BTreeSet<PathBuf>, path: &Path) -> bool {
        paths.iter().any(|allowed| path.starts_with(allowed))
    }

    #[test]
    fn a_program_gets_the_system_and_its_own_and_nothing_of_what_is_secret() {
        let (home, mut config) = at_home("npx", &["-y", "some-server", "/"]);
        config.args.push(home.path().display().to_string());
        config.args.push(format!("--root={}", env::temp_dir().display()));
        let own = [PathBuf::from("/tmp/its-own")];
        let allowed = Allowed::of(&config, &own);
        let real = fs::canonicalize(home.path()).expect("there");
        for secret in [".ssh/id", ".aws/credentials", ".config/gcloud/x", ".local/share/echotune/token", "notes/x"] {
            for home in [home.path(), &real] {
                let path = home.join(secret);
                assert!(!covers(&allowed.reads, &path) && !covers(&allowed.writes, &path), "{secret}");
            }
        }
        assert!(covers(&allowed.reads, Path::new("/usr/bin/env")));
        assert_eq!(allowed.writes, BTreeSet::from(own));
    }

    #[test]
    fn what_is_hidden_is_not_let_at_for_the_sake_of_what_holds_it() {
        let (home, mut config) = at_home("bin/server", &["./notes"]);
        let real = fs::canonicalize(home.path()).expect("there");
        let here = real.join("notes");
        fs::create_dir_all(here.join("bin")).expect("made");
        for file in ["bin/server", "bin/token", "data", "other"] {
            fs::write(here.join(file), "").expect("written");
        }
        std::os::unix::fs::symlink(&real, here.join("up")).expect("linked");
        config.folder = Some(here.clone());
        config.args.push(here.display().to_string());
        config.hidden = vec![PathBuf::new(), here.join("data"), here.join("bin/token"), here.join("absent")];
        let allowed = Allowed::of(&config, &[]);
        for hidden in ["data", "bin/token", "absent"] {
            assert!(!covers(&allowed.reads, &here.join(hidden)), "{hidden}: {allowed:?}");
        }
        assert!(covers(&allowed.reads, &here.join("bin/server")) && covers(&allowed.reads, &here.join("other")));
        assert!(!covers(&allowed.reads, &real.join(".ssh/id")), "a link leads there: {allowed:?}");
        assert_eq!(allowed.writes, BTreeSet::new());
        config.writes = vec![here.clone()];
        assert!(covers(&Allowed::of(&config, &[]).writes, &here.join("data")), "its table says so");
    }

    #[test]
    fn what_nobody_means_is_not_read_for_the_sake_of_its_name() {
        let (home, mut config) = at_home("sh", &[]);
        let real = fs::canonicalize(home.path()).expect("there");
        let at = |name: &str| real.join(name).display().to_string();
        config.args = vec![at(".ssh"), format!("--notes={}", at("notes")), format!("--key={}", at(".config/gcloud"))];
        config.env.insert("KEYS".to_owned(), at(".aws"));
        config.env.insert("PATH".to_owned(), format!("{}:/usr/bin:/bin", at(".local/share/echotune")));
        // Without its home that would be no folder that holds much of others.
        config.env.insert("HOME".to_owned(), "/nowhere".to_owned());
        let secrets = [".ssh/id", ".aws/credentials", ".config/gcloud/x", ".local/share/echotune/token"];
        let reads = |config: &ProcessConfig| Allowed::of(config, &[]).reads;
        for secret in secrets {
            assert!(covers(&reads(&config), &real.join(secret)), "{secret}");
        }
        config.meant = Some(vec![at("notes")]);
        let allowed = reads(&config);
        assert!(covers(&allowed, &real.join("notes/x")), "{allowed:?}");
        for secret in secrets {
            assert!(!covers(&allowed, &real.join(secret)), "{secret}: {allowed:?}");
        }
        config.command = real.join(".ssh/program");
        assert!(!covers(&reads(&config), &real.join(".ssh/id")), "it stands beside its program");
        config.meant = None;
        config.args.clear();
        assert!(covers(&reads(&config), &real.join(".ssh/id")), "its table names the program");
    }

    #[test]
    fn what_its_table_names_is_read_and_its_folder_and_what_it_says_are_written() {
        let (home, mut config) = at_home("venv/bin/server", &["--notes=./notes", "ssh"]);
        let real = fs::canonicalize(home.path()).expect("there");
        fs::write(real.join("venv/bin/server"), "").expect("written");
        config.reads = vec!["~/.ssh/known_hosts".into()];
        config.writes = vec!["/data".into(), "~/out".into()];
        config.folder = Some(home.path().to_owned());
        let allowed = Allowed::of(&config, &[]);
        for read in ["notes/x", "venv/bin/server", "venv/lib/x", ".ssh/known_hosts"] {
            assert!(covers(&allowed.reads, &real.join(read)), "{read}: {allowed:?}");
        }
        assert!(!covers(&allowed.reads, &real.join(".ssh/id")));
        let said = BTreeSet::from(["/data".into(), real.join("out")]);
        assert_eq!(allowed.writes, said, "a home is no folder of a program");
        config.folder = Some(home.path().join("notes"));
        assert!(covers(&Allowed::of(&config, &[]).writes, &real.join("notes/x")));
    }
}
