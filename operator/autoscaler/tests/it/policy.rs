//! Faults of policies are told with the field and the way out.

use echotune_autoscaler::{Class, Policy};

#[test]
fn all_faults_are_told_at_once() {
    assert_eq!(Policy::default().check(), Ok(()));
    let policy = Policy {
        min_pods: 5,
        max_pods: 3,
        calls_per_pod: 0,
        classes: vec![Class::default(), Class { slow_ms: 0, ..Class::default() }],
        ..Policy::default()
    };
    let faults = policy.check().expect_err("faults");
    let told = faults.to_string();
    for expected in [
        "minPods is 5, and must be from 0 to 3",
        "callsPerPod is 0, and must be from 1 to 100000",
        "classes[1].slowMs is 0, and must be from 1 to 3600000",
        "classes[1].name is 'calls', which another class has; name each differently",
    ] {
        assert!(told.contains(expected), "{told}");
    }
    let none = Policy { classes: Vec::new(), ..Policy::default() }.check().expect_err("no class");
    assert_eq!(none.sentences(), ["the number of classes is 0, and must be from 1 to 8"]);
}

#[test]
fn what_is_not_told_is_as_by_default() {
    let policy: Policy = serde_json::from_str(r#"{"maxPods": 7, "keep": {"rule": "fixed"}}"#).expect("a policy");
    assert_eq!((policy.max_pods, policy.keep.fixed_ms, policy.hold_ms), (7, 300_000, 30_000));
    let again: Policy = serde_json::from_str(&serde_json::to_string(&policy).expect("JSON")).expect("a policy");
    assert_eq!(again, policy);
}

/// What a custom resource embeds: every field has a schema, with its documentation.
#[cfg(feature = "schema")]
#[test]
fn the_schema_names_every_field() {
    let schema = schemars::schema_for!(Policy);
    let value = serde_json::to_value(Policy::default()).expect("JSON");
    for field in value.as_object().expect("an object").keys() {
        let told = &schema.as_value()["properties"][field];
        assert!(told["description"].is_string() || told["$ref"].is_string(), "{field}: {told}");
    }
}
