//! Who ends a cluster when the command that is to end it is ended before it could.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;

/// Waits for a word. When its input ends without one, what there is of the cluster is ended: again and again, since a
/// command that is ended too may still have it.
const WATCH: &str = r#"read -r word && exit
for try in 1 2 3 4 5 6 7 8 9 10; do
    [ -f "$1/kubernetes/plan.json" ] || exit 0
    "$0" --run "$1" down kubernetes --wipe && exit
    sleep 3
done"#;

/// A shell that watches this process, in a group that Ctrl-C does not reach. Dropped without [`Guard::leave`], or when
/// this process ends in whatever way, it ends the cluster.
pub(super) struct Guard(Child);

impl Guard {
    /// Watches over the cluster of a run folder, which `testbed` ends.
    pub(super) fn begin(testbed: &Path, run: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", WATCH]).arg(testbed).arg(run).stdin(Stdio::piped()).process_group(0);
        Ok(Self(command.spawn().context("sh cannot be run")?))
    }

    /// Nothing is left for it to do.
    pub(super) fn leave(mut self) -> anyhow::Result<()> {
        if let Some(mut input) = self.0.stdin.take() {
            input.write_all(b"done\n")?;
        }
        self.0.wait()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_cluster_is_ended_unless_there_is_a_word_that_it_need_not() {
        let run = std::env::temp_dir().join(format!("xtask-guard-{}", std::process::id()));
        let (testbed, plan) = (run.join("testbed"), run.join("kubernetes/plan.json"));
        fs::create_dir_all(run.join("kubernetes")).expect("a folder");
        fs::write(&plan, "{}").expect("a plan");
        let script = "#!/bin/sh\nrm \"$2/kubernetes/plan.json\" && echo \"$@\" >\"$2/told\"\n";
        fs::write(&testbed, script).expect("a program");
        fs::set_permissions(&testbed, fs::Permissions::from_mode(0o755)).expect("a mode");

        Guard::begin(&testbed, &run).expect("a shell").leave().expect("it ends");
        assert!(plan.is_file());
        let mut guard = Guard::begin(&testbed, &run).expect("a shell");
        // As when this process is no more.
        drop(guard.0.stdin.take());
        assert!(guard.0.wait().expect("it ends").success());
        let told = fs::read_to_string(run.join("told")).expect("it was run");
        assert_eq!(told, format!("--run {} down kubernetes --wipe\n", run.display()));
        fs::remove_dir_all(run).expect("removed");
    }
}
