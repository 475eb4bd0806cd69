//! The tier of caches that processes share, on a server of Redis or Valkey that is installed here; each test starts one on
//! a free port of the loopback interface.

use std::process::Command;

pub(crate) const SUITE: &str = "cache";
const OF: [&str; 7] = ["--package", "echotune-kit", "--features", "cache", "--locked", "--test", "cache"];
/// Which programs the tests look for.
const PROGRAMS: [&str; 2] = ["valkey-server", "redis-server"];

fn version() -> Option<String> {
    let told = PROGRAMS.iter().find_map(|program| Command::new(program).arg("--version").output().ok())?;
    Some(String::from_utf8_lossy(&told.stdout).trim().to_owned())
}

/// Kills and freezes the server while callers go on.
pub(crate) fn suite() -> anyhow::Result<()> {
    let Some(version) = version() else {
        println!("EXCLUDED the shared tier of caches: install redis-server or valkey-server");
        return Ok(());
    };
    println!("e2e {SUITE}: runs on {version}");
    // One after the other: they are about milliseconds.
    crate::cargo(&[&["test"], &OF[..], &["--", "--test-threads", "1"]].concat())?;
    println!("e2e {SUITE}: passed");
    Ok(())
}
