//! Metrics, sent to the collector that spans are sent to. Every metric of the platform is named here.

use opentelemetry::{
    KeyValue,
    metrics::{Gauge as OtelGauge, MeterProvider as _},
};
use opentelemetry_sdk::metrics::SdkMeterProvider;

/// A metric: what collectors know it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// Name.
    pub name: &'static str,
    /// Unit as in UCUM; `1` for none.
    pub unit: &'static str,
    /// What it tells.
    pub description: &'static str,
}

/// How far serving is from the fit, by the attributes `feature` and `kind`.
pub const DRIFT: Name = Name {
    name: "echotune.recommendations.drift",
    unit: "1",
    description: "Population stability index between the fit of the serving model and what is served; for new_items their share.",
};

/// Age of the keys by which JWTs are checked; it grows past `identity.refresh_every` while the issuer does not answer.
pub const KEYS_AGE: Name = Name {
    name: "echotune.identity.keys_age",
    unit: "s",
    description: "How long ago the keys of the issuer of JWTs were fetched, at each look for them.",
};

/// Where metrics go: nowhere, unless telemetry sends to a collector. Clones send to the same.
#[derive(Debug, Clone, Default)]
pub struct Meter(pub(super) Option<SdkMeterProvider>);

impl Meter {
    /// A metric whose latest value is sent.
    pub fn gauge(&self, of: Name) -> Gauge {
        let build = |provider: &SdkMeterProvider| {
            let meter = provider.meter("echotune");
            meter.f64_gauge(of.name).with_unit(of.unit).with_description(of.description).build()
        };
        Gauge(self.0.as_ref().map(build))
    }
}

/// A metric whose latest value is sent.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Option<OtelGauge<f64>>);

impl Gauge {
    /// Sets the value of some attributes; of few values each, and none of a user.
    pub fn record(&self, value: f64, attributes: &[(&'static str, &str)]) {
        if let Some(gauge) = &self.0 {
            let attributes: Vec<KeyValue> =
                attributes.iter().map(|(name, value)| KeyValue::new(*name, (*value).to_owned())).collect();
            gauge.record(value, &attributes);
        }
    }

    /// Whether anybody is told.
    pub const fn is_sent(&self) -> bool {
        self.0.is_some()
    }
}
