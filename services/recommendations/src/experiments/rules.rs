//! What an experiment may ask: pure.

use std::collections::HashSet;

use echotune_model::{ExperimentKind, ExperimentSpec, Fault, Metric, PARTS, PolicyChange, Variant};

/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// Longest hypothesis or reason, in bytes.
const MAX_TEXT_BYTES: usize = 4_096;
/// Variants at the most.
const MAX_VARIANTS: usize = 8;
/// Highest limit by artist: the longest list.
const MAX_PER_ARTIST: u32 = echotune_api::MAX_LIMIT;
/// Places to explore at the most.
const MAX_SLOTS: u32 = 10;
/// Longest time, in milliseconds: five years.
const MAX_MS: u64 = 5 * 366 * 24 * 3_600 * 1_000;

fn demand(holds: bool, why: impl FnOnce() -> String) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(Fault::invalid(why())) }
}

fn check_name(what: &str, name: &str) -> Result<(), Fault> {
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let shown = || name.chars().take(MAX_NAME_BYTES).flat_map(char::escape_debug).collect::<String>();
    demand(fits, || format!("{what} '{}' is not 1 to {MAX_NAME_BYTES} lower-case letters, digits and hyphens", shown()))
}

/// The name of an experiment.
pub(super) fn check_experiment_name(name: &str) -> Result<(), Fault> {
    check_name("the name", name)
}

/// Why an experiment is stopped.
pub(super) fn check_reason(reason: &str) -> Result<(), Fault> {
    demand(reason.len() <= MAX_TEXT_BYTES, || {
        format!("the reason has {} bytes; at most {MAX_TEXT_BYTES} are kept", reason.len())
    })
}

/// Whether an experiment has a meaning.
pub(super) fn check(spec: &ExperimentSpec) -> Result<(), Fault> {
    check_experiment_name(&spec.name)?;
    let text = &spec.hypothesis;
    demand(!text.trim().is_empty() && text.len() <= MAX_TEXT_BYTES, || {
        format!("the hypothesis has {} bytes; say in 1 to {MAX_TEXT_BYTES} what is expected and why", text.len())
    })?;
    check_variants(&spec.variants)?;
    demand((1..=PARTS).contains(&spec.share), || {
        format!("the share is {}; it is 1 to {PARTS} parts of {PARTS}", spec.share)
    })?;
    demand(spec.alpha > 0.0 && spec.alpha <= 0.5, || {
        format!("alpha is {}; it is above 0 and at most 0.5, such as 0.05", spec.alpha)
    })?;
    check_guardrails(spec)?;
    check_ends(spec)?;
    if spec.kind == ExperimentKind::Interleaving { check_interleaving(spec) } else { Ok(()) }
}

fn check_variants(variants: &[Variant]) -> Result<(), Fault> {
    demand((2..=MAX_VARIANTS).contains(&variants.len()), || {
        format!("there are {} variants; there are the control and 1 to {} others", variants.len(), MAX_VARIANTS - 1)
    })?;
    let mut names = HashSet::new();
    for variant in variants {
        check_name("the variant", &variant.name)?;
        demand(names.insert(&variant.name), || format!("variant '{}' is named twice", variant.name))?;
        demand(variant.weight > 0, || format!("variant '{}' has no weight", variant.name))?;
        check_change(&variant.name, &variant.change)?;
    }
    demand(variants[0].change == PolicyChange::default(), || {
        format!("variant '{}' is the control and changes nothing; what changes comes after it", variants[0].name)
    })?;
    let sum = variants.iter().fold(0_u32, |sum, variant| sum.saturating_add(variant.weight));
    demand(sum == PARTS, || format!("the weights sum to {sum}, not to {PARTS}"))
}

fn check_change(variant: &str, change: &PolicyChange) -> Result<(), Fault> {
    for (name, weight) in [("trending_weight", change.trending_weight), ("diversity_weight", change.diversity_weight)] {
        let weight = weight.unwrap_or(0.0);
        demand((0.0..=1.0).contains(&weight), || format!("variant '{variant}': {name} is {weight}, not 0 to 1"))?;
    }
    let most = change.max_per_artist.unwrap_or(0);
    demand(most <= MAX_PER_ARTIST, || {
        format!("variant '{variant}': max_per_artist is {most}; it is at most {MAX_PER_ARTIST}, and 0 for no limit")
    })?;
    let slots = change.exploration_slots.unwrap_or(0);
    demand(slots <= MAX_SLOTS, || {
        format!("variant '{variant}': exploration_slots is {slots}; it is at most {MAX_SLOTS}")
    })
}

fn check_guardrails(spec: &ExperimentSpec) -> Result<(), Fault> {
    let mut seen = HashSet::from([spec.primary]);
    for guardrail in &spec.guardrails {
        let (name, margin) = (guardrail.metric.name(), guardrail.margin);
        demand(seen.insert(guardrail.metric), || format!("'{name}' is a guardrail twice, or what decides"))?;
        demand(margin > 0.0 && margin <= 1.0, || {
            format!("the margin of guardrail '{name}' is {margin}; it is above 0 and at most 1")
        })?;
    }
    Ok(())
}

fn check_ends(spec: &ExperimentSpec) -> Result<(), Fault> {
    demand((1..=60_000).contains(&spec.slow_list_ms), || {
        format!("slow_list_ms is {}; it is 1 to 60000", spec.slow_list_ms)
    })?;
    for (name, least, most) in [
        ("listeners", spec.min_listeners, spec.max_listeners),
        ("duration_ms", spec.min_duration_ms, spec.max_duration_ms),
    ] {
        demand(most == 0 || least <= most, || format!("min_{name} {least} is more than max_{name} {most}"))?;
    }
    let longest = spec.min_duration_ms.max(spec.max_duration_ms).max(spec.window_ms);
    demand(longest <= MAX_MS, || format!("{longest} ms are more than five years"))?;
    let (window, end) = (spec.window_ms, spec.max_duration_ms);
    demand(end == 0 || window < end, || {
        format!("no listener's window of {window} ms would have passed at the end, after {end} ms")
    })
}

fn check_interleaving(spec: &ExperimentSpec) -> Result<(), Fault> {
    demand(spec.variants.len() == 2, || "two variants are interleaved: the control and one other".to_owned())?;
    demand(spec.primary == Metric::Acceptance, || "what is interleaved is decided by acceptance".to_owned())?;
    demand(spec.guardrails.is_empty(), || {
        "every listener has the lists of both variants that are interleaved, so that no guardrail tells them apart"
            .to_owned()
    })?;
    let explores = |variant: &Variant| variant.change.exploration_slots.unwrap_or(0) > 0;
    demand(!spec.variants.iter().any(explores), || "a variant that explores is not interleaved; split it".to_owned())
}
