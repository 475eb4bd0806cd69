//! Limits on the size of source files.

use std::{fs, path::Path};

use anyhow::bail;

/// Lines in one source file at the most.
const FILE_LINES: usize = 600;

pub(crate) fn check() -> anyhow::Result<()> {
    let mut faults = Vec::new();
    for root in ["proto", "services", "operator", "loadtest"] {
        visit(Path::new(root), &mut faults)?;
    }
    if !faults.is_empty() {
        bail!(faults.join("\n"));
    }
    Ok(())
}

fn visit(folder: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            visit(&path, faults)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let lines = fs::read_to_string(&path)?.lines().count();
            if lines > FILE_LINES {
                faults.push(format!("{} has {lines} lines; at most {FILE_LINES}", path.display()));
            }
        }
    }
    Ok(())
}
