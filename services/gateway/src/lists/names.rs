//! Under which name clients see what a server calls by its own.
//!
//! - A name that one server alone has is shown as it is.
//! - A name that several servers have is shown as `SERVER__NAME` for each of them, and for none as it is: which server
//!   it
//!   would mean could not be told from it, and a server could take another's place by offering what that offers.
//! - A name that begins like one of these (`SERVER__` of a server that there is) is always shown with its own server's
//!   before it, so that no server can pass for another.
//!
//! `SERVER__NAME` is understood for every name, also where it is not shown, so that whoever holds it need not care what
//! other servers come and go. Names of servers have no underscore: there is one way to take such a name apart.

use std::collections::BTreeMap;

/// Between the name of a server and a name of it.
const BETWEEN: &str = "__";

/// The server and its own name that a name with prefix means.
pub(crate) fn split<'n>(name: &'n str, servers: &[&str]) -> Option<(usize, &'n str)> {
    let (server, own) = name.split_once(BETWEEN)?;
    let at = servers.iter().position(|known| *known == server)?;
    (!own.is_empty()).then_some((at, own))
}

/// The name with its server's before it.
pub(crate) fn prefixed(server: &str, own: &str) -> String {
    format!("{server}{BETWEEN}{own}")
}

/// All names as they are shown, each with the server and the place in its list.
pub(crate) fn shown(servers: &[&str], lists: &[Vec<&str>]) -> BTreeMap<String, (usize, usize)> {
    let mut having: BTreeMap<&str, usize> = BTreeMap::new();
    for own in lists.iter().flatten() {
        *having.entry(own).or_default() += 1;
    }
    let mut names = BTreeMap::new();
    for (server, list) in lists.iter().enumerate() {
        for (at, own) in list.iter().enumerate() {
            let alone = having[own] == 1 && split(own, servers).is_none();
            let name = if alone { (*own).to_owned() } else { prefixed(servers[server], own) };
            names.insert(name, (server, at));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const SERVERS: [&str; 3] = ["a", "b", "b-c"];

    #[test]
    fn names_are_prefixed_where_they_must_be() {
        let lists = [vec!["search", "b__search", "only"], vec!["search", "_x", "__"], vec!["a"]];
        let names: Vec<_> = shown(&SERVERS, &lists).into_keys().collect();
        assert_eq!(names, ["__", "_x", "a", "a__b__search", "a__search", "b__search", "only"]);
        assert_eq!(split("a___x", &SERVERS), Some((0, "_x")));
        assert_eq!(split("c__x", &SERVERS), None);
        assert_eq!(split("a__", &SERVERS), None);
    }

    fn lists() -> impl Strategy<Value = Vec<BTreeSet<String>>> {
        let name = "(a__|b__|b-c__|_)?[xy_]{1,3}";
        proptest::collection::vec(proptest::collection::btree_set(name, 0..6), 3)
    }

    fn refs(lists: &[BTreeSet<String>]) -> Vec<Vec<&str>> {
        lists.iter().map(|list| list.iter().map(String::as_str).collect()).collect()
    }

    proptest! {
        #[test]
        fn every_entry_has_one_name_and_a_shown_prefix_means_its_server(lists in lists()) {
            let lists = refs(&lists);
            let names = shown(&SERVERS, &lists);
            prop_assert_eq!(names.len(), lists.iter().map(Vec::len).sum::<usize>());
            for (name, (server, at)) in names {
                if let Some((meant, own)) = split(&name, &SERVERS) {
                    prop_assert_eq!((meant, own), (server, lists[server][at]));
                } else {
                    prop_assert_eq!(&name, lists[server][at]);
                }
            }
        }

        #[test]
        fn another_server_never_makes_a_shown_name_mean_itself(lists in lists(), without in 0..3_usize) {
            let mut fewer = lists.clone();
            fewer[without].clear();
            let (before, after) = (refs(&fewer), refs(&lists));
            let (before_names, after_names) = (shown(&SERVERS, &before), shown(&SERVERS, &after));
            for (name, (server, at)) in before_names {
                if let Some((now, place)) = after_names.get(&name) {
                    prop_assert_eq!((server, before[server][at]), (*now, after[*now][*place]));
                }
            }
        }
    }
}
