//! Small promises that nothing else holds: links lead somewhere, decisions are numbered without
//! gaps, and every library says first what it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::bail;

pub(crate) fn check() -> anyhow::Result<()> {
    let mut faults = Vec::new();
    for page in pages(Path::new("."))? {
        links(&page, &mut faults)?;
    }
    decisions(Path::new("services/adr"), &mut faults)?;
    libraries(&mut faults)?;
    if !faults.is_empty() {
        bail!(faults.join("\n"));
    }
    Ok(())
}

/// The pages in Markdown of a folder and those below it, but for what is built and what is hidden.
fn pages(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if name == "target" || name.to_string_lossy().starts_with('.') {
            continue;
        }
        // Where a link of the file system leads to is looked at in its own place.
        if entry.file_type()?.is_dir() {
            found.extend(pages(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn links(page: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let text = fs::read_to_string(page)?;
    let folder = page.parent().unwrap_or(Path::new(""));
    for target in targets(&text) {
        if !folder.join(target).exists() {
            faults.push(format!("{} links to '{target}', which does not exist", page.display()));
        }
    }
    Ok(())
}

/// The files that a page in Markdown links to.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?.split('#').next()?;
        (!target.is_empty() && !target.contains("://")).then_some(target)
    })
}

fn decisions(folder: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    for (expected, name) in (1..).zip(&names) {
        if !name.starts_with(&format!("{expected:04}-")) || !name.ends_with(".md") {
            faults.push(format!("{}: expected {expected:04}-NAME.md, found '{name}'", folder.display()));
            break;
        }
    }
    Ok(())
}

fn libraries(faults: &mut Vec<String>) -> anyhow::Result<()> {
    let mut folders = vec!["proto".into(), "loadtest".into()];
    for root in ["services", "operator"] {
        for entry in fs::read_dir(root)? {
            folders.push(entry?.path());
        }
    }
    for library in folders.iter().map(|folder| folder.join("src/lib.rs")).filter(|path| path.exists()) {
        if !fs::read_to_string(&library)?.starts_with("//! ") {
            faults.push(format!("{} does not open with what it owns, promises and does not do", library.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_looked_at_in_all_folders_but_those_that_are_built_or_hidden() {
        let folder = std::env::temp_dir().join(format!("xtask-pages-{}", std::process::id()));
        for name in ["README.md", "code.rs", "deep/er/page.md", "target/page.md", "deep/target/page.md", ".git/a.md"] {
            let page = folder.join(name);
            fs::create_dir_all(page.parent().expect("a folder")).expect("made");
            fs::write(page, "[a](README.md) [b](../../README.md) [c](er/page.md)").expect("written");
        }
        let found = pages(&folder).expect("found");
        let mut faults = Vec::new();
        links(&folder.join("deep/er/page.md"), &mut faults).expect("read");
        fs::remove_dir_all(&folder).expect("removed");
        assert_eq!(found, ["README.md", "deep/er/page.md"].map(|name| folder.join(name)));
        let told = |target: &str| faults.iter().filter(|fault| fault.contains(&format!("'{target}'"))).count();
        assert_eq!((told("README.md"), told("../../README.md"), told("er/page.md")), (1, 0, 1), "{faults:?}");
    }

    #[test]
    fn links_to_files_are_found_and_others_passed_over() {
        let text = "[a](one.md) [b](https://example.org/x) [c](#here) [d](two/three.md#part) (four)";
        assert_eq!(targets(text).collect::<Vec<_>>(), ["one.md", "two/three.md"]);
    }
}
