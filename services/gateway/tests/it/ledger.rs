//! Entries of calls: what is in them, and that none is lost, changed or billed twice.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use echotune_gateway::{
    Limits,
    metering::{
        CallEntry, CallOutcome, Column, LedgerError, Metering, MeteringConfig, PublicKey, Record, Tariff, Usage, sum,
        verify,
    },
};
use serde_json::{Value, json};

use crate::{
    fixture::{Era, Fixture, TOOLS},
    house::{House, config, example, http, message_of, result_of, rmcp},
};

fn usage(key: &str) -> Usage {
    Usage {
        idempotency_key: key.to_owned(),
        tenant: "tenant".to_owned(),
        caller: "user/tenant/writer".to_owned(),
        server: "notes".to_owned(),
        tool: "add".to_owned(),
        era: "2026-07-28".to_owned(),
        outcome: CallOutcome::Ok,
        duration: Duration::from_millis(3),
        bytes_in: 10,
        bytes_out: 20,
        trace_id: "0af7651916cd43dd8448eb211c80319c".to_owned(),
    }
}

fn tariff() -> Tariff {
    Tariff {
        publisher: "example".to_owned(),
        version: "1.0.2".to_owned(),
        plan: "per call".to_owned(),
        unit_price_micros: 333,
        currency: "EUR".to_owned(),
        publisher_share_bp: 8_500,
    }
}

fn open(folder: &Path, file_bytes: u64) -> Metering {
    let mut config = MeteringConfig::new(folder);
    config.file_bytes = file_bytes;
    config.region = "eu".to_owned();
    config.tariffs.insert("notes".to_owned(), tariff());
    Metering::open(config).expect("opened")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    paths.sort();
    paths
}

pub(crate) fn entries(folder: &Path) -> Vec<CallEntry> {
    let lines = files(folder)
        .into_iter()
        .flat_map(|path| fs::read_to_string(path).expect("text").lines().map(str::to_owned).collect::<Vec<_>>());
    let records = lines.map(|line| {
        let record = line.splitn(3, ' ').nth(2).expect("a record").to_owned();
        serde_json::from_str(&record).expect("a record")
    });
    records.filter_map(|record| if let Record::Call(entry) = record { Some(*entry) } else { None }).collect()
}

fn check(folder: &Path) -> echotune_gateway::metering::Report {
    verify(folder, &PublicKey::read(folder).expect("a key"), None).expect("read")
}

#[tokio::test]
async fn entries_are_written_in_order_over_many_files_and_add_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let ledger = open(path, 4 << 10);
    for call in 0..50 {
        let mut usage = usage(&format!("key {}", call % 40));
        if call == 7 {
            usage.outcome = CallOutcome::ToolError;
        }
        let place = ledger.append(usage).await.expect("written");
        assert!(place > call, "the head of each file has a place too");
    }
    ledger.close().await;
    let report = check(path);
    assert!(report.is_whole() && report.files > 5, "{report:?}");
    assert_eq!((report.calls, report.lost), (50, 0));
    let all = entries(path);
    assert_eq!(
        all.iter().filter(|entry| entry.units == 1).count(),
        40,
        "ten are repetitions; one failed, and is done later"
    );
    let first = &all[0];
    assert_eq!((first.server.as_str(), first.region.as_str(), first.plan.as_str()), ("notes@1.0.2", "eu", "per call"));
    let key = PublicKey::read(path).expect("a key");
    let sums = sum(&[(path.to_owned(), key)], &[Column::Tenant, Column::Publisher], (0, u64::MAX)).expect("added up");
    let [row] = &sums.rows[..] else { panic!("{sums:?}") };
    assert_eq!((row.calls, row.done, row.units), (50, 49, 40));
    assert_eq!((row.amount_micros, row.publisher_micros), (40 * 333, 40 * 333 * 85 / 100), "rounded once, at the end");
    assert_eq!(row.amount_micros, row.publisher_micros + row.platform_micros);
    assert_eq!(row.by["tenant"], "tenant");
    let twice = [(path.to_owned(), key), (path.to_owned(), key)];
    let sums = sum(&twice, &[Column::Outcome], (0, u64::MAX)).expect("added up");
    assert_eq!(sums.rows.iter().map(|row| row.units).sum::<u64>(), 40, "a key is billed once over all ledgers");
    let none = sum(&[(path.to_owned(), key)], &[Column::Tool], (0, 1)).expect("added up");
    assert!(none.rows.is_empty());
}

#[tokio::test]
async fn who_opens_it_again_goes_on_and_knows_what_was_billed() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = open(folder.path(), 1 << 20);
    ledger.append(usage("one")).await.expect("written");
    assert!(
        matches!(Metering::open(MeteringConfig::new(folder.path())), Err(LedgerError::InUse(_))),
        "one process writes a ledger"
    );
    let key = ledger.public_key();
    ledger.close().await;
    let ledger = open_again(folder.path());
    assert_eq!(ledger.public_key(), key);
    ledger.append(usage("one")).await.expect("written");
    ledger.append(usage("two")).await.expect("written");
    ledger.close().await;
    assert!(!ledger.record(usage("late")).await, "it is closed");
    assert_eq!(ledger.lost(), 1);
    assert_eq!(entries(folder.path()).iter().map(|entry| entry.units).collect::<Vec<_>>(), [1, 0, 1]);
    assert!(check(folder.path()).is_whole());
}

/// Opens a ledger whose writer has ended: nobody has it any more.
fn open_again(folder: &Path) -> Metering {
    Metering::open(MeteringConfig::new(folder)).expect("free")
}

#[tokio::test]
async fn whatever_is_changed_taken_out_or_put_in_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let ledger = open(path, 2 << 10);
    for call in 0..12 {
        ledger.append(usage(&format!("{call}"))).await.expect("written");
    }
    ledger.close().await;
    let key = ledger.public_key();
    let whole = check(path);
    let all = files(path);
    assert!(whole.is_whole() && all.len() > 2, "{whole:?}");
    let file = &all[1];
    let text = fs::read_to_string(file).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    let broken = |changed: &str, why: &str| {
        fs::write(file, changed).expect("written");
        let report = verify(path, &key, None).expect("read");
        let told: Vec<_> = report.faults.iter().map(ToString::to_string).collect();
        assert!(told.iter().any(|fault| fault.contains(why)), "'{why}' is not told: {told:?}");
        fs::write(file, &text).expect("written");
    };
    broken(&text.replacen("\"units\":1", "\"units\":0", 1), "digest is not that of what is there");
    let without: Vec<_> = [&lines[..1], &lines[2..]].concat();
    broken(&format!("{}\n", without.join("\n")), "it was changed, or the line before it was");
    let swapped: Vec<_> = [&lines[..1], &[lines[2], lines[1]], &lines[3..]].concat();
    broken(&format!("{}\n", swapped.join("\n")), "it was changed, or the line before it was");
    let (digest, rest) = lines[1].split_at(64);
    let forged = format!(" {}{}", "A".repeat(86), &rest[87..]);
    broken(&text.replacen(rest, &forged, 1), "signature");
    broken(&text.replacen(digest, &"0".repeat(64), 1), "digest");
    broken("", "empty");
    broken(&text[..text.len() - 9], "has no end");
    broken(&text.replacen(&lines[0][..10], "0123456789", 1), "changed");
    fs::remove_file(file).expect("removed");
    let report = verify(path, &key, None).expect("read");
    assert!(report.faults.iter().any(|fault| fault.why.contains("missing")), "{report:?}");
    fs::write(file, &text).expect("written");
    // Whoever has another key can write a ledger that is right in itself, and is not this one.
    let other = tempfile::tempdir().expect("a folder");
    let ledger = open(other.path(), 1 << 20);
    ledger.append(usage("forged")).await.expect("written");
    ledger.close().await;
    let report = verify(other.path(), &key, None).expect("read");
    assert!(report.faults.iter().any(|fault| fault.why.contains("signed by key")), "{report:?}");
    // Lines off the very end leave a right ledger; who has noted the head finds out.
    let last = all.last().expect("files");
    let text = fs::read_to_string(last).expect("text");
    let shorter: Vec<_> = text.lines().collect();
    fs::write(last, format!("{}\n", shorter[..shorter.len() - 1].join("\n"))).expect("written");
    assert!(verify(path, &key, None).expect("read").is_whole());
    let noted = (whole.head_sequence, whole.head.as_str());
    assert!(!verify(path, &key, Some(noted)).expect("read").is_whole());
    fs::write(last, text).expect("written");
    assert!(verify(path, &key, Some(noted)).expect("read").is_whole());
    assert!(matches!(verify(&path.join("nothing"), &key, None), Err(LedgerError::Absent(_))));
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let mut last = 0;
    for round in 0..5 {
        let mut writer = Command::new(example("ledger_writer"))
            .arg(path)
            .arg("8192")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(writer.stdout.take().expect("output")).lines();
        let mut read = 0;
        while read < 40 + 13 * round {
            let line = lines.next().expect("it goes on").expect("text");
            let place = line.split("place ").nth(1).and_then(|place| place.trim().parse::<u64>().ok());
            if let Some(place) = place {
                (last, read) = (place.max(last), read + 1);
            }
        }
        writer.kill().expect("killed");
        writer.wait().expect("ended");
        // What was told while it died.
        for line in lines.map_while(Result::ok) {
            let place = line.split("place ").nth(1).and_then(|place| place.trim().parse::<u64>().ok());
            last = last.max(place.unwrap_or(0));
        }
        let places: Vec<u64> = entries_up_to_the_tear(path).iter().map(|entry| entry.sequence).collect();
        assert!(
            places.last().is_some_and(|place| *place >= last),
            "{last} was acknowledged, {:?} is last",
            places.last()
        );
        // A crash of the machine leaves half of what the disk was given.
        let torn = files(path).pop().expect("a file");
        let mut text = fs::read(&torn).expect("bytes");
        text.extend_from_slice(&b"0123456789abcdef 0000\0\0\0\0 half a li"[..7 * round + 3]);
        fs::write(&torn, text).expect("written");
        assert!(!check(path).is_whole(), "a tear is seen by who only reads");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async { open_again(path).close().await });
        let report = check(path);
        assert!(report.is_whole() && report.head_sequence >= last, "{report:?}");
    }
    let aside = fs::read_dir(path)
        .expect("a folder")
        .filter(|file| file.as_ref().expect("a file").path().extension().is_some_and(|extension| extension == "torn"));
    assert!(aside.count() >= 1, "what was cut off is kept");
}

/// Entries of whole lines: the last may be half written.
fn entries_up_to_the_tear(folder: &Path) -> Vec<CallEntry> {
    let lines = files(folder).into_iter().flat_map(|path| {
        let text = fs::read(path).expect("bytes");
        let text = String::from_utf8_lossy(&text).into_owned();
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned).collect::<Vec<_>>()
    });
    let record = |line: String| serde_json::from_str(line.splitn(3, ' ').nth(2)?.trim_end()).ok();
    lines
        .filter_map(record)
        .filter_map(|record| if let Record::Call(entry) = record { Some(*entry) } else { None })
        .collect()
}

#[tokio::test]
async fn damage_that_no_crash_makes_is_not_mended() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = open(folder.path(), 1 << 30);
    ledger.append(usage("one")).await.expect("written");
    ledger.close().await;
    let path = files(folder.path()).pop().expect("a file");
    let mut text = fs::read(&path).expect("bytes");
    text.extend_from_slice(&vec![b'x'; 40 << 20]);
    fs::write(&path, &text).expect("written");
    let error = Metering::open(MeteringConfig::new(folder.path())).map(drop).expect_err("refused").to_string();
    assert!(error.contains("Bring back the file"), "{error}");
    assert_eq!(fs::metadata(&path).expect("there").len(), text.len() as u64, "nothing was cut");
}

/// A gateway that meters, before one server of each era.
async fn metered(folder: &Path) -> (House, [crate::house::Served; 2]) {
    let (modern, legacy) =
        (rmcp(Fixture::new("new", Era::Modern, &TOOLS)).await, rmcp(Fixture::new("old", Era::Legacy, &TOOLS)).await);
    let mut metering = MeteringConfig::new(folder);
    metering.tariffs.insert("new".to_owned(), tariff());
    let servers = vec![http("new", &modern.url()), http("old", &legacy.url())];
    let mut config = config(servers, Limits::default());
    config.metering = Some(Metering::open(metering).expect("opened"));
    (House::with(config).await, [modern, legacy])
}

#[tokio::test]
async fn a_call_through_the_gateway_is_entered_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (house, _servers) = metered(folder.path()).await;
    let (new, old) = ("/servers/new/mcp", "/servers/old/mcp");
    house.call(new, "echo", json!({"text": "hello"})).await;
    let key = json!({"echotune/idempotency-key": "pay for it once"});
    for _ in 0..3 {
        let params = json!({"name": "count", "arguments": {}, "_meta": key});
        result_of(house.modern(new, "user-7", "tools/call", params).send().await.expect("answered")).await;
    }
    // Of another account it is another call.
    let params = json!({"name": "count", "arguments": {}, "_meta": key});
    result_of(house.modern(new, "user-8", "tools/call", params).send().await.expect("answered")).await;
    let session = house.session(old, crate::house::OPERATOR).await;
    house.legacy_call(old, &session, 7, "echo", json!({})).await;
    // Refused by the server, and not a call of a tool at all.
    let params = json!({"name": "nothing", "arguments": {}});
    message_of(house.modern(old, "user-7", "tools/call", params).send().await.expect("answered")).await;
    house.tools(new, "user-7").await;
    house.close().await;

    let all = entries(folder.path());
    let told: Vec<_> = all
        .iter()
        .map(|entry| (entry.server.as_str(), entry.tool.as_str(), entry.outcome, entry.units, entry.era.as_str()))
        .collect();
    let (ok, modern, legacy) = (CallOutcome::Ok, "2026-07-28", "2025-11-25");
    assert_eq!(
        told[..6],
        [
            ("new@1.0.2", "echo", ok, 1, modern),
            ("new@1.0.2", "count", ok, 1, modern),
            ("new@1.0.2", "count", ok, 0, modern),
            ("new@1.0.2", "count", ok, 0, modern),
            ("new@1.0.2", "count", ok, 1, modern),
            ("old", "echo", ok, 1, legacy),
        ]
    );
    assert_eq!((told[6].1, told[6].2, told[6].3, told.len()), ("nothing", CallOutcome::RpcError, 0, 7));
    assert_eq!((all[0].tenant.as_str(), all[0].caller.as_str()), ("operator", "operator"));
    let seven = "00000007-0000-7000-8000-000000000000";
    assert_eq!((all[1].tenant.as_str(), all[1].caller.clone()), (seven, format!("user/{seven}/writer")));
    assert_eq!(all[0].bytes_in, json!({"text": "hello"}).to_string().len() as u64);
    assert!(all[0].bytes_out > 0 && all[0].duration_us > 0 && all[0].trace_id.len() == 32, "{:?}", all[0]);
    assert_eq!((all[0].unit_price_micros, all[0].currency.as_str(), all[5].currency.as_str()), (333, "EUR", ""));
    assert_eq!(all[1].idempotency_key, all[2].idempotency_key);
    let text = fs::read_to_string(files(folder.path()).pop().expect("a file")).expect("text");
    assert!(!text.contains("pay for it once") && !text.contains("user7") && !text.contains("hello"), "{text}");
    assert!(check(folder.path()).is_whole());
}

#[tokio::test]
async fn rounds_in_which_the_client_is_asked_are_one_call() {
    let folder = tempfile::tempdir().expect("a folder");
    let (house, _servers) = metered(folder.path()).await;
    for path in ["/servers/new/mcp", "/servers/old/mcp"] {
        let call = |params: Value| house.modern(path, crate::house::OPERATOR, "tools/call", params);
        let first = result_of(call(json!({"name": "ask", "arguments": {}})).send().await.expect("answered")).await;
        assert_eq!(first["resultType"], "input_required", "{first}");
        let asked = first["inputRequests"].as_object().expect("requests").keys().next().expect("one").clone();
        let answer = json!({asked: {"action": "accept", "content": {"name": "Ann"}}});
        let again =
            json!({"name": "ask", "arguments": {}, "requestState": first["requestState"], "inputResponses": answer});
        let last = result_of(call(again).send().await.expect("answered")).await;
        assert_eq!(last["structuredContent"]["hello"], "Ann", "{last}");
    }
    house.close().await;
    let all = entries(folder.path());
    let told: Vec<_> = all.iter().map(|entry| (entry.server.as_str(), entry.tool.as_str(), entry.units)).collect();
    assert_eq!(told, [("new@1.0.2", "ask", 1), ("old", "ask", 1)]);
}
