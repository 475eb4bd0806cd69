//! Regions that homes do not leave.

use std::collections::{BTreeMap, BTreeSet};

use echotune_model::{ErrorKind, Fault, Jurisdictions};

/// Groups of regions that homes do not leave: who is at home in one of a group moves to others of it only, and only
/// others of it stand in for it. A region of no group is left for any. It is about who makes the writes; where copies
/// are is told by jurisdictions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The group of each region that is of one.
    groups: BTreeMap<String, BTreeSet<String>>,
}

impl Bounds {
    /// These groups of regions, of those that there are.
    ///
    /// # Errors
    /// What is wrong with them, each in a sentence: an empty group, a region that there is none of, or one that is named
    /// twice.
    pub fn new(groups: &[Vec<String>], known: &[String]) -> Result<Self, Vec<String>> {
        let (mut bounds, mut faults) = (Self::default(), Vec::new());
        for group in groups {
            if group.is_empty() {
                faults.push("has a group of no region".to_owned());
            }
            let all: BTreeSet<_> = group.iter().cloned().collect();
            for region in group {
                if !known.contains(region) {
                    faults.push(format!("names '{}', which is not in region.all", region.escape_debug()));
                } else if bounds.groups.insert(region.clone(), all.clone()).is_some() {
                    faults.push(format!("names '{region}' twice; a region is in one group at the most"));
                }
            }
        }
        if faults.is_empty() { Ok(bounds) } else { Err(faults) }
    }

    /// The same, when no group is of two jurisdictions: a home that may go there by the one may not by the other.
    ///
    /// # Errors
    /// Each group that is, in a sentence.
    pub fn within(self, parted: &Jurisdictions) -> Result<Self, Vec<String>> {
        let groups: BTreeSet<_> = self.groups.values().collect();
        let across = |group: &BTreeSet<String>| {
            let of: BTreeSet<_> = group.iter().map(|region| parted.of(region)).collect();
            let names = |names: Vec<&str>| names.join(", ");
            let (regions, of) = (names(group.iter().map(String::as_str).collect()), names(of.into_iter().collect()));
            format!("groups {regions}, which are of the jurisdictions {of}; homes stay in one")
        };
        let is_across = |group: &BTreeSet<String>| {
            group.iter().zip(group.iter().skip(1)).any(|(one, next)| !parted.same(one, next))
        };
        let faults: Vec<_> = groups.into_iter().filter(|group| is_across(group)).map(across).collect();
        if faults.is_empty() { Ok(self) } else { Err(faults) }
    }

    /// Whether writes of users who are at home in one region may be made in another.
    ///
    /// # Errors
    /// [`ErrorKind::FailedPrecondition`] when the other is not of the group.
    pub fn check(&self, from: &str, to: &str) -> Result<(), Fault> {
        let Some(group) = self.groups.get(from).filter(|group| !group.contains(to)) else { return Ok(()) };
        let others = group.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let why = format!("homes of '{from}' stay within {others} (homes_within), and '{to}' is none of them");
        Err(Fault::new(ErrorKind::FailedPrecondition, format!("{why}; nothing was changed")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(regions: &[&str]) -> Vec<String> {
        regions.iter().map(|region| (*region).to_owned()).collect()
    }

    #[test]
    fn a_home_stays_within_its_group_and_others_go_where_they_want() {
        let known = names(&["us", "eu", "north", "ap"]);
        let bounds = Bounds::new(&[names(&["eu", "north"])], &known).expect("well");
        for (from, to, is_well) in [
            ("eu", "north", true),
            ("north", "eu", true),
            ("eu", "eu", true),
            ("eu", "us", false),
            ("north", "ap", false),
            ("us", "ap", true),
            ("us", "eu", true),
        ] {
            let checked = bounds.check(from, to);
            assert_eq!(checked.is_ok(), is_well, "{from} to {to}");
            let told = |fault: Fault| fault.message.contains("eu, north") && fault.message.contains(to);
            assert!(checked.err().is_none_or(told), "the group is named");
        }
    }

    #[test]
    fn what_is_wrong_with_groups_is_told_at_once() {
        let known = names(&["us", "eu"]);
        let groups = [names(&[]), names(&["us", "moon"]), names(&["eu", "us"])];
        let faults = Bounds::new(&groups, &known).expect_err("wrong").join("; ");
        for word in ["no region", "'moon'", "'us' twice"] {
            assert!(faults.contains(word), "{word} is not in {faults}");
        }
    }

    #[test]
    fn a_group_of_two_jurisdictions_contradicts_them() {
        let known = names(&["us", "eu", "north", "ap"]);
        let parted = Jurisdictions::parse(&names(&["eea=eu,north"]), &known).expect("well");
        let within = |groups: &[Vec<String>]| Bounds::new(groups, &known).expect("well").within(&parted);
        assert!(within(&[names(&["eu", "north"]), names(&["us", "ap"])]).is_ok());
        let faults = within(&[names(&["eu", "us"]), names(&["ap"])]).expect_err("across");
        assert!(faults.len() == 1 && faults[0].contains("eu, us") && faults[0].contains("eea, open"), "{faults:?}");
    }

    proptest! {
        #[test]
        fn whatever_moves_a_home_makes_it_never_leaves_its_group(
            group_of in prop::collection::vec(0..3_usize, 5),
            moves in prop::collection::vec(0..5_usize, 0..30),
        ) {
            let known: Vec<_> = (0..5).map(|region| format!("r{region}")).collect();
            // The last group is no group.
            let group = |wanted| {
                let of = known.iter().zip(&group_of).filter(|(_, of)| **of == wanted);
                of.map(|(region, _)| region.clone()).collect::<Vec<_>>()
            };
            let groups: Vec<_> = [group(0), group(1)].into_iter().filter(|group| !group.is_empty()).collect();
            let bounds = Bounds::new(&groups, &known).expect("well");
            let mut home = 0;
            for to in moves {
                let before = group_of[home];
                if bounds.check(&known[home], &known[to]).is_ok() {
                    home = to;
                }
                prop_assert!(before == 2 || group_of[home] == before);
            }
        }
    }
}
