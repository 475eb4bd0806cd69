//! Many owners at once, some of which die in the middle of anything: a dropped future is a process that is gone
//! while its requests are still under way.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use echotune_agents::{
    Advance, CqlRunStore, Decision, End, Entry, Idempotency, NewEntry, PinnedText, Release, RunDraft, RunRecord,
    RunStore as _, RunStoreError,
};
use echotune_model::{ErrorKind, PageRequest, RunEventKind, RunId, RunState};
use futures::future::join_all;
use tokio::time::{sleep, timeout};

use crate::Stores;

const RUNS: usize = 10;
const STEPS: usize = 6;
/// After which step a person is asked.
const ASKS: usize = 3;
const LEASE_MS: u64 = 700;
const PATIENCE: Duration = Duration::from_secs(180);

/// A source of numbers that a seed repeats (Steele et al. 2014, SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % most
    }
}

/// What owners were told.
#[derive(Default)]
struct Told {
    claims: Vec<(RunId, u64)>,
    written: HashSet<String>,
    refused: HashSet<String>,
}

pub(crate) fn draft(store: &CqlRunStore, user: &str) -> RunDraft {
    RunDraft {
        id: RunId::new(store.now_ms()),
        workflow: "w".into(),
        user: user.parse().expect("a name"),
        input: "{}".into(),
        traceparent: String::new(),
        texts: vec![PinnedText { file: "w.yaml".into(), text: "name: w".into() }],
        detail: "{}".into(),
    }
}

async fn journal(store: &CqlRunStore, id: RunId) -> Result<Vec<Entry>, RunStoreError> {
    let mut entries = Vec::new();
    loop {
        let part = store.journal(id, entries.len() as u64).await?;
        if part.is_empty() {
            return Ok(entries);
        }
        entries.extend(part);
    }
}

fn steps(entries: &[Entry]) -> Vec<&Entry> {
    entries.iter().filter(|entry| entry.kind == RunEventKind::StepSucceeded).collect()
}

struct Owner {
    store: CqlRunStore,
    chance: Chance,
    told: Arc<Mutex<Told>>,
}

impl Owner {
    /// Takes turns until stopped, and is gone in the middle of every third.
    async fn work(mut self) {
        loop {
            let life = if self.chance.below(3) == 0 { 5 + self.chance.below(150) } else { 60_000 };
            // What it does not know the answer of, it tells nobody; the run is claimed again.
            let _died_or_failed = timeout(Duration::from_millis(life), self.turn()).await;
        }
    }

    async fn turn(&mut self) -> Result<(), RunStoreError> {
        let Some(record) = self.store.claim(LEASE_MS).await? else {
            self.store.next_due_ms().await?;
            sleep(Duration::from_millis(20)).await;
            return Ok(());
        };
        self.told.lock().expect("told").claims.push((record.id, record.epoch));
        let entries = journal(&self.store, record.id).await?;
        for step in steps(&entries).len()..STEPS {
            if step == ASKS && !entries.iter().any(|entry| entry.kind == RunEventKind::ApprovalDecided) {
                return self.ask(&record).await;
            }
            match self.chance.below(8) {
                0 => sleep(Duration::from_millis(LEASE_MS + 50)).await,
                1 => return self.store.release(record.id, record.epoch, Release::Unfinished).await,
                2 => self.store.renew(record.id, record.epoch, LEASE_MS).await?,
                _ => {}
            }
            self.step(&record, step).await?;
        }
        let end = End { state: RunState::Succeeded, message: String::new(), output: "[]".into() };
        let entries = vec![NewEntry { kind: RunEventKind::RunEnded, step: String::new(), detail: String::new() }];
        self.store.append(record.id, record.epoch, Advance { entries, end: Some(end), ..Advance::default() }).await?;
        Ok(())
    }

    async fn step(&mut self, record: &RunRecord, step: usize) -> Result<(), RunStoreError> {
        let name = format!("{}/{step}/{}/{}", record.id, record.epoch, self.chance.below(u64::MAX));
        let entry = NewEntry { kind: RunEventKind::StepSucceeded, step: step.to_string(), detail: name.clone() };
        let advance = Advance { entries: vec![entry], steps: 1, ..Advance::default() };
        let answer = self.store.append(record.id, record.epoch, advance).await;
        let mut told = self.told.lock().expect("told");
        match answer {
            Ok(_) => told.written.insert(name),
            Err(error) => {
                if matches!(error, RunStoreError::Fenced(_)) {
                    told.refused.insert(name);
                }
                return Err(error);
            }
        };
        Ok(())
    }

    async fn ask(&self, record: &RunRecord) -> Result<(), RunStoreError> {
        // Far away: a run that is not woken by the decision does not end in time.
        let until_ms = self.store.now_ms() + 3_600_000;
        if !record.waiting.contains_key("ok") {
            let waiting = vec![("ok".to_owned(), until_ms)];
            let advance = Advance { waiting, ..Advance::default() };
            self.store.append(record.id, record.epoch, advance).await?;
        }
        self.store.release(record.id, record.epoch, Release::Waiting(vec!["ok".into()], "?".into())).await
    }
}

/// Approves whatever waits for a person, and ends when all runs have.
async fn approve(store: &CqlRunStore, ids: &[RunId]) {
    loop {
        let mut left = 0;
        for id in ids {
            let record = store.run(*id).await.expect("read").expect("the run");
            left += usize::from(!record.state.is_final());
            if record.state == RunState::AwaitingApproval {
                let decision =
                    Decision { step: "ok".into(), approved: true, comment: String::new(), key: String::new() };
                if let Err(error) = store.decide(*id, decision).await {
                    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Indeterminate), "{error}");
                }
            }
        }
        if left == 0 {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// What each step of a run wrote, when each was taken once, in order, by owners that followed each other.
fn taken_once(entries: &[Entry]) -> Vec<String> {
    assert!((1..).zip(entries).all(|(place, entry)| entry.sequence == place), "no gaps");
    let steps = steps(entries);
    let taken: Vec<_> = steps.iter().map(|entry| entry.step.clone()).collect();
    assert_eq!(taken, (0..STEPS).map(|step| step.to_string()).collect::<Vec<_>>(), "each step once, in order");
    let epoch = |entry: &&Entry| entry.detail.split('/').nth(2).and_then(|epoch| epoch.parse::<u64>().ok());
    assert!(steps.iter().map(epoch).is_sorted(), "no earlier owner writes after a later one");
    steps.iter().map(|entry| entry.detail.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_is_taken_once_whoever_dies() {
    let all = Stores::open("crowd").await;
    let home = all.at_home();
    let mut ids = Vec::new();
    for number in 0..RUNS {
        let store = &home[number % home.len()];
        ids.push(store.start(draft(store, "ann"), None).await.expect("started").id);
    }
    let told = Arc::new(Mutex::new(Told::default()));
    let owners: Vec<_> = (0..6)
        .map(|seed| {
            let store = home[seed as usize % home.len()].clone();
            tokio::spawn(Owner { store, chance: Chance(seed), told: Arc::clone(&told) }.work())
        })
        .collect();
    timeout(PATIENCE, approve(&home[0], &ids)).await.expect("all runs end");
    owners.iter().for_each(tokio::task::JoinHandle::abort);
    join_all(owners).await;
    let told = std::mem::take(&mut *told.lock().expect("told"));
    let claims: HashSet<_> = told.claims.iter().collect();
    assert_eq!(claims.len(), told.claims.len(), "an epoch has one owner");
    let mut kept = HashSet::new();
    for id in &ids {
        kept.extend(taken_once(&journal(&home[0], *id).await.expect("read")));
    }
    assert!(told.written.is_subset(&kept), "what was answered is kept");
    assert!(told.refused.is_disjoint(&kept), "what was refused is not");
    println!("{} claims, {} steps answered, {} refused", claims.len(), told.written.len(), told.refused.len());
    assert_eq!(home[0].sweep(u64::MAX).await.expect("swept"), RUNS);
    assert_eq!(home[0].count().await.expect("counted"), 0);
    all.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_starts_one_run_whoever_dies() {
    let all = Stores::open("keys").await;
    let home = all.at_home();
    let start = async |key: u64| {
        let asked = Some(Idempotency { key: key.to_string(), request: [7; 32] });
        let mut chance = Chance(key);
        for store in &home {
            // Gone on the way, with the request maybe still under way.
            let cut = Duration::from_millis(1 + chance.below(40));
            let _gone = timeout(cut, store.start(draft(store, "ann"), asked.clone())).await;
        }
        let both = join_all(home.iter().map(|store| store.start(draft(store, "ann"), asked.clone()))).await;
        let ids: HashSet<_> = both.into_iter().map(|started| started.expect("started").id).collect();
        assert_eq!(ids.len(), 1, "one run for key {key}");
        ids
    };
    let ids: HashSet<_> = join_all((0..16).map(start)).await.into_iter().flatten().collect();
    assert_eq!(ids.len(), 16);
    assert_eq!(home[0].count().await.expect("counted"), 16);
    let mut claimed = HashSet::new();
    while let Some(run) = home[0].claim(3_600_000).await.expect("claimed") {
        assert!(ids.contains(&run.id) && claimed.insert(run.id), "each is claimed once");
        assert_eq!(home[0].texts(run.id).await.expect("texts"), draft(&home[0], "ann").texts);
    }
    assert_eq!(claimed, ids);
    all.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_reaches_runs_that_are_being_started() {
    let all = Stores::open("erase").await;
    let home = all.at_home();
    let starts = async |store: &CqlRunStore| {
        let mut answers = BTreeMap::new();
        for _ in 0..12 {
            let draft = draft(store, "ann");
            answers.insert(draft.id, store.start(draft, None).await);
        }
        answers
    };
    let erase = async {
        sleep(Duration::from_millis(150)).await;
        let now_ms = home[0].now_ms();
        (now_ms, home[0].erase("ann".parse().expect("a name"), now_ms).await.expect("erased"))
    };
    let starting = join_all((0..6).map(|number| starts(&home[number % home.len()])));
    let (answers, (erased_ms, erased)) = futures::future::join(starting, erase).await;
    let answers: BTreeMap<_, _> = answers.into_iter().flatten().collect();
    let (before, after): (Vec<_>, Vec<_>) = answers.iter().partition(|(id, _)| id.made_ms() <= erased_ms);
    assert!(!before.is_empty() && !after.is_empty(), "some on each side");
    let page = home[0].runs(Some("ann".parse().expect("a name")), PageRequest { size: 1_000, token: String::new() });
    let left: HashSet<_> = page.await.expect("listed").rows.into_iter().map(|run| run.id).collect();
    for (id, _) in &before {
        assert!(home[0].run(**id).await.expect("read").is_none() && !left.contains(id), "nothing from before is left");
    }
    let refused = before.iter().filter(|(_, answer)| answer.is_err()).count();
    println!("{} before: {erased} erased, {refused} refused; {} after", before.len(), after.len());
    assert_eq!(after.iter().filter(|(_, answer)| answer.is_ok()).count(), left.len());
    assert!(after.iter().all(|(id, answer)| answer.is_ok() && left.contains(id)), "later runs are another's");
    all.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_start_an_erasure_refused_is_free() {
    let all = Stores::open("keys").await;
    let store = &all.stores[0];
    let asked = |request: u8| Some(Idempotency { key: "k".into(), request: [request; 32] });
    // Made before the erasure, and held up on the way until after it.
    let late = draft(store, "ann");
    sleep(Duration::from_millis(5)).await;
    assert_eq!(store.erase("Ann".parse().expect("a name"), u64::MAX).await.expect("erased"), 0);
    let refused = store.start(late.clone(), asked(1)).await.expect_err("from before the erasure");
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    let id = store.start(draft(store, "ann"), asked(2)).await.expect("of another account").id;
    assert!(id != late.id && store.run(late.id).await.expect("read").is_none());
    assert_eq!(store.count().await.expect("counted"), 1);
    all.close().await;
}
