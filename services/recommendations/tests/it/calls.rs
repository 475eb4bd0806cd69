use std::time::{Duration, Instant};

use echotune_api::{RecommendQuery, Recommendations};
use echotune_model::{
    Call, ErrorKind, Fault, Feedback, Impression, ItemId, ItemKind, PageRequest, Principal, Role, Signal, TraceId,
};

use crate::world::{World, artists, assert_sums, call, query, tagged, user};

async fn world() -> World {
    let world = World::new();
    world.join(1, "ann", &["Björk", "Portishead", "Radiohead"]).await;
    world.join(2, "ben", &["Portishead", "Massive Attack"]).await;
    world.join(3, "cat", &["Portishead"]).await;
    world.publish(user(1), vec![tagged("Björk", "art pop")]).await;
    world.service.refit().await;
    world
}

#[tokio::test]
async fn the_object_serves_every_call() {
    let world = world().await;
    every_call(&world.service).await;
}

#[tokio::test]
async fn the_client_serves_every_call() {
    let world = world().await;
    every_call(&world.remote().await).await;
}

async fn every_call(api: &dyn Recommendations) {
    reads(api).await;
    feedback(api).await;
    export(api).await;
    refusals(api).await;
}

async fn reads(api: &dyn Recommendations) {
    let bjork = ItemId::artist("Björk");
    let item = api.get_item(&call(), bjork).await.expect("item");
    assert_eq!((item.artist.as_str(), item.listeners, item.tags.as_slice()), ("Björk", 1, &["art pop".to_owned()][..]));
    let found = api.find_items(&call(), ItemKind::Track, "SONG OF bjork", 5).await.expect("found");
    assert_eq!((found.len(), found[0].title.as_str()), (1, "Song of Björk"));
    let found = api.find_items(&call(), ItemKind::Artist, "d", 1).await.expect("found");
    assert_eq!(found[0].artist, "Portishead", "the most listened first");
    let trending = api.trending(&call(), ItemKind::Artist, 2).await.expect("trending");
    assert_eq!((trending.len(), trending[0].item.artist.as_str(), trending[0].score), (2, "Portishead", 1.0));
    let near = api.similar(&call(), bjork, 10).await.expect("similar");
    assert!(near.iter().all(|one| (0.0..=1.0).contains(&one.score) && one.item.id != bjork));
    assert_eq!(near.iter().map(|one| one.item.artist.as_str()).collect::<Vec<_>>().len(), 2);
    let top = api.top_items(&call(), "ann", ItemKind::Track, 2).await.expect("top");
    assert_eq!((top.len(), top[0].1), (2, 1));
    let list = api.recommend(&call(), "cat", &query(ItemKind::Artist, 10)).await.expect("list");
    assert_sums(&list);
    assert_eq!(artists(&list).len(), 3);
    let whole = RecommendQuery { include_known: true, ..query(ItemKind::Artist, 10) };
    let whole = api.recommend(&call(), "cat", &whole).await.expect("list");
    assert!(artists(&whole).contains(&"Portishead") && !artists(&list).contains(&"Portishead"));
    let told = api.explain(&call(), "cat", list.items[0].id).await.expect("explained");
    assert_eq!((told.items[0].score, told.items[0].rank), (list.items[0].score, 1));
    let without = [ItemId::artist("Portishead")];
    let imagined = api.what_if(&call(), "cat", &without, &query(ItemKind::Artist, 10)).await.expect("list");
    assert!(imagined.cold_start && artists(&imagined).contains(&"Portishead"));
    let counts = api.counts(&call()).await.expect("counts");
    assert_eq!((counts["artists"], counts["tracks"], counts["items"]), (4, 4, 8));
}

async fn feedback(api: &dyn Recommendations) {
    let list = api.recommend(&call(), "cat", &query(ItemKind::Artist, 10)).await.expect("list");
    let shown: Vec<ItemId> = list.items.iter().map(|item| item.id).collect();
    let version = list.model_version.clone();
    let impression = Impression { trace: TraceId(7), model_version: version.clone(), items: shown.clone() };
    for _ in 0..2 {
        api.record_impression(&call(), "cat", impression.clone()).await.expect("noted");
    }
    let say = |item, signal| Feedback { item, signal, trace: TraceId(7) };
    api.record_feedback(&call(), "cat", say(shown[0], Signal::Disliked)).await.expect("noted");
    api.record_feedback(&call(), "cat", say(shown[1], Signal::Liked)).await.expect("noted");
    let next = api.recommend(&call(), "cat", &query(ItemKind::Artist, 10)).await.expect("list");
    assert_eq!(next.items.iter().map(|item| item.id).collect::<Vec<_>>(), shown[2..], "neither is listed again");
    let acceptance = api.acceptance(&call()).await.expect("acceptance");
    assert_eq!(acceptance.len(), 1);
    let one = &acceptance[0];
    assert_eq!((&one.model_version, one.impressions, one.items, one.accepted, one.refused), (&version, 1, 3, 1, 1));
    let counts = api.counts(&call()).await.expect("counts");
    assert_eq!((counts["impressions"], counts["feedback"]), (1, 2));
}

/// What [`feedback`] left behind, whole and one record at a time.
async fn export(api: &dyn Recommendations) {
    let whole = api.export_user(&call(), "cat", &PageRequest::default()).await.expect("exported");
    let kinds: Vec<&str> = whole.rows.iter().map(|one| one.kind.as_str()).collect();
    assert_eq!((kinds.as_slice(), whole.next.as_str()), (&["impression", "feedback", "feedback"][..], ""));
    let json = |at: usize| -> serde_json::Value { serde_json::from_str(&whole.rows[at].json).expect("JSON") };
    let (shown, said) = (json(0), [json(1), json(2)]);
    assert_eq!(shown["trace_id"], format!("{:032x}", 7));
    let signals: Vec<&str> =
        shown["items"].as_array().expect("items").iter().filter_map(|item| item["signal"].as_str()).collect();
    assert_eq!(signals, ["disliked", "liked"]);
    for said in said {
        let shown = shown["items"].as_array().expect("items");
        assert!(shown.iter().any(|item| item["item_id"] == said["item_id"] && item["signal"] == said["signal"]));
        let id = said["item_id"].as_str().expect("an id");
        assert_eq!(ItemId::artist(said["artist"].as_str().expect("a name")).to_string(), id);
    }
    let (mut token, mut rows) = (String::new(), Vec::new());
    while rows.len() < 3 {
        let page = api.export_user(&call(), "cat", &PageRequest { size: 1, token }).await.expect("exported");
        assert_eq!((page.rows.len(), page.next.is_empty()), (1, rows.len() == 2));
        rows.extend(page.rows);
        token = page.next;
    }
    assert_eq!(rows, whole.rows);
    assert!(api.export_user(&call(), "ann", &PageRequest::default()).await.expect("exported").rows.is_empty());
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Fault>, kind: ErrorKind, naming: &str) {
    let fault = answer.expect_err("refused");
    assert_eq!(fault.kind, kind, "{fault}");
    assert!(fault.message.contains(naming), "{fault}");
}

async fn refusals(api: &dyn Recommendations) {
    use ErrorKind::{DeadlineExceeded, InvalidArgument, NotFound};
    let nothing = ItemId::artist("Nobody Knows");
    let named = nothing.to_string();
    for limit in [0, 501] {
        let wrong = format!("limit is {limit}");
        let wanted = query(ItemKind::Artist, limit);
        refused(api.recommend(&call(), "cat", &wanted).await, InvalidArgument, &wrong);
        refused(api.what_if(&call(), "cat", &[nothing], &wanted).await, InvalidArgument, &wrong);
        refused(api.similar(&call(), ItemId::artist("Björk"), limit).await, InvalidArgument, &wrong);
        refused(api.trending(&call(), ItemKind::Track, limit).await, InvalidArgument, &wrong);
        refused(api.top_items(&call(), "cat", ItemKind::Track, limit).await, InvalidArgument, &wrong);
        refused(api.find_items(&call(), ItemKind::Track, "a", limit).await, InvalidArgument, &wrong);
    }
    let wanted = query(ItemKind::Artist, 5);
    refused(api.recommend(&call(), "nobody", &wanted).await, NotFound, "nobody");
    refused(api.explain(&call(), "cat", nothing).await, NotFound, &named);
    refused(api.what_if(&call(), "cat", &[nothing], &wanted).await, NotFound, &named);
    refused(api.what_if(&call(), "cat", &[], &wanted).await, InvalidArgument, "without");
    refused(api.what_if(&call(), "cat", &vec![nothing; 1_001], &wanted).await, InvalidArgument, "1001");
    refused(api.similar(&call(), nothing, 5).await, NotFound, &named);
    refused(api.get_item(&call(), nothing).await, NotFound, &named);
    refused(api.find_items(&call(), ItemKind::Artist, " ", 5).await, InvalidArgument, "text");
    refused(api.find_items(&call(), ItemKind::Artist, &"x".repeat(257), 5).await, InvalidArgument, "257");
    let said = Feedback { item: nothing, signal: Signal::Liked, trace: TraceId::default() };
    refused(api.record_feedback(&call(), "cat", said).await, NotFound, &named);
    let shown = Impression { trace: TraceId::default(), model_version: "m".into(), items: vec![nothing] };
    refused(api.record_impression(&call(), "cat", shown).await, InvalidArgument, "trace_id");
    let page = |size, token: &str| PageRequest { size, token: token.into() };
    refused(api.export_user(&call(), "nobody", &page(5, "")).await, NotFound, "nobody");
    refused(api.export_user(&call(), "cat", &page(1_001, "")).await, InvalidArgument, "1001");
    refused(api.export_user(&call(), "cat", &page(5, "odd")).await, InvalidArgument, "page token");
    let late = Call { deadline: Instant::now().checked_sub(Duration::from_millis(1)), ..call() };
    refused(api.recommend(&late, "cat", &wanted).await, DeadlineExceeded, "deadline");
}

#[tokio::test]
async fn a_token_opens_its_owner_only_and_a_reader_writes_nothing() {
    let world = world().await;
    let name = "cat".parse().expect("a name");
    let reader = Call { principal: Principal::User { id: user(3), name, role: Role::Reader }, ..call() };
    let wanted = query(ItemKind::Artist, 5);
    assert!(world.service.recommend(&reader, "cat", &wanted).await.is_ok());
    refused(world.service.recommend(&reader, "ann", &wanted).await, ErrorKind::PermissionDenied, "ann");
    let said = Feedback { item: ItemId::artist("Björk"), signal: Signal::Liked, trace: TraceId::default() };
    refused(world.service.record_feedback(&reader, "cat", said).await, ErrorKind::PermissionDenied, "writer");
    let page = PageRequest::default();
    refused(world.service.export_user(&reader, "ann", &page).await, ErrorKind::PermissionDenied, "ann");
    assert!(world.service.export_user(&reader, "cat", &page).await.is_ok());
    refused(world.service.acceptance(&reader).await, ErrorKind::PermissionDenied, "operator");
}
