//! What every holder of keys must do, as functions that panic when one does not. Each takes a subject of its own.

use super::{Opened, SubjectKeys};

/// A subject has one key, also for callers at once, until it is destroyed; then another, and never the same.
///
/// # Panics
/// The holder does otherwise.
pub async fn keys(holder: &dyn SubjectKeys, subject: &str) {
    let other = format!("{subject}-other");
    assert!(holder.existing(subject).await.expect("read").is_none(), "a new subject has no key");
    let made = futures::future::join_all((0..8).map(|_| holder.key(subject))).await;
    let sealed = made[0].as_ref().expect("made").seal(b"x", b"plain").expect("sealed");
    for key in made {
        assert_eq!(key.expect("made").open(b"x", &sealed), Opened::Plain(b"plain".to_vec()));
    }
    let kept = holder.existing(subject).await.expect("read").expect("kept");
    assert_eq!(kept.open(b"x", &sealed), Opened::Plain(b"plain".to_vec()));
    let of_other = holder.key(&other).await.expect("made").seal(b"x", b"theirs").expect("sealed");
    for _ in 0..2 {
        holder.destroy(subject).await.expect("destroyed");
        assert!(holder.existing(subject).await.expect("read").is_none());
    }
    assert_eq!(holder.key(subject).await.expect("made anew").open(b"x", &sealed), Opened::OtherKey);
    assert_eq!(
        holder.key(&other).await.expect("kept").open(b"x", &of_other),
        Opened::Plain(b"theirs".to_vec()),
        "those of others stay"
    );
}
