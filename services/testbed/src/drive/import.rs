//! HetRec 2011 spread over the regions: a part of its listeners is imported in each, and lists are asked for in all.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{DriveError, Program, Programs};
use crate::Region;

/// Tables whose first column is a listener, and what they are besides those that go along whole.
const OF_LISTENERS: [&str; 3] = ["user_artists.dat", "user_taggedartists.dat", "user_friends.dat"];
const WHOLE: [&str; 2] = ["artists.dat", "tags.dat"];
/// Friendships go last: a friend who is not there yet would be made where the friendship is.
const FRIENDS: &str = "user_friends.dat";
/// How long a region may take until it recommends from what was imported elsewhere.
const SERVES: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Imported {
    /// Seconds until all parts were written.
    pub seconds: f64,
    /// Listeners by the region that is their home.
    pub listeners: BTreeMap<String, usize>,
    /// Items of the list of one listener of each other region, by the region that was asked.
    pub recommended: BTreeMap<String, usize>,
    /// Seconds after which the last region had a list for each.
    pub served_after_s: f64,
}

/// The parts of a data set: a folder for each region, whose listeners are those of every so many numbers.
fn split(from: &Path, to: &Path, parts: usize) -> io::Result<Vec<(PathBuf, Vec<u64>)>> {
    let mut folders = Vec::new();
    for part in 0..parts {
        let folder = to.join(format!("part-{part}"));
        fs::create_dir_all(&folder)?;
        for name in WHOLE {
            fs::copy(from.join(name), folder.join(name))?;
        }
        let mut listeners = Vec::new();
        for name in OF_LISTENERS {
            // The file has letters that are not UTF-8; numbers are ASCII.
            let table = fs::read(from.join(name))?;
            let mut kept = Vec::with_capacity(table.len() / parts);
            for (nth, line) in table.split_inclusive(|byte| *byte == b'\n').enumerate() {
                let number = std::str::from_utf8(line.split(|byte| *byte == b'\t').next().unwrap_or_default());
                let number = number.ok().and_then(|number| number.parse::<u64>().ok());
                let is_of = |number: u64| usize::try_from(number).is_ok_and(|number| number % parts == part);
                let is_kept = if name == FRIENDS { part + 1 == parts } else { number.is_some_and(is_of) };
                if nth == 0 || is_kept {
                    kept.extend_from_slice(line);
                }
                if let (true, Some(number), true) = (is_kept, number, name == OF_LISTENERS[0]) {
                    listeners.push(number);
                }
            }
            fs::write(folder.join(name), kept)?;
        }
        listeners.dedup();
        folders.push((folder, listeners));
    }
    Ok(folders)
}

impl Programs {
    /// The command, with services of a region.
    fn client(&self, region: Region, words: &[&str]) -> tokio::process::Command {
        let mut command = self.command_of(region);
        let at = |program| format!("http://{}", self.address(region, program));
        let settings = [
            ("allow_plaintext", "true".to_owned()),
            ("connect.users", at(Program::Users)),
            ("connect.recommendations", at(Program::Recommendations)),
            ("connect.agents", at(Program::Agents)),
            ("connect.token_file", self.token_file().display().to_string()),
        ];
        for (key, value) in settings {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command.args(words).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Imports a part of a data set in each region, one after the other, and waits until each region recommends to
    /// listeners of all.
    ///
    /// # Errors
    ///
    /// The data set cannot be read, an import fails, or a region does not recommend in time.
    pub async fn import(&self, hetrec: &Path, tell: &dyn Fn(&str)) -> Result<Imported, DriveError> {
        let began = Instant::now();
        let parts = split(hetrec, &self.token_file().with_file_name("hetrec"), self.regions().len());
        let parts = parts.map_err(|cause| io::Error::new(cause.kind(), format!("{}: {cause}", hetrec.display())))?;
        let (mut listeners, mut ones) = (BTreeMap::new(), Vec::new());
        for (region, (folder, of)) in self.regions().iter().zip(parts) {
            tell(&format!("{} listeners are imported in {region}", of.len()));
            let folder = folder.display().to_string();
            let done = self.client(*region, &["import", "lastfm-hetrec", &folder]).output().await?;
            if !done.status.success() {
                let told = String::from_utf8_lossy(&done.stderr).trim().to_owned();
                return Err(DriveError::Program(format!("the import in {region} ended with {}: {told}", done.status)));
            }
            ones.extend(of.first().map(|number| format!("hetrec-{number}")));
            listeners.insert(region.to_string(), of.len());
        }
        let (seconds, imported) = (began.elapsed().as_secs_f64(), Instant::now());
        let mut recommended = BTreeMap::new();
        for region in self.regions() {
            for user in &ones {
                let items = self.list(*region, user, imported).await?;
                tell(&format!("{region} recommends {items} items to {user}"));
                let least = recommended.entry(region.to_string()).or_insert(items);
                *least = items.min(*least);
            }
        }
        Ok(Imported { seconds, listeners, recommended, served_after_s: imported.elapsed().as_secs_f64() })
    }

    /// How many items a region recommends to a listener, once it does.
    async fn list(&self, region: Region, user: &str, since: Instant) -> Result<usize, DriveError> {
        loop {
            let words = ["recommend", "--user", user, "--output", "json"];
            let done = self.client(region, &words).output().await?;
            let told = serde_json::from_slice::<serde_json::Value>(&done.stdout).unwrap_or_default();
            let items = told["recommendations"].as_array().map_or(0, Vec::len);
            if done.status.success() && items > 0 {
                return Ok(items);
            }
            if since.elapsed() > SERVES {
                let told = String::from_utf8_lossy(&done.stderr).trim().to_owned();
                return Err(DriveError::Program(format!("{region} recommends nothing to '{user}': {told}")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listener_is_in_one_part_and_friendships_are_in_the_last() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in WHOLE {
            fs::write(from.path().join(name), b"id\tname\n1\tM\xfcller\n").unwrap();
        }
        for name in OF_LISTENERS {
            fs::write(from.path().join(name), "userID\tother\n2\t1\n2\t5\n3\t1\n4\t1\n").unwrap();
        }
        let parts = split(from.path(), to.path(), 3).unwrap();
        assert_eq!(
            parts.iter().map(|(_, listeners)| listeners.clone()).collect::<Vec<_>>(),
            [vec![3], vec![4], vec![2]]
        );
        let read = |part: usize, name: &str| fs::read_to_string(parts[part].0.join(name)).unwrap();
        assert_eq!(read(2, "user_artists.dat"), "userID\tother\n2\t1\n2\t5\n");
        assert_eq!(read(0, FRIENDS), "userID\tother\n");
        assert_eq!(read(2, FRIENDS).lines().count(), 5);
        assert_eq!(fs::read(parts[1].0.join("tags.dat")).unwrap(), b"id\tname\n1\tM\xfcller\n");
        assert!(split(Path::new("/nowhere"), to.path(), 3).is_err());
    }
}
