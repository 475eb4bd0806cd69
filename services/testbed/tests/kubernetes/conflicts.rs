//! Two who write the same.

use anyhow::Context as _;
use serde_json::json;

use crate::space::{Space, refused};

#[tokio::test]
async fn who_takes_a_lease_by_what_it_was_loses() -> anyhow::Result<()> {
    let space = Space::new("lease").await?;
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "lead"},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15},
    });
    space.apply(&lease.to_string()).await?;
    let seen = space.get(&["lease", "lead"]).await?;
    let version = seen["metadata"]["resourceVersion"].as_str().context("a version")?.to_owned();
    let take = async |who: &str| {
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": who}}).to_string();
        space.kubectl(&["patch", "lease", "lead", "--type=merge", "--patch", &patch]).await
    };
    take("b").await?;
    refused(take("c").await, &["Conflict", "modified"])
}

#[tokio::test]
async fn managers_of_the_same_field_are_in_conflict() -> anyhow::Result<()> {
    let space = Space::new("managers").await?;
    let apply = async |manager: &str, value: &str, more: &[&str]| {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": value}});
        let words = ["apply", "--server-side", "--field-manager", manager, "-f", "-"];
        space.fed(&[&words[..], more].concat(), &map.to_string()).await
    };
    apply("a", "1", &[]).await?;
    refused(apply("b", "2", &[]).await, &["conflict"])?;
    apply("b", "2", &["--force-conflicts"]).await?;
    refused(apply("a", "1", &[]).await, &["conflict"])
}
