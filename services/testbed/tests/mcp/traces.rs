//! One trace from whoever calls, through the gateway, into the pod.

use anyhow::ensure;
use serde_json::json;

use crate::{
    client::Outcome,
    collector::{Collector, roots, shown},
    place::{NODE, Place, row},
};

#[tokio::test]
async fn a_call_is_one_trace() -> anyhow::Result<()> {
    let place = Place::new("trace").await?;
    let collector = Collector::begin(&place.space).await?;
    let name = place.route("trace");
    let mut resource = NODE.resource(&name, &json!({"minPods": 1, "maxPods": 1}))?;
    collector.tell(&mut resource, "pod");
    place.space.apply(&resource.to_string()).await?;
    place.until(&name, "1", |ready, _| ready == 1).await?;
    let trace: u128 = 0x4bf9_2f35_77b3_4da6_0000_0000_0000_0000 | u128::from(std::process::id());
    let parent: u64 = 0x00f0_67aa_0ba9_02b7;
    let told = format!("00-{trace:032x}-{parent:016x}-01");
    let answered = place.client.call(&name, NODE.tool, &json!({"message": "traced"}), Some(&told)).await;
    ensure!(matches!(answered, Outcome::Answered(_)), "{answered:?}");

    // What the gateway was asked and what it asked, and the same of the adapter in the pod.
    let four = |spans: &[(String, _)]| {
        let of = |name: &str| spans.iter().filter(|(service, _)| service == name).count();
        of("echotune-gateway") >= 2 && of("pod") >= 2
    };
    let spans = collector.wait(trace, "four spans of gateway and pod", four).await?;
    let roots = roots(&spans);
    ensure!(roots.len() == 1 && roots[0].parent_span_id == parent.to_be_bytes(), "not one trace: {}", shown(&spans));
    row("spans of one call", &shown(&spans))
}
