//! Folders that become images: modes are set, so that nobody's umask is seen in them.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

const FOLDER: u32 = 0o755;
const PROGRAM: u32 = 0o755;
const FILE: u32 = 0o644;

/// An empty folder.
pub(super) fn fresh(path: &Path) -> anyhow::Result<PathBuf> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
    .with_context(|| path.display().to_string())?;
    folder(path)?;
    Ok(path.canonicalize()?)
}

/// A folder, and those that it is in.
pub(super) fn folder(path: &Path) -> anyhow::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        folder(parent)?;
    }
    let made = fs::create_dir(path).and_then(|()| fs::set_permissions(path, Permissions::from_mode(FOLDER)));
    made.with_context(|| path.display().to_string())
}

pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    folder(path.parent().context("a file in a folder")?)?;
    let written = fs::write(path, text).and_then(|()| fs::set_permissions(path, Permissions::from_mode(FILE)));
    written.with_context(|| path.display().to_string())
}

/// A file, whatever links lead to it.
pub(super) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    folder(to.parent().context("a file in a folder")?)?;
    let copied = || -> io::Result<()> {
        let runs = fs::metadata(from)?.permissions().mode() & 0o111 != 0;
        fs::copy(from, to)?;
        fs::set_permissions(to, Permissions::from_mode(if runs { PROGRAM } else { FILE }))
    };
    copied().with_context(|| format!("{} cannot be copied to {}", from.display(), to.display()))
}

/// A folder with what is in it, but for names that are not wanted. Links stay links.
pub(super) fn copy_all(from: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool) -> anyhow::Result<()> {
    folder(to)?;
    let entries = from.read_dir().with_context(|| from.display().to_string())?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if !wanted(&name.to_string_lossy()) {
            continue;
        }
        let (path, place, kind) = (entry.path(), to.join(&name), entry.file_type()?);
        if kind.is_symlink() {
            symlink(fs::read_link(&path)?, &place).with_context(|| place.display().to_string())?;
        } else if kind.is_dir() {
            copy_all(&path, &place, wanted)?;
        } else {
            copy(&path, &place)?;
        }
    }
    Ok(())
}

/// All files below a folder, by name; links are not followed.
pub(super) fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir()? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("xtask-tree-{name}-{}", std::process::id()))
    }

    #[test]
    fn modes_do_not_depend_on_who_made_the_files() {
        let (from, to) = (scratch("from"), scratch("to"));
        let from = fresh(&from).expect("a folder");
        for (name, mode) in [("run", 0o700), ("text", 0o666), ("left/out", 0o644)] {
            write(&from.join(name), "x").expect("written");
            fs::set_permissions(from.join(name), Permissions::from_mode(mode)).expect("a mode");
        }
        symlink("run", from.join("link")).expect("a link");
        copy_all(&from, &to, &|name| name != "left").expect("copied");
        let mode = |name: &str| fs::metadata(to.join(name)).expect("there").permissions().mode() & 0o7777;
        assert_eq!((mode("run"), mode("text")), (PROGRAM, FILE));
        assert_eq!(fs::read_link(to.join("link")).expect("a link"), Path::new("run"));
        assert_eq!(files(&to).expect("files"), [to.join("run"), to.join("text")]);
        for folder in [from, to] {
            fs::remove_dir_all(folder).expect("removed");
        }
    }
}
