//! An issuer of JWTs on this machine: keys of its own, and an HTTP server that tells them, well or badly.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

pub(crate) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

type Sign = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// A key pair with its public half as a JWK.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) alg: &'static str,
    pub(crate) kid: String,
    pub(crate) jwk: Value,
    pub(crate) sign: Sign,
}

impl Key {
    /// A new key on a curve: ES256, ES384 or EdDSA.
    pub(crate) fn new(alg: &'static str, kid: &str) -> Self {
        let random = SystemRandom::new();
        let (mut jwk, sign): (Value, Sign) = if alg == "EdDSA" {
            let document = Ed25519KeyPair::generate_pkcs8(&random).expect("random");
            let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key");
            let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key()) });
            (jwk, Arc::new(move |message| pair.sign(message).as_ref().to_vec()))
        } else {
            let (how, curve) = match alg {
                "ES256" => (&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
                _ => (&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
            };
            let document = EcdsaKeyPair::generate_pkcs8(how, &random).expect("random");
            let pair = EcdsaKeyPair::from_pkcs8(how, document.as_ref(), &random).expect("a key");
            // SEC 1 section 2.3.3: 4, and the two coordinates.
            let point = pair.public_key().as_ref()[1..].to_vec();
            let (x, y) = point.split_at(point.len() / 2);
            let jwk = json!({ "kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y) });
            (jwk, Arc::new(move |message| pair.sign(&random, message).expect("signed").as_ref().to_vec()))
        };
        (jwk["kid"], jwk["use"]) = (json!(kid), json!("sig"));
        Self { alg, kid: kid.to_owned(), jwk, sign }
    }

    /// A JWT of these claims.
    pub(crate) fn jwt(&self, claims: &Value) -> String {
        self.jwt_with(&json!({ "alg": self.alg, "kid": self.kid, "typ": "JWT" }), claims)
    }

    /// A JWT with this header.
    pub(crate) fn jwt_with(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
        let signature = base64url((self.sign)(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

/// How the keys are told.
#[derive(Clone)]
pub(crate) enum Manner {
    /// As they are.
    Well,
    /// The connection is taken, and nothing comes.
    Silent,
    /// Once this is told.
    Held(Arc<Notify>),
    /// With a status and a header.
    Status(u16, &'static str),
    /// Something else, with 200.
    Other(Vec<u8>),
}

struct Told {
    keys: Vec<Value>,
    manner: Manner,
    /// What discovery says where it does not say the truth.
    discovery: Option<Value>,
}

/// An issuer that answers until it is dropped.
pub(crate) struct Issuer {
    pub(crate) url: String,
    told: Arc<Mutex<Told>>,
    discoveries: Arc<AtomicUsize>,
    fetches: Arc<AtomicUsize>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Issuer {
    /// An issuer with these keys.
    pub(crate) async fn new(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        Self::on(listener, keys)
    }

    /// An issuer on a listener, which may have been there before.
    pub(crate) fn on(listener: TcpListener, keys: &[&Key]) -> Self {
        let url = format!("http://{}/realm", listener.local_addr().expect("an address"));
        let keys = keys.iter().map(|key| key.jwk.clone()).collect();
        let told = Arc::new(Mutex::new(Told { keys, manner: Manner::Well, discovery: None }));
        let (discoveries, fetches) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let server = tokio::spawn({
            let (url, told) = (url.clone(), Arc::clone(&told));
            let (discoveries, fetches) = (Arc::clone(&discoveries), Arc::clone(&fetches));
            async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((connection, _)) = listener.accept().await {
                    let (url, told) = (url.clone(), Arc::clone(&told));
                    let (discoveries, fetches) = (Arc::clone(&discoveries), Arc::clone(&fetches));
                    connections.spawn(async move {
                        // A client that leaves is no fault of a test.
                        let _ = answer(connection, &url, &told, (&discoveries, &fetches)).await;
                    });
                }
            }
        });
        Self { url, told, discoveries, fetches, server }
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn rotate(&self, keys: &[&Key]) {
        self.told().keys = keys.iter().map(|key| key.jwk.clone()).collect();
    }

    pub(crate) fn tells(&self, manner: Manner) {
        self.told().manner = manner;
    }

    pub(crate) fn discovers(&self, document: Value) {
        self.told().discovery = Some(document);
    }

    /// How often the keys were asked for.
    pub(crate) fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    /// How often it was asked where they are.
    pub(crate) fn discoveries(&self) -> usize {
        self.discoveries.load(Ordering::SeqCst)
    }

    /// Claims of somebody, for an hour.
    pub(crate) fn claims(&self, sub: &str) -> Value {
        json!({ "iss": self.url, "aud": "echotune", "sub": sub, "exp": now_s() + 3_600 })
    }
}

async fn answer(
    mut connection: TcpStream,
    url: &str,
    told: &Mutex<Told>,
    (discoveries, fetches): (&AtomicUsize, &AtomicUsize),
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if connection.read(&mut byte).await? == 0 || request.len() > 4_096 {
            return Ok(());
        }
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (keys, manner, discovery) = {
        let told = told.lock().unwrap_or_else(PoisonError::into_inner);
        (told.keys.clone(), told.manner.clone(), told.discovery.clone())
    };
    if path == "/realm/.well-known/openid-configuration" {
        discoveries.fetch_add(1, Ordering::SeqCst);
        let truth = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
        return send(&mut connection, 200, "", discovery.unwrap_or(truth).to_string().as_bytes()).await;
    }
    if path != "/realm/keys" {
        return send(&mut connection, 404, "", b"").await;
    }
    fetches.fetch_add(1, Ordering::SeqCst);
    let document = json!({ "keys": keys }).to_string().into_bytes();
    match manner {
        Manner::Well => send(&mut connection, 200, "", &document).await,
        Manner::Silent => std::future::pending().await,
        Manner::Held(told) => {
            told.notified().await;
            send(&mut connection, 200, "", &document).await
        }
        Manner::Status(status, header) => send(&mut connection, status, header, &document).await,
        Manner::Other(document) => send(&mut connection, 200, "", &document).await,
    }
}

async fn send(connection: &mut TcpStream, status: u16, header: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status} Status\r\n{header}content-length: {}\r\n\r\n", body.len());
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(body).await
}
