//! Which of two versions is newer.

use std::cmp::Ordering;

/// A version as semantic versioning orders them (2.0.0, section 11); what is built is no part of the order.
#[derive(Debug, PartialEq, Eq)]
struct Semantic<'v> {
    numbers: [u64; 3],
    before: Vec<&'v str>,
}

fn number(text: &str) -> Option<u64> {
    let is_written_so = text == "0" || !text.starts_with('0');
    (is_written_so && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn semantic(version: &str) -> Option<Semantic<'_>> {
    let version = version.split('+').next()?;
    let (numbers, before) =
        version.split_once('-').map_or((version, None), |(numbers, before)| (numbers, Some(before)));
    let mut parts = numbers.split('.').map(number);
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    let before: Vec<_> = before.map(|before| before.split('.').collect()).unwrap_or_default();
    (parts.next().is_none() && before.iter().all(|part| !part.is_empty())).then_some(Semantic { numbers, before })
}

impl Semantic<'_> {
    fn order(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.before.is_empty(), other.before.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => parts(&self.before, &other.before),
        })
    }
}

fn parts(one: &[&str], other: &[&str]) -> Ordering {
    let pairs = one.iter().zip(other).map(|(one, other)| match (number(one), number(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => one.cmp(other),
    });
    pairs.fold(Ordering::Equal, Ordering::then).then(one.len().cmp(&other.len()))
}

/// The order of two versions with the times at which they were published: semantic ones by their numbers, others by
/// time, and before all semantic ones.
pub(super) fn order((one, at): (&str, u64), (other, other_at): (&str, u64)) -> Ordering {
    match (semantic(one), semantic(other)) {
        (Some(one), Some(other)) => one.order(&other).then(at.cmp(&other_at)),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => at.cmp(&other_at).then_with(|| one.cmp(other)),
    }
}

/// Whether a text stands for many versions, as package managers write it: `^1.2`, `>=1`, `1.x`, `1 - 2`, `1 || 2`.
pub(super) fn is_range(version: &str) -> bool {
    let version = version.trim();
    let is_compared = version.starts_with(['^', '~', '>', '<', '=']);
    let is_joined = version.contains("||") || version.contains(" - ") || version.contains(',');
    let head = version.split(['-', '+']).next().unwrap_or_default();
    let head = head.strip_prefix('v').unwrap_or(head);
    let mut parts = head.split('.');
    let is_wild = parts.clone().any(|part| matches!(part, "x" | "X" | "*"))
        && parts.all(|part| matches!(part, "x" | "X" | "*") || part.bytes().all(|byte| byte.is_ascii_digit()));
    is_compared || is_joined || is_wild
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_ordered_as_semantic_versioning_says() {
        let rising = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.10.0",
            "2026.8.31",
            "2026.10.1",
        ];
        for pair in rising.windows(2) {
            assert_eq!(order((pair[0], 9), (pair[1], 1)), Ordering::Less, "{pair:?}");
            assert_eq!(order((pair[1], 1), (pair[0], 9)), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(order(("2024-01", 9), ("0.0.1", 1)), Ordering::Less, "others come before");
        assert_eq!(order(("two", 2), ("one", 1)), Ordering::Greater, "by time");
        assert_eq!(order(("1.0.0+a", 1), ("1.0.0+b", 1)), Ordering::Equal);
    }

    #[test]
    fn ranges_are_told_from_versions() {
        for range in ["^1.2.3", "~1.2", ">=1.0.0", "<2", "=1.0.0", "1.x", "1.2.*", "*", "x", "1.0 - 2.0", "1 || 2"] {
            assert!(is_range(range), "{range}");
        }
        for version in ["1.2.3", "2026.8.31", "1.0.0-x.7", "v1.0", "2.1.0-alpha+x", "1.1.12.post1", "xylo", "0.5.0a1"] {
            assert!(!is_range(version), "{version}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_one(a in "[0-2]\\.[0-2]\\.0(-(a|1|b\\.2))?", b in "[0-2]\\.[0-2]\\.0(-(a|1|b\\.2))?", c in ".{0,6}") {
            let of = |one: &str, other: &str| order((one, 1), (other, 1));
            prop_assert_eq!(of(&a, &b), of(&b, &a).reverse());
            prop_assert_eq!(of(&a, &c), of(&c, &a).reverse());
            if of(&a, &b) != Ordering::Greater && of(&b, &c) != Ordering::Greater {
                prop_assert!(of(&a, &c) != Ordering::Greater);
            }
        }
    }
}
