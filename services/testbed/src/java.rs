//! Finds the Java that runs the parts.

use std::{
    env,
    path::{Path, PathBuf},
};

use tokio::process::Command;

use crate::TestbedError;

/// Cassandra 5.0 runs on 11 and 17, Kafka 4 on 17 and newer.
const VERSION: &str = "17";
const INSTALLED: &str = "/usr/lib/jvm";

/// The first `java` of version 17 among `$JAVA17_HOME`, `$JAVA_HOME`, what is installed in `/usr/lib/jvm`, and the path.
pub(crate) async fn find() -> Result<PathBuf, TestbedError> {
    for java in candidates() {
        let Ok(told) = Command::new(&java).arg("-version").output().await else { continue };
        if major(&String::from_utf8_lossy(&told.stderr)) == Some(VERSION) {
            return Ok(java);
        }
    }
    Err(TestbedError::NoJava)
}

fn candidates() -> Vec<PathBuf> {
    let named = ["JAVA17_HOME", "JAVA_HOME"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    let mut installed: Vec<PathBuf> =
        Path::new(INSTALLED).read_dir().into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    installed.sort();
    let mut found: Vec<PathBuf> = named.chain(installed).map(|home| home.join("bin/java")).collect();
    found.retain(|java| java.exists());
    found.push("java".into());
    found
}

/// `17` of `openjdk version "17.0.15" 2025-04-15`.
fn major(told: &str) -> Option<&str> {
    told.split_once("version \"")?.1.split(['.', '"', '-']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_java_is_read() {
        assert_eq!(major("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime"), Some("17"));
        assert_eq!(major("java version \"1.8.0_292\""), Some("1"));
        assert_eq!(major("openjdk version \"25\" 2025-09-16"), Some("25"));
        assert_eq!(major("no java"), None);
    }
}
