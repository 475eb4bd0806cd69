use std::{fs, path::Path};

use futures::StreamExt as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::client::TlsStream;
use tower::Service as _;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("random")).expect("signed")
}

/// Writes a certificate with these names, its key and an authority of the other end.
fn issue(folder: &Path, by: &Authority, names: &[&str], trusted: Option<&Authority>) -> TlsFiles {
    let key = KeyPair::generate().expect("random");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).expect("names").signed_by(&key, by).expect("signed");
    let at = |name: &str| folder.join(name);
    fs::write(at("tls.crt"), certificate.pem()).expect("written");
    fs::write(at("tls.key"), key.serialize_pem()).expect("written");
    if let Some(trusted) = trusted {
        fs::write(at("ca.crt"), trusted.pem()).expect("written");
    }
    TlsFiles { certificate: at("tls.crt"), key: at("tls.key"), authorities: trusted.map(|_| at("ca.crt")) }
}

/// Sends back what comes in, on each connection.
async fn echo(tls: &Arc<Tls>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let connections = tls.accept(listener);
    tokio::spawn(async move {
        let mut connections = std::pin::pin!(connections);
        while let Some(Ok(mut connection)) = connections.next().await {
            tokio::spawn(async move {
                let mut bytes = [0; 4];
                while connection.read_exact(&mut bytes).await.is_ok() && connection.write_all(&bytes).await.is_ok() {}
            });
        }
    });
    address
}

async fn connect(client: &Arc<Tls>, to: std::net::SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let uri = format!("http://localhost:{}", to.port()).parse().expect("an address");
    let connected = timeout(PATIENCE, client.connector().expect("authorities").call(uri)).await.expect("in time");
    connected.map(hyper_util::rt::TokioIo::into_inner)
}

/// Whether the other end answers; with TLS 1.3 a refusal of the client's certificate shows no earlier.
async fn talks(connection: &mut TlsStream<TcpStream>) -> bool {
    let mut bytes = [0; 4];
    let sent = connection.write_all(b"ping").await.is_ok() && connection.flush().await.is_ok();
    sent && timeout(PATIENCE, connection.read_exact(&mut bytes)).await.expect("in time").is_ok() && &bytes == b"ping"
}

fn folders<const N: usize>() -> [TempDir; N] {
    std::array::from_fn(|_| tempfile::tempdir().expect("folder"))
}

#[tokio::test]
async fn both_ends_know_each_other_and_strangers_are_refused() {
    let (ours, theirs) = (authority(), authority());
    let [server, friend, stranger, deceived] = &folders();
    let server = Tls::load(issue(server.path(), &ours, &["localhost"], Some(&ours)), Vec::new()).expect("loaded");
    let address = echo(&server).await;
    let load = |files| Tls::load(files, Vec::new()).expect("loaded");
    let friend = load(issue(friend.path(), &ours, &["recommendations"], Some(&ours)));
    assert!(talks(&mut connect(&friend, address).await.expect("connected")).await);
    let stranger = load(issue(stranger.path(), &theirs, &["recommendations"], Some(&ours)));
    match connect(&stranger, address).await {
        Ok(mut connection) => assert!(!talks(&mut connection).await, "nobody vouches for it"),
        Err(cause) => assert!(cause.to_string().contains("certificate"), "{cause}"),
    }
    let deceived = load(issue(deceived.path(), &ours, &["recommendations"], Some(&theirs)));
    let refused = connect(&deceived, address).await.expect_err("an unknown server");
    assert!(refused.to_string().contains("certificate"), "{refused}");
    // Who says nothing keeps nobody waiting, nor does who does not speak TLS.
    let _silent = TcpStream::connect(address).await.expect("connected");
    let mut loud = TcpStream::connect(address).await.expect("connected");
    loud.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
    assert!(talks(&mut connect(&friend, address).await.expect("connected")).await);
}

#[tokio::test]
async fn one_address_of_a_name_is_reached_and_known_by_that_name() {
    let ours = authority();
    let [server, other, client] = &folders();
    let load = |files| Tls::load(files, Vec::new()).expect("loaded");
    let right = echo(&load(issue(server.path(), &ours, &["replicas.test"], Some(&ours)))).await;
    let wrong = echo(&load(issue(other.path(), &ours, &["localhost"], Some(&ours)))).await;
    let client = load(issue(client.path(), &ours, &["c"], Some(&ours)));
    let connect = async |at| {
        // Nobody knows an address of that name.
        let uri = "http://replicas.test:1".parse().expect("an address");
        let connecting = client.connector().expect("authorities").at(at).call(uri);
        timeout(PATIENCE, connecting).await.expect("in time").map(hyper_util::rt::TokioIo::into_inner)
    };
    assert!(talks(&mut connect(right).await.expect("connected")).await);
    let refused = connect(wrong).await.expect_err("the certificate of another name");
    assert!(refused.to_string().contains("certificate"), "{refused}");
}

#[tokio::test]
async fn callers_need_one_of_the_names_that_may_call() {
    let ours = authority();
    let [server, one, other] = &folders();
    let may = vec!["recommendations".to_owned(), "agents".to_owned()];
    let server = Tls::load(issue(server.path(), &ours, &["localhost"], Some(&ours)), may).expect("loaded");
    let address = echo(&server).await;
    for (folder, name, may) in [(one, "agents", true), (other, "gateway", false)] {
        let client = Tls::load(issue(folder.path(), &ours, &[name], Some(&ours)), Vec::new()).expect("loaded");
        let mut connection = connect(&client, address).await.expect("connected");
        assert_eq!(talks(&mut connection).await, may, "{name}");
    }
}

#[tokio::test]
async fn certificates_are_read_anew_and_connections_keep_theirs() {
    let (old, new) = (authority(), authority());
    let [server, client] = &folders();
    let tls = Tls::load(issue(server.path(), &old, &["localhost"], Some(&old)), Vec::new()).expect("loaded");
    let address = echo(&tls).await;
    let client_of = |by: &Authority| Tls::load(issue(client.path(), by, &["c"], Some(by)), Vec::new()).expect("loaded");
    let friend = client_of(&old);
    let mut before = connect(&friend, address).await.expect("connected");
    assert!(!tls.reload().expect("read"), "nothing has changed");
    let stop = CancellationToken::new();
    let watching = tokio::spawn(Arc::clone(&tls).watch(Duration::from_millis(5), stop.clone()));
    // Half of a replacement is no certificate; what was there before goes on.
    fs::write(server.path().join("tls.crt"), "-----BEGIN CERTIFICATE-----\nAAAA").expect("written");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(talks(&mut connect(&friend, address).await.expect("connected")).await);
    issue(server.path(), &new, &["localhost"], Some(&new));
    let heir = client_of(&new);
    let served = timeout(PATIENCE, async {
        loop {
            if let Ok(mut connection) = connect(&heir, address).await
                && talks(&mut connection).await
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    served.await.expect("the new certificate serves");
    assert!(connect(&friend, address).await.is_err(), "the old authority is no longer served by");
    assert!(talks(&mut before).await, "what was connected goes on");
    stop.cancel();
    watching.await.expect("stopped");
}

#[tokio::test]
async fn the_address_is_free_as_soon_as_nobody_serves_there() {
    let ours = authority();
    let [server, client] = &folders();
    let load = |folder: &TempDir| Tls::load(issue(folder.path(), &ours, &["localhost"], Some(&ours)), Vec::new());
    let (server, client) = (load(server).expect("loaded"), load(client).expect("loaded"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let mut connections = Box::pin(server.accept(listener));
    let (connected, served) = tokio::join!(connect(&client, address), connections.next());
    assert!(connected.is_ok() && served.is_some_and(|served| served.is_ok()));
    drop(connections);
    // At once: nothing else has had its turn.
    std::net::TcpListener::bind(address).expect("the address is free");
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_name() {
    let ours = authority();
    let [folder, other] = &folders();
    let files = issue(folder.path(), &ours, &["localhost"], Some(&ours));
    let told = |files: &TlsFiles| Tls::load(files.clone(), Vec::new()).expect_err("refused").to_string();
    let absent = TlsFiles { key: folder.path().join("absent.key"), ..files.clone() };
    assert!(told(&absent).contains("absent.key cannot be read"), "{}", told(&absent));
    let confused = TlsFiles { key: files.certificate.clone(), ..files.clone() };
    assert!(told(&confused).contains("tls.crt holds no private key"), "{}", told(&confused));
    let unpaired = TlsFiles { key: issue(other.path(), &ours, &["x"], None).key, ..files.clone() };
    assert!(told(&unpaired).contains("cannot be used with its key"), "{}", told(&unpaired));
    fs::write(folder.path().join("empty.crt"), "").expect("written");
    let empty = TlsFiles { authorities: Some(folder.path().join("empty.crt")), ..files.clone() };
    assert!(told(&empty).contains("empty.crt holds no certificate"), "{}", told(&empty));
    let trusting = Tls::load(TlsFiles { authorities: None, ..files }, Vec::new()).expect("loaded");
    assert!(matches!(trusting.connector(), Err(TlsError::NoAuthorities)));
}
