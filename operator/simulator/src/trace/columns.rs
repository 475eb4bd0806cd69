//! What columns hold, by their names.

/// What a column holds. Units are in microseconds, where the name tells one. Of several columns of one role the one
/// with the lowest rank is meant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Role {
    /// When a call came, or an interval began.
    Time { rank: usize, unit_us: Option<f64> },
    /// When a call ended.
    End { unit_us: Option<f64> },
    /// How long a call took.
    Took { rank: usize, unit_us: Option<f64> },
    /// How many calls came.
    Count { rank: usize },
    /// How many calls came in that long.
    Rate { of_us: f64 },
    /// Whom calls were for.
    Key,
    /// Surely no number of calls.
    Other,
    /// No name that says anything.
    Unknown,
}

/// When a call came, rather than when it was worked on or written down.
const TIMES: [&str; 32] = [
    "timestamp",
    "datetime",
    "dateandtime",
    "time",
    "ts",
    "arrivaltime",
    "arrivaltimestamp",
    "arrivedat",
    "arrival",
    "invokedat",
    "invocationtime",
    "invocationtimestamp",
    "requesttime",
    "requesttimestamp",
    "requestedat",
    "receivedat",
    "submittime",
    "submittedat",
    "starttime",
    "starttimestamp",
    "startedat",
    "start",
    "begin",
    "eventtime",
    "createdat",
    "windowstart",
    "intervalstart",
    "timebucket",
    "date",
    "epoch",
    "unixtime",
    "unixtimestamp",
];

const ENDS: [&str; 7] = ["endtimestamp", "endtime", "end", "endedat", "finishedat", "finishtime", "completedat"];

const TOOK: [&str; 16] = [
    "duration",
    "callduration",
    "requestduration",
    "executionduration",
    "executiontime",
    "exectime",
    "servicetime",
    "processingtime",
    "runtime",
    "took",
    "timetaken",
    "elapsed",
    "elapsedtime",
    "latency",
    "responsetime",
    "calltime",
];

const CALLS: [&str; 12] = [
    "value",
    "values",
    "count",
    "counts",
    "calls",
    "requests",
    "invocations",
    "arrivals",
    "hits",
    "queries",
    "visits",
    "volume",
];

const KEYS: [&str; 26] = [
    "function",
    "func",
    "functionname",
    "functionid",
    "hashfunction",
    "app",
    "application",
    "appname",
    "appid",
    "hashapp",
    "owner",
    "hashowner",
    "service",
    "servicename",
    "serviceid",
    "server",
    "servername",
    "deployment",
    "workload",
    "endpoint",
    "api",
    "model",
    "modelname",
    "tool",
    "toolname",
    "name",
];

/// Rates of calls, and how long what they count takes.
const RATES: [(&str, f64); 7] =
    [("qps", 1e6), ("rps", 1e6), ("tps", 1e6), ("rate", 1e6), ("throughput", 1e6), ("rpm", 6e7), ("qpm", 6e7)];

/// Parts of names of columns that hold something else than calls.
const OTHERS: [&str; 13] = [
    "token", "byte", "memory", "cpu", "size", "status", "code", "cost", "price", "percent", "error", "index", "unnamed",
];

const UNITS: [(&str, f64); 24] = [
    ("milliseconds", 1e3),
    ("millisecond", 1e3),
    ("millis", 1e3),
    ("msec", 1e3),
    ("ms", 1e3),
    ("microseconds", 1.0),
    ("microsecond", 1.0),
    ("micros", 1.0),
    ("usec", 1.0),
    ("us", 1.0),
    ("nanoseconds", 1e-3),
    ("nanosecond", 1e-3),
    ("nanos", 1e-3),
    ("ns", 1e-3),
    ("seconds", 1e6),
    ("second", 1e6),
    ("secs", 1e6),
    ("sec", 1e6),
    ("minutes", 6e7),
    ("minute", 6e7),
    ("hours", 3.6e9),
    ("hour", 3.6e9),
    ("days", 8.64e10),
    ("day", 8.64e10),
];

/// What a column of this name holds.
pub(super) fn role(name: &str) -> Role {
    let words = words(name);
    let plain = words.concat();
    let with_unit = words.split_last().filter(|(_, before)| !before.is_empty()).and_then(|(last, before)| {
        let unit_us = if last == "s" { 1e6 } else { unit(last)? };
        timed(&before.concat(), Some(unit_us))
    });
    let glued = || UNITS.iter().find_map(|(suffix, us)| timed(plain.strip_suffix(*suffix)?, Some(*us)));
    // A column that is called a minute counts minutes; `ms` alone may be of anything.
    let counted = || Some(Role::Time { rank: TIMES.len(), unit_us: Some(unit(&plain).filter(|_| plain.len() > 2)?) });
    with_unit
        .or_else(|| timed(&plain, None))
        .or_else(|| called(&plain))
        .or_else(glued)
        .or_else(counted)
        .unwrap_or_else(|| if is_other(&words) { Role::Other } else { Role::Unknown })
}

/// The words of a name in lower case: what is no letter or digit parts them, and so does a capital after a small
/// letter.
fn words(name: &str) -> Vec<String> {
    let (mut words, mut small) = (vec![String::new()], false);
    for letter in name.chars() {
        let letter = if matches!(letter, 'µ' | 'μ') { 'u' } else { letter };
        if !letter.is_ascii_alphanumeric() || letter.is_ascii_uppercase() && small {
            words.push(String::new());
        }
        small = letter.is_ascii_lowercase();
        if let Some(word) = words.last_mut().filter(|_| letter.is_ascii_alphanumeric()) {
            word.push(letter.to_ascii_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn unit(word: &str) -> Option<f64> {
    UNITS.iter().find(|(name, _)| *name == word).map(|(_, us)| *us)
}

fn timed(name: &str, unit_us: Option<f64>) -> Option<Role> {
    let place = |names: &[&str]| names.iter().position(|one| *one == name);
    if let Some(rank) = place(&TIMES) {
        return Some(Role::Time { rank, unit_us });
    }
    if ENDS.contains(&name) {
        return Some(Role::End { unit_us });
    }
    place(&TOOK).map(|rank| Role::Took { rank, unit_us })
}

fn called(name: &str) -> Option<Role> {
    if KEYS.contains(&name) {
        return Some(Role::Key);
    }
    if let Some((_, of_us)) = RATES.iter().find(|(rate, _)| *rate == name) {
        return Some(Role::Rate { of_us: *of_us });
    }
    for (suffix, of_us) in
        [("persecond", 1e6), ("persec", 1e6), ("perminute", 6e7), ("permin", 6e7), ("perhour", 3.6e9)]
    {
        if name.strip_suffix(suffix).is_some_and(|calls| calls_of(calls).is_some()) {
            return Some(Role::Rate { of_us });
        }
    }
    calls_of(name).map(|rank| Role::Count { rank })
}

/// The place among names of calls: of `requests`, `num_requests`, `total_requests` and `request_count` the same.
fn calls_of(name: &str) -> Option<usize> {
    let place = |name: &str| CALLS.iter().position(|calls| *calls == name);
    let prefixed = || ["numberof", "num", "total", "n"].iter().find_map(|prefix| place(name.strip_prefix(*prefix)?));
    let suffixed = || {
        let one = name.strip_suffix("count")?;
        CALLS.iter().position(|calls| *calls == one || calls.strip_suffix('s') == Some(one))
    };
    place(name).or_else(prefixed).or_else(suffixed)
}

fn is_other(words: &[String]) -> bool {
    let plain = words.concat();
    words.last().is_some_and(|word| word == "id") || OTHERS.iter().any(|part| plain.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit_of(name: &str) -> Option<f64> {
        match role(name) {
            Role::Time { unit_us, .. } | Role::End { unit_us } | Role::Took { unit_us, .. } => unit_us,
            other => panic!("{name} is {other:?}"),
        }
    }

    #[test]
    fn names_are_known_however_they_are_written() {
        for name in ["timestamp", "TIMESTAMP", "Time", "ts", "invoked_at", "startTime", "arrival time", "Date"] {
            assert!(matches!(role(name), Role::Time { unit_us: None, .. }), "{name}: {:?}", role(name));
        }
        for name in ["count", "Requests", "num_requests", "invocation_count", "RequestCount", "arrivals", "total calls"]
        {
            assert!(matches!(role(name), Role::Count { .. }), "{name}: {:?}", role(name));
        }
        for name in ["func", "HashFunction", "app_id", "service-name"] {
            assert_eq!(role(name), Role::Key, "{name}");
        }
        for (name, of_us) in [("qps", 1e6), ("requests_per_second", 1e6), ("invocationsPerMinute", 6e7), ("rpm", 6e7)] {
            assert_eq!(role(name), Role::Rate { of_us }, "{name}");
        }
        for name in ["ContextTokens", "request_id", "AverageAllocatedBytes", "StatusCode", "Unnamed: 0"] {
            assert_eq!(role(name), Role::Other, "{name}");
        }
        for name in ["", "a", "f", "Trigger", "status quo ante", "s", "ms", "1"] {
            assert!(matches!(role(name), Role::Unknown | Role::Other), "{name}: {:?}", role(name));
        }
        assert!(matches!(role("end_timestamp"), Role::End { unit_us: None }));
    }

    #[test]
    fn units_are_read_from_names() {
        for (name, us) in [
            ("duration_ms", 1e3),
            ("durationMs", 1e3),
            ("Duration (s)", 1e6),
            ("latency_µs", 1.0),
            ("latency_us", 1.0),
            ("time[ns]", 1e-3),
            ("timestamp_ms", 1e3),
            ("timestampms", 1e3),
            ("arrival_s", 1e6),
            ("end_time_ns", 1e-3),
            ("minute", 6e7),
            ("Second", 1e6),
            ("day", 8.64e10),
        ] {
            assert_eq!(unit_of(name), Some(us), "{name}");
        }
        assert_eq!(unit_of("response_time"), None);
        assert_eq!(unit_of("duration"), None);
    }
}
