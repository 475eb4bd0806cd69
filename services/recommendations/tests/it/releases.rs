//! Releases from a training to a rollback.

use std::time::Duration;

use echotune_api::{Models, Recommendations as _, events::Payload};
use echotune_model::{
    ErrorKind, Fault, GateOutcome, ItemKind, ModelJob, ModelJobState, PlayCount, Release, ReleaseAction, ReleaseState,
    TrainingSpec,
};
use echotune_recommendations::{EmbeddedRecommendationStore, Fitting, Policy, RecommendationsService, ReleaseLimits};

use crate::world::{World, call, call_of, query, user};

pub(crate) const LISTENERS: u128 = 120;

/// Listeners of four tastes, each with a dozen of the sixteen artists of one.
pub(crate) async fn crowd(count: u128) -> World {
    let world = World::new();
    let of = |n: u128| {
        let name = format!("user{n}").parse().expect("a name");
        let artist = |step: u128| format!("artist {}", (n % 4) * 16 + (n * 5 + step * step) % 16);
        let artists: std::collections::BTreeSet<String> = (0..24).map(artist).chain(["all".to_owned()]).collect();
        let count = |artist: String| PlayCount { artist, plays: 3, source: "x".into() };
        let counts = artists.into_iter().chain((0..8).map(|step| format!("artist {}", (n * 7 + step * 3) % 64)));
        let counts: std::collections::BTreeMap<String, PlayCount> =
            counts.map(|artist| (artist.clone(), count(artist))).collect();
        let counts = counts.into_values().collect();
        [(user(n), Payload::UserCreated { name }), (user(n), Payload::PlayCountsSet { counts })]
    };
    world.publish_all((1..=count).flat_map(of).collect()).await;
    world.service.refit().await;
    world
}

fn one_trial(options: &[(&str, f64)]) -> TrainingSpec {
    let options = options.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    TrainingSpec { budget_ms: 0, max_trials: 1, options, seed: 1 }
}

pub(crate) async fn ended(service: &dyn Models, begun: Result<ModelJob, Fault>) -> ModelJob {
    let mut job = begun.expect("begun");
    while job.state == ModelJobState::Running {
        tokio::time::sleep(Duration::from_millis(5)).await;
        job = service.job(&call(), job.id).await.expect("known");
    }
    job
}

/// A candidate by options that are given.
pub(crate) async fn candidate(service: &dyn Models, options: &[(&str, f64)]) -> String {
    let job = ended(service, service.train(&call(), one_trial(options)).await).await;
    assert_eq!(job.state, ModelJobState::Done, "{job:?}");
    job.version
}

fn states(releases: &[Release]) -> Vec<(&str, ReleaseState)> {
    releases.iter().map(|one| (one.version.as_str(), one.state)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_is_promoted_serves_after_a_restart_and_is_rolled_back() {
    let world = crowd(LISTENERS).await;
    let service = &world.service;
    let plain = world.list("user1").await;
    assert!(plain.model_version.starts_with("blend-") && plain.model_version.matches('-').count() == 1);
    let (releases, decisions) = service.releases(&call()).await.expect("listed");
    assert_eq!((states(&releases)[0].1, releases.len(), decisions.len()), (ReleaseState::Serving, 1, 0));
    let built_in = releases[0].version.clone();

    let version = candidate(service, &[("trending.weight", 0.5), ("blend.filter", 0.5)]).await;
    let (release, decisions) = service.release(&call(), &version).await.expect("kept");
    assert!(release.recipe.contains("blend.filter=0.5\n") && release.recipe.contains("trending.weight=0.5\n"));
    let training = release.training.expect("trained");
    assert_eq!((training.trials, training.listeners, training.compared_with), (1, 120, built_in.clone()));
    assert_eq!((training.measures[0].metric.as_str(), training.measures[0].listeners), ("ndcg@10 of artists", 120));
    assert!(decisions.is_empty());
    assert_eq!(world.list("user1").await, plain_again(&plain, &world.list("user1").await), "a candidate serves nobody");

    let reason = "to try it";
    let job = ended(service, service.promote(&call(), &version, true, reason).await).await;
    assert_eq!(job.state, ModelJobState::Done, "{job:?}");
    let list = world.list("user1").await;
    assert_eq!(list.model_version, format!("{}-{version}", plain.model_version));
    let popular = |list: &echotune_model::Recommendations| {
        let reasons = list.items.iter().flat_map(|item| &item.reasons);
        reasons.filter(|one| one.of == "all listeners").map(|one| one.contribution).fold(0.0, f64::max)
    };
    assert!(popular(&plain) < 0.01 && popular(&list) > 0.1, "the weight of popularity is the release's");
    let (releases, decisions) = service.releases(&call()).await.expect("listed");
    let expected = [(version.as_str(), ReleaseState::Serving), (built_in.as_str(), ReleaseState::Retired)];
    assert_eq!(states(&releases), expected);
    let decision = &decisions[0];
    assert_eq!((decision.action, decision.version.as_str()), (ReleaseAction::Promote, version.as_str()));
    assert_eq!((decision.replaced.as_str(), decision.by.as_str()), (built_in.as_str(), "operator"));
    assert_eq!(decision.reason, reason);
    let gates: Vec<_> = decision.gates.iter().map(|gate| gate.gate.as_str()).collect();
    assert_eq!(gates, ["ndcg@10 of artists", "impressions", "latency p99"]);
    assert_eq!(decision.gates[1].outcome, GateOutcome::Waived);
    assert_eq!(decision.forced, decision.gates.iter().any(|gate| !gate.outcome.lets_pass()));

    let again = RecommendationsService::load(EmbeddedRecommendationStore::new(world.db.clone())).expect("loaded");
    again.refit().await;
    let same = again.recommend(&call(), "user1", &query(ItemKind::Artist, 50)).await.expect("recommended");
    assert_eq!((&same.model_version, &same.items), (&list.model_version, &list.items), "a restart keeps what serves");

    let refused = service.promote(&call(), &version, false, "").await.expect_err("it serves");
    assert!(refused.message.contains("serves already"), "{refused}");
    let job = ended(service, service.rollback(&call(), "", "enough").await).await;
    assert_eq!((job.state, job.version.as_str()), (ModelJobState::Done, built_in.as_str()), "{job:?}");
    let back = world.list("user1").await;
    assert_eq!((&back.model_version, &back.items), (&plain.model_version, &plain.items));
    let nothing = service.rollback(&call(), "", "").await.expect_err("nothing before");
    assert_eq!(nothing.kind, ErrorKind::FailedPrecondition);
    let job = ended(service, service.rollback(&call(), &version, "after all").await).await;
    assert_eq!(job.state, ModelJobState::Done);
    let (_, decisions) = service.releases(&call()).await.expect("listed");
    let actions: Vec<_> = decisions.iter().map(|one| one.action).collect();
    assert_eq!(actions, [ReleaseAction::Rollback, ReleaseAction::Rollback, ReleaseAction::Promote]);
}

/// A list as it was, with the trace of another.
fn plain_again(
    before: &echotune_model::Recommendations,
    now: &echotune_model::Recommendations,
) -> echotune_model::Recommendations {
    echotune_model::Recommendations { trace: now.trace, ..before.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_does_not_hold_refuses_and_an_operator_overrules_with_a_reason() {
    let world = crowd(LISTENERS).await;
    let limits = ReleaseLimits { latency_p99_ms: 1e-9, ..ReleaseLimits::default() };
    let store = EmbeddedRecommendationStore::new(world.db.clone());
    let service =
        RecommendationsService::load_with(store, Policy::default(), limits, &Fitting::default()).expect("loaded");
    service.refit().await;
    let version = candidate(&service, &[("blend.filter", 0.5)]).await;
    let job = ended(&service, service.promote(&call(), &version, false, "").await).await;
    assert_eq!(job.state, ModelJobState::Failed);
    assert!(job.message.contains("latency p99") && job.message.contains("--force"), "{}", job.message);
    let (release, decisions) = service.release(&call(), &version).await.expect("kept");
    assert_eq!((release.state, decisions[0].action), (ReleaseState::Refused, ReleaseAction::Refuse));
    let latency = decisions[0].gates.last().expect("a gate");
    assert_eq!((latency.outcome, latency.bound), (GateOutcome::Failed, Some(1e-9)));
    assert!(latency.measured.is_some_and(|ms| ms > 1e-9) && latency.reason.contains("of 1000 lists"), "{latency:?}");
    assert!(!service.model_version().contains(&version));
    let refused = service.promote(&call(), &version, true, " ").await.expect_err("without a reason");
    assert_eq!(refused.kind, ErrorKind::InvalidArgument);
    let job = ended(&service, service.promote(&call(), &version, true, "a slow machine").await).await;
    assert_eq!(job.state, ModelJobState::Done, "{job:?}");
    let (release, decisions) = service.release(&call(), "").await.expect("serves");
    assert_eq!((release.version.as_str(), release.state), (version.as_str(), ReleaseState::Serving));
    assert!(decisions[0].forced && decisions[0].reason == "a slow machine");
    assert!(service.model_version().ends_with(&version));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_keeps_to_its_budget_is_cancelled_and_runs_alone() {
    let world = crowd(LISTENERS).await;
    let service = &world.service;
    let spec = TrainingSpec { budget_ms: 3_600_000, max_trials: 3, ..TrainingSpec::default() };
    let job = ended(service, service.train(&call(), spec).await).await;
    assert_eq!(job.state, ModelJobState::Done, "{job:?}");
    assert!(job.message.contains("3 recipes"), "{}", job.message);
    let spec = TrainingSpec { budget_ms: 1, ..TrainingSpec::default() };
    let job = ended(service, service.train(&call(), spec).await).await;
    assert!(job.message.contains("among 1 recipes"), "{}", job.message);
    let begun = service.train(&call(), TrainingSpec { budget_ms: 3_600_000, ..TrainingSpec::default() }).await;
    let second = service.train(&call(), TrainingSpec::default()).await.expect_err("one runs");
    assert!(second.message.contains("(train) runs"), "{second}");
    service.cancel_job(&call(), 0).await.expect("cancelled");
    let job = ended(service, begun).await;
    assert_eq!((job.state, job.version.as_str()), (ModelJobState::Cancelled, ""));
    let begun = service.train(&call(), TrainingSpec { budget_ms: 3_600_000, ..TrainingSpec::default() }).await;
    service.end_jobs().await;
    assert_eq!(service.job(&call(), begun.expect("begun").id).await.expect("known").state, ModelJobState::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_search_finds_what_serves_better_on_the_platforms_own_histories() {
    let world = crowd(LISTENERS).await;
    // However busy the machine is.
    let limits = ReleaseLimits { latency_p99_ms: 60_000.0, latency_ratio: 1e6, ..ReleaseLimits::default() };
    let store = EmbeddedRecommendationStore::new(world.db.clone());
    let service =
        &RecommendationsService::load_with(store, Policy::default(), limits, &Fitting::default()).expect("loaded");
    service.refit().await;
    // Popularity alone is what serves: nearly anything is better.
    let version = candidate(service, &[("trending.weight", 1.0), ("blend.filter", 0.0), ("blend.ease", 0.0)]).await;
    let job = ended(service, service.promote(&call(), &version, true, "to have something to beat").await).await;
    assert_eq!(job.state, ModelJobState::Done, "{job:?}");
    let spec = TrainingSpec { budget_ms: 3_600_000, max_trials: 8, ..TrainingSpec::default() };
    let job = ended(service, service.train(&call(), spec).await).await;
    let (found, _) = service.release(&call(), &job.version).await.expect("found");
    let measure = &found.training.expect("trained").measures[0];
    assert!(measure.candidate > measure.serving && measure.low > 0.0, "{measure:?}");
    let job = ended(service, service.promote(&call(), &found.version, false, "").await).await;
    assert_eq!(job.state, ModelJobState::Done, "{job:?}");
    assert!(service.model_version().ends_with(&found.version));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_data_wrong_options_and_others_than_the_operator_are_refused() {
    let world = crowd(20).await;
    let service = &world.service;
    let few = service.train(&call(), TrainingSpec::default()).await.expect_err("too few");
    assert_eq!(few.kind, ErrorKind::FailedPrecondition);
    assert!(few.message.contains("20 listeners") && few.message.contains("100 are needed"), "{few}");
    let wrong = service.train(&call(), one_trial(&[("blend.eas", 1.0)])).await.expect_err("no option");
    assert!(wrong.message.contains("no option is named 'blend.eas'"), "{wrong}");
    let long = TrainingSpec { budget_ms: u64::MAX, ..TrainingSpec::default() };
    assert_eq!(service.train(&call(), long).await.expect_err("too long").kind, ErrorKind::InvalidArgument);
    assert_eq!(service.release(&call(), "none").await.expect_err("unknown").kind, ErrorKind::NotFound);
    assert_eq!(service.promote(&call(), "none", false, "").await.expect_err("unknown").kind, ErrorKind::NotFound);
    assert_eq!(service.job(&call(), 0).await.expect_err("none").kind, ErrorKind::NotFound);
    let listener = call_of(1, "user1");
    let denied = [
        service.train(&listener, TrainingSpec::default()).await.map(drop),
        service.promote(&listener, "none", false, "").await.map(drop),
        service.rollback(&listener, "", "").await.map(drop),
        service.job(&listener, 0).await.map(drop),
        service.cancel_job(&listener, 0).await.map(drop),
        service.releases(&listener).await.map(drop),
        service.release(&listener, "").await.map(drop),
        service.card(&listener, ItemKind::Artist).await.map(drop),
        service.export(&listener, ItemKind::Artist).await.map(drop),
        service.drift(&listener).await.map(drop),
    ];
    assert!(denied.into_iter().all(|answer| answer.is_err_and(|fault| fault.kind == ErrorKind::PermissionDenied)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_card_and_the_export_tell_of_the_model_that_serves() {
    let world = crowd(LISTENERS).await;
    let service = &world.service;
    let card = service.card(&call(), ItemKind::Artist).await.expect("a card");
    assert!(card.contains(&service.model_version()) && card.contains("| blend.filter | 0.35 |"), "{card}");
    assert!(card.contains("| Listeners | 120 |"), "{card}");
    let onnx = service.export(&call(), ItemKind::Artist).await.expect("exported");
    // 65 artists, every pair of them a number of four bytes.
    assert!(onnx.len() > 65 * 65 * 4 && onnx.windows(8).any(|bytes| bytes == b"echotune"));
    let none = service.export(&call(), ItemKind::Track).await.expect_err("no tracks");
    assert_eq!(none.kind, ErrorKind::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_shows_whom_lists_are_made_for_and_forgets_the_private_and_the_erased() {
    let world = crowd(LISTENERS).await;
    let service = &world.service;
    assert!(service.drift(&call()).await.expect("measured").is_empty());
    let index = async |feature: &str| {
        let all = service.drift(&call()).await.expect("measured");
        let one = all.into_iter().find(|one| one.feature == feature && one.kind == "artist").expect("measured");
        (one.index + one.divergence, one.shift, one.served)
    };
    // Everybody alike, and then one taste alone.
    for n in 1..=LISTENERS {
        world.list(&format!("user{n}")).await;
    }
    let (alike, shift, served) = index("popularity").await;
    assert_eq!((shift.as_str(), served), ("little", 120), "{alike}");
    assert_eq!(index("score").await.1, "little");
    assert_eq!(index("new_items").await.0, 0.0);
    for _ in 0..10 {
        for n in (4..=LISTENERS).step_by(4) {
            world.list(&format!("user{n}")).await;
        }
    }
    let (apart, ..) = index("popularity").await;
    assert!(apart > alike + 0.02, "{apart} {alike}");
    let counts = |artist: &str| PlayCount { artist: artist.into(), plays: 1, source: "y".into() };
    let news = (0..40).map(|n| counts(&format!("news {n}"))).collect();
    world.publish(user(4), vec![Payload::PlayCountsSet { counts: news }]).await;
    let (new_items, ..) = index("new_items").await;
    assert!(new_items > 0.01, "{new_items}");
    let (.., before) = index("popularity").await;
    world.publish(user(4), vec![Payload::UserErased]).await;
    world.publish(user(8), vec![crate::world::settings(&[], true)]).await;
    assert_eq!(index("popularity").await.2, before - 22, "eleven lists of each");
    assert_eq!(index("new_items").await.0, 0.0);
}
