//! What is of users stays in their jurisdiction, and whoever asks for it elsewhere is answered from there.

use std::{collections::BTreeMap, sync::Arc};

use echotune_api::{Regions as _, Users as _};
use echotune_kit::{
    cql::{CqlConfig, CqlSession},
    keys::NamesKey,
};
use echotune_model::{
    Call, ErrorKind, Fault, Jurisdictions, NewPlaylist, NewToken, PageRequest, Principal, Profile, Role, User,
};
use echotune_users::{CqlUserStore, Homes, RegionalUsers, Residency, UserStore, UsersService};
use tonic::transport::Endpoint;

use crate::{
    apart::{Apart, Parted, tables_with},
    crowd::{all, listen},
    regions::{Region, by, peer, profile, until},
};

/// A name that no other text holds.
const NAME: &str = "aslaug-of-reykjavik";

fn first() -> PageRequest {
    PageRequest { size: 100, token: String::new() }
}

fn keyed(key: &str) -> Call {
    Call { idempotency_key: key.into(), ..Call::internal() }
}

/// An account of a region, with something in every table; the secret of a token of it.
async fn live(at: &Region, name: &str) -> (User, String) {
    let (call, users) = (Call::internal(), &at.users);
    let user = users.create_user(&keyed("create"), name).await.expect("created");
    users.create_user(&call, "gudrun").await.expect("created");
    users.update_profile(&keyed("1"), name, profile("the sagas")).await.expect("set");
    users.update_settings(&keyed("2"), name, crate::regions::blocking("Creed")).await.expect("set");
    users.record_listens(&keyed("3"), name, vec![listen("Jóga", 0), listen("Hunter", 1)]).await.expect("recorded");
    let friends = users.add_friends(&keyed("4"), name, vec!["gudrun".into()]).await.expect("added");
    assert_eq!(friends.recorded, 1, "{friends:?}");
    users.add_to_library(&keyed("5"), name, vec![listen("Hunter", 0).track]).await.expect("added");
    let content = NewPlaylist { title: "Rain".into(), description: String::new(), tracks: Vec::new() };
    users.create_playlist(&keyed("6"), name, content).await.expect("made");
    let wanted = NewToken { label: "phone".into(), role: Role::Writer, expires_at_ms: 0 };
    let (_, secret) = users.create_token(&keyed("7"), name, wanted).await.expect("made");
    (user, secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_a_user_is_in_no_table_of_another_jurisdiction() {
    let Parted { us, eu, apart } = Parted::new().await;
    let (user, _) = live(&eu, NAME).await;
    let id = user.id.to_string();
    // Whoever asks elsewhere leaves nothing there either.
    until("the name comes", || async { us.users.get_profile(&Call::internal(), NAME).await.ok() }).await;
    us.users.record_listens(&keyed("8"), NAME, vec![listen("Pluto", 2)]).await.expect("recorded at home");
    us.users.export_user(&Call::internal(), NAME, &first()).await.expect("exported");
    let held = tables_with(&apart.own[1], &[&id]).await;
    assert!(held.len() >= 14, "what is looked for is where it may be: {held:?}");
    assert!(tables_with(&apart.own[1], &[NAME]).await.contains(&"users_accounts".to_owned()));
    assert_eq!(tables_with(&apart.own[0], &[&id, NAME]).await, [""; 0], "in the other jurisdiction");
    for session in &apart.common {
        until("ids and regions come", || async {
            (tables_with(session, &[&id]).await == ["world_homes", "world_names"]).then_some(())
        })
        .await;
        assert_eq!(tables_with(session, &[NAME, "gudrun", "reykjavik"]).await, [""; 0], "no name");
    }
    // As any server tells.
    let read = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?";
    let read = apart.own[0].read("copies", read).await.expect("prepared");
    for (session, other) in apart.own.iter().zip(apart.own.iter().rev()) {
        let (keyspace, here) = (&session.config().keyspace, &session.config().datacenter);
        let told: Option<(BTreeMap<String, String>,)> = apart.own[0].one(&read, (keyspace,)).await.expect("read");
        let centres: Vec<_> = told.expect("there").0.into_keys().filter(|key| key != "class").collect();
        // Where there are three regions, two share the open one.
        assert!(centres.contains(here) && !centres.contains(&other.config().datacenter), "{keyspace}: {centres:?}");
    }

    us.users.erase_user(&Call::internal(), NAME).await.expect("erased at home");
    let left = tables_with(&apart.own[1], &[&id]).await;
    assert!(
        left.iter()
            .all(|table| ["users_erased", "users_erasure_counts", "users_keys", "users_outbox"]
                .contains(&table.as_str())),
        "{left:?}"
    );
    assert_eq!(tables_with(&apart.own[1], &[NAME]).await, [""; 0]);
    until("all hear of it", || async {
        (tables_with(&apart.common[0], &[&id]).await == ["world_erased"]).then_some(())
    })
    .await;
    let again = us.users.restore_user(&Call::internal(), user).await.expect_err("erased elsewhere");
    assert!(again.message.contains("was erased"), "{again}");
    assert_eq!(tables_with(&apart.own[0], &[&id, NAME]).await, [""; 0], "nothing came by that");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_users_of_another_jurisdiction_is_answered_at_home() {
    let Parted { us, eu, .. } = Parted::new().await;
    let (ann, secret) = live(&eu, "ann").await;
    let call = Call::internal();
    let found = until("the name comes", || async { us.users.get_user(&call, "ann").await.ok() }).await;
    assert_eq!(found, ann);
    assert_eq!(us.users.get_profile(&call, "ANN").await.expect("read"), profile("the sagas"));
    assert_eq!(us.users.get_settings(&call, "ann").await.expect("read"), crate::regions::blocking("Creed"));
    assert_eq!(us.users.list_listens(&call, "ann", &first()).await.expect("read").rows.len(), 2);
    assert_eq!(us.users.list_friends(&call, "ann", &first()).await.expect("read").rows, ["gudrun"]);
    assert_eq!(us.users.list_library(&call, "ann", &first()).await.expect("read").rows.len(), 1);
    assert_eq!(us.users.list_tokens(&call, "ann").await.expect("read").len(), 1);
    assert_eq!(us.users.find_user(&call, ann.id).await.expect("found"), ann);
    let own = us.users.authenticate(&secret).await.expect("known by the other");
    assert_eq!(own, Principal::User { id: ann.id, name: ann.name.clone(), role: Role::Writer });
    let forged = us.users.authenticate(&format!("{secret}x")).await.expect_err("not the secret");
    assert_eq!(forged.kind, ErrorKind::Unauthenticated);
    // As the user, and as the operator.
    let made = us.users.list_playlists(&call, "ann", &first()).await.expect("read").rows.remove(0);
    for call in [by(&ann, Role::Writer), call.clone()] {
        assert_eq!(us.users.get_playlist(&call, made.id).await.expect("read"), made);
    }
    let snow = NewPlaylist { title: "Snow".into(), ..made.content.clone() };
    let snow = us.users.update_playlist(&call, made.id, snow).await.expect("written");
    assert_eq!(eu.users.get_playlist(&call, made.id).await.expect("read"), snow);
    let refused = us.users.update_profile(&by(&ann, Role::Reader), "ann", Profile::default()).await;
    assert_eq!(refused.expect_err("reads only").kind, ErrorKind::PermissionDenied);
    for nobody in [us.users.get_user(&call, "nobody").await, eu.users.get_user(&call, "nobody").await] {
        assert_eq!(nobody.expect_err("nobody").kind, ErrorKind::NotFound);
    }
    // Each region lists its own.
    let listed = |users: Vec<User>| users.into_iter().map(|user| user.name.to_string()).collect::<Vec<_>>();
    assert_eq!(listed(us.store.users(all()).await.expect("listed").rows), [""; 0]);
    assert_eq!(listed(eu.users.list_users(&call, &first()).await.expect("listed").rows), ["ann", "gudrun"]);
    // Without a way to the other region it is told which one that is.
    let nowhere = peer(Endpoint::from_static("http://127.0.0.1:1").connect_lazy());
    let homes = Arc::new(Homes::new(us.store.clone()));
    let ways = BTreeMap::from([(eu.name.clone(), nowhere)]);
    let cut_off = RegionalUsers::new(UsersService::new(us.store.clone()), homes, ways);
    let refused = cut_off.get_profile(&call, "ann").await.expect_err("cut off");
    assert_eq!(refused.kind, ErrorKind::Unavailable, "{refused}");
    assert!(refused.message.contains(&format!("'{}'", eu.name)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_unique_over_jurisdictions_and_friends_are_of_one() {
    let Parted { us, eu, apart } = Parted::new().await;
    let call = Call::internal();
    let ann = eu.users.create_user(&keyed("one call"), "Ann").await.expect("created");
    for name in ["Ann", "ANN"] {
        let taken = us.users.create_user(&call, name).await.expect_err("taken");
        assert_eq!(taken.kind, ErrorKind::AlreadyExists, "{taken}");
    }
    let same = us.users.create_user(&keyed("one call"), "Ann").await.expect("the same call");
    assert_eq!((same.id, tables_with(&apart.own[0], &[&ann.id.to_string()]).await), (ann.id, vec![]));
    us.users.create_user(&call, "ben").await.expect("created");
    let receipt = us.users.add_friends(&call, "ben", vec!["ann".into(), "nobody".into()]).await.expect("checked");
    assert_eq!((receipt.recorded, receipt.rejections.len()), (0, 2));
    assert!(receipt.rejections[0].reason.contains("another jurisdiction"), "{receipt:?}");
    assert!(receipt.rejections[1].reason.contains("does not exist"), "{receipt:?}");
    // An id is of one jurisdiction too, whatever the name.
    let alias = User { name: "ann-again".parse().expect("a name"), ..ann.clone() };
    let refused = us.users.restore_user(&call, alias).await.expect_err("of the other");
    assert!(refused.message.contains("another jurisdiction"), "{refused}");
    us.users.create_user(&call, "ann-again").await.expect("the name was not taken by that");
    // Erased there, the name is free here.
    eu.users.erase_user(&call, "ann").await.expect("erased");
    let here = us.users.create_user(&call, "ann").await.expect("created");
    assert_eq!(us.users.get_home(&call, "ann").await.expect("a home").region, us.name);
    assert_ne!(here.id, ann.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn homes_do_not_leave_their_jurisdiction() {
    let Parted { us, eu, .. } = Parted::new().await;
    let call = Call::internal();
    eu.users.create_user(&call, "ann").await.expect("created");
    // As if the creator had died before it took a home.
    UsersService::new(eu.store.clone()).create_user(&call, "homeless").await.expect("created");
    let names_both = |refused: Fault| {
        let both = ["'eea'", "'open'"].iter().all(|word| refused.message.contains(word));
        assert!(refused.kind == ErrorKind::FailedPrecondition && both, "{refused}");
    };
    for name in ["ann", "homeless"] {
        let home = until("the name comes", || async { us.users.get_home(&call, name).await.ok() }).await;
        assert_eq!((home.region, home.jurisdiction.as_str()), (eu.name.clone(), "eea"));
        names_both(us.users.move_home(&call, name, &us.name).await.expect_err("across"));
    }
    names_both(us.users.fail_over(&call, &eu.name, &us.name).await.expect_err("across"));
    us.users.update_profile(&call, "homeless", profile("x")).await.expect("made where the account is");
    assert_eq!(eu.users.get_profile(&call, "homeless").await.expect("read"), profile("x"));
    assert_eq!(eu.users.get_home(&call, "homeless").await.expect("a home").region, eu.name);
    let told = us.users.list_regions(&call).await.expect("listed");
    let told: BTreeMap<_, _> = told.into_iter().map(|one| (one.region, (one.jurisdiction, one.served_by))).collect();
    assert_eq!(told[&eu.name], ("eea".to_owned(), eu.name.clone()), "nothing was changed");
    assert_eq!(told[&us.name].0, "open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_was_told_something_else_does_not_start() {
    let apart = Apart::take().await;
    let own = &apart.residency;
    assert_eq!(apart.migrate(0).await.expect("done before"), (vec![], vec![]), "twice is once");
    let key = Residency { key: NamesKey::new([6; 32]), ..own.clone() };
    let all = format!("eea={}", own.regions.join(","));
    let jurisdictions = Jurisdictions::parse(&[all], &own.regions).expect("well");
    let wider = Residency { jurisdictions, ..own.clone() };
    for (told, word) in [(&key, "names_key_file"), (&wider, "recorded as of 'open'")] {
        let refused = apart.store(0, Some(told)).await.expect_err("told something else").to_string();
        assert!(refused.contains(word), "{refused}");
        let refused = CqlUserStore::migrate_apart(&apart.common[0], &apart.own[0], told).await;
        assert!(refused.expect_err("recorded").to_string().contains(word));
    }
    let newer = Residency { regions: [own.regions.clone(), vec!["moon".into()]].concat(), ..own.clone() };
    let refused = apart.store(0, Some(&newer)).await.expect_err("not recorded").to_string();
    assert!(refused.contains("'moon' is not recorded"), "{refused}");
    // One kind of keyspace is not taken for the other.
    let refused = CqlUserStore::migrate(&apart.common[0]).await.expect_err("the common one").to_string();
    assert!(refused.contains("region.jurisdictions"), "{refused}");
    assert!(apart.store(0, None).await.is_err(), "names are not where they would be without jurisdictions");
    // A keyspace that has copies where they may not be.
    let common = apart.common[0].config();
    let replication = BTreeMap::from([(common.datacenter.clone(), 1)]);
    let session = CqlSession::connect(&CqlConfig { replication, ..common.clone() }).await.expect("connected");
    let refused = session.check_copies().await.expect_err("copies elsewhere").to_string();
    assert!(refused.contains(&own.regions[1]), "{refused}");
    let refused = CqlUserStore::migrate_apart(&apart.common[0], &session, own).await.expect_err("the same").to_string();
    assert!(refused.contains("has copies at"), "{refused}");
}
