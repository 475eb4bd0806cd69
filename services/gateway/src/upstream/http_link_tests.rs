use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{config::BreakerConfig, message::MODERN};

#[tokio::test]
async fn an_endpoint_is_reached_again_when_it_answers_and_not_when_a_connection_breaks() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
    let endpoint = Arc::new(Endpoint::new("", &url, BreakerConfig::default()).expect("an address"));
    endpoint.away.lose();
    let route = Route {
        client: client(Connector::new(None).expect("usable")),
        endpoint: Arc::clone(&endpoint),
        revision: MODERN,
        session: None,
        authorization: None,
        tokens: None,
        on_behalf: None,
        answer_bytes: 1,
        is_region: false,
    };
    for (says, is_lost) in [("", true), ("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n", false)] {
        let asked = route.once(route.request(Method::POST, Bytes::from_static(b"{}")));
        let answer = async {
            let (mut connection, _) = listener.accept().await.expect("connected");
            let mut asked = Vec::new();
            while !asked.ends_with(b"{}") {
                assert!(connection.read_buf(&mut asked).await.expect("asked") > 0);
            }
            connection.write_all(says.as_bytes()).await.expect("answered");
        };
        let (answered, ()) = tokio::join!(asked, answer);
        assert_eq!((answered.is_err(), endpoint.away.is_lost()), (is_lost, is_lost), "{answered:?}");
    }
}
