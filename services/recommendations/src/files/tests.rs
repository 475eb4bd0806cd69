use std::{fs, path::Path, sync::mpsc};

use echotune_api::events::{Event, Payload};
use echotune_eventlog::Positions;
use echotune_kit::embedded::Db;
use echotune_model::{EventId, Hlc, PlayCount, Settings, UserId};

use super::*;
use crate::{
    EmbeddedRecommendationStore, Policy, RecommendationsService, ReleaseLimits,
    model::{Depth, Training},
};

fn at(position: u64) -> Positions {
    Positions::of("s", position)
}

fn event(user: u128, payload: Payload) -> Event {
    let (id, region) = (EventId::of("e", 1, 0), String::new());
    let user = UserId(uuid::Uuid::from_u128(user));
    Event { id, user, region, written_at: Hlc(1), traceparent: String::new(), payload }
}

fn known(user: u128, artists: &[&str]) -> [Event; 2] {
    let count = |artist: &&str| PlayCount { artist: (*artist).into(), plays: 3, source: "x".into() };
    let name = format!("user{user}").parse().expect("a name");
    let counts = artists.iter().map(count).collect();
    [Payload::UserCreated { name }, Payload::PlayCountsSet { counts }].map(|payload| event(user, payload))
}

fn load(db: &Db, folder: &Path) -> RecommendationsService {
    let fitting = Fitting { models: Some(folder.join("models")), ..Fitting::default() };
    let store = EmbeddedRecommendationStore::new(db.clone());
    RecommendationsService::load_with(store, Policy::default(), ReleaseLimits::default(), &fitting).expect("loaded")
}

/// Two listeners, fitted and kept.
async fn kept(db: &Db, folder: &Path) -> RecommendationsService {
    let service = load(db, folder);
    let events = [known(1, &["a", "b"]), known(2, &["a"])].concat();
    service.apply(events, 0, at(4)).await.expect("applied");
    assert!(service.refit().await && count(folder) == 1);
    service
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder.join("models")).expect("a folder").count()
}

/// Whether the view knows a listener.
fn knows(service: &RecommendationsService, user: u128) -> bool {
    service.read(|state| state.by_id(UserId(uuid::Uuid::from_u128(user))).is_some())
}

#[tokio::test]
async fn after_a_crash_between_the_removal_and_the_write_nothing_serves_that_knows_more_than_the_store() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let service = kept(&db, folder.path()).await;
    assert!(load(&db, folder.path()).ready());
    // The first step alone.
    let erasure = vec![event(1, Payload::UserErased)];
    assert!(service.forget_if_told(&erasure).await.expect("removed"));
    drop(service);
    let again = load(&db, folder.path());
    assert!(knows(&again, 1) && !again.ready() && count(folder.path()) == 0);
    // The event comes again.
    again.apply(erasure, 0, at(5)).await.expect("applied");
    assert!(again.refit().await && count(folder.path()) == 1);
    let last = load(&db, folder.path());
    assert!(!knows(&last, 1) && last.ready());
}

#[tokio::test]
async fn an_erasure_waits_when_a_file_cannot_be_removed() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let service = kept(&db, folder.path()).await;
    // A folder in the place of a file.
    let stubborn = folder.path().join("models/00000000000000000000.model");
    fs::create_dir(&stubborn).expect("made");
    let erasure = vec![event(1, Payload::UserErased)];
    let error = service.apply(erasure.clone(), 0, at(5)).await.expect_err("not removed");
    assert!(error.to_string().contains("00000000000000000000.model"), "{error}");
    assert!(knows(&service, 1) && knows(&load(&db, folder.path()), 1));
    fs::remove_dir(&stubborn).expect("removed");
    service.apply(erasure, 0, at(5)).await.expect("applied");
    assert!(!knows(&load(&db, folder.path()), 1) && count(folder.path()) == 0);
    assert!(service.refit().await && count(folder.path()) == 1);
}

#[tokio::test]
async fn a_fit_under_way_while_somebody_leaves_serves_and_is_not_kept() {
    let leave = Settings { blocked_artists: Vec::new(), private: true, ..Settings::default() };
    for payload in [Payload::UserErased, Payload::SettingsChanged { settings: leave }] {
        let folder = tempfile::tempdir().expect("folder");
        let db = Db::open(folder.path()).expect("open");
        let service = kept(&db, folder.path()).await;
        service.apply(known(3, &["b", "c"]).to_vec(), 0, at(6)).await.expect("applied");
        let (taken, wait) = mpsc::channel();
        let (go_on, gone) = mpsc::channel();
        let slow = move |training: Training, depth: Depth| {
            taken.send(()).expect("awaited");
            gone.recv().expect("told");
            training.fit(depth)
        };
        let fit = tokio::spawn({
            let service = service.clone();
            async move { service.refit_by(Depth::Whole, slow).await }
        });
        tokio::task::spawn_blocking(move || wait.recv().expect("taken")).await.expect("waited");
        service.apply(vec![event(1, payload)], 0, at(7)).await.expect("applied");
        go_on.send(()).expect("awaited");
        assert!(fit.await.expect("fitted"));
        assert_eq!(count(folder.path()), 0);
        assert!(!load(&db, folder.path()).ready());
        assert!(service.refit().await && count(folder.path()) == 1);
    }
}

#[tokio::test]
async fn a_training_taken_between_the_removal_and_the_write_is_not_kept() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let service = kept(&db, folder.path()).await;
    service.apply(known(3, &["b", "c"]).to_vec(), 0, at(6)).await.expect("applied");
    let erasure = vec![event(1, Payload::UserErased)];
    assert!(service.forget_if_told(&erasure).await.expect("removed"));
    assert!(service.refit().await);
    assert_eq!(count(folder.path()), 0);
}

#[tokio::test]
async fn a_model_that_cannot_be_written_serves_from_memory() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let service = kept(&db, folder.path()).await;
    // A folder where the next file is to be written.
    fs::create_dir(folder.path().join("models/00000000000000000002.unfinished")).expect("made");
    service.apply(known(3, &["b", "c"]).to_vec(), 0, at(6)).await.expect("applied");
    let before = service.model_version();
    assert!(service.refit().await && service.model_version() > before);
    let lent = |service: &RecommendationsService| {
        service.0.model.load().links(echotune_model::ItemKind::Artist).graph().is_lent()
    };
    assert!(!lent(&service));
    fs::remove_dir(folder.path().join("models/00000000000000000002.unfinished")).expect("removed");
    service.apply(known(4, &["b", "d"]).to_vec(), 0, at(8)).await.expect("applied");
    assert!(service.refit().await && lent(&service));
}
