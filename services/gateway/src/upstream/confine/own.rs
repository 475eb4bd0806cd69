//! Folders that are a child's own: one for temporary files, which goes with it, and one for what programs that fetch
//! others keep of those, which stays for the next child of its server.

use std::{
    env,
    ffi::OsStr,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Once,
    thread,
};

use tempfile::TempDir;

use super::allowed::Ground;
use crate::config::{Confinement, ProcessConfig};

/// The variable that says where temporary files are.
const TEMPORARY: &str = "TMPDIR";
/// How folders for temporary files begin, and what is in one: a file that is locked while it is in use, and the files.
const PREFIX: &str = "echotune-server-";
const LOCK: &str = "lock";
const FILES: &str = "files";
/// Where each server has a folder for what it fetches, below the home folder.
const CACHES: &str = ".cache/echotune/servers";
/// Interpreters that `uv` has fetched before, which are read there.
const PYTHONS: &str = ".local/share/uv/python";

/// A variable that says where something is kept, and the folder for it.
type Kept = (&'static str, &'static str);

/// Where a program that fetches others before it runs them keeps those. A folder that all share would let one server
/// change what the next one starts, and read what others left there, tokens among it.
fn kept(program: Option<&str>) -> &'static [Kept] {
    match program {
        Some("npx" | "npm") => &[("npm_config_cache", "npm")],
        Some("yarn") => &[("YARN_CACHE_FOLDER", "yarn"), ("YARN_GLOBAL_FOLDER", "yarn-global")],
        Some("pnpm" | "pnpx") => &[("npm_config_cache", "npm"), ("npm_config_store_dir", "pnpm")],
        Some("bunx" | "bun") => &[("BUN_INSTALL_CACHE_DIR", "bun")],
        Some("uvx" | "uv") => &[("UV_CACHE_DIR", "uv"), ("UV_TOOL_DIR", "uv-tools")],
        Some("pipx") => &[("PIPX_HOME", "pipx"), ("PIP_CACHE_DIR", "pip")],
        Some("deno") => &[("DENO_DIR", "deno")],
        _ => &[],
    }
}

/// Folders of a child, and the variables that tell it of them. Of one that is not confined there are none.
#[derive(Debug, Default)]
pub(crate) struct Own {
    temporary: Option<Temporary>,
    variables: Vec<(&'static str, PathBuf)>,
    folders: Vec<PathBuf>,
}

impl Own {
    /// Makes them. Where nothing can be written there are programs that do not want to.
    pub(crate) fn of(server: &str, config: &ProcessConfig) -> Self {
        static SWEPT: Once = Once::new();
        if config.confinement == Confinement::None {
            return Self::default();
        }
        // There may be much; without a thread for it, it stays.
        SWEPT.call_once(|| drop(thread::Builder::new().name("sweep".to_owned()).spawn(|| sweep(&env::temp_dir()))));
        let why = |cause: &io::Error| tracing::debug!(%cause, "a program has no folder for temporary files");
        let is_said = config.env.contains_key(TEMPORARY);
        let temporary = if is_said { None } else { Temporary::new().inspect_err(why).ok() };
        let files = temporary.as_ref().map(Temporary::files);
        let mut own = Self { temporary, ..Self::default() };
        own.variables.extend(files.clone().map(|files| (TEMPORARY, files)));
        own.folders.extend(files);
        own.keep(server, config);
        own
    }

    /// Keeps what it fetches, in its home or else for as long as it runs.
    fn keep(&mut self, server: &str, config: &ProcessConfig) {
        let kept = kept(config.command.file_name().and_then(OsStr::to_str));
        let ground = Ground::of(config);
        let home = ground.below_home("");
        // Who writes all of the home has its caches where they always are.
        if kept.is_empty() || home.as_ref().is_some_and(|home| ground.is_written(home)) {
            return;
        }
        let lasting = home.map(|home| home.join(CACHES).join(server));
        let passing = self.temporary.as_ref().map(|temporary| temporary.files().join("cache"));
        let made = |folder: &PathBuf| DirBuilder::new().recursive(true).mode(0o700).create(folder).is_ok();
        let Some(folder) = [lasting, passing].into_iter().flatten().find(made) else { return };
        self.variables.push(("XDG_CACHE_HOME", folder.join("cache")));
        self.variables.extend(kept.iter().map(|(name, at)| (*name, folder.join(at))));
        let is_uv = kept.iter().any(|(name, _)| *name == "UV_CACHE_DIR");
        if is_uv && ground.below_home(PYTHONS).is_none_or(|pythons| !pythons.is_dir()) {
            self.variables.push(("UV_PYTHON_INSTALL_DIR", folder.join("uv-python")));
        }
        self.folders.push(folder);
    }

    /// What it is told of them.
    pub(crate) fn variables(&self) -> &[(&'static str, PathBuf)] {
        &self.variables
    }

    /// What it writes.
    pub(super) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Removes what is temporary, which may be much.
    pub(crate) fn remove(self) -> io::Result<()> {
        self.temporary.map_or(Ok(()), |temporary| temporary.folder.close())
    }
}

/// A folder for temporary files. It goes when it is dropped; where this process is killed, the next one finds it.
#[derive(Debug)]
struct Temporary {
    folder: TempDir,
    /// Locked until this process ends, however that is.
    _lock: File,
}

impl Temporary {
    fn new() -> io::Result<Self> {
        Self::below(&env::temp_dir())
    }

    fn below(root: &Path) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(root)?;
        let draft = folder.path().join("draft");
        let lock = File::create_new(&draft)?;
        // It has its name when it is locked. Where files cannot be, it never has, and is left alone.
        if lock.lock().is_ok() {
            fs::rename(&draft, folder.path().join(LOCK))?;
        }
        fs::create_dir(folder.path().join(FILES))?;
        Ok(Self { folder, _lock: lock })
    }

    fn files(&self) -> PathBuf {
        self.folder.path().join(FILES)
    }
}

/// Removes what processes that were killed have left.
fn sweep(root: &Path) {
    let is_ours = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes())) && is_left(path)
    };
    let entries = fs::read_dir(root).into_iter().flatten();
    for folder in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_ours) {
        if let Err(cause) = fs::remove_dir_all(&folder) {
            tracing::warn!(folder = %folder.display(), %cause, "temporary files of a program cannot be removed");
        }
    }
}

/// Whether a folder was made by this user, for a process that is no more.
fn is_left(folder: &Path) -> bool {
    let user = rustix::process::geteuid().as_raw();
    let is_own = fs::symlink_metadata(folder).is_ok_and(|about| about.is_dir() && about.uid() == user);
    is_own && File::open(folder.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_in_use_is_not() {
        let root = tempfile::tempdir().expect("a folder");
        let (used, gone) = (Temporary::below(root.path()).expect("made"), Temporary::below(root.path()).expect("made"));
        fs::write(gone.files().join("x"), "text").expect("written");
        let Temporary { folder, _lock: lock } = gone;
        let left = folder.keep();
        // As with the process that had it.
        drop(lock);
        let begun = root.path().join(format!("{PREFIX}begun"));
        fs::create_dir(&begun).expect("made");
        sweep(root.path());
        assert!(!left.exists(), "it was left");
        assert!(used.files().is_dir() && begun.is_dir(), "it was somebody's");
        let at = used.files();
        drop(used);
        assert!(!at.exists());
    }

    #[test]
    fn each_server_keeps_what_it_fetches_by_itself_unless_it_writes_the_home() {
        let home = tempfile::tempdir().expect("a folder");
        let real = fs::canonicalize(home.path()).expect("there");
        let mut config = ProcessConfig::new("uvx", ["some-server"]);
        config.env.insert("HOME".to_owned(), home.path().display().to_string());
        let of = |server: &str, config: &ProcessConfig| {
            let mut own = Own::of(server, config);
            own.variables.retain(|(name, _)| *name != TEMPORARY);
            own
        };
        let own = of("one", &config);
        let folder = real.join(CACHES).join("one");
        assert!(own.folders().contains(&folder) && folder.is_dir(), "{own:?}");
        let told: Vec<_> = own.variables().iter().map(|(name, _)| *name).collect();
        assert_eq!(told, ["XDG_CACHE_HOME", "UV_CACHE_DIR", "UV_TOOL_DIR", "UV_PYTHON_INSTALL_DIR"]);
        assert!(own.variables().iter().all(|(_, path)| path.starts_with(&folder)));
        assert!(!of("two", &config).folders().contains(&folder), "it is another's");
        fs::create_dir_all(real.join(PYTHONS)).expect("made");
        assert!(of("one", &config).variables().iter().all(|(name, _)| *name != "UV_PYTHON_INSTALL_DIR"));
        config.writes = vec!["/".into()];
        assert!(of("one", &config).variables().is_empty(), "its caches are where they always are");
        config.writes.clear();
        config.command = "other".into();
        assert!(of("one", &config).variables().is_empty(), "it fetches nothing");
    }

    #[test]
    fn what_is_fetched_goes_with_its_program_where_there_is_no_home() {
        let mut config = ProcessConfig::new("npx", [""; 0]);
        config.env.insert("HOME".to_owned(), "/nowhere".to_owned());
        let own = Own::of("one", &config);
        let temporary = own.temporary.as_ref().expect("made").files();
        let cache = own.variables().iter().find(|(name, _)| *name == "npm_config_cache").expect("told");
        assert!(cache.1.starts_with(&temporary), "{own:?}");
        own.remove().expect("removed");
        assert!(!temporary.exists());
    }
}
