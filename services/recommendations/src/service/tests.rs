use std::sync::atomic::{AtomicU32, Ordering};

use echotune_api::{RecommendQuery, Recommendations as _};
use echotune_kit::embedded::Db;
use echotune_model::{Call, EventId, ItemKind, PlayCount, Recommendations as List};
use tokio_util::sync::CancellationToken;

use super::*;

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
    let counts = artists.iter().map(count).collect();
    let name = format!("user{user}").parse().expect("a name");
    [Payload::UserCreated { name }, Payload::PlayCountsSet { counts }].map(|payload| event(user, payload))
}

async fn list(service: &RecommendationsService) -> List {
    let query = RecommendQuery { kind: ItemKind::Artist, limit: 5, include_known: false };
    service.recommend(&Call::internal(), "user2", &query).await.expect("listed")
}

#[tokio::test]
async fn a_fit_that_fails_leaves_the_model_before_it_serving_and_the_next_one_is_tried() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let load = || RecommendationsService::load(EmbeddedRecommendationStore::new(db.clone())).expect("loaded");
    let service = load();
    assert!(service.ready(), "there is nothing to fit");
    let events = [known(1, &["a", "b"]), known(2, &["a"])].concat();
    service.apply(events, 0, at(4)).await.expect("applied");
    assert!(service.refit().await);
    let before = list(&service).await;
    assert!(!before.cold_start && before.items[0].artist == "b");
    service.apply(known(3, &["a", "c"]).to_vec(), 0, at(6)).await.expect("applied");
    assert!(!service.refit_by(Depth::Whole, |_, _| panic!("injected")).await);
    let after = list(&service).await;
    assert_eq!((&after.model_version, after.cold_start), (&before.model_version, false));
    assert!(service.refit().await);
    assert!(list(&service).await.model_version > before.model_version);
    // After a restart, a failed fit does not make the service ready; the next one does.
    let again = load();
    assert!(!again.ready() && list(&again).await.cold_start);
    assert!(!again.refit_by(Depth::Whole, |_, _| panic!("injected")).await);
    assert!(!again.ready());
    let waiting = tokio::spawn({
        let again = again.clone();
        async move { again.fitted().await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    assert!(again.refit().await && again.ready());
    waiting.await.expect("fitted");
    assert!(!list(&again).await.cold_start);
}

#[tokio::test]
async fn a_whole_fit_that_began_before_a_quick_one_serves_unless_somebody_was_forgotten_meanwhile() {
    let folder = tempfile::tempdir().expect("folder");
    let store = EmbeddedRecommendationStore::new(Db::open(folder.path()).expect("open"));
    let service = RecommendationsService::load(store).expect("loaded");
    let artists: Vec<String> = (0..40).map(|n| format!("artist {n}")).collect();
    let likes = |user: usize| [1, 3, 7, 12].map(|step| artists[(user * step + step) % 40].as_str());
    let events: Vec<Event> = (0..120_usize).flat_map(|user| known(user as u128, &likes(user))).collect();
    service.apply(events, 0, at(240)).await.expect("applied");
    let blend = |version: &str| version.starts_with("blend-");
    for (user, forgets) in [(500, false), (501, true)] {
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (go, may_go) = std::sync::mpsc::channel();
        let whole = tokio::spawn({
            let service = service.clone();
            async move {
                let fit = move |training: Training, depth| {
                    begun.send(training.revision).expect("awaited");
                    may_go.recv().expect("told");
                    training.fit(depth)
                };
                service.refit_by(Depth::Whole, fit).await
            }
        });
        let revision = has_begun.await.expect("begun");
        // What most items of are new to the model that serves.
        let new: Vec<String> = (0..50).map(|n| format!("new to {user}: {n}")).collect();
        service.apply(known(user, &["artist 1"]).to_vec(), 0, at(0)).await.expect("applied");
        if forgets {
            let new: Vec<&str> = new.iter().map(String::as_str).collect();
            service.apply(known(user + 1, &new).to_vec(), 0, at(0)).await.expect("applied");
            assert!(service.refit_quickly().await && !blend(&service.model_version()));
            service.apply(vec![event(user + 1, Payload::UserErased)], 0, at(0)).await.expect("applied");
        } else {
            assert!(service.refit_quickly().await && !blend(&service.model_version()));
        }
        go.send(()).expect("waits");
        assert!(whole.await.expect("fitted"));
        let version = service.model_version();
        assert_eq!(blend(&version), !forgets, "{version} after the fit of {revision:x}");
        assert!(forgets || version.ends_with(&format!("{revision:016x}")));
    }
}

#[tokio::test]
async fn a_refit_waits_for_the_memory_that_the_fits_of_a_judgement_hold() {
    let folder = tempfile::tempdir().expect("folder");
    let store = EmbeddedRecommendationStore::new(Db::open(folder.path()).expect("open"));
    let service = RecommendationsService::load(store).expect("loaded");
    service.apply(known(2, &["a", "b"]).to_vec(), 0, at(2)).await.expect("applied");
    let held = service.materials().training.memory.take(u64::MAX);
    let refit = tokio::spawn({
        let service = service.clone();
        async move { service.refit().await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!refit.is_finished());
    drop(held);
    assert!(refit.await.expect("fitted"));
}

#[tokio::test]
async fn the_loop_of_refits_goes_on_after_a_failure_without_a_change() {
    let folder = tempfile::tempdir().expect("folder");
    let service =
        RecommendationsService::load(EmbeddedRecommendationStore::new(Db::open(folder.path()).expect("open")))
            .expect("loaded");
    service.apply(known(2, &["a", "b"]).to_vec(), 0, at(2)).await.expect("applied");
    let (stop, tries) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
    let refits = tokio::spawn({
        let (service, stop, tries) = (service.clone(), stop.clone(), Arc::clone(&tries));
        async move {
            let fit = || {
                let tries = Arc::clone(&tries);
                service.refit_by(Depth::Whole, move |training, depth| {
                    assert!(tries.fetch_add(1, Ordering::AcqRel) >= 2, "injected");
                    training.fit(depth)
                })
            };
            crate::consumer::refit_by(&service, Duration::from_millis(1), stop, fit).await;
        }
    });
    let patience = Duration::from_secs(60);
    let mut fitted = service.0.fitted.subscribe();
    let served = tokio::time::timeout(patience, fitted.wait_for(|revision| *revision > 0)).await;
    drop(served.expect("tried until it served").expect("the service lives"));
    assert_eq!(tries.load(Ordering::Acquire), 3);
    stop.cancel();
    refits.await.expect("stopped");
}
