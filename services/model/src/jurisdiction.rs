//! Which regions may hold what is of a user.

use std::collections::{BTreeMap, BTreeSet};

use crate::{ErrorKind, Fault};

/// The jurisdiction of regions that are of no other.
pub const OPEN: &str = "open";
/// Longest name of a jurisdiction, in bytes: it is a part of the name of a keyspace.
const MAX_NAME_BYTES: usize = 16;

/// Regions parted into jurisdictions. What is of a user stays in the regions of one, that of the region in which the
/// account was made. Without any, all regions are of one: [`OPEN`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Jurisdictions {
    /// The jurisdiction of each region that is of one by name.
    of: BTreeMap<String, String>,
}

impl Jurisdictions {
    /// Reads `NAME=REGION,REGION`, one for each jurisdiction, of the regions that there are.
    ///
    /// # Errors
    /// All that is wrong, each in a sentence: a name that is none or is given twice, no region, a region that there is
    /// none of, or one that is of two.
    pub fn parse(told: &[String], known: &[String]) -> Result<Self, Vec<String>> {
        let (mut parted, mut names, mut faults) = (Self::default(), BTreeSet::new(), Vec::new());
        for one in told {
            let shown = one.escape_debug();
            let Some((name, regions)) = one.split_once('=') else {
                faults.push(format!("'{shown}' is not NAME=REGION,REGION, such as eea=eu,north"));
                continue;
            };
            if let Err(why) = check_name(name) {
                faults.push(format!("'{shown}' {why}"));
                continue;
            }
            if !names.insert(name) {
                faults.push(format!("names '{name}' twice; name all of its regions at once"));
            }
            for region in regions.split(',') {
                if !known.iter().any(|one| one == region) {
                    faults.push(format!("'{shown}' names '{}', which is not in region.all", region.escape_debug()));
                } else if let Some(before) = parted.of.insert(region.to_owned(), name.to_owned()) {
                    faults.push(format!(
                        "names '{region}' in '{before}' and in '{name}'; a region is in one at the most"
                    ));
                }
            }
        }
        if faults.is_empty() { Ok(parted) } else { Err(faults) }
    }

    /// Whether there are none, so that everything may be everywhere.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// The jurisdiction of a region.
    pub fn of(&self, region: &str) -> &str {
        self.of.get(region).map_or(OPEN, String::as_str)
    }

    /// Whether what is of users may be copied from one region to another.
    pub fn same(&self, one: &str, other: &str) -> bool {
        self.of(one) == self.of(other)
    }

    /// Those of these regions that are of the jurisdiction of one, itself among them.
    pub fn beside<'r>(&self, region: &str, all: &'r [String]) -> Vec<&'r str> {
        all.iter().map(String::as_str).filter(|other| self.same(region, other)).collect()
    }

    /// Every way from one of these regions to another, and whether topics are mirrored by it.
    pub fn flows<'r>(&self, all: &'r [String]) -> Vec<(&'r str, &'r str, bool)> {
        let from =
            |from: &'r String| all.iter().filter(move |to| *to != from).map(move |to| (from.as_str(), to.as_str()));
        all.iter().flat_map(from).map(|(from, to)| (from, to, self.same(from, to))).collect()
    }

    /// Whether a user who is at home in one region may be served by another, or move there.
    ///
    /// # Errors
    /// [`ErrorKind::FailedPrecondition`], naming both jurisdictions.
    pub fn check(&self, from: &str, to: &str) -> Result<(), Fault> {
        if self.same(from, to) {
            return Ok(());
        }
        let (of, other) = (self.of(from), self.of(to));
        let why = format!("what is of users of '{from}' stays in jurisdiction '{of}', and '{to}' is of '{other}'");
        Err(Fault::new(ErrorKind::FailedPrecondition, format!("{why} (region.jurisdictions); nothing was changed")))
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let is_name = name.len() <= MAX_NAME_BYTES
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(fits);
    if !is_name {
        let kind = format!("a small letter, then small letters, digits and underscores, {MAX_NAME_BYTES} at the most");
        return Err(format!("has no name of a jurisdiction: {kind}"));
    }
    // The open one has a keyspace beside the common one, like any other.
    if name == OPEN {
        return Err(format!("has the name of the jurisdiction of all other regions; '{OPEN}' is told by no list"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(regions: &[&str]) -> Vec<String> {
        regions.iter().map(|region| (*region).to_owned()).collect()
    }

    #[test]
    fn regions_are_parted_and_the_others_are_of_the_open_one() {
        let all = names(&["us", "eu", "ap", "north"]);
        let parted = Jurisdictions::parse(&names(&["eea=eu,north", "asia=ap"]), &all).expect("well");
        assert_eq!(["us", "eu", "ap", "north"].map(|region| parted.of(region)), [OPEN, "eea", "asia", "eea"]);
        assert_eq!((parted.beside("north", &all), parted.beside("us", &all)), (vec!["eu", "north"], vec!["us"]));
        let mirrored = parted.flows(&all).into_iter().filter(|(.., is)| *is).map(|(from, to, _)| (from, to));
        assert_eq!(mirrored.collect::<Vec<_>>(), [("eu", "north"), ("north", "eu")]);
        assert_eq!(parted.flows(&all).len(), 12);
        assert!(parted.check("eu", "north").is_ok() && parted.check("us", "us").is_ok());
        let refused = parted.check("eu", "us").expect_err("across");
        assert_eq!(refused.kind, ErrorKind::FailedPrecondition);
        assert!(["'eea'", "'open'", "'us'"].iter().all(|word| refused.message.contains(word)), "{refused}");
    }

    #[test]
    fn without_any_all_regions_are_one() {
        let all = names(&["us", "eu"]);
        let none = Jurisdictions::parse(&[], &all).expect("well");
        assert!(none.is_empty() && none.check("eu", "us").is_ok());
        assert!(none.flows(&all).iter().all(|(.., is)| *is) && none.beside("eu", &all) == ["us", "eu"]);
    }

    #[test]
    fn what_contradicts_itself_is_told_at_once() {
        let told = ["eu", "Eea=eu", "eea=eu", "eea=moon", "asia=eu", "open=us", "none=", "far_longer_than_it_is=us"];
        let faults = Jurisdictions::parse(&names(&told), &names(&["us", "eu"])).expect_err("wrong");
        let words = ["'eu' is not NAME=", "'Eea=eu' has no name", "'eea' twice", "'moon'", "in 'eea' and in 'asia'"];
        for word in words.into_iter().chain(["'open=us'", "'none=' names ''", "16 at the most"]) {
            assert!(faults.iter().any(|fault| fault.contains(word)), "{word} is not in {faults:#?}");
        }
        assert_eq!(faults.len(), told.len(), "one is well, and one has two: {faults:#?}");
    }
}
