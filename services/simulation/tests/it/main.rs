//! Regions of the platform in one thread, under a network and hosts that fail as a seed says.

#![cfg(target_os = "linux")]

mod clients;
mod draw;
mod faults;
mod forwarding;
mod homes;
mod judge;
mod log;
mod net;
mod notes;
mod planted;
mod region;
mod run;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use planted::Planted;
use run::run;

/// Names one seed, which is then run alone.
const SEED: &str = "ECHOTUNE_SEED";
/// Names how many seeds are run.
const SEEDS: &str = "ECHOTUNE_SEEDS";
/// How many are run unless that is said.
const DEFAULT_SEEDS: u64 = 40;
/// How many are tried to find a planted fault.
const PLANTED_SEEDS: u64 = 200;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Runs seeds from 0 on, on all processors, until one gives an answer.
fn first<T: Send>(seeds: u64, ask: impl Fn(u64) -> Option<T> + Sync) -> Option<(u64, T)> {
    let (next, found) = (AtomicU64::new(0), Mutex::new(None::<(u64, T)>));
    let locked = || found.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds || locked().is_some() {
                return;
            }
            if let Some(answer) = ask(seed) {
                let mut found = locked();
                // Of several the first, so that another run tells the same.
                if found.as_ref().is_none_or(|(before, _)| seed < *before) {
                    *found = Some((seed, answer));
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(work);
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn whatever_fails_regions_keep_what_they_promised() {
    let told = |seed: u64| {
        let run = run(seed, None);
        run.fault().map(|fault| (fault, run.keep()))
    };
    let failed = match number(SEED) {
        Some(seed) => told(seed).map(|told| (seed, told)),
        None => first(number(SEEDS).unwrap_or(DEFAULT_SEEDS), told),
    };
    if let Some((seed, (fault, history))) = failed {
        panic!(
            "seed {seed}: {fault}\nrepeat it with `{SEED}={seed} cargo test -p echotune-simulation whatever_fails`\n\
             judge its history with `cargo xtask testbed judge {}`",
            history.display()
        );
    }
}

#[test]
fn each_planted_fault_is_found() {
    for planted in Planted::ALL {
        let found = first(PLANTED_SEEDS, |seed| run(seed, Some(planted)).fault());
        let Some((seed, fault)) = found else { panic!("{planted:?} is not found by {PLANTED_SEEDS} seeds") };
        println!("{planted:?} is found by seed {seed}: {fault}");
    }
}
