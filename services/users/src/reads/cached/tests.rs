use std::time::{Duration, Instant};

use echotune_api::Users as _;
use echotune_kit::{config::Period, embedded::Db};
use echotune_model::{Call, ErrorKind, Principal, Role};

use super::*;
use crate::{EmbeddedUserStore, UsersService};

/// Longer than any of these tests.
const LIFE: Duration = Duration::from_secs(600);

/// Two processes over one store, of which the first keeps near what it reads.
struct Two {
    near: UsersService,
    other: UsersService,
    _folder: tempfile::TempDir,
}

fn two() -> Two {
    two_for(LIFE)
}

/// The same, with what is read kept for this long, also where nobody asks for it while the disk is slow.
fn two_for(life: Duration) -> Two {
    let folder = tempfile::tempdir().expect("folder");
    let store = EmbeddedUserStore::new(Db::open(folder.path()).expect("open"), Default::default());
    let section = CacheSection { time_to_live: Period(life), time_to_idle: Period(LIFE), ..CacheSection::default() };
    let reads = CachedReads::new(&section, None, &Meter::default());
    Two { near: UsersService::new(store.clone()).caching(reads), other: UsersService::new(store), _folder: folder }
}

fn operator() -> Call {
    Call::internal()
}

fn of(user: &User) -> Call {
    Call { principal: Principal::User { id: user.id, name: user.name.clone(), role: Role::Writer }, ..operator() }
}

fn about(text: &str) -> Profile {
    Profile { about: text.into(), ..Profile::default() }
}

/// Reads until what is read is kept, once nothing is held any more.
async fn settle() {
    tokio::time::sleep(HOLD + Duration::from_millis(100)).await;
}

#[tokio::test]
async fn region_reads_see_own_writes_at_once_and_keep_what_they_read() {
    let Two { near, other, _folder } = two();
    let ann = near.create_user(&operator(), "ann").await.expect("created");
    settle().await;
    let call = of(&ann);
    assert_eq!(near.get_profile(&call, "ann").await.expect("read"), Profile::default());
    near.update_profile(&call, "ann", about("first")).await.expect("written");
    assert_eq!(near.get_profile(&call, "ann").await.expect("read"), about("first"));
    settle().await;
    near.get_profile(&call, "ann").await.expect("read");
    other.update_profile(&call, "ann", about("second")).await.expect("written");
    let kept = near.get_profile(&call, "ann").await.expect("read");
    assert_eq!(kept, about("first"), "what was read is kept near, or these tests tell nothing");
    let private = Settings { private: true, ..Settings::default() };
    assert_eq!(near.get_settings(&call, "ann").await.expect("read"), Settings::default());
    near.update_settings(&call, "ann", private.clone()).await.expect("written");
    assert_eq!(near.get_settings(&call, "ann").await.expect("read"), private);
}

#[tokio::test]
async fn region_reads_see_writes_of_others_within_the_time_to_live() {
    let life = Duration::from_millis(500);
    let Two { near, other, _folder } = two_for(life);
    let ann = near.create_user(&operator(), "ann").await.expect("created");
    settle().await;
    let call = of(&ann);
    near.get_profile(&call, "ann").await.expect("read");
    other.update_profile(&call, "ann", about("first")).await.expect("written");
    tokio::time::sleep(life).await;
    assert_eq!(near.get_profile(&call, "ann").await.expect("read"), about("first"));
}

#[tokio::test]
async fn region_reads_know_that_a_write_was_made_elsewhere() {
    let Two { near, other, _folder } = two();
    let ann = near.create_user(&operator(), "ann").await.expect("created");
    settle().await;
    let call = of(&ann);
    near.get_profile(&call, "ann").await.expect("read");
    loop {
        other.update_profile(&call, "ann", about("first")).await.expect("written");
        let since = Instant::now();
        near.made_elsewhere("ann", Some(ann.id)).await;
        assert_eq!(near.get_profile(&call, "ann").await.expect("read"), about("first"));
        // Nothing is kept for a while: the write of another region may be seen late.
        let is_held = since.elapsed() < HOLD;
        other.update_profile(&call, "ann", about("second")).await.expect("written");
        let read = near.get_profile(&call, "ann").await.expect("read");
        // A machine that stood still for longer than that shows nothing.
        if is_held {
            assert_eq!(read, about("second"));
            break;
        }
    }
}

#[tokio::test]
async fn region_reads_forget_whose_write_was_made_elsewhere_without_finding_the_account() {
    let Two { near, other, _folder } = two();
    let ann = near.create_user(&operator(), "ann").await.expect("created");
    settle().await;
    let call = of(&ann);
    near.get_profile(&call, "ann").await.expect("read");
    other.update_profile(&call, "ann", about("first")).await.expect("written");
    // Nobody is found by this name, as when the servers cannot be asked at the moment.
    near.made_elsewhere("nobody", Some(ann.id)).await;
    assert_eq!(near.get_profile(&call, "ann").await.expect("read"), about("first"));
}

#[tokio::test]
async fn region_reads_give_nothing_of_who_was_erased_here_nor_of_another_account_of_the_name() {
    let Two { near, other, _folder } = two();
    let first = near.create_user(&operator(), "ann").await.expect("created");
    settle().await;
    near.update_profile(&of(&first), "ann", about("first")).await.expect("written");
    settle().await;
    near.get_profile(&operator(), "ann").await.expect("read");
    near.erase_user(&operator(), "ann").await.expect("erased");
    let gone = near.get_profile(&operator(), "ann").await.expect_err("erased");
    assert_eq!(gone.kind, ErrorKind::NotFound);
    let second = near.create_user(&operator(), "ann").await.expect("created again");
    settle().await;
    near.get_user(&of(&second), "ann").await.expect("read");
    // Erased and made again by another process: the account's own caller need not wait.
    other.erase_user(&operator(), "ann").await.expect("erased");
    let third = other.create_user(&operator(), "ann").await.expect("created again");
    assert_eq!(near.get_user(&operator(), "ann").await.expect("read"), second, "it is kept near yet");
    assert_eq!(near.get_user(&of(&third), "ann").await.expect("read"), third);
    assert_eq!(near.get_user(&operator(), "ann").await.expect("read"), third);
    let earlier = near.get_user(&of(&second), "ann").await.expect_err("of an earlier account");
    assert_eq!(earlier.kind, ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn region_reads_believe_for_a_second_that_there_is_no_account() {
    let Two { near, other, _folder } = two();
    near.get_user(&operator(), "ann").await.expect_err("nobody");
    let ann = other.create_user(&operator(), "ann").await.expect("created");
    assert_eq!(near.get_user(&of(&ann), "ann").await.expect("the caller knows better"), ann);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let found = near.get_user(&operator(), "ann").await.expect("read");
    assert_eq!(found, ann);
}
