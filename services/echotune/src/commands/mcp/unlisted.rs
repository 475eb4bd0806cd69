//! Servers of the catalogue that stand in no file: they are started as from the table that `echotune mcp add` writes.

use anyhow::Context as _;
use echotune_gateway::{
    Confinement, FileRules, Listed, ProcessConfig,
    catalogue::{Launched, runtime},
};
use sha2::{Digest as _, Sha256};

use super::{
    add::{table, text},
    shelf::Shelved,
};
use crate::output::printable;

/// Bytes of the digest in a name: as many as nobody makes an entry of another's for.
const DIGEST_BYTES: usize = 10;

/// By which name it keeps what it fetches: that of this very entry, so that no other changes what it starts, whatever
/// it is called. In a file there is hardly one of such a name.
fn name(entry: &Shelved) -> String {
    let digest = Sha256::digest(entry.server.to_string());
    let digits: String = digest.iter().take(DIGEST_BYTES).map(|byte| format!("{byte:02x}")).collect();
    format!("catalogue-{digits}")
}

/// A program of the catalogue as a file would have it, confined in one of the ways that `confinement` has there. Of the
/// paths that its arguments and variables name it reads those that were given: what else stands in an entry nobody has
/// looked at, as one does at a file.
pub(super) fn listed(
    entry: &Shelved,
    program: Launched,
    given: &[(String, String)],
    confinement: &str,
    rules: &FileRules,
) -> anyhow::Result<Listed> {
    let mut table = table(name(entry), program, &runtime(&entry.server))?;
    table.confinement = Some(confinement.to_owned());
    if confinement == "none" {
        // It has no place there.
        table.connects = None;
    }
    let text = text(entry, &table)?;
    let listed = Listed::read(&text, rules).with_context(|| format!("'{}'", printable(entry.called())))?;
    let listed = listed.into_iter().next().context("its table holds no server")?;
    Ok(listed.meaning(given.iter().map(|(_, value)| value.clone()).collect()))
}

/// What a program of the catalogue gets at, and how it gets at more: one line.
pub(super) fn told(called: &str, process: &ProcessConfig) -> String {
    let called = printable(called);
    let kept = match process.confinement {
        Confinement::None => return format!("'{called}' is not confined: it gets at all that you get at"),
        Confinement::Auto => "confined as far as the system can",
        Confinement::Required => "confined",
    };
    let ports = process.connects.as_ref().map(|ports| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", "));
    let connects = match ports.as_deref() {
        None => "anywhere".to_owned(),
        Some("") => "nowhere by TCP".to_owned(),
        Some(ports) => format!("by TCP to ports {ports} alone"),
    };
    format!(
        "'{called}' is {kept}: it reads the system's programs and the paths that --with gives it, writes temporary \
         files and what it fetches, and connects {connects}; for more put it into a file by `echotune mcp add`, say \
         `reads`, `writes` or `connects` in its table and name the file by --servers-file, or give --confinement none"
    )
}

#[cfg(test)]
mod tests {
    use echotune_gateway::{Reach, catalogue::Status};
    use serde_json::{Value, json};

    use super::*;

    fn entry(server: Value) -> Shelved {
        Shelved { server, status: Status::Active }
    }

    fn process(entry: &Shelved, confinement: &str) -> ProcessConfig {
        let env = [("TOKEN".to_owned(), "t".to_owned())].into();
        let program = Launched::Stdio { command: "uvx".to_owned(), args: vec!["x@1".to_owned()], env };
        let rules = FileRules { hidden: vec!["/data".into()], ..FileRules::default() };
        let given = [("TOKEN".to_owned(), "t".to_owned())];
        let listed = listed(entry, program, &given, confinement, &rules).expect("right");
        let Reach::Process(process) = &listed.server().reach else { panic!("a program") };
        process.clone()
    }

    #[test]
    fn what_its_entry_says_holds_and_what_it_may_is_told_in_a_line() {
        let entry = entry(json!({"name": "com.example/x", "version": "1\n[[servers]]\nname = \"y\"",
            "_meta": {"internal.echotune/runtime": {
                "limits": {"address_space_mib": 1, "cpu_seconds": 2, "open_files": 3},
                "egress": {"policy": "hosts", "hosts": ["a.example:5432"]}}}}));
        let confined = process(&entry, "auto");
        assert_eq!((confined.memory, confined.cpu, confined.files), (Some(1 << 20), Some(2), Some(3)));
        assert_eq!((&confined.connects, confined.confinement), (&Some(vec![443, 5432]), Confinement::Auto));
        assert_eq!((confined.args.as_slice(), confined.env["TOKEN"].as_str()), (&["x@1".to_owned()][..], "t"));
        assert_eq!(confined.hidden, [std::path::PathBuf::from("/data")]);
        assert_eq!(confined.meant, Some(vec!["t".to_owned()]), "what its entry says by itself is not meant");
        let line = told("com.example/x", &confined);
        for part in ["com.example/x", "as far as", "ports 443, 5432 alone", "`writes`", "--confinement none"] {
            assert!(line.contains(part) && line.lines().count() == 1, "{line}");
        }
        assert_eq!(process(&entry, "required").confinement, Confinement::Required);
        let free = process(&entry, "none");
        assert_eq!((free.confinement, &free.connects), (Confinement::None, &None));
        assert!(told("x", &free).contains("not confined"));
    }

    #[test]
    fn each_entry_keeps_what_it_fetches_by_itself() {
        let [one, other] = ["com.example/x", "org.example/x"].map(|name| entry(json!({"name": name})));
        assert_eq!(name(&one), name(&one.clone()));
        assert_ne!(name(&one), name(&other), "the short name is the same");
    }
}
