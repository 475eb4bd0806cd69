//! Sessions with real CQL servers: `cargo xtask e2e data` starts them and says where they are.

mod kept;
mod way;

use echotune_kit::cql::{
    Acknowledge, Batch, CqlConfig, CqlError, CqlSession, Joint, Migration, Migrations, Scope, Seen, WriteClock,
    WriteTime, scratch,
};
use futures::future::{join, join_all};
use uuid::Uuid;

const KEPT: Migration = Migration {
    version: 1,
    name: "rows",
    statements: &["CREATE TABLE IF NOT EXISTS kept (part text, place int, value text, PRIMARY KEY (part, place))"],
};
const NAMES: Migration = Migration {
    version: 2,
    name: "names",
    statements: &["CREATE TABLE IF NOT EXISTS names (name text PRIMARY KEY, owner uuid)"],
};
const ALL: Migrations = Migrations { owner: "tests", steps: &[KEPT, NAMES] };

async fn connect(config: &CqlConfig) -> CqlSession {
    CqlSession::connect(config).await.expect("connected")
}

/// A session with the tables made, in the first region.
async fn prepared() -> CqlSession {
    let session = connect(&scratch::configs("kit")[0]).await;
    session.migrate(&ALL).await.expect("migrated");
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_are_applied_once_and_never_change() {
    let configs = scratch::configs("kit");
    let (one, two) = (connect(&configs[0]).await, connect(&configs[configs.len() - 1]).await);
    let first = Migrations { steps: &[KEPT], ..ALL };
    assert_eq!(one.migrate(&first).await.expect("migrated"), [1]);
    let (a, b) = join(one.migrate(&ALL), two.migrate(&ALL)).await;
    let applied = [a.expect("migrated"), b.expect("migrated")].concat();
    assert_eq!(applied, [2], "what one runner applied, the other does not apply again");
    assert_eq!(two.migrate(&ALL).await.expect("nothing is left"), [0; 0]);
    let changed = Migration { statements: &["CREATE TABLE IF NOT EXISTS kept (part text PRIMARY KEY)"], ..KEPT };
    let steps: &'static [Migration] = Box::leak(Box::new([changed, NAMES]));
    let refused = one.migrate(&Migrations { steps, ..ALL }).await.expect_err("changed");
    assert!(refused.to_string().contains("migration 1, 'rows'"), "{refused}");
    let newer = two.migrate(&first).await.expect_err("older than the schema");
    assert!(matches!(newer, CqlError::Schema { owner: "tests", .. }), "{newer}");
    scratch::drop(&one).await.expect("dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_region_keeps_is_read_in_each_at_once() {
    let mut configs = scratch::configs("every");
    configs.iter_mut().for_each(|config| config.acknowledge = Acknowledge::EveryRegion);
    let here = connect(&configs[0]).await;
    here.migrate(&ALL).await.expect("migrated");
    let there = connect(&configs[configs.len() - 1]).await;
    let times = WriteClock::new(Default::default());
    let put = "INSERT INTO kept (part, place, value) VALUES (?, ?, ?)";
    let put = here.write_acknowledged("put", put).await.expect("prepared");
    let read = there.read("read", "SELECT value FROM kept WHERE part = ? AND place = ?").await.expect("prepared");
    for place in 0..200 {
        let part = place.to_string();
        if place % 2 == 0 {
            here.put(&put, (&part, place, "alone"), times.now()).await.expect("written");
        } else {
            let mut batch = Batch::new("a batch", times.now());
            batch.add(&put, (part.clone(), place, "of a batch"));
            here.apply(batch).await.expect("written");
        }
        let row = there.one::<(String,)>(&read, (&part, place)).await.expect("read");
        assert!(row.is_some(), "write {place} is not there yet, although it was answered");
    }
    scratch::drop(&here).await.expect("dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_time_stays_whatever_arrives_last() {
    let session = prepared().await;
    let times = WriteClock::new(Default::default());
    let put = session.write("put", "INSERT INTO kept (part, place, value) VALUES (?, ?, ?)").await.expect("prepared");
    let wipe = session.write("wipe", "DELETE FROM kept WHERE part = ?").await.expect("prepared");
    let read = session.read("read", "SELECT value, writetime(value) FROM kept WHERE part = ? AND place = ?").await;
    let read = read.expect("prepared");
    let (early, late) = (times.now(), times.now());
    session.put(&put, ("a", 1, "late"), late).await.expect("written");
    session.put(&put, ("a", 1, "early"), early).await.expect("written");
    let row = session.one::<(String, i64)>(&read, ("a", 1)).await.expect("read");
    assert_eq!(row, Some(("late".to_owned(), late.micros)));
    session.put_at(&wipe, ("a",), late.ahead()).await.expect("erased");
    session.put(&put, ("a", 2, "from before"), times.now()).await.expect("written");
    assert_eq!(session.one::<(String, i64)>(&read, ("a", 2)).await.expect("read"), None, "an erasure reaches ahead");
    let at = times.now();
    let mut batch = Batch::new("two rows", at);
    for part in ["b", "c"] {
        batch.add(&put, (part.to_owned(), 1, "same"));
    }
    session.apply(batch).await.expect("written");
    for part in ["b", "c"] {
        let row = session.one::<(String, i64)>(&read, (part, 1)).await.expect("read");
        assert_eq!(row, Some(("same".to_owned(), at.micros)));
    }
    session.apply(Batch::new("none", at)).await.expect("nothing to do");
    scratch::drop(&session).await.expect("dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_in_pages_up_to_a_limit() {
    let config = CqlConfig { page_rows: 7, ..scratch::configs("kit").remove(0) };
    let session = connect(&config).await;
    session.migrate(&ALL).await.expect("migrated");
    let times = WriteClock::new(Default::default());
    let put = session.write("put", "INSERT INTO kept (part, place, value) VALUES (?, ?, 'v')").await.expect("prepared");
    let writes: Vec<(i32, WriteTime)> = (0..50).map(|place| (place, times.now())).collect();
    let done = join_all(writes.into_iter().map(|(place, at)| session.put(&put, ("p", place), at))).await;
    done.into_iter().collect::<Result<Vec<()>, _>>().expect("written");
    let read = session.read("read", "SELECT place FROM kept WHERE part = ?").await.expect("prepared");
    for (limit, expected) in [(usize::MAX, 50), (20, 20), (7, 7), (1, 1)] {
        let rows = session.rows::<(i32,)>(&read, ("p",), limit).await.expect("read");
        assert!(rows.into_iter().map(|(place,)| place).eq(0..expected), "limit {limit}");
    }
    let wrong = session.rows::<(Uuid,)>(&read, ("p",), 1).await.expect_err("not of this type");
    assert!(matches!(wrong, CqlError::Damaged { what: "read", .. }), "{wrong}");
    let unknown = session.read("unknown", "SELECT place FROM missing").await.expect_err("no such table");
    assert!(matches!(unknown, CqlError::Refused { step: "unknown", .. }), "{unknown}");
    scratch::drop(&session).await.expect("dropped");
}

/// Claims a name as a user of a service does.
async fn claim(session: &CqlSession, name: &str, owner: Uuid) -> bool {
    let claim = "INSERT INTO names (name, owner) VALUES (?, ?) IF NOT EXISTS";
    let claim = session.conditional("claim", claim, Scope::Everywhere).await.expect("prepared");
    let look =
        session.look("look", "SELECT owner FROM names WHERE name = ?", Scope::Everywhere).await.expect("prepared");
    let seen = async || {
        let found = session.one::<(Uuid,)>(&look, (name,)).await?;
        Ok(found.map_or(Seen::Open, |(found,)| if found == owner { Seen::Applied } else { Seen::Refused }))
    };
    session.settle(&claim, (name, owner), seen).await.expect("settled")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_given_to_one_of_many_contenders() {
    let configs = scratch::configs("kit");
    let sessions = join_all(configs.iter().map(connect)).await;
    sessions[0].migrate(&ALL).await.expect("migrated");
    for round in 0..10 {
        let name = format!("name{round}");
        let contenders: Vec<_> = (0..4).map(|n| (&sessions[n % sessions.len()], Uuid::new_v4())).collect();
        let told = join_all(contenders.iter().map(|(session, owner)| claim(session, &name, *owner))).await;
        let winners: Vec<_> =
            contenders.iter().zip(&told).filter(|(_, won)| **won).map(|((_, owner), _)| *owner).collect();
        assert_eq!(winners.len(), 1, "{name} was given to {winners:?}");
        let look = sessions[0].look("look", "SELECT owner FROM names WHERE name = ?", Scope::Everywhere).await;
        let kept = sessions[0].one::<(Uuid,)>(&look.expect("prepared"), (&name,)).await.expect("read");
        assert_eq!(kept, Some((winners[0],)), "who was told so has it");
    }
    scratch::drop(&sessions[0]).await.expect("dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_another_data_centre_are_not_used() {
    let config = scratch::configs("kit").remove(0);
    let elsewhere = CqlConfig {
        datacenter: "elsewhere".into(),
        replication: [("elsewhere".to_owned(), 1)].into(),
        ..config.clone()
    };
    let refused = CqlSession::connect(&elsewhere).await.expect_err("no server is of that data centre");
    assert!(refused.to_string().contains("elsewhere"), "{refused}");
    let nobody = CqlConfig { contact_points: vec!["127.0.0.1:1".into()], ..config };
    let refused = CqlSession::connect(&nobody).await.expect_err("nobody listens there");
    assert!(matches!(refused, CqlError::Unreachable { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_subjects_conform_and_are_gone_in_every_region() {
    use echotune_kit::keys::{CqlSubjectKeys, MasterKeys, SubjectKeys as _, conformance};

    let configs = scratch::configs("keys");
    let first = connect(&configs[0]).await;
    CqlSubjectKeys::migrate(&first).await.expect("migrated");
    let mut regions = Vec::new();
    for config in &configs {
        let (session, times) = (connect(config).await, WriteClock::new(Default::default()));
        let keys = CqlSubjectKeys::connect(session, MasterKeys::new(&[[7; 32]]), times).await;
        regions.push(keys.expect("connected"));
    }
    conformance::keys(&regions[0], "ann").await;
    // All regions at once make one key, and where it is destroyed does not matter.
    let made = join_all(regions.iter().map(|keys| keys.key("ben"))).await;
    let sealed = made[0].as_ref().expect("made").seal(b"x", b"plain").expect("sealed");
    for key in made {
        assert_eq!(key.expect("made").open(b"x", &sealed), echotune_kit::keys::Opened::Plain(b"plain".to_vec()));
    }
    regions[regions.len() - 1].destroy("ben").await.expect("destroyed");
    for keys in &regions {
        assert!(keys.existing("ben").await.expect("read").is_none(), "as soon as it is answered");
    }
    scratch::drop(&first).await.expect("dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_on_a_condition_is_made_with_it_or_not_at_all() {
    let session = prepared().await;
    let take = "INSERT INTO kept (part, place, value) VALUES (?, ?, ?) IF NOT EXISTS";
    let take = session.conditional("take", take, Scope::Here).await.expect("prepared");
    let put = session.write("put", "INSERT INTO kept (part, place, value) VALUES (?, ?, ?)").await.expect("prepared");
    let read = "SELECT place, value FROM kept WHERE part = ?";
    let (read, look) = (session.read("read", read).await, session.look("look", read, Scope::Here).await);
    let (read, look) = (read.expect("prepared"), look.expect("prepared"));
    for (value, more, expected) in [("mine", 2, true), ("theirs", 3, false)] {
        let mut joint = Joint::new(&take, ("a".to_owned(), 1, value.to_owned()));
        joint.add(&put, ("a".to_owned(), more, value.to_owned()));
        let seen = || async {
            let row = session.one::<(i32, String)>(&look, ("a",)).await?;
            Ok(row.map_or(Seen::Open, |(_, found)| if found == value { Seen::Applied } else { Seen::Refused }))
        };
        assert_eq!(session.settle_joint(&joint, seen).await.expect("settled"), expected);
    }
    let rows = session.rows::<(i32, String)>(&read, ("a",), usize::MAX).await.expect("read");
    assert_eq!(rows, [(1, "mine".to_owned()), (2, "mine".to_owned())]);
    scratch::drop(&session).await.expect("dropped");
}
