//! The fields of a line: what parts them, and what quotes hold together.

use std::borrow::Cow;

/// What may part fields, the usual first.
const SEPARATORS: [char; 4] = [',', ';', '\t', '|'];

/// What parts the fields of a line: the most frequent of those that may, outside quotes.
pub(super) fn separator(line: &str) -> char {
    let (mut counts, mut quoted) = ([0_usize; SEPARATORS.len()], false);
    for one in line.chars() {
        quoted ^= one == '"';
        if let Some(at) = SEPARATORS.iter().position(|separator| *separator == one).filter(|_| !quoted) {
            counts[at] += 1;
        }
    }
    let most = counts.iter().copied().max().unwrap_or(0);
    counts.iter().position(|count| *count == most).map_or(',', |at| SEPARATORS[at])
}

/// Whether a field says that nothing is known.
pub(super) fn is_hole(field: &str) -> bool {
    ["", "-", "na", "n/a", "nan", "null", "none"].iter().any(|hole| field.eq_ignore_ascii_case(hole))
}

/// A line, without its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) text: &'a str,
    pub(super) separator: char,
    /// Its number in the file, from 1.
    pub(super) line: u64,
}

impl<'a> Row<'a> {
    /// Its fields, without quotes and the space around them.
    pub(super) fn fields(self) -> Fields<'a> {
        Fields { rest: Some(self.text), separator: self.separator }
    }

    /// The same as strings, without empty ones at the end: some programs end each line with a separator.
    pub(super) fn names(self) -> Vec<String> {
        let mut names: Vec<String> = self.fields().map(Cow::into_owned).collect();
        while names.len() > 1 && names.last().is_some_and(String::is_empty) {
            names.pop();
        }
        names
    }
}

#[derive(Debug)]
pub(super) struct Fields<'a> {
    rest: Option<&'a str>,
    separator: char,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Cow<'a, str>;

    fn next(&mut self) -> Option<Cow<'a, str>> {
        let rest = self.rest?;
        let Some(mut from) = rest.trim_start_matches(' ').strip_prefix('"') else {
            let (field, rest) = match rest.split_once(self.separator) {
                Some((field, rest)) => (field, Some(rest)),
                None => (rest, None),
            };
            self.rest = rest;
            return Some(Cow::Borrowed(field.trim()));
        };
        let mut field = String::new();
        self.rest = loop {
            let Some((before, after)) = from.split_once('"') else {
                field.push_str(from);
                break None;
            };
            field.push_str(before);
            let Some(more) = after.strip_prefix('"') else {
                break after.split_once(self.separator).map(|(_, rest)| rest);
            };
            // Two quotes stand for one.
            field.push('"');
            from = more;
        };
        Some(Cow::Owned(field.trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Vec<String> {
        Row { text, separator: separator(text), line: 1 }.fields().map(Cow::into_owned).collect()
    }

    #[test]
    fn fields_are_parted_by_what_a_file_uses() {
        assert_eq!(fields("a, b ,,c"), ["a", "b", "", "c"]);
        assert_eq!(fields("a;b, c;d"), ["a", "b, c", "d"]);
        assert_eq!(fields("a\tb\t"), ["a", "b", ""]);
        assert_eq!(fields("a|b"), ["a", "b"]);
        assert_eq!(fields("alone"), ["alone"]);
        assert_eq!(fields(""), [""]);
    }

    #[test]
    fn quotes_hold_a_field_together() {
        assert_eq!(fields(r#""timestamp","value""#), ["timestamp", "value"]);
        assert_eq!(fields(r#" "a,b" ,"say ""so""",c"#), ["a,b", r#"say "so""#, "c"]);
        assert_eq!(fields(r#""a;b;c",d"#), ["a;b;c", "d"], "what is within quotes parts nothing");
        assert_eq!(fields(r#"a,"""#), ["a", ""]);
        assert_eq!(fields(r#""a",""#), ["a", ""], "a quote that is not closed ends with its line");
    }

    #[test]
    fn names_have_none_that_are_empty_at_the_end() {
        let row = |text| Row { text, separator: ',', line: 1 };
        assert_eq!(row(",a,,").names(), ["", "a"]);
        assert_eq!(row("").names(), [""]);
    }
}
