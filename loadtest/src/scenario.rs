//! What a load consists of, as read from `scenarios/*.toml`.

use serde::Deserialize;

/// One load.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What the users ask for.
    pub request: Request,
    /// How the requests arrive.
    pub arrivals: Arrivals,
    /// Who takes turns.
    pub listeners: Listeners,
}

/// Who takes turns in a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, tag = "are", rename_all = "snake_case")]
pub enum Listeners {
    /// Accounts made for the load, each with a history of its own.
    Created {
        /// How many.
        count: u64,
        /// How many listens each has before the measuring begins: 0 to 1,000.
        history: u64,
    },
    /// The first accounts that the platform holds, with the histories they have.
    Held {
        /// How many at the most: 1 to 1,000.
        count: u32,
    },
}

/// What the users ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// To record one listen, answered when it is durable.
    Listen,
    /// For ten artists with reasons.
    Recommend,
    /// To record a listen and to be recommended from it: until a list has seen it.
    Freshness,
}

/// How requests arrive.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, tag = "loop", rename_all = "snake_case")]
pub enum Arrivals {
    /// At a constant rate, whatever the answers do.
    Open {
        /// Requests per second.
        per_second: f64,
        /// Requests in all.
        requests: u64,
        /// Requests under way at the most.
        in_flight: usize,
    },
    /// Each caller sends the next request after an answer.
    Closed {
        /// Callers.
        callers: u64,
        /// Requests of each.
        each: u64,
    },
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// What is wrong with it, naming the key.
    pub fn read(text: &str) -> Result<Self, String> {
        let scenario: Self = toml::from_str(text).map_err(|cause| cause.to_string())?;
        let positive = match scenario.arrivals {
            Arrivals::Open { per_second, requests, in_flight } => {
                per_second.is_finite() && per_second > 0.0 && requests > 0 && in_flight > 0
            }
            Arrivals::Closed { callers, each } => callers > 0 && each > 0,
        };
        if !positive {
            return Err("every number of [arrivals] must be more than 0".into());
        }
        match scenario.listeners {
            Listeners::Created { count: 0, .. } | Listeners::Held { count: 0 } => {
                Err("count of [listeners] must be more than 0".into())
            }
            Listeners::Created { history: 1_001.., .. } => Err("history of [listeners] is more than 1000".into()),
            Listeners::Held { count: 1_001.. } => Err("count of [listeners] is more than 1000".into()),
            _ if scenario.request != Request::Recommend && matches!(scenario.listeners, Listeners::Held { .. }) => {
                Err("listeners that are held are only read from: request = \"recommend\"".into())
            }
            _ => Ok(scenario),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenarios_of_the_repository_can_be_read() {
        for text in [
            include_str!("../scenarios/listens.toml"),
            include_str!("../scenarios/recommend.toml"),
            include_str!("../scenarios/freshness.toml"),
        ] {
            Scenario::read(text).unwrap();
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let text = include_str!("../scenarios/recommend.toml");
        assert!(Scenario::read(&text.replace("per_second = 500.0", "per_second = 0.0")).is_err());
        assert!(Scenario::read(&text.replace("count", "counts")).is_err());
        assert!(Scenario::read(&text.replace("count = 1000", "count = 1001")).is_err());
        let written_to = Scenario::read(&text.replace("\"recommend\"", "\"listen\""));
        assert!(written_to.is_err_and(|error| error.contains("only read from")));
    }
}
