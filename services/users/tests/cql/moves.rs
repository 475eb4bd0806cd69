//! A home moves between two regions, each with servers of its own, while listeners write.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use echotune_api::{
    Regions, Users,
    events::{Event, USERS_TOPIC},
};
use echotune_eventlog::{EmbeddedEventLog, EventLog, Positions};
use echotune_kit::{cql::Scope, embedded::Db};
use echotune_model::{Call, Clock, ErrorKind, Hlc, Moving, NewPlaylist, Role, User};
use echotune_users::{Bounds, Homes, RegionalUsers, UserStore as _, UsersService, relays};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::{
    crowd::listen,
    regions::{LAPSE, PATIENCE, Region, World, account, blocking, by, peer, profile, reached, until, write_when_ready},
};

/// A call that is given up after this.
fn within(seconds: u64) -> Call {
    Call { deadline: Some(Instant::now() + Duration::from_secs(seconds)), ..Call::internal() }
}

/// Another process of a region, with a way to the other.
async fn beside(region: &Region, other: &Region) -> RegionalUsers {
    let homes = Arc::new(Homes::new(region.store.clone()).lapsing_after(LAPSE));
    let ways = BTreeMap::from([(other.name.clone(), reached(other.users.clone()).await)]);
    RegionalUsers::new(UsersService::new(region.store.clone()), homes, ways)
}

/// The relays of both regions, to one log.
struct Relays {
    log: Arc<EmbeddedEventLog>,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Relays {
    fn start(regions: [&Region; 2]) -> Self {
        let (folder, stop) = (tempfile::tempdir().expect("folder"), CancellationToken::new());
        let log = Arc::new(EmbeddedEventLog::new(Db::open(folder.path()).expect("open")));
        for region in regions {
            let (homes, log, stop) = (Arc::clone(region.users.homes()), Arc::clone(&log), stop.clone());
            tokio::spawn(async move { relays(&homes, log.as_ref(), stop).await.expect("relayed") });
        }
        Self { log, stop, _folder: folder }
    }

    /// What was given out of a user until so many events are of a region, in the order of the log.
    async fn told(&self, user: &User, region: &str, wanted: usize) -> Vec<Event> {
        let mut reader = self.log.read_from(USERS_TOPIC, Positions::default()).await.expect("a reader");
        let mut found: Vec<Event> = Vec::new();
        let all = async {
            while found.iter().filter(|event| event.region == region).count() < wanted {
                let part = reader.next(100).await.expect("read");
                let events = part.iter().map(|one| Event::decode(&one.record.value).expect("an event").expect("known"));
                found.extend(events.filter(|event| event.user == user.id));
            }
        };
        timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("{wanted} events of {region} come"));
        found
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_moves_with_all_there_is_and_nobody_writes_in_two_regions() {
    let World { us, eu, place: _place } = World::new().await;
    let (call, ann) = (Call::internal(), account(&us, &eu, "ann").await);
    let keyed = Call { idempotency_key: "k".into(), ..by(&ann, Role::Writer) };
    let listens = || vec![listen("Jóga", 0), listen("Hyperballad", 9)];
    let receipt = us.users.record_listens(&keyed, "ann", listens()).await.expect("recorded");
    let content = NewPlaylist { title: "Rain".into(), description: String::new(), tracks: Vec::new() };
    let made = us.users.create_playlist(&call, "ann", content).await.expect("made");
    us.users.update_profile(&call, "ann", profile("before")).await.expect("set");

    // Nobody gives out what waits, so that the move comes so far and no further.
    let way = reached(eu.users.clone()).await.regions;
    let fault = way.move_home(&within(12), "ann", &eu.name).await.expect_err("events wait");
    assert_eq!(fault.kind, ErrorKind::Unavailable, "{fault}");
    assert!(fault.message.contains("still wait") && fault.message.contains("--abort"), "{fault}");
    for region in [&us, &eu] {
        let fault = region.users.update_profile(&call, "ann", profile("between")).await.expect_err("on the way");
        assert_eq!(fault.kind, ErrorKind::Unavailable, "{fault}");
        assert!(fault.message.contains("moves from region"), "{fault}");
        assert_eq!(region.users.get_profile(&call, "ann").await.expect("read").about, "before");
    }
    let home = us.users.get_home(&call, "ann").await.expect("a home");
    assert!(matches!(&home.moving, Some(Moving { to, .. }) if *to == eu.name), "{home:?}");
    let moves = way.list_moves(&call).await.expect("listed");
    assert_eq!(moves.len(), 1, "{moves:?}");
    assert_eq!((moves[0].user, moves[0].from.as_str(), moves[0].to.as_str()), (ann.id, &*us.name, &*eu.name));

    // The same command goes on, while another process writes all the time.
    let relays = Relays::start([&us, &eu]);
    let second = beside(&us, &eu).await;
    let writing = {
        let stop = relays.stop.clone();
        tokio::spawn(async move {
            let mut refused = 0_u32;
            for n in 0.. {
                if stop.is_cancelled() {
                    break;
                }
                let set = second.update_settings(&Call::internal(), "ann", blocking(&format!("artist {n}"))).await;
                refused += u32::from(set.is_err());
                sleep(Duration::from_millis(20)).await;
            }
            refused
        })
    };
    let home = way.move_home(&within(60), "ann", &eu.name).await.expect("moved");
    assert_eq!((home.region.as_str(), home.epoch, &home.moving), (eu.name.as_str(), 2, &None));
    assert_eq!(way.move_home(&within(60), "ann", &eu.name).await.expect("moved before"), home);
    assert_eq!(way.list_moves(&call).await, Ok(Vec::new()));
    let again = eu.users.record_listens(&keyed, "ann", listens()).await.expect("recorded before");
    assert_eq!(again, receipt, "the key went along");
    eu.users.update_profile(&call, "ann", profile("after")).await.expect("written at home");
    assert_eq!(eu.users.get_playlist(&call, made.id).await.expect("there").id, made.id);

    let told = relays.told(&ann, &eu.name, 3).await;
    relays.stop.cancel();
    assert!(writing.await.expect("ended") > 0, "some were refused");
    let last = told.iter().rposition(|event| event.region == us.name).expect("events of before");
    let first = told.iter().position(|event| event.region == eu.name).expect("events of after");
    assert!(last < first, "what the old home told comes first");
    assert!(told[..first].iter().all(|before| told[first..].iter().all(|after| before.written_at < after.written_at)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_processes_remember_of_a_home_lapses_and_no_write_is_made_where_it_was() {
    let World { us, eu, place: _place } = World::new().await;
    let (call, ann) = (Call::internal(), account(&us, &eu, "ann").await);
    let relays = Relays::start([&us, &eu]);
    let second = beside(&us, &eu).await;
    let stop = CancellationToken::new();
    // One that writes up to the last moment it may.
    let writing = {
        let (second, stop) = (second.clone(), stop.clone());
        tokio::spawn(async move {
            let mut made = 0_u32;
            for n in 0.. {
                if stop.is_cancelled() {
                    break;
                }
                let set = second.update_settings(&Call::internal(), "ann", blocking(&format!("artist {n}"))).await;
                made += u32::from(set.is_ok());
            }
            made
        })
    };
    sleep(Duration::from_secs(1)).await;
    eu.users.move_home(&within(60), "ann", &eu.name).await.expect("moved");
    eu.users.update_settings(&call, "ann", blocking("of eu")).await.expect("written at home");
    sleep(Duration::from_secs(1)).await;
    stop.cancel();
    assert!(writing.await.expect("ended") > 0);
    let told = relays.told(&ann, &eu.name, 1).await;
    let first = told.iter().position(|event| event.region == eu.name).expect("of after");
    assert!(first > 1, "it wrote before: {first}");
    let newest_before = told[..first].iter().map(|event| event.written_at).max().expect("some");
    assert!(told[first..].iter().all(|event| event.region == eu.name && event.written_at > newest_before));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_home_writes_later_than_the_old_one_whose_clock_is_ahead() {
    let World { us, eu, place } = World::new().await;
    let (call, ann) = (Call::internal(), account(&us, &eu, "ann").await);
    let _relays = Relays::start([&us, &eu]);
    let clock = Clock::default();
    clock.observe(Hlc::from_ms(clock.wall_ms() + 40_000));
    let store = place.store_by(0, "ahead", clock).await;
    let homes = Arc::new(Homes::new(store.clone()).lapsing_after(LAPSE));
    let ahead = RegionalUsers::new(UsersService::new(store), homes, BTreeMap::new());
    ahead.update_profile(&call, "ann", profile("ahead")).await.expect("written at home");
    eu.users.move_home(&within(60), "ann", &eu.name).await.expect("moved");
    eu.users.update_profile(&call, "ann", profile("after")).await.expect("written at home");
    assert_eq!(eu.users.get_profile(&call, "ann").await.expect("read").about, "after");
    let fault = ahead.update_profile(&call, "ann", profile("late")).await.expect_err("no longer at home, and no way");
    assert_eq!(fault.kind, ErrorKind::FailedPrecondition, "{fault}");
    until("it comes", || async { (us.users.get_profile(&call, "ann").await.ok()?.about == "after").then_some(()) })
        .await;
    assert_eq!(eu.users.get_home(&call, "ann").await.expect("home").region, eu.name);
    // And back.
    let home = us.users.move_home(&within(60), &ann.name.to_string(), &us.name).await.expect("moved back");
    assert_eq!((home.region.as_str(), home.epoch), (us.name.as_str(), 4));
    us.users.update_profile(&call, "ann", profile("back")).await.expect("written at home");
    assert_eq!(us.users.get_profile(&call, "ann").await.expect("read").about, "back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_taken_back_by_the_operator_or_when_nobody_goes_on_with_it() {
    let World { us, eu, place } = World::new().await;
    let (call, ann) = (Call::internal(), account(&us, &eu, "ann").await);
    let fault = us.users.abort_move(&call, "ann").await.expect_err("does not move");
    assert_eq!(fault.kind, ErrorKind::FailedPrecondition, "{fault}");
    eu.users.move_home(&within(4), "ann", &eu.name).await.expect_err("there is no time");
    let fault = us.users.move_home(&within(4), "ann", &us.name).await.expect_err("on the way elsewhere");
    assert_eq!(fault.kind, ErrorKind::FailedPrecondition, "{fault}");
    let home = us.users.abort_move(&call, "ann").await.expect("taken back");
    assert_eq!((home.region.as_str(), home.epoch, &home.moving), (us.name.as_str(), 2, &None));
    assert!(write_when_ready(&us, "at home again").await.is_empty(), "at once");
    assert_eq!(us.users.list_moves(&call).await, Ok(Vec::new()));
    // A move that was begun an hour ago, and whose process died.
    let change = "UPDATE users_homes SET region = ? WHERE user_id = ? IF region = ?";
    let change = place.sessions[0].conditional("change", change, Scope::Everywhere).await.expect("prepared");
    let since_ms = us.store.now_ms() - 3_600_000;
    let (seen, moving) = (
        format!("{} epoch=2 fence=0", us.name),
        format!("{} epoch=3 fence=0 to={} since={since_ms}", us.name, eu.name),
    );
    assert!(place.sessions[0].decide(&change, (moving, ann.id.0, seen)).await.expect("changed"));
    // What is remembered lapses first.
    sleep(LAPSE).await;
    let refused = write_when_ready(&us, "after an hour").await;
    assert!(refused.is_empty(), "{refused:?}");
    let home = us.users.get_home(&call, "ann").await.expect("home");
    assert_eq!((home.region.as_str(), home.epoch, &home.moving), (us.name.as_str(), 4, &None));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_move_is_told_why_and_goes_on() {
    let World { us, eu, place: _place } = World::new().await;
    let (call, ann) = (Call::internal(), account(&us, &eu, "ann").await);
    let refusals = [
        (us.users.move_home(&call, "ann", &eu.name).await, ErrorKind::FailedPrecondition, "ask"),
        (eu.users.move_home(&call, "ann", "moon").await, ErrorKind::NotFound, "moon"),
        (eu.users.move_home(&call, "ben", &eu.name).await, ErrorKind::NotFound, "ben"),
        (eu.users.move_home(&by(&ann, Role::Writer), "ann", &eu.name).await, ErrorKind::PermissionDenied, ""),
        (us.users.move_home(&call, "ann", &us.name).await, ErrorKind::Internal, ""),
    ];
    for (answer, kind, word) in refusals {
        match answer {
            Ok(home) => assert_eq!((home.region.as_str(), home.epoch), (us.name.as_str(), 0), "at home already"),
            Err(fault) => assert!(fault.kind == kind && fault.message.contains(word), "{fault}"),
        }
    }
    // A home that cannot be reached.
    let nowhere = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let homes = Arc::new(Homes::new(eu.store.clone()).lapsing_after(LAPSE));
    let ways = BTreeMap::from([(us.name.clone(), peer(nowhere))]);
    let alone = RegionalUsers::new(UsersService::new(eu.store.clone()), homes, ways);
    let fault = alone.move_home(&within(10), "ann", &eu.name).await.expect_err("us is down");
    assert_eq!(fault.kind, ErrorKind::Unavailable, "{fault}");
    assert!(fault.message.contains("nothing was changed") && fault.message.contains(&us.name), "{fault}");
    // And one that is silent is not waited for as long as a move takes.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = format!("http://{}", silent.local_addr().expect("address"));
    let ways =
        BTreeMap::from([(us.name.clone(), peer(Endpoint::from_shared(address).expect("endpoint").connect_lazy()))]);
    let homes = Arc::new(Homes::new(eu.store.clone()).lapsing_after(LAPSE));
    let deaf = RegionalUsers::new(UsersService::new(eu.store.clone()), homes, ways);
    let (began, answer) = (Instant::now(), deaf.move_home(&within(60), "ann", &eu.name).await);
    let fault = answer.expect_err("us is silent");
    assert_eq!(fault.kind, ErrorKind::Unavailable, "{fault}");
    assert!(fault.message.contains("nothing was changed") && began.elapsed() < Duration::from_secs(40), "{fault}");
    us.users.update_profile(&call, "ann", profile("goes on")).await.expect("written at home");
    let fault = us.users.release_user(&within(5), "ann", 1).await.expect_err("does not move");
    assert_eq!(fault.kind, ErrorKind::Unavailable, "{fault}");
    // Out of a group that homes do not leave: neither by a move nor by a fail-over.
    let bounds = Bounds::new(&[vec![us.name.clone()]], &[us.name.clone(), eu.name.clone()]).expect("well");
    let bounded = eu.users.clone().within(bounds);
    for answer in [
        bounded.move_home(&within(10), "ann", &eu.name).await.map(|home| home.region),
        bounded.fail_over(&call, &us.name, &eu.name).await.map(|region| region.served_by),
    ] {
        let fault = answer.expect_err("us is left by nobody");
        assert!(fault.kind == ErrorKind::FailedPrecondition && fault.message.contains("homes_within"), "{fault}");
    }
    // Neither from nor to a home that another serves.
    eu.users.fail_over(&call, &us.name, &eu.name).await.expect("taken over");
    let fault = eu.users.move_home(&within(10), "ann", &eu.name).await.expect_err("us is failed over");
    assert_eq!(fault.kind, ErrorKind::FailedPrecondition, "{fault}");
    assert!(fault.message.contains("fail-back"), "{fault}");
    assert_eq!(us.users.get_home(&call, "ann").await.expect("home").epoch, 0);
    assert!(!write_when_ready(&eu, "stands in").await.is_empty(), "it waits first");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stands_in_for_a_home_does_not_write_for_a_user_who_was_leaving() {
    let World { us, eu, place: _place } = World::new().await;
    let (call, _ann) = (Call::internal(), account(&us, &eu, "ann").await);
    eu.users.move_home(&within(4), "ann", &eu.name).await.expect_err("there is no time");
    eu.users.fail_over(&call, &us.name, &eu.name).await.expect("taken over");
    sleep(LAPSE + Duration::from_secs(1)).await;
    let fault = eu.users.update_profile(&call, "ann", profile("x")).await.expect_err("on the way");
    assert!(fault.kind == ErrorKind::Unavailable && fault.message.contains("moves from region"), "{fault}");
    // It goes on where the home is served by itself again, or is taken back.
    let fault = eu.users.move_home(&within(10), "ann", &eu.name).await.expect_err("us is failed over");
    assert_eq!(fault.kind, ErrorKind::FailedPrecondition, "{fault}");
    eu.users.abort_move(&call, "ann").await.expect("taken back");
    assert!(write_when_ready(&eu, "stands in").await.is_empty(), "at once");
}
