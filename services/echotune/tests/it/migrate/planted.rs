//! A destination with planted faults, behind gRPC.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use echotune::{Connection, Platform, migrate::Destination};
use echotune_api::{Recommendations, RecommendationsClient, Users, UsersClient, recommendations_server, users_server};
use echotune_kit::{
    auth::Token,
    edge::{Credentials, Edge, Patience},
    telemetry::SpanStore,
};
use echotune_model::{
    ApiToken, Call, ErasureReceipt, ErrorKind, ExportRecord, Fault, HistoryEntry, ItemId, LibraryEntry, Listen,
    ListenReceipt, NewPlaylist, NewToken, Page, PageRequest, PlayCount, Playlist, PlaylistId, Principal, Profile,
    Settings, Tagging, TokenId, Track, User, UserId,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, time::sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// Nothing.
    Nothing,
    /// The next batch of listens is acknowledged and not written.
    Dropped,
    /// The next batch of listens is written twice, the second time a second later.
    Doubled,
    /// The next batch of listens is written without its sources.
    Altered,
    /// Each write is refused in passing at first, made and not answered when it comes again, and answered after that.
    Shaky,
    /// Writes from this one on take so long that whoever makes them can be met in the middle of it.
    SlowFrom(u64),
}

#[derive(Clone)]
struct Faulty {
    inner: Arc<dyn Users>,
    planted: Arc<Mutex<Planted>>,
    writes: Arc<AtomicU64>,
    /// How often each write came, by its key: by their number alone one of many at once could be refused each time.
    tries: Arc<Mutex<HashMap<String, u64>>>,
}

impl Faulty {
    fn planted(&self) -> Planted {
        *self.planted.lock().expect("lock")
    }

    /// Takes a fault that happens once.
    fn once(&self) -> Planted {
        let mut planted = self.planted.lock().expect("lock");
        match *planted {
            Planted::Dropped | Planted::Doubled | Planted::Altered => std::mem::replace(&mut planted, Planted::Nothing),
            lasting => lasting,
        }
    }

    /// How often a write has come, this time included.
    fn tries(&self, call: &Call) -> u64 {
        let mut tries = self.tries.lock().expect("lock");
        let tried = tries.entry(call.idempotency_key.clone()).or_default();
        *tried += 1;
        *tried
    }

    /// Makes a write, as well as is planted.
    async fn write<T>(&self, call: &Call, write: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        match (self.planted(), self.tries(call)) {
            (Planted::Shaky, 1) => Err(Fault::new(ErrorKind::Unavailable, "not now")),
            (Planted::Shaky, 2) => {
                write.await?;
                Err(Fault::new(ErrorKind::Indeterminate, "nobody knows"))
            }
            (Planted::SlowFrom(first), _) if number >= first => {
                sleep(Duration::from_secs(3)).await;
                write.await
            }
            _ => write.await,
        }
    }
}

macro_rules! passed_on {
    (reads { $($read:ident($($what:ident: $of:ty),*) -> $told:ty;)* }
     writes { $($write:ident($($value:ident: $kind:ty),*) -> $answer:ty;)* }) => {
        #[async_trait]
        impl Users for Faulty {
            $(async fn $read(&self, call: &Call, $($what: $of),*) -> Result<$told, Fault> {
                self.inner.$read(call, $($what),*).await
            })*
            $(async fn $write(&self, call: &Call, $($value: $kind),*) -> Result<$answer, Fault> {
                self.write(call, self.inner.$write(call, $($value),*)).await
            })*

            async fn authenticate(&self, secret: &str) -> Result<Principal, Fault> {
                self.inner.authenticate(secret).await
            }

            async fn record_listens(
                &self,
                call: &Call,
                user: &str,
                listens: Vec<Listen>,
            ) -> Result<ListenReceipt, Fault> {
                let recorded = u32::try_from(listens.len()).expect("a batch");
                let write = |listens| self.write(call, self.inner.record_listens(call, user, listens));
                match self.once() {
                    Planted::Dropped => Ok(ListenReceipt { recorded, ..ListenReceipt::default() }),
                    Planted::Doubled => {
                        let later = |one: &Listen| Listen { listened_at_ms: one.listened_at_ms + 1_000, ..one.clone() };
                        let again = listens.iter().map(later).collect();
                        let unkeyed = Call { idempotency_key: String::new(), ..call.clone() };
                        self.inner.record_listens(&unkeyed, user, again).await?;
                        write(listens).await
                    }
                    Planted::Altered => {
                        let altered = |one: Listen| Listen { source: String::new(), ..one };
                        write(listens.into_iter().map(altered).collect()).await
                    }
                    Planted::Nothing | Planted::Shaky | Planted::SlowFrom(_) => write(listens).await,
                }
            }
        }
    };
}

passed_on! {
    reads {
        get_user(name: &str) -> User;
        list_users(page: &PageRequest) -> Page<User>;
        get_profile(user: &str) -> Profile;
        get_settings(user: &str) -> Settings;
        list_listens(user: &str, page: &PageRequest) -> Page<HistoryEntry>;
        list_friends(user: &str, page: &PageRequest) -> Page<String>;
        list_library(user: &str, page: &PageRequest) -> Page<LibraryEntry>;
        get_playlist(id: PlaylistId) -> Playlist;
        list_playlists(user: &str, page: &PageRequest) -> Page<Playlist>;
        list_tokens(user: &str) -> Vec<ApiToken>;
        export_user(user: &str, page: &PageRequest) -> Page<ExportRecord>;
        counts() -> BTreeMap<String, u64>;
        find_user(id: UserId) -> User;
    }
    writes {
        create_user(name: &str) -> User;
        update_profile(user: &str, profile: Profile) -> Profile;
        update_settings(user: &str, settings: Settings) -> Settings;
        set_play_counts(user: &str, counts: Vec<PlayCount>) -> ListenReceipt;
        add_taggings(user: &str, taggings: Vec<Tagging>) -> ListenReceipt;
        add_friends(user: &str, friends: Vec<String>) -> ListenReceipt;
        add_to_library(user: &str, tracks: Vec<Track>) -> ListenReceipt;
        remove_from_library(user: &str, track: ItemId) -> bool;
        create_playlist(user: &str, playlist: NewPlaylist) -> Playlist;
        update_playlist(id: PlaylistId, playlist: NewPlaylist) -> Playlist;
        delete_playlist(id: PlaylistId) -> bool;
        create_token(user: &str, token: NewToken) -> (ApiToken, String);
        revoke_token(user: &str, token: TokenId) -> bool;
        erase_user(user: &str) -> ErasureReceipt;
        restore_user(user: User) -> (User, bool);
        restore_library(user: &str, entries: Vec<LibraryEntry>) -> ListenReceipt;
        restore_playlist(user: &str, playlist: Playlist) -> bool;
        restore_token(user: &str, token: ApiToken, hash: &str) -> bool;
    }
}

/// A platform over a folder of its own, reached over gRPC alone.
pub(crate) struct There {
    platform: Platform,
    planted: Arc<Mutex<Planted>>,
    writes: Arc<AtomicU64>,
    pub(crate) address: SocketAddr,
    pub(crate) destination: Destination,
    folder: TempDir,
}

impl There {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let token = Token::read_or_create(folder.path()).expect("token");
        let platform = Platform::open(folder.path(), SpanStore::default()).expect("open");
        let planted = Arc::new(Mutex::new(Planted::Nothing));
        let writes = Arc::new(AtomicU64::new(0));
        let inner = Arc::clone(&platform.users);
        let (planted_there, counted) = (Arc::clone(&planted), Arc::clone(&writes));
        let users = Arc::new(Faulty { inner, planted: planted_there, writes: counted, tries: Arc::default() });
        let recommendations: Arc<dyn Recommendations> = Arc::clone(&platform.recommendations);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address");
        let patience = Patience { default: Duration::from_secs(30), max: Duration::from_secs(120) };
        let server = Server::builder()
            .layer(Edge::new(token.clone(), None, patience))
            .add_service(users_server(users))
            .add_service(recommendations_server(recommendations));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let channel = Endpoint::from_shared(format!("http://{address}")).expect("endpoint").connect_lazy();
        let credentials = Credentials { token };
        let destination = Destination {
            users: Arc::new(UsersClient::new(channel.clone(), credentials.clone())),
            recommendations: Arc::new(RecommendationsClient::new(channel, credentials)),
        };
        Self { platform, planted, writes, address, destination, folder }
    }

    pub(crate) fn plant(&self, planted: Planted) {
        *self.planted.lock().expect("lock") = planted;
    }

    /// Writes that were asked for so far.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    pub(crate) fn users(&self) -> &Arc<dyn Users> {
        &self.platform.users
    }

    pub(crate) async fn settle(&mut self) {
        self.platform.settle().await.expect("settled");
    }

    pub(crate) fn recommendations(&self) -> &Arc<dyn Recommendations> {
        &self.platform.recommendations
    }
}

/// A folder that was used and left.
pub(crate) async fn left(folder: &Path, connection: Connection) -> Vec<u8> {
    connection.close().await.expect("closed");
    store(folder)
}

/// The bytes of the store of a folder.
pub(crate) fn store(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("echotune.redb")).expect("a store")
}
