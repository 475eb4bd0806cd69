//! The way in over TLS.

use std::{fs, path::Path};

use echotune_api::{Users as _, UsersClient};
use echotune_kit::{
    auth::Token,
    edge::Credentials,
    tls::{Tls, TlsFiles},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::transport::{Channel, Endpoint};

use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("random")).expect("signed")
}

fn issue(folder: &Path, name: &str, by: &Authority) -> TlsFiles {
    let key = KeyPair::generate().expect("random");
    let certificate =
        CertificateParams::new(vec![name.to_owned()]).expect("names").signed_by(&key, by).expect("signed");
    let at = |kind: &str| folder.join(format!("{name}.{kind}"));
    fs::write(at("crt"), certificate.pem()).expect("written");
    fs::write(at("key"), key.serialize_pem()).expect("written");
    fs::write(at("ca"), by.pem()).expect("written");
    TlsFiles { certificate: at("crt"), key: at("key"), authorities: Some(at("ca")) }
}

async fn channel(client: TlsFiles, port: u16) -> Result<Channel, tonic::transport::Error> {
    let connector = Tls::load(client, Vec::new()).expect("loaded").connector().expect("authorities");
    let endpoint = Endpoint::from_shared(format!("http://localhost:{port}")).expect("an address");
    endpoint.connect_with_connector(connector).await
}

#[tokio::test]
async fn callers_over_tls_need_a_certificate_and_a_token() {
    let folder = tempfile::tempdir().expect("folder");
    let (ours, theirs) = (authority(), authority());
    let TlsFiles { certificate, key, authorities } = issue(folder.path(), "localhost", &ours);
    let mut config = Config::default();
    config.process.tls.listen = LOOPBACK.into();
    (config.process.tls.certificate, config.process.tls.key) = (certificate, key);
    config.process.tls.authorities = authorities.expect("written");
    config.process.tls.callers = vec!["player".into()];
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("made");
    let platform = Platform::open_with(&config, &data, spans()).expect("open");
    let serving = platform.serve(LOOPBACK.parse().expect("address")).await.expect("serve");
    let port = serving.tls.expect("served over TLS").port();
    let local = connect(&data, &serving).await;
    let status = local.operations.status(&Call::internal()).await.expect("status");
    assert_eq!(status.addresses["grpc over TLS"], format!("127.0.0.1:{port}"));
    let page = PageRequest { size: 10, ..PageRequest::default() };
    let player = channel(issue(folder.path(), "player", &ours), port).await.expect("connected");
    let token = Token::read(&data).expect("a token");
    let users = UsersClient::new(player.clone(), Credentials { token });
    users.create_user(&Call::internal(), "ann").await.expect("created");
    assert_eq!(users.list_users(&Call::internal(), &page).await.expect("listed").rows.len(), 1);
    let nobody = UsersClient::new(player, Credentials { token: Token::from("x".repeat(40)) });
    let refused = nobody.list_users(&Call::internal(), &page).await.expect_err("no token of ours");
    assert_eq!(refused.kind, ErrorKind::Unauthenticated, "{refused}");
    for stranger in [issue(folder.path(), "toaster", &ours), issue(folder.path(), "player", &theirs)] {
        let authorities = Some(folder.path().join("localhost.ca"));
        let Ok(channel) = channel(TlsFiles { authorities, ..stranger }, port).await else { continue };
        let users = UsersClient::new(channel, Credentials { token: Token::read(&data).expect("a token") });
        let refused = users.list_users(&Call::internal(), &page).await.expect_err("no certificate that may call");
        assert_eq!(refused.kind, ErrorKind::Unavailable, "{refused}");
    }
    drop((local, users, nobody));
    serving.stop().await.expect("stopped");
}
