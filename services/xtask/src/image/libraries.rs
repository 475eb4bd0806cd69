//! The shared libraries that programs of an image need, as the loader of this machine finds them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};

use super::tree;

/// Where a loader looks on its own; on some systems by the name of the other.
const PLACE: &str = "usr/lib";
const OTHER: &str = "usr/lib64";
/// The first bytes of programs and libraries.
const MAGIC: [u8; 4] = *b"\x7fELF";
/// Programs that the loader is asked about at once.
const AT_ONCE: usize = 64;

/// Adds what the programs and libraries below a folder need and do not bring: how many there are.
pub(super) fn add(root: &Path) -> anyhow::Result<usize> {
    let mut programs = Vec::new();
    for file in tree::files(root)? {
        if is_program(&file)? {
            programs.push(file);
        }
    }
    let programs: Vec<&Path> = programs.iter().map(PathBuf::as_path).collect();
    let found = of(&programs)?;
    let mut names = BTreeMap::new();
    for library in found.iter().filter(|library| !library.starts_with(root)) {
        let name = library.file_name().context("a library has a name")?.to_owned();
        // The loader itself is named by its whole path in each program.
        let loader = name.to_string_lossy().starts_with("ld-");
        let place = if loader { root.join(library.strip_prefix("/")?) } else { root.join(PLACE).join(&name) };
        if let Some(other) = names.insert(name, library) {
            let same = fs::read(other)? == fs::read(library)?;
            ensure!(same, "{} and {} are of one name and not the same", other.display(), library.display());
        }
        tree::copy(library, &place)?;
    }
    if !names.is_empty() {
        symlink("lib", root.join(OTHER)).context("usr/lib64")?;
    }
    Ok(names.len())
}

/// What programs need, by path, and what that needs.
pub(super) fn of(programs: &[&Path]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for some in programs.chunks(AT_ONCE) {
        let told = Command::new("ldd").args(some).output().context("ldd cannot be run")?;
        found.extend(needed(&String::from_utf8_lossy(&told.stdout))?);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The libraries that `ldd` names. One that is not linked dynamically names none.
fn needed(told: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut program = "";
    for line in told.lines() {
        let Some(line) = line.strip_prefix('\t') else {
            program = line.trim_end_matches(':');
            continue;
        };
        let path = match line.split_once(" => ") {
            Some((name, "not found")) => bail!("{program} needs {name}, which this machine does not have"),
            Some((_, rest)) => rest,
            None => line,
        };
        let path = path.rsplit_once(" (0x").map_or("", |(path, _)| path);
        // What the kernel itself brings has no path.
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

fn is_program(file: &Path) -> anyhow::Result<bool> {
    let mut head = Vec::new();
    let opened = File::open(file).with_context(|| file.display().to_string())?;
    opened.take(MAGIC.len() as u64).read_to_end(&mut head)?;
    Ok(head == MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_loader_says_is_read() {
        let told = "/a/run:\n\tlinux-vdso.so.1 (0x00007f09e703f000)\n\tlibc.so.6 => /lib/libc.so.6 (0x0f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x1)\n/a/still:\n\tstatically linked\n";
        let found = needed(told).expect("all found");
        assert_eq!(found, [Path::new("/lib/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
        let told = "/a/run:\n\tlibx.so.1 => not found\n";
        assert_eq!(
            needed(told).expect_err("one is missing").to_string(),
            "/a/run needs libx.so.1, which this machine does not have"
        );
    }

    #[test]
    fn this_very_test_needs_the_c_library() {
        let own = std::env::current_exe().expect("a program");
        let found = of(&[&own]).expect("libraries");
        assert!(found.iter().any(|path| path.ends_with("libc.so.6")), "{found:?}");
        assert!(is_program(&own).expect("readable"));
    }
}
