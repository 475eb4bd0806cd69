//! Children that try what they have no need of.

use std::{fs, path::Path, process::Command, thread};

use echotune_gateway::{Confinement, EraChoice, ProcessConfig, ServerConfig};
use landlock::{ABI, Access as _, AccessFs, Ruleset, RulesetAttr as _, RulesetCreated, RulesetStatus};

use crate::house::{House, process};

/// Says what it is, and waits for its end.
const SERVES: &str = r#"read -r line
id=$(printf '%s' "$line" | sed 's/.*"id":\([0-9]*\).*/\1/')
me='{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"a","version":"1"}}'
printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$me"
cat > /dev/null
"#;

/// A server that does something in its folder before it answers.
fn server(folder: &Path, does: &str) -> ProcessConfig {
    let mut config = ProcessConfig::new("/bin/sh", ["-c".to_owned(), format!("{does}\n{SERVES}")]);
    config.folder = Some(folder.to_owned());
    config.env.insert("LANG".to_owned(), "C".to_owned());
    // However long it takes on a machine that is busy.
    config.start = std::time::Duration::from_secs(60);
    config
}

/// A gateway that has asked it what it is, so that it has done what it does.
async fn started(config: ProcessConfig) -> House {
    House::of(vec![ServerConfig { era: EraChoice::Legacy, ..process("a", config) }]).await
}

/// Whether this kernel keeps a thread from files; tried on one that ends.
fn has_landlock() -> bool {
    let tried = thread::spawn(|| {
        let ruleset = Ruleset::default().handle_access(AccessFs::from_all(ABI::V3));
        let status = ruleset.and_then(Ruleset::create).and_then(RulesetCreated::restrict_self);
        status.is_ok_and(|status| status.ruleset == RulesetStatus::FullyEnforced)
    });
    let is_there = tried.join().expect("no panic");
    if !is_there {
        eprintln!("this kernel has no Landlock, so that it is not judged what a child gets at");
    }
    is_there
}

/// Whether this kernel filters calls.
fn has_seccomp() -> bool {
    let is_there = fs::read_to_string("/proc/self/status").expect("there").contains("Seccomp_filters:");
    if !is_there {
        eprintln!("this kernel has no seccomp, so that it is not judged what a child calls");
    }
    is_there
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_gets_at_what_is_its_own_and_at_nothing_else_and_what_is_temporary_goes_with_it() {
    let (folder, elsewhere) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let secret = elsewhere.path().join("secret");
    fs::write(&secret, "the secret").expect("written");
    fs::write(folder.path().join("own"), "its own").expect("written");
    let does = format!(
        "cat {secret} > seen 2> refused; echo x > {elsewhere}/left 2>> refused; cat own > mine\n\
         printf '%s' \"$TMPDIR\" > temporary; echo kept > \"$TMPDIR/x\"; cat \"$TMPDIR/x\" > kept\n\
         cat /proc/$PPID/environ > environ 2>> refused; echo $$ > process\n\
         cat /proc/self/status > status; unshare -U true 2> /dev/null && echo made > namespace",
        secret = secret.display(),
        elsewhere = elsewhere.path().display(),
    );
    let mut config = server(folder.path(), &does);
    config.file_size = Some(1 << 20);
    let house = started(config).await;
    let told = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    assert_eq!((told("mine").as_str(), told("kept").trim()), ("its own", "kept"));
    let temporary = told("temporary");
    let limits = fs::read_to_string(format!("/proc/{}/limits", told("process").trim())).expect("it runs");
    let longest = limits.lines().find(|line| line.starts_with("Max file size")).expect("a limit");
    assert!(longest.contains(" 1048576 "), "{longest}");
    assert!(temporary.contains("echotune-server-") && Path::new(&temporary).is_dir(), "{temporary}");
    if has_landlock() {
        assert_eq!(told("seen"), "", "it was read");
        assert_eq!(told("environ"), "", "the environment of this process was read");
        assert!(!elsewhere.path().join("left").exists(), "it was written");
        assert!(told("refused").contains("denied"), "{}", told("refused"));
    }
    if has_seccomp() {
        let status = told("status");
        assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
        let by_itself = Command::new("unshare").args(["-U", "true"]).status();
        if by_itself.is_ok_and(|ended| ended.success()) {
            assert_eq!(told("namespace"), "", "it made a namespace");
        } else {
            eprintln!("nobody makes namespaces here, so that it is not judged whether a child does");
        }
    }
    house.close().await;
    assert!(!Path::new(&temporary).exists(), "it was left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_gets_at_what_its_configuration_says_and_at_everything_where_it_is_not_confined() {
    let elsewhere = tempfile::tempdir().expect("folder");
    fs::write(elsewhere.path().join("in"), "read").expect("written");
    for confinement in [Confinement::Auto, Confinement::None] {
        let folder = tempfile::tempdir().expect("folder");
        let (from, to) = (elsewhere.path().join("in"), elsewhere.path().join("out"));
        let does = format!("cat {} > {}; grep NoNewPrivs /proc/self/status > status", from.display(), to.display());
        let mut config = server(folder.path(), &does);
        config.confinement = confinement;
        if confinement == Confinement::Auto {
            config.writes = vec![elsewhere.path().to_owned()];
        }
        let house = started(config).await;
        assert_eq!(fs::read_to_string(&to).expect("written"), "read", "{confinement:?}");
        if confinement == Confinement::None {
            let own = fs::read_to_string("/proc/thread-self/status").expect("there");
            let status = fs::read_to_string(folder.path().join("status")).expect("written");
            assert!(own.contains(status.trim()), "it is as this process: {status}");
        }
        fs::remove_file(&to).expect("removed");
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_to_be_confined_is_not_started_where_it_cannot_be() {
    let folder = tempfile::tempdir().expect("folder");
    let mut config = server(folder.path(), "cat /proc/self/status > status");
    config.confinement = Confinement::Required;
    let house = started(config).await;
    let status = fs::read_to_string(folder.path().join("status")).unwrap_or_default();
    if has_landlock() && has_seccomp() {
        assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
    } else {
        assert_eq!(status, "", "it was started");
    }
    house.close().await;
}
