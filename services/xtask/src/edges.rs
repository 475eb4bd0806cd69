//! Who may know whom. Any other dependency between crates of this workspace is a fault.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, bail};

const ALLOWED: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("model", &[]),
    ("engine", &[]),
    ("autoscaler", &[]),
    // It replays demand through the autoscaler's decisions, and needs nothing of the services for that.
    ("simulator", &["autoscaler"]),
    ("controller", &["api", "autoscaler", "kit", "model"]),
    ("xtask", &[]),
    ("testbed", &["api", "kit", "model"]),
    ("loadtest", &["proto", "model"]),
    ("kit", &["model"]),
    ("api", &["proto", "model", "kit"]),
    ("eventlog", &["model", "kit"]),
    ("users", &["api", "eventlog", "kit", "model"]),
    ("recommendations", &["api", "eventlog", "kit", "model", "engine"]),
    ("agents", &["api", "eventlog", "kit", "model"]),
    ("mcp-servers", &["api", "kit", "model"]),
    ("gateway", &["api", "autoscaler", "eventlog", "kit", "model"]),
    // All services of several regions in one thread, and the judge of what came of it.
    ("simulation", &["api", "eventlog", "kit", "model", "users", "recommendations", "agents", "testbed"]),
    ("echotune", &["api", "eventlog", "kit", "model", "users", "recommendations", "agents", "mcp-servers"]),
];

pub(crate) fn check() -> anyhow::Result<()> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut faults = Vec::new();
    let mut folders = vec!["proto".into(), "loadtest".into()];
    for root in ["services", "operator"] {
        for entry in fs::read_dir(root).context("run this from the root of the repository")? {
            folders.push(entry?.path());
        }
    }
    for folder in folders {
        let Ok(manifest) = fs::read_to_string(folder.join("Cargo.toml")) else { continue };
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let Some(may) = allowed.get(name.as_str()) else {
            faults.push(format!("crate '{name}' is not in the list of allowed edges (services/xtask/src/edges.rs)"));
            continue;
        };
        for known in manifest.lines().filter_map(|line| line.strip_prefix("echotune-")?.split(['.', ' ']).next()) {
            if !may.contains(&known) {
                faults.push(format!("'{name}' may not depend on '{known}'"));
            }
        }
    }
    if !faults.is_empty() {
        bail!(faults.join("\n"));
    }
    Ok(())
}
