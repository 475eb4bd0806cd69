//! What clients did and were told.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use echotune_model::{Hlc, UserId};
use echotune_testbed::{
    Region,
    history::{Entry, Op, Outcome},
};

/// Somebody who listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listener {
    pub(crate) home: Region,
    pub(crate) name: String,
}

/// What became of an operation, and when, in microseconds of the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) outcome: Outcome,
    pub(crate) began: u64,
    pub(crate) ended: u64,
}

/// All that is known of a run besides its stores.
#[derive(Default)]
pub(crate) struct Notes {
    /// Operations, each with whose they are.
    pub(crate) entries: Vec<(String, Entry)>,
    pub(crate) listeners: BTreeSet<Listener>,
    /// Times of writes that were acknowledged, by listener.
    pub(crate) written: BTreeMap<String, BTreeSet<Hlc>>,
    /// Those whose erasure was asked for, unless that was refused.
    pub(crate) erased: BTreeMap<String, Outcome>,
    /// Who made an account, by its id.
    pub(crate) owners: HashMap<UserId, u64>,
    /// Accounts of listeners.
    pub(crate) ids: BTreeMap<String, UserId>,
}

impl Notes {
    pub(crate) fn note(&mut self, of: &Listener, told: Told, op: Op) {
        let Told { outcome, began, ended } = told;
        self.entries.push((of.name.clone(), Entry { region: of.home, began, ended, outcome, op }));
    }
}

/// The set of a listener's listens.
pub(crate) fn listens(of: &str) -> String {
    format!("listens of {of}")
}

/// The set of a listener's playlists.
pub(crate) fn playlists(of: &str) -> String {
    format!("playlists of {of}")
}

/// The counter of a listener's settings, which are set one after the other.
pub(crate) fn settings(of: &str) -> String {
    format!("settings of {of}")
}
