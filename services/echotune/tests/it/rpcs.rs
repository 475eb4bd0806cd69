//! Every RPC of every service, over the wire: what the descriptors name and the edge has not seen is a
//! gap in this test.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use echotune::Connection;
use echotune_api::{Agents, RecommendQuery, UsersClient};
use echotune_kit::{auth::Token, edge::Credentials, telemetry};
use echotune_model::{
    ApiToken, Approval, Call, DeadLetterFilter, ErrorKind, ExperimentKind, ExperimentSpec, Feedback, Guardrail, Hlc,
    Impression, ItemId, ItemKind, LibraryEntry, Metric, NewPlaylist, NewRun, NewToken, PARTS, PageRequest,
    PastFeedback, Playlist, PlaylistId, PolicyChange, Profile, ReplayReceipt, Role, Settings, Signal, Tagging, TokenId,
    TraceId, Track, TrainingSpec, User, UserId, Variant, Verdict,
};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::time::{sleep, timeout};
use tonic::transport::Endpoint;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tracing::Instrument as _;

use crate::{connect, count, listen, recommend_after, record, spans, start};

/// Served by platforms of several regions only, and tried on two by the tests of users.
const SEVERAL_REGIONS: &str = "RegionsService";
/// What is served in clusters alone, by the operator.
const CLUSTERS: &str = "echotune.operator.v1";

/// Full names of all RPCs that one machine serves, as they stand in a request's path.
fn declared() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(echotune_api::FILE_DESCRIPTOR_SET).expect("descriptors");
    let services = set.file.iter().flat_map(|file| file.service.iter().map(move |service| (file.package(), service)));
    services
        .filter(|(package, service)| *package != CLUSTERS && service.name() != SEVERAL_REGIONS)
        .flat_map(|(package, service)| {
            service.method.iter().map(move |method| format!("{package}.{}/{}", service.name(), method.name()))
        })
        .collect()
}

async fn people(to: &Connection, secret: UsersClient, call: &Call) {
    let users = &to.users;
    let page = PageRequest::default();
    let track = Track { title: "Jóga".into(), artist: "Björk".into(), album: String::new() };
    assert_eq!(users.get_user(call, "ann").await.expect("read").name.as_str(), "ann");
    assert_eq!(users.list_users(call, &page).await.expect("listed").rows.len(), 2);
    let profile = Profile { display_name: "Ann".into(), ..Profile::default() };
    users.update_profile(call, "ann", profile.clone()).await.expect("set");
    assert_eq!(users.get_profile(call, "ann").await.expect("read"), profile);
    users.update_settings(call, "ann", Settings::default()).await.expect("set");
    assert_eq!(users.get_settings(call, "ann").await.expect("read"), Settings::default());
    let listens = futures::stream::iter([listen("Air", "Streamed", 99)]);
    assert_eq!(secret.record_listens_stream(call, "ann", listens).await.expect("streamed").recorded, 1);
    assert_eq!(users.list_listens(call, "ann", &page).await.expect("listed").rows.len(), 3);
    assert_eq!(users.set_play_counts(call, "ann", vec![count("Moby", 3)]).await.expect("set").recorded, 1);
    let tagging = Tagging { artist: "Björk".into(), tag: "iceland".into(), tagged_at_ms: 0 };
    assert_eq!(users.add_taggings(call, "ann", vec![tagging]).await.expect("tagged").recorded, 1);
    assert_eq!(users.add_friends(call, "ann", vec!["ben".into()]).await.expect("added").recorded, 1);
    assert_eq!(users.list_friends(call, "ann", &page).await.expect("listed").rows, ["ben"]);
    assert_eq!(users.add_to_library(call, "ann", vec![track.clone()]).await.expect("kept").recorded, 1);
    assert_eq!(users.list_library(call, "ann", &page).await.expect("listed").rows[0].track, track);
    assert!(users.remove_from_library(call, "ann", track.id()).await.expect("removed"));
    let content = NewPlaylist { title: "Morning".into(), description: String::new(), tracks: vec![track] };
    let playlist = users.create_playlist(call, "ann", content.clone()).await.expect("made").id;
    assert_eq!(users.get_playlist(call, playlist).await.expect("read").content, content);
    users.update_playlist(call, playlist, content).await.expect("changed");
    assert_eq!(users.list_playlists(call, "ann", &page).await.expect("listed").rows.len(), 1);
    assert!(users.delete_playlist(call, playlist).await.expect("deleted"));
    let token = NewToken { label: "test".into(), role: Role::Reader, expires_at_ms: 0 };
    let (token, secret) = users.create_token(call, "ann", token).await.expect("made");
    assert_eq!(users.list_tokens(call, "ann").await.expect("listed").len(), 1);
    users.authenticate(&secret).instrument(tracing::Span::current()).await.expect("known");
    assert!(users.revoke_token(call, "ann", token.id).await.expect("revoked"));
    assert!(!users.export_user(call, "ann", &page).await.expect("exported").rows.is_empty());
    assert_eq!(users.counts(call).await.expect("counted")["users"], 2);
    restored(to, call).await;
}

/// What comes from another platform.
async fn restored(to: &Connection, call: &Call) {
    let users = &to.users;
    let id = UserId::new(1_500_000_000_000);
    let cat = User { id, name: "cat".parse().expect("a name"), created_at_ms: 1_500_000_000_000 };
    assert!(users.restore_user(call, cat.clone()).await.expect("restored").1);
    assert_eq!(users.find_user(call, id).await.expect("found"), cat);
    let track = Track { title: "Jóga".into(), artist: "Björk".into(), album: String::new() };
    let entry = LibraryEntry { track: track.clone(), added_at_ms: 1_500_000_000_001 };
    assert_eq!(users.restore_library(call, "cat", vec![entry]).await.expect("kept").recorded, 1);
    let content = NewPlaylist { title: "Rain".into(), description: String::new(), tracks: vec![track] };
    let (id, changed_at) = (PlaylistId::new(1_500_000_000_002), Hlc::from_ms(1_500_000_000_002));
    let playlist = Playlist { id, owner: cat.id, content, created_at_ms: 1_500_000_000_002, changed_at };
    assert!(users.restore_playlist(call, "cat", playlist).await.expect("made"));
    let (id, label) = (TokenId::new(1_500_000_000_003), "cli".to_owned());
    let token = ApiToken { id, label, role: Role::Reader, created_at_ms: 1_500_000_000_003, expires_at_ms: 0 };
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g";
    assert!(users.restore_token(call, "cat", token, hash).await.expect("made"));
    users.erase_user(call, "cat").await.expect("erased");
}

async fn lists(to: &Connection, call: &Call) {
    let recommendations = &to.recommendations;
    let query = RecommendQuery { kind: ItemKind::Artist, limit: 5, include_known: true };
    let (air, bjork) = (ItemId::artist("Air"), ItemId::artist("Björk"));
    let list = recommendations.recommend(call, "ann", &query).await.expect("recommended");
    recommendations.explain(call, "ann", bjork).await.expect("explained");
    recommendations.what_if(call, "ann", &[air], &query).await.expect("answered");
    recommendations.similar(call, bjork, 5).await.expect("found");
    recommendations.trending(call, ItemKind::Artist, 5).await.expect("found");
    assert!(!recommendations.top_items(call, "ann", ItemKind::Artist, 5).await.expect("listed").is_empty());
    assert_eq!(recommendations.find_items(call, ItemKind::Artist, "bjork", 5).await.expect("found").len(), 1);
    assert_eq!(recommendations.get_item(call, bjork).await.expect("read").artist, "Björk");
    let impression = Impression { trace: call.trace, model_version: list.model_version, items: vec![bjork] };
    recommendations.record_impression(call, "ann", impression).await.expect("noted");
    let feedback = Feedback { item: bjork, signal: Signal::Played, trace: call.trace };
    recommendations.record_feedback(call, "ann", feedback).await.expect("noted");
    recommendations.acceptance(call).await.expect("summed");
    let feedback = Feedback { item: air, signal: Signal::Skipped, trace: TraceId::default() };
    let past = PastFeedback { feedback, title: String::new(), artist: "Air".into(), said_at_ms: 1_500_000_000_000 };
    recommendations.restore_feedback(call, "ann", past).await.expect("noted");
    let page = PageRequest::default();
    assert_eq!(recommendations.export_user(call, "ann", &page).await.expect("exported").rows.len(), 3);
    assert!(recommendations.counts(call).await.expect("counted")["artists"] > 0);
}

async fn experiments(to: &Connection, call: &Call) {
    let experiments = &to.experiments;
    let variant = |name: &str, change| Variant { name: name.into(), weight: PARTS / 2, change };
    let other = PolicyChange { trending_weight: Some(0.5), ..PolicyChange::default() };
    let spec = ExperimentSpec {
        name: "popular".into(),
        hypothesis: "what is popular is liked".into(),
        kind: ExperimentKind::Split,
        variants: vec![variant("control", PolicyChange::default()), variant("other", other)],
        share: PARTS,
        primary: Metric::Acceptance,
        guardrails: vec![Guardrail { metric: Metric::SlowLists, margin: 0.01 }],
        alpha: 0.05,
        min_listeners: 10,
        max_listeners: 100,
        min_duration_ms: 0,
        max_duration_ms: 0,
        slow_list_ms: 100,
        window_ms: 0,
        auto_stop: true,
    };
    assert_eq!(experiments.create_experiment(call, spec.clone()).await.expect("begun").spec, spec);
    assert_eq!(experiments.list_experiments(call).await.expect("listed").len(), 1);
    let query = RecommendQuery { kind: ItemKind::Artist, limit: 5, include_known: true };
    let list = to.recommendations.recommend(call, "ann", &query).await.expect("recommended");
    assert_eq!(list.exposure.expect("takes part").experiment, "popular");
    let (_, evidence) = experiments.get_experiment(call, "popular").await.expect("read");
    assert_eq!(evidence.arms.iter().map(|arm| arm.lists).sum::<u64>(), 1);
    let (stopped, _) = experiments.stop_experiment(call, "popular", "seen enough").await.expect("stopped");
    assert_eq!(stopped.decision.expect("decided").verdict, Verdict::Stopped);
}

/// What was heard, counted and streamed is in the histories as soon as its events have arrived.
async fn exported(to: &Connection, call: &Call) {
    let all = async {
        loop {
            let histories = to.training.export_histories(call, Some("ann")).await.expect("exported");
            if (histories.listeners, histories.rows) == (1, 6) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), all).await.expect("one listener with six rows");
}

async fn models(to: &Connection, call: &Call) {
    let models = &to.models;
    let few = models.train(call, TrainingSpec::default()).await.expect_err("two listeners");
    assert_eq!(few.kind, ErrorKind::FailedPrecondition);
    let (releases, decisions) = models.releases(call).await.expect("listed");
    assert_eq!((releases.len(), decisions.len()), (1, 0));
    let serving = &releases[0];
    assert_eq!(models.release(call, "").await.expect("read").0, *serving);
    assert!(models.promote(call, &serving.version, false, "").await.expect_err("serves").message.contains("already"));
    assert_eq!(models.promote(call, "none", true, "why").await.expect_err("unknown").kind, ErrorKind::NotFound);
    let nothing = models.rollback(call, "", "").await.expect_err("nothing served before");
    assert_eq!(nothing.kind, ErrorKind::FailedPrecondition);
    assert_eq!(models.job(call, 0).await.expect_err("no job").kind, ErrorKind::NotFound);
    assert_eq!(models.cancel_job(call, 1).await.expect_err("no job").kind, ErrorKind::NotFound);
    assert!(models.card(call, ItemKind::Artist).await.expect("a card").contains("blend.ease"));
    // There is nothing to export before the first fit.
    let exported = loop {
        match models.export(call, ItemKind::Artist).await {
            Err(early) if early.kind == ErrorKind::FailedPrecondition => tokio::task::yield_now().await,
            done => break done.expect("exported"),
        }
    };
    assert!(exported.len() > 100);
    let drift = models.drift(call).await.expect("measured");
    assert!(drift.iter().any(|one| one.feature == "popularity" && one.kind == "artist"), "{drift:?}");
}

async fn runs(agents: &Arc<dyn Agents>, call: &Call) {
    let names = agents.list_workflows(call).await.expect("listed");
    assert!(names.iter().any(|one| one.name == "listening-report"), "{names:?}");
    let new = NewRun { workflow: "listening-report".into(), user: "ann".into(), input: String::new() };
    let run = agents.start_run(call, new).await.expect("started").id;
    let mut seen = 0;
    while let Some(last) = agents.watch_run(call, run, seen).await.expect("watched").last() {
        seen = last.sequence;
    }
    let ended = agents.get_run(call, run).await.expect("read");
    assert!(ended.state.is_final() && ended.message.is_empty(), "{ended:?}");
    assert_eq!(agents.list_runs(call, "ann", &PageRequest::default()).await.expect("listed").rows.len(), 1);
    let refused = agents.cancel_run(call, run).await.expect_err("it has ended");
    assert_eq!(refused.kind, ErrorKind::FailedPrecondition);
    let approval = Approval { step: "nothing".into(), approved: true, comment: String::new() };
    let refused = agents.decide(call, run, approval).await.expect_err("it does not wait");
    assert_eq!(refused.kind, ErrorKind::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_is_exercised_and_the_services_say_that_they_serve() {
    let held = spans();
    let folder = tempfile::tempdir().expect("folder");
    let serving = start(folder.path(), held.clone()).await;
    let to = connect(folder.path(), &serving).await;
    let channel = Endpoint::from_shared(format!("http://{}", serving.address)).expect("endpoint").connect().await;
    let channel = channel.expect("connected");
    let token = Token::read(folder.path()).expect("token");
    let streamed = UsersClient::new(channel.clone(), Credentials { token });

    let root = tracing::info_span!(target: "echotune", "every rpc");
    let trace = telemetry::trace_of(&root);
    let call = Call { trace, traceparent: telemetry::traceparent_of(&root), ..Call::internal() };
    async {
        record(&to, "ben", &["Björk", "Moby"]).await;
        let receipt = record(&to, "ann", &["Air", "Björk"]).await;
        recommend_after(&to, "ann", &receipt, |_| true).await;
        people(&to, streamed, &call).await;
        lists(&to, &call).await;
        experiments(&to, &call).await;
        exported(&to, &call).await;
        models(&to, &call).await;
        let filter = DeadLetterFilter::default();
        assert!(to.dead_letters.list_dead_letters(&call, &filter, 10).await.expect("listed").is_empty());
        let limit = to.dead_letters.list_dead_letters(&call, &filter, 10_001).await.expect_err("too many");
        assert_eq!(limit.kind, ErrorKind::InvalidArgument);
        let receipt = to.dead_letters.replay_dead_letters(&call, &filter, true).await.expect("asked");
        assert_eq!(receipt, ReplayReceipt::default());
        runs(to.agents.as_ref().expect("agents"), &call).await;
        let status = to.operations.status(&call).await.expect("status");
        assert_eq!(status.addresses["grpc"], serving.address.to_string());
        assert_eq!(status.counts["runs"], 1, "{status:?}");
        to.operations.trace(&call, trace).await.expect("the trace so far");
        to.users.erase_user(&call, "ben").await.expect("erased");
    }
    .instrument(root)
    .await;

    let missing = || {
        let seen: BTreeSet<String> = held.trace(trace).into_iter().map(|span| span.name).collect();
        declared().into_iter().filter(|rpc| !seen.contains(rpc)).collect::<Vec<_>>()
    };
    // A span may end after its answer has gone out.
    let ended = async {
        while !missing().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let ended = timeout(Duration::from_secs(60), ended).await;
    assert!(ended.is_ok(), "not exercised: {:?}", missing());

    let mut health = HealthClient::new(channel);
    let services: BTreeSet<String> =
        declared().iter().filter_map(|rpc| Some(rpc.split_once('/')?.0.to_owned())).collect();
    for service in services.into_iter().chain([String::new()]) {
        let status = health.check(HealthCheckRequest { service: service.clone() }).await.expect(&service);
        assert_eq!(status.into_inner().status(), ServingStatus::Serving, "{service}");
    }
    serving.stop().await.expect("stopped");
}
