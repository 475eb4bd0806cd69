//! Printing: the annotated defaults with the values in force.

use std::collections::BTreeMap;

use toml::{Table, de::DeTable};

use super::{Config, ConfigFault, Faults, Origin, get, read::leaves, values::REDACTED};

pub(super) fn annotated<T: Config>(
    defaults: &str,
    config: &T,
    origins: &BTreeMap<String, Origin>,
) -> Result<String, Faults> {
    let broken = |cause: String| Faults(vec![ConfigFault::new(Origin::Default, cause)]);
    let effective = Table::try_from(config).map_err(|cause| broken(cause.to_string()))?;
    let schema: Table = defaults.parse().map_err(|cause: toml::de::Error| broken(cause.to_string()))?;
    let spanned = DeTable::parse(defaults).map_err(|cause| broken(cause.to_string()))?;
    let mut values = leaves(spanned.get_ref(), &schema, "");
    // From the end, so that what is put in does not move what is still to be replaced.
    values.sort_by_key(|(_, _, offset)| std::cmp::Reverse(*offset));
    let mut text = defaults.to_owned();
    for (key, span, offset) in values {
        let (Some(span), Some(value)) = (span, get(&effective, &key)) else { continue };
        let origin = origins.get(&key);
        let end = text[span.end..].find('\n').map_or(text.len(), |more| span.end + more);
        if value.as_str() == Some(REDACTED) {
            let from = origin.map_or_else(|| Origin::Default.to_string(), ToString::to_string);
            let name = key.rsplit('.').next().unwrap_or(&key);
            text.replace_range(offset..end, &format!("# {name} is set by {from}; secrets are not printed"));
            continue;
        }
        if let Some(origin) = origin {
            text.insert_str(end, &format!("  # {origin}"));
            text.replace_range(span, &value.to_string());
        }
    }
    Ok(text)
}
