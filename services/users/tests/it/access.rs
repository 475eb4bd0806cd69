//! What only the wire can show: tokens at the edge, deadlines, streams and bytes that are no text.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use echotune_api::Users;
use echotune_model::{Call, ErrorKind, NewPlaylist, Profile, Role};
use futures::stream;
use tonic::{Code, Request, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

use crate::{
    faces::Faces,
    suite::{first, listen, reader},
};

async fn made(faces: &Faces, name: &str, role: Role) -> echotune_api::UsersClient {
    let (_, secret) = faces.object.create_token(&Call::internal(), name, reader(role)).await.expect("made");
    faces.with_secret(&secret)
}

fn kind<T: std::fmt::Debug>(answer: Result<T, echotune_model::Fault>) -> ErrorKind {
    answer.expect_err("refused").kind
}

#[tokio::test]
async fn a_token_opens_its_own_user_within_its_role_until_it_is_revoked() {
    let faces = Faces::new().await;
    let call = Call::internal();
    for name in ["ann", "ben"] {
        faces.object.create_user(&call, name).await.expect("created");
    }
    let reads = made(&faces, "ann", Role::Reader).await;
    let writes = made(&faces, "ann", Role::Writer).await;
    reads.get_user(&call, "ann").await.expect("her own");
    reads.list_listens(&call, "ann", &first(0)).await.expect("her own");
    for other in ["ben", "nobody"] {
        assert_eq!(kind(reads.get_user(&call, other).await), ErrorKind::PermissionDenied);
        assert_eq!(kind(writes.update_profile(&call, other, Profile::default()).await), ErrorKind::PermissionDenied);
    }
    assert_eq!(kind(reads.record_listens(&call, "ann", vec![listen("a", 0)]).await), ErrorKind::PermissionDenied);
    assert_eq!(kind(reads.erase_user(&call, "ann").await), ErrorKind::PermissionDenied);
    // What brings its own identity and times is the operator's, also of one's own account.
    let ann = faces.object.get_user(&call, "ann").await.expect("read");
    assert_eq!(kind(writes.find_user(&call, ann.id).await), ErrorKind::PermissionDenied);
    assert_eq!(kind(writes.restore_library(&call, "ann", Vec::new()).await), ErrorKind::PermissionDenied);
    assert_eq!(kind(writes.restore_user(&call, ann).await), ErrorKind::PermissionDenied);
    assert_eq!(kind(reads.create_token(&call, "ann", reader(Role::Writer)).await), ErrorKind::PermissionDenied);
    for role in [Role::Reader, Role::Writer] {
        let refused = writes.create_token(&call, "ann", reader(role)).await.expect_err("refused");
        assert_eq!(refused.kind, ErrorKind::PermissionDenied, "a token would outlive the one that made it");
        assert!(refused.message.contains("operator"), "{refused}");
    }
    writes.record_listens(&call, "ann", vec![listen("a", 0)]).await.expect("her own");
    assert_eq!(kind(writes.list_users(&call, &first(0)).await), ErrorKind::PermissionDenied);
    assert_eq!(kind(writes.counts(&call).await), ErrorKind::PermissionDenied);
    assert_eq!(kind(writes.create_user(&call, "cat").await), ErrorKind::PermissionDenied);
    assert_eq!(kind(writes.authenticate("etk_").await), ErrorKind::PermissionDenied);

    let content = NewPlaylist { title: "Rain".into(), description: String::new(), tracks: Vec::new() };
    let of_ben = faces.object.create_playlist(&call, "ben", content.clone()).await.expect("made");
    assert_eq!(kind(writes.get_playlist(&call, of_ben.id).await), ErrorKind::NotFound);
    assert_eq!(kind(writes.update_playlist(&call, of_ben.id, content.clone()).await), ErrorKind::NotFound);
    assert!(!writes.delete_playlist(&call, of_ben.id).await.expect("not hers"));
    let own = writes.create_playlist(&call, "ann", content).await.expect("made");
    reads.get_playlist(&call, own.id).await.expect("her own");
    assert_eq!(kind(reads.delete_playlist(&call, own.id).await), ErrorKind::PermissionDenied);

    for token in faces.object.list_tokens(&call, "ann").await.expect("listed") {
        faces.object.revoke_token(&call, "ann", token.id).await.expect("revoked");
    }
    assert_eq!(kind(reads.get_user(&call, "ann").await), ErrorKind::Unauthenticated);
    assert_eq!(kind(faces.with_secret("nonsense").get_user(&call, "ann").await), ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn a_stream_of_listens_is_recorded_in_batches_and_summed() {
    let faces = Faces::new().await;
    let call = Call { idempotency_key: "import".into(), ..Call::internal() };
    faces.object.create_user(&Call::internal(), "ann").await.expect("created");
    let listens = || stream::iter((0..2_500).map(|n| listen(if n == 1_700 { "" } else { "Jóga" }, n)));
    let receipt = faces.remote.record_listens_stream(&call, "ann", listens()).await.expect("recorded");
    assert_eq!((receipt.recorded, receipt.duplicates, receipt.refused), (2_499, 0, 1));
    assert_eq!(receipt.rejections[0].index, 1_700);
    let again = faces.remote.record_listens_stream(&call, "ann", listens()).await.expect("recorded");
    assert_eq!(again, receipt, "each batch has a key of its own");
    let fresh = faces.remote.record_listens_stream(&Call::internal(), "ann", listens()).await.expect("recorded");
    assert_eq!((fresh.recorded, fresh.duplicates), (0, 2_499));
    let unknown = faces.remote.record_listens_stream(&call, "bob", listens()).await;
    assert_eq!(kind(unknown), ErrorKind::NotFound);
    assert_eq!(faces.object.counts(&Call::internal()).await.expect("counts")["listens"], 2_499);
}

/// A request whose only field carries any bytes where the contract has text.
#[derive(Clone, PartialEq, prost::Message)]
struct Bytes {
    #[prost(bytes = "vec", tag = "1")]
    text: Vec<u8>,
}

async fn raw(faces: &Faces, rpc: &'static str, text: &[u8], timeout: Option<&str>) -> tonic::Status {
    let mut client = Grpc::new(faces.channel.clone());
    client.ready().await.expect("ready");
    let mut request = Request::new(Bytes { text: text.to_vec() });
    let header = faces.token.header().parse().expect("a header");
    request.metadata_mut().insert("authorization", header);
    if let Some(timeout) = timeout {
        request.metadata_mut().insert("grpc-timeout", timeout.parse().expect("a header"));
    }
    let codec = ProstCodec::<Bytes, Bytes>::default();
    client.unary(request, PathAndQuery::from_static(rpc), codec).await.expect_err("refused")
}

#[tokio::test]
async fn bytes_that_are_no_text_and_ids_that_are_none_are_refused() {
    let faces = Faces::new().await;
    let status = raw(&faces, "/echotune.users.v1.UsersService/GetUser", &[0xff, 0xfe], None).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("UTF-8"), "{status:?}");
    let status = raw(&faces, "/echotune.users.v1.UsersService/GetPlaylist", b"not-a-uuid", None).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("'not-a-uuid'"), "{status:?}");
    let status = raw(&faces, "/echotune.users.v1.UsersService/GetPlaylist", &[b'x'; 1_000_000], None).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = raw(&faces, "/echotune.users.v1.UsersService/GetUser", &vec![b'x'; 17 << 20], None).await;
    assert_eq!(status.code(), Code::OutOfRange);
    let status = raw(&faces, "/echotune.users.v1.UsersService/GetUser", b"ann", Some("soon")).await;
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_caller_that_stops_waiting_is_told_so() {
    let faces = Faces::new().await;
    let past = Call { deadline: Instant::now().checked_sub(Duration::from_secs(1)), ..Call::internal() };
    for users in [faces.object.as_ref(), &faces.remote as &dyn Users] {
        assert_eq!(kind(users.create_user(&past, "ann").await), ErrorKind::DeadlineExceeded);
    }
    assert_eq!(kind(faces.object.get_user(&Call::internal(), "ann").await), ErrorKind::NotFound);

    // A stream that never ends is cut off by the edge, and the client calls its outcome unknown.
    faces.object.create_user(&Call::internal(), "ann").await.expect("created");
    let soon = Call { deadline: Some(Instant::now() + Duration::from_secs(2)), ..Call::internal() };
    let endless = pin!(faces.remote.record_listens_stream(&soon, "ann", stream::pending()));
    let cut = tokio::time::timeout(Duration::from_secs(30), endless).await.expect("cut off");
    assert_eq!(kind(cut), ErrorKind::Indeterminate);
}
