use echotune_api::events::{Event, Payload};
use echotune_kit::{cql::encode, keys::DataKey};
use echotune_model::{ErrorKind, EventId, Hlc, Listen, UserId};
use uuid::Uuid;

use super::{
    fill::{Kept, Needs, mark},
    keys::Key,
    pages,
    rows::parts,
    schema::{BUCKETS, MIGRATIONS, SHARDS, bucket, day, minute, period, shard},
    sealed::{Opener, Place, Seal},
};
use crate::store::{Idempotency, UserStoreError};

#[test]
fn rows_are_parted_by_bytes_and_number() {
    let sizes = |rows: Vec<usize>| parts(rows, |bytes| *bytes).iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(vec![]), [0; 0]);
    assert_eq!(sizes(vec![1; 250]), [100, 100, 50]);
    assert_eq!(sizes(vec![10 << 10; 5]), [2, 2, 1], "24 KiB hold two of these");
    assert_eq!(sizes(vec![30 << 10, 1, 30 << 10]), [1, 1, 1], "one that is larger is alone");
}

#[test]
fn places_follow_from_what_is_kept() {
    const DAY: i64 = 24 * 3_600 * 1_000;
    assert_eq!((period(0), period(30 * DAY - 1), period(30 * DAY), period(-1)), (0, 0, 1, -1));
    assert_eq!((day(0), day(86_399_999), day(86_400_000)), (0, 0, 1));
    assert_eq!((minute(59_999), minute(60_000)), (0, 1));
    let ids = (0..1_000).map(Uuid::from_u128);
    assert!(ids.clone().all(|id| (0..BUCKETS).contains(&bucket(id)) && (0..SHARDS).contains(&shard(id))));
    let used = |of: fn(Uuid) -> i32| ids.clone().map(of).collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!((used(bucket), used(shard)), (16, 4), "all parts are used");
}

#[test]
fn stronger_marks_are_larger() {
    let marks = [None, Some(false), Some(true)];
    assert!(marks.is_sorted_by(|a, b| mark(*a) < mark(*b)), "as in the order of Listen::explicit: {marks:?}");
    assert!(marks.is_sorted());
}

#[test]
fn page_tokens_are_read_back_and_others_refused() {
    let key = (7_i64, Uuid::from_u128(9));
    let token = pages::token(&key);
    assert_eq!(pages::after::<(i64, Uuid)>(&token).expect("read"), Some(key));
    assert_eq!(pages::after::<(i64, Uuid)>("").expect("the first page"), None);
    for bad in ["?", "AAAA", &pages::token(&"of another list"), &"A".repeat(4_000)] {
        let refused = pages::after::<(i64, Uuid)>(bad).expect_err("refused");
        assert!(matches!(&refused, UserStoreError::BadPageToken(_)), "{refused}");
        assert!(refused.to_string().len() < 300, "{refused}");
    }
    let rows = vec![1_u8, 2, 3];
    let page = pages::page(rows.clone(), 2, |row| *row, |row| Ok(Some(row))).expect("a page");
    assert_eq!((page.rows, pages::after::<u8>(&page.next).expect("read")), (vec![1, 2], Some(2)));
    let odd = |row: u8| Ok((row % 2 == 1).then_some(row));
    let page = pages::page(rows, 3, |row| *row, odd).expect("a page");
    assert_eq!((page.rows, page.next.as_str()), (vec![1, 3], ""), "what says nothing is left out, nothing comes after");
}

#[test]
fn a_key_is_of_its_user_and_request() {
    let of = |user: Option<u128>, key: &str, request: u8| {
        let idempotency = Idempotency { key: key.into(), request: [request; 32] };
        Key::new(user.map(|user| UserId(Uuid::from_u128(user))), &idempotency)
    };
    let seed = of(Some(1), "k", 1).seed();
    assert_eq!(seed, of(Some(1), "k", 1).seed());
    for other in [of(Some(2), "k", 1), of(Some(1), "l", 1), of(Some(1), "k", 2), of(None, "k", 1)] {
        assert_ne!(seed, other.seed());
    }
    let shown = format!("{:?}", of(None, "ann@example.org", 1));
    assert!(!shown.contains("ann"), "the key itself is not kept: {shown}");
}

/// A statement that is made again by the next runner must do nothing then, and both servers must know it.
#[test]
fn tables_can_be_made_again_and_on_both_servers() {
    for statement in MIGRATIONS.steps.iter().flat_map(|step| step.statements) {
        assert!(statement.starts_with("CREATE TABLE IF NOT EXISTS users_"), "{statement}");
        for word in ["INDEX", "MATERIALIZED", "counter", "list<", "vector<", "tablets"] {
            assert!(!statement.contains(word), "'{word}' in: {statement}");
        }
    }
}

#[test]
fn the_largest_listen_fits_into_a_batch() {
    let text = "x".repeat(1_024);
    let track = echotune_model::Track { title: text.clone(), artist: text.clone(), album: text };
    let listen = Listen { listened_at_ms: 0, track, played_ms: 0, source: "x".repeat(256), explicit: Some(true) };
    let kept = encode(&listen).len();
    assert!(2 * kept + 1_024 < super::draft::BATCH_BYTES, "{kept} bytes by time and as many in the event");
}

#[test]
fn a_waiting_event_is_opened_where_it_waits_and_an_erasure_without_a_key() {
    let (user, id) = (UserId(Uuid::from_u128(1)), EventId(Uuid::from_u128(2)));
    let seal = Seal::new(user, DataKey::random().expect("random"));
    let event =
        |payload| Event { id, user, region: "us".into(), written_at: Hlc(7), traceparent: String::new(), payload };
    let (place, at) = ((0, 0, 7, id.0), 7);
    let created = event(Payload::UserCreated { name: "ann".parse().expect("a name") });
    let region = "us";
    let kept = Kept {
        place,
        user: user.0,
        event: seal.bytes(Place::Event { region, at, id: id.0 }, &created.encode()).expect("sealed"),
        needs: seal.record(Place::Needs { region, at, id: id.0 }, &Needs::Settings(5)).expect("sealed"),
    };
    let opened = kept.clone().opened(region, &seal.opener()).expect("opened").expect("its key is there");
    assert_eq!((opened.place, opened.event, opened.needs), (place, created, Needs::Settings(5)));
    let gone = kept.clone().opened(region, &Opener::without_key(user)).expect("read");
    assert!(gone.is_none(), "{gone:?}");
    let elsewhere = kept.opened("eu", &seal.opener()).expect_err("it waits in another outbox");
    assert_eq!(elsewhere.kind(), ErrorKind::DataLoss, "{elsewhere}");
    let erased = event(Payload::UserErased);
    let kept = Kept { place, user: user.0, event: erased.encode(), needs: encode(&Needs::Nothing) };
    let opened = kept.opened(region, &Opener::without_key(user)).expect("read").expect("in clear");
    assert_eq!(opened.event, erased);
}
