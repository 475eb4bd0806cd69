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
    /// How many users take turns, created with a history of their own.
    pub users: u64,
    /// How many listens each has before the measuring begins: 0 to 1,000.
    pub history: u64,
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
        if !positive || scenario.users == 0 {
            return Err("users and every number of [arrivals] must be more than 0".into());
        }
        if scenario.history > 1_000 {
            return Err(format!("history = {} is more than 1000", scenario.history));
        }
        Ok(scenario)
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
        assert!(Scenario::read(&text.replace("users", "userz")).is_err());
    }
}
