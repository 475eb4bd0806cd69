//! A whole fit is kept, and serves at the next start as it did before.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use echotune_api::{Recommendations as _, events::Payload};
use echotune_model::{Call, ItemKind, Recommendations as List, TraceId};
use echotune_recommendations::{EmbeddedRecommendationStore, Fitting, Policy, RecommendationsService, ReleaseLimits};

use crate::world::{World, call, counted, played, query, settings, tagged, user};

/// Listeners: enough for a blend.
const PEOPLE: u128 = 120;
const ARTISTS: u128 = 40;

fn fitting(folder: &Path) -> Fitting {
    let [models, candidates] = ["models", "candidates"].map(|name| Some(folder.join(name)));
    Fitting { models, candidates, ..Fitting::default() }
}

/// Everybody has a history, some have friends, and artists have tags.
async fn world(folder: &Path) -> World {
    fill(World::with(&fitting(folder))).await
}

async fn fill(world: World) -> World {
    let mut said = Vec::new();
    for n in 1..=PEOPLE {
        let known: Vec<String> = (0..ARTISTS)
            .filter(|artist| (artist * 7 + n * 5) % 13 < 4)
            .map(|artist| format!("Artist {artist}"))
            .collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let name = format!("user{n}").parse().expect("a name");
        said.push((user(n), Payload::UserCreated { name }));
        said.push((user(n), played(&known, 1 + u32::try_from(n % 5).expect("small"))));
        said.push((user(n), tagged(known[0], if n % 2 == 0 { "even" } else { "odd" })));
        said.push((user(n), Payload::FriendsAdded { friends: vec![user(n % PEOPLE + 1)] }));
    }
    world.publish_all(said).await;
    world
}

fn load(world: &World, folder: &Path) -> RecommendationsService {
    let store = EmbeddedRecommendationStore::new(world.db.clone());
    RecommendationsService::load_with(store, Policy::default(), ReleaseLimits::default(), &fitting(folder))
        .expect("loaded")
}

async fn lists(service: &RecommendationsService) -> Vec<List> {
    let mut lists = Vec::new();
    for kind in [ItemKind::Artist, ItemKind::Track] {
        for n in (1..=PEOPLE).step_by(7) {
            lists.push(service.recommend(&call(), &format!("user{n}"), &query(kind, 20)).await.expect("listed"));
        }
    }
    lists
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder.join("models")).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

type Damage<'d> = dyn Fn(&mut Vec<u8>) + 'd;

/// Replaces a file by one with other bytes, as a damaged disk would have it.
fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("there");
    change(&mut bytes);
    fs::remove_file(path).expect("there");
    fs::write(path, bytes).expect("written");
}

#[tokio::test]
async fn a_restart_serves_the_same_lists_to_the_bit_before_any_fit() {
    let folder = tempfile::tempdir().expect("folder");
    let world = world(folder.path()).await;
    // By the fit in memory, and by the file that it became.
    let unkept = RecommendationsService::load(EmbeddedRecommendationStore::new(world.db.clone())).expect("loaded");
    assert!(unkept.refit().await && world.service.refit().await);
    let before = lists(&world.service).await;
    assert!(before[0].model_version.starts_with("blend-") && before.iter().all(|list| !list.items.is_empty()));
    assert!(lists(&unkept).await == before);
    let again = load(&world, folder.path());
    assert!(again.ready());
    assert!(lists(&again).await == before);
    // The file is of what the store holds, so that there is nothing to fit.
    let kept = files(folder.path());
    assert!(again.refit_quickly().await && again.refit().await);
    assert_eq!((files(folder.path()), again.model_version()), (kept, before[0].model_version.clone()));
}

#[tokio::test]
async fn what_the_cut_keeps_is_told_with_the_model_and_after_a_restart_for_those_who_asked_as_well() {
    let folder = tempfile::tempdir().expect("folder");
    let fitting = Fitting { audit_share: 1.0, ..fitting(folder.path()) };
    let world = fill(World::with(&fitting)).await;
    assert!(world.service.cut_audits().is_empty());
    for n in 1..=9 {
        let traced = Call { trace: TraceId(n), ..call() };
        let query = query(ItemKind::Artist, 10);
        world.service.recommend(&traced, &format!("user{n}"), &query).await.expect("listed");
    }
    // Whoever is gone is not looked at.
    world.publish(user(9), vec![Payload::UserErased]).await;
    assert!(world.service.refit().await);
    let audits = world.service.cut_audits();
    let told: Vec<_> = audits.iter().map(|audit| (audit.kind, audit.requests, audit.listeners)).collect();
    let all = u64::try_from(PEOPLE).expect("small") - 1;
    assert_eq!(told, [(ItemKind::Artist, false, all), (ItemKind::Artist, true, 8), (ItemKind::Track, false, all)]);
    // There are fewer items than links are kept of each.
    assert!(audits.iter().all(|audit| audit.recall > 0.99 && audit.mass > 0.99 && audit.low <= audit.recall));
    assert_eq!(load(&world, folder.path()).cut_audits(), audits);
}

#[tokio::test]
async fn a_fit_with_little_memory_is_smaller_and_says_so_and_none_is_tried_with_less() {
    let folder = tempfile::tempdir().expect("folder");
    let world = world(folder.path()).await;
    assert!(world.service.refit().await && world.service.model_notes().is_empty());
    let with = |memory_max| {
        let store = EmbeddedRecommendationStore::new(world.db.clone());
        let fitting = Fitting { memory_max, ..fitting(folder.path()) };
        RecommendationsService::load_with(store, Policy::default(), ReleaseLimits::default(), &fitting).expect("loaded")
    };
    // The file of more memory serves, and a fit with less takes its place.
    let threads = std::thread::available_parallelism().expect("known").get() as u64;
    let little = with((9 << 20) + (threads.saturating_sub(2) << 22));
    assert!(little.ready() && little.refit().await);
    let notes = little.model_notes();
    assert!(notes.iter().any(|note| note.starts_with("artist: ")), "{notes:?}");
    let none = with(1 << 10);
    let before = none.model_version();
    assert!(none.ready() && !none.refit().await);
    assert_eq!(none.model_version(), before);
}

#[tokio::test]
async fn an_older_file_serves_until_there_is_a_newer_fit_and_vanished_items_are_left_out() {
    let folder = tempfile::tempdir().expect("folder");
    let world = world(folder.path()).await;
    world.join(500, "fan", &["Artist 3", "Artist 5"]).await;
    world.publish(user(500), vec![counted("Only Here", 1, "elsewhere")]).await;
    assert!(world.service.refit().await);
    let version = world.service.model_version();
    // Nobody plays it any more, and somebody plays what is new.
    world.publish(user(500), vec![counted("Only Here", 0, "elsewhere")]).await;
    world.publish(user(1), vec![counted("Artist 30", 9, "elsewhere")]).await;
    let again = load(&world, folder.path());
    assert!(again.ready() && again.model_version() == version);
    assert!(again.refit_quickly().await);
    assert_eq!(again.model_version(), version, "co-listening does not take the place of a blend of most items");
    for n in 1..=PEOPLE {
        let list = again.recommend(&call(), &format!("user{n}"), &query(ItemKind::Artist, 100)).await.expect("listed");
        assert!(list.items.iter().all(|item| item.artist != "Only Here"));
        assert!(n != 1 || list.items.iter().all(|item| item.artist != "Artist 30"), "folded in");
    }
    assert!(again.refit().await);
    assert!(again.model_version() > version);
    assert_eq!(files(folder.path()).len(), 2);
}

#[tokio::test]
async fn files_that_are_no_model_of_this_store_are_passed_over_and_fitted_anew() {
    let folder = tempfile::tempdir().expect("folder");
    let world = world(folder.path()).await;
    assert!(world.service.refit().await);
    let kept = files(folder.path()).remove(0);
    let whole = fs::read(&kept).expect("there");
    let (length, version) = (whole.len(), world.service.model_version());
    let damages: [(&str, &Damage<'_>); 6] = [
        ("empty", &|bytes| bytes.clear()),
        ("truncated", &|bytes| bytes.truncate(length / 2)),
        ("another format", &|bytes| bytes[8] = 200),
        ("a flipped bit of the header", &|bytes| bytes[30] ^= 1),
        ("a flipped bit of the numbers", &|bytes| bytes[length - 100] ^= 4),
        ("something else", &|bytes| *bytes = b"not a model at all".repeat(50)),
    ];
    for (what, change) in damages {
        damage(&kept, |bytes| {
            *bytes = whole.clone();
            change(bytes);
        });
        let again = load(&world, folder.path());
        assert!(!again.ready() && again.model_version().starts_with("item-graph-"), "{what}");
    }
    let again = load(&world, folder.path());
    assert!(again.refit().await && again.ready());
    assert_eq!(again.model_version(), version);
    // A store of other listeners has no use for the file, whether it is younger or older.
    let other = World::with(&fitting(folder.path()));
    assert!(!other.service.model_version().starts_with("blend-"));
    for n in 0..2 * PEOPLE {
        other.join(n + 1, &format!("other{n}"), &[&format!("Other {n}"), "Others"]).await;
        other.publish(user(n + 1), vec![settings(&["Nobody"], false)]).await;
    }
    let again = load(&other, folder.path());
    assert!(!again.ready() && !again.model_version().starts_with("blend-"));
}

#[tokio::test]
async fn whoever_is_erased_or_becomes_private_is_in_no_file_from_then_on() {
    let folder = tempfile::tempdir().expect("folder");
    let world = world(folder.path()).await;
    let candidate = folder.path().join("candidates/00000000000000000001.model");
    fs::create_dir(folder.path().join("candidates")).expect("made");
    for (leaving, payload) in [(user(3), Payload::UserErased), (user(4), settings(&[], true))] {
        assert!(world.service.refit().await);
        assert!(load(&world, folder.path()).ready() && !files(folder.path()).is_empty());
        fs::write(&candidate, "trained elsewhere").expect("written");
        world.publish(leaving, vec![payload]).await;
        assert!(files(folder.path()).is_empty() && !candidate.exists());
        assert!(!load(&world, folder.path()).ready());
    }
    // What follows is kept again, and settings that hide nobody remove nothing.
    assert!(world.service.refit().await);
    fs::write(&candidate, "trained elsewhere").expect("written");
    world.publish(user(4), vec![settings(&["Artist 1"], true)]).await;
    world.publish(user(5), vec![settings(&["Artist 1"], false)]).await;
    assert!(files(folder.path()).len() == 1 && candidate.exists());
    assert!(load(&world, folder.path()).ready());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_are_swapped_under_requests_and_none_is_lost() {
    let folder = tempfile::tempdir().expect("folder");
    let world = world(folder.path()).await;
    assert!(world.service.refit().await);
    let stop = Arc::new(AtomicBool::new(false));
    let ask = |n: u128| {
        let (service, stop) = (world.service.clone(), Arc::clone(&stop));
        async move {
            let mut versions = HashSet::new();
            while !stop.load(Ordering::Relaxed) {
                let list = service.recommend(&call(), &format!("user{n}"), &query(ItemKind::Artist, 10)).await;
                let list = list.expect("answered");
                assert!(!list.cold_start && list.items.len() == 10, "{list:?}");
                versions.insert(list.model_version);
                tokio::task::yield_now().await;
            }
            versions
        }
    };
    let asking: Vec<_> = (1..=64).map(|n| tokio::spawn(ask(n))).collect();
    for round in 1..=4 {
        world.publish(user(PEOPLE), vec![counted("Artist 1", round, "elsewhere")]).await;
        assert!(world.service.refit().await);
    }
    stop.store(true, Ordering::Relaxed);
    let mut versions = HashSet::new();
    for asked in asking {
        versions.extend(asked.await.expect("no request was lost"));
    }
    assert!(versions.len() > 1, "{versions:?}");
}
