//! Small promises that nothing else holds: links lead somewhere, decisions are numbered without
//! gaps, and every library says first what it is.

use std::{fs, path::Path};

use anyhow::bail;

pub(crate) fn check() -> anyhow::Result<()> {
    let mut faults = Vec::new();
    for page in ["README.md", "services/ARCHITECTURE.md"] {
        links(Path::new(page), &mut faults)?;
    }
    decisions(Path::new("services/adr"), &mut faults)?;
    libraries(&mut faults)?;
    if !faults.is_empty() {
        bail!(faults.join("\n"));
    }
    Ok(())
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
    fn links_to_files_are_found_and_others_passed_over() {
        let text = "[a](one.md) [b](https://example.org/x) [c](#here) [d](two/three.md#part) (four)";
        assert_eq!(targets(text).collect::<Vec<_>>(), ["one.md", "two/three.md"]);
    }
}
