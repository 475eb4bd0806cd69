//! A service over a log, fed by events.

use std::{net::SocketAddr, sync::Arc};

use echotune_api::{
    ExperimentsClient, RecommendQuery, Recommendations, RecommendationsClient, TrainingClient,
    events::{Event, Payload, USERS_TOPIC},
    experiments_server, recommendations_server, training_server,
};
use echotune_eventlog::{EmbeddedEventLog, EventLog as _, Record};
use echotune_kit::{auth::Token, edge::Credentials, embedded::Db};
use echotune_model::{
    Call, EventId, Hlc, ItemKind, PlayCount, Principal, Recommendations as List, Role, Settings, Tagging, Tally, Track,
    UserId,
};
use echotune_recommendations::{
    EmbeddedRecommendationStore, Fitting, Policy, RecommendationsService, ReleaseLimits, consume,
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    transport::{Channel, Server},
};

pub(crate) const NOW: i64 = 1_700_000_000_000;

pub(crate) struct World {
    pub(crate) service: RecommendationsService,
    pub(crate) log: EmbeddedEventLog,
    pub(crate) db: Db,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn user(n: u128) -> UserId {
    UserId(uuid::Uuid::from_u128(n))
}

pub(crate) fn call() -> Call {
    Call::internal()
}

/// A call of a user by a token of that account.
pub(crate) fn call_of(n: u128, name: &str) -> Call {
    let name = name.parse().expect("a name");
    Call { principal: Principal::User { id: user(n), name, role: Role::Writer }, ..call() }
}

pub(crate) const fn query(kind: ItemKind, limit: u32) -> RecommendQuery {
    RecommendQuery { kind, limit, include_known: false }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(&Fitting::default())
    }

    /// A world that fits and keeps models as is told.
    pub(crate) fn with(fitting: &Fitting) -> Self {
        let world = Self::idle(fitting);
        tokio::spawn({
            let (service, log, stop) = (world.service.clone(), world.log.clone(), world.stop.clone());
            async move { consume(service, &log, stop).await.expect("consumed") }
        });
        world
    }

    /// A world that applies nothing by itself.
    pub(crate) fn stopped() -> Self {
        Self::idle(&Fitting::default())
    }

    fn idle(fitting: &Fitting) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let db = Db::open(folder.path()).expect("open");
        let log = EmbeddedEventLog::new(db.clone());
        let store = EmbeddedRecommendationStore::new(db.clone());
        let service = RecommendationsService::load_with(store, Policy::default(), ReleaseLimits::default(), fitting)
            .expect("loaded");
        Self { service, log, db, stop: CancellationToken::new(), _folder: folder }
    }

    /// Publishes and waits until it has been applied.
    pub(crate) async fn publish(&self, of: UserId, payloads: Vec<Payload>) {
        self.publish_all(payloads.into_iter().map(|payload| (of, payload)).collect()).await;
    }

    /// [`World::publish`] of many users.
    pub(crate) async fn publish_all(&self, payloads: Vec<(UserId, Payload)>) {
        let end = self.log.ends(USERS_TOPIC).await.expect("ends").next(USERS_TOPIC);
        let record = |(n, (of, payload)): (u64, (UserId, Payload))| {
            let written_at = Hlc::from_ms(end + n + 1);
            let id = EventId::of(&of.to_string(), written_at.0, 0);
            let event = Event { id, user: of, region: "test".into(), written_at, traceparent: String::new(), payload };
            Record { key: of.to_string(), value: event.encode(), ..Record::default() }
        };
        self.log.append(USERS_TOPIC, (0..).zip(payloads).map(record).collect()).await.expect("appended");
        self.service.caught_up(&self.log.ends(USERS_TOPIC).await.expect("ends")).await;
    }

    pub(crate) async fn join(&self, n: u128, name: &str, artists: &[&str]) -> UserId {
        let name = name.parse().expect("a name");
        let mut payloads = vec![Payload::UserCreated { name }];
        payloads.extend((!artists.is_empty()).then(|| played(artists, 1)));
        self.publish(user(n), payloads).await;
        user(n)
    }

    pub(crate) async fn list(&self, name: &str) -> List {
        self.service.recommend(&call(), name, &query(ItemKind::Artist, 50)).await.expect("recommended")
    }

    /// Clients of the service over loopback.
    pub(crate) async fn remote(&self) -> RecommendationsClient {
        self.remotes().await.0
    }

    pub(crate) async fn remotes(&self) -> (RecommendationsClient, ExperimentsClient) {
        let (channel, credentials) = self.served().await;
        let experiments = ExperimentsClient::new(channel.clone(), credentials.clone());
        (RecommendationsClient::new(channel, credentials), experiments)
    }

    /// A client of what is trained on elsewhere.
    pub(crate) async fn remote_training(&self) -> TrainingClient {
        let (channel, credentials) = self.served().await;
        TrainingClient::new(channel, credentials)
    }

    async fn served(&self) -> (Channel, Credentials) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address: SocketAddr = listener.local_addr().expect("address");
        let operator = |mut request: Request<()>| {
            request.extensions_mut().insert(Principal::Operator);
            Ok::<_, Status>(request)
        };
        let service = recommendations_server(Arc::new(self.service.clone()));
        let service = tonic::service::interceptor::InterceptedService::new(service, operator);
        let experiments = experiments_server(Arc::new(self.service.clone()));
        let experiments = tonic::service::interceptor::InterceptedService::new(experiments, operator);
        let stopped = self.stop.clone().cancelled_owned();
        let training = training_server(Arc::new(self.service.clone()));
        let training = tonic::service::interceptor::InterceptedService::new(training, operator);
        let server = Server::builder().add_service(service).add_service(experiments).add_service(training);
        tokio::spawn(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped));
        let channel = Channel::from_shared(format!("http://{address}")).expect("uri").connect().await.expect("connect");
        let folder = tempfile::tempdir().expect("folder");
        (channel, Credentials { token: Token::read_or_create(folder.path()).expect("token") })
    }
}

pub(crate) fn played(artists: &[&str], plays: u32) -> Payload {
    let tally = |artist: &&str| Tally {
        track: Track { title: format!("Song of {artist}"), artist: (*artist).into(), album: String::new() },
        plays,
        last_listened_at_ms: NOW,
        explicit: None,
    };
    Payload::HistoryChanged { tallies: artists.iter().map(tally).collect() }
}

pub(crate) fn counted(artist: &str, plays: u32, source: &str) -> Payload {
    Payload::PlayCountsSet { counts: vec![PlayCount { artist: artist.into(), plays, source: source.into() }] }
}

pub(crate) fn tagged(artist: &str, tag: &str) -> Payload {
    Payload::TaggingsAdded { taggings: vec![Tagging { artist: artist.into(), tag: tag.into(), tagged_at_ms: 0 }] }
}

pub(crate) fn settings(blocked: &[&str], private: bool) -> Payload {
    let blocked_artists = blocked.iter().map(ToString::to_string).collect();
    Payload::SettingsChanged { settings: Settings { blocked_artists, private, ..Settings::default() } }
}

pub(crate) fn artists(list: &List) -> Vec<&str> {
    list.items.iter().map(|item| item.artist.as_str()).collect()
}

/// Asserts that the reasons of every item are its score.
pub(crate) fn assert_sums(list: &List) {
    for item in &list.items {
        let sum = item.base + item.reasons.iter().map(|reason| reason.contribution).sum::<f64>();
        assert!((sum - item.score).abs() < 1e-5, "{item:?}");
    }
    assert!(list.items.windows(2).all(|pair| pair[0].score >= pair[1].score), "{list:?}");
}
