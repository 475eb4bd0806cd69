//! What gateways and the operator tell each other, over connections on the loopback.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use echotune_api::demand::{
    ClassDemand, Demand, DemandClient, DemandStreams, Effect, Endpoint, Era, Hello, PodDemand, RegionRoom, Report,
    Reports, Served, ServerDemand, Sessions, Spill, Update, Updates, demand_server,
};
use echotune_kit::{
    auth::Token,
    edge::{Credentials, Edge, Patience},
};
use echotune_model::{Call, ErrorKind, Fault};
use futures::{StreamExt as _, stream};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Endpoint as Address, Server};

const TOKEN: &str = "a token of the platform, long enough";

/// Tells each gateway of one server, keeps what it reports, and ends when the reports do.
struct Operator {
    reports: mpsc::Sender<(Hello, Report)>,
    update: Update,
    leads: bool,
}

#[async_trait]
impl Demand for Operator {
    async fn exchange(&self, call: &Call, hello: Hello, reports: Reports) -> Result<Updates, Fault> {
        call.may_operate()?;
        if !self.leads {
            return Err(Fault::new(ErrorKind::Unavailable, "this one does not lead"));
        }
        let seen = self.reports.clone();
        let taken = reports.then(move |report| {
            let (seen, hello) = (seen.clone(), hello.clone());
            async move { seen.send((hello, report)).await.expect("the test looks at it") }
        });
        let first = stream::iter([Ok(self.update.clone())]);
        Ok(first.chain(taken.map(|()| Ok(Update::default()))).boxed())
    }
}

fn served() -> Served {
    Served {
        server: "music/search".parse().expect("a server"),
        route: "search".parse().expect("a route"),
        era: Era::Modern,
        sessions: Sessions::OnPod,
        effects: BTreeMap::from([
            ("find".to_owned(), Effect::Reads),
            ("put".to_owned(), Effect::Idempotent),
            ("pay".to_owned(), Effect::Once),
        ]),
        trust_annotations: true,
        forward_caller: true,
        calls_per_pod: 4,
        classes: BTreeMap::from([("find".to_owned(), 1)]),
        endpoints: vec![Endpoint { pod: "search-1".into(), url: "http://10.1.0.7:8080/mcp".into(), draining: true }],
        wakes: true,
        wake_ms: 30_000,
        reason: "1 pod to serve".into(),
        spill: vec![Spill { region: "eu".into(), permille: 250 }],
        tls: true,
    }
}

fn told() -> Update {
    let removed = vec!["music/old".parse().expect("a server")];
    Update { servers: vec![served()], removed, complete: true, shards: 0 }
}

fn demand(server: &str) -> ServerDemand {
    let class = ClassDemand { in_flight: 1, queued: 2, oldest_queued_ms: 3, arrivals: 4, busy_ms: 5 };
    let pod = PodDemand { pod: "search-1".into(), sessions: 6, in_flight: 7, calls_end_ms: Some(1_764_460_799_123) };
    let server = server.parse().expect("a server");
    let regions = vec![RegionRoom { region: "eu".into(), spare_calls: 10, round_trip_ms: 11 }];
    ServerDemand { server, classes: vec![class], cold_calls: 8, sessions: 9, pods: vec![pod], regions }
}

fn report(servers: &[&str]) -> Report {
    Report { time_ms: 1_764_460_799_001, servers: servers.iter().map(|name| demand(name)).collect() }
}

fn hello(gateway: &str) -> Hello {
    Hello { gateway: gateway.into(), region: "us".into(), incarnation: u64::MAX, shard: 0, shards: 1 }
}

async fn serve(leads: bool) -> (DemandClient, mpsc::Receiver<(Hello, Report)>) {
    let (reports, seen) = mpsc::channel(16);
    (serve_with(Operator { reports, update: told(), leads }).await, seen)
}

async fn serve_with(operator: Operator) -> DemandClient {
    let operator = Arc::new(operator);
    let listener = TcpListener::bind::<SocketAddr>("127.0.0.1:0".parse().expect("address")).await.expect("bound");
    let address = listener.local_addr().expect("address");
    let patience = Patience { default: Duration::from_secs(30), max: Duration::from_secs(60) };
    let token = Token::from(TOKEN.to_owned());
    let edge = Edge::new(token.clone(), None, patience);
    let server = Server::builder().layer(edge).add_service(demand_server(operator, DemandStreams::default()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let channel = Address::from_shared(format!("http://{address}")).expect("endpoint").connect().await;
    DemandClient::new(channel.expect("connected"), Credentials { token })
}

/// A stream of a gateway: what it can send by, and what it is told.
async fn open(client: &DemandClient, gateway: &str) -> (mpsc::Sender<Report>, Updates) {
    open_as(client, hello(gateway)).await
}

async fn open_as(client: &DemandClient, hello: Hello) -> (mpsc::Sender<Report>, Updates) {
    let (send, reports) = mpsc::channel(4);
    let reports = ReceiverStream::new(reports).boxed();
    let mut updates = client.exchange(&Call::internal(), hello, reports).await.expect("taken");
    assert_eq!(next(&mut updates).await, Some(Ok(told())), "every field comes as it was sent");
    (send, updates)
}

async fn next(updates: &mut Updates) -> Option<Result<Update, Fault>> {
    timeout(Duration::from_secs(30), updates.next()).await.expect("an answer")
}

#[tokio::test]
async fn reports_and_updates_come_whole_until_the_gateway_ends() {
    let (client, mut seen) = serve(true).await;
    let (send, mut updates) = open(&client, "gateway-1").await;
    for servers in [&["music/search", "music/other"][..], &[]] {
        send.send(report(servers)).await.expect("open");
        assert_eq!(seen.recv().await, Some((hello("gateway-1"), report(servers))));
        assert_eq!(next(&mut updates).await, Some(Ok(Update::default())));
    }
    drop(send);
    assert_eq!(next(&mut updates).await, None);
}

#[tokio::test]
async fn the_newest_stream_of_a_replica_is_the_one_that_counts() {
    let (client, _seen) = serve(true).await;
    let (_older, mut before) = open(&client, "gateway-1").await;
    let (_other, mut beside) = open(&client, "gateway-2").await;
    let (newer, mut updates) = open(&client, "gateway-1").await;
    let ended = next(&mut before).await.expect("told").expect_err("ended");
    assert_eq!(ended.kind, ErrorKind::FailedPrecondition);
    assert!(ended.message.contains("another stream"), "{ended}");
    assert_eq!(next(&mut before).await, None);
    newer.send(report(&["music/search"])).await.expect("open");
    assert_eq!(next(&mut updates).await, Some(Ok(Update::default())), "the place of the newer one stays");
    let quiet = timeout(Duration::from_millis(50), beside.next()).await;
    assert!(quiet.is_err(), "the other replica hears nothing of it: {quiet:?}");
}

#[tokio::test]
async fn a_replica_has_a_stream_for_each_shard() {
    let (client, mut seen) = serve(true).await;
    let of = |shard| Hello { shard, shards: 64, ..hello("gateway-1") };
    let (first, mut updates) = open_as(&client, of(0)).await;
    let (last, mut others) = open_as(&client, of(63)).await;
    for (send, updates, hello) in [(&first, &mut updates, of(0)), (&last, &mut others, of(63))] {
        send.send(report(&["music/search"])).await.expect("open");
        assert_eq!(seen.recv().await, Some((hello, report(&["music/search"]))));
        assert_eq!(next(updates).await, Some(Ok(Update::default())), "neither ended the other");
    }
    let (_newer, _updates) = open_as(&client, of(63)).await;
    assert!(next(&mut others).await.expect("told").is_err(), "its place is taken");
}

#[tokio::test]
async fn a_gateway_is_told_how_many_shards_there_are() {
    let (reports, _seen) = mpsc::channel(16);
    let told = async |shards| {
        let update = Update { shards, ..Update::default() };
        let client = serve_with(Operator { reports: reports.clone(), update, leads: true }).await;
        let updates = client.exchange(&Call::internal(), hello("gateway-1"), stream::pending().boxed()).await;
        next(&mut updates.expect("taken")).await.expect("told")
    };
    assert_eq!(told(64).await, Ok(Update { shards: 64, ..Update::default() }));
    let ended = told(65).await.expect_err("more than there may be");
    assert!(ended.message.contains("64 shards"), "{ended}");
}

#[tokio::test]
async fn what_is_out_of_its_bounds_ends_the_stream_and_is_named() {
    let (client, _seen) = serve(true).await;
    let mut twice = report(&["music/search"]);
    let pod = twice.servers[0].pods[0].clone();
    twice.servers[0].pods.push(pod);
    let mut far = report(&["music/search"]);
    let room = far.servers[0].regions[0].clone();
    far.servers[0].regions.push(room);
    let mut classes = report(&["music/search"]);
    classes.servers[0].classes = vec![ClassDemand::default(); 9];
    let mut unnamed = report(&["music/search"]);
    unnamed.servers[0].pods[0].pod.clear();
    let many: Vec<_> = (0..10_001).map(|number| format!("m/s{number}")).collect();
    let mut many = report(&many.iter().map(String::as_str).collect::<Vec<_>>());
    many.servers.iter_mut().for_each(|server| server.pods.clear());
    let wrong = [
        (report(&["music/a", "music/a"]), "'music/a' is named twice"),
        (twice, "'search-1' is named twice"),
        (far, "'eu' is named twice"),
        (classes, "are 9, and may be 8"),
        (unnamed, "is no name"),
        (many, "are 10001, and may be 10000"),
    ];
    for (at, (wrong, told)) in wrong.into_iter().enumerate() {
        let (send, mut updates) = open(&client, &format!("gateway-{at}")).await;
        send.send(wrong).await.expect("open");
        let ended = next(&mut updates).await.expect("told").expect_err("ended");
        assert_eq!(ended.kind, ErrorKind::InvalidArgument, "{ended}");
        assert!(ended.message.contains(told), "{ended} does not say '{told}'");
    }
    let nobody = Hello { gateway: String::new(), ..hello("") };
    let nowhere = Hello { shard: 2, shards: 2, ..hello("gateway-1") };
    let too_many = Hello { shard: 0, shards: 65, ..hello("gateway-1") };
    for wrong in [nobody, nowhere, too_many] {
        let refused = client.exchange(&Call::internal(), wrong.clone(), stream::pending().boxed()).await;
        assert_eq!(refused.err().map(|fault| fault.kind), Some(ErrorKind::InvalidArgument), "{wrong:?}");
    }
}

#[tokio::test]
async fn an_operator_that_does_not_lead_says_so() {
    let (client, _seen) = serve(false).await;
    let refused = client.exchange(&Call::internal(), hello("gateway-1"), stream::pending().boxed()).await;
    assert_eq!(refused.err().map(|fault| fault.kind), Some(ErrorKind::Unavailable));
}

#[test]
fn names_of_servers_and_routes_are_those_of_kubernetes() {
    use echotune_api::demand::{RouteName, ServerName};
    let server: ServerName = "music/search.v2".parse().expect("a server");
    assert_eq!((server.namespace(), server.name()), ("music", "search.v2"));
    // As it is written down for all who part servers: a change would have two lead one of them.
    assert_eq!([1, 2, 7, 64].map(|of| server.shard(of)), [0, 1, 1, 13]);
    for wrong in ["", "search", "/search", "music/", "Music/search", "music/a/b", "music/-a", "mu.sic/a", "m/a..b"] {
        assert!(wrong.parse::<ServerName>().is_err(), "{wrong}");
    }
    assert_eq!("a-1".parse::<RouteName>().map(|route| route.to_string()), Ok("a-1".to_owned()));
    for wrong in ["", "-a", "a-", "a--b", "A", "a_b", "a.b", &"a".repeat(33)] {
        assert!(wrong.parse::<RouteName>().is_err(), "{wrong}");
    }
}
