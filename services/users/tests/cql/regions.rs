//! Two regions of one platform, each with servers of its own. Between them is gRPC, as there is outside.

use std::{collections::BTreeMap, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use echotune_api::{
    Regions, RegionsClient, Users, UsersClient,
    events::{Event, USERS_TOPIC},
    regions_server, users_server,
};
use echotune_eventlog::{EmbeddedEventLog, EventLog, Positions};
use echotune_kit::{
    auth::Token,
    cql::WriteClock,
    edge::{Credentials, Edge, Patience},
    embedded::Db,
};
use echotune_model::{
    Call, ErrorKind, Fault, NewPlaylist, NewToken, PlayCount, PlaylistId, Principal, Profile, Role, Settings, User,
    UserId,
};
use echotune_users::{CqlUserStore, Homes, Peer, RegionalUsers, UserStore, UsersService, Waiting, relays};
use futures::future::join_all;
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};

use crate::{crowd::listen, place::Place};

/// How long a region that takes over waits here.
pub(crate) const LAPSE: Duration = Duration::from_secs(3);
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One region.
pub(crate) struct Region {
    pub(crate) name: String,
    pub(crate) store: CqlUserStore,
    pub(crate) users: RegionalUsers,
}

/// Both regions, `us` and `eu`.
pub(crate) struct World {
    pub(crate) us: Region,
    pub(crate) eu: Region,
    pub(crate) place: Place,
}

fn token() -> Token {
    Token::from("secret of the platform".to_owned())
}

/// The users of a region behind gRPC, and a way to them.
pub(crate) async fn reached(users: RegionalUsers) -> Peer {
    let listener = TcpListener::bind::<SocketAddr>("127.0.0.1:0".parse().expect("address")).await.expect("bound");
    let address = listener.local_addr().expect("address");
    let edge = Edge::new(token(), None, Patience { default: PATIENCE, max: PATIENCE });
    let server = Server::builder().layer(edge).add_service(users_server(Arc::new(users.clone())));
    let server = server.add_service(regions_server(Arc::new(users)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    peer(Endpoint::from_shared(format!("http://{address}")).expect("endpoint").connect_lazy())
}

pub(crate) fn peer(channel: Channel) -> Peer {
    let credentials = Credentials { token: token() };
    let users = Arc::new(UsersClient::new(channel.clone(), credentials.clone()));
    Peer { users, regions: Arc::new(RegionsClient::new(channel, credentials)) }
}

impl World {
    pub(crate) async fn new() -> Self {
        let place = Place::take().await;
        assert!(place.sessions.len() > 1, "homes need servers of two regions: ECHOTUNE_CQL=us=HOST:PORT,eu=HOST:PORT");
        let stores = [place.store_of(0, "one").await, place.store_of(1, "one").await];
        let homes = stores.clone().map(|store| Arc::new(Homes::new(store).lapsing_after(LAPSE)));
        let of =
            |n: usize, peers| RegionalUsers::new(UsersService::new(stores[n].clone()), Arc::clone(&homes[n]), peers);
        let names = stores.each_ref().map(|store| store.region().to_owned());
        let ways = [reached(of(0, BTreeMap::new())).await, reached(of(1, BTreeMap::new())).await];
        let region = |n: usize| {
            let peers = BTreeMap::from([(names[1 - n].clone(), ways[1 - n].clone())]);
            Region { name: names[n].clone(), store: stores[n].clone(), users: of(n, peers) }
        };
        Self { us: region(0), eu: region(1), place }
    }
}

/// Waits until something is so.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut is: impl FnMut() -> F) -> T {
    let found = timeout(PATIENCE, async {
        loop {
            match is().await {
                Some(found) => return found,
                None => sleep(Duration::from_millis(50)).await,
            }
        }
    });
    found.await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// An account made in one region, once the other has heard of it.
pub(crate) async fn account(at: &Region, other: &Region, name: &str) -> User {
    let user = at.users.create_user(&Call::internal(), name).await.expect("created");
    until("the account comes", || async { other.users.get_user(&Call::internal(), name).await.ok() }).await;
    user
}

pub(crate) fn by(user: &User, role: Role) -> Call {
    let principal = Principal::User { id: user.id, name: user.name.clone(), role };
    Call { principal, ..Call::internal() }
}

/// Settings, each change of which is announced.
pub(crate) fn blocking(artist: &str) -> Settings {
    Settings { blocked_artists: vec![artist.into()], ..Settings::default() }
}

pub(crate) fn profile(about: &str) -> Profile {
    Profile { about: about.into(), ..Profile::default() }
}

/// In which region each waiting event of a user was written, so many at the least.
async fn written_in(regions: [&Region; 2], user: UserId, least: usize) -> Vec<String> {
    let mut found = Vec::new();
    let end = tokio::time::Instant::now() + PATIENCE;
    while found.len() < least && tokio::time::Instant::now() < end {
        for region in regions {
            // Not cut off while they are forgotten: what is gone by then would be missing here.
            while let Ok(waiting) = timeout(Duration::from_secs(3), region.store.next_events(10_000)).await {
                let waiting = waiting.expect("events");
                let places = waiting.iter().map(|one| one.place.clone()).collect();
                region.store.published(places).await.expect("forgotten");
                let event = |one: &Waiting| Event::decode(&one.record.value).expect("an event").expect("known");
                found.extend(waiting.iter().map(event).filter(|event| event.user == user));
            }
        }
    }
    found.into_iter().map(|event| event.region).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_made_at_home_on_behalf_of_whoever_asked() {
    let World { us, eu, place } = World::new().await;
    let ann = account(&us, &eu, "ann").await;
    let writer = by(&ann, Role::Writer);
    let keyed = Call { idempotency_key: "k".into(), ..writer.clone() };
    let listens = || vec![listen("Jóga", 0)];
    let receipt = eu.users.record_listens(&keyed, "ann", listens()).await.expect("recorded");
    assert_eq!(receipt.recorded, 1);
    for region in [&us, &eu] {
        let again = region.users.record_listens(&keyed, "ann", listens()).await.expect("recorded before");
        assert_eq!(again, receipt, "the key went along");
    }
    let content = NewPlaylist { title: "Rain".into(), description: String::new(), tracks: Vec::new() };
    let made = eu.users.create_playlist(&writer, "ann", content.clone()).await.expect("made");
    let snow = NewPlaylist { title: "Snow".into(), ..content };
    eu.users.update_playlist(&writer, made.id, snow).await.expect("what was made elsewhere can be changed at once");
    let token = NewToken { label: "phone".into(), role: Role::Writer, expires_at_ms: 0 };
    let refused = eu.users.create_token(&writer, "ann", token.clone()).await.expect_err("ann is no operator");
    assert_eq!(refused.kind, ErrorKind::PermissionDenied, "{refused}");
    let refused = eu.users.update_profile(&by(&ann, Role::Reader), "ann", profile("x")).await.expect_err("reads only");
    assert_eq!(refused.kind, ErrorKind::PermissionDenied, "{refused}");
    eu.users.create_token(&Call::internal(), "ann", token).await.expect("the operator may");
    eu.users.update_settings(&writer, "ann", blocking("Creed")).await.expect("set");
    let told = written_in([&us, &eu], ann.id, 3).await;
    assert!(told.len() >= 3 && told.iter().all(|region| *region == us.name), "{told:?}");
    // An erasure leaves nothing of the home.
    eu.users.erase_user(&writer, "ann").await.expect("erased");
    let homes = place.sessions[0].look(
        "homes",
        "SELECT region FROM users_homes WHERE user_id = ?",
        echotune_kit::cql::Scope::Everywhere,
    );
    let left: Option<(String,)> =
        place.sessions[0].one(&homes.await.expect("prepared"), (ann.id.0,)).await.expect("read");
    assert_eq!(left, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_an_earlier_account_erases_nobody_where_copies_lag() {
    let World { us, eu, place } = World::new().await;
    let (call, session) = (Call::internal(), &place.sessions[0]);
    let earlier = account(&us, &eu, "ann").await;
    let writer = by(&earlier, Role::Writer);
    let read = session.read("account", "SELECT created, value FROM users_accounts WHERE user_id = ?");
    let read = read.await.expect("prepared");
    let (created, value): (i64, Vec<u8>) =
        session.one(&read, (earlier.id.0,)).await.expect("read").expect("the account is there");
    us.users.erase_user(&writer, "ann").await.expect("erased");
    let ann = us.users.create_user(&call, "ann").await.expect("the name is free");
    assert_ne!(ann.id, earlier.id);
    // As if the earlier one had been erased elsewhere, and no more than whose the name is now had come here.
    let put = "INSERT INTO users_accounts (user_id, created, value) VALUES (?, ?, ?)";
    let put = session.write("account", put).await.expect("prepared");
    let later = WriteClock::new(Default::default()).now().ahead() + 60_000_000;
    session.put_at(&put, (earlier.id.0, created, value), later).await.expect("put back");
    let home = "INSERT INTO users_homes (user_id, region) VALUES (?, ?) IF NOT EXISTS";
    let home = session.conditional("home", home, echotune_kit::cql::Scope::Everywhere).await.expect("prepared");
    assert!(session.decide(&home, (earlier.id.0, &us.name)).await.expect("put back"));
    assert_eq!(us.store.by_id(earlier.id).await.expect("read").as_ref(), Some(&earlier));

    let refused = us.users.erase_user(&writer, "ann").await.expect_err("the name is another's");
    assert_eq!(refused.kind, ErrorKind::NotFound, "{refused}");
    assert_eq!(us.users.get_user(&call, "ann").await, Ok(ann));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_passed_on_twice_or_to_nowhere() {
    let World { us, eu, .. } = World::new().await;
    let ann = account(&us, &eu, "ann").await;
    let passed_on = Call { forwarded_by: "moon".into(), ..Call::internal() };
    let refused = eu.users.update_profile(&passed_on, "ann", profile("twice")).await.expect_err("not at home");
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    assert!(["moon", &us.name, &eu.name].iter().all(|name| refused.message.contains(*name)), "{refused}");
    let alone =
        |peers| RegionalUsers::new(UsersService::new(eu.store.clone()), Arc::new(Homes::new(eu.store.clone())), peers);
    let refused =
        alone(BTreeMap::new()).update_profile(&Call::internal(), "ann", profile("x")).await.expect_err("no way");
    assert_eq!(refused.kind, ErrorKind::FailedPrecondition, "{refused}");
    assert!(refused.message.contains(&us.name), "{refused}");
    // Where nobody listens, and where nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let deaf = silent.local_addr().expect("address");
    for (address, kind) in
        [("127.0.0.1:1".to_owned(), ErrorKind::Unavailable), (deaf.to_string(), ErrorKind::Indeterminate)]
    {
        let way = peer(Endpoint::from_shared(format!("http://{address}")).expect("endpoint").connect_lazy());
        let users = alone(BTreeMap::from([(us.name.clone(), way)]));
        let deadline = std::time::Instant::now() + Duration::from_secs(2);
        let call = Call { deadline: Some(deadline), ..by(&ann, Role::Writer) };
        let fault = users.update_profile(&call, "ann", profile("x")).await.expect_err("lost");
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.message.contains(&format!("'{}'", us.name)), "{fault}");
        let read = users.get_profile(&call, "ann").await;
        assert!(read.is_ok() || read.is_err_and(|fault| fault.kind == ErrorKind::DeadlineExceeded), "read here");
    }
    let stored = us.users.get_profile(&Call::internal(), "ann").await.expect("read");
    assert_eq!(stored, Profile::default(), "nothing was written");
    let unknown = eu.users.delete_playlist(&Call::internal(), PlaylistId(ann.id.0)).await;
    assert_eq!(unknown, Ok(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_creator_died_has_one_home_whoever_writes_first() {
    let World { us, eu, .. } = World::new().await;
    let local = UsersService::new(us.store.clone());
    for round in 0..3 {
        let name = format!("ann{round}");
        let user = local.create_user(&Call::internal(), &name).await.expect("created");
        until("the account comes", || async { eu.users.get_user(&Call::internal(), &name).await.ok() }).await;
        let write = |n: u32| {
            let (users, name) = (if n.is_multiple_of(2) { &us.users } else { &eu.users }, name.clone());
            let counts = vec![PlayCount { artist: format!("artist {n}"), plays: 1, source: "test".into() }];
            async move { users.set_play_counts(&Call::internal(), &name, counts).await }
        };
        let written: Result<Vec<_>, Fault> = join_all((0..4).map(write)).await.into_iter().collect();
        assert!(written.expect("written").iter().all(|receipt| receipt.recorded == 1), "none is there before");
        let home = us.users.get_home(&Call::internal(), &name).await.expect("a home");
        let remote = reached(eu.users.clone()).await.regions;
        assert_eq!(remote.get_home(&Call::internal(), &name).await.expect("a home"), home);
        let told = written_in([&us, &eu], user.id, 5).await;
        let elsewhere = told.iter().filter(|region| **region != home.region).count();
        // The account itself was announced where it was made.
        assert!(elsewhere <= 1 && told.len() >= 5, "{told:?} of {home:?}");
    }
}

/// Waits until a write is made; what it is refused with until then.
pub(crate) async fn write_when_ready(at: &Region, artist: &str) -> Vec<Fault> {
    let mut refused = Vec::new();
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        match at.users.update_settings(&Call::internal(), "ann", blocking(artist)).await {
            Ok(_) => return refused,
            Err(fault) => refused.push(fault),
        }
        assert!(tokio::time::Instant::now() < end, "{refused:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Reads a log until so many events of a user are there that were written in each of these regions.
async fn given_out(log: &EmbeddedEventLog, user: UserId, wanted: [(&str, usize); 2]) {
    let mut reader = log.read_from(USERS_TOPIC, Positions::default()).await.expect("a reader");
    let mut found = BTreeMap::new();
    let all = async {
        let count = |found: &BTreeMap<_, String>, region| found.values().filter(|one| *one == region).count();
        while wanted.iter().any(|(region, wanted)| count(&found, *region) < *wanted) {
            let part = reader.next(100).await.expect("read");
            let events = part.iter().map(|one| Event::decode(&one.record.value).expect("an event").expect("known"));
            found.extend(events.filter(|event| event.user == user).map(|event| (event.id, event.region)));
        }
    };
    timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("events of {wanted:?} come"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_takes_over_from_a_lost_one_and_gives_back() {
    let World { us, eu, place } = World::new().await;
    let call = Call::internal();
    let ann = account(&us, &eu, "ann").await;
    us.users.update_settings(&call, "ann", blocking("before")).await.expect("written at home");
    // As if the region had been lost twenty minutes after its relay.
    let minute = i64::try_from(us.store.now_ms() / 60_000).expect("small") - 20;
    let marks =
        place.sessions[0].write("mark", "INSERT INTO users_outbox_marks (region, shard, minute) VALUES (?, ?, ?)");
    let (marks, times) = (marks.await.expect("prepared"), WriteClock::new(Default::default()));
    for shard in 0..4 {
        place.sessions[0].put(&marks, (&us.name, shard, minute), times.now()).await.expect("put");
    }
    let (folder, stop) = (tempfile::tempdir().expect("folder"), CancellationToken::new());
    let log = Arc::new(EmbeddedEventLog::new(Db::open(folder.path()).expect("open")));
    let relaying = {
        let (homes, log, stop) = (Arc::clone(eu.users.homes()), Arc::clone(&log), stop.clone());
        tokio::spawn(async move { relays(&homes, log.as_ref(), stop).await })
    };
    let refused = us.users.fail_over(&call, &us.name, &eu.name).await.expect_err("not asked of eu");
    assert_eq!(refused.kind, ErrorKind::FailedPrecondition, "{refused}");
    let refused = eu.users.fail_over(&call, "moon", &eu.name).await.expect_err("unknown");
    assert_eq!(refused.kind, ErrorKind::NotFound, "{refused}");
    let refused =
        eu.users.fail_over(&by(&ann, Role::Writer), &us.name, &eu.name).await.expect_err("ann is no operator");
    assert_eq!(refused.kind, ErrorKind::PermissionDenied, "{refused}");
    let remote = reached(eu.users.clone()).await.regions;
    let over = remote.fail_over(&call, &us.name, &eu.name).await.expect("taken over");
    assert_eq!((over.served_by.as_str(), over.epoch), (eu.name.as_str(), 1));
    assert!(over.newest_write.ms() >= ann.created_at_ms, "what has come is told: {over:?}");
    assert_eq!(eu.users.fail_over(&call, &us.name, &eu.name).await.expect("taken over before").epoch, 1);
    let refused = write_when_ready(&eu, "during").await;
    assert!(!refused.is_empty() && refused.iter().all(|fault| fault.kind == ErrorKind::Unavailable), "{refused:?}");
    // The lost one comes back, and looks.
    assert_eq!(us.users.list_regions(&call).await.expect("listed").len(), 2);
    us.users.update_settings(&call, "ann", blocking("from the lost one")).await.expect("passed on");

    given_out(&log, ann.id, [(&us.name, 2), (&eu.name, 2)]).await;
    let mark = place.sessions[1].read("mark", "SELECT minute FROM users_outbox_marks WHERE region = ? AND shard = ?");
    let mark = mark.await.expect("prepared");
    for shard in 0..4 {
        let left: Option<(i64,)> = place.sessions[1].one(&mark, (&us.name, shard)).await.expect("read");
        assert_eq!(left, Some((minute,)), "where the lost region goes on stays");
    }
    stop.cancel();
    relaying.await.expect("ended").expect("well");

    let refused = eu.users.fail_back(&call, &us.name).await.expect_err("not asked of us");
    assert_eq!(refused.kind, ErrorKind::FailedPrecondition, "{refused}");
    let remote = reached(us.users.clone()).await.regions;
    let back = remote.fail_back(&call, &us.name).await.expect("given back");
    assert_eq!((back.served_by.as_str(), back.epoch), (us.name.as_str(), 2));
    let refused = write_when_ready(&us, "after").await;
    assert!(!refused.is_empty(), "who gives back may not know yet");
    eu.users.list_regions(&call).await.expect("looked");
    eu.users.update_settings(&call, "ann", blocking("through eu")).await.expect("passed on");
    let told = written_in([&us, &eu], ann.id, 2).await;
    assert!(told.len() >= 2 && told.iter().all(|region| *region == us.name), "{told:?}");
    assert_eq!(us.users.get_settings(&call, "ann").await, Ok(blocking("through eu")));
}
