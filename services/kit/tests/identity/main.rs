//! Callers that are known by JWTs, as an edge meets them, with an issuer on this machine.

mod algorithms;
mod claims;
mod issuer;
mod keys;
mod remembered;
mod secure;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use echotune_kit::{
    auth::{Accounts, Authenticator, Callers, Token},
    config::Period,
    lifecycle::{Life, Patience},
    process::{DEFAULTS, IdentityConfig, Settings},
    telemetry::metrics::Meter,
};
use echotune_model::{ErrorKind, Fault, Principal, Role, User, UserId, UserName};
use http::{HeaderMap, header::AUTHORIZATION};

use self::issuer::{Issuer, Key};

/// How long after a look callers make for another.
const AGAIN: Duration = Duration::from_secs(60);

/// Lets this time go by for looks, at once. Needs a runtime of one thread.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// The account that everybody has here whose name does not begin with `nobody`.
fn id() -> UserId {
    "01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("an id")
}

/// Accounts, which count how often they were asked for.
#[derive(Default)]
struct World(AtomicUsize);

#[async_trait]
impl Accounts for World {
    async fn account(&self, name: &UserName) -> Result<User, Fault> {
        self.0.fetch_add(1, Ordering::SeqCst);
        match name.as_str() {
            name if name.starts_with("nobody") => Err(Fault::new(ErrorKind::NotFound, "nobody")),
            "away" => Err(Fault::new(ErrorKind::Unavailable, "users do not answer")),
            _ => Ok(User { id: id(), name: name.folded().parse()?, created_at_ms: 0 }),
        }
    }
}

/// Users' tokens, of which there is one.
struct Tokens;

#[async_trait]
impl Authenticator for Tokens {
    async fn principal(&self, secret: &str) -> Result<Principal, Fault> {
        if secret == "etk_ben" {
            return Ok(user("ben", Role::Reader));
        }
        Err(Fault::new(ErrorKind::Unauthenticated, "the token is unknown"))
    }
}

fn user(name: &str, role: Role) -> Principal {
    Principal::User { id: id(), name: name.parse().expect("a name"), role }
}

/// The settings of an issuer, with times that no test reaches but by [`pass`].
fn settings(issuer: &str) -> Settings {
    let text = format!("listen = \"127.0.0.1:0\"\nallow_plaintext = false\n{DEFAULTS}");
    let mut settings: Settings = toml::from_str(&text).expect("defaults that are read");
    settings.identity = IdentityConfig {
        issuer: issuer.to_owned(),
        audiences: vec!["echotune".into()],
        ask_again_after: Period(AGAIN),
        fetch_timeout: Period(Duration::from_secs(30)),
        ..settings.identity
    };
    settings
}

/// An edge that knows callers.
struct Edge {
    callers: Callers,
    world: Arc<World>,
    _life: Life,
}

impl Edge {
    async fn of(settings: &Settings) -> Self {
        Self::try_of(settings).await.expect("started")
    }

    async fn try_of(settings: &Settings) -> Result<Self, String> {
        let mut life = Life::new(Patience { notice: Duration::ZERO, drain: Duration::from_secs(1) });
        let (world, meter) = (Arc::new(World::default()), Meter::default());
        let root = Token::from("root".to_owned());
        let callers = settings.callers(root, Arc::new(Tokens), world.clone(), &mut life, &meter).await;
        callers.map(|callers| Self { callers, world, _life: life }).map_err(|cause| cause.to_string())
    }

    async fn at(issuer: &Issuer) -> Self {
        Self::of(&settings(&issuer.url)).await
    }

    async fn who(&self, secret: &str) -> Result<Principal, Fault> {
        who(&self.callers, secret).await
    }

    /// Why a JWT is refused, which must not tell what the JWT was.
    async fn why(&self, jwt: &str) -> String {
        let fault = self.who(jwt).await.expect_err("refused");
        assert_eq!(fault.kind, ErrorKind::Unauthenticated, "{fault}");
        for part in jwt.split('.').filter(|part| part.len() > 8) {
            assert!(!fault.message.contains(part), "{fault} repeats the JWT");
        }
        fault.message
    }
}

async fn who(callers: &Callers, secret: &str) -> Result<Principal, Fault> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {secret}").parse().expect("a header"));
    callers.principal(&headers).await
}

#[tokio::test]
async fn an_edge_knows_the_operator_api_tokens_and_jwts_alike() {
    let key = Key::new("ES256", "one");
    let issuer = Issuer::new(&[&key]).await;
    let edge = Edge::at(&issuer).await;
    assert_eq!(edge.who("root").await, Ok(Principal::Operator));
    assert_eq!(edge.who("etk_ben").await, Ok(user("ben", Role::Reader)));
    assert_eq!(edge.who(&key.jwt(&issuer.claims("ann"))).await, Ok(user("ann", Role::Writer)));
    assert_eq!(edge.who("etk_nobody").await.expect_err("unknown").message, "the token is unknown");
    assert!(edge.why("etk.nobody").await.contains("2 parts"));
    assert!(edge.why(&format!("{}.b.c", "x".repeat(8_189))).await.contains("8193 bytes"));

    let mut without = settings("");
    without.identity.audiences.clear();
    let none = Edge::of(&without).await;
    assert!(none.why(&key.jwt(&issuer.claims("ann"))).await.contains("identity.issuer"));
}

#[tokio::test]
async fn accounts_are_asked_for_once_in_a_while_and_must_be_there() {
    let key = Key::new("EdDSA", "one");
    let issuer = Issuer::new(&[&key]).await;
    let edge = Edge::at(&issuer).await;
    // One that is not remembered for long is asked for by all at once, once.
    let (first, again, other) = tokio::join!(
        async { edge.who(&key.jwt(&issuer.claims("ann"))).await },
        async { edge.who(&key.jwt(&issuer.claims("ANN"))).await },
        async { edge.who(&key.jwt(&issuer.claims("ben"))).await },
    );
    assert_eq!((first, again), (Ok(user("ann", Role::Writer)), Ok(user("ann", Role::Writer))));
    assert_eq!(other, Ok(user("ben", Role::Writer)));
    assert_eq!(edge.world.0.load(Ordering::SeqCst), 2);

    let away = edge.who(&key.jwt(&issuer.claims("away"))).await.expect_err("nobody can tell");
    assert_eq!(away.kind, ErrorKind::Unavailable);
    assert!(edge.who(&key.jwt(&issuer.claims("away"))).await.is_err());
    assert_eq!(edge.world.0.load(Ordering::SeqCst), 4, "what is no answer is not remembered");
}

#[tokio::test]
async fn that_there_is_no_account_is_remembered_and_not_for_long() {
    const REFUSAL: Duration = Duration::from_secs(1);
    let key = Key::new("EdDSA", "one");
    let issuer = Issuer::new(&[&key]).await;
    let edge = Edge::at(&issuer).await;
    let asked = || edge.world.0.swap(0, Ordering::SeqCst);
    // A machine that stands still for longer than a refusal is remembered shows nothing: then another name is tried.
    let mut names = (0..).map(|n| format!("nobody{n}"));
    let jwt = loop {
        let name = names.next().expect("a name");
        let (jwt, since) = (key.jwt(&issuer.claims(&name)), Instant::now());
        let fault = edge.who(&jwt).await.expect_err("no account");
        assert_eq!(fault.kind, ErrorKind::PermissionDenied);
        assert!(fault.message.contains(&format!("echotune user create {name}")), "{fault}");
        assert!(edge.who(&jwt).await.is_err());
        let times = asked();
        if since.elapsed() < REFUSAL {
            assert_eq!(times, 1, "a refusal is remembered too");
            break jwt;
        }
    };
    tokio::time::sleep(REFUSAL).await;
    assert!(edge.who(&jwt).await.is_err());
    assert_eq!(asked(), 1, "and not for long");
}
