//! The way to a server of Redis or Valkey: one connection that all callers share, looked after by a task of its own.
//!
//! A caller never waits for a connection. When there is none, or the server does not answer in time a few times in a row,
//! the tier is left alone: callers go on without it at once, and the keeper tries again after a pause that grows. It comes
//! back when the server has answered the keeper, so that no caller is spent on finding out.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, RedisError, Value, aio::MultiplexedConnection};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{Notify, Semaphore},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, crypto::ring, pki_types::ServerName},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Secret,
    telemetry::metrics::{self, Counter, Gauge, Meter},
    tls::authorities,
};

/// Requests under way at the most; what comes beyond them goes on without this tier.
const IN_FLIGHT: usize = 256;
/// Failures in a row after which the server is left alone.
const FAILURES: u32 = 3;
/// How long it is left alone first, and at the most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// For how long a connection must have lasted to start again with the first pause.
const STEADY: Duration = Duration::from_secs(30);
/// How often it is told what it could not be told before.
const AGAIN: Duration = Duration::from_secs(1);
/// Subjects that the server is to be told of once it is back, at the most.
const UNTOLD: usize = 10_000;
/// Longest password, in bytes.
const MAX_PASSWORD_BYTES: u64 = 4_096;
/// How metrics name this tier.
pub(super) const TIER: &str = "shared";

/// Where the server is, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisOptions {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// PEM file of the authorities of its certificate, to speak TLS.
    pub authorities: Option<PathBuf>,
    /// Who one is there; empty for its default user.
    pub username: String,
    /// File with the password, which is read for each connection.
    pub password_file: Option<PathBuf>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How long a connection may take with all its handshakes.
    pub connect_timeout: Duration,
    /// For how long it keeps a value.
    pub time_to_live: Duration,
    /// How long one waits for a value that another process is making.
    pub wait: Duration,
}

/// Why the server did not do what was asked.
#[derive(Debug, Error)]
pub(super) enum ServerError {
    /// It is left alone.
    #[error("the shared cache is left alone for a while")]
    Away,
    /// Too many requests are under way.
    #[error("{IN_FLIGHT} requests to the shared cache are under way")]
    Full,
    /// It did not answer in time.
    #[error("the shared cache did not answer in time")]
    Late,
    /// It answered otherwise, or the connection broke.
    #[error("the shared cache: {0}")]
    Failed(RedisError),
}

impl ServerError {
    const fn word(&self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Full => "full",
            Self::Late => "late",
            Self::Failed(_) => "failed",
        }
    }
}

/// A connection, with the task that reads from it.
struct Up {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
}

impl Drop for Up {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The tier that processes of a region share. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct SharedTier {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) options: RedisOptions,
    up: ArcSwapOption<Up>,
    failures: AtomicU32,
    lost: Notify,
    in_flight: Arc<Semaphore>,
    /// Subjects whose values it could not be told to forget, with when and for how long nothing was to be kept.
    untold: Mutex<BTreeMap<String, (Instant, Duration)>>,
    pub(super) asked: Counter,
    errors: Counter,
    open: Gauge,
}

impl fmt::Debug for SharedTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RedisOptions { host, port, .. } = &self.inner.options;
        let at = format_args!("{host}:{port}").to_string();
        f.debug_struct("SharedTier").field("at", &at).field("is_up", &self.is_up()).finish_non_exhaustive()
    }
}

/// Looks after the connection of a [`SharedTier`].
#[derive(Debug)]
pub struct Keeper {
    tier: SharedTier,
    tls: Option<Arc<ClientConfig>>,
}

impl SharedTier {
    /// The tier on a server, and what connects to it once it is run. Nothing is asked of the server before.
    ///
    /// # Errors
    /// The file of authorities cannot be read or holds none.
    pub fn new(options: RedisOptions, meter: &Meter) -> Result<(Self, Keeper), crate::process::Failure> {
        let tls = options.authorities.as_deref().map(client).transpose()?;
        let inner = Inner {
            options,
            up: ArcSwapOption::empty(),
            failures: AtomicU32::new(0),
            lost: Notify::new(),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
            untold: Mutex::default(),
            asked: meter.counter(metrics::CACHE_LOOKUPS),
            errors: meter.counter(metrics::CACHE_ERRORS),
            open: meter.gauge(metrics::CACHE_LEFT_ALONE),
        };
        let tier = Self { inner: Arc::new(inner) };
        Ok((tier.clone(), Keeper { tier, tls }))
    }

    /// Whether the server answered when it was last asked.
    pub fn is_up(&self) -> bool {
        self.inner.up.load().is_some()
    }

    /// Asks the server, if it is not left alone. Takes `timeout` at the most.
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, ServerError> {
        let asked = self.try_ask(command).await;
        if let Err(cause) = &asked {
            self.inner.errors.add(1, &[("tier", TIER), ("cause", cause.word())]);
        }
        asked
    }

    async fn try_ask(&self, command: &Cmd) -> Result<Value, ServerError> {
        let up = self.inner.up.load_full().ok_or(ServerError::Away)?;
        let _place = self.inner.in_flight.try_acquire().map_err(|_| ServerError::Full)?;
        let asked = timeout(self.inner.options.timeout, query(&up.connection, command)).await;
        match asked {
            Ok(Ok(value)) => {
                self.inner.failures.store(0, Relaxed);
                Ok(value)
            }
            Ok(Err(cause)) => {
                self.failed(&up, cause.is_unrecoverable_error());
                Err(ServerError::Failed(cause))
            }
            Err(_) => {
                self.failed(&up, false);
                Err(ServerError::Late)
            }
        }
    }

    /// Takes note of a failure; leaves the server alone after some in a row, and at once when the connection is gone.
    fn failed(&self, up: &Arc<Up>, is_gone: bool) {
        if self.inner.failures.fetch_add(1, Relaxed) + 1 < FAILURES && !is_gone {
            return;
        }
        // Of many that fail at once, one takes away the connection that they failed on.
        let before = self.inner.up.compare_and_swap(up, None);
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, up)) {
            self.inner.lost.notify_one();
        }
    }

    fn untold(&self) -> MutexGuard<'_, BTreeMap<String, (Instant, Duration)>> {
        self.inner.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the server told of an invalidation once it is back. What it has ends anyway: of more subjects than fit, that
    /// is what their values wait for.
    pub(super) fn tell_later(&self, subject: &str, hold: Duration) {
        let mut untold = self.untold();
        if untold.len() < UNTOLD || untold.contains_key(subject) {
            untold.insert(subject.to_owned(), (Instant::now(), hold));
        }
    }
}

async fn query(connection: &MultiplexedConnection, command: &Cmd) -> Result<Value, RedisError> {
    command.query_async(&mut connection.clone()).await
}

/// Trusts the authorities of a file. Who asks shows no certificate but a password.
fn client(file: &Path) -> Result<Arc<ClientConfig>, crate::process::Failure> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.with_root_certificates(authorities(file)?);
    Ok(Arc::new(builder.with_no_client_auth()))
}

fn password(file: &Path) -> io::Result<Secret> {
    let mut text = String::new();
    std::fs::File::open(file)?.take(MAX_PASSWORD_BYTES + 1).read_to_string(&mut text)?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() || text.len() as u64 > MAX_PASSWORD_BYTES {
        let why = format!("{} holds no password of 1 to {MAX_PASSWORD_BYTES} bytes", file.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(text.to_owned().into())
}

impl Keeper {
    /// Connects, and again whenever the connection is gone, until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut pause = PAUSES.0;
        let mut told = String::new();
        loop {
            let since = Instant::now();
            let RedisOptions { host, port, connect_timeout, .. } = &self.tier.inner.options;
            let connected = tokio::select! {
                () = stop.cancelled() => return,
                connected = timeout(*connect_timeout, self.connect()) => connected,
            };
            let cause = match connected {
                Ok(Ok(up)) => {
                    tracing::info!(host, port, "the shared cache is used");
                    told.clear();
                    let up = self.up(up);
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = self.watch(&up) => "it does not answer".to_owned(),
                    }
                }
                Ok(Err(cause)) => cause.to_string(),
                Err(_) => "no connection was made in time".to_owned(),
            };
            self.tier.inner.open.record(1.0, &[("tier", TIER)]);
            if cause != told {
                tracing::warn!(host, port, cause, "the shared cache is left alone, and answers are made without it");
                told = cause;
            }
            pause = if since.elapsed() > STEADY { PAUSES.0 } else { pause };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn up(&self, up: Up) -> Arc<Up> {
        let up = Arc::new(up);
        self.tier.inner.failures.store(0, Relaxed);
        self.tier.inner.up.store(Some(Arc::clone(&up)));
        self.tier.inner.open.record(0.0, &[("tier", TIER)]);
        up
    }

    /// Until the connection is gone: tells the server what a late answer left in doubt.
    async fn watch(&self, up: &Arc<Up>) {
        loop {
            tokio::select! {
                () = self.tier.inner.lost.notified() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
            let told = timeout(self.tier.inner.options.connect_timeout, self.make_up_for(&up.connection)).await;
            if !matches!(told, Ok(Ok(()))) {
                self.tier.failed(up, true);
            }
        }
    }

    async fn connect(&self) -> Result<Up, crate::process::Failure> {
        let RedisOptions { host, port, .. } = &self.tier.inner.options;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        let up = match &self.tls {
            None => self.greet(stream).await?,
            Some(tls) => {
                let name = ServerName::try_from(host.clone())?;
                self.greet(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?).await?
            }
        };
        self.make_up_for(&up.connection).await?;
        Ok(up)
    }

    async fn greet(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Up, crate::process::Failure> {
        let RedisOptions { username, password_file, .. } = &self.tier.inner.options;
        let mut who = RedisConnectionInfo::default().set_skip_set_lib_name();
        if !username.is_empty() {
            who = who.set_username(username);
        }
        if let Some(file) = password_file.clone() {
            let secret = tokio::task::spawn_blocking(move || password(&file)).await??;
            who = who.set_password(secret.reveal().unwrap_or_default());
        }
        // Time is bounded here, so that it is told apart from other failures.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let (connection, driver) = MultiplexedConnection::new_with_config(&who, stream, config).await?;
        let up = Up { connection, driver: tokio::spawn(driver) };
        query(&up.connection, &redis::cmd("PING")).await?;
        Ok(up)
    }

    /// Tells the server what it could not be told before anybody looks at what it has.
    async fn make_up_for(&self, connection: &MultiplexedConnection) -> Result<(), RedisError> {
        loop {
            let next = self.tier.untold().iter().next().map(|(subject, told)| (subject.clone(), *told));
            let Some((subject, (since, hold))) = next else { return Ok(()) };
            // What it had of this subject has ended meanwhile.
            if since.elapsed() < super::shared::doubt(&self.tier.inner.options) {
                query(connection, &super::shared::forget(&subject, hold)).await?;
            }
            let mut untold = self.tier.untold();
            // Unless it changed again meanwhile.
            if untold.get(&subject).is_some_and(|told| told.0 == since) {
                untold.remove(&subject);
            }
        }
    }
}
