//! Metrics, sent to the collector that spans are sent to. Every metric of the platform is named here.

use opentelemetry::{
    KeyValue,
    metrics::{Counter as OtelCounter, Gauge as OtelGauge, Histogram as OtelHistogram, MeterProvider as _},
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

/// Records that a consumer has taken, by the attributes `messaging.destination.name` and `messaging.consumer.group.name` of
/// OpenTelemetry's conventions for messaging, which give the name too. They have none for what follows.
pub const CONSUMED: Name = Name {
    name: "messaging.client.consumed.messages",
    unit: "{message}",
    description: "Records of the event log that a consumer has applied or set aside.",
};

/// Of these, records set aside as dead letters.
pub const DEAD_LETTERS: Name = Name {
    name: "echotune.consumer.dead_letters",
    unit: "{message}",
    description: "Records of the event log that a consumer has set aside because it can never apply them.",
};

/// Records that wait for a consumer, by `messaging.destination.partition.id` too, as all that follow.
pub const LAG: Name = Name {
    name: "echotune.consumer.lag",
    unit: "{message}",
    description: "Records of a stream that a consumer has not taken yet.",
};

/// Age of what waits.
pub const LAG_TIME: Name = Name {
    name: "echotune.consumer.lag.time",
    unit: "s",
    description: "Time since the newest record applied of a stream was written, while others wait; 0 when none do.",
};

/// Place of a consumer.
pub const POSITION: Name = Name {
    name: "echotune.consumer.position",
    unit: "{message}",
    description: "The position of a stream that a consumer takes next.",
};

/// Time of a consumer.
pub const WATERMARK: Name = Name {
    name: "echotune.consumer.watermark",
    unit: "s",
    description: "When the newest record applied of a stream was written, since the Unix epoch.",
};

/// Users whose events the relay of an outbox holds back, by the attribute `region` of the outbox.
pub const OUTBOX_HELD: Name = Name {
    name: "echotune.outbox.held",
    unit: "{user}",
    description: "Users whose events wait in an outbox because something of theirs cannot be read.",
};

/// Looks for values in caches, by the attributes `cache`, `tier` (`process` or `shared`) and `outcome`. Of the first tier:
/// `hit`, `early` (made anew before its end), `miss`, `joined` (waited for one who made it) and `held` (not kept, after a
/// change). Of the second: `hit`, `early`, `miss`, `waited` (in vain for another process), `held`, `foreign` (of another
/// program or key), `doubted` (not told yet of a change) and `away`.
pub const CACHE_LOOKUPS: Name = Name {
    name: "echotune.cache.lookups",
    unit: "{lookup}",
    description: "Looks for a value in a tier of a cache, by what came of them.",
};

/// Values that had to go for others, by `cache` and `tier`.
pub const CACHE_EVICTIONS: Name = Name {
    name: "echotune.cache.evictions",
    unit: "{value}",
    description: "Values that a cache let go before their time for want of room.",
};

/// Requests to the shared tier that failed, by `tier` and `cause`: `late`, `failed`, `full` or `away`.
pub const CACHE_ERRORS: Name = Name {
    name: "echotune.cache.errors",
    unit: "{request}",
    description: "Requests to the shared tier of caches that failed; answers were made without it.",
};

/// Whether the shared tier is left alone.
pub const CACHE_LEFT_ALONE: Name = Name {
    name: "echotune.cache.left_alone",
    unit: "1",
    description: "1 while the shared tier of caches does not answer and is left alone, 0 while it is used.",
};

/// Bounds of the buckets of durations, in seconds, as OpenTelemetry's conventions for MCP advise.
pub const MCP_BOUNDS: [f64; 14] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// Time of a request of MCP as the one who answers it sees it, by `mcp.method.name`, `network.transport` and, when it failed,
/// `error.type`. This and the three that follow are OpenTelemetry's, of the conventions for MCP; none of them tells a tool or
/// a session, of which there are too many.
pub const MCP_SERVER_OPERATION: Name = Name {
    name: "mcp.server.operation.duration",
    unit: "s",
    description: "Time from the receipt of an MCP request to its answer.",
};

/// Time of a request of MCP as the one who asks sees it, by `server` too.
pub const MCP_CLIENT_OPERATION: Name = Name {
    name: "mcp.client.operation.duration",
    unit: "s",
    description: "Time from the sending of an MCP request to its answer.",
};

/// Time of a session with a client, when it is ended.
pub const MCP_SERVER_SESSION: Name = Name {
    name: "mcp.server.session.duration",
    unit: "s",
    description: "Time from the opening of an MCP session to its end, as its server sees it.",
};

/// Time of a session with a server, when it is ended.
pub const MCP_CLIENT_SESSION: Name = Name {
    name: "mcp.client.session.duration",
    unit: "s",
    description: "Time from the opening of an MCP session to its end, as its client sees it.",
};

/// What the gateway did beside passing requests on, by `server` and `event`: `shed`, `repeated`, `renewed` (a session),
/// `unknown` (an outcome), `ejected` (an endpoint), `absent` (from a list), `restarted` (a child), `crowded` (no
/// session or child for somebody), `untold` (a request that was given up) and `unmetered` (a call that could not be
/// entered).
pub const GATEWAY_EVENTS: Name = Name {
    name: "echotune.gateway.events",
    unit: "{event}",
    description: "What the MCP gateway did for the sake of a server that was full, failed or away.",
};

/// Calls that the gateway sent to another region, by `region`, `server` and `result`: `taken`, `refused` (it was then
/// made here), `failed` and `cancelled`.
pub const GATEWAY_SPILLED: Name = Name {
    name: "echotune.gateway.spilled",
    unit: "{call}",
    description: "Calls that the MCP gateway sent to another region, by what became of them there.",
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

    /// A metric that grows.
    pub fn counter(&self, of: Name) -> Counter {
        let build = |provider: &SdkMeterProvider| {
            let meter = provider.meter("echotune");
            meter.u64_counter(of.name).with_unit(of.unit).with_description(of.description).build()
        };
        Counter(self.0.as_ref().map(build))
    }

    /// A metric of how values are distributed among buckets with these upper bounds.
    pub fn histogram(&self, of: Name, bounds: &[f64]) -> Histogram {
        let build = |provider: &SdkMeterProvider| {
            let meter = provider.meter("echotune");
            let builder = meter.f64_histogram(of.name).with_boundaries(bounds.to_vec());
            builder.with_unit(of.unit).with_description(of.description).build()
        };
        Histogram(self.0.as_ref().map(build))
    }

    /// Whether anybody is told.
    pub const fn is_sent(&self) -> bool {
        self.0.is_some()
    }
}

fn key_values(attributes: &[(&'static str, &str)]) -> Vec<KeyValue> {
    attributes.iter().map(|(name, value)| KeyValue::new(*name, (*value).to_owned())).collect()
}

/// A metric that grows.
#[derive(Debug, Clone, Default)]
pub struct Counter(Option<OtelCounter<u64>>);

impl Counter {
    /// Adds to the value of some attributes; of few values each, and none of a user.
    pub fn add(&self, more: u64, attributes: &[(&'static str, &str)]) {
        if let Some(counter) = &self.0 {
            counter.add(more, &key_values(attributes));
        }
    }
}

/// A metric whose latest value is sent.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Option<OtelGauge<f64>>);

impl Gauge {
    /// Sets the value of some attributes; of few values each, and none of a user.
    pub fn record(&self, value: f64, attributes: &[(&'static str, &str)]) {
        if let Some(gauge) = &self.0 {
            gauge.record(value, &key_values(attributes));
        }
    }

    /// Whether anybody is told.
    pub const fn is_sent(&self) -> bool {
        self.0.is_some()
    }
}

/// A metric of how values are distributed.
#[derive(Debug, Clone, Default)]
pub struct Histogram(Option<OtelHistogram<f64>>);

impl Histogram {
    /// Adds a value under some attributes; of few values each, and none of a user.
    pub fn record(&self, value: f64, attributes: &[(&'static str, &str)]) {
        if let Some(histogram) = &self.0 {
            histogram.record(value, &key_values(attributes));
        }
    }
}
