//! An issuer over TLS, known by the authorities of a file and of nobody else.

use std::{fs, sync::Arc};

use echotune_kit::process::Settings;
use echotune_model::{ErrorKind, Role};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use crate::{Edge, issuer::Key, settings, user};

/// A server that answers every request with these keys; its authority in PEM, and its address.
async fn secure(key: &Key) -> (String, String) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("random")).expect("signed");
    let own = KeyPair::generate().expect("random");
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).expect("names").signed_by(&own, &authority);
    let certificate = CertificateDer::from_pem_slice(certificate.expect("signed").pem().as_bytes()).expect("read");
    let own = PrivateKeyDer::from_pem_slice(own.serialize_pem().as_bytes()).expect("read");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], own)
        .expect("a certificate");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let document = json!({ "keys": [key.jwk] }).to_string();
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((connection, _)) = listener.accept().await {
            // Who does not trust it leaves.
            let Ok(mut connection) = acceptor.accept(connection).await else { continue };
            let mut request = [0; 1_024];
            let _ = connection.read(&mut request).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", document.len());
            let _ = connection.write_all(format!("{head}{document}").as_bytes()).await;
            let _ = connection.flush().await;
        }
    });
    (authority.pem(), format!("https://localhost:{port}/keys"))
}

#[tokio::test]
async fn keys_over_tls_are_of_an_issuer_whose_authority_is_known() {
    let key = Key::new("ES256", "one");
    let (authority, url) = secure(&key).await;
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("authorities.pem");
    fs::write(&file, authority).expect("written");
    let mut trusting: Settings = settings("https://login.example.org");
    trusting.identity.jwks_uri = url;
    let mut others = trusting.clone();
    trusting.identity.authorities = file;
    let jwt = key
        .jwt(&json!({ "iss": "https://login.example.org", "aud": "echotune", "sub": "ann", "exp": 4_102_444_800_u64 }));
    assert_eq!(Edge::of(&trusting).await.who(&jwt).await, Ok(user("ann", Role::Writer)));
    // By the system's authorities it is a stranger.
    let refused = Edge::of(&others).await.who(&jwt).await.expect_err("no keys");
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    others.identity.authorities = folder.path().join("nothing.pem");
    let why = Edge::try_of(&others).await.err().expect("no file");
    assert!(why.contains("nothing.pem"), "{why}");
}
