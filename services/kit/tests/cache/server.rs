//! A server of Redis or Valkey for a test: one that is installed, on a free port of the loopback interface.

use std::{
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use echotune_kit::{
    cache::{Cache as _, Codec, LocalCache, LocalLimits, RedisOptions, SharedTier, TieredCache},
    embedded::Db,
    keys::{EmbeddedSubjectKeys, HeldKeys, MasterKeys, SubjectKeys as _},
    telemetry::metrics::Meter,
};
use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};
use tokio_util::sync::CancellationToken;

/// Which programs are looked for.
const PROGRAMS: [&str; 2] = ["valkey-server", "redis-server"];
pub(crate) const PASSWORD: &str = "correct horse";
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// Longer than a busy machine takes for an answer.
pub(crate) const PATIENT: Duration = Duration::from_secs(30);

/// A server, which ends with the test.
pub(crate) struct Server {
    child: Option<Child>,
    program: &'static str,
    pub(crate) port: u16,
    pub(crate) folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port below those that Linux gives to whoever asks for any (`ip_local_port_range`, from 32768 on), so that nobody is
/// given it before the server has it, or while that is down.
fn free_port() -> u16 {
    let draw = || 10_000 + u16::try_from(uuid::Uuid::new_v4().as_u128() % 20_000).expect("small");
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(draw).take(1_000).find(is_free).expect("a free port")
}

/// The program that is started, where there is one.
pub(crate) fn installed() -> Option<&'static str> {
    PROGRAMS.into_iter().find(|program| Command::new(program).arg("--version").output().is_ok())
}

impl Server {
    /// A server that answers.
    ///
    /// # Panics
    /// None is installed: whoever runs these tests looks before.
    pub(crate) fn start() -> Self {
        let program = installed().expect("redis-server or valkey-server is installed");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("password"), format!("{PASSWORD}\n")).expect("written");
        let mut server = Self { child: None, program, port: free_port(), folder };
        server.again();
        server
    }

    /// Starts it, empty.
    pub(crate) fn again(&mut self) {
        let child = Command::new(self.program)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--requirepass", PASSWORD, "--dir"])
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("started");
        self.child = Some(child);
        let until = Instant::now() + LONG;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "{} answers", self.program);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// As by SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
    }

    /// Sends a signal, such as `STOP` or `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().expect("sent").success());
    }

    pub(crate) fn options(&self) -> RedisOptions {
        RedisOptions {
            host: "127.0.0.1".into(),
            port: self.port,
            authorities: None,
            username: String::new(),
            password_file: Some(self.password_file()),
            timeout: PATIENT,
            connect_timeout: PATIENT,
            time_to_live: LONG,
            wait: Duration::from_millis(100),
        }
    }

    pub(crate) fn password_file(&self) -> PathBuf {
        self.folder.path().join("password")
    }

    /// A connection of the test's own, which waits for as long as a busy machine takes.
    async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(format!("redis://:{}@127.0.0.1:{}", PASSWORD.replace(' ', "%20"), self.port));
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(LONG)).set_connection_timeout(Some(LONG));
        let connection = client.expect("a client").get_multiplexed_async_connection_with_config(&config).await;
        connection.expect("connected")
    }

    /// What the server holds of all subjects, as bytes.
    pub(crate) async fn holds(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut connection = self.connection().await;
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.expect("keys");
        let mut all = Vec::new();
        for key in keys {
            let fields: Vec<(Vec<u8>, Vec<u8>)> =
                redis::cmd("HGETALL").arg(&key).query_async(&mut connection).await.expect("a hash");
            all.extend(fields.into_iter().map(|(field, value)| ([&key[..], b" ", &field].concat(), value)));
        }
        all
    }

    /// How many ms the server keeps a subject for.
    pub(crate) async fn life_ms(&self, subject: &str) -> i64 {
        let mut connection = self.connection().await;
        let key = format!("echotune:cache:{subject}");
        redis::cmd("PTTL").arg(key).query_async(&mut connection).await.expect("a life")
    }
}

/// A process of a region: a cache over the server, and keys that all processes have.
pub(crate) struct Process {
    pub(crate) cache: TieredCache<String>,
    pub(crate) tier: SharedTier,
    stop: CancellationToken,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Keys by which values are sealed.
pub(crate) struct Keys {
    pub(crate) held: HeldKeys,
    _folder: tempfile::TempDir,
}

impl Keys {
    pub(crate) async fn of(subjects: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = EmbeddedSubjectKeys::new(Db::open(folder.path()).expect("open"), MasterKeys::new(&[[7; 32]]));
        let held = HeldKeys::new(Arc::new(keys), LONG);
        for subject in subjects {
            held.key(subject).await.expect("made");
        }
        Self { held, _folder: folder }
    }
}

impl Process {
    pub(crate) fn new(options: RedisOptions, keys: &Keys, format: u8) -> Self {
        let limits = LocalLimits { capacity: 1 << 20, time_to_live: LONG, time_to_idle: LONG };
        Self::within(limits, options, keys, format)
    }

    pub(crate) fn within(limits: LocalLimits, options: RedisOptions, keys: &Keys, format: u8) -> Self {
        let (tier, keeper) = SharedTier::new(options, &Meter::default()).expect("options that can be used");
        let stop = CancellationToken::new();
        tokio::spawn(keeper.run(stop.clone()));
        let local = LocalCache::new("test", limits, String::len, &Meter::default());
        let cache = TieredCache::new(local, tier.clone(), Codec { keys: keys.held.clone(), format });
        Self { cache, tier, stop }
    }

    /// One whose tier answers.
    pub(crate) async fn ready(options: RedisOptions, keys: &Keys) -> Self {
        let process = Self::new(options, keys, 1);
        process.used(true).await;
        process
    }

    /// Waits until the tier is used, or left alone.
    pub(crate) async fn used(&self, used: bool) {
        eventually("the tier is used or left alone", || async { self.tier.is_up() == used }).await;
    }

    pub(crate) async fn get(&self, subject: &str, source: &dyn Source) -> String {
        let key = echotune_kit::cache::Key::of(subject);
        self.cache.get_or_compute(key, Box::pin(source.read())).await.expect("read").as_str().to_owned()
    }

    pub(crate) async fn changed(&self, subject: &str) {
        self.cache.invalidate(subject, Duration::ZERO).await;
    }
}

/// The options of a process that waits for another for as long as it takes.
pub(crate) fn patient(server: &Server) -> RedisOptions {
    RedisOptions { wait: LONG, ..server.options() }
}

/// What values are read from.
#[async_trait]
pub(crate) trait Source: Send + Sync {
    async fn read(&self) -> Result<String, echotune_model::Fault>;
}

pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let until = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
